"""What a file of the predicted class's map saves by not computing the maps of all classes.

    python benchmarks/chosen_map.py

Compares, on features [1, 28, 28, 512], the localizer's convolution to all classes with
`edge.export.graphs.ChosenMaps`, as float32 and int8 .tflite on one thread. The calls take turns,
and medians and the fastest calls are printed: other work on the machine hits all alike.
"""

import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import ops

from edge.export import graphs

SIDE, CHANNELS, ROUNDS = 28, 512, 25


def build(num_classes, chosen, rng):
    """The head alone: features and logits -> map of the class with the highest logit."""
    kernel = rng.normal(0, 0.02, (3, 3, CHANNELS, num_classes)).astype(np.float32)
    bias = np.zeros(num_classes, np.float32)
    features = keras.Input(batch_shape=(1, SIDE, SIDE, CHANNELS), name="features")
    logits = keras.Input(batch_shape=(1, num_classes), name="logits")
    if chosen:
        return keras.Model(
            {"features": features, "logits": logits},
            graphs.ChosenMaps(kernel, bias, 1)(features, logits),
        )
    conv = keras.layers.Conv2D(num_classes, 3, padding="same", activation="sigmoid")
    maps = conv(features)
    conv.set_weights([kernel, bias])
    _, best = ops.top_k(logits, 1)
    one = ops.take_along_axis(maps, best[:, None, None, :], axis=-1)
    return keras.Model({"features": features, "logits": logits}, one)


def convert(model, quantized, rng):
    shapes = {name: tuple(tensor.shape) for name, tensor in model.input.items()}

    def samples():
        for _ in range(4):
            yield (
                "head",
                {n: rng.uniform(0, 6, shape).astype(np.float32) for n, shape in shapes.items()},
            )

    archive = keras.export.ExportArchive()
    archive.track(model)
    specs = [{n: tf.TensorSpec(shape, tf.float32, n) for n, shape in shapes.items()}]
    archive.add_endpoint("head", lambda inputs: {"map": model(inputs)}, specs)
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["head"])
        if quantized:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = samples
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.uint8
        return converter.convert()


def main():
    rng = np.random.default_rng(0)
    interpreters, times = {}, {}
    for num_classes in (20, 200, 1000):
        for chosen in (False, True):
            model = build(num_classes, chosen, rng)
            for format_ in ("float32", "int8"):
                data = convert(model, format_ == "int8", rng)
                interpreter = Interpreter(model_content=data, num_threads=1)
                interpreter.allocate_tensors()
                for detail in interpreter.get_input_details():
                    values = rng.uniform(0, 3, detail["shape"]).astype(detail["dtype"])
                    interpreter.set_tensor(detail["index"], values)
                interpreters[num_classes, chosen, format_] = interpreter
    for i in range(ROUNDS + 2):
        for key, interpreter in interpreters.items():
            start = time.perf_counter()
            interpreter.invoke()
            if i >= 2:
                times.setdefault(key, []).append(time.perf_counter() - start)
    for (num_classes, chosen, format_), values in times.items():
        products = SIDE * SIDE * (9 * CHANNELS + 81 if chosen else 9 * CHANNELS * num_classes)
        middle, fastest = statistics.median(values) * 1e3, min(values) * 1e3
        print(
            f"{num_classes:5} classes, {'chosen map' if chosen else 'all maps':10} {format_:8}"
            f"{products / 1e6:9.1f} million products, median {middle:8.2f} ms, "
            f"fastest {fastest:8.2f} ms"
        )


if __name__ == "__main__":
    main()
