"""Describes a data set before anyone trains on it.

    python -m wsol_tf.datasets --dataset=image_folder --data_dir=D --output_dir=OUT

says how many pictures of each class and split, their
sizes and boxes, and what is broken. It writes OUT/dataset.json with all of it by name, and
OUT/contact_sheet.png with pictures, boxes and masks to look at.
"""

import json
import os

import numpy as np
from absl import app, flags
from PIL import Image

from wsol_tf import programs
from wsol_tf.data.annotation import first_ten
from wsol_tf.data.example import IGNORE
from wsol_tf.data.images import BadImage
from wsol_tf.data.registry import DATASETS, open_dataset
from wsol_tf.data.source import ON_BAD_IMAGE, Source, StopAtBadImage
from wsol_tf.report import pictures

# --- the program ---------------------------------------------------------------------------------

SHOWN = 20  # pictures of each split on the contact sheet
LISTED = 40  # classes that are printed; dataset.json has all


def describe(source: Source) -> dict:
    """Reads every picture of a split and counts.

    Returns:
        A dict for JSON: pictures by class, labels, boxes and masks by picture, sizes, and the
        names of what was skipped or repaired. What is counted per picture leaves out those that
        cannot be read.
    """
    counts = np.zeros(len(source.classes), int)
    sizes, boxes, labels, areas, masks = [], [], [], [], 0
    examples = source.examples(range(len(source)))
    for example in source.report.watch(examples.as_numpy_iterator()):
        counts[example.labels] += 1
        sizes.append(example.size.tolist())
        labels.append(len(example.labels))
        boxes.append(len(example.boxes))
        masks += bool(example.mask.size)
        x0, y0, x1, y1 = example.boxes.T
        areas += ((x1 - x0) * (y1 - y0) / np.prod(example.image.shape[:2])).tolist()
    if not sizes:
        raise ValueError(f"{source.name}: no picture can be read.\n{source.report.summary()}")
    sizes.sort(key=np.prod)
    return {
        "name": source.name,
        "pictures": len(sizes),
        "classes": {n: int(c) for n, c in zip(source.classes, counts, strict=True)},
        "several_classes": sum(number > 1 for number in labels),
        "boxes": sum(boxes),
        "most_boxes": max(boxes),
        "without_box": sum(number == 0 for number in boxes),
        "median_box_area": float(np.median(areas)) if areas else None,
        "masks": masks,
        "smallest": sizes[0],
        "median": sizes[len(sizes) // 2],
        "largest": sizes[-1],
        "skipped": dict(source.report.skipped),
        "repaired": dict(source.report.noted),
    }


def table(figures: dict[str, dict]) -> str:
    """Sets the descriptions of the splits side by side, as lines of text."""

    def size(height_width):
        return "{1} x {0}".format(*height_width)

    def area(share):
        return "-" if share is None else f"{share:.0%}"

    columns = list(figures.values())
    rows = [
        ("", list(figures)),
        ("pictures", [f["pictures"] for f in columns]),
        ("skipped", [len(f["skipped"]) for f in columns]),
        ("repaired", [len(f["repaired"]) for f in columns]),
        ("with several classes", [f["several_classes"] for f in columns]),
        ("boxes", [f["boxes"] for f in columns]),
        ("most boxes in a picture", [f["most_boxes"] for f in columns]),
        ("pictures without box", [f["without_box"] for f in columns]),
        ("median box / picture", [area(f["median_box_area"]) for f in columns]),
        ("pictures with mask", [f["masks"] for f in columns]),
        ("smallest, width x height", [size(f["smallest"]) for f in columns]),
        ("median", [size(f["median"]) for f in columns]),
        ("largest", [size(f["largest"]) for f in columns]),
        ("", []),
        ("pictures by class", []),
    ]
    classes = list(columns[0]["classes"])
    shown = classes
    if len(classes) > LISTED:
        by_count = sorted(classes, key=lambda name: columns[0]["classes"][name])
        shown = [*by_count[: LISTED // 2], "...", *by_count[-LISTED // 2 :]]
    for name in shown:
        rows.append((name, [f["classes"].get(name, "") for f in columns]))
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(
        f"{name:{width}}{''.join(f'{value:>16}' for value in values)}".rstrip()
        for name, values in rows
    )


def cautions(figures: dict[str, dict], opened: dict[str, Source]) -> list[str]:
    """Sentences on what will disappoint in training or scoring."""
    first, *others = figures
    counts = figures[first]["classes"]
    few = [name for name, count in counts.items() if count < 10]
    sentences = []
    if len(counts) == 1:
        sentences.append(
            f"There is one class only, {next(iter(counts))}, so a classifier has nothing to tell "
            "apart. Add a class of pictures without it."
        )
    if few:
        sentences.append(
            f"{len(few)} of {len(counts)} classes have fewer than 10 pictures in {first}: "
            f"{first_ten(few)}."
        )
    known = set(opened[first].image_ids)
    for split in others:
        both = [name for name in opened[split].image_ids if name in known]
        if both and split.split("[")[0] != first.split("[")[0]:
            sentences.append(
                f"{len(both)} pictures are in {first} and in {split}, so scores on {split} would "
                f"be too good: {first_ten(both)}."
            )
    if not any(source.has_boxes or source.has_masks for source in opened.values()):
        sentences.append("There are no boxes and no masks: localization cannot be scored.")
    return sentences


def sheet(opened: dict[str, Source], title: str) -> np.ndarray:
    """Draws pictures of every split with their boxes and masks, the classes in turn."""
    marks = {
        "dashed white: box": any(source.has_boxes for source in opened.values()),
        "outline: mask": any(source.has_masks for source in opened.values()),
    }
    note = ", ".join(mark for mark, there in marks.items() if there)
    return pictures.contact_sheet(
        {split: [*_tiles(source)] for split, source in opened.items()},
        title=f"{title}\n{note or 'no boxes, no masks'}",
    )


def _tiles(source):
    order = np.random.default_rng(0).permutation(len(source))
    seen = np.zeros(len(source.classes), int)
    rounds = []  # (how often its rarest class came before, position)
    for position in order.tolist():
        rounds.append((int(seen[source.labels[position]].min()), position))
        seen[source.labels[position]] += 1
    shown = 0
    for _, position in sorted(rounds, key=lambda entry: entry[0]):
        if shown == SHOWN:
            return
        try:
            example = source.read_example(position)
        except BadImage:  # named before
            continue
        shown += 1
        mask = (example.mask > 0) & (example.mask != IGNORE) if example.mask.size else None
        names = ", ".join(source.classes[label] for label in example.labels)
        yield pictures.overlay(
            example.image, None, mask, None, true_boxes=example.boxes, caption=names, side=240
        )


def define_flags():
    """Defines the flags of this program."""
    flags.DEFINE_enum("dataset", None, DATASETS, "Data set.", required=True)
    flags.DEFINE_string("data_dir", "", "Folder of the data set, as for training.")
    flags.DEFINE_list("splits", "train,val,test", "Splits; those that are not there are named.")
    flags.DEFINE_bool("download", True, "Download a public data set that is not there.")
    flags.DEFINE_bool("single_class", False, "Leave out pictures with several classes.")
    flags.DEFINE_enum(
        "on_bad_image",
        "skip",
        ON_BAD_IMAGE,
        "'skip' and name them, or 'fail' at the first.",
    )
    flags.DEFINE_integer("num_examples", 0, "At most so many pictures of a split; 0: all.")
    flags.DEFINE_string("output_dir", "dataset_report", "Folder for the sheet; it is made.")


def report(values):
    """Does what the command does with parsed flags; returns split -> description."""
    programs.make_output_dir(values.output_dir)
    figures, opened, missing, classes = {}, {}, {}, None
    for split in values.splits:
        try:
            source = open_dataset(
                values.dataset,
                values.data_dir,
                split,
                classes=classes,
                num_examples=values.num_examples or None,
                download=values.download,
                single_class=values.single_class,
                on_bad_image=values.on_bad_image,
            )
        except StopAtBadImage:
            raise
        except ValueError as error:
            missing[split] = str(error)
            continue
        classes = source.classes
        figures[split], opened[split] = describe(source), source
    if not figures:
        raise ValueError(next(iter(missing.values()), "--splits is empty."))
    print(table(figures))
    for split, source in opened.items():
        if source.report.skipped or source.report.noted:
            print(f"\n{split}\n{source.report.summary()}")
    for split, sentence in missing.items():
        print(f"\nNo split '{split}': {sentence}")
    for sentence in cautions(figures, opened):
        print(f"\nNote: {sentence}")
    with open(os.path.join(values.output_dir, "dataset.json"), "w") as file:
        json.dump(figures, file, indent=2)
    title = values.dataset
    if values.data_dir:
        title = f"{os.path.basename(os.path.normpath(values.data_dir))} ({title})"
    drawn = sheet(opened, title)
    Image.fromarray(drawn).save(os.path.join(values.output_dir, "contact_sheet.png"))
    print(f"\nWrote dataset.json and contact_sheet.png to {values.output_dir}.")
    return figures


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument '{argv[1]}': settings are given as --name=value.")
    with programs.plain_ending():
        report(flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    app.run(main)
