"""Scores anything that gives score maps on a data set, and reports it beside its baselines."""

import dataclasses
import functools
import itertools
import sys

import keras
import numpy as np
from PIL import Image

from wsol_tf.evaluation.iou import box_iou
from wsol_tf.evaluation.metrics import OUTCOMES, THRESHOLDS, LocalizationMetrics, outcomes
from wsol_tf.evaluation.wsolevaluation import (
    Standard,
)
from wsol_tf.model.score_maps import localize
from wsol_tf.report.contact_sheets import (
    best_median_worst,
    contact_sheet_of,
    draw,
    examples_of_errors,
)
from wsol_tf.report.terminal import figures_table

CHUNK = 16  # Pairs that are scored together; small, so that processes end at about the same time.


def accumulate(scored_pairs, kinds, *, thresholds=()):
    """Feeds pairs into one LocalizationMetrics per kind of map.

    Args:
        scored_pairs: an iterable of Pair.
        kinds: kinds of map.
        thresholds: score-map thresholds to measure besides metrics.THRESHOLDS.

    Returns:
        dict kind -> LocalizationMetrics.
    """
    measured = np.append(THRESHOLDS, [t for t in thresholds if t != "otsu"])
    accumulators = {kind: LocalizationMetrics(measured) for kind in kinds}
    for pair in scored_pairs:
        for kind, accumulator in accumulators.items():
            accumulator.add(
                pair.image_id,
                pair.label,
                pair.logits,
                pair.maps[kind],
                pair.boxes,
                pair.image.shape[:2],
                mask=pair.mask,
                allowed=pair.allowed,
                # A CAM is no mask that the activation could judge: it is the activation.
                activation=None if kind == "cam" else pair.activation,
            )
    return accumulators


def choose_thresholds(accumulators, rule):
    """Chooses a threshold per kind of map.

    Args:
        accumulators: dict kind -> LocalizationMetrics.
        rule: "boxes" or "maps", see `LocalizationMetrics.choose_threshold_from_boxes` and
            `choose_threshold_from_maps`.

    Returns:
        dict kind -> threshold.

    Raises:
        ValueError: the rule is "boxes" and none of the pictures has one.
    """
    if rule == "boxes":
        return {kind: a.choose_threshold_from_boxes() for kind, a in accumulators.items()}
    return {kind: a.choose_threshold_from_maps() for kind, a in accumulators.items()}


