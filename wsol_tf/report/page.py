"""One page that shows a scoring to people: figures, charts and pictures in a single HTML file.

This module prepares what is shown, report.html.jinja lays it out and report.css styles it. The
file that is written asks for nothing from elsewhere and runs no script: it can be mailed, archived
and printed. Jinja escapes everything that is put in, so that no class name becomes markup.
"""

import datetime
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from wsol_tf import files
from wsol_tf.evaluation.localized_map import OUTCOMES
from wsol_tf.evaluation.wsolevaluation import METRICS
from wsol_tf.report import charts
from wsol_tf.report.definitions import (
    DEFINITIONS,
    DISPLAY_NAMES,
    MAP_NAMES,
    certainty_in_words,
    definitions_of,
)
from wsol_tf.report.templates import chart_uri, embedded, template_environment

MOST_ROWS = 1000  # of the table of classes
MOST_NAMES = 100  # of a list of pictures
COMPARED = ("gt_known_loc", "top1_loc", "top5_loc", "miou_box", "miou_mask")
OF_CLASSES = ("gt_known_loc", "top1_loc", "miou_box", "miou_mask", "top1_cls")
PROVENANCE = (
    "model", "scored_on", "view", "map", "threshold", "threshold_from", "num_images", "num_pairs",
)  # fmt: skip

Figures = dict[str, Any]  # what metrics.json holds
Tiles = dict[str, list[tuple[np.ndarray, str]]]  # heading -> [(picture, caption)]


def draw_charts(figures: Figures) -> dict[str, np.ndarray]:
    """Draws the charts of a scoring.

    Args:
        figures: what metrics.json holds.

    Returns:
        Dict of file name (no ending) -> uint8 RGB array `[height, width, 3]`; empty where the data
        has no boxes.
    """
    curves = figures["threshold_curves"]
    if curves is None:
        return {}
    fixed = figures["threshold"] != "otsu"
    per_class = figures["per_class"]
    drawn = {
        "threshold_curves": charts.threshold_curves(
            curves["score_map_thresholds"],
            {level / 100: curves[f"gt_known_loc_iou_{level}"] for level in (30, 50, 70)},
            chosen=(figures["threshold"], figures["gt_known_loc"]) if fixed else None,
            oracle=(figures["oracle_threshold"], figures["gt_known_loc_oracle"]),
            levels={
                "best centred box": figures["baselines"]["centered_box_oracle"]["gt_known_loc"],
                "Otsu per map": figures["gt_known_loc_otsu"],
            },
        ),
        "outcomes": charts.outcome_bars(
            {name: row["outcomes"] for name, row in _maps(figures)},
            {name: DISPLAY_NAMES[name] for name in OUTCOMES},
        ),
        "per_class": charts.class_bars(per_class["classes"], mean=per_class["gt_known_loc"]),
    }
    return {name: image for name, image in drawn.items() if image is not None}


def write_report(
    path: str | os.PathLike,
    figures: Figures,
    chart_images: dict[str, np.ndarray],
    tiles: Tiles,
    *,
    title: str,
    command: str,
) -> None:
    """Writes the page.

    The file stays below 4 MB whatever the size of the data set: lists of more than 1,000 classes
    or 100 pictures are cut, and say how many more there are.

    Args:
        path: file to write.
        figures: what metrics.json holds.
        chart_images: see `draw_charts`.
        tiles: dict of heading -> list of (uint8 picture `[height, width, 3]`, caption); examples of
            an error stand under the name of that outcome. See `contact_sheets.draw_tiles`.
        title: heading of the page.
        command: the command line that made the figures.
    """
    page = template_environment().get_template("report.html.jinja").render(
        title=title,
        command=command,
        today=f"{datetime.date.today():%d %B %Y}",
        figures=figures,
        names=DISPLAY_NAMES,
        definitions=DEFINITIONS,
        verdict=verdict(figures),
        cards=cards(figures),
        compared=[name for name in COMPARED if figures[name] is not None],
        maps=_maps(figures),
        baselines=baselines(figures),
        standard_metrics=_standard_metrics(figures),
        objects=_objects(figures),
        segmentation=_segmentation(figures),
        charts={name: chart_uri(image) for name, image in chart_images.items()},
        threshold_lesson=_threshold_lesson(figures),
        sheets=[(heading, embedded(row)) for heading, row in tiles.items()
                if heading not in OUTCOMES and row],
        outcomes=_outcomes(figures),
        errors=[(name, embedded(tiles[name])) for name in OUTCOMES[1:] if tiles.get(name)],
        class_table=_class_table(figures),
        troubles=list(troubles(figures)),
        provenance=[name for name in PROVENANCE if name in figures],
        defined=definitions_of(figures),
    )  # fmt: skip
    # File names may hold bytes that are no text: those become character references.
    files.write(path, page.encode(errors="xmlcharrefreplace"))


