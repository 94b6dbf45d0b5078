"""Trains with all seven losses beside BAS's own code in PyTorch: pictures a second, and memory.

    pip install 'wsol_tf[bas]'
    git clone https://github.com/wpy1999/BAS
    python benchmarks/bas_step.py --bas=BAS/CUB --batch_size=8

MobileNetV1 at width 1.0 and 224 pixels, 200 classes, a map for each, random pictures, random
weights. BAS's step is that of its train.py: its model, losses and optimizer, on the CPU. Each of
the two has a process of its own; they take their steps in turn, and medians are printed.
"""

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import types

import machine

CLASSES, PICTURE = 200, 224
STEPS = 2  # that are timed together


def bas_step(folder, batch_size):
    """Returns a function that takes a step as BAS's train.py does, on the CPU."""
    import torch

    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *args: self
    for name in ("skimage", "skimage.measure", "torchvision", "torchvision.models"):
        sys.modules.setdefault(name, types.ModuleType(name))  # for what the step does not do
    sys.modules["skimage"].measure = sys.modules["skimage.measure"]
    sys.modules["torchvision"].models = sys.modules["torchvision.models"]
    sys.path.insert(0, folder)
    options = argparse.Namespace(lr=0.001, momentum=0.9, weight_decay=5e-4)
    model = importlib.import_module("Model.mobilenet").Model(options)
    model.train()
    optimizer = importlib.import_module("utils.optimizer").get_optimizer(model, options)
    entropy = torch.nn.CrossEntropyLoss()
    images = torch.randn(batch_size, 3, PICTURE, PICTURE)
    labels = torch.randint(0, CLASSES, (batch_size,))

    def step():
        optimizer.zero_grad()
        first, second = model(images, labels, 1)
        loss = entropy(first, labels) + 0.5 * entropy(second, labels) + model.bas_loss()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def own_step(options):
    """Returns a function that takes a step as `wsol_tf.train` does once all losses have set in."""
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    import train_step
    from wsol_tf.config import Config

    config = Config.recipe(
        "default", width=1.0, input_size=PICTURE, extractor_weights="none",
        batch_size=options.batch_size, gradient_accumulation=options.gradient_accumulation,
        mixed_precision=options.mixed_precision,
    )  # fmt: skip
    steps, _ = train_step.make_variant(config, CLASSES)
    return lambda: train_step.run(steps)


def work(step):
    """Takes steps whenever a line comes in; prints seconds, CPU seconds and the peak of memory."""
    for _ in range(3):
        step()
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(STEPS):
            step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps([*seconds, peak]), flush=True)


def compare(options):
    """Has both take their steps in turn, and prints how they compare."""
    command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:]]
    workers = [
        subprocess.Popen(
            [*command, f"--worker={name}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )
        for name in ("bas", "own")
    ]  # fmt: skip
    others, taken = machine.Others(), ([], [])
    for repeat in range(options.repeats + 1):
        for worker, of_worker in zip(workers, taken, strict=True):
            print(file=worker.stdin, flush=True)
            line = worker.stdout.readline()
            if not line:
                sys.exit(f"'{' '.join(worker.args)}' ended; run it by itself to see why.")
            if repeat:  # at first it may still be starting
                of_worker.append(json.loads(line))
    for worker in workers:
        worker.stdin.close()
    bas, own = taken
    print(machine.processor())
    for name, rows in (("BAS in PyTorch", bas), ("wsol_tf, seven losses", own)):
        speed = STEPS * options.batch_size / statistics.median(wall for wall, _, _ in rows)
        print(f"{name}: {speed:.2f} images/s, peak of memory {rows[-1][2]:.0f} MiB")
    for at, of in enumerate(("images/s", "images per CPU second")):
        ratios = [a[at] / b[at] for a, b in zip(bas, own, strict=True)]
        middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
        print(f"{of}, wsol_tf / BAS: {middle:.2f} ({low:.2f} to {high:.2f})")
    print(others.line(), "The two themselves count among them.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bas", required=True, help="Folder CUB of BAS's repository.")
    parser.add_argument("--batch_size", type=int, default=8, help="Pictures per step.")
    parser.add_argument("--gradient_accumulation", type=int, default=1, help="Of wsol_tf.")
    parser.add_argument("--mixed_precision", default="float32", help="Of wsol_tf.")
    parser.add_argument("--repeats", type=int, default=9, help=f"Times {STEPS} steps of each.")
    parser.add_argument("--worker", choices=("bas", "own"), help="Used by this program itself.")
    options = parser.parse_args()
    if options.worker == "bas":
        work(bas_step(options.bas, options.batch_size))
    elif options.worker == "own":
        work(own_step(options))
    else:
        compare(options)
