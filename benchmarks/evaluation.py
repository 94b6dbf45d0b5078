"""Measures the scoring of score maps against a direct implementation that thresholds each time.

    python benchmarks/evaluation.py --num_maps=12
    python benchmarks/evaluation.py --num_maps=12 --wsolevaluation=FOLDER

Counts the images per second of MaxBoxAcc (single contour) and MaxBoxAccV2 (all contours) at 1000
thresholds and three IoU levels, and checks that both ways give equal counts. Each map is scored by
each way in turn, so that what else the machine does meets all of them alike; the ratio is that of
the medians of CPU time over the maps of a kind. Maps are drawn from a seed:

    object   28x28 -> 224x224: one bump over weak noise, as a trained localizer gives
    smooth   28x28 -> 224x224: smoothed noise, many hills, valleys and holes
    coarse   28x28 -> 224x224: noise
    noise    224x224: noise in every pixel (fewer maps: the direct way takes seconds for each)

The direct way is this file's own, and leaner than wsolevaluation's code: it keeps boxes in one list
and compares them with the true ones in one go. --wsolevaluation names a checkout of that code
(https://github.com/clovaai/wsolevaluation), whose `BoxEvaluator.accumulate` is then measured beside
it, as it stands; it must count alike too. Loading and resizing of maps is in no way's time, and all
run on one thread. For both metrics at once these two need two runs. Last come the maps per second
of wall time that both metrics reach in this process and in as many others as there are cores, once
they have started.
"""

import functools
import importlib
import importlib.util
import os
import statistics
import sys
import time
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import cv2
import numpy as np
from absl import app, flags

from wsol_tf.evaluation import workers
from wsol_tf.evaluation.contour_boxes import THRESHOLDS, inclusive_iou
from wsol_tf.evaluation.wsolevaluation import IOU_LEVELS, BoxAccuracy, standard_map

SIZE = 224
CONTOURS = ("single", "multi")
BOXES = np.array([[40, 50, 160, 170], [100, 20, 200, 120]])


