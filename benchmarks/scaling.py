"""Measures one worker against two on this machine, and projects what more of them would give.

    python benchmarks/scaling.py --width=0.25 --input_size=96 --batch_size=8

Two processes talk to each other over the loopback, as machines do over a network. Both take the
same steps on the same random pictures; throughput, and how far losses and weights lie apart, are
measured: batch normalization amplifies what float32 rounds differently. Each worker, the one alone
too, computes an operation on one thread (TF_NUM_INTRAOP_THREADS=1), so that one does not take the
cores of the other: alone it is slower than a training that may use the machine.

The reader is measured on JPEG files (drawn, 500 x 375) without a cache, in one thread: the CPU time
of a picture, and the part of it in which it holds Python's lock, which a process has once. With the
bytes of the gradients and the number of batch normalizations, these are what a projection has of
measured input. The rest is assumed: --device_speed, --step_overhead, --link, --network, --latency,
--cores. It is arithmetic, printed with all of it, and no measurement of any GPU or network.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as programs have it
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import cv2
import keras
import numpy as np
import tensorflow as tf
from absl import flags

import input_pipeline
from wsol_tf import programs
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
        norms = sum(isinstance(x, keras.layers.BatchNormalization) for x in layers_of(model))
        np.savez(path, seconds=seconds[2:], count=count, losses=losses, moved=moved, norms=norms)


def layers_of(model):
    """All layers in a model, at any depth."""
    return [layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]


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


@contextlib.contextmanager
def unlocked(module, names, spent):
    """Adds the CPU seconds within functions that leave Python's lock to spent[0]."""

    def timed(function):
        def call(*arguments, **options):
            begun = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                spent[0] += time.thread_time() - begun

        return call

    with contextlib.ExitStack() as stack:
        for name in names:
            changed = mock.patch.object(module, name, timed(getattr(module, name)))
            stack.enter_context(changed)
        yield


def reader_costs(config, count=96, rounds=5):
    """CPU seconds of a picture in the reader without a cache: (all, with Python's lock)."""
    with tempfile.TemporaryDirectory() as folder:
        input_pipeline.draw_files(folder, count)
        source = open_dataset("image_folder", folder, "train", image_size=config.crop_from)
        stream = TrainingStream(
            source, range(count), batch_size=count, input_size=config.input_size,
            resize_size=config.crop_from, min_crop=config.min_crop,
        )  # fmt: skip
        cv2.setNumThreads(1)
        costs = []
        for i in range(rounds + 1):
            spent, begun = [0.0], time.thread_time()
            with (
                unlocked(cv2, ("imdecode", "sepFilter2D", "resize", "flip"), spent),
                unlocked(os, ("read", "open", "stat"), spent),
            ):
                stream[i]
            seconds = time.thread_time() - begun
            costs.append((seconds / count, (seconds - spent[0]) / count))
    return np.median(costs[1:], 0)


