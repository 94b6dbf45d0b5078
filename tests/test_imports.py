"""The direction of imports, and what may not be imported at all."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted([*ROOT.glob("wsol_tf/*.py"), *ROOT.glob("edge/*.py")])
OURS = {path.stem for path in ROOT.glob("wsol_tf/*.py")} - {"__init__"}
PROGRAMS = {"train", "evaluate", "predict", "demo", "sweep"}

# What each module may import of ours. Modules that are not named are programs: all is legal.
LEGAL = {
    **dict.fromkeys(
        ("charts", "config", "definitions", "records", "losses", "extractors", "pictures",
         "images", "optimizer", "programs", "level_sets", "strategies", "checkpoints",
         "workers"), set()
    ),
    "heads": {"extractors"},
    "baselines": {"extractors"},
    "stored_maps": {"images"},
    "score_maps": {"level_sets"},
    "metrics": {"score_maps"},
    "standard_metrics": {"level_sets"},
    "report": {"charts", "definitions", "metrics"},
    "keras_metrics": {"metrics", "score_maps"},
    "shapes": {"records"},
    "sources": {"images", "records"},
    "folders": {"images", "records", "sources"},
    "tables": {"images", "records", "sources"},
    "tfds_sources": {"folders", "images", "records", "sources"},
    "datasets": {"folders", "images", "pictures", "programs", "records", "shapes", "sources",
                 "tables", "tfds_sources"},
    "pipeline": {"images", "records", "sources"},
    "model": {"config", "extractors", "heads", "losses", "optimizer", "score_maps"},
    "scoring": {"datasets", "definitions", "metrics", "pictures", "pipeline", "score_maps",
                "standard_metrics"},
    "loop": {"strategies"},
    "callbacks": {"losses", "scoring"},
    "validation": {"callbacks", "pictures", "pipeline", "score_maps", "scoring"},
}  # fmt: skip


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


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


def ours_in(path):
    parts = (name.split(".") for name in imported(tree_of(path)))
    return {part[1] for part in parts if part[0] == "wsol_tf" and part[1] in OURS}


def test_the_checks_find_what_they_look_for():
    tree = ast.parse(
        "import a.b\nfrom wsol_tf.x import y\ndef f():\n  import tensorflow_m\n  g.h.i"
    )
    assert imported(tree) == {"a.b", "wsol_tf.x.y", "tensorflow_m"}
    assert "g.h.i" in attributes(tree)
    assert ours_in(ROOT / "wsol_tf" / "heads.py") <= {"extractors"}
    assert "score_maps" in ours_in(ROOT / "wsol_tf" / "metrics.py")


@pytest.mark.parametrize("name", sorted(OURS - PROGRAMS))
def test_modules_import_only_what_stands_below_them(name):
    assert name in LEGAL, "a new module: say in LEGAL what it may import"
    extra = ours_in(ROOT / "wsol_tf" / f"{name}.py") - LEGAL[name]
    assert not extra, f"{name} imports {', '.join(sorted(extra))}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_nothing_imports_what_is_closed_to_it(path):
    tree = tree_of(path)
    names = imported(tree)
    tops = {name.split(".")[0] for name in names}
    if path.parent.name == "wsol_tf":
        assert "edge" not in tops
    if path.stem == "runtime":
        assert not tops & {"tensorflow", "keras", "wsol_tf"}
    if (path.parent.name, path.stem) != ("edge", "qat"):
        assert "tensorflow_model_optimization" not in tops
    legacy = {name for name in names | attributes(tree) if (name + ".").startswith("tf.keras.")}
    legacy |= {name for name in names if (name + ".").startswith("tensorflow.keras.")}
    assert not legacy


@pytest.mark.parametrize("name", sorted(OURS - PROGRAMS - {"config", "datasets", "shapes"}))
def test_flags_are_read_in_programs_only(name):
    # config makes flags out of the settings and back; datasets and shapes are programs as well.
    assert not any(
        full.startswith("absl") for full in imported(tree_of(ROOT / f"wsol_tf/{name}.py"))
    )


def test_config_takes_flags_and_never_reads_single_ones():
    source = (ROOT / "wsol_tf" / "config.py").read_text(encoding="utf-8")
    assert not {name for name in attributes(ast.parse(source)) if name.startswith("flags.FLAGS.")}
