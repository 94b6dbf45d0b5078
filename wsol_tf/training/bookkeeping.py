"""What watches a run and writes down what happens in it: its callbacks, in their order."""

from typing import TYPE_CHECKING

import keras
import numpy as np

from wsol_tf.data import transforms
from wsol_tf.training import callbacks
from wsol_tf.training.ledger import Ledger
from wsol_tf.training.validation import Validation
from wsol_tf.training.watch import Watch

if TYPE_CHECKING:
    from wsol_tf.training.run import Run


def callbacks_of(run: "Run") -> list[keras.callbacks.Callback]:
    """Returns what a run shows and keeps; each adds to what the next ones write."""
    config, state, log = run.config, run.state, run.log
    total_steps = run.model.total_steps
    counts = np.bincount(np.concatenate([run.source.labels[i] for i in run.kept]))
    best = {"best_by": config.best_by, "patience": config.patience}
    return [
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: run.restore_folder()),
        *_validation(run),
        callbacks.KeepModel(run.path("model.keras"), state, **best, log=log),
        Ledger(
            state,
            log,
            csv_path=run.path("history.csv"),
            log_dir=run.path("logs"),
            epochs=config.epochs,
            total_steps=total_steps,
            batch_size=config.batch_size,
        ),
        Watch(
            state,
            log,
            config=config,
            steps=max(20, total_steps // 50),
            chance=counts.max() / counts.sum(),
        ),
    ]


def _validation(run):
    """The callback for held-out pictures, in a list; an empty one where it is off."""
    config, held = run.config, run.held
    if not config.validate_every or not len(held):
        return []
    chosen = np.linspace(0, len(held) - 1, min(len(held), config.validation_images))
    return [
        Validation(
            run.source,
            held[np.round(chosen).astype(int)],
            run.state,
            view=transforms.View(run.model.input_size, run.model.resize_size),
            kind=config.map,
            rule=config.threshold_from,
            every=config.validate_every,
            picture_dir=run.path("validation"),
            log_dir=run.path("logs"),
            log=run.log,
        )
    ]
