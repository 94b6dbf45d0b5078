"""Trains a model, chooses its score-map threshold and scores it.

    python -m wsol_tf.train --flagfile=configs/voc.flags --data_dir=D --output_dir=RUN

writes RUN/run.flags (repeats the run), model.keras, history.csv, curves.png, metrics.json,
contact_sheet.png, validation/ (held-out pictures after each epoch) and logs/ for TensorBoard.
Ctrl-C ends training and still writes all of them. SIGTERM saves and ends with status 75. The same
command goes on where a run was interrupted, however that came; see docs/training.md.
"""

import signal
import sys

from absl import app, flags

from wsol_tf import programs
from wsol_tf.training.run import train


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument '{argv[1]}': settings are given as --name=value.")
    before = signal.signal(signal.SIGTERM, programs.preempt)
    try:
        with programs.plain_ending():
            _, metrics = train(programs.from_flags(), log=programs.say)
    finally:
        signal.signal(signal.SIGTERM, before)
    if metrics and metrics.get("interrupted"):
        sys.exit(programs.INTERRUPTED)


if __name__ == "__main__":
    programs.define_flags()
    flags.adopt_module_key_flags(programs)
    app.run(main)
