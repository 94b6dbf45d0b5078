"""Representative pictures for quantization: they need no labels."""

import functools
import os
from collections.abc import Sequence

import numpy as np

from wsol_tf.data import images
from wsol_tf.data.example import make_example
from wsol_tf.data.images import BadImage
from wsol_tf.data.registry import PUBLIC, open_dataset
from wsol_tf.data.source import Report, Source
from wsol_tf.data.transforms import resize_image

MIN_PICTURES = 8
NAMED = ("shapes", *PUBLIC)  # data sets that need no folder


def open_source(
    text: str, *, split: str, image_size: int, classes: Sequence[str] | None = None
) -> tuple[Source, bool]:
    """Opens pictures to calibrate on or to compare on.

    Args:
        text: a folder, or one of NAMED. A folder in VOC layout is read with its labels and boxes;
            any other gives its pictures, at any depth, without labels.
        split: which split of a data set or VOC layout.
        image_size: side in pixels that views are cut from, as for `registry.open_dataset`.
        classes: names of the model's classes; None where only the pictures are wanted, whatever
            they show.

    Returns:
        (source, labelled): where labelled is False, the labels and boxes of the source mean
        nothing to the model, for it knows none of the classes.

    Raises:
        ValueError: it is neither a folder nor a data set, or holds no picture.
    """
    if not os.path.isdir(text):
        if text not in NAMED:
            raise ValueError(
                f"'{text}' is neither a folder of pictures nor a data set without one "
                f"({', '.join(NAMED)})."
            )
        return _open_labelled(text, "", split, image_size, classes)
    if os.path.isdir(os.path.join(text, "ImageSets", "Main")):
        return _open_labelled("voc_folder", text, split, image_size, classes)
    paths = images.files_in(text)
    if not paths:
        raise ValueError(f"There is no picture in folder '{text}'.")
    names = tuple(os.path.relpath(path, text) for path in paths)
    report = Report()

    def read_image(position):
        note = functools.partial(report.note, names[position])
        return images.read_image(paths[position], image_size, note=note)

    def read_example(position):
        return make_example(read_image(position), [0], image_id=names[position])

    source = Source(
        name=f"folder {text}",
        classes=tuple(classes or ("unknown",)),
        image_ids=names,
        labels=(np.zeros(1, np.int32),) * len(names),
        has_boxes=False,
        has_masks=False,
        report=report,
        read_image=read_image,
        read_example=read_example,
    )
    return source, False


def _open_labelled(kind, folder, split, image_size, classes):
    """Opens a data set with the model's classes; with its own where these have none in common."""
    source = open_dataset(kind, folder, split, image_size=image_size)
    if classes is None or set(classes).isdisjoint(source.classes):
        return source, False
    return open_dataset(kind, folder, split, image_size=image_size, classes=classes), True


def read_pictures(source: Source, input_size: int, number: int, *, seed: int = 0) -> np.ndarray:
    """Reads whole pictures in random order.

    Pictures that can't be read go to the source's report. The first one is given one black and
    one white pixel: the input's quantization is then (1.0, 0), so that apps feed bytes.

    Args:
        source: where they come from.
        input_size: side in pixels that they are resized to.
        number: at most so many.
        seed: of the order.

    Returns:
        uint8 `[n, input_size, input_size, 3]`.

    Raises:
        ValueError: fewer than MIN_PICTURES can be read.
    """
    chosen: list[np.ndarray] = []
    for position in np.random.default_rng(seed).permutation(len(source)):
        if len(chosen) == number:
            break
        try:
            chosen.append(resize_image(source.read_image(int(position)), input_size))
        except BadImage as error:
            source.report.skip(source.image_ids[position], error.reason)
    if len(chosen) < MIN_PICTURES:
        raise ValueError(
            f"{source.name}: {len(chosen)} readable pictures are too few to calibrate on. Give at "
            f"least {MIN_PICTURES}, better 100, of the kind that the app will see.\n"
            f"{source.report.summary()}"
        )
    batch = np.stack(chosen)
    batch[0, 0, 0], batch[0, 0, 1] = 0, 255
    return batch
