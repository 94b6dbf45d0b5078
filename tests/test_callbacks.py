import os
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wsol_tf import callbacks, loop, losses

LOGS = {"loss": 3.0, "top1_cls": 0.5} | {name: 2.0 for name in losses.TERMS}


def fake_model(**options):
    weights = {name: 0.25 for name in losses.TERMS}
    return SimpleNamespace(
        current_weights=lambda: weights,
        optimizer=SimpleNamespace(learning_rate=0.01),
        stop_training=False,
        **options,
    )


def test_tensorboard_tags_and_values(tmp_path):
    callback = callbacks.TensorBoardScalars(str(tmp_path))
    callback.set_model(fake_model())
    callback.on_train_begin()
    weighted = {f"weighted_{name}": 0.5 for name in losses.TERMS}
    callback.on_epoch_end(0, LOGS | weighted | {"held_gt_known": 0.75, "epoch": 0, "step": 4})
    callback.on_epoch_end(1, LOGS | weighted | {"loss": 1.0})
    callback.on_train_end()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    values = {
        tag: [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    expected = {"losses/loss": [3, 1], "top1_cls": [0.5, 0.5], "learning_rate": [0.01, 0.01],
                "held/gt_known": [0.75]}  # fmt: skip
    for name in losses.TERMS:
        expected |= {f"losses/{name}": [2, 2], f"weighted/{name}": [0.5, 0.5]}
    assert values.keys() == expected.keys()
    for tag, series in expected.items():
        assert values[tag] == pytest.approx(series), tag


def saved_value(path):
    return float(keras.saving.load_model(path).weights[0].numpy().item())


@pytest.fixture
def one_weight():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.float32([[7]])])
    return model


def test_only_epochs_of_finite_losses_are_saved(tmp_path, one_weight):
    path = str(tmp_path / "model.keras")
    callback = callbacks.SaveEachEpoch(path)
    callback.set_model(one_weight)
    callback.on_epoch_end(0, LOGS)
    assert saved_value(path) == 7
    one_weight.set_weights([np.float32([[np.nan]])])
    callback.on_epoch_end(1, LOGS | {"ac": np.nan})
    assert saved_value(path) == 7
    one_weight.set_weights([np.float32([[8]])])
    callback.on_epoch_end(2, LOGS)
    assert saved_value(path) == 8


def test_saving_that_breaks_off_leaves_the_old_file(tmp_path, one_weight):
    path = str(tmp_path / "model.keras")
    callbacks.save(one_weight, path)
    assert os.listdir(tmp_path) == ["model.keras"]

    def break_off(name):
        with open(name, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        callbacks.save(SimpleNamespace(save=break_off), path)
    assert saved_value(path) == 7


def stop_at_nan(step, history=()):
    callback = callbacks.StopAtNaN(loop.State(step=step, history=list(history)))
    callback.set_model(fake_model())
    return callback


def test_a_run_without_nan_goes_on():
    callback = stop_at_nan(6)
    callback.on_train_batch_end(0, LOGS)
    assert callback.sentence == "" and not callback.model.stop_training


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
    assert named in callback.sentence
    assert "The model of the last whole epoch is kept." in callback.sentence


def test_nan_in_the_first_epoch_promises_no_model():
    callback = stop_at_nan(1)
    callback.on_train_batch_end(0, LOGS | {"loss": np.nan})
    assert "No model is kept." in callback.sentence


def test_history_file_has_a_row_for_each_epoch(tmp_path):
    state = loop.State(history=[{"epoch": 0, "loss": 1.5}])
    callback = callbacks.HistoryFile(str(tmp_path / "history.csv"), state)
    callback.on_epoch_end(0)
    state.history.append({"epoch": 1, "loss": 0.5, "held_loss": 2.0})
    callback.on_epoch_end(1)
    assert (tmp_path / "history.csv").read_text().splitlines() == [
        "epoch,loss,held_loss",
        "0,1.5,",
        "1,0.5,2.0",
    ]
