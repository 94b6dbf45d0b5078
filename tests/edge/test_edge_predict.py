import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from edge import predict
from edge.runtime import LocalizerRuntime
from edge_files import LABELS, SIDE, brightness
from helpers import run
from wsol_tf import predict as wsol_tf_predict
from wsol_tf.data.images import find_images
from wsol_tf.model.localizing import Localizing

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    made = {name: brightness(folder / f"{name}.tflite", map_=name)
            for name in ("mean", "predicted", "all")}  # fmt: skip
    made["refined"] = brightness(folder / "refined.tflite", map_="predicted", refine="guided")
    return made


def pictures(folder):
    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    for name, size in (("wide.png", (300, 160)), ("tall.jpg", (50, 470)), ("tiny.png", (8, 9))):
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(folder / name)
    return folder


class FakeModel(Localizing, SimpleNamespace):
    """A Localization without layers."""


def model_of(localizer):
    """A model for wsol_tf.predict that gives the outputs of a file."""

    def predict_on_batch(images):
        outputs = localizer.run(images[0])
        return {
            "localization_map": outputs["foreground_mask"][None],
            "score_map": np.zeros((1, 1, 1, len(LABELS))),
            "logits": outputs["class_scores"][None],
        }

    return FakeModel(
        input_size=SIDE, classes=LABELS, map="predicted", top_k=1,
        refine=localizer.refine, thresholds={"predicted": 0.5}, predict_on_batch=predict_on_batch,
        presence_threshold=None, offset=(0.0, 0.0),
        localizer=SimpleNamespace(output=np.zeros((1, 1, 1, 1))),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["predicted", "refined"])
def test_what_is_written_equals_what_wsol_tf_writes(name, files, tmp_path):
    paths = find_images([str(pictures(tmp_path / "in"))])
    localizer = LocalizerRuntime(files[name])
    expected, _ = wsol_tf_predict.predict(model_of(localizer), paths, str(tmp_path / "model"))
    lines, skipped = predict.predict(localizer, paths, str(tmp_path / "edge"))
    assert (lines, skipped) == (expected, {}) and len(lines) == 3
    for line in lines:
        for path in (line["overlay"], line["mask"]):
            one, other = (Image.open(tmp_path / place / path) for place in ("model", "edge"))
            np.testing.assert_array_equal(one, other)


def test_a_file_without_classifier_leaves_the_class_empty(files, tmp_path, capsys):
    folder, out = pictures(tmp_path / "in"), tmp_path / "out"
    (folder / "bad.png").write_text("no picture")
    arguments = f"--model={files['mean']}", f"--output_dir={out}"
    assert run(predict, *arguments, "--threshold=0.25", folder) == 0
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    for line in lines:
        assert (line["class"], line["probability"]) == (None, None)
        assert (line["map"], line["threshold"]) == ("mean", 0.25)
        with Image.open(out / line["mask"]) as mask:
            assert (mask.height, mask.width) == (line["size"]["height"], line["size"]["width"])
    output = capsys.readouterr()
    assert "3 pictures localized, 1 skipped" in output.out and "bad.png" in output.err
    assert "None" not in output.out
    assert run(predict, *arguments, "--on_bad_image=fail", folder) == 1
    errors = capsys.readouterr().err
    assert "bad.png: this is not a picture" in errors and "--on_bad_image=skip" in errors


def test_the_map_of_a_class(files, tmp_path, capsys):
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, :32, 0], image[32:, 32:, 2] = 255, 255
    path, out = tmp_path / "colours.png", tmp_path / "out"
    Image.fromarray(image).save(path)
    arguments = f"--model={files['all']}", f"--output_dir={out}", path
    assert run(predict, *arguments, "--class_name=blue") == 0
    (line,) = map(json.loads, (out / "predictions.jsonl").read_text().splitlines())
    assert (line["class"], line["probability"], line["map"]) == ("blue", None, "class:blue")
    np.testing.assert_allclose(line["box"], [32, 32, 64, 64], atol=4)
    assert run(predict, *arguments) == 1
    assert "name one of red, green, blue" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model={tmp}/gone.tflite", "{tmp}/a.png"], "can't be read: No such file"),
        (["--model={tmp}/a.png", "{tmp}/a.png"], "is not a .tflite file"),
        (["--class_name=red", "{tmp}/a.png"], "no class can be chosen"),
        (["--threshold=2", "{tmp}/a.png"], "Received: '2'"),
        ([], "name pictures or folders"),
        (["{tmp}/gone.png"], "there is no such file"),
    ],
)
def test_what_cannot_work_is_refused(files, arguments, sentence, tmp_path, capsys):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    options = f"--model={files['mean']}", f"--output_dir={tmp_path / 'out'}"
    assert run(predict, *options, *given) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("program", ["predict", "evaluate", "benchmark", "golden", "example"])
def test_no_program_waits_for_a_model_that_is_a_pipe(program, tmp_path):
    os.mkfifo(tmp_path / "pipe.tflite")
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    model, out = f"--model={tmp_path / 'pipe.tflite'}", f"--output_dir={tmp_path / 'out'}"
    arguments = {
        "predict": [model, out, tmp_path / "a.png"],
        "evaluate": [model, out, "--dataset=shapes", "--split=val"],
        "benchmark": [f"--models={tmp_path / 'pipe.tflite'}"],
        "golden": [model, out],
        "example": [tmp_path / "pipe.tflite", tmp_path / "a.png", tmp_path / "b.png"],
    }
    done = subprocess.run(
        [sys.executable, "-m", f"edge.{program}", *arguments[program]],
        cwd=ROOT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "pipe.tflite' can't be read: it is a pipe" in done.stderr
