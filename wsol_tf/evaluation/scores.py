"""What is accumulated of the pairs of a data set, in parts that merge: figures, and predictions."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from wsol_tf.data.source import Source
from wsol_tf.data.transforms import View
from wsol_tf.evaluation.localized_map import (
    OUTCOMES,
    THRESHOLDS,
    LocalizedMap,
    measured_thresholds,
)
from wsol_tf.evaluation.metrics import LocalizationMetrics
from wsol_tf.evaluation.pairs import Method, Pair
from wsol_tf.evaluation.several_objects import SeveralObjects
from wsol_tf.evaluation.standard_metrics import StandardMetrics

CHUNK = 16  # Pairs that are scored together; small, so that processes end at about the same time.


@dataclasses.dataclass
class Scores:
    """What was accumulated of some pictures; parts that were made alike merge into the whole.

    Attributes:
        accumulators: kind of map -> LocalizationMetrics.
        standard: metrics of wsolevaluation.
        several: objects and pixels of several classes.
        predictions: a dict for each line of predictions.jsonl, see `prediction`.
    """

    accumulators: dict[str, LocalizationMetrics]
    standard: StandardMetrics
    several: SeveralObjects
    predictions: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def merge(self, other: Scores) -> None:
        """Adds other pictures; the figures do not depend on the order, that of lines is kept."""
        for kind, accumulator in self.accumulators.items():
            accumulator.merge(other.accumulators[kind])
        self.standard.merge(other.standard)
        self.several.merge(other.several)
        self.predictions += other.predictions


def accumulate_scores(
    method: Method,
    source: Source,
    positions: Sequence[int] | None = None,
    *,
    metrics: Sequence[str] = (),
    map_chunks: Callable[..., Iterable] = map,
    progress: Callable[[int], Any] | None = None,
) -> Scores:
    """Accumulates all that is scored of a method on a data set; the arguments are `score`'s."""
    positions = range(len(source)) if positions is None else positions
    make_scores = maker_of_scores(method, len(source.classes), metrics)
    score_some = functools.partial(
        _score_chunk,
        make_scores=make_scores,
        kinds=method.kinds,
        thresholds=dict(method.thresholds),
        separated=method.separated_kinds,
        view=method.view,
        class_names=source.classes,
    )
    chunks = _chunks(method.pairs(source, positions, progress=progress, presence=method.presence))
    scores = make_scores()
    for part in map_chunks(score_some, chunks):
        scores.merge(part)
    return scores


def maker_of_scores(
    method: Method, num_classes: int, metrics: Sequence[str]
) -> Callable[[], Scores]:
    """Returns a function that makes empty Scores; another process can be given it."""
    return functools.partial(
        _make_scores,
        method.kinds,
        list(method.thresholds.values()),
        metrics,
        method.view,
        functools.partial(
            SeveralObjects,
            method.kinds,
            method.presence,
            num_classes,
            background_id=method.background_id,
            own_threshold=method.own_threshold,
            **method.limits,
        ),
    )


def _make_scores(kinds, thresholds, metrics, view, make_several):
    return Scores(_accumulators(kinds, thresholds), StandardMetrics(metrics, view), make_several())


def accumulate(
    pairs: Iterable[Pair],
    kinds: Sequence[str],
    *,
    thresholds: Iterable[float | str] = (),
    separate_at: float | str | None = None,
) -> dict[str, LocalizationMetrics]:
    """Accumulates the maps of pairs, those of each kind apart.

    Args:
        pairs: what is scored.
        kinds: kinds of map.
        thresholds: score-map thresholds to measure besides THRESHOLDS; "otsu" always is.
        separate_at: threshold at which objects that touch are cut apart; None: nowhere.

    Returns:
        dict kind -> LocalizationMetrics.
    """
    accumulators = _accumulators(kinds, thresholds)
    for pair in pairs:
        for kind, accumulator in accumulators.items():
            cut = "otsu" if separate_at is None else separate_at
            separate = separate_at is not None
            accumulator.add(
                LocalizedMap(pair, kind, cut, accumulator.thresholds, separate=separate)
            )
    return accumulators


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
    boxes, iou, outcome = pair.boxes, localized.iou, localized.outcome
    if boxes is not None and iou is not None and outcome is not None:  # all or none are there
        line["true_boxes"] = [_rounded(view.to_picture(box, *pair.size)) for box in boxes]
        line["iou"] = iou
        line["outcome"] = OUTCOMES[outcome]
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


def _score_chunk(chunk, *, make_scores, kinds, thresholds, separated, view, class_names):
    """Scores some pictures, apart from all others."""
    scores = make_scores()
    for picture in chunk:
        maps = [
            {
                kind: LocalizedMap(
                    pair,
                    kind,
                    thresholds.get(kind, "otsu"),
                    scores.accumulators[kind].thresholds,
                    separate=kind in separated,
                )
                for kind in pair.maps
            }
            for pair in picture
        ]
        for pair, of_kinds in zip(picture, maps, strict=True):
            if pair.present:
                for kind, localized in of_kinds.items():
                    scores.accumulators[kind].add(localized)
                scores.standard.add(of_kinds[kinds[0]])
                scores.predictions.append(prediction(of_kinds[kinds[0]], view, class_names))
        scores.several.add(maps)
    return scores


def _rounded(box):
    return [round(float(edge), 2) for edge in box]
