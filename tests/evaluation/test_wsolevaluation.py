import json

import cv2
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol_tf.evaluation import contour_boxes, wsolevaluation
from wsol_tf.evaluation.wsolevaluation import BoxAccuracy, PixelPrecision

COARSE = np.arange(0, 1, 0.05)
SIDES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@st.composite
def score_maps(draw):
    """Noise, ties, constants, and maps that do not reach 0 and 1."""
    shape = draw(SIDES)
    kind = draw(st.sampled_from(["noise", "ties", "constant", "faint"]))
    if kind == "constant":
        return np.full(shape, draw(st.sampled_from([0, 1 / 512, 0.25, 0.5, 1])))
    if kind == "ties":
        return draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0, 0.3, 0.5, 1])))
    score_map = np.random.default_rng(draw(st.integers(0, 999))).random(shape)
    return score_map * 0.3 + 0.1 if kind == "faint" else score_map


BOXES = st.lists(
    st.tuples(*[st.integers(0, 11)] * 4).map(
        lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])]
    ),
    min_size=1,
    max_size=3,
)


def brute_force(score_map, boxes, threshold, contours):
    """(sorted boxes, best IoU) at one threshold, from the description, step by step."""
    height, width = score_map.shape
    grey = (score_map * 255).astype(np.uint8)
    mask = (grey > int(threshold * int(grey.max()))).astype(np.uint8)
    traced, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    found = [[0, 0, 0, 0]]
    if traced:
        if contours == "single":
            traced = [max(traced, key=cv2.contourArea)]
        found = []
        for x, y, w, h in map(cv2.boundingRect, traced):
            found.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
    best = 0.0
    for a in found:
        for b in boxes:
            w = min(a[2], b[2]) - max(a[0], b[0]) + 1
            h = min(a[3], b[3]) - max(a[1], b[1]) + 1
            overlap = max(w, 0) * max(h, 0)
            areas = sum((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b))
            best = max(best, overlap / (areas - overlap))
    return sorted(found), best


# --- parts ---------------------------------------------------------------------------------------


def test_standard_map_stretches_to_zero_and_one():
    score_map = wsolevaluation.standard_map([[2, 4], [3, 6]], 2, 2)
    assert score_map.dtype == np.float64
    np.testing.assert_array_equal(score_map, [[0, 0.5], [0.25, 1]])


def test_standard_map_is_cubic_before_it_is_stretched():
    raw = np.zeros((3, 3))
    raw[1, 1] = 1
    score_map = wsolevaluation.standard_map(raw, 9, 9)
    assert (score_map.min(), score_map.max()) == (0, 1)
    assert score_map[0, 4] < score_map[0, 0]  # a cubic undershoots beside the peak


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (np.full((4, 4), 3.0), "constant"),
        ([[0, np.nan], [1, 2]], "not finite"),
        ([[0, np.inf], [1, 2]], "not finite"),
        (np.zeros((4, 4, 1)), "shape"),
        (np.zeros((0, 4)), "shape"),
    ],
)
def test_standard_map_of_a_bad_map_is_zeros(raw, problem):
    np.testing.assert_array_equal(wsolevaluation.standard_map(raw, 5, 6), np.zeros((5, 6)))
    assert wsolevaluation.problem_of(raw, raw=True) == problem


def test_problems_of_finished_maps():
    problem_of = wsolevaluation.problem_of
    assert problem_of([[0, 1]]) is None
    assert problem_of([[0, 1.0001]]) == "out of range"
    assert problem_of([[-0.0001, 1]]) == "out of range"
    assert problem_of([[0, 1]], shape=(2, 1)) == "shape"
    assert problem_of([[0, 7]], raw=True) is None


def test_boxes_are_cut_down_to_whole_pixels():
    # 10 * 224 / 500 = 4.48, 499 * 224 / 500 = 223.552; 30 * 224 / 300 = 22.4, 300 -> 224.
    boxes = wsolevaluation.resize_boxes([[10, 30, 499, 300]], (500, 300))
    assert boxes.tolist() == [[4, 22, 223, 224]]
    assert wsolevaluation.resize_boxes([], (500, 300)).shape == (0, 4)


