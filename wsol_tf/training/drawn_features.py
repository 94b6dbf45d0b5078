"""Trains a backbone on drawn pictures with one label each: the features of the demo.

The pictures are those of `data/pretraining.py`. The backbone learns to say what surface and which
tint is at each position: first on swatches, which have one label for all of them, then on collages
of swatches, which is an augmentation: what is where follows from what was pasted. No picture has a
mask.
"""

import functools
import os
import tempfile
from collections.abc import Callable, Sequence

import h5py
import keras
import numpy as np

from wsol_tf import files
from wsol_tf.data import pretraining
from wsol_tf.evaluation.workers import mapper
from wsol_tf.model.backbones import build_extractor
from wsol_tf.training.strategies import make_deterministic

WIDTH = 0.25
CROP = 128  # pixels of a picture that a step sees
BATCH = 32
PICTURES = 8000  # swatches, and as many collages of them
STEPS = {"swatches": 1600, "collages": 2200}
LEAST = 100  # swatches: fewer may have none of one kind, and no collage can be made
STEPS_PER_LINE = 100
# Pixels that a position of the features answers for. Networks are run with their last stride
# taken out, which puts the features of a position of 16 pixels at its second half: at 12, the
# centre of the second cell of 8; with 8 instead, masks come out displaced.
FIRST, STRIDE = 12, 16


def pretrain(
    path: str,
    *,
    seed: int = 0,
    share: float = 1.0,
    processes: int = 0,
    log: Callable[[str], None] = print,
) -> None:
    """Pretrains a backbone on drawn pictures and writes its weights.

    Args:
        path: the `.weights.h5` file to write, in float16; `extractor_weights` takes it.
        seed: seed of pictures, weights and crops.
        share: share of the pictures and steps, in (0, 1].
        processes: how many draw; 0: this one.
        log: function that takes lines of text.

    Raises:
        ValueError: there is no such folder.
    """
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):  # said now, and not when all is trained
        raise ValueError(f"`output`: there is no folder {files.printable(folder)}. Make it first.")
    make_deterministic()
    keras.utils.set_random_seed(seed)
    feature_extractor, rest, _ = build_extractor(
        "mobilenet_v1", width=WIDTH, input_size=CROP, output_stride=16, weights="none",
        bn_momentum=0.95,
    )  # fmt: skip
    network = _with_heads(feature_extractor, rest)
    count = max(round(share * PICTURES), LEAST)
    with mapper(processes) as map_:
        drawn = list(map_(functools.partial(pretraining.draw_swatch, seed=seed), range(count)))
    for number, (stage, steps) in enumerate(STEPS.items()):
        if stage == "collages":
            swatches = pretraining.by_kind(drawn)
            drawn = [pretraining.make_collage(swatches, index, seed) for index in range(count)]
        steps = max(round(share * steps), 1)
        log(f"{steps} steps on {count} {stage}.")
        _compile(network, steps)
        batches = _Batches(drawn, steps, [seed, number])
        network.fit(batches, shuffle=False, verbose=0, callbacks=[_Lines(log, steps)])
    _write_half(feature_extractor, rest, path)
    log(f"Wrote {path}: {os.path.getsize(path) / 1e6:.2f} MB.")


def _with_heads(feature_extractor, rest):
    """The backbone with a 1x1 convolution for each thing that it is to say; logits."""
    features = feature_extractor.output
    heads = {
        "surface": (features, pretraining.NUM_SURFACES),
        "hue": (features, pretraining.NUM_HUES),
        "coarse_surface": (rest(features), pretraining.NUM_SURFACES),
    }
    outputs = {
        name: keras.layers.Conv2D(classes, 1, name=name)(inputs)
        for name, (inputs, classes) in heads.items()
    }
    return keras.Model(feature_extractor.input, outputs)


def _compile(network, steps):
    rate = keras.optimizers.schedules.CosineDecay(
        1e-5, steps, warmup_target=4e-3, warmup_steps=max(steps // 15, 1)
    )
    network.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-3, global_clipnorm=5.0),
        loss={
            name: keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            for name in network.output
        },
        loss_weights={"surface": 1.0, "hue": 0.5, "coarse_surface": 0.5},
        metrics={"surface": "accuracy"},
    )


class _Batches(keras.utils.PyDataset):
    """Random crops of drawn pictures, flipped, turned and recoloured; item i is always the same."""

    def __init__(self, drawn: Sequence[pretraining.Drawn], steps: int, seed: Sequence[int]):
        super().__init__()
        self.drawn, self.steps, self.seed = drawn, steps, seed

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        rng = np.random.default_rng([*self.seed, step])
        chosen = rng.integers(0, len(self.drawn), BATCH)
        images, *targets = zip(*(_sample(rng, self.drawn[i]) for i in chosen), strict=True)
        names = ("surface", "hue", "coarse_surface")
        return np.stack(images), dict(zip(names, map(np.stack, targets), strict=True))


def _sample(rng, drawn):
    """A crop float32 [CROP, CROP, 3], and its targets: surface and hue, and surface at half."""
    top, left = rng.integers(0, pretraining.SIDE - CROP + 1, 2)
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    image, body = (
        np.rot90(plane[top : top + CROP, left : left + CROP][:, :: -1 if mirrored else 1], turns)
        for plane in (drawn.image, drawn.body)
    )
    channels = rng.permutation(3)
    image = image[:, :, channels].astype(np.float32)
    mean = image.mean()
    image = (image - mean) * rng.uniform(0.7, 1.3) + mean + rng.uniform(-25, 25)
    fine = body[FIRST::STRIDE, FIRST::STRIDE]
    coarse = body[2 * FIRST :: 2 * STRIDE, 2 * FIRST :: 2 * STRIDE]
    hues = pretraining.hues(drawn.tints[:, channels])
    return np.clip(image, 0, 255), drawn.surfaces[fine], hues[fine], drawn.surfaces[coarse]


class _Lines(keras.callbacks.Callback):
    """Reports loss and accuracy in a line of text now and then."""

    def __init__(self, log: Callable[[str], None], steps: int):
        super().__init__()
        self.log, self.steps = log, steps

    def on_train_batch_end(self, batch, logs=None):
        if (batch + 1) % STEPS_PER_LINE == 0 or batch + 1 == self.steps:
            self.log(
                f"Step {batch + 1}/{self.steps}: loss {logs['loss']:.3f}, "
                f"surfaces {logs['surface_accuracy']:.3f}"
            )


def _write_half(feature_extractor, rest, path):
    """Writes the weights as a file of keras.applications, the kernels in float16."""
    application = keras.applications.MobileNet(
        (CROP, CROP, 3), alpha=WIDTH, include_top=False, weights=None
    )
    trained = {layer.name: layer for layer in (*feature_extractor.layers, *rest.layers)}
    for layer in application.layers:
        if layer.weights:
            layer.set_weights(trained[layer.name].get_weights())
    with tempfile.TemporaryDirectory() as folder:
        whole = os.path.join(folder, "whole.weights.h5")
        application.save_weights(whole)
        with (
            files.replacing(path) as unfinished,
            h5py.File(whole) as source,
            h5py.File(unfinished, "w", libver="latest") as target,
        ):

            def copy(name, item):
                if isinstance(item, h5py.Dataset):
                    # Statistics stay: a small variance has too few bits in float16.
                    kind = np.float16 if item.ndim > 1 else np.float32
                    target.create_dataset(name, data=np.asarray(item, kind))

            source.visititems(copy)
