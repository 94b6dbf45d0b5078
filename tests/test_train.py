import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from PIL import Image

from helpers import (
    ROOT,
    RUN_FILES,
    TINY,
    history_of,
    make_quick,
    metrics_of,
    run,
    start,
    undefined_names,
)
from wsol_tf import config, evaluate, predict, train
from wsol_tf.config import MAPS
from wsol_tf.data import shapes
from wsol_tf.data.registry import holdout, open_dataset
from wsol_tf.model.build import load_model
from wsol_tf.model.localization import Localization

SHAPES = (*TINY, "--num_examples=48", "--epochs=2", "--batch_size=8")
KEYS = ("gt_known_loc", "top1_loc", "top5_loc", "top1_cls", "top5_cls", "miou_box", "threshold",
        "gt_known_loc_oracle", "oracle_threshold", "num_images")  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on drawn pictures, of a network of a few layers."""
    folder = tmp_path_factory.mktemp("run") / "new" / "run"
    with pytest.MonkeyPatch.context() as patched:
        make_quick(patched.setattr)
        assert run(train, *SHAPES, f"--output_dir={folder}") == 0
    return folder


@pytest.fixture
def voc(tmp_path):
    """Drawn pictures in VOC layout, 18 to train on and 6 to score."""
    folder = tmp_path / "voc"
    shapes.write_voc(str(folder), 18, size=80, seed=0, split="train")
    shapes.write_voc(str(folder), 6, size=80, seed=0, split="val")
    return folder


# --- a whole run ---------------------------------------------------------------------------------


def test_run_writes_the_files_of_the_contract(finished):
    assert set(os.listdir(finished)) == RUN_FILES
    assert os.listdir(finished / "logs")
    for name in ("curves.png", "contact_sheet.png"):
        with Image.open(finished / name) as picture:
            assert min(picture.size) > 100 and len(picture.getcolors(2**24)) > 10


def test_history_has_each_term_of_each_epoch(finished):
    rows = history_of(finished)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    held = {f"held_{name}" for name in ("loss", "area", "top1_cls", "gt_known")}
    assert set(rows[0]) == {"epoch", "step", *Localization.STEP_VALUES, *held}
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())


def test_metrics_have_the_keys_of_the_contract(finished):
    metrics = metrics_of(finished)
    for key in KEYS:
        assert isinstance(metrics[key], int | float), key
    for key in KEYS[:7] + KEYS[7:9]:
        assert 0 <= metrics[key] <= 1, key
    assert undefined_names(metrics) == set()
    assert metrics["num_images"] == 16  # a third of the training pictures
    assert metrics["scored_on"] == "val"
    assert metrics["num_training_images"] + metrics["num_held_out_images"] == 48
    assert metrics["num_threshold_images"] == 48  # those that were trained on as well
    assert (metrics["interrupted"], metrics["epochs"]) == (False, 2)
    assert metrics["thresholds_from"] == "maps"
    assert metrics["threshold_by_maps"] == metrics["threshold"]
    assert metrics["gt_known_loc_by_maps"] == pytest.approx(metrics["gt_known_loc"])
    assert 0 <= metrics["gt_known_loc_by_boxes"] <= metrics["gt_known_loc_oracle"]
    assert metrics["threshold"] == metrics["thresholds"]["mean"]
    assert set(metrics["other_maps"]) == {"true", "cam"}
    assert metrics["skipped"] == {}


def test_model_carries_classes_thresholds_and_size(finished):
    model = load_model(str(finished / "model.keras"))
    assert model.classes == shapes.CLASSES
    assert model.thresholds == metrics_of(finished)["thresholds"]
    assert set(model.thresholds) == set(MAPS)
    assert 0 < model.presence_threshold == metrics_of(finished)["presence_threshold"] <= 1
    assert (model.input_size, model.resize_size, model.map) == (64, 73, "mean")


def test_run_flags_hold_every_setting(finished):
    given = {line.split("=")[0].lstrip("-"): line.partition("=")[2]
             for line in (finished / "run.flags").read_text().splitlines()
             if not line.startswith("#")}  # fmt: skip
    assert list(given) == [field.name for field in dataclasses.fields(config.Config)]
    assert given["output_dir"] == str(finished)
    assert (given["epochs"], given["width"], given["dilation"]) == ("2", "0.25", "true")


def test_run_flags_repeat_the_run_to_the_digit(finished, tmp_path):
    again = start(
        f"--flagfile={finished / 'run.flags'}", f"--output_dir={tmp_path / 'again'}",
        command=(ROOT / "tests" / "studies" / "toy_train.py",),
    )  # fmt: skip
    output, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert (tmp_path / "again" / "history.csv").read_text() == (
        finished / "history.csv"
    ).read_text()
    timeless = [metrics_of(folder) for folder in (finished, tmp_path / "again")]
    assert timeless[0].pop("minutes") > 0 and timeless[1].pop("minutes") > 0
    assert timeless[0] == timeless[1]
    for text in ("48 pictures, 4 classes", "random weights", "Score-map threshold", "Wrote"):
        assert text in output


# --- data of one's own ---------------------------------------------------------------------------


def test_voc_folder_with_broken_pictures(voc, tmp_path, quick, capsys):
    (voc / "JPEGImages" / "train_00003.jpg").write_bytes(b"")
    (voc / "JPEGImages" / "train_00004.jpg").write_text("<html>not found</html>")
    (voc / "JPEGImages" / "val_00002.jpg").write_bytes(
        (voc / "JPEGImages" / "val_00001.jpg").read_bytes()[:300]
    )
    data = ("--dataset=voc_folder", f"--data_dir={voc}")
    folder = tmp_path / "run"
    arguments = (*TINY, *data, "--epochs=1", "--batch_size=6", f"--output_dir={folder}")
    assert run(train, *arguments) == 0
    output = capsys.readouterr().out
    assert "1 x the file is empty: train_00003" in output
    assert "1 x this is a web page or XML, not a picture: train_00004" in output
    metrics = metrics_of(folder)
    assert list(metrics["skipped"]) == ["val_00002"]
    assert metrics["num_images"] == 5
    assert metrics["miou_mask"] is not None
    assert set(os.listdir(folder)) == RUN_FILES

    model = f"--model={folder / 'model.keras'}"
    assert run(evaluate, model, *data, f"--output_dir={tmp_path / 'scored'}") == 0
    scored = metrics_of(tmp_path / "scored")
    for key in KEYS:
        assert scored[key] == metrics[key], key
    assert run(predict, model, f"--output_dir={tmp_path / 'seen'}", voc / "JPEGImages") == 0
    assert len((tmp_path / "seen" / "predictions.jsonl").read_text().splitlines()) == 21


def test_image_folder_without_boxes(tmp_path, quick, capsys):
    for index in range(12):
        example = shapes.draw(index, size=80)
        folder = tmp_path / "data" / ("odd" if index % 2 else "even")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(example.image).save(folder / f"{index}.png")
    (tmp_path / "data" / "odd" / "notes.txt").write_text("no picture")
    run_folder = tmp_path / "run"
    arguments = ("--dataset=image_folder", f"--data_dir={tmp_path / 'data'}", "--epochs=1",
                 "--batch_size=4", "--holdout=0.25", f"--output_dir={run_folder}")  # fmt: skip
    assert run(train, *TINY, *arguments) == 0
    output = capsys.readouterr().out
    assert "No split 'val' to score on" in output
    assert "from the maps of 12 training pictures, without boxes; half of them suggest 0." in output
    assert "odd/notes.txt" in output
    metrics = metrics_of(run_folder)
    assert metrics["gt_known_loc"] is None and 0 <= metrics["top1_cls"] <= 1
    assert metrics["scored_on"] == "held-out part of train"
    assert (metrics["num_images"], metrics["thresholds_from"]) == (3, "maps")
    assert set(os.listdir(run_folder)) == RUN_FILES
    assert load_model(str(run_folder / "model.keras")).classes == ("even", "odd")

    picture = tmp_path / "data" / "odd" / "1.png"
    model = f"--model={run_folder / 'model.keras'}"
    assert run(predict, model, f"--output_dir={tmp_path / 'seen'}", picture) == 0


def test_held_out_pictures_that_cannot_be_read_are_replaced(voc, tmp_path, quick, capsys):
    source = open_dataset("voc_folder", str(voc), "train")
    _, held = holdout(source.labels, 0.1, 0)
    for position in held:
        (voc / "JPEGImages" / f"{source.image_ids[position]}.jpg").write_bytes(b"")
    folder = tmp_path / "run"
    arguments = ("--dataset=voc_folder", f"--data_dir={voc}", "--epochs=1", "--batch_size=16")
    assert run(train, *TINY, *arguments, "--val_split=", f"--output_dir={folder}") == 0
    assert f"{len(held)} x the file is empty" in capsys.readouterr().out
    assert metrics_of(folder)["num_images"] == 18 - len(held)
    assert set(os.listdir(folder)) == RUN_FILES


def test_no_readable_picture_is_refused(voc, tmp_path, quick, capsys):
    for path in (voc / "JPEGImages").iterdir():
        path.write_bytes(b"")
    arguments = ("--dataset=voc_folder", f"--data_dir={voc}", "--batch_size=8", "--val_split=")
    assert run(train, *TINY, *arguments, f"--output_dir={tmp_path / 'run'}") == 1
    errors = capsys.readouterr().err
    assert "no picture can be read" in errors and "the file is empty" in errors


@pytest.fixture
def inspected(tmp_path):
    """A table of drawn objects, all of one class, and of flat pictures that show none."""
    rng = np.random.default_rng(0)
    rows = ["path,label,xmin,ymin,xmax,ymax,split"]
    for i in range(24):
        split = "train" if i < 16 else "val"
        image, label, box = rng.integers(0, 256, (80, 80, 3)).astype(np.uint8) // 8, "ok", ",,,"
        if i % 2:
            example = shapes.draw(i, size=80, split=split)
            image, label = example.image, "fault"
            box = ",".join(f"{edge:.0f}" for edge in example.boxes[0])
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{label},{box},{split}")
    (tmp_path / "data.csv").write_text("\n".join(rows))
    return tmp_path


def test_one_class_of_objects_beside_pictures_without_any(inspected, quick, capsys):
    folder = inspected / "run"
    data = ("--dataset=csv", f"--data_dir={inspected}", "--background_class=ok")
    arguments = (*TINY, *data, "--epochs=2", "--batch_size=8", "--localizer=agnostic")
    assert run(train, *arguments, f"--output_dir={folder}") == 0
    output = capsys.readouterr().out
    assert "4 without any object" in output and "background" in output
    figures = metrics_of(folder)
    assert (figures["num_empty"], figures["num_images"]) == (4, 8)
    assert 0 <= figures["false_area"] <= 1 and not undefined_names(figures)
    assert sum(figures["outcomes"].values()) == 4  # those with an object
    assert figures["per_class"]["classes"]["ok"]["gt_known_loc"] is None
    assert figures["num_threshold_images"] == 8
    assert all(float(row["background"]) > 0 for row in history_of(folder))
    assert load_model(folder / "model.keras").background_class == "ok"


def test_a_background_class_that_is_not_there_is_refused(inspected, quick, capsys):
    arguments = (*TINY, "--dataset=csv", f"--data_dir={inspected}", "--background_class=good")
    assert run(train, *arguments, "--batch_size=8", f"--output_dir={inspected / 'run'}") == 1
    assert "--background_class 'good' is none of the classes: fault, ok" in capsys.readouterr().err


# --- what is refused up front --------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--dataset=voc_folder"], "set --data_dir to it"),
        (["--dataset=voc_folder", "--data_dir={tmp}/none"], "is not a folder"),
        (["--dataset=voc_folder", "--data_dir={tmp}/voc", "--split=test"], "Legal splits here"),
        (["--dataset=voc_folder", "--data_dir={tmp}/voc", "--split=empty"], "'empty' is empty"),
        (["--dataset=image_folder", "--data_dir={tmp}/empty"], "has no class folders"),
        (["--output_dir={tmp}/file"], "can't be made: a file has this name"),
        (["--output_dir={tmp}/file/run"], "can't be made: Not a directory"),
        (["--output_dir="], "--output_dir is empty"),
        (["--batch_size=64"], "Lower --batch_size"),
        (["--input_size=70"], "multiple of 32"),
        (["--epochs=0"], "--epochs must be at least 1"),
        (["--lr_drops=soon"], "--lr_drops must be shares"),
        (["--split=trian"], "Unknown split 'trian'"),
        (["--extractor_weights={tmp}/none.h5"], "none.h5"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(arguments, sentence, tmp_path, capsys):
    (tmp_path / "voc" / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "voc" / "ImageSets" / "Main" / "empty.txt").write_text("\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way")
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    settings = (*TINY, "--num_examples=24", "--batch_size=8", f"--output_dir={tmp_path / 'run'}")
    assert run(train, *settings, *given) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("Error: ") and sentence in errors
    assert not (tmp_path / "run" / "model.keras").exists()


@pytest.mark.parametrize("argument", ["--dataset=vocc", "--map=xyz", "--epochs=many", "--epoch=3"])
def test_flags_that_are_no_settings_are_refused(argument, tmp_path):
    with pytest.raises(flags.Error, match=argument.split("=")[0].lstrip("-")):
        run(train, argument, f"--output_dir={tmp_path}")


def test_refusals_as_a_user_sees_them(tmp_path):
    output_dir = f"--output_dir={tmp_path}"
    for refused, sentence in (
        (start("--dataset=vocc", output_dir), "one of <shapes|image_folder|csv|"),
        (start("stray", output_dir), "settings are given as --name=value"),
    ):
        output, errors = refused.communicate(timeout=120)
        assert refused.returncode == 1
        assert sentence in output + errors
        assert "Traceback" not in errors


# --- weak supervision ----------------------------------------------------------------------------

WITHOUT_BOXES = """
import json, sys, numpy as np, tensorflow as tf
from wsol_tf import programs
from wsol_tf.training.run import train
tf.config.experimental.enable_op_determinism()
runs = []
for data_dir in sys.argv[1:3]:
    settings = programs.from_flagfile("/dev/null", *sys.argv[3:], f"--data_dir={data_dir}",
                                    f"--output_dir={data_dir}/run")
    runs.append(train(settings, log=lambda line: None))