def test_instances_win_over_what_is_ignored():
    first = np.zeros((4, 4))
    first[0] = 1
    second = np.zeros((4, 4))
    second[1, 0] = 1
    ignored = np.zeros((4, 4))
    ignored[:, 0] = 1
    truth = wsolevaluation.combine_masks([first, second], ignored, 4, 4)
    assert truth.tolist() == [[1] * 4, [1, 0, 0, 0], [255, 0, 0, 0], [255, 0, 0, 0]]
    assert wsolevaluation.combine_masks([first], None, 2, 2).tolist() == [[1, 1], [0, 0]]


def test_levels_by_hand():
    # .999 * 255 = 254.7 and .5 * 255 = 127.5 are cut down; the threshold is relative to 254.
    image, level = contour_boxes.to_levels([[0.999, 0.5]], [0, 0.5, 0.999, 1])
    assert image.tolist() == [[254, 127]]
    assert level.tolist() == [0, 127, 253, 254]


def test_boxes_by_hand():
    score_map = np.zeros((8, 8))
    score_map[1:4, 1:3] = 1.0
    score_map[5:8, 4:8] = 0.6
    image, level = contour_boxes.to_levels(score_map, [0.5, 0.7])
    assert level.tolist() == [127, 178]
    at, boxes = contour_boxes.boxes_at(image, level, contours="multi")
    # The last corner is one past the contour, but not past the image.
    assert sorted(boxes[at == 127].tolist()) == [[1, 1, 3, 4], [4, 5, 7, 7]]
    assert boxes[at == 178].tolist() == [[1, 1, 3, 4]]
    # Areas between the centres of the corner pixels: 1 x 2 against 3 x 2.
    at, boxes = contour_boxes.boxes_at(image, level, contours="single")
    assert boxes[at == 127].tolist() == [[4, 5, 7, 7]]


def test_map_of_zeros_has_the_box_of_one_pixel():
    image, level = contour_boxes.to_levels(np.zeros((4, 4)), [0, 0.5])
    for contours in ("single", "multi"):
        at, boxes = contour_boxes.boxes_at(image, level, contours=contours)
        assert (at.tolist(), boxes.tolist()) == ([0], [[0, 0, 0, 0]])


def test_iou_counts_the_last_pixels():
    # 3 x 3 against 2 x 3, sharing 1 x 3 pixels.
    assert contour_boxes.inclusive_iou([[0, 0, 2, 2]], [[2, 0, 3, 2]])[0, 0] == 3 / 12
    assert contour_boxes.inclusive_iou([[0, 0, 2, 2]], [[3, 0, 3, 2]])[0, 0] == 0
    assert contour_boxes.inclusive_iou([[0, 0, 0, 0]], [[0, 0, 0, 0]])[0, 0] == 1


@given(score_maps(), BOXES, st.sampled_from(["single", "multi"]))
@settings(max_examples=200, deadline=None)
def test_boxes_and_ious_equal_brute_force(score_map, boxes, contours):
    image, level = contour_boxes.to_levels(score_map, COARSE)
    at, found = contour_boxes.boxes_at(image, level, contours=contours)
    ious = contour_boxes.best_ious(score_map, boxes, COARSE, contours=contours)
    for i, threshold in enumerate(COARSE):
        expected_boxes, expected_iou = brute_force(score_map, boxes, threshold, contours)
        assert sorted(found[at == level[i]].tolist()) == expected_boxes
        assert ious[i] == expected_iou


# --- accumulators --------------------------------------------------------------------------------


def _square(size, edge, value=1.0, around=0.0):
    score_map = np.full((size, size), around)
    score_map[:edge, :edge] = value
    return score_map


