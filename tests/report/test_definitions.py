import pytest

from wsol_tf.evaluation import metrics
from wsol_tf.report import definitions


@pytest.mark.parametrize("name", definitions.DEFINITIONS)
def test_definitions_are_sentences(name):
    text = definitions.DEFINITIONS[name]
    assert text[0].isupper() or text.startswith(("gt_known_loc", "PxAP"))
    assert text.endswith(".") and "\n" not in text and "  " not in text


def test_definitions_name_each_name_at_any_depth_once():
    figures = {"map": "cam", "other_maps": {"cam": {"threshold": 0.2}}, "own": {"nothing": 1}}
    assert set(definitions.definitions_of(figures)) == {"map", "other_maps", "threshold"}


def test_outcomes_are_defined_and_named():
    assert set(metrics.OUTCOMES) <= set(definitions.DEFINITIONS) & set(definitions.DISPLAY_NAMES)
    assert set(definitions.DISPLAY_NAMES) <= set(definitions.DEFINITIONS)


def test_numbers_in_the_definitions_are_those_of_the_code():
    said = definitions.DEFINITIONS
    assert f"more than {metrics.SEVERAL:g} of each" in said["several_objects"]
    assert f"covers {metrics.BIG:g} or more" in said["too_big"]
    assert "more than half" in said["part_only"] and metrics.PART == 0.5
    assert f"IoU {metrics.LOCALIZED:g} or more" in said["gt_known_loc"]
    for level in metrics.CURVE_LEVELS:
        assert f"from IoU {level:g} on" in said[f"gt_known_loc_iou_{round(level * 100)}"]
