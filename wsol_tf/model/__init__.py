"""The network, what it learns from, and how its maps become masks and boxes."""

from typing import TYPE_CHECKING

from wsol_tf import keras_settings
from wsol_tf.lazy import attach

if TYPE_CHECKING:
    from wsol_tf.model.backbones import register_backbone
    from wsol_tf.model.build import build_model, compile_model, load_model
    from wsol_tf.model.finding import Found
    from wsol_tf.model.localization import Localization
    from wsol_tf.model.objective import Objective
    from wsol_tf.model.optimizer import GroupSGD, group_sgd
    from wsol_tf.model.score_maps import components, localize

keras_settings.check()

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "wsol_tf.model.backbones": "register_backbone",
        "wsol_tf.model.build": "build_model compile_model load_model",
        "wsol_tf.model.finding": "Found",
        "wsol_tf.model.localization": "Localization",
        "wsol_tf.model.objective": "Objective",
        "wsol_tf.model.optimizer": "GroupSGD group_sgd",
        "wsol_tf.model.score_maps": "components localize",
    },
)
