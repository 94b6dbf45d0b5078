"""Pictures for people: localizations drawn on photographs, and sheets of them.

Arrays in, uint8 RGB arrays [height, width, 3] out, or bytes; no files are read or written.
"""

import functools
import importlib.util
import io
import itertools
import os
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

PREDICTED = (0, 214, 255)  # cyan: not a hue of the heat layer
TRUE = (255, 255, 255)
CONTOUR = (255, 236, 130)
PAPER, INK, FAINT = (250, 249, 246), (34, 34, 40), (112, 112, 120)
CAPTION_PAPER, CAPTION_INK = (24, 24, 30), (245, 245, 245)
SMALLEST_SIDE, LARGEST_SIDE = 320, 1280
# What `overlay` draws, in a sentence for titles and pages.
LEGEND = "cyan: predicted box, dashed white: true box, outline: mask, glow: score map"


def overlay(
    image: np.ndarray,
    score_map: np.ndarray | None,
    mask: np.ndarray | None,
    box: npt.ArrayLike | None,
    *,
    true_boxes: npt.ArrayLike = (),
    caption: str = "",
    side: int | None = None,
) -> np.ndarray:
    """Draws a localization over its picture: heat layer, mask contour, boxes, caption below.

    Args:
        image: uint8 `[height, width, 3]`.
        score_map: float `[h, w]` in 0..1, of any resolution; None: no heat layer.
        mask: bool `[height, width]`; None: no contour.
        box: predicted x0, y0, x1, y1 in pixels of the image, or several, `[num_boxes, 4]`; None:
            no box.
        true_boxes: `[num_boxes, 4]`, drawn dashed in white.
        caption: text below the picture; '' for none.
        side: length of the longer side of the drawn picture in pixels; None: as in the image, but
            within 320..1280, so that text is legible.

    Returns:
        uint8 RGB `[drawn height, drawn width, 3]`.

    Raises:
        ValueError: when the image is not uint8 with three channels, or is empty.
    """
    canvas, scale = _canvas(image, side)
    if score_map is not None:
        canvas = _blend_heat(canvas, score_map)
    if mask is not None:
        _draw_contour(canvas, mask)
    _draw_boxes(canvas, scale, box, true_boxes)
    return with_caption(canvas, caption)


