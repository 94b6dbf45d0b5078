import pytest

from wsol_tf.evaluation import localized_map, metrics
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
    names = set(definitions.DISPLAY_NAMES)
    assert set(localized_map.OUTCOMES) <= set(definitions.DEFINITIONS) & names
    assert names <= set(definitions.DEFINITIONS)


def test_numbers_in_the_definitions_are_those_of_the_code():
    said = definitions.DEFINITIONS
    assert f"more than {localized_map.SEVERAL:g} of each" in said["several_objects"]
    assert f"covers {localized_map.BIG:g} or more" in said["too_big"]
    assert "more than half" in said["part_only"] and localized_map.PART == 0.5
    assert f"IoU {localized_map.LOCALIZED:g} or more" in said["gt_known_loc"]
    for level in metrics.CURVE_LEVELS:
        assert f"from IoU {level:g} on" in said[f"gt_known_loc_iou_{round(level * 100)}"]
