"""Shows what an exported .tflite finds in pictures, as wsol_tf.predict does for a model.

    python -m edge.predict --model=OUT/localizer_int8.tflite --output_dir=SEEN IMAGE_OR_FOLDER...

writes SEEN/NAME_overlay.png, SEEN/NAME_mask.png (white object, at the picture's size) and
SEEN/predictions.jsonl. Class and probability are empty where the file holds no classifier.
Pictures that can't be read are named and skipped; --on_bad_image=fail stops at the first.
"""

import functools
from collections.abc import Sequence
from typing import Any

from absl import flags

from edge.export.exported_map import ExportedMap
from edge.runtime import LocalizerRuntime
from wsol_tf import programs
from wsol_tf.data.images import find_images
from wsol_tf.predict import define_object_flags, limits_of
from wsol_tf.report.predictions import summary, to_stderr, write_predictions


def define_flags() -> None:
    """Defines the flags of this program."""
    programs.define_path("model", None, "The .tflite file that edge.export wrote.", required=True)
    programs.define_path("output_dir", None, "Folder for the overlays; it is made.", required=True)
    flags.DEFINE_string("class_name", None, "Whose map is shown, for files with map 'all'.")
    flags.DEFINE_string("threshold", "stored", "A number in 0..1, 'stored' or 'otsu'.")
    flags.DEFINE_integer("num_threads", 2, "Threads of the interpreter.", lower_bound=1)
    programs.define_flags(["on_bad_image"])
    define_object_flags()


def predict(
    localizer: LocalizerRuntime,
    paths: Sequence[str],
    output_dir: str,
    *,
    class_name: str | None = None,
    threshold: float | str = "stored",
    min_area: float = 0.0,
    min_picture_area: float = 0.0,
    max_objects: int = 1,
    on_bad_image: str = "skip",
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Writes an overlay and a mask for each picture.

    Args:
        localizer: the file to run.
        paths: files to read.
        output_dir: folder to write to; it is made.
        class_name: with map "all", whose map is shown.
        threshold: a number in 0..1, "otsu", or "stored" for the one in the file.
        min_area: see `LocalizerRuntime.localize`.
        min_picture_area: see `LocalizerRuntime.localize`.
        max_objects: see `LocalizerRuntime.localize`.
        on_bad_image: "skip" pictures that can't be read and name them, or "fail" at the first.

    Returns:
        (lines, skipped), see `write_predictions`.

    Raises:
        ValueError: the class has no map, or each class has one and none was chosen; or a picture
            can't be read and `on_bad_image` is "fail".
    """
    localizer.check_class(class_name)
    shown = ExportedMap("class", class_name) if class_name else localizer.metadata["map"]
    threshold = localizer.threshold if threshold == "stored" else threshold
    programs.make_output_dir(output_dir)
    return write_predictions(
        functools.partial(
            localizer.localize,
            class_name=class_name,
            threshold=threshold,
            min_area=min_area,
            min_picture_area=min_picture_area,
            max_objects=max_objects,
        ),
        paths,
        output_dir,
        kind=str(shown),
        threshold=threshold,
        on_bad_image=on_bad_image,
    )


def run(values: flags.FlagValues, *names: str) -> int:
    """Localizes the pictures and folders that are named; returns the exit status."""
    lines, skipped = predict(
        LocalizerRuntime(values.model, values.num_threads),
        find_images(names, warn=to_stderr, log=print),
        values.output_dir,
        class_name=values.class_name,
        threshold=programs.parse_threshold(values.threshold),
        **limits_of(values),
        on_bad_image=values.on_bad_image,
    )
    programs.say(summary(lines, skipped, values.output_dir))
    return 0 if lines else 1


if __name__ == "__main__":
    programs.main(define_flags, run)
