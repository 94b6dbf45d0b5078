"""Data sets in the JSON format of COCO."""

import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from wsol_tf.data.annotation import check_classes, file_source, make_annotation
from wsol_tf.data.example import IGNORE
from wsol_tf.data.images import BadImage
from wsol_tf.data.source import Report, Source


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
    categories = _used_categories(file, data, report)
    own_classes = tuple(categories.values())
    classes = check_classes(classes or own_classes, own_classes, file)
    objects = _objects_by_picture(data, categories, classes, report)
    find = _coco_finder(data_dir, split, file)
    items, outlines = _items(data, objects, find, report)

    def read_mask(position, size):
        if not outlines[position]:
            return None
        try:
            return draw_mask(outlines[position], size)
        except (ValueError, TypeError, cv2.error) as error:
            report.skip(f"{items[position][0]} mask", f"mask not used ({error})")
            return None

    return file_source(
        f"coco {file}",
        classes,
        image_size,
        report,
        items,
        read_mask=read_mask if any(outlines) else None,
    )


class CocoObject(NamedTuple):
    """An object of a picture.

    Attributes:
        label: its class id.
        box: edges x0, y0, x1, y1 in pixels, or None.
        crowd: whether it stands for many objects.
        outline: polygons, a list of float32 [points, 2]; run lengths as COCO has them; or None.
    """

    label: int
    box: tuple[float, float, float, float] | None
    crowd: bool
    outline: list[np.ndarray] | dict | None


def _used_categories(file, data, report):
    """Category id -> name of those that an annotation uses, by their ids."""
    used = {entry.get("category_id") for entry in data["annotations"]}
    categories = {}
    for entry in sorted(data["categories"], key=lambda entry: entry["id"]):
        if entry["id"] in used:
            categories[entry["id"]] = str(entry["name"])
        else:
            report.note(f"category {entry['name']}", "no annotation uses it, left out")
    if not categories:
        raise ValueError(f"{file} has no annotation of a category, so there is nothing to learn.")
    return categories


def _objects_by_picture(data, categories, classes, report):
    """Picture id -> its objects of classes in the list."""
    ids = {key: classes.index(name) for key, name in categories.items() if name in classes}
    objects = {entry["id"]: [] for entry in data["images"]}
    for number, entry in enumerate(data["annotations"]):
        name = f"annotation {entry.get('id', number)}"
        if entry.get("image_id") not in objects:
            report.skip(name, "its picture is not in the file")
        elif entry.get("category_id") not in ids:
            known = categories.get(entry.get("category_id"), entry.get("category_id"))
            report.skip(name, f"class {known!r} is not in the list")
        else:
            box = _coco_box(entry.get("bbox"))
            if box is None:
                report.skip(name, "no readable box, only the label is used")
            outline = _coco_outline(entry.get("segmentation"))
            found = CocoObject(ids[entry["category_id"]], box, bool(entry.get("iscrowd")), outline)
            objects[entry["image_id"]].append(found)
    return objects


def _items(data, objects, find, report):
    """(name, path, Annotation) of the pictures that can be used, and their objects with outline."""
    items, outlines = [], []
    for entry in {entry["id"]: entry for entry in data["images"]}.values():
        name, found = str(entry["file_name"]), objects[entry["id"]]
        path = find(name)
        if all(known.crowd for known in found):
            report.skip(name, "no object of a class in the list that is not a crowd")
        elif path is None:
            report.bad_image(name, BadImage(name, "there is no such file"))
        else:
            items.append((name, path, _annotation(entry, found)))
            outlines.append([known for known in found if known.outline])
    return items, outlines


def _annotation(entry, objects):
    """The labels and boxes of a picture's objects that are not crowds."""
    whole = [known for known in objects if not known.crowd]
    boxed = [known for known in whole if known.box is not None]
    size = entry.get("height"), entry.get("width")
    return make_annotation(
        [known.label for known in whole],
        [known.box for known in boxed],
        [known.label for known in boxed],
        size if all(isinstance(side, int) and side > 0 for side in size) else None,
    )


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


def _coco_json(file):
    try:
        with open(file, encoding="utf-8-sig") as stream:
            data = json.load(stream)
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}.") from None
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
    for key, needed in (("images", ("id", "file_name")), ("categories", ("id", "name"))):
        if not all(isinstance(entry, dict) and entry.keys() >= set(needed) for entry in data[key]):
            raise ValueError(
                f"{file} is not in COCO format: each entry of {key} needs {', '.join(needed)}."
            )
    return data


