"""Doubts, crops, names and the journal."""

import json

import numpy as np
import pytest
from PIL import Image

from wsol_tf.annotations import crops, names, uncertainty
from wsol_tf.annotations.journal import JOURNAL, Journal, Pictures
from wsol_tf.annotations.record import Annotated, Object, from_line, to_line


def picture(path="/p/a.jpg", name="a.jpg", doubt=0.5, **changes):
    thing = Object("cat", 0.75, (1, 2, 5, 9), 20, [[1, 2], [5, 2], [5, 9], [1, 9]])
    values = dict(
        path=path, version=(10, 20), relative=name, name=name, height=30, width=40,
        probability=0.9, doubts={"entropy": doubt}, objects=(thing,), thumbnail="data:",
    )  # fmt: skip
    return Annotated(**values | changes)


# --- doubts --------------------------------------------------------------------------------------


def test_a_map_of_two_values_is_sure_and_one_at_its_threshold_is_not():
    sure = np.zeros((4, 4), np.float32)
    sure[:2] = 1
    assert uncertainty.mask_entropy(sure, sure > 0.5) == pytest.approx(0, abs=1e-4)
    close = np.where(sure > 0, 0.5001, 0.4999).astype(np.float32)
    assert uncertainty.mask_entropy(close, close > 0.5) == pytest.approx(1, abs=1e-4)


def test_entropy_by_hand():
    scores = np.float32([[0.2, 0.3], [0.5, 0.7]])  # the threshold is between 0.3 and 0.5: 0.4
    p = np.array([0.2 / 0.8, 0.3 / 0.8, 0.5 + 0.1 / 1.2, 0.5 + 0.3 / 1.2])
    expected = np.mean(-p * np.log2(p) - (1 - p) * np.log2(1 - p))
    assert uncertainty.mask_entropy(scores, scores > 0.4) == pytest.approx(expected, abs=1e-5)


def test_empty_and_full_masks_have_an_entropy():
    scores = np.full((3, 3), 0.5, np.float32)
    assert uncertainty.mask_entropy(scores, np.zeros((3, 3), bool)) == 0
    assert 0 <= uncertainty.mask_entropy(scores, np.ones((3, 3), bool)) <= 1


def test_disagreement_is_one_minus_iou():
    one, other = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    assert uncertainty.disagreement(one, other) == 0
    one[0], other[:, 0] = True, True
    assert uncertainty.disagreement(one, other) == pytest.approx(1 - 1 / 5)


def test_doubts_are_those_that_are_known():
    scores = np.eye(3, dtype=np.float32)
    mask = scores > 0.5
    found = uncertainty.doubts(scores, mask, cam_mask=None, probability=None)
    assert list(found) == ["entropy"]
    found = uncertainty.doubts(scores, mask, cam_mask=~mask, probability=0.75)
    assert (found["disagreement"], found["class"]) == (1, 0.25)
    assert picture(doubts=found).uncertainty == pytest.approx((found["entropy"] + 1.25) / 3)


# --- crops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "margin", "aspect", "expected"),
    [
        ((40, 30, 60, 40), 0.0, 0.0, (40, 30, 60, 40)),
        ((40, 30, 60, 40), 0.1, 0.0, (38, 28, 62, 42)),  # 2 pixels: a tenth of the longer side
        ((40, 30, 60, 40), 0.0, 1.0, (40, 25, 60, 45)),
        ((40, 30, 50, 50), 0.0, 2.0, (25, 30, 65, 50)),
        ((0, 0, 20, 10), 0.0, 1.0, (0, 0, 20, 20)),  # moved into the picture
        ((90, 70, 100, 80), 0.5, 0.0, (80, 60, 100, 80)),
        ((0, 0, 100, 20), 0.0, 0.5, (0, 0, 100, 80)),  # no room for so much
    ],
)
def test_crop_windows_by_hand(box, margin, aspect, expected):
    found = crops.crop_window(box, height=80, width=100, margin=margin, aspect=aspect)
    assert found == expected