def draw_map(kind, rng):
    """Draws one score map, float64 [224, 224] in 0..1."""
    noise = rng.random((28, 28))
    if kind == "noise":
        return rng.random((SIZE, SIZE))
    if kind == "smooth":
        noise = cv2.GaussianBlur(noise, (0, 0), 2.5)
    if kind == "object":
        y, x = np.mgrid[:28, :28]
        (cx, cy), (sx, sy) = rng.uniform(8, 20, 2), rng.uniform(3, 6, 2)
        bump = np.exp(-(((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2) / 2)
        noise = bump + 0.2 * cv2.GaussianBlur(noise, (0, 0), 1.5)
    return standard_map(noise)


class DirectBoxAccuracy:
    """The plain way: one thresholded mask and one search for contours at each threshold."""

    def __init__(self, contours):
        self.contours = contours
        self.num_correct = np.zeros((len(IOU_LEVELS), len(THRESHOLDS)), int)

    def add(self, score_map, boxes):
        height, width = score_map.shape
        image = (score_map * 255).astype(np.uint8)
        highest = image.max()
        found, counts = [], []
        for threshold in THRESHOLDS:
            level = int(threshold * highest)
            mask = cv2.threshold(image, level, 255, cv2.THRESH_BINARY)[1]
            contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
            if contours and self.contours == "single":
                contours = [max(contours, key=cv2.contourArea)]
            for contour in contours:
                x, y, w, h = cv2.boundingRect(contour)
                found.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
            if not contours:
                found.append([0, 0, 0, 0])
            counts.append(max(len(contours), 1))
        ious = inclusive_iou(np.array(found), boxes).max(1)
        ious = np.maximum.reduceat(ious, np.cumsum([0, *counts[:-1]]))
        self.num_correct += ious >= np.array(IOU_LEVELS)[:, None]


class StandardBoxAccuracy:
    """wsolevaluation's own code, out of a checkout."""

    def __init__(self, contours):
        self.evaluator = evaluator = object.__new__(_standard_code().BoxEvaluator)
        # What its constructor reads from metadata files.
        evaluator.cam_threshold_list = THRESHOLDS
        evaluator.iou_threshold_list = [round(100 * level) for level in IOU_LEVELS]
        evaluator.multi_contour_eval = contours == "multi"
        evaluator.gt_bboxes = {"a map": BOXES}
        evaluator.cnt = 0
        levels = evaluator.iou_threshold_list
        evaluator.num_correct = {level: np.zeros(len(THRESHOLDS)) for level in levels}

    @property
    def num_correct(self):
        return np.array(list(self.evaluator.num_correct.values()))

    def add(self, score_map, boxes):
        assert boxes is BOXES
        self.evaluator.accumulate(score_map.astype(np.float64), "a map")


@functools.cache
def _standard_code():
    # That code is of 2020: NumPy has no np.float any more. What it imports besides, such as torch,
    # the evaluation of boxes does not use.
    for name, kind in (("float", float), ("int", int)):
        if name not in vars(np):
            setattr(np, name, kind)
    packages = ("munch", "torch", "torchvision")
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    for name in (*packages, "torch.utils", "torch.utils.data"):
        if name.split(".")[0] in missing:
            sys.modules[name] = mock.MagicMock()
    sys.path.insert(0, flags.FLAGS.wsolevaluation)
    return importlib.import_module("evaluation")


def seconds(function, clock=time.process_time):
    """CPU seconds of a call."""
    start = clock()
    function()
    return clock() - start


def measure(kind, maps):
    """Prints the speeds of each way on one kind of maps; stops if their counts differ."""
    plain = {"direct": DirectBoxAccuracy}
    if flags.FLAGS.wsolevaluation:
        plain["standard"] = StandardBoxAccuracy
    plain = {way: {name: make(name) for name in CONTOURS} for way, make in plain.items()}
    ours = {name: BoxAccuracy(contours=[name]) for name in CONTOURS}
    both = BoxAccuracy()
    times = {}

    def note(way, function):
        times.setdefault(way, []).append(seconds(function))

    for i, score_map in enumerate(maps):
        for name in CONTOURS:
            for way, scored in plain.items():
                note((way, name), lambda n=name, m=score_map, s=scored: s[n].add(m, BOXES))
            note(("ours", name), lambda n=name, m=score_map, i=i: ours[n].add(i, m, BOXES))
        note(("ours", "both"), lambda m=score_map, i=i: both.add(i, m, BOXES))
    for name in CONTOURS:
        counts = [scored[name].num_correct for scored in plain.values()]
        for one in (ours[name].num_correct[name], both.num_correct[name]):
            if not all(np.array_equal(one, count) for count in counts):
                raise SystemExit(f"{kind}, {name}: two ways count differently.")
    median = {way: statistics.median(values) for way, values in times.items()}
    for way in plain:
        median[way, "both"] = sum(median[way, name] for name in CONTOURS)
    for name in (*CONTOURS, "both"):
        fast = median["ours", name]
        slow = [median[way, name] for way in plain]
        cells = "".join(f"{1 / time:12.1f}{time / fast:9.1f}x" for time in slow)
        print(f"{kind:8}{name:8}{1 / fast:12.1f}{cells}", flush=True)


def score(maps):
    """Scores maps for both metrics."""
    both = BoxAccuracy()
    for i, score_map in enumerate(maps):
        both.add(i, score_map, BOXES)
    return both


def measure_processes(maps, map_chunks, count, rounds=5):
    """Prints the speed in this process and in those of `workers.mapper`, in turn."""
    chunks = [maps] * 20
    times = {map: [], map_chunks: []}
    list(map_chunks(score, chunks))  # starts them
    for way in [*times] * rounds:
        times[way].append(seconds(lambda w=way: list(w(score, chunks)), time.perf_counter))
    one, several = (statistics.median(values) for values in times.values())
    scored = sum(map(len, chunks))
    print(f"this process {scored / one:.0f}/s, {count} others {scored / several:.0f}/s, "
          f"{one / several:.2f}x")  # fmt: skip


def main(argv):
    del argv
    cv2.setNumThreads(1)
    rng = np.random.default_rng(flags.FLAGS.seed)
    columns = ["direct"] + ["standard"] * bool(flags.FLAGS.wsolevaluation)
    titles = "".join(f"{way + '/s':>12}{'ratio':>10}" for way in columns)
    measure("warm-up", [draw_map("object", rng)])
    print(f"{'maps':8}{'contours':8}{'ours/s':>12}{titles}")
    for kind in flags.FLAGS.kinds:
        count = max(flags.FLAGS.num_maps // 6, 2) if kind == "noise" else flags.FLAGS.num_maps
        measure(kind, [draw_map(kind, rng) for _ in range(count)])
    count = os.cpu_count()
    with workers.mapper(count) as map_chunks:
        measure_processes([draw_map("object", rng) for _ in range(16)], map_chunks, count)


if __name__ == "__main__":
    kinds = ["object", "smooth", "coarse", "noise"]
    flags.DEFINE_multi_enum("kinds", kinds, kinds, "Kinds of maps.")
    flags.DEFINE_integer("num_maps", 12, "Maps of each kind.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of the maps.")
    flags.DEFINE_string("wsolevaluation", None, "A checkout of wsolevaluation, to measure too.")
    app.run(main)
