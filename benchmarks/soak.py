"""Kills a training again and again at random moments, and checks that nothing was lost.

    python benchmarks/soak.py --minutes=30 --output_dir=SOAK -- --dataset=voc_folder --data_dir=D

Everything behind `--` are settings of wsol_tf.train. The same training runs twice: once with
SIGKILL (three times in four) or SIGTERM at random moments until the minutes are
over, when it may finish, and once undisturbed. One in five newest checkpoints is cut in half.
Prints how often it was ended, and whether both runs ended with the same weights to the last bit;
writes that to SOAK/soak.json.
"""

import contextlib
import glob
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile

import h5py
import numpy as np
from absl import app, flags

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def start(settings, output_dir, log):
    """Starts a training; what it says goes to a file."""
    command = [sys.executable, "-m", "wsol_tf.train", *settings, f"--output_dir={output_dir}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def checkpoints_in(run_dir):
    """The paths of a run's checkpoints."""
    return set(glob.glob(os.path.join(run_dir, "checkpoints", "step-*.npz")))


def arrays(path):
    """All arrays of a .keras file by name."""
    found = {}
    with zipfile.ZipFile(path) as file:
        weights = h5py.File(io.BytesIO(file.read("model.weights.h5")))

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    weights.visititems(add)
    return found


def numbers_after(text, path):
    """The whole numbers that follow a text in a file."""
    found = [line.partition(text)[2].split()[0] for line in lines_of(path) if text in line]
    return [int(number.strip(".")) for number in found]


def disturb(settings, output_dir, log, minutes, seed):
    """Trains, and ends the training at random moments; then lets it come to its end.

    Returns how often it was ended by what, all exit statuses, and how many checkpoints were cut.
    """
    chance = random.Random(seed)
    kills, statuses, cut, begun = {"SIGKILL": 0, "SIGTERM": 0}, [], 0, time.monotonic()
    while True:
        before = checkpoints_in(output_dir)
        training = start(settings, output_dir, log)
        if time.monotonic() - begun > 60 * minutes:
            return kills, [*statuses, training.wait()], cut
        # Most endings come after something new was saved; the others while it starts.
        if chance.random() < 0.8:
            while training.poll() is None and checkpoints_in(output_dir) <= before:
                time.sleep(0.2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return kills, [*statuses, training.wait(chance.uniform(0, 40))], cut
        kind = chance.choice(["SIGKILL", "SIGKILL", "SIGKILL", "SIGTERM"])
        training.send_signal(getattr(signal, kind))
        statuses.append(training.wait())
        kills[kind] += 1
        saved = sorted(checkpoints_in(output_dir))
        if len(saved) > 1 and chance.random() < 0.2:
            os.truncate(saved[-1], os.path.getsize(saved[-1]) // 2)
            cut += 1


def compare(folder, other):
    """Whether two runs have the same weights and the same history, and how many steps they took."""
    ours, theirs = (arrays(os.path.join(run, "model.keras")) for run in (folder, other))
    same_names = ours.keys() == theirs.keys()
    histories = [lines_of(os.path.join(run, "history.csv")) for run in (folder, other)]
    return {
        "steps": int(histories[1][-1].split(",")[1]),
        "same_weights": same_names and all(np.array_equal(ours[n], theirs[n]) for n in ours),
        "same_history": histories[0] == histories[1],
    }


def lines_of(path):
    """The lines of a text file."""
    with open(path, errors="replace") as file:
        return file.readlines()


def main(argv):
    values = flags.FLAGS
    os.makedirs(values.output_dir, exist_ok=True)
    settings = [*argv[1:], "--strategy=one", "--deterministic", "--checkpoint_every_steps=10"]
    whole, broken = (os.path.join(values.output_dir, name) for name in ("whole", "broken"))
    said = os.path.join(values.output_dir, "broken.log")
    begun = time.monotonic()
    with open(said, "a") as log:
        kills, statuses, cut = disturb(settings, broken, log, values.minutes, values.seed)
    minutes = (time.monotonic() - begun) / 60
    begun = time.monotonic()
    with open(os.path.join(values.output_dir, "whole.log"), "a") as log:
        reference = start(settings, whole, log).wait()
    undisturbed = (time.monotonic() - begun) / 60
    result = {
        "ended_by": kills,
        "statuses": {str(status): statuses.count(status) for status in sorted(set(statuses))},
        "resumed_at": numbers_after("Resumed at step", said),
        "checkpoints_cut_in_half": cut,
        "refused_checkpoints": sum("can't be read" in line for line in lines_of(said)),
        "tracebacks": sum("Traceback" in line for line in lines_of(said)),
        "minutes": round(minutes, 1),
        "minutes_undisturbed": round(undisturbed, 1),
        "status_undisturbed": reference,
        **compare(broken, whole),
    }
    with open(os.path.join(values.output_dir, "soak.json"), "w") as file:
        json.dump(result, file, indent=2)
    print(json.dumps(result, indent=2))
    sys.exit(0 if result["same_weights"] and result["same_history"] else 1)


if __name__ == "__main__":
    flags.DEFINE_float("minutes", 30.0, "How long the training is disturbed.")
    flags.DEFINE_string("output_dir", "soak", "Folder for both runs.")
    flags.DEFINE_integer("seed", 0, "Seed of the moments and kinds of ending.")
    app.run(main)
