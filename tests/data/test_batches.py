import dataclasses
import hashlib
import subprocess
import sys
import threading

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from wsol_tf.data import cache as caches
from wsol_tf.data import transforms
from wsol_tf.data.batches import evaluation_batches, training_batches
from wsol_tf.data.cache import cached_reader
from wsol_tf.data.example import make_example
from wsol_tf.data.images import BadImage
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.source import Report, Source, StopAtBadImage
from wsol_tf.data.stream import TrainingStream


def source_of(labels, *, bad=(), size=32, classes=3):
    """Pictures whose pixels are all `position + 1`; those in `bad` cannot be read."""
    reads = []

    def read_image(position):
        reads.append(position)
        if position in bad:
            raise BadImage(f"/data/{position}.png", "the file is empty")
        return np.full((size, size, 3), position + 1, np.uint8)

    def read_example(position):
        count = len(labels[position])
        boxes = [[0, 0, size, size]] * count
        return make_example(
            read_image(position), labels[position], boxes, labels[position],
            image_id=f"p{position}",
        )  # fmt: skip

    source = Source(
        name="test",
        classes=tuple("abc"[:classes]),
        image_ids=tuple(f"p{i}" for i in range(len(labels))),
        labels=tuple(np.array(label, np.int32) for label in labels),
        has_boxes=True,
        has_masks=False,
        report=Report(),
        read_image=read_image,
        read_example=read_example,
    )
    return source, reads


def stream_of(source, positions, batch_size=4, *, cache="memory", cache_dir=None, **options):
    options = {"input_size": 24, "resize_size": 28, "min_crop": 1.0, "seed": 0} | options
    read = cached_reader(source, positions, options["resize_size"], cache, cache_dir)
    return TrainingStream(source, positions, batch_size=batch_size, read=read, **options)


STREAM = ("batch_size", "cache", "cache_dir", "input_size", "resize_size", "seed")


def train(source, positions, **options):
    """A dataset of a stream; options of both."""
    own = {name: options.pop(name) for name in STREAM if name in options}
    return training_batches(stream_of(source, positions, **own), **options)


def evaluate(source, positions, batch_size=4, *, input_size=24, resize_size=32, view="crop"):
    view = transforms.View(input_size, resize_size, view)
    return list(evaluation_batches(source, positions, view, batch_size))


def box_example(boxes, height=40, width=80):
    """A picture whose mask and pixels show the boxes."""
    mask = np.zeros((height, width), np.uint8)
    for x0, y0, x1, y1 in np.asarray(boxes, int):
        mask[y0:y1, x0:x1] = 2
    image = np.repeat(mask[:, :, None] * 100, 3, axis=2)
    return make_example(image, [1], boxes, [1] * len(boxes), mask)


# --- transforms ----------------------------------------------------------------------------------


def test_resize_moves_boxes_by_hand():
    example = transforms.resize(box_example([[8, 10, 40, 30]]), 20)
    # x scale 20 / 80, y scale 20 / 40.
    assert example.boxes.tolist() == [[2, 5, 10, 15]]
    assert example.image.shape == (20, 20, 3)
    expected = np.zeros((20, 20), np.uint8)
    expected[5:15, 2:10] = 2
    np.testing.assert_array_equal(example.mask, expected)
    assert example.size.tolist() == [40, 80]


def test_resize_of_masks_makes_no_new_values():
    mask = np.random.default_rng(0).choice([0, 3, 255], (37, 51)).astype(np.uint8)
    example = make_example(np.zeros((37, 51, 3)), mask=mask)
    assert set(np.unique(transforms.resize(example, 24).mask)) == {0, 3, 255}


@pytest.mark.parametrize("resize", [transforms.resize_image, transforms.resize_fast])
def test_resize_is_antialiased(resize):
    # Columns alternate black and white; point sampling would keep one of them.
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, ::2] = 254
    np.testing.assert_allclose(resize(image, 16)[:, 2:-2], 127, atol=8)


@pytest.mark.parametrize("scale", [1.01, 1.5, 2, 2.7, 3, 7.3])
def test_antialiasing_filter_completes_the_triangle(scale):
    taps = transforms.antialiasing(scale).astype(float)
    assert len(taps) % 2 == 1
    x = np.arange(len(taps)) - len(taps) // 2
    assert taps.sum() == pytest.approx(1)
    assert taps @ x == pytest.approx(0)
    # Variances add up: that of bilinear sampling is 1 / 6, that of the wide triangle scale^2 / 6.
    assert taps @ x**2 + 1 / 6 == pytest.approx(scale**2 / 6)


