"""Checks of what people hand to a Localization: classes, batches, pictures, thresholds."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsol_tf.config import choices
from wsol_tf.model import score_maps


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the classes as a tuple.

    Raises:
        ValueError: they are not at least two different names.
    """
    is_list = isinstance(classes, (Sequence, np.ndarray)) and not isinstance(classes, str)
    if (
        not is_list
        or not all(isinstance(name, str) for name in classes)
        or (len(set(classes)) < len(classes))
    ):
        raise ValueError(
            "classes are a list of names, each once, such as ['cat', 'dog']. "
            f"Received: {classes!r}."
        )
    if len(classes) < 2:
        raise ValueError(
            "Localization is learned by telling classes apart: give at least two (pictures of the "
            f"background can be the second). Received: {list(classes)}."
        )
    return tuple(classes)


def background_id(name: str | None, classes: Sequence[str]) -> int | None:
    """Returns the id of the class of pictures without any object; None where none is named.

    Raises:
        ValueError: it is not one of the classes.
    """
    if name is None:
        return None
    if name not in classes:
        raise ValueError(
            f"`background_class` '{name}' is none of the classes: {', '.join(classes)}. Name the "
            "class of the pictures without any object, or leave it empty."
        )
    return tuple(classes).index(name)


def check_batch(labels: Any, allowed: Any) -> None:
    """Refuses training batches that would fail later with an error that explains nothing.

    Args:
        labels: int `[batch]`.
        allowed: None or bool `[batch, classes]`.

    Raises:
        ValueError: they have another dtype or shape.
    """
    if labels is None or len(labels.shape) != 1:
        received = "no label" if labels is None else f"{labels.dtype} {tuple(labels.shape)}"
        raise ValueError(
            "A batch is a tuple (image, label) with labels int [batch], neither one-hot nor in "
            f"a column. Received: {received}."
        )
    if allowed is not None and (allowed.dtype != "bool" or len(allowed.shape) != 2):
        raise ValueError(
            "The third part of a batch is `allowed`, bool [batch, classes]; sample weights "
            f"are not supported. Received: {allowed.dtype} {tuple(allowed.shape)}."
        )


def check_parts(
    map: Any, refine: Any, top_k: Any, thresholds: Any, presence_threshold: Any, resize_size: Any
) -> None:
    """Refuses what a Localization stores beside its network, such as from a damaged file.

    Args:
        map: kind of map.
        refine: how the map is refined.
        top_k: classes that the map "topk" averages over.
        thresholds: kind of map -> score-map threshold.
        presence_threshold: None, or the probability from which on a class counts as present.
        resize_size: None, or a side in pixels.

    Raises:
        ValueError: one of them has another type or lies out of its range.
    """
    score_maps.check_kind(map)
    if refine not in choices("refine"):
        legal = ", ".join(choices("refine"))
        raise ValueError(f"Unknown `refine` '{refine}'. Legal: {legal}.")
    if not _is_count(top_k):
        raise ValueError(f"`top_k` must be at least 1. Received: {top_k!r}.")
    if resize_size is not None and not _is_count(resize_size):
        raise ValueError(f"`resize_size` must be at least 1. Received: {resize_size!r}.")
    known = presence_threshold is not None
    if known and (isinstance(presence_threshold, str) or not _is_threshold(presence_threshold)):
        raise ValueError(
            f"`presence_threshold` must be a number in 0..1. Received: {presence_threshold!r}."
        )
    if not isinstance(thresholds, Mapping):
        raise ValueError(f"thresholds are a dict, kind of map -> value. Received: {thresholds!r}.")
    for kind, value in thresholds.items():
        if kind != score_maps.PLAIN:
            score_maps.check_kind(kind)
        if not _is_threshold(value):
            raise ValueError(
                f"The threshold of map '{kind}' must be a number in 0..1 or 'otsu'. "
                f"Received: {value!r}."
            )


