"""The table of a study from arrays agrees with that of the study program, and with hand counts."""

import dataclasses

import numpy as np
import pytest

from test_results import finished_of, line_of, table_of
from wsol_tf import files
from wsol_tf.evaluation import paired
from wsol_tf.studies.arrays import read_arrays, results_of_arrays

RNG = np.random.default_rng(0)


def arrays_of(rows=2, seeds=3, pairs=12):
    """Outcomes as another program gives them; IoUs of six digits, as outcomes.jsonl has."""
    shape = (rows, seeds, pairs)
    values = {name: np.round(RNG.uniform(size=shape), 6) for name in
              ("iou", "mask_iou", "cam_iou", "plain_iou", "plain_mask_iou")}  # fmt: skip
    return values | {
        "rows": np.array([f"row {i}" for i in range(rows)]),
        "top1_cls": RNG.integers(2, size=shape).astype(float),
        "centered_ious": np.round(RNG.uniform(size=(pairs, 20)), 6),
    }


def finished_from(arrays, row, seed):
    """The same as a trial of the study program, plain maps included."""
    lines = []
    for i in range(arrays["iou"].shape[2]):
        at = row, seed, i
        line = line_of(
            str(100 + i), arrays["iou"][at], rank=int(1 - arrays["top1_cls"][at]),
            cam=arrays["cam_iou"][at], mask=arrays["mask_iou"][at],
            centered=list(arrays["centered_ious"][i]),
        )  # fmt: skip
        line["iou"]["plain"] = arrays["plain_iou"][at]
        line["mask_iou"]["plain"] = arrays["plain_mask_iou"][at]
        lines.append(line)
    return finished_of(f"row {row}", lines, seed=seed)


def test_arrays_give_what_the_study_program_makes_of_the_same_outcomes():
    arrays = arrays_of()
    ours = results_of_arrays(arrays, minutes=2.0)
    theirs = table_of(*(finished_from(arrays, row, seed) for row in (0, 1) for seed in range(3)))
    assert [each.row.label for each in ours] == [
        "row 0", "row 0, not refined", "row 1", "row 1, not refined",
    ]  # fmt: skip
    for own, other in zip(ours, theirs, strict=True):
        assert dataclasses.asdict(own) == dataclasses.asdict(other)


def test_figures_by_hand():
    # Hits of four pictures: 1 1 0 0 and 1 0 0 0 of two seeds; then 1 1 1 0 twice.
    iou = np.array([[[0.5, 0.9, 0.4, 0], [0.6, 0.499999, 0, 0]], [[0.9, 0.9, 0.9, 0]] * 2])
    arrays = {"rows": np.array(["a", "b"]), "iou": iou}
    arrays["max_box_acc_v2"] = np.array([[0.5, 0.7], [0, 1]])
    first, second = results_of_arrays(arrays, folds=3, settings=[{}, {"ae_weight": "0"}])
    assert first.figures["gt_known_loc"].mean == (0.5 + 0.25) / 2
    assert first.figures["gt_known_loc"].spread == pytest.approx(0.25 / 2**0.5)
    assert first.figures["max_box_acc_v2"].mean == pytest.approx(0.6)
    assert second.figures["max_box_acc_v2"].spread == pytest.approx(0.5**0.5)
    difference = second.differences["gt_known_loc"]
    assert difference.mean == 0.375  # 0, 1/2, 1, 0
    assert (difference.gained, difference.lost, difference.p) == (2, 0, 0.5)
    assert difference.by_seed == (0.25, 0.5)
    assert (first.finished, first.number, first.seeds, first.num_images) == (6, 6, (0, 1), 4)
    assert second.row.settings == {"ae_weight": "0"} and not first.differences
    assert set(first.figures) == {"gt_known_loc", "miou_box", "max_box_acc_v2"}


def test_what_is_missing_is_left_out_on_both_sides():
    iou = np.full((2, 2, 6), np.nan)
    iou[0] = 0.9
    iou[1, 1, 2:] = 0.1  # the second row has one of the seeds, and four of the pictures
    _, row = results_of_arrays(
        {"rows": np.array(["a", "b"]), "iou": iou, "seeds": np.array([4, 7])}
    )
    assert (row.seeds, row.num_images, row.finished, row.number) == ((7,), 4, 1, 2)
    assert row.differences["gt_known_loc"].mean == -1
    assert row.differences["gt_known_loc"].by_seed == (-1,)
    assert row.differences["gt_known_loc"].lost == 4


def test_columns_of_one_picture_are_drawn_together():
    iou = np.array([[[0.9, 0.9, 0.1, 0.1]]])
    names = np.array(["x", "x", "y", "y"])
    (row,) = results_of_arrays({"rows": np.array(["a"]), "iou": iou, "images": names})
    assert (row.num_images, row.num_pairs) == (2, 4)
    figure = row.figures["gt_known_loc"]
    assert (figure.mean, figure.low, figure.high) == paired.bootstrap_mean([1, 1, 0, 0], names)
    assert (figure.low, figure.high) == (0, 1)  # two pictures: both, one, or none


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_an_iou_just_below_one_half_is_no_hit_in_any_precision(kind):
    below = np.nextafter(kind(0.5), kind(0))
    iou = np.array([[[below, 0.5]]], kind)
    (row,) = results_of_arrays({"rows": np.array(["a"]), "iou": iou})
    assert row.figures["gt_known_loc"].mean == 0.5


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"iou": None}, "There is no array 'iou'"),
        ({"iou_": np.zeros(1)}, "There is no array called 'iou_'"),
        ({"iou": np.zeros((2, 3))}, r"`iou` is \[rows, seeds, pictures\]"),
        ({"cam_iou": np.zeros((2, 3, 11))}, r"`cam_iou` must be of shape \(2, 3, 12\)"),
        ({"iou": np.full((2, 3, 12), 90.0)}, "`iou` must be at least 0 and at most 1"),
        ({"minutes": np.array([-1.0, 1.0])}, r"`minutes` must be at least 0\."),
        ({"iou": np.full((2, 3, 12), "a")}, "`iou` must hold numbers"),
        ({"rows": np.array(["a", "a"])}, "Rows must have different names"),
        ({"iou": np.full((2, 3, 12), np.nan)}, "Row 'row 0' has no picture"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, error):
    arrays = {k: v for k, v in (arrays_of() | change).items() if v is not None}
    with pytest.raises(ValueError, match=error):
        results_of_arrays(arrays)


def test_settings_of_each_row_or_of_none():
    with pytest.raises(ValueError, match="There are 2 rows, and settings of 1"):
        results_of_arrays(arrays_of(), settings=[{}])


def test_a_file_with_pickled_objects_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", rows=np.array([{"a": 1}], object))
    with pytest.raises(files.BadFile, match=r"a\.npz: this is no \.npz file of plain arrays"):
        read_arrays(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", **arrays_of())
    assert len(results_of_arrays(read_arrays(str(tmp_path / "b.npz")))) == 4
