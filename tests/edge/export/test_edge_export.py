"""From a model to checked files: what is in them, and what is refused."""

import json
import os
import sys
import zipfile

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

import wsol_tf
from edge.export import __main__ as export
from edge.export import bias_correction, calibration, convert, graphs, parity, qat, steps, verdict
from edge.export.exported_map import ExportedMap
from edge.runners import batched, tflite_runner
from edge.runtime import LocalizerRuntime
from helpers import add_picture, run, tiny_model, varied
from wsol_tf.data import shapes, transforms
from wsol_tf.evaluation.iou import mask_iou
from wsol_tf.evaluation.localized_map import LocalizedMap
from wsol_tf.evaluation.paired import exact_mcnemar
from wsol_tf.evaluation.pairs import predict_pairs
from wsol_tf.evaluation.standard_metrics import StandardMetrics
from wsol_tf.model import refinement, score_maps

CLASSES = ("stripe", "check", "dot", "ring")  # of the drawn objects
MEAN = ExportedMap("mean")
SMALL = ("--calibration_data=shapes", "--num_calibration=8", "--num_parity=4", "--max_drop=1",
         "--min_mask_iou=0")  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return varied(tiny_model(CLASSES, localizer="agnostic"))


@pytest.fixture(scope="module")
def pictures():
    source, _ = calibration.open_source("shapes", split="train", classes=CLASSES, image_size=73)
    return calibration.read_pictures(source, 64, 12)


