"""Data sets in folders: VOC layout, and one folder per class."""

import os
from collections import Counter
from xml.etree import ElementTree

import numpy as np

from wsol_tf.data.annotation import (
    Annotation,
    check_classes,
    file_source,
    make_annotation,
    mask_values,
    new_class_ids,
    read_mask_file,
)
from wsol_tf.data.images import SUFFIXES, BadImage, is_picture
from wsol_tf.data.source import Report, Source


def open_voc_folder(
    data_dir: str,
    split: str,
    *,
    classes: tuple[str, ...] | None,
    image_size: int,
    report: Report,
) -> Source:
    """Opens a split of a folder in VOC layout.

    It has JPEGImages, Annotations, ImageSets/Main and optionally SegmentationClass and
    classes.txt.

    Args:
        data_dir: the folder.
        split: name of the file in ImageSets/Main.
        classes: class names that fix the ids; by default the folder's own.
        image_size: side in pixels that views are cut from, see `registry.open_dataset`.
        report: takes what is left out.

    Raises:
        ValueError: there is no such split, or nothing in it can be used.
    """
    ids = _read_split_file(data_dir, split, report)
    own_classes = _voc_classes(data_dir)
    classes = check_classes(classes or own_classes, own_classes, data_dir)
    items = _voc_items(data_dir, ids, classes, report)
    masks = _files_by_stem(os.path.join(data_dir, "SegmentationClass"), (".png",))
    values = mask_values(new_class_ids(own_classes, classes))

    def read_mask(position, size):
        image_id = items[position][0]
        if image_id not in masks:
            return None
        try:
            return values[read_mask_file(masks[image_id], size)]
        except Exception as error:  # decoders raise many types on damaged files
            report.skip(f"{image_id} mask", f"mask not used ({error})")
            return None

    return file_source(
        f"voc_folder {data_dir} {split}",
        classes,
        image_size,
        report,
        items,
        read_mask=read_mask if any(item[0] in masks for item in items) else None,
    )


def _voc_items(data_dir, ids, classes, report):
    """(image id, path, Annotation) of the pictures that can be used."""
    folder = os.path.join(data_dir, "JPEGImages")
    pictures = _files_by_stem(folder, SUFFIXES)
    items = []
    for image_id in ids:
        if image_id not in pictures:
            path = os.path.join(folder, f"{image_id}.*")
            hint = " (ids have no suffix)" if is_picture(image_id) else ""
            report.bad_image(image_id, BadImage(path, f"no picture in JPEGImages{hint}"))
            continue
        try:
            path = os.path.join(data_dir, "Annotations", f"{image_id}.xml")
            annotation = read_annotation(path, image_id, classes, report)
        except BadAnnotation as error:
            report.skip(image_id, str(error))
            continue
        items.append((image_id, pictures[image_id], annotation))
    return items


def _read_split_file(data_dir, split, report):
    folder = os.path.join(data_dir, "ImageSets", "Main")
    path = os.path.join(folder, f"{split}.txt")
    if not os.path.isfile(path):
        found = sorted(_files_by_stem(folder, (".txt",)))
        raise ValueError(
            f"There is no split file {path}. "
            + (
                f"Legal splits here: {', '.join(found)}."
                if found
                else "Write one image id (a file name in JPEGImages without suffix) per line."
            )
        )
    with open(path, encoding="utf-8-sig") as file:
        lines = [line.split() for line in file if line.strip()]
    if not lines:
        raise ValueError(
            f"Split {split!r} is empty: {path} names no picture. Use another split, or write one "
            "image id per line."
        )
    wide = next((line for line in lines if len(line) > 1), None)
    if wide:
        raise ValueError(
            f"{path} has several columns ({' '.join(wide)!r}); one image id per line is read, "
            "without spaces. Split files of one class ('cat_train') cannot be used."
        )
    ids = [line[0] for line in lines]
    for image_id, count in Counter(ids).items():
        if count > 1:
            report.note(image_id, "named more than once in the split file, used once")
    return list(dict.fromkeys(ids))


def _voc_classes(data_dir):
    path = os.path.join(data_dir, "classes.txt")
    if os.path.isfile(path):
        with open(path, encoding="utf-8-sig") as file:
            names = tuple(line.strip() for line in file if line.strip())
        if not names:
            raise ValueError(f"{path} is empty: write one class name per line, or remove it.")
        return names
    names = set()
    for file in _files_by_stem(os.path.join(data_dir, "Annotations"), (".xml",)).values():
        try:
            root = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, ValueError, LookupError):
            continue  # reported by name when the split that contains it is read
        names |= {item.findtext("name", "").strip() for item in root.findall("object")}
    names.discard("")
    if not names:
        raise ValueError(
            f"{data_dir} has no classes.txt and no Annotations/*.xml with objects. Is it a folder "
            "in VOC layout (JPEGImages, Annotations, ImageSets/Main)?"
        )
    return tuple(sorted(names))