def project(values, measured, devices, global_batch, processes):
    """Projects a step with so many devices, eight of them in a machine.

    A step takes the longer of computing and reading, then its fixed costs and the ring all-reduce,
    which moves 2 (n - 1) / n of the gradients over the slowest link; nothing overlaps.

    Args:
        values: the flags.
        measured: what was measured: `gradient_bytes`, `norms`, `picture` and `locked` seconds.
        devices: number of GPUs.
        global_batch: pictures of a step.
        processes: on each machine; they share its GPUs and its cores.

    Returns:
        dict with `total` images/s, what of the ideal that is (`share`), the seconds `compute`,
        `reading`, `fixed` and `reduction` of a step, and what `limits` it, with the setting that
        moves it.
    """
    machines = -(-devices // 8)
    by_cores, by_lock = values.cores / measured["picture"], processes / measured["locked"]
    compute = global_batch / devices / values.device_speed
    reading = global_batch / (machines * min(by_cores, by_lock))
    bandwidth = (values.link if machines == 1 else values.network) * 1e9
    reduction = 2 * (devices - 1) / devices * measured["gradient_bytes"] / bandwidth
    # Batch normalization adds its sums up over all devices, forwards and backwards.
    exchanges = 2 * measured["norms"] + 1 if devices > 1 else 0
    fixed = values.step_overhead / 1e3 + exchanges * values.latency / 1e6
    by_one_process = by_lock < by_cores and processes < min(devices, 8)
    extra = {
        "reader, Python's lock: a process for each GPU" if by_one_process
        else "reader, cores: --cache=disk": max(reading - compute, 0),
        "links: larger --batch_size, --gradient_accumulation": reduction,
        "small batches: larger --batch_size": fixed,
    }  # fmt: skip
    step = max(compute, reading) + fixed + reduction
    return {
        "total": global_batch / step, "share": compute / step, "compute": compute,
        "reading": reading, "fixed": fixed, "reduction": reduction,
        "limits": max(extra, key=extra.__getitem__) if compute < 0.9 * step else "the GPUs",
    }  # fmt: skip


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
        f"{config.batch_size}, {values.repeats} steps, {os.cpu_count()} CPU cores, one thread for "
        "each worker's operations\n"
        f"1 worker: {speeds[0]:.1f} images/s; 2 workers on the same machine: {speeds[1]:.1f} "
        f"({speeds[1] / speeds[0]:.2f}x)\n"
        f"loss, relative difference: {losses[0]:.1g} at the first step, {losses[1]:.1g} at the "
        f"second, {losses[-1]:.1g} at the last; way of the weights in {len(losses)} steps: "
        f"{apart:.1g} of its length apart"
    )
    picture, locked = reader_costs(config)
    measured = {
        "gradient_bytes": 4 * int(one["count"]), "norms": int(one["norms"]),
        "picture": picture, "locked": locked,
    }  # fmt: skip
    print(
        f"gradients: {measured['gradient_bytes'] / 1e6:.1f} MB, {measured['norms']} batch "
        f"normalizations; reader: {picture * 1e3:.2f} ms a picture ({1 / picture:.0f} images/s a "
        f"core), {locked * 1e3:.2f} ms of it with Python's lock (at most {1 / locked:.0f} images/s "
        "a process)"
    )
    print_projection(values, measured)


def print_projection(values, measured):
    """Prints a table of what more devices would give, and what it assumes."""
    print(
        f"\nProjection, not measured. Assumed: {values.device_speed:,.0f} images/s for each GPU, "
        f"and {values.step_overhead:g} ms a step besides; machines of 8 GPUs and {values.cores} "
        f"cores as fast as this one's; {values.link:g} GB/s between the GPUs of a machine, "
        f"{values.network:g} GB/s between machines, {values.latency:g} us for each exchange; "
        "nothing overlaps. A step's parts in ms.\n"
        f"{'GPUs':>4}{'batch':>8}{'processes':>10}{'images/s':>10}{'of ideal':>9}{'compute':>8}"
        f"{'read':>7}{'fixed':>7}{'reduce':>7}{'min/epoch':>10}  what limits it, and what moves it"
    )
    small, large = values.small_batch, values.device_batch
    for devices in (1, 8, 64, 256):
        sizes = (max(small, devices), 1), (large * devices, 1), (large * devices, min(devices, 8))
        for batch, processes in dict.fromkeys(sizes):
            row = project(values, measured, devices, batch, processes)
            print(
                f"{devices:4}{batch:8}{processes:10}{row['total']:10,.0f}{row['share']:9.0%}"
                f"{row['compute'] * 1e3:8.1f}{row['reading'] * 1e3:7.1f}{row['fixed'] * 1e3:7.1f}"
                f"{row['reduction'] * 1e3:7.1f}{ILSVRC / row['total'] / 60:10.1f}  {row['limits']}"
            )


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
    flags.DEFINE_float("device_speed", 1000, "Assumed images/s of one GPU.")
    flags.DEFINE_float("step_overhead", 5, "Assumed ms of a step that no batch makes shorter.")
    flags.DEFINE_integer("device_batch", 128, "Pictures of a step on each GPU.")
    flags.DEFINE_integer("small_batch", 256, "Pictures of a step over all GPUs, however many.")
    flags.DEFINE_float("link", 100, "Assumed GB/s between the devices of a machine.")
    flags.DEFINE_float("network", 3, "Assumed GB/s between machines (25 Gbit/s).")
    flags.DEFINE_float("latency", 50, "Assumed us of an exchange between GPUs, however small.")
    flags.DEFINE_integer("cores", 64, "Assumed cores of a machine with 8 GPUs.")


if __name__ == "__main__":
    programs.main(define_flags, run)
