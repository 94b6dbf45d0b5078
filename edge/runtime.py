"""Runs an exported .tflite with numpy and ai_edge_litert alone: from a picture to mask and boxes.

    from edge.runtime import LocalizerRuntime

    localizer = LocalizerRuntime("localizer_int8.tflite", num_threads=2)
    found = localizer.localize(image)  # uint8 [height, width, 3] RGB, any size
    found.mask, found.boxes, found.box, found.class_name, found.probability

It does what `wsol_tf.data.transforms.resize_image` and `wsol_tf.model.score_maps` do and gives the
same numbers, without Pillow and OpenCV. The file stands alone: copy it into any project, together
with requirements-edge.txt.
"""

import dataclasses
import json
import os
import zipfile
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

SIGNATURE = "localize"
METADATA = "wsol_tf.json"
KEYS = ("labels", "map", "threshold", "input_size")  # of the metadata, those that are used here


@dataclasses.dataclass(frozen=True)
class Found:
    """What the model says about one picture of [height, width].

    Attributes:
        score_map: float32 [height, width], stretched to 0..1.
        mask: bool [height, width], all positions above the threshold.
        boxes: float32 [N, 4], x0, y0, x1, y1 edges in pixels, half-open, of each 8-connected
            component of the mask, the largest first; [0, 4] where the mask is empty.
        box: float32 [4], the first of the boxes; the whole picture where the mask is empty.
        class_name: the predicted class, or else the class that the map belongs to; None where the
            file knows neither.
        probability: of the predicted class, 0..1; None where the file has no classifier.
    """

    score_map: np.ndarray
    mask: np.ndarray
    boxes: np.ndarray
    box: np.ndarray
    class_name: str | None
    probability: float | None


