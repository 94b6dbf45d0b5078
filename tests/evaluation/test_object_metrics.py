"""AP, recall and CorLoc: by hand, and equal to pycocotools."""

import contextlib
import io

import numpy as np
import pytest

from wsol_tf.evaluation import object_metrics
from wsol_tf.evaluation.object_metrics import ObjectMetrics

NAMES = ("cat", "dog", "hen")
NONE = np.zeros((0, 4), np.float32)


def test_a_true_box_is_found_once_by_the_best_free_one():
    true_boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8]])
    boxes = np.array([[0, 0, 10, 8], [0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]])
    matched = object_metrics.match(boxes, true_boxes)
    assert matched.shape == (10, 4)
    # The second takes what is left (IoU 0.9), the third finds nothing that is free.
    assert matched[0].tolist() == [True, True, False, False]
    # At 0.95 the first has its own, the second none (0.9 and 0.889), so that the third has one.
    assert matched[9].tolist() == [True, False, True, False]
    assert object_metrics.match(NONE, true_boxes).shape == (10, 0)
    assert not object_metrics.match(boxes, NONE).any()


def test_average_precision_by_hand():
    matched = np.array([[True, False, True], [False, False, False]])
    found = object_metrics.average_precision(np.array([0.9, 0.5, 0.3]), matched, 4)
    # Precision 1 up to recall 1/4 (26 of 101 levels), 2/3 up to 1/2 (25 more), then 0.
    assert found == pytest.approx([(26 + 25 * 2 / 3) / 101, 0])
    # The order is that of the scores.
    turned = object_metrics.average_precision(np.array([0.3, 0.5, 0.9]), matched, 4)
    assert turned == pytest.approx(found)
    assert object_metrics.average_precision(np.zeros(0), np.zeros((10, 0), bool), 3).tolist() == (
        [0] * 10
    )


def filled():
    metrics = ObjectMetrics()
    box, other = [0, 0, 10, 10], [20, 20, 30, 30]
    metrics.add("a", 0, [box, other], [0.2, 0.9], [box], 1)  # the surer one is wrong
    metrics.add("b", 0, [other, box], [0.9, 0.2], [other, box, [60, 60, 70, 70]], 4)
    metrics.add("b", 1, NONE, [], [other], 4)
    metrics.add("a", 1, [box], [0.7], NONE, 1)  # a class that is not in the picture
    return metrics


def test_figures_by_hand():
    figures = filled().result(NAMES)
    assert set(figures["classes"]) == {"cat", "dog"}
    cat, dog = figures["classes"]["cat"], figures["classes"]["dog"]
    assert (cat["corloc"], dog["corloc"], figures["corloc"]) == (0.5, 0, 0.25)
    assert (cat["recall"], cat["num_objects"]) == (3 / 4, 4)
    assert (dog["recall"], dog["ap"], dog["num_objects"]) == (0, 0, 1)
    assert figures["recall"] == 3 / 5 and figures["ap50"] == cat["ap50"] / 2
    # By score: wrong, right, right, right (0.9 of a, 0.9 of b, 0.2, 0.2): precision 3/4 to 0.75.
    assert cat["ap50"] == pytest.approx(76 * 0.75 / 101)
    assert figures["recall_by_number"] == {
        "1": {"recall": 1.0, "num_objects": 1},
        "4_or_more": {"recall": 0.5, "num_objects": 4},
    }
    assert (figures["num_objects"], figures["num_boxes"]) == (5, 5)


def test_nothing_true_gives_no_figures():
    metrics = ObjectMetrics()
    assert metrics.result(NAMES) is None
    metrics.add("a", 0, [[0, 0, 1, 1]], [1.0], NONE, 0)
    assert metrics.result(NAMES) is None


def test_order_and_parts_do_not_matter():
    whole, (one, other) = random_metrics(range(30)), map(random_metrics, (range(9, 30), range(9)))
    one.merge(other)
    assert one.result(NAMES) == whole.result(NAMES)
    one.merge(other)  # pairs that were seen are not counted again
    assert one.result(NAMES) == whole.result(NAMES)


def random_pair(picture, label):
    """Boxes, scores and true boxes: near each other, in whole pixels, scores with ties."""
    rng = np.random.default_rng([picture, label])
    number = rng.integers(0, 4) if picture < 60 else 0  # those are without any object
    true_boxes = rng.integers(0, 60, (number, 4)).astype(np.float64)
    true_boxes[:, 2:] += true_boxes[:, :2] + 1
    near = np.repeat(true_boxes, rng.integers(0, 3, len(true_boxes)), axis=0)
    boxes = near + rng.integers(-6, 7, near.shape)
    boxes = np.concatenate([boxes, np.tile([0, 0, 30, 30], (rng.integers(0, 2), 1))])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return boxes, rng.integers(1, 20, len(boxes)) / 20, true_boxes


def random_metrics(pictures):
    metrics = ObjectMetrics()
    for picture in pictures:
        parts = [random_pair(picture, label) for label in range(3)]
        in_picture = sum(len(true_boxes) for *_, true_boxes in parts)
        for label, part in enumerate(parts):
            metrics.add(f"{picture:03}", label, *part, in_picture)
    return metrics


def test_ap_is_that_of_pycocotools():
    coco, cocoeval = (
        pytest.importorskip("pycocotools.coco"),
        pytest.importorskip("pycocotools.cocoeval"),
    )
    annotations, detections = [], []
    for picture in range(70):
        for label in range(3):
            boxes, scores, true_boxes = random_pair(picture, label)
            where = {"image_id": picture, "category_id": label}
            for x0, y0, x1, y1 in true_boxes.tolist():
                box = [x0, y0, x1 - x0, y1 - y0]
                annotations.append({**where, "bbox": box, "area": box[2] * box[3], "iscrowd": 0,
                                    "id": len(annotations) + 1})  # fmt: skip
            for (x0, y0, x1, y1), score in zip(boxes.tolist(), scores.tolist(), strict=True):
                detections.append({**where, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "images": [{"id": picture} for picture in range(70)],
            "categories": [{"id": label, "name": name} for label, name in enumerate(NAMES)],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = random_metrics(range(70)).result(NAMES)
    assert figures["ap"] < random_metrics(range(60)).result(NAMES)["ap"] - 1e-3
    assert len(detections) > 150 and 0.05 < figures["ap"] < 0.9
    assert figures["ap"] == pytest.approx(evaluation.stats[0], rel=1e-12)
    assert figures["ap50"] == pytest.approx(evaluation.stats[1], rel=1e-12)
    for label, name in enumerate(NAMES):  # [levels, recalls, classes, areas, numbers of boxes]
        of_class = evaluation.eval["precision"][:, :, label, 0, 2].mean(1)
        assert figures["classes"][name]["ap"] == pytest.approx(of_class.mean(), rel=1e-12)
        assert figures["classes"][name]["recall"] == evaluation.eval["recall"][0, label, 0, 2]
