"""A picture and the mask that a .tflite gives for it, for an app's own test to check against.

    python -m edge.golden --model=OUT/localizer_int8.tflite --output_dir=app/src/test/resources

writes golden.png (a drawn picture of 320 x 240, so that resizing and aspect are tested too, or the
one that --image names), golden_mask.png (0 and 255, at the picture's size) and golden.json (the
class that was asked for, boxes with their scores and areas, box, class, probability, the same of
other classes that are present, threshold, and how much a runtime may differ).
"""

import json
import os
import pathlib

import numpy as np
from absl import flags
from PIL import Image

from edge.runtime import LocalizerRuntime
from wsol_tf import programs
from wsol_tf.data import images, shapes

LEAST_IOU = 0.98  # of the masks of two runtimes: kernels of int8 files may round differently


def picture() -> np.ndarray:
    """Draws the golden picture, uint8 [240, 320, 3]."""
    return shapes.draw(19, size=320, split="test").image[40:280]


def write(
    localizer: LocalizerRuntime, output_dir: str | os.PathLike, image: np.ndarray | None = None
) -> None:
    """Writes golden.png, golden_mask.png and golden.json.

    Args:
        localizer: the file to ask. With map "all" it is asked for its first class.
        output_dir: an existing folder.
        image: uint8 [height, width, 3]; None takes the drawn one.
    """
    output_dir = pathlib.Path(output_dir)
    asked = localizer.labels[0] if localizer.metadata["map"] == "all" else None
    image = picture() if image is None else image
    found = localizer.localize(image, class_name=asked)
    Image.fromarray(image).save(output_dir / "golden.png")
    Image.fromarray(found.mask.astype(np.uint8) * 255).save(output_dir / "golden_mask.png")
    values = {
        "asked_class": asked,
        **_part(found),
        "box": None if found.box is None else found.box.tolist(),
        "others": [_part(part) for part in found.others],
        "threshold": localizer.threshold,
        "least_mask_iou": LEAST_IOU,
    }
    (output_dir / "golden.json").write_text(json.dumps(values, indent=1) + "\n")


def _part(found):
    """What is written of the objects of a class."""
    return {
        "class": found.class_name,
        "probability": found.probability,
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "areas": found.areas.tolist(),
    }


def define_flags() -> None:
    """Defines the flags of this program."""
    programs.define_path("model", None, "The .tflite file that edge.export wrote.", required=True)
    programs.define_path("output_dir", None, "Folder for the files; it is made.", required=True)
    programs.define_path("image", None, "Your own picture in place of the drawn one.")


def run(values: flags.FlagValues) -> None:
    """Writes the golden files of the file that the flags name."""
    localizer = LocalizerRuntime(values.model)
    programs.make_output_dir(values.output_dir)
    image = images.read_image(values.image) if values.image else None
    write(localizer, values.output_dir, image)
    print(f"Wrote golden.png, golden_mask.png and golden.json to {values.output_dir}.")


if __name__ == "__main__":
    programs.main(define_flags, run)
