import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers import add_picture, tiny_model
from wsol_tf.data import transforms
from wsol_tf.data.batches import evaluation_batches
from wsol_tf.data.example import make_example
from wsol_tf.data.registry import open_dataset
from wsol_tf.evaluation import suggestion
from wsol_tf.evaluation.localized_map import LocalizedMap
from wsol_tf.evaluation.methods import method_of
from wsol_tf.evaluation.pairs import Method, predict_pairs
from wsol_tf.evaluation.score import choose_thresholds, compute_figures
from wsol_tf.evaluation.score import score as score_method
from wsol_tf.evaluation.scores import accumulate, prediction
from wsol_tf.model import refinement, score_maps
from wsol_tf.model.score_maps import PLAIN, WHOLE, map_of
from wsol_tf.report import contact_sheets, terminal


def colours_are_maps(logits):
    """A predictor that gives each class the colour channel of its number as map."""

    def predict(images):
        maps = images.astype(np.float32) / 255
        logit_rows = np.tile(np.float32(logits), (len(images), 1))
        return {"logits": logit_rows, "score_map": maps, "localization_map": maps}

    return predict


def whole_view_method(predict, kind="true"):
    view = transforms.View(32, 32, "whole")
    return Method(predict, view, (kind,), {kind: 0.5}, "given")


def score(predict, source, kind="true", *, view=None, thresholds=None):
    """(figures, lines, pairs) of one kind of map and CAM, at threshold 0.5 unless told."""
    view = view or transforms.View(32, 32, "whole")
    kinds = list(dict.fromkeys([kind, "cam"]))
    thresholds = thresholds or {name: 0.5 for name in kinds}
    found = list(
        predict_pairs(predict, source, range(len(source)), kinds=kinds, view=view, batch_size=2)
    )
    accumulators = accumulate(found, kinds, thresholds=thresholds.values())
    figures = compute_figures(accumulators, kind, thresholds, source.classes)
    measured = accumulators[kind].thresholds
    localized = [LocalizedMap(pair, kind, thresholds[kind], measured) for pair in found]
    lines = [prediction(each, view, source.classes) for each in localized]
    json.dumps([figures, lines], allow_nan=False)
    return figures, lines, found


# --- the view ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, box, height, width, expected",
    [
        # Resized to 256, cropped at 16: the crop is 16..240 of 256, here 2 and 1/2 pixels each.
        ("crop", (0, 0, 224, 224), 128, 512, (32, 8, 480, 120)),
        ("crop", (112, 0, 224, 112), 128, 512, (256, 8, 480, 64)),
        ("whole", (56, 0, 112, 224), 200, 300, (75, 0, 150, 200)),
        ("whole", (0, 0, 224, 224), 200, 300, (0, 0, 300, 200)),
        ("whole", (-10, -10, 300, 300), 200, 300, (0, 0, 300, 200)),
        ("crop", (-99, 0, 999, 224), 256, 256, (0, 16, 256, 240)),
    ],
)
def test_boxes_of_a_view_in_the_picture_by_hand(kind, box, height, width, expected):
    found = transforms.View(224, 256, kind).to_picture(box, height, width)
    np.testing.assert_allclose(found, expected)


@given(
    height=st.integers(30, 90),
    width=st.integers(30, 90),
    sizes=st.sampled_from([(64, 73), (64, 64), (32, 50)]),
    kind=st.sampled_from(["crop", "whole"]),
)
def test_to_picture_undoes_what_the_pipeline_does(height, width, sizes, kind):
    box = [width * 0.4, height * 0.3, width * 0.6, height * 0.7]
    example = make_example(np.zeros((height, width, 3)), [0], [box], [0])
    input_size, resize_size = sizes
    if kind == "crop":
        seen = transforms.center_crop(transforms.resize(example, resize_size), input_size)
    else:
        seen = transforms.resize(example, input_size)
    found = transforms.View(input_size, resize_size, kind).to_picture(seen.boxes[0], height, width)
    np.testing.assert_allclose(found, box, atol=1e-3)


# --- kinds of map --------------------------------------------------------------------------------


