"""Which term weighs what at which step: the seven losses of the method in one place."""

from wsol_tf.config import Config
from wsol_tf.model import losses

_DEFAULTS = Config()
LOSS_SETTINGS = {
    name: getattr(_DEFAULTS, name)
    for name in (
        "ae_threshold",
        "ae_fg_threshold",
        "pseudo_high",
        "pseudo_low",
        "absolute_thresholds",
        "localization_start",
        "erasing_start",
        "pseudo_start",
        "warmup",
        "erased_statistics",
    )
}
LOSS_WEIGHTS = {
    name: 1.0 if name == "cls" else getattr(_DEFAULTS, f"{name}_weight") for name in losses.TERMS
}
SEEN = ("ae_left", "ae_fg_left", "pseudo_coverage")  # what a step sees besides its losses
