"""Measures how fast pictures become batches, against decoding JPEG alone, which is the limit.

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --width=320 --height=240 --quality=75
    python benchmarks/input_pipeline.py --memory_files=100000
    python benchmarks/input_pipeline.py --parts

The limit is tf.io.decode_jpeg in a parallel map over the same files. Pictures of which both sides
are twice as long as the view is cut from, or longer, are decoded to a fraction by the reader; the
limit then decodes them to the same fraction (`ratio`). All rows run in turn, so that what else the
machine does meets all of them alike; medians over the rounds are printed. Pictures are drawn (noise
with the spectrum of photos, and shapes) at 500 x 375 and JPEG quality 90; --data_dir takes a folder
of JPEG files instead. Training crops as it does by default (`min_crop`). --memory_files reads that
many files, links to these pictures, in one epoch, and prints how the memory of the process grows.
--parts prints the CPU time of the steps of one picture on one core, and of other ways to decode it:
the least of 15 repeats, picture by picture, which what else the machine does changes little.
"""

import glob
import os
import resource
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import cv2
import numpy as np
from absl import app, flags
from PIL import Image

AIM = "0.9 at 500 x 375 and 0.75 at 320 x 240"
VIEW = {"input_size": 224, "resize_size": 256, "batch_size": 32}


def draw(index, height, width):
    """Draws a picture with the 1/f amplitudes of photos, some flat shapes, and sensor noise."""
    rng = np.random.default_rng(index)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    planes = []
    for _ in range(3):
        noise = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
        plane = np.fft.irfft2(noise / frequency, (height, width))
        planes.append(plane / plane.std())
    light, *colours = planes
    image = np.stack([light, light + 0.3 * colours[0], light + 0.3 * colours[1]], -1) * 45 + 120
    for _ in range(6):
        center = tuple(map(int, rng.integers(0, [width, height])))
        axes = tuple(map(int, rng.integers(10, 90, 2)))
        shape = np.zeros((height, width), np.uint8)
        cv2.ellipse(shape, center, axes, float(rng.integers(180)), 0, 360, 1, -1)
        image[shape > 0] = 0.4 * image[shape > 0] + 0.6 * rng.integers(0, 256, 3)
    image += rng.normal(size=image.shape) * 2
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_files(folder, number, height=375, width=500, quality=90):
    """Writes drawn pictures as JPEG files into folder/train/<class>/; returns their paths."""
    paths = []
    for i in range(number):
        name = os.path.join(folder, "train", f"class_{i % 4}", f"{i:05d}.jpg")
        os.makedirs(os.path.dirname(name), exist_ok=True)
        cv2.imwrite(name, draw(i, height, width), [cv2.IMWRITE_JPEG_QUALITY, quality])
        paths.append(name)
    return paths


def link_files(folder, paths, number):
    """Makes folder/train/class/<number>.jpg links to the paths in turn."""
    os.makedirs(os.path.join(folder, "train", "class"))
    for i in range(number):
        os.link(paths[i % len(paths)], os.path.join(folder, "train", "class", f"{i:06d}.jpg"))


