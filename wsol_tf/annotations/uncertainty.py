"""How doubtful a localization is: a heuristic that orders pictures for people."""

import numpy as np


def mask_entropy(score_map: np.ndarray, mask: np.ndarray) -> float:
    """Computes how undecided a score map is about its mask.

    Scores become probabilities of the object that are 1/2 at the threshold, piecewise linear; their
    binary entropy is averaged over the picture.

    Args:
        score_map: float `[height, width]` in 0..1.
        mask: bool `[height, width]`, the positions above the threshold.

    Returns:
        0 (every score is 0 or 1) to 1 bit; 0 where the mask is empty.
    """
    if not mask.any():
        return 0.0
    scores = np.asarray(score_map, np.float32)
    below = scores[~mask].max() if not mask.all() else np.float32(0)
    threshold = float(np.clip((below + scores[mask].min()) / 2, 1e-6, 1 - 1e-6))
    object_side = 0.5 + (scores - threshold) / (2 * (1 - threshold))
    probability = np.clip(np.where(mask, object_side, scores / (2 * threshold)), 1e-6, 1 - 1e-6)
    bits = -probability * np.log2(probability) - (1 - probability) * np.log2(1 - probability)
    return float(np.clip(bits.mean(), 0, 1))


def disagreement(mask: np.ndarray, other: np.ndarray) -> float:
    """Computes 1 - IoU of two masks, bool `[height, width]`: 0 where they are equal."""
    union = np.count_nonzero(mask | other)
    return 1 - np.count_nonzero(mask & other) / union if union else 0.0


def doubts(
    score_map: np.ndarray,
    mask: np.ndarray,
    *,
    cam_mask: np.ndarray | None,
    probability: float | None,
) -> dict[str, float]:
    """Says what speaks against a localization, each 0 (nothing) to 1.

    Args:
        score_map: float `[height, width]` in 0..1.
        mask: bool `[height, width]`.
        cam_mask: the mask of the class activation map, or None where there is none.
        probability: of the predicted class, or None.

    Returns:
        Those that are known of `entropy`, `disagreement` (with the CAM) and `class`.
    """
    found = {"entropy": mask_entropy(score_map, mask)}
    if cam_mask is not None:
        found["disagreement"] = disagreement(mask, cam_mask)
    if probability is not None:
        found["class"] = 1 - probability
    return found
