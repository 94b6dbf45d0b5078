"""Figures as text for a terminal."""

from collections.abc import Mapping
from typing import Any

from wsol_tf import files
from wsol_tf.evaluation.wsolevaluation import METRICS
from wsol_tf.report import definitions


def figures_table(figures: Mapping[str, Any]) -> str:
    """Lays the figures of `evaluation.score.score` out as lines of text, one row per map."""
    head = files.counted(figures["num_images"], "picture")
    if figures["num_pairs"] != figures["num_images"]:
        head += f", {files.counted(figures['num_pairs'], 'pair')} of a picture and a class in it"
    head += f"; Top-1 Cls {_number(figures['top1_cls'])}, Top-5 Cls {_number(figures['top5_cls'])}"
    if figures["gt_known_loc"] is None:
        text = f"{head}\nNo boxes: localization can't be scored."
        if figures["miou_mask"] is not None:
            text += f" Mask mIoU {_number(figures['miou_mask'])}."
        return "\n".join([text, *_notes(figures)])
    columns = ("GT-known", "Top-1 Loc", "box mIoU", "mask mIoU", "threshold", "oracle GT-known")
    lines = [head, "".join([f"{'':26}", *(f"{column:>12}" for column in columns[:-1]),
                            f"{columns[-1]:>18}"])]  # fmt: skip
    rows = [(figures["map"], figures), *figures["other_maps"].items()]
    for kind, row in rows:
        values = [row[name] for name in ("gt_known_loc", "top1_loc", "miou_box", "miou_mask")]
        oracle = f"{_number(row['gt_known_loc_oracle'])} at {row['oracle_threshold']:.2f}"
        threshold = row["threshold"]
        lines.append(
            f"{definitions.MAP_NAMES[kind]:26}"
            + "".join(f"{_number(value):>12}" for value in values)
            + f"{threshold if threshold == 'otsu' else f'{threshold:.2f}':>12}{oracle:>18}"
        )
    whole, centred = figures["baselines"]["whole_view"], figures["baselines"]["centered_box_oracle"]
    for name, row in (
        ("whole view as box", whole),
        (f"best centred box ({centred['area_fraction']:.0%})", centred),
    ):
        lines.append(
            f"{name:26}{_number(row['gt_known_loc']):>12}{'':12}{_number(row['miou_box']):>12}"
        )
    lines.append(definitions.certainty_in_words(figures))
    return "\n".join(lines + _further_lines(figures) + _notes(figures))


def _further_lines(figures):
    """The pictures with a single class, and the metrics of wsolevaluation, a line each."""
    lines = []
    single = figures.get("single_class")
    if single:
        values = [single[name] for name in ("gt_known_loc", "top1_loc", "miou_box", "miou_mask")]
        label = f"{single['num_pairs']} with a single class"
        lines.append(f"{label:26}" + "".join(f"{_number(value):>12}" for value in values))
    if "num_empty" in figures:
        label = f"{figures['num_empty']} without any object"
        lines.append(
            f"{label:26}  nothing found in "
            f"{figures['found_nothing']:.1%}, mask over {figures['false_area']:.1%} on average"
        )
    for name in METRICS:
        found = figures.get(name)
        if found and found["value"] is not None:
            parts = [f"{definitions.DISPLAY_NAMES[name]:26}{found['value']:12.3f}"]
            if found.get("threshold") is not None:
                parts.append(f"at threshold {found['threshold']:.3f}")
            if name == "max_box_acc_v2":
                parts += [
                    f"{row['accuracy']:.3f} from IoU {level} on (at {row['threshold']:.3f})"
                    for level, row in found["iou_levels"].items()
                ]
            lines.append("  ".join(parts))
    return [*lines, *_lines_of_objects(figures)]


def _lines_of_objects(figures):
    """What was found where a picture holds several objects; nothing where none does."""
    lines = []
    for key, name in (("objects", "objects, classes given"), ("detection", "classes found")):
        found = figures.get(key)
        if found and set(found["recall_by_number"]) - {"1"}:
            numbers = ", ".join(
                f"{number.replace('_', ' ')}: {row['recall']:.3f}"
                for number, row in found["recall_by_number"].items()
            )
            lines.append(
                f"{name:26}{found['recall']:12.3f}  of {found['num_objects']} objects found "
                f"(by number in the picture {numbers}); CorLoc {found['corloc']:.3f}, "
                f"AP50 {found['ap50']:.3f}, AP {found['ap']:.3f}"
            )
    pixels = figures.get("segmentation")
    if pixels and pixels["given"]["miou"] is not None:
        found = pixels["found"] and pixels["found"]["miou"]
        lines.append(
            f"{'classes as pixels':26}{pixels['given']['miou']:12.3f}  mIoU with the background, "
            f"classes given; found: {_number(found)}"
        )
    return lines


def _notes(figures):
    """A line for each thing that was wrong with outputs, with the first ten pictures."""
    lines = []
    for name, before, after in (
        ("bad_maps", "No score map, or NaN or infinity in it, in", ", counted as wrong"),
        ("bad_scores", "No class scores, or NaN or infinity in them, in", ", counted as wrong"),
        ("constant_maps", "A constant score map, whose box is the whole view, in", ""),
    ):
        if figures[name]:
            count = len(figures[name])
            names = ", ".join(map(files.printable, figures[name][:10])) + (
                ", ..." if count > 10 else ""
            )
            lines.append(f"{before} {count} picture{'s' * (count != 1)}{after}: {names}")
    return lines


def _number(value):
    return "-" if value is None else f"{value:.3f}"