def test_antialiasing_filter_by_hand():
    np.testing.assert_allclose(transforms.antialiasing(2), [0.25, 0.5, 0.25])
    np.testing.assert_allclose(transforms.antialiasing(3), np.array([1, 2, 3, 2, 1]) / 9)
    assert transforms.antialiasing(0.7).tolist() == [1]


@pytest.mark.parametrize("shape", [(20, 90), (90, 20)])
def test_a_side_that_grows_is_not_smoothed(shape):
    """It passes a filter that changes nothing, because OpenCV is faster with it than without."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    columns, rows = (transforms.antialiasing(side / 40) for side in shape[::-1])
    smooth = cv2.sepFilter2D(image, -1, columns, rows, borderType=cv2.BORDER_REPLICATE)
    expected = cv2.resize(smooth, (40, 40), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(transforms.resize_fast(image, 40), expected)


@pytest.mark.parametrize("shape", [(375, 500), (200, 300), (90, 120), (1000, 700)])
def test_the_fast_resize_is_close_to_the_other(shape):
    coarse = np.random.default_rng(0).integers(0, 256, (*(n // 6 for n in shape), 3), np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))
    expected = transforms.resize_image(picture, 128).astype(float)
    difference = expected - transforms.resize_fast(picture, 128)
    assert np.abs(difference).mean() < 1.5
    assert abs(difference.mean()) < 0.2


def test_resize_keeps_a_picture_of_the_right_size():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    np.testing.assert_array_equal(transforms.resize_image(image, 16), image)
    np.testing.assert_array_equal(transforms.resize_fast(image, 16), image)


@pytest.mark.parametrize("shape", [(16, 16), (40, 10), (9, 12)])
def test_the_fast_resize_writes_into_an_array_that_is_given(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    batch = np.zeros((3, 16, 16, 3), np.uint8)
    transforms.resize_fast(image, 16, batch[1])
    np.testing.assert_array_equal(batch[1], transforms.resize_fast(image, 16))
    assert not batch[[0, 2]].any()


def test_crop_by_hand():
    example = box_example([[10, 5, 30, 25], [0, 0, 4, 4], [60, 30, 80, 40]])
    cropped = transforms.crop(example, 10, 20, 24)
    # Shift by -20, -10 and clip to 24 x 24: only the first box is left.
    assert cropped.boxes.tolist() == [[0, 0, 10, 15]]
    assert cropped.box_labels.tolist() == [1]
    assert cropped.labels.tolist() == [1]
    np.testing.assert_array_equal(cropped.mask, example.mask[10:34, 20:44])
    np.testing.assert_array_equal(cropped.image, example.image[10:34, 20:44])


def test_box_that_only_touches_the_crop_is_dropped():
    example = box_example([[0, 0, 20, 40], [0, 0, 21, 40]])
    assert transforms.crop(example, 0, 20, 24).boxes.tolist() == [[0, 0, 1, 24]]


def test_center_crop_is_in_the_middle():
    image = np.zeros((10, 14, 3), np.uint8)
    image[2:8, 4:10] = 9
    assert (transforms.center_crop(make_example(image), 6).image == 9).all()


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images():
    row, column = np.indices((8, 6))
    image = np.stack([row, column, 0 * row], axis=-1).astype(np.uint8)
    crops = [crop[0] for crop in transforms.ten_crops(image[None], 4)]
    assert [crop.shape for crop in crops] == [(4, 4, 3)] * 10
    corners = [crop[0, 0, :2].tolist() for crop in crops]
    assert corners[:5] == [[0, 0], [0, 2], [4, 0], [4, 2], [2, 1]]
    # Mirrored first, so that left and right have changed places.
    assert corners[5:] == [[0, 5], [0, 3], [4, 5], [4, 3], [2, 4]]
    for crop in crops[5:]:
        assert crop[0, :, 1].tolist() == sorted(crop[0, :, 1], reverse=True)
    with pytest.raises(ValueError, match="larger pictures"):
        next(transforms.ten_crops(image[None], 7))


def test_ten_crop_probabilities_average_after_the_softmax():
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[0, 0, 0] = 1  # in one crop of 2 x 2 in ten, and in one of the mirrored
    seen = []

    def classify(crops):
        seen.append(crops.shape)
        bright = crops.reshape(len(crops), -1).max(-1)
        return np.stack([np.log(3.0) * bright, 0.0 * bright], axis=-1)

    probabilities = transforms.ten_crop_probabilities(classify, np.repeat(image, 2, axis=0), 2)
    assert seen == [(2, 2, 2, 3)] * 10
    # 3/4 in two crops and 1/2 in eight; a mean of the logits would give another figure.
    expected = (2 * 3 / 4 + 8 / 2) / 10
    np.testing.assert_allclose(probabilities, [[expected, 1 - expected]] * 2)


@settings(max_examples=150, deadline=None)
@example(225, 8, (224, 256), 0)  # the whole picture and the view change the order of the sides
@example(500, 375, (224, 256), 0)
@given(
    st.integers(8, 700), st.integers(8, 700), st.sampled_from([(224, 256), (28, 32), (96, 110)]),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_only_what_a_view_shows_is_resized_and_no_byte_differs(height, width, sides, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    view = transforms.View(*sides)
    whole = make_example(image, [0], [[1, 2, width, height]], [0], image[..., 0])
    shown = transforms.view_example(whole, view)
    expected = transforms.center_crop(transforms.resize(whole, sides[1]), sides[0])
    for ours, theirs in zip(shown[:7], expected[:7], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("shape", [(375, 500), (256, 300), (90, 256)])
def test_a_view_of_the_usual_sides_is_all_that_is_resized(monkeypatch, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    expected = transforms.resize_image(image, 256)[16:240, 16:240]
    monkeypatch.delattr(transforms, "resize_image")
    np.testing.assert_array_equal(transforms.resize_and_crop(image, 16, 224, 256), expected)


def test_crop_outside_is_refused():
    with pytest.raises(ValueError, match="not inside the picture of 40 x 80"):
        transforms.crop(box_example([]), 20, 0, 24)


@st.composite
def boxes_and_crops(draw):
    x = sorted(draw(st.lists(st.integers(0, 80), min_size=2, max_size=2, unique=True)))
    y = sorted(draw(st.lists(st.integers(0, 40), min_size=2, max_size=2, unique=True)))
    size = draw(st.integers(8, 40))
    top, left = draw(st.integers(0, 40 - size)), draw(st.integers(0, 80 - size))
    return [x[0], y[0], x[1], y[1]], top, left, size


def extents(mask):
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [[xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]] if len(xs) else []


@settings(max_examples=100, deadline=None)
@given(boxes_and_crops())
def test_picture_box_and_mask_stay_together(case):
    box, top, left, size = case
    example = transforms.crop(box_example([box]), top, left, size)
    assert example.boxes.tolist() == extents(example.mask)
    assert len(example.box_labels) == len(example.boxes)
    np.testing.assert_array_equal(example.image[:, :, 0], example.mask * 100)


def test_crop_of_a_resized_picture_is_a_plain_crop():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    cropped = transforms.crop_image(image, 3, 8, 24, 32, 24)
    np.testing.assert_array_equal(cropped, image[3:27, 8:32])


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 150), st.integers(40, 150), st.integers(0, 8), st.integers(0, 8))
def test_crop_before_the_resize_equals_crop_after_it(height, width, top, left):
    y, x = np.mgrid[:height, :width]
    image = np.stack([255 * y / height, 255 * x / width, 0 * x], -1).astype(np.uint8)
    cropped = transforms.crop_image(image, top, left, 24, 32, 24).astype(float)
    expected = transforms.resize_fast(image, 32)[top : top + 24, left : left + 24]
    # Half a pixel of these slopes is 255 / 40 / 2 at most; rounding comes on top.
    assert np.abs(cropped - expected).max() <= 6


@pytest.mark.parametrize("height, width", [(1, 1), (1, 60), (5, 3), (200, 7)])
def test_crop_of_a_tiny_picture_shows_at_least_one_pixel(height, width):
    image = np.full((height, width, 3), 7, np.uint8)
    for top, left, side in [(0, 0, 1), (31, 31, 1), (15, 16, 2), (0, 0, 32)]:
        cropped = transforms.crop_image(image, top, left, side, 32, 24)
        np.testing.assert_array_equal(cropped, np.full((24, 24, 3), 7))


def test_smaller_crops_are_enlarged():
    image = np.repeat(np.arange(32, dtype=np.uint8)[:, None, None] * 8, 32, 1).repeat(3, 2)
    cropped = transforms.crop_image(image, 8, 4, 12, 32, 24)[:, 0, 0].astype(float)
    # Rows 8 to 19 of the picture, each over two rows: the values at the middles of the new rows.
    rows = np.clip((np.arange(24) + 0.5) / 2 - 0.5, 0, 11) + 8
    np.testing.assert_allclose(cropped, rows * 8, atol=1)


# --- training batches ----------------------------------------------------------------------------


def test_min_crop_draws_sides_from_there_to_the_whole_picture(monkeypatch):
    source, _ = source_of([[0]] * 8)
    sides, places = [], []

    def crop_image(image, top, left, side, resize_size, size, out):
        assert (resize_size, size, out.shape) == (28, 24, (24, 24, 3))
        assert 0 <= top <= 28 - side and 0 <= left <= 28 - side
        sides.append(side)
        places.append((top, left))

    monkeypatch.setattr("wsol_tf.data.stream.crop_image", crop_image)
    stream_of(source, range(8), min_crop=0.5).samples(0, 400)
    assert (min(sides), max(sides)) == (12, 28)
    assert abs(np.median(sides) - (12 * 28) ** 0.5) < 2  # the middle on a logarithmic scale
    assert len({top for top, _ in places}) > 10
    sides.clear()
    stream_of(source, range(8), min_crop=0.5, augment=False).samples(0, 8)
    stream_of(source, range(8)).samples(0, 8)
    assert set(sides) == {24}


@pytest.mark.parametrize("min_crop", [0.5, 1.0])
def test_samples_are_crops_drawn_by_seed_epoch_and_place(min_crop):
    """By another way: all of a crop's numbers drawn at once, and mirrored as an array."""
    rng = np.random.default_rng(5)
    pictures = [rng.integers(0, 256, (32, 28, 3), np.uint8) for _ in range(12)]
    source, _ = source_of([[0]] * 12)
    stream = stream_of(
        dataclasses.replace(source, read_image=pictures.__getitem__),
        range(12),
        cache="none",
        min_crop=min_crop,
        shuffle=False,
        seed=3,
    )
    images, _ = stream.samples(12, 12)
    turns = set()
    for place, image in enumerate(images):
        rng = np.random.default_rng([3, 1, place])
        side = 24
        if min_crop < 1:
            side = round(np.exp(rng.uniform(np.log(12), np.log(28))))
        top, left, mirrored = rng.integers([29 - side, 29 - side, 2])
        crop = transforms.crop_image(pictures[place], int(top), int(left), side, 28, 24)
        np.testing.assert_array_equal(image, crop[:, ::-1] if mirrored else crop)
        turns.add(int(mirrored))
    assert turns == {0, 1}


