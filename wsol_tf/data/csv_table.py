"""Data sets in a CSV table with a row for each picture or box."""

import csv
import glob
import io
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsol_tf import files
from wsol_tf.data.annotation import (
    check_classes,
    file_source,
    first_ten,
    make_annotation,
    note_similar_classes,
)
from wsol_tf.data.formats import is_picture
from wsol_tf.data.images import BadImage
from wsol_tf.data.listed import by_file, normal_name
from wsol_tf.data.names import Finder
from wsol_tf.data.source import Report, Source
from wsol_tf.data.values import number, whole

# Names of columns that are understood, in small letters, without spaces, "_", "-" and "."; the
# first of them that a table has is read.
COLUMNS = {
    "path": (
        *("path", "filename", "file", "image", "filepath", "imagepath", "imgpath", "imagename"),
        *("imgname", "imagefile", "imagefilename", "img", "imageid"),
    ),
    "label": ("label", "class", "labelname", "classname", "category", "categoryname"),
    "split": ("split", "set", "subset", "partition"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
}
BOX = ("xmin", "ymin", "xmax", "ymax")
EDGES = (
    BOX,
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
    ("xtl", "ytl", "xbr", "ybr"),
    ("minx", "miny", "maxx", "maxy"),
    ("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"),
    ("bboxx1", "bboxy1", "bboxx2", "bboxy2"),
)
CORNER_AND_SIZE = (
    ("bboxx", "bboxy", "bboxwidth", "bboxheight"),
    ("bboxx", "bboxy", "bboxw", "bboxh"),
)
# Boxes that may mean several things: is x, y a corner or the centre?
UNCLEAR = (
    *(("x", "y", "width", "height"), ("x", "y", "w", "h")),
    *(("xcenter", "ycenter"), ("xcentre", "ycentre"), ("cx", "cy"), ("centerx", "centery")),
    *(("bbox",), ("bboxes",), ("boundingbox",), ("regionshapeattributes",)),
)
THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")


class _Row(NamedTuple):
    """A line of the table.

    Attributes:
        line: its number in the file.
        path: the picture.
        label: its class.
        split: what it belongs to, None without the column.
        box: edges x0, y0, x1, y1 in pixels, or None.
        size: height and width of the picture, or None.
        problem: why the box that the row has can't be read.
        bad_size: whether the size that the row has can't be read.
    """

    line: int
    path: str
    label: str
    split: str | None
    box: tuple[float, ...] | None
    size: tuple[int, int] | None
    problem: str
    bad_size: bool


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
    one picture. Paths are relative to the table's folder. With the columns width and height, boxes
    are used only in pictures of this size.

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
    rows = _csv_rows(file, report)
    own = _rows_of_split(rows, file, split)
    own_classes = tuple(sorted({row.label for row in rows} - {""}))
    if not own_classes:
        raise ValueError(f"{file} has no label in any row. Fill the column 'label'.")
    note_similar_classes(own_classes, report)
    classes = check_classes(classes or own_classes, own_classes, file)
    _refuse_relative(file, own)
    rows_of = _rows_by_path(own, classes, report)
    folder = os.path.dirname(os.path.abspath(file))
    paths = list(rows_of)
    items = []
    for known in by_file(paths, _finder(folder), report):
        name = normal_name(known.name)
        if known.path is None:
            full = os.path.join(folder, name)
            report.bad_image(name, BadImage(full, "there is no such file"))
            continue
        its_rows = [row for position in known.positions for row in rows_of[paths[position]]]
        items.append((name, known.path, _annotation(name, its_rows, classes, report)))
    return file_source(f"csv {file} {split}", classes, image_size, report, items)


def _finder(folder):
    """Returns name -> path or None; a name without suffix is that of a picture with one."""
    finder = Finder([folder], accept=is_picture)
    return lambda name: finder.find(name) or (None if is_picture(name) else finder.find_stem(name))


def _rows_of_split(rows, file, split):
    """The rows of a split: those that name it, or all rows of a table without the column."""
    if rows[0].split is not None:
        own = [row for row in rows if row.split.casefold() == split.casefold()]
        if not own:
            legal = ", ".join(sorted({row.split for row in rows} - {""})) or "none"
            raise ValueError(f"{file} has no row of split {split!r}. Legal: {legal}.")
        return own
    if Path(file).stem != split and split != "train":
        raise ValueError(
            f"{file} has no column 'split', so only split 'train' (all rows) exists. Received: "
            f"{split!r}. Add the column, or write one table per split: train.csv, {split}.csv."
        )
    return rows


def _rows_by_path(rows, classes, report):
    """Path -> its rows that can be used, in the order in which the paths first come."""
    pictures = {}
    for row in rows:
        name = f"line {row.line}"
        if not row.path or not row.label:
            report.skip(name, "no path" if not row.path else "no label")
        elif row.label not in classes:
            report.skip(f"{row.path} {name}", f"class {row.label!r} is not in the list")
        else:
            pictures.setdefault(row.path, []).append(row)
    return pictures


def _annotation(name, rows, classes, report):
    """What the rows of a picture say; a box that two of them have counts once."""
    ids = {known: i for i, known in enumerate(classes)}
    boxes = {}
    for row in rows:
        line = f"{row.path} line {row.line}"
        if row.bad_size:
            report.note(f"{line} size", "width and height are no numbers from 1, not used")
        if row.problem:
            report.skip(line, row.problem)
        elif row.box and boxes.setdefault((row.box, ids[row.label]), row) is not row:
            report.note(line, "another line says the same, used once")
    sizes = {row.size for row in rows if row.size}
    if len(sizes) > 1 and boxes:
        report.skip(f"{name} boxes", "its lines name different sizes of the picture")
        boxes = {}
    return make_annotation(
        [ids[row.label] for row in rows],
        [box for box, _ in boxes],
        [label for _, label in boxes],
        next(iter(sizes), None),
    )


def _refuse_relative(file, rows):
    boxes = [row.box for row in rows if row.box]
    if boxes and np.max(boxes) <= 1:
        raise ValueError(
            f"All boxes of {file} lie within 0..1. Boxes are edges in pixels: multiply xmin and "
            "xmax by the picture's width, ymin and ymax by its height."
        )


# --- the file ------------------------------------------------------------------------------------


def _csv_file(data_dir, split):
    if os.path.isfile(data_dir):
        return data_dir
    own = os.path.join(data_dir, f"{split}.csv")
    if os.path.lexists(own):  # what is no file is refused by its name when it is read
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


def _csv_rows(file, report):
    """The rows of a table; what does not fit its header is left out."""
    header, places, sized, lines = _csv_lines(file)
    kept = []
    for line, values in lines:
        if any(map(str.strip, values[len(header) :])):
            report.skip(
                f"line {line}",
                f"it has {len(values)} values for {len(header)} columns: quote those that have "
                "the separator in them, such as decimal commas",
            )
            continue
        own = {key: values[i].strip() if i < len(values) else "" for key, i in places.items()}
        if any("\n" in value for value in own.values()):
            raise ValueError(
                f"{file}: a value that ends on line {line} begins on one before, so a quotation "
                "mark is not closed."
            )
        kept.append((line, own))
    if not kept:
        raise ValueError(f"No row of {file} fits its header.\n{report.summary()}")
    numbers = [key for key in places if key in BOX or key in ("width", "height")]
    if _has_decimal_commas([own[key] for _, own in kept for key in numbers]):
        report.note(os.path.basename(file), "its numbers have decimal commas")
        for _, own in kept:
            own.update({key: own[key].replace(",", ".") for key in numbers})
    return [_row(line, own, sized) for line, own in kept]


def _csv_lines(file):
    """The names of the columns, our names of them, and each line with its number."""
    text = files.read_text(file)
    empty = re.match(r"(?:[ \t]*\n)*", text).end()
    # Excel's own line that names the separator.
    first = re.compile(r'"?sep=(.)"?[ \t;,]*\n', re.IGNORECASE).match(text, empty)
    start = first.end() if first else empty
    head = text[start:].split("\n", 1)[0]
    separator = first[1] if first else max(",;\t|", key=head.count)
    reader = csv.reader(io.StringIO(text[start:]), delimiter=separator, skipinitialspace=True)
    above = text.count("\n", 0, start)
    try:
        header = [re.sub(r"[\s_.-]", "", name).casefold() for name in next(reader, [])]
        places, sized = _csv_columns(file, header, head)
        lines = [(above + reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise ValueError(f"{file} cannot be read as CSV: {error}.") from None
    if not lines:
        raise ValueError(f"{file} has no row below its header.")
    return header, places, sized, lines


def _csv_columns(file, header, head):
    """Our name of a column -> its place, and whether a box is a corner and a size, not edges."""
    names = {
        ours: next((name for name in known if name in header), None)
        for ours, known in COLUMNS.items()
    }
    if not names["path"] or not names["label"]:
        cells = re.split(r"[,;\t|]", head)
        data = any(is_picture(cell.strip(' "')) or number(cell) is not None for cell in cells)
        raise ValueError(
            f"{file} must start with a line that names the columns: path,label or "
            f"path,label,xmin,ymin,xmax,ymax, and split if wanted. Received: "
            f"{head.strip()[:200]!r}{', which is a row and no header' if data else ''}."
        )
    box, sized = _box_columns(file, header)
    names.update(zip(BOX, box, strict=False))
    if not names["width"] or not names["height"]:
        del names["width"], names["height"]
    twice = [name for name in names.values() if name and header.count(name) > 1]
    if twice:
        raise ValueError(f"{file} has several columns {twice[0]!r}. Remove all but one.")
    return {ours: header.index(name) for ours, name in names.items() if name}, sized


def _box_columns(file, header):
    """The four columns of boxes or none, and whether they are a corner and a size."""
    whole_ones = [names for names in (*EDGES, *CORNER_AND_SIZE) if set(names) <= set(header)]
    if len(whole_ones) > 1:
        raise ValueError(
            f"{file} has boxes in several columns: {'; '.join(map(','.join, whole_ones))}. Keep "
            "those that are right."
        )
    if whole_ones:
        return whole_ones[0], whole_ones[0] in CORNER_AND_SIZE
    if set(BOX) & set(header):
        raise ValueError(f"{file} has some of the columns {', '.join(BOX)}, but not all four.")
    for names in UNCLEAR:
        if set(names) <= set(header):
            raise ValueError(
                f"{file} has boxes under {', '.join(names)}, which may be written in several ways. "
                "Write their edges in pixels under xmin, ymin, xmax, ymax."
            )
    return (), False


def _has_decimal_commas(values):
    """Whether commas in numbers can mean nothing else, such as thousands."""
    commas = [value for value in values if "," in value]
    return (
        bool(commas)
        and not any("." in value for value in values)
        and not all(THOUSANDS.fullmatch(value) for value in commas)
    )


def _row(line, own, sized):
    texts = [own.get(key, "") for key in BOX]
    box, problem = _csv_box(texts, sized) if any(texts) else None, ""
    if box is None and any(texts):
        comma = " (commas in its numbers)" if any("," in text for text in texts) else ""
        problem = f"no readable box{comma}, only the label is used"
    sides = own.get("height", ""), own.get("width", "")
    size = whole(sides[0]) or 0, whole(sides[1]) or 0
    good = min(size) > 0
    return _Row(
        line,
        own["path"],
        own["label"],
        own.get("split"),
        box,
        size if good else None,
        problem,
        not good and any(sides),
    )


def _csv_box(texts, sized):
    values = [number(text) for text in texts]
    if None in values:
        return None
    x0, y0, x1, y1 = values
    if sized:
        x1, y1 = x0 + x1, y0 + y1
    if not np.isfinite([x1, y1]).all() or x1 <= x0 or y1 <= y0:
        return None
    return x0, y0, x1, y1
