"""A contact sheet of a data set: pictures of every split with their boxes and masks."""

from collections.abc import Iterator

import numpy as np

from wsol_tf.data.example import IGNORE
from wsol_tf.data.images import BadImage
from wsol_tf.data.source import Source
from wsol_tf.report import pictures

SHOWN = 20  # pictures of each split


def draw_dataset_sheet(opened: dict[str, Source], title: str) -> np.ndarray:
    """Draws pictures of every split with their boxes and masks, the classes in turn.

    Args:
        opened: split -> its Source.
        title: heading of the sheet.

    Returns:
        uint8 [height, width, 3].
    """
    marks = {
        "dashed white: box": any(source.has_boxes for source in opened.values()),
        "outline: mask": any(source.has_masks for source in opened.values()),
    }
    note = ", ".join(mark for mark, there in marks.items() if there)
    return pictures.contact_sheet(
        {split: [*_tiles(source)] for split, source in opened.items()},
        title=f"{title}\n{note or 'no boxes, no masks'}",
    )


def _tiles(source: Source) -> Iterator[np.ndarray]:
    shown = 0
    for position in _classes_in_turn(source):
        if shown == SHOWN:
            return
        try:
            example = source.read_example(position)
        except BadImage:  # it has been named before
            continue
        shown += 1
        mask = (example.mask > 0) & (example.mask != IGNORE) if example.mask.size else None
        names = ", ".join(source.classes[label] for label in example.labels)
        yield pictures.overlay(
            example.image, None, mask, None, true_boxes=example.boxes, caption=names, side=240
        )


def _classes_in_turn(source: Source) -> list[int]:
    """All positions in a random order in which every class comes before any comes again."""
    order = np.random.default_rng(0).permutation(len(source))
    seen = np.zeros(len(source.classes), int)
    rounds = []  # (how often its rarest class came before, position)
    for position in order.tolist():
        rounds.append((int(seen[source.labels[position]].min()), position))
        seen[source.labels[position]] += 1
    return [position for _, position in sorted(rounds, key=lambda entry: entry[0])]
