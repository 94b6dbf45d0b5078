"""Callbacks of a run: TensorBoard tags, scores and the model after each epoch, a stop at NaN."""

import csv
import os

import keras
import numpy as np
import tensorflow as tf

from wsol_tf import losses, scoring


def tag(name):
    """The TensorBoard tag of a figure: losses, weighted terms and held-out figures in groups."""
    if name == "loss" or name in losses.TERMS:
        return f"losses/{name}"
    for group in ("weighted", "held"):
        if name.startswith(f"{group}_"):
            return f"{group}/{name.removeprefix(f'{group}_')}"
    return name


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes each epoch's figures: `losses/NAME` raw, `weighted/NAME`, `learning_rate`."""

    def __init__(self, log_dir):
        super().__init__()
        self.log_dir = log_dir
        self.writer = None

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_end(self, epoch, logs=None):
        with self.writer.as_default(step=epoch):
            for name, value in (logs or {}).items():
                if name not in ("epoch", "step"):
                    tf.summary.scalar(tag(name), value)
            tf.summary.scalar(
                "learning_rate",
                float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            )
        self.writer.flush()

    def on_train_end(self, logs=None):
        self.writer.close()


class LocalizationScores(keras.callbacks.Callback):
    """Scores a Localization on pictures with boxes after each epoch.

    The logs gain `val_gt_known_loc`, `val_top1_loc` and `val_miou_box` of the model's own map, so
    callbacks behind this one can use them: `EarlyStopping("val_gt_known_loc", mode="max")`.

    Args:
        source: a `datasets.Source` with boxes.
        positions: positions in the source; None takes all.
        threshold: score-map threshold in 0..1, or "otsu" for each map's own.
        view: "crop" or "whole", see `scoring.View`.
        batch_size: pictures in a batch.

    Raises:
        ValueError: for a source without boxes.
    """

    def __init__(self, source, positions=None, *, threshold="otsu", view="crop", batch_size=32):
        super().__init__()
        if not source.has_boxes:
            raise ValueError(f"{source.name} has no boxes to score the localization with.")
        self.source = source
        self.positions = range(len(source)) if positions is None else positions
        self.threshold = threshold
        self.view = view
        self.batch_size = batch_size

    def on_epoch_end(self, epoch, logs=None):
        model = self.model
        pairs = scoring.pairs(
            model.predict_on_batch,
            self.source,
            self.positions,
            kinds=[model.map],
            view=scoring.View(model.input_size, model.resize_size, self.view),
            batch_size=self.batch_size,
            top_k=model.top_k,
        )
        scored = scoring.accumulate(pairs, [model.map], thresholds=[self.threshold])[model.map]
        figures = scored.result(self.threshold)
        for name in ("gt_known_loc", "top1_loc", "miou_box"):
            logs[f"val_{name}"] = figures[name]


class SaveEachEpoch(keras.callbacks.Callback):
    """Saves the model after each epoch; the file under the final name is always whole."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        if finite(self.model) and all(np.isfinite(value) for value in (logs or {}).values()):
            save(self.model, self.path)


class HistoryFile(keras.callbacks.Callback):
    """Writes the figures of all epochs so far to a CSV file after each of them."""

    def __init__(self, path, state):
        super().__init__()
        self.path = path
        self.state = state

    def on_train_begin(self, logs=None):
        self.write()

    def on_epoch_end(self, epoch, logs=None):
        self.write()

    def write(self):
        """Writes the file anew, for later epochs may have columns that earlier ones lack."""
        names = dict.fromkeys(["epoch", *(name for row in self.state.history for name in row)])
        with open(self.path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(names), restval="")
            writer.writeheader()
            writer.writerows(self.state.history)


class StopAtNaN(keras.callbacks.Callback):
    """Stops the run at the first loss that is no number, and keeps which term it was.

    Attributes:
        sentence: what happened and what to do; empty as long as all is well.
    """

    def __init__(self, state):
        super().__init__()
        self.sentence = ""
        self.state = state

    def on_train_batch_end(self, batch, logs=None):
        if np.isfinite(logs["loss"]):
            return
        bad = [name for name in losses.TERMS if not np.isfinite(logs[name])]
        named = f"in {', '.join(bad)}" if bad else "in a layer's own loss"
        whole = self.state.history
        kept = "The model of the last whole epoch is kept." if whole else "No model is kept."
        self.sentence = (
            f"The loss is no finite number at step {self.state.step}, {named}. {kept} "
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
    with open(unfinished, "rb") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, path)
