"""What people look at: pages, charts, pictures and tables; nothing here computes a figure."""

from typing import TYPE_CHECKING

from wsol_tf import keras_settings
from wsol_tf.lazy import attach

if TYPE_CHECKING:
    from wsol_tf.report.pictures import overlay, triptych

keras_settings.check()

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "wsol_tf.report.pictures": "overlay triptych",
    },
)
