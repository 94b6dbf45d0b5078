"""From a Config to a compiled model, and from a file to a model."""

import contextlib
import logging
import math
import os
import threading
import zipfile
from collections.abc import Iterator, Sequence

import keras

from wsol_tf import files, keras_settings
from wsol_tf.config import Config
from wsol_tf.model import backbones, heads, inputs, losses
from wsol_tf.model.localization import Localization
from wsol_tf.model.objective import LOSS_SETTINGS
from wsol_tf.model.optimizer import group_sgd
from wsol_tf.model.precision import policy_of
from wsol_tf.model.schedule import RateDrops

MOST_WEIGHTS = 2**31  # of the classifier: 8 GiB in float32, and as much again for each moment
MOST_EXPANDED = 100  # times the size of a .keras file that its parts may have
MOST_PIXELS = 8192  # side of a picture as it is resized for the network

_LOADING = threading.Lock()


def build_model(
    config: Config,
    classes: Sequence[str],
    steps_per_epoch: float | None = None,
    backbone: keras.Model | tuple[keras.Model, keras.Model] | None = None,
    preprocessing: str = "none",
) -> Localization:
    """Builds a model from the settings of a run, and compiles it.

    Args:
        config: the settings.
        classes: names of the classes, in the order of their ids.
        steps_per_epoch: see `compile_model`; None: each `fit` counts its own steps.
        backbone: a functional model of your own, picture -> features, which is cut as those of
            this project are (`backbones.cut_model`); or (feature extractor, rest), as a function
            for `backbones.register_backbone` returns them, whose own stride counts in place of
            `config.output_stride`. Either is copied or used with its weights. None: the one that
            `config.extractor` names.
        preprocessing: what is put before a model of your own, which is fed raw RGB in 0..255: a
            kind of `preprocessing.preprocessing`; "none": it does that itself.

    Returns:
        The compiled Localization; `loaded_weights` of it is a sentence on the weights that its
        feature extractor starts from, which is logged too (logger "wsol_tf", level INFO).

    Raises:
        ValueError: for classes that are not at least two different names; see also
            `backbones.build_extractor`.
    """
    keras_settings.check()
    classes = inputs.class_names(classes)
    _check_sizes(config, len(classes))
    policy = keras.config.dtype_policy()
    named = config.extractor if backbone is None else ""
    precision = policy_of(config.mixed_precision, config.head_width, named, config.width)
    keras.config.set_dtype_policy(precision)
    try:
        model = _build_parts(config, classes, backbone, preprocessing)
    finally:
        keras.config.set_dtype_policy(policy)
    compile_model(model, config, steps_per_epoch)
    logger = logging.getLogger("wsol_tf")
    logger.info("Feature extractor %s.", model.loaded_weights)
    if config.mixed_precision == "auto":
        logger.info("Precision: %s.", precision)
    return model


def _check_sizes(config, num_classes):
    """Refuses what no machine has memory for, before TensorFlow ends the process over it."""
    width = config.head_width
    weights = 9 * width * (width + num_classes)
    if weights > MOST_WEIGHTS:
        raise ValueError(
            f"The classifier would have {weights:,} weights with `head_width={width}`, more than "
            f"the {MOST_WEIGHTS:,} that a network may have here. Lower it."
        )
    for name, side in (("input_size", config.input_size), ("resize_size", config.crop_from)):
        if side > MOST_PIXELS:
            raise ValueError(f"`{name}` must be at most {MOST_PIXELS} pixels. Received: {side}.")


def _build_parts(config, classes, backbone, preprocessing):
    feature_extractor, rest, loaded = _backbone(config, backbone, preprocessing)
    if config.freeze:
        frozen = backbones.freeze((feature_extractor, rest), config.freeze)
        loaded += f"; {frozen} layers are frozen"
    channels = 1 if config.localizer == "agnostic" else len(classes)
    model = Localization(
        feature_extractor,
        heads.classifier(
            rest, len(classes), head_width=config.head_width, final_relu=config.final_relu
        ),
        heads.localizer(feature_extractor.output.shape[1:], channels),
        classes,
        map=config.map,
        refine=config.refine,
        separate=config.separate,
        mirror=config.mirror,
        top_k=config.top_k,
        resize_size=config.crop_from,
        background_class=config.background_class or None,
    )
    model.loaded_weights = loaded
    return model


