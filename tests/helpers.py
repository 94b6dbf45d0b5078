"""Runs the project's programs inside the test process, and makes models that are quickly built."""

import contextlib
import csv
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from unittest import mock

import keras
import numpy as np
from absl import flags
from PIL import Image

from wsol_tf import programs
from wsol_tf.config import MAPS, Config
from wsol_tf.evaluation.localized_map import LocalizedMap
from wsol_tf.evaluation.pairs import Pair
from wsol_tf.model import backbones, heads
from wsol_tf.model import build as building
from wsol_tf.model.localization import Localization

CLASSES = ("cat", "dog", "emu")
VOC_CLASSES = ("cat", "dog", "fox")  # of `add_picture`
AT_ONCE = {"localization_start": 0.0, "erasing_start": 0.0, "pseudo_start": 0.0, "warmup": 0.0}
ROOT = pathlib.Path(__file__).parent.parent
TINY = ("--width=0.25", "--input_size=64", "--head_width=8", "--extractor_weights=none")
RUN_FILES = {"run.flags", "model.keras", "history.csv", "curves.png", "metrics.json", "logs",
             "outcomes.jsonl", "contact_sheet.png", "report.html", "model_card.md", "checkpoints",
             "validation"}  # fmt: skip


def run(program, *arguments):
    """Runs a program as its command line does; returns the exit status."""
    before = set(flags.FLAGS)
    getattr(program, "define_flags", programs.define_flags)()
    try:
        argv = flags.FLAGS(programs.prepared([program.__name__, *map(str, arguments)]))
        if hasattr(program, "run"):
            programs.call(program.run, argv)
        else:  # edge.benchmark imports nothing of wsol_tf
            program.main(argv)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
    return 0


