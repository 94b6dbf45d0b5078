"""Data sets by name: each becomes a Source of Examples with labels known in advance."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
import tensorflow as tf
from PIL import Image

from wsol_tf import images, shapes
from wsol_tf.images import BadImage
from wsol_tf.records import IGNORE, Example, make_example

# Longer pictures are read reduced: no view of ours is near this, and memory stays low.
MAX_SIDE = 2048


class Report:
    """Counts and names what was left out or changed while reading a data set.

    Attributes:
        skipped: dict of name -> reason, what was left out.
        noted: dict of name -> reason, what was used after a repair.
    """

    def __init__(self):
        self.skipped = {}
        self.noted = {}
        self._lock = threading.Lock()  # pictures are read by several threads

    def skip(self, name: str, reason: str):
        """Records that `name` is left out; each name counts once, with its first reason."""
        with self._lock:
            self.skipped.setdefault(name, reason)

    def note(self, name: str, reason: str):
        """Records that `name` is used, but not as it stands in the file."""
        with self._lock:
            self.noted.setdefault(name, reason)

    def summary(self) -> str:
        """Returns what happened in lines to print: counts by reason and the first ten names."""
        with self._lock:
            skipped, noted = dict(self.skipped), dict(self.noted)
        if not skipped and not noted:
            return "Nothing was skipped."
        lines = []
        for title, entries in (("Skipped", skipped), ("Repaired", noted)):
            if entries:
                lines.append(f"{title}: {len(entries)}")
            for reason, count in Counter(entries.values()).most_common():
                names = sorted(name for name in entries if entries[name] == reason)
                more = f" and {count - 10} more" if count > 10 else ""
                lines.append(f"  {count} x {reason}: {', '.join(names[:10])}{more}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Source:
    """One split of a data set, with random access.

    Attributes:
        name: data set and split, for messages.
        classes: class names; the position is the class id.
        image_ids: one string per picture.
        labels: per picture int32 [num_labels], ascending class ids.
        has_boxes, has_masks: whether any picture has them.
        report: what was left out or repaired, so far.
        read_image: position -> uint8 [height, width, 3]; raises BadImage. Touches no annotation.
        read_example: position -> Example of numpy arrays; raises BadImage.
    """

    name: str
    classes: tuple[str, ...]
    image_ids: tuple[str, ...]
    labels: tuple[np.ndarray, ...]
    has_boxes: bool
    has_masks: bool
    report: Report
    read_image: Callable[[int], np.ndarray]
    read_example: Callable[[int], Example]

    def __len__(self):
        return len(self.image_ids)

    def examples(self, positions: Sequence[int]) -> tf.data.Dataset:
        """Examples at these positions, in that order; unreadable ones go to the report."""
        return example_dataset(self, positions)


def example_dataset(
    source: Source,
    positions: Sequence[int],
    transform: Callable[[Example], Example] = lambda example: example,
) -> tf.data.Dataset:
    """Reads and transforms Examples in parallel, in order; pictures that fail are skipped.

    Args:
        source: where the Examples come from.
        positions: which ones, in which order.
        transform: a function of numpy Examples.

    Returns:
        A `tf.data.Dataset` of single Examples.
    """
    nothing = make_example(np.zeros((0, 0, 3)))

    def read(position):
        try:
            example = transform(source.read_example(int(position)))
        except BadImage as error:
            source.report.skip(source.image_ids[position], error.reason)
            example = nothing
        return example._replace(image_id=np.bytes_(example.image_id.encode()))

    dtypes = Example(tf.uint8, tf.int32, tf.float32, tf.int32, tf.uint8, tf.string, tf.int32)
    shapes = Example([None, None, 3], [None], [None, 4], [None], [None, None], [], [2])

    def load_one(position):
        tensors = tf.numpy_function(read, [position], list(dtypes))
        for tensor, shape in zip(tensors, shapes, strict=True):
            tensor.set_shape(shape)
        return Example(*tensors)

    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(positions, np.int64))
    dataset = dataset.map(load_one, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.filter(lambda example: tf.size(example.image) > 0)


def load(
    dataset: str,
    data_dir: str,
    split: str,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    image_size: int = 224,
    num_examples: int | None = None,
) -> Source:
    """Opens one split of a data set; pictures are read later, when they are asked for.

    Args:
        dataset: a key of `DATASETS`.
        data_dir: the folder of the data set; not used by `shapes`.
        split: name of the split, such as `train` or `val`.
        classes: class names that fix the ids, such as those of a trained model. By default the
            data set's own.
        seed: seed of drawn pictures and of the choice that `num_examples` makes.
        image_size: side in pixels of drawn pictures.
        num_examples: at most so many pictures, chosen by the seed; all by default.

    Returns:
        A Source with at least one picture.

    Raises:
        ValueError: with a sentence that says what to do, where nothing can be read.
    """
    if dataset not in DATASETS:
        raise ValueError(f"Unknown dataset {dataset!r}. Legal: {', '.join(DATASETS)}.")
    if num_examples is not None and num_examples < 1:
        raise ValueError(f"num_examples must be at least 1 or None. Received: {num_examples}.")
    if dataset != "shapes":
        if not data_dir:
            raise ValueError(f"Data set {dataset!r} is read from a folder: set --data_dir to it.")
        if not os.path.isdir(data_dir):
            raise ValueError(f"--data_dir {data_dir!r} is not a folder. Check the path.")
    return DATASETS[dataset](
        data_dir=data_dir,
        split=split,
        classes=None if classes is None else tuple(classes),
        seed=seed,
        image_size=image_size,
        num_examples=num_examples,
    )


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


def _voc_folder(*, data_dir, split, classes, seed, num_examples, **_) -> Source:
    """JPEGImages, Annotations, ImageSets/Main and optionally SegmentationClass, classes.txt."""
    report = Report()
    ids = _read_split_file(data_dir, split, report)
    if num_examples is not None:
        ids = _choose(ids, num_examples, seed)
    own_classes = _voc_classes(data_dir)
    classes = _check_classes(classes or own_classes, own_classes, data_dir)
    pictures = _files_by_stem(os.path.join(data_dir, "JPEGImages"), images.SUFFIXES)
    masks = _files_by_stem(os.path.join(data_dir, "SegmentationClass"), (".png",))
    items = []
    for image_id in ids:
        if image_id not in pictures:
            report.skip(image_id, "no picture in JPEGImages")
            continue
        try:
            annotation = _read_annotation(data_dir, image_id, classes, report)
        except _BadAnnotation as error:
            report.skip(image_id, str(error))
            continue
        items.append((image_id, pictures[image_id], masks.get(image_id), annotation))
    if not items:
        raise ValueError(
            f"Split {split!r} of {data_dir} has no usable picture.\n{report.summary()}"
        )
    mask_values = _mask_values(own_classes, classes)

    def read_image(position):
        return images.read_image(items[position][1], MAX_SIDE)

    def read_example(position):
        image_id, path, mask_path, annotation = items[position]
        image, size = images.read_image_and_size(path, MAX_SIDE)
        boxes, box_labels = _boxes_in_picture(image_id, annotation, size, report)
        scale = np.array([image.shape[1] / size[1], image.shape[0] / size[0]] * 2)
        mask = None
        if mask_path is not None:
            mask = _read_mask(image_id, mask_path, size, image.shape[:2], mask_values, report)
        return make_example(
            image, annotation.labels, boxes * scale, box_labels, mask, image_id, size
        )

    return Source(
        name=f"voc_folder {data_dir} {split}",
        classes=classes,
        image_ids=tuple(item[0] for item in items),
        labels=tuple(item[3].labels for item in items),
        has_boxes=any(len(item[3].boxes) for item in items),
        has_masks=any(item[2] for item in items),
        report=report,
        read_image=read_image,
        read_example=read_example,
    )


def _read_split_file(data_dir, split, report):
    folder = os.path.join(data_dir, "ImageSets", "Main")
    path = os.path.join(folder, f"{split}.txt")
    if not os.path.isfile(path):
        found = sorted(_files_by_stem(folder, (".txt",)))
        raise ValueError(
            f"There is no split file {path}. "
            + (
                f"Legal splits here: {', '.join(found)}."
                if found
                else "Write one image id (a file name in JPEGImages without suffix) per line."
            )
        )
    with open(path, encoding="utf-8-sig") as file:
        lines = [line.split() for line in file if line.strip()]
    if not lines:
        raise ValueError(
            f"Split {split!r} is empty: {path} names no picture. Use another split, or write one "
            "image id per line."
        )
    if len(lines[0]) > 1:
        raise ValueError(
            f"{path} has several columns; one image id per line is read. Split files of one "
            "class ('cat_train') cannot be used."
        )
    ids = [line[0] for line in lines]
    for image_id, count in Counter(ids).items():
        if count > 1:
            report.note(image_id, "named more than once in the split file, used once")
    return list(dict.fromkeys(ids))


def _voc_classes(data_dir):
    path = os.path.join(data_dir, "classes.txt")
    if os.path.isfile(path):
        with open(path, encoding="utf-8-sig") as file:
            names = tuple(line.strip() for line in file if line.strip())
        if not names:
            raise ValueError(f"{path} is empty: write one class name per line, or remove it.")
        return names
    names = set()
    for file in _files_by_stem(os.path.join(data_dir, "Annotations"), (".xml",)).values():
        try:
            root = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, ValueError, LookupError):
            continue  # reported by name when the split that contains it is read
        names |= {item.findtext("name", "").strip() for item in root.findall("object")}
    names.discard("")
    if not names:
        raise ValueError(
            f"{data_dir} has no classes.txt and no Annotations/*.xml with objects. Is it a folder "
            "in VOC layout (JPEGImages, Annotations, ImageSets/Main)?"
        )
    return tuple(sorted(names))


def _check_classes(classes, own_classes, data_dir):
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise ValueError(f"Class names must be unique. Received twice: {', '.join(twice)}.")
    if not set(classes) & set(own_classes):
        raise ValueError(
            f"None of the classes asked for ({_some(classes)}) is in {data_dir}, which has "
            f"{_some(own_classes)}. Use the data set that the model was trained for, or rename."
        )
    return classes


def _some(names):
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _files_by_stem(folder, suffixes):
    if not os.path.isdir(folder):
        return {}
    stems = {}
    for name in sorted(os.listdir(folder)):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in suffixes:
            stems.setdefault(stem, os.path.join(folder, name))
    return stems


def _choose(items, number, seed):
    chosen = np.random.default_rng(seed).permutation(len(items))[:number]
    return [items[i] for i in np.sort(chosen)]


class _BadAnnotation(ValueError):
    pass


@dataclass(frozen=True)
class _Annotation:
    labels: np.ndarray  # int32 [num_labels]
    boxes: np.ndarray  # float64 [num_boxes, 4], half-open, not yet clipped
    box_labels: np.ndarray  # int32 [num_boxes]
    size: tuple[int, int] | None  # height, width


def _read_annotation(data_dir, image_id, classes, report):
    """Reads one XML file; a class that has only "difficult" objects is taken as not there."""
    path = os.path.join(data_dir, "Annotations", f"{image_id}.xml")
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise _BadAnnotation("no XML in Annotations") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise _BadAnnotation(f"XML is broken ({error})") from None
    ids = {name: i for i, name in enumerate(classes)}
    boxes, box_labels, easy = [], [], set()
    for number, item in enumerate(root.findall("object"), start=1):
        name = item.findtext("name", "").strip()
        if name not in ids:
            report.skip(f"{image_id} object {number}", f"class {name!r} is not in the list")
            continue
        if item.findtext("difficult", "0").strip() != "1":
            easy.add(ids[name])
        box = _read_box(item.find("bndbox"))
        if box is None:
            report.skip(f"{image_id} box {number}", "no readable box, only the label is used")
            continue
        boxes.append(box)
        box_labels.append(ids[name])
    if not easy:
        raise _BadAnnotation("no object of a class in the list that is not marked difficult")
    used = [i for i, label in enumerate(box_labels) if label in easy]
    return _Annotation(
        labels=np.array(sorted(easy), np.int32),
        boxes=np.array([boxes[i] for i in used], np.float64).reshape(-1, 4),
        box_labels=np.array([box_labels[i] for i in used], np.int32),
        size=_read_size(root.find("size")),
    )


def _read_box(element):
    """VOC counts pixels from 1 and includes the last one: xmin..xmax becomes xmin - 1 .. xmax."""
    if element is None:
        return None
    try:
        x0, y0, x1, y1 = (
            float(element.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError:
        return None
    if not np.isfinite([x0, y0, x1, y1]).all() or x1 < x0 or y1 < y0:
        return None
    return x0 - 1, y0 - 1, x1, y1


def _read_size(element):
    if element is None:
        return None
    try:
        height, width = (int(element.findtext(key, "")) for key in ("height", "width"))
    except ValueError:
        return None
    return (height, width) if height > 0 and width > 0 else None


def _boxes_in_picture(image_id, annotation, size, report):
    """Clips boxes to the picture [height, width]; drops those with nothing left."""
    if annotation.size not in (None, size) and len(annotation.boxes):
        (height, width), (true_height, true_width) = annotation.size, size
        report.skip(
            f"{image_id} boxes",
            f"XML is for {width} x {height} pixels, the picture has {true_width} x {true_height}",
        )
        return np.zeros((0, 4)), np.zeros(0, np.int32)
    limit = np.array([size[1], size[0]] * 2)
    clipped = np.clip(annotation.boxes, 0, limit)
    keep = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    for i, (box, whole) in enumerate(zip(annotation.boxes, clipped, strict=True)):
        if not keep[i]:
            report.skip(f"{image_id} box {i + 1}", "the box is outside the picture")
        elif (box != whole).any():
            report.note(f"{image_id} box {i + 1}", "the box leaves the picture and was clipped")
    return clipped[keep], annotation.box_labels[keep]


def _mask_values(own_classes, classes):
    """uint8 [256]: value in a mask file -> value in an Example; unknown classes are ignored."""
    values = np.full(256, IGNORE, np.uint8)
    values[0] = 0
    ids = {name: i for i, name in enumerate(classes)}
    for i, name in enumerate(own_classes[:254]):
        if name in ids and ids[name] < 254:
            values[i + 1] = ids[name] + 1
    return values


def _read_mask(image_id, path, size, shape, values, report):
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("P", "L", "1"):
                raise ValueError(f"the mask must be a palette or gray PNG, not {picture.mode}")
            if picture.size != (size[1], size[0]):
                raise ValueError(
                    f"the mask has {picture.width} x {picture.height} pixels, the picture "
                    f"{size[1]} x {size[0]}"
                )
            mask = picture.resize((shape[1], shape[0]), Image.Resampling.NEAREST)
            return values[np.asarray(mask, np.uint8)]
    except Exception as error:  # decoders raise many types on damaged files
        report.skip(f"{image_id} mask", f"mask not used ({error})")
        return None


def _image_folder(*, data_dir, split, classes, seed, num_examples, **_) -> Source:
    """data_dir/<split>/<class>/* or, for the split `train` alone, data_dir/<class>/*."""
    report = Report()
    folder = _image_folder_of(data_dir, split)
    own_classes = _subfolders(folder)
    classes = _check_classes(classes or own_classes, own_classes, folder)
    items = []  # (image id, path, label)
    for name in own_classes:
        names = sorted(n for n in os.listdir(os.path.join(folder, name)) if n[0] != ".")
        if name not in classes:
            report.skip(f"folder {name}", f"not a class of the list ({len(names)} files)")
            continue
        found = [n for n in names if os.path.splitext(n)[1].lower() in images.SUFFIXES]
        for other in sorted(set(names) - set(found)):
            report.skip(f"{name}/{other}", "not a picture by its suffix")
        if not found:
            report.skip(f"folder {name}", "holds no picture")
        for file in found:
            items.append((f"{name}/{file}", os.path.join(folder, name, file), classes.index(name)))
    for file in sorted(os.listdir(folder)):
        if os.path.splitext(file)[1].lower() in images.SUFFIXES:
            report.skip(file, "a picture outside the class folders has no label")
    if num_examples is not None:
        items = _choose(items, num_examples, seed)
    if not items:
        raise ValueError(f"{folder} has no usable picture.\n{report.summary()}")

    def read_image(position):
        return images.read_image(items[position][1], MAX_SIDE)

    def read_example(position):
        image_id, path, label = items[position]
        image, size = images.read_image_and_size(path, MAX_SIDE)
        return make_example(image, [label], image_id=image_id, size=size)

    return Source(
        name=f"image_folder {data_dir} {split}",
        classes=classes,
        image_ids=tuple(item[0] for item in items),
        labels=tuple(np.array([item[2]], np.int32) for item in items),
        has_boxes=False,
        has_masks=False,
        report=report,
        read_image=read_image,
        read_example=read_example,
    )


def _image_folder_of(data_dir, split):
    folder = os.path.join(data_dir, split)
    if _subfolders(folder):
        return folder
    splits = [name for name in _subfolders(data_dir) if _subfolders(os.path.join(data_dir, name))]
    if splits:
        raise ValueError(
            f"{data_dir} has no split {split!r} with class folders. Legal: {', '.join(splits)}."
        )
    if not _subfolders(data_dir):
        raise ValueError(
            f"{data_dir} has no class folders. Put the pictures of each class into "
            f"{os.path.join(data_dir, '<class>')}, or into "
            f"{os.path.join(data_dir, '<split>', '<class>')}."
        )
    if split != "train":
        raise ValueError(
            f"{data_dir} has class folders but no splits, so only split 'train' (all pictures) "
            f"exists. Received: {split!r}. Move pictures to "
            f"{os.path.join(data_dir, split, '<class>')} and the rest to "
            f"{os.path.join(data_dir, 'train', '<class>')}."
        )
    return data_dir


def _subfolders(folder):
    if not os.path.isdir(folder):
        return ()
    names = sorted(name for name in os.listdir(folder) if name[0] != ".")
    return tuple(name for name in names if os.path.isdir(os.path.join(folder, name)))


def _shapes(*, split, classes, seed, image_size, num_examples, **_) -> Source:
    """Drawn pictures; see `shapes`."""
    if split not in shapes.NUM_EXAMPLES:
        raise ValueError(
            f"Unknown split {split!r} of shapes. Legal: {', '.join(shapes.NUM_EXAMPLES)}."
        )
    report = Report()
    classes = _check_classes(classes or shapes.CLASSES, shapes.CLASSES, "shapes")
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


DATASETS = {"shapes": _shapes, "voc_folder": _voc_folder, "image_folder": _image_folder}
