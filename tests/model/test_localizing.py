"""`localize` and `localize_batch`: from pictures of any size to what is in them."""

import keras
import numpy as np
import pytest

import wsol_tf
from helpers import CLASSES, toy, varied
from wsol_tf.data.transforms import resize_image
from wsol_tf.model import finding, frozen, refinement, score_maps

SIZES = ((50, 40), (32, 32), (17, 90), (64, 200))


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(4)
    return [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in SIZES]


@pytest.fixture(scope="module")
def model():
    made = varied(toy(thresholds={"mean": 0.4, "predicted": 0.3, "cam": 0.6, "topk": 0.5}))
    made.top_k = 2
    return made


def assert_found(found, expected):
    for name in ("score_map", "mask", "box", "boxes", "scores", "areas"):
        got = getattr(found, name)
        np.testing.assert_array_equal(got, getattr(expected, name), err_msg=name)
        assert got.dtype == getattr(expected, name).dtype
    assert (found.class_name, found.probability) == (expected.class_name, expected.probability)


def by_hand(model, image, kind, threshold):
    """What predict did with a picture, step by step."""
    batch = resize_image(image, model.input_size)[None]
    outputs = {name: np.asarray(v)[0] for name, v in model.predict_on_batch(batch).items()}
    logits = outputs["logits"].astype(np.float64)
    best = int(logits.argmax())
    small = score_maps.map_of(
        kind, outputs["localization_map"], outputs["score_map"], logits, best, top_k=model.top_k
    )
    exponents = np.exp(logits - logits.max())
    score_map, mask, box = score_maps.localize(small, *image.shape[:2], threshold)
    return finding.Found(
        score_map,
        mask,
        *score_maps.components(mask, score_map),
        box,
        model.classes[best],
        float(exponents[best] / exponents.sum()),
    )


@pytest.mark.parametrize("kind", ["mean", "predicted", "topk", "cam"])
def test_it_is_what_predict_finds_to_the_bit(model, pictures, kind):
    for image in pictures:
        found = model.localize(image, map=kind)
        assert_found(found, by_hand(model, image, kind, model.thresholds[kind]))
        assert found.score_map.shape == found.mask.shape == image.shape[:2]
        assert 0 < found.mask.mean() < 1, "a mask of everything or nothing proves nothing"
        assert found.class_name in CLASSES and 1 / 3 <= found.probability <= 1
        np.testing.assert_array_equal(found.box, found.boxes[0])
        assert found.areas.sum() == found.mask.sum() and found.others == ()
    assert isinstance(found, wsol_tf.Found)


def test_without_arguments_it_is_the_models_map_at_the_stored_threshold(model, pictures):
    assert_found(model.localize(pictures[0]), by_hand(model, pictures[0], "mean", 0.4))
    given = model.localize(pictures[0], threshold="otsu")
    assert_found(given, by_hand(model, pictures[0], "mean", "otsu"))
    assert model.localize(pictures[0], threshold=0.9).mask.sum() < given.mask.sum()


def test_small_objects_and_those_beyond_the_number_are_left_out(model, pictures):
    image = np.repeat(pictures[3], 2, axis=0)
    everything = model.localize(image, threshold=0.7)
    assert len(everything.boxes) > 3
    share, of = everything.areas[2] / everything.areas[0], everything.mask.size
    for found, count in (
        (model.localize(image, threshold=0.7, min_area=0.999 * share), 3),
        (model.localize(image, threshold=0.7, max_objects=2), 2),
        (model.localize(image, threshold=0.7, min_area=1.0), 1),
        (model.localize(image, threshold=0.7, min_picture_area=everything.areas[1] / of), 2),
    ):
        for name in ("boxes", "scores", "areas"):
            np.testing.assert_array_equal(getattr(found, name), getattr(everything, name)[:count])
        np.testing.assert_array_equal(found.mask, everything.mask)
        np.testing.assert_array_equal(found.box, everything.box)
    found = model.localize(image, threshold=0.7, min_picture_area=1.5 * everything.areas[0] / of)
    assert found.box is None and len(found.boxes) == 0
    np.testing.assert_array_equal(found.mask, everything.mask)
    empty = model.localize(image, threshold=1.0)  # BAS's rule is for what no limit leaves out
    assert empty.box.tolist() == [0, 0, image.shape[1], image.shape[0]]
    assert model.localize(image, threshold=1.0, min_picture_area=0.001).box is None


