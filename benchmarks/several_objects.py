"""Measures how many of several objects a model finds, beside CAM and boxes of no model.

    python benchmarks/several_objects.py --model=RUN/model.keras --data_dir=D --split=val

reads folders in VOC layout (several --data_dir are put together), sees whole pictures and prints a
row for each way to find objects: AP50 and AP as COCO computes them, CorLoc, and the recall at IoU
0.5 in pictures with one object, two, three, four and more, with a 95 % interval by bootstrap over
the pictures, and the number of objects. Then come the same with small components left out, the
classes that are found in place of those given, and classes as pixels where there are masks.
"""

import itertools
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
from absl import app, flags

from wsol_tf import programs
from wsol_tf.data.registry import open_dataset
from wsol_tf.evaluation import baselines
from wsol_tf.evaluation.localized_map import LocalizedMap, measured_thresholds
from wsol_tf.evaluation.methods import method_of
from wsol_tf.evaluation.object_metrics import MANY, ObjectMetrics
from wsol_tf.evaluation.paired import bootstrap_mean
from wsol_tf.evaluation.scored_pair import centered_box
from wsol_tf.evaluation.several_objects import SeveralObjects
from wsol_tf.model.build import load_model
from wsol_tf.model.score_maps import WHOLE

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2)  # min_area
CENTRED = (0.25, 0.5, 1.0)  # areas of centred boxes, shares of the view


def localized_pictures(model, folders, split, kind):
    """Yields (picture number, list of kind -> LocalizedMap) of every picture."""
    center = baselines.center_map()
    for number, folder in enumerate(folders):
        source = open_dataset("voc_folder", folder, split, classes=model.classes)
        method = method_of(model, kind=kind, view="whole")
        thresholds = {**method.thresholds, "center": 0.5}
        measured = measured_thresholds(t for t in thresholds.values() if t != "otsu")
        pairs = method.pairs(source, range(len(source)), presence=method.presence)
        for position, picture in itertools.groupby(pairs, key=lambda pair: pair.position):
            maps = []
            for pair in picture:
                pair.maps["center"] = center
                apart = method.separated_kinds
                one = {
                    kind: LocalizedMap(
                        pair, kind, thresholds[kind], measured, separate=kind in apart
                    )
                    for kind in pair.maps
                }
                one["otsu"] = LocalizedMap(pair, kind, "otsu", measured, separate=kind in apart)
                if "cam" in pair.maps:  # of a class that is only found there is one map
                    one["cam, Otsu"] = LocalizedMap(pair, "cam", "otsu", measured)
                maps.append(one)
            yield f"{number}_{position}", maps


def row(name, metrics, class_names):
    """Prints the figures of one way to find objects."""
    figures = metrics.result(class_names)
    text = "".join(f"{figures[key]:8.3f}" for key in ("ap50", "ap", "corloc"))
    for number in range(1, MANY + 1):
        values, groups = [], []
        for (image_id, _), part in metrics.parts.items():
            if part.num_objects and min(part.in_picture, MANY) == number:
                hits = int(part.matched[0].sum())
                values += [1.0] * hits + [0.0] * (part.num_objects - hits)
                groups += [image_id] * part.num_objects
        mean, low, high = bootstrap_mean(values, groups)
        text += f"  {mean:.3f} ({low:.3f}..{high:.3f})" if values else f"{'-':>22}"
    print(f"{name:28}{text}{figures['num_boxes']:8}", flush=True)


def main(_):
    """Prints all rows."""
    options = flags.FLAGS
    model = load_model(options.model)
    kind = "true" if model.localizer.output.shape[-1] > 1 else "mean"
    several = {
        (scored, share): SeveralObjects(
            (scored,), model.presence_threshold, len(model.classes), min_area=share
        )
        for scored, shares in (
            (kind, SHARES),
            *([(WHOLE, (0.0, 0.1))] if model.separate else []),
            ("otsu", (0.0,)),
            ("cam", (0.0,)),
            ("cam, Otsu", (0.0,)),
            ("center", (0.0,)),
        )
        for share in shares
    }
    fixed = {share: ObjectMetrics() for share in CENTRED}
    counts = np.zeros(MANY + 1, int)
    for name, maps in localized_pictures(model, options.data_dir, options.split, kind):
        for one in maps:
            for localized in one.values():
                object.__setattr__(localized.pair, "image_id", name)
        present = [one for one in maps if next(iter(one.values())).pair.present]
        for (scored, _), metrics in several.items():
            # Of a class that is only found there is one map.
            metrics.add(maps if scored in (kind, "otsu") else present)
        in_picture = sum(len(one[kind].pair.boxes) for one in present)
        counts[min(in_picture, MANY)] += in_picture
        for one in present:
            pair = one[kind].pair
            sure = [pair.all_probabilities[pair.label]]
            for share, metrics in fixed.items():
                box = centered_box(pair.image.shape[:2], share)[None]
                metrics.add(name, pair.label, box, sure, pair.boxes, in_picture)
    print(f"objects in pictures with one, two, three, four and more: {counts[1:].tolist()}")
    print_tables(model, kind, several, fixed)


def print_tables(model, kind, several, fixed):
    """Prints a row for each way to find objects, and what their classes are worth as pixels."""
    print(f"{'':28}{'AP50':>8}{'AP':>8}{'CorLoc':>8}" + "".join(
        f"{name:>22}" for name in ("recall, one object", "two", "three", "four and more")
    ) + f"{'boxes':>8}")  # fmt: skip
    names = {
        kind: "localizer",
        WHOLE: "the same, not separated",
        "otsu": "localizer, Otsu",
        "cam": "CAM",
        "cam, Otsu": "CAM, Otsu",
        "center": "blob in the centre",
    }
    for (scored, share), metrics in several.items():
        least = f", min_area {share:g}" if share else ""
        row(names[scored] + least, metrics.given, model.classes)
    for share, metrics in fixed.items():
        row(f"centred box of {share:.0%}", metrics, model.classes)
    found = several[kind, 0.0]
    if found.found.result(model.classes):
        row("localizer, classes found", found.found, model.classes)
        row("the same, min_area 0.1", several[kind, 0.1].found, model.classes)
        print(f"presence threshold {model.presence_threshold:.2g}")
    for scored in (kind, "otsu", "cam"):
        metrics = several[scored, 0.0]
        pixels = metrics.pixels_given.result(model.classes)
        if pixels:
            text = f"classes as pixels, {names[scored]}: mIoU {pixels['miou']:.3f} given"
            others = metrics.pixels_found.result(model.classes) if scored != "cam" else None
            print(text + (f", {others['miou']:.3f} found" if others else ""))


if __name__ == "__main__":
    programs.define_path("model", None, "The .keras file that train wrote.", required=True)
    flags.DEFINE_multi_string(
        "data_dir", None, "Folder in VOC layout; several: all.", required=True
    )
    flags.DEFINE_string("split", "val", "Split that is scored.")
    app.run(main)
