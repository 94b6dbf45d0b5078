"""The report as a page: what it asks for, what it says, and how a browser shows it."""

import fnmatch
import html.parser
import pathlib
import re
import shutil
import subprocess
import tomllib

import jinja2
import numpy as np
import pytest
from PIL import Image

from helpers import add_map
from wsol_tf.evaluation.localized_map import OUTCOMES
from wsol_tf.evaluation.metrics import LocalizationMetrics
from wsol_tf.evaluation.score import compute_figures
from wsol_tf.evaluation.wsolevaluation import METRICS, BoxAccuracy, PixelPrecision
from wsol_tf.report import definitions
from wsol_tf.report import page as page_module
from wsol_tf.report.page import draw_charts, verdict, write_report
from wsol_tf.report.templates import template_environment

WICKED = "<script>alert(1)</script>&amp;\"'<i>"
FOLDER = pathlib.Path(page_module.__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the cells of each table row as texts and data values."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.rows, self.values = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag == "data":
            self.values.append(dict(attributes)["value"])
            if self.rows:
                self.rows[-1].append(self.values[-1])

    def handle_data(self, data):
        self.texts.append(data)
        if self.rows and data.strip():  # line ends between the tags of a table show nothing
            self.rows[-1].append(data)


def _scored(classes, count=24, boxes=True, class_scores=True):
    """Figures of random maps, as evaluate has them."""
    rng = np.random.default_rng(0)
    kinds = {"mean": LocalizationMetrics(), "cam": LocalizationMetrics()}
    for i in range(count):
        x, y = rng.integers(0, 20, 2)
        box = [[x, y, x + 18, y + 18]] if boxes else None
        scores = rng.random(len(classes)) if class_scores else None
        for accumulator in kinds.values():
            score_map = rng.random((8, 8))
            score_map[y // 5 : y // 5 + 4, x // 5 : x // 5 + 4] += rng.random()
            add_map(accumulator, f"{i}", i % len(classes), scores, score_map, box, 40)
    figures = compute_figures(kinds, "mean", {"mean": 0.4, "cam": 0.3}, classes)
    figures |= {"threshold_from": "given", "view": "crop", "skipped": {}}
    return {"model": "model.keras", "scored_on": "drawn", **figures}


def _tiles(headings, each=6):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (each, 20, 60, 3), np.uint8)
    large = [np.asarray(Image.fromarray(tile).resize((616, 200))) for tile in small]
    return {name: [(tile, f"IoU 0.5, {WICKED}") for tile in large] for name in headings}


HEADINGS = ("best", "median", "worst", *OUTCOMES[1:])


@pytest.fixture(scope="module")
def figures():
    return _scored([WICKED, "cat", "dog"])


@pytest.fixture(scope="module")
def path(figures, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path, figures, draw_charts(figures), _tiles(HEADINGS, 2), title=WICKED, command="run"
    )
    return path


@pytest.fixture(scope="module")
def page(path):
    return Page(path.read_text(encoding="utf-8"))


def test_nothing_is_asked_for_from_elsewhere(page, path):
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form", "a", "video"}
    for _, attributes in page.tags:
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href", "srcset", "action", "data", "style"):
                assert key == "src" and value.startswith("data:image/")
    assert not re.search(r"url\(|@import|https?:", path.read_text(encoding="utf-8"))
    assert sum(name == "img" for name, _ in page.tags) == 3 + 2 * len(HEADINGS)
    assert all(attributes["alt"] for name, attributes in page.tags if name == "img")


def test_what_comes_from_data_is_text(page):
    assert not {name for name, _ in page.tags} & {"script", "i"}
    whole = "".join(page.texts)
    for text in (WICKED, f"IoU 0.5, {WICKED}"):
        assert text in whole
    assert any(row and row[0] == WICKED for row in page.rows)  # its row of the class table


def test_no_part_of_the_template_turns_escaping_off():
    template = (FOLDER / "report.html.jinja").read_text()
    assert not re.search(r"\|\s*safe|autoescape|Markup", template)
    style = (FOLDER / "report.css").read_text()  # included as it stands
    assert not re.search(r"\{[{%#]|</", style)


def test_what_is_not_prepared_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="'title' is undefined"):
        template_environment().get_template("report.html.jinja").render()


def test_the_template_and_the_stylesheet_are_packaged():
    with open(FOLDER.parent.parent / "pyproject.toml", "rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]["wsol_tf.report"]
    names = {path.name for path in FOLDER.iterdir() if path.suffix in (".jinja", ".css")}
    assert {"report.html.jinja", "report.css"} <= names
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in patterns) for name in names)


