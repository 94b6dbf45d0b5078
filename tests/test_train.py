import csv
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from absl import flags
from PIL import Image
from programs import TINY, free_ports, run, undefined_names

from wsol_tf import config, evaluate, losses, predict, shapes, train
from wsol_tf import model as localization
from wsol_tf.score_maps import MAPS

FILES = {"run.flags", "model.keras", "history.csv", "curves.png", "metrics.json",
         "contact_sheet.png", "logs", "checkpoints", "validation"}  # fmt: skip
SHAPES = (*TINY, "--num_examples=48", "--epochs=2", "--batch_size=8")
KEYS = ("gt_known_loc", "top1_loc", "top5_loc", "top1_cls", "top5_cls", "miou_box", "threshold",
        "gt_known_loc_oracle", "oracle_threshold", "num_images")  # fmt: skip
ROOT = pathlib.Path(__file__).parent.parent


def start(*arguments, program="train", **environment):
    """Starts a program as a user does."""
    return subprocess.Popen(
        [sys.executable, "-m", f"wsol_tf.{program}", *map(str, arguments)],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def history_of(folder):
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on drawn pictures."""
    folder = tmp_path_factory.mktemp("run") / "new" / "run"
    assert run(train, *SHAPES, f"--output_dir={folder}") == 0
    return folder


@pytest.fixture
def eager(monkeypatch):
    """Trains without tracing a graph: few small steps are faster so."""
    compile_from = train.model_lib.compile_from

    def compile_eagerly(model, *arguments):
        compile_from(model, *arguments)
        model.run_eagerly = True

    monkeypatch.setattr(train.model_lib, "compile_from", compile_eagerly)


@pytest.fixture
def voc(tmp_path):
    """Drawn pictures in VOC layout, 18 to train on and 6 to score."""
    folder = tmp_path / "voc"
    shapes.write_voc(str(folder), 18, size=80, seed=0, split="train")
    shapes.write_voc(str(folder), 6, size=80, seed=0, split="val")
    return folder


# --- a whole run ---------------------------------------------------------------------------------


def test_run_writes_the_files_of_the_contract(finished):
    assert set(os.listdir(finished)) == FILES
    assert os.listdir(finished / "logs")
    for name in ("curves.png", "contact_sheet.png"):
        with Image.open(finished / name) as picture:
            assert min(picture.size) > 100 and len(picture.getcolors(2**24)) > 10


def test_history_has_each_term_of_each_epoch(finished):
    rows = history_of(finished)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    held = {f"held_{name}" for name in ("loss", "area", "top1_cls", "gt_known")}
    assert set(rows[0]) == {"epoch", "step", *localization.Localization.VALUES, *held}
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
    assert metrics["num_training_images"] + metrics["num_threshold_images"] == 48
    assert (metrics["interrupted"], metrics["epochs"]) == (False, 2)
    assert metrics["thresholds_from"] == "maps"
    assert metrics["threshold_by_maps"] == metrics["threshold"]
    assert metrics["gt_known_loc_by_maps"] == pytest.approx(metrics["gt_known_loc"])
    assert 0 <= metrics["gt_known_loc_by_boxes"] <= metrics["gt_known_loc_oracle"]
    assert metrics["threshold"] == metrics["thresholds"]["mean"]
    assert set(metrics["other_maps"]) == {"true", "cam"}
    assert metrics["skipped"] == {}


def test_model_carries_classes_thresholds_and_size(finished):
    model = localization.load(str(finished / "model.keras"))
    assert model.classes == shapes.CLASSES
    assert model.thresholds == metrics_of(finished)["thresholds"]
    assert set(model.thresholds) == set(MAPS)
    assert (model.input_size, model.resize_size, model.map) == (64, 73, "mean")


def test_run_flags_hold_every_setting(finished):
    given = {line.split("=")[0].lstrip("-"): line.partition("=")[2]
             for line in (finished / "run.flags").read_text().splitlines()
             if not line.startswith("#")}  # fmt: skip
    assert list(given) == [field.name for field in dataclasses.fields(config.Config)]
    assert given["output_dir"] == str(finished)
    assert (given["epochs"], given["width"], given["dilation"]) == ("2", "0.25", "true")


def test_run_flags_repeat_the_run_to_the_digit(finished, tmp_path):
    again = start(f"--flagfile={finished / 'run.flags'}", f"--output_dir={tmp_path / 'again'}")
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


def test_voc_folder_with_broken_pictures(voc, tmp_path, eager, capsys):
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
    assert set(os.listdir(folder)) == FILES

    model = f"--model={folder / 'model.keras'}"
    assert run(evaluate, model, *data, f"--output_dir={tmp_path / 'scored'}") == 0
    scored = metrics_of(tmp_path / "scored")
    for key in KEYS:
        assert scored[key] == metrics[key], key
    assert run(predict, model, f"--output_dir={tmp_path / 'seen'}", voc / "JPEGImages") == 0
    assert len((tmp_path / "seen" / "predictions.jsonl").read_text().splitlines()) == 21


def test_image_folder_without_boxes(tmp_path, eager, capsys):
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
    assert "from the maps of 3 training pictures, without boxes." in output
    assert "odd/notes.txt" in output
    metrics = metrics_of(run_folder)
    assert metrics["gt_known_loc"] is None and 0 <= metrics["top1_cls"] <= 1
    assert metrics["scored_on"] == "held-out part of train"
    assert (metrics["num_images"], metrics["thresholds_from"]) == (3, "maps")
    assert set(os.listdir(run_folder)) == FILES
    assert localization.load(str(run_folder / "model.keras")).classes == ("even", "odd")

    picture = tmp_path / "data" / "odd" / "1.png"
    model = f"--model={run_folder / 'model.keras'}"
    assert run(predict, model, f"--output_dir={tmp_path / 'seen'}", picture) == 0


def test_held_out_pictures_that_cannot_be_read_are_replaced(voc, tmp_path, eager, capsys):
    source = train.datasets.load("voc_folder", str(voc), "train")
    _, held = train.datasets.holdout(source.labels, 0.1, 0)
    for position in held:
        (voc / "JPEGImages" / f"{source.image_ids[position]}.jpg").write_bytes(b"")
    folder = tmp_path / "run"
    arguments = ("--dataset=voc_folder", f"--data_dir={voc}", "--epochs=1", "--batch_size=16")
    assert run(train, *TINY, *arguments, "--val_split=", f"--output_dir={folder}") == 0
    assert f"{len(held)} x the file is empty" in capsys.readouterr().out
    assert metrics_of(folder)["num_images"] == 18 - len(held)
    assert set(os.listdir(folder)) == FILES


def test_no_readable_picture_is_refused(voc, tmp_path, eager, capsys):
    for path in (voc / "JPEGImages").iterdir():
        path.write_bytes(b"")
    arguments = ("--dataset=voc_folder", f"--data_dir={voc}", "--batch_size=8", "--val_split=")
    assert run(train, *TINY, *arguments, f"--output_dir={tmp_path / 'run'}") == 1
    errors = capsys.readouterr().err
    assert "no picture can be read" in errors and "the file is empty" in errors


# --- what ends a run early -----------------------------------------------------------------------


@pytest.mark.parametrize("step, epochs", [(4, 1), (1, 0)])
def test_keyboard_interrupt_leaves_a_usable_run(step, epochs, tmp_path, eager, monkeypatch, capsys):
    def interrupt(self, batch, logs=None):
        if self.state.step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(train.callbacks.StopAtNaN, "on_train_batch_end", interrupt)
    folder = tmp_path / "run"
    # Epochs end with steps 3, 6, 9, ...: of 12 pictures 1 is held out.
    arguments = ("--num_examples=12", "--epochs=9", "--batch_size=4", f"--output_dir={folder}")
    assert run(train, *TINY, *arguments) == 130
    assert "Interrupted" in capsys.readouterr().out
    assert set(os.listdir(folder)) == FILES
    assert len(history_of(folder)) == epochs
    metrics = metrics_of(folder)
    assert (metrics["interrupted"], metrics["epochs"]) == (True, epochs)
    Image.fromarray(shapes.draw(0, size=64).image).save(tmp_path / "one.png")
    model = f"--model={folder / 'model.keras'}"
    assert run(predict, model, f"--output_dir={tmp_path / 'seen'}", tmp_path / "one.png") == 0


def test_keyboard_interrupt_while_scoring_ends_without_a_traceback(
    tmp_path, eager, monkeypatch, capsys
):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train.scoring, "report", interrupt)
    folder = tmp_path / "run"
    arguments = ("--num_examples=6", "--epochs=1", "--batch_size=4", f"--output_dir={folder}")
    assert run(train, *TINY, *arguments) == 130
    assert "Interrupted" in capsys.readouterr().err
    assert localization.load(str(folder / "model.keras")).thresholds


def test_sigint_leaves_a_usable_run(tmp_path):
    folder = tmp_path / "run"
    arguments = ("--num_examples=24", "--epochs=100000", "--batch_size=8")
    training = start(*TINY, *arguments, f"--output_dir={folder}")
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
    assert set(os.listdir(folder)) == FILES
    assert metrics_of(folder)["interrupted"]
    assert len(history_of(folder)) == metrics_of(folder)["epochs"] >= 1
    assert localization.load(str(folder / "model.keras")).thresholds


def test_nan_stops_names_the_term_and_keeps_the_last_good_model(
    tmp_path, eager, monkeypatch, capsys
):
    pseudo_label, calls = losses.pseudo_label, []

    def nan_from_the_fifth_step(*arguments):
        calls.append(1)
        return pseudo_label(*arguments) * (np.nan if len(calls) >= 5 else 1.0)

    monkeypatch.setattr(losses, "pseudo_label", nan_from_the_fifth_step)
    folder = tmp_path / "run"
    arguments = ("--num_examples=12", "--epochs=9", "--batch_size=4", "--validate_every=0")
    assert run(train, *TINY, *arguments, f"--output_dir={folder}") == 1
    errors = capsys.readouterr().err
    assert "no finite number at step 5, in pseudo." in errors
    assert "The model of the last whole epoch is kept." in errors
    assert len(calls) == 5
    model = keras.saving.load_model(folder / "model.keras")
    assert all(np.isfinite(weight.numpy()).all() for weight in model.weights)
    rows = history_of(folder)
    assert np.isfinite(float(rows[0]["loss"])) and np.isnan(float(rows[-1]["loss"]))
    assert (folder / "curves.png").exists()


def test_huge_learning_rate_ends_with_a_sentence(tmp_path, eager, capsys):
    arguments = ("--num_examples=24", "--epochs=9", "--batch_size=4", "--learning_rate=1e30")
    assert run(train, *TINY, *arguments, f"--output_dir={tmp_path / 'run'}") == 1
    errors = capsys.readouterr().err
    assert "Error: The loss is no finite number" in errors and "--learning_rate" in errors


# --- going on where a run was interrupted --------------------------------------------------------


STEADY = (*TINY, "--num_examples=24", "--epochs=16", "--batch_size=4", "--strategy=one",
          "--deterministic", "--checkpoint_every_steps=3", "--ema=0.9", "--val_split=")  # fmt: skip


def weights_of(folder):
    return localization.load(str(folder / "model.keras")).get_weights()


def saved_steps(folder):
    return [step for step, _ in train.checkpoints.paths(str(folder))]


def stopped(folder, kind):
    """Trains until there is a new checkpoint, and a moment more; returns the ended process."""
    before = saved_steps(folder)
    training = start(*STEADY, f"--output_dir={folder}")
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
    uninterrupted = start(*STEADY, f"--output_dir={whole}")
    ended = stopped(broken, signal.SIGTERM)
    assert ended.returncode == 75, ended.errors
    assert "Ended by SIGTERM at step" in ended.errors and "goes on from here" in ended.errors
    assert "Traceback" not in ended.errors
    at = int(ended.errors.partition("SIGTERM at step ")[2].split()[0])
    assert saved_steps(broken)[0] == at

    ended = stopped(broken, signal.SIGKILL)
    assert ended.returncode == -signal.SIGKILL
    newest = train.checkpoints.paths(str(broken))[0][1]
    os.truncate(newest, os.path.getsize(newest) - 1000)
    again = start(*STEADY, f"--output_dir={broken}")
    output, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    assert f"Checkpoint '{newest}' can't be read" in output
    assert "Resumed at step" in output and "Resumed at step 0" not in output

    assert uninterrupted.wait(timeout=240) == 0
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
        start(
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
        output, errors = worker.communicate(timeout=240)
        assert worker.returncode == 75, errors
        assert "Traceback" not in errors
        ended.append(errors.partition("Ended by SIGTERM at ")[2].splitlines()[0])
    assert ended[0] == ended[1] and ended[0].startswith(f"step {saved_steps(tmp_path)[0]} of")


def small_run(folder, *arguments):
    settings = ("--num_examples=12", "--epochs=2", "--batch_size=4", "--val_split=")
    return run(train, *TINY, *settings, f"--output_dir={folder}", *arguments)


def test_a_finished_run_says_so_and_is_kept(tmp_path, eager, capsys):
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


def test_interrupted_by_hand_a_run_goes_on(tmp_path, eager, monkeypatch, capsys):
    folder = tmp_path / "run"
    learn = localization.Localization.learn

    def interrupting(self, data):
        if self.optimizer.iterations.numpy() == 3:
            signal.raise_signal(signal.SIGINT)
        return learn(self, data)

    with monkeypatch.context() as patched:
        patched.setattr(localization.Localization, "learn", interrupting)
        assert small_run(folder) == 130
    assert metrics_of(folder)["interrupted"] and saved_steps(folder) == [4]
    assert small_run(folder, "--epochs=4") == 1
    capsys.readouterr()
    assert small_run(folder) == 0
    assert "Resumed at step 4" in capsys.readouterr().out
    assert len(history_of(folder)) == metrics_of(folder)["epochs"] == 2
    assert not metrics_of(folder)["interrupted"]


def test_sigterm_outside_of_training_asks_to_be_started_again(tmp_path, eager, monkeypatch, capsys):
    def terminated(*_, **__):
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    for place in ("load", "_finish"):
        with monkeypatch.context() as patched:
            patched.setattr(train, place, terminated)
            assert small_run(tmp_path / "run") == 75
        assert "Ended by SIGTERM. Nothing is lost" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before
    assert small_run(tmp_path / "run") == 0
    assert "Resumed at step" in capsys.readouterr().out


def test_an_evaluation_in_its_folder_does_not_confuse_a_run(tmp_path, eager, capsys):
    folder = tmp_path / "run"
    assert small_run(folder) == 0
    (folder / "metrics.json").write_text('{"gt_known_loc": 0.5}')
    assert small_run(folder) == 0
    assert "is finished; nothing is left to do" in capsys.readouterr().out
    train.checkpoints.write(str(folder), [np.zeros(1)], {"step": 1})
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


def test_a_full_disk_is_said_and_the_run_goes_on(tmp_path, eager, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(train.checkpoints.np, "savez", full)
    assert small_run(tmp_path / "run", "--checkpoint_every_steps=2") == 0
    output = capsys.readouterr().out
    assert "No checkpoint at step 2: No space left on device" in output and "Wrote" in output


def test_a_folder_in_use_is_refused(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    with train.checkpoints.lock(str(folder), print):
        assert small_run(folder) == 1
    assert "Another run is writing to" in capsys.readouterr().err


def test_other_pictures_than_the_run_began_with_are_refused():
    with pytest.raises(ValueError, match="began with other pictures or labels"):
        train._restored_state({"step": 3, "data": 1}, 2, config.Config())


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
        (["--epochs=0"], "epochs must be at least 1"),
        (["--lr_drops=soon"], "lr_drops must be shares"),
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
from wsol_tf import config, train
tf.config.experimental.enable_op_determinism()
runs = []
for data_dir in sys.argv[1:3]:
    settings = config.from_flagfile("/dev/null", *sys.argv[3:], f"--data_dir={data_dir}",
                                    f"--output_dir={data_dir}/run")
    runs.append(train.train(settings, log=lambda line: None))
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


def test_threshold_from_boxes_needs_boxes(voc, tmp_path, eager, capsys):
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
