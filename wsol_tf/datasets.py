"""Data sets by name: each becomes a Source of Examples with labels known in advance.

    python -m wsol_tf.datasets --dataset=image_folder --data_dir=D --output_dir=OUT

describes a data set before anyone trains on it: how many pictures of each class and split, their
sizes and boxes, and what is broken. It writes OUT/dataset.json with all of it by name, and
OUT/contact_sheet.png with pictures, boxes and masks to look at.
"""

import json
import os
import re
from collections.abc import Sequence

import numpy as np
from absl import app, flags
from PIL import Image

from wsol_tf import folders, pictures, programs, shapes, sources, tables
from wsol_tf.images import BadImage
from wsol_tf.records import IGNORE
from wsol_tf.sources import Report, Source

# Read from files of the user's own; a slice of a split is made here.
FOLDERS = {
    "image_folder": folders.image_folder,
    "csv": tables.csv_table,
    "coco": tables.coco,
    "voc_folder": folders.voc_folder,
}
# Public ones, downloaded and sliced by tfds: the keys of `tfds_sources.KINDS`.
PUBLIC = ("voc", "voc2007", "caltech_birds2011", "imagenet2012", "oxford_iiit_pet")
DATASETS = ("shapes", *FOLDERS, *PUBLIC)


def load(
    dataset: str,
    data_dir: str,
    split: str,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    image_size: int = 224,
    num_examples: int | None = None,
    download: bool = True,
    single_class: bool = False,
    on_bad_image: str = "skip",
) -> Source:
    """Opens one split of a data set; pictures are read later, when they are asked for.

    Args:
        dataset: one of `DATASETS`.
        data_dir: the folder of the data set; not used by `shapes`. For public ones the folder of
            tfds, '' for its default.
        split: name of the split, such as `train` or `val`, or a slice of it, such as
            `train[:90%]` or `train[500:]`.
        classes: class names that fix the ids, such as those of a trained model. By default the
            data set's own.
        seed: seed of drawn pictures and of the choice that `num_examples` makes.
        image_size: side in pixels that views are cut from. Pictures are drawn at this size, or
            read reduced by a whole factor where both sides stay at least as long.
        num_examples: at most so many pictures, chosen by the seed; all by default.
        download: whether public data sets that are not there may be downloaded.
        single_class: leave out pictures with several classes.
        on_bad_image: `skip` pictures that cannot be read and name them in the report, or `fail`:
            end with StopAtBadImage, a ValueError, at the first.

    Returns:
        A Source with at least one picture.

    Raises:
        ValueError: with a sentence that says what to do, where nothing can be read.
    """
    if dataset not in DATASETS:
        raise ValueError(f"Unknown dataset {dataset!r}. Legal: {', '.join(DATASETS)}.")
    if num_examples is not None and num_examples < 1:
        raise ValueError(f"num_examples must be at least 1 or None. Received: {num_examples}.")
    report = Report(on_bad_image)
    options = {"classes": None if classes is None else tuple(classes), "report": report}
    if dataset == "shapes":
        return _shapes(split, seed, image_size, num_examples, **options)
    options["image_size"] = image_size
    if dataset in PUBLIC:
        from wsol_tf import tfds_sources  # takes a while, and only these need it

        source = tfds_sources.open_source(dataset, data_dir, split, download=download, **options)
    else:
        if not data_dir:
            raise ValueError(f"Data set {dataset!r} is read from a folder: set --data_dir to it.")
        is_file = dataset in ("csv", "coco") and os.path.isfile(data_dir)
        if not is_file and not os.path.isdir(data_dir):
            what = "not a folder" if dataset not in ("csv", "coco") else "not a folder or a file"
            raise ValueError(f"--data_dir '{data_dir}' is {what}. Check the path.")
        source = _sliced(FOLDERS[dataset], data_dir, split, options)
    if single_class:
        single = [i for i, labels in enumerate(source.labels) if len(labels) == 1]
        if not single:
            raise ValueError(f"{source.name} has no picture with a single class.")
        source = sources.subset(source, single)
    if num_examples is not None and num_examples < len(source):
        chosen = np.random.default_rng(seed).permutation(len(source))[:num_examples]
        source = sources.subset(source, np.sort(chosen))
    return source


