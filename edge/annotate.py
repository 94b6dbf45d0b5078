"""Annotates pictures with an exported .tflite, as wsol_tf.annotate does with a model.

    python -m edge.annotate --model=localizer_int8.tflite --format=coco --output_dir=OUT IMAGES...

A file without a classifier knows no class of an object: it is the map's, or "object". An exported
file holds no class activation map, so that doubts come of the mask and the class alone.
"""

from collections.abc import Sequence

import numpy as np
from absl import flags

from edge.runtime import LocalizerRuntime
from wsol_tf import annotate, predict, programs
from wsol_tf.annotations.look import NO_CLASS, Localize


def define_flags() -> None:
    """Defines the flags of this program."""
    programs.define_path("model", None, "The .tflite file that edge.export wrote.", required=True)
    flags.DEFINE_string("class_name", None, "Whose map is taken, for files with map 'all'.")
    flags.DEFINE_integer("num_threads", 2, "Threads of the interpreter.", lower_bound=1)
    annotate.define_annotation_flags()
    for module in (annotate, predict):  # --help lists them
        flags.adopt_module_key_flags(module)


def open_localizer(values: flags.FlagValues) -> tuple[Localize, Sequence[str]]:
    """Makes of parsed flags what localizes a picture, and the names of its classes."""
    localizer = LocalizerRuntime(values.model, values.num_threads)
    localizer.check_class(values.class_name)
    threshold = programs.parse_threshold(values.threshold)

    def localize(image: np.ndarray):
        found = localizer.localize(
            image,
            class_name=values.class_name,
            threshold=localizer.threshold if threshold == "stored" else threshold,
            **predict.limits_of(values),
        )
        return found, None

    classes = [*localizer.labels]
    if localizer.metadata["map"] == "mean" and NO_CLASS not in classes:
        classes.append(NO_CLASS)
    return localize, classes


def run(values: flags.FlagValues, *names: str, options: Sequence[str] = ()) -> int:
    """Annotates the pictures and folders that are named; returns the exit status."""
    return annotate.annotate_named(
        values, names, open_localizer, ("class_name",), "edge.annotate", options
    )


if __name__ == "__main__":
    programs.main(define_flags, run)
