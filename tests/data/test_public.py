"""The public data sets, prepared by tfds's own builders from small archives made here."""

import logging
import multiprocessing
import os
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

import tfds_archives as archives
from wsol_tf.data import archives as own_archives
from wsol_tf.data import public, public_kinds, tfrecords
from wsol_tf.data.batches import training_batches
from wsol_tf.data.images import BadImage
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.source import Source
from wsol_tf.data.stream import TrainingStream

BUILDERS = {
    "voc": public_kinds.PascalVoc,
    "voc2007": public_kinds.PascalVoc,
    "caltech_birds2011": tfds.builder_cls("caltech_birds2011"),
    "oxford_iiit_pet": tfds.builder_cls("oxford_iiit_pet"),
}


def write_archives(dataset, folder):
    first, *others = (folder / name for name in public_kinds.KINDS[dataset].archives)
    if dataset == "voc":
        archives.voc_trainval(first)
    elif dataset == "voc2007":
        archives.voc_trainval(first, "2007")
        archives.voc_trainval(others[0], "2007", splits=["test"])
    elif dataset == "caltech_birds2011":
        archives.cub(first, *others)
    elif dataset == "oxford_iiit_pet":
        archives.pets(first, *others)
    else:
        archives.imagenet(folder)


@pytest.fixture(scope="module", autouse=True)
def no_network():
    """Nothing may be downloaded here, and what tries is refused at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("requests.Session.send", _refuse)
        patch.setattr("urllib.request.urlopen", _refuse)
        yield


def _refuse(*_, **__):
    raise ConnectionError("no network in tests")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns name -> data_dir of the prepared data set; each is prepared once.

    tfds checks the archives against the checksums that come with it. Ours are small, so their own
    take the places of the published ones, as they would in a builder of the user's.
    """
    folders = {}

    def prepare(dataset):
        if dataset not in folders:
            folder = folders[dataset] = tmp_path_factory.mktemp(dataset)
            write_archives(dataset, folder)
            with pytest.MonkeyPatch.context() as patch:
                if dataset in BUILDERS:
                    know_checksums(patch, BUILDERS[dataset], folder)
                open_dataset(dataset, folder, "train", download=False)
        return folders[dataset]

    return prepare


def unpack(archive, folder):
    """Unpacks an archive; Python 3.12 and 3.13 want to be told how, 3.11.0 to 3.11.3 can't be."""
    how = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    shutil.unpack_archive(archive, folder, **how)


def know_checksums(patch, builder, folder):
    """Makes the archives in a folder those that a builder's published checksums fit."""
    checksums = tfds.core.download.checksums
    published = checksums.get_all_url_infos() | (builder.url_infos or {})
    ours = published | {
        url: checksums.compute_url_info(folder / info.filename)
        for url, info in published.items()
        if info.filename and (folder / info.filename).is_file()
    }
    patch.setattr(checksums, "get_all_url_infos", lambda: dict(ours))
    patch.setattr(builder, "url_infos", ours)


# --- the data sets -------------------------------------------------------------------------------


