"""Quantization-aware training, pruning and clustering: further training that needs no labels.

The only module that imports tensorflow_model_optimization, and only inside functions: the import
turns `tf.keras` into Keras 2. That package takes one flat Keras 2 model, so the localizer is
rebuilt layer by layer as such a twin, with the weights copied over. The twin is trained to give the
float model's own mask (distillation), and its weights go back into a copy of the Keras 3 model,
which is converted like any other: with a scale for each channel and with corrected biases.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from edge.export.exported_map import ExportedMap
from edge.export.formats import TRAINED
from edge.export.rounding import rounded
from edge.export.twin import check_layers, twin_of, weights_of, with_weights
from edge.runners import Runner
from wsol_tf.model.localization import Localization

BATCH_SIZE = 8
# Of Adam. Rounding is a small change: a larger rate does more harm than good.
LEARNING_RATES = {"qat": 1e-5, "pruned": 1e-4, "clustered": 1e-4}


@contextlib.contextmanager
def optimization() -> Iterator[tuple[Any, Any]]:
    """Yields the modules (tf_keras, tensorflow_model_optimization).

    Afterwards the environment variable that the import sets is as it was before.

    Raises:
        ValueError: one of the packages is missing.
    """
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        import tensorflow_model_optimization as tfmot
        import tf_keras
    except ImportError as error:
        raise ValueError(
            f"Quantization-aware training needs two more packages ({error}): "
            "pip install 'wsol_tf[qat]'."
        ) from error
    try:
        yield tf_keras, tfmot
    finally:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)
        if before is not None:
            os.environ["TF_USE_LEGACY_KERAS"] = before


def check(model: Localization, map_: ExportedMap) -> None:
    """Refuses further training that is known not to work before anything is done.

    Raises:
        ValueError: the map or the model needs the classifier, a layer has no counterpart in Keras
            2, or a package is missing.
    """
    formats = " and ".join((", ".join(list(TRAINED)[:-1]), list(TRAINED)[-1]))
    if map_.has_classifier:
        raise ValueError(
            f"{formats} are for the maps mean, class:NAME and all; '{map_}' needs the classifier "
            "as well. Use `formats=int8`."
        )
    if model.background_class:
        raise ValueError(
            f"{formats} have no classifier, which tells pictures of '{model.background_class}' "
            "from those with an object. Use `formats=int8`."
        )
    check_layers(model)
    with optimization():
        pass


def train(
    model: Localization,
    map_: ExportedMap,
    run: Runner,
    pictures: np.ndarray,
    kind: str = "qat",
    *,
    steps: int,
    sparsity: float = 0.5,
    clusters: int = 32,
    seed: int = 0,
) -> Localization:
    """Returns a copy of a model whose kernels were trained further for a small or int8 file.

    Args:
        model: a Localization; it is not changed.
        map_: a map that does not need the classifier.
        run: the float model, whose bare map of the network's own size is aimed at.
        pictures: uint8 `[n, H, W, 3]`, no labels.
        kind: "qat" rounds kernels and activations as int8 does while training; "pruned" sets a
            share of each kernel to 0; "clustered" leaves few distinct values in each kernel.
        steps: batches of BATCH_SIZE pictures.
        sparsity: share of zeros of kind "pruned".
        clusters: distinct values of kind "clustered".
        seed: of the order of the pictures.

    Raises:
        ValueError: see `check`.
    """
    check(model, map_)
    targets = masks(run, pictures)
    with optimization() as (tf_keras, tfmot):
        student = twin_of(model, map_, tf_keras)
        callbacks, strip = [], lambda trained: trained
        if kind == "qat":
            student = rounded(student, pictures[:16], tf_keras, tfmot)
        elif kind == "pruned":
            student = _pruned(student, tf_keras, tfmot, steps, sparsity)
            callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
            strip = tfmot.sparsity.keras.strip_pruning
        else:
            student = _clustered(student, tf_keras, tfmot, clusters)
            strip = tfmot.clustering.keras.strip_clustering
        distill(
            student, targets, pictures, steps=steps, learning_rate=LEARNING_RATES[kind],
            seed=seed, tf_keras=tf_keras, callbacks=callbacks,
        )  # fmt: skip
        return with_weights(model, map_, weights_of(strip(student)))


def _pruned(student, tf_keras, tfmot, steps, sparsity):
    """Wraps a twin so that more and more of its kernels become 0."""
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        0.0, sparsity, 0, max(steps * 2 // 3, 1), frequency=max(steps // 30, 1)
    )
    prune = tfmot.sparsity.keras.prune_low_magnitude
    return _wrapped(student, tf_keras, lambda layer: prune(layer, pruning_schedule=schedule))


def _clustered(student, tf_keras, tfmot, clusters):
    """Wraps a twin so that each of its kernels holds few distinct values."""
    clustering = tfmot.clustering.keras
    return _wrapped(
        student,
        tf_keras,
        lambda layer: clustering.cluster_weights(
            layer,
            number_of_clusters=clusters,
            cluster_centroids_init=clustering.CentroidInitialization.KMEANS_PLUS_PLUS,
        ),
    )


def _wrapped(student: Any, tf_keras: Any, wrap: Callable[[Any], Any]) -> Any:
    """Wraps the convolutions that are trained; depthwise kernels are small and stay as they are."""

    def of_layer(layer):
        is_convolution = type(layer).__name__ == "Conv2D" and layer.trainable
        return wrap(layer) if is_convolution else layer

    return tf_keras.models.clone_model(student, clone_function=of_layer)


def distill(
    student: Any,
    targets: np.ndarray,
    pictures: np.ndarray,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    tf_keras: Any,
    callbacks: Sequence[Any] = (),
) -> float:
    """Trains a Keras 2 model to give the float model's masks, on pictures and their mirror images.

    Args:
        student: the model to train.
        targets: float32 `[n, 2, h, w, channels]` of `masks`.
        pictures: uint8 `[n, H, W, 3]`.
        steps: batches of BATCH_SIZE; each is mirrored with probability 1/2.
        learning_rate: at the first step; it falls to 0 as a cosine does.
        seed: of the order of the pictures.
        tf_keras: the module Keras 2.
        callbacks: of Keras 2.

    Returns:
        The mean loss.
    """
    rng = np.random.default_rng(seed)
    schedule = tf_keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    student.compile(tf_keras.optimizers.Adam(schedule), loss="binary_crossentropy")

    def batches():
        while True:
            chosen = rng.choice(len(pictures), min(BATCH_SIZE, len(pictures)), replace=False)
            mirrored = int(rng.integers(2))
            batch = pictures[chosen, :, :: -1 if mirrored else 1].astype(np.float32)
            yield batch, targets[chosen, mirrored]

    return student.fit(
        batches(), steps_per_epoch=steps, epochs=1, verbose=0, callbacks=list(callbacks)
    ).history["loss"][-1]


def masks(run: Runner, pictures: np.ndarray) -> np.ndarray:
    """Returns the masks of pictures and of their mirror images, `[n, 2, h, w, channels]`."""
    return np.stack([[run(view)["foreground_mask"] for view in (p, p[:, ::-1])] for p in pictures])
