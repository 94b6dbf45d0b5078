"""Scores anything that gives score maps on a data set: figures and predictions, nothing drawn."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wsol_tf.data.source import Source
from wsol_tf.data.transforms import View
from wsol_tf.evaluation.localized_map import (
    OUTCOMES,
    THRESHOLDS,
    LocalizedMap,
    measured_thresholds,
)
from wsol_tf.evaluation.methods import BASELINES, with_baseline
from wsol_tf.evaluation.metrics import LocalizationMetrics
from wsol_tf.evaluation.pairs import Method, Pair, method_of
from wsol_tf.evaluation.several_objects import SeveralObjects
from wsol_tf.evaluation.standard_metrics import StandardMetrics
from wsol_tf.evaluation.wsolevaluation import METRICS

if TYPE_CHECKING:
    from wsol_tf.model.localization import Localization

CHUNK = 16  # Pairs that are scored together; small, so that processes end at about the same time.


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
    from wsol_tf.model.localization import Localization  # with TensorFlow; a Method does without

    if not isinstance(model, Localization):
        raise TypeError(
            "evaluate() scores a Localization or a Method (which wraps anything that gives score "
            f"maps). Received: {type(model).__name__}."
        )
    if kind not in BASELINES:
        return method_of(model, kind=kind, threshold=threshold, view=view)
    return with_baseline(
        method_of(model, view=view),
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
        predictions.jsonl, see `prediction`, and what was accumulated of each kind of map.

    Raises:
        ValueError: no picture can be read, or a metric is unknown.
    """
    kind = method.kinds[0]
    positions = range(len(source)) if positions is None else positions
    standard = StandardMetrics(metrics, method.view)
    accumulators = accumulate((), method.kinds, thresholds=method.thresholds.values())
    make_several = _maker_of_several(method, len(source.classes))
    several = make_several()
    score_some = functools.partial(
        _score_chunk,
        kinds=method.kinds,
        thresholds=dict(method.thresholds),
        view=method.view,
        metrics=metrics,
        class_names=source.classes,
        make_several=make_several,
    )
    chunks = _chunks(method.pairs(source, positions, progress=progress, presence=method.presence))
    predictions = []
    for scored, scored_standard, scored_several, lines in map_chunks(score_some, chunks):
        for name, accumulator in accumulators.items():
            accumulator.merge(scored[name])
        standard.merge(scored_standard)
        several.merge(scored_several)
        predictions += lines
    if not predictions:
        raise ValueError(f"{source.name}: no picture can be read.\n{source.report.summary()}")
    figures = compute_figures(accumulators, kind, method.thresholds, source.classes)
    figures["threshold_from"] = method.threshold_from
    figures["view"] = method.view.kind
    figures["ten_crop"] = method.ten_crop
    figures |= _single_class_figures(accumulators[kind], source, method.thresholds[kind])
    figures |= standard.result()
    figures |= several.result(source.classes, method.thresholds)
    figures["skipped"] = dict(source.report.skipped)
    return figures, predictions, accumulators


