import json
import shlex
import zipfile

import cv2
import keras
import numpy as np
import pytest
from absl import flags
from PIL import Image

from helpers import run, tiny_model, undefined_names, varied
from wsol_tf import evaluate, evaluation, programs
from wsol_tf.data import shapes, transforms
from wsol_tf.data.registry import open_dataset
from wsol_tf.evaluation import baselines, pairs, wsolevaluation
from wsol_tf.evaluation import score as scoring
from wsol_tf.evaluation.methods import method_of
from wsol_tf.evaluation.standard_metrics import whole_pixel_boxes
from wsol_tf.model.build import load_model
from wsol_tf.report import page

KEYS = ("gt_known_loc", "top1_loc", "top5_loc", "top1_cls", "top5_cls", "miou_box", "threshold",
        "gt_known_loc_oracle", "oracle_threshold", "num_images")  # fmt: skip


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    varied(tiny_model(shapes.CLASSES)).save(path)
    return path


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """Six drawn pictures in VOC layout, with boxes and masks."""
    folder = tmp_path_factory.mktemp("data") / "voc"
    shapes.write_voc(str(folder), 6, size=80, seed=0, split="val")
    return folder


@pytest.fixture
def score(model_path, voc, tmp_path):
    """Function that scores the six pictures with more flags; returns (status, figures, lines)."""

    def do(*arguments):
        out = tmp_path / "out"
        status = run(
            evaluate, f"--model={model_path}", "--dataset=voc_folder", f"--data_dir={voc}",
            f"--output_dir={out}", *arguments,
        )  # fmt: skip
        if status:
            return status, None, None
        lines = (out / "predictions.jsonl").read_text().splitlines()
        figures = json.loads((out / "metrics.json").read_text())
        return status, figures, [json.loads(line) for line in lines]

    return do


def test_files_and_keys_of_the_contract(score, tmp_path, capsys):
    status, figures, lines = score()
    assert status == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html", "metrics.json", "predictions.jsonl", "outcomes.jsonl", "contact_sheet.png",
        "threshold_curves.png", "outcomes.png", "per_class.png",
    }  # fmt: skip
    assert undefined_names(figures) == set()
    page = (tmp_path / "out" / "report.html").read_text()
    assert f'<data value="{figures["miou_box"]}">' in page
    assert f"--output_dir={tmp_path / 'out'}" in page
    for key in KEYS:
        assert isinstance(figures[key], int | float), key
        assert key == "num_images" or 0 <= figures[key] <= 1
    assert figures["num_images"] == figures["num_pairs"] == 6
    assert (figures["map"], figures["threshold"], figures["view"]) == ("mean", 0.5, "crop")
    assert set(figures["other_maps"]) == {"true", "cam"}
    assert figures["miou_mask"] is not None
    assert set(figures["baselines"]) == {"whole_view", "centered_box_oracle"}
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert min(sheet.size) > 200
    assert len(lines) == 6
    for index, line in enumerate(lines):
        assert line["image_id"] == f"val_{index:05d}"
        assert line["size"] == {"height": 80, "width": 80}
        assert line["label"] == shapes.CLASSES[index % 4]
        assert line["class"] in shapes.CLASSES and 0 < line["probability"] <= 1
        assert len(line["box"]) == 4 and min(line["box"]) >= 0 and max(line["box"]) <= 80
        assert 0 <= line["iou"] <= 1
    assert figures["miou_box"] == pytest.approx(np.mean([line["iou"] for line in lines]))
    output = capsys.readouterr().out
    for text in ("GT-known", "CAM of the classifier", "whole view as box", "best centred box"):
        assert text in output


def test_objects_and_classes_as_pixels_are_in_the_files(score, tmp_path, capsys):
    _, figures, _ = score("--min_area=0.1", "--max_objects=2", "--metrics=none")
    for key, kind in (("objects", "mean"), ("detection", "true")):
        found = figures[key]
        assert (found["min_area"], found["max_objects"], found["map"]) == (0.1, 2, kind)
        assert 0 <= found["ap"] <= found["ap50"] <= 1 and 0 <= found["recall"] <= 1
    assert figures["objects"]["num_boxes"] <= 2 * 6
    # The model stores no presence threshold, so that its first class alone is found.
    assert figures["detection"]["presence"] == 1.0
    assert figures["detection"]["num_boxes"] <= 2 * 6
    assert 0 < figures["segmentation"]["given"]["miou"] < 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>Several objects</h2>" in page and "<h2>Classes as pixels</h2>" in page
    assert f'<data value="{figures["segmentation"]["given"]["miou"]}">' in page
    assert "mIoU with the background, classes given" in capsys.readouterr().out