def report(accumulators, kind, thresholds, class_names):
    """Makes the figures of one kind of map, with CAM and the trivial boxes beside them.

    Args:
        accumulators: dict kind -> LocalizationMetrics.
        kind: the kind that the figures are of.
        thresholds: dict kind -> threshold; kinds without one are reported at Otsu's.
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


def score_and_draw(
    method, source, positions=None, *, sheet_path, title, metrics=(), log=print, map_chunks=map
):
    """Scores a method on a data set and draws the contact sheet.

    Args:
        method: a Method.
        source: a `sources.Source`.
        positions: positions in the source; None takes all.
        sheet_path: file that the contact sheet is written to.
        title: heading of the sheet.
        metrics: names of METRICS to compute besides.
        log: function that takes lines of text for the user.
        map_chunks: `map`, or one of `workers.mapper` to score in several processes.

    Returns:
        (figures, lines, tiles): what metrics.json and predictions.jsonl hold, and examples, best,
        median and worst and of each kind of error: dict heading -> list of (picture, caption).

    Raises:
        ValueError: when no picture can be read.
    """
    kind, thresholds = method.kinds[0], method.thresholds
    positions = range(len(source)) if positions is None else positions
    progress = keras.utils.Progbar(len(positions), unit_name="picture")
    shown = progress.update if sys.stdout.isatty() else None
    lines = []
    standard = Standard(metrics, method.view)
    accumulators = accumulate((), method.kinds, thresholds=thresholds.values())
    score = functools.partial(
        _score,
        kinds=method.kinds,
        thresholds=thresholds,
        view=method.view,
        metrics=metrics,
        class_names=source.classes,
    )
    chunks = _chunks(method.pairs(source, positions, progress=shown))
    for scored_accumulators, scored_standard, scored_lines in map_chunks(score, chunks):
        for name, accumulator in accumulators.items():
            accumulator.merge(scored_accumulators[name])
        standard.merge(scored_standard)
        lines += scored_lines
    if not lines:
        raise ValueError(f"{source.name}: no picture can be read.\n{source.report.summary()}")
    figures = report(accumulators, kind, thresholds, source.classes)
    figures["threshold_from"] = method.threshold_from
    figures["view"] = method.view.kind
    figures["ten_crop"] = method.ten_crop
    single = [
        i for i, labels in zip(source.image_ids, source.labels, strict=True) if len(labels) == 1
    ]
    part = accumulators[kind].subset(single)
    if 0 < len(part) < len(accumulators[kind]):
        result = part.result(thresholds[kind])
        names = ("gt_known_loc", "top1_loc", "top1_cls", "miou_box", "miou_mask", "num_pairs")
        figures["single_class"] = {name: result[name] for name in names}
    figures |= standard.result()
    figures["skipped"] = dict(source.report.skipped)
    log(figures_table(figures))
    if source.report.skipped or source.report.noted:
        log(source.report.summary())
    tiles = draw(method, source, best_median_worst(lines) | examples_of_errors(lines))
    on_sheet = {heading: row for heading, row in tiles.items() if heading not in OUTCOMES}
    Image.fromarray(contact_sheet_of(on_sheet, title)).save(sheet_path)
    return figures, lines, tiles


def _chunks(scored_pairs):
    """Lists of pairs, whose pictures keep nothing but their size: scoring reads no more."""
    light = (dataclasses.replace(pair, image=pair.image[..., :0]) for pair in scored_pairs)
    while chunk := list(itertools.islice(light, CHUNK)):
        yield chunk


def _score(chunk, *, kinds, thresholds, view, metrics, class_names):
    """Scores some pairs: (dict kind -> LocalizationMetrics, Standard, lines of predictions)."""
    kind = kinds[0]
    standard = Standard(metrics, view)
    for pair in chunk:
        standard.add(pair, pair.maps[kind])
    lines = [prediction(pair, kind, thresholds[kind], view, class_names) for pair in chunk]
    return accumulate(chunk, kinds, thresholds=thresholds.values()), standard, lines


def prediction(pair, kind, threshold, view, class_names):
    """What the model says about a pair, as a line of predictions.jsonl; boxes in the picture."""
    score_map, _, box = localize(pair.maps[kind], *pair.image.shape[:2], threshold)
    best = None  # nothing says the class
    if pair.logits is not None:
        best = int(np.argmax(np.where(pair.allowed, pair.logits, -np.inf)))
    line = {
        "image_id": pair.image_id,
        "size": {"height": pair.size[0], "width": pair.size[1]},
        "label": class_names[pair.label],
        "class": None if best is None else class_names[best],
        "probability": None if best is None else _finite(pair.probabilities[best]),
        "map": kind,
        "threshold": threshold,
        "box": _box(view.to_picture(box, *pair.size)),
    }
    if pair.boxes is not None:
        line["true_boxes"] = [_box(view.to_picture(b, *pair.size)) for b in pair.boxes]
        finite = np.isfinite(pair.maps[kind]).all()
        line["iou"] = float(box_iou(box[None], pair.boxes).max(initial=0)) if finite else 0.0
        right = pair.logits is None or (
            best == pair.label and np.isfinite(pair.logits[pair.allowed]).all()
        )
        found = outcomes(box, pair.boxes[: None if finite else 0], right)
        line["outcome"] = OUTCOMES[found[0]]
    return line


def _box(box):
    return [round(float(edge), 2) for edge in box]


def _finite(value):
    return float(value) if np.isfinite(value) else None
