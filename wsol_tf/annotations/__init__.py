"""First annotations of pictures, for people to correct: what a model finds, in their formats."""

from typing import TYPE_CHECKING

from wsol_tf import keras_settings
from wsol_tf.lazy import attach

if TYPE_CHECKING:
    from wsol_tf.annotations.polygons import polygon
    from wsol_tf.annotations.run import annotate

keras_settings.check()

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "wsol_tf.annotations.polygons": "polygon",
        "wsol_tf.annotations.run": "annotate",
    },
)