def fraction_of(path):
    """1, 2, 4 or 8: the part of its sides to which the reader has a picture decoded."""
    with Image.open(path) as picture:
        factor = max(min(picture.size) // VIEW["resize_size"], 1)
        picture.draft(None, tuple(side // factor for side in picture.size))
        return picture.decoderconfig[0] if picture.decoderconfig else 1


def decode_only(paths):
    """The limit: read and decode the files, to the same fraction as the reader, nothing else."""
    import tensorflow as tf

    ratios = (1, 2, 4, 8)

    def decode(path, index):
        data = tf.io.read_file(path)
        ways = [
            lambda ratio=ratio: tf.io.decode_jpeg(data, channels=3, ratio=ratio) for ratio in ratios
        ]
        return tf.shape(tf.switch_case(index, ways) if len(used) > 1 else ways[used[0]]())

    indices = [ratios.index(fraction_of(path)) for path in paths]
    used = sorted(set(indices))
    dataset = tf.data.Dataset.from_tensor_slices((paths, indices))
    dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(VIEW["batch_size"]).prefetch(tf.data.AUTOTUNE)


def seconds(dataset):
    """Wall and CPU seconds of one pass over a dataset."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in dataset:
        pass
    return time.perf_counter() - wall, time.process_time() - cpu


def stream_of(source, cache):
    """The stream of all training samples of a source."""
    from wsol_tf.config import Config
    from wsol_tf.data.cache import cached_reader
    from wsol_tf.data.stream import TrainingStream

    positions = range(len(source))
    read = cached_reader(source, positions, VIEW["resize_size"], cache)
    return TrainingStream(source, positions, read=read, min_crop=Config().min_crop, **VIEW)


def measure_speed(source, paths, repeats):
    """Runs all rows in turn; returns row -> float [repeats, 2], wall and CPU seconds a pass."""
    from wsol_tf.data.batches import evaluation_batches, training_batches
    from wsol_tf.data.transforms import View

    class Evaluation:
        def __iter__(self):
            view = View(VIEW["input_size"], VIEW["resize_size"])
            for batch in evaluation_batches(source, range(len(source)), view, VIEW["batch_size"]):
                yield np.stack([example.image for example in batch])

    def training(cache, **options):
        return training_batches(stream_of(source, cache), **options)

    rows = {
        "decode_jpeg alone (the limit)": decode_only(paths),
        "training, no cache": training("none"),
        "training, no cache, order free": training("none", deterministic=False),
        "evaluation": Evaluation(),
        "training, in memory": training("memory"),
        "training, on disk": training("disk"),
    }
    for dataset in rows.values():
        seconds(dataset)  # fills the caches, traces
    times = {name: [] for name in rows}
    order = list(rows)
    for _ in range(repeats):
        for name in order:
            times[name].append(seconds(rows[name]))
        order.reverse()
    return {name: np.array(values) for name, values in times.items()}


def speed_table(times, number):
    """Renders the measurements as lines of text."""
    limit = next(iter(times.values()))
    lines = [f"{'':34}{'images/s':>10}{'of the limit':>14}{'paired':>8}{'by CPU time':>13}"]
    for name, values in times.items():
        ratio = np.median(limit, 0) / np.median(values, 0)
        paired = np.median(limit[:, 0] / values[:, 0])
        lines.append(
            f"{name:34}{number / np.median(values[:, 0]):10.0f}{ratio[0]:14.2f}{paired:8.2f}"
            f"{ratio[1]:13.2f}"
        )
    return "\n".join([*lines, f"Aim of training without a cache: {AIM}."])


def crop_window(index, height, width):
    """A random crop in pixels of the picture, and the window that decodes to the same pixels.

    libjpeg smooths colours across the edges of blocks, so the window is larger.
    """
    rng = np.random.default_rng([0, 0, index])
    side = round(np.exp(rng.uniform(np.log(0.6 * VIEW["input_size"]), np.log(VIEW["resize_size"]))))
    top, left = rng.integers(VIEW["resize_size"] - side + 1, size=2)
    edges = [(first, first + side) for first in (top, left)]
    (top, bottom), (left, right) = (
        (round(first * length / VIEW["resize_size"]), round(last * length / VIEW["resize_size"]))
        for (first, last), length in zip(edges, (height, width), strict=True)
    )
    rows = max(top - 2, 0), min(bottom + 2, height)
    columns = max(left - 16, 0) // 16 * 16, min(-(-(right + 16) // 16) * 16, width)
    window = [rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0]]
    return (slice(top, bottom), slice(left, right)), np.array(window, np.int32)


def decoders():
    """Functions that decode many files in one graph: whole, and the windows of them alone."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def decode_all(datas, ratio):
        return [tf.io.decode_jpeg(data, channels=3, ratio=ratio) for data in tf.unstack(datas)]

    @tf.function(autograph=False)
    def crop_all(datas, windows):
        pairs = zip(tf.unstack(datas), tf.unstack(windows), strict=True)
        exact = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}
        return [tf.io.decode_and_crop_jpeg(data, window, **exact) for data, window in pairs]

    return decode_all, crop_all


def check_crops(whole, crops, parts):
    """Fails where the window of a crop was not decoded to the pixels of the whole picture."""
    for image, (crop, (top, left, *_)), part in zip(whole, crops, parts, strict=True):
        rows, columns = (
            slice(side.start - first, side.stop - first)
            for side, first in zip(crop, (top, left), strict=True)
        )
        np.testing.assert_array_equal(part.numpy()[rows, columns], image[crop])


def measure_parts(paths, repeats=15):
    """Prints the CPU milliseconds of the steps of a picture, and of other ways to decode."""
    import tensorflow as tf

    from wsol_tf import files
    from wsol_tf.data import jpeg
    from wsol_tf.data.transforms import resize_fast

    cv2.setNumThreads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    paths = paths[:32]
    datas = [files.read_bytes(path) for path in paths]
    whole = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) for data in datas]
    crops = [crop_window(i, *image.shape[:2]) for i, image in enumerate(whole)]
    shown = [image[crop] for image, (crop, _) in zip(whole, crops, strict=True)]
    windows = np.stack([window for _, window in crops])
    contents = tf.constant(datas)  # a list would be constants of the graph, decoded in advance

    decode_all, crop_all = decoders()
    check_crops(whole, crops, crop_all(contents, windows))
    decode = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    one_by_one = {
        "read the file": lambda i: files.read_bytes(paths[i]),
        "read its header": lambda i: jpeg.read_header(datas[i]),
        "decode it (OpenCV)": lambda i: cv2.imdecode(np.frombuffer(datas[i], np.uint8), decode),
        "resize what the crop shows": lambda i: resize_fast(shown[i], VIEW["input_size"]),
    }
    together = {
        "decode_jpeg": lambda: decode_all(contents, 1),
        "decode_jpeg, 1 / 2": lambda: decode_all(contents, 2),
        "decode_and_crop_jpeg, exact": lambda: crop_all(contents, windows),
    }
    least = {name: np.full(len(paths), np.inf) for name in one_by_one} | dict.fromkeys(
        together, np.inf
    )
    for _ in range(repeats):
        for name, step in one_by_one.items():
            for i in range(len(paths)):
                started = time.process_time()
                step(i)
                least[name][i] = min(least[name][i], time.process_time() - started)
        for name, step in together.items():
            started = time.process_time()
            step()
            least[name] = min(least[name], (time.process_time() - started) / len(paths))
    for name, values in least.items():
        print(f"{name:32}{1000 * np.mean(values):8.3f} ms")


