"""Random access to the records that tensorflow_datasets prepares: an index, and a parser."""

import contextlib
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from wsol_tf import files
from wsol_tf.data.public_kinds import Kind
from wsol_tf.progress import Progress

INDEX_VERSION = 1


def parse_record(data: bytes, features: tfds.features.FeaturesDict) -> dict[str, Any]:
    """Parses a record into a nested dict of numpy values; pictures stay encoded, as bytes.

    Args:
        data: the record.
        features: those that are wanted, as tfds describes them.
    """
    skip = {
        name: tfds.decode.SkipDecoding()
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
    return features.deserialize_example_np(data, decoders=skip)


def read_index(builder: tfds.core.DatasetBuilder, kind: Kind, split: str) -> dict[str, np.ndarray]:
    """Reads the index of a split, or makes it where there is none yet.

    It is kept in a file beside the shards, because reading all records takes minutes on ILSVRC.

    Args:
        builder: of a prepared data set.
        kind: which of the data sets it is.
        split: name of a whole split.

    Returns:
        By record `offsets` and `lengths` in bytes within its shard and `ids`; `labels`, those of
        record i from `label_starts[i]` to `label_starts[i + 1]`.

    Raises:
        ValueError: the files are not TFRecords, or one of them is cut off.
    """
    info = builder.info.splits[split]
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ValueError(
            f"{builder.data_dir} holds {builder.info.file_format} files; only tfrecord is read. "
            "Prepare the data set with tfds's default file format."
        )
    sizes = np.array([os.path.getsize(path) for path in info.filepaths])
    file = Path(builder.data_dir) / f"wsol_tf_index-{split}.npz"
    try:
        with np.load(file) as stored:
            index = dict(stored)
        if index["version"] == INDEX_VERSION and np.array_equal(index["sizes"], sizes):
            return index
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        pass  # none yet, or not a whole one: it is made now
    index = _make_index(builder, kind, info)
    index |= {"version": INDEX_VERSION, "sizes": sizes}
    # Into a folder that cannot be written to, or is full: it is made again next time.
    with contextlib.suppress(OSError), files.replacing(file) as unfinished:
        np.savez(unfinished, **index)
    return index


def _make_index(builder, kind, info):
    wanted = {name: True for name in kind.wanted}
    features = tfds.decode.PartialDecoding(wanted).extract_features(builder.info.features)
    offsets, lengths, ids, labels, label_starts = [], [], [], [], [0]
    progress = Progress(info.num_examples, "record")
    for path, number in zip(info.filepaths, info.shard_lengths, strict=True):
        before = len(ids)
        for offset, data in _records(path):
            image_id, own = kind.identify(features.deserialize_example_np(data))
            offsets.append(offset)
            lengths.append(len(data))
            ids.append(image_id.encode())
            labels += [int(label) for label in own if label >= 0]
            label_starts.append(len(labels))
        progress(len(ids))
        if len(ids) - before != number:
            raise ValueError(
                f"{path} has {len(ids) - before} whole records, {number} were written. Delete "
                f"{builder.data_dir} and prepare the data set again."
            )
    return {
        "offsets": np.array(offsets, np.int64),
        "lengths": np.array(lengths, np.int64),
        "ids": np.array(ids),
        "labels": np.array(labels, np.int32),
        "label_starts": np.array(label_starts, np.int64),
    }


def _records(path):
    """Yields (offset, bytes) of each whole record of a TFRecord file."""
    with open(path, "rb") as file:
        while len(head := file.read(12)) == 12:  # length, its checksum
            (length,) = struct.unpack("<Q", head[:8])
            offset = file.tell()
            data = file.read(length)
            if len(data) < length or len(file.read(4)) < 4:  # the data's checksum
                return
            yield offset, data
