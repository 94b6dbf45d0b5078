"""`--deterministic` holds between processes, with validation on, beside a load as without one."""

import contextlib
import subprocess
import sys

import numpy as np

from helpers import start
from wsol_tf.model.build import load_model

# Small, and yet enough that TensorFlow chose between kernels by chance before.
SETTINGS = ("--flagfile=configs/demo.flags", "--strategy=one", "--deterministic", "--seed=3",
            "--num_examples=150", "--epochs=2", "--val_split=")  # fmt: skip


def trained(folder):
    """The weights that a process of its own learns."""
    process = start(*SETTINGS, f"--output_dir={folder}")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-2000:]
    return load_model(str(folder / "model.keras"))


@contextlib.contextmanager
def load():
    """Keeps a core busy."""
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        spinning.kill()
        spinning.wait()


def test_two_processes_learn_the_same_to_the_bit(tmp_path):
    quiet = trained(tmp_path / "quiet")
    with load():
        busy = trained(tmp_path / "busy")
    assert len(quiet.weights) > 50 and quiet.thresholds == busy.thresholds
    for one, other in zip(quiet.weights, busy.weights, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)
    history = [(tmp_path / name / "history.csv").read_text() for name in ("quiet", "busy")]
    assert history[0] == history[1] and "held_loss" in history[0]
