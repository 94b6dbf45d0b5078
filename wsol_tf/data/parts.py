"""Splits put together, and cut into folds: `train+val`, `train+val[fold=2/5]`."""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from wsol_tf.data.images import BadImage
from wsol_tf.data.source import Source, subset

_FOLD = re.compile(r"\[fold\s*(!?=)\s*(\d+)\s*/\s*(\d+)\]$")


@dataclasses.dataclass(frozen=True)
class Fold:
    """One of several equal parts of a split, or all but that one.

    Attributes:
        number: which part, 1 to `of`.
        of: how many parts.
        inside: whether the part itself is meant, or the others.
    """

    number: int
    of: int
    inside: bool

    def __str__(self):
        return f"[fold{'=' if self.inside else '!='}{self.number}/{self.of}]"


def parse_split(split: str) -> tuple[str, Fold | None]:
    """Takes a split apart: `train+val[fold!=2/5]` is `train+val` but for the second of five parts.

    Returns:
        (whole, fold): the split without its fold, and the fold or None.

    Raises:
        ValueError: a fold that can't be.
    """
    found = _FOLD.search(split)
    if not found:
        if "[fold" in split:
            raise ValueError(
                f"Split {split!r} cannot be read. A fold stands at the end, as in "
                "'train+val[fold=2/5]' (the second of five parts) or 'train+val[fold!=2/5]' (all "
                "but that)."
            )
        return split, None
    fold = Fold(int(found[2]), int(found[3]), found[1] == "=")
    if fold.of < 2 or not 1 <= fold.number <= fold.of:
        raise ValueError(
            f"Split {split!r} cannot be read: of N parts, at least 2, there are the folds 1/N to "
            f"N/N. Received: {fold.number}/{fold.of}."
        )
    return split[: found.start()].strip(), fold


def fold_numbers(labels: Sequence[np.ndarray], folds: int) -> np.ndarray:
    """Deals pictures out to folds, stratified by each picture's first label.

    It is a fixed random choice: the same pictures give the same folds, whatever is trained on them.

    Args:
        labels: per picture, its class ids.
        folds: how many folds.

    Returns:
        int64 `[pictures]`, 0 to `folds - 1`. The sizes of two folds differ by 1 at most, and so do
        the pictures of a class in them.

    Raises:
        ValueError: there are fewer pictures than folds.
    """
    if len(labels) < folds:
        raise ValueError(f"{len(labels)} pictures can't be cut into {folds} folds.")
    first = np.array([label[0] for label in labels], np.int64)
    order = np.random.default_rng(0).permutation(len(first))
    # Sorted by class, and dealt in turn: each class goes on where the one before it ended.
    order = order[np.argsort(first[order], kind="stable")]
    numbers = np.empty(len(first), np.int64)
    numbers[order] = np.arange(len(first)) % folds
    return numbers


def take_fold(source: Source, fold: Fold) -> Source:
    """Returns the pictures of a fold, or of the others.

    Raises:
        ValueError: there are fewer pictures than folds.
    """
    try:
        is_chosen = (fold_numbers(source.labels, fold.of) == fold.number - 1) == fold.inside
    except ValueError as error:
        raise ValueError(f"{source.name}: {error}") from None
    part = subset(source, np.flatnonzero(is_chosen).tolist())
    return dataclasses.replace(part, name=f"{source.name}{fold}")


def unite(sources: Sequence[Source], splits: Sequence[str]) -> Source:
    """Puts splits of one data set together.

    Where two splits use the same id for different pictures, all ids get the name of their split in
    front. Where it is the same picture, it is used once, from the first split that names it.

    Args:
        sources: the splits, with the same classes.
        splits: their names.
    """
    places = [(s, i) for s, source in enumerate(sources) for i in range(len(source))]
    places, renamed = _without_doubles(sources, splits, places)
    ids = [sources[s].image_ids[i] for s, i in places]
    if renamed:
        ids = [f"{splits[s]}/{name}" for (s, _), name in zip(places, ids, strict=True)]

    def read_image(position):
        s, i = places[position]
        return sources[s].read_image(i)

    def read_example(position):
        s, i = places[position]
        return sources[s].read_example(i)._replace(image_id=ids[position])

    return Source(
        name=f"{sources[0].name}+{'+'.join(splits[1:])}",
        classes=sources[0].classes,
        image_ids=tuple(ids),
        labels=tuple(sources[s].labels[i] for s, i in places),
        has_boxes=any(source.has_boxes for source in sources),
        has_masks=any(source.has_masks for source in sources),
        report=sources[0].report,
        read_image=read_image,
        read_example=read_example,
    )


def _without_doubles(sources, splits, places):
    """Leaves out pictures that an earlier split has; says whether ids are still not unique."""
    counts = Counter(sources[s].image_ids[i] for s, i in places)
    kept, seen = [], {}
    for s, i in places:
        name = sources[s].image_ids[i]
        earlier = seen.setdefault(name, []) if counts[name] > 1 else []
        same = next((t for t, j in earlier if _same_picture(sources[t], j, sources[s], i)), None)
        if same is None:
            kept.append((s, i))
            earlier.append((s, i))
        else:
            reason = f"in split {splits[same]!r} and in {splits[s]!r}, used once"
            sources[0].report.note(name, reason)
    return kept, any(len(places) > 1 for places in seen.values())


def _same_picture(first, i, second, j):
    one, other = _pixels(first, i), _pixels(second, j)
    # Two that can't be read are one file, as far as anyone can tell.
    return one is other is None or np.array_equal(one, other)


def _pixels(source, position):
    try:
        return source.read_image(position)
    except BadImage:  # it is named and left out where it is used
        return None
