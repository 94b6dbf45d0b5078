"""Public data sets through tensorflow_datasets (tfds): VOC, CUB-200-2011, ILSVRC 2012, Pets.

tfds downloads, checks and prepares; its records are then read at random places, which its own
reader does not offer for them. An index with the place and the labels of each record is kept
beside them.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from wsol_tf.data import images
from wsol_tf.data.annotation import (
    annotated_example,
    check_classes,
    make_annotation,
    mask_values,
    new_class_ids,
)
from wsol_tf.data.archives import imagenet_annotations, prepared_builder
from wsol_tf.data.example import Example
from wsol_tf.data.images import BadImage
from wsol_tf.data.public_kinds import KINDS, Annotate
from wsol_tf.data.source import Report, Source
from wsol_tf.data.tfrecords import parse_record, read_index


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Keeps to itself what tfds tells absl's log about its workings and its deprecations."""

    def is_for_users(record):
        return record.levelno >= logging.ERROR or "tensorflow_datasets" not in record.pathname

    log = logging.getLogger("absl")
    log.addFilter(is_for_users)
    try:
        yield
    finally:
        log.removeFilter(is_for_users)


@quiet_tfds()
def open_public(
    dataset: str,
    data_dir: str | os.PathLike,
    split: str,
    *,
    classes: tuple[str, ...] | None,
    image_size: int,
    report: Report,
    download: bool,
) -> Source:
    """Opens a split of a data set, after preparing the data set where that was not done yet.

    Args:
        dataset: a key of `KINDS`.
        data_dir: tfds's folder, and the place of archives; '' for tfds's default.
        split: a split of tfds such as `train`, `validation` (or `val`), `train[:90%]`,
            `train+validation`.
        classes: class names that fix the ids; by default the data set's own.
        image_size: side in pixels that views are cut from, see `registry.open_dataset`.
        report: takes what is left out.
        download: whether missing archives may be downloaded.

    Raises:
        ValueError: with a sentence that says which file to put where.
    """
    kind = KINDS[dataset]
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    folder = Path(data_dir or default).expanduser()
    split = re.sub(r"\bval\b", "validation", split)
    builder = prepared_builder(dataset, folder, download, report)
    parts = _parts(builder, dataset, split)
    indexes = {name: read_index(builder, kind, name) for name in dict.fromkeys(p[0] for p in parts)}
    own_classes = _class_names(builder, kind, indexes)
    classes = check_classes(classes or own_classes, own_classes, str(builder.data_dir))
    new_ids = new_class_ids(own_classes, classes)
    image_ids, labels, places = _choose(parts, indexes, new_ids, report)
    if not image_ids:
        raise ValueError(f"{dataset} {split} has no usable picture.\n{report.summary()}")
    annotate = kind.annotate
    if dataset == "imagenet2012":
        annotate = imagenet_annotations(folder, indexes, own_classes, report)
    paths, features = [path for _, path, _, _ in parts], builder.info.features
    records = _Records(
        paths, places, image_ids, labels, features, new_ids, annotate, image_size, report
    )
    return Source(
        name=f"{dataset} {split}",
        classes=classes,
        image_ids=image_ids,
        labels=labels,
        has_boxes=annotate is not None,
        has_masks="segmentation_mask" in features,
        report=report,
        read_image=records.read_image,
        read_example=records.read_example,
    )


