"""The smallest use of the runtime: a picture file in, the object on a gray background out.

    python -m edge.example localizer_int8.tflite photo.jpg found.png

Needs requirements-edge.txt and Pillow; no TensorFlow, no OpenCV.
"""

import contextlib
import os
import sys
import time

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from edge.runtime import LocalizerRuntime

CYAN = (0, 214, 255)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # Pillow knows more, some by starting other programs


def main(model: str, picture: str, output: str) -> None:
    """Runs the command.

    Args:
        model: the .tflite file.
        picture: the picture file.
        output: the picture file to write.
    """
    localizer = LocalizerRuntime(model, num_threads=2)
    if os.path.exists(picture) and not os.path.isfile(picture):
        raise ValueError(f"{picture!r} is a folder, a pipe or a device, not a picture.")
    opened = Image.open(picture, formats=FORMATS)
    image = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    started = time.perf_counter()
    found = localizer.localize(image)
    seconds = time.perf_counter() - started

    gray = image.mean(-1, keepdims=True) * 0.4
    shown = Image.fromarray(np.where(found.mask[..., None], image, gray).astype(np.uint8))
    what = found.class_name or "object"
    if found.box is not None:
        edges = [*found.box[:2], *(found.box[2:] - 1)]
        ImageDraw.Draw(shown).rectangle(edges, outline=CYAN, width=3)
        what += f" in {found.box.astype(int).tolist()}"
    shown.save(output)
    print(f"{output}: {what}, {seconds * 1000:.0f} ms")


if __name__ == "__main__":
    with contextlib.suppress(ImportError):  # this file runs where wsol_tf is not installed
        from wsol_tf import quiet

        quiet.hush()
    if len(sys.argv) != 4:
        sys.exit("Usage: python -m edge.example MODEL.tflite PICTURE OUTPUT.png")
    try:
        main(*sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
