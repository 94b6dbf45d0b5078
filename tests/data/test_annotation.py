"""What all readers of annotations share."""

from wsol_tf.data.annotation import note_similar_classes
from wsol_tf.data.source import Report


def test_classes_that_differ_in_case_spaces_or_accents_alone_are_noted():
    report = Report()
    names = ("cat", "dog", "Cat", "k\u00e4se", "ka\u0308se", "red fox", "red  fox ", "dogs", "cat")
    note_similar_classes(names, report)
    assert list(report.noted) == [
        "classes 'Cat', 'cat'",
        "classes 'ka\u0308se', 'k\u00e4se'",
        "classes 'red  fox ', 'red fox'",
    ]
    assert "count as different classes" in report.summary()
    assert not report.skipped


def test_classes_that_differ_are_not_noted():
    report = Report()
    note_similar_classes(("cat", "cats", "dog", "dog"), report)
    assert not report.noted
