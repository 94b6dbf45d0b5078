"""Very many pictures on Apache Beam: what its workers do, and how their parts come together.

Each worker loads the model once and opens the same data as the program that it works for. What it
finds it leaves in files next to the results: the folder of results, the model and the pictures must
be in the same place for all workers. `wsol_tf.runners` imports this, where Beam is asked for.
"""

from typing import TYPE_CHECKING

from wsol_tf import keras_settings
from wsol_tf.lazy import attach

if TYPE_CHECKING:
    from wsol_tf.beam.looking import look_at
    from wsol_tf.beam.scoring import accumulate

keras_settings.check()

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "wsol_tf.beam.looking": "look_at",
        "wsol_tf.beam.scoring": "accumulate",
    },
)
