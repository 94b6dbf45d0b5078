"""What the pages are made with: templates of this folder, and pictures that a page holds itself."""

import base64
import functools
import io
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from PIL import Image


@functools.cache
def template_environment() -> jinja2.Environment:
    """Makes what loads this folder's templates: it escapes, and a name it lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wsol_tf.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Unlike Jinja's own `capitalize`, this leaves the other letters as they are.
    environment.filters["capitalized"] = lambda text: text[:1].upper() + text[1:]
    return environment


@functools.cache
def markdown_environment() -> jinja2.Environment:
    """Makes what loads this folder's templates of Markdown."""
    return template_environment().overlay(autoescape=False, finalize=as_markdown)


def as_markdown(value: Any) -> str:
    """Returns a value as text in a cell of a table: Markdown takes HTML as it stands."""
    text = str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("|", "\\|")


def embedded(tiles: Sequence[tuple[np.ndarray, str]]) -> list[tuple[str, str]]:
    """Turns pictures with captions into data that a page holds itself."""
    return [(data_uri(Image.fromarray(tile), "jpeg", quality=85), text) for tile, text in tiles]


def chart_uri(array: np.ndarray) -> str:
    """Turns a chart into data that a page holds itself."""
    # Few colours are enough for a chart, and make the file a third as large.
    image = Image.fromarray(array).quantize(64, dither=Image.Dither.NONE)
    return data_uri(image, "png", optimize=True)


def data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    """Turns a picture into data that a page holds itself; kind and options are Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