@pytest.mark.parametrize("kind", [None, "predicted", "cam"])
def test_each_class_present_has_a_map_of_its_own(model, pictures, kind):
    own = kind or "predicted"  # the model's is "mean", which no class has for itself
    for image in pictures:
        outputs = model.predict_on_batch(resize_image(image, model.input_size)[None])
        logits = np.asarray(outputs["logits"])[0]
        maps = np.asarray(outputs["score_map" if kind == "cam" else "localization_map"])[0]
        found = model.localize(image, map=kind, classes=0.0)
        assert_found(found, by_hand(model, image, own, model.thresholds[own]))
        parts = (found, *found.others)
        order = np.argsort(-logits)
        assert [part.class_name for part in parts] == [CLASSES[label] for label in order]
        assert sum(part.probability for part in parts) == pytest.approx(1)
        for part, label in zip(parts, order, strict=True):
            score_map, mask, box = score_maps.localize(
                maps[..., label], *image.shape[:2], model.thresholds[own]
            )
            np.testing.assert_array_equal(part.score_map, score_map)
            np.testing.assert_array_equal(part.mask, mask)
            np.testing.assert_array_equal(part.box, box)
        second = parts[1].probability
        assert len(model.localize(image, map=kind, classes=second).others) == 1
        assert model.localize(image, map=kind, classes=1.0).others == ()


def test_the_presence_threshold_is_the_models_and_saved_with_it(pictures, tmp_path):
    model = varied(toy(thresholds={"predicted": 0.4}, presence_threshold=0.0))
    expected = model.localize(pictures[0], classes="present")
    assert len(expected.others) == len(CLASSES) - 1
    model.save(tmp_path / "model.keras")
    loaded = wsol_tf.load(tmp_path / "model.keras")
    assert loaded.presence_threshold == 0.0
    found = loaded.localize(pictures[0], classes="present", max_objects=1)
    for part, other in zip(found.others, expected.others, strict=True):
        assert part.class_name == other.class_name and len(part.boxes) == 1
        np.testing.assert_array_equal(part.mask, other.mask)
    with pytest.raises(ValueError, match="`presence_threshold` must be a number in 0..1. Rec"):
        toy(presence_threshold="high")


def test_a_localizer_of_all_classes_has_only_its_cam_for_one(pictures):
    model = varied(toy(channels=1, thresholds={"mean": 0.4, "cam": 0.4}))
    with pytest.raises(ValueError, match="Pass `map=predicted` .*Received: 'predicted', and a loc"):
        model.localize(pictures[0], classes=0.1)
    assert len(model.localize(pictures[0], classes=0.0, map="cam").others) == len(CLASSES) - 1


def test_nobody_knows_the_true_class_here(model, pictures):
    assert_found(
        model.localize(pictures[0], map="true"), model.localize(pictures[0], map="predicted")
    )


def test_top_k_can_be_given(model, pictures):
    one = model.localize(pictures[0], map="topk", threshold=0.3, top_k=1)
    assert_found(one, model.localize(pictures[0], map="predicted"))


