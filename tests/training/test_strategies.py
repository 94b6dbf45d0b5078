"""Which strategy a run takes; what they compute is in test_loop.py."""

import json

import pytest
import tensorflow as tf

from wsol_tf.training import strategies

TWO = {"worker": ["a:1", "b:1"]}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("TF_CONFIG", "TPU_NAME", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def resolvers(monkeypatch):
    """Resolvers that MultiWorkerMirroredStrategy was asked for with, in place of the strategy."""
    asked = []
    monkeypatch.setattr(
        tf.distribute,
        "MultiWorkerMirroredStrategy",
        lambda cluster_resolver=None: asked.append(cluster_resolver),
    )
    return asked


def set_cluster(monkeypatch, cluster, kind="worker", index=0):
    monkeypatch.setenv(
        "TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})
    )


@pytest.mark.parametrize("name", ["one", "auto"])
def test_without_anything_special_it_is_one_device(name):
    strategy = strategies.make_strategy(name)
    assert strategy is tf.distribute.get_strategy()
    assert strategies.describe_devices(strategy) == "one device"
    assert strategies.is_single_device(strategy)
    assert strategies.is_chief(strategy) and not strategies.is_multi_worker(strategy)
    assert strategies.agreement(strategy)([3.0, 1.0]) == [3.0, 1.0]


@pytest.mark.parametrize(
    "cluster, chosen",
    [
        (TWO, "multi_worker"),
        ({"chief": ["a:1"], "worker": ["b:1"]}, "multi_worker"),
        ({"worker": ["a:1"]}, "one"),
        ({}, "one"),
    ],
)
def test_auto_follows_the_cluster(cluster, chosen, monkeypatch):
    set_cluster(monkeypatch, cluster)
    assert strategies.automatic_choice() == chosen


def test_auto_follows_the_devices(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["one", "two"])
    assert strategies.automatic_choice() == "mirrored"
    monkeypatch.setenv("TPU_NAME", "local")
    assert strategies.automatic_choice() == "tpu"
    set_cluster(monkeypatch, TWO)
    assert strategies.automatic_choice() == "multi_worker"


def test_workers_are_found_in_tf_config_and_in_slurm(monkeypatch, resolvers):
    set_cluster(monkeypatch, TWO)
    strategies.make_strategy("auto")
    assert resolvers == [None]  # TensorFlow reads TF_CONFIG itself
    monkeypatch.delenv("TF_CONFIG")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # the resolver sets it
    for name, value in {
        "SLURM_PROCID": "1",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "n[1-2]",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    }.items():
        monkeypatch.setenv(name, value)
    strategies.make_strategy("multi_worker")
    resolver = resolvers[1]
    assert resolver.cluster_spec().as_dict() == {"worker": ["n1:8888", "n2:8888"]}
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)


@pytest.mark.parametrize(
    "name, tf_config, sentence",
    [
        ("best", "", "Unknown strategy 'best'. Legal: auto, one, mirrored"),
        ("multi_worker", "", "finds no workers: set TF_CONFIG"),
        ("multi_worker", "{", "TF_CONFIG can't be read"),
        ("auto", "[1]", "TF_CONFIG can't be read"),
    ],
)
def test_what_cannot_work_is_refused(name, tf_config, sentence, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config)
    with pytest.raises(ValueError, match=sentence):
        strategies.make_strategy(name)


def test_a_missing_tpu_is_said(monkeypatch):
    def refuse(name):
        raise ValueError("no such device")

    resolver = tf.distribute.cluster_resolver.TPUClusterResolver
    monkeypatch.setattr(resolver, "connect", staticmethod(refuse))
    with pytest.raises(ValueError, match="There is no TPU 'local' .no such device."):
        strategies.make_strategy("tpu")
