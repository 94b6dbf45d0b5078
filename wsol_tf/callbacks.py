"""Callbacks of a run: what it tells while it goes, the model on disk, and when to stop."""

import contextlib
import csv
import os
import time

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


class Ledger(keras.callbacks.Callback):
    """Keeps the books of a run: log lines, history.csv and TensorBoard scalars.

    Args:
        state: the loop.State of the run; its history is what is written.
        log: function that takes lines of text.
        csv_path: file with a row for each epoch.
        log_dir: folder for TensorBoard.
        epochs, total_steps, batch_size: of the whole run.
        every: seconds between two lines within an epoch.
    """

    def __init__(self, state, log, *, csv_path, log_dir, epochs, total_steps, batch_size, every=60):
        super().__init__()
        self.state, self.log = state, log
        self.csv_path, self.log_dir = csv_path, log_dir
        self.epochs, self.total_steps, self.batch_size = epochs, total_steps, batch_size
        self.every = every

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_file_writer(self.log_dir)
        self.mark = self.first = None
        self.said = time.monotonic()
        self._write_csv()

    def on_train_batch_end(self, batch, logs=None):
        if self.first is None:  # the first step compiles: that is not its speed
            self.first = self.mark = (self.state.step, self.state.seconds)
        if time.monotonic() - self.said > self.every:
            self.said = time.monotonic()
            self.log(f"  {self._where()}: loss {logs['loss']:.3f}; {self._pace(self.first)}.")

    def on_epoch_end(self, epoch, logs=None):
        row = self.state.history[-1]
        self.said = time.monotonic()
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        held = [f", held-out {name.removeprefix('held_')} {value:.3f}"
                for name, value in row.items() if name.startswith("held_")]  # fmt: skip
        self.log(
            f"Epoch {epoch + 1}/{self.epochs}, {self._where()}: loss {row['loss']:.3f}, top1_cls "
            f"{row['top1_cls']:.3f}, area {row['ac']:.3f}, rate {rate:.2g}{''.join(held)}; "
            f"{self._pace(self.mark)}."
        )
        self.log("  " + shares(row))
        with going_on(self.log, f"figures of epoch {epoch + 1}", os.path.dirname(self.csv_path)):
            self._write_csv()
            with self.writer.as_default(step=epoch):
                for name, value in row.items():
                    if name not in ("epoch", "step"):
                        tf.summary.scalar(tag(name), value)
                tf.summary.scalar("area", row["ac"])
                tf.summary.scalar("learning_rate", rate)
                tf.summary.scalar("images_per_second", self._speed(self.mark))
            self.writer.flush()
        self.mark = (self.state.step, self.state.seconds)

    def on_train_end(self, logs=None):
        self.writer.close()

    def _where(self):
        return f"step {self.state.step}/{self.total_steps}"

    def _speed(self, since):
        """Images per second of training since a (step, seconds); 0: not known yet."""
        steps, seconds = self.state.step - since[0], self.state.seconds - since[1]
        return steps * self.batch_size / seconds if seconds > 0 else 0.0

    def _pace(self, since):
        speed = self._speed(since)
        if not speed:
            return "speed not known yet"
        left = (self.total_steps - self.state.step) * self.batch_size / speed
        return f"{speed:.1f} images/s, {duration(left)} left"

    def _write_csv(self):
        """Writes the file anew, for later epochs may have columns that earlier ones lack."""
        history = self.state.history
        names = dict.fromkeys(["epoch", *(name for row in history for name in row)])
        with open(self.csv_path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(names), restval="")
            writer.writeheader()
            writer.writerows(history)


def shares(row):
    """A line with each term's raw mean, and its share of the total loss as it was weighted."""
    total = row["loss"] or 1.0
    return ", ".join(
        f"{name} {row[name]:.3f} ({row[f'weighted_{name}'] / total:.0%})" for name in losses.TERMS
    )


def duration(seconds):
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


class Watch(keras.callbacks.Callback):
    """Says once, with the setting to look at, when a run goes wrong in a way that is known.

    Args:
        state: the loop.State of the run.
        log: function that takes lines of text.
        steps: how many steps in a row a finding must hold.
        chance: accuracy of always naming the most frequent class.
        patience: epochs after which the classifier should know more than that.
    """

    def __init__(self, state, log, *, steps, chance, patience=3):
        super().__init__()
        self.state, self.log = state, log
        self.steps, self.chance, self.patience = steps, chance, patience
        self.since = {}  # finding -> first step of the row of steps that it holds in
        self.said = set()

    def on_train_batch_end(self, batch, logs=None):
        for finding, (holds, sentence) in self._findings(logs).items():
            if not holds:
                self.since.pop(finding, None)
                continue
            first = self.since.setdefault(finding, self.state.step)
            if self.state.step - first >= self.steps:
                self._say(finding, f"for {self.state.step - first} steps {sentence}")

    def on_epoch_end(self, epoch, logs=None):
        right = self.state.history[-1]["top1_cls"]
        if epoch + 1 >= self.patience and right <= 1.05 * self.chance:
            self._say(
                "chance",
                f"after {epoch + 1} epochs the classifier is right in {right:.1%} of the pictures, "
                f"and always naming the most frequent class is in {self.chance:.1%}. Raise "
                "--learning_rate if cls is falling; lower it, or set --final_relu=false, if cls "
                "stands still. Pretrained --extractor_weights help most.",
            )

    def _findings(self, logs):
        on = {name: logs[f"weighted_{name}"] != 0 for name in losses.TERMS}
        area, localizes = logs["ac"], on["ac"] or on["cls_fg"]
        return {
            "empty": (
                localizes and area < 0.02,
                f"the mask covers less than 2 % of the picture ({area:.2%}): it is collapsing to "
                "nothing. Lower --ac_weight or --localizer_multiplier, or raise --bas_weight.",
            ),
            "full": (
                localizes and area > 0.98,
                f"the mask covers more than 98 % of the picture ({area:.2%}): it is collapsing to "
                "everything. Raise --ac_weight, or lower --localizer_multiplier.",
            ),
            "ae": (
                on["ae"] and logs["ae_left"] < 0.01,
                "ae erases all of the score map. Raise --ae_threshold.",
            ),
            "ae_fg": (
                on["ae_fg"] and logs["ae_fg_left"] < 0.01,
                "ae_fg erases all of the mask: it is flat. Raise --ae_fg_threshold, or set "
                "--absolute_thresholds=false.",
            ),
            "pseudo": (
                logs["pseudo_coverage"] < 0.01 and self._in_use("pseudo"),
                f"pseudo labels cover less than 1 % of the positions "
                f"({logs['pseudo_coverage']:.2%}): the term teaches nothing. Lower --pseudo_high "
                "or raise --pseudo_low.",
            ),
        }

    def _in_use(self, term):
        """Whether a term weighs anything now; its value may be 0 because nothing is labelled."""
        return float(keras.ops.convert_to_numpy(self.model.current_weights()[term])) > 0

    def _say(self, finding, sentence):
        if finding not in self.said:
            self.said.add(finding)
            self.log(f"Warning, step {self.state.step}: {sentence}")


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
    unfinished = os.path.join(os.path.dirname(path), ".unfinished.keras")
    try:
        model.save(unfinished)
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror or str(error), path) from error
        raise
