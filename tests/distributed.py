"""Trains a toy under a strategy, in a process of its own; test_loop.py compares what it prints.

python tests/distributed.py '["mirrored", 2, {"parts": 2}]'
"""

import json
import os
import sys

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # the same order of sums wherever it runs

import keras
import numpy as np
import tensorflow as tf

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests")]

import wsol_tf  # noqa: E402
from helpers import AT_ONCE, CLASSES, toy  # noqa: E402
from wsol_tf.data.batches import training_batches  # noqa: E402
from wsol_tf.data.source import Report, Source  # noqa: E402
from wsol_tf.data.stream import TrainingStream  # noqa: E402
from wsol_tf.training import loop, strategies  # noqa: E402


def drawn(count):
    """Pictures of noise, all different, of three classes."""
    noise = np.random.default_rng(5).integers(0, 256, (count, 36, 36, 3)).astype(np.uint8)
    return Source(
        name="noise",
        classes=CLASSES,
        image_ids=tuple(map(str, range(count))),
        labels=tuple(np.array([i % 3], np.int32) for i in range(count)),
        has_boxes=False,
        has_masks=False,
        report=Report(),
        read_image=noise.__getitem__,
        read_example=None,
    )


def train(
    strategy,
    *,
    epochs=2,
    pictures=14,
    batch=4,
    parts=1,
    steps_per_execution=1,
    policy="float32",
    jit=False,
    **optimizer,
):
    """Returns (history, weights, averages) after some epochs on drawn pictures."""
    keras.config.set_dtype_policy(policy)
    with strategies.scope(strategy):
        model = toy()
        steps_per_epoch = pictures / batch
        model.compile(
            wsol_tf.group_sgd(
                model.localizer,
                keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.01, 0.001]),
                localizer_multiplier=0.1,
                **optimizer,
            ),
            total_steps=int(np.ceil(epochs * steps_per_epoch)),
            jit_compile=jit,
            **{**AT_ONCE, "warmup": 0.5},
        )
        model.optimizer.build(model.trainable_variables)
    stream = TrainingStream(
        drawn(pictures), range(pictures), batch_size=batch, input_size=32, resize_size=36, seed=3
    )

    def batches(context):
        return training_batches(
            stream, epochs=epochs, parts=parts, replicas=strategy.num_replicas_in_sync,
            worker=context.input_pipeline_id, workers=context.num_input_pipelines,
        )  # fmt: skip

    state = loop.State()
    loop.run(
        model,
        iter(strategy.distribute_datasets_from_function(batches)),
        strategy,
        state=state,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        steps_per_execution=steps_per_execution,
        parts=parts,
    )
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return {
        "replicas": strategy.num_replicas_in_sync,
        "chief": strategies.is_chief(strategy),
        "history": state.history,
        "iterations": int(model.optimizer.iterations.numpy()),
        "weights": [weight.numpy().tolist() for weight in model.weights],
        "averages": [average.numpy().tolist() for average in inner.averages],
    }


def main(name, devices, *trainings):
    """Makes a strategy over so many CPUs, and trains under it once with each of the settings."""
    if devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * devices
        )
    strategy = strategies.make_strategy(name)
    print(json.dumps([train(strategy, **settings) for settings in trainings]))


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