@pytest.fixture(scope="module")
def converted(model, pictures):
    """The float32 and the int8 file of one network, before biases are corrected."""
    graph = graphs.export_graph(model, MEAN)
    return convert.convert(graph, "float32"), convert.convert(graph, "int8", pictures)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The files of a real network, of every format."""
    folder = tmp_path_factory.mktemp("exported")
    whole = varied(tiny_model(CLASSES, localizer="agnostic", whole=True))
    whole.save(folder / "model.keras")
    out = folder / "out"
    assert run(
        export, f"--model={folder / 'model.keras'}", f"--output_dir={out}",
        "--formats=float32,float16,dynamic,int8", *SMALL,
    ) == 0  # fmt: skip
    return out


def test_a_file_holds_what_is_promised(exported):
    for name in ("float32", "float16", "dynamic", "int8"):
        path = exported / f"localizer_{name}.tflite"
        data = path.read_bytes()
        convert.check(data, name)
        image = np.zeros((64, 64, 3), np.uint8)
        assert tflite_runner(data)(image)["foreground_mask"].shape == (8, 8, 1)
        with zipfile.ZipFile(path) as archive:
            assert archive.read("labels.txt").decode().split() == list(CLASSES)
            information = json.loads(archive.read("wsol_tf.json"))
            assert all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())
        assert information["format"] == name
        assert information["labels"] == list(CLASSES)
        assert (information["map"], information["threshold"]) == ("mean", 0.5)
        assert information["refine"] == "none"
        assert information["normalization"] == {
            "scale": pytest.approx(1 / 127.5), "offset": -1.0, "in_graph": True,
        }  # fmt: skip
        assert (information["input_size"], information["output_size"]) == ([64, 64], [8, 8])
        names = [m.name for m in schema.ModelT.InitFromPackedBuf(data, 0).metadata]
        assert b"TFLITE_METADATA" in names


def test_the_report_compares_every_file_with_keras(exported):
    report = json.loads((exported / "parity.json").read_text())
    assert list(report["files"]) == ["keras", "float32", "float16", "dynamic", "int8"]
    assert report["files"]["keras"]["mask_iou"] == 1.0
    assert report["files"]["float32"]["max_difference"] < 1e-5
    assert report["files"]["keras"]["num_boxed"] > 0
    sizes = [report["files"][name]["bytes"] for name in ("float32", "float16", "int8")]
    assert sizes == sorted(sizes, reverse=True)
    for name, row in report["files"].items():
        if name != "keras":
            assert row["bytes"] == os.path.getsize(exported / f"localizer_{name}.tflite")
            assert row["bytes_in_zip"] < row["bytes"]
            assert {"1", "2", "4", *report["files"]["keras"]["milliseconds"]} == {
                *row["milliseconds"]
            }
    text = (exported / "parity.md").read_text()
    assert "| int8 |" in text and "| hit by Keras only | by the file only |" in text
    assert (exported / "labels.txt").read_text().split() == list(CLASSES)
    assert not [name for name in os.listdir(exported) if name.startswith(".")]


def test_a_file_that_differs_fails_loudly(exported, tmp_path, capsys):
    (tmp_path / "localizer_float32.tflite").write_text("of an earlier export")
    status = run(
        export, f"--model={exported.parent / 'model.keras'}", f"--output_dir={tmp_path}",
        "--formats=float32", *SMALL, "--min_mask_iou=1.1",
    )  # fmt: skip
    assert status == 1
    error = capsys.readouterr().err
    assert "mask IoU with Keras 1.0000, allowed 1.1" in error
    assert "localizer_float32.failed.tflite" in os.listdir(tmp_path)
    assert "localizer_float32.tflite" not in os.listdir(tmp_path)
    assert "**float32 failed**" in (tmp_path / "parity.md").read_text()


def test_what_failed_is_refused_with_what_did_not():
    figures = {
        "keras": {"mask_iou": 1.0},
        "float32": {"mask_iou": 1.0, "bytes": 4_000_000},
        "dynamic": {"mask_iou": 0.98765, "bytes": 1_500_000},
        "int8": {"mask_iou": 0.9, "bytes": 1_400_000},
    }
    report = {"files": figures, "failed": {"int8": "why"}}
    with pytest.raises(ValueError, match="int8 is too far .*: why. .* in out as .failed") as told:
        steps.refuse_failed(report, "out")
    assert "Take dynamic, which is close enough (mask IoU 0.9877, 1.50 MB), calib" in str(
        told.value
    )
    report["failed"] |= {"float32": "x", "dynamic": "y"}
    with pytest.raises(ValueError, match="Take float16, calibrate on more pictures"):
        steps.refuse_failed(report, "out")
    steps.refuse_failed({"files": figures, "failed": {}}, "out")


def row(mask_iou, hits, lost=0, gained=0, number=100):
    """Figures of a file of which so many of `number` boxes are right."""
    return {
        "mask_iou": mask_iou, "num_boxed": number, "gt_known_loc": hits / number, "lost": lost,
        "gained": gained, "p_value": exact_mcnemar(gained, lost, one_sided=True),
    }  # fmt: skip


def test_failures_are_told_by_drop_and_by_masks():
    figures = {
        "keras": row(1.0, 80), "good": row(0.95, 79, lost=1), "better": row(0.99, 85, gained=5),
        "masks": row(0.94, 80), "boxes": row(0.99, 75, lost=5), "nan": row(float("nan"), 80),
    }  # fmt: skip
    failed = verdict.failures(figures, max_drop=0.01, min_mask_iou=0.95)
    assert set(failed) == {"masks", "boxes", "nan"}
    assert failed["boxes"] == (
        "GT-known Loc 0.7500 against 0.8000 of Keras, a drop of 0.0500, allowed 0.01 (5 pictures "
        "hit by Keras only, 0 by the file only, p = 0.031)"
    )


def test_a_drop_that_can_be_chance_is_doubted_and_does_not_fail():
    # What refused a sound int8 file: 3 of 173 boxes on the wrong side, p = 1/8.
    figures = {
        "keras": row(1.0, 153, number=173), "int8": row(0.964, 150, lost=3, number=173),
        "worse": row(0.96, 146, lost=8, gained=1, number=173),  # p = 10/512
        "flips": row(0.96, 143, lost=23, gained=13, number=173),  # p = 0.066
    }  # fmt: skip
    asked = {"max_drop": 0.01}
    assert set(verdict.failures(figures, **asked, min_mask_iou=0.95)) == {"worse"}
    int8, flips, few = verdict.doubts(figures, **asked)
    assert int8.startswith("int8: GT-known Loc 0.8671 against 0.8844 of Keras, a drop of 0.0173")
    assert int8.endswith(
        "(3 pictures hit by Keras only, 0 by the file only, p = 0.12), which can be chance."
    )
    assert flips.startswith("flips: ")
    assert few == (
        "173 pictures with boxes are too few to tell a drop of 0.01 from chance: fewer than 5 lost "
        "ones, a drop of 0.0289, say nothing; give at least 400."
    )
    # A loss that is certain and allowed is no failure.
    assert not verdict.failures(figures, max_drop=0.1, min_mask_iou=0.95)


@pytest.mark.parametrize(
    "number, max_drop, few",
    [(399, 0.01, True), (400, 0.01, False), (79, 0.05, True), (80, 0.05, False), (4, 1, False),
     (10**6, 0, True)],
)  # fmt: skip
def test_too_few_pictures_are_those_that_cannot_fail_a_file(number, max_drop, few):
    figures = {"keras": row(1.0, number, number=number)}
    assert bool(verdict.doubts(figures, max_drop=max_drop)) == few
    lost = int(max_drop * number + 1e-9) + 1  # the smallest drop that is not allowed
    if lost <= number:
        figures["file"] = row(0.99, number - lost, lost=lost, number=number)
        assert bool(verdict.failures(figures, max_drop=max_drop, min_mask_iou=0)) != few


def test_without_boxes_nothing_is_doubted():
    assert verdict.doubts({"keras": {"mask_iou": 1.0}}, max_drop=0.01) == []


def test_pictures_that_flip_are_counted_each_way():
    source, _ = calibration.open_source("shapes", split="val", classes=CLASSES, image_size=64)
    boxes = [source.read_example(i).boxes[0] / 64 for i in range(6)]

    def shows(*hits):
        """A map that is 1 in the object's box on the pictures named, and in a corner elsewhere."""
        asked = iter(range(6))

        def run(image):
            position = next(asked)
            score_map = np.zeros((64, 64, 1), np.float32)
            x0, y0, x1, y1 = np.rint(boxes[position] * 64).astype(int)
            score_map[0, 0] = 1
            if position in hits:
                score_map[y0:y1, x0:x1] = 1
            return {"foreground_mask": score_map}

        return run

    runners = {"keras": shows(0, 1, 2, 3), "file": shows(1, 4)}
    figures = parity.compare(
        runners, source, range(6), view=transforms.View(64, 64), threshold=0.5, kind="mean"
    )
    assert [figures[name]["gt_known_loc"] for name in runners] == [4 / 6, 2 / 6]
    assert [figures["file"][key] for key in ("lost", "gained", "p_value")] == [3, 1, 5 / 16]
    assert [figures["keras"][key] for key in ("lost", "gained", "p_value")] == [0, 0, 1]


