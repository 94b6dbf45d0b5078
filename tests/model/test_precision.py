import pathlib

import pytest

from helpers import tiny_model
from wsol_tf.config import choices
from wsol_tf.model import precision


@pytest.mark.parametrize("named", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_named_precision_is_taken(named, monkeypatch):
    monkeypatch.setattr(precision, "_processor_flags", lambda: {"amx_bf16"})
    assert precision.policy_of(named, 1024) == named
    assert {named, "auto"} < set(choices("mixed_precision"))


@pytest.mark.parametrize(
    ("flags", "head_width", "expected"),
    [
        ({"avx2", "avx512f"}, 1024, "float32"),
        ({"avx2", "avx512_bf16"}, 1024, "mixed_bfloat16"),
        ({"avx2", "amx_bf16"}, 512, "mixed_bfloat16"),
        ({"avx2", "amx_bf16", "avx512_bf16"}, 256, "float32"),
        (set(), 1024, "float32"),
    ],
)
def test_on_a_cpu_instructions_and_heads_decide(flags, head_width, expected, monkeypatch):
    monkeypatch.setattr(precision.tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(precision, "_processor_flags", lambda: flags)
    assert precision.policy_of("auto", head_width) == expected


@pytest.mark.parametrize(
    ("extractor", "width", "expected"),
    [
        ("mobilenet_v1", 1.0, "mixed_bfloat16"),
        ("mobilenet_v1", 0.5, "float32"),
        ("mobilenet_v2", 1.0, "float32"),
        ("efficientnet_b0", 1.0, "float32"),
        ("resnet50", 1.0, "mixed_bfloat16"),
        ("", 1.0, "float32"),
    ],
)
def test_on_a_cpu_a_large_network_decides_too(extractor, width, expected, monkeypatch):
    monkeypatch.setattr(precision.tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(precision, "_processor_flags", lambda: {"avx512_bf16"})
    assert precision.policy_of("auto", 128, extractor, width) == expected
    monkeypatch.setattr(precision, "_processor_flags", lambda: {"avx512f"})
    assert precision.policy_of("auto", 128, extractor, width) == "float32"


def test_the_networks_that_gain_are_names_of_networks():
    assert set(choices("extractor")) > precision.FASTER


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [([(9, 0)], "mixed_bfloat16"), ([(8, 0), (7, 5)], "float32"), ([None], "float32")],
)
def test_on_gpus_their_generation_decides(capabilities, expected, monkeypatch):
    monkeypatch.setattr(
        precision.tf.config, "list_physical_devices", lambda kind: range(len(capabilities))
    )
    details = [{"compute_capability": x} if x else {} for x in capabilities]
    monkeypatch.setattr(
        precision.tf.config.experimental, "get_device_details", lambda gpu: details[gpu]
    )
    assert precision.policy_of("auto", 8) == expected


@pytest.mark.skipif(not pathlib.Path("/proc/cpuinfo").exists(), reason="no Linux")
def test_the_flags_of_this_processor_are_read():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    assert ("sse2" in precision._processor_flags()) == (" sse2 " in text)


def test_where_there_is_no_list_of_flags_there_are_none(monkeypatch):
    def missing(path):
        raise precision.files.BadFile(path, "does not exist")

    monkeypatch.setattr(precision.files, "read_text", missing)
    assert precision._processor_flags() == set()


def test_a_model_is_built_with_what_auto_stands_for(monkeypatch, caplog):
    monkeypatch.setattr(precision, "_processor_flags", lambda: {"amx_bf16"})
    monkeypatch.setattr(precision, "WIDE", 1)
    caplog.set_level("INFO", "wsol_tf")
    model = tiny_model(("cat", "dog"), mixed_precision="auto")
    assert model.classifier.get_layer("classifier_conv1").compute_dtype == "bfloat16"
    assert "Precision: mixed_bfloat16." in caplog.messages
