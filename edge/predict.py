"""Shows what an exported .tflite sees in pictures, as wsol_tf.predict does for a model.

    python -m edge.predict --model=OUT/localizer_int8.tflite --output_dir=SEEN IMAGE_OR_FOLDER...

writes SEEN/NAME_overlay.png, SEEN/NAME_mask.png (white object, at the picture's size) and
SEEN/predictions.jsonl. Class and probability are empty where the file holds no classifier.
Pictures that can't be read are named and skipped; --on_bad_image=fail stops at the first.
"""

import dataclasses

from absl import app, flags

from edge.runtime import LocalizerRuntime
from wsol_tf import predict as desk
from wsol_tf import programs


def define_flags():
    """Defines the flags of this program."""
    flags.DEFINE_string("model", None, "The .tflite file that edge.export wrote.", required=True)
    flags.DEFINE_string("output_dir", None, "Folder for the overlays; it is made.", required=True)
    flags.DEFINE_string("class_name", None, "Whose map is shown, for files with map 'all'.")
    flags.DEFINE_string("threshold", "stored", "A number in 0..1, 'stored' or 'otsu'.")
    flags.DEFINE_integer("num_threads", 2, "Threads of the interpreter.", lower_bound=1)
    programs.define_flags(["on_bad_image"])


def predict(
    localizer, paths, output_dir, *, class_name=None, threshold="stored", on_bad_image="skip"
):
    """Writes an overlay and a mask for each picture.

    Args:
        localizer: a LocalizerRuntime.
        paths: files to read.
        output_dir: folder to write to; it is made.
        class_name: with map "all", whose map is shown.
        threshold: a number, "otsu", or "stored" for the one in the file.
        on_bad_image: "skip" pictures that can't be read and name them, or "fail" at the first.

    Returns:
        (lines, skipped), as `wsol_tf.predict.predict`.

    Raises:
        ValueError: the class has no map, or there is one for each and none was chosen; or a picture
            can't be read and on_bad_image is "fail".
    """
    threshold = localizer.threshold if threshold == "stored" else threshold
    kind = localizer.metadata["map"] if class_name is None else f"class:{class_name}"
    localizer.check_class(class_name)

    def find(image):
        found = localizer.localize(image, class_name=class_name, threshold=threshold)
        return {**dataclasses.asdict(found), "class": found.class_name}

    return desk.write(
        find, paths, output_dir, kind=kind, threshold=threshold, on_bad_image=on_bad_image
    )


def main(argv):
    values = flags.FLAGS
    with programs.plain_ending():
        lines, skipped = predict(
            LocalizerRuntime(values.model, values.num_threads),
            desk.find_images(argv[1:]),
            values.output_dir,
            class_name=values.class_name,
            threshold=programs.parse_threshold(values.threshold),
            on_bad_image=values.on_bad_image,
        )
    desk.conclude(lines, skipped, values.output_dir)


if __name__ == "__main__":
    define_flags()
    flags.adopt_module_key_flags(programs)
    app.run(main)