def test_box_accuracy_by_hand():
    scored = BoxAccuracy([0, 0.4, 0.8])
    # Box 0, 0, 4, 4 at each threshold: 25 pixels, of which the truth has 20, 10 and 5.
    for image_id, edge in (("a", 3), ("b", 1), ("c", 0)):
        scored.add(image_id, _square(10, 4), [[0, 0, 4, edge]])
    figures = scored.result()
    assert figures["max_box_acc"]["value"] == 1 / 3
    assert figures["max_box_acc"]["threshold"] == 0  # of equals the lowest
    accuracy = {k: v["accuracy"] for k, v in figures["max_box_acc_v2"]["iou_levels"].items()}
    assert accuracy == {"0.3": 2 / 3, "0.5": 1 / 3, "0.7": 1 / 3}
    assert figures["max_box_acc_v2"]["value"] == pytest.approx((2 + 1 + 1) / 9)
    assert figures["num_images"] == 3


def test_thresholds_are_shared_by_all_images_but_not_by_iou_levels():
    scored = BoxAccuracy([0, 0.5])
    scored.add("low", _square(10, 4, around=0.2), [[0, 0, 9, 9]])  # right below .2 only
    scored.add("high", _square(10, 4, around=0.2), [[0, 0, 4, 4]])  # above .2; below, IoU is .25
    scored.add("too", _square(10, 4, around=0.2), [[0, 0, 4, 2]])  # above .2, IoU .6
    figures = scored.result()["max_box_acc_v2"]["iou_levels"]
    assert figures["0.5"] == {"accuracy": 2 / 3, "threshold": 0.5}
    assert figures["0.7"] == {"accuracy": 1 / 3, "threshold": 0}


def test_any_contour_counts_in_v2_and_the_largest_in_v1():
    score_map = np.zeros((20, 20))
    score_map[0:4, 0:4] = 1
    score_map[8:18, 8:18] = 1
    scored = BoxAccuracy()
    scored.add("a", score_map, [[0, 0, 4, 4]])
    figures = scored.result()
    assert (figures["max_box_acc"]["value"], figures["max_box_acc_v2"]["value"]) == (0, 1)


def test_pixel_precision_by_hand():
    scored = PixelPrecision([0, 0.5])
    scored.add("a", np.float64([[1, 0.6], [0.2, 0.7]]), np.uint8([[1, 1], [0, 0]]))
    scored.add("b", np.float64([[0.1, 0.9]]), np.uint8([[1, 255]]))
    # Bins 0.., .5.., 1..: the object has 1, 1, 1 pixels, the rest 1, 1, 0; one is ignored.
    assert scored.histograms.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    figures = scored.result()
    # From above: precision 1, 2/3, 3/5 at recall 1/3, 2/3, 1.
    assert figures["pxap"]["value"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    np.testing.assert_allclose(scored.piou(), [3 / 5, 2 / 4, 1 / 3, 0])
    assert figures["piou"] == {"value": 3 / 5, "threshold": 0}


def test_pxap_of_a_perfect_and_of_a_constant_map():
    mask = np.uint8([[1, 1, 0, 0]])
    perfect, constant = PixelPrecision(), PixelPrecision()
    perfect.add("a", mask.astype(float), mask)
    constant.add("a", np.full((1, 4), 0.5), mask)
    assert perfect.result()["pxap"]["value"] == 1
    assert constant.result()["pxap"]["value"] == 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([0.01, 0.001]))
def test_pxap_is_that_of_the_plain_formula_to_the_last_bit(seed, step):
    rng = np.random.default_rng(seed)
    thresholds = np.arange(0, 1, step)
    score_map, mask = rng.random((9, 9)) ** 4, rng.choice([0, 1, 255], (9, 9)).astype(np.uint8)
    mask[0, 0] = 1
    scored = PixelPrecision(thresholds)
    scored.add("a", score_map, mask)
    edges = [*thresholds, 1, 2, 3]
    true, false = (
        np.histogram(score_map[mask == v], edges)[0].astype(float)[::-1].cumsum() for v in (1, 0)
    )
    with np.errstate(invalid="ignore"):
        precision, recall = true / (true + false), true / true[-1]
    kept = (true + false != 0)[1:]
    assert scored.result()["pxap"]["value"] == (precision[1:] * np.diff(recall))[kept].sum()


def test_masks_without_object_make_no_figure():
    scored = PixelPrecision()
    scored.add("a", np.zeros((2, 2)), np.zeros((2, 2), np.uint8))
    figures = scored.result()
    assert figures["pxap"]["value"] is figures["piou"]["value"] is None