def test_every_element_is_closed(path):
    open_tags = []

    class Balance(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in ("img", "meta", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Balance().feed(path.read_text(encoding="utf-8"))
    assert not open_tags


def _row(page, name):
    return next(row for row in page.rows if row and row[0] == name)


def test_numbers_are_those_of_metrics_json(page, figures):
    shown = ("gt_known_loc", "top1_loc", "top5_loc", "miou_box")
    for name, kind in (("localizer, mean of maps", figures),
                       ("CAM of the classifier", figures["other_maps"]["cam"])):  # fmt: skip
        row = _row(page, name)
        keys = (*shown, "threshold", "gt_known_loc_oracle", "oracle_threshold")
        assert [float(text) for text in row[1::2]] == [kind[key] for key in keys]
        assert [float(text) for text in row[2::2]] == [
            round(kind[key], 2 if "threshold" in key else 3) for key in keys
        ]
    assert (
        float(_row(page, "whole view as box")[1])
        == (figures["baselines"]["whole_view"]["gt_known_loc"])
    )
    for outcome, count in figures["outcomes"].items():
        row = _row(page, definitions.DISPLAY_NAMES[outcome])
        assert row[1] == str(count) and definitions.DEFINITIONS[outcome] in row
    for name, kind in figures["per_class"]["classes"].items():
        assert float(_row(page, name)[1]) == kind["gt_known_loc"]


def test_fixed_and_oracle_figures_are_told_apart(path, page, figures):
    cards = re.findall(r'class="card([^"]*)">([^<]*)<b><data value="([^"]*)"', path.read_text())
    by_name = {name: (kind.strip(), float(value)) for kind, name, value in cards}
    assert by_name["GT-known Loc"] == ("main", figures["gt_known_loc"])
    low, high = figures["intervals"]["gt_known_loc"]
    assert f"{low:.3f} to {high:.3f} with 95 % confidence; right boxes, at" in path.read_text()
    assert by_name["Oracle GT-known Loc"] == ("oracle", figures["gt_known_loc_oracle"])
    assert by_name["Best centred box"][0] == "oracle"
    whole = "".join(page.texts)
    assert "upper bound" in whole and "fixed threshold 0.40, given" in whole


def test_the_verdict_counts_right():
    figures = {
        "gt_known_loc": 0.75, "num_images": 100, "num_pairs": 100, "top1_loc": 0.5,
        "outcomes": {"right": 50, "wrong_class": 25, "part_only": 25, "too_big": 0,
                     "several_objects": 0, "missed": 0},
        "baselines": {"centered_box_oracle": {"gt_known_loc": 0.8}},
        "intervals": {"gt_known_loc": [0.66, 0.83]},
        "above_baselines": {
            "classifier_cam": {"difference": 0.25, "interval": [0.125, 0.375], "verdict": "better"},
            "centered_box_oracle": {"difference": -0.05, "interval": [-0.15, 0.05], "p": 0.25,
                                    "verdict": "no difference shown"},
        },
    }  # fmt: skip
    text = verdict(figures)
    assert "right for 75 of 100 pictures, 5 fewer than the best centred box" in text
    assert "class are right for 50" in text
    assert text.endswith(
        "GT-known Loc 0.750 (95 % interval 0.660 to 0.830): 0.250 (0.125 to 0.375) above CAM of "
        "the classifier, no difference to the best centred box is shown (-0.050, -0.150 to +0.050, "
        "p = 0.25)."
    )
    worse = {"difference": -0.25, "interval": [-0.375, -0.125], "verdict": "worse"}
    text = verdict({**figures, "above_baselines": {"centered_box_oracle": worse}})
    assert text.endswith(": 0.250 (0.125 to 0.375) below the best centred box.")


def test_every_name_that_is_shown_is_defined(page, figures):
    whole = "".join(page.texts)
    for name, text in definitions.definitions_of(figures).items():
        assert name in whole and text in whole


def test_data_without_boxes_makes_a_page_too(tmp_path):
    figures = _scored(["a", "b"], boxes=False)
    assert draw_charts(figures) == {}
    path = tmp_path / "report.html"
    write_report(path, figures, {}, {"": _tiles(["x"])["x"]}, title="bare", command="run")
    page = Page(path.read_text())
    assert "has no boxes" in "".join(page.texts)
    assert str(figures["top1_cls"]) in page.values


def test_maps_without_class_scores_make_a_page_too(tmp_path):
    figures = _scored(["a", "b"], class_scores=False)
    counts = figures["outcomes"]
    assert counts["wrong_class"] == 0 and counts["right"] == round(24 * figures["gt_known_loc"])
    path = tmp_path / "report.html"
    write_report(path, figures, draw_charts(figures), {}, title="", command="run")
    whole = "".join(Page(path.read_text()).texts)
    assert "Box and class" not in whole and "Top-1 Cls" not in whole


def test_otsu_has_no_fixed_threshold(tmp_path):
    figures = _scored(["a", "b"]) | {"threshold": "otsu"}
    path = tmp_path / "report.html"
    write_report(path, figures, draw_charts(figures), {}, title="", command="run")
    whole = "".join(Page(path.read_text()).texts)
    assert "at Otsu's threshold of each map" in whole and "fixed threshold" not in whole


def test_standard_metrics_are_shown_when_they_are_there(tmp_path):
    figures = _scored(["a", "b"])
    boxes, pixels = BoxAccuracy(), PixelPrecision()
    boxes.add("a", np.eye(9), [[0, 0, 8, 8]])
    pixels.add("a", np.eye(9), np.eye(9, dtype=np.uint8))
    found = boxes.result() | pixels.result()
    figures |= {name: found[name] for name in METRICS}
    path = tmp_path / "report.html"
    write_report(path, figures, {}, {}, title="", command="run")
    page = Page(path.read_text())
    for name in ("max_box_acc", "max_box_acc_v2", "pxap", "piou"):
        row = _row(page, definitions.DISPLAY_NAMES[name])
        assert float(row[1]) == figures[name]["value"]
        if "threshold" in figures[name]:
            assert float(row[3]) == figures[name]["threshold"]
    for level, row in figures["max_box_acc_v2"]["iou_levels"].items():
        shown = _row(page, f"MaxBoxAccV2 at IoU {level}")
        assert [float(text) for text in shown[1::2]] == [row["accuracy"], row["threshold"]]


def test_bad_pictures_are_named(tmp_path):
    figures = _scored(["a", "b"]) | {
        "skipped": {WICKED: "the file is empty"}, "bad_maps": ["m"], "duplicates": ["d"],
        "constant_maps": ["c"], "pairs_without_box": ["p1", "p2"],
        "score_maps": {"missing": ["gone"], "unreadable": {"torn": "cut off"}},
    }  # fmt: skip
    path = tmp_path / "report.html"
    write_report(path, figures, {}, {}, title="", command="run")
    whole = "".join(Page(path.read_text()).texts)
    for text in (
        f"{WICKED}: the file is empty",
        "1 picture that could not be read, not counted",
        "1 picture without a score map, or with NaN or infinity in it",
        "1 picture that came twice",
        "1 picture with one value everywhere",
        "2 pictures with an object outside",
        "1 name in score_maps, missing",
        "torn: cut off",
    ):
        assert text in whole


def test_a_large_data_set_stays_a_small_file(tmp_path):
    figures = _scored(["a", "b"])
    classes = [f"{i:04}, a class with quite a long name, or several of them" for i in range(1200)]
    figures["per_class"]["classes"] = dict.fromkeys(classes, figures["per_class"]["classes"]["a"])
    names = [f"folder/of/pictures/ILSVRC2012_val_{i:08}.JPEG" for i in range(5000)]
    figures |= {"skipped": dict.fromkeys(names, "the file is empty"), "bad_maps": names}
    path = tmp_path / "report.html"
    write_report(
        path, figures, draw_charts(figures), _tiles(HEADINGS), title="large", command="run"
    )
    assert path.stat().st_size < 4e6
    whole = "".join(Page(path.read_text()).texts)
    assert "metrics.json has the other 200" in whole
    assert "and 4900 more, see metrics.json" in whole


def test_names_that_are_no_text_do_not_stop_the_report(tmp_path):
    figures = _scored(["a", "b"]) | {"skipped": {"bad\udcff name": "reason"}}
    path = tmp_path / "report.html"
    write_report(path, figures, {}, {}, title="\x00", command="run")
    path.read_text(encoding="utf-8")


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Function that runs a browser without a window and without a network on a page."""
    found = next((shutil.which(name) for name in BROWSERS if shutil.which(name)), None)
    if not found:
        pytest.skip(f"no browser on this machine (looked for {', '.join(BROWSERS)})")
    profile = tmp_path_factory.mktemp("profile")

    def open_page(path, *arguments):
        done = subprocess.run(
            [found, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND", *arguments,
             f"file://{path}"],
            capture_output=True, timeout=120, check=True,
        )  # fmt: skip
        return done.stdout.decode()

    return open_page


PROBE = """<script>addEventListener("load", () => { document.title = [
  [...document.images].every(image => image.naturalWidth > 0), document.images.length,
  document.documentElement.scrollWidth <= innerWidth].join() })</script>"""


@pytest.mark.parametrize("width", [500, 1200])
def test_a_browser_shows_all_pictures_and_needs_no_scrolling_sideways(browser, path, width):
    probed = path.with_name("probed.html")
    probed.write_text(path.read_text() + PROBE)
    shown = browser(probed, f"--window-size={width},900", "--dump-dom")
    assert f"<title>true,{3 + 2 * len(HEADINGS)},true</title>" in shown


@pytest.mark.parametrize("scheme, dark", [(1, False), (0, True)])
def test_a_browser_shows_it_light_and_dark(browser, path, scheme, dark):
    shot = path.with_name("shot.png")
    setting = f"--blink-settings=preferredColorScheme={scheme}"
    browser(path, setting, f"--screenshot={shot}", "--window-size=800,1500")
    with Image.open(shot) as picture:
        drawn = np.asarray(picture.convert("L"))
    assert (drawn[5, 5] < 60) == dark  # the page
    assert (np.median(drawn[-400:]) < 60) == dark  # a chart or a table on it
    assert drawn.std() > 20
