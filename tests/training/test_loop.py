"""The loop: strategies against one device; epochs, checkpoints and signals at the right steps."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import free_ports
from wsol_tf import signals
from wsol_tf.training import loop

TESTS = pathlib.Path(__file__).parents[1]
# Each is trained under every strategy; batches run across the ends of the two epochs of 14.
TRAININGS = {
    "plain": {},
    "accumulated": {"parts": 2},
    "several steps at once": {"steps_per_execution": 3},
    "clipped, averaged": {"clip_norm": 0.5, "ema": 0.9},
}


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(TESTS / "distributed.py"), json.dumps(arguments)],
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module")
def one():
    return finish(start("one", 1, *TRAININGS.values()))


@pytest.fixture(scope="module")
def mirrored():
    return [finish(start("mirrored", 2, *TRAININGS.values()))]


@pytest.fixture(scope="module")
def central():
    trainings = [t for name, t in TRAININGS.items() if name != "accumulated"]
    found = finish(start("central", 2, *trainings))
    return [[found[0], None, *found[1:]]]  # in the places of TRAININGS


@pytest.fixture(scope="module")
def multi_worker():
    """Two processes that find each other on this machine; both results."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = [
        start(
            "multi_worker", 1, *TRAININGS.values(),
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            ),
        )
        for index in range(2)
    ]  # fmt: skip
    return [finish(process) for process in processes]


# All but accumulated gradients under central, which Config refuses.
REPLICATED = [
    pytest.param(strategy, number, id=f"{strategy}-{name}")
    for strategy in ("mirrored", "multi_worker", "central")
    for number, name in enumerate(TRAININGS)
    if (strategy, name) != ("central", "accumulated")
]


@pytest.mark.parametrize("strategy, number", REPLICATED)
def test_two_replicas_train_as_one_device_does(strategy, number, one, request):
    """Losses and weights after 7 steps, to 1e-5."""
    expected = one[number]
    for worker in request.getfixturevalue(strategy):
        got = worker[number]
        assert got["replicas"] == 2
        assert got["iterations"] == expected["iterations"] == 7
        for row, other in zip(got["history"], expected["history"], strict=True):
            differing = {
                name: (row[name], value)
                for name, value in other.items()
                if row[name] != pytest.approx(value, rel=1e-5, abs=1e-6)
            }
            assert not differing
        for kind in ("weights", "averages"):
            for array, other in zip(got[kind], expected[kind], strict=True):
                np.testing.assert_allclose(array, other, atol=1e-5)


def test_only_the_first_worker_is_chief(multi_worker, mirrored):
    assert [worker[0]["chief"] for worker in multi_worker] == [True, False]
    assert mirrored[0][0]["chief"]


def test_settings_change_what_they_should(one):
    plain, accumulated, at_once, clipped = one
    # Epochs end with the step that their last picture is in: 14 / 4 and 28 / 4.
    assert [row["step"] for row in plain["history"]] == [4, 7]
    assert at_once["weights"] == plain["weights"]
    assert at_once["history"] == [pytest.approx(row) for row in plain["history"]]
    # Batch norm sees half batches, so accumulation is close to the whole batch and not equal.
    assert accumulated["history"][0]["loss"] != plain["history"][0]["loss"]
    assert accumulated["history"][0]["cls"] == pytest.approx(plain["history"][0]["cls"], rel=0.1)
    assert clipped["history"][0] != plain["history"][0]
    assert clipped["averages"] and not plain["averages"]


# --- what runs when, on a model that only counts -------------------------------------------------


class Counting(keras.Model):
    """Its loss in each step is the batch that it is given."""

    STEP_VALUES = ("loss", "cls")

    def __init__(self):
        super().__init__()
        self.built = True
        self.compile(optimizer="sgd", run_eagerly=True)

    def learn(self, data):
        return {"loss": tf.cast(data, tf.float32), "cls": tf.constant([1.0, 3.0])}


