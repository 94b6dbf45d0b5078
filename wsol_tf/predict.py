"""Shows where the objects are in pictures: an overlay, a mask and a line of JSON for each.

    python -m wsol_tf.predict --model=RUN/model.keras --output_dir=OUT IMAGE_OR_FOLDER...

writes OUT/NAME_overlay.png, OUT/NAME_mask.png (white object, at the picture's size) and
OUT/predictions.jsonl. Pictures that can't be read are named and skipped. One box is given for each
picture; --max_objects=0 gives one for each object, and --classes=present those of all classes.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from wsol_tf import importing, programs
from wsol_tf.config import LIMITS, MAPS
from wsol_tf.data.images import find_images
from wsol_tf.report.predictions import summary, to_stderr, write_predictions

if TYPE_CHECKING:
    from wsol_tf.model.localization import Localization


FEW = 2  # pictures that take longer to trace a graph for than to run without one
MANY = 40  # from so many on, a graph with constant weights is worth its making, of any width


def define_flags() -> None:
    """Defines the flags of this program."""
    programs.define_path("model", None, "The .keras file that train wrote.", required=True)
    programs.define_path("output_dir", None, "Folder for the overlays; it is made.", required=True)
    flags.DEFINE_enum(
        "map", None, MAPS, "Score map that is shown; default: the model's own ('true': predicted)."
    )
    flags.DEFINE_integer(
        "top_k", None, "Classes of --map=topk; default: the model's own.", lower_bound=1
    )
    flags.DEFINE_string("threshold", "stored", "A number in 0..1, 'stored' or 'otsu'.")
    programs.define_flags(["on_bad_image"])
    define_object_flags()
    flags.DEFINE_string(
        "classes",
        "predicted",
        "Whose objects: of the 'predicted' class, of all classes that are 'present' (of at least "
        "the probability that is stored with the model), or that probability, 0..1.",
    )


def define_object_flags(max_objects: int = 1) -> None:
    """Defines the flags that say which components of a mask are objects.

    Args:
        max_objects: default of the flag of this name.
    """
    flags.DEFINE_integer(
        "max_objects",
        max_objects,
        "At most so many objects of a class, the largest; 0: all.",
        lower_bound=0,
    )
    flags.DEFINE_float(
        "min_area",
        0.0,
        "Parts of the mask with fewer pixels than this share of the largest one's are no objects.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_float(
        "min_picture_area",
        0.0,
        "Parts of the mask with fewer pixels than this share of the picture's are no objects.",
        lower_bound=0.0,
        upper_bound=1.0,
    )


def limits_of(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the flags of `define_object_flags` as arguments of `Localization.localize`."""
    return {name: getattr(values, name) for name in LIMITS}


def predict(
    model: "Localization",
    paths: Sequence[str],
    output_dir: str,
    *,
    kind: str | None = None,
    threshold: float | str = "stored",
    top_k: int | None = None,
    classes: float | str = "predicted",
    min_area: float = 0.0,
    min_picture_area: float = 0.0,
    max_objects: int = 1,
    on_bad_image: str = "skip",
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Writes an overlay and a mask for each picture.

    Args:
        model: a Localization.
        paths: files to read.
        output_dir: folder to write to; it is made.
        kind: kind of map, see `score_maps.map_of`; None takes the model's own.
        threshold: a number in 0..1, "otsu", or "stored" for the one in the model.
        top_k: classes of the map "topk"; None takes the model's.
        classes: whose objects are found, see `Localization.localize`.
        min_area: see `Localization.localize`.
        min_picture_area: see `Localization.localize`.
        max_objects: see `Localization.localize`.
        on_bad_image: "skip" pictures that can't be read and name them, or "fail" at the first.

    Returns:
        (lines, skipped), see `write_predictions`.

    Raises:
        ValueError: the model stores no threshold for this map, the classes can't be told apart in
            it, or a picture can't be read and `on_bad_image` is "fail".
    """
    from wsol_tf.model import inputs  # with TensorFlow, which the help needs none of

    kind, present = model.objects_asked_for(classes, kind)
    threshold = inputs.threshold_of(
        kind, None if threshold == "stored" else threshold, model.thresholds
    )
    programs.make_output_dir(output_dir)
    return write_predictions(
        functools.partial(
            model.localize,
            map=kind,
            threshold=threshold,
            top_k=top_k,
            classes="predicted" if present is None else present,
            min_area=min_area,
            min_picture_area=min_picture_area,
            max_objects=max_objects,
        ),
        paths,
        output_dir,
        kind=kind,
        threshold=threshold,
        on_bad_image=on_bad_image,
    )


def parse_classes(text: str) -> float | str:
    """Reads --classes: 'predicted', 'present' or a probability; else text as it is."""
    try:
        return float(text)
    except ValueError:
        return text


def run(values: flags.FlagValues, *names: str) -> int:
    """Localizes the pictures and folders that are named; returns the exit status."""
    threshold = programs.parse_threshold(values.threshold)
    paths = find_images(names, warn=to_stderr, log=print)
    importing.import_keras(few_names=len(paths) <= FEW)
    from wsol_tf.model.build import load_model

    model = load_model(values.model, to_train=False)
    model.run_eagerly = len(paths) <= FEW
    if len(paths) >= MANY:
        model.freeze()
    lines, skipped = predict(
        model,
        paths,
        values.output_dir,
        kind=values.map,
        threshold=threshold,
        top_k=values.top_k,
        classes=parse_classes(values.classes),
        **limits_of(values),
        on_bad_image=values.on_bad_image,
    )
    programs.say(summary(lines, skipped, values.output_dir))
    return 0 if lines else 1


if __name__ == "__main__":
    programs.main(define_flags, run)
