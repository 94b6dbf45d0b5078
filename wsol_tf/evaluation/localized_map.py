"""What one score map says about one class in one picture, computed once for all that score it."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wsol_tf.evaluation import suggestion
from wsol_tf.evaluation.iou import box_area, box_iou, box_overlap, boxes_at, mask_ious_at
from wsol_tf.model import score_maps, separation

if TYPE_CHECKING:
    from wsol_tf.evaluation.pairs import Pair

LOCALIZED = 0.5  # The box IoU from which a picture counts as localized, as everywhere in the field.

# What became of a pair; `outcomes_of` tells them apart, report/definitions.py describes each.
OUTCOMES = ("right", "wrong_class", "part_only", "too_big", "several_objects", "missed")
SEVERAL, PART, BIG = 0.3, 0.5, 0.7


OF_SEVERAL = ("mean", "topk", "predicted")  # kinds of map that are not a given class's own


def own_kind(kinds: Sequence[str]) -> str:
    """The kind of map that a given class has for itself, of those that a method gives.

    A model's scored map may be one of several classes together; where its localizer has a map for
    each class, objects of several classes are told apart by that one.
    """
    return "true" if kinds[0] in OF_SEVERAL and "true" in kinds else kinds[0]


def measured_thresholds(thresholds: Iterable[float | str]) -> np.ndarray:
    """Returns thresholds as they are measured: float64 `[num]`, rising, rounded to six digits.

    "otsu" is left out: each map's own threshold is always measured besides.
    """
    numbers = [threshold for threshold in thresholds if threshold != "otsu"]
    return np.unique(np.round(np.asarray(numbers, np.float64), 6))


THRESHOLDS = measured_thresholds(np.arange(0, 1, 0.01))


def column_of(thresholds: np.ndarray, threshold: float | str) -> int:
    """Finds where a threshold stands among those measured; "otsu" is the last column, -1.

    Raises:
        ValueError: the threshold is not among them, or a word other than "otsu".
    """
    if isinstance(threshold, str):
        if threshold != "otsu":
            raise ValueError(f"Unknown threshold {threshold!r}. Legal: a number, 'otsu'.")
        return -1
    near = int(np.abs(thresholds - threshold).argmin())
    if abs(thresholds[near] - threshold) > 1e-6:
        raise ValueError(
            f"Threshold {threshold} was not measured; the nearest that was is "
            f"{thresholds[near]:g}. Name it when making LocalizationMetrics(thresholds)."
        )
    return near


def outcomes_of(boxes: np.ndarray, true_boxes: np.ndarray, class_is_right: bool) -> np.ndarray:
    """Says what became of a pair, for each box that might be its answer.

    A box whose IoU with a true one is 0.5 or more is right, or of the wrong class. Any other is, by
    the first that holds: several objects (it covers more than 0.3 of each of two true boxes), part
    only (more than 0.5 of it lies in the nearest true box), too big (it covers 0.7 or more of that
    box), or missed. The nearest true box is that with the largest IoU. The numbers and their order
    are those of TS-CAM's code (Gao et al., ICCV 2021, arXiv 2103.14862), which differs in that a
    wrong class hides what the box does.

    Args:
        boxes: `[num_boxes, 4]`.
        true_boxes: `[num_true_boxes, 4]`.
        class_is_right: whether the predicted class is the pair's.

    Returns:
        int8 `[num_boxes]`, positions in OUTCOMES.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    true_boxes = np.asarray(true_boxes, np.float64).reshape(-1, 4)
    if not len(true_boxes):
        return np.full(len(boxes), OUTCOMES.index("missed"), np.int8)
    ious = box_iou(boxes, true_boxes)
    overlap = box_overlap(boxes, true_boxes)
    of_true = overlap / np.maximum(box_area(true_boxes), 1e-9)
    of_box = overlap / np.maximum(box_area(boxes), 1e-9)[:, None]
    nearest = np.arange(len(boxes)), ious.argmax(1)
    found = np.select(
        [
            ious.max(1) >= LOCALIZED,
            (of_true > SEVERAL).sum(1) > 1,
            of_box[nearest] > PART,
            of_true[nearest] >= BIG,
        ],
        [
            OUTCOMES.index("right" if class_is_right else "wrong_class"),
            OUTCOMES.index("several_objects"),
            OUTCOMES.index("part_only"),
            OUTCOMES.index("too_big"),
        ],
        OUTCOMES.index("missed"),
    )
    return found.astype(np.int8)


