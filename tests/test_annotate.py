"""The commands as a user runs them: python -m wsol_tf.annotate, python -m edge.annotate."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags
from PIL import Image

from edge import annotate as edge_annotate
from edge.runtime import LocalizerRuntime
from edge_files import brightness
from helpers import run, tiny_model, varied
from wsol_tf import annotate
from wsol_tf.data import images, shapes
from wsol_tf.model.localizing import Localizing


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    varied(tiny_model(shapes.CLASSES)).save(path)
    return path


@pytest.fixture
def folder(tmp_path, rng):
    for name in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        image = rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(10, 0).repeat(10, 1)
        Image.fromarray(image).save(tmp_path / "in" / name)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"")
    return tmp_path / "in"


def coco_of(out):
    return json.loads((out / "annotations" / "instances_train.json").read_text())


def test_the_command_annotates_folders_and_names_what_is_bad(model_path, folder, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = (f"--model={model_path}", f"--output_dir={out}", folder, "--format=coco")
    assert run(annotate, *arguments, "--budget=1", "--crops") == 0
    shown = capsys.readouterr()
    assert "2 pictures annotated, 1 skipped" in shown.out
    assert "bad.jpg: the file is empty" in shown.err
    coco = coco_of(out)
    assert sorted(image["file_name"] for image in coco["images"]) == ["a__1.jpg", "b__1.jpg"]
    assert [one["name"] for one in coco["categories"]] == list(shapes.CLASSES)
    assert len((out / "to_correct.txt").read_text().splitlines()) == 1
    crops = list((out / "crops").rglob("*.jpg"))
    assert len(crops) == len(coco["annotations"]) > 0
    assert (out / "doubtful.csv").read_text().splitlines()[1].count(",") == 6

    assert run(annotate, *arguments[:3], "--format=yolo", "--crops", "--shape=box") == 0
    assert "2 pictures had been localized before." in capsys.readouterr().out
    assert sum(
        len(file.read_text().splitlines()) for file in (out / "labels").rglob("*.txt")
    ) == len(coco["annotations"])


class FakeModel(Localizing, SimpleNamespace):
    """A Localization without layers."""

    def freeze(self):
        """There are no weights."""


@pytest.fixture
def fake_model(monkeypatch, tmp_path):
    """A model that finds what is bright, in the place of any file."""

    def predict_on_batch(batch):
        maps = np.repeat(batch[..., :1].astype(np.float32) / 255, 2, axis=-1)
        logits = np.tile(np.float32([2, 0]), (len(batch), 1))
        return {"logits": logits, "score_map": maps, "localization_map": maps}

    model = FakeModel(
        input_size=32, classes=("bright", "dark"), map="mean", refine="none", top_k=5,
        offset=(0.0, 0.0),
        thresholds={"mean": 0.5}, presence_threshold=None, predict_on_batch=predict_on_batch,
        localizer=SimpleNamespace(output=np.zeros((1, 1, 1, 2))),
    )  # fmt: skip
    monkeypatch.setattr("wsol_tf.model.build.load_model", lambda path, to_train: model)
    (tmp_path / "model.keras").touch()
    return model


def test_settings_that_make_no_sense_are_refused(fake_model, folder, tmp_path, capsys):
    model, out = f"--model={tmp_path / 'model.keras'}", f"--output_dir={tmp_path / 'out'}"
    fixed = (model, out, "--format=csv", folder)
    assert run(annotate, *fixed, "--crop_margin=0.2") == 1
    assert "--crop_margin says how crops are made: pass --crops=true" in capsys.readouterr().err
    assert run(annotate, *fixed) == 0
    assert run(annotate, *fixed, "--threshold=0.3") == 1
    assert "other settings: threshold 'stored', now '0.3'" in capsys.readouterr().err
    assert run(annotate, "--model=x.tflite", *fixed[1:]) == 1
    assert "python -m edge.annotate" in capsys.readouterr().err


def test_a_model_without_a_threshold_asks_for_one(fake_model, folder, tmp_path, capsys):
    fake_model.thresholds.clear()
    model, out = f"--model={tmp_path / 'model.keras'}", f"--output_dir={tmp_path / 'out'}"
    assert run(annotate, model, out, "--format=csv", folder) == 1
    error = capsys.readouterr().err
    assert "no threshold" in error and "otsu" in error
    assert not (tmp_path / "out").exists()
    assert run(annotate, model, out, "--format=csv", folder, "--threshold=otsu") == 0


@pytest.mark.parametrize("map_", ["mean", "predicted"])
def test_an_exported_file_annotates_too(map_, folder, tmp_path, capsys):
    path = brightness(tmp_path / "x.tflite", map_=map_)
    fixed = (f"--model={path}", f"--output_dir={tmp_path / 'out'}", "--format=coco", folder)
    assert run(edge_annotate, *fixed) == 0
    coco = coco_of(tmp_path / "out")
    names = {one["id"]: one["name"] for one in coco["categories"]}
    localizer = LocalizerRuntime(path)
    found = localizer.localize(images.read_image(folder / "a" / "1.jpg"), min_area=0.1)
    (image,) = [one for one in coco["images"] if one["file_name"] == "a__1.jpg"]
    entries = [one for one in coco["annotations"] if one["image_id"] == image["id"]]
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (entry["bbox"] for entry in entries)]
    assert boxes == found.boxes.tolist() and len(boxes) > 1
    assert {names[entry["category_id"]] for entry in entries} == {found.class_name or "object"}
    np.testing.assert_allclose([entry["score"] for entry in entries], found.scores, atol=1e-4)


@pytest.mark.parametrize("program", [annotate, edge_annotate])
def test_the_help_names_the_flags(program):
    before = set(flags.FLAGS)
    program.define_flags()
    try:
        listed = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(program.__name__)}
        assert listed == set(flags.FLAGS) - before
        assert listed > {"model", "format", "budget", "crops", "max_objects", "on_bad_image"}
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
