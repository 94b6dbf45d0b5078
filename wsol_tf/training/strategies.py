"""Devices and machines: the `tf.distribute` strategy of a run, and what its workers agree on."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator

import tensorflow as tf

from wsol_tf import signals
from wsol_tf.config import choices


def make_deterministic() -> None:
    """Makes TensorFlow compute the same bits from the same seed, in this process and in others."""
    tf.config.experimental.enable_op_determinism()
    # With oneDNN's kernels, TensorFlow's graph optimizer turns the gradient of the erased pass into
    # one of two graphs, which one by chance and for the whole process; they round differently.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Makes the strategy of a run; call it before anything else uses TensorFlow.

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
    if name not in choices("strategy"):
        legal = ", ".join(choices("strategy"))
        raise ValueError(f"Unknown strategy '{name}'. Legal: {legal}.")
    if name == "auto":
        name = automatic_choice()
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
    # The default reduction is meant for GPUs, and deadlocks where CPUs run loops.
    on_cpu = devices[0].device_type == "CPU"
    reduction = tf.distribute.ReductionToOneDevice() if on_cpu else None
    return tf.distribute.MirroredStrategy(names, cross_device_ops=reduction)


def automatic_choice() -> str:
    """Returns the name of the strategy that `auto` takes here; see `make_strategy`."""
    if len(_cluster().get("worker", ())) + len(_cluster().get("chief", ())) > 1:
        return "multi_worker"
    if os.environ.get("TPU_NAME"):
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one"


def _cluster():
    """The cluster of TF_CONFIG as a dict job -> addresses."""
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return {}
    try:
        return dict(json.loads(text).get("cluster", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG can't be read ({error}). It must be JSON such as "
            '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}.'
        ) from error


def _multi_worker():
    resolver = None
    if not _cluster() and "SLURM_PROCID" in os.environ:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver()
    elif not _cluster():
        raise ValueError(
            "`strategy=multi_worker` finds no workers: set TF_CONFIG for each of them, or start "
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
            "another `strategy`."
        ) from error
    return tf.distribute.TPUStrategy(resolver)


@contextlib.contextmanager
def scope(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Enters the strategy's scope, in which models are built."""

    def creator(make, **settings):
        if settings.get("aggregation") == tf.VariableAggregation.NONE:
            # Moving averages: Keras leaves this open, and CentralStorageStrategy then refuses.
            settings["aggregation"] = tf.VariableAggregation.MEAN
        return make(**settings)

    with strategy.scope(), contextlib.ExitStack() as stack:
        if isinstance(strategy, tf.distribute.experimental.CentralStorageStrategy):
            stack.enter_context(tf.variable_creator_scope(creator))
        yield


def is_single_device(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a run trains on one device, as without any strategy."""
    return strategy is tf.distribute.get_strategy()


def is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether several processes train together."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that writes files and talks to the user."""
    if not is_multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    if resolver.task_type == "chief":
        return True
    return resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs


def describe_devices(strategy: tf.distribute.Strategy) -> str:
    """Returns what a run trains on, in a few words such as "2 replicas (mirrored)"."""
    replicas = strategy.num_replicas_in_sync
    if is_single_device(strategy):
        return "one device"
    names = {
        tf.distribute.MultiWorkerMirroredStrategy: "multi_worker",
        tf.distribute.MirroredStrategy: "mirrored",
        tf.distribute.TPUStrategy: "tpu",
        tf.distribute.experimental.CentralStorageStrategy: "central",
    }
    kind = next((name for cls, name in names.items() if isinstance(strategy, cls)), "own")
    return f"{replicas} replica{'s' if replicas > 1 else ''} ({kind})"


def agreement(strategy: tf.distribute.Strategy) -> Callable[[list[float]], list[float]]:
    """Returns a function that averages numbers over all workers, so that all decide alike.

    The function takes a list of numbers, of the same length on every worker, and returns a list.
    Without other workers it returns what it is given. Every worker must call it equally often.
    """
    if not is_multi_worker(strategy):
        return list

    @tf.function
    def averaged(values):
        return strategy.reduce("MEAN", strategy.run(tf.identity, args=(values,)), axis=None)

    def agree(numbers):
        return averaged(tf.constant(numbers, tf.float64)).numpy().tolist()

    return agree


@contextlib.contextmanager
def preempted_by_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns the error that follows the loss of another worker into `signals.Preempted`."""
    try:
        yield
    except (  # what TensorFlow raises when a worker that it talked to is gone
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    ) as error:
        if not is_multi_worker(strategy):
            raise
        raise signals.Preempted(
            f"Lost another worker ({type(error).__name__}). Start all workers again: they go on "
            "from the last checkpoint."
        ) from error
