"""Pass or fail: parts without a defect have a class of their own, and an empty mask.

    python examples/inspect_defects.py OUT            # draws parts; minutes on two CPU cores
    python examples/inspect_defects.py OUT --parts=20 --epochs=1

The labels are the names of folders, `ok`, `hole` and `scratch`. Nobody says where a defect is; the
model does. For parts of your own, put photographs into such folders and take away the drawing.
"""

import argparse
import os

import cv2
import numpy as np
from PIL import Image

import wsol_tf

CLASSES = ("ok", "hole", "scratch")
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("output", help="folder for all that is written")
parser.add_argument("--parts", type=int, default=120, help="of each class")
parser.add_argument("--epochs", type=int, default=20)
given = parser.parse_args()


def draw_part(kind, rng, side=160):
    """A brushed metal surface, with a defect or without."""
    image = np.full((side, side), rng.uniform(110, 170), np.float32)
    image += cv2.blur(rng.normal(0, 30, (side, side)).astype(np.float32), (31, 1))
    image += cv2.resize(rng.normal(0, 8, (3, 3)).astype(np.float32), (side, side))
    start = rng.uniform(0.2, 0.8, 2) * side
    if kind == "hole":
        cv2.ellipse(image, (start.astype(int).tolist(), rng.uniform(20, 44, 2).tolist(),
                            rng.uniform(0, 180)), 40.0, -1, cv2.LINE_AA)  # fmt: skip
    elif kind == "scratch":
        points = start + np.cumsum(rng.normal(0, 7, (8, 2)) + rng.normal(0, 7, 2), axis=0)
        cv2.polylines(image, [points.astype(int)], False, 235.0, 3, cv2.LINE_AA)
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


rng = np.random.default_rng(0)
pictures = os.path.join(given.output, "parts")
for kind in CLASSES:
    os.makedirs(os.path.join(pictures, kind), exist_ok=True)
    for number in range(given.parts):
        part = Image.fromarray(draw_part(kind, rng))
        part.save(os.path.join(pictures, kind, f"{number:03}.png"))

config = wsol_tf.Config.recipe(
    "default", dataset="image_folder", data_dir=pictures, val_split="", background_class="ok",
    extractor_weights="drawn", width=0.25, input_size=128, head_width=64, localizer="agnostic",
    batch_size=16, lr_drops="0.8", epochs=given.epochs, resume=False,
    output_dir=os.path.join(given.output, "run"),
)  # fmt: skip
model, _ = wsol_tf.training.train(config)

right = 0
for number in range(12):
    kind = CLASSES[number % 3]
    found = model.localize(draw_part(kind, rng))
    says = "pass" if found.class_name == "ok" else f"fail: {found.class_name} in {found.box}"
    right += found.class_name == kind
    print(f"a new part, {kind:8} -> {says}")
print(f"{right} of 12 are called by their name.")
