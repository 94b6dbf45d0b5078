"""Provokes the ways in which trainings fail, and shows their maps and what the runs say of them.

    python benchmarks/signatures.py --output_dir=SIGNATURES

trains on drawn objects once for each line of PROVOCATIONS, one after the other, each in a folder of
its own; what is finished is not trained again. It writes SIGNATURES/table.md, and signatures.png:
the same pictures after each run, with the raw score map and the mask. --only=NAME trains that one
alone, and may be repeated.
"""

import csv
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import keras
import numpy as np
from absl import app, flags

from wsol_tf import files, programs
from wsol_tf.config import Config
from wsol_tf.data.batches import evaluation_batches
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.transforms import View
from wsol_tf.model import alignment
from wsol_tf.model.score_maps import localize
from wsol_tf.report import pictures
from wsol_tf.training import train

BASE = {
    "dataset": "shapes", "num_examples": 320, "width": 0.25, "extractor_weights": "drawn",
    "input_size": 96, "head_width": 128, "localizer": "agnostic", "epochs": 8, "batch_size": 16,
    "lr_drops": "0.8", "validate_every": 0, "checkpoint_every_minutes": 0.0,
}  # fmt: skip
# The default recipe that the page's figures were made with; the published one has its own.
RECIPE = {
    "min_crop": 1.0, "ae_threshold": 0.7, "ae_weight": 0.1, "pseudo_target": "mask",
    "pseudo_balance": False, "pseudo_weight": 1.0, "pseudo_low": 0.1,
}  # fmt: skip
AT_ONCE = {"localization_start": 0.0, "erasing_start": 0.0, "pseudo_start": 0.0, "warmup": 0.0}
PSEUDO_AT_ONCE = {**AT_ONCE, "pseudo_weight": 30.0}
# What a reader is shown it as -> the settings that differ from BASE.
PROVOCATIONS = {
    "default": {},
    # the mask covers a part, or nothing
    "ac_weight=5": {"ac_weight": 5.0},
    "ac_weight=15": {"ac_weight": 15.0},
    "recipe=bas": {"recipe": "bas"},
    "ae_weight=0, ae_fg_weight=0": {"ae_weight": 0.0, "ae_fg_weight": 0.0},
    "bas_weight=0": {"bas_weight": 0.0},
    # the mask covers too much, or everything
    "ac_weight=0.15": {"ac_weight": 0.15},
    "ac_weight=0": {"ac_weight": 0.0},
    "cls_fg_weight=20": {"cls_fg_weight": 20.0},
    "bas_weight=50": {"bas_weight": 50.0},
    # the classifier is poor
    "head_width=1": {"head_width": 1},
    "learning_rate=1e-5": {"learning_rate": 1e-5},
    "learning_rate=0.1": {"learning_rate": 0.1},
    "extractor_weights=none": {"extractor_weights": "none"},
    "ae_weight=5, ae_fg_weight=5": {"ae_weight": 5.0, "ae_fg_weight": 5.0},
    "ae_weight=5, ae_threshold=0.05": {"ae_weight": 5.0, "ae_threshold": 0.05},
    # the training is unstable
    "pseudo_weight=30": {"pseudo_weight": 30.0},
    "pseudo_weight=30, all terms from the start": PSEUDO_AT_ONCE,
    "pseudo_high=0.1, pseudo_low=0.05": {"pseudo_high": 0.1, "pseudo_low": 0.05},
    "pseudo_high=1, pseudo_low=0": {"pseudo_high": 1.0, "pseudo_low": 0.0},
    "all terms from the start": AT_ONCE,
    "learning_rate=0.01": {"learning_rate": 0.01},
    "localizer_multiplier=1": {"localizer_multiplier": 1.0},
}
DRAWN = (
    "default", "ac_weight=15", "recipe=bas", "ac_weight=0.15", "head_width=1",
    "learning_rate=1e-5", "learning_rate=0.1", "extractor_weights=none", "pseudo_weight=30",
    "pseudo_weight=30, all terms from the start",
)  # fmt: skip
SHOWN = (0, 1, 2, 3)  # pictures of the split that is scored
COLUMNS = ("settings", "GT-known Loc", "mask mIoU", "part only, too big", "area",
           "right in training, scored", "what the run says")  # fmt: skip

FLAGS = flags.FLAGS
flags.DEFINE_string("output_dir", None, "Folder of the runs and of the table.", required=True)
flags.DEFINE_multi_string("only", [], "Name of a provocation; without it all of them are run.")


def provoke(name, folder):
    """Trains a provocation, or reads its finished run; returns (line of the table, model or None).

    No model is returned where the loss was no finite number.
    """
    settings = {**BASE, **PROVOCATIONS[name], "output_dir": folder}
    recipe = settings.pop("recipe", "default")
    if recipe == "default":
        settings = RECIPE | settings
    try:
        model, figures = train(Config.recipe(recipe, **settings), log=lambda text: None)
    except FloatingPointError as error:
        return f"| `{name}` {'|' * (len(COLUMNS) - 2)} | {programs.shown(str(error))} |", None
    with open(os.path.join(folder, "history.csv"), newline="") as file:
        last = list(csv.DictReader(file))[-1]
    outcomes = figures["outcomes"]
    cells = (
        f"`{name}`",
        f"{figures['gt_known_loc']:.3f}",
        f"{figures['miou_mask']:.3f}",
        f"{outcomes['part_only']}, {outcomes['too_big']}",
        f"{float(last['ac']):.2f}",
        f"{float(last['top1_cls']):.2f}, {figures['top1_cls']:.2f}",
        "<br>".join(figures["warnings"]) or "nothing",
    )
    return f"| {' | '.join(cells)} |", model


def tiles_of(model):
    """Draws the pictures as a model sees them: its map as it is, the mask and the boxes."""
    config = Config(**BASE)
    source = open_dataset("shapes", split="val", image_size=config.crop_from)
    view = View(config.input_size, config.crop_from)
    (examples,) = evaluation_batches(source, SHOWN, view)
    maps = model(np.stack([example.image for example in examples]))["localization_map"]
    tiles = []
    for example, channels in zip(examples, np.asarray(maps), strict=True):
        raw = alignment.placed(channels[..., 0], model.offset)
        _, mask, box = localize(raw, *example.image.shape[:2], model.thresholds[model.map])
        shown = {"true_boxes": example.boxes, "side": 110}
        tiles.append(pictures.triptych(example.image, raw, mask, box, **shown))
    return tiles


def main(argv):
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    sections = {}
    for name in FLAGS.only or PROVOCATIONS:
        folder = os.path.join(FLAGS.output_dir, re.sub("[^a-z0-9_=.-]+", "_", name))
        line, model = provoke(name, folder)
        lines.append(line)
        print(line, flush=True)
        if model is not None and (FLAGS.only or name in DRAWN):
            sections[name] = tiles_of(model)
        keras.backend.clear_session()
    files.write(os.path.join(FLAGS.output_dir, "table.md"), "\n".join(lines) + "\n")
    if sections:
        title = "Drawn objects: the picture, its score map as it is, the mask with its box"
        sheet = pictures.contact_sheet(sections, columns=len(SHOWN), title=title)
        files.write(os.path.join(FLAGS.output_dir, "signatures.png"), pictures.as_png(sheet))


if __name__ == "__main__":
    app.run(main)
