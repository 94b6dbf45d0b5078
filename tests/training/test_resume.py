"""What ends a training early, and how it goes on from there."""

import dataclasses
import json
import os
import signal
import time

import keras
import numpy as np
import pytest
from PIL import Image

from helpers import (
    RUN_FILES,
    TINY,
    free_ports,
    history_of,
    metrics_of,
    run,
    start,
)
from wsol_tf import predict, train
from wsol_tf.data import shapes
from wsol_tf.evaluation import score
from wsol_tf.model import losses, objective
from wsol_tf.model.build import load_model
from wsol_tf.model.localization import Localization
from wsol_tf.training import checkpoints, watch
from wsol_tf.training.run import Run

# --- what ends a run early -----------------------------------------------------------------------


@pytest.mark.parametrize("step, epochs", [(4, 1), (1, 0)])
def test_keyboard_interrupt_leaves_a_usable_run(step, epochs, tmp_path, quick, monkeypatch, capsys):
    def interrupt(self, batch, logs=None):
        if self.state.step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(watch.StopAtNaN, "on_train_batch_end", interrupt)
    folder = tmp_path / "run"
    # Epochs end with steps 3, 6, 9, ...: of 12 pictures 1 is held out.
    arguments = ("--num_examples=12", "--epochs=9", "--batch_size=4", f"--output_dir={folder}")
    assert run(train, *TINY, *arguments) == 130
    assert "Interrupted" in capsys.readouterr().out
    assert set(os.listdir(folder)) == RUN_FILES
    assert len(history_of(folder)) == epochs
    metrics = metrics_of(folder)
    assert (metrics["interrupted"], metrics["epochs"]) == (True, epochs)
    Image.fromarray(shapes.draw(0, size=64).image).save(tmp_path / "one.png")
    model = f"--model={folder / 'model.keras'}"
    assert run(predict, model, f"--output_dir={tmp_path / 'seen'}", tmp_path / "one.png") == 0


def test_keyboard_interrupt_while_scoring_ends_without_a_traceback(
    tmp_path, quick, monkeypatch, capsys
):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(score, "compute_figures", interrupt)
    folder = tmp_path / "run"
    arguments = ("--num_examples=6", "--epochs=1", "--batch_size=4", f"--output_dir={folder}")
    assert run(train, *TINY, *arguments) == 130
    assert "Interrupted" in capsys.readouterr().err
    assert load_model(str(folder / "model.keras")).thresholds


def test_sigint_leaves_a_usable_run(tmp_path):
    folder = tmp_path / "run"
    arguments = ("--num_examples=24", "--epochs=100000", "--batch_size=8")
    training = start_toy(*TINY, *arguments, f"--output_dir={folder}")
    deadline = time.monotonic() + 240
    while not (folder / "model.keras").exists() and training.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    training.send_signal(signal.SIGINT)
    try:
        output, errors = training.communicate(timeout=240)
    finally:
        training.kill()
    assert training.returncode == 130, errors
    assert "Traceback" not in errors
    assert "Interrupted: the run is finished with what was learned so far." in output
    assert set(os.listdir(folder)) == RUN_FILES
    assert metrics_of(folder)["interrupted"]
    assert len(history_of(folder)) == metrics_of(folder)["epochs"] >= 1
    assert load_model(str(folder / "model.keras")).thresholds


def test_nan_stops_names_the_term_and_keeps_the_last_good_model(
    tmp_path, quick, monkeypatch, capsys
):
    calls = []

    def nan_from_the_fifth_step(*arguments):
        calls.append(1)
        return losses.pseudo_label(*arguments) * (np.nan if len(calls) >= 5 else 1.0)

    terms = [
        dataclasses.replace(term, function=nan_from_the_fifth_step)
        if term.name == "pseudo"
        else term
        for term in objective.LOSS_TERMS
    ]
    monkeypatch.setattr(objective, "LOSS_TERMS", tuple(terms))
    folder = tmp_path / "run"
    arguments = ("--num_examples=12", "--epochs=9", "--batch_size=4", "--validate_every=0")
    assert run(train, *TINY, *arguments, f"--output_dir={folder}") == 1
    errors = capsys.readouterr().err
    assert "The loss is NaN or infinite at step 5, in pseudo." in errors
    assert "The model of the last complete epoch is kept." in errors
    assert len(calls) == 5
    model = keras.saving.load_model(folder / "model.keras")
    assert all(np.isfinite(weight.numpy()).all() for weight in model.weights)
    rows = history_of(folder)
    assert np.isfinite(float(rows[0]["loss"])) and np.isnan(float(rows[-1]["loss"]))
    assert (folder / "curves.png").exists()


