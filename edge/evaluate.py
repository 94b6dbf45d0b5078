"""Scores an exported .tflite on a data set, as wsol_tf.evaluate scores a model.

    python -m edge.evaluate --model=OUT/localizer_int8.tflite --dataset=voc_folder --data_dir=D \\
        --split=val --output_dir=SCORED

writes what wsol_tf.evaluate writes. Classification is scored where the file has class scores (maps
"predicted" and "topk"). A file of one class is scored on the pictures that hold the class.
"""

import dataclasses

import numpy as np
from absl import app, flags

from edge.runtime import LocalizerRuntime
from wsol_tf import evaluate as desk
from wsol_tf import programs
from wsol_tf.data import transforms
from wsol_tf.evaluation.pairs import Method


def define_flags():
    """Defines the flags of this program."""
    desk.define_data_flags()
    programs.define_flags(["resize_size"])
    flags.DEFINE_string("model", None, "The .tflite file that edge.export wrote.", required=True)
    flags.DEFINE_string("threshold", "stored", "A number in 0..1, 'stored' or 'otsu'.")
    flags.DEFINE_enum("view", "crop", ["crop", "whole"], "As in wsol_tf.evaluate.")
    flags.DEFINE_integer("num_threads", 2, "Threads of the interpreter.", lower_bound=1)


def predictor(localizer):
    """Makes the function that `scoring.pairs` takes of a LocalizerRuntime."""

    def predict(images):
        rows = [localizer.run(image) for image in images]
        outputs = {"localization_map": np.stack([row["foreground_mask"] for row in rows])}
        if "class_scores" in rows[0]:
            outputs["logits"] = np.stack([row["class_scores"] for row in rows])
        return outputs

    return predict


def of_one_class(source, label):
    """The pictures of a Source that hold a class, with that class alone."""
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


def make(values, threshold):
    """Makes what is scored of parsed flags: (Method, Source, {}), see `wsol_tf.evaluate`."""
    localizer = LocalizerRuntime(values.model, values.num_threads)
    size, map_ = localizer.input_size[0], localizer.metadata["map"]
    resize_size = values.resize_size or round(size * 8 / 7)
    source = desk.open_scored(values, tuple(localizer.labels), resize_size)
    # A file of all maps is scored as a model is: with the map of the true class, the mean beside.
    kinds = ("true", "mean") if map_ == "all" else (map_,)
    if map_.startswith("class:"):
        kinds = ("true",)
        source = of_one_class(source, source.classes.index(map_.removeprefix("class:")))
    stored = threshold == "stored"
    method = Method(
        predict=predictor(localizer),
        view=transforms.View(size, resize_size, values.view),
        kinds=kinds,
        thresholds={kinds[0]: localizer.threshold if stored else threshold},
        threshold_from="stored in the file" if stored else "given",
    )
    return method, source, {}


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument '{argv[1]}': settings are given as --name=value.")
    with programs.plain_ending():
        desk.evaluate(flags.FLAGS, make, "edge.evaluate")


if __name__ == "__main__":
    define_flags()
    flags.adopt_module_key_flags(programs)
    app.run(main)
