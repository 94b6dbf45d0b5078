"""Training from code, on data sets that are opened by the caller."""

import dataclasses
import os
import shutil
import signal
import types

import numpy as np
import pytest

from helpers import RUN_FILES, history_of, metrics_of
from wsol_tf import signals, training
from wsol_tf.config import Config
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.source import subset
from wsol_tf.evaluation.outcomes import LINES, parse_outcomes
from wsol_tf.model.localization import Localization
from wsol_tf.training import callbacks, finishing, run


def settings(folder, **others):
    values = {"input_size": 64, "head_width": 8, "extractor_weights": "none", "epochs": 1,
              "batch_size": 4, "holdout": 0.25, "output_dir": str(folder)}  # fmt: skip
    return Config(**{**values, **others})


@pytest.fixture
def pictures():
    return open_dataset("shapes", "", "train", image_size=73, num_examples=12)


@pytest.fixture
def never_opened(monkeypatch):
    """Refuses to open what the settings name."""

    def refuse(*_, **__):
        raise AssertionError("the data set of the settings was opened")

    monkeypatch.setattr(run.splits, "open_dataset", refuse)


def test_own_pictures_are_trained_on_and_their_held_out_part_is_scored(
    tmp_path, pictures, quick, never_opened
):
    said = []
    model, figures = training.train(
        settings(tmp_path, data_dir="/nowhere", dataset="csv"), pictures, log=said.append
    )
    assert isinstance(model, Localization) and model.classes == pictures.classes
    assert model.thresholds == figures["thresholds"]
    assert figures == metrics_of(tmp_path)
    assert figures["scored_on"] == f"held-out part of {pictures.name}"
    assert figures["threshold_chosen_on_scored"] and not figures["interrupted"]
    assert (figures["num_images"], figures["num_training_images"]) == (3, 9)
    assert set(os.listdir(tmp_path)) == RUN_FILES
    assert said[0].startswith(f"{pictures.name}: 12 pictures, 4 classes")
    assert not any("--" in line for line in said)


def test_own_pictures_can_be_scored(tmp_path, pictures, quick, never_opened):
    scored = dataclasses.replace(subset(pictures, range(5)), name="my pictures")
    _, figures = training.train(settings(tmp_path), pictures, scored, log=lambda line: None)
    assert (figures["scored_on"], figures["num_images"]) == ("my pictures", 5)
    assert not figures["threshold_chosen_on_scored"]


def test_what_becomes_of_each_picture_is_told_at_the_threshold_of_the_table(
    tmp_path, pictures, quick
):
    """Of the map once more with its components as they are, too."""
    config = settings(tmp_path, separate=True, localizer="agnostic")
    _, figures = training.train(config, pictures, log=lambda line: None)
    lines = parse_outcomes((tmp_path / LINES).read_text())
    for kind, scored in (("mean", figures), ("whole", figures["other_maps"]["whole"])):
        assert scored["threshold"] == figures["thresholds"]["mean"]
        ious = [line["iou"][kind] for line in lines]
        assert np.mean(ious) == pytest.approx(scored["miou_box"], abs=1e-6)


def test_progress_is_printed_without_flags(tmp_path, quick, capsys):
    config = settings(tmp_path, num_examples=12, val_split="")
    training.train(config)
    output = capsys.readouterr().out
    assert "Epoch 1/1, step 3/3: loss " in output and "Wrote run.flags" in output
    training.train(config)
    assert "another `output_dir`, or pass `resume=false`" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["my birds train", "shapes train"])
def test_drawn_features_are_for_drawn_objects(tmp_path, pictures, quick, name):
    said = []
    config = settings(tmp_path, extractor_weights="drawn")
    training.train(config, dataclasses.replace(pictures, name=name), log=said.append)
    warned = any(line.startswith("Warning: `extractor_weights=drawn`") for line in said)
    assert warned == (name == "my birds train")


