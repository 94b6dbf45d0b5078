"""Validation on held-out pictures after an epoch: losses, localization, the pictures themselves."""

import os
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from wsol_tf import files
from wsol_tf.data.batches import evaluation_batches
from wsol_tf.data.example import competing_classes
from wsol_tf.data.source import Source
from wsol_tf.data.transforms import View
from wsol_tf.evaluation.pairs import predict_pairs
from wsol_tf.evaluation.score import choose_thresholds
from wsol_tf.evaluation.scores import accumulate
from wsol_tf.model.score_maps import localize
from wsol_tf.report import pictures
from wsol_tf.training import callbacks
from wsol_tf.training.loop import State


class Validation(keras.callbacks.Callback):
    """Adds `held_...` figures to an epoch's row, and draws the same pictures each time.

    The pictures are training pictures that were held out: validating on them, and choosing by
    them, takes nothing away from the split that is scored in the end.

    Args:
        source: the pictures.
        positions: those to validate on.
        state: the State of the run.
        view: how pictures are brought to the network.
        kind: the kind of score map.
        rule: what the score-map threshold is chosen from each time, "maps" or "boxes", see
            `evaluation.score.choose_thresholds`.
        every: epochs between two validations.
        picture_dir: folder of epoch_NNNN.png.
        log_dir: folder for TensorBoard.
        log: function that takes lines of text.
        drawn: how many of the pictures are drawn.
    """

    def __init__(
        self,
        source: Source,
        positions: Sequence[int],
        state: State,
        *,
        view: View,
        kind: str,
        rule: str,
        every: int,
        picture_dir: str,
        log_dir: str,
        log: Callable[[str], None] = print,
        drawn: int = 6,
    ):
        super().__init__()
        self.source, self.positions, self.state = source, positions, state
        self.view, self.kind, self.rule, self.every = view, kind, rule, every
        self.picture_dir, self.log_dir, self.drawn = picture_dir, log_dir, drawn
        self.log = log

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Opens the log, and compiles what validation calls."""
        os.makedirs(self.picture_dir, exist_ok=True)
        self.open_log()
        compiled = (lambda f: f) if self.model.run_eagerly else tf.function
        self.predict = compiled(lambda images: self.model(images, training=False))
        self.measure = compiled(self.model.measure)

    def open_log(self) -> None:
        """Begins a file for TensorBoard, at first and where its folder was removed."""
        self.writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Validates, where an epoch is one of every so many."""
        if (epoch + 1) % self.every:
            return
        with callbacks.averaged_weights(self.model):
            held = self._losses()
            scored = list(
                predict_pairs(
                    self._predict,
                    self.source,
                    self.positions,
                    kinds=[self.kind],
                    view=self.view,
                    offset=self.model.offset,
                    refine=self.model.refine,
                    top_k=self.model.top_k,
                    background_id=self.model.background_id,
                )
            )
        if not scored:  # none of the pictures can be read
            return
        accumulators = accumulate(scored, [self.kind])
        ids = [pair.image_id for pair in scored if not pair.empty]
        with_object = {kind: metrics.subset(ids) for kind, metrics in accumulators.items()}
        try:
            thresholds = choose_thresholds(with_object, self.rule)
        except ValueError:  # no box in view, or no finite map: no reason to end a long run
            thresholds = {self.kind: "otsu"}
        figures = accumulators[self.kind].result(thresholds[self.kind])
        held["top1_cls"] = figures["top1_cls"]
        if figures["gt_known_loc"] is not None:
            held["gt_known"] = figures["gt_known_loc"]
        self.state.history[-1].update({f"held_{name}": value for name, value in held.items()})
        with callbacks.tolerating_write_errors(
            self.log, f"pictures of epoch {epoch + 1}", self.picture_dir
        ):
            self._draw(epoch, scored, thresholds[self.kind])

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the log."""
        self.writer.close()

    def _predict(self, images):
        return self.predict(tf.constant(images))

    def _losses(self):
        """The total loss with all terms at their full weights, and the mask's area."""
        sums, count = np.zeros(2), 0
        for batch in evaluation_batches(self.source, self.positions, self.view):
            images = np.stack([example.image for example in batch])
            # The first class present, as one sample of training.
            labels = np.array([example.labels[0] for example in batch], np.int32)
            competing = np.stack(
                [
                    competing_classes(example.labels, example.labels[0], len(self.source.classes))
                    for example in batch
                ]
            )
            values = self.measure((tf.constant(images), labels, tf.constant(competing)))
            means = [float(np.mean(values[name])) for name in ("loss", "ac")]
            sums += np.multiply(means, len(labels))
            count += len(labels)
        return dict(zip(("loss", "area"), (sums / max(count, 1)).tolist(), strict=True))

    def _draw(self, epoch, scored, threshold):
        tiles = []
        for pair in scored[:: max(1, len(scored) // self.drawn)][: self.drawn]:
            found = localize(pair.maps[self.kind], *pair.image.shape[:2], threshold)
            tiles.append(
                pictures.triptych(
                    pair.image,
                    *found,
                    true_boxes=() if pair.boxes is None else pair.boxes,
                    caption=self.source.classes[pair.label],
                    side=200,
                )
            )
        row = self.state.history[-1]
        note = (
            "held-out pictures: picture | score map | mask, its box in cyan, the true boxes dashed "
            "in white"
        )
        known = f", GT-known {row['held_gt_known']:.2f}" if "held_gt_known" in row else ""
        at = threshold if threshold == "otsu" else f"{threshold:.2f}"
        sheet = pictures.contact_sheet(
            {"": tiles},
            title=f"Epoch {epoch + 1}: area {row['held_area']:.2f}, threshold {at}{known}\n{note}",
            columns=2,
        )
        os.makedirs(self.picture_dir, exist_ok=True)
        path = os.path.join(self.picture_dir, f"epoch_{epoch + 1:04}.png")
        files.write(path, pictures.as_png(sheet))
        with self.writer.as_default(step=epoch):
            tf.summary.image("held/pictures", sheet[None])
        self.writer.flush()
