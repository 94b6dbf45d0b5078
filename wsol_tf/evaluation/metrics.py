"""Localization figures from score maps: an accumulator of one (picture, class) pair at a time."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from wsol_tf.evaluation.iou import box_iou
from wsol_tf.evaluation.localized_map import (
    LOCALIZED,
    OUTCOMES,
    THRESHOLDS,
    LocalizedMap,
    column_of,
    measured_thresholds,
)
from wsol_tf.evaluation.scored_pair import CENTERED_AREAS, ScoredPair, scored

CURVE_LEVELS = (0.3, 0.5, 0.7)  # Box IoUs of the threshold curves, those of MaxBoxAccV2.


class LocalizationMetrics:
    """Accumulates GT-known Loc, Top-1/5 Loc, Top-1/5 Cls, box and mask IoU over pairs.

    A map is stretched to 0..1, resized to the view and cut by `> threshold`; the box is that of
    the largest component, and the true box that fits it best counts. The mask IoU is that of all
    positions above the threshold. Results do not depend on the order of `add` and `merge`.

    Args:
        thresholds: `[num_thresholds]`; `result` answers for these.
        box_iou: `iou.box_iou`, or `iou.bas_box_iou` to compare with BAS's own figures.
    """

    def __init__(
        self,
        thresholds: Iterable[float] = THRESHOLDS,
        *,
        box_iou: Callable[[np.ndarray, np.ndarray], np.ndarray] = box_iou,
    ):
        self.thresholds = measured_thresholds(thresholds)
        self.box_iou = box_iou
        self._pairs: dict[tuple[str, int], ScoredPair] = {}
        self._duplicates: list[str] = []

    def __len__(self):
        return len(self._pairs)

    @property
    def image_ids(self) -> set[str]:
        """Ids of the pictures that have been scored."""
        return {image_id for image_id, _ in self._pairs}

    def add(self, localized: LocalizedMap) -> None:
        """Scores the map of one class in one picture.

        A map with a NaN or an infinity counts as a miss and is named in `bad_maps` of the result;
        class scores like that count as wrong, in `bad_scores`. A view that shows no true box is a
        miss. A pair seen before is not counted again, but named in `duplicates`.

        Raises:
            ValueError: the map was localized at other thresholds or with another IoU, or its
                label has no score.
        """
        self._check_same("add a map that was localized", localized)
        key = (str(localized.pair.image_id), int(localized.pair.label))
        if key in self._pairs:
            self._duplicates.append(key[0])
        else:
            self._pairs[key] = scored(localized)

    def subset(self, image_ids: Iterable[str]) -> "LocalizationMetrics":
        """Returns an accumulator of the pairs of these pictures alone."""
        part = LocalizationMetrics(self.thresholds, box_iou=self.box_iou)
        chosen = set(map(str, image_ids))
        part._pairs = {key: pair for key, pair in self._pairs.items() if key[0] in chosen}
        return part

    def merge(self, other: "LocalizationMetrics") -> None:
        """Adds the pairs of another accumulator to this one.

        Raises:
            ValueError: the other one was made with other thresholds or another IoU.
        """
        self._check_same("merge metrics that were made", other)
        self._duplicates += other._duplicates
        for key, pair in other._pairs.items():
            if key in self._pairs:
                self._duplicates.append(key[0])
            else:
                self._pairs[key] = pair

    def choose_threshold_from_boxes(self) -> float:
        """Chooses the score-map threshold for use elsewhere from the boxes of these pictures.

        It maximises the mean IoU, each clipped to 0.3..0.7: that is the accuracy averaged over all
        IoU cut-offs between the two, so that, unlike the accuracy at 0.5 alone, it does not jump
        when one of a few pictures crosses a line, and does not reward perfecting boxes that are
        right anyway. The curve is smoothed over five neighbours, and the middle of the plateau
        within 0.01 of its top is taken: on few pictures the top itself is luck. (Our own choice;
        no source.)

        Raises:
            ValueError: there are no boxes.
        """
        ious = self._stack("box_ious")
        if ious is None:
            raise ValueError(
                "A threshold cannot be chosen from boxes: none of the pictures has one. "
                "Use choose_threshold_from_maps()."
            )
        curve = np.clip(ious[:, :-1], 0.3, 0.7).mean(0)
        padded = np.pad(curve, 2, mode="edge")
        smooth = np.convolve(padded, np.full(5, 0.2), mode="valid")
        first = last = int(smooth.argmax())
        level = smooth[first] - 0.01
        while first > 0 and smooth[first - 1] >= level:
            first -= 1
        while last + 1 < len(smooth) and smooth[last + 1] >= level:
            last += 1
        return float(self.thresholds[(first + last) // 2])

    def choose_threshold_from_maps(self) -> float:
        """Chooses the score-map threshold for use elsewhere from these maps: no boxes.

        It is the median of the thresholds that the finite maps suggest, see
        `LocalizedMap.suggested_threshold`, moved to the nearest one measured. docs/results.md
        compares it with other rules that need no boxes. (Our own choice; no source.)

        Raises:
            ValueError: no map is finite.
        """
        median = self.suggested_quartiles()[1]
        return float(self.thresholds[np.abs(self.thresholds - median).argmin()])

    def suggested_quartiles(self) -> list[float]:
        """Computes how far the thresholds spread that the finite maps suggest: no boxes.

        Returns:
            The first quartile, the median and the third, each in 0..1.

        Raises:
            ValueError: no map is finite.
        """
        values = [pair.suggested_threshold for pair in self._pairs.values() if not pair.bad_map]
        if not values:
            raise ValueError("A threshold cannot be chosen: there is no picture with a finite map.")
        return np.quantile(values, [0.25, 0.5, 0.75]).tolist()

    def result(
        self, threshold: float | str, *, class_names: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Computes all figures at a threshold.

        Args:
            threshold: one of `thresholds`, or "otsu" for each map's own.
            class_names: names of the classes; None: their ids.

        Returns:
            A dict for JSON: fractions 0..1, None where nothing can be said. Figures named `oracle`
            use the threshold (or centred box) that is best on these very pictures.

        Raises:
            ValueError: the threshold was not measured, or no picture has been scored.
        """
        column, columns = column_of(self.thresholds, threshold), self.columns(threshold)
        keys = sorted(self._pairs)
        return {
            **{name: _mean(values) for name, values in columns.items()},
            "threshold": threshold if threshold == "otsu" else float(threshold),
            **self._oracles(),
            "outcomes": self._count_outcomes(column),
            "baselines": self._baselines(),
            **self._empty_pictures(column),
            "num_images": len({image_id for image_id, _ in keys}),
            "num_pairs": len(keys),
            "pairs_without_box": self._named(lambda pair: pair.num_boxes == 0),
            "constant_maps": self._named(lambda pair: pair.constant_map),
            "bad_maps": self._named(lambda pair: pair.bad_map),
            "bad_scores": self._named(lambda pair: pair.bad_scores),
            "duplicates": sorted(set(self._duplicates)),
            "per_class": _per_class([label for _, label in keys], columns, class_names),
        }

    def columns(self, threshold: float | str) -> dict[str, np.ndarray]:
        """Computes the figures of every pair, of which `result` has the means.

        Args:
            threshold: as for `result`.

        Returns:
            dict name -> `[pairs]`, in the order of the sorted `pairs`; NaN where a pair has none.

        Raises:
            ValueError: as `result`.
        """
        if not self._pairs:
            raise ValueError("There is nothing to report: no picture has been scored.")
        pairs = [self._pairs[key] for key in sorted(self._pairs)]
        return _columns(pairs, column_of(self.thresholds, threshold))

    @property
    def pairs(self) -> dict[tuple[str, int], ScoredPair]:
        """What is kept of each pair: (image id, label) -> ScoredPair."""
        return self._pairs

    def threshold_curves(self) -> dict[str, list[float]] | None:
        """Computes GT-known Loc at every threshold, for a right box from IoU 0.3, 0.5 and 0.7 on.

        Returns:
            A dict for JSON: `score_map_thresholds`, and a list beside it for each IoU; None
            without boxes.
        """
        ious = self._stack("box_ious")
        if ious is None:
            return None
        curves = {"score_map_thresholds": self.thresholds.tolist()}
        for level in CURVE_LEVELS:
            hits = ious[:, :-1] >= level
            curves[f"gt_known_loc_iou_{round(level * 100)}"] = hits.mean(0).tolist()
        return curves

    def _check_same(self, what, other):
        if not np.array_equal(self.thresholds, other.thresholds):
            raise ValueError(f"Cannot {what} with different thresholds.")
        if self.box_iou is not other.box_iou:
            raise ValueError(f"Cannot {what} with different IoUs.")

    def _stack(self, name):
        """Stacks a figure of the pairs that have it, [pairs, columns], by key; None without any."""
        if name != "mask_ious" and not _have_boxes(self._pairs.values()):
            return None
        rows = [getattr(self._pairs[key], name) for key in sorted(self._pairs)]
        rows = [row for row in rows if row is not None]
        return np.stack(rows) if rows else None

    def _named(self, is_concerned):
        """Image ids of the pairs that a function picks."""
        return sorted({key[0] for key, pair in self._pairs.items() if is_concerned(pair)})

    def _oracles(self):
        """The best value of each figure over all thresholds, and the threshold that reaches it."""
        box_ious, mask_ious = self._stack("box_ious"), self._stack("mask_ious")
        hits = None if box_ious is None else box_ious >= LOCALIZED
        figures = {}
        for name, at, table in (
            ("gt_known_loc_oracle", "oracle_threshold", hits),
            ("miou_box_oracle", "miou_box_oracle_threshold", box_ious),
            ("miou_mask_oracle", "miou_mask_oracle_threshold", mask_ious),
        ):
            figures[name], figures[at] = _best(table, self.thresholds)
        return figures

    def _count_outcomes(self, column):
        """Counts what became of the pairs that have boxes: dict outcome -> count, or None."""
        if not _have_boxes(self._pairs.values()):
            return None
        found = [pair.outcome_at(column) for pair in self._pairs.values()]
        counts = np.bincount([x for x in found if x is not None], minlength=len(OUTCOMES))
        return dict(zip(OUTCOMES, counts.tolist(), strict=True))

    def _empty_pictures(self, column):
        """What is found in the pictures without any object, where the data have some."""
        pairs = (self._pairs[key] for key in sorted(self._pairs))  # a mean goes by their order
        areas = [pair.false_areas[column] for pair in pairs if pair.false_areas is not None]
        if not areas:
            return {}
        return {
            "num_empty": len(areas),
            "false_area": float(np.mean(areas)),
            "found_nothing": float(np.mean(np.equal(areas, 0))),
        }

    def _baselines(self):
        """Scores boxes that look at no picture: the whole view, and the best centred box."""
        ious = self._stack("centered_ious")
        if ious is None:
            return None
        hits = (ious >= LOCALIZED).mean(0)
        best = int(hits.argmax())
        return {
            "whole_view": {"gt_known_loc": float(hits[-1]), "miou_box": float(ious[:, -1].mean())},
            "centered_box_oracle": {
                "gt_known_loc": float(hits[best]),
                "miou_box": float(ious[:, best].mean()),
                "area_fraction": round(float(CENTERED_AREAS[best]), 2),
            },
        }


