"""Figures of found objects, several in a picture: AP as COCO computes it, recall, and CorLoc."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from wsol_tf.evaluation.iou import box_iou
from wsol_tf.evaluation.localized_map import LOCALIZED

IOU_LEVELS = np.linspace(0.5, 0.95, 10)  # of AP; AP50 is the first
RECALL_LEVELS = np.linspace(0, 1, 101)
MOST_BOXES = 100  # of a class in a picture that COCO looks at, those with the highest scores
MANY = 4  # pictures with so many objects and more are counted together


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredObjects:
    """What is kept of the boxes of a class in a picture.

    Attributes:
        scores: float64 `[num_boxes]`, falling.
        matched: bool `[levels, num_boxes]`, whether a box found a true one, at each of IOU_LEVELS.
        num_objects: true boxes of the class in the picture.
        in_picture: true boxes of all classes in it.
        first_is_right: whether the box with the highest score has IoU 0.5 or more with a true box.
    """

    scores: np.ndarray
    matched: np.ndarray
    num_objects: int
    in_picture: int
    first_is_right: bool


def match(boxes: np.ndarray, true_boxes: np.ndarray) -> np.ndarray:
    """Gives each box, in their order, the true box that fits it best and is still free.

    As COCO's evaluation does (`COCOeval.evaluateImg` of pycocotools, all sizes, no crowds): a true
    box is found once, so that a second box over the same object is a false one.

    Args:
        boxes: `[num_boxes, 4]`, half-open edges, the highest score first.
        true_boxes: `[num_objects, 4]`.

    Returns:
        bool `[levels, num_boxes]`: whether it found one whose IoU is at least each of IOU_LEVELS.
    """
    ious = box_iou(boxes, true_boxes)
    matched = np.zeros((len(IOU_LEVELS), len(boxes)), bool)
    for level, least in enumerate(IOU_LEVELS):
        free = np.ones(len(true_boxes), bool)
        for i in np.flatnonzero(ious.max(1, initial=0) >= least):
            fits = np.where(free, ious[i], -1)
            best = len(fits) - 1 - int(fits[::-1].argmax())  # of equals the last, as there
            matched[level, i] = fits[best] >= least
            free[best] &= not matched[level, i]
    return matched


def average_precision(scores: np.ndarray, matched: np.ndarray, num_objects: int) -> np.ndarray:
    """Computes the average precision of one class, as `COCOeval.accumulate` of pycocotools does.

    Precision never falls with recall (at each recall it is the highest of that recall and beyond)
    and is read at 101 recalls from 0 to 1; a recall that is not reached has precision 0.

    Args:
        scores: `[num_boxes]`, of all pictures; equal ones stay in their order.
        matched: bool `[levels, num_boxes]`, see `match`.
        num_objects: true boxes in all pictures, at least 1.

    Returns:
        float64 `[levels]`, in 0..1.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(matched[:, order], axis=1, dtype=np.float64)
    precision = hits / (np.arange(1, len(scores) + 1) + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    precision = np.pad(precision, ((0, 0), (0, 1)))  # behind the last box: never reached
    at = [np.searchsorted(row / num_objects, RECALL_LEVELS, side="left") for row in hits]
    return np.take_along_axis(precision, np.stack(at), axis=1).mean(1)


class ObjectMetrics:
    """Accumulates the boxes that were found of a class in a picture, beside its true ones.

    Results do not depend on the order of `add` and `merge`.
    """

    def __init__(self) -> None:
        self._parts: dict[tuple[str, int], ScoredObjects] = {}

    def add(
        self,
        image_id: str,
        label: int,
        boxes: np.ndarray,
        scores: np.ndarray,
        true_boxes: np.ndarray,
        in_picture: int,
    ) -> None:
        """Scores what was found of a class in a picture; a pair seen before is not counted again.

        Args:
            image_id: name of the picture.
            label: class id.
            boxes: `[num_boxes, 4]`, half-open; none where nothing was found.
            scores: `[num_boxes]`, how sure each box is, to be compared over all pictures.
            true_boxes: `[num_objects, 4]`; none where the class is not in the picture.
            in_picture: true boxes of all classes in the picture.
        """
        order = np.argsort(-np.asarray(scores), kind="stable")[:MOST_BOXES]
        boxes, scores = np.asarray(boxes)[order], np.asarray(scores, np.float64)[order]
        first = box_iou(boxes[:1], true_boxes)
        part = ScoredObjects(
            scores=scores,
            matched=match(boxes, true_boxes),
            num_objects=len(true_boxes),
            in_picture=in_picture,
            first_is_right=bool((first >= LOCALIZED).any()),
        )
        self._parts.setdefault((str(image_id), int(label)), part)

    def merge(self, other: "ObjectMetrics") -> None:
        """Adds what another accumulator has."""
        for key, part in other._parts.items():
            self._parts.setdefault(key, part)

    @property
    def parts(self) -> dict[tuple[str, int], ScoredObjects]:
        """What is kept of each class in each picture: (image id, label) -> ScoredObjects."""
        return self._parts

    def result(self, class_names: Sequence[str]) -> dict[str, Any] | None:
        """Computes the figures.

        Args:
            class_names: names of the classes.

        Returns:
            A dict for JSON, shares in 0..1, or None where no picture shows a true box: `ap` and
            `ap50`, means over the classes; `corloc`, the same; `recall` and `recall_by_number` of
            objects in the picture; `num_objects`, `num_boxes`, `classes`.
        """
        parts = [self._parts[key] for key in sorted(self._parts)]
        labels = np.array([label for _, label in sorted(self._parts)], np.int64)
        if not any(part.num_objects for part in parts):
            return None
        classes = {}
        for label in np.unique(labels).tolist():
            own = [parts[i] for i in np.flatnonzero(labels == label)]
            if any(part.num_objects for part in own):
                classes[class_names[label]] = _figures_of_class(own)
        return {
            **{
                name: float(np.mean([row[name] for row in classes.values()]))
                for name in ("corloc", "ap", "ap50")
            },
            "recall": _recall(parts),
            "recall_by_number": _recall_by_number(parts),
            "num_objects": sum(part.num_objects for part in parts),
            "num_boxes": sum(len(part.scores) for part in parts),
            "classes": classes,
        }


def _figures_of_class(parts):
    aps = average_precision(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.matched for part in parts], axis=1),
        sum(part.num_objects for part in parts),
    )
    shown = [part for part in parts if part.num_objects]
    return {
        "corloc": float(np.mean([part.first_is_right for part in shown])),
        "ap": float(aps.mean()),
        "ap50": float(aps[0]),
        "recall": _recall(parts),
        "num_objects": sum(part.num_objects for part in parts),
    }


def _recall(parts):
    """Share of the true boxes that a box of their own found, at IoU 0.5."""
    return float(sum(part.matched[0].sum() for part in parts)) / sum(
        part.num_objects for part in parts
    )


def _recall_by_number(parts):
    """Recall in the pictures with one object, two, three, and four and more."""
    rows = {}
    for number in range(1, MANY + 1):
        own = [part for part in parts if min(part.in_picture, MANY) == number and part.num_objects]
        if own:
            name = str(number) if number < MANY else f"{MANY}_or_more"
            rows[name] = {
                "recall": _recall(own),
                "num_objects": sum(part.num_objects for part in own),
            }
    return rows
