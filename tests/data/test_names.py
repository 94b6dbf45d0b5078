"""Pictures found by the names that other programs and systems give them."""

import unicodedata

import pytest

from wsol_tf.data.names import Finder


@pytest.fixture
def folder(tmp_path):
    for name in ("images/cat 0.jpg", "images/B.JPG", "images/sub/dog.jpg", "images/A.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "images" / unicodedata.normalize("NFD", "Käse.jpg")).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cat 0.jpg", "cat 0.jpg"),
        ("./cat 0.jpg", "cat 0.jpg"),
        (" cat 0.jpg\t", "cat 0.jpg"),
        ("upload/cat%200.jpg", "cat 0.jpg"),
        ("k%C3%A4se.jpg", unicodedata.normalize("NFD", "Käse.jpg")),
        ("b.jpg", "B.JPG"),
        ("sub\\dog.jpg", "sub/dog.jpg"),
        ("SUB/Dog.JPG", "sub/dog.jpg"),
        ("..\\..\\label-studio\\media\\upload\\4\\sub\\dog.jpg", "sub/dog.jpg"),
        ("C:\\Users\\me\\images\\cat 0.jpg", "cat 0.jpg"),
        ("/data/local-files/?d=set/cat 0.jpg", "cat 0.jpg"),
        (unicodedata.normalize("NFC", "käse.jpg"), unicodedata.normalize("NFD", "Käse.jpg")),
    ],
)
def test_a_name_is_found_however_it_is_written(folder, name, file):
    assert Finder([folder / "images"]).find(name) == str(folder / "images" / file)


@pytest.mark.parametrize("name", ["dog.jpg", "images", "sub", "cat\0.jpg", "", "x" * 300 + ".jpg"])
def test_what_is_not_there_is_not_found(folder, name):
    assert Finder([folder / "images"]).find(name) is None


def test_names_that_differ_in_case_alone_are_not_guessed_between(folder):
    (folder / "images" / "b.jpg").touch()
    finder = Finder([folder / "images"])
    assert finder.find("b.jpg") == str(folder / "images" / "b.jpg")
    assert finder.find("B.JPG") == str(folder / "images" / "B.JPG")
    assert finder.find("B.jpg") is None


def test_a_stem_is_a_name_without_its_suffix(folder):
    (folder / "images" / "a.txt").touch()
    (folder / "images" / "x.v1.jpg").touch()
    finder = Finder([folder / "images"], accept=lambda name: not name.endswith(".txt"))
    assert finder.find_stem("a") == str(folder / "images" / "A.png")
    assert finder.find_stem("x.v1") == str(folder / "images" / "x.v1.jpg")
    assert finder.find_stem("sub/dog") == str(folder / "images" / "sub" / "dog.jpg")
    assert finder.find_stem("x") is None


def test_the_folder_of_the_last_picture_is_tried_first(folder):
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "same.jpg").touch()
    (folder / "two" / "other.jpg").touch()
    finder = Finder([folder / "one", folder / "two"])
    assert finder.find("same.jpg") == str(folder / "one" / "same.jpg")
    finder.find("other.jpg")
    assert finder.find("same.jpg") == str(folder / "two" / "same.jpg")
