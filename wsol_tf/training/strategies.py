"""Devices and machines: the `tf.distribute` strategy of a run, and what its workers agree on."""

import contextlib
import json
import os

import tensorflow as tf

NAMES = ("auto", "one", "mirrored", "multi_worker", "tpu", "central")


def make(name="auto"):
    """Makes the strategy of a run; must come before anything else of TensorFlow runs.

    Args:
        name: `one`, a single device; `mirrored`, all devices of this machine; `multi_worker`,
            all machines of TF_CONFIG or of a Slurm job; `tpu`, the TPU that TPU_NAME names, or
            this machine's; `central`, variables in one place and work on all devices of this
            machine; `auto` takes multi_worker where TF_CONFIG names several workers, tpu where
            TPU_NAME is set, mirrored where there are several GPUs, else one.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: an unknown name, a TF_CONFIG that can't be read, or no TPU.
    """
    if name not in NAMES:
        raise ValueError(f"Unknown strategy '{name}'. Legal: {', '.join(NAMES)}.")
    if name == "auto":
        name = _choose()
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "multi_worker":
        return _multi_worker()
    if name == "tpu":
        return _tpu()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    names = [device.name for device in devices]
    if name == "central":
        return tf.distribute.experimental.CentralStorageStrategy(names)
    # The default way to reduce deadlocks where CPUs run loops, and is meant for GPUs.
    on_cpu = devices[0].device_type == "CPU"
    reduction = tf.distribute.ReductionToOneDevice() if on_cpu else None
    return tf.distribute.MirroredStrategy(names, cross_device_ops=reduction)


def _choose():
    if len(_cluster().get("worker", ())) + len(_cluster().get("chief", ())) > 1:
        return "multi_worker"
    if os.environ.get("TPU_NAME"):
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one"


def _cluster():
    """The cluster of TF_CONFIG: job -> addresses."""
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return {}
    try:
        return dict(json.loads(text).get("cluster", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG can't be read ({error}). It is JSON such as "
            '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}.'
        ) from error


def _multi_worker():
    resolver = None
    if not _cluster() and "SLURM_PROCID" in os.environ:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver()
    elif not _cluster():
        raise ValueError(
            "--strategy=multi_worker finds no workers: set TF_CONFIG for each of them, or start "
            "them with srun (see BUILD.md)."
        )
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


def _tpu():
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(name)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ValueError(
            f"There is no TPU '{name}' ({str(error).partition(chr(10))[0]}). Set TPU_NAME, or "
            "another --strategy."
        ) from error
    return tf.distribute.TPUStrategy(resolver)


@contextlib.contextmanager
def scope(strategy):
    """The strategy's scope, in which models are made."""

    def creator(make, **settings):
        if settings.get("aggregation") == tf.VariableAggregation.NONE:
            # Moving averages: Keras leaves this open, and CentralStorageStrategy then refuses.
            settings["aggregation"] = tf.VariableAggregation.MEAN
        return make(**settings)

    with strategy.scope(), contextlib.ExitStack() as stack:
        if isinstance(strategy, tf.distribute.experimental.CentralStorageStrategy):
            stack.enter_context(tf.variable_creator_scope(creator))
        yield


def is_multi_worker(strategy):
    """Whether several processes train together."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy):
    """Whether this process is the one that writes files and talks to the user."""
    if not is_multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    if resolver.task_type == "chief":
        return True
    return resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs


def describe(strategy):
    """What a run trains on, in a few words."""
    replicas = strategy.num_replicas_in_sync
    if strategy is tf.distribute.get_strategy():
        return "one device"
    names = {
        tf.distribute.MultiWorkerMirroredStrategy: "multi_worker",
        tf.distribute.MirroredStrategy: "mirrored",
        tf.distribute.TPUStrategy: "tpu",
        tf.distribute.experimental.CentralStorageStrategy: "central",
    }
    kind = next((name for cls, name in names.items() if isinstance(strategy, cls)), "own")
    return f"{replicas} replica{'s' if replicas > 1 else ''} ({kind})"


def agreement(strategy):
    """Returns a function that averages numbers over all workers, so that all decide alike.

    The function takes a list of numbers, as long on every worker, and returns a list. Without
    other workers it returns what it is given. Every worker must call it equally often.
    """
    if not is_multi_worker(strategy):
        return list

    @tf.function
    def averaged(values):
        return strategy.reduce("MEAN", strategy.run(tf.identity, args=(values,)), axis=None)

    def agree(numbers):
        return averaged(tf.constant(numbers, tf.float64)).numpy().tolist()

    return agree
