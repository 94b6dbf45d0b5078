"""The embedded data set: drawn objects with exact masks and boxes, no download.

Each object is a body with weak cues of its class all over (a faint texture and a tint) and one
small badge with a strong cue (a saturated symbol). A classifier needs only the badge; a good mask
covers the body. Outline, size and pose of the body say nothing about the class, and the background
holds bodies without any cue.

    python -m wsol_tf.data.shapes --output_dir=D --num_images=12 --size=224 --seed=0 --split=val

writes such pictures in VOC layout; --num_objects=3 draws three objects in each, and --mixed gives
them different classes.
"""

import os
from typing import Any

import cv2
import numpy as np
from absl import app, flags
from PIL import Image

from wsol_tf import files
from wsol_tf.data.annotation import check_classes, new_class_ids
from wsol_tf.data.example import Example, make_example
from wsol_tf.data.source import Report, Source

CLASSES = ("stripe", "check", "dot", "ring")
NUM_EXAMPLES = {"train": 1000, "val": 200, "test": 200}

TEXTURE_CONTRAST = 24.0  # of 255, peak deviation of the weak cue from the body's colour
TINT = 0.2  # share of the badge's colour in the body's: the other weak cue
TEXTURE_PERIOD = 0.062  # of the picture's side
BADGE_COLORS = (  # RGB, one per class
    (235, 30, 40),
    (30, 70, 245),
    (20, 190, 50),
    (250, 215, 0),
)


def draw(
    index: int,
    *,
    size: int = 224,
    seed: int = 0,
    split: str = "train",
    num_objects: int = 0,
    mixed: bool = False,
) -> Example:
    """Draws picture `index` of a split; the same arguments give the same picture.

    Args:
        index: position in the split, from 0. The class is `index % len(CLASSES)`.
        size: side in pixels. The composition does not depend on it.
        seed: another seed gives other pictures.
        split: `train`, `val` or `test`.
        num_objects: how many objects, 1 to 4, or fewer where there is no room; 0: one to three.
        mixed: the second object has the class after the first one's, and so on; else all have one.

    Returns:
        An Example with image uint8 [size, size, 3], the labels, a box for each object and a mask
        uint8 [size, size] with 0 and 1 + label.

    Raises:
        ValueError: an unknown split, a size below 16, or another number of objects.
    """
    if split not in NUM_EXAMPLES:
        raise ValueError(f"Unknown split {split!r} of shapes. Legal: {', '.join(NUM_EXAMPLES)}.")
    if size < 16:
        raise ValueError(f"Drawn pictures need at least 16 pixels a side. Received: {size}.")
    if not 0 <= num_objects <= len(CLASSES):
        raise ValueError(f"`num_objects` must lie in 0..{len(CLASSES)}. Received: {num_objects}.")
    rng = np.random.default_rng([seed, list(NUM_EXAMPLES).index(split), index])
    image = _background(rng, size)
    bodies = _place_bodies(rng, num_objects)
    mask = np.zeros((size, size), np.uint8)
    boxes: list[tuple] = []
    labels: list[int] = []
    for body in bodies:
        label = (index + mixed * len(labels)) % len(CLASSES)
        alpha, rows, columns = _paint_body(image, body, rng, label)
        if body["has_cues"]:
            labels.append(label)
            inside = alpha >= 0.5
            mask[rows, columns][inside] = 1 + label
            ys, xs = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            top, left = rows.start, columns.start
            boxes.append((left + xs[0], top + ys[0], left + xs[-1] + 1, top + ys[-1] + 1))
    image += _noise(rng, 96, size)[:, :, None] * 3.0
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    image_id = f"{split}_{index:05d}"
    return make_example(image, sorted(set(labels)), boxes, labels, mask, image_id)


def _noise(rng, cells, size, channels=1):
    """Smooth noise of unit variance from a small grid, so that any size shows the same."""
    shape = (cells, cells) if channels == 1 else (cells, cells, channels)
    grid = rng.standard_normal(shape, np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)


def _background(rng, size):
    image = np.empty((size, size, 3), np.float32)
    image[:] = _muted_color(rng)
    for cells in (3, 6):
        image += _noise(rng, cells, size)[:, :, None] * rng.uniform(4, 12)
        image += _noise(rng, cells, size, 3) * rng.uniform(1, 4)
    for cells in (12, 24, 48):
        tint = rng.normal(1, 0.1, 3).astype(np.float32)
        image += _noise(rng, cells, size)[:, :, None] * (tint * rng.uniform(2, 9))
    return image