def test_map_threshold_and_view_are_what_was_asked_for(score):
    _, figures, lines = score("--map=cam", "--threshold=0.25", "--view=whole")
    assert (figures["map"], figures["threshold"], figures["view"]) == ("cam", 0.25, "whole")
    assert all(line["map"] == "cam" and line["threshold"] == 0.25 for line in lines)
    # All of the picture is seen, so true boxes come back as they are stored.
    example = shapes.draw(0, size=80, split="val")
    np.testing.assert_allclose(lines[0]["true_boxes"], example.boxes, atol=0.01)
    _, figures, _ = score("--map=topk", "--top_k=6", "--threshold=otsu")
    assert figures["threshold"] == "otsu"
    assert figures["gt_known_loc"] == figures["gt_known_loc_otsu"]
    _, figures, _ = score("--map=topk", "--top_k=6", "--metrics=none")
    # The mean over the top six of six classes is the mean.
    assert figures["miou_box"] == pytest.approx(figures["other_maps"]["mean"]["miou_box"])


def test_one_channel_model_is_scored_beside_cam_alone(voc, tmp_path):
    path = tmp_path / "model.keras"
    tiny_model(shapes.CLASSES, localizer="agnostic").save(path)
    assert run(
        evaluate, f"--model={path}", "--dataset=voc_folder", f"--data_dir={voc}",
        f"--output_dir={tmp_path / 'out'}",
    ) == 0  # fmt: skip
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(figures["other_maps"]) == {"cam"}


def test_scores_do_not_depend_on_batches(score, monkeypatch):
    _, expected, _ = score()
    in_batches = pairs.predict_pairs
    monkeypatch.setattr(
        pairs, "predict_pairs", lambda *a, **k: in_batches(*a, **k | {"batch_size": 4})
    )
    _, figures, _ = score()
    for key in KEYS:
        assert figures[key] == pytest.approx(expected[key]), key


