"""Pictures with objects of known boxes, and what finds them: for the tests of annotations."""

import numpy as np
from PIL import Image

from wsol_tf.annotations.formats import Options
from wsol_tf.annotations.look import Looking
from wsol_tf.annotations.run import annotate
from wsol_tf.model.finding import Found
from wsol_tf.model.score_maps import components

CLASSES = ("cat", 'd"o<g>&\'s, "emu"', "none here")
# A picture's objects are red or green: the first class or the second.
RED, GREEN = 0, 1


def scene(boxes, channel=RED, size=(90, 120), hole=None):
    """A picture (height, width) with filled boxes in one channel."""
    image = np.zeros((*size, 3), np.uint8)
    for x0, y0, x1, y1 in boxes:
        image[y0:y1, x0:x1, channel] = 255
    if hole:
        x0, y0, x1, y1 = hole
        image[y0:y1, x0:x1] = 0
    return image


SCENES = {
    "a/same.png": scene([(10, 20, 60, 70)]),
    "b/same.png": scene([(5, 5, 100, 80)], GREEN, hole=(30, 30, 50, 60)),
    "b/two.png": scene([(0, 0, 50, 40), (70, 50, 120, 90)]),
    "a/nothing here.png": scene([]),
    "a/ü, 'q' & \"<b>\" 100%20#;.png": scene([(1, 2, 4, 9)], GREEN),
}
BOXES = {
    "a/same.png": [(RED, (10, 20, 60, 70))],
    "b/same.png": [(GREEN, (5, 5, 100, 80))],
    "b/two.png": [(RED, (0, 0, 50, 40)), (RED, (70, 50, 120, 90))],
    "a/nothing here.png": [],
    "a/ü, 'q' & \"<b>\" 100%20#;.png": [(GREEN, (1, 2, 4, 9))],
}


def draw_scenes(folder):
    for name, image in SCENES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)
    return [str(folder / name) for name in SCENES]


def localize(image):
    """Finds what is coloured; the colour is the class."""
    channel = GREEN if image[..., GREEN].any() else RED
    scores = image[..., channel].astype(np.float32) / 255
    mask = scores > 0.5
    parts = components(mask, scores)
    box = parts.boxes[0] if len(parts.boxes) else np.float32([0, 0, *image.shape[1::-1]])
    return Found(scores, mask, *parts, box, CLASSES[channel], 0.75), mask


def write(folder, output_dir, format="coco", *, paths=None, localize=localize, **changes):
    """Annotates the scenes; returns (pictures, skipped, what was logged)."""
    output_dir.mkdir(exist_ok=True)
    lines = []
    settings = {name: changes.pop(name) for name in ("shape", "images") if name in changes}
    looking = Looking(**{n: changes.pop(n) for n in ("tolerance", "crops") if n in changes})
    pictures, skipped = annotate(
        localize,
        draw_scenes(folder) if paths is None else paths,
        str(output_dir),
        root=str(folder),
        format=format,
        options=Options(changes.pop("classes", CLASSES), **settings),
        looking=looking,
        model={"model": "drawn"},
        log=lines.append,
        warn=lines.append,
        **changes,
    )
    return pictures, skipped, "\n".join(lines)
