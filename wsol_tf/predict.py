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

from wsol_tf import images, pictures
from wsol_tf.evaluate import load_model, parse_threshold
from wsol_tf.pipeline import resize_image
from wsol_tf.score_maps import MAPS, localize, map_of
from wsol_tf.train import INTERRUPTED, make_output_dir

BATCH = 16


def define_flags():
    """Defines the flags of this program."""
    flags.DEFINE_string("model", None, "The .keras file that train wrote.", required=True)
    flags.DEFINE_string("output_dir", None, "Folder for the overlays; it is made.", required=True)
    flags.DEFINE_enum(
        "map", None, MAPS, "Score map that is shown; default: the model's own ('true': predicted)."
    )
    flags.DEFINE_integer("top_k", None, "Classes of --map=topk; default: the model's own.")
    flags.DEFINE_string("threshold", "stored", "A number in 0..1, 'stored' or 'otsu'.")


def find_images(arguments):
    """Lists picture files: files as named, folders with all pictures in them, sorted."""
    paths = []
    for argument in arguments:
        if os.path.isdir(argument):
            inside = sorted(
                os.path.join(folder, name)
                for folder, _, names in os.walk(argument)
                for name in names
                if name.lower().endswith(images.SUFFIXES)
            )
            if not inside:
                print(f"No picture in folder {argument}.", file=sys.stderr)
            paths += inside
        else:
            paths.append(argument)
    if not paths:
        raise ValueError("No picture to look at: name pictures or folders of pictures.")
    return paths


def predict(model, paths, output_dir, *, kind=None, threshold="stored", top_k=None):
    """Writes an overlay and a mask for each picture.

    Args:
        model: a Localization.
        paths: files to read.
        output_dir: folder to write to; it is made.
        kind: kind of map, see `score_maps.map_of`; None takes the model's own.
        threshold: a number, "otsu", or "stored" for the one in the model.
        top_k: classes of the map "topk"; None takes the model's.

    Returns:
        (lines, skipped): a dict for each picture, as in predictions.jsonl, and path -> reason of
        pictures that could not be read.
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
    make_output_dir(output_dir)
    lines, skipped, names = [], {}, set()
    with open(os.path.join(output_dir, "predictions.jsonl"), "w") as file:
        for start in range(0, len(paths), BATCH):
            originals = []
            for path in paths[start : start + BATCH]:
                try:
                    originals.append((path, images.read_image(path)))
                except (images.BadImage, OSError) as error:
                    skipped[path] = str(error)
                    print(f"Skipped: {error}", file=sys.stderr)
            if not originals:
                continue
            batch = np.stack([resize_image(image, model.input_size) for _, image in originals])
            outputs = {name: np.asarray(v) for name, v in model.predict_on_batch(batch).items()}
            for i, (path, image) in enumerate(originals):
                line = _write(
                    path, image, outputs, i, model, kind, threshold, top_k, output_dir, names
                )
                lines.append(line)
                file.write(json.dumps(line) + "\n")
                print(f"{path}: {line['class']} {line['probability']:.0%}, box {line['box']}")
    return lines, skipped


def _write(path, image, outputs, i, model, kind, threshold, top_k, output_dir, names):
    logits = outputs["logits"][i].astype(np.float64)
    best = int(logits.argmax())
    exponents = np.exp(logits - logits.max())
    probability = float(exponents[best] / exponents.sum())
    small = map_of(
        kind,
        outputs["localization_map"][i],
        outputs["score_map"][i],
        logits,
        best,
        top_k=top_k or model.top_k,
    )
    score_map, mask, box = localize(small, *image.shape[:2], threshold)
    name = os.path.splitext(os.path.basename(path))[0]
    unique, number = name, 1
    while unique in names:  # pictures of the same name from different folders
        number += 1
        unique = f"{name}_{number}"
    names.add(unique)
    overlay = pictures.overlay(
        image, score_map, mask, box, caption=f"{model.classes[best]} {probability:.0%}"
    )
    Image.fromarray(overlay).save(os.path.join(output_dir, f"{unique}_overlay.png"))
    Image.fromarray(mask.astype(np.uint8) * 255).save(
        os.path.join(output_dir, f"{unique}_mask.png")
    )
    return {
        "image": path,
        "size": {"height": image.shape[0], "width": image.shape[1]},
        "class": model.classes[best],
        "probability": probability,
        "box": [round(float(edge), 2) for edge in box],
        "map": kind,
        "threshold": threshold,
        "mask": f"{unique}_mask.png",
        "overlay": f"{unique}_overlay.png",
    }


def main(argv):
    values = flags.FLAGS
    try:
        lines, skipped = predict(
            load_model(values.model),
            find_images(argv[1:]),
            values.output_dir,
            kind=values.map,
            threshold=parse_threshold(values.threshold),
            top_k=values.top_k,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print(f"{len(lines)} pictures localized, {len(skipped)} skipped; see {values.output_dir}.")
    if not lines:
        sys.exit(1)


if __name__ == "__main__":
    define_flags()
    app.run(main)
