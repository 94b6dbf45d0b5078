"""Annotations in XML, as VOC has them."""

import codecs
import os
import re
from xml.etree import ElementTree

import numpy as np

from wsol_tf import files
from wsol_tf.data.annotation import Annotation, make_annotation
from wsol_tf.data.source import Report

MAX_BYTES = 16 * files.MEBI

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"<\0", "utf-16-le"),  # without a mark, but nothing else begins like that
    (b"\0<", "utf-16-be"),
)
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([^"']*)["']""")
# What Chinese systems write is rarely kept to the smaller set that it is called by.
_LARGER = {"gb2312": "gb18030", "gbk": "gb18030"}


class BadAnnotation(ValueError):
    """The labels of a picture cannot be read; the text gives the reason without the file."""


class BadEncoding(BadAnnotation):
    """An XML file is not text in the encoding that it declares, or in UTF-8."""


def read_xml(path: str | os.PathLike) -> ElementTree.Element:
    """Reads an XML file in any encoding that it declares and Python knows.

    Raises:
        BadAnnotation: no such file, no regular file, above 16 MiB, broken, or with entities of its
            own, which could grow without limit.
        BadEncoding: the encoding is not known, or is another one.
    """
    try:
        data = files.read_bytes(path, MAX_BYTES)
    except files.BadFile as error:
        raise BadAnnotation(f"the XML can't be read ({error.reason})") from None
    text = _decode(data)
    if "<!ENTITY" in text:
        raise BadAnnotation("the XML is broken (it defines entities, which no annotation needs)")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise BadAnnotation(f"the XML is broken ({error})") from None


def _decode(data):
    """The text of an XML file."""
    declared = _DECLARED.match(data[:500].removeprefix(codecs.BOM_UTF8))
    name = declared.group(1).decode("ascii", "replace").strip() if declared else ""
    encoding = next((known for mark, known in _MARKS if data.startswith(mark)), None)
    if encoding is None:
        encoding = _LARGER.get(name.lower(), name) or "utf-8"
        if name.lower().replace("-", "").startswith(("utf16", "utf32", "ucs2", "unicode")):
            encoding = "utf-8"  # its own words are no text in such an encoding
    try:
        return data.decode(encoding)
    except LookupError:
        raise BadEncoding(
            f"the XML is in an encoding that is not known ({files.printable(name)}); save it in "
            "UTF-8"
        ) from None
    except ValueError as error:
        says = f"it says so: {files.printable(name)}" if name else "and declares no other encoding"
        reason = getattr(error, "reason", error)
        raise BadEncoding(
            f"the XML is not text in {encoding} ({says}; byte {getattr(error, 'start', 0)}: "
            f"{reason}); declare its encoding, or save it in UTF-8"
        ) from None


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
        BadAnnotation: see `read_xml`, or no usable object of a class in the list.
    """
    root = read_xml(path)
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