def _have_boxes(pairs):
    return any(pair.num_boxes for pair in pairs)


def _columns(pairs, column):
    """A figure of every pair at a threshold: dict name -> [pairs], NaN where a pair has none."""
    ranks = np.array([pair.rank for pair in pairs])
    boxed = _have_boxes(pairs)

    def known(values):
        return np.array([np.nan if value is None else value for value in values])

    box_ious, otsu_ious = (
        known(pair.iou_at(at) if boxed else None for pair in pairs) for at in (column, -1)
    )
    mask_ious = (None if x.mask_ious is None else x.mask_ious[column] for x in pairs)
    top1, top5 = _where_known(ranks, ranks < 1), _where_known(ranks, ranks < 5)
    hit = _where_known(box_ious, box_ious >= LOCALIZED)
    return {
        "top1_cls": top1,
        "top5_cls": top5,
        "gt_known_loc": hit,
        "top1_loc": hit * top1,
        "top5_loc": hit * top5,
        "gt_known_loc_otsu": _where_known(otsu_ious, otsu_ious >= LOCALIZED),
        "miou_box": box_ious,
        "miou_mask": known(mask_ious),
    }


def _where_known(values, flags):
    """Flags as 1 and 0, NaN where the values are: a NaN compares as False, which reads as wrong."""
    return np.where(np.isnan(values), np.nan, flags)


def _per_class(labels, columns, class_names):
    """Means over classes of the means over each class's pairs, and these themselves."""
    labels, classes = np.array(labels), {}
    for label in np.unique(labels).tolist():
        chosen = labels == label
        name = str(label) if class_names is None else class_names[label]
        classes[name] = {figure: _mean(values[chosen]) for figure, values in columns.items()}
        classes[name]["num_pairs"] = int(chosen.sum())
    means = {
        figure: _mean([np.nan if row[figure] is None else row[figure] for row in classes.values()])
        for figure in columns
    }
    return {**means, "classes": classes}


def _mean(values):
    """The mean of the values that are no NaN; None without any."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def _best(table, thresholds):
    """The best mean of a column, and the middle one of the thresholds that reach it."""
    if table is None:
        return None, None
    means = table[:, : len(thresholds)].mean(0)
    ties = np.flatnonzero(means == means.max())
    return float(means.max()), float(thresholds[ties[(len(ties) - 1) // 2]])
