import subprocess
import sys

import cv2
import numpy as np
import pytest

from wsol_tf.data import shapes
from wsol_tf.data.registry import open_dataset


@pytest.mark.parametrize("index", range(12))
def test_boxes_are_the_extents_of_the_mask(index):
    example = shapes.draw(index, size=96)
    assert example.image.shape == (96, 96, 3) and example.image.dtype == np.uint8
    assert example.labels.tolist() == [index % len(shapes.CLASSES)]
    assert set(np.unique(example.mask)) == {0, 1 + index % len(shapes.CLASSES)}
    count, _, stats, _ = cv2.connectedComponentsWithStats((example.mask > 0).astype(np.uint8))
    assert count - 1 == len(example.boxes) == len(example.box_labels)
    extents = stats[1:, :4].astype(float)
    extents[:, 2:] += extents[:, :2]
    assert sorted(extents.tolist()) == sorted(example.boxes.tolist())


def test_pictures_depend_on_seed_split_and_index_only():
    def pixels(*args, **kwargs):
        return shapes.draw(*args, size=48, **kwargs).image.tobytes()

    assert pixels(3, seed=1) == pixels(3, seed=1)
    assert len({pixels(3), pixels(3, seed=1), pixels(9), pixels(3, split="val")}) == 4


@pytest.mark.parametrize("index", range(6))
def test_composition_does_not_depend_on_size(index):
    small, large = (shapes.draw(index, size=size) for size in (64, 256))
    assert len(small.boxes) == len(large.boxes)
    np.testing.assert_allclose(small.boxes * 4, large.boxes, atol=8)
    reduced = cv2.resize(large.image, (64, 64), interpolation=cv2.INTER_AREA)
    difference = np.abs(reduced.astype(float) - small.image).mean()
    assert difference < 6, difference


def test_objects_are_small_and_anywhere():
    widths, centers = [], []
    for index in range(120):
        boxes = shapes.draw(index, size=128).boxes / 128
        widths += list(np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]))
        centers += list((boxes[:, :2] + boxes[:, 2:]) / 2)
    assert min(widths) > 0.24 and max(widths) < 0.63
    # A box in the middle must not be the answer.
    assert np.std(centers, axis=0).min() > 0.15
    assert len(widths) > 130


def test_strong_cue_is_a_small_part_and_the_tint_of_the_body_is_weak():
    shares, colors = [], []
    for index in range(0, 120):
        example = shapes.draw(index, size=96)
        inside = example.mask > 0
        color = shapes.BADGE_COLORS[index % len(shapes.CLASSES)]
        badge = inside & (np.abs(example.image.astype(int) - color).max(axis=2) < 24)
        shares.append(badge.sum() / inside.sum())
        colors.append(example.image[inside & ~badge].mean(axis=0))
    assert 0.02 < np.mean(shares) < 0.15
    assert min(shares) > 0.005 and max(shares) < 0.3
    for label, badge_color in enumerate(shapes.BADGE_COLORS):
        tint = np.mean(colors[label :: len(shapes.CLASSES)], axis=0) - np.mean(colors, axis=0)
        towards = badge_color - np.mean(shapes.BADGE_COLORS, axis=0)
        # A fifth of the way to the badge's colour, and bodies of 30 vary by chance.
        share = tint @ towards / (towards @ towards)
        assert 0.08 < share < 0.3


@pytest.mark.parametrize("label", range(len(shapes.CLASSES)))
def test_weak_cue_covers_the_body_with_low_contrast(label):
    y, x = np.mgrid[:200, :200].astype(np.float32) / 400 - 0.25
    texture = shapes._texture(label, x, y, np.eye(2), np.random.default_rng(label))
    assert np.abs(texture).max() <= 1
    # In every part of the body the texture varies.
    parts = texture.reshape(4, 50, 4, 50).std(axis=(1, 3))
    assert parts.min() > 0.3
    assert shapes.TEXTURE_CONTRAST < 25


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="Legal: train, val, test"):
        shapes.draw(0, split="dev")
    with pytest.raises(ValueError, match="at least 16"):
        shapes.draw(0, size=8)
    with pytest.raises(ValueError, match=r"`num_objects` must lie in 0..4. Received: 5."):
        shapes.draw(0, num_objects=5)


def test_so_many_objects_as_asked_for_of_one_class_or_of_several():
    for number in (1, 2, 3):
        plain = shapes.draw(6, size=64, num_objects=number)
        mixed = shapes.draw(6, size=64, num_objects=number, mixed=True)
        assert plain.box_labels.tolist() == [2] * number and plain.labels.tolist() == [2]
        assert mixed.box_labels.tolist() == [2, 3, 0][:number]
        assert mixed.labels.tolist() == sorted(mixed.box_labels)
        np.testing.assert_array_equal(mixed.boxes, plain.boxes)
        np.testing.assert_array_equal(mixed.mask > 0, plain.mask > 0)
        for box, label in zip(mixed.boxes.astype(int), mixed.box_labels, strict=True):
            x0, y0, x1, y1 = box
            assert set(np.unique(mixed.mask[y0:y1, x0:x1])) <= {0, 1 + label}
    first = shapes.draw(6, size=64, num_objects=1, mixed=True)
    np.testing.assert_array_equal(first.image, shapes.draw(6, size=64, num_objects=1).image)


def test_program_writes_a_folder_that_reads_back_the_same(tmp_path):
    program = [sys.executable, "-m", "wsol_tf.data.shapes", f"--output_dir={tmp_path}"]
    options = ["--num_images=7", "--size=64", "--seed=5", "--split=val"]
    several = [f"--output_dir={tmp_path / 'several'}", "--num_objects=3", "--mixed"]
    subprocess.run(program + options + several, capture_output=True, text=True, check=True)
    example = open_dataset("voc_folder", tmp_path / "several", "val").read_example(1)
    assert example.labels.tolist() == [1, 2, 3] and len(example.boxes) == 3
    done = subprocess.run(program + options, capture_output=True, text=True, check=True)
    assert "Wrote 7 drawn pictures" in done.stdout
    folder = open_dataset("voc_folder", tmp_path, "val")
    drawn = open_dataset("shapes", "", "val", seed=5, image_size=64, num_examples=7)
    assert folder.classes == shapes.CLASSES
    assert folder.image_ids == drawn.image_ids
    for i in range(7):
        read, truth = folder.read_example(i), drawn.read_example(i)
        np.testing.assert_array_equal(read.boxes, truth.boxes)
        np.testing.assert_array_equal(read.box_labels, truth.box_labels)
        np.testing.assert_array_equal(read.mask, truth.mask)
        assert np.abs(read.image.astype(int) - truth.image).mean() < 6
