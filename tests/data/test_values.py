"""Values as other programs write them."""

import math

import pytest

from wsol_tf.data.values import identifier, kind, number, truth, whole


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3), (-1, -1), (3.0, 3), ("3", 3), (" 3 ", 3), ("3.0", 3), ([3], 3), (["3"], 3),
        (2**70, 2**70), ("img_3", "img_3"), ("003", "003"), ("3.5", "3.5"), ("", None),
        (3.5, None), (math.nan, None), (math.inf, None), (None, None), (True, None), ({}, None),
        ([], None), ([1, 2], None), ([[1]], None), ([None], None),
    ],
)  # fmt: skip
def test_ids(value, expected):
    assert identifier(value) == expected and type(identifier(value)) is type(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, 1.5), ("1.5", 1.5), (" -2 ", -2), ("1e3", 1000), (10**400, None), ("1,5", None),
        ("nan", None), (math.inf, None), ("1e999", None), (True, None), (None, None), ([1], None),
    ],
)  # fmt: skip
def test_numbers(value, expected):
    assert number(value) == expected


def test_whole_numbers():
    assert [whole(value) for value in (3, "3", 3.0, "3.0")] == [3] * 4
    assert [whole(value) for value in (3.5, "x", math.nan, None)] == [None] * 4


def test_truth():
    assert [truth(value) for value in (1, "1", 1.0, True, "true", "Yes")] == [True] * 6
    assert [truth(value) for value in (0, "0", 0.0, False, "false", "no", None, "")] == [False] * 8
    assert [truth(value) for value in (2, "crowd", [0], {}, math.nan)] == [None] * 5


def test_kinds_of_json_have_names():
    names = [kind(value) for value in (None, True, 1, 1.5, "", [], {})]
    assert names == ["null", "true or false", "a number", "a number", "text", "a list", "an object"]