def triptych(
    image: np.ndarray,
    score_map: np.ndarray,
    mask: np.ndarray | None,
    box: npt.ArrayLike | None,
    *,
    true_boxes: npt.ArrayLike = (),
    caption: str = "",
    side: int | None = None,
) -> np.ndarray:
    """Puts three panels side by side: the picture, its score map, its mask with the boxes.

    Args:
        image: uint8 `[height, width, 3]`.
        score_map: float `[h, w]` in 0..1, of any resolution.
        mask: bool `[height, width]`; None: nothing is darkened.
        box: predicted x0, y0, x1, y1 in pixels of the image; None: no box.
        true_boxes: `[num_boxes, 4]`, drawn dashed in white.
        caption: text below the panels; '' for none.
        side: length of the longer side of one panel in pixels; None: as for `overlay`.

    Returns:
        uint8 RGB `[drawn height, drawn width, 3]`.

    Raises:
        ValueError: when the image is not uint8 with three channels, or is empty.
    """
    canvas, scale = _canvas(image, side)
    height, width = canvas.shape[:2]
    heat = _heat_colours(_fit(score_map, height, width))
    cut = canvas.copy()
    if mask is not None:
        outside = ~_fit_mask(mask, height, width)
        gray = cut[outside] @ np.array([0.299, 0.587, 0.114], np.float32)
        cut[outside] = (gray[:, None] * 0.35 + 18).astype(np.uint8)
        _draw_contour(cut, mask)
    _draw_boxes(cut, scale, box, true_boxes)
    gap = np.full((height, max(4, max(height, width) // 64), 3), PAPER, np.uint8)
    return with_caption(np.hstack([canvas, gap, heat, gap, cut]), caption)


def contact_sheet(
    sections: Mapping[str, Sequence[np.ndarray]], *, title: str = "", columns: int = 5
) -> np.ndarray:
    """Lays tiles out in rows under headings.

    Tiles are not scaled: draw them with the same `side`.

    Args:
        sections: dict of heading -> uint8 arrays `[height, width, 3]` of any size. The heading ''
            is not drawn; sections without tiles are left out.
        title: above everything; its lines after the first are set small.
        columns: most tiles in a row.

    Returns:
        uint8 RGB `[height, width, 3]`.

    Raises:
        ValueError: when there is no tile at all.
    """
    sections = {heading: list(tiles) for heading, tiles in sections.items() if len(tiles)}
    if not sections:
        raise ValueError("A contact sheet needs at least one tile. Received none.")
    columns = min(columns, max(map(len, sections.values())))
    cell = max(tile.shape[1] for tiles in sections.values() for tile in tiles)
    # The size of text follows the sheet's width: the sheet will be shrunk to a page or a screen.
    margin = max(12, cell // 20)
    width = columns * (cell + margin) + margin
    heading_size = int(np.clip(width / 48, 20, 44))
    parts = []
    if title:
        title, *notes = title.split("\n")
        parts += [_blank(margin, width), _text(title, int(heading_size * 1.3), width, margin, INK)]
        parts += [_text(note, int(heading_size * 0.7), width, margin, FAINT) for note in notes]
    for heading, tiles in sections.items():
        parts.append(_blank(margin, width))
        if heading:
            parts += [_text(heading, heading_size, width, margin, INK), _blank(margin // 2, width)]
        for start in range(0, len(tiles), columns):
            row = tiles[start : start + columns]
            band = _blank(max(tile.shape[0] for tile in row) + margin, width)
            for i, tile in enumerate(row):
                height, tile_width = tile.shape[:2]
                left = margin + i * (cell + margin) + (cell - tile_width) // 2
                band[:height, left : left + tile_width] = tile
            parts.append(band)
    return np.vstack(parts)


def as_png(picture: np.ndarray) -> bytes:
    """Returns a picture uint8 `[height, width, 3]`, or `[height, width]`, as a PNG file."""
    buffer = io.BytesIO()
    # Overlays are 5 % larger than at Pillow's own level, 6, and written in a third of the time.
    Image.fromarray(picture).save(buffer, "PNG", compress_level=2)
    return buffer.getvalue()


def with_caption(canvas: np.ndarray, caption: str) -> np.ndarray:
    """Puts a strip with text below a picture, uint8 `[height, width, 3]`; '' leaves it as it is.

    The strip is as high as the wrapped text needs, and at least 160 pixels wide.
    """
    if not caption:
        return canvas
    height, width = canvas.shape[:2]
    # A panorama or a tower of a picture gets a strip that text fits on.
    strip_width = max(width, SMALLEST_SIDE // 2)
    size = int(np.clip(strip_width / 20, 14, 28))
    strip = _text(caption, size, strip_width, size // 2, CAPTION_INK, CAPTION_PAPER, pad=size // 3)
    if strip_width > width:
        wide = np.full((height, strip_width, 3), CAPTION_PAPER, np.uint8)
        left = (strip_width - width) // 2
        wide[:, left : left + width] = canvas
        canvas = wide
    return np.vstack([canvas, strip])


def _canvas(image, side):
    """Returns a copy of the image with the wanted longer side, and the scale (x, y) to it."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            "A picture must be uint8 [height, width, 3]. "
            f"Received: {image.dtype} {list(image.shape)}."
        )
    height, width = image.shape[:2]
    side = side or int(np.clip(max(height, width), SMALLEST_SIDE, LARGEST_SIDE))
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = image.copy() if scale == 1 else cv2.resize(image, size, interpolation=method)
    return canvas, (size[0] / width, size[1] / height)


def _fit(values, height, width):
    # Pictures may be drawn smaller than the map: INTER_AREA then keeps thin parts visible.
    method = cv2.INTER_AREA if height < values.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(np.asarray(values, np.float32), (width, height), interpolation=method)


def _fit_mask(mask, height, width):
    method = cv2.INTER_AREA if height < mask.shape[0] else cv2.INTER_LINEAR
    levels = np.asarray(mask, np.uint8) * 255
    return cv2.resize(levels, (width, height), interpolation=method) >= 128


def _heat_colours(values):
    """Colours a map in 0..1; NaN and infinity become 0."""
    values = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    levels = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    return cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]


def _blend_heat(canvas, score_map):
    values = np.nan_to_num(_fit(score_map, *canvas.shape[:2]), nan=0, posinf=0, neginf=0)
    values = np.clip(values, 0, 1)
    opacity = 0.62 * values[..., None] ** 0.8
    # Dark colours would only dirty the picture: where the score is low it is transparent instead.
    mixed = canvas * (1 - opacity) + _heat_colours(0.35 + 0.6 * values) * opacity
    return np.round(mixed).astype(np.uint8)


def _line_width(canvas):
    return max(2, round(max(canvas.shape[:2]) / 160))


def _draw_contour(canvas, mask):
    height, width = canvas.shape[:2]
    mask = _fit_mask(mask, height, width)
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    line = max(2, _line_width(canvas) // 2)
    cv2.drawContours(canvas, outlines, -1, (0, 0, 0), line + 2, cv2.LINE_AA)
    cv2.drawContours(canvas, outlines, -1, CONTOUR, line, cv2.LINE_AA)


def _draw_boxes(canvas, scale, box, true_boxes):
    line = _line_width(canvas)
    height, width = canvas.shape[:2]
    inset = line / 2  # Edges on the picture's rim stay visible.
    boxes = [(true_box, TRUE, True) for true_box in np.reshape(true_boxes, (-1, 4))]
    predicted = np.reshape(() if box is None else np.asarray(box, float), (-1, 4))
    boxes += [(each, PREDICTED, False) for each in predicted[::-1]]  # the first lies on top
    for edges, colour, dashed in boxes:
        x0, y0, x1, y1 = edges * [*scale, *scale]
        x0, x1 = np.clip([x0, x1], inset, width - 1 - inset)
        y0, y1 = np.clip([y0, y1], inset, height - 1 - inset)
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]])
        for colour_, line_ in (((0, 0, 0), line + 2), (colour, line)):
            for start, end in itertools.pairwise(corners):
                _draw_line(canvas, start, end, colour_, line_, 5 * line if dashed else None)


def _draw_line(canvas, start, end, colour, line, dash):
    length = float(np.linalg.norm(end - start))
    # An odd number of pieces, so that dashes meet at the corners.
    pieces = 1 if dash is None else 2 * max(1, round(length / dash / 2)) + 1
    points = start + (end - start) * np.linspace(0, 1, pieces + 1)[:, None]
    for a, b in zip(points[:-1:2], points[1::2], strict=True):
        a, b = (tuple(int(v) for v in np.round(point * 16)) for point in (a, b))
        cv2.line(canvas, a, b, colour, line, cv2.LINE_AA, 4)


def _blank(height, width):
    return np.full((height, width, 3), PAPER, np.uint8)


@functools.cache
def _font(size):
    # Matplotlib brings this font along, with accents, Greek and Cyrillic.
    (folder,) = importlib.util.find_spec("matplotlib").submodule_search_locations
    path = os.path.join(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(path, size)


def _text(text, size, width, margin, ink, paper=PAPER, *, pad=0):
    """Renders text, wrapped to a width, as an array [height, width, 3]."""
    font, room = _font(size), max(width - 2 * margin, size)
    lines = [line for part in str(text).split("\n") for line in _wrap(part, font, room)]
    step = round(size * 1.3)
    picture = Image.new("RGB", (width, step * len(lines) + 2 * pad), paper)
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(lines):
        draw.text((margin, pad + i * step), line, fill=ink, font=font)
    return np.asarray(picture)


def _wrap(text, font, room):
    """Splits text into lines no wider than the room, within a word only where it must."""
    lines, current = [], ""
    for word in text.split():
        while font.getlength(word) > room:
            head = len(word)
            while head > 1 and font.getlength(word[:head]) > room:
                head -= 1
            if current:
                lines.append(current)
                current = ""
            lines.append(word[:head])
            word = word[head:]
        joined = f"{current} {word}".strip()
        if current and font.getlength(joined) > room:
            lines.append(current)
            current = word
        else:
            current = joined
    return [*lines, current] if current or not lines else lines
