"""Measures one worker against two on this machine, and projects what more of them would give.

    python benchmarks/scaling.py --width=0.25 --input_size=96 --batch_size=8

Two processes talk to each other over the loopback, as machines do over a network. Both take the
same steps on the same random pictures; throughput, and how far losses and weights lie apart, are
measured: batch normalization amplifies what float32 rounds differently. The projection is
arithmetic, and its assumptions are printed with it: it is no measurement of any GPU or network.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from wsol_tf import programs
from wsol_tf.data.batches import training_batches
from wsol_tf.data.cache import cached_reader
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.stream import TrainingStream
from wsol_tf.model.build import build_model
from wsol_tf.training import loop, strategies

ILSVRC = 1_281_167  # training pictures
NUM_CLASSES = 20


def work(config, repeats, path):
    """Takes steps as one worker of however many TF_CONFIG names; the first writes what it saw."""
    strategy = strategies.make_strategy("multi_worker" if "TF_CONFIG" in os.environ else "one")
    keras.utils.set_random_seed(config.seed)
    with strategies.scope(strategy):
        model = build_model(config, [f"class {i}" for i in range(NUM_CLASSES)], 1000)
        model.optimizer.build(model.trainable_variables)

    def batches(context):
        rng = np.random.default_rng(0)
        size, share = config.input_size, config.batch_size // context.num_input_pipelines
        images = rng.integers(0, 256, (config.batch_size, size, size, 3)).astype(np.uint8)
        labels = rng.integers(0, NUM_CLASSES, config.batch_size).astype(np.int32)
        own = slice(context.input_pipeline_id * share, (context.input_pipeline_id + 1) * share)
        return tf.data.Dataset.from_tensors((images[own], labels[own])).repeat()

    iterator = iter(strategy.distribute_datasets_from_function(batches))
    steps, seconds, losses = loop.make_steps(model, strategy), [], []
    before = [variable.numpy() for variable in model.trainable_variables]
    for _ in range(repeats + 2):
        begun = time.perf_counter()
        losses.append(steps(iterator, 1).numpy()[0])
        seconds.append(time.perf_counter() - begun)
    if strategies.is_chief(strategy):
        count = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
        moved = [v.numpy() - b for v, b in zip(model.trainable_variables, before, strict=True)]
        moved = np.concatenate([change.ravel() for change in moved])
        np.savez(path, seconds=seconds[2:], count=count, losses=losses, moved=moved)


def measure(workers, folder):
    """Runs so many workers as processes of this machine; returns what the first one wrote."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    path = os.path.join(folder, f"workers_{workers}.npz")
    processes = []
    for index in range(workers):
        environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1"}
        if workers > 1:
            environment["TF_CONFIG"] = json.dumps(
                {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            )
        command = [sys.executable, __file__, *sys.argv[1:], f"--result={path}"]
        processes.append(subprocess.Popen(command, env=environment))
    if any([process.wait() for process in processes]):
        sys.exit("A worker failed; see above.")
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def input_speed(config, count=256):
    """Pictures per second that one process reads, resizes, crops and batches (drawn ones)."""
    source = open_dataset("shapes", "", "train", image_size=config.crop_from, num_examples=count)
    stream = TrainingStream(
        source, range(count), batch_size=config.batch_size, input_size=config.input_size,
        resize_size=config.crop_from, read=cached_reader(source, range(count), config.crop_from),
    )  # fmt: skip
    batches = training_batches(stream, epochs=2)
    seen, begun = 0, None
    for _, labels in batches:
        seen += len(labels)
        if begun is None and seen >= count:  # the second pass comes from memory
            begun, first = time.perf_counter(), seen
    return (seen - first) / (time.perf_counter() - begun)


def project(name, devices, speed, gradient_bytes, bandwidth, input_limit, batch):
    """A line on the time of an ILSVRC epoch with so many devices.

    A step takes the longer of computing and reading, and then the ring all-reduce, which moves
    2 (n - 1) / n of the gradients over the slowest link; nothing overlaps.
    """
    compute = batch / speed
    reading = batch * devices / input_limit
    reduction = 2 * (devices - 1) / devices * gradient_bytes / bandwidth
    step = max(compute, reading) + reduction
    total = batch * devices / step
    return (
        f"{name:34}{devices:8}{total:12,.0f}{total / speed / devices:11.0%}"
        f"{reduction * 1000:11.1f}{ILSVRC / total / 60:13.1f}"
    )


def run(values):
    """Measures, prints and projects; or works as one of the workers that it started."""
    config = programs.from_flags(values)
    if values.result:
        work(config, values.repeats, values.result)
        return
    os.makedirs(values.work_dir, exist_ok=True)
    one, two = (measure(workers, values.work_dir) for workers in (1, 2))
    speeds = [config.batch_size / np.median(ran["seconds"]) for ran in (one, two)]
    losses = np.abs(one["losses"] - two["losses"]) / np.abs(one["losses"])
    apart = np.linalg.norm(one["moved"] - two["moved"]) / np.linalg.norm(one["moved"])
    print(
        f"{config.extractor}, width {config.width}, {config.input_size} pixels, global batch "
        f"{config.batch_size}, {values.repeats} steps, {os.cpu_count()} CPU cores\n"
        f"1 worker: {speeds[0]:.1f} images/s; 2 workers on the same machine: {speeds[1]:.1f} "
        f"({speeds[1] / speeds[0]:.2f}x)\n"
        f"loss, relative difference: {losses[0]:.1g} at the first step, {losses[1]:.1g} at the "
        f"second, {losses[-1]:.1g} at the last; way of the weights in {len(losses)} steps: "
        f"{apart:.1g} of its length apart"
    )
    gradient_bytes = 4 * int(one["count"])
    print(
        f"gradients: {gradient_bytes / 1e6:.1f} MB; input from memory: "
        f"{input_speed(config):.0f} images/s"
    )
    print_projection(values, gradient_bytes)


def print_projection(values, gradient_bytes):
    """Prints a table of what more devices would give, and what it assumes."""
    speed = values.device_speed
    print(
        f"\nProjection, not measured. Assumed: {speed:,.0f} images/s for each device, batch "
        f"{values.device_batch} on each, {values.link:g} GB/s between the devices of a machine, "
        f"{values.network:g} GB/s between machines, one gradient exchange a step that overlaps "
        f"with nothing, and input of {values.input:,.0f} images/s for each machine.\n"
        f"{'':34}{'devices':>8}{'images/s':>12}{'of ideal':>11}{'reduce ms':>11}"
        f"{'min / epoch':>13}"
    )
    for name, machines, each in (
        ("one GPU", 1, 1),
        ("one machine with 8 GPUs", 1, 8),
        ("32 machines with one GPU", 32, 1),
        ("32 machines with 8 GPUs", 32, 8),
    ):
        bandwidth = (values.link if machines == 1 else values.network) * 1e9
        print(
            project(
                name, machines * each, speed, gradient_bytes, bandwidth,
                values.input * machines, values.device_batch,
            )
        )  # fmt: skip


def define_flags():
    """Defines the flags of this program."""
    programs.define_flags(extractor_weights="none", width=0.25, batch_size=8)
    flags.DEFINE_integer("repeats", 15, "Steps that are timed.", lower_bound=1)
    flags.DEFINE_string(
        "work_dir",
        os.path.join(tempfile.gettempdir(), "wsol_tf_scaling"),
        "Folder for what the workers saw.",
    )
    flags.DEFINE_string("result", None, "Used by this program itself.")
    flags.DEFINE_float("device_speed", 1000, "Assumed images/s of one device.")
    flags.DEFINE_integer("device_batch", 32, "Assumed batch of one device.")
    flags.DEFINE_float("link", 100, "Assumed GB/s between the devices of a machine.")
    flags.DEFINE_float("network", 3, "Assumed GB/s between machines (25 Gbit/s).")
    flags.DEFINE_float("input", 4000, "Assumed images/s that a machine reads and decodes.")


if __name__ == "__main__":
    programs.main(define_flags, run)
