"""The README's code runs as it stands there, apart from the downloaded weights."""

import pathlib
import re

import numpy as np
from PIL import Image

from wsol_tf.data import shapes

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_code_of_the_readme_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(blocks) == 2
    assert all(len([x for x in block.splitlines() if x.strip()]) < 20 for block in blocks)
    for index in range(40):
        example = shapes.draw(index, size=64)
        folder = tmp_path / "pictures" / shapes.CLASSES[example.labels[0]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(example.image).save(folder / f"{index}.png")
    Image.fromarray(example.image).resize((90, 70)).save(tmp_path / "new_picture.jpg")
    shapes.write_voc(str(tmp_path / "boxed"), 4, size=64, seed=0, split="val")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:
        # The default weights are downloaded; here they are random. One epoch of little is enough.
        changes = {
            "epochs=20": "epochs=1",
            "head_width=256": "head_width=8",
            "width=0.25": "width=0.25, extractor_weights='none'",
        }
        for old, new in changes.items():
            assert old in blocks[0]
            block = block.replace(old, new)
        exec(block, names)
        found = names["found"]
        assert found.mask.shape == found.score_map.shape == (70, 90)
        assert found.box.shape == (4,) and found.class_name in shapes.CLASSES
        assert 0 <= found.probability <= 1 and np.isfinite(found.score_map).all()
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert (tmp_path / "model.keras").is_file()


def test_links_of_the_readme_lead_somewhere():
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README.read_text()):
        assert (README.parent / link).is_file(), f"README links to {link}, which is not there"
