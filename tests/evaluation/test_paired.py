import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsol_tf.evaluation.paired import exact_mcnemar


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
