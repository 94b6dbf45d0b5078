"""Callbacks of a run: what it tells while it goes, the model on disk, and when to stop."""

import contextlib
import os

import keras
import numpy as np
import tensorflow as tf

from wsol_tf import files


@contextlib.contextmanager
def going_on(log, what, folder):
    """Around the writing of a file that a run can do without: where it fails, it is reported."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or error
        log(
            f"No {what}: {reason} in '{folder}'. What is there is kept and the run goes on. Make "
            "room there."
        )


class KeepModel(keras.callbacks.Callback):
    """Saves the model after each epoch, or only the best so far; may end the run.

    Args:
        path: file of the model; what stands under this name is always whole.
        state: the loop.State of the run; its last row is that of the epoch.
        best_by: "last", or "loss" or "gt_known" of the held-out pictures.
        patience: looks at them without a better model that end the run; 0: none do.
        log: function that takes lines of text.
    """

    def __init__(self, path, state, *, best_by="last", patience=0, log=print):
        super().__init__()
        self.path, self.state = path, state
        self.best_by, self.patience, self.log = best_by, patience, log

    def on_epoch_end(self, epoch, logs=None):
        row = self.state.history[-1]
        if not np.isfinite(row["loss"]) or not finite(self.model):
            return
        if self.best_by == "last":
            self._save(epoch)
            return
        score = row.get(f"held_{self.best_by}")
        if score is None:  # not looked at in this epoch
            return
        score = -score if self.best_by == "loss" else score
        if self.state.best is None or score >= self.state.best:
            if self._save(epoch):
                self.state.best, self.state.best_epoch = score, epoch
            return
        looks = sum(
            f"held_{self.best_by}" in later
            for later in self.state.history[self.state.best_epoch + 1 :]
        )
        if self.patience and looks >= self.patience:
            self.log(
                f"Stopped: {looks} looks at the held-out pictures brought no better model than "
                f"that of epoch {self.state.best_epoch + 1} (by {self.best_by})."
            )
            self.model.stop_training = True

    def _save(self, epoch):
        """Whether the model was written."""
        with going_on(self.log, f"model of epoch {epoch + 1}", os.path.dirname(self.path)):
            with averaged(self.model):
                save(self.model, self.path)
            return True
        return False


BROKEN = (
    "The last step of the training left weights that are no finite numbers. The model of the last "
    "whole epoch before it is kept, if there was one. Lower --learning_rate."
)


def finite(model):
    """Whether all weights of a model are finite numbers."""
    return all(np.isfinite(weight).all() for weight in model.get_weights())


@contextlib.contextmanager
def averaged(model):
    """Puts the moving averages in the place of a model's weights, where it has them (EMA)."""
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    averages = getattr(inner, "averages", [])
    weights = model.trainable_variables if averages else []
    before = [weight.numpy() for weight in weights]
    for weight, average in zip(weights, averages, strict=True):
        weight.assign(average.numpy())
    try:
        yield
    finally:
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value)


def save(model, path):
    """Saves a model so that no half-written file ever stands under the final name.

    Raises:
        OSError: it can't be written; what stood there before is as it was.
    """
    with files.replacing(path) as unfinished:
        model.save(unfinished)
