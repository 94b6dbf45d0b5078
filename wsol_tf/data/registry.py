"""Data sets by name: each opens as a Source, whole or a slice of it."""

import os
import re
from collections.abc import Sequence

import numpy as np

from wsol_tf.data import folders
from wsol_tf.data.coco import coco
from wsol_tf.data.csv_table import csv_table
from wsol_tf.data.shapes import open_shapes
from wsol_tf.data.source import Report, Source, subset

# Read from files of the user's own; a slice of a split is made here.
FOLDERS = {
    "image_folder": folders.image_folder,
    "csv": csv_table,
    "coco": coco,
    "voc_folder": folders.voc_folder,
}
# Public ones, downloaded and sliced by tfds: the keys of `tfds_sources.KINDS`.
PUBLIC = ("voc", "voc2007", "caltech_birds2011", "imagenet2012", "oxford_iiit_pet")
DATASETS = ("shapes", *FOLDERS, *PUBLIC)


def open_dataset(
    dataset: str,
    data_dir: str,
    split: str,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    image_size: int = 224,
    num_examples: int | None = None,
    download: bool = True,
    single_class: bool = False,
    on_bad_image: str = "skip",
) -> Source:
    """Opens one split of a data set; pictures are read later, when they are asked for.

    Args:
        dataset: one of `DATASETS`.
        data_dir: the folder of the data set; not used by `shapes`. For public ones the folder of
            tfds, '' for its default.
        split: name of the split, such as `train` or `val`, or a slice of it, such as
            `train[:90%]` or `train[500:]`.
        classes: class names that fix the ids, such as those of a trained model. By default the
            data set's own.
        seed: seed of drawn pictures and of the choice that `num_examples` makes.
        image_size: side in pixels that views are cut from. Pictures are drawn at this size, or
            read reduced by a whole factor where both sides stay at least as long.
        num_examples: at most so many pictures, chosen by the seed; all by default.
        download: whether public data sets that are not there may be downloaded.
        single_class: leave out pictures with several classes.
        on_bad_image: `skip` pictures that cannot be read and name them in the report, or `fail`:
            end with StopAtBadImage, a ValueError, at the first.

    Returns:
        A Source with at least one picture.

    Raises:
        ValueError: with a sentence that says what to do, where nothing can be read.
    """
    if dataset not in DATASETS:
        raise ValueError(f"Unknown dataset {dataset!r}. Legal: {', '.join(DATASETS)}.")
    if num_examples is not None and num_examples < 1:
        raise ValueError(f"num_examples must be at least 1 or None. Received: {num_examples}.")
    report = Report(on_bad_image)
    options = {"classes": None if classes is None else tuple(classes), "report": report}
    if dataset == "shapes":
        return open_shapes(split, seed, image_size, num_examples, **options)
    options["image_size"] = image_size
    if dataset in PUBLIC:
        from wsol_tf.data.public import open_public  # takes a while, and only these need it

        source = open_public(dataset, data_dir, split, download=download, **options)
    else:
        if not data_dir:
            raise ValueError(f"Data set {dataset!r} is read from a folder: set --data_dir to it.")
        is_file = dataset in ("csv", "coco") and os.path.isfile(data_dir)
        if not is_file and not os.path.isdir(data_dir):
            what = "not a folder" if dataset not in ("csv", "coco") else "not a folder or a file"
            raise ValueError(f"--data_dir '{data_dir}' is {what}. Check the path.")
        source = _sliced(FOLDERS[dataset], data_dir, split, options)
    if single_class:
        single = [i for i, labels in enumerate(source.labels) if len(labels) == 1]
        if not single:
            raise ValueError(f"{source.name} has no picture with a single class.")
        source = subset(source, single)
    if num_examples is not None and num_examples < len(source):
        chosen = np.random.default_rng(seed).permutation(len(source))[:num_examples]
        source = subset(source, np.sort(chosen))
    return source


def _sliced(open_split, data_dir, split, options):
    """Opens a split of files, or a slice of it in tfds's words: `train[:90%]`, `train[500:]`.

    Files have an order, often by class, so slices are taken of a fixed random order. Slices that
    do not overlap share no picture.
    """
    if not re.search(r"[\[+]", split):
        return open_split(data_dir, split, **options)
    from tensorflow_datasets import core

    name = split.split("[")[0]
    source = open_split(data_dir, name, **options)
    whole = core.SplitInfo(name=name, shard_lengths=[len(source)], num_bytes=0)
    try:
        (part,) = core.ReadInstruction.from_spec(split).to_absolute({name: whole})
    except (ValueError, AssertionError, KeyError) as error:
        raise ValueError(
            f"Split {split!r} cannot be read. Legal are the name of a split and one slice of it, "
            "such as 'train[:90%]', 'train[90%:]' or 'train[500:]'."
        ) from error
    order = np.random.default_rng(0).permutation(len(source))[part.from_ or 0 : part.to]
    if not len(order):
        raise ValueError(f"Split {split!r} is empty: {name!r} has {len(source)} pictures.")
    return subset(source, np.sort(order))


def holdout(
    labels: Sequence[np.ndarray], fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits positions into kept and held-out ones, stratified by each picture's first label.

    Args:
        labels: per picture, its class ids.
        fraction: share to hold out, in [0, 1).
        seed: same seed, same choice.

    Returns:
        (kept, held), int64 ascending positions. `held` has round(fraction * number of pictures)
        entries or fewer: at least one picture per class is kept.

    Raises:
        ValueError: the fraction is outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"The held-out fraction must be in [0, 1). Received: {fraction}.")
    rng = np.random.default_rng(seed)
    first = np.array([label[0] for label in labels], np.int64)
    candidates = []  # (rank within the class, tie-break, position)
    for class_id in np.unique(first):
        members = rng.permutation(np.flatnonzero(first == class_id))
        ranks = (np.arange(len(members)) + 0.5) / len(members)
        ties = rng.random(len(members))
        candidates += list(zip(ranks, ties, members, strict=True))[:-1]
    candidates.sort()
    held = [position for _, _, position in candidates[: round(fraction * len(first))]]
    held = np.sort(np.array(held, np.int64))
    return np.setdiff1d(np.arange(len(first)), held), held
