"""Example: the one record of all data sets, and which classes a label competes with."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

IGNORE = 255  # the mask value of pixels that count neither as object nor as background


class StandardTruth(NamedTuple):
    """What wsolevaluation's own lists say of a picture, as they say it; see `Example.standard`.

    Attributes:
        boxes: int64 [num_boxes, 4], x0, y0, x1, y1 in whole pixels, the last ones inclusive.
        size: height and width that the lists give the picture; None where they give none.
        masks: of each instance bool [height, width], of any size.
        ignored: bool [height, width], pixels that are not judged unless they are object, or None.
    """

    boxes: np.ndarray
    size: tuple[int, int] | None
    masks: tuple[np.ndarray, ...] = ()
    ignored: np.ndarray | None = None


class Example(NamedTuple):
    """One picture with what is known about it, as numpy arrays.

    Attributes:
        image: uint8 [height, width, 3], RGB.
        labels: int32 [num_labels], ids of the classes present, ascending.
        boxes: float32 [num_boxes, 4], edges x0, y0, x1, y1 in pixels of `image`, half-open:
            `x1 - x0` is the width, and the whole picture is (0, 0, width, height).
        box_labels: int32 [num_boxes], the class id of each box.
        mask: uint8 [height, width], 0 background, 1 + class id, 255 ignore; [0, 0] means none.
        image_id: string, unique in the data set.
        size: int32 [2], height and width of the picture as it was stored.
        standard: what the lists of wsolevaluation say, which stays as it is when the picture is
            resized or cropped; None for every other kind of data.
    """

    image: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    box_labels: np.ndarray
    mask: np.ndarray
    image_id: str
    size: np.ndarray
    standard: StandardTruth | None = None


def make_example(
    image: ArrayLike,
    labels: ArrayLike = (),
    boxes: ArrayLike = (),
    box_labels: ArrayLike = (),
    mask: ArrayLike | None = None,
    image_id: str = "",
    size: ArrayLike | None = None,
) -> Example:
    """Builds an Example with the right dtypes and shapes; see its attributes for the arguments.

    What is not given is empty, and `size` is that of the picture.
    """
    image = np.asarray(image, np.uint8)
    return Example(
        image=image,
        labels=np.asarray(labels, np.int32).reshape(-1),
        boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
        box_labels=np.asarray(box_labels, np.int32).reshape(-1),
        mask=np.zeros((0, 0), np.uint8) if mask is None else np.asarray(mask, np.uint8),
        image_id=image_id,
        size=np.asarray(image.shape[:2] if size is None else size, np.int32),
    )


def competing_classes(labels: Sequence[int], label: int, num_classes: int) -> np.ndarray:
    """Returns which classes one label of a picture competes with.

    The other classes that are present in the picture are right too, so they take no part.

    Args:
        labels: ids of the classes present.
        label: the one that is asked about.
        num_classes: number of classes.

    Returns:
        bool [num_classes], False for the other classes that are present.
    """
    competing = np.ones(num_classes, bool)
    competing[np.asarray(labels, int)] = False
    competing[label] = True
    return competing
