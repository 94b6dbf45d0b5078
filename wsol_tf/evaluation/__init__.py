"""From score maps to figures; nothing here draws or prints."""

from typing import TYPE_CHECKING

from wsol_tf import keras_settings
from wsol_tf.lazy import attach

if TYPE_CHECKING:
    from wsol_tf.evaluation.keras_metrics import GTKnownLoc, LocalizationScores, Top1Loc
    from wsol_tf.evaluation.methods import method_of
    from wsol_tf.evaluation.metrics import LocalizationMetrics
    from wsol_tf.evaluation.pairs import Method, Pair, predict_pairs
    from wsol_tf.evaluation.score import evaluate

keras_settings.check()

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "wsol_tf.evaluation.keras_metrics": "GTKnownLoc LocalizationScores Top1Loc",
        "wsol_tf.evaluation.methods": "method_of",
        "wsol_tf.evaluation.metrics": "LocalizationMetrics",
        "wsol_tf.evaluation.pairs": "Method Pair predict_pairs",
        "wsol_tf.evaluation.score": "evaluate",
    },
)