def test_crops_at_min_crop_1_are_those_of_before_it():
    source, _ = source_of([[0]] * 8)
    first, labels = stream_of(source, range(8)).samples(0, 8)
    again, _ = stream_of(source, range(8), min_crop=1.0).samples(0, 8)
    np.testing.assert_array_equal(first, again)
    smaller, same = stream_of(source, range(8), min_crop=0.3).samples(0, 8)
    assert smaller.shape == first.shape and (same == labels).all()  # the order is as it was


def test_training_batches_carry_picture_and_label_only():
    source = open_dataset("shapes", "", "train", image_size=32, num_examples=12)
    assert source.read_example(0).mask.any()  # boxes and masks are there, and are not passed on
    spec = train(source, range(12)).element_spec
    assert [(tuple(s.shape), s.dtype.name) for s in spec] == [
        ((4, 24, 24, 3), "uint8"),
        ((4,), "int32"),
    ]


def test_training_never_reads_annotations():
    source, _ = source_of([[0]] * 8)

    def refuse(position):
        raise AssertionError("training asked for boxes and masks")

    blind = Source(**{**vars(source), "read_example": refuse})
    assert len(list(train(blind, range(8)))) == 2


def positions_in(dataset):
    """The positions of all samples, in order."""
    return [int(x) - 1 for batch in dataset for x in batch[0][:, 0, 0, 0].numpy()]


