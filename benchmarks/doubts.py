"""Asks whether the pictures that annotate calls doubtful have the worse boxes.

    python benchmarks/doubts.py --model=RUN/model.keras --data_dir=D --split=val

Pictures with true boxes are localized as annotate does it. For each doubt, and for their mean,
which orders the pictures, it prints the area under the ROC curve (is a wrong box, IoU below 0.5,
more doubtful than a right one; 0.5 is chance), and what the most doubtful fifth has more than those
chosen at random, which are as all are: wrong boxes, and 1 - IoU, which is what correcting them
repairs. Intervals are the bootstrap's over pictures, 95 %.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
from absl import app, flags

from wsol_tf.annotate import localizer_of
from wsol_tf.annotations.uncertainty import doubts
from wsol_tf.data.registry import open_dataset
from wsol_tf.evaluation.iou import box_iou
from wsol_tf.model.build import load_model

SAMPLES = 2000


def auc(wrong, values):
    """Probability that a wrong box is more doubtful than a right one; equal ones count half."""
    above = values[wrong][:, None] - values[~wrong][None]
    return ((above > 0) + 0.5 * (above == 0)).mean() if above.size else np.nan


def excess(cost, values, share):
    """Mean cost of the most doubtful share of the pictures, less that of all."""
    chosen = np.argsort(-values, kind="stable")[: max(1, round(len(values) * share))]
    return cost[chosen].mean() - cost.mean()


def interval(compute, number, rng):
    """Computes a figure of all pictures, and its bootstrap interval."""
    drawn = [compute(rng.integers(number, size=number)) for _ in range(SAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return f"{compute(np.arange(number)):+.3f} [{low:+.3f}, {high:+.3f}]"


def main(argv):
    values = flags.FLAGS
    model = load_model(values.model)
    source = open_dataset(values.dataset, values.data_dir, values.split, classes=model.classes)
    localize = localizer_of(
        model, kind=None, threshold="stored", classes="predicted", max_objects=1
    )
    rows, ious = [], []
    for i in range(len(source)):
        example = source.read_example(i)
        if not len(example.boxes):
            continue
        found, cam_mask = localize(example.image)
        ious.append(float(box_iou(found.box[None], example.boxes).max()))
        rows.append(
            doubts(found.score_map, found.mask, cam_mask=cam_mask, probability=found.probability)
        )
    iou, number = np.array(ious), len(ious)
    wrong = iou < 0.5
    print(
        f"{number} pictures of {source.name}: {wrong.sum()} wrong boxes, mean IoU {iou.mean():.3f}"
    )
    named = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    named["uncertainty (their mean)"] = np.mean([*named.values()], axis=0)
    for name, doubt in named.items():
        rng = np.random.default_rng(0)
        figures = (
            interval(lambda i, d=doubt: auc(wrong[i], d[i]), number, rng),
            interval(lambda i, d=doubt: excess(wrong[i], d[i], values.share), number, rng),
            interval(lambda i, d=doubt: excess(1 - iou[i], d[i], values.share), number, rng),
        )
        print(
            f"{name:25} AUC {figures[0]}, wrong boxes {figures[1]}, 1 - IoU {figures[2]}",
            flush=True,
        )


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "The .keras file.", required=True)
    flags.DEFINE_string("dataset", "voc_folder", "Kind of the data set, with boxes.")
    flags.DEFINE_string("data_dir", None, "Its folder.", required=True)
    flags.DEFINE_string("split", "val", "Its split.")
    flags.DEFINE_float("share", 0.2, "Of the pictures, that are chosen.")
    app.run(main)
