"""Measures what freezing a model's weights takes off its predictions.

    python benchmarks/frozen.py --width=0.25 --head_width=64 --batch_size=1

An untrained model predicts the same batch with its variables (`predict_on_batch`) and with the same
weights as constants (`model.freeze()`), in turn; the ratio is the median of those of neighbouring
calls, in CPU time, which other work on the machine moves less than wall time. The largest
difference between the outputs is printed as well, as a share of the largest value.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
from absl import app, flags

from machine import Others, processor
from wsol_tf import importing


def main(argv):
    values = flags.FLAGS
    importing.import_keras()
    import wsol_tf
    from wsol_tf.model import frozen

    config = wsol_tf.Config.recipe(
        width=values.width, head_width=values.head_width, extractor_weights="none", bn_momentum=0.0
    )
    model = wsol_tf.build(config, [f"class {i}" for i in range(20)])
    rng = np.random.default_rng(0)
    shape = (values.batch_size, model.input_size, model.input_size, 3)
    batch = rng.integers(0, 256, shape, np.uint8)
    # Normalization takes the statistics of the batch, or all that comes behind it would be 0.
    model.classifier(model.feature_extractor(batch, training=True), training=True)
    ways = {"variables": model.predict_on_batch, "constants": frozen.predictor(model)}
    first, times, outputs = {}, {name: [] for name in ways}, {}
    for name, predict in ways.items():
        start = time.process_time()
        outputs[name] = predict(batch)
        first[name] = time.process_time() - start
    others = Others()
    for i in range(values.repeats):
        for name in list(ways) if i % 2 else reversed(ways):
            start = time.process_time()
            ways[name](batch)
            times[name].append(time.process_time() - start)
    print(processor())
    print(others.line())
    for name in ways:
        print(
            f"{name}: {statistics.median(times[name]) * 1000:.1f} ms of CPU for a batch of "
            f"{len(batch)}; the first call, with its graph, {first[name]:.2f} s"
        )
    pairs = zip(times["constants"], times["variables"], strict=True)
    off = max(
        np.abs(x - outputs["variables"][name]).max() / np.abs(outputs["variables"][name]).max()
        for name, x in outputs["constants"].items()
    )
    ratio = statistics.median(new / old for new, old in pairs)
    print(
        f"constants / variables: {ratio:.2f}; largest difference {off:.1e} of an output's "
        "largest value"
    )


if __name__ == "__main__":
    flags.DEFINE_float("width", 0.25, "Width multiplier of MobileNetV1.")
    flags.DEFINE_integer("head_width", 64, "Channels of the classifier's convolutions.")
    flags.DEFINE_integer("batch_size", 1, "Pictures in a batch.", lower_bound=1)
    flags.DEFINE_integer("repeats", 30, "Calls of each.", lower_bound=1)
    app.run(main)