def memory_now():
    """Resident memory of this process in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def measure_memory(source, every=10):
    """Reads a whole epoch without a cache; prints resident memory at each tenth of it."""
    from wsol_tf.data.batches import training_batches

    batches = training_batches(stream_of(source, "none"))
    total, started = int(batches.cardinality()), time.perf_counter()
    print(f"{len(source)} files, {total} batches; before the first: {memory_now():.0f} MiB")
    for i, _ in enumerate(batches, start=1):
        if i * every // total > (i - 1) * every // total:
            rate = i * VIEW["batch_size"] / (time.perf_counter() - started)
            print(f"{i / total:4.0%} {memory_now():6.0f} MiB {rate:6.0f} images/s", flush=True)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument '{argv[1]}': settings are given as --name=value.")
    values = flags.FLAGS
    # Before TensorFlow counts the cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: values.cores])
    from wsol_tf.data.registry import open_dataset

    with tempfile.TemporaryDirectory() as folder:
        if values.data_dir:
            paths = sorted(glob.glob(os.path.join(values.data_dir, "*.jp*g")))[: values.num_images]
            link_files(folder, paths, len(paths))
        else:
            sides = values.height, values.width
            paths = draw_files(folder, values.num_images, *sides, values.quality)
        size = np.mean([os.path.getsize(path) for path in paths]) / 1000
        print(
            f"{len(paths)} JPEG files of {size:.0f} kB on average, decoded to 1 / "
            f"{sorted({fraction_of(path) for path in paths})} of their sides, {values.cores} CPU "
            f"cores, view {VIEW['resize_size']} -> {VIEW['input_size']}, batch {VIEW['batch_size']}"
        )
        if values.parts:
            measure_parts(paths)
        elif values.memory_files:
            linked = os.path.join(folder, "linked")
            link_files(linked, paths, values.memory_files)
            measure_memory(open_dataset("image_folder", linked, "train", image_size=256))
        else:
            source = open_dataset("image_folder", folder, "train", image_size=256)
            times = measure_speed(source, paths, values.repeats)
            print(speed_table(times, len(paths)))


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    flags.DEFINE_string("data_dir", None, "Folder of JPEG files to read instead of drawn ones.")
    flags.DEFINE_integer("width", 500, "Width of the drawn pictures.", lower_bound=64)
    flags.DEFINE_integer("height", 375, "Their height.", lower_bound=64)
    flags.DEFINE_integer("quality", 90, "Their JPEG quality.", lower_bound=1, upper_bound=100)
    flags.DEFINE_integer("num_images", 512, "Pictures that a round reads.", lower_bound=32)
    flags.DEFINE_integer("repeats", 9, "Rounds.", lower_bound=1)
    flags.DEFINE_integer("cores", 2, "CPU cores that the process may use.", lower_bound=1)
    flags.DEFINE_bool("parts", False, "Measure the steps of a picture instead.")
    flags.DEFINE_integer("memory_files", 0, "Measure memory over so many files instead.")
    app.run(main)