def _coco_box(box):
    """x, y, width, height -> edges."""
    try:
        x, y, width, height = (float(value) for value in box)
    except (TypeError, ValueError):
        return None
    if not np.isfinite([x, y, width, height]).all() or width <= 0 or height <= 0:
        return None
    return x, y, x + width, y + height


def _coco_outline(segmentation):
    """Polygons as a list of float32 [points, 2]; run lengths as they are; nothing as None."""
    if isinstance(segmentation, dict):
        return segmentation
    try:
        polygons = [np.array(points, np.float32).reshape(-1, 2) for points in segmentation or ()]
    except (TypeError, ValueError):
        return None
    return [points for points in polygons if len(points) >= 3] or None


def _coco_finder(data_dir, split, file):
    """Returns file name -> path or None; the folder that had the last picture is tried first."""
    beside = os.path.dirname(file)
    root = beside if os.path.isfile(data_dir) else str(data_dir)
    if os.path.basename(root) == "annotations":
        root = os.path.dirname(root)
    names = dict.fromkeys((Path(file).stem.removeprefix("instances_"), split))
    folders = [os.path.join(root, *parent, name) for name in names for parent in ([], ["images"])]
    folders += [os.path.join(root, "images"), root, beside]

    def find(name):
        for folder in folders:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                folders.remove(folder)
                folders.insert(0, folder)
                return path
        return None

    return find


def draw_mask(objects: Sequence[CocoObject], size: tuple[int, int]) -> np.ndarray:
    """Paints the outlines of a picture's objects: larger ones first, crowds as ignored pixels.

    Args:
        objects: all with an outline.
        size: height and width in pixels.

    Returns:
        uint8 [height, width], 0 background, 1 + class id, 255 ignored.

    Raises:
        ValueError: run lengths do not cover the picture.
    """
    layers = []
    for known in objects:
        if isinstance(known.outline, dict):
            inside = decode_runs(known.outline, size)
        else:
            inside = fill_polygons(known.outline or (), size)
        value = IGNORE if known.crowd or known.label + 1 >= IGNORE else known.label + 1
        layers.append((value == IGNORE, int(inside.sum()), value, inside))
    mask = np.zeros(size, np.uint8)
    for _, _, value, inside in sorted(layers, key=lambda layer: (not layer[0], -layer[1])):
        mask[inside] = value
    return mask


def fill_polygons(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Returns the pixels that some polygon covers by half or more.

    Polygons are drawn 8 times as large and reduced, because OpenCV fills every pixel that an edge
    touches.

    Args:
        polygons: float32 [points, 2] each, x and y in pixels.
        size: height and width.

    Returns:
        bool [height, width].
    """
    inside = np.zeros(size, bool)
    for points in polygons:
        low = np.clip(np.floor(points.min(axis=0)), 0, size[::-1]).astype(int)
        high = np.clip(np.ceil(points.max(axis=0)), 0, size[::-1]).astype(int)
        if (low == high).any():
            continue
        width, height = high - low
        large = np.zeros((8 * height, 8 * width), np.uint8)
        fixed = np.rint(((points - low) * 8 - 0.5) * 256).astype(np.int32)
        cv2.fillPoly(large, [fixed], 255, cv2.LINE_8, 8)
        cover = cv2.resize(large, (int(width), int(height)), interpolation=cv2.INTER_AREA)
        inside[low[1] : high[1], low[0] : high[0]] |= cover >= 128
    return inside


def decode_runs(segmentation: dict, size: tuple[int, int]) -> np.ndarray:
    """Decodes COCO's run lengths, which go down the columns and start with background.

    Args:
        segmentation: `counts`, a list or a compressed string, and `size`, height and width.
        size: height and width of the picture.

    Returns:
        bool [height, width].

    Raises:
        ValueError: the runs do not cover the picture.
    """
    counts: Any = segmentation.get("counts")
    if isinstance(counts, str):
        counts = unpack_counts(counts)
    height, width = segmentation.get("size", (0, 0))
    values = np.arange(len(counts)) % 2 == 1
    flat = np.repeat(values, np.array(counts, np.int64))
    if (height, width) != tuple(size) or flat.size != height * width:
        raise ValueError(
            f"the runs are for {width} x {height} pixels and cover {flat.size}, the picture has "
            f"{size[1]} x {size[0]}"
        )
    return flat.reshape(width, height).T


def unpack_counts(text: str) -> list[int]:
    """Decodes COCO's compressed run lengths.

    A character holds 5 bits, the least significant first. From the fourth count on, what is stored
    is the difference from the count two places before.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
