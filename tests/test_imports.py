"""The direction of imports, wing by wing, and what may not be imported at all."""

import ast
import importlib
import importlib.util
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("wsol_tf/**/*.py"), *ROOT.glob("edge/**/*.py")])

# What the modules of each room may import of ours; every room may import itself. A module is a
# room where it is named here, else it belongs to its folder's.
GROUND = (
    "wsol_tf.config",
    "wsol_tf.files",
    "wsol_tf.lazy",
    "wsol_tf.keras_settings",
    "wsol_tf.progress",
)  # what everything may stand on
ROOMS = {
    "wsol_tf.config": ("wsol_tf.files",),
    "wsol_tf.files": (),
    "wsol_tf.importing": (),
    "wsol_tf.keras_settings": (),
    "wsol_tf.lazy": (),
    "wsol_tf.progress": ("wsol_tf.files",),
    "wsol_tf.quiet": (),
    "wsol_tf.signals": (),
    "wsol_tf.programs": (*GROUND, "wsol_tf.quiet", "wsol_tf.signals"),
    "wsol_tf.data": GROUND,
    # What the network needs of the data: how a picture is resized to what it sees.
    "wsol_tf.model": (*GROUND, "wsol_tf.data.transforms"),
    "wsol_tf.evaluation": (*GROUND, "wsol_tf.data", "wsol_tf.model"),
    "wsol_tf.report": (*GROUND, "wsol_tf.data", "wsol_tf.evaluation"),
    "wsol_tf.annotations": (*GROUND, "wsol_tf.data", "wsol_tf.report"),
    "wsol_tf.training": (
        *GROUND,
        "wsol_tf.programs",
        "wsol_tf.signals",
        "wsol_tf.data",
        "wsol_tf.model",
        "wsol_tf.evaluation",
        "wsol_tf.report",
    ),
    "wsol_tf.studies": (
        *GROUND,
        "wsol_tf.programs",
        "wsol_tf.signals",
        "wsol_tf.data",
        "wsol_tf.model",
        "wsol_tf.evaluation",
        "wsol_tf.report",
        "wsol_tf.training",
    ),
    "wsol_tf": ("wsol_tf",),  # the face of the package, and the programs
    "edge.arrays": (),
    "edge.runtime": ("edge.arrays",),
    "edge": ("edge", "wsol_tf"),
}
PROGRAMS = {"wsol_tf.train", "wsol_tf.evaluate", "wsol_tf.predict", "wsol_tf.annotate",
            "wsol_tf.datasets", "wsol_tf.demo", "wsol_tf.pretrain", "wsol_tf.study",
            "wsol_tf.import_bas", "wsol_tf.compare",
            "wsol_tf.runners", "wsol_tf.programs", "wsol_tf.data.shapes"}  # fmt: skip


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree):
    """Full names of everything a module imports, anywhere in it: `from a import b` gives a.b."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def attributes(tree):
    """Dotted names that a module reads, such as `flags.FLAGS`."""
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def inside(name, place):
    return name == place or name.startswith(place + ".")


def room_of(module):
    return max((room for room in ROOMS if inside(module, room)), key=len)


def test_the_checks_find_what_they_look_for():
    tree = ast.parse(
        "import a.b\nfrom wsol_tf.x import y\ndef f():\n  import tensorflow_m\n  g.h.i"
    )
    assert imported(tree) == {"a.b", "wsol_tf.x.y", "tensorflow_m"}
    assert "g.h.i" in attributes(tree)
    assert room_of("wsol_tf.model.heads") == "wsol_tf.model"
    assert room_of("wsol_tf.config") == "wsol_tf.config"
    assert room_of("wsol_tf.train") == "wsol_tf"
    assert inside("wsol_tf.data.images.read", "wsol_tf.data")
    assert not inside("wsol_tf.datasets", "wsol_tf.data")
    assert {"wsol_tf.evaluation.metrics", "edge.export.qat"} <= set(map(module_of, FILES))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_rooms_import_only_what_stands_below_them(path):
    room = room_of(module_of(path))
    legal = (*ROOMS[room], room)
    ours = {name for name in imported(tree_of(path)) if name.split(".")[0] in ("wsol_tf", "edge")}
    extra = {name for name in ours if not any(inside(name, place) for place in legal)}
    assert not extra, f"{room} imports {', '.join(sorted(extra))}"


def test_no_permission_is_stale():
    used = {room: set() for room in ROOMS}
    for path in FILES:
        used[room_of(module_of(path))] |= imported(tree_of(path))
    for room, legal in ROOMS.items():
        for place in set(legal) - set(GROUND):
            assert any(inside(name, place) for name in used[room]), f"{room} never needs {place}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_nothing_imports_what_is_closed_to_it(path):
    tree = tree_of(path)
    names = imported(tree)
    tops = {name.split(".")[0] for name in names}
    if module_of(path).startswith("wsol_tf"):
        assert "edge" not in tops
    if module_of(path) in ("edge.runtime", "edge.arrays"):
        assert not tops & {"tensorflow", "keras", "wsol_tf"}
    if module_of(path) != "edge.export.qat":
        assert "tensorflow_model_optimization" not in tops
    legacy = {name for name in names | attributes(tree) if (name + ".").startswith("tf.keras.")}
    legacy |= {name for name in names if (name + ".").startswith("tensorflow.keras.")}
    assert not legacy


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.is_relative_to(ROOT / "wsol_tf")], ids=module_of
)
def test_flags_are_read_in_programs_only(path):
    if module_of(path) not in PROGRAMS:
        assert not any(full.startswith("absl") for full in imported(tree_of(path)))


def test_programs_share_flags_and_never_read_single_ones():
    source = (ROOT / "wsol_tf" / "programs.py").read_text(encoding="utf-8")
    assert not {name for name in attributes(ast.parse(source)) if name.startswith("flags.FLAGS.")}


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("benchmarks/**/*.py")), ids=lambda path: path.stem
)
def test_what_benchmarks_import_is_there(path):
    """Some run in environments of their own, where no other test would see that a name is gone."""
    wanted = {
        (node.module, alias.name)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] in ("wsol_tf", "edge")
        for alias in node.names
    }
    for module, name in sorted(wanted):
        found = importlib.import_module(module)
        assert hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}"), name
