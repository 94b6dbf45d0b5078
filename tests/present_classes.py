"""Cases of the classes that are present, for every runtime to be compared with wsol_tf's.

    python tests/present_classes.py > cases.json

prints them for a port of your own.
"""

import json

import numpy as np

from wsol_tf.model import finding

NAMES = [f"class {i}" for i in range(9)]


def _case(logits, presence, background=None):
    """A case, with what `wsol_tf.model.score_maps` finds in it."""
    maps = np.zeros((1, 1, len(logits)))
    outputs = {"logits": logits, "localization_map": maps, "score_map": maps}
    names = NAMES[: len(logits)]
    found = finding.find(outputs, names, 1, 1, kind="predicted", threshold=0.5, present=presence)
    empty = None if background is None else names[background]
    found = finding.without_background(found, empty)
    parts = [] if found.class_name == empty else [found, *found.others]
    return {
        "logits": np.asarray(logits, float).tolist(),
        "presence": presence,
        "background": background,
        "present": [names.index(part.class_name) for part in parts],
        "probabilities": [part.probability for part in parts],
    }


def cases() -> list[dict]:
    """Logits, presence threshold and background class, with the classes that are present."""
    made = [
        _case([0.0, 0.0], 0.5),  # equal ones by their ids, and 0.5 is at least 0.5
        _case([0.0, 0.0, 0.0], 0.0),
        _case([5.0, 1.0, 4.0], 1.0),  # the first one is always there
        _case([5.0, 1.0, 4.0], 0.2, background=0),
        _case([5.0, 1.0, 4.0], 0.2, background=2),
        _case([5.0, 1.0, 4.0], 0.01, background=2),
        _case([800.0, -800.0, 799.5], 0.3),
    ]
    rng = np.random.default_rng(0)
    for _ in range(40):
        logits = np.float32(rng.normal(0, 2, rng.integers(2, 10)))
        background = int(rng.integers(0, len(logits))) if rng.integers(0, 2) else None
        made.append(_case(logits, float(np.round(rng.uniform(0, 0.4), 3)), background))
    return made


if __name__ == "__main__":
    print(json.dumps(cases(), indent=1))
