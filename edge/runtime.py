"""Runs an exported .tflite with numpy and ai_edge_litert alone: from a picture to mask and boxes.

    from edge.runtime import LocalizerRuntime

    localizer = LocalizerRuntime("localizer_int8.tflite", num_threads=2)
    found = localizer.localize(image)  # uint8 [height, width, 3] RGB, any size
    found.mask, found.boxes, found.scores, found.box, found.class_name, found.probability

`edge/arrays.py` has what is done to arrays before and after the network. The two files stand alone:
copy them side by side into any project, together with requirements-edge.txt.
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

try:
    from edge import arrays
except ImportError:  # the two files were copied to another folder
    import arrays  # type: ignore[import-not-found, no-redef]

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
            component of the mask that counts as an object, the largest first; [0, 4] where the
            mask is empty.
        scores: float32 [N], the mean of the score map inside each component, 0..1.
        areas: int64 [N], the pixels of each component.
        box: float32 [4], the first of the boxes; the whole picture where the mask is empty. None:
            nothing is found, since the predicted class is that of pictures without any object, or
            all that the mask marks is smaller than `min_picture_area`.
        class_name: the predicted class, or else the map's; None where the file knows neither.
        probability: of the predicted class, 0..1; None where the file has no classifier.
        others: with map "present", a Found for each of the other classes in the picture, the most
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
        refine: "guided", where `localize` refines the map by the picture, or "none".
        separate: whether `localize` cuts objects that touch apart.

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
        self.refine = self.metadata.get("refine", "none")  # files of version 0.1.0 don't say it
        self.separate = self.metadata.get("separate", False)

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the network alone on a picture of its own input size, uint8 [height, width, 3] RGB.

        Returns:
            dict name -> float32 array of real values: `foreground_mask` [h, w, channels] in 0..1
            and, with maps "predicted", "topk" and "present" or a background class,
            `class_scores` [classes], logits.
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
        threshold: float | str | None = None, min_area: float = 0.0,
        min_picture_area: float = 0.0, max_objects: int = 0,
    ) -> Found:  # fmt: skip
        """Finds the objects in a picture; with map "present", those of every class that is in it.

        Args:
            image: uint8 [height, width, 3] RGB, any size.
            class_name: the class whose map is taken, with map "all", or with "present" in place of
                all that are; else None.
            threshold: 0..1 or "otsu"; None takes the one stored in the file.
            min_area: components of the mask with fewer pixels than this share of the largest one's
                are no objects, 0..1.
            min_picture_area: those with fewer pixels than this share of the picture's are none
                either, 0..1; where none is left, `box` is None.
            max_objects: at most so many objects, the largest; 0: all.

        Raises:
            ValueError: the image is no such array; a number is out of range; the class has no map,
                or each class has one and none was chosen.
            FloatingPointError: the network's output is not finite.
        """
        _check_image(image)
        channel = self.check_class(class_name)
        cut = self.threshold if threshold is None else threshold
        _check_numbers(cut, min_area, min_picture_area, max_objects)
        limits: dict[str, Any] = {"min_area": min_area, "min_picture_area": min_picture_area}
        limits |= {"max_objects": max_objects, "is_separated": self.separate}
        small = arrays.resize_image(image, *self.input_size)
        outputs = self.run(small)
        if not all(np.isfinite(values).all() for values in outputs.values()):
            raise FloatingPointError("The model's output is not finite. Export it again.")

        def found_of(channel: int, class_name: str | None, probability: float | None) -> Found:
            score_map = outputs[MASK][..., channel]
            if self.refine == "guided":
                score_map = arrays.refine(score_map, small)
            height, width = image.shape[:2]
            parts = arrays.localize(score_map, height, width, cut, **limits)
            return Found(*parts, class_name, probability)

        if self.metadata["map"].startswith("class:"):
            class_name = self.metadata["map"].removeprefix("class:")
        if "class_scores" not in outputs:
            return found_of(channel, class_name, None)
        probabilities = arrays.softmax(outputs["class_scores"])
        present = self._present(probabilities)
        if not present:
            best = int(probabilities.argmax())
            return _without_object(found_of(channel, self.labels[best], float(probabilities[best])))
        if class_name is not None:  # of which it is not said how probable it is
            return found_of(channel, class_name, None)
        channels = present if self.metadata["map"] == "present" else [channel]
        first, *others = (
            found_of(channel, self.labels[label], float(probabilities[label]))
            for channel, label in zip(channels, present, strict=True)
        )
        return dataclasses.replace(first, others=tuple(others))

    def _present(self, probabilities: np.ndarray) -> list[int]:
        """The classes of the objects that are shown, the most probable first; see `arrays`."""
        presence = self.metadata["presence_threshold"] if self.metadata["map"] == "present" else 2
        empty = self.metadata.get("background_class")
        background = None if empty is None else self.labels.index(empty)
        return arrays.present_classes(probabilities, presence, background)

    def check_class(self, class_name: str | None) -> int:
        """Returns the channel of a class's map, or of the only map; a ValueError says why not."""
        map_ = self.metadata["map"]
        if map_ in ("all", "present") and class_name in self.labels:
            return self.labels.index(class_name)
        if map_ != "all" and class_name is None:
            return 0
        names = ", ".join(self.labels)
        do = "no class can be chosen, so leave it out"
        if map_ in ("all", "present"):
            do = f"name one of {names}" + ", or none" * (map_ == "present")
        raise ValueError(f"The file holds map '{map_}': {do}. Received: {class_name}.")


