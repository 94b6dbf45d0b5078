"""`wsol_tf.train` with a network of a few layers, for trials in processes of their own."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # it is started as a script
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import conftest  # noqa: F401 (sets the environment before TensorFlow is imported)
from helpers import make_quick
from wsol_tf import programs, train

if __name__ == "__main__":
    make_quick(setattr)
    programs.main(programs.define_flags, train.run)
