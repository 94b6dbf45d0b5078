"""Data sets in folders in VOC layout."""

import os

from wsol_tf import files
from wsol_tf.data.annotation import (
    check_classes,
    file_source,
    first_ten,
    mask_values,
    new_class_ids,
    note_similar_classes,
    read_mask_file,
)
from wsol_tf.data.formats import HEIC_SUFFIXES, is_picture
from wsol_tf.data.images import BadImage
from wsol_tf.data.names import Finder
from wsol_tf.data.source import Report, Source
from wsol_tf.data.voc_xml import BadAnnotation, BadEncoding, read_annotation, read_xml

MAX_LIST_BYTES = 256 * files.MEBI


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
    find = _Finders(data_dir)
    pictures = _read_split_file(data_dir, split, find, report)
    own_classes = _voc_classes(data_dir, report)
    classes = check_classes(classes or own_classes, own_classes, data_dir)
    items = _voc_items(pictures, find, classes, report)
    masks = [find.masks.find_stem(_stem(image_id)) for image_id, _, _ in items]
    values = mask_values(new_class_ids(own_classes, classes))

    def read_mask(position, size):
        if masks[position] is None:
            return None
        try:
            return values[read_mask_file(masks[position], size)]
        except Exception as error:  # decoders raise many types on damaged files
            reason = getattr(error, "reason", error)
            report.skip(f"{items[position][0]} mask", f"mask not used ({reason})")
            return None

    return file_source(
        f"voc_folder {data_dir} {split}",
        classes,
        image_size,
        report,
        items,
        read_mask=read_mask if any(masks) else None,
    )


class _Finders:
    """Finds the files of an image id, which may have folders, spaces and a suffix."""

    def __init__(self, data_dir):
        self.folder = os.path.join(data_dir, "JPEGImages")
        self._pictures = Finder([self.folder], is_picture)
        self._heic = Finder([self.folder], lambda name: name.lower().endswith(HEIC_SUFFIXES))
        self.annotations = Finder([os.path.join(data_dir, "Annotations")], _is_xml)
        self.masks = Finder(
            [os.path.join(data_dir, "SegmentationClass")],
            lambda name: name.lower().endswith(".png"),
        )

    def picture(self, image_id):
        """The path of a picture, or None. One that can't be read is better than none."""
        pictures = self._pictures
        return (
            pictures.find_stem(image_id)
            or pictures.find(image_id)
            or self._heic.find_stem(image_id)
        )


def _is_xml(name):
    return name.lower().endswith(".xml")


def _stem(image_id):
    """An image id without the suffix of a picture, which some lists have."""
    suffixed = is_picture(image_id) or image_id.lower().endswith(HEIC_SUFFIXES)
    return os.path.splitext(image_id)[0] if suffixed else image_id


def _voc_items(pictures, find, classes, report):
    """(image id, path, Annotation) of the pictures that can be used."""
    items = []
    for image_id, picture in pictures.items():
        if picture is None:
            path = os.path.join(find.folder, f"{image_id}.*")
            report.bad_image(image_id, BadImage(path, "no picture in JPEGImages"))
            continue
        path = find.annotations.find_stem(_stem(image_id))
        try:
            if path is None:
                raise BadAnnotation("no XML in Annotations")
            annotation = read_annotation(path, image_id, classes, report)
        except BadAnnotation as error:
            report.skip(image_id, str(error))
            continue
        items.append((image_id, picture, annotation))
    return items


def _read_split_file(data_dir, split, find, report):
    """Image id -> path of its picture, or None, of what a split file names."""
    folder = os.path.join(data_dir, "ImageSets", "Main")
    path = os.path.join(folder, f"{split}.txt")
    if not os.path.lexists(path):
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        found = [os.path.splitext(name)[0] for name in names if name.lower().endswith(".txt")]
        raise ValueError(
            f"There is no split file {path}. "
            + (
                f"Legal splits here: {first_ten(found)}."
                if found
                else "Write one image id (a file name in JPEGImages without suffix) per line."
            )
        )
    lines = [line.strip() for line in files.read_text(path, MAX_LIST_BYTES).split("\n")]
    ids = [line for line in lines if line]
    if not ids:
        raise ValueError(
            f"Split {split!r} is empty: {path} names no picture. Use another split, or write one "
            "image id per line."
        )
    pictures, id_of = {}, {}  # id -> path, path -> id
    for image_id in ids:
        if image_id in pictures:
            report.note(image_id, "named more than once in the split file, used once")
            continue
        picture = find.picture(image_id)
        if picture is None:
            _refuse_columns(path, image_id, find)
        elif id_of.setdefault(picture, image_id) != image_id:
            report.skip(image_id, f"the same picture as {id_of[picture]}")
            continue
        pictures[image_id] = picture
    return pictures


def _refuse_columns(path, line, find):
    """Refuses a list with more than ids in it: a line that is no id, but begins with one."""
    columns = line.split()
    is_label = len(columns) == 2 and columns[1] in ("-1", "0", "1", "+1")
    if is_label or (len(columns) > 1 and find.picture(columns[0])):
        raise ValueError(
            f"{path} has several columns ({files.printable(line)!r}); one image id per line is "
            "read. Split files of one class ('cat_train') cannot be used."
        )


def _voc_classes(data_dir, report):
    path = os.path.join(data_dir, "classes.txt")
    if os.path.lexists(path):
        lines = files.read_text(path, MAX_LIST_BYTES).split("\n")
        names = tuple(line.strip() for line in lines if line.strip())
        if not names:
            raise ValueError(f"{path} is empty: write one class name per line, or remove it.")
    else:
        names = _names_in_annotations(data_dir)
    note_similar_classes(names, report)
    return names


def _names_in_annotations(data_dir):
    """All names of objects, sorted."""
    top = os.path.join(data_dir, "Annotations")
    paths = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(top)
        for name in sorted(names)
        if _is_xml(name) and not name.startswith(".")
    ]
    found, foreign, errors, encodings = set(), 0, [], []
    for path in paths:
        try:
            names = {item.findtext("name", "").strip() for item in read_xml(path).findall("object")}
        except BadAnnotation as error:  # reported when the split that contains it is read
            errors.append(f"{files.printable(path)}: {error}.")
            encodings += errors[-1:] if isinstance(error, BadEncoding) else []
            continue
        found |= names
        foreign += not "".join(names).isascii()
    found.discard("")
    if encodings and len(encodings) >= foreign > 0:
        strange = first_ten(sorted(repr(name) for name in found if not name.isascii()))
        raise ValueError(
            f"The names of the classes in {data_dir} can't be trusted: {len(encodings)} of "
            f"{len(paths)} XML files in Annotations are not in the encoding that they should be "
            f"in, and others are so only by chance, as it seems ({strange}). {encodings[0]}"
        )
    if found:
        return tuple(sorted(found))
    if errors:
        raise ValueError(
            f"No class is known: {data_dir} has no classes.txt, and {len(errors)} of {len(paths)} "
            f"XML files in Annotations can't be read. {errors[0]}"
        )
    raise ValueError(
        f"{data_dir} has no classes.txt and no Annotations/*.xml with objects. Is it a folder "
        "in VOC layout (JPEGImages, Annotations, ImageSets/Main)?"
    )
