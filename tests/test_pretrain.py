import h5py
import keras
import numpy as np

from helpers import run
from wsol_tf import pretrain
from wsol_tf.data import pretraining
from wsol_tf.model.backbones import build_extractor
from wsol_tf.training import drawn_features


def test_it_writes_half_precision_weights_that_the_extractor_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        drawn_features, "make_deterministic", lambda: None
    )  # it is of the whole process
    monkeypatch.setattr(drawn_features, "BATCH", 2)
    monkeypatch.setattr(drawn_features, "LEAST", 40)
    compile_network = drawn_features._compile

    def compile_eagerly(network, steps):  # tracing a graph takes longer than a step
        compile_network(network, steps)
        network.run_eagerly = True

    monkeypatch.setattr(drawn_features, "_compile", compile_eagerly)
    path = tmp_path / "made.weights.h5"
    assert run(pretrain, f"--output={path}", "--share=0.0005", "--processes=0") == 0
    assert path.stat().st_size < 600_000
    assert "1 steps on 40 collages." in capsys.readouterr().out
    with h5py.File(path) as file:
        kinds = set()
        file.visititems(lambda _, item: kinds.add(getattr(item, "dtype", None)))
    assert kinds == {None, np.dtype(np.float16), np.dtype(np.float32)}
    extractor, _, loaded = build_extractor(
        "mobilenet_v1", width=0.25, input_size=64, weights=str(path)
    )
    assert loaded.endswith("54 of 54 layers matched")
    assert np.isfinite(extractor(np.full((1, 64, 64, 3), 100.0)).numpy()).all()


def test_targets_are_what_stands_in_the_middle_of_a_position():
    # Body 1 covers what lies right of column 76 of the picture, that is of 76 - left of the crop.
    body = np.zeros((pretraining.SIDE, pretraining.SIDE), np.uint8)
    body[:, 76:] = 1
    surfaces = np.array([0, 7, 0, 0, 0, 0, 0, 0], np.uint8)
    tints = np.zeros((8, 3), np.uint8)
    tints[1] = 255, 0, 0
    image = np.repeat(body[:, :, None] * 200, 3, axis=2)
    drawn = pretraining.Drawn(image, body, surfaces, tints)
    for seed in range(20):
        crop, fine, hue, coarse = drawn_features._sample(np.random.default_rng(seed), drawn)
        assert crop.shape == (drawn_features.CROP, drawn_features.CROP, 3)
        assert fine.shape == hue.shape == (8, 8) and coarse.shape == (4, 4)
        bright = crop.mean(axis=2) > crop.mean()
        np.testing.assert_array_equal(fine == 7, bright[12::16, 12::16])
        np.testing.assert_array_equal(coarse == 7, bright[24::32, 24::32])
        assert set(hue[fine == 7]) <= {1, 3, 6}  # red, or the green or blue that it was turned into
        assert not hue[fine == 0].any()


def test_batches_are_a_function_of_seed_and_step():
    drawn = [pretraining.draw_swatch(index) for index in range(3)]
    one, same, other = (drawn_features._Batches(drawn, 5, [seed, 0]) for seed in (0, 0, 1))
    assert len(one) == 5 and isinstance(one, keras.utils.PyDataset)
    np.testing.assert_array_equal(one[2][0], same[2][0])
    np.testing.assert_array_equal(one[2][1]["surface"], same[2][1]["surface"])
    assert not np.array_equal(one[2][0], one[3][0]) and not np.array_equal(one[2][0], other[2][0])


def test_a_missing_folder_is_said_before_anything_is_drawn(tmp_path, capsys):
    assert run(pretrain, f"--output={tmp_path}/none/made.weights.h5") == 1
    said = capsys.readouterr()
    assert "--output: there is no folder" in said.err and not said.out
