import numpy as np
import pytest

from wsol_tf.evaluation.paired import Difference
from wsol_tf.studies import results, trials
from wsol_tf.studies.choice import choice_of
from wsol_tf.studies.grid import Row
from wsol_tf.studies.results import Finished
from wsol_tf.studies.trials import Trial


def line_of(image_id, iou, *, name="cat", rank=0, cam=0.0, mask=None, centered=None):
    return {
        "image_id": image_id,
        "class": name,
        "class_rank": rank,
        "iou": {"mean": iou, "cam": cam},
        "mask_iou": {"mean": mask, "cam": None},
        "centered_ious": centered,
    }


def finished_of(label, lines, *, seed=0, fold=0, v2=None):
    trial = Trial(Row(label, {}), seed, fold, 2 if fold else 0, f"/nowhere/{label}{seed}{fold}", ())
    figures = {"map": "mean", "minutes": 2.0, "num_pairs": len(lines)}
    return Finished(trial, figures | {"max_box_acc_v2": {"value": v2}}, lines)


def table_of(*finished):
    return results.results_of([each.trial for each in finished], finished)


def test_figures_are_pooled_over_all_pictures_of_all_folds():
    # Three pictures in one fold, one in the other: 2 of 4 hits are 0.5, the mean of folds is 2 / 3.
    (row,) = table_of(
        finished_of(
            "a", [line_of("1", 0.6, cam=0.5), line_of("2", 0.4), line_of("3", 0.2)], fold=1
        ),
        finished_of("a", [line_of("4", 1.0, rank=2, mask=0.75)], fold=2),
    )
    assert row.figures["gt_known_loc"].mean == 0.5
    assert row.figures["miou_box"].mean == pytest.approx(2.2 / 4)
    assert row.figures["miou_mask"].mean == 0.75  # one picture has a mask
    assert row.figures["top1_cls"].mean == 0.75
    assert row.figures["top1_loc"].mean == 0.25
    assert row.figures["cam"].mean == 0.25
    assert row.figures["gt_known_loc"].spread is None  # one seed
    assert (row.num_images, row.num_pairs, row.finished, row.number) == (4, 4, 2, 2)
    assert "centred_box" not in row.figures and not row.differences


def test_trials_that_refined_are_read_before_and_after():
    lines = [line_of("1", 0.9), line_of("2", 0.6)]
    for line, plain in zip(lines, (0.7, 0.4), strict=True):
        line["iou"]["plain"], line["mask_iou"]["plain"] = plain, None
    after, before, other = table_of(
        finished_of("a", lines, v2=0.5), finished_of("b", [line_of("1", 0.1)])
    )
    assert (after.row.label, before.row.label) == ("a", "a, not refined")
    assert (after.figures["miou_box"].mean, before.figures["miou_box"].mean) == (0.75, 0.55)
    assert (after.figures["gt_known_loc"].mean, before.figures["gt_known_loc"].mean) == (1, 0.5)
    assert before.differences["miou_box"].mean == pytest.approx(-0.2)
    assert "max_box_acc_v2" in after.figures and "max_box_acc_v2" not in before.figures
    assert other.row.label == "b" and other.differences["gt_known_loc"].mean == -1


def test_trials_that_took_objects_apart_are_read_both_ways():
    line = line_of("1", 0.9)
    line["iou"]["whole"], line["mask_iou"]["whole"] = 0.4, None
    apart, whole = table_of(finished_of("a", [line]))
    assert whole.row.label == "a, not separated"
    assert (apart.figures["gt_known_loc"].mean, whole.figures["gt_known_loc"].mean) == (1, 0)


def test_an_iou_of_a_half_is_a_hit_and_what_is_cut_below_it_is_none():
    (row,) = table_of(finished_of("a", [line_of("1", 0.5), line_of("2", 0.499999)]))
    assert row.figures["gt_known_loc"].mean == 0.5