@pytest.mark.parametrize("map_", ["mean", "topk", "predicted", "all", "class:dot", "present"])
def test_the_reference_is_what_localize_gives(map_):
    """It is read of the whole model: a graph that forgets the offset would not equal itself."""
    own = varied(tiny_model(CLASSES, top_k=2, mirror=True))
    own.offset = (1.5, -0.75)
    parsed = ExportedMap.parse(map_)
    found = parity.reference(own, parsed)(shapes.draw(1, size=64).image)
    assert found["foreground_mask"].shape == (32, 32, 4 if parsed.has_all_maps else 1)
    assert ("class_scores" in found) == parsed.has_classifier
    kind = map_ if map_ in ("mean", "topk") else "predicted"
    expected = own.localize(shapes.draw(1, size=64).image, map=kind)
    channel = own.classes.index(expected.class_name) if parsed.has_all_maps else 0
    if map_ == "class:dot":  # another class's map than the one that localize takes
        found = parity.reference(own, ExportedMap("class", expected.class_name))(
            shapes.draw(1, size=64).image
        )
    score_map, mask, box = score_maps.localize(found["foreground_mask"][..., channel], 64, 64, 0.5)
    np.testing.assert_allclose(score_map, expected.score_map, atol=1e-6)
    np.testing.assert_array_equal(box, expected.box)
    assert 0 < mask.mean() < 1