def test_several_processes_write_the_same_files(model_path, tmp_path):
    for workers in (0, 2):
        assert run(
            evaluate, f"--model={model_path}", "--dataset=shapes", "--num_examples=40",
            f"--workers={workers}", f"--output_dir={tmp_path / str(workers)}",
        ) == 0  # fmt: skip
    for name in ("metrics.json", "predictions.jsonl", "contact_sheet.png"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_broken_pictures_are_named_and_skipped(model_path, tmp_path, capsys):
    shapes.write_voc(str(tmp_path / "voc"), 4, size=80, seed=0, split="val")
    whole = tmp_path / "voc" / "JPEGImages" / "val_00001.jpg"
    whole.write_bytes(whole.read_bytes()[:500])
    (tmp_path / "voc" / "JPEGImages" / "val_00002.jpg").unlink()
    out = tmp_path / "out"
    arguments = (f"--model={model_path}", "--dataset=voc_folder", f"--data_dir={tmp_path / 'voc'}")
    assert run(evaluate, *arguments, f"--output_dir={out}") == 0
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["num_images"] == 2
    assert set(figures["skipped"]) == {"val_00001", "val_00002"}
    output = capsys.readouterr().out
    assert "Skipped: 2" in output and "no picture in JPEGImages: val_00002" in output


def test_nothing_readable_is_an_error(model_path, tmp_path, capsys):
    shapes.write_voc(str(tmp_path / "voc"), 2, size=80, seed=0, split="val")
    for path in (tmp_path / "voc" / "JPEGImages").iterdir():
        path.write_bytes(b"")
    arguments = (f"--model={model_path}", "--dataset=voc_folder", f"--data_dir={tmp_path / 'voc'}")
    assert run(evaluate, *arguments, f"--output_dir={tmp_path / 'out'}") == 1
    errors = capsys.readouterr().err
    assert "no picture can be read" in errors and "2 x the file is empty" in errors


def test_image_folder_says_what_localization_needs(model_path, tmp_path, capsys):
    for index in range(4):
        folder = tmp_path / "data" / "val" / shapes.CLASSES[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shapes.draw(index, size=80).image).save(folder / f"{index}.png")
    out = tmp_path / "out"
    assert run(
        evaluate, f"--model={model_path}", "--dataset=image_folder",
        f"--data_dir={tmp_path / 'data'}", f"--output_dir={out}",
    ) == 0  # fmt: skip
    figures = json.loads((out / "metrics.json").read_text())
    assert all(key in figures for key in KEYS)
    assert figures["gt_known_loc"] is None and figures["top1_cls"] is not None
    assert figures["num_images"] == 4
    assert {path.name for path in out.iterdir()} == {
        "report.html", "metrics.json", "predictions.jsonl", "outcomes.jsonl", "contact_sheet.png"
    }  # fmt: skip
    output = capsys.readouterr().out
    assert "no boxes and no masks" in output and "--dataset=voc_folder" in output


def test_keyboard_interrupt_ends_without_a_traceback(score, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "compute_figures", interrupt)
    assert score()[0] == 130
    assert "Interrupted" in capsys.readouterr().err


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argument, sentence",
    [
        ("--threshold=abc", "a number in 0..1, 'stored' or 'otsu'. Received: 'abc'"),
        ("--threshold=1.5", "Received: '1.5'"),
        ("--threshold=nan", "Received: 'nan'"),
        ("--split=test", "Legal splits here: val"),
        ("--data_dir=", "set --data_dir to it"),
        ("--data_dir=/no/such/folder", "is not a folder"),
        ("--output_dir=", "--output_dir is empty"),
        ("--model={tmp}/missing.keras", "is no file"),
        ("--model={tmp}", "is no file"),
        ("--model={tmp}/missing.weights.h5", "Error: --model must be 'imagenet'"),
        ("--model={tmp}/truncated.keras", "is cut off or no .keras file"),
        ("--model={tmp}/text.keras", "is cut off or no .keras file (5 bytes)"),
        ("--model={tmp}/empty.keras", "is cut off or no .keras file (0 bytes)"),
        ("--model={tmp}/other.keras", "is a Sequential, not a Localization"),
        ("--model={tmp}/cats.keras", "None of the classes asked for (tabby, tiger)"),
        ("--model={tmp}/bare.keras", "stores no threshold for map 'mean' (it has: none)"),
        ("--output_dir={tmp}/text.keras", "a file has this name"),
    ],
)
def test_what_cannot_work_is_refused(argument, sentence, score, model_path, tmp_path, capsys):
    (tmp_path / "text.keras").write_text("hello")
    (tmp_path / "empty.keras").touch()
    if "truncated" in argument:
        whole = model_path.read_bytes()
        (tmp_path / "truncated.keras").write_bytes(whole[: len(whole) // 2])
    if "other" in argument:
        other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        other.save(tmp_path / "other.keras")
    if "cats" in argument:
        tiny_model(("tabby", "tiger")).save(tmp_path / "cats.keras")
    if "bare" in argument:
        bare = tiny_model(shapes.CLASSES)
        bare.thresholds = {}
        bare.save(tmp_path / "bare.keras")
    assert score(argument.format(tmp=tmp_path))[0] == 1
    errors = capsys.readouterr().err
    assert errors.startswith("Error: ") and sentence in errors


@pytest.mark.parametrize("argument", ["--map=xyz", "--dataset=vocc", "--view=half", "--top_k=two"])
def test_flags_outside_their_values_are_refused(argument, score):
    with pytest.raises(flags.Error, match=argument.split("=")[0].lstrip("-")):
        score(argument)


def test_empty_split_is_refused(model_path, tmp_path, capsys):
    shapes.write_voc(str(tmp_path / "voc"), 1, size=80, seed=0, split="val")
    (tmp_path / "voc" / "ImageSets" / "Main" / "none.txt").touch()
    arguments = ("--dataset=voc_folder", f"--data_dir={tmp_path / 'voc'}", "--split=none")
    out = f"--output_dir={tmp_path / 'out'}"
    assert run(evaluate, f"--model={model_path}", *arguments, out) == 1
    assert "Split 'none' is empty" in capsys.readouterr().err


def test_a_model_file_with_a_part_missing_is_refused(model_path, tmp_path):
    path = tmp_path / "part.keras"
    with zipfile.ZipFile(model_path) as whole, zipfile.ZipFile(path, "w") as part:
        part.writestr("config.json", whole.read("config.json"))
    with pytest.raises(ValueError, match="can't be loaded"):
        load_model(str(path))


@pytest.mark.parametrize(
    "text, value", [("stored", "stored"), ("otsu", "otsu"), ("0", 0.0), ("1", 1.0), (".35", 0.35)]
)
def test_thresholds_are_read(text, value):
    assert programs.parse_threshold(text) == value


def test_the_command_of_a_run_is_quoted_and_complete(model_path, voc, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(page, "write_report", lambda *_, command, **__: written.append(command))
    out = tmp_path / "a b"
    assert run(
        evaluate, f"--model={model_path}", "--dataset=voc_folder", f"--data_dir={voc}",
        f"--output_dir={out}", "--threshold=otsu",
    ) == 0  # fmt: skip
    command = shlex.split(written[0].replace("\\\n", " "))
    assert command[:3] == ["python", "-m", "wsol_tf.evaluate"]
    assert "--threshold=otsu" in command and f"--output_dir={out}" in command
    assert not any(part.startswith("--seed") for part in command)  # was not given


# --- metrics of wsolevaluation -------------------------------------------------------------------


def test_standard_metrics_are_those_of_the_module(voc, tmp_path, rng):
    source = open_dataset("voc_folder", str(voc), "val")
    boxes, pixels = wsolevaluation.BoxAccuracy(), wsolevaluation.PixelPrecision()
    maps = {}
    for position, image_id in enumerate(source.image_ids):
        example = source.read_example(position)
        coarse = cv2.resize((example.mask > 0).astype(np.float32), (9, 9))
        maps[image_id] = coarse + 0.2 * rng.random((9, 9), np.float32)
        score_map = wsolevaluation.standard_map(maps[image_id])
        true_boxes = example.boxes - [0, 0, 1, 1]  # the last pixels inclusive
        boxes.add(image_id, score_map, wsolevaluation.resize_boxes(true_boxes, (80, 80)))
        mask = transforms.resize(example, 224).mask > 0
        pixels.add(image_id, score_map, mask.astype(np.uint8))
    np.savez(tmp_path / "maps.npz", **maps)
    assert run(
        evaluate, f"--score_maps={tmp_path / 'maps.npz'}", "--dataset=voc_folder",
        f"--data_dir={voc}", f"--output_dir={tmp_path / 'out'}",
    ) == 0  # fmt: skip
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    expected = boxes.result() | pixels.result()
    assert {name: figures[name] for name in wsolevaluation.METRICS} == {
        name: expected[name] for name in wsolevaluation.METRICS
    }
    assert figures["max_box_acc_v2"]["iou_levels"]["0.3"]["accuracy"] > 0.5
    assert set(wsolevaluation.METRICS) <= set(figures["definitions"])


def test_metrics_are_chosen(score, capsys):
    _, figures, _ = score("--metrics=pxap,max_box_acc")
    assert set(figures) & set(wsolevaluation.METRICS) == {"pxap", "max_box_acc"}
    _, figures, _ = score("--metrics=none")
    assert not set(figures) & set(wsolevaluation.METRICS)
    assert score("--metrics=pxap,map")[0] == 1
    assert "Unknown metric 'map'. Legal: max_box_acc," in capsys.readouterr().err


def test_the_crop_moves_boxes_of_whole_pixels():
    view = transforms.View(28, 32, "crop")  # a picture of 64 x 32: scaled by 1/2 and 1, less 2
    inside = [[2.0, 2.0, 6.0, 6.0]]  # edges in the view: pixels 8..15 of 64, 4..7 of 32
    np.testing.assert_array_equal(whole_pixel_boxes(inside, (32, 64), view), [[2, 2, 5, 5]])
    whole = transforms.View(32, 32, "whole")
    np.testing.assert_array_equal(whole_pixel_boxes(inside, (32, 64), whole), [[2, 2, 5, 5]])


def test_pictures_with_a_single_class_stand_beside_the_whole(model_path, tmp_path, capsys):
    shapes.write_voc(str(tmp_path / "voc"), 4, size=80, seed=0, split="val")
    annotation = tmp_path / "voc" / "Annotations" / "val_00000.xml"
    text = annotation.read_text()
    start, end = text.index("<object>"), text.index("</object>") + len("</object>")
    other = text[start:end].replace(shapes.CLASSES[0], shapes.CLASSES[1])
    annotation.write_text(text[:end] + other + text[end:])
    arguments = (
        f"--model={model_path}", "--dataset=voc_folder", f"--data_dir={tmp_path / 'voc'}",
        f"--output_dir={tmp_path / 'out'}", "--metrics=none",
    )  # fmt: skip
    assert run(evaluate, *arguments) == 0
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (figures["num_pairs"], figures["single_class"]["num_pairs"]) == (5, 3)
    assert "3 with a single class" in capsys.readouterr().out
    assert undefined_names(figures) == set()


# --- from code -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, settings",
    [
        ([], {}),
        (
            ["--map=cam", "--threshold=0.25", "--view=whole", "--metrics=pxap"],
            {"map": "cam", "threshold": 0.25, "view": "whole", "metrics": ["pxap"]},
        ),
        (["--map=center", "--metrics=none"], {"map": "center", "metrics": []}),
        (["--map=grad_cam", "--threshold=otsu"], {"map": "grad_cam", "threshold": "otsu"}),
    ],
)
def test_from_code_the_figures_are_those_of_the_command(
    arguments, settings, score, model_path, voc, capsys
):
    status, expected, _ = score(*arguments)
    assert status == 0
    capsys.readouterr()
    model = load_model(str(model_path))
    dataset = open_dataset("voc_folder", str(voc), "val", classes=model.classes)
    figures = evaluation.evaluate(model, dataset, **settings)
    assert capsys.readouterr() == ("", "")
    assert expected.pop("model") and expected.pop("definitions")
    assert json.loads(json.dumps(figures)) == expected
    assert list(figures) == list(expected)


def test_from_code_any_method_and_a_part_of_the_pictures_can_be_scored(voc):
    dataset = open_dataset("voc_folder", str(voc), "val")
    view = transforms.View(64, 73, "whole")
    center = baselines.center_map()
    method = pairs.Method(
        lambda images: {}, view, ("center",), {"center": 0.5}, "given",
        own_maps=lambda batch: {"center": [center] * len(batch)},
    )  # fmt: skip
    figures = evaluation.evaluate(method, dataset, positions=[1, 3], metrics=["max_box_acc"])
    assert (figures["map"], figures["threshold"], figures["view"]) == ("center", 0.5, "whole")
    assert figures["num_images"] == 2 and figures["max_box_acc"]["value"] is not None
    with pytest.raises(ValueError, match="A Method has its own map.*Received: map='cam'"):
        evaluation.evaluate(method, dataset, map="cam")


def test_from_code_what_cannot_be_scored_is_refused(model_path, voc):
    model = load_model(str(model_path))
    dataset = open_dataset("voc_folder", str(voc), "val", classes=model.classes)
    with pytest.raises(
        ValueError, match="Unknown metric 'map'. Legal: max_box_acc, max_box_acc_v2"
    ):
        evaluation.evaluate(model, dataset, metrics=["map"])
    model.thresholds = {}
    with pytest.raises(ValueError, match="stores no threshold.*Pass `threshold=otsu`"):
        evaluation.evaluate(model, dataset)
    with pytest.raises(TypeError, match="scores a Localization or a Method.*Received: Sequential"):
        evaluation.evaluate(keras.Sequential(), dataset)


# --- files that vanish, and that are none --------------------------------------------------------


@pytest.mark.parametrize("left", [3, 0])
def test_pictures_that_vanish_before_they_are_drawn_end_nothing(
    model_path, tmp_path, capsys, monkeypatch, left
):
    """A network drive that is gone after scoring: the figures are there, the tiles are not."""
    shapes.write_voc(str(tmp_path / "voc"), 6, size=80, seed=0, split="val")
    pictures = sorted((tmp_path / "voc" / "JPEGImages").iterdir())
    draw = evaluate.contact_sheets.draw_tiles

    def lose_pictures(*arguments):
        for path in pictures[left:]:
            path.unlink()
        return draw(*arguments)

    monkeypatch.setattr(evaluate.contact_sheets, "draw_tiles", lose_pictures)
    out = tmp_path / "out"
    arguments = (f"--model={model_path}", "--dataset=voc_folder", f"--data_dir={tmp_path / 'voc'}",
                 "--on_bad_image=fail", f"--output_dir={out}")  # fmt: skip
    assert run(evaluate, *arguments) == 0
    said = capsys.readouterr()
    gone = ", ".join(path.stem for path in pictures[left:])
    assert f"Left out of the contact sheet, can't be read any more: {gone}." in said.err
    assert json.loads((out / "metrics.json").read_text())["num_images"] == 6
    assert (out / "report.html").exists()
    assert (out / "contact_sheet.png").exists() == bool(left)
    assert ("contact_sheet.png" in said.out) == bool(left)


def test_ten_crops_of_a_picture_that_vanishes(model_path, tmp_path, monkeypatch):
    shapes.write_voc(str(tmp_path / "voc"), 3, size=80, seed=0, split="val")
    source = open_dataset("voc_folder", tmp_path / "voc", "val")
    method = method_of(load_model(model_path), ten_crop=True)
    whole = pairs._whole_picture

    def vanished(source, position, example):
        next((tmp_path / "voc" / "JPEGImages").glob(f"{example.image_id}.*")).unlink()
        return whole(source, position, example)

    monkeypatch.setattr(pairs, "_whole_picture", vanished)
    found = list(method.pairs(source, range(3)))
    assert len(found) == 3 and all(np.isfinite(pair.logits).all() for pair in found)
