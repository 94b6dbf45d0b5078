"""Trains a model, chooses its score-map threshold and scores it.

    python -m wsol_tf.train --flagfile=configs/voc.flags --data_dir=D --output_dir=RUN

writes RUN/report.html (the run in one page), model_card.md, run.flags (repeats the run),
model.keras, history.csv, curves.png, metrics.json, outcomes.jsonl, contact_sheet.png, validation/
(held-out pictures after each epoch) and logs/ for TensorBoard.
Ctrl-C ends training and still writes all of them. SIGTERM saves and ends with status 75. The same
command resumes a run, however it was interrupted; see docs/training.md.
"""

import signal

from absl import flags

from wsol_tf import importing, programs, signals


def run(values: flags.FlagValues) -> int:
    """Trains with the settings of the command line; returns the exit status."""
    importing.import_keras()
    from wsol_tf.training.run import train

    before = signal.signal(signal.SIGTERM, signals.preempt)
    try:
        _, figures = train(programs.from_flags(values), log=programs.say)
    finally:
        signal.signal(signal.SIGTERM, before)
    return signals.INTERRUPTED if figures and figures.get("interrupted") else 0


if __name__ == "__main__":
    programs.main(programs.define_flags, run)