def verdict(figures: Figures) -> str:
    """Sums the scoring up in two or three sentences."""
    if figures["gt_known_loc"] is None:
        return (
            f"Scored: {files.counted(figures['num_pairs'], 'pair')} of a picture and a class in "
            "it. The data has no boxes, so boxes were not scored."
        )
    counts = figures["outcomes"]
    scored, right = sum(counts.values()), counts["right"]
    boxes = right + counts["wrong_class"]
    ahead = boxes - round(_centred_box(figures)["gt_known_loc"] * scored)
    both = "" if figures["top1_loc"] is None else f"Box and class are right for {right}. "
    what, of = "picture", ""
    if scored != figures["num_images"]:
        what, of = "pair", " of a picture and a class"
    return (
        f"The box is right for {boxes} of {files.counted(scored, what)}{of}, "
        f"{abs(ahead)} {'more' if ahead >= 0 else 'fewer'} than the best centred box gets "
        f"without looking. {both}{certainty_in_words(figures)}"
    )


def cards(figures: Figures) -> list[tuple[str, str, float, str]]:
    """Returns the headline figures: list of (kind, name, figure, note)."""
    at = (
        "at Otsu's threshold of each map"
        if figures["threshold"] == "otsu"
        else f"at the fixed threshold {figures['threshold']:.2f}, {figures['threshold_from']}"
    )
    found = [
        ("main", "gt_known_loc", figures["gt_known_loc"], f"right boxes, {at}"),
        ("", "top1_loc", figures["top1_loc"], "right box and right class, same threshold"),
        ("", "top1_cls", figures["top1_cls"], "right class, boxes play no part"),
        ("", "miou_mask", figures["miou_mask"], at),
    ]
    if figures["gt_known_loc"] is not None:
        centred = _centred_box(figures)
        bound, baseline = (
            f"upper bound: threshold {figures['oracle_threshold']:.2f} is the best on these very "
            "pictures",
            f"baseline that ignores the picture: {centred['area_fraction']:.0%} of the view, the "
            "best size on these very pictures",
        )
        found += [
            ("oracle", "gt_known_loc_oracle", figures["gt_known_loc_oracle"], bound),
            ("oracle", "Best centred box", centred["gt_known_loc"], baseline),
        ]
    intervals = figures.get("intervals", {})
    return [
        (kind, DISPLAY_NAMES.get(name, name), figure, _with_interval(note, intervals.get(name)))
        for kind, name, figure, note in found
        if figure is not None
    ]


def _with_interval(note, interval):
    if interval is None:
        return note
    low, high = interval
    return f"{low:.3f} to {high:.3f} with 95 % confidence; {note}"


def baselines(figures: Figures) -> list[tuple[str, dict[str, float], bool]]:
    """Returns the boxes chosen without looking: list of (name, figures, whether an oracle)."""
    if figures["gt_known_loc"] is None:
        return []
    centred = _centred_box(figures)
    return [
        ("whole view as box", figures["baselines"]["whole_view"], False),
        (f"best centred box ({centred['area_fraction']:.0%})", centred, True),
    ]