def test_rows_are_compared_with_the_seeds_that_both_have():
    # With seed 0 both hit one of two. Seed 1 of the first row, which hits none, plays no part; nor
    # does the second picture of seed 2, which the second row has not scored.
    first, second = table_of(
        finished_of("a", [line_of("1", 0.9), line_of("2", 0.1)], seed=0),
        finished_of("a", [line_of("1", 0.0), line_of("2", 0.0)], seed=1),
        finished_of("a", [line_of("1", 0.8), line_of("2", 0.8)], seed=2),
        finished_of("b", [line_of("1", 0.4), line_of("2", 0.7)], seed=0),
        finished_of("b", [line_of("1", 0.8)], seed=2),
    )
    assert first.figures["gt_known_loc"].mean == 0.5  # of all its seeds
    # Picture 1: means of 0.85 and 0.6; picture 2, of seed 0 alone: 0.1 and 0.7.
    difference = second.differences["miou_box"]
    assert difference.mean == pytest.approx((-0.25 + 0.6) / 2)
    assert difference.by_seed == pytest.approx(((-0.5 + 0.6) / 2, 0.0))
    hits = second.differences["gt_known_loc"]
    assert hits.mean == pytest.approx((-0.5 + 1) / 2)
    assert (hits.gained, hits.lost) == (1, 1)


def test_rows_without_a_common_seed_are_compared_as_they_are():
    _, second = table_of(
        finished_of("a", [line_of("1", 0.9)], seed=0), finished_of("b", [line_of("1", 0.5)], seed=1)
    )
    assert second.differences["miou_box"].mean == pytest.approx(-0.4)
    assert second.differences["miou_box"].by_seed == ()


def test_the_spread_is_that_of_the_seeds_pooled_figures():
    both = [
        finished_of("a", [line_of("1", hit_1), line_of("2", hit_2)], seed=seed)
        for seed, hit_1, hit_2 in ((0, 1, 1), (1, 1, 0), (2, 0, 0))
    ]
    (row,) = table_of(*both)
    assert row.figures["gt_known_loc"].mean == 0.5
    assert row.figures["gt_known_loc"].spread == 0.5  # of 1, 1/2, 0
    assert row.seeds == (0, 1, 2)


def test_the_centred_box_has_one_size_for_all_pictures():
    first, second = [0.6] + [0.0] * 19, [0.6, 0.9] + [0.0] * 18
    (row,) = table_of(
        finished_of("a", [line_of("1", 1, centered=first)], fold=1),
        finished_of("a", [line_of("2", 1, centered=second), line_of("3", 1)], fold=2),
    )
    assert row.figures["centred_box"].mean == 1  # the first size; picture 3 has no box


def test_max_box_acc_v2_is_averaged_over_folds_by_their_pictures_and_then_over_seeds():
    three, one = [line_of(name, 1) for name in "123"], [line_of("4", 1)]
    (row,) = table_of(
        finished_of("a", three, fold=1, v2=0.8),
        finished_of("a", one, fold=2, v2=0.4),
        finished_of("a", three, fold=1, seed=1, v2=0.9),
        finished_of("a", one, fold=2, seed=1, v2=0.9),
    )
    assert row.figures["max_box_acc_v2"].mean == pytest.approx((0.7 + 0.9) / 2)
    assert row.figures["max_box_acc_v2"].spread == pytest.approx(0.2 / np.sqrt(2))


def test_differences_are_on_the_pictures_that_both_rows_have_scored():
    first = [line_of(str(i), 1.0 if i < 4 else 0.0) for i in range(8)]
    second = [line_of(str(i), 1.0 if i < 7 else 0.0) for i in range(8)]
    _, row = table_of(finished_of("a", first), finished_of("b", second[2:]))
    difference = row.differences["gt_known_loc"]
    assert difference.mean == 0.5  # pictures 2 to 7: 2 hits and 5
    assert (difference.gained, difference.lost, difference.p) == (3, 0, 0.25)
    assert difference.by_seed == (0.5,)
    assert 0 <= difference.low < 0.5 < difference.high <= 1
    assert row.differences["miou_box"].p is None
    assert row.differences["top1_cls"].mean == 0


def test_classes_of_one_picture_are_compared_as_one_picture():
    first = [line_of("1", 0, name="cat"), line_of("1", 1, name="dog"), line_of("2", 0)]
    second = [line_of("1", 1, name="cat"), line_of("1", 0, name="dog"), line_of("2", 1)]
    _, row = table_of(finished_of("a", first), finished_of("b", second))
    difference = row.differences["gt_known_loc"]
    assert (difference.gained, difference.lost) == (1, 0)
    assert difference.mean == pytest.approx(1 / 3)


