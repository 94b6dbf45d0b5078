"""What the documentation names is there: links, anchors, modules, files."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted(
    [*(ROOT / name for name in ("README.md", "BUILD.md", "CONTRIBUTING.md", "CHANGELOG.md")),
     *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")]
)  # fmt: skip
TREE = re.search(r"## The house\n.*?```\n(.*?)```", (ROOT / "BUILD.md").read_text(), re.S).group(1)
WINGS = [path.parent for top in ("wsol_tf", "edge") for path in ROOT.glob(f"{top}/*/__init__.py")]


def name_of(path):
    return str(path.relative_to(ROOT))


def headings_of(page):
    """Anchors of a page, as code hosts and the site make them from its headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def exists(dotted):
    """Whether a dotted name is a module or a package."""
    path = ROOT / dotted.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_the_checks_find_what_they_look_for():
    assert {name_of(page) for page in PAGES} >= {"README.md", "docs/index.md", "docs/data.md"}
    assert "what-was-run-and-what-was-not" in headings_of(ROOT / "BUILD.md")
    assert exists("wsol_tf.data.shapes") and exists("edge.export")
    assert not exists("wsol_tf.shapes")
    assert {name_of(wing) for wing in WINGS} >= {"wsol_tf/data", "wsol_tf/training", "edge/export"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_a_file_and_a_heading(page):
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        target = page.parent / link if link else page
        assert target.is_file(), f"{link} is not there"
        if anchor:
            assert anchor in headings_of(target), f"{link} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_files_that_are_named_exist(page):
    text = page.read_text()
    if page.name == "CHANGELOG.md":  # it names what was there before as well
        text = re.sub(r"`python -m wsol_tf\.shapes`", "", text)
    for module in re.findall(r"python -m ((?:wsol_tf|edge)[\w.]*\w)", text):
        assert exists(module), f"there is no module {module}"
    named = re.findall(r"\b(?:wsol_tf|edge|tests|configs|benchmarks)/[\w/]*\.\w+", text)
    for path in {*named, *re.findall(r"\brequirements[\w-]*\.txt", text)}:
        assert (ROOT / path).is_file(), f"{path} is not there"


@pytest.mark.parametrize("wing", WINGS, ids=name_of)
def test_the_tree_names_every_module_of_a_wing(wing):
    modules = {path.name for path in wing.glob("*.py") if not path.name.startswith("_")}
    part = re.search(rf"\n  {wing.name}/ .*?\n(?= {{0,2}}\S)", TREE, re.S).group()
    assert modules == set(re.findall(r"\b\w+\.py\b", part))


def test_modules_of_0_1_0_have_a_new_place():
    table = (ROOT / "CHANGELOG.md").read_text().split("### Moved")[1].split("## 0.1.0")[0]
    new_places = [row.split("|")[2] for row in table.splitlines() if row.startswith("| ")][2:]
    for name in re.findall(r"`((?:wsol_tf|edge)[\w.]*)`", "".join(new_places)):
        assert exists(name) or exists(name.rpartition(".")[0]), f"{name} is not there"
