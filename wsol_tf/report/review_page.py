"""A page on which people look at annotations and correct them: one file, with nothing behind it.

review.html.jinja lays it out, review.css styles it, and review.js is what it does. The page asks
for nothing from elsewhere but, where they are still in their place, the pictures themselves;
without them it shows the thumbnails that it holds.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from wsol_tf import files
from wsol_tf.report.templates import template_environment


def write_review(
    path: str | os.PathLike,
    pictures: Iterable[dict[str, Any]],
    classes: Sequence[str],
    *,
    total: int,
    key: str,
) -> None:
    """Writes the page, one picture at a time.

    Args:
        path: file to write.
        pictures: for each its `name`, `version` (another, where the picture changed), `path` and
            `file` (its address as seen from the page), `width`, `height`, `uncertainty`, `doubts`,
            `thumbnail` (a data URI) and `objects`: each with `label`, `score`, `box` (x0, y0, x1,
            y1), `area` and `polygon` (x, y, x, y, ...).
        classes: names of the classes, in the order of their ids.
        total: how many pictures there are.
        key: what the browser keeps decisions under, so that other annotations keep theirs apart.
    """
    page = template_environment().get_template("review.html.jinja").generate(
        pictures=map(as_script, pictures),
        classes=as_script(list(classes)),
        total=files.counted(total, "picture"),
        key=hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:16],
    )  # fmt: skip
    with files.replacing(path) as unfinished, open(unfinished, "wb") as file:
        for part in page:
            file.write(part.encode(errors="xmlcharrefreplace"))


def as_script(values: Any) -> str:
    r"""Returns values as JSON that may stand in a script: no `<` in it can end it."""
    return json.dumps(values, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