def kinds_of_map(channels=4, **options):
    """One position per map: channel c of the localizer is c + 1, of the score map 10 * (c + 1)."""
    localization = np.arange(1.0, channels + 1).reshape(1, 1, channels)
    score_map = 10 * np.arange(1.0, 5).reshape(1, 1, 4)
    logits = np.array([0.0, 3.0, 1.0, 2.0])
    options = {"label": 2, "top_k": 2} | options
    return {
        kind: map_of(kind, localization, score_map, logits, **options).item()
        for kind in ("true", "predicted", "mean", "topk", "cam")
    }


def test_each_kind_of_map_by_hand():
    # Logits rank the classes 1, 3, 2, 0.
    assert kinds_of_map() == {"true": 3, "predicted": 2, "mean": 2.5, "topk": 3, "cam": 30}
    assert kinds_of_map(top_k=99)["topk"] == 2.5


def test_classes_that_are_not_allowed_are_not_predicted():
    allowed = np.array([True, False, True, True])
    found = kinds_of_map(allowed=allowed)
    assert found == {"true": 3, "predicted": 4, "mean": 2.5, "topk": 3.5, "cam": 30}


def test_one_channel_is_every_map_but_cam():
    found = kinds_of_map(channels=1)
    assert found == {"true": 1, "predicted": 1, "mean": 1, "topk": 1, "cam": 30}


def test_unknown_kind_of_map_is_refused():
    with pytest.raises(ValueError, match="Unknown map 'xyz'. Legal: true, predicted, mean"):
        map_of("xyz", np.zeros((1, 1, 2)), np.zeros((1, 1, 2)), np.zeros(2), 0)


# --- drawn pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind_of_view", ["whole", "crop"])
def test_true_masks_as_maps_score_one_and_inverted_ones_zero(kind_of_view):
    source = open_dataset("shapes", "", "val", image_size=73, num_examples=12)
    view = transforms.View(64, 73, kind_of_view)
    (truth,) = evaluation_batches(source, range(12), view, 12)
    mask_of = {example.image.tobytes(): example.mask for example in truth}

    def predictor(invert):
        def predict(images):
            masks = np.stack([mask_of[image.tobytes()] for image in images])
            maps = (masks[..., None] == 1 + np.arange(len(source.classes))).astype(np.float32)
            maps = 1 - maps if invert else maps
            logits = maps.mean((1, 2)) * (-1 if invert else 1)
            return {"logits": logits, "score_map": maps, "localization_map": maps}

        return predict

    figures, lines, _ = score(predictor(False), source, view=view)
    assert figures["num_images"] == figures["num_pairs"] == 12
    for name in ("gt_known_loc", "top1_loc", "top5_loc", "top1_cls", "gt_known_loc_oracle"):
        assert figures[name] == 1.0, name
    assert figures["miou_mask"] == 1.0
    assert figures["gt_known_loc_otsu"] == 1.0
    assert figures["miou_box"] > 0.9
    assert figures["other_maps"]["cam"]["gt_known_loc"] == 1.0
    for line in lines:
        assert line["class"] == line["label"]
        assert line["size"] == {"height": 73, "width": 73}
        one_object = len(line["true_boxes"]) == 1
        if one_object and kind_of_view == "whole":
            np.testing.assert_allclose(line["box"], line["true_boxes"][0], atol=2)

    figures, _, _ = score(predictor(True), source, view=view)
    assert figures["gt_known_loc"] == figures["top1_loc"] == 0.0
    assert figures["miou_mask"] == 0.0
    assert figures["top1_cls"] == 1.0


def test_maps_of_the_localizer_are_refined_by_what_the_network_sees(multi_label):
    kinds = ["true", "predicted", "cam", PLAIN]
    options = {"kinds": kinds, "view": transforms.View(32, 32, "whole")}
    predict = colours_are_maps((3, 2, 1))
    unrefined = predict_pairs(predict, multi_label, range(2), **options)
    refined = predict_pairs(predict, multi_label, range(2), refine="guided", **options)
    for before, after in zip(unrefined, refined, strict=True):
        for kind in ("true", "predicted"):
            expected = refinement.refine(before.maps[kind], before.image)
            np.testing.assert_array_equal(after.maps[kind], expected)
        np.testing.assert_array_equal(after.maps["cam"], before.maps["cam"])
        np.testing.assert_array_equal(after.maps[PLAIN], before.maps["true"])


