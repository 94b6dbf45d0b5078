"""Many runs, and what they say together; the program is `wsol_tf.study`."""

from typing import TYPE_CHECKING

from wsol_tf.lazy import attach

if TYPE_CHECKING:
    from wsol_tf.studies.run import Plan, run_study

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "wsol_tf.studies.run": "Plan run_study",
    },
)
