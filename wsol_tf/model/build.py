"""From a Config to a compiled model, and from a file to a model."""

import logging
import math
import os
import zipfile
from collections.abc import Sequence

import keras

from wsol_tf.config import Config
from wsol_tf.model import backbones, heads, inputs, losses
from wsol_tf.model.localization import Localization
from wsol_tf.model.objective import LOSS_SETTINGS
from wsol_tf.model.optimizer import group_sgd
from wsol_tf.model.schedule import RateDrops


def build_model(
    config: Config,
    classes: Sequence[str],
    steps_per_epoch: float | None = None,
    backbone: tuple[keras.Model, keras.Model] | None = None,
) -> Localization:
    """Builds a model from the settings of a run, and compiles it.

    Args:
        config: the settings.
        classes: names of the classes, in the order of their ids.
        steps_per_epoch: see `compile_model`; None: each `fit` counts its own steps.
        backbone: (feature extractor, rest), as a function for `backbones.register_backbone` returns
            them; None: the one that `config.extractor` names.

    Returns:
        The compiled Localization; `loaded_weights` of it is a sentence on the weights that its
        feature extractor starts from, which is logged too (logger "wsol_tf", level INFO).

    Raises:
        ValueError: for classes that are not at least two different names; see also
            `backbones.build_extractor`.
    """
    classes = inputs.class_names(classes)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.mixed_precision)
    try:
        model = _build_parts(config, classes, backbone)
    finally:
        keras.config.set_dtype_policy(policy)
    compile_model(model, config, steps_per_epoch)
    logging.getLogger("wsol_tf").info("Feature extractor %s.", model.loaded_weights)
    return model


def _build_parts(config, classes, backbone):
    if backbone is None:
        feature_extractor, rest, loaded = backbones.build_extractor(
            config.extractor,
            width=config.width,
            input_size=config.input_size,
            output_stride=config.output_stride,
            dilation=config.dilation,
            weights=config.extractor_weights,
            bn_momentum=config.bn_momentum,
        )
    else:
        feature_extractor, rest = backbones.checked(*backbone, config.input_size)
        loaded = "given: weights as they were"
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
        top_k=config.top_k,
        resize_size=config.crop_from,
    )
    model.loaded_weights = loaded
    return model


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
        },
        total_steps=math.ceil(config.epochs * steps_per_epoch) if steps_per_epoch else None,
        jit_compile={"auto": "auto", "on": True, "off": False}[config.jit_compile],
        **{name: getattr(config, name) for name in LOSS_SETTINGS},
    )
    # So that a model saved before its first step loads with its optimizer; Keras warns otherwise.
    model.optimizer.build(model.trainable_variables)


def load_model(path: str | os.PathLike) -> Localization:
    """Loads a model that this project trained, from any version of it.

    Args:
        path: the `.keras` file.

    Returns:
        The model, with its thresholds, compiled if it was saved so.

    Raises:
        ValueError: there is no file, or it is cut off, damaged, or of another kind of model.
    """
    if not os.path.isfile(path):
        raise ValueError(f"Model '{path}' is no file. Name the model.keras of a run.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"Model '{path}' is cut off or no .keras file ({os.path.getsize(path)} bytes). "
            "Copy it again, or name the model.keras of a run."
        )
    try:
        model = keras.saving.load_model(path)
    except Exception as error:
        raise ValueError(
            f"Model '{path}' can't be loaded ({str(error).partition(chr(10))[0]}). "
            "Name the model.keras of a run."
        ) from error
    if not isinstance(model, Localization):
        raise ValueError(f"Model '{path}' is a {type(model).__name__}, not a Localization.")
    return model