def test_maps_that_are_given_are_not_refined(multi_label):
    given = np.random.default_rng(0).random((7, 7))
    (pair, *_) = predict_pairs(
        colours_are_maps((3, 2, 1)), multi_label, range(1), kinds=["stored"], refine="guided",
        view=transforms.View(32, 32, "whole"), own_maps=lambda batch: {"stored": [given]},
    )  # fmt: skip
    np.testing.assert_array_equal(pair.maps["stored"], given)


def test_progress_counts_pictures():
    source = open_dataset("shapes", "", "val", image_size=32, num_examples=5)
    seen = []
    view = transforms.View(32, 32, "whole")

    def predict(images):
        maps = np.zeros((len(images), 4, 4, len(source.classes)), np.float32)
        return {"logits": maps[:, 0, 0], "score_map": maps, "localization_map": maps}

    options = {"kinds": ["mean"], "view": view, "batch_size": 2, "progress": seen.append}
    assert len(list(predict_pairs(predict, source, [4, 0, 2], **options))) == 3
    assert seen == [2, 3]
    ids = [pair.image_id for pair in predict_pairs(predict, source, [4, 0, 2], **options)]
    assert ids == [source.image_ids[i] for i in (4, 0, 2)]


# --- several classes in a picture ----------------------------------------------------------------


@pytest.fixture
def multi_label(tmp_path):
    """A wide picture with a cat and a dog, a tall one with a fox."""
    two = [("cat", (0, 0, 20, 15)), ("dog", (30, 15, 60, 30))]
    add_picture(tmp_path, "both", two, size=(60, 30))
    add_picture(tmp_path, "alone", [("fox", (10, 20, 30, 60))], size=(40, 80))
    return open_dataset("voc_folder", tmp_path, "val")


def test_pairs_of_a_multi_label_folder(multi_label):
    figures, lines, found = score(colours_are_maps([5, 1, 0]), multi_label)
    assert [(pair.image_id, pair.label) for pair in found] == [
        ("both", 0), ("both", 1), ("alone", 2)
    ]  # fmt: skip
    assert [pair.position for pair in found] == [0, 0, 1]
    assert [pair.size for pair in found] == [(30, 60), (30, 60), (80, 40)]
    assert found[0].allowed.tolist() == [True, False, True]
    assert found[1].allowed.tolist() == [False, True, True]
    # The cat is the first choice everywhere, but beside the dog it is no rival.
    assert [line["class"] for line in lines] == ["cat", "dog", "cat"]
    assert (figures["num_images"], figures["num_pairs"]) == (2, 3)
    assert figures["top1_cls"] == pytest.approx(2 / 3)
    assert figures["gt_known_loc"] == 1.0
    assert figures["top1_loc"] == pytest.approx(2 / 3)
    assert figures["per_class"]["classes"]["fox"]["top1_loc"] == 0.0
    expected = np.exp([1.0, 0.0])
    assert lines[1]["probability"] == pytest.approx(expected[0] / expected.sum())


def test_predicted_map_is_of_an_allowed_class(multi_label):
    figures, lines, _ = score(colours_are_maps([5, 1, 0]), multi_label, "predicted")
    # Of "alone" the cat's map is looked at; it is black, so the box is the whole picture.
    assert [line["iou"] >= 0.5 for line in lines] == [True, True, False]
    assert lines[2]["box"] == [0, 0, 40, 80]
    assert figures["gt_known_loc"] == pytest.approx(2 / 3)