@pytest.mark.parametrize("count, batch_size, batches", [(12, 4, 9), (14, 4, 11), (5, 4, 4)])
def test_every_sample_once_an_epoch_with_its_label(count, batch_size, batches):
    labels = [[i % 3] for i in range(count)]
    source, _ = source_of(labels)
    dataset = train(source, range(count), batch_size=batch_size, epochs=3)
    halves = train(source, range(count), batch_size=batch_size, epochs=3, parts=2)
    assert int(halves.cardinality()) == 2 * batches
    assert int(dataset.cardinality()) == batches  # three epochs, and what fills the last batch
    for image, label in dataset:
        assert (image == image[:, :1, :1, :1]).numpy().all()
        assert [labels[p][0] for p in image[:, 0, 0, 0].numpy() - 1] == label.numpy().tolist()
        assert len(label) == batch_size
    seen = positions_in(dataset)
    assert len(seen) == batches * batch_size
    for epoch in range(3):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_order_is_fixed_by_the_seed_and_new_each_epoch():
    source, _ = source_of([[0]] * 16)
    one = positions_in(train(source, range(16), epochs=3))
    assert one == positions_in(train(source, range(16), epochs=3))
    assert one[:16] != one[16:32] != one[32:]
    assert positions_in(train(source, range(16), epochs=3, seed=1)) != one