def _sliced(open_split, data_dir, split, options):
    """Opens a split of files, or a slice of it in tfds's words: `train[:90%]`, `train[500:]`.

    Files have an order, often by class, so slices are taken of a fixed random order. Slices that
    do not overlap share no picture.
    """
    if not re.search(r"[\[+]", split):
        return open_split(data_dir, split, **options)
    from tensorflow_datasets import core

    name = split.split("[")[0]
    source = open_split(data_dir, name, **options)
    whole = core.SplitInfo(name=name, shard_lengths=[len(source)], num_bytes=0)
    try:
        (part,) = core.ReadInstruction.from_spec(split).to_absolute({name: whole})
    except (ValueError, AssertionError, KeyError) as error:
        raise ValueError(
            f"Split {split!r} cannot be read. Legal are the name of a split and one slice of it, "
            "such as 'train[:90%]', 'train[90%:]' or 'train[500:]'."
        ) from error
    order = np.random.default_rng(0).permutation(len(source))[part.from_ or 0 : part.to]
    if not len(order):
        raise ValueError(f"Split {split!r} is empty: {name!r} has {len(source)} pictures.")
    return sources.subset(source, np.sort(order))


def holdout(
    labels: Sequence[np.ndarray], fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits positions into kept and held-out ones, stratified by each picture's first label.

    Args:
        labels: per picture, its class ids.
        fraction: share to hold out, in [0, 1).
        seed: same seed, same choice.

    Returns:
        (kept, held), int64 ascending positions. `held` has round(fraction * number of pictures)
        entries or fewer: at least one picture per class is kept.

    Raises:
        ValueError: the fraction is outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"The held-out fraction must be in [0, 1). Received: {fraction}.")
    rng = np.random.default_rng(seed)
    first = np.array([label[0] for label in labels], np.int64)
    candidates = []  # (rank within the class, tie-break, position)
    for class_id in np.unique(first):
        members = rng.permutation(np.flatnonzero(first == class_id))
        ranks = (np.arange(len(members)) + 0.5) / len(members)
        ties = rng.random(len(members))
        candidates += list(zip(ranks, ties, members, strict=True))[:-1]
    candidates.sort()
    held = [position for _, _, position in candidates[: round(fraction * len(first))]]
    held = np.sort(np.array(held, np.int64))
    return np.setdiff1d(np.arange(len(first)), held), held


def _shapes(split, seed, image_size, num_examples, *, classes, report) -> Source:
    """Drawn pictures; see `shapes`."""
    if split not in shapes.NUM_EXAMPLES:
        raise ValueError(
            f"Unknown split {split!r} of shapes. Legal: {', '.join(shapes.NUM_EXAMPLES)}."
        )
    classes = sources.check_classes(classes or shapes.CLASSES, shapes.CLASSES, "shapes")
    number = num_examples or shapes.NUM_EXAMPLES[split]
    new_ids = [classes.index(n) if n in classes else None for n in shapes.CLASSES]
    indices = []
    for index in range(number):
        own = index % len(shapes.CLASSES)
        if new_ids[own] is None:
            report.skip(f"{split}_{index:05d}", f"class {shapes.CLASSES[own]!r} is not in the list")
        else:
            indices.append(index)
    if not indices:
        raise ValueError(f"No drawn picture has a class of the list.\n{report.summary()}")

    def read_example(position):
        example = shapes.draw(indices[position], size=image_size, seed=seed, split=split)
        new = new_ids[example.labels[0]]
        return example._replace(
            labels=np.full_like(example.labels, new),
            box_labels=np.full_like(example.box_labels, new),
            mask=np.where(example.mask > 0, 1 + new, 0).astype(np.uint8),
        )

    return Source(
        name=f"shapes {split}",
        classes=classes,
        image_ids=tuple(f"{split}_{index:05d}" for index in indices),
        labels=tuple(np.array([new_ids[i % len(new_ids)]], np.int32) for i in indices),
        has_boxes=True,
        has_masks=True,
        report=report,
        read_image=lambda position: read_example(position).image,
        read_example=read_example,
    )


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


def warnings(figures: dict[str, dict], opened: dict[str, Source]) -> list[str]:
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
            f"{sources.some(few)}."
        )
    known = set(opened[first].image_ids)
    for split in others:
        both = [name for name in opened[split].image_ids if name in known]
        if both and split.split("[")[0] != first.split("[")[0]:
            sentences.append(
                f"{len(both)} pictures are in {first} and in {split}, so scores on {split} would "
                f"be too good: {sources.some(both)}."
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
        sources.ON_BAD_IMAGE,
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
            source = load(
                values.dataset,
                values.data_dir,
                split,
                classes=classes,
                num_examples=values.num_examples or None,
                download=values.download,
                single_class=values.single_class,
                on_bad_image=values.on_bad_image,
            )
        except sources.StopAtBadImage:
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
    for sentence in warnings(figures, opened):
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
