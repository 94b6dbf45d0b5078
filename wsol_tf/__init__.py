"""Weakly-supervised object localization in Keras: from one label per picture to masks and boxes."""

from wsol_tf.config import Config, from_recipe
from wsol_tf.model.build import build_model as build
from wsol_tf.model.build import compile_model as compile_from
from wsol_tf.model.localization import Localization
from wsol_tf.model.optimizer import group_sgd

__version__ = "0.1.0"
__all__ = ["Config", "Localization", "build", "compile_from", "from_recipe", "group_sgd"]
