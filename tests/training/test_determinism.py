"""`--deterministic` holds between processes, with validation on, beside a load."""

import numpy as np

from helpers import start
from wsol_tf.model.build import load_model

# Small, and yet enough that TensorFlow chose between kernels by chance before.
SETTINGS = ("--flagfile=configs/demo.flags", "--strategy=one", "--deterministic", "--seed=3",
            "--num_examples=150", "--epochs=2", "--val_split=")  # fmt: skip


def test_two_processes_learn_the_same_to_the_bit(tmp_path):
    """They run at the same time, so that each is held up by the other at other moments."""
    folders = [tmp_path / name for name in ("first", "second")]
    processes = [start(*SETTINGS, f"--output_dir={folder}") for folder in folders]
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-2000:]
    first, second = (load_model(str(folder / "model.keras")) for folder in folders)
    assert len(first.weights) > 50 and first.thresholds == second.thresholds
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)
    history = [(folder / "history.csv").read_text() for folder in folders]
    assert history[0] == history[1] and "held_loss" in history[0]
