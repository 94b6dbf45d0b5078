import numpy as np

from helpers import add_map
from wsol_tf.evaluation.metrics import LocalizationMetrics
from wsol_tf.evaluation.outcomes import outcome_lines, parse_outcomes

LEFT = np.repeat([[1.0, 1.0, 0.0, 0.0]], 4, axis=0)  # a map whose left half is the object


def scored_map(score_map, **given):
    metrics = LocalizationMetrics([0.2, 0.5])
    add_map(metrics, "b", 1, [0, 3, 1], score_map, [[0, 0, 8, 16]], 16, **given)
    add_map(metrics, "a", 0, [0, 3, 1], score_map, [[0, 0, 16, 16]], 16, **given)
    return metrics


def test_lines_tell_what_became_of_each_picture_at_the_thresholds():
    mask = np.zeros((16, 16), np.uint8)
    mask[:, :8] = 1
    accumulators = {"mean": scored_map(LEFT, mask=mask), "cam": scored_map(1 - LEFT, mask=mask)}
    a, b = parse_outcomes(
        outcome_lines(accumulators, {"mean": 0.5, "cam": 0.5}, ("cat", "dog", "emu"))
    )
    assert (a["image_id"], a["class"], a["class_rank"]) == ("a", "cat", 2)
    assert (b["image_id"], b["class"], b["class_rank"]) == ("b", "dog", 0)
    assert b["iou"] == {"mean": 1.0, "cam": 0.0}
    assert a["iou"] == {"mean": 0.5, "cam": 0.5}
    assert b["mask_iou"] == {"mean": 1.0, "cam": 0.0}
    assert len(a["centered_ious"]) == 20
    assert a["centered_ious"][9] == 0.5 and a["centered_ious"][-1] == 1.0  # half, all of the view


def test_the_threshold_makes_the_difference():
    ramp = np.repeat([np.linspace(0, 1, 16)], 16, axis=0)
    accumulators = {"mean": scored_map(ramp)}
    wide, narrow = (
        parse_outcomes(outcome_lines(accumulators, {"mean": t}, "xyz"))[0]["iou"]["mean"]
        for t in (0.2, 0.5)
    )
    # Columns above 0.2: from 3.0 / 15 on, 3 / 15 itself not; above 0.5: from 8 / 15 on.
    assert (wide, narrow) == (0.75, 0.5)


def test_what_is_not_known_is_null():
    metrics = LocalizationMetrics([0.5])
    add_map(metrics, "a", 0, None, LEFT, None, 16)
    (line,) = parse_outcomes(outcome_lines({"stored": metrics}, {}, ("cat",)))
    assert line == {
        "image_id": "a",
        "class": "cat",
        "class_rank": None,
        "iou": {"stored": None},
        "mask_iou": {"stored": None},
        "centered_ious": None,
    }


def test_an_iou_just_below_a_half_is_not_rounded_up_to_a_hit():
    metrics = LocalizationMetrics(
        [0.5], box_iou=lambda boxes, true: np.full((len(boxes), 1), 0.49999996)
    )
    add_map(metrics, "a", 0, None, LEFT, [[0, 0, 8, 16]], 16)
    (line,) = parse_outcomes(outcome_lines({"mean": metrics}, {"mean": 0.5}, ("cat",)))
    assert line["iou"]["mean"] == 0.499999