def test_voc_is_read_as_its_unpacked_folder(prepared, tmp_path):
    folder = prepared("voc")
    unpack(folder / "VOCtrainval_11-May-2012.tar", tmp_path)
    unpacked = tmp_path / "VOCdevkit" / "VOC2012"
    classes = (
        tfds.builder_cls("voc")(config="2012", data_dir=tmp_path).info.features["labels"].names
    )
    (unpacked / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    for split in ("train", "val"):
        ours, theirs = (
            open_dataset("voc", folder, split),
            open_dataset("voc_folder", unpacked, split),
        )
        assert ours.classes == theirs.classes
        assert sorted(ours.image_ids) == sorted(theirs.image_ids)
        for position, image_id in enumerate(ours.image_ids):
            other = theirs.image_ids.index(image_id)
            for a, b in zip(ours.read_example(position), theirs.read_example(other), strict=True):
                np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(ours.read_image(position), theirs.read_image(other))
            assert ours.labels[position].tolist() == theirs.labels[other].tolist()


def test_voc_by_hand(prepared):
    source = open_dataset("voc", prepared("voc"), "train")
    assert (len(source.classes), source.has_boxes, source.has_masks) == (20, True, True)
    # Pictures 2 and 5 show a difficult cat and nothing else.
    assert sorted(source.image_ids) == [f"2012_train{i}" for i in (0, 1, 3, 4)]
    assert sorted(source.report.skipped) == ["2012_train2", "2012_train5"]
    example = source.read_example(source.image_ids.index("2012_train0"))
    assert [source.classes[i] for i in example.labels] == ["dog"]
    assert example.boxes.tolist() == [[4, 5, 24, 25]]
    assert set(np.unique(example.mask)) == {0, 12, 255}
    assert (example.mask == 12).sum() == 400
    pair = source.read_example(source.image_ids.index("2012_train1"))
    assert [source.classes[i] for i in pair.labels] == ["dog", "person"]
    # All boxes of a class that is present count, the difficult dog's too.
    assert pair.boxes.tolist() == [[0, 0, 10, 30], [10, 1, 40, 29], [1, 2, 9, 10]]
    assert [source.classes[i] for i in pair.box_labels] == ["person", "dog", "dog"]
    assert pair.mask.shape == (0, 0)


def test_voc2007_has_a_test_split(prepared):
    source = open_dataset("voc2007", prepared("voc2007"), "test")
    assert sorted(source.image_ids) == [f"2007_test{i}" for i in (0, 1, 3, 4)]
    both = open_dataset("voc2007", prepared("voc2007"), "train+val")
    assert len(both) == 8
    assert {image_id[:-1] for image_id in both.image_ids} == {"2007_train", "2007_val"}


def test_cub_has_the_official_split_boxes_and_masks(prepared):
    source = open_dataset("caltech_birds2011", prepared("caltech_birds2011"), "train")
    assert len(source.classes) == 200
    assert source.classes[0] == "001.Black_footed_Albatross"
    assert source.classes[199] == "200.Common_Yellowthroat"
    assert sorted(source.image_ids) == [
        "001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111.jpg",
        "200.Common_Yellowthroat/Common_Yellowthroat_0003_190521.jpg",
    ]
    assert sorted(labels.tolist() for labels in source.labels) == [[0], [199]]
    example = source.read_example(source.image_ids.index(sorted(source.image_ids)[1]))
    # The third line of bounding_boxes.txt: x 8, y 6, width 20, height 12.
    assert example.boxes.tolist() == [[8, 6, 28, 18]]
    expected = np.zeros((30, 40), np.uint8)
    expected[6:18, 8:28] = 200
    np.testing.assert_array_equal(example.mask, expected)
    test = open_dataset("caltech_birds2011", prepared("caltech_birds2011"), "test")
    assert len(test) == 2 and not set(test.image_ids) & set(source.image_ids)
    assert test.classes == source.classes


def test_pets_have_masks_and_the_boxes_of_the_masks(prepared):
    source = open_dataset("oxford_iiit_pet", prepared("oxford_iiit_pet"), "train")
    assert len(source.classes) == 37 and len(source) == 2
    example = source.read_example(source.image_ids.index("american_bulldog_100.jpg"))
    assert [source.classes[i] for i in example.labels] == ["american_bulldog"]
    # Not tfds's box, which is of the head.
    assert example.boxes.tolist() == [[10, 10, 30, 20]]
    assert (example.mask == 2).sum() == 200
    assert (example.mask == 255).sum() == 12 * 22 - 200
    assert len(open_dataset("oxford_iiit_pet", prepared("oxford_iiit_pet"), "test")) == 1


@pytest.mark.parametrize("packed", [True, False], ids=["archive", "folder"])
def test_imagenet_takes_boxes_from_the_archive_or_its_folder(prepared, tmp_path, packed):
    shutil.copytree(prepared("imagenet2012") / "imagenet2012", tmp_path / "imagenet2012")
    box = archives.voc_xml([("n01440764", False, (3, 4, 20, 25))])
    xml = {
        "ILSVRC2012_bbox_val_v3.tgz": {"val/ILSVRC2012_val_00000002.xml": box},
        "ILSVRC2012_bbox_train_v2.tar.gz": {"n01440764/n01440764_1.xml": box},
    }
    for name, files in xml.items():
        path = archives.write_tar(tmp_path / name, files, "w:gz")
        if not packed:
            unpack(path, tmp_path / name.split(".")[0])
            path.unlink()
    val = open_dataset("imagenet2012", tmp_path, "val")
    assert val.classes[:2] == ("n01440764", "n01443537") and len(val.classes) == 1000
    assert val.has_boxes and not val.has_masks
    # tfds's own list has the class of each of the 50,000.
    known = {
        name: val.classes[label[0]] for name, label in zip(val.image_ids, val.labels, strict=True)
    }
    assert known["ILSVRC2012_val_00000001.JPEG"] == "n01751748"
    train = open_dataset("imagenet2012", tmp_path, "train")
    boxed = [train.read_example(i) for i in range(len(train))]
    assert {
        example.image_id: example.boxes.tolist() for example in boxed if len(example.boxes)
    } == {"n01440764_1.JPEG": [[2, 3, 20, 25]]}
    assert len(train) == 6 and train.has_boxes


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Pythons that ask for a filter
@pytest.mark.parametrize("has_filters", [True, False], ids=["Python", "Python before 3.11.4"])
def test_an_archive_of_boxes_leaves_nothing_outside_of_its_folder(
    tmp_path, monkeypatch, has_filters
):
    if not has_filters:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    good = archives.write_tar(tmp_path / "good.tgz", {"val/1.xml": b"<a/>"}, "w:gz")
    (tmp_path / "good").mkdir()
    own_archives._unpack(good, tmp_path / "good")
    assert (tmp_path / "good" / "val" / "1.xml").read_bytes() == b"<a/>"
    bad = archives.write_tar(tmp_path / "bad.tgz", {"../outside.xml": b"<a/>"}, "w:gz")
    (tmp_path / "bad").mkdir()
    with pytest.raises(tarfile.TarError, match="outside"):
        own_archives._unpack(bad, tmp_path / "bad")
    assert not (tmp_path / "outside.xml").exists()


def test_imagenet_without_boxes_is_classified_only(prepared):
    source = open_dataset("imagenet2012", prepared("imagenet2012"), "val")
    assert not source.has_boxes
    assert source.read_example(0).boxes.shape == (0, 4)


# --- splits and classes --------------------------------------------------------------------------


def test_slices_are_tfdss_own(prepared):
    folder = prepared("imagenet2012")
    whole = open_dataset("imagenet2012", folder, "train").image_ids
    assert open_dataset("imagenet2012", folder, "train[:50%]").image_ids == whole[:3]
    assert open_dataset("imagenet2012", folder, "train[50%:]").image_ids == whole[3:]
    assert open_dataset("imagenet2012", folder, "train[-1:]").image_ids == whole[5:]
    read = tfds.builder_from_directory(folder / "imagenet2012" / "5.1.0")
    names = [r["file_name"].numpy().decode() for r in read.as_dataset(split="train[1:4]")]
    assert list(open_dataset("imagenet2012", folder, "train[1:4]").image_ids) == names
    pictures = [r["image"].numpy() for r in read.as_dataset(split="train[1:4]")]
    source = open_dataset("imagenet2012", folder, "train[1:4]")
    for position, picture in enumerate(pictures):
        np.testing.assert_allclose(source.read_image(position).astype(int), picture, atol=3)


@pytest.mark.parametrize("split", ["dev", "train[:200%]", "train[", "train[9:]"])
def test_splits_that_are_not_there_name_the_legal_ones(prepared, split):
    with pytest.raises(ValueError, match="train, validation"):
        open_dataset("imagenet2012", prepared("imagenet2012"), split)


def test_classes_asked_for_fix_ids_and_mask_values(prepared):
    source = open_dataset("voc", prepared("voc"), "train", classes=["owl", "dog"])
    assert {tuple(labels) for labels in source.labels} == {(1,)}
    example = source.read_example(source.image_ids.index("2012_train0"))
    assert set(np.unique(example.mask)) == {0, 2, 255}
    pair = source.read_example(source.image_ids.index("2012_train1"))
    assert pair.box_labels.tolist() == [1, 1]
    with pytest.raises(ValueError, match="None of the classes"):
        open_dataset("voc", prepared("voc"), "train", classes=["owl"])


def test_single_class_pictures_only(prepared):
    source = open_dataset("voc", prepared("voc"), "train", single_class=True)
    assert sorted(source.image_ids) == ["2012_train0", "2012_train3"]
    assert source.read_example(0).labels.tolist() == [11]


@pytest.mark.parametrize("dataset", public_kinds.KINDS)
def test_no_box_and_no_mask_reaches_training(prepared, dataset, monkeypatch):
    source = open_dataset(dataset, prepared(dataset), "train")
    wanted = []
    parse = public.parse_record

    def watched(data, features):
        wanted.append(list(features))
        return parse(data, features)

    monkeypatch.setattr(public, "parse_record", watched)
    stream = TrainingStream(source, range(len(source)), batch_size=2, input_size=24, resize_size=28)
    batches = training_batches(stream)
    several = any(len(labels) > 1 for labels in source.labels)
    # Picture, label and, where pictures have several classes, which of them compete.
    assert [spec.shape[1:].as_list() for spec in batches.element_spec] == [
        [24, 24, 3], [], *([[len(source.classes)]] if several else [])
    ]  # fmt: skip
    assert len(list(batches)) > 0
    assert wanted and all(features == ["image"] for features in wanted)


# --- what may be missing or broken ---------------------------------------------------------------


@pytest.mark.parametrize("dataset", public_kinds.KINDS)
def test_missing_archives_are_named_with_their_place(dataset, tmp_path):
    with pytest.raises(ValueError) as caught:
        open_dataset(dataset, tmp_path, "train", download=False)
    text = str(caught.value)
    for name in public_kinds.KINDS[dataset].archives:
        assert name in text
    assert (
        str(tmp_path / "downloads" / "manual") in text and public_kinds.KINDS[dataset].page in text
    )
    assert ("`download`" in text) == (dataset != "imagenet2012")


def test_no_network_is_said_before_tfds_tries_for_minutes(tmp_path):
    with pytest.raises(ValueError, match="cannot be downloaded now.*no network in tests"):
        open_dataset("voc", tmp_path, "train")


def test_only_what_is_missing_is_asked_for(tmp_path):
    (tmp_path / "downloads" / "manual").mkdir(parents=True)
    (tmp_path / "downloads" / "manual" / "CUB_200_2011.tgz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"and segmentations.tgz is neither"):
        open_dataset("caltech_birds2011", tmp_path, "train", download=False)


def test_archives_with_another_checksum_are_refused(tmp_path):
    archives.voc_trainval(tmp_path / "VOCtrainval_11-May-2012.tar")
    with pytest.raises(ValueError, match="not the published one.*`dataset=voc_folder`"):
        open_dataset("voc", tmp_path, "train", download=False)


def test_unpacked_voc_is_sent_to_voc_folder(tmp_path):
    (tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages").mkdir(parents=True)
    with pytest.raises(ValueError, match="`dataset=voc_folder` `data_dir='.*VOC2012'`"):
        open_dataset("voc", tmp_path, "train", download=False)


def read_share(folder, worker, path):
    """What one of two workers on a machine reads: the pieces of its own GPU."""
    stream = imagenet_stream(folder)
    pieces = training_batches(stream, epochs=2, replicas=2, worker=worker, workers=2)
    images, labels = zip(*pieces.as_numpy_iterator(), strict=True)
    np.savez(path, images=images, labels=labels, process=os.getpid())


def imagenet_stream(folder):
    source = open_dataset("imagenet2012", folder, "train")
    return TrainingStream(
        source, range(len(source)), batch_size=4, input_size=24, resize_size=28, seed=2
    )


def test_two_reader_processes_share_the_shards_of_a_machine(prepared, tmp_path):
    """Each opens the shards itself; their pieces side by side are the batches of one reader."""
    folder = prepared("imagenet2012")
    context = multiprocessing.get_context("spawn")
    paths = [tmp_path / f"{worker}.npz" for worker in range(2)]
    readers = [
        context.Process(target=read_share, args=(folder, worker, path))
        for worker, path in enumerate(paths)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    shares = [np.load(path) for path in paths]
    assert len({int(share["process"]) for share in shares} | {os.getpid()}) == 3
    stream = imagenet_stream(folder)
    assert stream.num_samples == 6 and len(shares[0]["labels"]) == 3  # of 4, twice over 6
    for i in range(3):
        for ours, name in zip(stream[i], ("images", "labels"), strict=True):
            np.testing.assert_array_equal(
                np.concatenate([share[name][i] for share in shares]), ours
            )


def test_imagenet_split_without_its_archive(prepared, tmp_path):
    shutil.copy(prepared("imagenet2012") / "ILSVRC2012_img_val.tar", tmp_path)
    assert len(open_dataset("imagenet2012", tmp_path, "val")) == 3
    with pytest.raises(ValueError, match="has: validation.*delete.*5.1.0, and run again"):
        open_dataset("imagenet2012", tmp_path, "train")


def test_voc_prepared_by_tfds_is_read_without_masks(prepared, tmp_path, monkeypatch):
    """Data that a user prepared with tfds.load('voc/2012') before."""
    manual = tmp_path / "manual"
    manual.mkdir()
    archives.voc_trainval(manual / "VOCtrainval_11-May-2012.tar")
    archives.voc_trainval(manual / "VOC2012test.tar", splits=["test"])
    builder = tfds.builder_cls("voc")
    know_checksums(monkeypatch, builder, manual)
    builder(config="2012", data_dir=tmp_path / "data").download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
    )
    source = open_dataset("voc", tmp_path / "data", "train", download=False)
    ours = open_dataset("voc", prepared("voc"), "train")
    assert source.classes == ours.classes and not source.has_masks
    assert "without masks" in source.report.noted["voc masks"]
    assert set(source.image_ids) == set(ours.image_ids)
    position = source.image_ids.index("2012_train0")
    assert source.read_example(position).boxes.tolist() == [[4, 5, 24, 25]]
    # The test pictures of 2012 have no labels.
    with pytest.raises(ValueError, match="no usable picture(.|\n)*2012_test0"):
        open_dataset("voc", tmp_path / "data", "test", download=False)


def test_damaged_records_are_bad_pictures(prepared, tmp_path):
    folder = tmp_path / "pets"
    shutil.copytree(prepared("oxford_iiit_pet"), folder)
    source = open_dataset("oxford_iiit_pet", folder, "train")
    whole = source.read_image(1)
    (path,) = folder.glob("oxford_iiit_pet/*/*train.tfrecord*")
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\xd8\xff")  # the first picture's
    data[start : start + 3] = b"???"
    path.write_bytes(data)
    with pytest.raises(BadImage, match="not a picture in a known format"):
        source.read_image(0)
    np.testing.assert_array_equal(source.read_image(1), whole)
    assert len(list(source.read_examples([0, 1]))) == 1
    assert list(source.report.skipped) == [source.image_ids[0]]
    with pytest.raises(ValueError, match=f"{source.image_ids[0]} in .*tfrecord"):
        strict = open_dataset("oxford_iiit_pet", folder, "train", on_bad_image="fail")
        strict.report.bad_image("x", _bad_image_of(strict.read_image))


def _bad_image_of(read):
    with pytest.raises(BadImage) as caught:
        read(0)
    return caught.value


def test_cut_off_shards_are_refused_when_they_are_indexed(prepared, tmp_path):
    folder = tmp_path / "pets"
    shutil.copytree(prepared("oxford_iiit_pet"), folder)
    (path,) = folder.glob("oxford_iiit_pet/*/*train.tfrecord*")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="has 1 whole records, 2 were written"):
        open_dataset("oxford_iiit_pet", folder, "train")


def test_index_is_kept_and_checked(prepared, tmp_path, monkeypatch):
    folder = tmp_path / "pets"
    shutil.copytree(prepared("oxford_iiit_pet"), folder)
    (index,) = folder.glob("oxford_iiit_pet/*/wsol_tf_index-train.npz")
    made = []
    make = tfrecords._make_index
    monkeypatch.setattr(tfrecords, "_make_index", lambda *a: made.append(1) or make(*a))
    first = open_dataset("oxford_iiit_pet", folder, "train")
    assert not made
    index.write_bytes(index.read_bytes()[:100])
    again = open_dataset("oxford_iiit_pet", folder, "train")
    assert made and again.image_ids == first.image_ids
    assert not [name for name in os.listdir(index.parent) if name.endswith("partial")]


def test_absls_log_is_quiet_only_while_a_data_set_is_opened(prepared, monkeypatch):
    folder = prepared("oxford_iiit_pet")  # imports TensorFlow, which adds a filter of its own
    log = logging.getLogger("absl")
    before, during = list(log.filters), []
    read = public.read_index

    def watched(*arguments):
        during.extend(log.filters)
        return read(*arguments)

    monkeypatch.setattr(public, "read_index", watched)
    open_dataset("oxford_iiit_pet", folder, "train")
    (quiet,) = set(during) - set(before)
    assert log.filters == before

    def record(level, path):
        return logging.LogRecord("absl", level, path, 1, "text", (), None)

    assert not quiet(record(logging.WARNING, "/x/tensorflow_datasets/core/a.py"))
    assert quiet(record(logging.ERROR, "/x/tensorflow_datasets/core/a.py"))
    assert quiet(record(logging.WARNING, "/x/my_program.py"))


def test_labels_of_equal_pictures_share_one_array(prepared):
    source: Source = open_dataset("imagenet2012", prepared("imagenet2012"), "train")
    assert len({id(labels) for labels in source.labels}) == 2
