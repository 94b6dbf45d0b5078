import dataclasses
import pathlib

import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

from wsol_tf import config as config_lib
from wsol_tf import programs
from wsol_tf.config import RECIPES, Config

FIELDS = {field.name: field for field in dataclasses.fields(Config)}
FLAGFILES = sorted((pathlib.Path(__file__).parent.parent / "configs").glob("*.flags"))


def define(*arguments, **keywords):
    """Flags of their own, apart from those of the process."""
    flag_values = flags.FlagValues()
    programs.define_flags(*arguments, flag_values=flag_values, **keywords)
    return flag_values


def parse(*arguments):
    flag_values = define()
    assert flag_values(["program", *arguments]) == ["program"]
    return programs.from_flags(flag_values)


def test_every_setting_has_a_flag_with_help():
    defined = define()
    for name, field in FIELDS.items():
        flag = defined[name]
        assert flag.default == field.default, name
        assert len(flag.help) > 10 and flag.help.strip().endswith("."), name
        choices = field.metadata["choices"]
        if choices and field.type is str:
            assert tuple(flag.parser.enum_values) == choices, name


def test_no_arguments_give_the_defaults():
    assert parse() == Config() == Config.recipe()


def test_some_flags_with_other_defaults():
    defined = define(["split", "seed"], split="val")
    assert {"split", "seed"} == {name for name in defined if name in FIELDS}
    assert defined["split"].default == "val"
    assert defined["seed"].default == 0


def test_recipe_wins_over_defaults_and_a_flag_over_the_recipe():
    bas = parse("--recipe=bas")
    assert bas == Config.recipe("bas")
    for name, value in RECIPES["bas"].items():
        assert getattr(bas, name) == value != FIELDS[name].default, name
    # The value of the default, but given: it wins all the same.
    assert parse("--recipe=bas", "--dilation").dilation is True
    assert parse("--dilation", "--recipe=bas").dilation is True
    mixed = parse("--recipe=bas", "--pseudo_high=0.6")
    assert mixed == dataclasses.replace(bas, pseudo_high=0.6)


def test_recipe_in_code():
    assert Config.recipe("bas", pseudo_low=0.3).pseudo_low == 0.3
    assert Config.recipe(width=0.25) == Config(width=0.25)
    assert Config().recipe == "default" and Config.recipe("bas").recipe == "bas"
    with pytest.raises(ValueError, match="Unknown recipe 'cam'. Legal: default, bas."):
        Config.recipe("cam")
    with pytest.raises(ValueError, match="Unknown setting 'widht'. Legal: dataset, .*width, "):
        Config.recipe(widht=0.25)


def test_recipes_name_settings_with_legal_values():
    for name, recipe in RECIPES.items():
        assert set(recipe) <= set(FIELDS)
        assert Config.recipe(name).recipe == name


def test_the_later_flag_wins_over_the_flagfile(tmp_path):
    file = tmp_path / "my.flags"
    file.write_text("# A comment.\n--width=0.5\n--epochs=3\n--recipe=bas\n--final_relu=false\n")
    expected = Config.recipe("bas", width=0.5, epochs=4, final_relu=False)
    assert parse(f"--flagfile={file}", "--epochs=4") == expected
    assert programs.from_flagfile(file, "--epochs=4") == expected


@pytest.mark.parametrize("file", FLAGFILES, ids=lambda file: file.stem)
def test_flagfiles_of_the_project(file):
    got = programs.from_flagfile(file)
    assert got.output_dir == "" and got.data_dir == ""
    first = file.read_text().splitlines()[0]
    assert first.startswith("# "), "a flagfile starts by saying what it is for"


def test_the_project_has_flagfiles():
    assert FLAGFILES


