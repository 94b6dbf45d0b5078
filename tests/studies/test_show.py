"""How the photographs of a study are drawn; test_study.py holds which ones are."""

from types import SimpleNamespace

import numpy as np
import pytest

import separated_objects
from wsol_tf.evaluation import methods
from wsol_tf.evaluation.pairs import Pair
from wsol_tf.model import build
from wsol_tf.report import pictures
from wsol_tf.studies import show
from wsol_tf.training import splits


@pytest.mark.parametrize("separated, box", [(False, (10, 25, 151, 86)), (True, (80, 25, 151, 86))])
def test_photographs_are_drawn_with_the_boxes_that_are_scored(monkeypatch, separated, box):
    """Two discs of radius 30, in columns 40 and 120, and a bridge: cut at 80, or left."""
    two_discs = separated_objects.by_hand()["two discs"]
    two_discs[55, 40] = 1  # the map fills 0..1, so that it is not stretched
    blank = np.zeros((*two_discs.shape, 3), np.uint8)
    pair = Pair(0, blank, "a.jpg", two_discs.shape, 0, maps={"mean": two_discs})
    method = SimpleNamespace(
        kinds=["mean"],
        separated_kinds={"mean"} if separated else set(),
        pairs=lambda *_, **__: [pair],
    )
    source = SimpleNamespace(image_ids=["a.jpg", "b.jpg"], classes=["disc"])
    monkeypatch.setattr(build, "load_model", lambda *_, **__: SimpleNamespace(classes=["disc"]))
    monkeypatch.setattr(methods, "method_of", lambda *_, **__: method)
    monkeypatch.setattr(splits, "open_split", lambda *_: source)
    monkeypatch.setattr(pictures, "overlay", lambda image, score_map, mask, box, **_: box)
    trial = SimpleNamespace(path="", config=SimpleNamespace(split="train", val_split="val"))
    figures = {
        "threshold_by_maps": separated_objects.THRESHOLD,
        "threshold_chosen_on_scored": False,
    }

    tiles = show._draw(SimpleNamespace(trial=trial, figures=figures), [("a.jpg", "disc")])

    assert {key: tuple(tile) for key, tile in tiles.items()} == {("a.jpg", "disc"): box}
