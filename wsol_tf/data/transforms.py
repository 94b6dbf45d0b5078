"""Pure transforms of pictures, boxes and masks: resize, crop, and the view that is scored."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from wsol_tf.data.example import Example

_IDENTITY = np.array([0, 1, 0], np.float32)


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes uint8 [height, width, 3] to [size, size, 3], whatever its aspect ratio.

    Bilinear and antialiased, by Pillow: evaluation, prediction and the device share it to the byte.
    """
    if image.shape[:2] == (size, size):
        return image
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def resize_and_crop(image: np.ndarray, offset: int, size: int, resize_size: int) -> np.ndarray:
    """Resizes a picture by `resize_image`, to the byte, but only the middle that is cropped.

    Args:
        image: uint8 [height, width, 3].
        offset: first row and column of the crop in the resized picture.
        size: its side in pixels.
        resize_size: side of the resized picture.

    Returns:
        uint8 [size, size, 3].
    """
    height, width = image.shape[:2]
    columns, rows = (_edges(side, offset, size, resize_size) for side in (width, height))
    # Pillow takes the side first that shrinks much more, and rounds to bytes in between.
    rows_first, rows_first_here = (
        height - side > max(0, 2 * (width - side)) for side in (resize_size, size)
    )
    same_order = rows_first == rows_first_here
    if height == width == resize_size or not (columns and rows and same_order):
        end = offset + size
        return resize_image(image, resize_size)[offset:end, offset:end]
    box = columns[0], rows[0], columns[1], rows[1]
    bilinear = Image.Resampling.BILINEAR
    return np.array(Image.fromarray(image).resize((size, size), bilinear, box))


@functools.lru_cache(maxsize=4096)
def _edges(side, offset, size, resize_size):
    """Where a crop of a resized side begins and ends in the picture, as Pillow takes it.

    None where Pillow, which takes edges in single precision, would not find the centre of each
    pixel at exactly the place where it finds it in the whole resized side.
    """
    start, end = np.float32([offset * side / resize_size, (offset + size) * side / resize_size])
    scale, own_scale = side / resize_size, float(end - start) / size
    pixels = np.arange(size) + 0.5
    same = (float(start) + pixels * own_scale == (pixels + offset) * scale).all()
    return (float(start), float(end)) if same and own_scale == scale else None


