"""Callbacks of a run: TensorBoard tags, the model on disk after each epoch, a stop at NaN."""

import os

import keras
import numpy as np
import tensorflow as tf

from wsol_tf import losses


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes each epoch's figures: `losses/NAME` raw, `weighted/NAME`, `learning_rate`."""

    def __init__(self, log_dir):
        super().__init__()
        self.log_dir = log_dir
        self.writer = None

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_end(self, epoch, logs=None):
        weights = self.model.current_weights()
        with self.writer.as_default(step=epoch):
            for name, value in (logs or {}).items():
                term = name in losses.TERMS
                tf.summary.scalar(f"losses/{name}" if term or name == "loss" else name, value)
                if term:
                    tf.summary.scalar(f"weighted/{name}", value * float(weights[name]))
            tf.summary.scalar("learning_rate", float(self.model.optimizer.learning_rate))
        self.writer.flush()

    def on_train_end(self, logs=None):
        self.writer.close()


class SaveEachEpoch(keras.callbacks.Callback):
    """Saves the model after each epoch; the file under the final name is always whole."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        if finite(self.model) and all(np.isfinite(value) for value in (logs or {}).values()):
            save(self.model, self.path)


class StopAtNaN(keras.callbacks.Callback):
    """Stops the run at the first loss that is no number, and keeps which term it was.

    Attributes:
        sentence: what happened and what to do; empty as long as all is well.
    """

    def __init__(self):
        super().__init__()
        self.sentence = ""
        self.step = 0
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if np.isfinite(logs["loss"]):
            return
        bad = [name for name in losses.TERMS if not np.isfinite(logs[name])]
        named = f"in {', '.join(bad)}" if bad else "in a layer's own loss"
        kept = "The model of the last whole epoch is kept." if self.epoch else "No model is kept."
        self.sentence = (
            f"The loss is no finite number at step {self.step}, {named}. {kept} "
            "Lower --learning_rate or the weight of that term."
        )
        self.model.stop_training = True


BROKEN = (
    "The last step of the training left weights that are no finite numbers. The model of the last "
    "whole epoch before it is kept, if there was one. Lower --learning_rate."
)


def finite(model):
    """Whether all weights of a model are finite numbers."""
    return all(np.isfinite(weight).all() for weight in model.get_weights())


def save(model, path):
    """Saves a model so that no half-written file ever stands under the final name."""
    unfinished = os.path.join(os.path.dirname(path), ".unfinished.keras")
    model.save(unfinished)
    os.replace(unfinished, path)
