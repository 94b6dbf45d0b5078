import numpy as np
from PIL import Image

from wsol_tf.report import contact_sheets


def test_best_median_and_worst_by_hand():
    lines = [{"iou": i / 100} for i in range(20)]
    found = contact_sheets.best_median_worst(lines, each=2)
    assert [line["iou"] for line in found["best"]] == [0.19, 0.18]
    assert [line["iou"] for line in found["median"]] == [0.10, 0.09]
    assert [line["iou"] for line in found["worst"]] == [0.01, 0.00]


def test_examples_of_errors_run_from_the_least_to_the_most_wrong():
    lines = [{"iou": i / 100, "outcome": "too_big"} for i in range(30)]
    lines += [{"iou": 0.9, "outcome": "right"}, {"iou": 0.0, "outcome": "missed"}, {"no": "box"}]
    found = contact_sheets.examples_of_errors(lines, each=3)
    assert list(found) == ["too_big", "missed"]  # in the order of OUTCOMES, none that is right
    assert [line["iou"] for line in found["too_big"]] == [0.29, 0.15, 0.0]


def test_captions_say_what_is_wrong():
    line = {"class": "dog", "label": "cat", "probability": 0.514, "iou": 0.2, "outcome": "too_big"}
    assert contact_sheets.caption(line) == "IoU 0.20, dog 51% (true: cat), too big"
    line |= {"iou": 0.4999, "outcome": "part_only"}
    assert contact_sheets.caption(line) == "IoU 0.49, dog 51% (true: cat), part only"
    assert contact_sheets.caption(line | {"iou": 0.29}).startswith("IoU 0.29, ")
    unnamed = {"class": None, "label": "cat", "probability": None, "iou": 0.9, "outcome": "right"}
    assert contact_sheets.caption(unnamed) == "IoU 0.90, cat"
    assert contact_sheets.caption({"class": "cat", "label": "cat", "probability": None}) == "cat 0%"


def test_examples_of_errors_stay_out_of_the_written_sheet(tmp_path):
    tile = np.zeros((20, 60, 3), np.uint8)
    tiles = {"best": [(tile, "IoU 0.9, cat 50%")], "worst": [(tile, "IoU 0.1, cat 50%")]}
    errors = {"too_big": [(tile, "IoU 0.3, cat 50%, too big")]}
    contact_sheets.write_contact_sheet(tmp_path / "sheet.png", tiles | errors, "drawn, val")
    written = np.asarray(Image.open(tmp_path / "sheet.png"))
    np.testing.assert_array_equal(written, contact_sheets.contact_sheet_of(tiles, "drawn, val"))
    more = contact_sheets.contact_sheet_of(tiles | errors, "drawn, val")
    assert more.shape[0] > written.shape[0]