def test_augmentation_is_fixed_by_the_seed_and_new_each_epoch():
    source = open_dataset("shapes", "", "train", image_size=64, num_examples=1)

    def epochs(seed):
        dataset = train(source, [0], batch_size=1, seed=seed, epochs=4)
        return [image.numpy().tobytes() for image, _ in dataset]

    first = epochs(5)
    assert first == epochs(5)
    assert first != epochs(6)
    # One picture in one order: only the crop and the mirror can differ.
    assert len(set(first)) > 1


def test_it_begins_anywhere_as_if_it_had_come_from_the_start():
    source = open_dataset("shapes", "", "train", image_size=40, num_examples=7)

    def batches(**options):
        return [
            (image.numpy().tobytes(), label.numpy().tolist())
            for image, label in train(source, range(7), batch_size=3, epochs=4, **options)
        ]

    whole = batches()
    assert len(whole) == 10  # 28 / 3, rounded up
    for start in (1, 2, 5, 9, 10):
        assert batches(start=start) == whole[start:]


def test_workers_and_replicas_share_the_same_batches():
    source, _ = source_of([[0]] * 14)
    options = {"batch_size": 8, "epochs": 2, "start": 1}
    whole = np.array(positions_in(train(source, range(14), **options))).reshape(-1, 8)
    parts = [
        np.array(positions_in(train(source, range(14), replicas=4, worker=w, workers=2, **options)))
        for w in range(2)
    ]
    dataset = train(source, range(14), replicas=4, worker=1, workers=2, **options)
    assert {len(label) for _, label in dataset} == {2} and int(dataset.cardinality()) == 6
    np.testing.assert_array_equal(np.hstack([part.reshape(-1, 4) for part in parts]), whole)
    # In two parts each worker has its pieces of the first, then those of the second.
    halves = [
        np.array(positions_in(train(source, range(14), parts=2, replicas=2, worker=w, workers=2,
                              **options))).reshape(-1, 2, 2)
        for w in range(2)
    ]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate(halves, axis=2).reshape(-1, 8), whole)
    with pytest.raises(ValueError, match="by 3 replicas in 2 parts. Set .* multiple of 6"):
        train(source, range(14), batch_size=8, replicas=3, parts=2)


def test_several_classes_make_one_sample_each_and_mask_out_the_others():
    source, _ = source_of([[0, 2], [1], [0, 1, 2]])
    seen = set()
    for image, label, allowed in train(source, range(3), batch_size=2):
        for i in range(2):
            position = int(image[i, 0, 0, 0]) - 1
            seen.add((position, int(label[i]), tuple(allowed[i].numpy().tolist())))
    assert seen == {
        (0, 0, (True, True, False)),
        (0, 2, (False, True, True)),
        (1, 1, (True, True, True)),
        (2, 0, (True, False, False)),
        (2, 1, (False, True, False)),
        (2, 2, (False, False, True)),
    }


def test_unreadable_pictures_are_replaced_and_reported():
    source, _ = source_of([[i % 3] for i in range(8)], bad={2, 3})
    dataset = train(source, range(8), epochs=3)
    assert int(dataset.cardinality()) == 6
    for order in np.reshape(positions_in(dataset), (3, 8)).tolist():
        # Samples 2 and 3 give their places to the next that can be read, sample 4.
        assert sorted(order) == [0, 1, 4, 4, 4, 5, 6, 7]
    assert source.report.skipped == {"p2": "the file is empty", "p3": "the file is empty"}


