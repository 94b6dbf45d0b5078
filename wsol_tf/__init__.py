"""Weakly-supervised object localization in Keras: from one label per picture to masks and boxes.

    import wsol_tf

    dataset = wsol_tf.open_dataset("image_folder", "pictures", split="train")
    config = wsol_tf.Config.recipe("default", width=0.25)
    model = wsol_tf.build(config, dataset.classes)
    model.fit(dataset.batches(config.batch_size), epochs=config.epochs)
    found = model.localize(image)  # uint8 [height, width, 3]: found.mask, found.box, ...

Names are looked up when they are first used: `import wsol_tf` is quick and needs no TensorFlow.
"""

import os
import sys
from typing import TYPE_CHECKING

from wsol_tf.lazy import attach

if TYPE_CHECKING:
    from wsol_tf import data, evaluation, model, report, studies, training
    from wsol_tf.config import Config
    from wsol_tf.data.registry import open_dataset, register_dataset
    from wsol_tf.data.source import Source
    from wsol_tf.evaluation.keras_metrics import GTKnownLoc, LocalizationScores, Top1Loc
    from wsol_tf.model.backbones import register_backbone
    from wsol_tf.model.build import build_model as build
    from wsol_tf.model.build import load_model as load
    from wsol_tf.model.finding import Found
    from wsol_tf.model.localization import Localization
    from wsol_tf.model.optimizer import group_sgd

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "wsol_tf": "data evaluation model report studies training",
        "wsol_tf.config": "Config",
        "wsol_tf.data.registry": "open_dataset register_dataset",
        "wsol_tf.data.source": "Source",
        "wsol_tf.evaluation.keras_metrics": "GTKnownLoc LocalizationScores Top1Loc",
        "wsol_tf.model.backbones": "register_backbone",
        "wsol_tf.model.build": "build_model=build load_model=load",
        "wsol_tf.model.finding": "Found",
        "wsol_tf.model.localization": "Localization",
        "wsol_tf.model.optimizer": "group_sgd",
    },
)

# By itself TensorFlow takes oneDNN's kernels only on processors with VNNI, AVX512-BF16 or AMX. On
# one with AVX2 alone a training step of MobileNetV1 takes 1.5 to 1.8 times as long without them.
# TensorFlow reads this when it is imported; what the user has set stays.
if sys.platform == "linux" and os.uname().machine == "x86_64":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# keras.saving.load_model knows a class only once its module has registered it. Where Keras is there
# already, that costs little; elsewhere `wsol_tf.load` does it.
if "keras" in sys.modules:
    import wsol_tf.evaluation.keras_metrics
    import wsol_tf.model.localization
