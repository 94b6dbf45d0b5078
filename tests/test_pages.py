"""Pages that are made of the studies in docs/studies are as benchmarks/results.py writes them."""

import importlib.util
import json

import numpy as np
import pytest

from helpers import ROOT
from wsol_tf import files
from wsol_tf.studies.record import read_record

PATH = ROOT / "benchmarks" / "results.py"
SPEC = importlib.util.spec_from_file_location("benchmark_of_results", PATH)
results = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(results)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with one study of two rows on four pictures, the second of which hits one more."""
    (tmp_path / "docs" / "studies").mkdir(parents=True)
    (tmp_path / "docs" / "images").mkdir()
    iou = np.array([[0.9, 0.8, 0.2, 0.15], [0.9, 0.7, 0.6, 0.15]])[:, None]
    np.savez(tmp_path / "a.npz", rows=["BAS", "all"], iou=iou, plain_iou=iou - 0.15)
    facts = {
        "title": "Parts", "data": "ten birds", "command": "python /tmp/train.py", "width": 0.25,
        "machine": "one GPU", "folds": 2, "minutes": 1.5, "program": "another program",
        "notes": ["A note."], "date": "2026-01-02",
    }  # fmt: skip
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    (tmp_path / "README.md").write_text("Before.\n<!-- rows parts; parts: all -->\n<!-- end -->\nx")
    (tmp_path / "docs" / "results.md").write_text("# R\n<!-- studies -->\nstale\n<!-- end -->\n")
    (tmp_path / "docs" / "studies" / "parts.md").write_text(
        "# P\n<!-- study parts -->\n<!-- end -->\nAfter.\n"
    )
    monkeypatch.setattr(results, "ROOT", tmp_path)
    return tmp_path


class Values:
    """Parsed flags."""

    def __init__(self, add="", facts="", name="", check=False, short=False, chart=""):
        self.add, self.facts, self.name, self.check = map(str, (add, facts, name, check or ""))
        self.short, self.chart = short, chart


def test_the_pages_are_as_the_studies_say():
    behind = [path.name for path, now, wanted in results.pages_of(ROOT) if now != wanted]
    assert not behind, "run `python benchmarks/results.py`"


def test_a_study_that_is_added_reaches_every_page_and_what_is_changed_by_hand_is_found(
    root, capsys
):
    values = Values(root / "a.npz", root / "facts.json", "parts")
    assert results.run(values) == 0
    assert results.run(Values(check=True)) == 0
    readme = (root / "README.md").read_text().splitlines()
    assert readme[0] == "Before." and readme[-1] == "x"
    assert readme[5].startswith("| ten birds, 4 in 2 folds, 1 seed | 0.25 | **0.500** [0.000, ")
    assert "**0.750**" in readme[6] and "| 0.500 | – | – |" in readme[6]  # of 0.75, 0.55, 0.45, 0
    short = (root / "docs" / "results.md").read_text()
    assert "stale" not in short and "### Parts" in short
    assert "[Differences and command](studies/parts.md)." in short
    assert "python train.py" not in short
    full = (root / "docs" / "studies" / "parts.md").read_text()
    assert "    python train.py\n" in full and "- A note." in full and full.endswith("After.\n")
    assert "Trained by another program on one GPU, 1.5 minutes each" in full
    assert "| all | +0.250 [0.000 to +0.750] | no difference | 1, 0; p = 1 |" in full
    # One digit of one page.
    (root / "docs" / "results.md").write_text(short.replace("0.750", "0.751"))
    capsys.readouterr()
    assert results.run(Values(check=True)) == 1
    assert "Behind: docs/results.md" in capsys.readouterr().out
    assert "0.751" in (root / "docs" / "results.md").read_text()  # a check writes nothing
    assert results.run(Values()) == 0
    assert (root / "docs" / "results.md").read_text() == short


def test_a_study_without_a_page_of_its_own_shows_its_command_where_it_is_listed(root):
    (root / "docs" / "studies" / "parts.md").unlink()
    assert results.run(Values(root / "a.npz", root / "facts.json", "parts")) == 0
    assert "\n\n    python train.py\n\n<!-- end -->" in (root / "docs" / "results.md").read_text()


def test_facts_win_over_a_study_and_name_what_is_wrong(root):
    assert results.run(Values(root / "a.npz", root / "facts.json", "parts")) == 0
    kept = root / "docs" / "studies" / "parts.json"
    again = results.record_of(str(kept), {"title": "Other", "minutes": 3})
    assert again.title == "Other" and [row.minutes for row in again.results] == [3.0] * 4
    assert again.data == read_record(str(kept)).data
    with pytest.raises(ValueError, match="no fact 'colour'"):
        results.record_of(str(kept), {"colour": "red"})
    with pytest.raises(ValueError, match="must say the 'machine'"):
        results.record_of(str(root / "a.npz"), {"title": "a", "data": "b", "command": "c"})
    with pytest.raises(ValueError, match="--name must be"):
        results.run(Values(kept, "", "../x"))
    (root / "broken.npz").write_text("PK")
    with pytest.raises(files.BadFile, match=r"broken\.npz: this is no \.npz file"):
        results.run(Values(root / "broken.npz", root / "facts.json", "x"))


def test_a_study_of_many_rows_is_kept_short_and_drawn(root):
    iou = np.array([[0.9, 0.8, 0.2, 0.1], [0.9, 0.7, 0.6, 0.1], [0.9, 0.7, 0.1, 0.1]])[:, None]
    arrays = root / "a.npz"
    np.savez(arrays, rows=["BAS", "all", "none"], iou=iou, plain_iou=iou - 0.05)
    assert results.run(Values(arrays, root / "facts.json", "parts", chart="parts")) == 0
    assert (root / "docs" / "images" / "parts.png").read_bytes().startswith(b"\x89PNG")
    kept = str(root / "docs" / "studies" / "parts.json")
    assert len(read_record(kept).results) == 6
    assert results.run(Values(arrays, root / "facts.json", "parts", short=True)) == 0
    assert [row.row.label for row in read_record(kept).results] == [
        "BAS", "BAS, not refined", "all", "none",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="--chart names a study of 3 to 61 rows"):
        results.run(Values(chart="nothing"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<!-- study nothing -->\n<!-- end -->", r"README\.md asks for nothing"),
        ("<!-- rows parts: none -->\n<!-- end -->", r"README\.md asks for none"),
        ("<!-- studies -->\n", r"README\.md has a mark without an"),
    ],
)
def test_a_page_that_asks_for_what_is_not_there_is_named(root, text, error):
    assert results.run(Values(root / "a.npz", root / "facts.json", "parts")) == 0
    (root / "README.md").write_text(text)
    with pytest.raises(ValueError, match=error):
        results.run(Values())
