import pytest

from wsol_tf.config import Config
from wsol_tf.training.splits import open_split, open_splits

SHAPES = {"dataset": "shapes", "input_size": 64, "num_examples": 20}


def test_folds_are_cut_from_one_choice_of_pictures():
    scored = []
    for k in (1, 2, 3, 4):
        config = Config(
            **SHAPES, split=f"train+val[fold!={k}/4]", val_split=f"train+val[fold={k}/4]"
        )
        found = open_splits(config, None, None, score=True, log=str)
        assert len(found.source) + len(found.scored) == 20
        assert not set(found.source.image_ids) & set(found.scored.image_ids)
        assert {*found.kept, *found.held} == set(range(len(found.source)))  # the rest is trained on
        assert found.scored_on == f"train+val[fold={k}/4]"
        scored += found.scored.image_ids
    assert len(scored) == len(set(scored)) == 20


@pytest.mark.parametrize("data_seed, same", [(-1, False), (0, True), (3, True)])
def test_pictures_may_have_a_seed_of_their_own(data_seed, same):
    pictures = [
        open_split(Config(**SHAPES, seed=seed, data_seed=data_seed), "train").read_image(0)
        for seed in (0, 1)
    ]
    assert (pictures[0] == pictures[1]).all() == same
