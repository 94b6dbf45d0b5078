"""Annotates thousands of drawn pictures, stopped and resumed, and prints how much memory it takes.

    python benchmarks/annotations.py --pictures=10000 --output_dir=ANNOTATIONS

Pictures have their true mask as score map, so that what is measured is all but the network:
reading, polygons, thumbnails, crops, the journal, each format and the page. Memory is the resident
set; what grows with the pictures would show as a slope, which is fitted to the second half.
Half-way the run is stopped, and started again.
"""

import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
from absl import app, flags
from PIL import Image

from wsol_tf.annotations.formats import Options
from wsol_tf.annotations.look import Looking
from wsol_tf.annotations.run import WRITERS, annotate
from wsol_tf.model.finding import Found
from wsol_tf.model.score_maps import components

CLASSES = ("one", "two")
SIZE = (240, 320)


def resident():
    """Resident memory of this process in MiB (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def draw(folder, number):
    """Draws pictures with two ellipses each."""
    os.makedirs(folder, exist_ok=True)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    paths = []
    for i in range(number):
        path = os.path.join(folder, f"{i:06}.jpg")
        paths.append(path)
        if os.path.exists(path):
            continue
        rng = np.random.default_rng(i)
        image = np.full((*SIZE, 3), rng.integers(20, 90, 3), np.uint8)
        for _ in range(2):
            y, x = rng.integers(40, 200, 2)
            inside = ((rows - y) / rng.integers(20, 60)) ** 2 + (
                (columns - x) / rng.integers(20, 60)
            ) ** 2 < 1
            image[inside] = (255, *rng.integers(0, 120, 2))
        Image.fromarray(image).save(path, quality=90)
    return paths


def main(argv):
    values = flags.FLAGS
    folder = os.path.join(values.output_dir, "pictures")
    paths = draw(folder, values.pictures)
    memory, stop_at = [], [values.pictures // 2]

    def localize(image):
        memory.append(resident())
        if len(memory) % max(1, values.pictures // 10) == 0:
            print(f"{len(memory):6} pictures: {memory[-1]:7.1f} MiB", flush=True)
        if stop_at and len(memory) > stop_at[0]:
            stop_at.clear()
            raise KeyboardInterrupt
        scores = image[..., 0].astype(np.float32) / 255
        mask = scores > 0.5
        parts = components(mask, scores, min_area=0.05)
        box = parts.boxes[0] if len(parts.boxes) else np.float32([0, 0, *SIZE[::-1]])
        return Found(scores, mask, *parts, box, CLASSES[int(mask.mean() > 0.1)], 0.9), mask

    def run(format):
        began = time.monotonic()
        annotate(
            localize, paths, os.path.join(values.output_dir, "out"), root=folder, format=format,
            options=Options(CLASSES), looking=Looking(crops=True), model={"model": "drawn"},
            budget=50, log=print, warn=print,
        )  # fmt: skip
        print(
            f"{format}: {time.monotonic() - began:.0f} s, {resident():.1f} MiB after it", flush=True
        )

    os.makedirs(os.path.join(values.output_dir, "out"), exist_ok=True)
    try:
        run("coco")
    except KeyboardInterrupt:
        print(f"Stopped after {len(memory) - 1} pictures.")
    for format in WRITERS:
        run(format)
    second = np.array(memory[len(memory) // 2 :])
    slope = np.polyfit(np.arange(len(second)), second, 1)[0]
    page = os.path.getsize(os.path.join(values.output_dir, "out", "review.html")) / 2**20
    print(
        f"Second half: {second.min():.1f} to {second.max():.1f} MiB; slope {slope * 1000:+.2f} MiB "
        f"in 1,000 pictures; {len(memory) - 1} localized in all; review.html has {page:.1f} MiB."
    )


if __name__ == "__main__":
    flags.DEFINE_integer("pictures", 10000, "Pictures to annotate.", lower_bound=20)
    flags.DEFINE_string("output_dir", "annotations", "Folder for pictures and results.")
    app.run(main)
