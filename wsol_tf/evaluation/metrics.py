"""Localization figures from score maps: one accumulator, fed one (image, class) pair at a time."""

import numpy as np

from wsol_tf.evaluation.iou import box_area, box_iou, box_overlap, boxes_at, mask_ious_at
from wsol_tf.model import score_maps

THRESHOLDS = np.arange(0, 1, 0.01)
CENTERED_AREAS = np.arange(0.05, 1.001, 0.05)
LOCALIZED = 0.5  # The box IoU from which a picture counts as localized, as everywhere in the field.
CURVE_LEVELS = (0.3, 0.5, 0.7)  # Box IoUs of the threshold curves, those of MaxBoxAccV2.

# What became of a pair; `outcomes` tells them apart, definitions.py says each in a sentence.
OUTCOMES = ("right", "wrong_class", "part_only", "too_big", "several_objects", "missed")
SEVERAL, PART, BIG = 0.3, 0.5, 0.7


def centered_box(view_size, area_fraction):
    """Returns the centred box, float64 [4], that covers a fraction of the view, in its aspect."""
    height, width = _height_width(view_size)
    side = np.sqrt(area_fraction)
    return np.array([1 - side, 1 - side, 1 + side, 1 + side]) / 2 * [width, height, width, height]


def outcomes(boxes, true_boxes, class_is_right):
    """Says what became of a pair, for each box that might be its answer.

    A box with IoU 0.5 or more with a true one is right, or of the wrong class. Any other is, by
    the first that holds: over more than one object (it covers more than 0.3 of each of two true
    boxes), part only (more than 0.5 of it lies in the nearest true box), too big (it covers 0.7 or
    more of that box), or a miss. The numbers and their order are those of TS-CAM's code (Gao et
    al., ICCV 2021, arXiv 2103.14862), which differs in that a wrong class hides what the box does.

    boxes: [N, 4]; true_boxes: [M, 4], the nearest is that with the largest IoU; class_is_right:
    bool. Returns positions in OUTCOMES, int8 [N].
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


class LocalizationMetrics:
    """Accumulates GT-known Loc, Top-1/5 Loc, Top-1/5 Cls, box and mask IoU over pairs.

    A map is stretched to [0, 1], resized to the view and cut by `> threshold`; the box is that of
    the largest component, and the best ground-truth box counts. The mask IoU is that of all
    positions above the threshold. Results do not depend on the order of `add` and `merge`.

    thresholds: rising floats, [num_thresholds]; `result` answers for these.
    box_iou: `score_maps.box_iou`, or `score_maps.bas_box_iou` to compare with BAS's own figures.
    """

    def __init__(self, thresholds=THRESHOLDS, *, box_iou=box_iou):
        self.thresholds = np.unique(np.round(np.asarray(thresholds, np.float64), 6))
        self._box_iou = box_iou
        self._pairs = {}
        self._duplicates = []

    def __len__(self):
        return len(self._pairs)

    def add(
        self, image_id, label, scores, score_map, boxes, view_size, *, mask=None, allowed=None,
        activation=None,
    ):  # fmt: skip
        """Scores the map of one class in one picture.

        image_id: string; label: class id; scores: logits or probabilities, [classes], None where
        nothing says the class (Top-1 and Top-5 are then None);
        score_map: [h, w] at the map's own resolution; boxes: [num_boxes, 4] of this class in pixels
        of the view, None where the data has none, empty where the view shows none (a miss);
        view_size: int or (height, width); mask: None or uint8 [height, width], 1 object, 0 not,
        255 ignored (None, empty or all ignored: no figure); allowed: None or bool [classes],
        the classes that compete with the label; activation: None or float [h, w], 0 or more,
        where the classifier sees the class: `choose_threshold_from_maps` goes by it.

        A map with NaN or infinity counts as a miss and is named in `bad_maps` of the result; so
        do scores, in `bad_scores`. A pair seen before is not counted again.
        """
        key = (str(image_id), int(label))
        if key in self._pairs:
            self._duplicates.append(key[0])
            return
        height, width = _height_width(view_size)
        score_map = np.asarray(score_map, np.float32)
        bad_map = not np.isfinite(score_map).all()
        resized = score_maps.resize(score_maps.normalize(score_map), height, width)
        otsu = score_maps.otsu(resized)
        cuts = np.append(self.thresholds, otsu)
        place, bad_scores = (np.nan, False) if scores is None else rank(scores, key[1], allowed)
        pair = {
            "rank": place,
            "otsu": otsu,
            "from_maps": _threshold_from_maps(resized, activation),
            "bad_map": bad_map,
            "bad_scores": bad_scores,
            "constant_map": not bad_map and not resized.any(),
            "without_box": boxes is not None and not len(boxes),
            "box_ious": None,  # at each threshold, then at Otsu's
            "outcomes": None,
            "mask_ious": None,
            "centered_ious": None,
        }
        if boxes is not None:
            boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
            pair["num_boxes"] = len(boxes)
            found = boxes_at(resized, cuts)
            centered = [centered_box((height, width), area) for area in CENTERED_AREAS]
            pair["box_ious"] = self._box_iou(found, boxes).max(1, initial=0) * (not bad_map)
            pair["outcomes"] = outcomes(found, boxes[: 0 if bad_map else None], not place > 0)
            pair["centered_ious"] = self._box_iou(centered, boxes).max(1, initial=0)
        if mask is not None and np.any(np.not_equal(mask, 255)):
            ious = mask_ious_at(resized, mask, cuts)
            pair["mask_ious"] = ious * (not bad_map)
        self._pairs[key] = pair

    def subset(self, image_ids):
        """Returns an accumulator of the pairs of these pictures alone."""
        part = LocalizationMetrics(self.thresholds, box_iou=self._box_iou)
        chosen = set(map(str, image_ids))
        part._pairs = {key: pair for key, pair in self._pairs.items() if key[0] in chosen}
        return part

    def merge(self, other):
        """Adds the pairs of another accumulator with the same thresholds to this one."""
        if not np.array_equal(self.thresholds, other.thresholds):
            raise ValueError("Cannot merge metrics that were made with different thresholds.")
        if self._box_iou is not other._box_iou:
            raise ValueError("Cannot merge metrics that were made with different IoUs.")
        self._duplicates += other._duplicates
        for key, pair in other._pairs.items():
            if key in self._pairs:
                self._duplicates.append(key[0])
            else:
                self._pairs[key] = pair

    def choose_threshold_from_boxes(self):
        """Chooses the score-map threshold for use elsewhere from the boxes of these pictures.

        It maximises the mean IoU, each clipped to 0.3..0.7: that is the accuracy averaged over all
        IoU cut-offs between the two, so that, unlike the accuracy at 0.5 alone, it does not jump
        when one of a few pictures crosses a line, and does not reward perfecting boxes that are
        right anyway. The curve is smoothed over five neighbours, and the middle of the plateau
        within 0.01 of its top is taken: on few pictures the top itself is luck. Raises ValueError
        if there are no boxes. (Our own choice; no source.)
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

    def choose_threshold_from_maps(self):
        """Chooses the score-map threshold for use elsewhere from these maps: no boxes.

        It is the median of the pictures' own thresholds, moved to the nearest known one. Where
        `add` got an activation that is finite and not 0 all over, a picture's is the one whose
        mask correlates most with its square, see `score_maps.otsu`; else that of least
        cross-entropy. docs/results.md compares both with other rules that need no boxes. (Our own
        choice; no source.)
        """
        values = [p["from_maps"] for p in self._pairs.values() if not p["bad_map"]]
        if not values:
            raise ValueError("A threshold cannot be chosen: there is no picture with a finite map.")
        return float(self.thresholds[np.abs(self.thresholds - np.median(values)).argmin()])

    def result(self, threshold, *, class_names=None):
        """Returns all figures at a threshold (one of `thresholds`, or 'otsu' for each map's own).

        The dict is ready for JSON: fractions 0..1, None where nothing can be said. Figures named
        `oracle` use the threshold (or centred box) that is best on these very pictures.
        """
        column = self._column(threshold)
        keys = sorted(self._pairs)
        pairs = [self._pairs[key] for key in keys]
        if not pairs:
            raise ValueError("There is nothing to report: no picture has been scored.")
        ranks = np.array([pair["rank"] for pair in pairs])
        box_ious, mask_ious = self._stack("box_ious"), self._stack("mask_ious")
        has_boxes = np.array([pair["box_ious"] is not None for pair in pairs])
        has_masks = np.array([pair["mask_ious"] is not None for pair in pairs])

        values = {}  # One column per figure, NaN where a pair has none.
        known = ~np.isnan(ranks)  # NaN compares as False, which would read as a wrong class.
        values["top1_cls"] = np.where(known, ranks < 1, np.nan)
        values["top5_cls"] = np.where(known, ranks < 5, np.nan)
        for name in ("gt_known_loc", "top1_loc", "top5_loc", "gt_known_loc_otsu"):
            values[name] = np.full(len(pairs), np.nan)
        values["miou_box"], values["miou_mask"] = np.full((2, len(pairs)), np.nan)
        if box_ious is not None:
            hit = box_ious[:, column] >= LOCALIZED
            values["gt_known_loc"][has_boxes] = hit
            values["top1_loc"][has_boxes] = hit * values["top1_cls"][has_boxes]
            values["top5_loc"][has_boxes] = hit * values["top5_cls"][has_boxes]
            values["miou_box"][has_boxes] = box_ious[:, column]
            values["gt_known_loc_otsu"][has_boxes] = box_ious[:, -1] >= LOCALIZED
        if mask_ious is not None:
            values["miou_mask"][has_masks] = mask_ious[:, column]

        figures = {name: _mean(column_values) for name, column_values in values.items()}
        figures["threshold"] = threshold if threshold == "otsu" else float(threshold)
        hits = None if box_ious is None else box_ious >= LOCALIZED
        for name, at, table in (
            ("gt_known_loc_oracle", "oracle_threshold", hits),
            ("miou_box_oracle", "miou_box_oracle_threshold", box_ious),
            ("miou_mask_oracle", "miou_mask_oracle_threshold", mask_ious),
        ):
            figures[name], figures[at] = _best(table, self.thresholds)
        figures["outcomes"] = self._outcomes(column)
        figures["baselines"] = self._baselines()
        figures["num_images"] = len({image_id for image_id, _ in keys})
        figures["num_pairs"] = len(pairs)
        for name, flag in (
            ("pairs_without_box", "without_box"),
            ("constant_maps", "constant_map"),
            ("bad_maps", "bad_map"),
            ("bad_scores", "bad_scores"),
        ):
            figures[name] = sorted(
                {key[0] for key, pair in zip(keys, pairs, strict=True) if pair[flag]}
            )
        figures["duplicates"] = sorted(set(self._duplicates))

        labels = np.array([label for _, label in keys])
        table = {}
        for label in np.unique(labels).tolist():
            chosen = labels == label
            name = str(label) if class_names is None else class_names[label]
            table[name] = {name_: _mean(column_[chosen]) for name_, column_ in values.items()}
            table[name]["num_pairs"] = int(chosen.sum())
        figures["per_class"] = {
            name: _mean([np.nan if row[name] is None else row[name] for row in table.values()])
            for name in values
        }
        figures["per_class"]["classes"] = table
        return figures

    def threshold_curves(self):
        """Returns GT-known Loc at every threshold, for a right box from IoU 0.3, 0.5 and 0.7 on.

        A dict for JSON: `score_map_thresholds`, and a list beside it for each level; None without
        boxes.
        """
        ious = self._stack("box_ious")
        if ious is None:
            return None
        curves = {"score_map_thresholds": self.thresholds.tolist()}
        for level in CURVE_LEVELS:
            hits = ious[:, :-1] >= level
            curves[f"gt_known_loc_iou_{round(level * 100)}"] = hits.mean(0).tolist()
        return curves

    def _outcomes(self, column):
        """Counts what became of the pairs that have boxes: dict of outcome -> count, or None."""
        table = self._stack("outcomes")
        if table is None:
            return None
        counts = np.bincount(table[:, column], minlength=len(OUTCOMES))
        return dict(zip(OUTCOMES, counts.tolist(), strict=True))

    def _column(self, threshold):
        if isinstance(threshold, str):
            if threshold != "otsu":
                raise ValueError(f"Unknown threshold {threshold!r}. Legal: a number, 'otsu'.")
            return -1
        near = int(np.abs(self.thresholds - threshold).argmin())
        if abs(self.thresholds[near] - threshold) > 1e-6:
            raise ValueError(
                f"Threshold {threshold} was not measured; the nearest that was is "
                f"{self.thresholds[near]:g}. Name it when making LocalizationMetrics(thresholds)."
            )
        return near

    def _stack(self, name):
        """Stacks one kind of IoU, [pairs that have it, columns], in the order of the keys."""
        rows = [self._pairs[key][name] for key in sorted(self._pairs)]
        rows = [row for row in rows if row is not None]
        if name != "mask_ious" and not any(pair.get("num_boxes") for pair in self._pairs.values()):
            return None
        return np.stack(rows) if rows else None

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


