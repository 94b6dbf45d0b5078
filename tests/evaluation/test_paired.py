import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsol_tf.evaluation.paired import (
    bootstrap_difference,
    bootstrap_mean,
    exact_mcnemar,
    gained_and_lost,
    mean_of_seeds,
)


@pytest.mark.parametrize(
    "gained, lost, one_sided, two_sided",
    [
        (0, 0, 1, 1),
        (0, 1, 1 / 2, 1),
        (1, 0, 1, 1),
        (0, 4, 1 / 16, 1 / 8),
        (0, 5, 1 / 32, 1 / 16),  # the fewest that a one-sided test at 5 % believes
        (5, 0, 1, 1 / 16),
        (1, 3, 5 / 16, 10 / 16),
        (2, 2, 11 / 16, 1),
        (1, 7, 9 / 256, 18 / 256),
        (3, 12, 576 / 2**15, 1152 / 2**15),  # 1 + 15 + 105 + 455
    ],
)
def test_p_values_by_hand(gained, lost, one_sided, two_sided):
    assert exact_mcnemar(gained, lost, one_sided=True) == one_sided
    assert exact_mcnemar(gained, lost) == two_sided


def test_the_exact_value_is_close_to_that_of_chi_squared():
    # (121 - 59)^2 / 180 = 21.36, whose p-value with one degree of freedom is 3.8e-6.
    assert exact_mcnemar(59, 121) == pytest.approx(4e-6, rel=0.2)


def test_counts_of_a_large_data_set_are_no_trouble():
    assert exact_mcnemar(9900, 10100) == pytest.approx(0.159, abs=0.002)  # z = 1.407
    assert 0 < exact_mcnemar(400, 600, one_sided=True) < 1e-9


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_two_sides_and_the_equal_case_make_one(gained, lost):
    both = exact_mcnemar(gained, lost, one_sided=True) + exact_mcnemar(lost, gained, one_sided=True)
    assert both >= 1  # each holds the case that was seen
    assert exact_mcnemar(gained, lost) == exact_mcnemar(lost, gained) <= 1


@pytest.mark.parametrize("counts", [(-1, 3), (3, -1)])
def test_counts_below_0_are_refused(counts):
    with pytest.raises(ValueError, match=r"at least 0. Received"):
        exact_mcnemar(*counts)


# --- bootstrap -----------------------------------------------------------------------------------


def test_the_mean_and_interval_of_four_pictures_by_hand():
    # 16 equally likely sums of two draws of (0, 1): means 0, 1/2, 1 with 1/4, 1/2, 1/4.
    assert bootstrap_mean([0, 1], level=0.4) == (0.5, 0.5, 0.5)
    assert bootstrap_mean([0, 1], level=0.6) == (0.5, 0, 1)
    assert bootstrap_mean([3, 3, 3]) == (3, 3, 3)


def test_seeds_are_averaged_before_pictures_are_drawn():
    # Each picture is hit by one of two seeds: every picture has 1/2, and so has every draw.
    assert bootstrap_mean([[1, 0, 1, 0], [0, 1, 0, 1]]) == (0.5, 0.5, 0.5)
    assert mean_of_seeds([[1, np.nan, np.nan], [0, 1, np.nan]])[:2].tolist() == [0.5, 1]


def test_values_of_one_picture_are_drawn_together():
    # Two pictures, of one and of three classes: the means are 1, 0, and 1/4 where both are drawn.
    values, groups = [1, 0, 0, 0], ["a", "b", "b", "b"]
    mean, low, high = bootstrap_mean(values, groups, level=0.6)
    assert (mean, low, high) == (0.25, 0, 1)
    assert bootstrap_mean(values, groups, level=0.4)[1:] == (0.25, 0.25)


def test_a_difference_is_taken_on_the_pictures_that_both_have():
    first, second = [0, 1, np.nan, 0], [1, 1, 1, np.nan]
    assert bootstrap_difference(first, second, level=0.4) == (0.5, 0.5, 0.5)
    assert np.isnan(bootstrap_difference([np.nan], [1])).all()
    with pytest.raises(ValueError, match=r"Received: 2 and 3"):
        bootstrap_difference([1, 0], [1, 0, 1])


def test_what_is_equal_on_every_picture_has_no_difference_at_all(rng):
    hits = rng.random((3, 50)) < 0.8
    assert bootstrap_difference(hits, hits) == (0, 0, 0)


def test_the_interval_of_a_difference_holds_the_truth_as_often_as_it_says(rng):
    """Pictures differ in how hard they are; the second is better by 0.05 on the average."""
    held, trials = 0, 400
    for trial in range(trials):
        chance = rng.beta(4, 1, 150) * 0.9
        first, second = (rng.random((2, 150)) < chance + gain for gain in (0, 0.05))
        _, low, high = bootstrap_difference(first, second, samples=1000, seed=trial)
        held += low <= 0.05 <= high
    # 0.95 with a standard error of 0.011; the percentiles of few pictures are a little narrow.
    assert 0.92 <= held / trials <= 0.98


def test_pairing_makes_the_interval_narrower_than_two_means_apart(rng):
    hard = rng.random(300) < 0.5
    first = np.where(hard, 0, 1)
    second = np.where(hard & (rng.random(300) < 0.1), 1, first)
    _, low, high = bootstrap_difference(first, second)
    _, low_1, high_1 = bootstrap_mean(second)
    assert high - low < (high_1 - low_1) / 2


@pytest.mark.parametrize(
    "first, second, groups, counts",
    [
        ([1, 0, 1, 0], [1, 1, 0, 1], None, (2, 1)),
        ([[1, 0], [0, 0]], [[1, 0], [1, 0]], None, (1, 0)),  # one seed of two counts
        ([[1], [0], [0]], [[0], [1], [0]], None, (0, 0)),  # another seed, but as often
        ([1, 0, 0], [0, 1, 1], ["a", "a", "b"], (1, 0)),  # within a picture they cancel
        ([1, np.nan], [0, 1], None, (0, 1)),
    ],
)
def test_gained_and_lost_pictures_by_hand(first, second, groups, counts):
    assert gained_and_lost(first, second, groups) == counts
