"""Runs an exported .tflite with numpy and ai_edge_litert alone: from a picture to mask and boxes.

    from edge.runtime import LocalizerRuntime

    localizer = LocalizerRuntime("localizer_int8.tflite", num_threads=2)
    found = localizer.localize(image)  # uint8 [height, width, 3] RGB, any size
    found.mask, found.boxes, found.box, found.class_name, found.probability

The numbers are those of `wsol_tf.data.transforms.resize_image` and `wsol_tf.model.score_maps`. The
file stands alone: copy it into any project, together with requirements-edge.txt.
"""

import dataclasses
import hashlib
import json
import logging
import os
import stat
import zipfile
from typing import IO, Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

SIGNATURE = "localize"
MASK = "foreground_mask"
METADATA = "wsol_tf.json"
DIGEST = "sha256"  # key of the metadata: of the flatbuffer, which is all bytes before the zip
MAX_METADATA = 2**22  # bytes


@dataclasses.dataclass(frozen=True)
class Found:
    """What the model says about one picture of [height, width].

    Attributes:
        score_map: float32 [height, width], stretched to 0..1.
        mask: bool [height, width], all positions above the threshold.
        boxes: float32 [N, 4], x0, y0, x1, y1 edges in pixels, half-open, of each 8-connected
            component of the mask, the largest first; [0, 4] where the mask is empty.
        box: float32 [4], the first of the boxes; the whole picture where the mask is empty.
        class_name: the predicted class, or else the map's; None where the file knows neither.
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
        ValueError: the file is missing, damaged, not a .tflite, or not written by edge.export.
    """

    def __init__(self, path: str | os.PathLike, num_threads: int = 1) -> None:
        path = os.fspath(path)
        if num_threads < 1:
            raise ValueError(f"`num_threads` must be at least 1. Received: {num_threads}.")
        data, self.metadata = _read_file(path)
        try:
            self._interpreter = Interpreter(model_content=data, num_threads=num_threads)
            self._interpreter.allocate_tensors()
            self._runner = self._interpreter.get_signature_runner(SIGNATURE)
        except (ValueError, RuntimeError) as error:
            raise _bad(path, f"can't be run: {str(error)[:200]!r}") from error
        outputs = self._runner.get_output_details()
        _check_metadata(path, self.metadata, self._runner.get_input_details(), outputs)
        self._quantization = {name: tensor["quantization"] for name, tensor in outputs.items()}
        self.labels = self.metadata["labels"]
        self.threshold = self.metadata["threshold"]
        self.input_size = tuple(self.metadata["input_size"])

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the network alone on a picture of its own input size, uint8 [height, width, 3] RGB.

        Returns:
            dict name -> float32 array of real values: `foreground_mask` [h, w, channels] in 0..1
            and, with maps "predicted" and "topk", `class_scores` [classes], logits.
        """
        _check_image(image)
        if image.shape[:2] != self.input_size:
            sizes = "{} x {}. Received: {} x {}".format(*self.input_size, *image.shape)
            raise ValueError(f"The network takes pictures of {sizes}. Call localize() instead.")
        outputs = {}
        for name, values in self._runner(image=image[None]).items():
            scale, zero_point = self._quantization[name]
            outputs[name] = values[0].astype(np.float32)
            if scale:  # else the values are real ones
                outputs[name] = (outputs[name] - np.float32(zero_point)) * np.float32(scale)
        return outputs

    def localize(
        self, image: np.ndarray, *, class_name: str | None = None,
        threshold: float | str | None = None,
    ) -> Found:  # fmt: skip
        """Finds the object in a picture.

        Args:
            image: uint8 [height, width, 3] RGB, any size.
            class_name: the class whose map is taken, with map "all"; else None.
            threshold: 0..1 or "otsu"; None takes the one stored in the file.

        Raises:
            ValueError: the image is no such array; the threshold is out of range; the class has no
                map, or each class has one and none was chosen.
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
        found = localize(outputs[MASK][..., channel], height, width, threshold)
        if self.metadata["map"].startswith("class:"):
            class_name = self.metadata["map"].removeprefix("class:")
        probability = None
        if "class_scores" in outputs:
            probabilities = softmax(outputs["class_scores"])
            class_name = self.labels[int(probabilities.argmax())]
            probability = float(probabilities.max())
        return Found(*found, class_name, probability)

    def check_class(self, class_name: str | None) -> int:
        """Returns the channel of a class's map, or of the only map; a ValueError says why not."""
        map_ = self.metadata["map"]
        if map_ == "all" and class_name in self.labels:
            return self.labels.index(class_name)
        if map_ != "all" and class_name is None:
            return 0
        names = ", ".join(self.labels)
        do = f"name one of {names}" if map_ == "all" else "no class can be chosen, so leave it out"
        raise ValueError(f"The file holds map '{map_}': {do}. Received: {class_name}.")


