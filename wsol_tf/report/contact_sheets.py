"""Contact sheets of localizations: the best, the median and the worst."""

import os

import numpy as np

from wsol_tf.evaluation.metrics import OUTCOMES
from wsol_tf.model.score_maps import localize
from wsol_tf.report import definitions, pictures


def sheet_title(dataset, data_dir, split):
    """Heading of a contact sheet: the data set's folder, or its name, and the split."""
    return f"{os.path.basename(os.path.normpath(data_dir or dataset))}, {split}"


def best_median_worst(lines, each=6):
    """Picks lines of predictions by box IoU: dict heading -> list of lines."""
    ranked = sorted((line for line in lines if "iou" in line), key=lambda line: -line["iou"])
    if not ranked:
        return {"": lines[: 3 * each]}
    if len(ranked) <= 3 * each:
        return {"all, best first": ranked}
    middle = (len(ranked) - each) // 2
    return {
        "best": ranked[:each],
        "median": ranked[middle : middle + each],
        "worst": ranked[-each:],
    }


def examples_of_errors(lines, each=6):
    """Picks lines of every kind of error, least wrong first: dict outcome -> list of lines."""
    found = {}
    for outcome in OUTCOMES[1:]:
        kind = [line for line in lines if line.get("outcome") == outcome]
        kind.sort(key=lambda line: -line["iou"])
        if kind:
            spread = np.linspace(0, len(kind) - 1, min(each, len(kind))).round().astype(int)
            found[outcome] = [kind[i] for i in spread]
    return found


def draw(method, source, sections):
    """Draws lines of predictions: dict heading -> list of (uint8 [height, width, 3], caption).

    Args:
        method: the Method that the lines are of.
        source: a `datasets.Source`.
        sections: dict heading -> list of lines.
    """
    kind = method.kinds[0]
    wanted = {line["image_id"] for section in sections.values() for line in section}
    positions = [i for i, name in enumerate(source.image_ids) if name in wanted]
    drawn = {}
    for pair in method.pairs(source, positions, kinds=[kind], batch_size=8):
        score_map, mask, box = localize(
            pair.maps[kind], *pair.image.shape[:2], method.thresholds[kind]
        )
        drawn[pair.image_id, source.classes[pair.label]] = pictures.triptych(
            pair.image,
            score_map,
            mask,
            box,
            true_boxes=() if pair.boxes is None else pair.boxes,
            side=200,
        )
    return {
        heading: [(drawn[line["image_id"], line["label"]], caption(line)) for line in section]
        for heading, section in sections.items()
    }


def caption(line):
    """A line of predictions in a few words: box IoU, class, probability, what became of it."""
    text = f"{line['class']} {line['probability'] or 0:.0%}"
    if line["class"] is None:
        text = line["label"]
    elif line["class"] != line["label"]:
        text += f" (true: {line['label']})"
    if "iou" in line:
        # Cut, not rounded: 0.50 stands under what is right, 0.49 under what is not.
        text = f"IoU {np.floor(line['iou'] * 100 + 1e-9) / 100:.2f}, {text}"
        if line["outcome"] not in ("right", "wrong_class"):
            text += f", {definitions.DISPLAY_NAMES[line['outcome']]}"
    return text


def contact_sheet_of(tiles, title):
    """Lays drawn tiles out as a contact sheet, see `draw`."""
    note = "picture | score map | mask, its box in cyan, the true boxes dashed in white"
    rows = {
        heading: [pictures.with_caption(picture, text) for picture, text in row]
        for heading, row in tiles.items()
    }
    return pictures.contact_sheet(rows, title=f"{title}\n{note}", columns=3)