@dataclasses.dataclass(frozen=True)
class _Records:
    """Reads the pictures of a split out of tfds's records.

    Attributes:
        paths: the shards.
        places: int64 [number, 3], per picture its shard, offset and length in bytes.
        image_ids, labels, image_size, report: as in Source and `open_public`.
        features: what a record holds, as tfds describes it.
        new_ids: per class of the data set its id in the list, or -1.
        annotate: see `Kind.annotate`.
    """

    paths: list[str]
    places: np.ndarray
    image_ids: tuple[str, ...]
    labels: tuple[np.ndarray, ...]
    features: Any
    new_ids: np.ndarray
    annotate: Annotate | None
    image_size: int
    report: Report

    def read_image(self, position: int) -> np.ndarray:
        """Reads a picture; of the record nothing else is parsed."""
        where, record = self._read(position, self._only_image)
        return images.read_image(where, self.image_size, record["image"])

    def read_example(self, position: int) -> Example:
        """Reads a picture with its boxes and its mask."""
        where, record = self._read(position, self.features)
        image, size = images.read_image_and_size(where, self.image_size, record["image"])
        annotate = self.annotate or (lambda record, size: (make_annotation(()), None))
        known, mask = annotate(record, size)
        keep = self.new_ids[known.box_labels] >= 0
        known = dataclasses.replace(
            known,
            labels=self.labels[position],
            boxes=known.boxes[keep],
            box_labels=self.new_ids[known.box_labels][keep],
        )
        image_id = self.image_ids[position]
        if mask is not None and mask.shape != size:
            why = "mask not used (it has another size than the picture)"
            self.report.skip(f"{image_id} mask", why)
            mask = None
        mask = None if mask is None else mask_values(self.new_ids)[mask]
        return annotated_example(image_id, image, size, known, mask, self.report)

    @functools.cached_property
    def _only_image(self):
        return tfds.decode.PartialDecoding({"image": True}).extract_features(self.features)

    def _read(self, position, wanted):
        shard, offset, length = (int(value) for value in self.places[position])
        where = f"{self.image_ids[position]} in {self.paths[shard]}"
        try:
            with open(self.paths[shard], "rb") as file:
                file.seek(offset)
                return where, parse_record(file.read(length), wanted)
        except Exception as error:  # the parser raises many types on damaged records
            raise BadImage(where, f"the record cannot be read ({error})") from error


def _parts(builder, dataset, split):
    """Parts of shards that tfds reads for a split: (split name, path, first record, number)."""
    splits = builder.info.splits
    legal = ", ".join(splits)
    try:
        instructions = splits[split].file_instructions
    except (ValueError, AssertionError, KeyError) as error:
        raise ValueError(
            f"Split {split!r} cannot be read from {dataset} in {builder.data_dir}, which has: "
            f"{legal}. Legal are these names, slices such as 'train[:90%]', and sums with '+'."
            f"{_missing_split(dataset, builder)}"
        ) from error
    name_of = {str(path): name for name, info in splits.items() for path in info.filepaths}
    files = [(str(part.filename), part.skip, part.take) for part in instructions]
    # A part counts from the start of its shard, an index from the start of its split.
    starts = {
        str(path): int(start)
        for info in splits.values()
        for path, start in zip(
            info.filepaths, np.cumsum([0, *info.shard_lengths[:-1]]), strict=True
        )
    }
    parts = [(name_of[path], path, starts[path] + skip, take) for path, skip, take in files if take]
    if not parts:
        raise ValueError(f"Split {split!r} of {dataset} is empty. It has: {legal}.")
    return parts


def _missing_split(dataset, builder):
    if dataset != "imagenet2012":
        return ""
    return (
        " A split whose archive was not there when the data set was prepared is missing: put the "
        f"archive beside the others, delete {builder.data_dir}, and run again."
    )


def _choose(parts, indexes, new_ids, report):
    """Image ids, labels and places [number, (part, offset, length)] of the usable pictures."""
    image_ids, labels, places, known = [], [], [], {}
    for number, (name, _, first, count) in enumerate(parts):
        index = indexes[name]
        starts, values, ids = index["label_starts"], index["labels"], index["ids"]
        used = []
        for row in range(first, first + count):
            own = values[starts[row] : starts[row + 1]]
            # One array for each set of labels, not for each of a million pictures.
            new = known.get(own.tobytes())
            if new is None:
                new = np.sort(new_ids[own][new_ids[own] >= 0])
                known[own.tobytes()] = new
            image_id = ids[row].decode()
            if not len(new):
                report.skip(image_id, "no object of a class in the list that is not difficult")
                continue
            labels.append(new)
            image_ids.append(image_id)
            used.append(row)
        numbers = np.full(len(used), number)
        places.append(np.stack([numbers, index["offsets"][used], index["lengths"][used]], axis=1))
    return tuple(image_ids), tuple(labels), np.concatenate(places)


def _class_names(builder, kind, indexes):
    features = builder.info.features
    if "labels" in features:
        return tuple(features["labels"].feature.names)
    number = features["label"].num_classes
    if features["label"].names != [str(i) for i in range(number)]:
        return tuple(features["label"].names)
    # CUB's names are in its paths: "001.Black_footed_Albatross/...".
    names = [f"{i + 1:03d}" for i in range(number)]
    for split in builder.info.splits:
        index = indexes[split] if split in indexes else read_index(builder, kind, split)
        firsts = index["label_starts"][:-1]
        for label, row in zip(*np.unique(index["labels"][firsts], return_index=True), strict=True):
            names[label] = index["ids"][row].decode().split("/")[0]
    return tuple(names)
