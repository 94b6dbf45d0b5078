"""The README's code runs as it stands there, apart from the downloaded weights."""

import pathlib
import re

import keras
import numpy as np
import tensorflow as tf

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_code_of_the_readme_runs(tmp_path, monkeypatch, rng):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.S).group(1)
    assert "epochs=20" in code
    code = code.replace("epochs=20", "epochs=1")
    # The default weights are downloaded; here they are random.
    code = code.replace("width=0.25", "width=0.25, extractor_weights='none'")
    images = rng.integers(0, 256, (4, 224, 224, 3), np.uint8)
    names = {
        "dataset": tf.data.Dataset.from_tensor_slices((images, [0, 1, 2, 0])).batch(2),
        "images": images,
    }
    monkeypatch.chdir(tmp_path)
    exec(code, names)
    assert (tmp_path / "model.keras").is_file()
    assert isinstance(names["model"], keras.Model)
    shapes = {name: value.shape for name, value in names["outputs"].items()}
    assert shapes == {
        "logits": (4, 3),
        "score_map": (4, 14, 14, 3),
        "localization_map": (4, 28, 28, 1),
        "foreground_mask": (4, 28, 28),
    }


def test_links_of_the_readme_lead_somewhere():
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README.read_text()):
        assert (README.parent / link).is_file(), f"README links to {link}, which is not there"