def test_huge_learning_rate_ends_with_a_sentence(tmp_path, quick, capsys):
    arguments = ("--num_examples=24", "--epochs=9", "--batch_size=4", "--learning_rate=1e30")
    assert run(train, *TINY, *arguments, f"--output_dir={tmp_path / 'run'}") == 1
    errors = capsys.readouterr().err
    assert "Error: The loss is NaN or infinite" in errors and "--learning_rate" in errors


# --- going on where a run was interrupted --------------------------------------------------------


STEADY = (*TINY, "--num_examples=24", "--epochs=16", "--batch_size=4", "--strategy=one",
          "--deterministic", "--checkpoint_every_steps=3", "--ema=0.9", "--val_split=")  # fmt: skip
TOY_TRAIN = """
import sys
sys.path.insert(0, "tests")
from helpers import toy_parts
from wsol_tf import programs, train
from wsol_tf.model import backbones
backbones.build_extractor = lambda *_, input_size, **__: (*toy_parts(input_size), "toy")
programs.main(programs.define_flags, train.run)
"""


def start_toy(*arguments, **environment):
    """Starts a training of a toy network; what a run does when it is ended is the same."""
    return start(*arguments, command=("-c", TOY_TRAIN), **environment)


def weights_of(folder):
    return load_model(str(folder / "model.keras")).get_weights()


def saved_steps(folder):
    return [step for step, _ in checkpoints.paths(str(folder))]


def stopped(folder, kind):
    """Trains until there is a new checkpoint, and a moment more; returns the ended process."""
    before = saved_steps(folder)
    training = start_toy(*STEADY, f"--output_dir={folder}")
    deadline = time.monotonic() + 240
    while saved_steps(folder) == before:
        assert training.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(np.random.default_rng().random() / 3)  # any moment will do
    training.send_signal(kind)
    training.output, training.errors = training.communicate(timeout=240)
    return training


@pytest.mark.slow
def test_killed_and_resumed_it_ends_as_if_nothing_had_been(tmp_path):
    """SIGTERM, then SIGKILL and a newest checkpoint that is cut off: the same weights."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    uninterrupted = start_toy(*STEADY, f"--output_dir={whole}")
    ended = stopped(broken, signal.SIGTERM)
    assert ended.returncode == 75, ended.errors
    assert "Ended by SIGTERM at step" in ended.errors and "goes on from here" in ended.errors
    assert "Traceback" not in ended.errors
    at = int(ended.errors.partition("SIGTERM at step ")[2].split()[0])
    assert saved_steps(broken)[0] == at

    ended = stopped(broken, signal.SIGKILL)
    assert ended.returncode == -signal.SIGKILL
    newest = checkpoints.paths(str(broken))[0][1]
    os.truncate(newest, os.path.getsize(newest) - 1000)
    again = start_toy(*STEADY, f"--output_dir={broken}")
    output, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    assert f"Checkpoint '{newest}' is damaged" in output
    assert "Resumed at step" in output and "Resumed at step 0" not in output

    _, errors = uninterrupted.communicate(timeout=240)
    assert uninterrupted.returncode == 0, errors
    for ours, theirs in zip(weights_of(broken), weights_of(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (broken / "history.csv").read_text() == (whole / "history.csv").read_text()
    timeless = [metrics_of(folder) for folder in (broken, whole)]
    assert timeless[0].pop("minutes") > 0 and timeless[1].pop("minutes") > 0
    assert timeless[0] == timeless[1]
    assert saved_steps(broken) == []  # a finished run needs none


@pytest.mark.slow
def test_workers_end_together_when_one_is_told_to(tmp_path):
    """SIGTERM to the second of two: both end at the same step, saved."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    settings = (*STEADY[:4], "--num_examples=24", "--epochs=9999", "--batch_size=4", "--val_split=",
                "--checkpoint_every_steps=3", "--validate_every=0")  # fmt: skip
    workers = [
        start_toy(
            *settings,
            f"--output_dir={tmp_path}",
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
        )
        for index in range(2)
    ]
    deadline = time.monotonic() + 240
    while not saved_steps(tmp_path):
        assert all(worker.poll() is None for worker in workers) and time.monotonic() < deadline
        time.sleep(0.1)
    workers[1].send_signal(signal.SIGTERM)
    ended = []
    for worker in workers:
        _, errors = worker.communicate(timeout=240)
        assert worker.returncode == 75, errors
        assert "Traceback" not in errors
        ended.append(errors.partition("Ended by SIGTERM at ")[2].splitlines()[0])
    assert ended[0] == ended[1] and ended[0].startswith(f"step {saved_steps(tmp_path)[0]} of")


