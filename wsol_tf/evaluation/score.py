"""Scores anything that gives score maps on a data set: figures and predictions, nothing drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wsol_tf.data.source import Source
from wsol_tf.evaluation.certainty import certainty_of
from wsol_tf.evaluation.methods import BASELINES, method_of, with_baseline
from wsol_tf.evaluation.metrics import LocalizationMetrics
from wsol_tf.evaluation.pairs import Method
from wsol_tf.evaluation.scores import Scores, accumulate_scores
from wsol_tf.evaluation.wsolevaluation import METRICS

if TYPE_CHECKING:
    from wsol_tf.model.localization import Localization


def evaluate(
    model: Localization | Method,
    dataset: Source,
    *,
    positions: Sequence[int] | None = None,
    map: str | None = None,
    threshold: float | str = "stored",
    view: str = "crop",
    metrics: Sequence[str] = METRICS,
) -> dict[str, Any]:
    """Scores a model on a data set, as `python -m wsol_tf.evaluate` does; writes and draws nothing.

        model = wsol_tf.load("run/model.keras")
        dataset = wsol_tf.open_dataset("voc_folder", "pictures", "val", classes=model.classes)
        figures = wsol_tf.evaluation.evaluate(model, dataset)
        figures["gt_known_loc"], figures["top1_loc"], figures["max_box_acc_v2"]["value"]

    Args:
        model: a Localization, or a Method, which says by itself which map is scored at which
            threshold and in which view.
        dataset: the pictures, with boxes or masks.
        positions: positions in the data set; None: all.
        map: the map that is scored, "true", "predicted", "mean", "topk", "cam", "grad_cam" or
            "center"; None: the model's own.
        threshold: score-map threshold in 0..1, "otsu" for each map's own, or "stored" for the one
            in the model.
        view: "crop" for the centre 7/8 of each picture, as the papers score, or "whole".
        metrics: those of wsolevaluation to compute besides, some of METRICS.

    Returns:
        The figures, a dict for JSON: fractions in 0..1, None where nothing can be said.
        `report.definitions.of` explains each.

    Raises:
        ValueError: no picture can be read, the model stores no threshold for the map, or a setting
            is not legal.
        TypeError: the model is neither a Localization nor a Method.
    """
    if isinstance(model, Method):
        if (map, threshold, view) != (None, "stored", "crop"):
            raise ValueError(
                "A Method has its own map, threshold and view. Make another Method instead of "
                f"passing these. Received: map={map!r}, threshold={threshold!r}, view={view!r}."
            )
        method = model
    else:
        method = _method_of_map(model, map, threshold, view)
    figures, *_ = score(method, dataset, positions, metrics=metrics)
    return {"scored_on": dataset.name, **figures}


def _method_of_map(model, kind, threshold, view):
    from wsol_tf.model import frozen  # with TensorFlow; a Method does without
    from wsol_tf.model.localization import Localization

    if not isinstance(model, Localization):
        raise TypeError(
            "evaluate() scores a Localization or a Method (which wraps anything that gives score "
            f"maps). Received: {type(model).__name__}."
        )
    own = {} if kind in BASELINES else {"kind": kind, "threshold": threshold}
    method = method_of(model, view=view, **own)
    # Nothing changes the weights before this is done.
    predict = frozen.predictor(model) or model.predict_on_batch
    method = dataclasses.replace(method, predict=predict)
    if kind not in BASELINES:
        return method
    return with_baseline(
        method,
        kind,
        model.feature_extractor,
        model.classifier,
        threshold=threshold,
    )


def score(
    method: Method,
    source: Source,
    positions: Sequence[int] | None = None,
    *,
    metrics: Sequence[str] = (),
    map_chunks: Callable[..., Iterable] = map,
    progress: Callable[[int], Any] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, LocalizationMetrics]]:
    """Scores a method on a data set.

    Args:
        method: what is scored, and how.
        source: the data set.
        positions: positions in the source; None: all.
        metrics: those of wsolevaluation to compute besides, some of METRICS.
        map_chunks: `map`, or one of `workers.mapper` to score in several processes.
        progress: called with the number of pictures that were predicted so far.

    Returns:
        (figures, predictions, accumulators): a dict for metrics.json, a dict for each line of
        predictions.jsonl, see `scores.prediction`, and what was accumulated of each kind of map.

    Raises:
        ValueError: no picture can be read, or a metric is unknown.
    """
    scores = accumulate_scores(
        method, source, positions, metrics=metrics, map_chunks=map_chunks, progress=progress
    )
    return compute_scored(scores, method, source), scores.predictions, scores.accumulators


def compute_scored(scores: Scores, method: Method, source: Source) -> dict[str, Any]:
    """Computes the figures of a method on a data set, a dict for metrics.json.

    Raises:
        ValueError: no picture was scored.
    """
    if not scores.predictions:
        raise ValueError(f"{source.name}: no picture can be read.\n{source.report.summary()}")
    kind, accumulators = method.kinds[0], scores.accumulators
    figures = compute_figures(accumulators, kind, method.thresholds, source.classes)
    figures["threshold_from"] = method.threshold_from
    figures["view"] = method.view.kind
    figures["ten_crop"] = method.ten_crop
    figures |= _single_class_figures(accumulators[kind], source, method.thresholds[kind])
    figures |= scores.standard.result()
    figures |= scores.several.result(source.classes, method.thresholds)
    figures["skipped"] = dict(sorted(source.report.skipped.items()))
    return figures


def choose_thresholds(
    accumulators: Mapping[str, LocalizationMetrics], rule: str
) -> dict[str, float]:
    """Chooses a score-map threshold per kind of map.

    Args:
        accumulators: kind -> LocalizationMetrics.
        rule: "boxes" or "maps", see `LocalizationMetrics.choose_threshold_from_boxes` and
            `choose_threshold_from_maps`.

    Returns:
        dict kind -> threshold.

    Raises:
        ValueError: the rule is "boxes" and none of the pictures has one, or no map is finite.
    """
    if rule == "boxes":
        return {kind: a.choose_threshold_from_boxes() for kind, a in accumulators.items()}
    return {kind: a.choose_threshold_from_maps() for kind, a in accumulators.items()}


def compute_figures(
    accumulators: Mapping[str, LocalizationMetrics],
    kind: str,
    thresholds: Mapping[str, float | str],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Computes the figures of one kind of map, with those of the other kinds beside them.

    Args:
        accumulators: kind -> LocalizationMetrics.
        kind: the kind that the figures are of.
        thresholds: kind -> threshold; kinds without one are reported at Otsu's.
        class_names: names of the classes.

    Returns:
        A dict for JSON: the figures of `LocalizationMetrics.result` and `certainty_of`,
        `threshold_curves`, `map`, and `other_maps`.
    """
    figures = accumulators[kind].result(thresholds.get(kind, "otsu"), class_names=class_names)
    figures |= certainty_of(accumulators, kind, thresholds)
    figures["map"] = kind
    figures["threshold_curves"] = accumulators[kind].threshold_curves()
    shown = ("gt_known_loc", "top1_loc", "top5_loc", "miou_box", "miou_mask", "threshold",
             "gt_known_loc_oracle", "oracle_threshold", "gt_known_loc_otsu",
             "outcomes")  # fmt: skip
    figures["other_maps"] = {}
    for other, accumulator in accumulators.items():
        if other != kind:
            result = accumulator.result(thresholds.get(other, "otsu"))
            figures["other_maps"][other] = {name: result[name] for name in shown}
    return figures


def _single_class_figures(accumulator, source, threshold):
    """The main figures on the pictures with a single class, where there are others as well."""
    pictures = zip(source.image_ids, source.labels, strict=True)
    part = accumulator.subset(image_id for image_id, labels in pictures if len(labels) == 1)
    if not 0 < len(part) < len(accumulator):
        return {}
    result = part.result(threshold)
    names = ("gt_known_loc", "top1_loc", "top1_cls", "miou_box", "miou_mask", "num_pairs")
    return {"single_class": {name: result[name] for name in names}}
