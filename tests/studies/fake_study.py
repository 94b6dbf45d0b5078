"""The study program with runs and photographs that take a moment, for processes of their own."""

import os
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))  # it is started as a script

from wsol_tf import programs, study
from wsol_tf.studies import pool, show, trials


def patch(setattr_):
    """Puts what is quick in the place of training and drawing."""
    script = os.path.join(os.path.dirname(__file__), "fake_train.py")
    setattr_(trials, "PROGRAM", (script,))
    setattr_(pool, "POLL", 0.05)
    setattr_(pool, "POLL_OTHERS", 0.1)
    gray = np.full((40, 60, 3), 128, np.uint8)
    setattr_(show, "_draw", lambda finished, keys: dict.fromkeys(keys, gray))


if __name__ == "__main__":
    patch(setattr)
    programs.main(study.define_flags, study.run)