def _bad(path: str, text: str) -> ValueError:
    return ValueError(f"{path!r} {text}. Copy it again, or export it with edge.export.")


def _read_file(path: str) -> tuple[bytes, dict[str, Any]]:
    """Returns a file's bytes and metadata, after it was seen to be as it was exported."""
    at_once = getattr(os, "O_NONBLOCK", 0)  # else a pipe would wait for somebody to write into it
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | at_once)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > 2**31:
                raise OSError(0, "it is a pipe, a device or larger than any flatbuffer")
            if file.read(8)[4:] != b"TFL3":
                raise _bad(path, "is not a .tflite file")
            metadata, end = _read_metadata(path, file)
            file.seek(0)
            data = file.read()
    except OSError as error:
        raise _bad(path, f"can't be read: {error.strerror}") from error
    if DIGEST not in metadata:
        logging.getLogger(__name__).warning("%r has no digest: damage can't be seen.", path)
    elif metadata[DIGEST] != hashlib.sha256(memoryview(data)[:end]).hexdigest():
        raise _bad(path, "is damaged: the network in it is not the one that was exported")
    return data, metadata


def _read_metadata(path: str, file: IO[bytes]) -> tuple[dict[str, Any], int]:
    """Returns the JSON block behind the flatbuffer, and where the flatbuffer ends."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            if size > MAX_METADATA or any(e.compress_type for e in entries) or archive.testzip():
                raise ValueError(f"they are compressed, damaged or too long with {size} bytes")
            metadata = json.loads(archive.read(METADATA))
    except Exception as error:  # zipfile and json raise a dozen types for damaged bytes
        changed = f"another program wrote or changed it ({str(error)[:100]!r})"
        raise _bad(path, f"has no metadata of edge.export: it is cut off, or {changed}") from error
    needed = ("labels", "map", "threshold", "input_size")
    missing = [key for key in needed if not isinstance(metadata, dict) or key not in metadata]
    if missing:
        raise _bad(path, f"has metadata of another version: it lacks {', '.join(missing)}")
    return metadata, entries[0].header_offset


def _check_metadata(path: str, known: dict[str, Any], inputs: Any, outputs: Any) -> None:
    """Refuses metadata with a value that can't be, or of another network."""
    shapes = {name: tensor["shape"].tolist() for name, tensor in {**inputs, **outputs}.items()}
    image, mask = (shapes.get(name, [])[1:3] for name in ("image", MASK))
    scales = {n: list(t["quantization"]) for n, t in outputs.items() if t["quantization"][0]}
    labels = known["labels"] if isinstance(known["labels"], list) else []
    map_, cut, top_k = known["map"], known["threshold"], known.get("top_k")
    scaling = known.get("normalization", {"scale": 1.0, "offset": 0.0, "in_graph": True})
    fits = {
        "labels": labels != [] and all(isinstance(label, str) for label in labels),
        "map": map_ in ["mean", "topk", "predicted", "all", *(f"class:{x}" for x in labels)],
        "threshold": cut == "otsu" or (type(cut) in (int, float) and 0 <= cut <= 1),
        "input_size": str(known["input_size"]) == str(image),  # whole numbers, not 32.0
        "output_size": str(known.get("output_size", mask)) == str(mask),
        "top_k": top_k is None or (type(top_k) is int and 0 < top_k <= len(labels)),
        "normalization": isinstance(scaling, dict)
        and [type(scaling.get(key)) for key in ("scale", "offset")] == [float, float]
        and scaling.get("in_graph") is True,
        "quantization": known.get("quantization", scales) == scales,
        "format": isinstance(known.get("format", ""), str),
        "versions": isinstance(known.get("versions", {}), dict),
    }  # fmt: skip
    for key in (key for key, fit in fits.items() if not fit):
        raise _bad(path, f"has metadata that can't be right: {key} is {str(known[key])[:100]!r}")
    scores = {"class_scores": [1, len(labels)]} if map_ in ("predicted", "topk") else {}
    channels = len(labels) if map_ == "all" else 1
    if shapes != {"image": [1, *image, 3], MASK: [1, *mask, channels], **scores}:
        raise _bad(path, f"has other tensors than its labels and map tell: {shapes}")


