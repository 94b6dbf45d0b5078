"""Pictures that features are pretrained on: swatches with one label each, and collages of them.

A swatch shows one surface all over, and has one label: a texture of `textures`, a plain surface,
or a background. A collage is made of swatches as CutMix (Yun et al., ICCV 2019) is of pictures:
outlines are cut out of some and pasted on another, and what is where follows from what was pasted.
The pictures of `shapes` have other outlines, other textures, other backgrounds and a badge on each
object; nothing of them is used here.
"""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from wsol_tf.data import textures

SIDE = 160  # pixels
MOST_BODIES = 7
BACKGROUND, PLAIN, FIRST_TEXTURE = 0, 1, 2
NUM_SURFACES = FIRST_TEXTURE + len(textures.FAMILIES)
NUM_HUES = 9  # eight parts of the colour circle, after 0 for a surface without a tint
SEEN_TINT = 0.1  # a fainter tint counts as none
PLAIN_SWATCHES, BACKGROUND_SWATCHES = 1 / 8, 1 / 8  # shares; the others have a texture


class Drawn(NamedTuple):
    """A swatch or a collage.

    Attributes:
        image: uint8 [SIDE, SIDE, 3], RGB.
        body: uint8 [SIDE, SIDE], which swatch a pixel is of.
        surfaces: uint8 [MOST_BODIES + 1], the label of each swatch: `BACKGROUND`, `PLAIN`, or
            `FIRST_TEXTURE` and the position of its texture.
        tints: uint8 [MOST_BODIES + 1, 3], the colour that each is tinted with; black: none.
    """

    image: np.ndarray
    body: np.ndarray
    surfaces: np.ndarray
    tints: np.ndarray


def draw_swatch(index: int, seed: int = 0) -> Drawn:
    """Draws one surface over the whole picture.

    Args:
        index: another index gives another picture.
        seed: another seed gives other pictures.

    Returns:
        The swatch; its surface and tint are the first ones.
    """
    rng = np.random.default_rng([seed, 2, index])
    kind = rng.random()
    surface, family = BACKGROUND, None
    if kind < BACKGROUND_SWATCHES:
        image, tint, strength = _background(rng), np.zeros(3), 0.0
    else:
        image = np.empty((SIDE, SIDE, 3), np.float32)
        image[:] = _gray(rng)
        tint, strength = _tint(rng)
        image += strength * (tint - image)
        for cells in (2, 5, 12):
            image += _smooth(rng, cells) * rng.uniform(0, 12)
        surface = PLAIN
        if kind >= BACKGROUND_SWATCHES + PLAIN_SWATCHES:
            family = int(rng.integers(len(textures.FAMILIES)))
            image += _texture(rng, family, (SIDE, SIDE))[:, :, None]
            surface = FIRST_TEXTURE + family
    surfaces, tints = _nothing()
    surfaces[0] = surface
    tints[0] = tint * (strength > SEEN_TINT)
    return Drawn(_finished(rng, image), np.zeros((SIDE, SIDE), np.uint8), surfaces, tints)


class Swatches(NamedTuple):
    """Swatches by what they show, some of each."""

    backgrounds: list[Drawn]
    plain: list[Drawn]
    textured: list[Drawn]


def by_kind(swatches: Iterable[Drawn]) -> Swatches:
    """Sorts swatches.

    Raises:
        ValueError: there is none of a kind.
    """
    kinds = Swatches([], [], [])
    for swatch in swatches:
        kinds[min(swatch.surfaces[0], FIRST_TEXTURE)].append(swatch)
    for name, found in kinds._asdict().items():
        if not found:
            raise ValueError(f"No swatch is one of the {name}: draw more of them.")
    return kinds


def make_collage(swatches: Swatches, index: int, seed: int = 0) -> Drawn:
    """Pastes outlines cut out of two to six swatches on one of a background.

    Args:
        swatches: those that it is made of.
        index: another index gives another collage.
        seed: another seed gives other collages.
    """
    rng = np.random.default_rng([seed, 1, index])

    def pick(kind):
        return kind[rng.integers(len(kind))]

    image = _turned(rng, pick(swatches.backgrounds).image)
    body = np.zeros((SIDE, SIDE), np.uint8)
    surfaces, tints = _nothing()
    plain = int(rng.random() < 0.5) + int(rng.random() < 0.3)
    textured = int(rng.integers(2, 5))
    for number, has_texture in enumerate(rng.permutation([False] * plain + [True] * textured), 1):
        swatch = pick(swatches.textured if has_texture else swatches.plain)
        if _paste(rng, image, body, number, _turned(rng, swatch.image)):
            surfaces[number], tints[number] = swatch.surfaces[0], swatch.tints[0]
    return Drawn(np.clip(np.rint(image), 0, 255).astype(np.uint8), body, surfaces, tints)


def hues(tints: np.ndarray) -> np.ndarray:
    """Returns the part of the colour circle that each tint lies in.

    Args:
        tints: uint8 [..., 3], RGB.

    Returns:
        int32 [...] in 0..NUM_HUES - 1; 0 for what has no hue, black among it.
    """
    red, green, blue = np.moveaxis(tints.astype(np.float32), -1, 0)
    most, least = tints.max(axis=-1), tints.min(axis=-1)
    range_ = np.maximum(most.astype(np.float32) - least, 1)
    sextant = np.where(
        most == red,
        (green - blue) / range_ % 6,
        np.where(most == green, (blue - red) / range_ + 2, (red - green) / range_ + 4),
    )
    parts = NUM_HUES - 1
    return np.where(most == least, 0, 1 + (sextant / 6 * parts).astype(np.int32) % parts)


