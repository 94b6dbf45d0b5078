"""The books of a run: log lines, history.csv, TensorBoard scalars and curves.png."""

import csv
import io
import os
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from wsol_tf import files
from wsol_tf.model import losses
from wsol_tf.progress import Progress, format_duration
from wsol_tf.report import charts, pictures
from wsol_tf.training.callbacks import tolerating_write_errors
from wsol_tf.training.loop import State


def tensorboard_tag(name: str) -> str:
    """Returns the tag of a figure: losses, weighted terms and held-out figures are groups."""
    if name == "loss" or name in losses.TERMS:
        return f"losses/{name}"
    for group in ("weighted", "held"):
        if name.startswith(f"{group}_"):
            return f"{group}/{name.removeprefix(f'{group}_')}"
    return name


class Ledger(keras.callbacks.Callback):
    """Keeps the books of a run: log lines, history.csv and TensorBoard scalars.

    Args:
        state: the State of the run; its history is what is written.
        log: function that takes lines of text.
        csv_path: file with a row for each epoch.
        log_dir: folder for TensorBoard.
        epochs: epochs of the whole run.
        total_steps: steps of the whole run.
        batch_size: pictures in a step.
        every: seconds between two lines within an epoch; on a terminal they are a bar.
    """

    def __init__(
        self,
        state: State,
        log: Callable[[str], None],
        *,
        csv_path: str,
        log_dir: str,
        epochs: int,
        total_steps: int,
        batch_size: int,
        every: float = 60,
    ):
        super().__init__()
        self.state, self.log = state, log
        self.csv_path, self.log_dir = csv_path, log_dir
        self.epochs, self.total_steps, self.batch_size = epochs, total_steps, batch_size
        self.progress = Progress(total_steps, "step", log=log, every=every)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Opens the log, and writes what earlier starts of the run have left."""
        self.open_log()
        # (step, seconds) where this epoch and this start of the run began to be timed.
        self.mark: tuple[int, float] | None = None
        self.first: tuple[int, float] | None = None
        write_history(self.csv_path, self.state.history)

    def open_log(self) -> None:
        """Begins a file for TensorBoard, at first and where its folder was removed."""
        self.writer = tf.summary.create_file_writer(self.log_dir)

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Writes a line where the last one was long ago."""
        if self.first is None:  # the first step compiles: that is not its speed
            self.first = self.mark = (self.state.step, self.state.seconds)
        text = f"{self._where()}: loss {logs['loss']:.3f}; {self._pace(self.first)}"
        self.progress.show(self.state.step, text)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the figures of the epoch."""
        row = self.state.history[-1]
        self.progress.shown_at = time.monotonic()
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        held = [f", held-out {name.removeprefix('held_')} {value:.3f}"
                for name, value in row.items() if name.startswith("held_")]  # fmt: skip
        self.log(
            f"Epoch {epoch + 1}/{self.epochs}, {self._where()}: loss {row['loss']:.3f}, top1_cls "
            f"{row['top1_cls']:.3f}, area {row['ac']:.3f}, rate {rate:.2g}{''.join(held)}; "
            f"{self._pace(self.mark)}."
        )
        self.log("  " + format_terms(row))
        folder = os.path.dirname(self.csv_path)
        with tolerating_write_errors(self.log, f"figures of epoch {epoch + 1}", folder):
            write_history(self.csv_path, self.state.history)
            with self.writer.as_default(step=epoch):
                for name, value in row.items():
                    if name not in ("epoch", "step"):
                        tf.summary.scalar(tensorboard_tag(name), value)
                tf.summary.scalar("area", row["ac"])
                tf.summary.scalar("learning_rate", rate)
                tf.summary.scalar("images_per_second", self._speed(self.mark))
            self.writer.flush()
        self.mark = (self.state.step, self.state.seconds)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the log."""
        self.writer.close()

    def _where(self):
        return f"step {self.state.step}/{self.total_steps}"

    def _speed(self, since):
        """Images per second of training since (step, seconds); 0: not known yet."""
        steps, seconds = self.state.step - since[0], self.state.seconds - since[1]
        return steps * self.batch_size / seconds if seconds > 0 else 0.0

    def _pace(self, since):
        speed = self._speed(since)
        if not speed:
            return "speed not known yet"
        left = (self.total_steps - self.state.step) * self.batch_size / speed
        return f"{speed:.1f} images/s, {format_duration(left)} left"


def write_history(path: str, history: Sequence[dict[str, float]]) -> None:
    """Writes all epochs as a table: later ones may have columns that earlier ones lack.

    Args:
        path: the .csv file.
        history: one dict of figures for each epoch.
    """
    names = dict.fromkeys(["epoch", *(name for row in history for name in row)])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), restval="")
    writer.writeheader()
    writer.writerows(history)
    files.write(path, text.getvalue())


def format_terms(row: dict[str, float]) -> str:
    """Returns a line with each term's mean, and its share of the total loss as it was weighted."""
    total = row["loss"] or 1.0
    return ", ".join(
        f"{name} {row[name]:.3f} ({row[f'weighted_{name}'] / total:.0%})" for name in losses.TERMS
    )


def write_curves(path: str, history: Sequence[dict[str, float]], weights: dict[str, float]) -> None:
    """Draws the curves of a run.

    Args:
        path: file of the picture.
        history: one dict of figures for each epoch.
        weights: term of the loss -> its weight.
    """
    shown = {"loss": "loss", **{name: name for name in losses.TERMS}, "top1_cls": "top1_cls",
             "held_loss": "val_loss", "held_top1_cls": "val_top1_cls",
             "held_gt_known": "val_gt_known"}  # fmt: skip
    columns = {new: [row.get(name, np.nan) for row in history] for name, new in shown.items()}
    columns = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    terms = {name: weights[name] for name in losses.TERMS}
    files.write(path, pictures.as_png(charts.training_curves(columns, terms)))
