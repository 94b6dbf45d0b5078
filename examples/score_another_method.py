"""Scores the maps of any program, whatever it is written in, with the project's own figures.

    python examples/score_another_method.py OUT
    python examples/score_another_method.py OUT --num_images=8

The method here is a few lines of NumPy: how much a pixel's colour differs from that of the border.
Put yours in its place: one array [height, width] for each picture, of any resolution and range, as
IMAGE_ID.npy. OUT/scored/report.html shows the result beside a box that ignores the picture.
"""

import argparse
import os
import subprocess
import sys

import numpy as np

import wsol_tf
from wsol_tf.data import shapes

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("output", help="folder for all that is written")
parser.add_argument("--num_images", type=int, default=100)
given = parser.parse_args()
data, maps, scored = (os.path.join(given.output, name) for name in ("data", "maps", "scored"))


def saliency(image):
    """Distance of each pixel's colour from the mean colour of the border, [height, width]."""
    image = image.astype(np.float32)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return np.linalg.norm(image - border.mean(axis=0), axis=2)


# Pictures with boxes and masks in VOC layout; yours lie in such a folder already.
shapes.write_voc(data, given.num_images, size=224, seed=0, split="val")

source = wsol_tf.open_dataset("voc_folder", data, "val")
os.makedirs(maps, exist_ok=True)
for position, image_id in enumerate(source.image_ids):
    np.save(os.path.join(maps, f"{image_id}.npy"), saliency(source.read_image(position)))

# With --threshold=otsu nothing is chosen on the pictures that are scored.
sys.exit(
    subprocess.run(
        [sys.executable, "-m", "wsol_tf.evaluate", f"--score_maps={maps}", "--dataset=voc_folder",
         f"--data_dir={data}", "--split=val", "--view=whole", "--threshold=otsu",
         f"--output_dir={scored}"],
    ).returncode
)  # fmt: skip
