import functools
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol_tf.model import losses, score_maps

# Two images with one score map: class 0 lights up at one position, class 1 at two.
SCORES = np.array(
    [[[4, 0], [0, 2]], [[0, 2], [0, 0]]],
    np.float32,
)[None].repeat(2, axis=0)
LABELS = np.array([0, 1])


def two_way(margin):
    """Cross entropy of two classes when the label's logit is `margin` above the other."""
    return math.log(1 + math.exp(-margin))


def block_mask(top_left, top_right=((0, 0), (0, 0))):
    """Mask [2, 4, 4], the same for both images; the lower half is 0."""
    mask = np.zeros((2, 4, 4), np.float32)
    mask[:, :2, :2] = top_left
    mask[:, :2, 2:] = top_right
    return mask


def value(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def gradient(function, *arrays):
    """Gradients of the sum of a loss's per-image values; None where nothing flows."""
    tensors = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = tf.reduce_sum(function(*tensors))
    return [None if g is None else g.numpy() for g in tape.gradient(total, tensors)]


def softmax(logits):
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


@pytest.fixture
def maps(rng):
    """Random (score_map, foreground_mask, labels) of six images and five classes."""
    score_map = rng.normal(size=(6, 4, 4, 5)).astype(np.float32) * 3
    mask = rng.uniform(size=(6, 8, 8)).astype(np.float32)
    return score_map, mask, np.array([0, 1, 2, 3, 4, 0])


def every_term(score_map, mask, labels, allowed=None):
    """All by name; the erased features' score map is replaced by half of the other."""
    return {
        "cls": losses.classification(score_map, labels, allowed),
        "cls_fg": losses.foreground_classification(score_map, mask, labels, allowed),
        "ae": losses.erasing_score_map(score_map, labels, 0.7, allowed),
        "ae_fg": losses.erasing_foreground_mask(score_map, mask, labels, 0.9, allowed=allowed),
        "pseudo": losses.pseudo_label(mask, 0.7, 0.2),
        "bas": losses.background_activation_suppression(
            losses.class_activation(score_map, labels),
            losses.class_activation(score_map, labels) * 0.5,
        ),
        "ac": losses.area_constraint(mask),
        "background": losses.background(mask[..., None]),
    }


def test_terms_names_all(maps):
    assert tuple(every_term(*maps)) == losses.TERMS


# Numbers worked out by hand


def test_classification_by_hand():
    # The averages over four positions are 1 for class 0 and (2 + 2) / 4 = 1 for class 1.
    got = value(losses.classification(SCORES, LABELS))
    np.testing.assert_allclose(got, [math.log(2)] * 2, rtol=1e-6)


def test_foreground_classification_by_hand():
    # Pooled mask: 1 at the top left, 1/2 at the top right. Averages: 4/4 and 2/2/4.
    mask = block_mask(1, [[1, 1], [0, 0]])
    got = value(losses.foreground_classification(SCORES, mask, LABELS))
    np.testing.assert_allclose(got, [two_way(1 - 0.25), two_way(0.25 - 1)], rtol=1e-6)


def test_erasing_score_map_by_hand():
    # Label 0: its one position goes, class 1 keeps 1. Label 1: both positions go, class 0 keeps 1.
    got = value(losses.erasing_score_map(SCORES, LABELS, 0.7))
    np.testing.assert_allclose(got, [two_way(-1), two_way(-1)], rtol=1e-6)


def test_erasing_score_map_erases_all_channels_at_and_above_the_threshold():
    # Relative to class 0's maximum: 1, 0.5, 0.25, 0. Class 1 is 8 where class 0 is 2.
    score_map = np.array([[[[4, 0], [2, 8]], [[1, 0], [0, 4]]]], np.float32)
    by_threshold = {0.6: (3 / 4, 12 / 4), 0.5: (1 / 4, 4 / 4), 0.25: (0, 4 / 4)}
    for threshold, (own, other) in by_threshold.items():
        got = value(losses.erasing_score_map(score_map, np.array([0]), threshold))
        np.testing.assert_allclose(got, [two_way(own - other)], rtol=1e-6)


def test_erasing_score_map_ignores_negative_scores_when_normalizing():
    # -8 has the largest magnitude, but only 1 (the maximum of the positive part) is erased.
    score_map = np.array([[[[1, 0], [-8, 0]], [[0.5, 0], [0, 0]]]], np.float32)
    got = value(losses.erasing_score_map(score_map, np.array([0]), 0.7))
    np.testing.assert_allclose(got, [two_way((-8 + 0.5) / 4)], rtol=1e-6)


def test_erasing_foreground_mask_by_hand():
    # 1 and 0.95 are erased; what is left pools to (0.5 + 0.25) / 4 over class 0's 4.
    mask = block_mask([[1, 0.95], [0.5, 0.25]])
    got = value(losses.erasing_foreground_mask(SCORES, mask, LABELS, 0.9))
    np.testing.assert_allclose(got, [two_way(0.1875), two_way(-0.1875)], rtol=1e-6)


def test_erasing_foreground_mask_is_relative_to_the_maximum_unless_absolute():
    mask = block_mask([[0.5, 0.475], [0.25, 0.125]])
    got = value(losses.erasing_foreground_mask(SCORES, mask, LABELS, 0.9))
    np.testing.assert_allclose(got, [two_way(0.09375), two_way(-0.09375)], rtol=1e-6)
    # No position reaches 0.9 itself: nothing is erased. The mask pools to 1.35 / 4.
    absolute = value(losses.erasing_foreground_mask(SCORES, mask, LABELS, 0.9, absolute=True))
    np.testing.assert_allclose(absolute, [two_way(0.3375), two_way(-0.3375)], rtol=1e-6)


def test_pseudo_label_by_hand():
    mask = np.array([[[0.8, 0.6], [0.3, 0.1]]], np.float32)
    # Shares of the maximum: 1, 0.75, 0.375, 0.125. The third lies between and is ignored.
    expected = (abs(0.8 - 1) + abs(0.6 - 1) + 0.1) / 3
    np.testing.assert_allclose(value(losses.pseudo_label(mask, 0.7, 0.2)), [expected], rtol=1e-6)
    absolute = value(losses.pseudo_label(mask, 0.7, 0.2, absolute=True))
    np.testing.assert_allclose(absolute, [(0.2 + 0.1) / 2], rtol=1e-6)


def test_foreground_pseudo_labels_weigh_no_more_than_background_ones():
    mask = np.array(
        [
            [[0.9, 0.8, 0.6], [0.7, 0.1, 0.3]],  # four say foreground, one background
            [[0.9, 0.2, 0.2], [0.1, 0.1, 0.3]],  # one, and four
            [[0.9, 0.9, 0.9], [0.9, 0.9, 0.9]],  # all
        ],
        np.float32,
    )
    got = value(losses.pseudo_label(mask, 0.5, 0.25, True, None, balance=True))
    expected = [((0.1 + 0.2 + 0.4 + 0.3) / 4 + 0.1) / 5, (0.1 + 0.2 + 0.2 + 0.1 + 0.1) / 5, 0]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    plain = value(losses.pseudo_label(mask, 0.5, 0.25, absolute=True))
    np.testing.assert_allclose(plain, [1.1 / 5, got[1], 0.1], rtol=1e-6)


@given(
    seed=st.integers(0, 2**32 - 1), bright=st.floats(-0.7, 0.7), run=st.sampled_from([True, False])
)
@settings(max_examples=50, deadline=None)
def test_balanced_pseudo_labels_push_up_no_more_than_down(seed, bright, run):
    """Whatever the labels say, a step against the gradient adds nothing to the mask's sum."""
    rng = np.random.default_rng(seed)
    mask = rng.uniform(0.01, 0.99, (3, 4, 4)).astype(np.float32)
    refined = np.clip(rng.random((3, 4, 4)) + bright, 0, 1).astype(np.float32)

    def pushed(balance):
        loss = functools.partial(losses.pseudo_label, refined_mask=refined, balance=balance)
        (got,) = gradient(lambda m: (tf.function(loss) if run else loss)(m, 0.5, 0.3), mask)
        return got.sum((1, 2))

    assert (pushed(True) > -1e-6).all()
    above, below = (refined > 0.5).sum((1, 2)), (refined < 0.3).sum((1, 2))
    expected = (below - np.minimum(above, below)) / np.maximum(above + below, 1)
    np.testing.assert_allclose(pushed(True), expected, atol=1e-6)
    np.testing.assert_allclose(
        pushed(False), (below - above.astype(float)) / np.maximum(above + below, 1), atol=1e-6
    )


def test_pseudo_label_divides_by_no_less_than_one():
    mask = np.array([[[0.5, 0.95]]], np.float32)
    got = value(losses.pseudo_label(mask, 0.9, 0.1, absolute=True))
    np.testing.assert_allclose(got, [0.05], rtol=1e-5)


MIXED = np.array([[[[4, -1], [-2, -3]], [[0, -1], [2, -1]]]], np.float32)


@pytest.mark.parametrize(
    "form, of_class_0", [("mean_of_relu", (4 + 0 + 0 + 2) / 4), ("relu_of_mean", (4 - 2 + 2) / 4)]
)
def test_class_activation_by_hand(form, of_class_0):
    got = value(losses.class_activation(MIXED, np.array([0]), form))
    assert got == pytest.approx([of_class_0])
    assert value(losses.class_activation(MIXED, np.array([1]), form)) == pytest.approx([0])
    # Where no score is negative, as behind a final ReLU, the forms are one.
    behind_relu = np.maximum(MIXED, 0)
    assert value(losses.class_activation(behind_relu, np.array([0]), form)) == pytest.approx([1.5])


@pytest.mark.parametrize(
    "form, to_class_0",
    [("mean_of_relu", [[0.25, 0], [0, 0.25]]), ("relu_of_mean", [[0.25, 0.25], [0.25, 0.25]])],
)
def test_a_class_is_suppressed_where_it_lights_up_or_everywhere(form, to_class_0):
    """Of S_bg, which has a gradient: negative positions, and those at 0, have one or none."""
    (to_scores,) = gradient(lambda x: losses.class_activation(x, np.array([0]), form), MIXED)
    np.testing.assert_allclose(to_scores[0, ..., 0], to_class_0)
    np.testing.assert_array_equal(to_scores[0, ..., 1], 0)
    (to_scores,) = gradient(lambda x: losses.class_activation(x, np.array([1]), form), MIXED)
    np.testing.assert_array_equal(to_scores, 0)  # the sum of class 1 is negative


def test_background_activation_suppression_by_hand():
    activation = np.array([2, 2, 0, 0, 2, 4], np.float32)
    background = np.array([1, 2, 1, 0, 0, 9], np.float32)
    got = value(losses.background_activation_suppression(activation, background))
    np.testing.assert_allclose(got, [0.5, 0, 0, 0, 0, 0], rtol=1e-6)
    to_activation, to_background = gradient(
        losses.background_activation_suppression, activation, background
    )
    assert to_activation is None
    np.testing.assert_allclose(to_background, [0.5, 0, 0, 0, 0.5, 0], rtol=1e-6)


def test_pseudo_foreground_by_hand():
    # Of the maximum 0.8: 1, 3/4 and 1/8 at one position each, 1/2 at the others.
    mask = np.full((1, 4, 4), 0.4, np.float32)
    mask[0, 0, :3] = 0.8, 0.6, 0.1
    share = losses.pseudo_foreground
    assert value(share(mask, 0.7, 0.2)) == pytest.approx([2 / 3])
    assert value(share(mask, 0.7, 0.1)) == pytest.approx([1])
    assert value(share(mask, 0.7, 0.2, True)) == pytest.approx([1 / 2])  # 0.8 against 0.1
    assert value(share(mask, 1.0, 0.0)) == pytest.approx([0])  # no label at all
    refined = 1 - mask  # 0.9 against 0.2
    assert value(share(mask, 0.7, 0.25, False, refined)) == pytest.approx([1 / 2])


def test_right_inside_by_hand():
    # Class 0 has its evidence at the left, class 1 three times as much at the right.
    score_map = np.zeros((3, 2, 2, 2), np.float32)
    score_map[:, :, 0, 0], score_map[:, :, 1, 1] = 1, 3
    mask = np.zeros((3, 4, 4), np.float32)
    mask[0], mask[1, :, :2], mask[2, :, :2] = 1, 0.01, 0.9
    mask[2, :, 2:] = 0.31  # 0.9 against 0.93
    labels = np.array([0, 0, 0])
    assert value(losses.right_inside(score_map, mask, labels)).tolist() == [0, 1, 0]
    assert value(losses.right_inside(score_map, mask, 1 - labels)).tolist() == [1, 0, 1]
    only = np.array([[True, False]] * 3)
    assert value(losses.right_inside(score_map, mask, labels, only)).tolist() == [1, 1, 1]
    for gradients in gradient(losses.right_inside, score_map, mask, labels):
        assert gradients is None


def test_area_constraint_by_hand():
    mask = block_mask([[1, 0.5], [0, 0.5]])
    assert value(losses.area_constraint(mask)) == pytest.approx([2 / 16] * 2)


def test_cross_entropy_by_hand():
    logits = np.log(np.array([[1, 2, 5], [1, 2, 5]], np.float32))
    got = value(losses.cross_entropy(logits, np.array([0, 2])))
    np.testing.assert_allclose(got, [-math.log(1 / 8), -math.log(5 / 8)], rtol=1e-6)


def test_pool_to_averages_squares_of_any_factor():
    mask = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    np.testing.assert_array_equal(
        value(losses.pool_to(mask, np.zeros((1, 2, 2, 3)))), [[[2.5, 4.5], [10.5, 12.5]]]
    )
    np.testing.assert_array_equal(value(losses.pool_to(mask, np.zeros((1, 4, 4, 3)))), mask)
    np.testing.assert_array_equal(value(losses.pool_to(mask, np.zeros((1, 1, 1, 3)))), [[[7.5]]])


def test_of_class_picks_the_label_or_the_only_channel(maps):
    score_map, _, labels = maps
    picked = value(losses.of_class(score_map, labels))
    np.testing.assert_array_equal(picked, [score_map[i, :, :, c] for i, c in enumerate(labels)])
    one = score_map[..., :1]
    np.testing.assert_array_equal(value(losses.of_class(one, labels)), one[..., 0])


def test_normalized_is_a_share_of_the_maximum_without_gradient():
    maps = np.array([[[1, 2], [0, 4]], [[0, 0], [0, 0]]], np.float32)
    expected = [[[0.25, 0.5], [0, 1]], [[0, 0], [0, 0]]]
    np.testing.assert_allclose(value(losses.normalized(maps)), expected, rtol=1e-6)
    assert gradient(losses.normalized, maps) == [None]


# Invariants


def test_thresholds_above_one_erase_nothing(maps):
    score_map, mask, labels = maps
    np.testing.assert_array_equal(
        value(losses.erasing_score_map(score_map, labels, 1.01)),
        value(losses.classification(score_map, labels)),
    )
    np.testing.assert_array_equal(
        value(losses.erasing_foreground_mask(score_map, mask, labels, 1.01)),
        value(losses.foreground_classification(score_map, mask, labels)),
    )


def test_threshold_zero_erases_the_whole_map(maps):
    score_map, mask, labels = maps
    for got in (
        losses.erasing_score_map(score_map, labels, 0.0),
        losses.erasing_foreground_mask(score_map, mask, labels, 0.0),
    ):
        np.testing.assert_allclose(value(got), [math.log(5)] * 6, rtol=1e-6)


def test_an_empty_mask_gives_log_of_classes(maps):
    score_map, mask, labels = maps
    got = losses.foreground_classification(score_map, np.zeros_like(mask), labels)
    np.testing.assert_allclose(value(got), [math.log(5)] * 6, rtol=1e-6)


def test_a_full_mask_gives_plain_classification(maps):
    score_map, mask, labels = maps
    got = losses.foreground_classification(score_map, np.ones_like(mask), labels)
    np.testing.assert_allclose(
        value(got), value(losses.classification(score_map, labels)), rtol=1e-6
    )


def test_no_gradient_through_the_erasing_of_the_score_map(maps):
    score_map, _, labels = maps
    (got,) = gradient(lambda s: losses.erasing_score_map(s, labels, 0.7), score_map)
    own = np.maximum([score_map[i, :, :, c] for i, c in enumerate(labels)], 0)
    kept = own / own.max((1, 2), keepdims=True) < 0.7
    assert 0 < kept.mean() < 1
    logits = (score_map * kept[..., None]).mean((1, 2))
    error = (softmax(logits) - np.eye(5)[labels])[:, None, None]
    np.testing.assert_allclose(got, error * kept[..., None] / 16, atol=1e-6)


def test_no_gradient_through_the_erasing_of_the_mask(maps):
    score_map, mask, labels = maps
    got_scores, got_mask = gradient(
        lambda s, m: losses.erasing_foreground_mask(s, m, labels, 0.9), score_map, mask
    )
    kept = mask / mask.max((1, 2), keepdims=True) < 0.9
    assert 0 < kept.mean() < 1
    pooled = (mask * kept).reshape(6, 4, 2, 4, 2).mean((2, 4))
    logits = (score_map * pooled[..., None]).mean((1, 2))
    error = (softmax(logits) - np.eye(5)[labels])[:, None, None]
    np.testing.assert_allclose(got_scores, error * pooled[..., None] / 16, atol=1e-6)
    to_pooled = (error * score_map).sum(-1) / 16
    expected = to_pooled.repeat(2, 1).repeat(2, 2) / 4 * kept
    np.testing.assert_allclose(got_mask, expected, atol=1e-6)


def test_foreground_classification_has_gradient_into_both_factors(maps):
    score_map, mask, labels = maps
    for got in gradient(
        lambda s, m: losses.foreground_classification(s, m, labels), score_map, mask
    ):
        assert np.abs(got).max() > 1e-3


def test_no_gradient_through_pseudo_labels_and_their_weights(maps):
    _, mask, _ = maps
    (got,) = gradient(lambda m: losses.pseudo_label(m, 0.7, 0.2), mask)
    share = mask / mask.max((1, 2), keepdims=True)
    target = share > 0.7
    weight = target | (share < 0.2)
    expected = weight * np.sign(mask - target) / weight.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(got, expected, atol=1e-7)


def test_pseudo_label_without_a_confident_position_is_zero_with_zero_gradient():
    mask = np.full((2, 4, 4), 0.5, np.float32)

    def loss(m):
        return losses.pseudo_label(m, 0.7, 0.2, absolute=True)

    np.testing.assert_array_equal(value(loss(mask)), [0, 0])
    np.testing.assert_array_equal(gradient(loss, mask)[0], np.zeros_like(mask))


def test_background_by_hand():
    # -log(1 - 0) is 0 and -log(1 - 1/2) is log 2: at one of four positions, then at one of eight.
    half = np.array([[[[0.5], [0]], [[0], [0]]]], np.float32)
    np.testing.assert_allclose(value(losses.background(half)), [math.log(2) / 4], rtol=1e-6)
    two_maps = np.concatenate([half, np.zeros_like(half)], axis=-1)
    np.testing.assert_allclose(value(losses.background(two_maps)), [math.log(2) / 8], rtol=1e-6)
    empty = value(losses.background(np.zeros((1, 2, 2, 1), np.float32)))
    np.testing.assert_array_equal(empty, [0])


def test_background_of_a_full_mask_is_finite_and_pushes_every_position_down():
    full = np.ones((1, 2, 2, 1), np.float32)
    np.testing.assert_allclose(value(losses.background(full)), [-math.log(1e-7)], rtol=1e-6)
    near = np.full((1, 2, 2, 1), 0.9, np.float32)
    (down,) = gradient(losses.background, near)
    np.testing.assert_allclose(down, np.full((1, 2, 2, 1), 10 / 4), rtol=1e-5)


def test_the_mean_over_a_batch_is_that_over_the_images_a_value_applies_to():
    values = np.array([1, np.inf, 3, 5], np.float32)
    got = value(losses.over(np.array([True, False, True, False]), values))
    np.testing.assert_allclose(got, [2, 0, 6, 0])
    assert got.mean() == (1 + 3) / 2
    np.testing.assert_array_equal(value(losses.over(np.zeros(4, bool), values)), [0] * 4)
    ones = np.ones(3, np.float32)
    np.testing.assert_array_equal(value(losses.over(np.ones(3, bool), ones)), ones)


def test_zeros_everywhere_give_finite_values_and_gradients():
    score_map, mask = np.zeros((2, 2, 2, 3), np.float32), np.zeros((2, 4, 4), np.float32)
    labels = np.array([0, 2])
    for name in losses.TERMS:

        def loss(s, m, name=name):
            return every_term(s, m, labels)[name]

        assert np.isfinite(value(loss(score_map, mask))).all(), name
        for got in gradient(loss, score_map, mask):
            assert got is None or np.isfinite(got).all(), name


@pytest.mark.parametrize("name", losses.TERMS)
def test_each_value_is_of_its_image_alone(maps, name):
    score_map, mask, labels = maps
    whole = value(every_term(score_map, mask, labels)[name])
    assert whole.shape == (6,)
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = value(every_term(score_map[order], mask[order], labels[order])[name])
    np.testing.assert_allclose(shuffled, whole[order], rtol=1e-6)
    changed_scores, changed_mask = score_map * 5 + 1, mask**2
    changed_scores[2], changed_mask[2] = score_map[2], mask[2]
    changed = value(every_term(changed_scores, changed_mask, labels)[name])
    np.testing.assert_allclose(changed[2], whole[2], rtol=1e-6)


@pytest.mark.parametrize("name", ["cls", "cls_fg", "ae", "ae_fg"])
def test_classes_that_are_not_allowed_take_no_part(maps, name):
    score_map, mask, _ = maps
    labels = np.array([0, 1, 3, 3, 1, 0])
    allowed = np.ones((6, 5), bool)
    allowed[:, [2, 4]] = False
    got = value(every_term(score_map, mask, labels, allowed)[name])
    rank = {0: 0, 1: 1, 3: 2}
    without = every_term(score_map[..., [0, 1, 3]], mask, np.array([rank[c] for c in labels]))
    np.testing.assert_allclose(got, value(without[name]), rtol=1e-5)
    to_scores, _ = gradient(lambda s, m: every_term(s, m, labels, allowed)[name], score_map, mask)
    np.testing.assert_array_equal(to_scores[..., [2, 4]], 0)


def test_allowing_all_classes_changes_nothing(maps):
    score_map, _, labels = maps
    np.testing.assert_array_equal(
        value(losses.classification(score_map, labels, np.ones((6, 5), bool))),
        value(losses.classification(score_map, labels)),
    )


@pytest.mark.parametrize("name", losses.TERMS)
def test_float32_from_bfloat16(maps, name):
    score_map, mask, labels = maps
    low = [tf.cast(x, tf.bfloat16) for x in (score_map, mask)]
    got = every_term(*low, labels)[name]
    assert got.dtype == tf.float32
    # Nothing is computed in 16 bits: the values are those of the rounded inputs.
    exact = every_term(*[tf.cast(x, tf.float32) for x in low], labels)[name]
    np.testing.assert_allclose(value(got), value(exact), rtol=1e-6)


def test_eager_equals_graph(maps):
    score_map, mask, labels = maps
    eager = every_term(score_map, mask, labels)
    graph = tf.function(every_term)(tf.constant(score_map), tf.constant(mask), labels)
    for name in losses.TERMS:
        np.testing.assert_allclose(value(eager[name]), value(graph[name]), rtol=1e-6, err_msg=name)


def _numbers(low, high, count):
    number = st.floats(low, high, width=32)
    return st.lists(number, min_size=count, max_size=count)


@settings(max_examples=60, deadline=None)
@given(_numbers(-1000, 1000, 12), _numbers(0, 1, 16), st.integers(0, 2), st.floats(0, 2))
def test_ranges(scores, positions, label, background):
    score_map = np.array(scores, np.float32).reshape(1, 2, 2, 3)
    mask = np.array(positions, np.float32).reshape(1, 4, 4)
    terms = every_term(score_map, mask, np.array([label]))
    activation = losses.class_activation(score_map, np.array([label]))
    terms["bas"] = losses.background_activation_suppression(activation, activation * background)
    for name, got in terms.items():
        assert np.isfinite(value(got)).all() and (value(got) >= 0).all(), name
    for name in ("pseudo", "bas", "ac"):
        assert (value(terms[name]) <= 1).all(), name


# The numbers of BAS's own code


@pytest.fixture(scope="module")
def vectors(shared_dir):
    folder = shared_dir / "vectors"
    with np.load(folder / "bas_vectors_open.npz") as file:
        arrays = {
            name: array.transpose(0, 2, 3, 1) if _is_map(name, array) else array
            for name, array in file.items()
        }
    return arrays, json.loads((folder / "bas_vectors_open.json").read_text())


def _is_map(name, array):
    return array.ndim == 4 and name.startswith(("train_", "eval_"))


AREA_WEIGHTS = {"mobilenet": 1.5, "inception": 1.0, "resnet": 1.2, "vgg": 0.7}


@pytest.mark.realdata
@pytest.mark.parametrize("network", AREA_WEIGHTS)
def test_bas_cases(vectors, network):
    arrays, _ = vectors
    for case in range(16):
        ratio = losses.background_activation_suppression(
            arrays["case_x_sum"][case], arrays["case_x_erase_sum"][case]
        )
        area = losses.area_constraint(arrays["case_mask"][case, :, 0])
        got = value(ratio + AREA_WEIGHTS[network] * area).mean()
        np.testing.assert_allclose(
            got, arrays[f"case_loss_cub_{network}"][case], rtol=1e-6, err_msg=f"case {case}"
        )


@pytest.mark.realdata
def test_bas_case_gradients(vectors):
    arrays, _ = vectors
    for case in range(16):
        to_activation, to_background = gradient(
            lambda s, b: losses.background_activation_suppression(s, b) / 3,
            arrays["case_x_sum"][case],
            arrays["case_x_erase_sum"][case],
        )
        assert to_activation is None
        expected = arrays["case_grad_x_erase_sum_cub_mobilenet"][case]
        np.testing.assert_allclose(to_background, expected, rtol=1e-6, err_msg=f"case {case}")


@pytest.mark.realdata
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_bas_losses_of_whole_maps(vectors, mode):
    arrays, _ = vectors
    of = {name.removeprefix(f"{mode}_"): array for name, array in arrays.items()}
    labels, mask = arrays["labels"], of["mask"][..., 0]
    score_map = of["feature_map"]
    np.testing.assert_array_equal(value(losses.of_class(of["mask_all"], labels)), mask)
    activation = losses.class_activation(score_map, labels)
    background = losses.class_activation(of["erase_feature_map"], labels)
    np.testing.assert_allclose(value(activation), of["x_sum"], rtol=1e-6)
    np.testing.assert_allclose(value(background), of["x_erase_sum"], rtol=1e-6)
    cls = value(losses.classification(score_map, labels))
    foreground = value(losses.foreground_classification(score_map, mask, labels))
    ratio = value(losses.background_activation_suppression(of["x_sum"], of["x_erase_sum"]))
    area = value(losses.area_constraint(mask))
    np.testing.assert_allclose(ratio, of["bas_ratio_kept"], rtol=1e-6)
    np.testing.assert_allclose(area, of["area"], rtol=1e-6)
    bas = ratio + 1.5 * area
    for name, got in {
        "cls": cls,
        "frg": foreground,
        "bas": bas,
        "total": cls + 0.5 * foreground + bas,
    }.items():
        np.testing.assert_allclose(got.mean(), of[f"loss_{name}"], rtol=1e-6, err_msg=name)


@pytest.mark.realdata
def test_bas_losses_of_the_ilsvrc_code(vectors):
    arrays, _ = vectors
    labels, score_map = arrays["labels"], arrays["train_feature_map"]
    mask = arrays["train_mask"][..., 0]
    np.testing.assert_allclose(score_map.mean((1, 2)), arrays["ilsvrc_train_score_1"], rtol=1e-6)
    cls = value(losses.classification(score_map, labels))
    foreground = value(losses.foreground_classification(score_map, mask, labels))
    np.testing.assert_allclose(
        (cls + 0.5 * foreground).mean(), arrays["ilsvrc_train_loss_cls_plus_half_frg"], rtol=1e-6
    )
    ratio = value(
        losses.background_activation_suppression(arrays["train_x_sum"], arrays["train_x_erase_sum"])
    )
    bas = ratio + 1.5 * value(losses.area_constraint(mask))
    np.testing.assert_allclose(bas.mean(), arrays["ilsvrc_train_loss_bas"], rtol=1e-6)


@pytest.mark.realdata
def test_bas_gradients_with_respect_to_the_maps(vectors):
    """The last layers' bias gradients are sums over the maps' gradients."""
    arrays, _ = vectors
    labels, score_map = arrays["labels"], arrays["train_feature_map"]
    mask = arrays["train_mask"][..., 0]

    def bias_gradients(loss):
        to_scores, to_mask = gradient(lambda s, m: loss(s, m) / 3, score_map, mask)
        to_scores = np.where(score_map > 0, to_scores, 0).sum((0, 1, 2))  # through the final ReLU
        to_localizer = np.zeros(6)
        if to_mask is not None:
            to_localizer[labels] = (to_mask * mask * (1 - mask)).sum((1, 2))  # the sigmoid
        return to_scores, to_localizer

    for name, loss in {
        "cls": lambda s, m: losses.classification(s, labels),
        "frg": lambda s, m: losses.foreground_classification(s, m, labels),
    }.items():
        to_scores, to_localizer = bias_gradients(loss)
        np.testing.assert_allclose(
            to_scores, arrays[f"grad_{name}_classifier_cls.4.bias"], rtol=1e-5, err_msg=name
        )
        np.testing.assert_allclose(
            to_localizer, arrays[f"grad_{name}_classifier_loc.0.bias"], rtol=1e-4, err_msg=name
        )


@pytest.mark.realdata
@pytest.mark.parametrize("k", [3, 6])
def test_bas_mean_of_the_best_classes(vectors, k):
    arrays, _ = vectors
    for image in range(3):
        got = score_maps.map_of(
            "topk",
            arrays["eval_mask_all"][image],
            arrays["eval_feature_map"][image],
            arrays["eval_score_1"][image],
            int(arrays["labels"][image]),
            top_k=k,
        )
        np.testing.assert_allclose(got, arrays[f"eval_mask_top{k}"][image, ..., 0], rtol=1e-6)