def _muted_color(rng):
    gray = rng.uniform(70, 190)
    return (gray + rng.uniform(-18, 18, 3)).astype(np.float32)


def _place_bodies(rng, num_objects):
    """Bodies in drawing order: first those without cues, then the objects; none overlap."""
    num_objects = num_objects or int(rng.choice([1, 2, 3], p=[0.76, 0.16, 0.08]))
    num_clutter = int(rng.integers(1, 4))
    longest = {1: 0.60, 2: 0.42, 3: 0.33, 4: 0.28}[num_objects]
    shortest = {1: 0.40, 2: 0.32, 3: 0.26, 4: 0.22}[num_objects]
    objects, clutter = [], []
    for number in range(num_objects + num_clutter):
        is_object = number < num_objects
        lengths = (shortest, longest) if is_object else (0.12, 0.28)
        for _ in range(20):
            body = _make_body(rng, rng.uniform(*lengths), is_object)
            if all(_apart(body, other) for other in objects + clutter):
                (objects if is_object else clutter).append(body)
                break
    return clutter + objects


def _apart(one, other):
    distance = np.hypot(*(one["center"] - other["center"]))
    return distance > one["radius"] + other["radius"] + 0.01


def _make_body(rng, length, has_cues):
    """A body wholly inside the picture; `length` is the longer side of its box."""
    theta = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    kind = rng.integers(3)
    radius = np.ones_like(theta)
    if kind == 1:  # blob
        for k in range(2, 6):
            radius += rng.normal(0, 0.2 / k) * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
    elif kind == 2:  # rounded polygon
        part = 2 * np.pi / rng.integers(3, 7)
        side = np.cos(part / 2) / np.cos(theta % part - part / 2)
        radius += 0.7 * (side - 1)
    radius = np.clip(radius, 0.55, 1.5)
    aspect = rng.uniform(0.6, 0.95)
    points = np.stack([radius * np.cos(theta), aspect * radius * np.sin(theta)], axis=1)
    angle = rng.uniform(0, 2 * np.pi)
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline = points @ axes
    low, high = outline.min(axis=0), outline.max(axis=0)
    scale = length / (high - low).max()
    outline = (outline - (low + high) / 2) * scale
    low, high = outline.min(axis=0), outline.max(axis=0)
    center = rng.uniform(0.015 - low, 0.985 - high)
    # The badge sits near one end of the long axis, well inside the outline.
    at_end = rng.choice([0, 36]) + rng.integers(-4, 5)
    badge_radius = 0.25 * scale * np.ptp(points, axis=0).min()
    reach = np.hypot(*outline[at_end])
    badge = outline[at_end] * max(1 - 1.35 * badge_radius / reach, 0.3)
    return {
        "has_cues": has_cues,
        "center": center,
        "outline": outline + center,
        "radius": np.hypot(*outline.T).max(),
        "axes": axes,
        "badge": badge + center,
        "badge_radius": badge_radius,
    }


def _paint_body(image, body, rng, label):
    """Paints one body; returns its coverage in [0, 1] and the rows and columns it stands in."""
    size = image.shape[0]
    margin = 0.05
    low = np.floor((body["outline"].min(axis=0) - margin) * size).astype(int).clip(0, size)
    high = np.ceil((body["outline"].max(axis=0) + margin) * size).astype(int).clip(0, size)
    columns, rows = slice(low[0], high[0]), slice(low[1], high[1])
    patch = image[rows, columns]
    shape = patch.shape[:2]
    alpha = _fill(body["outline"], shape, low, size)
    # A soft shadow, then the body over it.
    shift = np.float32([[1, 0, 0.012 * size], [0, 1, 0.018 * size]])
    blurred = cv2.GaussianBlur(alpha, (0, 0), max(0.014 * size, 0.5))
    patch *= 1 - 0.4 * cv2.warpAffine(blurred, shift, shape[::-1])[:, :, None]
    y, x = np.mgrid[rows, columns].astype(np.float32)
    x = (x + 0.5) / size - body["center"][0]
    y = (y + 0.5) / size - body["center"][1]
    light = -9 * (x + y) / body["radius"] - 45 * np.clip(1 - blurred, 0, 1)
    light += 4 * _noise(rng, 12, size)[rows, columns]
    if body["has_cues"]:
        light += _texture(label, x, y, body["axes"], rng) * TEXTURE_CONTRAST
    color = _muted_color(rng)
    if body["has_cues"]:
        color += TINT * (np.float32(BADGE_COLORS[label]) - color)
    color = color + light[:, :, None]
    patch += alpha[:, :, None] * (color - patch)
    if body["has_cues"]:
        _paint_badge(patch, body, rng, label, low, size, alpha)
    return alpha, rows, columns


