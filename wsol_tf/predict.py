"""Shows where the object is in pictures: an overlay, a mask and a line of JSON for each.

    python -m wsol_tf.predict --model=RUN/model.keras --output_dir=OUT IMAGE_OR_FOLDER...

writes OUT/NAME_overlay.png, OUT/NAME_mask.png (white object, at the picture's size) and
OUT/predictions.jsonl. Pictures that can't be read are named and skipped.
"""

import json
import os
import sys

import numpy as np
from absl import app, flags
from PIL import Image

from wsol_tf import programs
from wsol_tf.config import MAPS
from wsol_tf.data import images
from wsol_tf.data.transforms import resize_image
from wsol_tf.model.build import load_model
from wsol_tf.model.score_maps import localize, map_of
from wsol_tf.report import pictures


def define_flags():
    """Defines the flags of this program."""
    flags.DEFINE_string("model", None, "The .keras file that train wrote.", required=True)
    flags.DEFINE_string("output_dir", None, "Folder for the overlays; it is made.", required=True)
    flags.DEFINE_enum(
        "map", None, MAPS, "Score map that is shown; default: the model's own ('true': predicted)."
    )
    flags.DEFINE_integer(
        "top_k", None, "Classes of --map=topk; default: the model's own.", lower_bound=1
    )
    flags.DEFINE_string("threshold", "stored", "A number in 0..1, 'stored' or 'otsu'.")
    programs.define_flags(["on_bad_image"])


def find_images(arguments):
    """Lists picture files: files as named, folders with all pictures in them, sorted."""
    paths = []
    for argument in arguments:
        if os.path.isdir(argument):
            inside = images.files_in(argument)
            if not inside:
                print(f"No picture in folder {argument}.", file=sys.stderr)
            paths += inside
        else:
            paths.append(argument)
    if not paths:
        raise ValueError("No picture to look at: name pictures or folders of pictures.")
    return paths


def predict(
    model, paths, output_dir, *, kind=None, threshold="stored", top_k=None, on_bad_image="skip"
):
    """Writes an overlay and a mask for each picture.

    Args:
        model: a Localization.
        paths: files to read.
        output_dir: folder to write to; it is made.
        kind: kind of map, see `score_maps.map_of`; None takes the model's own.
        threshold: a number, "otsu", or "stored" for the one in the model.
        top_k: classes of the map "topk"; None takes the model's.
        on_bad_image: "skip" pictures that can't be read and name them, or "fail" at the first.

    Returns:
        (lines, skipped): a dict for each picture, as in predictions.jsonl, and path -> reason of
        pictures that could not be read.

    Raises:
        ValueError: the model stores no threshold for this map, or a picture can't be read and
            on_bad_image is "fail".
    """
    kind = kind or model.map
    if kind == "true":  # nobody knows the true class here
        kind = "predicted"
    if threshold == "stored":
        if kind not in model.thresholds:
            raise ValueError(
                f"The model stores no threshold for map '{kind}'. Pass --threshold=otsu or a "
                "number in 0..1."
            )
        threshold = model.thresholds[kind]

    def find(image):
        return _localize(model, image, kind, threshold, top_k or model.top_k)

    return write(find, paths, output_dir, kind=kind, threshold=threshold, on_bad_image=on_bad_image)


