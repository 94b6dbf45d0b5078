"""Data sets in folders, one for each class."""

import os
import re

from wsol_tf import files
from wsol_tf.data.annotation import (
    check_classes,
    file_source,
    first_ten,
    make_annotation,
    note_similar_classes,
)
from wsol_tf.data.formats import JUNK_FOLDERS, is_picture, list_pictures
from wsol_tf.data.images import BadImage
from wsol_tf.data.source import Report, Source

# Names of folders that hold a part of a data set, and of those that hold one kind of file.
_TRAIN = re.compile(r"train(ing)?[-_ ]?(set|data|images?)?[-_ ]?\d*")
_OTHER_SPLIT = re.compile(
    r"(val|valid|validation|dev|test|testing|eval|evaluation|holdout|unlabell?ed)"
    r"[-_ ]?(set|data|images?)?[-_ ]?\d*"
)
_CONTAINER = re.compile(
    r"images?|imgs?|pictures|jpegimages|annotations?|labels?|masks?|segmentationclass|data(set)?"
)


def open_image_folder(
    data_dir: str,
    split: str,
    *,
    classes: tuple[str, ...] | None,
    image_size: int,
    report: Report,
) -> Source:
    """Opens pictures in folders named by their class.

    They are data_dir/<split>/<class>/* or, for the split `train` alone, data_dir/<class>/*.

    Args:
        data_dir: the folder.
        split: name of the split.
        classes: class names that fix the ids; by default the folders' names, sorted.
        image_size: side in pixels that views are cut from, see `registry.open_dataset`.
        report: takes what is left out.

    Raises:
        ValueError: there is no such split, or no picture in it.
    """
    folder = _image_folder_of(data_dir, split)
    for name, why_not in _folders(folder):
        if why_not:
            report.skip(f"folder {_text(name)}", why_not)
    listings = {name: list_pictures(os.path.join(folder, name)) for name in _subfolders(folder)}
    with_pictures = [name for name, found in listings.items() if found.pictures]
    names = {name: _text(name) for name in listings}  # folder -> class
    own_classes = tuple(names[name] for name in with_pictures or listings)
    note_similar_classes(own_classes, report)
    classes = check_classes(classes or own_classes, own_classes, folder)
    items = []
    for name, found in listings.items():
        if not found.pictures:
            report.skip(f"folder {names[name]}", "holds no picture")
        elif names[name] not in classes:
            why = f"not a class of the list ({len(found.pictures)} pictures)"
            report.skip(f"folder {names[name]}", why)
        if names[name] in classes:
            annotation = make_annotation([classes.index(names[name])])
            items += [(_id(path), path, annotation) for path in found.pictures]
            _report_others(found, report)
    for file in sorted(os.listdir(folder)):
        if is_picture(file):
            report.skip(_text(file), "a picture outside the class folders has no label")
        elif not os.path.exists(os.path.join(folder, file)):
            report.skip(_text(file), "a link to something that is not there")
    return file_source(f"image_folder {data_dir} {split}", classes, image_size, report, items)


def _report_others(found, report):
    """Reports what a class folder holds besides the pictures that are taken."""
    for path, reason in found.unreadable.items():
        report.bad_image(_id(path), BadImage(path, reason))
    for path in found.folders:
        report.skip(_id(path), "a folder in a class folder")
    for path, reason in found.others.items():
        report.skip(_id(path), reason)


def _id(path):
    """The class folder and the file: what a picture is called."""
    folder, name = os.path.split(path)
    return _text(f"{os.path.basename(folder)}/{name}")


def _text(name):
    """A name as text that can be written: bytes that are no UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _image_folder_of(data_dir, split):
    folder = os.path.join(data_dir, split)
    if _subfolders(folder):
        return folder
    if os.path.isdir(os.path.join(data_dir, "JPEGImages")):
        raise ValueError(f"{data_dir} is in VOC layout. Read it with `dataset=voc_folder`.")
    splits = [
        name for name in _subfolders(data_dir) if _holds_classes(os.path.join(data_dir, name))
    ]
    # A folder of folders beside class folders is something else, unless its name says otherwise.
    if splits and (any(map(_is_split, splits)) or not _with_pictures(data_dir)):
        raise ValueError(
            f"{data_dir} has no split {split!r} with class folders. Legal, because they hold "
            f"folders and no pictures: {', '.join(splits)}."
        )
    if not _subfolders(data_dir):
        raise ValueError(
            f"{data_dir} has no class folders. Put the pictures of each class into "
            f"{os.path.join(data_dir, '<class>')}, or into "
            f"{os.path.join(data_dir, '<split>', '<class>')}."
        )
    _refuse_splits(data_dir)
    if split != "train":
        raise ValueError(
            f"{data_dir} has class folders but no splits, so only split 'train' (all pictures) "
            f"exists. Received: {split!r}. Ask for 'train', or move pictures to "
            f"{os.path.join(data_dir, split, '<class>')} and the rest to "
            f"{os.path.join(data_dir, 'train', '<class>')}."
        )
    return data_dir


def _refuse_splits(data_dir):
    """Refuses folders of pictures that are parts of a data set, and would pass as its classes."""
    names = _with_pictures(data_dir)
    train = [name for name in names if _TRAIN.fullmatch(name.lower())]
    others = [name for name in names if _OTHER_SPLIT.fullmatch(name.lower())]
    containers = [name for name in names if _CONTAINER.fullmatch(name.lower())]
    if not names or not (
        (train and others) or len(train) + len(others) + len(containers) == len(names)
    ):
        return
    seen = sorted({*train, *others, *containers})
    first = min(filter(is_picture, os.listdir(os.path.join(data_dir, seen[0]))))
    example = files.printable(os.path.join(seen[0], first))
    right = os.path.join(data_dir, "train", "cat", "001.jpg")
    raise ValueError(
        f"{data_dir} has no class folders: {first_ten(seen)} would be the classes, but parts of a "
        f"data set are called so, and pictures lie in them ({example}). Put the pictures of each "
        f"class into a folder of its own, such as {right}. Where labels stand in a file or in XML, "
        "use `dataset=csv`, `dataset=coco` or `dataset=voc_folder`."
    )


def _is_split(name):
    return bool(_TRAIN.fullmatch(name.lower()) or _OTHER_SPLIT.fullmatch(name.lower()))


def _with_pictures(folder):
    """Names of the folders in a folder in which pictures lie."""
    return [
        name
        for name in _subfolders(folder)
        if any(map(is_picture, os.listdir(os.path.join(folder, name))))
    ]


def _holds_classes(folder):
    """Whether a folder holds folders and no pictures; class folders may hold both."""
    return bool(_subfolders(folder)) and not any(map(is_picture, os.listdir(folder)))


def _subfolders(folder):
    """Names of the folders in a folder that may be classes or splits."""
    return tuple(name for name, why_not in _folders(folder) if why_not is None)


def _folders(folder):
    """(name, None or why it can be no class) of each folder in a folder; hidden ones left out."""
    if not os.path.isdir(folder):
        return
    real = os.path.join(os.path.realpath(folder), "")
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name[0] == "." or not os.path.isdir(path):
            continue
        if name.lower() in JUNK_FOLDERS:
            yield name, "a system or a program keeps it for itself, no class"
        elif os.path.islink(path) and real.startswith(os.path.join(os.path.realpath(path), "")):
            yield name, "a link to a folder that it lies in"
        elif not os.access(path, os.R_OK | os.X_OK):
            yield name, "the folder can't be read (permission denied)"
        else:
            yield name, None
