"""Data sets by name: each opens as a Source, whole or a slice of it."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wsol_tf import config, files
from wsol_tf.data.annotation import OtherClasses
from wsol_tf.data.coco import open_coco
from wsol_tf.data.csv_table import open_csv
from wsol_tf.data.image_folder import open_image_folder
from wsol_tf.data.parts import parse_split, take_fold, unite
from wsol_tf.data.shapes import open_shapes
from wsol_tf.data.source import Report, Source, StopAtBadImage, subset
from wsol_tf.data.standard_lists import open_wsolevaluation
from wsol_tf.data.voc_folder import open_voc_folder

# What is read from files of the user's own; a slice of a split is made here.
FILE_KINDS: dict[str, Callable[..., Source]] = {
    "image_folder": open_image_folder,
    "csv": open_csv,
    "coco": open_coco,
    "voc_folder": open_voc_folder,
    "wsolevaluation": open_wsolevaluation,
}
# The other ones but the drawn pictures are public: prepared and sliced by tfds.
PUBLIC = tuple(name for name in config.choices("dataset") if name not in ("shapes", *FILE_KINDS))
# What the split to score is called where it is not called val.
VAL_NAMES = ("valid", "validation", "dev")
_REGISTERED: dict[str, Callable[..., Source]] = {}


def open_dataset(
    kind: str,
    data_dir: str | os.PathLike = "",
    split: str = "train",
    *,
    image_dir: str | os.PathLike = "",
    classes: Sequence[str] | None = None,
    seed: int = 0,
    image_size: int = 256,
    num_examples: int | None = None,
    download: bool = True,
    single_class: bool = False,
    on_bad_image: str = "skip",
    pictures_needed: bool = True,
) -> Source:
    """Opens one split of a data set; pictures are read later, when they are asked for.

        source = open_dataset("image_folder", "pictures")
        source.batches(32)               # a tf.data.Dataset for model.fit

    Args:
        kind: `shapes` (drawn), `image_folder`, another of `config.choices("dataset")`, or what
            `register_dataset` made known; docs/data.md describes each.
        data_dir: its folder (`shapes` has none); of public ones that of tensorflow_datasets or ''.
        split: such as `train`; a slice, `train[:90%]`; a sum, `train+val`; or one of five folds
            and all but it, `train+val[fold=2/5]` and `train+val[fold!=2/5]`; see docs/data.md.
            Where your own files have no `val`, `valid`, `validation` and `dev` are looked for.
        image_dir: where the pictures and masks are that the lists of `wsolevaluation` name.
        classes: class names that fix the ids, such as a trained model's; None: the data set's.
        seed: fixes drawn pictures, and the choice that `num_examples` makes.
        image_size: side in pixels that crops are cut from, 8/7 of the network's input. Pictures
            are drawn at it, or reduced by a whole factor if both sides stay at least as long.
        num_examples: at most so many pictures, chosen by the seed; all by default.
        download: whether a public data set that is not there may be downloaded.
        single_class: leave out pictures with several classes.
        on_bad_image: `skip` pictures that cannot be read and name them in `source.report`, or
            `fail` with StopAtBadImage, a ValueError, at the first.
        pictures_needed: of `wsolevaluation`: otherwise a gray picture stands for a missing one.

    Returns:
        A Source with at least one picture. Images are uint8 [height, width, 3], RGB in 0..255;
        boxes are edges x0, y0, x1, y1 in pixels, half-open; masks are uint8 [height, width] with
        0 background, 1 + class id and 255 ignored, see `Example`.

    Raises:
        ValueError: nothing can be read; the sentence says what to do about it.
    """
    _check(kind, num_examples)
    options: dict[str, Any] = {
        "classes": None if classes is None else tuple(classes),
        "image_size": image_size,
        "report": Report(on_bad_image),
        **_options_of_lists(kind, files.expanded(image_dir), pictures_needed),
    }
    if kind == "shapes":
        options |= {"seed": seed, "num_examples": num_examples}
    whole, fold = parse_split(split)
    source = _open_whole(kind, files.expanded(data_dir), whole, download, options)
    source = _chosen(source, single_class, num_examples, seed)
    return take_fold(source, fold) if fold else source


def _check(kind, num_examples):
    if kind not in config.choices("dataset"):
        legal = ", ".join(config.choices("dataset"))
        raise ValueError(f"Unknown dataset '{kind}'. Legal: {legal}.")
    if num_examples is not None and num_examples < 1:
        raise ValueError(f"num_examples must be at least 1 or None. Received: {num_examples}.")


def _options_of_lists(kind, image_dir, pictures_needed):
    """What the lists of wsolevaluation need and nothing else takes."""
    if kind == "wsolevaluation":
        return {"image_dir": image_dir, "pictures_needed": pictures_needed}
    if image_dir:
        raise ValueError(
            f"Data set '{kind}' has its pictures in `data_dir`; `image_dir` is for "
            "'wsolevaluation' alone."
        )
    return {}


def _open_whole(kind, data_dir, split, download, options):
    """Opens a split without a fold, or several with + between them."""
    # tfds adds splits up by itself.
    splits = [split] if kind in PUBLIC else [part.strip() for part in split.split("+")]
    parts: list[Source] = []
    for part in splits:
        parts.append(_open_split(kind, data_dir, part, download, options))
        options["classes"] = parts[0].classes
    return parts[0] if len(parts) == 1 else unite(parts, splits)


def _open_split(kind, data_dir, split, download, options):
    """Opens a single split, or a slice of it."""
    if kind == "shapes":
        return open_shapes(split, **options)
    if kind in PUBLIC:
        from wsol_tf.data.public import open_public  # takes a while, and only these need it

        return open_public(kind, data_dir, split, download=download, **options)
    _check_data_dir(kind, data_dir)
    open_split = _REGISTERED.get(kind) or functools.partial(_open_val, FILE_KINDS[kind])
    return _sliced(open_split, data_dir, split, options)


def _open_val(open_split, data_dir, split, **options):
    """Opens a split of files; where there is no `val`, the one with another name for it."""
    try:
        return open_split(data_dir, split, **options)
    except (StopAtBadImage, OtherClasses, files.BadFile):
        raise
    except ValueError:
        if split != "val":
            raise
        for name in VAL_NAMES:
            own_report = Report(options["report"].on_bad_image)
            try:
                source = open_split(data_dir, name, **{**options, "report": own_report})
            except StopAtBadImage:
                raise
            except ValueError:
                continue
            source.report.note("split val", f"there is none of this name, {name!r} is taken")
            return source
        raise


def register_dataset(name: str, open_split: Callable[..., Source]) -> None:
    """Makes a kind of data set of your own known to `open_dataset` and to `Config.dataset`.

        def open_split(data_dir, split, *, classes, image_size, report):
            paths = sorted(pathlib.Path(data_dir, split).glob("*.jpg"))
            items = [(p.name, p, make_annotation([int(p.name[0] == "d")])) for p in paths]
            return file_source("pets", classes or ("cat", "dog"), image_size, report, items)

        wsol_tf.register_dataset("pets", open_split)

    Args:
        name: the new kind. Registering a name again replaces what it stood for.
        open_split: function of (data_dir, split, *, classes, image_size, report) that returns a
            Source, such as `data.file_source` makes: `classes` are the names that fix the ids, or
            None; `image_size` is as in `open_dataset`; `report` takes what is left out. Slices
            such as `train[:90%]` are made of the whole split that it returns.

    Raises:
        ValueError: the name belongs to a kind that comes with wsol_tf.
    """
    if name in config.choices("dataset") and name not in _REGISTERED:
        raise ValueError(f"There is a data set '{name}' already. Choose another name.")
    config.register_choice("dataset", name)
    _REGISTERED[name] = open_split


def _chosen(source, single_class, num_examples, seed):
    """The pictures of a Source that are asked for."""
    if single_class:
        single = [i for i, labels in enumerate(source.labels) if len(labels) == 1]
        if not single:
            raise ValueError(f"{source.name} has no picture with a single class.")
        source = subset(source, single)
    if num_examples is not None and num_examples < len(source):
        chosen = np.random.default_rng(seed).permutation(len(source))[:num_examples]
        source = subset(source, np.sort(chosen))
    return source


def _check_data_dir(kind, data_dir):
    if kind in _REGISTERED:  # it knows itself what it reads
        return
    if not data_dir:
        raise ValueError(f"Data set '{kind}' is read from a folder: set `data_dir` to it.")
    may_be_file = kind in ("csv", "coco")
    if os.path.isdir(data_dir) or (may_be_file and os.path.isfile(data_dir)):
        return
    what = "neither a folder nor a file" if may_be_file else "not a folder"
    raise ValueError(f"`data_dir='{data_dir}'` is {what}. Check the path.")


def _sliced(open_split, data_dir, split, options):
    """Opens a split of files, or a slice of it in tfds's notation: `train[:90%]`, `train[500:]`.

    Files have an order, often by class, so slices are taken of a fixed random order. Slices that
    do not overlap share no picture.
    """
    if "[" not in split:
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
        raise ValueError(
            f"Split {split!r} is empty: {name!r} has {files.counted(len(source), 'picture')}."
        )
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
    chosen = [position for _, _, position in candidates[: round(fraction * len(first))]]
    held = np.sort(np.array(chosen, np.int64))
    return np.setdiff1d(np.arange(len(first)), held), held