@pytest.mark.parametrize("output_size", [0, 64, 8])
def test_files_are_compared_with_what_localize_gives(output_size):
    """The moved map has four times the localizer's side; what a smaller one loses is seen."""
    # Few layers give a map of shallow slopes, which shows how a larger one is computed.
    own = varied(tiny_model(CLASSES, localizer="agnostic", whole=output_size == 64))
    own.offset = (1.5, -0.75)
    graph = graphs.export_graph(own, MEAN, output_size=output_size)
    assert graph.output["foreground_mask"].shape[1] == (output_size or 32)
    made = {"float32": convert.convert(graph, "float32")}
    asked = {"split": "val", "image_size": 64, "classes": CLASSES}
    source, labelled = calibration.open_source("shapes", **asked)

    def iou():
        figures = steps.compare_files(
            own, MEAN, graph, made, source, labelled=labelled, num_pictures=8
        )
        return figures["float32"]["mask_iou"]

    if output_size == 8:
        assert 0.5 < iou() < 0.9
    else:
        assert iou() > 0.99
        own.offset = (0.0, 0.0)  # of the model alone: the file still moves its map
        assert iou() < 0.9


@pytest.mark.parametrize("map_", ["mean", "predicted", "all", "class:dot", "present"])
def test_the_file_of_a_refining_model_gives_the_models_masks(map_, tmp_path):
    refining = varied(tiny_model(CLASSES, refine="guided"))
    refining.thresholds = {kind: 0.55 for kind in ("mean", "true", "predicted")}
    refining.presence_threshold = 0.2
    refining.save(tmp_path / "model.keras")
    status = run(
        export, f"--model={tmp_path / 'model.keras'}", f"--output_dir={tmp_path / 'out'}",
        "--formats=float32", f"--map={map_}", *SMALL, "--min_mask_iou=0.99",
    )  # fmt: skip
    assert status == 0
    localizer = LocalizerRuntime(tmp_path / "out" / "localizer_float32.tflite")
    assert (localizer.refine, localizer.threshold) == ("guided", 0.55)
    loaded = wsol_tf.load(tmp_path / "model.keras")
    for position in range(4):
        image = shapes.draw(position, size=90, split="test").image[:70]
        if map_ == "present":
            expected = loaded.localize(image, map="predicted", classes="present")
            found = localizer.localize(image)
            mask = expected.mask
            assert found.others and len(found.others) == len(expected.others)
            for part, other in zip(found.others, expected.others, strict=True):
                assert part.class_name == other.class_name
                assert part.probability == pytest.approx(other.probability, abs=1e-4)
                assert mask_iou(part.mask.astype(np.uint8), other.mask.astype(np.uint8)) >= 0.99
        elif map_ in ("mean", "predicted"):
            mask = loaded.localize(image, map=map_).mask
            found = localizer.localize(image)
        else:
            small = transforms.resize_image(image, 64)
            channel = loaded.predict_on_batch(small[None])["localization_map"][0, ..., 2]
            refined = refinement.refine(np.asarray(channel), small)
            mask = score_maps.localize(refined, *image.shape[:2], 0.55)[1]
            found = localizer.localize(image, class_name="dot" if map_ == "all" else None)
        assert found.score_map.shape == image.shape[:2] and 0 < mask.mean() < 1
        assert mask_iou(found.mask.astype(np.uint8), mask.astype(np.uint8)) >= 0.99


def test_refined_maps_are_compared_with_refined_ones():
    """A constant map, or one with NaN, is not refined and keeps its size beside those that are."""
    source, _ = calibration.open_source("shapes", split="val", classes=CLASSES, image_size=64)
    maps = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)

    def shows(change):
        asked = iter(range(4))
        return lambda image: {"foreground_mask": change(maps[next(asked)])}

    changes = {
        "keras": np.copy, "same": lambda x: x / 2, "constant": np.zeros_like,
        "broken": lambda x: x * np.nan,
    }  # fmt: skip
    asked = {"view": transforms.View(64, 64), "threshold": 0.5, "kind": "mean"}
    plain, refined = (
        parity.compare(
            {name: shows(change) for name, change in changes.items()},
            source, range(4), refine=refine, **asked,
        )
        for refine in ("none", "guided")
    )  # fmt: skip
    assert plain["same"]["max_difference"] > 0.4
    assert refined["same"]["max_difference"] < 1e-5 and refined["same"]["mask_iou"] == 1
    assert refined["constant"]["mask_iou"] == refined["broken"]["mask_iou"] == 0
    assert np.isfinite(refined["constant"]["max_difference"])