def rank_of(scores: np.ndarray, label: int, allowed: np.ndarray | None = None) -> tuple[int, bool]:
    """Counts the classes that score higher than the label, ties by class id, as argmax does.

    Args:
        scores: logits or probabilities `[classes]`.
        label: class id.
        allowed: bool `[classes]`, the classes that compete; the label always does. None: all.

    Returns:
        (rank, finite): 0 for the label with the highest score; whether all competing scores are
        finite. Where they are not, the label ranks behind every place that is ever asked for.

    Raises:
        ValueError: the label has no score.
    """
    scores = np.array(scores, np.float64).reshape(-1)
    if not 0 <= label < len(scores):
        raise ValueError(f"Label {label} has no score. Received scores for {len(scores)} classes.")
    rivals = np.ones(len(scores), bool) if allowed is None else np.array(allowed, bool)
    rivals[label] = True
    if not np.isfinite(scores[rivals]).all():
        return len(scores) + 5, False
    own = scores[label]
    before = (scores > own) | ((scores == own) & (np.arange(len(scores)) < label))
    return int((before & rivals).sum()), True


@dataclasses.dataclass(frozen=True, eq=False)
class LocalizedMap:
    """A score map of a pair, and everything that it says about the picture.

    It is made once per pair and kind of map. The accumulators, the lines of predictions and the
    drawings all read this one object, so they can't disagree. Nothing is computed before it is
    asked for, and nothing twice.

    Attributes:
        pair: the class in a picture, with what is true of it.
        kind: which of the pair's maps this is.
        threshold: score-map threshold of the prediction, one of `thresholds`, or "otsu" for the
            map's own.
        thresholds: float64 `[num_thresholds]`, all that are measured, see `measured_thresholds`.
        box_iou: `iou.box_iou`, or `iou.bas_box_iou` to compare with BAS's own figures.
        separate: whether the prediction cuts objects that touch apart, see `separation`. What is
            measured at all thresholds takes components as they are.
    """

    pair: "Pair"
    kind: str
    threshold: float | str = "otsu"
    thresholds: np.ndarray = dataclasses.field(default_factory=lambda: THRESHOLDS)
    box_iou: Callable[[np.ndarray, np.ndarray], np.ndarray] = box_iou
    separate: bool = False

    @property
    def view_size(self) -> tuple[int, int]:
        """Height and width of the view, in pixels."""
        return self.pair.image.shape[:2]

    @property
    def raw_map(self) -> np.ndarray:
        """The map as the method gave it, `[h, w]`, in any range."""
        return self.pair.maps[self.kind]

    @functools.cached_property
    def is_finite(self) -> bool:
        """Whether the map holds neither NaN nor infinity; one that does is always a miss."""
        return bool(np.isfinite(np.asarray(self.raw_map, np.float32)).all())

    @functools.cached_property
    def score_map(self) -> np.ndarray:
        """The map stretched to 0..1 and resized to the view, float32 `[height, width]`."""
        return score_maps.resize(score_maps.normalize(self.raw_map), *self.view_size)

    @property
    def is_constant(self) -> bool:
        """Whether the map has one finite value everywhere; its box is then the whole view."""
        return self.is_finite and not self.score_map.any()

    @functools.cached_property
    def cuts(self) -> np.ndarray:
        """Where the map is cut: float64 `[num_thresholds + 1]`, `thresholds` and then Otsu's."""
        return np.append(self.thresholds, score_maps.otsu(self.score_map))

    @functools.cached_property
    def column(self) -> int:
        """Position of the prediction's threshold in `cuts` and all that is listed like it."""
        return column_of(self.thresholds, self.threshold)

    @functools.cached_property
    def mask(self) -> np.ndarray:
        """The foreground mask of the prediction, bool `[height, width]`."""
        return self._mask_at(self.cuts[self.column])

    def _mask_at(self, cut):
        mask = score_maps.threshold_mask(self.score_map, cut)
        return separation.separate(mask, self.score_map, cut) if self.separate else mask

    @functools.cached_property
    def boxes(self) -> np.ndarray:
        """The box of the largest component at each of `cuts`, float32 `[num_thresholds + 1, 4]`."""
        return boxes_at(self.score_map, self.cuts)

    @functools.cached_property
    def box(self) -> np.ndarray:
        """The box of the prediction in pixels of the view, float32 `[4]`."""
        if self.separate:
            found = self.objects_at(self.cuts[self.column], max_objects=1).boxes
            return found[0] if len(found) else score_maps.box_of(self.mask)
        if self.pair.boxes is None:  # then nothing asks for the boxes at all thresholds
            return boxes_at(self.score_map, self.cuts[[self.column]])[0]
        return self.boxes[self.column]

    def objects_at(self, cut: float, **limits: Any) -> score_maps.Components:
        """The objects that the map shows where it is cut, see `score_maps.components`.

        Args:
            cut: score-map threshold, a number.
            **limits: some of config.LIMITS.
        """
        evidence = self.pair.activation if self.separate else None
        return score_maps.components(
            self._mask_at(cut), self.score_map, evidence=evidence, **limits
        )

    @property
    def iou(self) -> float | None:
        """IoU of the prediction's box, see `box_ious`."""
        if self.box_ious is None or not self.separate:
            return None if self.box_ious is None else float(self.box_ious[self.column])
        assert self.pair.boxes is not None
        ious = self.box_iou(self.box[None], self.pair.boxes)
        return float(ious.max(initial=0) * self.is_finite)

    @property
    def outcome(self) -> int | None:
        """What became of the pair with the prediction's box, a position in OUTCOMES, or None."""
        if self.outcomes is None or not self.separate:
            return None if self.outcomes is None else int(self.outcomes[self.column])
        assert self.pair.boxes is not None
        true_boxes = self.pair.boxes[: None if self.is_finite else 0]
        return int(outcomes_of(self.box[None], true_boxes, not self.class_rank[0] > 0)[0])

    @functools.cached_property
    def box_ious(self) -> np.ndarray | None:
        """IoU of each of `boxes` with the true box that fits it best, float64; 0 for a bad map.

        None where the data has no boxes; all 0 where the view shows none.
        """
        if self.pair.boxes is None:
            return None
        return self.box_iou(self.boxes, self.pair.boxes).max(1, initial=0) * self.is_finite

    @functools.cached_property
    def outcomes(self) -> np.ndarray | None:
        """What became of the pair with each of `boxes`, int8 positions in OUTCOMES, or None."""
        if self.pair.boxes is None:
            return None
        true_boxes = self.pair.boxes[: None if self.is_finite else 0]
        return outcomes_of(self.boxes, true_boxes, not self.class_rank[0] > 0)

    @functools.cached_property
    def mask_ious(self) -> np.ndarray | None:
        """IoU of the mask at each of `cuts` with the true mask, float64; None without a mask."""
        mask = self.pair.mask
        if mask is None or not np.any(np.not_equal(mask, 255)):
            return None
        return mask_ious_at(self.score_map, mask, self.cuts) * self.is_finite

    @functools.cached_property
    def false_areas(self) -> np.ndarray | None:
        """Share of the view that the mask at each of `cuts` takes in a picture without any object.

        float64 `[num_thresholds + 1]`; 0 where that class is predicted, for then nothing is found.
        None where the picture may have an object.
        """
        if not self.pair.empty:
            return None
        if self.class_rank[0] == 0:
            return np.zeros(len(self.cuts))
        masks = (score_maps.threshold_mask(self.score_map, cut) for cut in self.cuts)
        return np.array([mask.mean() for mask in masks])

    @functools.cached_property
    def class_rank(self) -> tuple[float, bool]:
        """Rank of the pair's class and whether the scores are finite, see `rank_of`.

        The rank is NaN where nothing says the class.
        """
        if self.pair.logits is None:
            return np.nan, True
        return rank_of(self.pair.logits, self.pair.label, self.pair.allowed)

    @functools.cached_property
    def suggested_threshold(self) -> float:
        """The threshold that this map suggests without any box.

        See `suggestion.suggested_threshold`.
        """
        # A CAM is no mask that the activation could judge: it is the activation.
        activation = None if self.kind == "cam" else self.pair.activation
        return suggestion.suggested_threshold(self.score_map, activation, self.pair.colours)
