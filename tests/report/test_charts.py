import numpy as np
import pytest

from wsol_tf.report import charts
from wsol_tf.studies.results import Difference

WEIGHTS = {"cls": 1.0, "ac": 1.5, "pseudo": 0.0}


def test_curves_draw_each_series():
    history = {"loss": [3.0, 2.0, 1.0], "cls": [2.0, 1.0, 0.5], "top1_cls": [0.1, 0.5, 0.7]}
    drawn = charts.training_curves(history, WEIGHTS)
    assert drawn.dtype == np.uint8 and drawn.ndim == 3 and drawn.shape[2] == 3
    for name in history:
        fewer = {key: value for key, value in history.items() if key != name}
        other = charts.training_curves(fewer, WEIGHTS)
        assert other.shape != drawn.shape or (other != drawn).any()


def test_curves_weight_the_terms():
    def height_of_term(value, weight):
        drawn = charts.training_curves({"loss": [4.0, 4.0], "ac": [value, value]}, {"ac": weight})
        colour = [int(charts.TERM_COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)]
        rows = np.argwhere((drawn[:, :480] == colour).all(-1))[:, 0]  # left of the legend
        assert rows.size
        return rows.mean()

    assert height_of_term(2.0, 1.5) == pytest.approx(height_of_term(6.0, 0.5), abs=1)
    assert height_of_term(2.0, 0.5) > height_of_term(2.0, 1.5) + 20  # rows count downwards


def test_a_spike_of_validation_does_not_flatten_the_training():
    def drawn(spike):
        history = {"loss": [4.0, 2.0, 1.0], "val_loss": [4.0, spike, 1.0]}
        return charts.training_curves(history, WEIGHTS)

    above = [(drawn(spike) != drawn(13.0)).any(-1) for spike in (30.0, 500.0)]
    for changed in above:  # the number in the corner, and how steep the curve leaves the chart
        assert 0 < changed.mean() < 0.01
    assert (drawn(11.0) != drawn(13.0)).any(-1).mean() > 0.01  # not far above: shown whole


def test_curves_leave_out_learning_rates_and_terms_of_weight_zero():
    history = {"loss": [3.0, 2.0]}
    expected = charts.training_curves(history, WEIGHTS)
    more = {**history, "learning_rate": [0.1, 0.1], "pseudo": [9.0, 9.0]}
    np.testing.assert_array_equal(charts.training_curves(more, WEIGHTS), expected)


@pytest.mark.parametrize(
    "history",
    [
        {},
        {"loss": []},
        {"loss": [1.0]},
        {"loss": [float("nan"), 1.0, float("inf")], "val_loss": [2.0], "top1_cls": [float("nan")]},
        {"loss": [-1.0, 2.0], "val_top1_cls": [0.5, 7.0]},
    ],
)
@pytest.mark.filterwarnings("error")
def test_curves_survive_any_history(history):
    assert charts.training_curves(history, WEIGHTS).size


LEVELS = {0.3: np.linspace(0.9, 0.1, 100), 0.5: np.linspace(0.8, 0, 100), 0.7: np.zeros(100)}
THRESHOLDS = np.arange(0, 1, 0.01)


def _differ(one, other):
    return one.shape != other.shape or bool((one != other).any())


def test_what_is_written_at_the_marks_hides_no_low_curve():
    def pixels(**marks):
        curve = {0.5: np.full(100, 0.04)}
        drawn = charts.threshold_curves(THRESHOLDS, curve, **marks)
        colour = [int(charts.LEVEL_STYLES[1][0][i : i + 2], 16) for i in (1, 3, 5)]
        return (drawn == colour).all(-1).sum()

    assert pixels(chosen=(0.3, 0.04), oracle=(0.5, 0.04)) > 0.9 * pixels()


def test_threshold_curves_show_each_thing_they_are_given():
    given = {"chosen": (0.4, 0.5), "oracle": (0.1, 0.7), "levels": {"best centred box": 0.6}}
    whole = charts.threshold_curves(THRESHOLDS, LEVELS, **given)
    assert whole.dtype == np.uint8 and whole.shape[2] == 3
    for name in given:
        fewer = {key: value for key, value in given.items() if key != name}
        assert _differ(charts.threshold_curves(THRESHOLDS, LEVELS, **fewer), whole), name
    assert _differ(charts.threshold_curves(THRESHOLDS, {0.5: LEVELS[0.5]}, **given), whole)


