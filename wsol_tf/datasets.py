"""Shows what is in a data set before anyone trains on it.

    python -m wsol_tf.datasets --dataset=image_folder --data_dir=D --output_dir=OUT

prints how many pictures there are of each class and split, their sizes and boxes, and what is
broken. It writes OUT/dataset.json, which names everything, and OUT/contact_sheet.png with pictures,
boxes and masks to look at.
"""

import os

from absl import flags

from wsol_tf import config, files, programs
from wsol_tf.data.annotation import OtherClasses
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.source import Source, StopAtBadImage
from wsol_tf.data.statistics import cautions, dataset_statistics
from wsol_tf.report import pictures
from wsol_tf.report.dataset_sheet import draw_dataset_sheet

LISTED = 40  # classes that are printed; dataset.json has all
IMAGE_SIZE = 224  # side that larger pictures are reduced to, by a whole factor, and shapes drawn at


def define_flags():
    """Defines the flags of this program."""
    legal = config.choices("dataset")
    flags.DEFINE_enum("dataset", None, legal, "Data set.", required=True)
    programs.define_path("data_dir", "", "Folder of the data set, as for training.")
    programs.define_path("image_dir", "", "Folder of the pictures that lists name, as above.")
    flags.DEFINE_list("splits", "train,val,test", "Splits; those that are not there are named.")
    flags.DEFINE_bool("download", True, "Download a public data set that is not there.")
    flags.DEFINE_bool("single_class", False, "Leave out pictures with several classes.")
    flags.DEFINE_enum(
        "on_bad_image",
        "skip",
        config.choices("on_bad_image"),
        "'skip' and name them, or 'fail' at the first.",
    )
    flags.DEFINE_integer("num_examples", 0, "At most so many pictures of a split; 0: all.")
    programs.define_path("output_dir", "dataset_report", "Folder for the sheet; it is made.")


def inspect_dataset(values: flags.FlagValues) -> dict[str, dict]:
    """Does what the command does with parsed flags; returns split -> statistics."""
    programs.make_output_dir(values.output_dir)
    statistics, opened, missing = {}, {}, {}
    classes = None
    for split in values.splits:
        try:
            source = _open_split(values, split, classes)
        except StopAtBadImage:
            raise
        except ValueError as error:
            missing[split] = error
            continue
        classes = source.classes
        statistics[split], opened[split] = dataset_statistics(source), source
    if not statistics:
        raise next(iter(missing.values()), ValueError("`splits` is empty."))
    programs.say(statistics_table(statistics))
    for split, source in opened.items():
        if source.report.skipped or source.report.noted:
            programs.say(f"\n{split}\n{source.report.summary()}")
    for split, error in missing.items():
        is_there = isinstance(error, OtherClasses | files.BadFile)
        what = f"Split '{split}' can't be read" if is_there else f"No split '{split}'"
        programs.say(f"\n{what}: {error}")
    for sentence in cautions(statistics, opened):
        programs.say(f"\nNote: {sentence}")
    _write(values, statistics, opened)
    return statistics


def _open_split(values, split, classes):
    return open_dataset(
        values.dataset,
        values.data_dir,
        split,
        image_dir=values.image_dir,
        classes=classes,
        image_size=IMAGE_SIZE,
        num_examples=values.num_examples or None,
        download=values.download,
        single_class=values.single_class,
        on_bad_image=values.on_bad_image,
    )


def _write(values, statistics, opened: dict[str, Source]):
    """Writes dataset.json and the contact sheet."""
    programs.keep_output_dir(values.output_dir)
    files.write_json(os.path.join(values.output_dir, "dataset.json"), statistics)
    title = values.dataset
    if values.data_dir:
        title = f"{os.path.basename(os.path.normpath(values.data_dir))} ({title})"
    sheet = draw_dataset_sheet(opened, title)
    files.write(os.path.join(values.output_dir, "contact_sheet.png"), pictures.as_png(sheet))
    programs.say(f"\nWrote dataset.json and contact_sheet.png to {values.output_dir}.")


def statistics_table(statistics: dict[str, dict]) -> str:
    """Sets the statistics of the splits side by side, as lines of text."""

    def size(height_width):
        return "{1} x {0}".format(*height_width)

    def area(share):
        return "-" if share is None else f"{share:.0%}"

    columns = list(statistics.values())
    rows = [
        ("", list(statistics)),
        ("pictures", [c["pictures"] for c in columns]),
        ("skipped", [len(c["skipped"]) for c in columns]),
        ("repaired", [len(c["repaired"]) for c in columns]),
        ("with several classes", [c["several_classes"] for c in columns]),
        ("boxes", [c["boxes"] for c in columns]),
        ("most boxes in a picture", [c["most_boxes"] for c in columns]),
        ("pictures without box", [c["without_box"] for c in columns]),
        ("median box / picture", [area(c["median_box_area"]) for c in columns]),
        ("pictures with mask", [c["masks"] for c in columns]),
        ("smallest, width x height", [size(c["smallest"]) for c in columns]),
        ("median", [size(c["median"]) for c in columns]),
        ("largest", [size(c["largest"]) for c in columns]),
        ("", []),
        ("pictures by class", []),
    ]
    classes = list(columns[0]["classes"])
    shown = classes
    if len(classes) > LISTED:
        by_count = sorted(classes, key=lambda name: columns[0]["classes"][name])
        shown = [*by_count[: LISTED // 2], "...", *by_count[-LISTED // 2 :]]
    for name in shown:
        rows.append((name, [c["classes"].get(name, "") for c in columns]))
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(
        f"{name:{width}}{''.join(f'{value:>16}' for value in values)}".rstrip()
        for name, values in rows
    )


def run(values: flags.FlagValues) -> None:
    """Describes the data set that the flags name."""
    inspect_dataset(values)


if __name__ == "__main__":
    programs.main(define_flags, run)