def test_predicted_and_true_boxes_are_in_pixels_of_the_picture(multi_label):
    _, lines, _ = score(colours_are_maps([0, 0, 9]), multi_label)
    assert [line["true_boxes"] for line in lines] == [
        [[0, 0, 20, 15]], [[30, 15, 60, 30]], [[10, 20, 30, 60]]
    ]  # fmt: skip
    for line in lines:
        # One position of the view is 60 / 32 and 80 / 32 pixels.
        np.testing.assert_allclose(line["box"], line["true_boxes"][0], atol=2.6)
        assert line["size"] == (
            {"height": 80, "width": 40} if line["image_id"] == "alone"
            else {"height": 30, "width": 60}
        )  # fmt: skip


def test_best_of_several_boxes_of_the_class_counts(tmp_path):
    objects = [("cat", (0, 0, 10, 10)), ("cat", (20, 10, 40, 30))]
    add_picture(tmp_path, "two_cats", objects)
    source = open_dataset("voc_folder", tmp_path, "val")
    figures, lines, _ = score(colours_are_maps([1, 0, 0]), source)
    assert figures["num_pairs"] == 1
    assert len(lines[0]["true_boxes"]) == 2
    assert lines[0]["iou"] > 0.8 and figures["gt_known_loc"] == 1.0


# --- reports -------------------------------------------------------------------------------------


def test_report_and_table_with_boxes(multi_label):
    figures, lines, _ = score(colours_are_maps([5, 1, 0]), multi_label)
    text = terminal.figures_table(figures)
    assert "2 pictures, 3 pairs" in text
    assert "Top-1 Cls 0.667" in text
    for row in ("localizer, true class", "CAM of the classifier", "whole view as box",
                "best centred box"):  # fmt: skip
        assert row in text
    whole = figures["baselines"]["whole_view"]
    # Boxes cover 1/6, 1/4 and 1/4 of their pictures.
    assert whole["gt_known_loc"] == 0.0
    assert whole["miou_box"] == pytest.approx(2 / 9, abs=0.01)
    assert figures["other_maps"]["cam"]["gt_known_loc"] == 1.0
    assert figures["map"] == "true"
    assert contact_sheets.best_median_worst(lines) == {
        "all, best first": sorted(lines, key=lambda line: -line["iou"])
    }


def test_report_with_masks_and_no_boxes(tmp_path):
    mask = np.zeros((30, 40), np.uint8)
    mask[10:20, 10:30] = 1
    add_picture(tmp_path, "masked", [("cat", None)], mask=mask)
    source = open_dataset("voc_folder", tmp_path, "val")
    assert (source.has_boxes, source.has_masks) == (False, True)

    def predict(images):
        maps = np.zeros((len(images), 30, 40, 3), np.float32)
        maps[:, 10:20, 10:20, 0] = 1  # half of the object
        return {"logits": maps.mean((1, 2)), "score_map": maps, "localization_map": maps}

    figures, lines, _ = score(predict, source)
    assert figures["gt_known_loc"] is None and figures["miou_box"] is None
    assert figures["miou_mask"] == pytest.approx(0.5, abs=0.04)
    assert figures["top1_cls"] == 1.0
    assert "No boxes" in terminal.figures_table(figures) and "Mask mIoU" in terminal.figures_table(
        figures
    )
    assert "iou" not in lines[0] and "true_boxes" not in lines[0]


def test_other_classes_of_a_mask_are_background_and_ignored_stays(tmp_path):
    mask = np.zeros((30, 40), np.uint8)
    mask[:10], mask[10:20], mask[20:25] = 1, 2, 255
    add_picture(tmp_path, "masked", [("cat", (0, 0, 40, 10)), ("dog", (0, 10, 40, 20))], mask=mask)
    source = open_dataset("voc_folder", tmp_path, "val")
    view = transforms.View(40, 40, "whole")
    found = list(predict_pairs(colours_are_maps([1, 0, 0]), source, [0], kinds=["true"], view=view))
    for pair, value in zip(found, (1, 2), strict=True):
        assert np.mean(pair.mask == 1) == pytest.approx(np.mean(mask == value), abs=0.04)
        assert np.mean(pair.mask == 255) == pytest.approx(np.mean(mask == 255), abs=0.04)
        assert pair.mask.shape == pair.image.shape[:2]