def test_a_run_on_own_pictures_is_resumed_and_needs_the_same_ones(
    tmp_path, pictures, quick, monkeypatch
):
    config = settings(tmp_path, epochs=2)

    def terminate(self, epoch, logs=None):
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(callbacks.KeepModel, "on_epoch_end", terminate)
        with pytest.raises(signals.Preempted, match="Ended by SIGTERM at step 3 of 5"):
            training.train(config, pictures)
    others = subset(pictures, np.arange(11, -1, -1))
    with pytest.raises(ValueError, match="began with other pictures or labels .*`resume=false`"):
        training.train(config, others)
    said = []
    _, figures = training.train(config, pictures, log=said.append)
    assert "Resumed at step 3." in said
    assert figures["epochs"] == 2


def test_few_pictures_are_passed_more_often_until_the_least_steps_are_done(
    tmp_path, pictures, quick
):
    config = settings(tmp_path, min_steps=6)
    model, figures = training.train(config, pictures)
    assert figures["epochs"] == 1  # of three passes of 9 / 4 steps
    assert model.total_steps == 7 == int(model.optimizer.iterations)
    said = []
    training.train(config, pictures, log=said.append)
    assert "is finished" in said[-1]


def test_pictures_that_cannot_be_used_are_refused(tmp_path, pictures):
    with pytest.raises(TypeError, match="`dataset` must be a Source.*Received: a list"):
        training.train(settings(tmp_path), [])
    three = open_dataset("shapes", "", "val", num_examples=4, classes=pictures.classes[:3])
    with pytest.raises(ValueError, match="must have the classes that are trained on: .*Received"):
        training.train(settings(tmp_path), pictures, three)
    with pytest.raises(ValueError, match="`output_dir` is empty"):
        training.train(settings(""), pictures)
    blind = dataclasses.replace(pictures, has_boxes=False)
    with pytest.raises(ValueError, match="Use `threshold_from=maps`"):
        training.train(settings(tmp_path, threshold_from="boxes"), blind)
    with pytest.raises(ValueError, match="Use `best_by=loss`"):
        training.train(settings(tmp_path, best_by="gt_known"), blind)
    with pytest.raises(ValueError, match="`best_by=loss` needs held-out pictures"):
        training.train(settings(tmp_path, best_by="loss", holdout=0.0), pictures)
    assert not (tmp_path / "run.flags").exists()


def test_the_place_of_maps_is_measured_on_pictures_of_objects(pictures, monkeypatch):
    seen = []
    monkeypatch.setattr(
        finishing.alignment, "measure", lambda _, images: seen.extend(images) or (0, 0)
    )
    localizer = types.SimpleNamespace(output=np.zeros((1, 8, 8, 1)))
    model = types.SimpleNamespace(
        background_id=int(pictures.labels[0][0]), input_size=64, resize_size=73, localizer=localizer
    )
    finishing._align(
        types.SimpleNamespace(config=Config(), source=pictures, model=model, log=lambda line: None)
    )
    with_object = [own for own in pictures.labels if model.background_id not in own]
    assert 0 < len(seen) == len(with_object) < len(pictures)


@pytest.mark.parametrize("best_by", ["last", "loss"])
def test_a_folder_that_is_removed_meanwhile_comes_back_with_all_files(
    best_by, tmp_path, pictures, quick, monkeypatch
):
    folder, said = tmp_path / "run", []

    class Remove(callbacks.KeepModel):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                shutil.rmtree(folder)

    monkeypatch.setattr(callbacks, "KeepModel", Remove)
    config = settings(folder, epochs=3, best_by=best_by)
    _, figures = training.train(config, pictures, log=said.append)
    assert [f"'{folder}' was removed" in line for line in said].count(True) == 1
    assert any("The best model so far was in it" in line for line in said) == (best_by == "loss")
    assert set(os.listdir(folder)) == RUN_FILES and figures == metrics_of(folder)
    assert [row["epoch"] for row in history_of(folder)] == ["0", "1", "2"]
    assert said[-1].startswith("Wrote run.flags, model.keras, history.csv")


def test_damaged_figures_of_a_finished_run_are_named(tmp_path, pictures, quick):
    training.train(settings(tmp_path), pictures, log=lambda line: None)
    for text in ("{", "[]", "[" * 100_000):
        (tmp_path / "metrics.json").write_text(text)
        with pytest.raises(ValueError, match="metrics.json: th"):
            training.train(settings(tmp_path), pictures, log=lambda line: None)
