"""Checkpoints of BAS as files of a model."""

import json

import keras
import numpy as np
import pytest

import wsol_tf
from bas_tensors import tensors_of
from helpers import run
from wsol_tf import import_bas
from wsol_tf.model import bas, torch_file


@pytest.fixture(scope="module")
def tensors():
    return tensors_of("mobilenet_v1")


@pytest.fixture
def checkpoint(tensors, monkeypatch):
    """What a checkpoint holds; PyTorch is not needed to read it."""
    held = dict(tensors)
    monkeypatch.setattr(torch_file, "read_tensors", lambda path: held)
    return held


def test_the_file_holds_the_model(checkpoint, tensors, tmp_path, capsys):
    names, path = tmp_path / "names.txt", tmp_path / "model.keras"
    names.write_text("auk\n\nbat \nemu\n")
    # As ILSVRC's code writes it: for several GPUs, with the copies of the erased branch.
    besides = {
        "erase_branch.0.0.weight": np.ones(3), "classifier_cls_copy.0.bias": np.ones(3),
        "model.0.1.num_batches_tracked": np.array(7),
    }  # fmt: skip
    checkpoint.clear()
    checkpoint.update({f"module.{name}": x for name, x in {**tensors, **besides}.items()})
    assert run(import_bas, "saved.pth.tar", f"--output={path}", f"--classes={names}") == 0
    assert "mobilenet_v1 of BAS, 58 layers, 3 classes" in capsys.readouterr().out
    model = wsol_tf.load(path)
    assert model.classes == ("auk", "bat", "emu") and model.thresholds == {}
    assert model.resize_size == 256 and not model.compiled
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3)).astype(np.uint8)
    for name, expected in bas.build_from(tensors)(image).items():
        np.testing.assert_array_equal(model(image)[name], expected)
    assert model.localize(image[0], threshold=0.5).mask.shape == (224, 224)


def test_it_can_be_trained_further(tensors):
    model = bas.build_from(tensors)
    model.compile(wsol_tf.group_sgd(model.localizer, 1e-4), run_eagerly=True)
    before = model.localizer.get_weights()[1]
    model.fit(np.full((1, 224, 224, 3), 90, np.uint8), np.array([1]), verbose=0)
    assert not np.array_equal(before, model.localizer.get_weights()[1])


@pytest.mark.parametrize("what, said", [
    ("lacks", "lacks 1 tensor: model.5.1.weight."),
    ("more", "has 1 tensor that the network has not: model.5.9.weight."),
    ("shape", "has 1 tensor of another shape or type: model.5.1.weight."),
    ("type", "has 1 tensor of another shape or type: model.5.1.weight."),
    ("nan", "has 1 tensor with numbers that are not finite: model.5.1.weight."),
    ("other", "not the weights of a network of BAS"),
    ("scalar", "not the weights of a network of BAS"),
])  # fmt: skip
def test_what_is_not_of_bas_is_refused(tensors, what, said):
    given, name = dict(tensors), "model.5.1.weight"
    array = given[name]
    match what:
        case "lacks":
            del given[name]
        case "more":
            given["model.5.9.weight"] = array
        case "shape":
            given[name] = array[1:]
        case "type":
            given[name] = array.astype(int)
        case "nan":
            given[name] = np.where(np.arange(len(array)) == 3, np.nan, array)
        case "other":
            given = {"layer1.0.conv1.weight": array, "fc.weight": array}
        case "scalar":
            given["classifier_loc.0.weight"] = np.float32(3)
    with pytest.raises(ValueError) as caught:
        bas.build_from(given)
    assert said in str(caught.value)


@pytest.mark.parametrize("network, classes, kind, top_k, thresholds", [
    ("mobilenet_v1", 200, "mean", 200, {"mean": 0.15}),
    ("vgg16", 200, "topk", 80, {"topk": 0.15}),
    ("vgg16", 1000, "predicted", 1, {"predicted": 0.5, "true": 0.5}),
    ("mobilenet_v1", 7, "mean", 5, {}),
])  # fmt: skip
def test_map_and_threshold_are_those_of_bas(network, classes, kind, top_k, thresholds):
    names = [str(number) for number in range(classes)]
    model = bas._untrained(bas.NETWORKS[network], names, 8)
    assert (model.map, model.top_k, model.thresholds) == (kind, top_k, thresholds)


def test_what_was_asked_for_is_checked_before_anything_is_read(tmp_path, capsys):
    path = tmp_path / "model.keras"
    for arguments, said in (
        ((f"--output={path}",), "Name one checkpoint of BAS"),
        (("a.pth", "b.pth", f"--output={path}"), "Received: 2 files."),
        (("a.pth", f"--output={tmp_path}/model.h5"), "--output must end in .keras."),
        (("a.pth", f"--output={tmp_path}/none/model.keras"), "there is no folder"),
        (("a.pth", f"--output={path}", "--classes=none.txt"), "none.txt: there is no such file."),
        (("a.pth", f"--output={path}"), "a.pth: there is no such file."),
    ):
        assert run(import_bas, *arguments) == 1
        assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_each_class_needs_a_name(checkpoint, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("auk\nbat\n")
    arguments = (f"--output={tmp_path}/model.keras", f"--classes={tmp_path}/names.txt")
    assert run(import_bas, "saved.pth", *arguments) == 1
    said = capsys.readouterr().err
    assert "saved.pth: The checkpoint has 3 classes. Received 2 names" in said
    assert bas.build_from(checkpoint).classes == ("class_000", "class_001", "class_002")


@pytest.mark.realdata
def test_outputs_are_those_of_the_vectors(shared_dir):
    folder = shared_dir / "vectors"
    with np.load(folder / "bas_vectors_open.npz") as file:
        arrays = dict(file)
    notes = json.loads((folder / "bas_vectors_open.json").read_text())
    scale = {
        "conv_kernel": lambda n: n * np.float32(np.sqrt(2 / np.prod(n.shape[1:]))),
        "bias": lambda n: np.float32(0.05) * n,
        "bn_gamma": lambda n: 1 + np.float32(0.1) * n,
        "bn_mean": lambda n: np.float32(0.1) * n,
        "bn_var": lambda n: 1 + np.float32(0.1) * abs(n),
    }
    tensors = {}
    for number, name, shape, kind in notes["weights"]:
        rng = np.random.default_rng([notes["seed"], number])
        tensors[name] = scale[kind](rng.standard_normal(shape).astype(np.float32))
    model = bas.build_from(tensors)
    # Their pictures are scaled already, with noise beyond 0..255.
    mean, deviation = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    images = (arrays["images_nchw"].transpose(0, 2, 3, 1) * deviation + mean) * 255
    images = keras.ops.convert_to_tensor(images, "float32")
    out = model(images)
    np.testing.assert_allclose(out["logits"], arrays["eval_score_1"], rtol=1e-4, atol=1e-6)
    for array, name in (
        (model.feature_extractor(images), "eval_feat28"),
        (out["score_map"], "eval_feature_map"),
        (out["localization_map"], "eval_mask_all"),
    ):
        expected = arrays[name].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-4, err_msg=name)
