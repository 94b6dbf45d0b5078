"""Contact sheets of localizations: the best, the median and the worst, and examples of errors."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsol_tf import files
from wsol_tf.data.annotation import first_ten
from wsol_tf.data.source import Report, Source
from wsol_tf.evaluation.localized_map import OUTCOMES, LocalizedMap, measured_thresholds
from wsol_tf.evaluation.pairs import Method
from wsol_tf.report import definitions, pictures
from wsol_tf.report.predictions import to_stderr

Prediction = Mapping[str, Any]  # a line of predictions.jsonl, see `evaluation.scores.prediction`
Tiles = dict[str, list[tuple[np.ndarray, str]]]  # heading -> pictures with their captions


def sheet_title(dataset: str, data_dir: str, split: str) -> str:
    """Heading of a contact sheet: the data set's folder, or its name, and the split."""
    return f"{os.path.basename(os.path.normpath(data_dir or dataset))}, {split}"


def best_median_worst(
    predictions: Sequence[Prediction], each: int = 6
) -> dict[str, list[Prediction]]:
    """Picks predictions by box IoU.

    Args:
        predictions: all of a data set; without boxes the first ones are picked.
        each: how many of the best, the median and the worst.

    Returns:
        dict heading -> predictions.
    """
    ranked = sorted((line for line in predictions if "iou" in line), key=lambda line: -line["iou"])
    if not ranked:
        return {"": list(predictions[: 3 * each])}
    if len(ranked) <= 3 * each:
        return {"all, best first": ranked}
    middle = (len(ranked) - each) // 2
    return {
        "best": ranked[:each],
        "median": ranked[middle : middle + each],
        "worst": ranked[-each:],
    }


def examples_of_errors(
    predictions: Sequence[Prediction], each: int = 6
) -> dict[str, list[Prediction]]:
    """Picks predictions of every kind of error, least wrong first.

    Args:
        predictions: all of a data set.
        each: how many of each kind.

    Returns:
        dict outcome -> predictions, in the order of OUTCOMES.
    """
    found = {}
    for outcome in OUTCOMES[1:]:
        kind = [line for line in predictions if line.get("outcome") == outcome]
        kind.sort(key=lambda line: -line["iou"])
        if kind:
            spread = np.linspace(0, len(kind) - 1, min(each, len(kind))).round().astype(int)
            found[outcome] = [kind[i] for i in spread]
    return found


def empty_pictures(predictions: Sequence[Prediction], each: int = 6) -> dict[str, list[Prediction]]:
    """Picks pictures without any object, those in which most is found first; {} without such."""
    ranked = sorted(
        (line for line in predictions if "false_area" in line), key=lambda line: -line["false_area"]
    )
    return {"without object, most found first": ranked[:each]} if ranked else {}


def draw_tiles(method: Method, source: Source, predictions: Sequence[Prediction]) -> Tiles:
    """Draws examples: the best, the median and the worst, and some of each kind of error.

    Args:
        method: what the predictions are of; it predicts the pictures that are drawn again.
        source: the data set.
        predictions: all of them, see `evaluation.score.score`.

    Returns:
        dict heading -> list of (uint8 `[height, width, 3]`, caption).
    """
    chosen = best_median_worst(predictions) | empty_pictures(predictions)
    return draw(method, source, chosen | examples_of_errors(predictions))


def draw(method: Method, source: Source, sections: Mapping[str, Sequence[Prediction]]) -> Tiles:
    """Draws predictions, each as picture | score map | mask.

    Args:
        method: what the predictions are of.
        source: the data set.
        sections: heading -> predictions.

    Returns:
        dict heading -> list of (uint8 `[height, width, 3]`, caption). Pictures that can't be read
        any more are named on stderr and left out.
    """
    kind = method.kinds[0]
    threshold = method.thresholds[kind]
    measured = measured_thresholds([threshold])
    kept = dataclasses.replace(source, report=Report())  # what is missing now ends nothing
    wanted = {line["image_id"] for section in sections.values() for line in section}
    positions = [i for i, name in enumerate(source.image_ids) if name in wanted]
    drawn = {}
    for pair in method.pairs(kept, positions, kinds=[kind], batch_size=8):
        localized = LocalizedMap(pair, kind, threshold, measured)
        nothing = pair.empty and localized.class_rank[0] == 0
        drawn[pair.image_id, source.classes[pair.label]] = pictures.triptych(
            pair.image,
            localized.score_map,
            np.zeros_like(localized.mask) if nothing else localized.mask,
            None if nothing else localized.box,
            true_boxes=() if pair.boxes is None else pair.boxes,
            side=200,
        )
    if kept.report.skipped:
        gone = first_ten([files.printable(name) for name in sorted(kept.report.skipped)])
        to_stderr(f"Left out of the contact sheet, can't be read any more: {gone}.")
    return {
        heading: [
            (drawn[key], caption(line))
            for line in section
            if (key := (line["image_id"], line["label"])) in drawn
        ]
        for heading, section in sections.items()
    }


def caption(line: Prediction) -> str:
    """Says a prediction in a few words: box IoU, class, probability, and what became of it."""
    text = f"{line['class']} {line['probability'] or 0:.0%}"
    if line["class"] is None:
        text = line["label"]
    elif line["class"] != line["label"]:
        text += f" (true: {line['label']})"
    if "false_area" in line:
        found = "nothing found" if line["box"] is None else f"{line['false_area']:.0%} found"
        text = f"{found}, {text}"
    if "iou" in line:
        # Cut, not rounded: 0.50 stands under what is right, 0.49 under what is not.
        text = f"IoU {np.floor(line['iou'] * 100 + 1e-9) / 100:.2f}, {text}"
        if line["outcome"] not in ("right", "wrong_class"):
            text += f", {definitions.DISPLAY_NAMES[line['outcome']]}"
    return text


def contact_sheet_of(tiles: Tiles, title: str) -> np.ndarray:
    """Lays tiles out as a contact sheet, uint8 `[height, width, 3]`; see `draw`."""
    note = "picture | score map | mask, its box in cyan, the true boxes dashed in white"
    rows = {
        heading: [pictures.with_caption(picture, text) for picture, text in row]
        for heading, row in tiles.items()
    }
    return pictures.contact_sheet(rows, title=f"{title}\n{note}", columns=3)


def write_contact_sheet(path: str | os.PathLike, tiles: Tiles, title: str) -> None:
    """Writes the best, the median and the worst as a picture; examples of errors stay out of it.

    Where there is no tile, because no picture could be read any more, nothing is written.

    Args:
        path: file to write.
        tiles: see `draw_tiles`.
        title: heading of the sheet.
    """
    shown = {heading: row for heading, row in tiles.items() if heading not in OUTCOMES}
    if any(shown.values()):
        files.write(path, pictures.as_png(contact_sheet_of(shown, title)))