# Of paths, variables are expanded, and an unknown one is refused.
NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="$"),
    max_size=12,
)
SHARES = st.floats(0, 1)
STRATEGIES = {bool: st.booleans(), int: st.integers(1, 10**6), float: SHARES, str: NAMES}
SPECIAL = {
    "holdout": st.floats(0, 1, exclude_max=True),
    "pseudo_low": st.floats(0, 0.4),
    "pseudo_high": st.floats(0.5, 2),
    "lr_drops": st.lists(st.floats(0.01, 0.99), max_size=4).map(lambda x: ",".join(map(str, x))),
    "learning_rate": st.floats(1e-12, 1e6),
    "min_crop": st.floats(0, 1, exclude_min=True),
    "erased_share": st.floats(0, 1, exclude_min=True),
    "resize_size": st.integers(224, 10**6),
    "input_size": st.integers(1, 224),
    "ema": st.floats(0, 1, exclude_max=True),
    "best_by": st.just("last"),
    "patience": st.just(0),
    "data_dir": st.lists(NAMES.filter(bool), max_size=3).map(" ".join),
}


def _values(name, field):
    if name in SPECIAL:
        return SPECIAL[name]
    choices = field.metadata["choices"]
    return st.sampled_from(choices) if choices else STRATEGIES[field.type]


def _is_central(chosen):
    return chosen.get("strategy") == "central"  # it can't accumulate gradients


SETTINGS = st.fixed_dictionaries(
    {}, optional={name: _values(name, field) for name, field in FIELDS.items()}
).map(lambda chosen: chosen | ({"gradient_accumulation": 1} if _is_central(chosen) else {}))


@settings(max_examples=60, deadline=None)
@given(SETTINGS)
def test_run_flags_repeat_the_run(tmp_path_factory, chosen):
    wanted = Config(**{"pseudo_low": 0.1, "pseudo_high": 0.5, **chosen})
    file = tmp_path_factory.getbasetemp() / "run.flags"
    file.write_text(programs.to_flagfile(wanted))
    assert parse(f"--flagfile={file}") == wanted


def test_run_flags_read_as_documentation():
    lines = programs.to_flagfile(Config.recipe("bas", data_dir="my pictures")).splitlines()
    assert "--data_dir=my pictures" in lines
    assert "--dilation=false" in lines
    assert lines[lines.index("--ae_threshold=0.7") - 1].startswith("# t1: ")
    assert len(lines) == 2 * len(FIELDS)


def test_settings_cant_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().width = 0.5


@pytest.mark.parametrize("name", [n for n, f in FIELDS.items() if f.metadata["choices"]])
def test_values_outside_an_enum_are_refused(name):
    wrong = "cub" if FIELDS[name].type is str else 7
    with pytest.raises(ValueError, match=f"Unknown `{name}` '{wrong}'. Legal: "):
        Config(**{name: wrong})
    with pytest.raises((ValueError, flags.IllegalFlagValueError), match=str(wrong)):
        parse(f"--{name}={wrong}")


@pytest.mark.parametrize("drops", ["0.5,x", "0", "1", "0.5,1.5", "-0.5", "0.5;0.8", "nan"])
def test_bad_drops_are_refused(drops):
    with pytest.raises(ValueError, match="`lr_drops` must be shares of the run"):
        Config(lr_drops=drops)
    with pytest.raises(ValueError, match="lr_drops"):
        parse(f"--lr_drops={drops}")