def _threshold_from_maps(score_map, activation):
    """One picture's threshold without boxes; score_map [height, width] in 0..1."""
    if activation is None or not 0 < np.max(activation) < np.inf:
        return score_maps.min_cross_entropy(score_map)
    relative = score_maps.resize(activation / np.max(activation), *score_map.shape)
    # Squared: faint activation reaches far beyond the object, and its many positions would count.
    return score_maps.otsu(score_map, relative**2)


def _height_width(view_size):
    return (view_size, view_size) if np.isscalar(view_size) else tuple(map(int, view_size))


def rank(scores, label, allowed=None):
    """Returns how many allowed classes stand before the label, ties by class id, as argmax does.

    scores: [classes]; label: class id; allowed: None or bool [classes]. The second value returned
    says whether the scores hold a NaN or an infinity; the label is then behind every place.
    """
    scores = np.array(scores, np.float64).reshape(-1)
    if not 0 <= label < len(scores):
        raise ValueError(f"Label {label} has no score. Received scores for {len(scores)} classes.")
    if allowed is not None:
        rivals = np.array(allowed, bool)
        rivals[label] = True
    else:
        rivals = np.ones(len(scores), bool)
    if not np.isfinite(scores[rivals]).all():
        return len(scores) + 5, True  # Behind every place that is asked for.
    own = scores[label]
    before = (scores > own) | ((scores == own) & (np.arange(len(scores)) < label))
    return int((before & rivals).sum()), False


def _mean(values):
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def _best(table, thresholds):
    """Returns the best column mean and the middle one of the thresholds that reach it."""
    if table is None:
        return None, None
    means = table[:, : len(thresholds)].mean(0)
    ties = np.flatnonzero(means == means.max())
    return float(means.max()), float(thresholds[ties[(len(ties) - 1) // 2]])


def standard_error(share: float, num_pairs: int) -> float:
    """Computes the binomial standard error of a share in 0..1 of so many pairs."""
    return float(np.sqrt(share * (1 - share) / num_pairs))
