"""What benchmarks/many_trainings.py trains, and what it refuses: without JAX."""

import numpy as np
import pytest

from jax_trainings import plan
from wsol_tf.data.registry import open_dataset
from wsol_tf.studies.grid import read_study


@pytest.fixture
def read(tmp_path):
    """Reads the lines of a .study file."""

    def read(*lines):
        path = tmp_path / "one.study"
        path.write_text("\n".join(lines), encoding="utf-8")
        return read_study(str(path), plan.EXPERIMENTS)

    return read


def test_every_setting_is_varied_shared_without_meaning_or_refused():
    names = [*plan.VARIED, *plan.SHARED, *plan.WITHOUT_MEANING]
    assert len(set(names)) == len(names)
    assert set(names) <= set(plan.Config.__dataclass_fields__)
    assert not set(plan.EXPERIMENTS) & set(plan.Config.__dataclass_fields__)


def test_rows_have_settings_of_the_project_and_experiments_apart(read):
    definition = read("grid=seed=3,5", "row=a:", "row=b: ae_weight=0.5; erased_turns=alternate")
    rows, seeds = plan.rows_of(["--width=0.25"], definition)
    assert seeds == [3, 5]
    assert [row.label for row in rows] == ["a", "b"]
    config, own = plan.settings_of(["--width=0.25"], rows[1], 5)
    assert (config.width, config.ae_weight, config.seed) == (0.25, 0.5, 5)
    numbers = plan.numbers_of(config, own)
    assert numbers["erased_turns"] == 2
    assert numbers["color_jitter"] == numbers["relu_of_mean"] == 0
    assert numbers["guided"] == 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("row=a: brightness=1", "Unknown setting 'brightness'"),
        ("row=a: ae_weight=much", "Row 'a': .*ae_weight"),
        ("row=a: ae_threshold=-1", "Row 'a': `ae_threshold` must be at least 0"),
        ("row=a: color_jitter=-0.1", "`color_jitter` must be a number, at least 0"),
        ("row=a: color_jitter=nan", "`color_jitter` must be a number, at least 0"),
        ("row=a: erased_turns=third", "Unknown `erased_turns` 'third'. Legal: all, half"),
        ("row=a: mirror=true", "Row 'a': `mirror` can't be changed here"),
        ("row=a: erased_statistics=batch", "`erased_statistics` can't be changed here"),
        ("grid=ae_weight=0,1", "`grid` varies the seed alone"),
    ],
)
def test_what_can_t_be_trained_is_refused(read, line, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan.rows_of([], read(line))


def test_rows_share_one_network(read):
    definition = read("row=a:", "row=b: head_width=16")
    with pytest.raises(ValueError, match="Row 'b': `head_width` must be the same for all rows"):
        plan.rows_of([], definition)


def test_other_programs_don_t_know_the_experiments(tmp_path):
    path = tmp_path / "one.study"
    path.write_text("row=a: binary=1", encoding="utf-8")
    with pytest.raises(ValueError, match="Unknown setting 'binary'"):
        read_study(str(path))


def test_folds_are_the_project_s_and_held_out_pictures_are_not_trained_on(read):
    source = open_dataset("shapes", num_examples=40, image_size=32)
    rows, seeds = plan.rows_of([], read("grid=seed=0,1", "row=a:", "row=b: min_crop=0.5"))
    trainings = plan.trainings_of([], rows, seeds, source.labels, 4)
    assert [(t.row, t.seed, t.fold) for t in trainings[:5]] == [
        *((0, 0, fold) for fold in range(4)),
        (0, 1, 0),
    ]
    assert len(trainings) == 16
    for training in trainings[:4]:
        fold = open_dataset(
            "shapes", split=f"train[fold={training.fold + 1}/4]", num_examples=40, image_size=32
        )
        assert [source.image_ids[i] for i in training.scored] == list(fold.image_ids)
        trained = set(training.samples[:, 0].tolist())
        assert trained < set(training.known.tolist())
        assert len(trained) == 27  # a tenth of 30 is held out
        labels = [source.labels[i][0] for i in training.samples[:, 0]]
        np.testing.assert_array_equal(training.samples[:, 1], labels)


def test_all_trainings_have_the_steps_of_the_longest(read):
    base = ["--batch_size=4", "--epochs=2", "--min_steps=10"]
    rows, seeds = plan.rows_of(base, read("grid=seed=0"))
    labels = [np.array([i % 2]) for i in range(13)]
    trainings = plan.trainings_of(base, rows, seeds, labels, 2)
    # 6 of 7 and 5 of 6 pictures are trained on; 2 epochs of 1.5 steps, 4 passes each: 12 steps,
    # and of 1.25 steps, 4 passes each: 10.
    assert [len(t.samples) for t in trainings] == [5, 6]
    assert plan.steps_of(trainings) == 12
    assert plan.steps_of(trainings[:1]) == 10