class Log(keras.callbacks.Callback):
    def __init__(self, calls, at=None, do=None):
        super().__init__()
        self.calls, self.at, self.do = calls, at, do

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("begin", epoch))

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("step", logs["loss"]))
        if self.at == logs["loss"]:
            self.do(self)

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("end", epoch))


def count(state=None, at=None, do=None, every_steps=0, every_minutes=0.0, **settings):
    """Runs the loop over batches 0, 1, 2, ...; returns (calls, state, ended)."""
    calls, state = [], state or loop.State()
    settings = {"epochs": 2, "steps_per_epoch": 2.5} | settings
    saving = loop.Saving(lambda: calls.append(("save", state.step)), every_steps, every_minutes)
    ended = loop.run(
        Counting(),
        iter(range(state.step, 99)),
        tf.distribute.get_strategy(),
        state=state,
        callbacks=[Log(calls, at, do)],
        saving=saving,
        **settings,
    )
    return calls, state, ended


def test_epochs_end_with_the_step_that_has_their_last_picture():
    calls, state, ended = count()
    assert calls == [
        ("begin", 0), ("step", 0.0), ("step", 1.0), ("step", 2.0), ("end", 0),
        ("begin", 1), ("step", 3.0), ("step", 4.0), ("end", 1),
        ("save", 5),
    ]  # fmt: skip
    assert [(row["epoch"], row["step"], row["loss"], row["cls"]) for row in state.history] == [
        (0, 3, 1.0, 2.0),
        (1, 5, 3.5, 2.0),
    ]
    assert not ended and state.sums == {}


def test_checkpoints_every_so_many_steps():
    calls, _, _ = count(every_steps=2)
    assert [step for kind, step in calls if kind == "save"] == [2, 4, 5]
    calls, _, _ = count(every_steps=2, steps_per_execution=3)
    assert [step for kind, step in calls if kind == "save"] == [2, 4, 5]
    # Windows of steps end with epochs and checkpoints: 2 and 1, 1 and 1.
    assert [value for kind, value in calls if kind == "step"] == [0.5, 2.0, 3.0, 4.0]


def test_checkpoints_by_time(monkeypatch):
    now = iter(np.arange(0, 10_000, 7.0))  # each look at the clock is 7 seconds later
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: next(now)))
    calls, _, _ = count(every_minutes=0.5, epochs=20)
    assert [step for kind, step in calls if kind == "save"][:3] == [2, 4, 6]
    calls, _, _ = count(every_minutes=0.0, epochs=20)
    assert [step for kind, step in calls if kind == "save"] == [50]


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [0, 1, 2, 3, 4])
def test_a_signal_ends_the_run_saved_and_the_rest_is_as_if_nothing_had_been(kind, step):
    whole = count()[1]
    stops = set()
    calls, state, ended = count(at=step, do=lambda _: stops.add(kind), stops=stops)
    assert ended == {kind}
    assert calls[-1] == ("save", step + 1)
    assert state.step == step + 1
    state = loop.State(**json.loads(json.dumps(vars(state))))
    calls, state, ended = count(state)
    assert not ended
    assert state.history == whole.history
    assert [value for kind, value in calls if kind == "step"] == list(range(step + 1, 5))


def test_a_finished_state_trains_no_more():
    _, state, _ = count()
    calls, _, _ = count(state)
    assert calls == []


def test_stopping_keeps_the_part_of_the_epoch():
    def stop(callback):
        callback.model.stop_training = True

    calls, state, ended = count(at=3, do=stop)
    assert calls[-2:] == [("end", 1), ("save", 4)]
    assert not ended and state.history[-1]["step"] == 4 and state.history[-1]["loss"] == 3.0


def test_signals_are_collected_and_the_second_interrupt_interrupts():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with signals.collected() as caught:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # passed on twice, by the shell and by a launcher
        assert caught == {signal.SIGTERM, signal.SIGINT}
        time.sleep(signals.APART + 0.05)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
