"""The page and the model card of a run."""

import html
import html.parser
import re

import numpy as np
import pytest
from PIL import Image

from wsol_tf.config import Config
from wsol_tf.report import run_page
from wsol_tf.report.run_page import RunRecord

VOID = {"meta", "img", "input", "link", "br"}


class Reader(html.parser.HTMLParser):
    """Checks that tags close in their order; collects texts, tags and what would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.places = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.places += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def figures_of(**changes):
    row = {"gt_known_loc": 0.9, "top1_loc": 0.8, "miou_box": 0.7, "miou_mask": 0.6,
           "threshold": 0.3}  # fmt: skip
    return {
        **row, "map": "mean", "other_maps": {"cam": {**row, "gt_known_loc": 0.5}},
        "baselines": {
            "whole_view": {"gt_known_loc": 0.1, "miou_box": 0.2},
            "centered_box_oracle": {"gt_known_loc": 0.4, "miou_box": 0.3, "area_fraction": 0.35},
        },
        "threshold_from": "stored with the model", "top1_cls": 0.95, "top5_cls": 1.0,
        "gt_known_loc_oracle": 0.91, "oracle_threshold": 0.33, "num_images": 100, "num_pairs": 100,
        "outcomes": {"right": 80, "wrong_class": 10, "missed": 10}, "scored_on": "val",
        "view": "crop", "interrupted": False, "threshold_chosen_on_scored": False, "epochs": 2,
        "thresholds": {"mean": 0.3, "cam": 0.5}, "thresholds_from": "maps",
        "num_threshold_images": 40, "threshold_quartiles": [0.2, 0.3, 0.4],
        "num_training_images": 90, "num_held_out_images": 10, "minutes": 1.5,
        "skipped_in_training": {"bad.jpg": "it is empty"}, "skipped": {}, "bad_maps": [],
        "bad_scores": [], "constant_maps": [], "pairs_without_box": [], "duplicates": [],
        "intervals": {"gt_known_loc": [0.84, 0.95]}, "above_baselines": {},
        **changes,
    }  # fmt: skip


def record_of(figures=None, **changes):
    history = [
        {"epoch": i, "step": i + 1, "loss": 2.0, "cls": 1.5, "weighted_cls": 1.5, "bas": 0.5,
         "weighted_bas": 0.5, "top1_cls": 0.5 + i / 10, **({"held_loss": 1.25} if i else {})}
        for i in range(2)
    ]  # fmt: skip
    fields = {
        "config": Config(dataset="shapes", width=0.25, dilation=False, output_dir="run"),
        "figures": figures or figures_of(), "classes": ("<b>cat</b>", "dog"), "history": history,
        "warnings": ["step 9: the mask covers <all>"], "place": "data/birds",
        "weights": "mobilenet_v1: 27 of 27 layers", "parameters": 1234567, "model_bytes": 5_600_000,
    } | changes  # fmt: skip
    return RunRecord(**fields)


def page_of(tmp_path, record, **options):
    options = {"curves": None, "sheets": {}, "tiles": {}} | options
    run_page.write_run_page(tmp_path / "report.html", record, **options)
    text = (tmp_path / "report.html").read_text()
    return text, Reader(text)


def sheets_of(tmp_path, count):
    for epoch in range(1, count + 1):
        Image.new("RGB", (1200, 30), (epoch, 0, 0)).save(tmp_path / f"{epoch}.png")
    return {epoch: tmp_path / f"{epoch}.png" for epoch in range(1, count + 1)}


def test_the_page_asks_for_nothing_and_escapes_what_is_put_in(tmp_path):
    curves = np.zeros((20, 40, 3), np.uint8)
    tiles = {"best": [(np.zeros((8, 8, 3), np.uint8), "IoU 0.9")]}
    text, page = page_of(
        tmp_path, record_of(), curves=curves, sheets=sheets_of(tmp_path, 3), tiles=tiles
    )
    assert page.places and all(place.startswith("data:image/") for place in page.places)
    assert not {"script", "link"} & {tag for tag, _ in page.tags}
    assert "url(" not in text and "@import" not in text
    assert "step 9: the mask covers <all>" in page.texts
    assert "The box is right for 90 of 100 pictures, 50 more than the best centred box" in text
    assert "1 picture that could not be read" in text and "bad.jpg: it is empty" in page.texts


def test_one_epoch_is_shown_at_a_time_and_the_last_one_at_first(tmp_path):
    text, page = page_of(tmp_path, record_of(), sheets=sheets_of(tmp_path, 3))
    fields = [attributes for tag, attributes in page.tags if tag == "input"]
    assert [field["id"] for field in fields] == ["epoch-1", "epoch-2", "epoch-3"]
    assert ["checked" in field for field in fields] == [False, False, True]
    assert {field["name"] for field in fields} == {"epoch"}
    style = text[: text.index("</style>")]
    assert re.findall(r"#epoch-(\d):checked ~ #sheet-(\d)", style) == [(c, c) for c in "123"]


def test_of_many_epochs_some_are_shown_evenly_with_the_first_and_the_last(tmp_path):
    _, page = page_of(tmp_path, record_of(), sheets=sheets_of(tmp_path, 46))
    fields = [attributes["id"] for tag, attributes in page.tags if tag == "input"]
    assert fields == [f"epoch-{epoch}" for epoch in range(1, 47, 3)]


def test_the_ledger_has_each_term_with_its_share_of_the_loss(tmp_path):
    ledger = run_page._ledger(record_of().history)
    assert ledger["columns"] == ["epoch", "loss", "cls", "bas", "top1_cls", "held-out loss"]
    assert ledger["rows"] == [
        ["1", "2.000", "1.500 (75%)", "0.500 (25%)", "0.500", "–"],
        ["2", "2.000", "1.500 (75%)", "0.500 (25%)", "0.600", "1.250"],
    ]


def test_settings_that_differ_are_listed_as_flags_are_written():
    config = Config(width=0.25, dilation=False)
    assert [row[:3] for row in run_page.changed_settings(config)] == [
        ("width", 0.25, Config().width), ("dilation", "false", "true"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"interrupted": True, "threshold_chosen_on_scored": True, "thresholds_from": "boxes"},
        {"gt_known_loc": None, "top1_loc": None, "miou_box": None, "other_maps": {},
         "outcomes": None, "intervals": {}},
    ],
)  # fmt: skip
def test_runs_of_other_kinds_have_a_page_and_a_card(tmp_path, changes):
    record = record_of(figures_of(**changes), history=[], warnings=[])
    text, _ = page_of(tmp_path, record)
    run_page.write_model_card(tmp_path / "card.md", record)
    card = (tmp_path / "card.md").read_text()
    assert ("was interrupted" in text) == ("was interrupted" in card) == ("interrupted" in changes)
    assert ("boxes of 40 held-out" in card) == ("interrupted" in changes)
    assert ("localization was not scored" in card) == ("outcomes" in changes)


def test_the_card_says_what_a_user_should_know(tmp_path):
    run_page.write_model_card(tmp_path / "card.md", record_of())
    lines = (tmp_path / "card.md").read_text().splitlines()
    assert "| trained on | 90 pictures of data/birds (shapes, split `train`) |" in lines
    assert "| labels that the threshold used | none |" in lines
    assert "| classes | &lt;b&gt;cat&lt;/b&gt;, dog |" in lines
    assert "| localizer, mean of maps | 0.900 | 0.800 | 0.700 | 0.600 | 0.30 |" in lines
    assert "| CAM of the classifier | 0.500 | 0.800 | 0.700 | 0.600 | 0.30 |" in lines
    assert "| best centred box (35%) (oracle) | 0.400 | – | 0.300 | – | – |" in lines
    text = " ".join(lines)
    assert "GT-known Loc 0.900 (95 % interval 0.840 to 0.950). Intervals are for other" in text
    assert "| model.keras, 1,234,567 weights | 5.6 MB " in text


def test_names_in_the_card_are_markdown_and_nothing_else(tmp_path):
    record = record_of(classes=('Hen\'s | "egg"', "<b>A&B</b>"))
    run_page.write_model_card(tmp_path / "card.md", record)
    text = (tmp_path / "card.md").read_text()
    assert '| classes | Hen\'s \\| "egg", &lt;b&gt;A&amp;B&lt;/b&gt; |' in text.splitlines()
    assert "&#39;" not in text and "&#34;" not in text


def test_exported_files_replace_those_of_an_earlier_export(tmp_path):
    card = tmp_path / "card.md"
    assert not run_page.add_files_to_card(card, {})
    run_page.write_model_card(card, record_of())
    before = card.read_text()
    for name in ("localizer_int8.tflite", "localizer_float32.tflite"):
        figures = {"bytes": 187010, "milliseconds": {"1": 0.29, "2": 0.55}}
        assert run_page.add_files_to_card(card, {name: figures})
        added = f"| {name} | 0.19 MB | 0.3 (1 thread), 0.6 (2 threads) |"
        assert [line for line in card.read_text().split("\n") if "localizer_" in line] == [added]
    assert run_page.add_files_to_card(card, {})
    assert card.read_text() == before


def test_the_command_that_repeats_a_run_is_one_for_a_shell(tmp_path):
    config = Config(dataset="shapes", output_dir="my runs/a")
    run_page.write_run_page(tmp_path / "report.html", record_of(config=config), curves=None,
                            sheets={}, tiles={})  # fmt: skip
    page = html.unescape((tmp_path / "report.html").read_text())
    assert "wsol_tf.train '--flagfile=my runs/a/run.flags' --output_dir=NEW" in page