def test_a_model_that_shows_nothing_has_nothing_to_compare():
    """Its files would equal it on every picture; one picture with an object is enough."""
    source, _ = calibration.open_source("shapes", split="val", classes=CLASSES, image_size=64)
    count = iter(range(8))

    def shows(last):
        score_map = np.zeros((8, 8, 1), np.float32)
        score_map[0, 0, 0] = last and next(count) == 3
        return {"foreground_mask": score_map}

    asked = {"view": transforms.View(64, 64), "threshold": 0.5, "kind": "mean"}
    with pytest.raises(ValueError, match="one value everywhere on all 4 pictures.* train it again"):
        parity.compare({"keras": lambda image: shows(False)}, source, range(4), **asked)
    parity.compare({"keras": lambda image: shows(True)}, source, range(4), **asked)


def test_another_class_is_told_apart_from_a_worse_map():
    """A file that predicts another class shows another map, however well it computes both."""
    source, _ = calibration.open_source("shapes", split="val", classes=CLASSES, image_size=64)
    left, right = (np.repeat([row], 8, axis=0)[..., None].astype(np.float32)
                   for row in ([1] * 4 + [0] * 4, [0] * 4 + [1] * 4))  # fmt: skip

    def outputs(flipped):
        scores = np.float32([0, 1, 0, 0] if flipped else [1, 0, 0, 0])
        return {"foreground_mask": right if flipped else left, "class_scores": scores}

    asked = iter(range(4))
    runners = {
        "keras": lambda image: outputs(False),
        "one flips": lambda image: outputs(next(asked) == 2),
        "all flip": lambda image: outputs(True),
    }
    figures = parity.compare(
        runners, source, range(4), view=transforms.View(64, 64), threshold=0.5, kind="mean"
    )
    shares = {
        name: (row["num_pictures"], row["mask_iou"], row["same_class"], row["mask_iou_same_class"])
        for name, row in figures.items()
    }
    assert shares == {
        "keras": (4, 1, 1, 1), "one flips": (4, 0.75, 0.75, 1), "all flip": (4, 0, 0, None),
    }  # fmt: skip
    failed = verdict.failures(figures, max_drop=1, min_mask_iou=0.95)
    assert failed["one flips"] == (
        "mask IoU with Keras 0.7500, allowed 0.95 (on 25.0% of the pictures another class is "
        "predicted; mask IoU on the others 1.0000)"
    )
    assert failed["all flip"].endswith("(on 100.0% of the pictures another class is predicted)")
    for row in figures.values():
        row["milliseconds"] = {1: 2.0}
    report = {"files": figures, "failed": failed, "model": "m", "map": "predicted",
              "threshold": 0.5, "scored_on": "s", "view": "crop"}  # fmt: skip
    assert "| same class | their mask IoU |" in verdict.to_markdown(report)


def test_pictures_in_which_the_model_shows_next_to_nothing_are_told_apart():
    """A map that reaches 0.2 is stretched to 0..1, and with it what a file adds to it."""
    source, _ = calibration.open_source("shapes", split="val", classes=CLASSES, image_size=64)
    left = np.repeat([[1] * 4 + [0] * 4], 8, axis=0)[..., None].astype(np.float32)
    low, right = left * 0.2, left[:, ::-1] * 0.2
    maps = {name: iter(x) for name, x in {
        "keras": [left, low, left, low], "worse where it is low": [left, right, left, low],
        "worse everywhere": [low, right, 0 * left, right],
    }.items()}  # fmt: skip
    runners = {
        name: lambda image, own=own: {"foreground_mask": next(own)} for name, own in maps.items()
    }
    figures = parity.compare(
        runners, source, range(4), view=transforms.View(64, 64), threshold=0.5, kind="mean"
    )
    shares = {n: (row["low_maps"], row["mask_iou_not_low"]) for n, row in figures.items()}
    assert shares == {
        "keras": (0.5, 1), "worse where it is low": (0.5, 1), "worse everywhere": (0.5, 0.5),
    }  # fmt: skip
    failed = verdict.failures(figures, max_drop=1, min_mask_iou=0.95)
    assert failed["worse where it is low"] == (
        "mask IoU with Keras 0.7500, allowed 0.95 (in 50.0% of the pictures the model's own map "
        "stays below 0.3, as after too short a training; mask IoU on the others 1.0000)"
    )
    all_low = {
        "a": {**figures["keras"], "mask_iou": 0.5, "low_maps": 1.0, "mask_iou_not_low": None}
    }
    assert verdict.failures({"keras": figures["keras"], **all_low}, max_drop=1, min_mask_iou=0.95)[
        "a"
    ].endswith("(in 100.0% of the pictures the model's own map stays below 0.3, as after too "
               "short a training)")  # fmt: skip