def _backbone(config, backbone, preprocessing):
    resolution = {
        "input_size": config.input_size,
        "output_stride": config.output_stride,
        "dilation": config.dilation,
        "levels": config.levels,
    }
    if isinstance(backbone, keras.Model):
        parts = backbones.cut_model(backbone, preprocessing=preprocessing, **resolution)
        return *parts, "given: weights as they were"
    if preprocessing != "none":
        raise ValueError(
            "`preprocessing` is for a functional model given as `backbone`. "
            f"Received: '{preprocessing}' without one."
        )
    if backbone is not None:
        if config.levels:
            raise ValueError(
                "`levels` joins features of a network that is cut here: give one functional model "
                f"as `backbone`, or leave it out. Received: '{config.levels}'."
            )
        return *backbones.checked(*backbone, config.input_size), "given: weights as they were"
    return backbones.build_extractor(
        config.extractor,
        width=config.width,
        weights=config.extractor_weights,
        bn_momentum=config.bn_momentum,
        **resolution,
    )


def compile_model(
    model: Localization, config: Config, steps_per_epoch: float | None = None
) -> None:
    """Compiles a model with the losses, the optimizer and the schedule of a run.

    Args:
        model: the model.
        config: the settings of the run.
        steps_per_epoch: steps of an epoch, which may be a fraction where batches run across the
            end of an epoch: starts, ramps and drops of the learning rate are then shares of
            `config.epochs` of them, whatever `fit` is told. None: of the steps of each `fit`.
    """
    drops = config.lr_drop_shares
    model.compile(
        group_sgd(
            model.localizer,
            RateDrops(config.learning_rate, drops) if drops else config.learning_rate,
            localizer_multiplier=config.localizer_multiplier,
            head_multiplier=config.head_multiplier,
            bias_multiplier=config.bias_multiplier,
            momentum=config.momentum,
            l2=config.l2,
            clip_norm=config.clip_norm,
            ema=config.ema,
        ),
        loss_weights={
            name: getattr(config, f"{name}_weight") for name in losses.TERMS if name != "cls"
        }
        | ({} if config.background_class else {"background": 0.0}),
        total_steps=math.ceil(config.epochs * steps_per_epoch) if steps_per_epoch else None,
        jit_compile={"auto": "auto", "on": True, "off": False}[config.jit_compile],
        **{name: getattr(config, name) for name in LOSS_SETTINGS},
    )
    # So that a model saved before its first step loads with its optimizer; Keras warns otherwise.
    model.optimizer.build(model.trainable_variables)


def _check_members(path):
    """Compares all parts of a .keras file with their checksums; Keras reads some without."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
        if size > MOST_EXPANDED * os.path.getsize(path):
            raise ValueError(f"it would expand to {size} bytes")
        damaged = archive.testzip()
        if damaged:
            raise ValueError(f"its part {files.printable(damaged)} is damaged")


@contextlib.contextmanager
def _not_drawing() -> Iterator[None]:
    """Makes kernels of zeros, since a file's weights replace them at once.

    Drawing them takes up to a fifth of the time of loading. Those that other threads make meanwhile
    are drawn.
    """
    drawing, thread = keras.initializers.VarianceScaling, threading.get_ident()
    with _LOADING:
        draw = drawing.__call__

        def start(initializer, shape, dtype=None):
            if threading.get_ident() == thread:
                return keras.ops.zeros(shape, dtype)
            return draw(initializer, shape, dtype)

        drawing.__call__ = start
        try:
            yield
        finally:
            drawing.__call__ = draw


def load_model(path: str | os.PathLike, *, to_train: bool = True) -> Localization:
    """Loads a model that this project trained, from any version of it.

    Args:
        path: the `.keras` file.
        to_train: whether the optimizer is loaded as well, which takes as much time and memory again
            as the network.

    Returns:
        The model, with its thresholds; compiled if it was saved so and is to be trained.

    Raises:
        ValueError: there is no file, or it is cut off, damaged, or of another kind of model; the
            sentence names the file.
    """
    path = files.expanded(path)
    if not os.path.isfile(path):
        raise ValueError(f"Model '{path}' is no file. Name the model.keras of a run.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"Model '{path}' is cut off or no .keras file ({os.path.getsize(path)} bytes). "
            "Copy it again, or name the model.keras of a run."
        )
    try:
        _check_members(path)
        with _not_drawing():
            model = keras.saving.load_model(path, compile=to_train)
    except Exception as error:  # what damage does to Keras has no end of kinds
        # Keras wraps our own sentence in several lines of its own.
        reason = str(error).rpartition("Exception encountered: ")[2].partition("\n")[0].rstrip(".")
        raise ValueError(
            f"Model '{path}' can't be loaded ({reason or type(error).__name__}). "
            "Name the model.keras of a run."
        ) from error
    if not isinstance(model, Localization):
        raise ValueError(f"Model '{path}' is a {type(model).__name__}, not a Localization.")
    return model