def accumulate(
    pairs: Iterable[Pair], kinds: Sequence[str], *, thresholds: Iterable[float | str] = ()
) -> dict[str, LocalizationMetrics]:
    """Accumulates the maps of pairs, those of each kind apart.

    Args:
        pairs: what is scored.
        kinds: kinds of map.
        thresholds: score-map thresholds to measure besides THRESHOLDS; "otsu" always is.

    Returns:
        dict kind -> LocalizationMetrics.
    """
    accumulators = _accumulators(kinds, thresholds)
    for pair in pairs:
        for kind, accumulator in accumulators.items():
            accumulator.add(LocalizedMap(pair, kind, thresholds=accumulator.thresholds))
    return accumulators


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
        A dict for JSON: the figures of `LocalizationMetrics.result`, `threshold_curves`, `map`,
        and `other_maps`.
    """
    figures = accumulators[kind].result(thresholds.get(kind, "otsu"), class_names=class_names)
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


def prediction(localized: LocalizedMap, view: View, class_names: Sequence[str]) -> dict[str, Any]:
    """What is predicted of a pair, as a line of predictions.jsonl; boxes are in the picture.

    Args:
        localized: the map that the prediction is made from.
        view: what the pair was seen in.
        class_names: names of the classes.

    Returns:
        A dict for JSON: `image_id`, `size`, `label`, `class` and its `probability` (None where
        nothing says the class), `map`, `threshold`, `box`, and where the data has boxes
        `true_boxes`, `iou` and `outcome`. Boxes are x0, y0, x1, y1 edges in pixels.
    """
    pair = localized.pair
    best, probability = _first_class(pair)
    line = {
        "image_id": pair.image_id,
        "size": {"height": pair.size[0], "width": pair.size[1]},
        "label": class_names[pair.label],
        "class": None if best is None else class_names[best],
        "probability": probability,
        "map": localized.kind,
        "threshold": localized.threshold,
        "box": _rounded(view.to_picture(localized.box, *pair.size)),
    }
    if (areas := localized.false_areas) is not None:
        line["false_area"] = float(areas[localized.column])
        line["box"] = line["box"] if line["false_area"] else None
    boxes, ious, outcomes = pair.boxes, localized.box_ious, localized.outcomes
    if boxes is not None and ious is not None and outcomes is not None:  # all or none are there
        line["true_boxes"] = [_rounded(view.to_picture(box, *pair.size)) for box in boxes]
        line["iou"] = float(ious[localized.column])
        line["outcome"] = OUTCOMES[outcomes[localized.column]]
    return line


def _first_class(pair):
    """The class with the highest score and its probability; None where it is unknown."""
    if pair.logits is None:
        return None, None
    allowed = True if pair.allowed is None else pair.allowed
    best = int(np.argmax(np.where(allowed, pair.logits, -np.inf)))
    probability = float(pair.probabilities[best])
    return best, probability if np.isfinite(probability) else None


def _accumulators(kinds, thresholds):
    measured = measured_thresholds([*THRESHOLDS, *thresholds])
    return {kind: LocalizationMetrics(measured) for kind in kinds}


def _chunks(pairs: Iterable[Pair]) -> Iterator[list[list[Pair]]]:
    """Lists of the pairs of each picture, which keeps nothing but its size: no more is read."""
    light = (dataclasses.replace(pair, image=pair.image[..., :0]) for pair in pairs)
    chunk: list[list[Pair]] = []
    for _, picture in itertools.groupby(light, key=lambda pair: pair.position):
        chunk.append(list(picture))
        if sum(map(len, chunk)) >= CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _score_chunk(chunk, *, kinds, thresholds, view, metrics, class_names, make_several):
    """Scores some pictures: (dict kind -> LocalizationMetrics, the others of theirs, lines)."""
    accumulators = _accumulators(kinds, thresholds.values())
    standard, several, predictions = StandardMetrics(metrics, view), make_several(), []
    for picture in chunk:
        maps = [
            {
                kind: LocalizedMap(
                    pair, kind, thresholds.get(kind, "otsu"), accumulators[kind].thresholds
                )
                for kind in pair.maps
            }
            for pair in picture
        ]
        for pair, of_kinds in zip(picture, maps, strict=True):
            if pair.present:
                for kind, localized in of_kinds.items():
                    accumulators[kind].add(localized)
                standard.add(of_kinds[kinds[0]])
                predictions.append(prediction(of_kinds[kinds[0]], view, class_names))
        several.add(maps)
    return accumulators, standard, several, predictions


def _maker_of_several(method, num_classes):
    return functools.partial(
        SeveralObjects,
        method.kinds,
        method.presence,
        num_classes,
        min_area=method.min_area,
        max_objects=method.max_objects,
        background_id=method.background_id,
        own_threshold=method.own_threshold,
    )


def _single_class_figures(accumulator, source, threshold):
    """The main figures on the pictures with a single class, where there are others as well."""
    pictures = zip(source.image_ids, source.labels, strict=True)
    part = accumulator.subset(image_id for image_id, labels in pictures if len(labels) == 1)
    if not 0 < len(part) < len(accumulator):
        return {}
    result = part.result(threshold)
    names = ("gt_known_loc", "top1_loc", "top1_cls", "miou_box", "miou_mask", "num_pairs")
    return {"single_class": {name: result[name] for name in names}}


def _rounded(box):
    return [round(float(edge), 2) for edge in box]