class LocalizerRuntime:
    """A localizer in a .tflite file that `edge.export` wrote; use one object per thread.

    Args:
        path: the .tflite file.
        num_threads: threads of the interpreter.

    Attributes:
        metadata: dict, the block that was written at export; see `edge/__init__.py`.
        labels: names of the classes, in the order of their ids.
        threshold: the stored score-map threshold, 0..1 or "otsu".
        input_size: (height, width) of the network's input in pixels.

    Raises:
        ValueError: the file is missing, cut off, not a .tflite, or not written by edge.export.
    """

    def __init__(self, path: str | os.PathLike, num_threads: int = 1) -> None:
        path = os.fspath(path)
        if num_threads < 1:
            raise ValueError(f"`num_threads` must be at least 1. Received: {num_threads}.")
        self.metadata = _read_metadata(path)
        self.labels = self.metadata["labels"]
        self.threshold = self.metadata["threshold"]
        self.input_size = tuple(self.metadata["input_size"])
        try:
            self._interpreter = Interpreter(model_path=path, num_threads=num_threads)
            self._interpreter.allocate_tensors()
            signatures = self._interpreter.get_signature_list()
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"'{path}' is damaged and can't be run ({str(error)[:200]}). Copy or export it "
                "again."
            ) from error
        outputs = signatures.get(SIGNATURE, {}).get("outputs", ())
        if "foreground_mask" not in outputs:
            raise ValueError(
                f"'{path}' has no signature '{SIGNATURE}' with output 'foreground_mask' (it has: "
                f"{signatures or 'none'}). Export it with edge.export."
            )
        self._runner = self._interpreter.get_signature_runner(SIGNATURE)
        self._quantization = {
            name: details["quantization"]
            for name, details in self._runner.get_output_details().items()
        }

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the network alone on a picture of its own input size.

        Args:
            image: uint8 [height, width, 3] RGB, height and width as `input_size`.

        Returns:
            dict name -> float32 array, quantized outputs as real values: `foreground_mask`
            [h, w, channels] in 0..1 and, with maps "predicted" and "topk", `class_scores`
            [classes], logits.
        """
        _check_image(image)
        if image.shape[:2] != self.input_size:
            raise ValueError(
                f"The network takes pictures of {self.input_size[0]} x {self.input_size[1]}. "
                f"Received: {image.shape[0]} x {image.shape[1]}. Call localize(), which resizes."
            )
        outputs = self._runner(image=image[None])
        return {name: self._real(name, values[0]) for name, values in outputs.items()}

    def localize(
        self,
        image: np.ndarray,
        *,
        class_name: str | None = None,
        threshold: float | str | None = None,
    ) -> Found:
        """Finds the object in a picture.

        Args:
            image: uint8 [height, width, 3] RGB, any size.
            class_name: the class whose map is taken, with map "all"; else None.
            threshold: 0..1 or "otsu"; None takes the one stored in the file.

        Returns:
            What was found, in the pixels of this picture.

        Raises:
            ValueError: the picture has another type or shape; the threshold is out of range; the
                class has no map, or each class has one and none was chosen.
            FloatingPointError: the network's output is not finite.
        """
        _check_image(image)
        channel = self.check_class(class_name)
        threshold = self.threshold if threshold is None else threshold
        if not (threshold == "otsu" if isinstance(threshold, str) else 0 <= threshold <= 1):
            raise ValueError(f"A threshold must be in 0..1 or 'otsu'. Received: {threshold}.")
        outputs = self.run(resize_image(image, *self.input_size))
        if not all(np.isfinite(values).all() for values in outputs.values()):
            raise FloatingPointError("The model's output is not finite. Export it again.")
        height, width = image.shape[:2]
        found = localize(outputs["foreground_mask"][..., channel], height, width, threshold)
        if self.metadata["map"].startswith("class:"):
            class_name = self.metadata["map"].removeprefix("class:")
        probability = None
        if "class_scores" in outputs:
            probabilities = softmax(outputs["class_scores"])
            class_name = self.labels[int(probabilities.argmax())]
            probability = float(probabilities.max())
        return Found(*found, class_name, probability)

    def check_class(self, class_name: str | None) -> int:
        """Returns the channel of a class's map; class_name is None where the file has one map.

        Raises:
            ValueError: the class has no map, or each class has one and none was chosen.
        """
        if self.metadata["map"] == "all":
            if class_name in self.labels:
                return self.labels.index(class_name)
            raise ValueError(
                "The file holds a map for each class (map 'all'): name one of "
                f"{', '.join(self.labels)}. Received: {class_name}."
            )
        if class_name is not None:
            raise ValueError(
                f"The file holds one map ('{self.metadata['map']}'), so no class can be chosen. "
                "Export it again with map 'all', or leave the class out."
            )
        return 0

    def _real(self, name: str, values: np.ndarray) -> np.ndarray:
        scale, zero_point = self._quantization[name]
        if not scale:  # not quantized
            return values.astype(np.float32)
        return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def _read_metadata(path: str) -> dict[str, Any]:
    """Returns the JSON block behind the flatbuffer; a ValueError says what is wrong with it."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ValueError(
            f"'{path}' can't be read: {error.strerror}. Name a .tflite of edge.export."
        ) from error
    if head[4:8] != b"TFL3":
        raise ValueError(f"'{path}' is not a .tflite file. Name one that edge.export wrote.")
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read(METADATA))
        missing = [key for key in KEYS if key not in metadata]
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"'{path}' has no metadata of edge.export: it is cut off, or another program wrote "
            "or changed it. Export it again."
        ) from error
    if missing:
        raise ValueError(
            f"The metadata of '{path}' lacks {', '.join(missing)}: it was written by another "
            "version. Export it again."
        )
    return metadata


