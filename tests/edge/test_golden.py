import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from edge import golden
from edge.runtime import LocalizerRuntime
from edge_files import LABELS, brightness
from helpers import run

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {name: brightness(folder / f"{name}.tflite", map_=name)
            for name in ("mean", "predicted", "all", "present")}  # fmt: skip


def test_the_picture_has_its_own_aspect_and_is_the_same_each_time():
    image = golden.picture()
    assert image.shape == (240, 320, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, golden.picture())


@pytest.mark.parametrize("name", ["mean", "predicted", "all", "present"])
def test_files_are_what_the_runtime_finds(files, name, tmp_path):
    out = tmp_path / "golden"
    assert run(golden, f"--model={files[name]}", f"--output_dir={out}") == 0
    values = json.loads((out / "golden.json").read_text())
    assert values["asked_class"] == (LABELS[0] if name == "all" else None)
    image = np.asarray(Image.open(out / "golden.png"))
    found = LocalizerRuntime(files[name]).localize(image, class_name=values["asked_class"])
    np.testing.assert_array_equal(np.asarray(Image.open(out / "golden_mask.png")) > 0, found.mask)
    assert 0 < found.mask.mean() < 1
    assert values["box"] == values["boxes"][0] == found.box.tolist()
    assert values["boxes"] == found.boxes.tolist()
    assert (values["scores"], values["areas"]) == (found.scores.tolist(), found.areas.tolist())
    assert (values["class"], values["probability"]) == (found.class_name, found.probability)
    assert values["threshold"] == 0.5
    assert [(part["class"], part["probability"], part["boxes"]) for part in values["others"]] == [
        (part.class_name, part.probability, part.boxes.tolist()) for part in found.others
    ]
    assert bool(found.others) == (name == "present")


def test_an_own_picture(files, tmp_path):
    image = np.zeros((30, 50, 3), np.uint8)
    image[:, 25:] = 255
    Image.fromarray(image).save(tmp_path / "own.png")
    arguments = f"--model={files['mean']}", f"--output_dir={tmp_path}"
    assert run(golden, *arguments, f"--image={tmp_path / 'own.png'}") == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "golden.png")), image)
    assert run(golden, *arguments, f"--image={tmp_path / 'gone.png'}") == 1


# --- the example, which needs Pillow and the runtime alone ---------------------------------------

CHECK = """
import sys
from edge import example
example.main(*sys.argv[1:])
assert not {"tensorflow", "wsol_tf", "cv2"} & set(sys.modules)
"""


def test_the_example_draws_without_tensorflow(files, tmp_path):
    image = np.full((60, 80, 3), 40, np.uint8)
    image[10:50, 20:60] = (250, 200, 250)
    Image.fromarray(image).save(tmp_path / "in.png")
    done = subprocess.run(
        [sys.executable, "-c", CHECK, files["predicted"], tmp_path / "in.png",
         tmp_path / "out.png"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "out.png: red in [" in done.stdout
    drawn = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(drawn[30, 40], image[30, 40])  # the object as it was
    np.testing.assert_array_equal(drawn[2, 2], [16, 16, 16])  # the ground: gray, 0.4 of 40
    assert (drawn == (0, 214, 255)).all(-1).sum() > 200  # the box
    quiet = subprocess.run(
        [sys.executable, "-m", "edge.example", files["predicted"], tmp_path / "in.png",
         tmp_path / "again.png"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert (quiet.returncode, quiet.stderr) == (0, "")  # nothing of LiteRT's own


def test_the_example_says_what_is_wrong(files, tmp_path):
    for arguments, sentence in (
        (["one"], "Usage: python -m edge.example"),
        ([tmp_path / "gone.tflite", "a", "b"], "can't be read: No such file"),
        ([files["mean"], tmp_path / "gone.png", "b"], "No such file"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "edge.example", *arguments],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 1 and sentence in done.stderr and "Traceback" not in done.stderr
