"""Public data sets through tensorflow_datasets (tfds): VOC, CUB-200-2011, ILSVRC 2012, Pets.

tfds downloads, checks and prepares; its records are then read at random places, which its own
reader does not offer for them. An index with the place and the labels of each record is kept
beside them.
"""

import dataclasses
import logging
import os
import re
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from wsol_tf.data import images
from wsol_tf.data.annotation import annotated_example, check_classes, make_annotation
from wsol_tf.data.archives import _imagenet_annotations, _prepared
from wsol_tf.data.example import IGNORE
from wsol_tf.data.images import BadImage
from wsol_tf.data.public_kinds import KINDS
from wsol_tf.data.source import Report, Source
from wsol_tf.data.tfrecords import _parse, _read_index


def _is_for_users(record):
    return record.levelno >= logging.ERROR or "tensorflow_datasets" not in record.pathname


# tfds tells through absl how it works and what of itself it deprecates.
logging.getLogger("absl").addFilter(_is_for_users)


# --- reading -------------------------------------------------------------------------------------


def open_public(
    dataset: str,
    data_dir: str,
    split: str,
    *,
    classes: tuple | None,
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
        classes, image_size, report: as in `datasets.load`.
        download: whether missing archives may be downloaded.

    Raises:
        ValueError: with a sentence that says which file to put where.
    """
    kind = KINDS[dataset]
    data_dir = Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))
    data_dir = data_dir.expanduser()
    split = re.sub(r"\bval\b", "validation", split)
    builder = _prepared(dataset, data_dir, download, report)
    parts = _parts(builder, dataset, split)
    indexes = {
        name: _read_index(builder, kind, name) for name in dict.fromkeys(p[0] for p in parts)
    }
    own_classes = _class_names(builder, kind, indexes)
    classes = check_classes(classes or own_classes, own_classes, str(builder.data_dir))
    # Own class id -> id in the list; the last entry is for "not in the list".
    new_ids = np.array([classes.index(n) if n in classes else -1 for n in own_classes], np.int32)
    paths = [path for _, path, _, _ in parts]
    image_ids, labels, places = _choose(parts, indexes, new_ids, report)
    if not image_ids:
        raise ValueError(f"{dataset} {split} has no usable picture.\n{report.summary()}")
    annotate = kind.annotate
    if dataset == "imagenet2012":
        annotate = _imagenet_annotations(data_dir, indexes, own_classes, report)
    features = builder.info.features
    only_image = tfds.decode.PartialDecoding({"image": True}).extract_features(features)
    mask_values = _mask_values(new_ids)

    def read_record(position, wanted):
        shard, offset, length = (int(value) for value in places[position])
        where = f"{image_ids[position]} in {paths[shard]}"
        try:
            with open(paths[shard], "rb") as file:
                file.seek(offset)
                return where, _parse(file.read(length), wanted)
        except Exception as error:  # the parser raises many types on damaged records
            raise BadImage(where, f"the record cannot be read ({error})") from error

    def read_image(position):
        where, record = read_record(position, only_image)
        return images.read_image(where, image_size, record["image"])

    def read_example(position):
        where, record = read_record(position, features)
        image, size = images.read_image_and_size(where, image_size, record["image"])
        known, mask = annotate(record, size) if annotate else (make_annotation(()), None)
        keep = new_ids[known.box_labels] >= 0
        known = dataclasses.replace(
            known,
            labels=labels[position],
            boxes=known.boxes[keep],
            box_labels=new_ids[known.box_labels][keep],
        )
        image_id = image_ids[position]
        if mask is not None and mask.shape != size:
            report.skip(f"{image_id} mask", "mask not used (it has another size than the picture)")
            mask = None
        mask = None if mask is None else mask_values[mask]
        return annotated_example(image_id, image, size, known, mask, report)

    return Source(
        name=f"{dataset} {split}",
        classes=classes,
        image_ids=image_ids,
        labels=labels,
        has_boxes=annotate is not None,
        has_masks="segmentation_mask" in features,
        report=report,
        read_image=read_image,
        read_example=read_example,
    )


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
        index = indexes[split] if split in indexes else _read_index(builder, kind, split)
        firsts = index["label_starts"][:-1]
        for label, row in zip(*np.unique(index["labels"][firsts], return_index=True), strict=True):
            names[label] = index["ids"][row].decode().split("/")[0]
    return tuple(names)


def _mask_values(new_ids):
    """uint8 [256]: mask value of the data set -> of the list; classes not in it are ignored."""
    values = np.full(256, IGNORE, np.uint8)
    values[0] = 0
    for own, new in enumerate(new_ids[:254]):
        if 0 <= new < 254:
            values[1 + own] = 1 + new
    return values