def _check_image(image: Any) -> None:
    array = isinstance(image, np.ndarray)
    if not array or image.dtype != np.uint8 or image.shape[2:] != (3,) or not image.size:
        kind = f"{image.dtype} {list(image.shape)}" if array else type(image).__name__
        raise ValueError(f"A picture is an array, uint8 [height, width, 3] RGB. Received: {kind}.")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turns logits [classes] into probabilities, float64 [classes]."""
    exponents = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return exponents / exponents.sum()


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 [h, w, 3] to [height, width, 3]: bilinear, antialiased, aspect ignored.

    The bytes are those of Pillow 13's `resize(..., BILINEAR)`, by its arithmetic: one side, rounded
    to bytes, then the other; fixed-point weights of 22 bits. Other versions differ by 1 at most.
    """
    planes = image.transpose(2, 0, 1)
    # Pillow takes the side first that shrinks much more.
    rows_first = image.shape[0] - height > max(0, 2 * (image.shape[1] - width))
    for axis in (1, 2) if rows_first else (2, 1):
        planes = _resize_last(planes.swapaxes(axis, 2), (height, width)[axis - 1]).swapaxes(axis, 2)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _resize_last(values: np.ndarray, size: int) -> np.ndarray:
    """Resizes the last axis of uint8 [planes, lines, n] to `size`."""
    n = values.shape[-1]
    if n == size:
        return values
    lines = values.reshape(-1, n)
    first, weights = _triangle_weights(n, size)
    resized = np.empty((len(lines), size), np.uint8)
    taps = np.arange(weights.shape[1])
    for start in range(0, size, 8):  # weights are a narrow band: most of a full matrix is zeros
        chunk = slice(start, start + 8)
        left, right = first[start], min(first[chunk][-1] + len(taps), n)
        band = np.zeros((right - left + len(taps), len(first[chunk])))
        band[(first[chunk, None] - left + taps).T, np.arange(band.shape[1])] = weights[chunk].T
        band = band[: right - left]  # of what lies beyond, all weights are 0
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

    As `wsol_tf.model.score_maps.component_boxes`: float32 [N, 4], x0, y0, x1, y1 edges in pixels,
    half-open; the most pixels first, equally many in the order of first pixels, row by row.
    """
    # Runs of True along the rows; a column of False between rows ends each run in its row.
    stride = mask.shape[1] + 1
    padded = np.pad(mask, ((0, 0), (0, 1)))
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
    return boxes[np.argsort(-np.add.reduceat(lengths, first), kind="stable")].astype(np.float32)


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