def test_a_batch_gives_each_picture_its_own_in_their_order(model, pictures):
    for images in (pictures, np.stack([pictures[1], pictures[1][::-1]])):
        found = model.localize_batch(images)
        assert len(found) == len(images)
        for each, image in zip(found, images, strict=True):
            alone = model.localize(image)
            assert each.class_name == alone.class_name
            assert each.probability == pytest.approx(alone.probability, rel=1e-5)
            np.testing.assert_allclose(each.score_map, alone.score_map, atol=1e-5)
            np.testing.assert_array_equal(each.box, alone.box)
    small = model.localize_batch(pictures, batch_size=3)
    assert [x.mask.shape for x in small] == [image.shape[:2] for image in pictures]
    assert model.localize_batch([]) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("cat.png", "A picture is a numpy array. Received: str."),
        (np.zeros((4, 4, 3)), r"uint8 \[height, width, 3\].*Received: float64 \[4, 4, 3\]."),
        (np.zeros((4, 4), np.uint8), r"Received: uint8 \[4, 4\]."),
        (np.zeros((4, 4, 4), np.uint8), r"Received: uint8 \[4, 4, 4\]."),
        (np.zeros((1, 4, 4, 3), np.uint8), r"Received: uint8 \[1, 4, 4, 3\]."),
        (np.zeros((0, 4, 3), np.uint8), r"Received: uint8 \[0, 4, 3\]."),
    ],
)
def test_what_is_no_picture_is_refused(model, image, message):
    with pytest.raises(ValueError, match=message):
        model.localize(image)
    with pytest.raises(ValueError, match=message):
        model.localize_batch([np.zeros((4, 4, 3), np.uint8), image])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"map": "best"}, "Unknown map 'best'. Legal: true, predicted, mean, topk, cam."),
        ({"threshold": 1.5}, "`threshold` must be in 0..1 or 'otsu'. Received: 1.5."),
        ({"threshold": float("nan")}, "Received: nan."),
        ({"threshold": "stored"}, "Received: 'stored'."),
        ({"min_area": 1.5}, "`min_area` must be a share in 0..1. Received: 1.5."),
        ({"min_area": float("nan")}, "Received: nan."),
        ({"min_picture_area": -0.1}, "`min_picture_area` must be a share in 0..1. Received: -0.1."),
        ({"max_objects": -1}, "`max_objects` must be a whole number, at least 0.*Received: -1."),
        ({"max_objects": 1.5}, "Received: 1.5."),
        ({"classes": "present"}, "stores no presence threshold.*`classes=0.2`"),
        ({"classes": "all"}, "'predicted', 'present' or a probability in 0..1. Received: 'all'."),
        ({"classes": 2}, "Received: 2."),
        ({"classes": 0.5, "map": "mean"}, "in one map per class.*Received: 'mean', and a local"),
    ],
)
def test_what_cant_be_asked_for_is_refused(model, pictures, keywords, message):
    with pytest.raises(ValueError, match=message):
        model.localize(pictures[0], **keywords)


def test_without_a_stored_threshold_one_must_be_given(pictures):
    model = toy()
    with pytest.raises(ValueError, match="stores no threshold for map 'mean'. Pass `threshold=ot"):
        model.localize(pictures[0])
    assert model.localize(pictures[0], threshold=0.5).mask.shape == (50, 40)


def test_outputs_that_are_no_numbers_are_an_error(pictures):
    model = toy(thresholds={"mean": 0.4})
    model.localizer.set_weights([w * np.nan for w in model.localizer.get_weights()])
    with pytest.raises(FloatingPointError, match="the model's output is no finite number"):
        model.localize(pictures[0])


