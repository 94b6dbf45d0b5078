"""Cases of objects that are cut apart, for every runtime to be compared with wsol_tf's.

    python tests/separated_objects.py > cases.json

prints them for a port of your own.
"""

import json

import numpy as np

from wsol_tf.model import score_maps, separation

THRESHOLD = 0.3


def discs(height, width, *parts, bridge=None):
    """A map of 0.9 in discs (y, x, radius), and of 0.5 in a bridge (y0, x0, y1, x1) of them."""
    rows, columns = np.indices((height, width))
    score_map = np.zeros((height, width), np.float32)
    if bridge:
        y0, x0, y1, x1 = bridge
        score_map[y0:y1, x0:x1] = 0.5
    for y, x, radius in parts:
        score_map[np.hypot(rows - y, columns - x) <= radius] = 0.9
    return score_map


def by_hand():
    """Maps by name, [height, width], to be cut at `THRESHOLD`."""
    bridged = {"bridge": (45, 40, 66, 120)}
    blocks = np.zeros((56, 56), np.float32)  # a position of the map is one of the grid
    blocks[10:30, 5:20] = blocks[10:30, 30:45] = 0.9
    blocks[15:25, 20:30] = 0.5
    tie = np.insert(blocks[:, :-1], 20, blocks[:, 25], axis=1)  # a bridge of 11 positions
    u = np.zeros((112, 112), np.float32)
    u[10:100, 10:35] = u[10:100, 75:100] = u[75:100, 10:100] = 0.9
    border = np.zeros((56, 112), np.float32)  # two rows are thick enough: it may go on above
    border[:3] = 0.5
    border[:2, :44] = border[:2, 68:] = 0.9
    rising = np.float32(THRESHOLD + 0.03 * np.arange(1, 12))  # equal to the thresholds themselves
    one_by_one = discs(100, 300, (50, 50, 40), (50, 150, 40), (50, 250, 40))
    one_by_one[35:65, 50:150] = np.maximum(one_by_one[35:65, 50:150], 0.4)
    one_by_one[35:65, 150:250] = np.maximum(one_by_one[35:65, 150:250], 0.5)
    return {
        "two discs": discs(112, 160, (55, 40, 30), (55, 120, 30), **bridged),
        "three discs": discs(100, 300, (50, 50, 40), (50, 150, 40), (50, 250, 40),
                             bridge=(35, 50, 65, 250)),
        "a small disc": discs(112, 160, (55, 40, 30), (55, 120, 12), **bridged),
        "blocks": blocks,
        "blocks with a tie": tie,
        "U": u,
        "one after the other": one_by_one,
        "at the border": border,
        "steps": np.tile(np.repeat([*rising[::-1], *rising], 7), (30, 1)),
        "nothing": np.zeros((9, 7), np.float32),
        "a pixel": np.ones((1, 1), np.float32),
        "everything": np.ones((10, 10), np.float32),
    }  # fmt: skip


def bumps(rng, height, width):
    """A map of a few bumps, stretched to 0..1; some are noisy, and some of whole steps."""
    rows, columns = np.indices((height, width))
    score_map = np.zeros((height, width))
    for _ in range(rng.integers(2, 6)):
        y, x = rng.uniform(0.1, 0.9, 2) * (height, width)
        down, across = rng.uniform(0.1, 0.3, 2) * (height, width)
        bump = np.exp(-(((rows - y) / down) ** 2) - ((columns - x) / across) ** 2)
        score_map = np.maximum(score_map, bump * rng.uniform(0.7, 1))
    score_map = score_map + rng.uniform(0, 0.02, (height, width)) * rng.integers(0, 2)
    if rng.integers(0, 3) == 0:
        score_map = np.round(score_map * 20) / 20
    return score_maps.normalize(score_map)


def case(score_map, threshold, *, min_area=0.0, max_objects=0):
    """A case, with the pixels that wsol_tf takes out of the mask, and the objects that are left."""
    whole = score_maps.threshold_mask(score_map, threshold)
    mask = separation.separate(whole, score_map, threshold)
    found = score_maps.components(mask, score_map, min_area=min_area, max_objects=max_objects)
    return {
        "values": score_map.ravel().tolist(),
        "width": score_map.shape[1],
        "height": score_map.shape[0],
        "threshold": threshold,
        "minArea": min_area,
        "maxObjects": max_objects,
        "cut": np.flatnonzero(whole & ~mask).tolist(),
        "boxes": found.boxes.astype(int).tolist(),
        "scores": found.scores.tolist(),
        "areas": found.areas.tolist(),
    }


def cases() -> list[dict]:
    """Maps at the picture's size, thresholds and limits, with their objects."""
    made = [case(score_map, THRESHOLD) for score_map in by_hand().values()]
    rng = np.random.default_rng(0)
    for trial in range(80):
        height, width = rng.integers(8, 100, 2)
        threshold = float(np.round(rng.uniform(0.1, 0.6), 2 + trial % 4))
        limits = {"min_area": 0.3 * (trial % 5 == 1), "max_objects": 2 * (trial % 10 == 2)}
        made.append(case(bumps(rng, height, width), threshold, **limits))
    return made


if __name__ == "__main__":
    print(json.dumps(cases()))
