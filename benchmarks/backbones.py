"""Compares the feature extractors: size, work, time, and what becomes of them in a .tflite.

    python benchmarks/backbones.py --input_size=64 --output=backbones.jsonl
    python benchmarks/backbones.py --table=backbones.jsonl

The first command writes one line for each backbone, the second prints the tables of
docs/backbones.md. Each is trained as `wsol_tf.train` does it, on drawn pictures with one label
each, from random weights (ImageNet's are not at hand for all), scored on others, and its files are
compared with Keras on these. With `--steps=0` none is trained: batch normalization gets the
statistics of drawn pictures and the localizer is fitted to their masks, so that there is something
to compare. With `--steps=0 --num_pictures=0` only training steps are timed. Times are CPU time of
one process, and count as ratios.
"""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as programs have it
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import keras
import numpy as np
from absl import app, flags

from edge.export import convert, graphs, parity, steps
from edge.export.exported_map import ExportedMap
from edge.runners import tflite_runner
from wsol_tf import training
from wsol_tf.config import Config, choices
from wsol_tf.data import shapes
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.source import Source
from wsol_tf.data.transforms import View
from wsol_tf.model import backbones
from wsol_tf.model.build import build_model
from wsol_tf.model.localization import Localization

FORMATS = ("float32", "dynamic", "int8")  # of the files that are made


def define_flags() -> None:
    """Defines the flags of the program."""
    flags.DEFINE_list("backbones", list(choices("extractor")), "Which ones.")
    flags.DEFINE_integer("input_size", 224, "Side of the pictures in pixels.")
    flags.DEFINE_integer("output_stride", 8, "Pixels per position of the features.")
    flags.DEFINE_integer("steps", 200, "Steps of training with all losses; 0: none.")
    flags.DEFINE_integer("speed_steps", 5, "Steps of training that are timed; 0: none.")
    flags.DEFINE_integer("num_examples", 200, "Drawn pictures to train on, and others to score.")
    flags.DEFINE_integer("batch_size", 8, "Pictures per step.")
    flags.DEFINE_enum(
        "mixed_precision", "float32", list(choices("mixed_precision")), "As in training."
    )
    flags.DEFINE_integer(
        "num_pictures", 24, "Pictures to fit or calibrate on, and to compare; 0: no file is made."
    )
    flags.DEFINE_string("output", "", "File that a line is added to for each backbone.")
    flags.DEFINE_string("table", "", "Prints the lines of this file as tables, and measures none.")


def multiplications(layer: keras.layers.Layer) -> int:
    """Multiplications of a layer for one picture; of normalization and activations none."""
    if not isinstance(layer.output, keras.KerasTensor) or len(layer.output.shape) != 4:
        return 0
    positions = layer.output.shape[1] * layer.output.shape[2]
    kernels = [w.shape for w in layer.weights if "kernel" in w.name]
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return positions * int(np.prod(kernels[0]))
    return sum(positions * int(np.prod(shape)) for shape in kernels)


def settle(model, examples, input_size: int) -> None:
    """Gives batch normalization the statistics of pictures, and fits the localizer to masks."""
    pictures = np.stack([example.image for example in examples])
    extractor = model.feature_extractor
    norms = [x for x in extractor.layers if isinstance(x, keras.layers.BatchNormalization)]
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    extractor(pictures, training=True)
    for layer, momentum in zip(norms, before, strict=True):
        layer.momentum = momentum
    features = np.asarray(extractor(pictures, training=False))
    side = features.shape[1]
    masks = np.stack([example.mask > 0 for example in examples]).astype("float32")
    cell = input_size // side
    shares = masks.reshape(-1, side, cell, side, cell).mean((2, 4))[..., None]
    scale = features.std() + 1e-6
    kernel, bias = model.localizer.get_layer("localizer_conv").get_weights()
    rows = _neighbourhoods(features / scale)
    targets = (shares.reshape(-1) - 0.5) * 6
    # Ridge regression in the space of the rows: far fewer than the kernel's values.
    gram = rows @ rows.T
    penalty = 0.1 * np.trace(gram) / len(rows) * np.eye(len(rows), dtype="float32")
    solved = rows.T @ np.linalg.solve(gram + penalty, targets)
    kernel[:] = (solved.reshape(kernel.shape[:3]) / scale)[..., None]
    bias[:] = 0
    model.localizer.get_layer("localizer_conv").set_weights([kernel, bias])


