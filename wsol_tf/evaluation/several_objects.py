"""Several objects in a picture: what their classes' maps find, scored picture by picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsol_tf.config import LIMITS
from wsol_tf.data.example import IGNORE
from wsol_tf.evaluation.localized_map import LocalizedMap, own_kind
from wsol_tf.evaluation.object_metrics import ObjectMetrics
from wsol_tf.evaluation.segmentation import SegmentationMetrics, class_pixels
from wsol_tf.model import score_maps

NOWHERE = 1.0  # no map is above it


class SeveralObjects:
    """Accumulates the objects and the pixels of each class that were found in pictures.

    Args:
        kinds: kinds of map of the method, the one that is scored first.
        presence: probability from which on a class counts as found, as the highest-ranked one
            always does; None: which classes are there can't be said.
        num_classes: number of classes.
        min_area: see `score_maps.components`.
        min_picture_area: see `score_maps.components`.
        max_objects: see `score_maps.components`.
        background_id: id of the class of pictures without any object, or None. Where it is the
            highest-ranked one, nothing is found, as in `Localization.localize`.
        own_threshold: where a class's own map is cut, see `Method.own_threshold`; None: where the
            localized map is.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        presence: float | None,
        num_classes: int,
        *,
        min_area: float = 0.0,
        min_picture_area: float = 0.0,
        max_objects: int = 0,
        background_id: int | None = None,
        own_threshold: float | str | None = None,
    ):
        score_maps.check_objects(min_area, min_picture_area, max_objects)
        self.scored, self.own = kinds[0], own_kind(kinds)
        self.presence, self.background_id = presence, background_id
        self.own_threshold = own_threshold
        self.limits: dict[str, Any] = dict(
            zip(LIMITS, (min_area, min_picture_area, max_objects), strict=True)
        )
        self.given, self.found = ObjectMetrics(), ObjectMetrics()
        self.pixels_given = SegmentationMetrics(num_classes)
        self.pixels_found = SegmentationMetrics(num_classes)

    def add(self, maps: Sequence[Mapping[str, LocalizedMap]]) -> None:
        """Scores a picture; one without any object has false boxes alone, as COCO counts it.

        Args:
            maps: kind -> localized map for each class in the picture, and for each class that is
                not in it and was found all the same (its pair is not `present`).
        """
        maps = [one for one in maps if not one[self.own].pair.empty]
        present = [one for one in maps if one[self.own].pair.present]
        found = [one[self.own] for one in maps if self._is_found(one[self.own].pair)]
        pairs = [one[self.own].pair for one in present]
        if all(one[self.own].pair.boxes is not None for one in maps):
            in_picture = sum(len(pair.boxes) for pair in pairs if pair.boxes is not None)
            for one in present:
                localized = one[self.scored]
                self._add_boxes(self.given, localized, localized.cuts[localized.column], in_picture)
            for one in maps if self.presence is not None else ():
                localized = one[self.own]
                cut = self._own_cut(localized) if localized in found else NOWHERE
                self._add_boxes(self.found, localized, cut, in_picture)
        truth = _class_truth(pairs)
        if truth is not None:
            self._add_pixels(self.pixels_given, [one[self.own] for one in present], truth)
            if self.presence is not None:
                self._add_pixels(self.pixels_found, found, truth)

    def _is_found(self, pair):
        probabilities = pair.all_probabilities
        if self.presence is None or probabilities is None:
            return False
        first = probabilities.argmax()
        own = probabilities[pair.label]
        return bool(first != self.background_id and (own >= self.presence or pair.label == first))

    def _own_cut(self, localized):
        """Where a class's own map is cut."""
        if self.own_threshold is None:
            return localized.cuts[localized.column]
        return localized.cuts[-1] if self.own_threshold == "otsu" else self.own_threshold

    def _add_boxes(self, metrics, localized, cut, in_picture):
        """Adds the objects of one map; each is as sure as its map is high and its class probable.

        A map that is broken has no objects.
        """
        pair = localized.pair
        objects = localized.objects_at(cut if localized.is_finite else NOWHERE, **self.limits)
        probabilities = pair.all_probabilities
        share = 1.0 if probabilities is None else float(probabilities[pair.label])
        scores = objects.scores.astype(np.float64) * (share if np.isfinite(share) else 0.0)
        metrics.add(pair.image_id, pair.label, objects.boxes, scores, pair.boxes, in_picture)

    def _add_pixels(self, metrics, maps, truth):
        usable = [localized for localized in maps if localized.is_finite]
        found = np.zeros_like(truth)
        if usable:
            found = class_pixels(
                [localized.score_map for localized in usable],
                [
                    score_maps.threshold_mask(localized.score_map, self._own_cut(localized))
                    for localized in usable
                ],
                [localized.pair.label for localized in usable],
            )
        metrics.add(found, truth)

    def merge(self, other: "SeveralObjects") -> None:
        """Adds the pictures of another accumulator that was made alike."""
        self.given.merge(other.given)
        self.found.merge(other.found)
        self.pixels_given.merge(other.pixels_given)
        self.pixels_found.merge(other.pixels_found)

    def result(
        self, class_names: Sequence[str], thresholds: Mapping[str, float | str]
    ) -> dict[str, Any]:
        """Computes the figures.

        Args:
            class_names: names of the classes.
            thresholds: kind -> score-map threshold; "otsu" for a kind that has none.

        Returns:
            A dict for JSON: `objects` of the classes that are given, `detection` of those that are
            found, and `segmentation` of both; each is None where nothing can be said.
        """
        given, found = self.given.result(class_names), self.found.result(class_names)
        own = {"map": self.own, "threshold": self.own_threshold}
        if self.own_threshold is None:
            own["threshold"] = thresholds.get(self.own, "otsu")
        scored = {"map": self.scored, "threshold": thresholds.get(self.scored, "otsu")}
        pixels = self.pixels_given.result(class_names)
        return {
            "objects": given and {**scored, **self.limits, **given},
            "detection": found and {**own, **self.limits, "presence": self.presence, **found},
            "segmentation": pixels
            and {**own, "given": pixels, "found": self.pixels_found.result(class_names)},
        }


def _class_truth(pairs):
    """The true class of each pixel: 0 background, 1 + class id, -1 ignored; None without masks."""
    if not pairs or any(pair.mask is None for pair in pairs):
        return None
    truth = np.zeros(pairs[0].mask.shape, np.int64)
    for pair in pairs:
        truth[pair.mask == 1] = 1 + pair.label
    for pair in pairs:
        truth[pair.mask == IGNORE] = -1
    return truth