def small_run(folder, *arguments):
    settings = ("--num_examples=12", "--epochs=2", "--batch_size=4", "--val_split=")
    return run(train, *TINY, *settings, f"--output_dir={folder}", *arguments)


def test_a_finished_run_says_so_and_is_kept(tmp_path, quick, capsys):
    folder = tmp_path / "run"
    assert small_run(folder) == 0
    before = (folder / "model.keras").read_bytes()
    capsys.readouterr()
    assert small_run(folder, "--checkpoint_every_steps=9") == 0
    assert "is finished; nothing is left to do" in capsys.readouterr().out
    assert small_run(folder, "--epochs=3", "--ac_weight=2") == 1
    errors = capsys.readouterr().err
    assert "holds a run with other settings: --ac_weight=1.5 (here: 2.0); --epochs=2" in errors
    assert f"--flagfile={folder / 'run.flags'}" in errors and "--resume=false" in errors
    assert (folder / "model.keras").read_bytes() == before
    assert small_run(folder, "--epochs=1", "--resume=false") == 0
    assert metrics_of(folder)["epochs"] == 1


def test_interrupted_by_hand_a_run_goes_on(tmp_path, quick, monkeypatch, capsys):
    folder = tmp_path / "run"
    learn = Localization.learn

    def interrupting(self, data):
        if self.optimizer.iterations.numpy() == 3:
            signal.raise_signal(signal.SIGINT)
        return learn(self, data)

    with monkeypatch.context() as patched:
        patched.setattr(Localization, "learn", interrupting)
        assert small_run(folder) == 130
    assert metrics_of(folder)["interrupted"] and saved_steps(folder) == [4]
    assert small_run(folder, "--epochs=4") == 1
    capsys.readouterr()
    assert small_run(folder) == 0
    assert "Resumed at step 4" in capsys.readouterr().out
    assert len(history_of(folder)) == metrics_of(folder)["epochs"] == 2
    assert not metrics_of(folder)["interrupted"]


def test_sigterm_outside_of_training_asks_to_be_started_again(tmp_path, quick, monkeypatch, capsys):
    def terminated(*_, **__):
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    for place in ("open_data", "finish"):
        with monkeypatch.context() as patched:
            patched.setattr(Run, place, terminated)
            assert small_run(tmp_path / "run") == 75
        assert "Ended by SIGTERM. Nothing is lost" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before
    assert small_run(tmp_path / "run") == 0
    assert "Resumed at step" in capsys.readouterr().out


def test_an_evaluation_in_its_folder_does_not_confuse_a_run(tmp_path, quick, capsys):
    folder = tmp_path / "run"
    assert small_run(folder) == 0
    (folder / "metrics.json").write_text('{"gt_known_loc": 0.5}')
    assert small_run(folder) == 0
    assert "is finished; nothing is left to do" in capsys.readouterr().out
    checkpoints.write(str(folder), [np.zeros(1)], {"step": 1})
    assert small_run(folder) == 1  # not finished: it tries to go on from there
    assert "is finished" not in capsys.readouterr().out


def test_starting_anew_removes_runs_alone(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "mine.txt").write_text("not of a run")
    assert small_run(tmp_path, "--resume=false", "--width=9") == 1
    assert (tmp_path / "logs" / "mine.txt").exists()
    (tmp_path / "run.flags").touch()
    assert small_run(tmp_path, "--resume=false", "--width=9") == 1
    assert not (tmp_path / "logs").exists()


def test_a_full_disk_is_said_and_the_run_goes_on(tmp_path, quick, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.np, "savez", full)
    assert small_run(tmp_path / "run", "--checkpoint_every_steps=2") == 0
    output = capsys.readouterr().out
    assert "No checkpoint at step 2: No space left on device" in output and "Wrote" in output


def test_a_folder_in_use_is_refused(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    with checkpoints.lock(str(folder), print):
        assert small_run(folder) == 1
    assert "Another run is writing to" in capsys.readouterr().err
