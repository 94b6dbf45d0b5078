"""Counts the modules of the project, the imports between them, and their longest parts.

    python benchmarks/structure.py [FOLDER_OF_A_CHECKOUT]

A wing is a folder with modules. An arrow is a pair of modules of which one imports the other; an
arrow between wings is a pair of wings that has one. A floor is the length of the longest chain of
imports below: modules on the lowest one import nothing of the project.
"""

import ast
import functools
import pathlib
import sys

PACKAGES = ("wsol_tf", "edge")


def modules_of(root):
    """Name -> path of every module of the project."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path, names):
    """Modules of the project that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in names else node.module)
    return found & names


def wing_of(name, path):
    """The folder of a module, or the package itself."""
    return name if path.stem == "__init__" else name.rpartition(".")[0]


def functions_of(path):
    """(lines, name) of every function and method."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node.end_lineno - node.lineno + 1, f"{path.stem}.{node.name}"


def count(root):
    """The figures of a checkout as a dict name -> value."""
    modules = modules_of(root)
    arrows = {name: imports_of(path, set(modules)) - {name} for name, path in modules.items()}
    wings = {name: wing_of(name, path) for name, path in modules.items()}
    between = {(wings[a], wings[b]) for a, below in arrows.items() for b in below}

    @functools.cache
    def floor(name, above=()):
        below = [b for b in arrows[name] if b not in above]
        return 1 + max((floor(b, (*above, name)) for b in below), default=0)

    lines = {name: len(path.read_text().splitlines()) for name, path in modules.items()}
    functions = [entry for path in modules.values() for entry in functions_of(path)]
    return {
        "modules": len(modules),
        "largest wing": max(list(wings.values()).count(wing) for wing in set(wings.values())),
        "arrows between modules": sum(map(len, arrows.values())),
        "wings": len(set(wings.values())),
        "arrows between wings": sum(a != b for a, b in between),
        "floors": max(map(floor, modules)),
        "longest file": max((n, name) for name, n in lines.items()),
        "files over 400 lines": sum(n > 400 for n in lines.values()),
        "longest function": max(functions),
        "functions over 60 lines": sum(n > 60 for n, _ in functions),
        "lines": sum(lines.values()),
    }


if __name__ == "__main__":
    ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1])
    for title, value in count(ROOT).items():
        text = f"{value[0]} ({value[1]})" if isinstance(value, tuple) else value
        print(f"{title:26}{text}")
