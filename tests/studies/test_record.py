"""A study as a small file, and the pages that are made of such files."""

import dataclasses
import json
import re

import pytest

from helpers import ROOT
from wsol_tf import files
from wsol_tf.evaluation.paired import Difference
from wsol_tf.report import study_page
from wsol_tf.studies import record as records
from wsol_tf.studies.grid import Row
from wsol_tf.studies.record import Record, read_record, with_facts, without_folders, write_record
from wsol_tf.studies.results import Figure, Result

FIRST = Result(
    row=Row("BAS | alone", {"pseudo_weight": "0"}),
    finished=6,
    number=6,
    seeds=(0, 1),
    num_images=4,
    num_pairs=5,
    minutes=1.25,
    figures={"gt_known_loc": Figure(0.75, 0.125, 0.5, 1.0), "centred_box": Figure(0.5)},
    differences={},
)
SECOND = Result(
    row=Row("all", {}),
    finished=6,
    number=6,
    seeds=(0, 1),
    num_images=4,
    num_pairs=5,
    minutes=1.5,
    figures={"gt_known_loc": Figure(0.875, 0.0, 0.5, 1.0), "miou_box": Figure(0.6251234)},
    differences={
        "gt_known_loc": Difference(0.125, -0.0625, 0.25, 3, 1, 0.625, (0.0, 0.25)),
        "miou_box": Difference(0.0625, 0.03125, 0.125, None, None, None, (0.0625, 0.0625)),
    },
    baselines={"cam": Difference(0.25, 0.125, 0.5, 3, 0, 0.03125, (0.25, 0.25))},
)
STUDY = Record(
    title="Parts",
    data="drawn objects",
    command="python -m wsol_tf.study \\\n    --output_dir=STUDY",
    results=(FIRST, SECOND),
    width=0.25,
    folds=3,
    notes=("One note.",),
)


def test_what_is_written_is_read_again_with_five_digits(tmp_path):
    path = str(tmp_path / "a.json")
    write_record(path, STUDY)
    again = read_record(path)
    assert again.results[1].figures["miou_box"].mean == 0.62512
    assert with_facts(again, {}).results[0] == FIRST  # round figures come back as they were
    assert again.results[1].differences == SECOND.differences
    assert again.results[1].differences["miou_box"].verdict == "better"
    assert again.results[1].baselines == SECOND.baselines
    assert {name: getattr(again, name) for name in records.FACTS} == {
        name: getattr(STUDY, name) for name in records.FACTS
    }
    lines = (tmp_path / "a.json").read_text().splitlines()
    assert sum('"row":' in line for line in lines) == 2  # a row in one line, for people


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rows": []}, "no rows"),
        ({"title": ""}, "no title"),
        ({"colour": "red"}, "no fact 'colour'"),
        ({"folds": "3"}, "'folds' of a study has another type"),
        ({"rows": [{"row": "a"}]}, "'trials'"),
        ({"rows": [1]}, "subscriptable"),
    ],
)
def test_a_file_that_is_no_record_is_refused_by_name(tmp_path, change, reason):
    path = str(tmp_path / "a.json")
    write_record(path, STUDY)
    (tmp_path / "a.json").write_text(json.dumps(files.read_json(path) | change))
    with pytest.raises(files.BadFile, match=f"a.json: this is no record of a study.*{reason}"):
        read_record(path)


def test_a_figure_that_is_no_number_is_refused(tmp_path):
    path = tmp_path / "a.json"
    write_record(str(path), STUDY)
    path.write_text(path.read_text().replace("0.75", "NaN", 1))
    with pytest.raises(files.BadFile, match="nan is no figure"):
        read_record(str(path))


@pytest.mark.parametrize(
    ("command", "cut"),
    [
        ("--data_dir=/data/a/b --output_dir='/tmp/x/STUDY/'", "--data_dir=b --output_dir='STUDY'"),
        ("python /home/me/train.py ~/pictures", "python train.py pictures"),
        ("--split='train+val[fold!=1/3]' --study=configs/studies/a.study", None),
        ("--url=sqlite:///x.db", None),
        ("--storage=sqlite:////home/me/x.db", "--storage=sqlite:///x.db"),
        ("--storage=mysql://me:secret@host/db", "--storage=mysql://host/db"),
    ],
)  # fmt: skip
def test_folders_of_one_machine_and_passwords_are_cut_from_commands(command, cut):
    assert without_folders(command) == (cut or command)


def cells_of(text):
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines()]
    return [[cell.strip() for cell in row] for row in rows]


def test_the_tables_have_intervals_spread_and_paired_differences():
    assert cells_of(study_page.markdown_table(STUDY.results)) == [
        ["setting", "GT-known Loc", "box mIoU", "centred box"],
        ["---"] * 4,
        ["BAS \\| alone", "0.750 [0.500, 1.000] ± 0.125", "–", "0.500"],
        ["all", "0.875 [0.500, 1.000] ± 0.000", "0.625", "–"],
    ]
    assert cells_of(study_page.markdown_differences(STUDY.results)) == [
        ["against BAS \\| alone", "GT-known Loc", "shown", "gained, lost", "box mIoU", "shown"],
        ["---"] * 6,
        [
            "all", "+0.125 [−0.062 to +0.250]; by seed 0.000, +0.250", "no difference",
            "3, 1; p = 0.62", "+0.062 [+0.031 to +0.125]; by seed +0.062, +0.062", "better",
        ],
    ]  # fmt: skip
    assert study_page.markdown_differences(STUDY.results[:1]) == ""
    head, _, row = cells_of(study_page.markdown_baselines(STUDY.results))
    assert head[1::3] == ["CAM of the same networks", "the best centred box"]
    assert row[:4] == [
        "all", "+0.250 [+0.125 to +0.500]; by seed +0.250, +0.250", "better", "3, 0; p = 0.031"
    ]  # fmt: skip
    assert row[4:] == ["–", "–", "–"]
    assert study_page.markdown_baselines(STUDY.results[:1]) == ""  # of an older file


def test_pictures_and_seeds_are_in_the_table_where_rows_differ_in_them():
    other = dataclasses.replace(SECOND, seeds=(1,), num_images=3)
    rows = cells_of(study_page.markdown_table([FIRST, other]))
    assert [row[-1] for row in rows] == ["pictures", "---", "4, seeds 0, 1", "3, seeds 1"]


def test_the_chart_of_differences_has_a_row_for_each_setting():
    others = [dataclasses.replace(SECOND, row=Row(label, {})) for label in
              ("all, not refined", "more", "more, not separated", "not at all")]  # fmt: skip
    kept = study_page.as_they_are([FIRST, SECOND, *others])
    assert [each.row.label for each in kept] == ["BAS | alone", "all", "more", "not at all"]
    assert study_page.difference_chart([FIRST, SECOND, others[0]]) is None
    two = study_page.difference_chart([FIRST, SECOND, others[1]])
    three = study_page.difference_chart([FIRST, SECOND, *others])
    assert two.shape[0] < three.shape[0]
    many = [dataclasses.replace(SECOND, row=Row(f"row {i}", {})) for i in range(61)]
    assert study_page.difference_chart([FIRST, *many[1:]]) is not None
    assert study_page.difference_chart([FIRST, *many]) is None


def test_studies_that_are_kept_are_small_and_hold_no_folder_of_a_machine():
    for path in (ROOT / "docs" / "studies").glob("*.json"):
        text = path.read_text()
        assert len(text) < 20_000, f"{path.name} is larger than a table"
        assert without_folders(read_record(str(path)).command) == read_record(str(path)).command
        assert not re.search(r"/(?:tmp|home|work|root)/", text)
