"""No file makes two pictures, and no name is given the file of another."""

import os

import pytest

from wsol_tf.data.listed import by_file
from wsol_tf.data.names import Finder
from wsol_tf.data.source import Report


@pytest.fixture
def folder(tmp_path):
    for name in ("cat.jpg", "dog.jpg", "sub/cat.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def listed(folder, *names):
    report = Report()
    found = by_file(names, Finder([folder]).find, report)
    places = [
        (known.name, known.path and os.path.relpath(known.path, folder), known.positions)
        for known in found
    ]
    return places, report


def test_every_name_has_its_file(folder):
    places, report = listed(folder, "dog.jpg", "sub/cat.jpg", "gone.jpg", "cat.jpg")
    assert places == [
        ("dog.jpg", "dog.jpg", [0]),
        ("sub/cat.jpg", "sub/cat.jpg", [1]),
        ("gone.jpg", None, [2]),
        ("cat.jpg", "cat.jpg", [3]),
    ]
    assert not report.skipped and not report.noted


def test_a_name_that_comes_twice_is_one_picture(folder):
    places, report = listed(folder, "cat.jpg", "x.jpg", ".\\cat.jpg", "./x.jpg", "sub/../cat.jpg")
    assert places == [("cat.jpg", "cat.jpg", [0, 2, 4]), ("x.jpg", None, [1, 3])]
    assert not report.skipped and not report.noted


def test_names_that_differ_in_case_are_one_picture_and_noted(folder):
    places, report = listed(folder, "cat.jpg", "CAT.JPG")
    assert places == [("cat.jpg", "cat.jpg", [0, 1])]
    assert report.noted == {"cat.jpg, CAT.JPG": "these names lead to one file, so they are one "
                            "picture"}  # fmt: skip


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_are_the_same_picture(folder, link):
    link(folder / "cat.jpg", folder / "link.jpg")
    places, report = listed(folder, "cat.jpg", "link.jpg")
    assert places == [("cat.jpg", "cat.jpg", [0, 1])]
    assert list(report.noted) == ["cat.jpg, link.jpg"]


def test_names_that_fit_a_file_by_their_last_part_alone_are_left_out(folder):
    places, report = listed(folder, "1/dog.jpg", "2/dog.jpg", "cat.jpg")
    assert places == [("cat.jpg", "cat.jpg", [2])]
    assert list(report.skipped) == ["1/dog.jpg, 2/dog.jpg"]
    assert "all of them are left out" in report.summary()


def test_the_name_of_the_file_itself_is_kept(folder):
    places, report = listed(folder, "1/dog.jpg", "dog.jpg")
    assert places == [("dog.jpg", "dog.jpg", [1])]
    assert list(report.skipped) == ["dog.jpg, 1/dog.jpg"]
    assert "the first alone is sure to mean it" in report.summary()


def test_a_path_of_another_machine_is_noted(folder):
    places, report = listed(folder, "C:\\me\\dog.jpg", "c:/me/dog.jpg", "/x/sub/cat.jpg")
    assert places == [
        ("C:\\me\\dog.jpg", "dog.jpg", [0, 1]),
        ("/x/sub/cat.jpg", "sub/cat.jpg", [2]),
    ]
    assert set(report.noted.values()) == {"found without the folders that the name begins with"}


def test_names_that_are_escapes_themselves(folder):
    (folder / "%2F").touch()
    (folder / "a%20b.jpg").touch()
    places, report = listed(folder, "%2F", "a%20b.jpg", "/", "")
    assert [place[1] for place in places] == ["%2F", "a%20b.jpg", None, None]
    assert not report.skipped
