"""The pictures of a run: those that it trains on, holds out, and scores in the end."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from wsol_tf import files
from wsol_tf.config import Config
from wsol_tf.data.annotation import OtherClasses
from wsol_tf.data.parts import parse_split
from wsol_tf.data.registry import holdout, open_dataset
from wsol_tf.data.source import Source, StopAtBadImage


@dataclasses.dataclass(frozen=True)
class Splits:
    """The pictures of a run.

    Attributes:
        source: the pictures that are trained on, and those that are held out.
        kept: int64 positions of the former, ascending.
        held: int64 positions of the latter, ascending.
        scored: the pictures that are scored after training; None: the held-out ones.
        scored_on: what those are called in metrics.json.
        place: where the pictures of `source` come from: a folder, or the name of a data set.
    """

    source: Source
    kept: np.ndarray
    held: np.ndarray
    scored: Source | None
    scored_on: str
    place: str

    def digest(self) -> int:
        """Returns a number that changes with the training pictures' ids, labels and classes."""
        ids, labels = self.source.image_ids, self.source.labels
        text = [f"{ids[i]} {labels[i].tolist()}" for i in self.kept]
        return zlib.crc32("\n".join([*self.source.classes, *text]).encode())

    def raise_if_unreadable(self, error: Exception) -> None:
        """Raises a ValueError from an error of a step whose cause is a picture that can't be read.

        Raises:
            StopAtBadImage: `on_bad_image` is "fail".
            ValueError: none of the training pictures can be read.
        """
        report = self.source.report
        if report.failure:
            raise StopAtBadImage(report.failure) from error
        if all(self.source.image_ids[i] in report.skipped for i in self.kept):
            raise ValueError(
                f"{self.source.name}: no picture can be read.\n{report.summary()}"
            ) from error


def open_splits(
    config: Config,
    dataset: Source | None,
    val_dataset: Source | None,
    *,
    score: bool,
    log: Callable[[str], None],
) -> Splits:
    """Opens what a run trains on and what it scores, or takes the user's own.

    Args:
        config: settings of the run.
        dataset: pictures to train on; None opens those that `config` names.
        val_dataset: pictures to score; None opens those that `config` names where `dataset` is
            None too, and else scores the held-out ones.
        score: whether this process scores.
        log: function that takes lines of text.

    Raises:
        ValueError: a split can't be opened, or does not have what the settings need.
        TypeError: `dataset` or `val_dataset` is no Source.
    """
    for name, given in (("dataset", dataset), ("val_dataset", val_dataset)):
        if not isinstance(given, Source | None):
            raise TypeError(
                f"`{name}` must be a Source, as wsol_tf.open_dataset returns. Received: a "
                f"{type(given).__name__}."
            )
    source = open_split(config, config.split) if dataset is None else dataset
    log(summarize(source))
    if source.report.skipped or source.report.noted:
        log(source.report.summary())
    if config.extractor_weights == "drawn" and source.name.split()[0] != "shapes":
        log(
            "Warning: `extractor_weights=drawn` knows nothing but drawn textures. It is for the "
            "data set shapes; on photographs take imagenet."
        )
    kept, held = holdout(source.labels, config.holdout, config.seed)
    _check_held_out(config, source, held)
    scored, scored_on = val_dataset, f"held-out part of {config.split}"
    if scored is not None:
        _check_classes(scored, source.classes)
        scored_on = scored.name
    elif dataset is not None:
        scored_on = f"held-out part of {source.name}"
    elif score and (scored := open_scored_split(config, source.classes, log)) is not None:
        scored_on = config.val_split
    place = config.data_dir or config.dataset if dataset is None else source.name
    return Splits(source, kept, held, scored, scored_on, place)


def _check_held_out(config, source, held):
    """Refuses settings that need what the held-out pictures do not have."""
    if config.threshold_from == "boxes" and not source.has_boxes:
        raise ValueError(
            f"{source.name} has no boxes to choose the threshold from. Use `threshold_from=maps`."
        )
    if config.best_by != "last" and not len(held):
        raise ValueError(
            f"`best_by={config.best_by}` needs held-out pictures, and there are none. Raise "
            "`holdout`."
        )
    if config.best_by == "gt_known" and not source.has_boxes:
        raise ValueError(
            f"`best_by=gt_known` needs boxes, and {source.name} has none. Use `best_by=loss`."
        )


def _check_classes(scored, classes):
    if tuple(scored.classes) != tuple(classes):
        raise ValueError(
            f"The pictures to score must have the classes that are trained on: "
            f"{', '.join(classes)}. Received: {', '.join(scored.classes)}. Pass `classes` to "
            "wsol_tf.open_dataset."
        )


def open_split(config: Config, split: str, classes: Sequence[str] | None = None) -> Source:
    """Opens a split of the data set that a config names.

    Args:
        config: settings of the run.
        split: name of the split, or a slice of it. Of drawn pictures a split other than that of
            training has a third as many.
        classes: class names that fix the class ids; None takes the data set's own.

    Raises:
        ValueError: the split can't be opened.
    """
    num_examples = config.num_examples
    if parse_split(split)[0] != parse_split(config.split)[0]:  # folds are cut from one choice
        num_examples = -(-num_examples // 3)
    return open_dataset(
        config.dataset,
        config.data_dir,
        split,
        image_dir=config.image_dir,
        classes=classes,
        seed=config.seed if config.data_seed < 0 else config.data_seed,
        image_size=config.crop_from,
        num_examples=num_examples or None,
        download=config.download,
        single_class=config.single_class,
        on_bad_image=config.on_bad_image,
    )


def open_scored_split(
    config: Config, classes: Sequence[str], log: Callable[[str], None]
) -> Source | None:
    """Opens the split that is scored after training; None where there is none.

    Raises:
        StopAtBadImage: a picture can't be read, and `on_bad_image` is "fail".
    """
    if not config.val_split:
        return None
    try:
        return open_split(config, config.val_split, classes)
    except StopAtBadImage:
        raise
    except (OtherClasses, files.BadFile) as error:
        log(
            f"Split '{config.val_split}' can't be scored: {error} The held-out pictures are scored "
            "instead."
        )
    except ValueError as error:
        log(
            f"No split '{config.val_split}' to score on ({error}) The held-out pictures are "
            "scored instead."
        )
    return None


def summarize(source: Source) -> str:
    """Returns a sentence on a split: its pictures and classes, the rarest and the most frequent."""
    counts = np.bincount(np.concatenate(source.labels), minlength=len(source.classes))
    low, high = int(counts.argmin()), int(counts.argmax())
    each = f"{counts[low]} each"
    if counts[low] < counts[high]:
        each = (
            f"from {counts[low]} ({source.classes[low]}) to {counts[high]} ({source.classes[high]})"
        )
    pictures = files.counted(len(source), "picture")
    return f"{source.name}: {pictures}, {files.counted(len(source.classes), 'class')}, {each}."
