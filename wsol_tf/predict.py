"""Shows where the object is in pictures: an overlay, a mask and a line of JSON for each.

    python -m wsol_tf.predict --model=RUN/model.keras --output_dir=OUT IMAGE_OR_FOLDER...

writes OUT/NAME_overlay.png, OUT/NAME_mask.png (white object, at the picture's size) and
OUT/predictions.jsonl. Pictures that can't be read are named and skipped.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from wsol_tf import programs
from wsol_tf.config import MAPS
from wsol_tf.data.images import find_images
from wsol_tf.report.predictions import summary, to_stderr, write_predictions

if TYPE_CHECKING:
    from wsol_tf.model.localization import Localization


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


def predict(
    model: "Localization",
    paths: Sequence[str],
    output_dir: str,
    *,
    kind: str | None = None,
    threshold: float | str = "stored",
    top_k: int | None = None,
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
        on_bad_image: "skip" pictures that can't be read and name them, or "fail" at the first.

    Returns:
        (lines, skipped), see `write_predictions`.

    Raises:
        ValueError: the model stores no threshold for this map, or a picture can't be read and
            `on_bad_image` is "fail".
    """
    kind = kind or model.map
    if kind == "true":  # nobody knows the true class here
        kind = "predicted"
    if threshold == "stored":
        if kind not in model.thresholds:
            raise ValueError(
                f"The model stores no threshold for map '{kind}'. Pass `threshold=otsu` or a "
                "number in 0..1."
            )
        threshold = model.thresholds[kind]
    programs.make_output_dir(output_dir)
    return write_predictions(
        functools.partial(model.localize, map=kind, threshold=threshold, top_k=top_k),
        paths,
        output_dir,
        kind=kind,
        threshold=threshold,
        on_bad_image=on_bad_image,
    )


def run(values: flags.FlagValues, *names: str) -> int:
    """Localizes the pictures and folders that are named; returns the exit status."""
    threshold = programs.parse_threshold(values.threshold)
    paths = find_images(names, warn=to_stderr, log=print)
    programs.import_keras()
    from wsol_tf.model.build import load_model

    lines, skipped = predict(
        load_model(values.model, to_train=False),
        paths,
        values.output_dir,
        kind=values.map,
        threshold=threshold,
        top_k=values.top_k,
        on_bad_image=values.on_bad_image,
    )
    programs.say(summary(lines, skipped, values.output_dir))
    return 0 if lines else 1


if __name__ == "__main__":
    programs.main(define_flags, run)