@pytest.mark.parametrize(
    ("text", "shares"), [("", ()), ("0.8", (0.8,)), (" 0.9 , 0.5,", (0.5, 0.9))]
)
def test_drops_as_numbers(text, shares):
    assert Config(lr_drops=text).lr_drop_shares == shares


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "`epochs` must be at least 1. Received: 0."),
        ({"batch_size": -1}, "`batch_size` must be at least 1. Received: -1."),
        ({"head_width": 0}, "`head_width` must be at least 1"),
        ({"top_k": 0}, "`top_k` must be at least 1"),
        ({"holdout": 1.0}, r"`holdout` must lie in \[0, 1\). Received: 1.0."),
        ({"holdout": -0.1}, "`holdout` must lie"),
        ({"ema": 1.0}, r"`ema` must lie in \[0, 1\). Received: 1.0."),
        ({"momentum": 2.0}, r"`momentum` must lie in \[0, 1\]. Received: 2.0."),
        ({"bn_momentum": 1.5}, r"`bn_momentum` must lie in \[0, 1\]. Received: 1.5."),
        ({"gradient_accumulation": 0}, "`gradient_accumulation` must be at least 1"),
        (
            {"strategy": "central", "gradient_accumulation": 2},
            "`strategy` 'central' can't accumulate gradients: use 'mirrored'",
        ),
        ({"learning_rate": 0.0}, "`learning_rate` must be above 0. Received: 0.0."),
        ({"learning_rate": float("inf")}, "must be above 0. Received: inf. It must be a finite"),
        ({"bas_weight": float("inf")}, "`bas_weight` must be at least 0. Received: inf. It must"),
        ({"head_width": 10**8}, "`head_width` must be at most 1000000. Received: 100000000."),
        ({"epochs": 2.5}, "`epochs` must be a whole number. Received: 2.5."),
        ({"epochs": True}, "`epochs` must be a whole number. Received: True."),
        ({"batch_size": "8"}, "`batch_size` must be a whole number. Received: '8'."),
        ({"l2": None}, "`l2` must be a number. Received: None."),
        ({"resume": "yes"}, "`resume` must be True or False. Received: 'yes'."),
        ({"split": 3}, "`split` must be text. Received: 3."),
        ({"output_dir": "$NOT_THERE_1/run"}, "no environment variable NOT_THERE_1. Received"),
        ({"l2": float("nan")}, "`l2` must be at least 0. Received: nan."),
        ({"warmup": 1.5}, r"`warmup` must lie in \[0, 1\]. Received: 1.5."),
        ({"resize_size": 200}, "`resize_size` must be 0 or at least `input_size`. Received: 200"),
        ({"best_by": "loss", "validate_every": 0}, "`best_by` 'loss' needs scores of held-out"),
        ({"patience": 3}, "set `best_by` to 'loss' or 'gt_known'"),
        (
            {"pseudo_low": 0.5, "pseudo_high": 0.5},
            "`pseudo_low` must be smaller than `pseudo_high`",
        ),
    ],
)
def test_settings_that_cant_work_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Config(**wrong)


@pytest.mark.parametrize(
    ("size", "resize", "expected"), [(224, 0, 256), (96, 0, 110), (224, 240, 240)]
)
def test_pictures_are_cropped_from(size, resize, expected):
    assert Config(input_size=size, resize_size=resize).crop_from == expected


def test_what_differs_from_a_run_is_named(tmp_path):
    file = tmp_path / "run.flags"
    config = Config(epochs=3, ac_weight=1.5)
    file.write_text(programs.to_flagfile(config))
    assert programs.differences(config, file) == []
    # Neither the place nor the machine changes what is learned.
    free = dict(output_dir="elsewhere", strategy="mirrored", checkpoint_every_steps=7)
    assert programs.differences(dataclasses.replace(config, **free), file) == []
    other = dataclasses.replace(config, ac_weight=2.5, epochs=4)
    assert programs.differences(other, file) == [
        "`ac_weight=1.5` (here: 2.5)",
        "`epochs=3` (here: 4)",
    ]
    file.write_text("--epoch_count=3\n")
    assert "epoch_count" in programs.differences(config, file)[0]


def test_settings_that_may_change_on_resuming_exist():
    assert set(config_lib.CHANGEABLE_ON_RESUME) <= set(FIELDS)


def test_settings_in_backticks_become_flags_of_the_program():
    flag_values = flags.FlagValues()
    programs.define_flags(["batch_size", "resume"], flag_values=flag_values)
    text = "Lower `batch_size`, pass `resume=false`, or see `localize` and `cache=disk`."
    assert programs.with_flags(text, flag_values) == (
        "Lower --batch_size, pass --resume=false, or see localize and cache=disk."
    )


def test_a_registered_choice_is_legal():
    with pytest.raises(ValueError, match="Unknown `extractor` 'own'. Legal: mobilenet_v1"):
        config_lib.Config(extractor="own")
    config_lib.register_choice("extractor", "own")
    config_lib.register_choice("extractor", "own")
    try:
        assert config_lib.choices("extractor").count("own") == 1
        assert config_lib.Config(extractor="own").extractor == "own"
    finally:
        config_lib._REGISTERED.clear()