def write(find, paths, output_dir, *, kind, threshold, on_bad_image="skip"):
    """Writes what a function finds in pictures, in the files that `predict` writes.

    Args:
        find: function of a picture uint8 `[height, width, 3]` that returns a dict of `class` (name
            or None), `probability` (0..1 or None), `score_map`, `mask` and `box` as
            `score_maps.localize` gives them; FloatingPointError makes it a bad picture.
        paths, output_dir, on_bad_image: as for `predict`.
        kind, threshold: what stands in predictions.jsonl.

    Returns:
        (lines, skipped), as `predict`.
    """
    programs.make_output_dir(output_dir)
    lines, skipped = [], {}
    names = _names_in_use(paths, output_dir)
    with open(os.path.join(output_dir, "predictions.jsonl"), "w") as file:
        for path in paths:  # one at a time: a picture can be very large
            try:
                image = images.read_image(path)
                found = find(image)
            except (images.BadImage, FloatingPointError) as error:
                skipped[path] = getattr(error, "reason", str(error).rstrip("."))
                said = f"{path}: {skipped[path]}."
                if on_bad_image == "fail":
                    raise ValueError(
                        f"{said} Mend or remove it, or let such pictures be skipped and named: "
                        "--on_bad_image=skip."
                    ) from error
                print(f"Skipped: {said}", file=sys.stderr)
                continue
            name = _unique(os.path.splitext(os.path.basename(path))[0], names)
            _draw(image, found, os.path.join(output_dir, name))
            line = {
                "image": path,
                "size": {"height": image.shape[0], "width": image.shape[1]},
                "class": found["class"],
                "probability": found["probability"],
                "box": [round(float(edge), 2) for edge in found["box"]],
                "map": kind,
                "threshold": threshold,
                "mask": f"{name}_mask.png",
                "overlay": f"{name}_overlay.png",
            }
            lines.append(line)
            file.write(json.dumps(line, allow_nan=False) + "\n")
            said = [_caption(found), f"box {line['box']}"]
            print(f"{path}: {', '.join(filter(None, said))}")
    return lines, skipped


def _localize(model, image, kind, threshold, top_k):
    """What the model says about one picture; FloatingPointError when that is no number."""
    batch = resize_image(image, model.input_size)[None]
    outputs = {name: np.asarray(v)[0] for name, v in model.predict_on_batch(batch).items()}
    logits = outputs["logits"].astype(np.float64)
    best = int(logits.argmax())
    small = map_of(
        kind, outputs["localization_map"], outputs["score_map"], logits, best, top_k=top_k
    )
    if not (np.isfinite(logits).all() and np.isfinite(small).all()):
        raise FloatingPointError("the model's output is no finite number. Train it again.")
    exponents = np.exp(logits - logits.max())
    score_map, mask, box = localize(small, *image.shape[:2], threshold)
    return {
        "class": model.classes[best],
        "probability": float(exponents[best] / exponents.sum()),
        "score_map": score_map,
        "mask": mask,
        "box": box,
    }


def _caption(found):
    """The class and its probability, or what of the two is known."""
    known = [
        found["class"],
        None if found["probability"] is None else f"{found['probability']:.0%}",
    ]
    return " ".join(filter(None, known))


def _draw(image, found, stem):
    overlay = pictures.overlay(
        image, found["score_map"], found["mask"], found["box"], caption=_caption(found)
    )
    Image.fromarray(overlay).save(f"{stem}_overlay.png")
    Image.fromarray(found["mask"].astype(np.uint8) * 255).save(f"{stem}_mask.png")


def _names_in_use(paths, output_dir):
    """Names that pictures in the output folder have for themselves, so that none is replaced."""
    here = os.path.realpath(output_dir)
    inside = [path for path in paths if os.path.dirname(os.path.realpath(path)) == here]
    return {
        os.path.basename(path).removesuffix(end)
        for path in inside
        for end in ("_overlay.png", "_mask.png")
        if path.endswith(end)
    }


def _unique(name, taken):
    """A name that no picture had before: pictures of different folders can share one."""
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    taken.add(unique)
    return unique


def conclude(lines, skipped, output_dir):
    """Says how many pictures were seen; ends with status 1 where it was none."""
    what = "picture" if len(lines) == 1 else "pictures"
    print(f"{len(lines)} {what} localized, {len(skipped)} skipped; see {output_dir}.")
    if not lines:
        sys.exit(1)


def main(argv):
    values = flags.FLAGS
    with programs.plain_ending():
        threshold = programs.parse_threshold(values.threshold)
        paths = find_images(argv[1:])
        lines, skipped = predict(
            load_model(values.model),
            paths,
            values.output_dir,
            kind=values.map,
            threshold=threshold,
            top_k=values.top_k,
            on_bad_image=values.on_bad_image,
        )
    conclude(lines, skipped, values.output_dir)


if __name__ == "__main__":
    define_flags()
    flags.adopt_module_key_flags(programs)
    app.run(main)