(model, metrics), (blind, blind_metrics) = runs
print(json.dumps({
    "same": [bool(np.array_equal(a, b)) for a, b in zip(model.weights, blind.weights)],
    "thresholds": [metrics["thresholds"], blind_metrics["thresholds"]],
    "gt_known_loc": [metrics["gt_known_loc"], blind_metrics["gt_known_loc"]],
}))
"""


def test_training_without_boxes_gives_the_same_weights_and_threshold(voc, tmp_path):
    blind = tmp_path / "blind"
    shutil.copytree(voc, blind)
    shutil.rmtree(blind / "SegmentationClass", ignore_errors=True)
    for path in (blind / "Annotations").iterdir():
        path.write_text(re.sub(r"<bndbox>.*?</bndbox>", "", path.read_text(), flags=re.S))
    arguments = (*TINY, "--dataset=voc_folder", "--epochs=2", "--batch_size=4", "--holdout=0.25",
                 "--pseudo_start=0", "--localization_start=0", "--erasing_start=0")  # fmt: skip
    command = [sys.executable, "-c", WITHOUT_BOXES, str(voc), str(blind), *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert len(found["same"]) > 50 and all(found["same"])
    assert found["thresholds"][0] == found["thresholds"][1]
    assert found["gt_known_loc"][0] is not None and found["gt_known_loc"][1] is None


def test_threshold_from_boxes_needs_boxes(voc, tmp_path, quick, capsys):
    arguments = (*TINY, "--dataset=voc_folder", f"--data_dir={voc}", "--epochs=1",
                 "--batch_size=4", "--holdout=0.25", "--threshold_from=boxes")  # fmt: skip
    assert run(train, *arguments, f"--output_dir={tmp_path / 'run'}") == 0
    metrics = metrics_of(tmp_path / "run")
    assert metrics["thresholds_from"] == "boxes"
    assert metrics["threshold"] == metrics["threshold_by_boxes"]
    for path in (voc / "Annotations").iterdir():
        path.write_text(re.sub(r"<bndbox>.*?</bndbox>", "", path.read_text(), flags=re.S))
    assert run(train, *arguments, f"--output_dir={tmp_path / 'other'}") == 1
    assert "Use --threshold_from=maps" in capsys.readouterr().err