def check_placement(offset: Any, mirror: Any, separate: Any) -> None:
    """Refuses what a Localization can't do with its maps, such as from a damaged file.

    Args:
        offset: (down, right) in positions.
        mirror: whether the mirror image is averaged in.
        separate: whether objects that touch are cut apart.

    Raises:
        ValueError: one of them has another type, or is no finite number.
    """
    try:
        down, right = map(float, offset)
    except (TypeError, ValueError):
        down = right = math.nan
    if not (math.isfinite(down) and math.isfinite(right)):
        raise ValueError(f"`offset` is (down, right), two finite numbers. Received: {offset!r}.")
    for name, value in (("mirror", mirror), ("separate", separate)):
        if not isinstance(value, bool):
            raise ValueError(f"`{name}` must be True or False. Received: {value!r}.")


def _is_count(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= 1


def _is_threshold(value):
    if isinstance(value, str):
        return value == "otsu"
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 <= value <= 1


def check_picture(image: Any) -> None:
    """Refuses what is not a picture uint8 `[height, width, 3]`.

    Raises:
        ValueError: it is no array, or has another dtype or shape.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"A picture is a numpy array. Received: {type(image).__name__}.")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            "A picture is uint8 [height, width, 3], RGB in 0..255. "
            f"Received: {image.dtype} {list(image.shape)}."
        )


def threshold_of(
    kind: str, given: float | str | None, stored: Mapping[str, float | str]
) -> float | str:
    """Returns the score-map threshold for a kind of map: the given one, or else the stored one.

    Raises:
        ValueError: the given one is not in 0..1 or "otsu", or none is given and none is stored.
    """
    if given is None:
        if kind not in stored:
            raise ValueError(
                f"The model stores no threshold for map '{kind}'. Pass `threshold=otsu` or a "
                "number in 0..1."
            )
        return stored[kind]
    if not _is_threshold(given):
        raise ValueError(f"`threshold` must be in 0..1 or 'otsu'. Received: {given!r}.")
    return given


def objects_asked_for(
    classes: float | str,
    kind: str | None,
    *,
    own_kind: str,
    channels: int,
    stored: float | None,
) -> tuple[str, float | None]:
    """Says in which maps objects are looked for, and from which probability on a class is present.

    Args:
        classes: "predicted" for the predicted class alone, "present" for all classes whose
            probability is at least the stored one, or a probability in 0..1 in its place.
        kind: kind of map that was asked for; None: the model's, or "predicted" where several
            classes are asked for and the model's is none of a single class.
        own_kind: the model's kind of map.
        channels: channels of the localizer: the number of classes, or 1 for all of them.
        stored: the model's presence threshold; None: it stores none.

    Returns:
        (kind, present), as `finding.find` takes them.

    Raises:
        ValueError: `classes` or the kind is unknown; the maps of this kind are of no single class;
            or nothing says which probability makes a class present.
    """
    several = classes != "predicted"
    if kind is None:
        kind = "predicted" if several and own_kind in ("mean", "topk") else own_kind
    score_maps.check_kind(kind)
    kind = "predicted" if kind == "true" else kind  # nobody knows the true class here
    if not several:
        return kind, None
    if classes == "present":
        if stored is None:
            raise ValueError(
                "The model stores no presence threshold, from which on a class counts as present. "
                "Pass a probability in its place, such as `classes=0.2`."
            )
        classes = stored
    if isinstance(classes, str) or not _is_threshold(classes):
        raise ValueError(
            "`classes` must be 'predicted', 'present' or a probability in 0..1. "
            f"Received: {classes!r}."
        )
    if kind in ("mean", "topk") or (kind == "predicted" and channels == 1):
        raise ValueError(
            "Objects of several classes are found in one map per class, and this one is of several "
            "together. Pass `map=predicted` (with a model trained with `localizer=per_class`) or "
            f"`map=cam`. Received: '{kind}', and a localizer of {channels} "
            f"channel{'s' * (channels != 1)}."
        )
    return kind, float(classes)
