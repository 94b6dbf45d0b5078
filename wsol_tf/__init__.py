"""Weakly-supervised object localization in Keras: from one label per picture to masks and boxes."""

from wsol_tf.config import Config, from_recipe
from wsol_tf.model import Localization, build, compile_from, group_sgd

__version__ = "0.1.0"
__all__ = ["Config", "Localization", "build", "compile_from", "from_recipe", "group_sgd"]
