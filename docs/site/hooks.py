"""What the site needs besides docs/: the pages and files above it, the API, and a last check.

MkDocs builds docs/ alone. Pages of the repository's root become pages of the site, other files that
a page links to are shown as text, and the links to both are rewritten: one link works on a code
host and in the site. The pages of docs/reference/ name a package, and get its public names and its
modules here. A page that would load anything from the network fails the build.
"""

import ast
import pathlib
import posixpath
import re

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
ROOT_PAGES = {
    "README.md": "overview.md",  # MkDocs would take a README for the home page
    "BUILD.md": "build.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"\]\((?![a-z]+:|[#/])([^)#\s]+)(#[^)\s]*)?\)")
API = re.compile(r"^<!-- (names|modules) of ([\w.]+) -->$", re.MULTILINE)
EXTERNAL = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|link)\b"
    r"[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>"
    r"|(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\s]*"
)


def on_files(files, config):
    """Adds the pages of the root."""
    for path, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Points links at their places in the site, and fills in the API."""
    source = pathlib.Path(page.file.abs_src_path)

    def rewritten(match):
        link, anchor = match[1], match[2] or ""
        target = (source.parent / link).resolve()
        if not target.is_file() or not target.is_relative_to(ROOT):
            return match[0]  # MkDocs says what is wrong with it
        path = target.relative_to(ROOT).as_posix()
        place = ROOT_PAGES.get(path) or path.removeprefix("docs/")
        if place == path:
            place, anchor = f"files/{path}.txt", ""
            if files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(target)))
        return f"]({posixpath.relpath(place, posixpath.dirname(page.file.src_uri))}{anchor})"

    def filled(match):
        return {"names": names_of, "modules": modules_of}[match[1]](match[2])

    return API.sub(filled, LINK.sub(rewritten, markdown))


def names_of(package):
    """A table of what a package offers, as its face says it to type checkers."""
    folder = ROOT / package.replace(".", "/")
    face = next(path for path in (folder / "__init__.pyi", folder / "__init__.py") if path.exists())
    rows = []
    for node in ast.walk(ast.parse(face.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.module in (
            "typing",
            "wsol_tf",
            "wsol_tf.lazy",
        ):
            continue
        module = f"{package}.{node.module or ''}".rstrip(".") if node.level else node.module
        for alias in node.names:
            if (ROOT / module.replace(".", "/") / alias.name).is_dir():
                continue  # a package in the package has a page of its own
            full, public = f"{module}.{alias.name}", f"{package}.{alias.asname or alias.name}"
            rows.append(f"| [`{public}`][{full}] | {summary_of(module, alias.name)} |")
    return "\n".join(["| name | |", "|---|---|", *sorted(rows)])


def summary_of(module, name):
    """The first sentence about a function or class."""
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    named = [node for node in tree.body if getattr(node, "name", "") == name]
    docstring = (ast.get_docstring(named[0]) if named else "") or ""
    return " ".join(docstring.split("\n\n")[0].split())


def modules_of(package):
    """Every module of a package, for mkdocstrings."""
    paths = sorted((ROOT / package.replace(".", "/")).glob("[!_]*.py"))
    return "\n\n".join(f"::: {package}.{path.stem}" for path in paths)


def on_post_build(config):
    """Fails where a page or a style sheet loads something from the network."""
    site = pathlib.Path(config.site_dir)
    for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        found = EXTERNAL.search(path.read_text(encoding="utf-8"))
        if found:
            raise PluginError(f"{path.relative_to(site)} needs the network: {found[0]}")