@pytest.fixture
def bare(tmp_path):
    """Pictures in class folders: no boxes, no masks."""
    for name in ("cat", "dog"):
        (tmp_path / "bare" / name).mkdir(parents=True)
        Image.new("RGB", (50, 40), "red").save(tmp_path / "bare" / name / "a.png")
    return open_dataset("image_folder", tmp_path / "bare", "train")


def test_report_without_boxes_and_masks(bare):
    figures, lines, _ = score(colours_are_maps([1, 0]), bare)
    assert figures["gt_known_loc"] is None and figures["miou_mask"] is None
    assert figures["oracle_threshold"] is None
    assert figures["top1_cls"] == 0.5
    assert "No boxes: localization can't be scored." in terminal.figures_table(figures)
    assert [line["image_id"] for line in lines] == ["cat/a.png", "dog/a.png"]
    assert contact_sheets.best_median_worst(lines) == {"": lines}


@pytest.mark.parametrize("name", ["multi_label", "bare"])
def test_sheet_shows_every_picture(name, request):
    source = request.getfixturevalue(name)
    predict = colours_are_maps([5, 1, 0][: len(source.classes)])
    _, lines, _ = score(predict, source)
    tiles = contact_sheets.draw(whole_view_method(predict), source, {"all": lines})
    assert [text for _, text in tiles["all"]] == [contact_sheets.caption(line) for line in lines]
    sheet = contact_sheets.contact_sheet_of(tiles, "drawn")
    assert sheet.dtype == np.uint8 and sheet.ndim == 3
    fewer = contact_sheets.contact_sheet_of({"all": tiles["all"][:1]}, "drawn")
    assert sheet.shape[1] > fewer.shape[1]  # a tile more in the row


def test_outcomes_of_the_lines_add_up_to_those_of_the_figures(multi_label):
    figures, lines, _ = score(colours_are_maps([5, 1, 0]), multi_label)
    for outcome, count in figures["outcomes"].items():
        assert sum(line["outcome"] == outcome for line in lines) == count


# --- thresholds and bad maps ---------------------------------------------------------------------


def test_thresholds_come_from_boxes_or_from_maps(multi_label, bare):
    for source, logits, rule in (
        (multi_label, [5, 1, 0], "boxes"),
        (multi_label, [5, 1, 0], "maps"),
        (bare, [1, 0], "maps"),
    ):
        view = transforms.View(32, 32, "whole")
        predict = colours_are_maps(logits)
        found = predict_pairs(predict, source, range(2), kinds=["true", "cam"], view=view)
        accumulators = accumulate(found, ["true", "cam"])
        thresholds = choose_thresholds(accumulators, rule)
        assert thresholds.keys() == {"true", "cam"}
        assert all(0 < value < 1 for value in thresholds.values())
    with pytest.raises(ValueError, match="none of the pictures has one"):
        choose_thresholds(accumulators, "boxes")


def test_the_threshold_of_a_cam_does_not_go_by_itself(bare):
    """The other maps are judged by the class's activation; a CAM is that activation."""
    view = transforms.View(32, 32, "whole")
    predict = colours_are_maps([1, 0])
    kinds = ["true", "cam"]
    pairs = list(predict_pairs(predict, bare, range(2), kinds=kinds, view=view))
    for pair in pairs:
        np.testing.assert_array_equal(pair.activation, np.maximum(pair.maps["cam"], 0))
    with_activation = accumulate(pairs, kinds)
    without = [dataclasses.replace(pair, activation=None) for pair in pairs]
    chosen = choose_thresholds(with_activation, "maps")
    own = choose_thresholds(accumulate(without, kinds), "maps")
    assert chosen["cam"] == own["cam"] == own["true"]  # here the maps are the same
    expected = [
        suggestion.suggested_threshold(
            score_maps.resize(score_maps.normalize(pair.maps["true"]), 32, 32),
            pair.activation,
            suggestion.colours_of(pair.image),
        )
        for pair in pairs
    ]
    assert chosen["true"] == pytest.approx(np.median(expected), abs=0.006)


