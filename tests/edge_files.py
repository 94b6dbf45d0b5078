"""Small .tflite files whose output can be worked out by hand, and what runs them in node."""

import shutil

import keras
import numpy as np
from keras import ops

from edge.export import convert, metadata
from helpers import ROOT

SIDE, CELL = 32, 4  # sides in pixels of the input, and of a position of the map
LABELS = ("red", "green", "blue")


def brightness(path, *, map_="mean", format_="float32", threshold=0.5, **changes):
    """Writes a file whose map is the brightness 0..1 of 4x4 pixels; logits are mean r, g, b / 16.

    With map_ "all" and "present" the three maps are the three colours; only "predicted", "present"
    and files with a `background_class` have logits.
    """
    image = keras.Input(batch_shape=(1, SIDE, SIDE, 3), name="image")
    colours = ops.average_pool(image / 255.0, CELL)
    outputs = {"foreground_mask": colours}
    if map_ not in ("all", "present"):
        outputs = {"foreground_mask": ops.mean(colours, axis=-1, keepdims=True)}
    if map_ in ("predicted", "present") or "background_class" in changes:
        outputs["class_scores"] = ops.mean(image, axis=(1, 2)) / 16.0
    noise = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
    noise[0], noise[1] = 0, 255
    model_bytes = convert.convert(keras.Model(image, outputs), format_, noise)
    information = {
        "labels": list(LABELS), "map": map_, "top_k": None, "threshold": threshold,
        "presence_threshold": 0.2 if map_ == "present" else None,
        "normalization": {"scale": 1 / 255, "offset": 0.0, "in_graph": True},
        "input_size": [SIDE, SIDE], "output_size": [SIDE // CELL] * 2, "format": format_,
        "versions": {"wsol_tf": "0", "tensorflow": "0", "keras": "0"},
    } | changes  # fmt: skip
    path.write_bytes(metadata.add(model_bytes, information))
    return str(path)


def copy_localizer(folder):
    """Copies the browser's localizer to where node can import it, without LiteRT.js."""
    for name in ("localizer.js", "arrays.js", "separation.js"):
        shutil.copy(ROOT / "edge" / "web" / name, folder)
    core = folder / "node_modules" / "@litertjs" / "core"
    core.mkdir(parents=True)
    for each in (folder, core):
        (each / "package.json").write_text('{"type": "module", "main": "index.js"}')
    names = "getWebGpuDevice, loadAndCompile, loadLiteRt, Tensor"
    (core / "index.js").write_text(f"export let {names};")