def test_which_pictures_are_scored_together_does_not_depend_on_bad_ones():
    source, _ = source_of([[0]] * 10, bad={0, 5, 6, 7, 8})
    batches = [[example.image_id for example in batch] for batch in evaluate(source, range(10), 4)]
    assert batches == [["p1", "p2", "p3"], ["p4"], ["p9"]]
    source, _ = source_of([[0]] * 10, bad={4})
    batches = [[one.image_id for one in batch] for batch in evaluate(source, [9, 4, 2, 1, 0, 3], 2)]
    assert batches == [["p9"], ["p2", "p1"], ["p0", "p3"]]


def test_no_readable_picture_ends_with_the_names():
    source, _ = source_of([[0]] * 4, bad=set(range(4)))
    with pytest.raises(Exception, match="no picture can be read(.|\n)*p0, p1, p2, p3"):
        next(iter(train(source, range(4))))


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_pictures_are_read_once_when_cached(cache, tmp_path):
    source, reads = source_of([[0]] * 8)
    read = range(2, 8)
    batches = train(source, read, cache=cache, cache_dir=tmp_path, batch_size=3, epochs=3)
    cached = positions_in(batches)
    # Two threads may want a picture at once, at the end of an epoch and early in the next.
    assert set(reads) == set(read) and len(reads) < 3 * len(read)
    reads.clear()
    assert positions_in(batches) == cached and not reads
    assert positions_in(train(source, read, cache="none", batch_size=3, epochs=3)) == cached
    assert sorted(reads) == sorted(list(read) * 3)
    assert not list(tmp_path.iterdir())


def test_cache_is_left_out_where_it_does_not_fit(monkeypatch):
    source, reads = source_of([[0]] * 8)
    monkeypatch.setattr(caches, "MEMORY_BYTES", 8 * 28 * 28 * 3 - 1)
    positions_in(train(source, range(8), epochs=2))
    assert len(reads) == 16


def test_cache_that_cannot_work_is_refused(monkeypatch, tmp_path):
    source, _ = source_of([[0]] * 8)
    with pytest.raises(ValueError, match="Legal: none, memory, disk"):
        train(source, range(8), cache="true")
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: (9, 9, 8 * 28 * 28 * 3 - 1))
    with pytest.raises(ValueError, match="more than is free"):
        train(source, range(8), cache="disk", cache_dir=tmp_path)


def test_free_order_keeps_the_samples():
    source, _ = source_of([[0]] * 16)
    assert sorted(positions_in(train(source, range(16), deterministic=False))) == list(range(16))


def test_too_few_samples_are_refused():
    source, _ = source_of([[0]] * 3)
    with pytest.raises(ValueError, match="3 training samples do not fill a batch of 4"):
        train(source, range(3))
    with pytest.raises(ValueError, match="0 training samples"):
        train(source, [])


@pytest.mark.parametrize("batches", [train, evaluate])
def test_crop_larger_than_the_resized_picture_is_refused(batches):
    source, _ = source_of([[0]] * 4)
    with pytest.raises(ValueError, match="30 < 31"):
        batches(source, range(4), input_size=31, resize_size=30)


# --- the stream ----------------------------------------------------------------------------------


def noise_source(labels, bad=()):
    """Pictures of noise, 28 x 28: cropped without a resize, so that their bytes are for ever."""

    def read_image(position):
        if position in bad:
            raise BadImage(f"{position}", "the file is empty")
        return np.random.default_rng(position).integers(0, 256, (28, 28, 3), np.uint8)

    source, _ = source_of(labels)
    return Source(**{**vars(source), "read_image": read_image})


ONE_EACH = [[i % 3] for i in range(11)]
SEVERAL = [[0, 2], [1], [0, 1, 2], [2], [1, 2]]


@pytest.mark.parametrize(
    ("labels", "bad", "options", "digest"),
    [
        (ONE_EACH, (), {}, "3e3e8c05a8806c10"),
        (ONE_EACH, (), {"seed": 7}, "9ec5c143f647fb9f"),
        (ONE_EACH, (), {"start": 3}, "85b323738f1ab347"),
        (ONE_EACH, (2, 3), {}, "f65ca548c27ac279"),
        (SEVERAL, (), {}, "412647b2438617ec"),
        (
            SEVERAL,
            (),
            {"batch_size": 8, "parts": 2, "replicas": 4, "worker": 1, "workers": 2, "start": 1},
            "60cdd12db501595a",
        ),
    ],
)
def test_batches_are_those_of_before(labels, bad, options, digest):
    """A run that was begun with an older version goes on with the batches it would have had."""
    dataset = train(noise_source(labels, bad), range(len(labels)), epochs=3, **options)
    found = hashlib.sha256()
    for batch in dataset.as_numpy_iterator():
        for array in batch:
            found.update(f"{(array.shape, array.dtype.name)}".encode())
            found.update(array.tobytes())
    assert found.hexdigest()[:16] == digest