def _pixels(drawn, colour):
    return int((drawn == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).sum())


def test_outcome_bars_are_as_long_as_the_shares():
    names = {name: name for name in "abcdef"}
    counts = dict(zip(names, (60, 30, 10, 0, 0, 0), strict=True))
    drawn = charts.outcome_bars({"map": counts, "none": dict.fromkeys(names, 0)}, names)
    bars = [_pixels(drawn, colour) for colour in charts.OUTCOME_COLOURS]
    keys = bars[3]  # what the legend alone takes
    assert bars[0] - keys > 1.7 * (bars[1] - keys) > 0
    assert bars[2] > keys and bars[3] == pytest.approx(bars[4], abs=80)


@pytest.mark.parametrize("count", [1, 2, 50, 51, 200])
@pytest.mark.filterwarnings("error")
def test_class_bars_are_readable_for_any_number_of_classes(count):
    rng = np.random.default_rng(0)
    classes = {
        f"class {i}": {"gt_known_loc": value, "top1_loc": value / 2, "num_pairs": 7}
        for i, value in enumerate(rng.random(count))
    }
    drawn = charts.class_bars(classes, mean=0.5)
    assert drawn.shape[1] == charts.WIDTH * 150
    assert drawn.shape[0] <= 2400  # a page, however many there are
    assert _pixels(drawn, "#0072b2") > 100 and _pixels(drawn, "#8cc8ec") > 100


@pytest.mark.filterwarnings("error")
def test_class_names_are_text_and_nothing_else():
    row = {"gt_known_loc": 0.5, "top1_loc": 0.2, "num_pairs": 3}
    names = ("$x_", "$\\frac$", "猫", "a\nb", "<b>", "", "n" * 500, "bad\udcff name")
    assert charts.class_bars(dict.fromkeys(names, row), mean=0.5).any()


def test_of_equal_classes_those_with_more_pictures_are_named(monkeypatch):
    drawn = []
    monkeypatch.setattr(charts, "_draw_bars", lambda axes, rows, mean: drawn.append(rows))
    classes = {
        f"{i}": {"gt_known_loc": float(i % 2), "top1_loc": 0.0, "num_pairs": i} for i in range(100)
    }
    charts.class_bars(classes, mean=0.5)
    best, worst = ([row[3] for row in rows] for rows in drawn)
    assert best == list(range(99, 59, -2)) and worst == list(range(98, 58, -2))


def test_classes_without_a_figure_are_left_out():
    row = {"gt_known_loc": 0.5, "top1_loc": 0.2, "num_pairs": 3}
    bare = {"gt_known_loc": None, "top1_loc": None, "num_pairs": 3}
    assert charts.class_bars({"a": bare}, mean=0.5) is None
    np.testing.assert_array_equal(
        charts.class_bars({"a": row, "b": bare}, mean=0.5), charts.class_bars({"a": row}, mean=0.5)
    )


def test_a_row_for_each_difference_coloured_where_it_is_shown():
    """Two rows that differ in McNemar's p alone: the first is shown, the second is not."""
    rows = {"$a": Difference(-0.03, -0.05, -0.01, 2, 12, 0.01, (-0.03,)),
            "b" * 90: Difference(-0.03, -0.05, -0.01, 2, 12, 0.2, (-0.03,))}  # fmt: skip
    drawn = charts.difference_rows("Difference in GT-known Loc from all", rows)
    assert drawn.dtype == np.uint8 and drawn.shape[2] == 3
    orange = (drawn == (0xD5, 0x5E, 0)).all(-1)
    lines = np.flatnonzero(orange.any(1))
    assert 0 < len(lines) < 20 and lines[-1] < drawn.shape[0] / 2  # the first row alone
    fewer = charts.difference_rows("Difference in GT-known Loc from all", {"$a": rows["$a"]})
    assert fewer.shape[0] < drawn.shape[0]
