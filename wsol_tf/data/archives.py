"""Archives of public data sets: found on disk, checked, downloaded and prepared."""

import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable
from pathlib import Path

import tensorflow_datasets as tfds

from wsol_tf.data.annotation import make_annotation
from wsol_tf.data.public_kinds import KINDS, Annotate
from wsol_tf.data.source import Report
from wsol_tf.data.voc_xml import BadAnnotation, read_annotation

IMAGENET_BOXES = {
    "train": "ILSVRC2012_bbox_train_v2.tar.gz",
    "validation": "ILSVRC2012_bbox_val_v3.tgz",
}


def prepared_builder(
    dataset: str, data_dir: Path, download: bool, report: Report
) -> tfds.core.DatasetBuilder:
    """Returns the tfds builder of a data set, after preparing the data set where needed.

    Args:
        dataset: a key of `KINDS`.
        data_dir: tfds's folder, and the place of archives.
        download: whether missing archives may be downloaded.
        report: takes what could be better.

    Raises:
        ValueError: with a sentence that says which file to put where.
    """
    kind = KINDS[dataset]
    found = _prepared_folders(data_dir, kind)
    if found and found[0].is_relative_to(data_dir / kind.prepared[0]):
        return tfds.builder_from_directory(found[0])
    folder, missing = _find_archives(data_dir, kind.archives)
    if dataset == "imagenet2012" and len(missing) < len(kind.archives):
        missing = []  # tfds makes the splits whose archives are there
    if missing and found:
        report.note(
            f"{dataset} masks",
            f"{found[0]} was prepared without masks; with {', '.join(missing)} in {data_dir} it "
            "is prepared again with them",
        )
        return tfds.builder_from_directory(found[0])
    if missing:
        _check_download(dataset, kind, data_dir, missing, download)
    return _prepare(dataset, kind, data_dir, folder)


def _prepared_folders(data_dir, kind):
    """Folders with prepared data: the preferred kind first, the newest version of each first."""
    folders = []
    for name in kind.prepared:
        versions = (data_dir / name).glob("*/dataset_info.json")
        folders += sorted((path.parent for path in versions), key=_version, reverse=True)
    return folders


def _version(folder):
    return [int(part) if part.isdigit() else -1 for part in folder.name.split(".")]


def _find_archives(data_dir, archives):
    """The folder that holds most of the archives, and the names of those missing in it."""
    folders = (data_dir, data_dir / "downloads" / "manual", data_dir / "manual")
    missing = {
        folder: [name for name in archives if not (folder / name).is_file()] for folder in folders
    }
    best = min(folders, key=lambda folder: len(missing[folder]))
    return best, missing[best]


def _check_download(dataset, kind, data_dir, missing, download):
    """Refuses at once, in a sentence, what tfds would try in vain for minutes."""
    for folder in (data_dir, *data_dir.glob("VOC20??"), *data_dir.glob("VOCdevkit/VOC20??")):
        if (folder / "JPEGImages").is_dir():
            raise ValueError(
                f"{folder} is an unpacked VOC. Read it with `dataset=voc_folder` "
                f"`data_dir='{folder}'`."
            )
    sentence = (
        f"Data set {dataset!r} is not prepared in {data_dir}, and {' and '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} neither there nor in "
        f"{data_dir / 'downloads' / 'manual'}. Get the archive from {kind.page} and put it, as it "
        "is, into one of the two"
    )
    if dataset == "imagenet2012":
        raise ValueError(f"{sentence}: ILSVRC has no open download.")
    if not download:
        raise ValueError(f"{sentence}, or let it be downloaded: `download`.")
    try:
        head = urllib.request.Request(kind.host, method="HEAD")
        urllib.request.urlopen(head, timeout=20).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as error:
        raise ValueError(
            f"{sentence}; it cannot be downloaded now, {kind.host} is out of reach ({error})."
        ) from error


def _prepare(dataset, kind, data_dir, folder):
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        builder = kind.builder(str(data_dir))
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=str(folder), try_download_gcs=False
            )
        )
    except tfds.core.download.download_manager.NonMatchingChecksumError as error:
        raise ValueError(
            f"An archive of {dataset!r} is not the published one: it is cut off, or was packed "
            f"again. Get it from {kind.page}."
            + (" An unpacked VOC is read by `dataset=voc_folder`." if "voc" in dataset else "")
            + f"\n{error}"
        ) from error
    except Exception as error:  # tfds and what it calls raise many types
        raise ValueError(
            f"tensorflow_datasets could not prepare {dataset!r} in {data_dir}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return tfds.builder_from_directory(builder.data_dir)


# --- boxes of ILSVRC -----------------------------------------------------------------------------


def imagenet_annotations(
    data_dir: Path, splits: Iterable[str], classes: tuple[str, ...], report: Report
) -> Annotate | None:
    """Returns the function that reads ILSVRC's boxes from XML, see `Kind.annotate`.

    Args:
        data_dir: the folder that holds the archives of boxes, packed or unpacked.
        splits: the splits that are read.
        classes: the data set's own classes.
        report: takes the files that cannot be read.

    Returns:
        The function, or None where there are no boxes.

    Raises:
        ValueError: an archive cannot be unpacked.
    """
    folders = [
        folder
        for split in splits
        if split in IMAGENET_BOXES and (folder := _imagenet_boxes(data_dir, IMAGENET_BOXES[split]))
    ]
    if not folders:
        return None

    def annotate(record, size):
        stem = record["file_name"].decode().rsplit(".", 1)[0]
        for folder in folders:
            for part in ("", "val", stem.split("_")[0], f"train/{stem.split('_')[0]}"):
                path = folder / part / f"{stem}.xml"
                if path.is_file():
                    try:
                        return read_annotation(path, stem, classes, report), None
                    except BadAnnotation as error:
                        report.skip(f"{stem} boxes", str(error))
        return make_annotation([record["label"]]), None

    return annotate


def _unpack(archive, folder):
    """Unpacks an archive of which nothing may come to lie outside of the folder."""
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
            return
        for member in tar:  # Python 3.11.0 to 3.11.3, Debian 12's, have no filters
            inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
            if not inside or not (member.isfile() or member.isdir()):
                raise tarfile.TarError(f"'{member.name}' is no file inside of the folder")
            tar.extract(member, folder)


def _imagenet_boxes(data_dir, archive):
    """The folder of XML files: beside the archives, under the archive's name or unpacked now."""
    stem = archive.split(".")[0]
    places = (data_dir, data_dir / "downloads" / "manual", data_dir / "manual")
    unpacked = data_dir / "downloads" / "extracted" / stem
    for folder in (*(place / stem for place in places), unpacked):
        if folder.is_dir():
            return folder
    for place in places:
        if (place / archive).is_file():
            unpacked.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=unpacked.parent))
            try:
                _unpack(place / archive, partial)
            except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
                shutil.rmtree(partial)
                raise ValueError(f"{place / archive} cannot be unpacked: {error}.") from error
            partial.rename(unpacked)
            return unpacked
    return None
