"""Every example runs as it stands, on little."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from PIL import Image

from helpers import tiny_model
from wsol_tf.data import shapes

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
PYTHONPATH = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
LITTLE = ("--width=0.25", "--input_size=64", "--head_width=8", "--extractor_weights=none",
          "--epochs=1", "--min_steps=0", "--validate_every=0")  # fmt: skip


def run(name, *arguments):
    """Runs an example as a user does; returns what it printed."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": PYTHONPATH}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_own_pictures(tmp_path):
    for index in range(24):
        example = shapes.draw(index, size=80)
        folder = tmp_path / "pictures" / shapes.CLASSES[example.labels[0]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(example.image).save(folder / f"{index}.png")
    # The int8 file of a model that has learned nothing is refused, as it should be.
    script = tmp_path / "own_pictures.py"
    script.write_text((EXAMPLES / script.name).read_text().replace("int8", "float32"))
    run(script, tmp_path / "pictures", tmp_path / "out", *LITTLE)
    assert (tmp_path / "out" / "files" / "localizer_float32.tflite").is_file()
    assert len(list((tmp_path / "out" / "seen").rglob("*_overlay.png"))) == 24


def test_fit_from_code(tmp_path):
    picture = tmp_path / "found.png"
    said = run("fit_from_code.py", "--epochs=1", "--pictures=16", f"--output={picture}")
    assert len(re.findall(r"test_\d+: \w+, box \[", said)) == 8
    assert Image.open(picture).width > 1000


def test_inspect_defects(tmp_path):
    said = run("inspect_defects.py", tmp_path, "--parts=6", "--epochs=1")
    assert len(re.findall(r"a new part, \w+ +-> (?:pass|fail: \w+ in \[)", said)) == 12


def test_annotate_for_labelstudio(tmp_path):
    tiny_model(shapes.CLASSES).save(tmp_path / "model.keras")
    shapes.write_voc(str(tmp_path / "data"), 3, size=64, seed=0, split="val")
    said = run("annotate_for_labelstudio.py", tmp_path / "model.keras",
               tmp_path / "data" / "JPEGImages", tmp_path / "out")  # fmt: skip
    tasks = json.loads((tmp_path / "out" / "labelstudio.json").read_text())
    assert len(tasks) == 3
    assert all(task["data"]["image"].startswith("/data/local-files/?d=JPEGImages/")
               for task in tasks)  # fmt: skip
    assert f"DOCUMENT_ROOT={tmp_path / 'data'}\n" in said
    assert str(tmp_path / "out" / "labelstudio.xml") in said


def test_score_another_method(tmp_path):
    said = run("score_another_method.py", tmp_path, "--num_images=6")
    assert "GT-known" in said
    assert (tmp_path / "scored" / "report.html").is_file()


def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / "wsol_tf.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # kept without them
    for cell in notebook.cells:
        for old, new in (
            ("EPOCHS = 8", "EPOCHS = 1"),
            ("PICTURES = 600", "PICTURES = 16"),
            ("num_examples=48", "num_examples=8"),
        ):
            cell.source = cell.source.replace(old, new)
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a notebook shows its figures
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    outputs = [x for cell in notebook.cells for x in cell.get("outputs", ())]
    assert sum("image/png" in x.get("data", ()) for x in outputs) == 2
    assert any("GT-known Loc" in x.get("text", "") for x in outputs)


def test_every_example_is_run_here_and_named_in_the_list():
    text = pathlib.Path(__file__).read_text() + (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.glob("*"):
        if path.suffix in (".py", ".ipynb", ".md") and path.name != "README.md":
            assert text.count(path.name) >= (1 if path.suffix == ".md" else 2), path.name


def test_the_app_guides_name_what_there_is():
    for guide, folder, suffix in (
        ("android_app.md", "android", "kt"),
        ("ios_app.md", "ios", "swift"),
    ):
        text = (EXAMPLES / guide).read_text()
        named = set(re.findall(rf"\w+\.{suffix}\b", text))
        assert named == {path.name for path in (ROOT / "edge" / folder).glob(f"*.{suffix}")}
        for link in re.findall(r"\]\(([^)]+)\)", text):
            assert (EXAMPLES / link).exists(), link