BAD = {
    "nan": (np.full((8, 8), np.nan), "not finite"),
    "inf": (np.full((8, 8), np.inf), "not finite"),
    "range": (np.full((8, 8), 1.5), "out of range"),
    "negative": (np.linspace(-1, 1, 64).reshape(8, 8), "out of range"),
    "axes": (np.zeros((8, 8, 2)), "shape"),
    "flat": (np.full((8, 8), 0.5), "constant"),
}


def test_bad_maps_are_named_and_scored_as_zeros():
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 1
    boxes, pixels = BoxAccuracy(COARSE), PixelPrecision(COARSE)
    for name, (score_map, _) in BAD.items():
        boxes.add(name, score_map, [[0, 0, 0, 0], [0, 0, 7, 7]])
        pixels.add(name, score_map, mask)
    pixels.add("size", np.zeros((4, 4)), mask)
    boxes.add("lost", np.zeros((8, 8)), [[5, 5, 7, 7]], problem="missing")
    for scored, extra in ((boxes, "lost"), (pixels, "size")):
        bad = scored.result()["bad_maps"]
        named = {name: kind for kind, entry in bad.items() for name in entry["image_ids"]}
        assert named == {name: kind for name, (_, kind) in BAD.items()} | {
            extra: "missing" if extra == "lost" else "shape"
        }
    # The box 0, 0, 0, 0 of five bad maps and the whole image of the constant one; "lost" is wrong.
    assert (boxes.num_correct["single"] == 6).all()
    assert pixels.histograms[:, 0].tolist() == [32 * 6, 32 * 6]
    assert pixels.histograms[:, 10].tolist() == [32, 32]


def test_of_many_bad_maps_all_are_counted_and_the_first_are_named():
    names = [f"{i:03}" for i in range(50)]
    forward, backward = BoxAccuracy([0.5]), BoxAccuracy([0.5])
    for name in names:
        forward.add(name, [[np.nan]], [[0, 0, 0, 0]])
    for name in names[::-1]:
        backward.add(name, [[np.nan]], [[0, 0, 0, 0]])
    expected = {"not finite": {"count": 50, "image_ids": names[: wsolevaluation.NAMED]}}
    assert forward.result()["bad_maps"] == backward.result()["bad_maps"] == expected


def test_image_without_boxes_is_never_right():
    scored = BoxAccuracy([0.5])
    scored.add("a", _square(10, 4), np.zeros((0, 4)))
    assert scored.result()["max_box_acc_v2"]["value"] == 0


def _random_images(count, seed):
    rng = np.random.default_rng(seed)
    for i in range(count):
        score_map = rng.choice([0, 0.3, 0.5, 1], (10, 12)) if i % 3 else rng.random((10, 12))
        if i == 5:
            score_map[0, 0] = np.nan
        first, second = np.sort(rng.integers(0, 10, (2, 2)), axis=0)
        mask = rng.choice([0, 1, 255], (10, 12)).astype(np.uint8)
        yield f"image {i}", score_map, [[*first, *second]], mask


def _filled(order, seed, **options):
    images = list(_random_images(9, seed))
    boxes, pixels = BoxAccuracy(COARSE, **options), PixelPrecision(COARSE)
    for i in order:
        image_id, score_map, true_boxes, mask = images[i]
        boxes.add(image_id, score_map, true_boxes)
        pixels.add(image_id, score_map, mask)
    return boxes, pixels


