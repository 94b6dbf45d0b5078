"""Which files are too far from the Keras model, in sentences and as parity.md."""

import math
from typing import Any

from edge.export.parity import LOW, REFERENCE

SIGNIFICANT = 0.05  # a loss that is less likely by chance than this is one
_FEWEST = math.ceil(-math.log2(SIGNIFICANT))  # lost pictures, none gained, that are significant


def failures(
    figures: dict[str, dict[str, Any]], *, max_drop: float, min_mask_iou: float
) -> dict[str, str]:
    """Says which files are worse than allowed.

    A drop of GT-known Loc counts where it is above `max_drop` and more than chance: boxes that are
    barely right or wrong fall on the other side in any file, in both directions.

    Args:
        figures: of `compare`.
        max_drop: GT-known Loc that a file may lose, 0..1.
        min_mask_iou: lowest mean IoU with the reference's masks, 0..1.

    Returns:
        dict name -> sentence.
    """
    failed = {}
    for name, row in figures.items():
        wrong = []
        if not row["mask_iou"] >= min_mask_iou:
            masks = f"mask IoU with Keras {row['mask_iou']:.4f}, allowed {min_mask_iou}"
            wrong.append(masks + _flips(row) + _low(row))
        if _drops(figures, name, max_drop) and row.get("p_value", 0.0) <= SIGNIFICANT:
            wrong.append(_drop_text(figures, name, max_drop))
        if wrong:
            failed[name] = "; ".join(wrong)
    return failed


def doubts(figures: dict[str, dict[str, Any]], *, max_drop: float) -> list[str]:
    """Says, in sentences, what the pictures are too few to tell about GT-known Loc."""
    number = figures[REFERENCE].get("num_boxed", 0)
    if not number:
        return []
    found = [
        f"{name}: {_drop_text(figures, name, max_drop)}, which can be chance"
        for name, row in figures.items()
        if _drops(figures, name, max_drop) and row["p_value"] > SIGNIFICANT
    ]
    # The smallest drop above max_drop, all of it losses, has to be able to be significant.
    if math.floor(max_drop * number + 1e-9) + 1 < _FEWEST:
        needed = f"; give at least {math.ceil((_FEWEST - 1) / max_drop)}" if max_drop else ""
        found.append(
            f"{number} pictures with boxes are too few to tell a drop of {max_drop} from chance: "
            f"fewer than {_FEWEST} lost ones, a drop of {_FEWEST / number:.4f}, say nothing{needed}"
        )
    return [f"{text}." for text in found]


def _drops(figures, name, max_drop):
    """Whether a file loses more GT-known Loc than allowed; a NaN is more."""
    drop = figures[REFERENCE].get("gt_known_loc", 0.0) - figures[name].get("gt_known_loc", 0.0)
    return not drop <= max_drop + 1e-9


def _drop_text(figures, name, max_drop):
    row, expected = figures[name], figures[REFERENCE]["gt_known_loc"]
    text = (
        f"GT-known Loc {row['gt_known_loc']:.4f} against {expected:.4f} of Keras, a drop of "
        f"{expected - row['gt_known_loc']:.4f}, allowed {max_drop}"
    )
    if "p_value" in row:
        text += (
            f" ({row['lost']} pictures hit by Keras only, {row['gained']} by the file only, "
            f"p = {row['p_value']:.2g})"
        )
    return text


def _flips(row):
    """Says how much of a low mask IoU is due to another predicted class."""
    share = 1 - row.get("same_class", 1.0)
    if not share:
        return ""
    return _apart(
        f"on {share:.1%} of the pictures another class is predicted", row["mask_iou_same_class"]
    )


def _low(row):
    """Says how much of it is due to maps in which the model itself hardly shows anything."""
    if not row.get("low_maps"):
        return ""
    return _apart(
        f"in {row['low_maps']:.1%} of the pictures the model's own map stays below {LOW}, as after "
        "too short a training", row["mask_iou_not_low"],
    )  # fmt: skip


def _apart(what, others):
    rest = "" if others is None else f"; mask IoU on the others {others:.4f}"
    return f" ({what}{rest})"


def to_markdown(report: dict[str, Any]) -> str:
    """Renders what parity.json holds as Markdown."""
    files, reference = report["files"], report["files"][REFERENCE]
    boxed, classed = "gt_known_loc" in reference, "same_class" in reference
    threads = sorted({number for row in files.values() for number in row["milliseconds"]})
    head = ["file", "MB", "MB in zip", "mask IoU", "lowest", "difference, mean", "largest"]
    if classed:
        head += ["same class", "their mask IoU"]
    if boxed:
        head += ["GT-known Loc", "drop", "hit by Keras only", "by the file only"]
        head += ["MaxBoxAccV2", "drop"]
    head += [f"ms, {n} thread{'s' * (n > 1)}" for n in threads]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, row in files.items():
        sizes = [f"{row[k] / 1e6:.2f}" if k in row else "" for k in ("bytes", "bytes_in_zip")]
        cells = [name, *sizes, f"{row['mask_iou']:.4f}", f"{row['mask_iou_min']:.4f}"]
        cells += [f"{row['mean_difference']:.5f}", f"{row['max_difference']:.4f}"]
        if classed:
            iou = row["mask_iou_same_class"]
            cells += [f"{row['same_class']:.4f}", "" if iou is None else f"{iou:.4f}"]
        if boxed:
            drops = {
                figure: [f"{row[figure]:.4f}", f"{reference[figure] - row[figure]:+.4f}"]
                for figure in ("gt_known_loc", "max_box_acc_v2")
            }
            cells += [*drops["gt_known_loc"], str(row["lost"]), str(row["gained"])]
            cells += drops["max_box_acc_v2"]
        times = row["milliseconds"]
        cells += [f"{times[n]:.1f}" if n in times else "" for n in threads]
        lines.append(f"| {' | '.join(cells)} |")
    said = "".join(f"\n\n**{name} failed**: {why}." for name, why in report["failed"].items())
    said += "".join(f"\n\nNot certain: {text}" for text in report.get("doubts", ()))
    left = {name: ops for name, ops in report.get("gpu_fallbacks", {}).items() if ops}
    said += "".join(
        f"\n\n{name}: a GPU delegate leaves {', '.join(left[name])} to the CPU." for name in left
    )
    return (
        f"# Parity of {report['model']}\n\n"
        f"Map `{report['map']}`, threshold {report['threshold']}, "
        f"{reference['num_pictures']} pictures of {report['scored_on']}, view "
        f"`{report['view']}`. Masks are compared with those of the Keras model's own `localize`"
        f"{'' if boxed else '; GT-known Loc is not measured, for want of boxes of its classes'}. "
        "Milliseconds are medians of calls that took turns; the row `keras` is predict_on_batch "
        "of the same part of the model, which takes a thread for each core: compare it with the "
        "files in its column.\n\n" + "\n".join(lines) + said + "\n"
    )
