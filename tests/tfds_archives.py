"""Small archives in the layout of the published ones, made in the test."""

import io
import tarfile

import numpy as np
from PIL import Image


def jpeg(color, size=(40, 30)):
    """A picture (width, height) of one colour as the bytes of a JPEG."""
    return encoded(Image.new("RGB", size, color), "JPEG")


def encoded(picture, kind):
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def png(array):
    """Gray PNG of uint8 [height, width]."""
    return encoded(Image.fromarray(array), "PNG")


def palette_png(array):
    picture = Image.fromarray(array)
    picture.putpalette([255 - i for i in range(256) for _ in range(3)])
    return encoded(picture, "PNG")


def write_tar(path, files, mode="w"):
    """Writes a tar of name -> bytes."""
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def voc_xml(objects, size=(40, 30), folder="VOC2012"):
    """objects: (name, difficult, (xmin, ymin, xmax, ymax)), as VOC counts."""
    text = "".join(
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated>"
        f"<difficult>{int(difficult)}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, difficult, box in objects
    )
    return (
        f"<annotation><folder>{folder}</folder><size><width>{size[0]}</width>"
        f"<height>{size[1]}</height><depth>3</depth></size>{text}</annotation>"
    ).encode()


def voc_trainval(path, year="2012", splits=("train", "val"), pictures=6):
    """Pictures 0 ... of each split: dog, then person beside dog, then a difficult cat alone."""
    root = f"VOCdevkit/VOC{year}"
    files = {}
    for split in splits:
        names = [f"{year}_{split}{i}" for i in range(pictures)]
        files[f"{root}/ImageSets/Main/{split}.txt"] = "".join(f"{n}\n" for n in names).encode()
        for i, name in enumerate(names):
            objects = [
                [("dog", False, (5, 6, 24, 25))],
                [("person", False, (1, 1, 10, 30)), ("dog", True, (11, 2, 40, 29)),
                 ("dog", False, (2, 3, 9, 10))],
                [("cat", True, (1, 1, 40, 30))],
            ][i % 3]  # fmt: skip
            files[f"{root}/JPEGImages/{name}.jpg"] = jpeg((40 * i, 90, 200))
            files[f"{root}/Annotations/{name}.xml"] = voc_xml(objects)
            if i == 0:
                mask = np.zeros((30, 40), np.uint8)
                mask[5:25, 4:24] = 12  # dog is class 11 of 20
                mask[4, 4:24] = 255
                files[f"{root}/SegmentationClass/{name}.png"] = palette_png(mask)
    return write_tar(path, files)


def cub(images_path, masks_path):
    """Two classes with a training and a test picture each."""
    images, boxes, split, files, masks = [], [], [], {}, {}
    for number, (name, is_train) in enumerate(
        [
            ("001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111", 1),
            ("001.Black_footed_Albatross/Black_Footed_Albatross_0002_55", 0),
            ("200.Common_Yellowthroat/Common_Yellowthroat_0003_190521", 1),
            ("200.Common_Yellowthroat/Common_Yellowthroat_0004_190606", 0),
        ],
        start=1,
    ):
        images.append(f"{number} {name}.jpg")
        split.append(f"{number} {is_train}")
        boxes.append(f"{number} {5 + number}.0 6.0 20.0 12.0")
        files[f"CUB_200_2011/images/{name}.jpg"] = jpeg((50 * number, 20, 20))
        mask = np.zeros((30, 40), np.uint8)
        mask[6:18, 5 + number : 25 + number] = 204  # four of five annotators
        mask[0] = 102  # two of five
        masks[f"segmentations/{name}.png"] = png(mask)
    tables = {"images": images, "train_test_split": split, "bounding_boxes": boxes}
    for table, lines in tables.items():
        files[f"CUB_200_2011/{table}.txt"] = "".join(f"{line}\n" for line in lines).encode()
    write_tar(images_path, files, "w:gz")
    write_tar(masks_path, masks, "w:gz")


def pets(images_path, annotations_path):
    """Two training pictures and a test picture; trimaps of 1 pet, 2 background, 3 border."""
    lists = {
        "trainval": ["Abyssinian_100 1 1 1", "american_bulldog_100 2 2 1"],
        "test": ["Abyssinian_201 1 1 1"],
    }
    files, images = {}, {}
    for split, lines in lists.items():
        files[f"annotations/{split}.txt"] = "".join(f"{line}\n" for line in lines).encode()
        for line in lines:
            name = line.split()[0]
            trimap = np.full((30, 40), 2, np.uint8)
            trimap[9:21, 9:31] = 3
            trimap[10:20, 10:30] = 1
            files[f"annotations/trimaps/{name}.png"] = png(trimap)
            images[f"images/{name}.jpg"] = jpeg((10, 200, 30))
            head = voc_xml([("cat", False, (12, 12, 15, 15))])
            files[f"annotations/xmls/{name}.xml"] = head
    write_tar(images_path, images)
    write_tar(annotations_path, files)


def imagenet(folder):
    """ILSVRC's two archives of pictures and the two of boxes."""
    classes = {}
    for number, wnid in enumerate(("n01440764", "n01443537")):
        pictures = {f"{wnid}_{i}.JPEG": jpeg((100, 60 * number, 60 * i)) for i in range(3)}
        inner = io.BytesIO()
        with tarfile.open(fileobj=inner, mode="w") as tar:
            for name, data in pictures.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        classes[f"{wnid}.tar"] = inner.getvalue()
    write_tar(folder / "ILSVRC2012_img_train.tar", classes)
    names = [f"ILSVRC2012_val_{i:08d}" for i in (1, 2, 3)]
    pictures = {f"{name}.JPEG": jpeg((0, 40 * i, 200)) for i, name in enumerate(names)}
    write_tar(folder / "ILSVRC2012_img_val.tar", pictures)
