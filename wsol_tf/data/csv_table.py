"""Data sets in a CSV table with a row for each picture or box."""

import csv
import glob
import os
from pathlib import Path

import numpy as np

from wsol_tf.data.annotation import check_classes, file_source, first_ten, make_annotation
from wsol_tf.data.images import BadImage
from wsol_tf.data.source import Report, Source

# Names of columns that are understood; the first is ours.
COLUMNS = {
    "path": ("path", "filename", "file", "image"),
    "label": ("label", "class"),
    "split": ("split",),
    **{name: (name,) for name in ("xmin", "ymin", "xmax", "ymax")},
}
BOX = ("xmin", "ymin", "xmax", "ymax")


def open_csv(
    data_dir: str,
    split: str,
    *,
    classes: tuple[str, ...] | None,
    image_size: int,
    report: Report,
) -> Source:
    """Opens a table with the columns path and label, and optionally a box and a split in each row.

    Boxes are edges in pixels, half-open, as everywhere in the code. Several rows of one path make
    one picture. Paths are relative to the table's folder.

    Args:
        data_dir: the folder of the table, or the table itself.
        split: the split that is read.
        classes: class names that fix the ids; by default the table's labels, sorted.
        image_size: side in pixels that views are cut from, see `registry.open_dataset`.
        report: takes what is left out.

    Raises:
        ValueError: there is no such split, the table cannot be read, or nothing in it can be used.
    """
    file = _csv_file(data_dir, split)
    rows = _csv_rows(file)
    own = _rows_of_split(rows, file, split)
    own_classes = tuple(sorted({row["label"] for row in rows} - {""}))
    if not own_classes:
        raise ValueError(f"{file} has no label in any row. Fill the column 'label'.")
    classes = check_classes(classes or own_classes, own_classes, file)
    _refuse_relative(file, own)
    items = []
    for path, annotation in _annotations_by_path(own, classes, report).items():
        found = _find(os.path.dirname(file), path)
        if found:
            items.append((path, found, annotation))
        else:
            full = os.path.join(os.path.dirname(file), path.replace("\\", "/"))
            report.bad_image(path, BadImage(full, "there is no such file"))
    return file_source(f"csv {file} {split}", classes, image_size, report, items)


def _rows_of_split(rows, file, split):
    """The rows of a split: those that name it, or all rows of a table without the column."""
    if "split" in rows[0]:
        own = [row for row in rows if row["split"] == split]
        if not own:
            legal = ", ".join(sorted({row["split"] for row in rows} - {""})) or "none"
            raise ValueError(f"{file} has no row of split {split!r}. Legal: {legal}.")
        return own
    if Path(file).stem != split and split != "train":
        raise ValueError(
            f"{file} has no column 'split', so only split 'train' (all rows) exists. Received: "
            f"{split!r}. Add the column, or write one table per split: train.csv, {split}.csv."
        )
    return rows


def _annotations_by_path(rows, classes, report):
    """Path -> Annotation, in the order in which the paths first come."""
    ids = {name: i for i, name in enumerate(classes)}
    pictures = {}  # path -> (labels, boxes, box labels)
    for row in rows:
        name = f"line {row['line']}"
        if not row["path"] or not row["label"]:
            report.skip(name, "no path" if not row["path"] else "no label")
            continue
        if row["label"] not in ids:
            report.skip(f"{row['path']} {name}", f"class {row['label']!r} is not in the list")
            continue
        path = os.path.normpath(row["path"])  # "./a.jpg" is "a.jpg"
        labels, boxes, box_labels = pictures.setdefault(path, ([], [], []))
        labels.append(ids[row["label"]])
        if any(row.get(key) for key in BOX):
            box = _csv_box(row)
            if box is None:
                report.skip(f"{row['path']} {name}", "no readable box, only the label is used")
            else:
                boxes.append(box)
                box_labels.append(ids[row["label"]])
    return {path: make_annotation(*known) for path, known in pictures.items()}


def _find(folder, path):
    """The file of a picture, also where the table was written on Windows; None if there is none."""
    for name in (path, path.replace("\\", "/")):
        full = os.path.join(folder, name)
        if os.path.isfile(full):
            return full
    return None


def _csv_file(data_dir, split):
    if os.path.isfile(data_dir):
        return data_dir
    own = os.path.join(data_dir, f"{split}.csv")
    if os.path.isfile(own):
        return own
    found = sorted(glob.glob(os.path.join(glob.escape(str(data_dir)), "*.csv")))
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"Split {split!r} of a CSV data set is the table {own}, or the rows with this split in a "
        f"single table with a column 'split'. Found in {data_dir}: "
        f"{first_ten([os.path.basename(path) for path in found]) or 'no .csv file'}. "
        "`data_dir` may name the table itself."
    )


def _csv_rows(file):
    """Rows as dicts with our names of the columns, without surrounding space, and their line."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            head = stream.readline()
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=max(",;\t", key=head.count))
            header = [(name or "").strip().lower() for name in reader.fieldnames or ()]
            places = _csv_columns(file, header, head)
            reader.fieldnames = header
            rows = []
            for row in reader:
                values = {ours: (row[header[i]] or "").strip() for ours, i in places.items()}
                rows.append({**values, "line": reader.line_num})
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text in UTF-8 ({error}). Save it as CSV UTF-8.") from None
    except csv.Error as error:
        raise ValueError(f"{file} cannot be read as CSV: {error}.") from None
    if not rows:
        raise ValueError(f"{file} has no row below its header.")
    return rows


def _csv_columns(file, header, head):
    """Our name of a column -> its place in the header."""
    places = {
        ours: header.index(known)
        for ours, legal in COLUMNS.items()
        for known in legal[::-1]
        if known in header
    }
    if "path" not in places or "label" not in places:
        raise ValueError(
            f"{file} must start with a line that names the columns: path,label or "
            f"path,label,xmin,ymin,xmax,ymax, and split if wanted. Received: "
            f"{head.strip()[:200]!r}."
        )
    if 0 < len(places.keys() & set(BOX)) < 4:
        raise ValueError(f"{file} has some of the columns {', '.join(BOX)}, but not all four.")
    return places


def _csv_box(row):
    try:
        x0, y0, x1, y1 = (float(row[key]) for key in BOX)
    except ValueError:
        return None
    if not np.isfinite([x0, y0, x1, y1]).all() or x1 <= x0 or y1 <= y0:
        return None
    return x0, y0, x1, y1


def _refuse_relative(file, rows):
    boxes = [box for row in rows if any(row.get(key) for key in BOX) and (box := _csv_box(row))]
    if boxes and np.max(boxes) <= 1:
        raise ValueError(
            f"All boxes of {file} lie within 0..1. Boxes are edges in pixels: multiply xmin and "
            "xmax by the picture's width, ymin and ymax by its height."
        )
