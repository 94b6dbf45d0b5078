"""The lists that wsolevaluation publishes for CUB, ILSVRC and OpenImages, read as its code does."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import cv2
import numpy as np

from wsol_tf import files
from wsol_tf.data import images
from wsol_tf.data.annotation import (
    Annotation,
    annotated_example,
    check_classes,
    first_ten,
    make_annotation,
    new_class_ids,
    read_mask_file,
)
from wsol_tf.data.example import IGNORE, Example, StandardTruth
from wsol_tf.data.images import BadImage
from wsol_tf.data.listed import Listed, by_file
from wsol_tf.data.names import Finder
from wsol_tf.data.source import Report, Source
from wsol_tf.data.values import whole

MAX_LIST_BYTES = 1024 * files.MEBI  # the longest published list, of ILSVRC's train, has 60 MB
MAX_CLASSES = 100_000
GRAY = 128
SIDE = 224  # of the gray picture that stands for one that is not there


class _Truth(NamedTuple):
    """What localization.txt says of a picture.

    Attributes:
        boxes: x0, y0, x1, y1 in whole pixels, the last ones inclusive.
        masks: names of the files with the object's masks.
        ignored: name of the file with what is not judged, or ''.
    """

    boxes: list[tuple[int, ...]]
    masks: list[str]
    ignored: str


class _Item(NamedTuple):
    """A picture that can be used.

    Attributes:
        image_id: as the lists have it.
        path: its file, or None: a gray picture stands for it.
        annotation: its class, and its boxes, half-open.
        truth: see `_Truth`; its masks are paths of files here.
    """

    image_id: str
    path: str | None
    annotation: Annotation
    truth: _Truth


def open_wsolevaluation(
    data_dir: str,
    split: str,
    *,
    classes: tuple[str, ...] | None,
    image_size: int,
    report: Report,
    image_dir: str = "",
    pictures_needed: bool = True,
) -> Source:
    """Opens a split of a metadata folder of wsolevaluation, such as metadata/CUB.

    Its SPLIT/image_ids.txt and SPLIT/class_labels.txt are needed; SPLIT/localization.txt has boxes
    (then SPLIT/image_sizes.txt is needed too) or masks, and may be empty. The format is that of the
    readers in wsolevaluation's data_loaders.py (Choe et al., CVPR 2020, arXiv 2007.04178). Examples
    carry what the lists say as it stands, see `StandardTruth`.

    Args:
        data_dir: the metadata folder.
        split: name of a folder in it.
        classes: class names that fix the ids; by default the lines of classes.txt in `data_dir`,
            else the numbers of class_labels.txt.
        image_size: side in pixels that views are cut from, see `registry.open_dataset`.
        report: takes what is left out.
        image_dir: folder that the names of pictures and masks begin in.
        pictures_needed: otherwise a gray picture stands for one that can't be read.

    Raises:
        ValueError: there is no such split, or nothing in it can be used.
    """
    folder = os.path.join(data_dir, split)
    _check_folder(data_dir, folder)
    image_ids = _read_image_ids(folder, report)
    labels = _read_labels(folder, image_ids, report)
    own_classes = _class_names(data_dir, labels)
    classes = check_classes(classes or own_classes, own_classes, folder)
    new_ids = new_class_ids(own_classes, classes)
    sizes = _read_sizes(folder, image_ids, report)
    truths = _read_localization(folder, image_ids, report)
    if not image_dir and (pictures_needed or any(truth.masks for truth in truths.values())):
        raise ValueError(
            f"{folder} names pictures or masks, but not the folder that they lie in: set "
            "`image_dir`."
        )
    find = Finder([image_dir]).find if image_dir else lambda name: None
    items = []
    for known in _known_pictures(image_ids, find, report, pictures_needed):
        if _is_usable(known, labels, new_ids, own_classes, report):
            if known.path is None and pictures_needed:
                _report_missing(os.path.join(image_dir, known.name), known.name, report)
                continue
            truth = _with_paths(truths.get(known.name, _Truth([], [], "")), find, image_dir)
            items.append(_item(known, int(new_ids[labels[known.name]]), truth, sizes, report))
    if not items:
        raise ValueError(f"{folder} has no usable picture.\n{report.summary()}")
    name = f"wsolevaluation {data_dir} {split}"
    read_picture = functools.partial(
        _read_picture, image_size=image_size, report=report, pictures_needed=pictures_needed
    )
    return _source(name, classes, items, read_picture, report)


def _is_usable(known, labels, new_ids, own_classes, report):
    """Whether a picture has a class that is asked for; one that has none is reported."""
    own = labels.get(known.name)
    if own is None:
        report.skip(known.name, "no class in class_labels.txt")
    elif new_ids[own] < 0:
        report.skip(known.name, f"class {own_classes[own]!r} is not in the list")
    return own is not None and new_ids[own] >= 0


def _report_missing(path, image_id, report):
    report.bad_image(image_id, BadImage(path, "there is no such file"))


def _source(name, classes, items, read_picture, report):
    return Source(
        name=name,
        classes=classes,
        image_ids=tuple(item.image_id for item in items),
        labels=tuple(item.annotation.labels for item in items),
        has_boxes=any(len(item.annotation.boxes) for item in items),
        has_masks=any(item.truth.masks for item in items),
        report=report,
        read_image=lambda position: read_picture(items[position])[0],
        read_example=lambda position: _read_example(items[position], read_picture, report),
    )


def _known_pictures(image_ids, find, report, pictures_needed):
    """The pictures and their files. Stored maps go by names alone, each of which counts."""
    if pictures_needed:
        return by_file(list(image_ids), find, report)
    return [Listed(name, find(name), [place]) for place, name in enumerate(image_ids)]


def _with_paths(truth, find, image_dir):
    def path_of(name):
        return name and (find(name) or os.path.join(image_dir, name))

    return truth._replace(masks=[*map(path_of, truth.masks)], ignored=path_of(truth.ignored))


def _item(known, label, truth, sizes, report):
    """A picture with boxes as everywhere here, half-open, and as the list has them."""
    size = sizes.get(known.name)
    if truth.boxes and size is None:
        report.skip(f"{known.name} boxes", "no size in image_sizes.txt, so they are not used")
        truth = truth._replace(boxes=[])
    boxes = np.reshape(truth.boxes, (-1, 4)) + np.array([0, 0, 1, 1])
    annotation = make_annotation([label], boxes, [label] * len(boxes), size)
    return _Item(known.name, known.path, annotation, truth)


# --- pictures and masks --------------------------------------------------------------------------


def _read_picture(
    item: _Item, *, image_size: int, report: Report, pictures_needed: bool
) -> tuple[np.ndarray, tuple[int, int]]:
    """Reads a picture and its size as stored; or a gray one, with the size of the lists."""
    try:
        if item.path is None:
            raise BadImage(item.image_id, "there is no such file")
        note = functools.partial(report.note, item.image_id)
        return images.read_image_and_size(item.path, image_size, note=note)
    except BadImage as error:
        if pictures_needed:
            raise
        report.note(item.image_id, f"gray in place of the picture ({error.reason})")
        return np.full((SIDE, SIDE, 3), GRAY, np.uint8), item.annotation.size or (SIDE, SIDE)


def _read_example(item: _Item, read_picture: Callable, report: Report) -> Example:
    image, size = read_picture(item)
    masks, ignored = _read_masks(item, report)
    example = annotated_example(
        item.image_id,
        image,
        size,
        item.annotation,
        _mask_of_class(masks, ignored, int(item.annotation.labels[0])) if masks else None,
        report,
    )
    return example._replace(
        standard=StandardTruth(
            boxes=np.array(item.truth.boxes, np.int64).reshape(-1, 4),
            size=item.annotation.size,
            masks=masks,
            ignored=ignored,
        )
    )


def _read_masks(item, report):
    """The masks of a picture's objects and what is ignored; none where one can't be read."""
    try:
        masks = [read_mask_file(path, convert=True) > 0 for path in item.truth.masks]
        ignored = item.truth.ignored and read_mask_file(item.truth.ignored, convert=True) > 0
    except Exception as error:  # decoders raise many types on damaged files
        report.skip(f"{item.image_id} masks", f"not used ({getattr(error, 'reason', error)})")
        return (), None
    return tuple(masks), None if isinstance(ignored, str) else ignored


def _mask_of_class(masks, ignored, label):
    """One mask of the class, of the size of the first: 1 + class id, 255 and 0."""
    height, width = masks[0].shape

    def resized(mask):
        size = width, height
        return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0

    found = np.zeros((height, width), np.uint8)
    if ignored is not None:
        found[resized(ignored)] = IGNORE
    for mask in masks:
        found[resized(mask)] = min(1 + label, IGNORE)
    return found


# --- the lists -----------------------------------------------------------------------------------


def _check_folder(data_dir, folder):
    """Refuses a split that is not there."""
    if os.path.isdir(folder):
        return
    found = sorted(
        name
        for name in os.listdir(data_dir)
        if os.path.lexists(os.path.join(data_dir, name, "image_ids.txt"))
    )
    raise ValueError(
        f"There is no folder {folder}. "
        + (
            f"Legal splits here: {first_ten(found)}."
            if found
            else f"{data_dir} must be a metadata folder of wsolevaluation such as metadata/CUB, "
            "with a folder for each split and image_ids.txt in it."
        )
    )


def _read_image_ids(folder: str, report: Report) -> dict[str, None]:
    """The names of image_ids.txt, in its order."""
    path = os.path.join(folder, "image_ids.txt")
    image_ids: dict[str, None] = {}
    for line, image_id in _lines(path):
        if image_id in image_ids:
            report.note(f"image_ids.txt line {line}", f"{image_id} stands above too, used once")
        image_ids[image_id] = None
    if not image_ids:
        raise ValueError(f"{path} names no picture. Write one image id per line.")
    return image_ids


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """The lines of a list that are not empty, with their numbers."""
    for number, line in enumerate(files.read_text(path, MAX_LIST_BYTES).split("\n"), 1):
        if line := line.strip("\n"):
            yield number, line


def _rows(
    folder: str, name: str, values: int, image_ids: Mapping[str, None], report: Report
) -> Iterator[tuple[str, str, list[str]]]:
    """Yields the rows of a list of known pictures: what to call it, its image id and its values.

    Rows of other pictures are counted together, and those with fewer values are skipped.
    """
    foreign = 0
    for number, line in _lines(os.path.join(folder, name)):
        image_id, *rest = line.rsplit(",", values)
        if len(rest) < values:
            report.skip(f"{name} line {number}", f"an image id and {values} values are expected")
        elif image_id not in image_ids:
            foreign += 1
        else:
            yield f"{name} line {number}", image_id, rest
    if foreign:
        rows = files.counted(foreign, "row")
        report.note(name, f"{rows} of pictures that are not in image_ids.txt")


def _read_labels(folder, image_ids, report):
    """Image id -> class id, of class_labels.txt."""
    labels: dict[str, int] = {}
    for line, image_id, (text,) in _rows(folder, "class_labels.txt", 1, image_ids, report):
        label = whole(text)
        if label is None or not 0 <= label < MAX_CLASSES:
            reason = f"a class must be a whole number from 0 to {MAX_CLASSES - 1}"
            report.skip(line, f"{reason}, received {text[:40]!r}")
        elif labels.setdefault(image_id, label) != label:
            report.skip(line, f"{image_id} has a class above, {labels[image_id]}")
    if not labels:
        raise ValueError(
            f"{os.path.join(folder, 'class_labels.txt')} has no class of any picture: "
            f"'image id,class id' in each line is expected.\n{report.summary()}"
        )
    return labels


def _class_names(data_dir, labels):
    """The lines of classes.txt, by class id; without it the ids themselves, from 0 to the last."""
    path = os.path.join(data_dir, "classes.txt")
    count = max(labels.values()) + 1
    if not os.path.lexists(path):
        return tuple(map(str, range(count)))
    names = tuple(line.strip() for _, line in _lines(path) if line.strip())
    if len(names) < count:
        raise ValueError(
            f"{path} has {files.counted(len(names), 'name')}, and class_labels.txt has class ids "
            f"up to {count - 1}. Write one name per line, that of class 0 first."
        )
    return names


def _read_sizes(folder, image_ids, report):
    """Image id -> (height, width), of image_sizes.txt, which masks do without."""
    sizes: dict[str, tuple[int, int]] = {}
    if not os.path.lexists(os.path.join(folder, "image_sizes.txt")):
        return sizes
    for line, image_id, texts in _rows(folder, "image_sizes.txt", 2, image_ids, report):
        width, height = (whole(text) or 0 for text in texts)
        if min(width, height) < 1:
            report.skip(line, "width and height must be whole numbers from 1")
        elif sizes.setdefault(image_id, (height, width)) != (height, width):
            report.skip(line, f"{image_id} has another size above")
    return sizes


def _read_localization(folder, image_ids, report):
    """Image id -> _Truth, of localization.txt: boxes, or masks and what is ignored."""
    truths: dict[str, _Truth] = {}
    path = os.path.join(folder, "localization.txt")
    if not os.path.lexists(path):
        return truths
    values = _values_of_a_row(path)
    for line, image_id, texts in _rows(folder, "localization.txt", values, image_ids, report):
        truth = truths.get(image_id, _Truth([], [], ""))
        if values == 2:
            mask, ignored = texts
            if ignored and truth.ignored not in ("", ignored):
                report.skip(f"{line} ignored", f"{image_id} has another mask to ignore above")
                ignored = ""
            truth = truth._replace(ignored=truth.ignored or ignored)
            truth.masks.extend([mask] if mask else [])
        elif (box := _box(texts)) is None:
            report.skip(line, "a box must be whole numbers 0 <= x0 <= x1 and 0 <= y0 <= y1")
        else:
            truth.boxes.append(box)
        truths[image_id] = truth
    return truths


def _values_of_a_row(path):
    """2 where the first row has two names of files, 4 where it ends in the numbers of a box."""
    first = next((line for _, line in _lines(path)), "")
    last = first.rsplit(",", 1)[-1]
    return 4 if whole(last) is not None else 2


def _box(texts):
    x0, y0, x1, y1 = (whole(text) for text in texts)
    if None in (x0, y0, x1, y1) or not (0 <= x0 <= x1 and 0 <= y0 <= y1):
        return None
    return x0, y0, x1, y1
