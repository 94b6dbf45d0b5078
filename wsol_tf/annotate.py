"""Annotates pictures for people to correct: boxes and polygons in the format of their tool.

    python -m wsol_tf.annotate --model=RUN/model.keras --format=coco --output_dir=OUT PICTURES...

writes the annotations, OUT/review.html to look at them and correct them, and OUT/doubtful.csv, a
row for each picture, the most doubtful first. The same command goes on where it was stopped; with
another --format it writes what is known without localizing anything anew. For an exported .tflite
there is `python -m edge.annotate`.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from wsol_tf import files, importing, predict, programs, runners
from wsol_tf.annotations.formats import IMAGES, SHAPES, Options
from wsol_tf.annotations.look import Localize, Looking
from wsol_tf.annotations.names import root_of
from wsol_tf.annotations.run import REVIEW, TO_CORRECT, WRITERS, annotate
from wsol_tf.config import MAPS
from wsol_tf.data.images import find_images

if TYPE_CHECKING:
    from wsol_tf.model.localization import Localization

CROP_FLAGS = ("crop_margin", "crop_aspect")


def define_flags() -> None:
    """Defines the flags of this program."""
    programs.define_path("model", None, "The .keras file that train wrote.", required=True)
    flags.DEFINE_enum("map", None, MAPS, "Score map; default: the model's own ('true': predicted).")
    flags.DEFINE_integer(
        "top_k", None, "Classes of --map=topk; default: the model's own.", lower_bound=1
    )
    flags.DEFINE_string(
        "classes",
        "predicted",
        "Whose objects: of the 'predicted' class, of all classes that are 'present' (of at least "
        "the probability that is stored with the model), or that probability, 0..1.",
    )
    define_annotation_flags()
    flags.adopt_module_key_flags(predict)  # --help lists them


def define_annotation_flags() -> None:
    """Defines the flags that do not depend on the kind of model."""
    programs.define_path("output_dir", None, "Folder for the annotations; made.", required=True)
    flags.DEFINE_enum("format", None, list(WRITERS), "What the annotations are for.", required=True)
    flags.DEFINE_enum("shape", "polygon", SHAPES, "What formats that have either describe.")
    flags.DEFINE_string("threshold", "stored", "A number in 0..1, 'stored' or 'otsu'.")
    flags.DEFINE_float(
        "tolerance", 2.0, "Pixels that a polygon may be from the mask's edges.", lower_bound=0.0
    )
    flags.DEFINE_enum("images", "link", IMAGES, "How pictures get into the folders of data sets.")
    flags.DEFINE_string(
        "image_url",
        "/data/local-files/?d=",
        "What Label Studio's addresses of pictures begin with.",
    )
    flags.DEFINE_bool("crops", False, "Also write a JPEG of each object: crops/CLASS/NAME.jpg.")
    flags.DEFINE_float(
        "crop_margin", 0.1, "Added on each side, as a share of the longer side.", lower_bound=0.0
    )
    flags.DEFINE_float(
        "crop_aspect", 0.0, "Width by height of crops; 0: as the box.", lower_bound=0.0
    )
    flags.DEFINE_integer(
        "thumbnail", 256, "Longer side of the page's thumbnails in pixels.", lower_bound=16
    )
    flags.DEFINE_integer(
        "budget",
        0,
        f"Names so many pictures, the most doubtful, in {TO_CORRECT}; 0: none.",
        lower_bound=0,
    )
    programs.define_flags(["on_bad_image"])
    runners.define_flag()
    predict.define_object_flags()
    flags.FLAGS.set_default("max_objects", 0)
    flags.FLAGS.set_default("min_area", 0.1)  # specks are nothing that people want to delete


def localizer_of(
    model: "Localization",
    *,
    kind: str | None,
    threshold: float | str,
    classes: float | str,
    **settings: Any,
) -> Localize:
    """Returns a function of a picture that gives what `annotate` wants to know of it.

    Args:
        model: a Localization.
        kind: kind of map, see `score_maps.map_of`; None: the model's own.
        threshold: a number in 0..1, "otsu", or "stored" for the one in the model.
        classes: whose objects are found, see `Localization.localize`.
        **settings: others of `Localization.localize`.

    Raises:
        ValueError: the model stores no threshold for this map, or the classes can't be told apart
            in it.
    """
    kind, present = model.objects_asked_for(classes, kind)
    from wsol_tf.model import inputs  # with TensorFlow, which the help needs none of

    cut = inputs.threshold_of(kind, None if threshold == "stored" else threshold, model.thresholds)
    cam_cut = model.thresholds.get("cam", "otsu")

    own = {
        "map": kind,
        "threshold": cut,
        "classes": "predicted" if present is None else present,
        **settings,
    }
    cam = {"map": "cam", "threshold": cam_cut, "max_objects": 1}

    def localize(image: np.ndarray):
        if kind == "cam":  # nothing to compare
            return model.localize(image, **own), None
        found, of_cam = model.localize_each(image, own, cam)
        return found, of_cam.mask

    return localize


def digest_of(path: str) -> str:
    """Returns what tells a model's file from any other."""
    return hashlib.sha256(files.read_bytes(path)).hexdigest()