def start(*arguments, command=("-m", "wsol_tf.train"), **environment):
    """Starts a program in a process of its own, as a user does."""
    return subprocess.Popen(
        [sys.executable, *command, *map(str, arguments)],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def history_of(folder):
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def _toy_extractor(*_, input_size, **__):
    return *toy_parts(input_size, stride=8), "toy: random weights"


def tiny_model(classes, *, whole=False, **settings):
    """An untrained model with a threshold for every kind of map.

    Its features are those of `toy_parts` at stride 8, which are built and converted in a sixth of
    the time of the narrowest real network; `whole` builds that one.
    """
    keras.utils.set_random_seed(0)  # the same weights whatever ran before
    settings = {"width": 0.25, "input_size": 64, "head_width": 8} | settings
    config = Config.recipe(extractor_weights="none", **settings)
    with contextlib.ExitStack() as stack:
        if not whole:
            stack.enter_context(mock.patch.object(backbones, "build_extractor", _toy_extractor))
        built = building.build_model(config, classes)
    built.thresholds = dict.fromkeys(MAPS, 0.5)
    return built


KEYED_BY_DATA = (
    "iou_levels",
    "skipped",
    "skipped_in_training",
    "classes",
    "thresholds",
    "other_maps",
    "unreadable",
    "recall_by_number",
    "iou",
)


def undefined_names(figures):
    """Names in metrics.json, at any depth, that its definitions leave out."""
    definitions = figures["definitions"]

    def names(part):
        for name, value in part.items():
            yield name
            if isinstance(value, dict) and name != "definitions":
                parts = value.values() if name in KEYED_BY_DATA else [value]
                for inner in parts:
                    yield from names(inner) if isinstance(inner, dict) else ()

    return set(names(figures)) - set(definitions) - {"definitions"}


def varied(model, seed=0):
    """Changes an untrained model so that its maps differ between positions and pictures."""
    rng = np.random.default_rng(seed)
    for layer in model.feature_extractor.layers:
        if type(layer).__name__ == "BatchNormalization":
            gamma, beta, *statistics = layer.get_weights()
            beta = beta + rng.normal(0, 0.3, beta.shape)
            layer.set_weights([gamma * 2, beta, *statistics])
    localizer = model.localizer.get_layer("localizer_conv")
    localizer.set_weights([w + rng.normal(0, 0.1, w.shape) for w in localizer.get_weights()])
    return model


def toy(channels=3, seed=0, **keywords):
    """A Localization with every kind of layer of the real one, and few of them."""
    keras.utils.set_random_seed(seed)
    feature_extractor, rest = toy_parts()
    return Localization(
        feature_extractor,
        heads.classifier(rest, 3, head_width=6),
        heads.localizer((8, 8, 8), channels),
        CLASSES,
        **keywords,
    )


def toy_parts(size=32, stride=4):
    """A feature extractor of stride 4 or 8 and its rest, for pictures of this side in pixels."""
    image = keras.Input((size, size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="rescaling")(image)
    x = keras.layers.Conv2D(8, 3, strides=4, padding="same", use_bias=False, name="conv1")(x)
    x = _norm("conv1_bn")(x)
    x = keras.layers.ReLU(6.0, name="conv1_relu")(x)
    if stride == 8:  # a block of MobileNetV1
        x = keras.layers.DepthwiseConv2D(
            3, strides=2, padding="same", use_bias=False, name="conv_dw_1"
        )(x)
        x = keras.layers.ReLU(6.0, name="conv_dw_1_relu")(_norm("conv_dw_1_bn")(x))
        x = keras.layers.Conv2D(16, 1, use_bias=False, name="conv_pw_1")(x)
        x = keras.layers.ReLU(6.0, name="conv_pw_1_relu")(_norm("conv_pw_1_bn")(x))
    features = keras.Input(x.shape[1:], name="features")
    y = keras.layers.DepthwiseConv2D(3, strides=2, padding="same", name="conv_dw_2")(features)
    y = _norm("conv_dw_2_bn")(y)
    return keras.Model(image, x, name="feature_extractor"), keras.Model(features, y, name="rest")


def make_quick(set_attribute):
    """Does what the fixture `quick` does, with a function that sets an attribute."""
    compile_model = building.compile_model

    def build(*_, input_size, **__):
        return *toy_parts(input_size), "toy: random weights"

    def compile_eagerly(built, *arguments):
        compile_model(built, *arguments)
        built.run_eagerly = True

    set_attribute(backbones, "build_extractor", build)
    set_attribute(building, "compile_model", compile_eagerly)


def _norm(name):
    return keras.layers.BatchNormalization(momentum=0.9, synchronized=True, name=name)


def arrays_in(path):
    """The arrays of an .npz by name."""
    with np.load(path) as file:
        return dict(file)


def free_ports(count):
    """Ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def add_picture(folder, image_id, objects, *, size=(40, 30), mask=None):
    """Adds a picture (width, height) in VOC layout; objects: (class, (x0, y0, x1, y1) or None)."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main", "SegmentationClass"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(VOC_CLASSES))
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    text = ""
    for name, box in objects:
        text += f"<object><name>{name}</name>"
        if box is not None:
            x0, y0, x1, y1 = box
            image[y0:y1, x0:x1, VOC_CLASSES.index(name)] = 255  # the predictor below reads this
            corners = zip(("xmin", "ymin", "xmax", "ymax"), (x0 + 1, y0 + 1, x1, y1), strict=True)
            text += f"<bndbox>{''.join(f'<{k}>{v}</{k}>' for k, v in corners)}</bndbox>"
        text += "</object>"
    Image.fromarray(image).save(folder / "JPEGImages" / f"{image_id}.png")
    (folder / "Annotations" / f"{image_id}.xml").write_text(f"<annotation>{text}</annotation>")
    if mask is not None:
        Image.fromarray(mask).save(folder / "SegmentationClass" / f"{image_id}.png")
    with open(folder / "ImageSets" / "Main" / "val.txt", "a") as file:
        file.write(f"{image_id}\n")


def add_map(
    scored, image_id, label, scores, score_map, boxes, view_size, *, mask=None, allowed=None,
    activation=None, empty=False,
):  # fmt: skip
    """Adds the map of a class in a picture, the view being all of it, to a LocalizationMetrics."""
    height, width = np.broadcast_to(view_size, 2).tolist()
    pair = Pair(
        position=0,
        image=np.zeros((height, width, 0), np.uint8),
        image_id=image_id,
        size=(height, width),
        label=label,
        boxes=None if boxes is None else np.asarray(boxes, np.float64).reshape(-1, 4),
        mask=mask,
        allowed=allowed,
        logits=scores,
        maps={"own": score_map},
        activation=activation,
        empty=empty,
    )
    scored.add(LocalizedMap(pair, "own", "otsu", scored.thresholds, scored.box_iou))