def test_crops_lie_in_the_folder_of_their_class(tmp_path):
    image = np.zeros((30, 40, 3), np.uint8)
    image[2:9, 1:5] = 255
    one = picture(objects=(Object("a/b: c", 0.5, (1, 2, 5, 9), 20, []),))
    crops.write_crops(str(tmp_path), image, one, margin=0, aspect=0)
    with Image.open(tmp_path / "crops" / "a_b_ c" / "a_1.jpg") as crop:
        assert crop.size == (4, 7) and np.asarray(crop).min() > 240


# --- names ---------------------------------------------------------------------------------------


def test_names_are_flat_and_unique_without_their_suffix_and_whatever_their_case():
    namer = names.Namer()
    given = ["cat/1.jpg", "dog/1.jpg", "a.jpg", "a.png", "A.PNG", "cat__1.jpg"]
    found = [namer.name(each) for each in given]
    assert found == ["cat__1.jpg", "dog__1.jpg", "a.jpg", "a_2.png", "A_3.PNG", "cat__1_2.jpg"]


def test_names_hold_nothing_that_a_system_or_a_list_of_lines_refuses():
    namer = names.Namer()
    assert namer.name('a\nb\\c:"*?<>|.jpg') == "a_b_c_______.jpg"
    assert len(namer.name("ü" * 300 + ".jpg").encode()) <= names.LONGEST + 4
    assert names.fit_text("a\n\udcff<&>") == "a\\n\\udcff<&>"


def test_the_root_holds_all_that_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    file = tmp_path / "b" / "x.jpg"
    file.touch()
    assert names.root_of([str(tmp_path / "a")]) == str(tmp_path / "a")
    assert names.root_of([str(file)]) == str(tmp_path / "b")
    assert names.root_of([str(tmp_path / "a"), str(file)]) == str(tmp_path)
    assert names.relative_to(str(file), str(tmp_path)) == "b/x.jpg"


# --- the journal ---------------------------------------------------------------------------------


def test_a_picture_is_the_same_after_a_line():
    one = picture(path="/p/\udcff\n.jpg", probability=None)
    assert from_line(to_line(one)).objects[0].box == one.objects[0].box
    assert to_line(from_line(to_line(one))) == to_line(one)
    assert "\n" not in to_line(one)
    for broken in (to_line(one)[:-5], "[]", "{}", '{"objects": 3, "version": []}'):
        with pytest.raises(ValueError):
            from_line(broken)


def test_pictures_come_the_doubtful_first_and_again_each_time(tmp_path):
    journal = Journal(str(tmp_path), {"a": 1})
    for i, doubt in enumerate([0.2, 0.9, 0.5, 0.9]):
        journal.add(picture(path=f"/p/{i}.jpg", name=f"{i}.jpg", doubt=doubt))
    found = Pictures(journal, [f"/p/{i}.jpg" for i in range(5)])
    assert [one.name for one in found] == ["1.jpg", "3.jpg", "2.jpg", "0.jpg"]
    assert [one.name for one in found] == ["1.jpg", "3.jpg", "2.jpg", "0.jpg"]
    journal.close()


def test_a_journal_that_was_cut_off_goes_on_behind_its_last_whole_line(tmp_path):
    journal = Journal(str(tmp_path), {"a": 1})
    for i in range(3):
        journal.add(picture(path=f"/p/{i}.jpg"))
    journal.close()
    file = tmp_path / JOURNAL
    file.write_bytes(file.read_bytes()[:-20])
    journal = Journal(str(tmp_path), {"a": 1})
    assert journal.get("/p/1.jpg") is not None and journal.get("/p/2.jpg") is None
    journal.add(picture(path="/p/3.jpg"))
    journal.close()
    lines = file.read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines[1:]] == ["/p/0.jpg", "/p/1.jpg", "/p/3.jpg"]


def test_other_settings_and_other_files_are_refused(tmp_path):
    Journal(str(tmp_path), {"a": 1, "b": 2}).close()
    with pytest.raises(ValueError, match="other settings: b 2, now 3. Name another folder"):
        Journal(str(tmp_path), {"a": 1, "b": 3})
    (tmp_path / JOURNAL).write_text("hello\n")
    with pytest.raises(ValueError, match="no journal of an annotation"):
        Journal(str(tmp_path), {"a": 1})