def _standard_metrics(figures):
    """The metrics of Choe et al. that were asked for: list of (name, figure, threshold, oracle)."""
    rows = []
    for name in METRICS:
        metric = figures.get(name)
        if metric is None or metric["value"] is None:
            continue
        shown = DISPLAY_NAMES[name]
        rows.append((shown, metric["value"], metric.get("threshold"), name != "pxap"))
        if name == "max_box_acc_v2":
            rows += [
                (f"{shown} at IoU {level}", row["accuracy"], row["threshold"], True)
                for level, row in metric["iou_levels"].items()
            ]
    return rows


def _objects(figures):
    """What was found of several objects: list of (name, figures)."""
    names = (("objects", "classes given"), ("detection", "classes found"))
    return [(name, figures[key]) for key, name in names if figures.get(key)]


def _segmentation(figures):
    """The mIoU of classes as pixels: list of (name, figures)."""
    found = figures.get("segmentation") or {}
    names = (("given", "classes given"), ("found", "classes found"))
    return [(name, found[key]) for key, name in names if found.get(key)]


def _threshold_lesson(figures):
    """What the threshold curves say about the threshold that was used."""
    if figures["gt_known_loc"] is None:
        return ""
    if figures["threshold"] == "otsu":
        return "Here each map has a threshold of its own, Otsu's, which needs no boxes."
    lost = figures["gt_known_loc_oracle"] - figures["gt_known_loc"]
    if lost > 0.0005:
        return (
            f"The chosen threshold loses {lost:.3f} against the oracle, which could not have "
            "been known beforehand."
        )
    return "The chosen threshold is as good as any on these pictures."


def _outcomes(figures):
    """How many pairs had each outcome: list of (outcome, count, share as text)."""
    counts = figures["outcomes"]
    if counts is None:
        return []
    total = max(1, sum(counts.values()))
    return [(name, counts[name], f"{counts[name] / total:.0%}") for name in OUTCOMES]


def _class_table(figures):
    """The figures of single classes, cut where there are very many."""
    classes = figures["per_class"]["classes"]
    rows = list(classes.items())[:MOST_ROWS]
    return {
        "columns": [c for c in OF_CLASSES if any(row[c] is not None for row in classes.values())],
        "rows": rows,
        "num_cut": len(classes) - len(rows),
        "printed": len(rows) <= charts.MOST_CLASSES,
    }


def troubles(figures: Figures) -> Iterator[dict[str, Any]]:
    """Yields what was left out or broken, a list of names for each kind of trouble."""
    yield from _listed(figures["skipped"], "picture", "that could not be read, not counted")
    for key, what in (
        ("bad_maps", "without a score map, or with NaN or infinity in it, counted as missed"),
        (
            "bad_scores",
            "without class scores, or with NaN or infinity in them, the class counted as wrong",
        ),
        ("constant_maps", "with one value everywhere in the score map: the box is the whole view"),
        ("pairs_without_box", "with an object outside the view, counted as missed"),
        ("duplicates", "that came twice, counted once"),
    ):
        yield from _listed(figures[key], "picture", what)
    for stored in ("score_maps", "class_scores"):
        found = figures.get(stored, {})
        for key in ("missing", "unreadable", "outside_0_1", "unused"):
            yield from _listed(found.get(key), "name", f"in {stored}, {key}: {DEFINITIONS[key]}")


def _listed(found: Sequence[str] | dict[str, str] | None, noun: str, what: str):
    """Yields a list of names, or of names with reasons, unless it is empty."""
    if not found:
        return
    if isinstance(found, dict):
        found = [f"{name}: {reason}" for name, reason in found.items()]
    yield {
        "summary": f"{len(found)} {noun}{'' if len(found) == 1 else 's'} {what}",
        "names": found[:MOST_NAMES],
        "num_cut": max(0, len(found) - MOST_NAMES),
    }


def _maps(figures):
    """The scored map and the others: list of (name, figures)."""
    kinds = [(figures["map"], figures), *figures["other_maps"].items()]
    return [(MAP_NAMES.get(kind, kind), row) for kind, row in kinds]


def _centred_box(figures):
    return figures["baselines"]["centered_box_oracle"]