def test_maps_and_scores_that_are_no_numbers_are_named(multi_label):
    good = colours_are_maps([5, 1, 0])

    def predict(images):
        outputs = good(images)
        broken = images[..., 2].any((1, 2))  # the picture with the fox
        outputs["localization_map"] = outputs["localization_map"].copy()
        outputs["localization_map"][broken, 0, 0] = np.nan
        outputs["logits"][broken] = np.inf
        return outputs

    figures, lines, _ = score(predict, multi_label)
    assert figures["bad_maps"] == figures["bad_scores"] == ["alone"]
    assert figures["gt_known_loc"] == pytest.approx(2 / 3)
    assert figures["other_maps"]["cam"]["gt_known_loc"] == 1.0
    assert lines[2]["iou"] == 0.0 and lines[2]["probability"] is None
    text = terminal.figures_table(figures)
    assert "or NaN or infinity in it, in 1 picture, counted as wrong: alone" in text
    assert "or NaN or infinity in them, in 1 picture, counted as wrong: alone" in text
    assert lines[2]["outcome"] == "missed" and figures["outcomes"]["missed"] == 1
    assert contact_sheets.draw(whole_view_method(predict), multi_label, {"": lines})[""][2][0].any()


def test_ten_crops_give_the_class_and_the_view_the_map(multi_label):
    # The logits are the mean colours; the map is the red channel.
    def predict(images):
        images = images.astype(np.float32)
        return {"logits": images.mean((1, 2)) / 32, "localization_map": images[..., :1]}

    view = transforms.View(16, 32, "crop")
    options = {"kinds": ["true"], "view": view}
    single = list(predict_pairs(predict, multi_label, range(2), **options))
    ten = list(predict_pairs(predict, multi_label, range(2), ten_crop=True, **options))
    for one, several in zip(single, ten, strict=True):
        np.testing.assert_array_equal(one.maps["true"], several.maps["true"])
        image = transforms.resize_image(multi_label.read_image(one.position), 32)
        probabilities = []
        for top, left in ((0, 0), (0, 16), (16, 0), (16, 16), (8, 8)):
            logits = image[top : top + 16, left : left + 16].astype(np.float64).mean((0, 1)) / 32
            probabilities.append(np.exp(logits) / np.exp(logits).sum())
        # A mirrored crop has the same mean.
        np.testing.assert_allclose(np.exp(several.logits), np.mean(probabilities, 0), rtol=1e-4)
        assert not np.allclose(one.logits - one.logits[0], several.logits - several.logits[0])


# --- refined maps --------------------------------------------------------------------------------


def test_a_model_that_refines_is_scored_beside_its_plain_maps(multi_label):
    model = tiny_model(multi_label.classes, refine="guided")
    model.thresholds[PLAIN] = 0.3
    method = method_of(model)
    assert method.kinds[:2] == ("mean", PLAIN) and method.refine == "guided"
    figures, _, _ = score_method(method, multi_label)
    assert figures["other_maps"][PLAIN]["threshold"] == 0.3
    assert "the same, not refined" in terminal.figures_table(figures)
    # CAM is never refined, so there is nothing to stand beside it.
    assert PLAIN not in method_of(model, kind="cam").kinds
    model.refine = "none"
    assert PLAIN not in method_of(model).kinds


def test_a_model_that_takes_objects_apart_is_scored_beside_its_components(multi_label):
    model = tiny_model(multi_label.classes, separate=True, refine="guided")
    model.thresholds[PLAIN] = 0.3
    method = method_of(model)
    assert method.kinds[:3] == ("mean", WHOLE, PLAIN) and method.thresholds[WHOLE] == 0.5
    assert method.separated_kinds == ("mean", "true")
    figures, _, _ = score_method(method, multi_label)
    assert "the same, not separated" in terminal.figures_table(figures)
    assert figures["other_maps"][WHOLE]["gt_known_loc_oracle"] == figures["gt_known_loc_oracle"]
    assert WHOLE not in method_of(model, kind="cam").kinds
    model.separate = False
    assert WHOLE not in method_of(model).kinds and not method_of(model).separated_kinds
