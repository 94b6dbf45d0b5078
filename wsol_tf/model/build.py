"""From a Config to a compiled model, and from a file to a model."""

import math
import os
import zipfile

import keras

from wsol_tf.config import Config
from wsol_tf.model import backbones, heads, losses
from wsol_tf.model.localization import Localization, _class_names
from wsol_tf.model.objective import LOSS_SETTINGS
from wsol_tf.model.optimizer import group_sgd


def build_model(config: Config, classes):
    """Builds a model from the settings of a run.

    Returns:
        (model, loaded): the Localization, not compiled, and a sentence that says which weights the
        feature extractor started from.

    Raises:
        ValueError: for classes that are no names, fewer than two or not unique; see also
            `extractors.build`.
    """
    classes = _class_names(classes)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.mixed_precision)
    try:
        return _build_parts(config, classes)
    finally:
        keras.config.set_dtype_policy(policy)


def _build_parts(config, classes):
    feature_extractor, rest, loaded = backbones.build_extractor(
        config.extractor,
        width=config.width,
        input_size=config.input_size,
        output_stride=config.output_stride,
        dilation=config.dilation,
        weights=config.extractor_weights,
        bn_momentum=config.bn_momentum,
    )
    channels = 1 if config.localizer == "agnostic" else len(classes)
    model = Localization(
        feature_extractor,
        heads.classifier(
            rest, len(classes), head_width=config.head_width, final_relu=config.final_relu
        ),
        heads.localizer(feature_extractor.output.shape[1:], channels),
        classes,
        map=config.map,
        top_k=config.top_k,
        resize_size=config.crop_from,
    )
    return model, loaded


def compile_model(model, config: Config, steps_per_epoch):
    """Compiles a model with the losses, the optimizer and the schedule of a run.

    `steps_per_epoch` may be a fraction, where batches run across the end of an epoch.
    """
    # Keras keeps the old rate for the step with the boundary's number; steps count from 0.
    steps = math.ceil(config.epochs * steps_per_epoch)
    drops = [round(share * steps) - 1 for share in config.lr_drop_shares]
    rates = [config.learning_rate * 0.1**i for i in range(len(drops) + 1)]
    schedule = (
        keras.optimizers.schedules.PiecewiseConstantDecay(drops, rates) if drops else rates[0]
    )
    model.compile(
        group_sgd(
            model.localizer,
            schedule,
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
        total_steps=steps,
        jit_compile={"auto": "auto", "on": True, "off": False}[config.jit_compile],
        **{name: getattr(config, name) for name in LOSS_SETTINGS},
    )


def load_model(path) -> Localization:
    """Loads a model that this project trained; anything else is refused with a sentence."""
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
