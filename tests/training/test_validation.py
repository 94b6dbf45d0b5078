import os

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers import tiny_model
from wsol_tf.data import transforms
from wsol_tf.data.batches import evaluation_batches
from wsol_tf.data.registry import open_dataset
from wsol_tf.training import loop, validation


@pytest.fixture(scope="module")
def model():
    source = open_dataset("shapes", "", "train", image_size=73, num_examples=1)
    built = tiny_model(source.classes)
    built.compile(run_eagerly=True, total_steps=1)
    return built


def look(model, tmp_path, source, positions, epochs=1, every=1):
    state = loop.State()
    callback = validation.Validation(
        source, positions, state, view=transforms.View(64, 73), kind="mean", rule="maps",
        every=every,
        picture_dir=str(tmp_path / "validation"), log_dir=str(tmp_path / "logs"), drawn=4,
    )  # fmt: skip
    callback.set_model(model)
    callback.on_train_begin()
    for epoch in range(epochs):
        state.history.append({"epoch": epoch})
        callback.on_epoch_end(epoch)
    callback.on_train_end()
    return state.history


def test_a_look_adds_figures_and_draws_the_same_pictures(model, tmp_path):
    source = open_dataset("shapes", "", "train", image_size=73, num_examples=6)
    before = model.get_weights()
    rows = look(model, tmp_path, source, np.arange(6), epochs=3, every=2)
    assert rows[0] == {"epoch": 0} and rows[2] == {"epoch": 2}
    assert set(rows[1]) == {
        "epoch", "held_loss", "held_area", "held_top1_cls", "held_gt_known"
    }  # fmt: skip
    assert all(np.isfinite(value) for value in rows[1].values())
    assert os.listdir(tmp_path / "validation") == ["epoch_0002.png"]
    with Image.open(tmp_path / "validation" / "epoch_0002.png") as picture:
        assert min(picture.size) > 300 and len(picture.getcolors(2**24)) > 100
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [event.step for event in events.Tensors("held/pictures")] == [1]
    for weight, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, other)


def test_the_held_out_loss_is_that_of_evaluate(model, tmp_path):
    source = open_dataset("shapes", "", "train", image_size=73, num_examples=5)
    row = look(model, tmp_path, source, np.arange(5))[0]
    (batch,) = evaluation_batches(source, np.arange(5), transforms.View(64, 73), 5)
    images = np.stack([example.image for example in batch])
    labels = np.array([example.labels[0] for example in batch])
    expected = model.evaluate(images, labels, return_dict=True, verbose=0)
    assert row["held_loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert row["held_area"] == pytest.approx(expected["ac"], rel=1e-5)


def test_without_boxes_there_is_no_localization_to_look_at(model, tmp_path):
    for index in range(4):
        folder = tmp_path / "data" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).integers(0, 256, (80, 80, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
    source = open_dataset("image_folder", str(tmp_path / "data"), "train")
    two = tiny_model(source.classes)
    two.compile(run_eagerly=True, total_steps=1)
    row = look(two, tmp_path, source, np.arange(4))[0]
    assert set(row) == {"epoch", "held_loss", "held_area", "held_top1_cls"}
    assert os.listdir(tmp_path / "validation") == ["epoch_0001.png"]


def test_pictures_that_cannot_be_written_are_said(model, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(validation.files, "write", full)
    source = open_dataset("shapes", "", "train", image_size=73, num_examples=2)
    (row,) = look(model, tmp_path, source, np.arange(2))
    assert "held_loss" in row
    assert "No pictures of epoch 1: No space left on device in" in capsys.readouterr().out


def test_pictures_that_cannot_be_read_are_no_reason_to_stop(model, tmp_path):
    source = open_dataset("shapes", "", "train", image_size=73, num_examples=2)
    assert look(model, tmp_path, source, np.arange(0))[0] == {"epoch": 0}