def test_a_picture_of_two_classes_is_one_picture(tmp_path):
    add_picture(tmp_path, "a", [("cat", (0, 0, 16, 16)), ("dog", (16, 16, 32, 32))])
    source, _ = calibration.open_source(
        str(tmp_path), split="val", classes=("cat", "dog", "fox"), image_size=64
    )
    whole = {"foreground_mask": np.eye(8, dtype=np.float32)[..., None]}
    figures = parity.compare(
        {"keras": lambda image: whole}, source, [0],
        view=transforms.View(64, 64), threshold=0.5, kind="mean",
    )  # fmt: skip
    assert (figures["keras"]["num_pictures"], figures["keras"]["num_boxed"]) == (1, 2)


def test_max_box_acc_v2_is_that_of_evaluate():
    """Boxes are rounded to whole pixels as wsolevaluation does, which tips some over the edge."""
    source, _ = calibration.open_source("shapes", split="val", classes=CLASSES, image_size=73)
    view = transforms.View(64, 73)

    def run(image):  # bright where the picture is, in steps of 4 pixels
        cells = image.reshape(16, 4, 16, 4, 3).mean((1, 3, 4), keepdims=True) / 255
        return {"foreground_mask": cells.reshape(16, 16, 1).astype(np.float32)}

    standard = StandardMetrics(["max_box_acc_v2"], view)
    positions = range(24)
    for pair in predict_pairs(batched(run), source, positions, kinds=["mean"], view=view):
        standard.add(LocalizedMap(pair, "mean"))
    figures = parity.compare(
        {"keras": run}, source, positions, view=view, threshold=0.5, kind="mean"
    )
    found = figures["keras"]["max_box_acc_v2"]
    assert found == standard.result()["max_box_acc_v2"]["value"]
    assert 0 < found < 1


def test_keras_is_timed_beside_files_with_as_many_threads(converted, model, monkeypatch):
    monkeypatch.setattr(parity, "_cores", lambda: 3)
    graph = graphs.export_graph(model, MEAN)
    image = np.zeros((1, 64, 64, 3), np.uint8)
    times = parity.latencies(graph, {"float32": converted[0]}, image, rounds=1, threads=(1, 2))
    assert {name: list(row) for name, row in times.items()} == {
        "keras": [3], "float32": [1, 2, 3],
    }  # fmt: skip


