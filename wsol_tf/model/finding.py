"""What a model finds in one picture: a class, a mask, and a box for each object."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wsol_tf.data import transforms
from wsol_tf.model import score_maps, separation


@dataclasses.dataclass(frozen=True)
class Found:
    """What a model finds in one picture of [height, width] pixels: the objects of one class.

    Attributes:
        score_map: float32 `[height, width]`, stretched to 0..1.
        mask: bool `[height, width]`, all positions above the score-map threshold, but for those
            along which objects that touch are cut apart.
        boxes: float32 `[N, 4]`, the box of every component of the mask that counts as an object,
            see `score_maps.components`: x0, y0, x1, y1 edges in pixels, half-open, the largest
            first, or where objects that touch are cut apart, the one with the most of its class.
        scores: float32 `[N]`, the mean of the score map inside each component, 0..1.
        areas: int64 `[N]`, the pixels of each component.
        box: float32 `[4]`, the first of the boxes; the whole picture where the mask is empty. None:
            nothing is found, as the predicted class says (see `without_background`), or since all
            that the mask marks is smaller than `min_picture_area`.
        class_name: the class of these objects: the predicted one, but for those in `others`.
        probability: of that class, 0..1.
        others: where all classes present were asked for, a Found for each of the others, the most
            probable first, with a score map, mask and boxes of its own; else empty.
    """

    score_map: np.ndarray
    mask: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    box: np.ndarray | None
    class_name: str | None
    probability: float | None
    others: tuple["Found", ...] = ()


def without_background(found: Found, background_class: str | None) -> Found:
    """Returns what is found of objects, where one class is that of pictures without any.

    Args:
        found: what is found of all classes.
        background_class: that class; None: there is none.

    Returns:
        The same without that class among `others`. Where it is the predicted one, nothing is found:
        a score map of zeros, an empty mask, no boxes, and None as the box.
    """
    if background_class is None:
        return found
    if found.class_name != background_class:
        others = [each for each in found.others if each.class_name != background_class]
        return dataclasses.replace(found, others=tuple(others))
    return dataclasses.replace(
        found,
        score_map=np.zeros_like(found.score_map),
        mask=np.zeros_like(found.mask),
        boxes=found.boxes[:0],
        scores=found.scores[:0],
        areas=found.areas[:0],
        box=None,
        others=(),
    )


def _finite(values):
    if not np.isfinite(values).all():
        raise FloatingPointError("the model's output is no finite number. Train it again.")
    return values


def find(
    outputs: Mapping[str, Any],
    classes: Sequence[str],
    height: int,
    width: int,
    *,
    kind: str,
    threshold: float | str,
    top_k: int = 5,
    prepare: Callable[[np.ndarray], np.ndarray] | None = None,
    separate: bool = False,
    present: float | None = None,
    **limits: Any,
) -> Found:
    """Goes from what a model gives for one picture to what is in it.

    Args:
        outputs: `logits` `[classes]`, `localization_map` `[h, w, channels]` and `score_map`
            `[h, w, classes]`.
        classes: their names.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        kind: kind of map, see `score_maps.map_of`; "true" and "cam" take the predicted class.
        threshold: a number in 0..1, or "otsu" for the map's own.
        top_k: classes that "topk" averages over.
        prepare: goes from the map to the one that is used instead; not with the map "cam".
        separate: cuts objects that touch apart, see `separation`; the first is then the one with
            the most of the positive part of the class's score map; not with the map "cam".
        present: classes of this probability and more are looked for as well as the predicted one,
            each in its own map, of kind "predicted" or "cam"; None: the predicted one alone.
        **limits: `min_area`, `min_picture_area` and `max_objects` of `score_maps.components`; so
            many of each class.

    Raises:
        FloatingPointError: an output is NaN or infinite.
        ValueError: a limit of the objects is out of its range.
    """
    logits = _finite(np.asarray(outputs["logits"]).astype(np.float64))
    best, probabilities = int(logits.argmax()), transforms.softmax(logits)
    maps = [np.asarray(outputs[name]) for name in ("localization_map", "score_map")]

    def found_of(label: int) -> Found:
        own = "true" if label != best and kind == "predicted" else kind
        small = _finite(score_maps.map_of(own, *maps, logits, label, top_k=top_k))
        small = prepare(small) if prepare and kind != "cam" else small
        score_map = score_maps.resize(score_maps.normalize(small), height, width)
        cut = score_maps.otsu(score_map) if threshold == "otsu" else float(threshold)
        mask, evidence = score_maps.threshold_mask(score_map, cut), None
        if separate and kind != "cam":
            mask = separation.separate(mask, score_map, cut)
            evidence = np.maximum(maps[1][..., label], 0)
        objects = score_maps.components(mask, score_map, evidence=evidence, **limits)
        whole = None if limits.get("min_picture_area") else score_maps.box_of(np.zeros_like(mask))
        box = objects.boxes[0] if len(objects.boxes) else whole
        return Found(score_map, mask, *objects, box, classes[label], float(probabilities[label]))

    least = np.inf if present is None else present
    ranked = np.argsort(-probabilities, kind="stable").tolist()
    others = (label for label in ranked if label != best and probabilities[label] >= least)
    return dataclasses.replace(found_of(best), others=tuple(map(found_of, others)))