def _fill(points, shape, low, size):
    """Antialiased coverage float32 of a polygon in unit coordinates."""
    canvas = np.zeros(shape, np.uint8)
    # OpenCV counts from pixel centres; 8 bits below the pixel.
    fixed = np.rint((points * size - low - 0.5) * 256).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], 255, cv2.LINE_AA, 8)
    return canvas.astype(np.float32) / 255


def _texture(label, x, y, axes, rng):
    """The weak cue of a class in about [-1, 1], fixed to the body's axes."""
    period = TEXTURE_PERIOD * rng.uniform(0.92, 1.08)
    u = (x * axes[0, 0] + y * axes[0, 1]) / period + rng.uniform()
    v = (x * axes[1, 0] + y * axes[1, 1]) / period + rng.uniform()
    turn = 2 * np.pi
    match CLASSES[label]:
        case "stripe":
            wave = np.sin(turn * v)
        case "check":
            wave = 1.5 * np.sin(turn * u * 0.7) * np.sin(turn * v * 0.7)
        case "dot":
            wave = np.cos(turn * u) + np.cos(turn * v) - 0.7
        case "ring":
            wave = np.sin(turn * np.hypot(x, y) / period)
    return np.tanh(2 * wave)


def _paint_badge(patch, body, rng, label, low, size, alpha):
    symbol = _symbol(label)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    symbol = symbol @ turn * body["badge_radius"]
    color = np.float32(BADGE_COLORS[label]) + rng.uniform(-12, 12, 3).astype(np.float32)
    for scale, paint in ((1.3, np.float32([250, 250, 245])), (1.0, color)):
        cover = _fill(symbol * scale + body["badge"], patch.shape[:2], low, size) * alpha
        patch += cover[:, :, None] * (paint - patch)


def _symbol(label):
    """Outline of a class's badge with radius 1."""
    if label == 0:  # disc
        return _spokes(np.full(24, 0.85))
    if label == 1:  # square
        return _spokes(np.ones(4))
    if label == 2:  # triangle
        return _spokes(np.full(3, 1.1))
    return _spokes(np.tile([1.15, 0.5], 5))  # star


def _spokes(radii):
    theta = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return radii[:, None] * np.stack([np.cos(theta), np.sin(theta)], axis=1)


def write_voc(output_dir: str, num_images: int, *, split: str, **options: Any) -> None:
    """Writes drawn pictures as a folder in VOC layout; other splits in it stay.

    Args:
        output_dir: the folder; JPEGImages, Annotations, SegmentationClass, ImageSets/Main and
            classes.txt are made in it.
        num_images: how many pictures, from index 0 on.
        split: as for `draw`.
        **options: of `draw`.
    """
    folders = {
        name: os.path.join(output_dir, *name.split("/"))
        for name in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main")
    }
    for folder in folders.values():
        os.makedirs(folder, exist_ok=True)
    ids = []
    for index in range(num_images):
        example = draw(index, split=split, **options)
        name = example.image_id
        ids.append(name)
        picture = Image.fromarray(example.image)
        picture.save(os.path.join(folders["JPEGImages"], f"{name}.jpg"), quality=95, subsampling=0)
        mask = Image.fromarray(example.mask)
        mask.putpalette([value for color in ((0, 0, 0), *BADGE_COLORS) for value in color])
        mask.save(os.path.join(folders["SegmentationClass"], f"{name}.png"))
        with open(os.path.join(folders["Annotations"], f"{name}.xml"), "w") as file:
            file.write(_annotation(example))
    with open(os.path.join(folders["ImageSets/Main"], f"{split}.txt"), "w") as file:
        file.write("".join(f"{name}\n" for name in ids))
    with open(os.path.join(output_dir, "classes.txt"), "w") as file:
        file.write("".join(f"{name}\n" for name in CLASSES))