def test_any_batch_can_be_read_by_itself():
    stream = stream_of(noise_source(SEVERAL), range(5))
    batches = list(training_batches(stream, epochs=4).as_numpy_iterator())
    assert len(batches) == 9  # of 4, out of 4 x 9 samples
    for i in (8, 0, 3):
        for ours, theirs in zip(stream[i], batches[i], strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
    # In pieces of any size the samples are the same.
    images, labels, allowed = stream.samples(3, 6)
    np.testing.assert_array_equal(images, np.concatenate([stream[0][0][3:], stream[1][0],
                                                          stream[2][0][:1]]))  # fmt: skip
    assert labels.dtype == np.int32 and allowed.shape == (6, 3)
    with pytest.raises(IndexError, match="counted from 0. Received: -1"):
        stream[-1]


def test_without_shuffle_and_augmentation_it_is_the_centre_in_order():
    source = noise_source(ONE_EACH)
    images, labels = stream_of(source, [4, 2, 9], 3, shuffle=False, augment=False)[1]
    for image, position in zip(images, (4, 2, 9), strict=True):
        np.testing.assert_array_equal(image, source.read_image(position)[2:26, 2:26])
    assert labels.tolist() == [1, 2, 0]


# --- batches for fit -----------------------------------------------------------------------------


def test_each_pass_over_the_batches_is_the_next_epoch():
    source = noise_source(ONE_EACH)
    dataset = source.batches(4, input_size=24, resize_size=28, seed=5)
    stream = stream_of(source, range(11), seed=5, min_crop=0.6)
    assert len(dataset) == 2
    assert [(tuple(s.shape), s.dtype.name) for s in dataset.element_spec] == [
        ((4, 24, 24, 3), "uint8"),
        ((4,), "int32"),
    ]
    passes = [list(dataset.as_numpy_iterator()) for _ in range(3)]
    for epoch, batches in enumerate(passes):
        # The samples that fill no batch are left out of the epoch.
        for i, batch in enumerate(batches):
            for ours, theirs in zip(batch, stream.samples(11 * epoch + 4 * i, 4), strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert len({batches[0][0].tobytes() for batches in passes}) == 3
    # Another dataset begins with the first epoch again.
    again = next(source.batches(4, input_size=24, resize_size=28, seed=5).as_numpy_iterator())
    np.testing.assert_array_equal(again[0], passes[0][0][0])


def test_batches_to_validate_on_are_every_picture_in_order():
    source = noise_source(SEVERAL)
    dataset = source.batches(
        4, input_size=24, resize_size=28, shuffle=False, augment=False, cache="none"
    )
    assert len(dataset) == 3
    first, second = (list(dataset.as_numpy_iterator()) for _ in range(2))
    assert [len(labels) for _, labels, _ in first] == [4, 4, 1]
    assert np.concatenate([labels for _, labels, _ in first]).tolist() == [
        label for labels in SEVERAL for label in labels
    ]
    for ours, theirs in zip(first, second, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    whole = next(source.batches(32, input_size=24, shuffle=False).as_numpy_iterator())
    assert len(whole[0]) == 9  # fewer than a batch


def test_batches_are_ready_for_fit():
    source = noise_source(ONE_EACH)
    seen = []

    class Model(keras.Model):
        def train_step(self, data):
            images, labels = data
            tf.py_function(lambda x: seen.append(x.numpy().tobytes()), [images], [])
            return {"labels": tf.reduce_mean(tf.cast(labels, tf.float32))}

    model = Model()
    model.compile()
    history = model.fit(
        source.batches(4, input_size=24, resize_size=28), epochs=3, shuffle=False, verbose=0
    )
    assert len(history.epoch) == 3
    assert len(seen) == 6 == len(set(seen))


def test_tuning_is_off_for_training_and_for_fit():
    """With it, the end of a training waited for ten seconds now and then."""
    source = noise_source(ONE_EACH)
    for dataset in (
        train(source, range(11)),
        source.batches(4, input_size=24, resize_size=28),
    ):
        assert dataset.options().autotune.enabled is False


# --- examples ------------------------------------------------------------------------------------


def test_examples_come_in_order_and_not_far_ahead():
    labels = [[i % 3] for i in range(60)]
    source, reads = source_of(labels)
    examples = source.read_examples(range(59, -1, -1), ahead=5)
    assert not reads
    assert next(examples).image_id == "p59"
    assert set(reads) <= set(range(59, 53, -1))
    assert [example.image_id for example in examples] == [f"p{i}" for i in range(58, -1, -1)]
    assert sorted(reads) == list(range(60))
    shifted = source.read_examples([3], lambda example: example._replace(image_id="other"))
    assert [example.image_id for example in shifted] == ["other"]
    assert len(list(source.read_examples())) == 60


def test_a_bad_picture_ends_the_reading_where_it_is_asked_to():
    source, reads = source_of([[0]] * 60, bad={7})
    strict = Source(**{**vars(source), "report": Report("fail")})
    examples = strict.read_examples(ahead=4)
    with pytest.raises(StopAtBadImage, match="/data/7.png: the file is empty.*on_bad_image=skip"):
        list(examples)
    assert max(reads) < 13
    with pytest.raises(StopAtBadImage, match="/data/7.png"):
        evaluate(strict, range(60))


def test_reading_that_is_given_up_leaves_no_thread_behind():
    source, reads = source_of([[0]] * 60)
    before = threading.active_count()
    examples = source.read_examples(ahead=4)
    next(examples)
    examples.close()
    assert threading.active_count() == before
    assert len(reads) < 10


# --- evaluation batches --------------------------------------------------------------------------


def test_evaluation_keeps_order_and_the_last_partial_batch():
    source, _ = source_of([[0], [0, 1], [2], [1], [0]])
    batches = evaluate(source, [4, 3, 2, 1, 0], batch_size=2)
    assert [[example.image_id for example in batch] for batch in batches] == [
        ["p4", "p3"],
        ["p2", "p1"],
        ["p0"],
    ]
    one, two = batches[1]
    assert one.image.shape == two.image.shape == (24, 24, 3)
    assert [one.labels.tolist(), two.labels.tolist()] == [[2], [0, 1]]
    assert [one.box_labels.tolist(), two.box_labels.tolist()] == [[2], [0, 1]]
    # Whole-picture boxes of 32, cut to the middle 24.
    assert one.boxes.tolist() == [[0, 0, 24, 24]]
    assert two.boxes.tolist() == [[0, 0, 24, 24], [0, 0, 24, 24]]
    assert one.mask.shape == two.mask.shape == (0, 0)


def test_views_are_resize_and_crop():
    source = open_dataset("shapes", "", "val", image_size=48, num_examples=4)
    (cropped,) = evaluate(source, range(4))
    (whole,) = evaluate(source, range(4), view="whole")
    for i in range(4):
        example = source.read_example(i)
        expected = transforms.center_crop(transforms.resize(example, 32), 24)
        for ours, theirs in zip(cropped[i], expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(whole[i].image, transforms.resize(example, 24).image)
    with pytest.raises(ValueError, match="Legal: crop, whole"):
        evaluate(source, range(4), view="ten")


def test_missing_masks_beside_others_stay_missing():
    source = open_dataset("shapes", "", "val", image_size=32, num_examples=2)
    read = source.read_example

    def without_second(position):
        example = read(position)
        return example._replace(mask=np.zeros((0, 0), np.uint8)) if position else example

    ((first, second),) = evaluate(
        Source(**{**vars(source), "read_example": without_second}), [0, 1]
    )
    assert first.mask.shape == (24, 24) and (first.mask != 255).all()
    assert second.mask.shape == (0, 0)


def test_evaluation_skips_and_reports_unreadable_pictures():
    source, _ = source_of([[0]] * 5, bad={1})
    found = [example.image_id for b in evaluate(source, range(5), batch_size=2) for example in b]
    assert found == ["p0", "p2", "p3", "p4"]
    assert source.report.skipped == {"p1": "the file is empty"}
    assert evaluate(source, []) == []


def test_reading_needs_no_tensorflow():
    code = """
import sys
from wsol_tf.data import batches, registry, transforms
source = registry.open_dataset("shapes", split="val", image_size=32, num_examples=4)
(batch,) = batches.evaluation_batches(source, range(4), transforms.View(28, 32))
assert len(batch) == 4
assert not {"tensorflow", "keras"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
