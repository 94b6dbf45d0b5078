"""From files to batches: what a data set holds, and how pictures are read, resized and batched."""

from typing import TYPE_CHECKING

from wsol_tf import keras_settings
from wsol_tf.lazy import attach

if TYPE_CHECKING:
    from wsol_tf.data.annotation import Annotation, file_source, make_annotation
    from wsol_tf.data.example import Example, make_example
    from wsol_tf.data.images import BadImage, read_image
    from wsol_tf.data.registry import holdout, open_dataset, register_dataset
    from wsol_tf.data.source import Report, Source, StopAtBadImage
    from wsol_tf.data.transforms import View, resize_image

keras_settings.check()

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "wsol_tf.data.annotation": "Annotation file_source make_annotation",
        "wsol_tf.data.example": "Example make_example",
        "wsol_tf.data.images": "BadImage read_image",
        "wsol_tf.data.registry": "holdout open_dataset register_dataset",
        "wsol_tf.data.source": "Report Source StopAtBadImage",
        "wsol_tf.data.transforms": "View resize_image",
    },
)
