import os
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers import history_of
from wsol_tf.model import losses
from wsol_tf.model.optimizer import GroupSGD
from wsol_tf.training import callbacks, loop
from wsol_tf.training.ledger import Ledger, format_duration
from wsol_tf.training.watch import StopAtNaN

LOGS = {"loss": 3.0, "top1_cls": 0.5} | {name: 2.0 for name in losses.TERMS}


def fake_model(**options):
    weights = {name: 0.25 for name in losses.TERMS}
    return SimpleNamespace(
        current_weights=lambda: weights,
        optimizer=SimpleNamespace(learning_rate=0.01),
        stop_training=False,
        **options,
    )


WEIGHTED = {f"weighted_{name}": 0.25 for name in losses.TERMS}
ROW = {"epoch": 0, "step": 4, **LOGS, **WEIGHTED, "ae_left": 0.5, "ae_fg_left": 0.5,
       "pseudo_coverage": 0.5}  # fmt: skip


def ledger(tmp_path, state, said, **options):
    callback = Ledger(
        state, said.append, csv_path=str(tmp_path / "history.csv"), log_dir=str(tmp_path / "logs"),
        epochs=2, total_steps=8, batch_size=10, **options,
    )  # fmt: skip
    callback.set_model(fake_model())
    return callback


def test_the_ledger_tells_writes_and_logs_each_epoch(tmp_path):
    state, said = loop.State(), []
    callback = ledger(tmp_path, state, said)
    callback.on_train_begin()
    assert (tmp_path / "history.csv").read_text().splitlines() == ["epoch"]
    for step in range(1, 5):
        state.step, state.seconds = step, 100.0 + step / 2  # the first step compiles
        callback.on_train_batch_end(step - 1, ROW)
    state.history.append(ROW)
    callback.on_epoch_end(0, ROW)
    state.step, state.seconds = 8, 106.0
    state.history.append(ROW | {"epoch": 1, "step": 8, "loss": 1.0, "held_gt_known": 0.75})
    callback.on_epoch_end(1, ROW)
    callback.on_train_end()

    assert said == [
        "Epoch 1/2, step 4/8: loss 3.000, top1_cls 0.500, area 2.000, rate 0.01; "
        "20.0 images/s, 2 s left.",
        "  cls 2.000 (8%), cls_fg 2.000 (8%), ae 2.000 (8%), ae_fg 2.000 (8%), "
        "pseudo 2.000 (8%), bas 2.000 (8%), ac 2.000 (8%), background 2.000 (8%)",
        "Epoch 2/2, step 8/8: loss 1.000, top1_cls 0.500, area 2.000, rate 0.01, "
        "held-out gt_known 0.750; 10.0 images/s, 0 s left.",
        "  cls 2.000 (25%), cls_fg 2.000 (25%), ae 2.000 (25%), ae_fg 2.000 (25%), "
        "pseudo 2.000 (25%), bas 2.000 (25%), ac 2.000 (25%), background 2.000 (25%)",
    ]
    rows = history_of(tmp_path)
    assert [row["loss"] for row in rows] == ["3.0", "1.0"]
    assert [row["held_gt_known"] for row in rows] == ["", "0.75"]

    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    values = {
        tag: [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    expected = {"losses/loss": [3, 1], "top1_cls": [0.5, 0.5], "learning_rate": [0.01, 0.01],
                "area": [2, 2], "images_per_second": [20, 10], "held/gt_known": [0.75],
                "ae_left": [0.5, 0.5], "ae_fg_left": [0.5, 0.5],
                "pseudo_coverage": [0.5, 0.5]}  # fmt: skip
    for name in losses.TERMS:
        expected |= {f"losses/{name}": [2, 2], f"weighted/{name}": [0.25, 0.25]}
    assert values.keys() == expected.keys()
    for tag, series in expected.items():
        assert values[tag] == pytest.approx(series), tag


def test_a_ledger_that_cannot_be_written_is_said(tmp_path):
    state, said = loop.State(), []
    callback = ledger(tmp_path, state, said)
    callback.on_train_begin()
    callback.on_train_batch_end(0, ROW)
    (tmp_path / "history.csv").unlink()
    (tmp_path / "history.csv").mkdir()
    state.history.append(ROW)
    callback.on_epoch_end(0, ROW)
    assert said[-1].startswith(f"No figures of epoch 1: Is a directory in '{tmp_path}'.")
    (tmp_path / "history.csv").rmdir()
    state.history.append(ROW)
    callback.on_epoch_end(1, ROW)
    callback.on_train_end()
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3  # the first is not lost


def test_long_epochs_have_lines_in_between(tmp_path):
    state, said = loop.State(step=5, seconds=10.0), []
    callback = ledger(tmp_path, state, said, every=-1)
    callback.on_train_begin()
    callback.on_train_batch_end(0, ROW)
    state.step, state.seconds = 6, 12.0
    callback.on_train_batch_end(1, ROW)
    assert said == [
        "  step 5/8: loss 3.000; speed not known yet.",
        "  step 6/8: loss 3.000; 5.0 images/s, 4 s left.",
    ]


@pytest.mark.parametrize(
    "seconds, text",
    [(3, "3 s"), (600, "10 min"), (5 * 3600, "5.0 h"), (3 * 86400, "3.0 days")],
)
def test_durations_as_people_say_them(seconds, text):
    assert format_duration(seconds) == text


# --- the model on disk ---------------------------------------------------------------------------


def saved_value(path):
    return float(keras.saving.load_model(path).weights[0].numpy().item())


@pytest.fixture
def one_weight():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.float32([[7]])])
    model.compile("sgd")
    return model