def resize_fast(image: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """Resizes as `resize_image` does, several times faster, for training.

    Sides that shrink are smoothed first, see `antialiasing`. The result is on average within one
    gray level of `resize_image`'s: less than a random crop changes, and models score the same with
    either.

    Args:
        image: uint8 [height, width, 3].
        size: side of the result in pixels.
        out: uint8 [size, size, 3], contiguous: takes the result, which saves a copy.

    Returns:
        uint8 [size, size, 3]: `out` where it is given; the picture itself where it has that size.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        if out is None:
            return image
        out[...] = image
        return out
    if height > size or width > size:
        filters = [antialiasing(side / size) for side in (width, height)]
        # OpenCV is twice as fast with three taps as with one, of which a side that grows has one.
        columns, rows = (_IDENTITY if len(taps) == 1 else taps for taps in filters)
        image = cv2.sepFilter2D(image, -1, columns, rows, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(image, (size, size), out, interpolation=cv2.INTER_LINEAR)


@functools.lru_cache(maxsize=1024)
def antialiasing(scale: float) -> np.ndarray:
    """Returns the filter, float32 [taps], that antialiases bilinear sampling every `scale` pixels.

    An antialiased bilinear resize weighs pixels by a triangle of half-width `scale`. Bilinear
    sampling brings a triangle of half-width 1; with a discrete triangle of a whole half-width n
    before it, the two are together exactly the triangle of half-width n. In between, the filters
    of the two nearest n are mixed so that the variance, scale^2 / 6, is right.
    """
    if scale <= 1:
        return np.ones(1, np.float32)
    n = math.ceil(scale) - 1

    def triangle(n):
        return np.convolve(np.ones(n), np.ones(n)) / n**2

    wider = (scale**2 - n**2) / ((n + 1) ** 2 - n**2)
    taps = wider * triangle(n + 1)
    taps[1:-1] += (1 - wider) * triangle(n)
    return taps.astype(np.float32)


def resize(example: Example, size: int) -> Example:
    """Resizes a picture (`resize_image`), its boxes and its mask (nearest) to [size, size]."""
    resized = _resize_annotations(example, size)
    return resized._replace(image=resize_image(example.image, size))


def _resize_annotations(example, size):
    height, width = example.image.shape[:2]
    scale = np.array([size / width, size / height] * 2, np.float32)
    mask = example.mask
    if mask.size:
        nearest = Image.Resampling.NEAREST
        mask = np.array(Image.fromarray(mask).resize((size, size), nearest))
    return example._replace(boxes=example.boxes * scale, mask=mask)


def crop(example: Example, top: int, left: int, size: int) -> Example:
    """Cuts out a square of `size` pixels; boxes are clipped to it and dropped if nothing is left.

    Raises:
        ValueError: the square is not inside the picture.
    """
    height, width = example.image.shape[:2]
    if not (0 <= top <= height - size and 0 <= left <= width - size):
        raise ValueError(
            f"A crop of {size} pixels at row {top}, column {left} is not inside the picture of "
            f"{height} x {width}. Resize the picture to at least {size} first."
        )
    cropped = _crop_annotations(example, top, left, size)
    return cropped._replace(image=example.image[top : top + size, left : left + size])


def _crop_annotations(example, top, left, size):
    shift = np.array([left, top, left, top], np.float32)
    boxes = np.clip(example.boxes - shift, 0, size)
    keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return example._replace(
        boxes=boxes[keep],
        box_labels=example.box_labels[keep],
        mask=example.mask[top : top + size, left : left + size],
    )


def center_crop(example: Example, size: int) -> Example:
    """Cuts the square of `size` pixels out of the middle."""
    height, width = example.image.shape[:2]
    return crop(example, (height - size) // 2, (width - size) // 2, size)


def crop_image(
    image: np.ndarray,
    top: int,
    left: int,
    side: int,
    resize_size: int,
    size: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Resizes a picture to a square and crops that, but resizes only what the crop shows.

    The edges of the crop are moved to whole pixels of the picture, so it may be off by half a
    pixel.

    Args:
        image: uint8 [height, width, 3].
        top: first row of the crop in the resized picture.
        left: its first column.
        side: its side in pixels of the resized picture.
        resize_size: side of the resized picture.
        size: side in pixels that the crop is resized to.
        out: uint8 [size, size, 3], contiguous: takes the result, which saves a copy.

    Returns:
        uint8 [size, size, 3].
    """
    height, width = image.shape[:2]
    rows = _pixels(top, side, height / resize_size)
    columns = _pixels(left, side, width / resize_size)
    return resize_fast(image[rows, columns], size, out)


def _pixels(first, side, scale):
    """The pixels of a picture that a crop of its resized form shows: at least one."""
    start, end = round(first * scale), round((first + side) * scale)
    return slice(min(start, end - 1) if end else 0, max(end, 1))


def ten_crops(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yields the four corners and the centre of a batch of pictures, then the same mirrored.

    Args:
        images: uint8 `[batch, height, width, 3]`.
        size: side in pixels of the crops.

    Yields:
        uint8 `[batch, size, size, 3]`, ten times.

    Raises:
        ValueError: the pictures are smaller than the crops.
    """
    height, width = images.shape[1:3]
    if min(height, width) < size:
        raise ValueError(f"Crops of {size} pixels need larger pictures. Received: {images.shape}.")
    below, right = height - size, width - size
    corners = (0, 0), (0, right), (below, 0), (below, right), (below // 2, right // 2)
    for mirrored in (images, images[:, :, ::-1]):
        for top, left in corners:
            yield mirrored[:, top : top + size, left : left + size]


def ten_crop_probabilities(
    classify: Callable[[np.ndarray], np.ndarray], images: np.ndarray, size: int
) -> np.ndarray:
    """Averages class probabilities over ten crops, as BAS does for Top-1 and Top-5.

    Args:
        classify: any function from uint8 `[batch, size, size, 3]` to logits `[batch, classes]`.
        images: uint8 `[batch, height, width, 3]`, resized but not cropped: 256 for a size of 224.
        size: side in pixels of the crops.

    Returns:
        float64 `[batch, classes]`.
    """
    total = np.zeros(())
    for crops in ten_crops(images, size):
        total = total + softmax(np.asarray(classify(crops), np.float64))
    return total / 10


def softmax(logits: np.ndarray) -> np.ndarray:
    """Computes probabilities from logits `[..., classes]`, in their dtype; NaN where one is NaN."""
    with np.errstate(invalid="ignore"):
        exponents = np.exp(logits - logits.max(-1, keepdims=True))
        return exponents / exponents.sum(-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class View:
    """Which part of a picture the network sees; the aspect ratio is ignored.

    Attributes:
        input_size: side of the view in pixels.
        resize_size: side in pixels that a picture is resized to before it is cropped.
        kind: `crop`, the centre square of the picture resized to `resize_size` (as the papers
            score), or `whole`, the picture resized to `input_size` (as predict shows it).

    Raises:
        ValueError: an unknown kind, or a crop larger than the resized picture.
    """

    input_size: int
    resize_size: int
    kind: str = "crop"

    def __post_init__(self):
        if self.kind not in ("crop", "whole"):
            raise ValueError(f"Unknown view '{self.kind}'. Legal: crop, whole.")
        if self.kind == "crop" and self.resize_size < self.input_size:
            raise ValueError(
                "`resize_size` must be at least `input_size`. Received: "
                f"{self.resize_size} < {self.input_size}."
            )

    def offset_and_side(self) -> tuple[int, int]:
        """Where the view begins in the resized picture, and that picture's side, in pixels."""
        if self.kind == "crop":
            return (self.resize_size - self.input_size) // 2, self.resize_size
        return 0, self.input_size

    def to_picture(self, box: ArrayLike, height: int, width: int) -> np.ndarray:
        """Maps a box from pixels of the view to pixels of the picture.

        Args:
            box: edges x0, y0, x1, y1, `[4]`.
            height: height of the picture in pixels.
            width: its width.

        Returns:
            float64 `[4]`, clipped to the picture.
        """
        offset, side = self.offset_and_side()
        scale = np.array([width, height] * 2) / side
        return np.clip((np.asarray(box) + offset) * scale, 0, [width, height] * 2)


def view_example(example: Example, view: View) -> Example:
    """Resizes and crops an Example to what a View shows; boxes and mask follow the picture."""
    if view.kind == "whole":
        return resize(example, view.input_size)
    offset, side = view.offset_and_side()
    shown = _resize_annotations(example, side)
    shown = _crop_annotations(shown, offset, offset, view.input_size)
    return shown._replace(image=resize_and_crop(example.image, offset, view.input_size, side))
