"""Annotations as data sets: COCO, VOC, YOLO and CSV, each a folder that its readers open.

A writer is a function of (output_dir, pictures, options) that returns notes on what the format
can't hold. `pictures` may be gone through several times and is never held as a whole.
"""

import csv
import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from wsol_tf import files
from wsol_tf.annotations.names import fit_text
from wsol_tf.annotations.record import Annotated

SHAPES = ("polygon", "box")
IMAGES = ("link", "copy")
SPLIT = "train"
_COCO_BEGINS = '{"info": {"description": "wsol_tf"},\n'  # what tells our file from a person's


@dataclasses.dataclass(frozen=True)
class Options:
    """What formats are written with.

    Attributes:
        classes: names of the classes, in the order of their ids.
        shape: "polygon" or "box", where a format has one of the two for an object.
        images: "link" the pictures into the folders of data sets, or "copy" them.
        image_url: what Label Studio's addresses of pictures begin with.
    """

    classes: Sequence[str]
    shape: str = "polygon"
    images: str = "link"
    image_url: str = "/data/local-files/?d="


def write_coco(output_dir: str, pictures: Iterable[Annotated], options: Options) -> list[str]:
    """Writes annotations/instances_train.json and images/: boxes and polygons.

    Raises:
        ValueError: another file has this name, such as one that a person corrected.
    """
    folder = _made(output_dir, "annotations")
    place = os.path.join(folder, f"instances_{SPLIT}.json")
    _check_own(place)
    images = _made(output_dir, "images")
    ids = {name: i for i, name in enumerate(options.classes, 1)}
    with (
        files.replacing(place) as unfinished,
        open(unfinished, "w") as file,
    ):
        categories = [{"id": i, "name": name} for name, i in ids.items()]
        file.write(_COCO_BEGINS)
        file.write(f'"categories": {json.dumps(categories)},\n"images": [')
        for number, picture in enumerate(pictures, 1):
            place_picture(picture, images, options.images)
            file.write(("," if number > 1 else "") + "\n" + json.dumps(coco_image(picture, number)))
        file.write('],\n"annotations": [')
        count = 0
        for number, picture in enumerate(pictures, 1):
            for known in coco_annotations(picture, number, count + 1, ids):
                file.write(("," if count else "") + "\n" + json.dumps(known))
                count += 1
        file.write("]}\n")
    return []


def _check_own(place):
    """Refuses to replace a file that write_coco did not write."""
    if not os.path.lexists(place):
        return
    with files.open_binary(place) as file:
        if file.read(len(_COCO_BEGINS)) != _COCO_BEGINS.encode():
            raise ValueError(
                f"{files.printable(place)} is corrected, or of another data set, and is not "
                "replaced. Move it away, or name another `output_dir`."
            )


def coco_image(picture: Annotated, number: int) -> dict:
    """Returns COCO's entry of a picture."""
    return {
        "id": number,
        "file_name": picture.name,
        "width": picture.width,
        "height": picture.height,
        "uncertainty": round(picture.uncertainty, 4),
    }


def coco_annotations(
    picture: Annotated, number: int, first: int, ids: dict[str, int]
) -> Iterable[dict]:
    """Yields COCO's entries of the objects of a picture, numbered from `first`."""
    for i, known in enumerate(picture.objects, first):
        x0, y0, x1, y1 = known.box
        yield {
            "id": i,
            "image_id": number,
            "category_id": ids[known.class_name],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": known.area,
            "iscrowd": 0,
            "segmentation": [[edge for point in known.polygon for edge in point]],
            "score": round(known.score, 4),
        }


def write_voc(output_dir: str, pictures: Iterable[Annotated], options: Options) -> list[str]:
    """Writes VOC's folders: JPEGImages, Annotations, ImageSets/Main/train.txt; boxes alone."""
    images, folder = _made(output_dir, "JPEGImages"), _made(output_dir, "Annotations")
    lists = _made(output_dir, "ImageSets", "Main")
    files.write(os.path.join(output_dir, "classes.txt"), _lines(options.classes))
    with (
        files.replacing(os.path.join(lists, f"{SPLIT}.txt")) as unfinished,
        open(unfinished, "w", encoding="utf-8") as file,
    ):
        for picture in pictures:
            place_picture(picture, images, options.images)
            file.write(f"{picture.stem}\n")
            with open(os.path.join(folder, f"{picture.stem}.xml"), "w", encoding="utf-8") as xml:
                xml.write(_voc_xml(picture))
    return _boxes_alone("VOC's XML", options)


