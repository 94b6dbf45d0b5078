"""GT-known Loc and Top-1 Loc as Keras metrics, and both during `fit` as a callback.

The figures are those of `metrics.LocalizationMetrics` at one score-map threshold. Three ways to use
them, by what the metric needs to see:

A Keras model with a score map among its outputs takes GTKnownLoc in `compile`. The targets of that
output are boxes, and the step must not be compiled by XLA:

    model.compile(loss=..., metrics=[GTKnownLoc(0.3, view_size=224)], jit_compile=False)
    model.evaluate(images, boxes)

    # Of several outputs, that of the map:
    model.compile(loss={"logits": ...}, metrics={"map": GTKnownLoc(0.3, 224)}, jit_compile=False)
    model.evaluate(images, {"logits": labels, "map": boxes})

Top1Loc needs the map and the logits at once, and Keras shows a metric of `compile` one output at a
time. It is for loops of one's own, and for `compute_metrics` of a model's own class:

    top1 = Top1Loc(0.3, view_size=224)
    for images, boxes, labels in batches:
        outputs = model(images, training=False)
        top1.update_state({"boxes": boxes, "label": labels}, outputs)  # of "map" and "logits"
    top1.result()

A Localization trains on labels alone: its batches carry no boxes, by construction, and its
`compile` takes no metrics. It is scored during `fit` by the callback:

    model.fit(batches, epochs=10, callbacks=[LocalizationScores(held_out)])

A model that was compiled with these metrics is saved and loaded as any other, once this module has
been imported.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wsol_tf.data.source import Source
from wsol_tf.data.transforms import View
from wsol_tf.evaluation.iou import box_iou
from wsol_tf.evaluation.localized_map import LOCALIZED, rank_of
from wsol_tf.evaluation.pairs import predict_pairs
from wsol_tf.evaluation.scores import accumulate
from wsol_tf.model.score_maps import localize


@keras.saving.register_keras_serializable(package="wsol_tf")
class GTKnownLoc(keras.metrics.Mean):
    """Fraction of score maps whose box has an IoU of at least 0.5 with a true box.

    It counts right under tf.distribute, as `keras.metrics.Mean` does. The boxes are found in numpy
    on the CPU, so XLA cannot compile a step that holds it (`jit_compile=False`).

    Args:
        threshold: score-map threshold in 0..1, or "otsu" for each map's own.
        view_size: int or (height, width), the size in pixels of the picture that the boxes are in.
        name: name of the metric.
        **kwargs: as of `keras.metrics.Mean`.

    Raises:
        ValueError: for a threshold outside 0..1.
    """

    def __init__(
        self,
        threshold: float | str,
        view_size: int | tuple[int, int],
        name: str = "gt_known_loc",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        legal = threshold == "otsu" if isinstance(threshold, str) else 0 <= threshold <= 1
        if not legal:
            raise ValueError(f"threshold must be in 0..1 or 'otsu'. Received: {threshold!r}.")
        self.threshold = threshold
        self.view_size = view_size

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Scores a batch.

        Args:
            y_true: true boxes `[batch, num_boxes, 4]` in pixels of the view, half-open; those
                without area are padding, and a picture with no other is a miss.
            y_pred: score maps `[batch, h, w]` or `[batch, h, w, 1]` at any resolution; one with a
                NaN or an infinity is a miss.
            sample_weight: None or `[batch]`.
        """
        super().update_state(self._localized(y_true, y_pred), sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Returns what the metric is rebuilt from."""
        config = super().get_config()
        return {**config, "threshold": self.threshold, "view_size": self.view_size}

    def _localized(self, boxes, maps):
        return _for_each(self._is_localized, boxes, maps)

    def _is_localized(self, boxes, score_map):
        height, width = np.broadcast_to(self.view_size, 2).tolist()
        if score_map.ndim == 3 and score_map.shape[-1] == 1:
            score_map = score_map[..., 0]
        if not np.isfinite(score_map).all():
            return False
        # Rounded as LocalizationMetrics does.
        threshold = "otsu" if self.threshold == "otsu" else round(self.threshold, 6)
        _, _, box = localize(score_map, height, width, threshold)
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
        return box_iou(box, boxes).max(initial=0) >= LOCALIZED


@keras.saving.register_keras_serializable(package="wsol_tf")
class Top1Loc(GTKnownLoc):
    """Fraction of pictures that are localized and whose class has the highest score.

    It takes two outputs at once, so it is no metric for `compile`; the module shows how to use it.

    Args:
        threshold: score-map threshold in 0..1, or "otsu" for each map's own.
        view_size: int or (height, width), the size in pixels of the picture that the boxes are in.
        name: name of the metric.
        **kwargs: as of `keras.metrics.Mean`.
    """

    def __init__(
        self,
        threshold: float | str,
        view_size: int | tuple[int, int],
        name: str = "top1_loc",
        **kwargs: Any,
    ):
        super().__init__(threshold, view_size, name=name, **kwargs)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Scores a batch.

        Args:
            y_true: dict of `boxes`, see GTKnownLoc, and `label`, int `[batch]`.
            y_pred: dict of `map`, see GTKnownLoc, and `logits`, `[batch, classes]`; logits with a
                NaN or an infinity are wrong.
            sample_weight: None or `[batch]`.
        """

        def is_first(label, logits):
            rank, _ = rank_of(logits, int(label))
            return rank == 0

        first = _for_each(is_first, y_true["label"], y_pred["logits"])
        localized = self._localized(y_true["boxes"], y_pred["map"])
        keras.metrics.Mean.update_state(self, first * localized, sample_weight)


def _for_each(judge, *batches):
    """Asks a numpy function about each entry of some batches: float32 [batch], 0 or 1."""

    def loop(*arrays):
        return np.array([judge(*entry) for entry in zip(*arrays, strict=True)], np.float32)

    values = tf.numpy_function(loop, batches, tf.float32, stateful=False)
    return tf.ensure_shape(values, [None])


class LocalizationScores(keras.callbacks.Callback):
    """Scores a Localization on pictures with boxes after each epoch.

    The logs gain `val_gt_known_loc`, `val_top1_loc` and `val_miou_box` of the model's own map, so
    callbacks behind this one can use them: `EarlyStopping("val_gt_known_loc", mode="max")`. They
    are NaN where no picture that can be read has a box in the view.

    Args:
        source: pictures with boxes, of the model's classes.
        positions: positions in the source; None: all.
        threshold: score-map threshold in 0..1, or "otsu" for each map's own.
        view: "crop" or "whole", see `transforms.View`.
        batch_size: pictures in a batch.

    Raises:
        ValueError: for a source without boxes.
    """

    def __init__(
        self,
        source: Source,
        positions: Sequence[int] | None = None,
        *,
        threshold: float | str = "otsu",
        view: str = "crop",
        batch_size: int = 32,
    ):
        super().__init__()
        if not source.has_boxes:
            raise ValueError(f"{source.name} has no boxes to score the localization with.")
        self.source = source
        self.positions = range(len(source)) if positions is None else positions
        self.threshold = threshold
        self.view = view
        self.batch_size = batch_size

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Scores the model and adds the figures to the logs."""
        if logs is None:  # nobody would see them
            return
        model = self.model
        pairs = predict_pairs(
            model.predict_on_batch,
            self.source,
            self.positions,
            kinds=[model.map],
            view=View(model.input_size, model.resize_size, self.view),
            batch_size=self.batch_size,
            offset=model.offset,
            refine=model.refine,
            top_k=model.top_k,
            background_id=model.background_id,
        )
        scored = accumulate(
            pairs,
            [model.map],
            thresholds=[self.threshold],
            separate_at=self.threshold if model.separate else None,
        )[model.map]
        figures = scored.result(self.threshold) if len(scored) else {}
        for name in ("gt_known_loc", "top1_loc", "miou_box"):
            value = figures.get(name)
            logs[f"val_{name}"] = np.nan if value is None else value  # Keras adds numbers up