@given(st.randoms(use_true_random=False), st.integers(1, 8), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_order_and_merging_change_nothing(shuffler, cut, seed):
    order = list(range(9))
    shuffler.shuffle(order)
    for whole, first, second in zip(
        _filled(range(9), seed), _filled(order[:cut], seed), _filled(order[cut:], seed), strict=True
    ):
        first.merge(second)
        assert first.result() == whole.result()


@given(st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_counts_equal_brute_force(seed):
    scored, pixels = _filled(range(9), seed)
    for kind in ("single", "multi"):
        expected = np.zeros((3, len(COARSE)), int)
        for _, score_map, boxes, _ in _random_images(9, seed):
            for column, threshold in enumerate(COARSE):
                _, iou = brute_force(np.nan_to_num(score_map * 0) if np.isnan(score_map).any()
                                     else score_map, boxes, threshold, kind)  # fmt: skip
                expected[:, column] += iou >= np.array([0.3, 0.5, 0.7])
        np.testing.assert_array_equal(scored.num_correct[kind], expected)
    counts = np.zeros((2, len(COARSE) + 2), int)
    for _, score_map, _, mask in _random_images(9, seed):
        score_map = np.zeros_like(score_map) if np.isnan(score_map).any() else score_map
        for score, value in zip(score_map.flat, mask.flat, strict=True):
            if value != 255:
                counts[value, np.flatnonzero(np.append(COARSE, [1, 2]) <= score)[-1]] += 1
    np.testing.assert_array_equal(pixels.histograms, counts)


def test_percent_is_computed_in_the_order_of_wsolevaluation():
    """5, 3 and 1 of 6 pictures are right; 100 times the mean of the fractions is above 50."""
    scored = BoxAccuracy(contours=["multi"])
    scored.num_images = 6
    for row, right in zip(scored.num_correct["multi"], (5, 3, 1), strict=True):
        row[3] = right
    figures = scored.result()["max_box_acc_v2"]
    assert (figures["value"], figures["percent"]) == (0.5000000000000001, 49.99999999999999)


def test_one_kind_of_contours_alone_gives_the_same():
    both, _ = _filled(range(9), 3)
    for kind, name in (("single", "max_box_acc"), ("multi", "max_box_acc_v2")):
        alone, _ = _filled(range(9), 3, contours=[kind])
        assert alone.result()[name] == both.result()[name]


def test_result_is_json_without_nan():
    for scored in _filled(range(9), 0):
        figures = scored.result()
        assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_memory_does_not_grow_with_images():
    def size(scored):
        return sum(array.nbytes for array in vars(scored).values() if hasattr(array, "nbytes"))

    for few, many in zip(_filled([0], 0), _filled(range(9), 0), strict=True):
        assert vars(few).keys() == vars(many).keys()
        assert size(few) == size(many)


def test_refusals():
    with pytest.raises(ValueError, match="no image has been scored"):
        BoxAccuracy().result()
    with pytest.raises(ValueError, match="no image has been scored"):
        PixelPrecision().result()
    with pytest.raises(ValueError, match="different arguments"):
        BoxAccuracy().merge(BoxAccuracy(contours=["multi"]))
    with pytest.raises(ValueError, match="different thresholds"):
        PixelPrecision().merge(PixelPrecision([0, 0.5]))
    with pytest.raises(ValueError, match="numbers in 0..1"):
        BoxAccuracy([0.5, 1.5])
    with pytest.raises(ValueError, match="rise from 0"):
        PixelPrecision([0.5, 0.2])
    with pytest.raises(ValueError, match="IoU level 0.5"):
        BoxAccuracy(iou_levels=[0.3])
    with pytest.raises(ValueError, match="'single' or 'multi'"):
        BoxAccuracy(contours="both")
    with pytest.raises(ValueError, match="odd: boxes must be x0, y0, x1, y1"):
        BoxAccuracy().add("odd", np.zeros((4, 4)), [[3, 0, 1, 2]])


# --- the peers' numbers --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vectors(shared_dir):
    with np.load(shared_dir / "vectors" / "wsoleval_vectors_open.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def recorded(shared_dir):
    path = shared_dir / "vectors" / "wsoleval_vectors_open.json"
    return json.loads(path.read_text())["results"]


def _boxes_of(vectors, image, name="gt_boxes_resized"):
    return vectors[name][vectors["box_image"] == image]


@pytest.mark.realdata
def test_true_boxes_equal_wsolevaluation(vectors):
    for image, size in enumerate(vectors["image_sizes_wh"]):
        boxes = wsolevaluation.resize_boxes(_boxes_of(vectors, image, "boxes_xyxy"), size)
        np.testing.assert_array_equal(boxes, _boxes_of(vectors, image))


@pytest.mark.realdata
def test_resized_maps_equal_wsolevaluation(vectors):
    for raw, expected in zip(
        vectors["raw_cams"], vectors["raw_cams_resized_normalized"], strict=True
    ):
        np.testing.assert_array_equal(wsolevaluation.standard_map(raw), expected)


@pytest.mark.realdata
def test_masks_equal_wsolevaluation(vectors):
    bits = np.unpackbits(vectors["raw_masks_packed"])
    masks = {}
    for key, (height, width) in zip(
        vectors["raw_mask_keys"].tolist(), vectors["raw_mask_shapes_hw"], strict=True
    ):
        image, instance = key.split("_")
        part, bits = bits[: height * width], bits[height * width :]
        masks.setdefault(int(image), {})[instance] = part.reshape(height, width)
    for image, expected in enumerate(vectors["masks224"]):
        ignored = masks[image].pop("ignore")
        truth = wsolevaluation.combine_masks(list(masks[image].values()), ignored)
        np.testing.assert_array_equal(truth, expected)


@pytest.mark.realdata
@pytest.mark.parametrize("step", ["d001", "d010"])
def test_boxes_and_ious_equal_wsolevaluation(vectors, step):
    thresholds = vectors[f"thresholds_{step}"]
    for i, score_map in enumerate(vectors["maps"]):
        image, level = contour_boxes.to_levels(score_map, thresholds)
        at, boxes = contour_boxes.boxes_at(image, level, contours="single")
        table = np.zeros((256, 4), int)
        table[at] = boxes
        np.testing.assert_array_equal(table[level], vectors[f"box_single_{step}"][i])
        for kind in ("single", "multi"):
            at, _ = contour_boxes.boxes_at(image, level, contours=kind)
            counts = np.bincount(at, minlength=256)[level]
            np.testing.assert_array_equal(counts, vectors[f"n_boxes_{kind}_{step}"][i])
            ious = contour_boxes.best_ious(
                score_map, _boxes_of(vectors, i), thresholds, contours=kind
            )
            np.testing.assert_array_equal(ious, vectors[f"best_iou_{kind}_{step}"][i])


@pytest.mark.realdata
@pytest.mark.parametrize("step", ["d001", "d010"])
def test_accumulated_figures_equal_wsolevaluation(vectors, recorded, step):
    thresholds = vectors[f"thresholds_{step}"]
    boxes, pixels = BoxAccuracy(thresholds), PixelPrecision(thresholds)
    for i, score_map in enumerate(vectors["maps"]):
        boxes.add(recorded["kinds"][i], score_map, _boxes_of(vectors, i))
        pixels.add(recorded["kinds"][i], score_map, vectors["masks224"][i])
    figures = boxes.result()
    for kind, name in (("single", "max_box_acc"), ("multi", "max_box_acc_v2")):
        np.testing.assert_array_equal(
            boxes.num_correct[kind], vectors[f"num_correct_{kind}_{step}"]
        )
        levels = figures[name]["iou_levels"].values()
        accuracies = [100 * level["accuracy"] for level in levels]
        np.testing.assert_allclose(accuracies, recorded[f"max_box_acc_{kind}_{step}"], rtol=1e-14)
        assert [level["threshold"] for level in levels] == recorded[
            f"argmax_threshold_{kind}_{step}"
        ]
    for name, version in (("max_box_acc", 1), ("max_box_acc_v2", 2)):
        expected = recorded[f"MaxBoxAccV{version}_{step}"]
        assert 100 * figures[name]["value"] == pytest.approx(expected, rel=1e-14)
        assert figures[name]["percent"] == expected
    for value, name in ((1, "pos"), (0, "neg")):
        np.testing.assert_array_equal(pixels.histograms[value], vectors[f"hist_{name}_{step}"])
    np.testing.assert_array_equal(pixels.piou(), vectors[f"derived_piou_curve_{step}"])
    figures = pixels.result()
    assert figures["pxap"]["percent"] == recorded[f"PxAP_{step}"]
    assert 100 * figures["piou"]["value"] == pytest.approx(recorded[f"derived_peak_pIoU_{step}"])