def test_further_training_aims_at_the_networks_own_map(model, pictures, monkeypatch):
    """With `output_size` the file's map is larger than what the twin gives."""
    aimed_at = {}

    def train(model, map_, run, pictures, kind, **settings):
        aimed_at[kind] = run(pictures[0])["foreground_mask"].shape, settings
        return model

    monkeypatch.setattr(qat, "train", train)
    made = {}

    def quantized(graph, float_bytes, pictures):
        made["shape"] = graph.output["foreground_mask"].shape
        return float_bytes

    monkeypatch.setattr(steps, "quantized", quantized)
    monkeypatch.setattr(convert, "check", lambda data, format_: None)  # it is no int8 file
    graph = graphs.export_graph(model, MEAN, output_size=32)
    settings = {"steps": 1, "sparsity": 0.5, "clusters": 2, "seed": 0}
    made |= steps.make_files(model, MEAN, graph, pictures, ["int8_qat"], **settings)
    assert aimed_at == {"qat": ((8, 8, 1), settings)}
    assert set(made) == {"int8_qat", "shape"} and made["shape"] == (1, 32, 32, 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--formats=float31"], "Unknown format 'float31'"),
        (["--formats="], "Unknown format"),
        (["--map=true"], "Unknown map 'true'"),
        (["--map=predicted"], "one channel"),
        (["--calibration_data=nowhere"], "neither a folder of pictures nor a data set"),
        (["--calibration_data=csv"], "a data set without one (shapes, voc, "),
        (["--model=nothing.keras"], "is no file"),
        (["--output_size=4"], "at least the map's own side, 8"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(exported, tmp_path, capsys, arguments, message):
    status = run(
        export, f"--model={exported.parent / 'model.keras'}", f"--output_dir={tmp_path / 'out'}",
        *SMALL, *arguments,
    )  # fmt: skip
    assert status == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_told_before_any_work(exported, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    status = run(
        export, f"--model={exported.parent / 'model.keras'}", f"--output_dir={tmp_path / 'out'}",
        "--formats=float32,int8_qat", *SMALL,
    )  # fmt: skip
    output = capsys.readouterr()
    assert status == 1 and "pip install 'wsol_tf[qat]'" in output.err
    assert "Making" not in output.out and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"background_class": "dot"}, "no classifier, which tells pictures of 'dot'"),
        ({"whole": True, "levels": "8,16"}, "no counterpart in Keras 2 for the layer 'level_"),
        ({"map": "predicted"}, "'predicted' needs the classifier as well"),
    ],
)
def test_what_can_t_be_trained_further_is_told_before_any_work(settings, message, tmp_path, capsys):
    map_ = settings.pop("map", "mean")
    tiny_model(CLASSES, **settings).save(tmp_path / "model.keras")
    status = run(
        export, f"--model={tmp_path / 'model.keras'}", f"--output_dir={tmp_path / 'out'}",
        "--formats=float32,int8_qat", f"--map={map_}", *SMALL,
    )  # fmt: skip
    output = capsys.readouterr()
    assert status == 1 and message in output.err
    assert "Making" not in output.out and not (tmp_path / "out").exists()


def test_a_model_of_others_is_refused(tmp_path, capsys):
    import keras

    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save(tmp_path / "other.keras")
    arguments = (f"--model={tmp_path / 'other.keras'}", f"--output_dir={tmp_path}", *SMALL)
    assert run(export, *arguments) == 1
    assert "not a Localization" in capsys.readouterr().err