def _voc_xml(picture):
    objects = "".join(
        f"  <object>\n    <name>{_text(known.class_name)}</name>\n    <pose>Unspecified</pose>\n"
        "    <truncated>0</truncated>\n    <difficult>0</difficult>\n"
        # VOC counts pixels from 1 and includes the last one.
        f"    <bndbox><xmin>{known.box[0] + 1}</xmin><ymin>{known.box[1] + 1}</ymin>"
        f"<xmax>{known.box[2]}</xmax><ymax>{known.box[3]}</ymax></bndbox>\n"
        f"    <confidence>{known.score:.4f}</confidence>\n  </object>\n"
        for known in picture.objects
    )
    return (
        "<annotation>\n  <folder>JPEGImages</folder>\n"
        f"  <filename>{_text(picture.name)}</filename>\n"
        f"  <size><width>{picture.width}</width><height>{picture.height}</height>"
        f"<depth>3</depth></size>\n  <segmented>0</segmented>\n{objects}</annotation>\n"
    )


def write_yolo(output_dir: str, pictures: Iterable[Annotated], options: Options) -> list[str]:
    """Writes data.yaml, images/train and labels/train: a line for each box, or each polygon."""
    images, labels = _made(output_dir, "images", SPLIT), _made(output_dir, "labels", SPLIT)
    ids = {name: i for i, name in enumerate(options.classes)}
    # A string in JSON is one in YAML.
    names = "".join(f"  {i}: {json.dumps(name)}\n" for name, i in ids.items())
    files.write(
        os.path.join(output_dir, "data.yaml"),
        # No `path`: Ultralytics resolves it where it was started; without, beside this file.
        f"train: images/{SPLIT}\nval: images/{SPLIT}\nnc: {len(ids)}\nnames:\n{names}",
    )
    for picture in pictures:
        place_picture(picture, images, options.images)
        with open(os.path.join(labels, f"{picture.stem}.txt"), "w") as file:
            for known in picture.objects:
                values = _yolo_values(picture, known, options.shape)
                file.write(" ".join([str(ids[known.class_name]), *values]) + "\n")
    return ["YOLO's labels have no place for a score: doubtful.csv has the pictures' own."]


def _yolo_values(picture, known, shape):
    """Centre and size of a box, or the points of a polygon, as shares of the picture."""
    if shape == "polygon":
        values = [(x / picture.width, y / picture.height) for x, y in known.polygon]
    else:
        x0, y0, x1, y1 = known.box
        values = [
            ((x0 + x1) / 2 / picture.width, (y0 + y1) / 2 / picture.height),
            ((x1 - x0) / picture.width, (y1 - y0) / picture.height),
        ]
    return [f"{value:.9f}" for pair in values for value in pair]


def write_csv(output_dir: str, pictures: Iterable[Annotated], options: Options) -> list[str]:
    """Writes train.csv, a row for each box, and images/; a picture without object has no row."""
    images = _made(output_dir, "images")
    with (
        files.replacing(os.path.join(output_dir, f"{SPLIT}.csv")) as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(["path", "label", "xmin", "ymin", "xmax", "ymax", "width", "height", "score"])
        for picture in pictures:
            place_picture(picture, images, options.images)
            for known in picture.objects:
                path, label = f"images/{picture.name}", fit_text(known.class_name)
                size = picture.width, picture.height
                rows.writerow([path, label, *known.box, *size, f"{known.score:.4f}"])
    return _boxes_alone("CSV", options)


# --- what several formats share ------------------------------------------------------------------


def place_picture(picture: Annotated, folder: str, how: str) -> None:
    """Links a picture into a folder, or copies it, under its name; what is there is replaced.

    Raises:
        ValueError: the system makes no links here.
    """
    place = os.path.join(folder, picture.name)
    if os.path.lexists(place):
        if how == "link" and os.path.islink(place) and os.readlink(place) == picture.path:
            return
        os.remove(place)
    if how == "copy":
        shutil.copyfile(picture.path, place)
        return
    try:
        os.symlink(picture.path, place)
    except OSError as error:
        raise ValueError(
            f"No link can be made in {files.printable(folder)} ({error.strerror}). Have the "
            "pictures copied: `images=copy`."
        ) from error


def _boxes_alone(what, options):
    if options.shape == "box":
        return []
    return [f"{what} can't hold polygons: it has the boxes, which `shape=box` asks for."]


def _made(*parts):
    path = os.path.join(*parts)
    os.makedirs(path, exist_ok=True)
    return path


def _lines(texts):
    return "".join(f"{fit_text(text)}\n" for text in texts)


def _text(text):
    return escape(fit_text(text))