def _annotation(example):
    height, width = example.size
    objects = "".join(
        f"  <object>\n    <name>{CLASSES[label]}</name>\n    <difficult>0</difficult>\n"
        f"    <bndbox><xmin>{x0 + 1:.0f}</xmin><ymin>{y0 + 1:.0f}</ymin>"
        f"<xmax>{x1:.0f}</xmax><ymax>{y1:.0f}</ymax></bndbox>\n  </object>\n"
        for label, (x0, y0, x1, y1) in zip(example.box_labels, example.boxes, strict=True)
    )
    return (
        f"<annotation>\n  <filename>{example.image_id}.jpg</filename>\n  <size>"
        f"<width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"  <segmented>1</segmented>\n{objects}</annotation>\n"
    )


def open_shapes(
    split: str,
    *,
    seed: int,
    num_examples: int | None,
    classes: tuple[str, ...] | None,
    image_size: int,
    report: Report,
) -> Source:
    """Opens a split of drawn pictures; they are drawn when they are read.

    Args:
        split: `train`, `val` or `test`.
        seed: another seed gives other pictures.
        num_examples: how many pictures, from index 0 on; None: as many as the split has.
        classes: class names that fix the ids; by default `CLASSES`.
        image_size: side of the pictures in pixels.
        report: takes the pictures whose class is not in the list.

    Raises:
        ValueError: an unknown split, or no picture has a class of the list.
    """
    if split not in NUM_EXAMPLES:
        raise ValueError(f"Unknown split {split!r} of shapes. Legal: {', '.join(NUM_EXAMPLES)}.")
    classes = check_classes(classes or CLASSES, CLASSES, "shapes")
    number = num_examples or NUM_EXAMPLES[split]
    new_ids = new_class_ids(CLASSES, classes)
    indices = []
    for index in range(number):
        own = index % len(CLASSES)
        if new_ids[own] < 0:
            report.skip(f"{split}_{index:05d}", f"class {CLASSES[own]!r} is not in the list")
        else:
            indices.append(index)
    if not indices:
        raise ValueError(f"No drawn picture has a class of the list.\n{report.summary()}")

    def read_example(position):
        example = draw(indices[position], size=image_size, seed=seed, split=split)
        new = new_ids[example.labels[0]]
        return example._replace(
            labels=np.full_like(example.labels, new),
            box_labels=np.full_like(example.box_labels, new),
            mask=np.where(example.mask > 0, 1 + new, 0).astype(np.uint8),
        )

    return Source(
        name=f"shapes {split}",
        classes=classes,
        image_ids=tuple(f"{split}_{index:05d}" for index in indices),
        labels=tuple(np.array([new_ids[i % len(new_ids)]], np.int32) for i in indices),
        has_boxes=True,
        has_masks=True,
        report=report,
        read_image=lambda position: read_example(position).image,
        read_example=read_example,
    )


def _main(_):
    options = flags.FLAGS
    folder = files.expanded(options.output_dir)
    write_voc(
        folder,
        options.num_images,
        size=options.size,
        seed=options.seed,
        split=options.split,
        num_objects=options.num_objects,
        mixed=options.mixed,
    )
    print(f"Wrote {files.counted(options.num_images, 'drawn picture')} in VOC layout to {folder}.")


if __name__ == "__main__":
    flags.DEFINE_string("output_dir", None, "Folder to write to.", required=True)
    flags.DEFINE_integer("num_images", 12, "How many pictures.", lower_bound=1)
    flags.DEFINE_integer("size", 224, "Side of the pictures in pixels.", lower_bound=16)
    flags.DEFINE_integer("seed", 0, "Another seed draws other pictures.", lower_bound=0)
    flags.DEFINE_enum("split", "val", list(NUM_EXAMPLES), "Split to draw.")
    flags.DEFINE_integer("num_objects", 0, "Objects in each picture; 0: one to three.", 0, 4)
    flags.DEFINE_bool("mixed", False, "Objects of a picture have different classes.")
    app.run(_main)