def annotate_named(
    values: flags.FlagValues,
    names: Sequence[str],
    open_localizer: Callable[[flags.FlagValues], tuple[Localize, Sequence[str]]],
    model_flags: Sequence[str],
    program: str,
    beam_options: Sequence[str],
) -> int:
    """Annotates the pictures and folders that are named; returns the exit status.

    Args:
        values: the flags of `define_annotation_flags`, and `model`.
        names: files and folders.
        open_localizer: makes of flags what localizes a picture, and the names of its classes.
        model_flags: flags besides that change what is found.
        program: the module that was called; workers of `runner` call its `open_localizer`.
        beam_options: Apache Beam's own, see `runners`.
    """
    _check_flags(values)
    runners.check(values, beam_options)
    paths = find_images(names, warn=programs.say_error, log=programs.say)
    localize, classes = open_localizer(values)
    programs.make_output_dir(values.output_dir)
    looking = Looking(*(values[field.name].value for field in dataclasses.fields(Looking)))
    elsewhere = None
    if values.runner:
        shared = {"program": program, "settings": runners.settings_of(values)}
        shared |= {"options": beam_options, "log": programs.say}
        elsewhere = functools.partial(
            runners.beam().look_at, values.output_dir, root_of(names), looking, **shared
        )
    pictures, skipped = annotate(
        localize,
        paths,
        values.output_dir,
        root=root_of(names),
        format=values.format,
        options=Options(classes, values.shape, values.images, values.image_url),
        looking=looking,
        model={
            "model": digest_of(values.model),
            "threshold": values.threshold,
            **predict.limits_of(values),
            **{name: values[name].value for name in model_flags},
        },
        budget=values.budget,
        on_bad_image=values.on_bad_image,
        log=programs.say,
        warn=programs.say_error,
        elsewhere=elsewhere,
    )
    programs.say(
        f"{files.counted(len(pictures), 'picture')} annotated, {len(skipped)} skipped; see "
        f"{values.output_dir}, and look at {REVIEW} there."
    )
    return 0 if len(pictures) else 1


def _check_flags(values):
    given = [name for name in CROP_FLAGS if values[name].present and not values.crops]
    if given:
        raise ValueError(f"`{given[0]}` says how crops are made: pass `crops=true` as well.")


def open_localizer(values: flags.FlagValues) -> tuple[Localize, Sequence[str]]:
    """Makes of parsed flags what localizes a picture, and the names of its classes."""
    importing.import_keras()
    from wsol_tf.model.build import load_model

    model = load_model(values.model, to_train=False)
    model.freeze()
    localize = localizer_of(
        model,
        kind=values.map,
        threshold=programs.parse_threshold(values.threshold),
        classes=predict.parse_classes(values.classes),
        top_k=values.top_k,
        **predict.limits_of(values),
    )
    return localize, model.classes


def run(values: flags.FlagValues, *names: str, options: Sequence[str] = ()) -> int:
    """Annotates the pictures and folders that are named; returns the exit status."""
    if values.model.endswith(".tflite"):
        raise ValueError(
            "This is an exported file, which `python -m edge.annotate` runs with these flags."
        )
    model_flags = ("map", "top_k", "classes")
    return annotate_named(values, names, open_localizer, model_flags, "wsol_tf.annotate", options)


if __name__ == "__main__":
    programs.main(define_flags, run)