def _nothing():
    return np.zeros(MOST_BODIES + 1, np.uint8), np.zeros((MOST_BODIES + 1, 3), np.uint8)


def _finished(rng, image):
    image = image + rng.normal(0, 1, (SIDE, SIDE, 1)) * rng.uniform(0, 6)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _smooth(rng, cells, channels=1):
    grid = rng.standard_normal((cells, cells, channels), np.float32)
    smooth = cv2.resize(grid, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return smooth.reshape(SIDE, SIDE, channels)


def _gray(rng):
    return np.float32(rng.uniform(60, 200) + rng.uniform(-20, 20, 3))


def _background(rng):
    image = np.empty((SIDE, SIDE, 3), np.float32)
    image[:] = _gray(rng)
    for cells in (2, 5, 10, 20, 40, 80):
        image += _smooth(rng, cells) * 14 * rng.uniform() ** 2
        image += _smooth(rng, cells, 3) * 5 * rng.uniform() ** 2
    return image


def _tint(rng):
    """A saturated colour float32 [3], and how much of it a surface has, 0 to 0.45."""
    hue, saturation, value = rng.uniform(0, 180), rng.uniform(180, 255), rng.uniform(200, 255)
    pixel = np.uint8([[[hue, saturation, value]]])
    color = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    return color, rng.uniform(0, 0.45) * (rng.random() < 0.8)


def _texture(rng, family, shape):
    """A texture float32 of this shape, turned, scaled and moved, with a contrast of 10 to 45."""
    angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1.35)
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    axes = np.array([[cosine, sine], [-sine, cosine]])
    middle = textures.SIDE / 2 + rng.uniform(-60, 60, 2) - axes @ (np.array(shape[::-1]) / 2)
    values = cv2.warpAffine(
        textures.tile(family, int(rng.integers(textures.TILES))),
        np.float32(np.column_stack([axes, middle])),
        shape[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    return values * np.exp(rng.uniform(np.log(10), np.log(45)))


def _outline(rng):
    """Points [n, 2] around 0: a blob, an irregular polygon, a star or a rounded rectangle."""
    theta = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    kind = rng.integers(4)
    radius = np.ones_like(theta)
    if kind == 0:
        for k in range(2, 7):
            radius += rng.normal(0, 0.35 / k) * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
        radius = np.clip(radius, 0.4, 1.8)
    elif kind == 1:
        theta = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 9)))
        radius = rng.uniform(0.7, 1.1, len(theta))
    elif kind == 2:
        tips = int(rng.integers(4, 8))
        theta = np.linspace(0, 2 * np.pi, 2 * tips, endpoint=False)
        radius = np.tile([1, rng.uniform(0.5, 0.8)], tips)
    points = np.stack([np.cos(theta), np.sin(theta)], axis=1)
    if kind == 3:
        points = np.sign(points) * np.abs(points) ** rng.uniform(0.5, 1.3)
    points = points * radius[:, None] * [1, rng.uniform(0.5, 1)]
    angle = rng.uniform(0, 2 * np.pi)
    return points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _placed_outline(rng):
    """An outline in pixels, at most a tenth of it outside the picture, and its longer side."""
    points = _outline(rng)
    low, high = points.min(axis=0), points.max(axis=0)
    length = rng.uniform(0.22, 0.55) * SIDE
    points = (points - (low + high) / 2) * (length / (high - low).max())
    half = np.ptp(points, axis=0) / 2
    return points + rng.uniform(0.9 * half, SIDE - 0.9 * half), length


def _turned(rng, image):
    """A swatch as float32, turned and flipped."""
    image = np.rot90(image, int(rng.integers(4)))[:, :: -1 if rng.random() < 0.5 else 1]
    return image.astype(np.float32)


def _paste(rng, image, body, number, cutting):
    """Pastes an outline of `cutting`, with its shadow and light; returns whether any is seen."""
    points, length = _placed_outline(rng)
    low = np.floor(points.min(axis=0) - 6).astype(int).clip(0, SIDE)
    high = np.ceil(points.max(axis=0) + 6).astype(int).clip(0, SIDE)
    columns, rows = slice(low[0], high[0]), slice(low[1], high[1])
    patch = image[rows, columns]
    shape = patch.shape[:2]
    canvas = np.zeros(shape, np.uint8)
    fixed = np.rint((points - low - 0.5) * 256).astype(np.int32)  # 8 bits below the pixel
    cv2.fillPoly(canvas, [fixed], 255, cv2.LINE_AA, 8)
    alpha = canvas.astype(np.float32) / 255
    blurred = cv2.GaussianBlur(alpha, (0, 0), 2)
    if rng.random() < 0.6:
        shift = np.float32([[1, 0, rng.uniform(-3, 3)], [0, 1, rng.uniform(-3, 3)]])
        shadow = cv2.warpAffine(blurred, shift, shape[::-1])
        patch *= 1 - rng.uniform(0, 0.45) * shadow[:, :, None]
    y, x = np.mgrid[rows, columns].astype(np.float32)
    slope = rng.normal(0, 9, 2) / length
    light = slope[0] * (x - points[:, 0].mean()) + slope[1] * (y - points[:, 1].mean())
    light -= rng.uniform(0, 45) * (1 - blurred)
    patch += alpha[:, :, None] * (cutting[rows, columns] + light[:, :, None] - patch)
    inside = alpha >= 0.5
    body[rows, columns][inside] = number
    return inside.any()