def test_rows_that_nothing_is_finished_of_are_left_out_and_the_rest_is_still_compared():
    a, b = finished_of("a", [line_of("1", 0)]), finished_of("b", [line_of("1", 1)])
    late = finished_of("c", [])
    table = results.results_of([each.trial for each in (a, late, b)], [a, b])
    assert [row.row.label for row in table] == ["a", "b"]
    assert table[1].differences["gt_known_loc"].mean == 1


def test_nothing_is_compared_with_another_row_than_the_first_of_the_plan():
    a, b = finished_of("a", [line_of("1", 0)]), finished_of("b", [line_of("1", 1)])
    c = finished_of("c", [line_of("1", 1)])
    table = results.results_of([each.trial for each in (a, b, c)], [b, c])
    assert [row.differences for row in table] == [{}, {}]


def test_rows_are_compared_with_cam_and_the_best_centred_box_on_their_own_pictures():
    # Boxes of the second size are the best: 2 of 3. The localizer hits 4 of 4, of which CAM has 1;
    # the fourth has no true box in the view that a centred one could be compared with.
    sizes = [[iou, best] + [0.0] * 18 for iou, best in ((0.6, 0.6), (0.1, 0.7), (0.0, 0.2))]
    lines = [line_of(str(i), 0.9, cam=0.5 * (i == 0), centered=sizes[i]) for i in range(3)]
    (row,) = table_of(finished_of("a", [*lines, line_of("3", 0.9)]))
    cam, box = row.baselines["cam"], row.baselines["centred_box"]
    assert (cam.mean, cam.gained, cam.lost, cam.by_seed) == (0.75, 3, 0, (0.75,))
    assert cam.p == 0.25 and cam.low <= 0.75 <= cam.high
    assert box.mean == pytest.approx(1 / 3) and (box.gained, box.lost) == (1, 0)
    assert row.figures["gt_known_loc"].mean - row.figures["cam"].mean == cam.mean


def test_baselines_that_were_not_measured_are_left_out():
    line = line_of("1", 0.9)
    del line["iou"]["cam"]
    (row,) = table_of(finished_of("a", [line]))
    assert row.baselines == {}


@pytest.mark.parametrize(
    "mean, low, high, p, by_seed, verdict",
    [
        (0.1, 0.05, 0.15, 0.04, (0.1, 0.1), "better"),
        (0.1, 0.05, 0.15, None, (0.1, 0.1), "better"),  # an IoU has no such test
        (-0.1, -0.15, -0.05, 0.01, (-0.2, 0.0), "worse"),
        (0.1, -0.01, 0.2, 0.04, (0.1,), "no difference shown"),
        (0.1, 0.0, 0.2, 0.04, (0.1,), "no difference shown"),
        (0.1, 0.05, 0.15, 0.06, (0.1,), "no difference shown"),  # the test says otherwise
        (0.1, 0.05, 0.15, 0.01, (0.3, -0.1), "no difference shown"),  # one seed says otherwise
        (0.0, 0.0, 0.0, 1.0, (), "no difference shown"),
    ],
)
def test_what_counts_as_shown(mean, low, high, p, by_seed, verdict):
    assert Difference(mean, low, high, 0, 0, p, by_seed).verdict == verdict


def test_the_choice_of_a_fold_is_made_by_its_own_held_out_pictures(monkeypatch):
    """Fold 1 prefers b and fold 2 prefers a by what was held out, though b scores 1 in both."""
    held = {("a", 1): 0.2, ("b", 1): 0.9, ("a", 2): 0.8, ("b", 2): 0.7}
    monkeypatch.setattr(
        trials, "held_scores", lambda trial: [(1, 0.0), (2, held[trial.row.label, trial.fold])]
    )
    finished = [
        finished_of(label, [line_of(f"{fold}{i}", iou) for i in range(2)], fold=fold)
        for label, iou in (("a", 0), ("b", 1))
        for fold in (1, 2)
    ]
    choice = choice_of(finished)
    assert choice.chosen == {1: "b", 2: "a"}
    assert choice.figure.mean == 0.5  # not 1, which the better row has
    assert choice.difference.mean == 0.5
    # A row that is not whole takes no part.
    assert choice_of(finished[:3]) is None


def test_without_scores_of_held_out_pictures_nothing_is_chosen(monkeypatch):
    monkeypatch.setattr(trials, "held_scores", lambda trial: [])
    finished = [finished_of(label, [line_of("1", 1)]) for label in "ab"]
    assert choice_of(finished) is None
