r"""Scores an exported .tflite on a data set, as wsol_tf.evaluate scores a model.

    python -m edge.evaluate --model=OUT/localizer_int8.tflite --dataset=voc_folder --data_dir=D \
        --split=val --output_dir=SCORED

writes what wsol_tf.evaluate writes. Classification is scored where the file has class scores (maps
"predicted", "topk" and "present"). A file of one class is scored on the pictures that hold it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from edge.export.exported_map import ExportedMap
from edge.runners import batched
from edge.runtime import LocalizerRuntime
from wsol_tf import programs
from wsol_tf.config import resize_side
from wsol_tf.data.source import Source
from wsol_tf.data.transforms import View
from wsol_tf.evaluate import define_data_flags, evaluate, open_scored
from wsol_tf.evaluation.pairs import Method


def define_flags() -> None:
    """Defines the flags of this program."""
    define_data_flags()
    programs.define_flags(["resize_size"])
    programs.define_path("model", None, "The .tflite file that edge.export wrote.", required=True)
    flags.DEFINE_string("threshold", "stored", "A number in 0..1, 'stored' or 'otsu'.")
    flags.DEFINE_enum("view", "crop", ["crop", "whole"], "As in wsol_tf.evaluate.")
    flags.DEFINE_integer("num_threads", 2, "Threads of the interpreter.", lower_bound=1)


def method_of_file(
    localizer: LocalizerRuntime, *, view: View, threshold: float | str = "stored"
) -> Method:
    """Makes what is scored of an exported file.

    Args:
        localizer: the file.
        view: what it sees of a picture.
        threshold: a number, "otsu", or "stored" for the one in the file.
    """
    map_ = ExportedMap.parse(localizer.metadata["map"])
    # Maps of classes are scored as a model's are: by the map of the true class, beside it the mean.
    kinds = {
        "all": ("true", "mean"),
        "class": ("true",),
        "present": ("predicted", "true", "mean"),
    }.get(map_.kind, (map_.kind,))
    stored = threshold == "stored"
    empty = localizer.metadata.get("background_class")
    return Method(
        predict=batched(localizer.run),
        view=view,
        kinds=kinds,
        thresholds={kinds[0]: localizer.threshold if stored else threshold},
        threshold_from="stored in the file" if stored else "given",
        refine=localizer.refine,
        separate=localizer.separate,
        background_id=None if empty is None else localizer.labels.index(empty),
        presence=localizer.metadata["presence_threshold"] if map_.kind == "present" else None,
    )


def of_one_class(source: Source, label: int) -> Source:
    """Returns the pictures of a Source that hold a class, with that class alone.

    Raises:
        ValueError: there is no such picture.
    """
    positions = [i for i, labels in enumerate(source.labels) if label in labels]
    if not positions:
        raise ValueError(
            f"{source.name} has no picture of '{source.classes[label]}', the class of the file."
        )

    def read_example(position):
        example = source.read_example(positions[position])
        return example._replace(labels=np.array([label], example.labels.dtype))

    return dataclasses.replace(
        source,
        image_ids=tuple(source.image_ids[i] for i in positions),
        labels=tuple(np.array([label], np.int32) for _ in positions),
        read_image=lambda position: source.read_image(positions[position]),
        read_example=read_example,
    )


def make_scored(
    values: flags.FlagValues, threshold: float | str
) -> tuple[Method, Source, dict[str, Any]]:
    """Makes what is scored of parsed flags, for `wsol_tf.evaluate.evaluate`."""
    localizer = LocalizerRuntime(values.model, values.num_threads)
    input_size = localizer.input_size[0]
    view = View(input_size, resize_side(input_size, values.resize_size), values.view)
    source = open_scored(values, tuple(localizer.labels), view.resize_size)
    label = ExportedMap.parse(localizer.metadata["map"]).label(localizer.labels)
    if label is not None:
        source = of_one_class(source, label)
    return method_of_file(localizer, view=view, threshold=threshold), source, {}


def run(values: flags.FlagValues, *, options: Sequence[str] = ()) -> None:
    """Scores the file that the flags name."""
    evaluate(values, make_scored, "edge.evaluate", options)


if __name__ == "__main__":
    programs.main(define_flags, run)
