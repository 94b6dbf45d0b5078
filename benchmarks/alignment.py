"""Measures by how many pixels a model's masks lie beside drawn objects.

    python benchmarks/alignment.py --model=RUN/model.keras

Each of the pictures, with one object, is seen in four ways: as it is drawn, mirrored left to right,
upside down, and both. What lies beside the object in the same direction in all four is the
network's; what turns with the picture is that of the drawing (shadows fall down and to the right).
Distances are those of the masks' centres from the objects', (down, right), in pixels of the
network's input, with the standard error of the mean; masks that miss their object (IoU below 0.4
in any of the four) are left out. Maps are those of the localizer, as they are, placed by the
model's offset, and refined.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
from absl import app, flags

from wsol_tf.data import shapes
from wsol_tf.data.transforms import resize_image
from wsol_tf.model import alignment, refinement, score_maps
from wsol_tf.model.build import load_model

SIZE = 224  # pixels of a drawn picture
WAYS = ((1, 1), (1, -1), (-1, 1), (-1, -1))  # steps down and to the right
THRESHOLDS = (0.2, 0.3, 0.5)
LEAST_IOU = 0.4


def centre(mask):
    """Centre (row, column) of a mask, as shares of its sides."""
    return (np.argwhere(mask).mean(0) + 0.5) / mask.shape


def beside(score_map, true, threshold):
    """(down, right) from the object to the mask, as shares of the sides, and their IoU."""
    _, mask, _ = score_maps.localize(score_map, *true.shape, threshold)
    mask = score_maps.largest_component(mask)
    if not mask.any():
        return [0.0, 0.0, 0.0]
    return [*(centre(mask) - centre(true)), (mask & true).sum() / (mask | true).sum()]


def row(name, prepared, masks, threshold, side):
    """Prints what lies beside at one threshold."""
    values = np.array(
        [
            [
                beside(score_map, mask[::down, ::right], threshold)
                for score_map, mask in zip(prepared[down, right], masks, strict=True)
            ]
            for down, right in WAYS
        ]
    )
    hit = values[..., 2].min(0) >= LEAST_IOU
    pixels = values[:, hit, :2] * side
    turned = pixels * np.array(WAYS)[:, None]
    found = (pixels[0], pixels.mean(0), turned.mean(0))  # as drawn, of the network, of the drawing
    texts = [
        "{:+6.2f} {:+6.2f} (±{:.2f} {:.2f})".format(
            *one.mean(0), *(one.std(0) / np.sqrt(max(len(one), 1)))
        )
        for one in found
    ]
    print(f"{name:10}{threshold:5}{hit.sum():6}  " + "  ".join(f"{text:24}" for text in texts)
          + f"{values[0, :, 2].mean():8.3f}", flush=True)  # fmt: skip


def main(_):
    """Prints all rows."""
    options = flags.FLAGS
    model = load_model(options.model)
    examples = [
        shapes.draw(i, size=SIZE, split="test", num_objects=1) for i in range(options.num_pictures)
    ]
    masks = [example.mask > 0 for example in examples]
    pictures = np.stack([resize_image(one.image, model.input_size) for one in examples])
    maps = {}
    for down, right in WAYS:
        seen = np.ascontiguousarray(pictures[:, ::down, ::right])
        parts = [model.predict_on_batch(seen[i : i + 32]) for i in range(0, len(seen), 32)]
        maps[down, right] = [
            one.mean(-1) for part in parts for one in np.asarray(part["localization_map"])
        ]
    side = model.input_size
    position = side / maps[1, 1][0].shape[0]
    down, right = (position * distance for distance in model.offset)
    print(
        f"{options.model}: {position:g} pixels a position; moved back by {down:+.2f} {right:+.2f}"
    )
    print(f"{'map':10}{'cut':>5}{'hit':>6}  {'as drawn':24}  {'the network':24}  "
          f"{'the drawing':24}{'IoU':>8}")  # fmt: skip
    placed = {
        way: [alignment.placed(one, model.offset) for one in of_way] for way, of_way in maps.items()
    }
    refined = {
        (down, right): [
            refinement.refine(one, picture[::down, ::right])
            for one, picture in zip(of_way, pictures, strict=True)
        ]
        for (down, right), of_way in placed.items()
    }
    for name, prepared in (("as it is", maps), ("placed", placed), ("refined", refined)):
        for threshold in THRESHOLDS:
            row(name, prepared, masks, threshold, side)


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "A trained model.keras.", required=True)
    flags.DEFINE_integer("num_pictures", 200, "Drawn pictures.")
    app.run(main)