def _neighbourhoods(features):
    """The 3x3 neighbourhood of every position as a row, [n, 9 * channels]."""
    padded = np.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
    side = features.shape[1]
    views = [padded[:, i : i + side, j : j + side] for i in range(3) for j in range(3)]
    return np.concatenate(views, -1).reshape(-1, 9 * features.shape[-1]).astype("float32")


def cpu_ms(run, picture, repeats: int = 5) -> float:
    """CPU milliseconds of a call, the least of several."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run(picture)
        times.append((time.process_time() - start) * 1e3)
    return min(times[1:])


def training_speed(model, values, source) -> float:
    """Pictures per CPU second of the full training step, the first two aside."""
    times = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: times.append(time.process_time())
    )
    batches = source.batches(values.batch_size, input_size=model.input_size).repeat()
    steps_taken = values.speed_steps + 2
    model.fit(batches, steps_per_epoch=steps_taken, epochs=1, verbose=0, callbacks=[clock])
    return values.batch_size / statistics.median(np.diff(times[1:]))


def trained(config: Config, values: flags.FlagValues) -> tuple[Localization, dict]:
    """A model trained on labels of drawn pictures, and its figures on others."""
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(
            config, dataset="shapes", num_examples=values.num_examples, epochs=1,
            min_steps=values.steps, validate_every=0, output_dir=os.path.join(folder, "run"),
        )  # fmt: skip
        return training.train(config, log=lambda _: None)


def measure(name: str, values: flags.FlagValues) -> dict:
    """Builds, trains or settles, and exports one backbone."""
    keras.utils.set_random_seed(0)
    size = max(values.input_size, backbones.BACKBONES[name].least)
    config = Config.recipe(
        "default", extractor=name, extractor_weights="none", input_size=size, head_width=64,
        localizer="agnostic", output_stride=values.output_stride, resize_size=size,
        batch_size=values.batch_size, refine="guided", mixed_precision=values.mixed_precision,
    )  # fmt: skip
    model = build_model(config, shapes.CLASSES)
    extractor = model.feature_extractor
    row = {
        "backbone": name,
        "input_size": size,
        "parameters": extractor.count_params(),
        "channels": extractor.output.shape[-1],
        "mmac_224": sum(map(multiplications, extractor.layers)) / 1e6 * (224 / size) ** 2,
    }
    source = open_dataset("shapes", "", "train", image_size=size)
    drawn = [shapes.draw(i, size=size, split="train") for i in range(values.num_pictures)]
    if values.speed_steps:
        row["images_per_cpu_second"] = training_speed(model, values, source)
    if not values.num_pictures:
        return row
    if values.steps:
        model, figures = trained(config, values)
        row |= {key: figures[key] for key in ("gt_known_loc", "miou_mask")}
        row["cam_gt_known_loc"] = figures["other_maps"]["cam"]["gt_known_loc"]
        source = open_dataset("shapes", "", "val", image_size=size)
    else:
        settle(model, drawn, size)
    pictures = np.stack([example.image for example in drawn])
    pictures[0, 0, 0], pictures[0, 0, 1] = 0, 255
    return row | exported(model, pictures, source)


def exported(model: Localization, pictures: np.ndarray, source: Source) -> dict:
    """Size, time, and agreement with Keras of the files."""
    model = graphs.in_float32(model)  # as edge.export does
    map_ = ExportedMap.parse("mean")
    made = steps.make_files(
        model, map_, graphs.export_graph(model, map_), pictures, FORMATS,
        log=lambda _: None,
    )  # fmt: skip
    runners = {kind: tflite_runner(data) for kind, data in made.items()}
    threshold = model.thresholds.get(map_.kind, 0.5)
    figures = parity.compare(
        {parity.REFERENCE: parity.reference(model, map_)} | runners, source, range(len(pictures)),
        view=View(model.input_size, model.resize_size), threshold=threshold, kind=map_.kind,
        refine=model.refine,
    )  # fmt: skip
    return {
        kind: {
            "mb": len(data) / 1e6,
            "cpu_ms": cpu_ms(runners[kind], pictures[0]),
            "mask_iou": figures[kind]["mask_iou"],
            "mask_iou_min": figures[kind]["mask_iou_min"],
            "gpu_fallbacks": convert.gpu_fallbacks(data),
        }
        for kind, data in made.items()
    }


def print_tables(rows: list[dict]) -> None:
    """Prints what docs/backbones.md shows, of what was measured."""
    for row in rows:
        if "failed" in row:
            print(f"{row['backbone']}: {row['failed']}\n")
    for key, print_table in (
        ("float32", print_files), ("images_per_cpu_second", print_speed),
        ("gt_known_loc", print_trained),
    ):  # fmt: skip
        measured = [row for row in rows if key in row]
        if measured:
            print_table(measured)
            print()


def _base(measured):
    """The row whose times the others' are multiples of."""
    return next((row for row in measured if row["backbone"] == "mobilenet_v1"), measured[0])