def test_a_loaded_model_finds_the_same(model, pictures, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = wsol_tf.load(tmp_path / "model.keras")
    assert isinstance(loaded, keras.Model)
    assert_found(loaded.localize(pictures[0]), model.localize(pictures[0]))


def test_several_ways_give_what_each_gives_with_one_pass_of_the_network(
    model, pictures, monkeypatch
):
    ways = [{"map": "cam", "max_objects": 1}, {"threshold": 0.2}, {"map": "topk", "min_area": 0.5}]
    expected = [model.localize(pictures[1], **way) for way in ways]
    calls, predict = [], model.predict_on_batch
    monkeypatch.setattr(model, "predict_on_batch", lambda x: calls.append(len(x)) or predict(x))
    for found, other in zip(model.localize_each(pictures[1], *ways), expected, strict=True):
        assert_found(found, other)
    assert calls == [1]
    with pytest.raises(ValueError, match="Unknown map 'colour'"):
        model.localize_each(pictures[1], ways[0], {"map": "colour"})
    assert calls == [1]


def outputs_of(model, batch):
    return {name: np.asarray(x) for name, x in model.predict_on_batch(batch).items()}


def assert_close(outputs, expected):
    assert outputs.keys() == expected.keys()
    for name, values in expected.items():
        assert outputs[name].dtype == values.dtype
        np.testing.assert_allclose(outputs[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("mirror", [False, True])
def test_frozen_weights_give_the_same_for_any_batch(mirror, rng):
    model = varied(toy(mirror=mirror))
    batches = [rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for n in (3, 1, 2)]
    batches.append(batches[0].astype(np.float32) + 0.25)
    expected = [outputs_of(model, batch) for batch in batches]
    model.freeze()
    for batch, outputs in zip(batches, expected, strict=True):
        assert_close(outputs_of(model, batch), outputs)


def test_frozen_weights_are_no_variables_of_the_graph(rng):
    """Constants are what TensorFlow prepares once and not at every call."""
    model = varied(toy())
    model.freeze()
    picture = rng.integers(0, 256, (1, 32, 32, 3), np.uint8)
    before = outputs_of(model, picture)
    kernel = model.classifier.weights[0]
    kernel.assign(kernel + 1)
    for name, values in outputs_of(model, picture).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)


def test_a_graph_that_could_not_hold_the_weights_is_not_made(monkeypatch, rng):
    model = varied(toy())
    picture = rng.integers(0, 256, (1, 32, 32, 3), np.uint8)
    expected = outputs_of(model, picture)
    size = sum(weight.numpy().nbytes for weight in model.weights)
    monkeypatch.setattr(frozen, "MOST_BYTES", size)
    assert frozen.predictor(model)
    monkeypatch.setattr(frozen, "MOST_BYTES", size - 1)
    assert frozen.predictor(model) is None
    model.freeze()
    for name, values in outputs_of(model, picture).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.mark.parametrize("thaw", ["compile", "set_weights", "load_weights"])
def test_a_model_that_is_changed_again_predicts_with_its_new_weights(thaw, rng, tmp_path):
    model, other = varied(toy()), varied(toy(), seed=1)
    picture = rng.integers(0, 256, (1, 32, 32, 3), np.uint8)
    model.freeze()
    before = outputs_of(model, picture)
    if thaw == "compile":
        model.compile(run_eagerly=True, total_steps=1)
        for mine, its in zip(model.weights, other.weights, strict=True):
            mine.assign(its)
    elif thaw == "set_weights":
        model.set_weights(other.get_weights())
    else:
        other.save_weights(tmp_path / "other.weights.h5")
        model.load_weights(tmp_path / "other.weights.h5")
    outputs = outputs_of(model, picture)
    assert np.abs(outputs["logits"] - before["logits"]).max() > 1e-3
    assert_close(outputs, outputs_of(other, picture))


def test_a_frozen_model_is_saved_as_any_other(pictures, tmp_path):
    model = varied(toy(thresholds={"mean": 0.4}))
    found = model.localize(pictures[0])
    model.freeze()
    model.localize(pictures[0])
    model.save(tmp_path / "model.keras")
    assert_found(wsol_tf.load(tmp_path / "model.keras").localize(pictures[0]), found)


def test_a_model_that_refines_finds_what_its_refined_map_says(pictures, tmp_path):
    refining = varied(toy(thresholds={"mean": 0.4, "cam": 0.6}, refine="guided"))
    for image in pictures:
        seen = resize_image(image, refining.input_size)
        small = np.asarray(refining.predict_on_batch(seen[None])["localization_map"])[0].mean(-1)
        expected = score_maps.localize(refinement.refine(small, seen), *image.shape[:2], 0.4)
        found = refining.localize(image)
        for got, wanted in zip((found.score_map, found.mask, found.box), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert_found(refining.localize(image, map="cam"), by_hand(refining, image, "cam", 0.6))
    refining.save(tmp_path / "model.keras")
    loaded = wsol_tf.load(tmp_path / "model.keras")
    assert loaded.refine == "guided"
    assert_found(loaded.localize(image), found)


def test_an_unknown_refinement_is_refused():
    with pytest.raises(ValueError, match="Unknown `refine` 'crf'. Legal: none, guided."):
        toy(refine="crf")


def test_nothing_is_found_where_the_background_class_is_predicted(pictures, tmp_path):
    plain = varied(toy(thresholds={"mean": 0.4}))
    name = plain.localize(pictures[0]).class_name
    made = varied(toy(thresholds={"mean": 0.4}, background_class=name))
    made.save(tmp_path / "model.keras")
    made = wsol_tf.load(tmp_path / "model.keras")
    assert made.background_class == name
    nothing = made.localize(pictures[0])
    assert (nothing.class_name, nothing.box) == (name, None)
    assert nothing.score_map.shape == nothing.mask.shape == SIZES[0]
    assert not nothing.mask.any() and not nothing.score_map.any()
    assert nothing.boxes.shape == (0, 4)
    other = next(other for other in CLASSES if other != name)
    made = varied(toy(thresholds={"mean": 0.4}, background_class=other))
    assert_found(made.localize(pictures[0]), plain.localize(pictures[0]))


def test_a_background_class_is_one_of_the_classes():
    with pytest.raises(ValueError, match="`background_class` 'sky' is none of the classes: cat"):
        toy(background_class="sky")