def _check_image(image: Any) -> None:
    if not isinstance(image, np.ndarray):
        raise ValueError(f"A picture must be a numpy array. Received: {type(image).__name__}.")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            "A picture must be uint8 [height, width, 3], RGB in 0..255. "
            f"Received: {image.dtype} {list(image.shape)}."
        )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turns logits [classes] into probabilities, float64 [classes]."""
    exponents = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return exponents / exponents.sum()


# Resizing a picture


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 [h, w, 3] to [height, width, 3]: bilinear, antialiased, aspect ignored.

    The bytes are those of Pillow 13's `resize(..., BILINEAR)`, by its arithmetic: one side, rounded
    to bytes, then the other; fixed-point weights of 22 bits. Other versions differ by 1 at most.
    """
    planes = image.transpose(2, 0, 1)
    # Pillow takes the side first that shrinks much more.
    rows_first = image.shape[0] - height > max(0, 2 * (image.shape[1] - width))
    for axis in (1, 2) if rows_first else (2, 1):
        planes = np.moveaxis(_resize_last(np.moveaxis(planes, axis, -1), (height, width)[axis - 1]),
                             -1, axis)  # fmt: skip
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _resize_last(values: np.ndarray, size: int) -> np.ndarray:
    """Resizes the last axis of uint8 [planes, lines, n] to `size`."""
    n = values.shape[-1]
    if n == size:
        return values
    lines = values.reshape(-1, n)
    first, weights = _triangle_weights(n, size)
    resized = np.empty((len(lines), size), np.uint8)
    step = 8  # outputs at a time: weights are a narrow band, most of a full matrix would be zeros
    for start in range(0, size, step):
        chunk = slice(start, min(start + step, size))
        left, right = first[start], min(first[chunk.stop - 1] + weights.shape[1], n)
        band = np.zeros((right - left, chunk.stop - start))
        for column, i in enumerate(range(start, chunk.stop)):
            taps = min(weights.shape[1], n - first[i])
            band[first[i] - left : first[i] - left + taps, column] = weights[i, :taps]
        # Products so small that BLAS keeps to one thread: more would wait for each other.
        height = max(1, 2**18 // band.size)
        for top in range(0, len(lines), height):
            block = slice(top, top + height)
            # Whole numbers below 2^31: exact.
            sums = lines[block, left:right].astype(np.float64) @ band
            resized[block, chunk] = np.minimum(sums + 2**21, 2**30 - 1).astype(np.int32) >> 22
    return resized.reshape(*values.shape[:-1], size)


def _triangle_weights(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """First source position [size] of each output, and weights [size, taps] in 1/2^22."""
    scale = n / size
    support = max(scale, 1.0)
    centers = (np.arange(size) + 0.5) * scale
    first = np.maximum((centers - support + 0.5).astype(int), 0)
    last = np.minimum((centers + support + 0.5).astype(int), n)
    positions = first[:, None] + np.arange((last - first).max())
    weights = np.maximum(1 - np.abs((positions - centers[:, None] + 0.5) / support), 0)
    weights[positions >= last[:, None]] = 0
    weights /= weights.sum(1, keepdims=True)
    return first, np.floor(weights * 2**22 + 0.5)


# From a score map to mask and box


def localize(
    score_map: np.ndarray, height: int, width: int, threshold: float | str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Goes from a map [h, w] to the map, mask, boxes and box of a picture, as in `Found`.

    The threshold is 0..1, or "otsu" for the map's own. A constant map gives an empty mask.
    """
    resized = resize_map(_stretch(score_map), height, width)
    mask = resized > np.float32(otsu(resized) if threshold == "otsu" else threshold)
    boxes = component_boxes(mask)
    box = boxes[0] if len(boxes) else np.array([0, 0, width, height], np.float32)
    return resized, mask, boxes, box


def _stretch(score_map: np.ndarray) -> np.ndarray:
    score_map = np.asarray(score_map, np.float32)
    low = score_map.min()
    with np.errstate(over="ignore", invalid="ignore"):
        span = score_map.max() - low
    if not np.isfinite(span) or span <= 0:
        return np.zeros_like(score_map)
    return (score_map - low) / span


def resize_map(score_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resamples float32 [h, w] to [height, width] as OpenCV's INTER_LINEAR does."""
    if score_map.shape == (height, width):
        return score_map
    left, right, share = _linear_weights(score_map.shape[1], width)
    rows = _mix(score_map[:, left], score_map[:, right], share)
    top, bottom, share = _linear_weights(score_map.shape[0], height)
    resized = np.empty((height, width), np.float32)
    for start in range(0, height, 64):  # in strips, which keeps a large picture's memory low
        strip = slice(start, start + 64)
        resized[strip] = _mix(rows[top[strip]], rows[bottom[strip]], share[strip, None])
    return resized


def _linear_weights(n: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    positions = (np.arange(size) + 0.5) * (n / size) - 0.5
    before = np.floor(positions)
    share = np.where((before < 0) | (before >= n - 1), 0, positions - before)
    before = np.clip(before.astype(int), 0, n - 1)
    return before, np.minimum(before + 1, n - 1), share.astype(np.float32)


def _mix(before: np.ndarray, after: np.ndarray, share: np.ndarray) -> np.ndarray:
    # Rounded once, as the fused multiply-add of OpenCV rounds.
    return (before + (after - before).astype(np.float64) * share).astype(np.float32)


def otsu(score_map: np.ndarray) -> float:
    """Finds Otsu's threshold of a map in [0, 1]; as `wsol_tf.model.score_maps.otsu`."""
    bins = np.clip((np.asarray(score_map, np.float64).ravel() * 256).astype(np.int64), 0, 255)
    counts = np.bincount(bins, minlength=256).astype(np.float64)
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    moments = np.cumsum(counts * np.arange(256))
    total, moments = moments[-1], moments[:-1]
    between = (moments * above - (total - moments) * below) ** 2 / np.maximum(below * above, 1)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float((best[0] + best[-1] + 2) / 512)


def component_boxes(mask: np.ndarray) -> np.ndarray:
    """Finds the tight box of each 8-connected component of a bool mask [height, width].

    As `wsol_tf.model.score_maps.component_boxes`.

    Returns:
        float32 [N, 4], x0, y0, x1, y1 edges in pixels, half-open: the component with the most
        pixels first, equally large ones in the order of their first pixel, row by row.
    """
    height, width = mask.shape
    # Runs of True along the rows; a column of False between rows ends each run in its row.
    stride = width + 1
    padded = np.zeros((height, stride), bool)
    padded[:, :width] = mask
    edges = np.flatnonzero(np.diff(padded.ravel(), prepend=False))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return np.zeros((0, 4), np.float32)
    # Runs of the row below that touch a run, corners included, stand side by side in the list.
    touching = np.searchsorted(ends, starts + stride, "left")
    counts = np.searchsorted(starts, ends + stride, "right") - touching
    above = np.repeat(np.arange(len(starts)), counts)
    below = np.arange(counts.sum()) + np.repeat(touching - np.cumsum(counts) + counts, counts)
    component = _roots(len(starts), above, below)  # the number of a component is its first run's
    runs = np.argsort(component, kind="stable")  # those of a component side by side, row by row
    first = np.flatnonzero(np.diff(component[runs], prepend=-1))
    lengths, rows, left = (ends - starts)[runs], starts[runs] // stride, starts[runs] % stride
    x0, x1 = np.minimum.reduceat(left, first), np.maximum.reduceat(left + lengths, first)
    boxes = np.stack([x0, rows[first], x1, np.maximum.reduceat(rows, first) + 1], axis=1)
    sizes = np.add.reduceat(lengths, first)
    return boxes[np.argsort(-sizes, kind="stable")].astype(np.float32)


def _roots(n: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Groups the numbers 0..n-1 by pairs (first < second); returns each one's group's smallest."""
    root = np.arange(n)
    while len(first):
        np.minimum.at(root, second, first)
        while True:
            shorter = root[root]
            if np.array_equal(shorter, root):
                break
            root = shorter
        one, other = root[first], root[second]
        joined = one == other
        first, second = np.minimum(one, other)[~joined], np.maximum(one, other)[~joined]
    return root
