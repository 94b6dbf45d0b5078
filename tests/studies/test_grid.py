import pytest

from wsol_tf.studies.grid import (
    Range,
    Row,
    base_arguments,
    make_rows,
    parse_grid,
    read_study,
    row_config,
)

BASE = ("--dataset=shapes", "--width=0.25")


@pytest.mark.parametrize(
    "text, grid",
    [
        ("", {}),
        ("ae_weight=0,0.1; seed=0,1,2", {"ae_weight": ("0", "0.1"), "seed": ("0", "1", "2")}),
        (" ae_weight = 0 , 0.1 ;", {"ae_weight": ("0", "0.1")}),
        ('lr_drops="0.5,0.9","0.8"', {"lr_drops": ("0.5,0.9", "0.8")}),
        ("ae_weight=0..1", {"ae_weight": Range(0, 1, False)}),
        ("learning_rate=1e-4..1e-2:log", {"learning_rate": Range(1e-4, 1e-2, True)}),
        ("head_width=64..256", {"head_width": Range(64, 256, False)}),
    ],
)
def test_grids_are_read(text, grid):
    assert parse_grid(text) == grid


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("ae_wieght=0", "Unknown setting 'ae_wieght'"),
        ("ae_weight", "'ae_weight' is no part of a grid"),
        ("ae_weight=", "'ae_weight=' is no part of a grid"),
        ("ae_weight=0,,1", "an empty value for `ae_weight`"),
        ("ae_weight=0; ae_weight=1", "names `ae_weight` twice"),
        ("output_dir=a,b", "`output_dir` can't be varied"),
        ("ae_weight=1..0", "two finite numbers, the smaller one first"),
        ("ae_weight=0..inf", "two finite numbers"),
        ("map=a..b", "a setting that is a number"),
        ("ae_weight=0..1:log", "numbers above 0"),
    ],
)
def test_grids_that_cannot_be_are_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse_grid(text)


def rows_of(text, named=()):
    return make_rows(BASE, parse_grid(text), named)


def test_rows_are_the_combinations_and_seeds_are_apart():
    rows, seeds = rows_of("ae_weight=0,0.1; map=mean,true; seed=3,4")
    assert seeds == [3, 4]
    assert [row.label for row in rows] == [
        "ae_weight=0,map=mean",
        "ae_weight=0,map=true",
        "ae_weight=0.1,map=mean",
        "ae_weight=0.1,map=true",
    ]
    assert rows[2].settings == {"ae_weight": "0.1", "map": "mean"}
    assert rows[2].varied == ("ae_weight", "map")


def test_the_same_value_written_otherwise_is_one_row():
    rows, seeds = rows_of("ae_weight=0.1,0.10,1e-1,0; final_relu=true; seed=0,00")
    assert [row.label for row in rows] == ["ae_weight=0.1,final_relu=true",
                                          "ae_weight=0,final_relu=true"]  # fmt: skip
    assert seeds == [0]


def test_without_a_grid_there_is_one_row_with_the_seed_that_is_set():
    rows, seeds = make_rows((*BASE, "--seed=5"), {})
    assert ([row.label for row in rows], seeds) == (["as it is"], [5])


def test_named_rows_go_with_each_combination():
    named = (Row("plain", {}), Row("no bas", {"bas_weight": "0", "ac_weight": "0"}))
    rows, _ = rows_of("ae_weight=0,1", named)
    assert [row.label for row in rows] == ["plain,ae_weight=0", "plain,ae_weight=1",
                                          "no bas,ae_weight=0", "no bas,ae_weight=1"]  # fmt: skip
    config = row_config(BASE, rows[3].settings)
    assert (config.ae_weight, config.bas_weight, config.ac_weight, config.width) == (1, 0, 0, 0.25)
    with pytest.raises(ValueError, match=r"'no bas' and the grid both set `bas_weight`"):
        rows_of("bas_weight=0,1", named)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("ae_weight=-1", "`ae_weight` must be at least 0"),
        ("epochs=x", "epochs"),
        ("map=mean,nonsense", "map"),
        ("seed=a", "seed"),
        ("pseudo_low=0.6", "`pseudo_low` must be smaller"),
    ],
)
def test_values_that_a_run_would_refuse_are_refused_before_any_run(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        rows_of(text)


def test_a_value_given_in_the_grid_wins_over_the_recipe_and_a_recipe_may_vary():
    rows, _ = rows_of("recipe=default,bas; clip_norm=2")
    configs = [row_config(BASE, row.settings) for row in rows]
    assert [(c.final_relu, c.clip_norm) for c in configs] == [(False, 2), (True, 2)]


def test_a_study_file_is_read(tmp_path):
    path = tmp_path / "a.study"
    path.write_text(
        "# What does erasing add?\n\ntitle=Erasing # here\nquestion=Is it #1?\n"
        "flagfile=../cub.flags\nfolds=5\ngrid=ae_weight=0,0.1; seed=0,1\n"
        "row=plain:\nrow = late drop : lr_drops=0.8,0.9; epochs=3\n"
    )
    found = read_study(str(path))
    assert (found.title, found.question) == ("Erasing", "Is it #1?")
    assert (found.flagfile, found.folds) == ("../cub.flags", 5)
    assert found.grid == "ae_weight=0,0.1; seed=0,1"
    assert found.rows == (
        Row("plain", {}),
        Row("late drop", {"lr_drops": "0.8,0.9", "epochs": "3"}),
    )


def test_its_flagfile_is_looked_for_from_its_own_folder(tmp_path):
    (tmp_path / "studies").mkdir()
    path = tmp_path / "studies" / "a.study"
    path.write_text("flagfile=../own.flags\n")
    with pytest.raises(ValueError, match=r"a\.study: there is no flagfile '.*own\.flags'\."):
        base_arguments(str(path), read_study(str(path)))
    (tmp_path / "own.flags").write_text("--epochs=7\n")
    base = base_arguments(str(path), read_study(str(path)))
    assert row_config(base, {}).epochs == 7
    path.write_text("folds=2\n")
    assert base_arguments(str(path), read_study(str(path))) == []


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("nonsense", "line 1: 'nonsense'"),
        ("color=red", "Legal are flagfile, grid, folds, title, question"),
        ("folds=5\nfolds=6", "line 2: 'folds=6' is there twice"),
        ("folds=five", "folds must be a whole number"),
        ("row=a", "a row is written as"),
        ("row=: ae_weight=0", "a row is written as"),
        ("row=a: ae_weight", "not one setting=value"),
        ("row=a: ae_wieght=1", "Unknown setting"),
        ("row=a: ae_weight=1\nrow=a: ae_weight=2", "two rows have the same name"),
    ],
)
def test_study_files_that_cannot_be_are_refused(tmp_path, text, sentence):
    path = tmp_path / "a.study"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_study(str(path))


def test_a_study_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none.study: there is no such file"):
        read_study(str(tmp_path / "none.study"))
