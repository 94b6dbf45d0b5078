"""Data sets in the JSON format of COCO."""

import glob
import math
import os
from pathlib import Path
from typing import NamedTuple

from wsol_tf import files
from wsol_tf.data.annotation import (
    check_classes,
    file_source,
    first_ten,
    make_annotation,
    note_similar_classes,
)
from wsol_tf.data.coco_masks import CocoObject, draw_mask, read_outline
from wsol_tf.data.images import BadImage
from wsol_tf.data.listed import by_file
from wsol_tf.data.names import Finder
from wsol_tf.data.source import Report, Source
from wsol_tf.data.values import identifier, kind, number, truth, whole


def open_coco(
    data_dir: str,
    split: str,
    *,
    classes: tuple[str, ...] | None,
    image_size: int,
    report: Report,
) -> Source:
    """Opens COCO JSON with boxes, polygons and run lengths.

    The JSON of a split is annotations/instances_<split>*.json, annotations/<split>.json,
    <split>.json or <split>/_annotations.coco.json; pictures are looked for in the folders
    <split>*, images/<split>*, images, data_dir and that of the JSON. A class that a picture shows
    only as a crowd counts as absent.

    Args:
        data_dir: the folder, or the JSON file itself.
        split: the split that is read.
        classes: class names that fix the ids; by default the categories in use, by their ids.
        image_size: side in pixels that views are cut from, see `registry.open_dataset`.
        report: takes what is left out.

    Raises:
        ValueError: there is no such split, the file is not in COCO format, or nothing can be used.
    """
    file = _coco_file(data_dir, split)
    data = _coco_json(file)
    pictures = _pictures(file, data["images"], report)
    annotations = _annotations(data["annotations"], report)
    categories = _used_categories(file, data["categories"], annotations, report)
    own_classes = tuple(dict.fromkeys(categories.values()))
    note_similar_classes(own_classes, report)
    classes = check_classes(classes or own_classes, own_classes, file)
    objects = _objects_by_picture(pictures, annotations, categories, classes, report)
    finder = Finder(_picture_folders(data_dir, split, file))
    listed = by_file([picture.name for picture in pictures], finder.find, report)
    _refuse_shared_ids(file, pictures, listed)
    items, outlined = _items(pictures, objects, listed, report)

    def read_mask(position, size):
        name, drawn = items[position][0], outlined[position]
        if not drawn:
            return None
        return draw_mask(drawn, size, lambda *why: _skip_mask(name, drawn, report, *why))

    return file_source(
        f"coco {file}",
        classes,
        image_size,
        report,
        items,
        read_mask=read_mask if any(outlined) else None,
    )


class _Picture(NamedTuple):
    """An entry of `images`; size is height and width, or None."""

    image_id: int | str
    name: str
    size: tuple[int, int] | None


# --- reading -------------------------------------------------------------------------------------


def _coco_json(file):
    data = files.read_json(file)
    missing = [
        key
        for key in ("images", "annotations", "categories")
        if not isinstance(data, dict) or not isinstance(data.get(key), list)
    ]
    if missing:
        raise ValueError(
            f"{file} is not in COCO format: the lists {', '.join(missing)} are missing. COCO's "
            "'instances' files have images, annotations and categories."
        )
    return data