def keep(path, model, rows, **options):
    """Ends epochs with these rows; the weight is the epoch's number. Returns (state, said)."""
    state, said = loop.State(), []
    callback = callbacks.KeepModel(path, state, log=said.append, **options)
    callback.set_model(model)
    for epoch, row in enumerate(rows):
        model.stop_training = False
        model.set_weights([np.float32([[row.pop("weight", epoch)]])])
        state.history.append({"loss": 1.0, **row})
        callback.on_epoch_end(epoch)
    return state, said


def test_only_epochs_of_finite_losses_are_saved(tmp_path, one_weight):
    path = str(tmp_path / "model.keras")
    keep(path, one_weight, [{}, {"loss": np.nan}, {"weight": np.nan}])
    assert saved_value(path) == 0
    keep(path, one_weight, [{}, {}])
    assert saved_value(path) == 1


@pytest.mark.parametrize(
    "best_by, scores, best", [("loss", (3, 1, 2, None), 1), ("gt_known", (0.1, 0.5, None, 0.5), 3)]
)
def test_the_best_model_is_kept(best_by, scores, best, tmp_path, one_weight):
    path = str(tmp_path / "model.keras")
    rows = [{} if score is None else {f"held_{best_by}": score} for score in scores]
    state, _ = keep(path, one_weight, rows, best_by=best_by)
    assert saved_value(path) == state.best_epoch == best
    assert not one_weight.stop_training


def test_patience_ends_a_run_that_gets_no_better(tmp_path, one_weight):
    path = str(tmp_path / "model.keras")
    rows = [{"held_loss": loss} for loss in (3, 1, 2)]
    _, said = keep(path, one_weight, [*rows, {}], best_by="loss", patience=2)
    assert said == [] and not one_weight.stop_training
    _, said = keep(path, one_weight, [*rows, {}, {"held_loss": 2}], best_by="loss", patience=2)
    assert one_weight.stop_training
    assert "2 validations brought no better model than that of epoch 2, by the loss" in said[0]


def test_averages_take_the_place_of_the_weights_for_a_while(one_weight):
    optimizer = GroupSGD(1.0, use_ema=True, ema_momentum=0.5)
    one_weight.compile(optimizer)
    for _ in range(2):  # weights 6 and 5; the average starts at the first
        optimizer.apply([np.float32([[1]])], one_weight.trainable_variables)
    with callbacks.averaged_weights(one_weight):
        assert one_weight.get_weights()[0].item() == 5.5
    assert one_weight.get_weights()[0].item() == 5
    one_weight.compile(GroupSGD(1.0))
    with callbacks.averaged_weights(one_weight):
        assert one_weight.get_weights()[0].item() == 5


def test_saving_that_breaks_off_leaves_the_old_file(tmp_path, one_weight):
    path = str(tmp_path / "model.keras")
    callbacks.save_model(one_weight, path)
    assert os.listdir(tmp_path) == ["model.keras"]

    def break_off(name):
        with open(name, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        callbacks.save_model(SimpleNamespace(save=break_off), path)
    assert saved_value(path) == 7


def test_a_full_disk_costs_the_run_neither_the_model_before_nor_its_end(
    tmp_path, one_weight, monkeypatch
):
    path = str(tmp_path / "model.keras")
    callbacks.save_model(one_weight, path)

    def full(self, name):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(one_weight), "save", full)
    state, said = keep(path, one_weight, [{"held_loss": 3}, {"held_loss": 1}], best_by="loss")
    assert [line.partition(" in ")[0] for line in said] == [
        f"No model of epoch {epoch}: No space left on device" for epoch in (1, 2)
    ]
    assert state.best is None and not one_weight.stop_training
    assert os.listdir(tmp_path) == ["model.keras"] and saved_value(path) == 7
    with pytest.raises(OSError, match="No space left on device: '.*model.keras'"):
        callbacks.save_model(one_weight, path)


def stop_at_nan(step, history=()):
    callback = StopAtNaN(loop.State(step=step, history=list(history)))
    callback.set_model(fake_model())
    return callback


def test_a_run_without_nan_goes_on():
    callback = stop_at_nan(6)
    callback.on_train_batch_end(0, LOGS)
    assert callback.failure == "" and not callback.model.stop_training


@pytest.mark.parametrize(
    "bad, named",
    [
        ({"loss": np.nan, "pseudo": np.nan}, "at step 5, in pseudo."),
        ({"loss": np.inf, "cls": np.inf, "ae": np.nan}, "at step 5, in cls, ae."),
        ({"loss": np.nan}, "at step 5, in a layer's own loss."),
    ],
)
def test_nan_stops_the_run_and_names_the_term(bad, named):
    callback = stop_at_nan(5, [LOGS])
    callback.on_train_batch_end(2, LOGS | bad)
    assert callback.model.stop_training
    assert named in callback.failure
    assert "The model of the last complete epoch is kept." in callback.failure


def test_nan_in_the_first_epoch_promises_no_model():
    callback = stop_at_nan(1)
    callback.on_train_batch_end(0, LOGS | {"loss": np.nan})
    assert "No model is kept." in callback.failure
