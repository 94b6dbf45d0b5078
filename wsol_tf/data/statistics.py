"""What a data set holds, counted, and what in it will disappoint in training or scoring."""

from typing import Any

import numpy as np

from wsol_tf import files
from wsol_tf.data.annotation import first_ten
from wsol_tf.data.source import Source

FEW = 10  # a class with fewer training pictures is named


def dataset_statistics(source: Source) -> dict[str, Any]:
    """Reads every picture of a split and counts.

    Args:
        source: the split.

    Returns:
        A dict for JSON: `pictures` that can be read, and of these the number by class, with
        several classes, of boxes and masks; `median_box_area` as a share of the picture; the
        `smallest`, `median` and `largest` height and width in pixels; and the names of what was
        `skipped` or `repaired`, with the reasons.

    Raises:
        ValueError: no picture can be read.
        StopAtBadImage: a picture cannot be read, and the report says `fail`.
    """
    counts = np.zeros(len(source.classes), int)
    sizes, boxes, labels, areas, masks = [], [], [], [], 0
    for example in source.read_examples():
        counts[example.labels] += 1
        sizes.append(example.size.tolist())
        labels.append(len(example.labels))
        boxes.append(len(example.boxes))
        masks += bool(example.mask.size)
        x0, y0, x1, y1 = example.boxes.T
        areas += ((x1 - x0) * (y1 - y0) / np.prod(example.image.shape[:2])).tolist()
    if not sizes:
        raise ValueError(f"{source.name}: no picture can be read.\n{source.report.summary()}")
    sizes.sort(key=np.prod)
    return {
        "name": source.name,
        "pictures": len(sizes),
        "classes": {n: int(c) for n, c in zip(source.classes, counts, strict=True)},
        "several_classes": sum(number > 1 for number in labels),
        "boxes": sum(boxes),
        "most_boxes": max(boxes),
        "without_box": sum(number == 0 for number in boxes),
        "median_box_area": float(np.median(areas)) if areas else None,
        "masks": masks,
        "smallest": sizes[0],
        "median": sizes[len(sizes) // 2],
        "largest": sizes[-1],
        "skipped": dict(source.report.skipped),
        "repaired": dict(source.report.noted),
    }


def cautions(statistics: dict[str, dict], opened: dict[str, Source]) -> list[str]:
    """Returns sentences on what will disappoint in training or scoring.

    Args:
        statistics: split -> what `dataset_statistics` counted; the first split is trained on.
        opened: split -> its Source.
    """
    first, *others = statistics
    counts = statistics[first]["classes"]
    few = [name for name, count in counts.items() if count < FEW]
    sentences = []
    if len(counts) == 1:
        sentences.append(
            f"There is only one class, {next(iter(counts))}, so a classifier has nothing to tell "
            "apart. Add a class of pictures without it."
        )
    if few:
        sentences.append(
            f"{len(few)} of {files.counted(len(counts), 'class')} "
            f"{'has' if len(few) == 1 else 'have'} fewer than {FEW} pictures in {first}: "
            f"{first_ten(few)}."
        )
    known = set(opened[first].image_ids)
    for split in others:
        both = [name for name in opened[split].image_ids if name in known]
        if both and split.split("[")[0] != first.split("[")[0]:
            sentences.append(
                f"{files.counted(len(both), 'picture')} {'is' if len(both) == 1 else 'are'} both "
                f"in {first} and in {split}, so scores on {split} would be too good: "
                f"{first_ten(both)}."
            )
    if not any(source.has_boxes or source.has_masks for source in opened.values()):
        sentences.append("There are no boxes and no masks: localization cannot be scored.")
    return sentences
