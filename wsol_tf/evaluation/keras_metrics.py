"""GT-known Loc and Top-1 Loc as Keras metrics.

The figures are those of `metrics.LocalizationMetrics` at one score-map threshold. Training batches
carry no boxes, so these are for evaluation: of any Keras model whose output is a map,

    model.compile(loss=..., metrics=[GTKnownLoc(threshold=0.3, view_size=224)])
    model.evaluate(images, boxes)

(with several outputs: `metrics={"localization_map": ...}` and a dict of targets), or in a loop of
one's own. Top1Loc needs the logits and the map at once, which a metric of `compile` never gets, so
it is for such loops. `callbacks.LocalizationScores` gives both figures during `fit`.
"""

import keras
import numpy as np
import tensorflow as tf

from wsol_tf.data import transforms
from wsol_tf.evaluation import metrics
from wsol_tf.evaluation.iou import box_iou, boxes_at
from wsol_tf.evaluation.pairs import predict_pairs
from wsol_tf.evaluation.score import accumulate
from wsol_tf.model import score_maps


class GTKnownLoc(keras.metrics.Mean):
    """Fraction of score maps whose box has an IoU of at least 0.5 with a true box.

    It counts right under tf.distribute, as `keras.metrics.Mean` does. The boxes are found in numpy
    on the CPU, so XLA cannot compile a step that holds it (`jit_compile=False`).

    Args:
        threshold: score-map threshold in 0..1, or "otsu" for each map's own.
        view_size: int or (height, width), the size in pixels of the picture that the boxes are in.
    """

    def __init__(self, threshold, view_size, name="gt_known_loc", **kwargs):
        super().__init__(name=name, **kwargs)
        if threshold != "otsu" and not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in 0..1 or 'otsu'. Received: {threshold!r}.")
        self.threshold = threshold
        self.view_size = view_size

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Scores a batch.

        Args:
            y_true: true boxes `[batch, num_boxes, 4]` in pixels of the view, half-open; those
                without area are padding, and a picture with no other is a miss.
            y_pred: score maps `[batch, h, w]` or `[batch, h, w, 1]` at any resolution; one with a
                NaN or an infinity is a miss.
            sample_weight: None or `[batch]`.
        """
        super().update_state(self._localized(y_true, y_pred), sample_weight)

    def get_config(self):
        config = super().get_config()
        return {**config, "threshold": self.threshold, "view_size": self.view_size}

    def _localized(self, boxes, maps):
        return _for_each(lambda *pair: self._is_localized(*pair), boxes, maps)

    def _is_localized(self, boxes, score_map):
        height, width = np.broadcast_to(self.view_size, 2).tolist()
        if score_map.ndim == 3 and score_map.shape[-1] == 1:
            score_map = score_map[..., 0]
        if not np.isfinite(score_map).all():
            return False
        resized = score_maps.resize(score_maps.normalize(score_map), height, width)
        otsu = self.threshold == "otsu"
        threshold = score_maps.otsu(resized) if otsu else round(self.threshold, 6)
        found = boxes_at(resized, [threshold])
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
        return box_iou(found, boxes).max(initial=0) >= metrics.LOCALIZED


class Top1Loc(GTKnownLoc):
    """Fraction of pictures that are localized and whose class is the first one predicted."""

    def __init__(self, threshold, view_size, name="top1_loc", **kwargs):
        super().__init__(threshold, view_size, name=name, **kwargs)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Scores a batch.

        Args:
            y_true: dict of `boxes`, see GTKnownLoc, and `label`, int `[batch]`.
            y_pred: dict of `map`, see GTKnownLoc, and `logits`, `[batch, classes]`; logits with a
                NaN or an infinity are wrong.
            sample_weight: None or `[batch]`.
        """

        def is_first(label, logits):
            place, _ = metrics.rank(logits, int(label))
            return place == 0

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
        pairs = predict_pairs(
            model.predict_on_batch,
            self.source,
            self.positions,
            kinds=[model.map],
            view=transforms.View(model.input_size, model.resize_size, self.view),
            batch_size=self.batch_size,
            top_k=model.top_k,
        )
        scored = accumulate(pairs, [model.map], thresholds=[self.threshold])[model.map]
        figures = scored.result(self.threshold)
        for name in ("gt_known_loc", "top1_loc", "miou_box"):
            logs[f"val_{name}"] = figures[name]
