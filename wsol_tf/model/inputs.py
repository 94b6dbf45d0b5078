"""Checks of what people hand to a Localization: classes, batches, pictures, thresholds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the classes as a tuple.

    Raises:
        ValueError: they are not at least two different names.
    """
    if isinstance(classes, (str, int)) or len(set(classes)) < len(classes):
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
    if given != "otsu" and (isinstance(given, str) or not 0 <= given <= 1):
        raise ValueError(f"`threshold` must be in 0..1 or 'otsu'. Received: {given!r}.")
    return given


def steps_of(x: Any, batch_size: int | None, held: float) -> int | None:
    """Counts the batches of an epoch.

    Args:
        x: what `fit` is given: arrays, a tf.data.Dataset or a PyDataset.
        batch_size: of arrays; None: 32.
        held: share of an array that `fit` keeps for validation.

    Returns:
        Their number; None where it isn't known.
    """
    if hasattr(x, "cardinality"):
        cardinality = int(x.cardinality())
        return cardinality if cardinality >= 0 else None
    if hasattr(x, "num_batches"):
        return x.num_batches
    if hasattr(x, "shape"):
        return math.ceil(math.floor(x.shape[0] * (1 - held)) / (batch_size or 32))
    return None