def _files_by_stem(folder, suffixes):
    if not os.path.isdir(folder):
        return {}
    stems = {}
    for name in sorted(os.listdir(folder)):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in suffixes:
            stems.setdefault(stem, os.path.join(folder, name))
    return stems


class BadAnnotation(ValueError):
    """The labels of a picture cannot be read; the text gives the reason without the file."""


def read_annotation(
    path: str | os.PathLike, image_id: str, classes: tuple[str, ...], report: Report
) -> Annotation:
    """Reads one XML file; a class that has only "difficult" objects counts as absent.

    Args:
        path: the XML file.
        image_id: name of the picture, for the report.
        classes: class names; the position is the class id.
        report: takes the objects that are left out.

    Raises:
        BadAnnotation: no file, broken, or no usable object of a class in the list.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise BadAnnotation("no XML in Annotations") from None
    except OSError as error:
        raise BadAnnotation(f"the XML can't be read ({error.strerror})") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadAnnotation(f"the XML is broken ({error})") from None
    ids = {name: i for i, name in enumerate(classes)}
    boxes, box_labels, easy = [], [], set()
    for number, item in enumerate(root.findall("object"), start=1):
        name = item.findtext("name", "").strip()
        if name not in ids:
            report.skip(f"{image_id} object {number}", f"class {name!r} is not in the list")
            continue
        if item.findtext("difficult", "0").strip() != "1":
            easy.add(ids[name])
        box = _read_box(item.find("bndbox"))
        if box is None:
            report.skip(f"{image_id} box {number}", "no readable box, only the label is used")
            continue
        boxes.append(box)
        box_labels.append(ids[name])
    if not easy:
        raise BadAnnotation("no object of a class in the list that is not marked difficult")
    used = [i for i, label in enumerate(box_labels) if label in easy]
    return make_annotation(
        easy,
        [boxes[i] for i in used],
        [box_labels[i] for i in used],
        _read_size(root.find("size")),
    )


def _read_box(element):
    """Edges of a box: VOC counts pixels from 1 and includes the last one."""
    if element is None:
        return None
    try:
        x0, y0, x1, y1 = (
            float(element.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError:
        return None
    if not np.isfinite([x0, y0, x1, y1]).all() or x1 < x0 or y1 < y0:
        return None
    return x0 - 1, y0 - 1, x1, y1


def _read_size(element):
    if element is None:
        return None
    try:
        height, width = (int(element.findtext(key, "")) for key in ("height", "width"))
    except ValueError:
        return None
    return (height, width) if height > 0 and width > 0 else None


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
    files = {
        name: sorted(n for n in os.listdir(os.path.join(folder, name)) if n[0] != ".")
        for name in _subfolders(folder)
    }
    pictures = {name: [n for n in names if is_picture(n)] for name, names in files.items()}
    own_classes = tuple(name for name in files if pictures[name]) or tuple(files)
    classes = check_classes(classes or own_classes, own_classes, folder)
    annotations = {name: make_annotation([i]) for i, name in enumerate(classes)}
    items = []
    for name, found in pictures.items():
        if not found:
            report.skip(f"folder {name}", "holds no picture")
        elif name not in classes:
            report.skip(f"folder {name}", f"not a class of the list ({len(found)} pictures)")
        if name not in classes:
            continue
        for other in sorted(set(files[name]) - set(found)):
            is_folder = os.path.isdir(os.path.join(folder, name, other))
            report.skip(
                f"{name}/{other}",
                "a folder in a class folder" if is_folder else "not a picture by its suffix",
            )
        items += [(f"{name}/{n}", os.path.join(folder, name, n), annotations[name]) for n in found]
    for file in sorted(os.listdir(folder)):
        if is_picture(file):
            report.skip(file, "a picture outside the class folders has no label")
    return file_source(f"image_folder {data_dir} {split}", classes, image_size, report, items)


def _image_folder_of(data_dir, split):
    folder = os.path.join(data_dir, split)
    if _subfolders(folder):
        return folder
    if os.path.isdir(os.path.join(data_dir, "JPEGImages")):
        raise ValueError(f"{data_dir} is in VOC layout. Read it with `dataset=voc_folder`.")
    splits = [
        name for name in _subfolders(data_dir) if _holds_classes(os.path.join(data_dir, name))
    ]
    if splits:
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
    if split != "train":
        raise ValueError(
            f"{data_dir} has class folders but no splits, so only split 'train' (all pictures) "
            f"exists. Received: {split!r}. Move pictures to "
            f"{os.path.join(data_dir, split, '<class>')} and the rest to "
            f"{os.path.join(data_dir, 'train', '<class>')}."
        )
    return data_dir


def _holds_classes(folder):
    """Whether a folder holds folders and no pictures; class folders may hold both."""
    return bool(_subfolders(folder)) and not any(map(is_picture, os.listdir(folder)))


def _subfolders(folder):
    if not os.path.isdir(folder):
        return ()
    names = sorted(name for name in os.listdir(folder) if name[0] != ".")
    return tuple(name for name in names if os.path.isdir(os.path.join(folder, name)))