def _pictures(file, entries, report):
    """The entries of `images` that can be used."""
    pictures = []
    for place, entry in enumerate(entries, 1):
        image_id = identifier(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if image_id is None or not isinstance(name, str) or not name.strip():
            report.skip(f"images, entry {place}", "it has no id or no file_name")
            continue
        sides = entry.get("height"), entry.get("width")
        size = whole(sides[0]), whole(sides[1])
        if None in size or min(size) < 1:
            if sides != (None, None):
                report.note(f"{name} size", "its height and width are no numbers from 1, not used")
            size = None
        pictures.append(_Picture(image_id, name, size))
    if entries and not pictures:
        raise ValueError(f"{file} is not in COCO format: each entry of images needs id, file_name.")
    return pictures


def _annotations(entries, report):
    """Name for messages -> entry of `annotations`."""
    annotations = {}
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            report.skip(f"annotations, entry {place + 1}", f"it is {kind(entry)}, not an object")
            continue
        own = identifier(entry.get("id"))
        name = f"annotation {place if own is None else own}"
        if name in annotations:
            report.note(name, "several annotations have this id")
            name += f" (entry {place + 1})"
        annotations[name] = entry
    return annotations


def _used_categories(file, entries, annotations, report):
    """Category id -> name of those that an annotation uses, by their ids."""
    used = {identifier(entry.get("category_id")) for entry in annotations.values()}
    found = {}  # id -> (name, supercategory, the id as it is written)
    for place, entry in enumerate(entries, 1):
        category = identifier(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        if category is None or isinstance(name, (bool, list, dict)) or name in (None, ""):
            raise ValueError(
                f"{file} is not in COCO format: each entry of categories needs id, name. Entry "
                f"{place} has not both."
            )
        name = str(name).encode(errors="backslashreplace").decode()  # JSON can have halves of pairs
        above = str(entry.get("supercategory") or "")
        if category not in used:
            report.note(f"category {name}", "no annotation uses it, left out")
        elif found.setdefault(category, (name, above, entry["id"]))[0] != name:
            raise ValueError(
                f"{file}: the categories {found[category][0]!r} and {name!r} have one id, "
                f"{category!r}, so nobody knows which an annotation means. Give each an id of its "
                "own, also in the annotations."
            )
    if not found:
        raise ValueError(f"{file} has no annotation of a category, so there is nothing to learn.")
    _check_names(file, found, report)
    return {category: found[category][0] for category in _in_order(file, found)}


def _check_names(file, found, report):
    """Notes categories of one name, which are one class; refuses those of different parents."""
    first = {}
    for category, (name, above, _) in found.items():
        other = first.setdefault(name, category)
        if other == category:
            continue
        if found[other][1] != above:
            raise ValueError(
                f"{file}: the categories {other!r} and {category!r} are both called {name!r}, with "
                f"the supercategories {found[other][1]!r} and {above!r}. Give each a name of its "
                "own."
            )
        report.note(f"categories {other!r}, {category!r}", f"both are called {name!r}: one class")


def _in_order(file, found):
    """Category ids in the order of the class ids: as numbers, or as text where all are text."""
    if all(isinstance(category, int) for category in found):
        return sorted(found)
    written = [entry_id for _, _, entry_id in found.values()]
    if all(isinstance(entry_id, str) for entry_id in written):
        return sorted(found, key=str)
    numbers = [value for value in found if isinstance(value, int)]
    texts = [value for value in found if isinstance(value, str)]
    raise ValueError(
        f"{file}: some ids of categories are numbers ({numbers[0]!r}), others text ({texts[0]!r}), "
        "so they have no order that could fix the ids of the classes. Use one of the two."
    )


def _objects_by_picture(pictures, annotations, categories, classes, report):
    """Picture id -> its objects of classes in the list."""
    ids = {key: classes.index(name) for key, name in categories.items() if name in classes}
    objects = {picture.image_id: [] for picture in pictures}
    for name, entry in annotations.items():
        image_id, category = identifier(entry.get("image_id")), identifier(entry.get("category_id"))
        crowd = truth(entry.get("iscrowd"))
        if image_id not in objects:
            report.skip(name, "its picture is not in the file")
        elif category not in ids:
            known = f"class {categories.get(category, category)!r}"
            what = "its category_id is none" if category is None else f"{known} is not in the list"
            report.skip(name, what)
        elif crowd is None:
            report.skip(name, "its iscrowd is neither 0 nor 1")
        else:
            box = _coco_box(entry.get("bbox"))
            if box is None:
                report.skip(name, "no readable box, only the label is used")
            outline, broken = _outline(name, entry, report)
            found = CocoObject(ids[category], box, crowd, outline, broken, name)
            objects[image_id].append(found)
    return objects


def _outline(name, entry, report):
    """The outline of an annotation, or None and why it can't be read."""
    try:
        outline, repair = read_outline(entry.get("segmentation"))
    except ValueError as error:
        return None, str(error)
    if repair:
        report.note(f"{name} segmentation", repair)
    return outline, ""


def _coco_box(box):
    """x, y, width, height -> edges."""
    values = [number(value) for value in box] if isinstance(box, list) else []
    if len(values) != 4 or None in values or values[2] <= 0 or values[3] <= 0:
        return None
    x, y, width, height = values
    edges = x, y, x + width, y + height
    return edges if all(map(math.isfinite, edges)) else None


# --- pictures ------------------------------------------------------------------------------------


def _refuse_shared_ids(file, pictures, listed):
    """Raises ValueError where an id stands on several pictures: any of them may be meant."""
    places = {i: found for found, known in enumerate(listed) for i in known.positions}
    owners = {}
    for i, picture in enumerate(pictures):
        owners.setdefault(picture.image_id, {}).setdefault(places.get(i, -1 - i), picture.name)
    shared = [
        f"{image_id!r} on {first_ten(list(names.values()))}"
        for image_id, names in owners.items()
        if len(names) > 1
    ]
    if shared:
        raise ValueError(
            f"{file}: one image id stands on several pictures, so nobody knows which of them an "
            f"annotation means: {'; '.join(shared[:5])}"
            f"{f'; and {len(shared) - 5} more ids' if len(shared) > 5 else ''}. Such files come of "
            "joining two without giving new ids: join them again with ids of their own for "
            "pictures and categories, or keep them as two splits."
        )


def _items(pictures, objects, listed, report):
    """(name, path, Annotation) of the pictures that can be used, and their objects with outline."""
    items, outlined = [], []
    for known in listed:
        entries = [pictures[i] for i in known.positions]
        names = first_ten(list(dict.fromkeys(entry.name for entry in entries)))
        sizes = {entry.size for entry in entries if entry.size}
        own = dict.fromkeys(entry.image_id for entry in entries)
        found = _once([thing for image_id in own for thing in objects[image_id]], report)
        if all(thing.crowd for thing in found):
            report.skip(names, "no object of a class in the list that is not a crowd")
        elif len(sizes) > 1:
            report.skip(names, "listed more than once, with different sizes: which is meant?")
        elif known.path is None:
            report.bad_image(names, BadImage(names, "there is no such file"))
        else:
            if len(entries) > 1:
                report.note(names, "listed more than once: one picture with all its annotations")
            items.append((known.name, known.path, _annotation(found, sizes)))
            outlined.append([thing for thing in found if thing.outline or thing.broken])
            for thing in outlined[-1]:
                if thing.broken:
                    _skip_mask(known.name, outlined[-1], report, thing, thing.broken)
    return items, outlined


def _once(objects, report):
    """The objects of a picture, each once, also where two annotations describe it."""
    different = {}
    for known in objects:
        if isinstance(known.outline, dict):
            shape = (str(known.outline["size"]), str(known.outline["counts"]))
        else:
            shape = tuple(points.tobytes() for points in known.outline or ())
        key = known.label, known.box, known.crowd, known.broken, shape
        if different.setdefault(key, known) is not known:
            report.note(known.name, "another annotation says the same, used once")
    return list(different.values())


def _annotation(objects, sizes):
    """The labels and boxes of a picture's objects that are not crowds."""
    whole_ones = [known for known in objects if not known.crowd]
    boxed = [known for known in whole_ones if known.box is not None]
    return make_annotation(
        [known.label for known in whole_ones],
        [known.box for known in boxed],
        [known.label for known in boxed],
        next(iter(sizes), None),
    )


def _skip_mask(picture, outlined, report, known, reason):
    name = f"{picture} mask" if len(outlined) == 1 else f"{picture} mask of {known.name}"
    report.skip(name, f"mask not used ({reason})")


# --- files ---------------------------------------------------------------------------------------


def _coco_file(data_dir, split):
    if os.path.isfile(data_dir):
        return data_dir
    folder = glob.escape(str(data_dir))
    patterns = (
        f"annotations/instances_{split}.json",
        f"annotations/instances_{split}[0-9]*.json",
        f"annotations/{split}.json",
        f"{split}.json",
        f"{split}/_annotations.coco.json",
    )
    for pattern in patterns:
        found = sorted(glob.glob(os.path.join(folder, *pattern.split("/"))))
        if found:
            return found[0]
    raise ValueError(
        f"No COCO JSON of split {split!r} in {data_dir}. Looked for: {', '.join(patterns)}. "
        "`data_dir` may name the JSON file itself."
    )


def _picture_folders(data_dir, split, file):
    beside = os.path.dirname(os.path.abspath(file))
    root = beside if os.path.isfile(data_dir) else str(data_dir)
    if os.path.basename(root) == "annotations":
        root = os.path.dirname(root)
    names = dict.fromkeys((Path(file).stem.removeprefix("instances_"), split))
    folders = [os.path.join(root, *parent, name) for name in names for parent in ([], ["images"])]
    return [*folders, os.path.join(root, "images"), root, beside]