def save_pictures(folder, number):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(number):
        pixels = rng.integers(20, 200, (30, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def test_loose_pictures_need_no_labels(tmp_path):
    save_pictures(tmp_path / "deep", 10)
    (tmp_path / "deep" / "broken.png").write_bytes(b"no picture")
    source, labelled = calibration.open_source(
        str(tmp_path), split="train", classes=CLASSES, image_size=64
    )
    assert not labelled and not source.has_boxes and len(source) == 11
    batch = calibration.read_pictures(source, 64, 50)
    assert batch.shape == (10, 64, 64, 3) and batch.dtype == np.uint8
    assert batch.min() == 0 and batch.max() == 255  # one pixel each, so that bytes are bytes
    assert "broken.png" in str(source.report.skipped)


def write_drawn(folder, *, renamed=(), with_list=True):
    """Writes drawn objects in VOC layout, the classes that are named under names of another."""
    for split in ("train", "val"):
        shapes.write_voc(str(folder), 12, size=80, seed=0, split=split)
    for path in (folder / "classes.txt", *(folder / "Annotations").iterdir()):
        text = path.read_text()
        for name in renamed:
            text = text.replace(name, f"other_{name}")
        path.write_text(text)
    if not with_list:
        (folder / "classes.txt").unlink()


@pytest.mark.parametrize("with_list", [False, True])
def test_pictures_of_other_classes_are_pictures_to_calibrate_on(with_list, tmp_path):
    write_drawn(tmp_path / "none", renamed=CLASSES, with_list=with_list)
    source, labelled = calibration.open_source(str(tmp_path / "none"), split="train", image_size=64)
    assert len(source) == 12 and not labelled
    assert calibration.read_pictures(source, 64, 50).shape == (12, 64, 64, 3)
    # As data to compare on, they have no boxes of the model's classes; one in common is enough.
    asked = {"split": "val", "image_size": 64, "classes": CLASSES}
    assert calibration.open_source(str(tmp_path / "none"), **asked)[1] is False
    write_drawn(tmp_path / "one", renamed=CLASSES[:3])
    source, labelled = calibration.open_source(str(tmp_path / "one"), **asked)
    assert labelled and source.classes == CLASSES
    assert set(np.concatenate(source.labels)) == {3}


def test_a_data_set_of_other_classes_is_exported_with(model, tmp_path):
    write_drawn(tmp_path / "voc", renamed=CLASSES)
    model.save(tmp_path / "model.keras")
    status = run(
        export, f"--model={tmp_path / 'model.keras'}", f"--output_dir={tmp_path / 'out'}",
        "--formats=float32", *SMALL, f"--calibration_data={tmp_path / 'voc'}",
    )  # fmt: skip
    assert status == 0
    report = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert report["files"]["keras"]["num_pictures"] == 4
    assert "gt_known_loc" not in report["files"]["keras"] and report["doubts"] == []
    text = (tmp_path / "out" / "parity.md").read_text()
    assert "GT-known Loc is not measured, for want of boxes of its classes" in text


def test_too_few_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no picture in folder"):
        calibration.open_source(str(tmp_path), split="train", classes=CLASSES, image_size=64)
    save_pictures(tmp_path, 5)
    source, _ = calibration.open_source(
        str(tmp_path), split="train", classes=CLASSES, image_size=64
    )
    with pytest.raises(ValueError, match="5 readable pictures are too few"):
        calibration.read_pictures(source, 64, 50)


def test_a_folder_in_voc_layout_gives_its_split(tmp_path):
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "trainval.txt").write_text("a\n")
    with pytest.raises(ValueError, match="Legal splits here: trainval"):
        calibration.open_source(str(tmp_path), split="val", classes=CLASSES, image_size=64)


def test_calibration_that_does_not_span_all_bytes_is_refused(model, pictures):
    with pytest.raises(ValueError, match="must span 0..255"):
        convert.convert(graphs.export_graph(model, MEAN), "int8", np.clip(pictures, 0, 100))


def test_bias_correction_repairs_a_spoiled_bias(converted, pictures):
    float_bytes, int8_bytes = converted[0], bytearray(converted[1])
    unpacked = schema.Model.GetRootAs(int8_bytes, 0)
    bias, output, _ = bias_correction._convolutions(unpacked)[2]
    tensor = unpacked.Subgraphs(0).Tensors(bias)
    values = unpacked.Buffers(tensor.Buffer()).DataAsNumpy().view(np.int32)
    values += np.rint(0.5 / tensor.Quantization().ScaleAsNumpy()).astype(np.int32)  # by 0.5

    def error(data):
        wanted = bias_correction._convolutions(schema.Model.GetRootAs(float_bytes, 0))[2][1]
        means = bias_correction._means(float_bytes, [wanted], pictures)[0]
        return np.abs(means - bias_correction._means(data, [output], pictures)[0]).mean()

    spoiled, repaired = (
        error(int8_bytes),
        error(bias_correction.correct(int8_bytes, float_bytes, pictures)),
    )
    assert spoiled > 0.2 and repaired < spoiled / 5


def test_bias_correction_refuses_another_network(converted, pictures):
    other = convert.convert(graphs.export_graph(tiny_model(CLASSES), MEAN), "float32")
    with pytest.raises(ValueError, match="different convolutions"):
        bias_correction.correct(converted[1], other, pictures)


def test_mediapipe_loads_the_file(exported):
    mediapipe = pytest.importorskip("mediapipe")
    options = mediapipe.tasks.vision.ImageSegmenterOptions(
        base_options=mediapipe.tasks.BaseOptions(
            model_asset_path=str(exported / "localizer_int8.tflite")
        ),
        output_confidence_masks=True,
    )
    picture = np.random.default_rng(0).integers(0, 256, (48, 80, 3)).astype(np.uint8)
    with mediapipe.tasks.vision.ImageSegmenter.create_from_options(options) as segmenter:
        found = segmenter.segment(mediapipe.Image(mediapipe.ImageFormat.SRGB, picture))
    assert found.confidence_masks[0].numpy_view().shape[:2] == (48, 80)