def _without_object(found: Found) -> Found:
    """What is found where the predicted class is that of pictures without any object."""
    return dataclasses.replace(
        found,
        score_map=np.zeros_like(found.score_map),
        mask=np.zeros_like(found.mask),
        boxes=found.boxes[:0],
        scores=found.scores[:0],
        areas=found.areas[:0],
        box=None,
    )


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
    empty, presence = known.get("background_class"), known.get("presence_threshold")
    scaling = known.get("normalization", {"scale": 1.0, "offset": 0.0, "in_graph": True})
    kinds = ["mean", "topk", "predicted", "all", "present", *(f"class:{x}" for x in labels)]
    fits = {
        "labels": labels != [] and all(isinstance(label, str) for label in labels),
        "map": map_ in kinds,
        "threshold": cut == "otsu" or _is_share(cut),
        "presence_threshold": _is_share(presence) or (presence is None and map_ != "present"),
        "refine": known.get("refine", "none") in ("none", "guided"),
        "separate": type(known.get("separate", False)) is bool,
        "background_class": empty is None or empty in labels,
        "input_size": str(known["input_size"]) == str(image),  # whole numbers, not 32.0
        "output_size": str(known.get("output_size", mask)) == str(mask),
        "top_k": top_k is None or (type(top_k) is int and 0 < top_k <= len(labels)),
        "normalization": isinstance(scaling, dict)
        and all(_is_scaling(scaling.get(key)) for key in ("scale", "offset"))
        and scaling.get("channels", "RGB") in ("RGB", "BGR")
        and scaling.get("in_graph") is True,
        "quantization": known.get("quantization", scales) == scales,
        "format": isinstance(known.get("format", ""), str),
        "versions": isinstance(known.get("versions", {}), dict),
    }  # fmt: skip
    for key in (key for key, fit in fits.items() if not fit):
        value = str(known.get(key))[:100]
        raise _bad(path, f"has metadata that can't be right: {key} is {value!r}")
    has_scores = map_ in ("predicted", "topk", "present") or empty is not None
    scores = {"class_scores": [1, len(labels)]} if has_scores else {}
    channels = len(labels) if map_ in ("all", "present") else 1
    if shapes != {"image": [1, *image, 3], MASK: [1, *mask, channels], **scores}:
        raise _bad(path, f"has other tensors than its labels and map tell: {shapes}")


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_scaling(value: Any) -> bool:
    """Whether it is a number, or one for each of three channels."""
    values = value if isinstance(value, list) and len(value) == 3 else [value]
    return all(type(number) is float for number in values)


def _check_numbers(
    threshold: float | str, min_area: float, min_picture_area: float, max_objects: int
) -> None:
    if not (threshold == "otsu" if isinstance(threshold, str) else 0 <= threshold <= 1):
        raise ValueError(f"A threshold must be in 0..1 or 'otsu'. Received: {threshold}.")
    if not (0 <= min_area <= 1 and 0 <= min_picture_area <= 1) or max_objects < 0:
        raise ValueError(
            "`min_area` and `min_picture_area` must be in 0..1, and `max_objects` at least 0. "
            f"Received: {min_area}, {min_picture_area} and {max_objects}."
        )


def _check_image(image: Any) -> None:
    array = isinstance(image, np.ndarray)
    if not array or image.dtype != np.uint8 or image.shape[2:] != (3,) or not image.size:
        kind = f"{image.dtype} {list(image.shape)}" if array else type(image).__name__
        raise ValueError(f"A picture is an array, uint8 [height, width, 3] RGB. Received: {kind}.")
