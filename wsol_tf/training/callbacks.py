"""The model on disk: which one a run keeps, and how it is written."""

import contextlib
import os
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from wsol_tf import files
from wsol_tf.training.loop import State

NONFINITE_WEIGHTS = (
    "The last training step left NaN or infinite weights. The model of the last complete epoch "
    "before it is kept, if there was one. Lower `learning_rate`."
)


@contextlib.contextmanager
def tolerating_write_errors(log: Callable[[str], None], what: str, folder: str) -> Iterator[None]:
    """Reports an error while a file is written that the run can do without, and goes on.

    Args:
        log: function that takes lines of text.
        what: what is written, such as "model of epoch 3".
        folder: where it is written to.
    """
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
        state: the State of the run; the last row of its history is that of the epoch.
        best_by: "last", or "loss" or "gt_known" of the held-out pictures.
        patience: validations without a better model after which the run ends; 0: never.
        log: function that takes lines of text.
    """

    def __init__(
        self,
        path: str,
        state: State,
        *,
        best_by: str = "last",
        patience: int = 0,
        log: Callable[[str], None] = print,
    ):
        super().__init__()
        self.path, self.state = path, state
        self.best_by, self.patience, self.log = best_by, patience, log

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves the model if it is to be kept, or ends the run for lack of a better one."""
        row = self.state.history[-1]
        if not np.isfinite(row["loss"]) or not has_finite_weights(self.model):
            return
        if self.best_by == "last":
            self._save(epoch)
            return
        score = row.get(f"held_{self.best_by}")
        if score is None:  # no validation in this epoch
            return
        score = -score if self.best_by == "loss" else score
        if self.state.best is None or score >= self.state.best:
            if self._save(epoch):
                self.state.best, self.state.best_epoch = score, epoch
            return
        validations = sum(
            f"held_{self.best_by}" in later
            for later in self.state.history[self.state.best_epoch + 1 :]
        )
        if self.patience and validations >= self.patience:
            self.log(
                f"Stopped: {files.counted(validations, 'validation')} brought no better model than "
                f"that of epoch {self.state.best_epoch + 1}, by the {self.best_by} of the "
                "held-out pictures."
            )
            self.model.stop_training = True

    def _save(self, epoch):
        """Returns whether the model was written."""
        folder = os.path.dirname(self.path)
        with tolerating_write_errors(self.log, f"model of epoch {epoch + 1}", folder):
            with averaged_weights(self.model):
                save_model(self.model, self.path)
            return True
        return False


def has_finite_weights(model: keras.Model) -> bool:
    """Returns whether all weights of a model are finite numbers."""
    return all(np.isfinite(weight).all() for weight in model.get_weights())


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Replaces a model's weights by their moving averages for a while, where it has them (EMA)."""
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


def save_model(model: keras.Model, path: str) -> None:
    """Saves a model so that no half-written file ever stands under the final name.

    Raises:
        OSError: it can't be written; what stood there before is as it was.
    """
    with files.replacing(path) as unfinished:
        model.save(unfinished)