def print_files(measured: list[dict]) -> None:
    """Prints sizes and times of the files."""
    base = _base(measured)
    _print_row(
        ["backbone", "pixels", "parameters", "channels of F_f", "MMAC at 224", "MB float / int8",
         "time float / int8", "int8 against its float", "mask IoU float / int8",
         "left to the CPU by a GPU"], head=True,
    )  # fmt: skip
    for row in measured:
        f, i = row["float32"], row["int8"]
        ratios = [x["cpu_ms"] / base[k]["cpu_ms"] for k, x in (("float32", f), ("int8", i))]
        _print_row(
            [row["backbone"], row["input_size"], f"{row['parameters'] / 1e6:.1f} M",
             row["channels"], f"{row['mmac_224']:,.0f}", f"{f['mb']:.1f} / {i['mb']:.1f}",
             f"{ratios[0]:.1f} / {ratios[1]:.1f}", f"{i['cpu_ms'] / f['cpu_ms']:.2f}",
             f"{f['mask_iou']:.3f} / {i['mask_iou']:.3f}",
             f"{', '.join(f['gpu_fallbacks'])} / {', '.join(i['gpu_fallbacks']) or 'nothing'}"]
        )  # fmt: skip


def print_speed(measured: list[dict]) -> None:
    """Prints what a picture of training costs."""
    base = _base(measured)
    _print_row(["backbone", "time of training a picture"], head=True)
    for row in measured:
        ratio = base["images_per_cpu_second"] / row["images_per_cpu_second"]
        _print_row([row["backbone"], f"{ratio:.1f}"])


def print_trained(measured: list[dict]) -> None:
    """Prints what a short training gave."""
    _print_row(
        ["backbone", "GT-known Loc", "CAM's", "mask IoU",
         *(f"{kind} file's masks with Keras's: mean, worst" for kind in FORMATS[1:])], head=True,
    )  # fmt: skip
    for row in measured:
        agreement = [
            f"{row[kind]['mask_iou']:.3f}, {row[kind]['mask_iou_min']:.2f}" for kind in FORMATS[1:]
        ]
        _print_row(
            [row["backbone"], f"{row['gt_known_loc']:.3f}", f"{row['cam_gt_known_loc']:.3f}",
             f"{row['miou_mask']:.3f}", *agreement]
        )  # fmt: skip


def _print_row(cells, head=False):
    print(f"| {' | '.join(map(str, cells))} |")
    if head:
        print(f"|{'---|' * len(cells)}")


def main(_) -> None:
    """Measures, or prints what was measured."""
    values = flags.FLAGS
    if values.table:
        with open(values.table, encoding="utf-8") as file:
            print_tables([json.loads(line) for line in file])
        return
    for name in values.backbones:
        start = time.process_time()
        try:
            row = measure(name, values)
        except Exception as error:  # one that can't be exported is a result as well
            row = {"backbone": name, "failed": f"{type(error).__name__}: {error}"[:300]}
        row["spent_cpu_s"] = time.process_time() - start
        print(json.dumps(row), flush=True)
        if values.output:
            with open(values.output, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        keras.backend.clear_session()


if __name__ == "__main__":
    define_flags()
    app.run(main)
