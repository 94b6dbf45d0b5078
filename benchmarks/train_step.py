"""Measures the training step: seven losses against classification alone, and what each part costs.

    python benchmarks/train_step.py --width=0.25 --batch_size=16

    python benchmarks/train_step.py --variants --memory=false

compares the same step in bfloat16 and float16, compiled by XLA, several at once, in parts, with a
moving average and with clipping instead.

Random pictures, random weights. The steps are built up part by part and run in turn, so that what
else the machine does meets all of them alike; medians are printed, and how busy others kept the
machine: beside them the ratio is another. The full step is the one that training runs: before the
losses set in, when the erased pass is left out, and with all of them; a run has both. Every setting
of a run is a flag (--localizer, --recipe, --dilation, ...). Peak memory is that of a process that
only takes this kind of step.
"""

import dataclasses
import functools
import gc
import json
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as programs have it
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from keras import ops

import machine
from wsol_tf import programs
from wsol_tf.model import losses
from wsol_tf.model.build import build_model
from wsol_tf.model.objective import LOSS_TERMS
from wsol_tf.model.refinement import refine_batch
from wsol_tf.training import loop

STEPS = 1000  # of the run that the steps are taken from
CLASSIFICATION, BEFORE, FULL = "classification", "before", "full"
PARTS = {  # step -> what it adds to the one before
    "extractor": "forward pass of the feature extractor",
    "forward": "forward pass of the classifier, cls",
    "gradients": "backward pass",
    CLASSIFICATION: "optimizer: the classification-only step",
    "localizer": "localizer, cls_fg and ac",
    "erasing": "ae, ae_fg and pseudo",
    FULL: "bas (erased pass): training with all losses",
}
VARIANTS = {  # what is changed of the plain step
    "plain, float32": {},
    "mixed_bfloat16": {"mixed_precision": "mixed_bfloat16"},
    "mixed_float16, loss scaling": {"mixed_precision": "mixed_float16"},
    "jit_compile=on": {"jit_compile": "on"},
    "steps_per_execution=4": {"steps_per_execution": 4},
    "gradient_accumulation=2": {"gradient_accumulation": 2},
    "ema=0.999": {"ema": 0.999},
    "clip_norm=1": {"clip_norm": 1.0},
}


def make_model(config, num_classes, eager):
    """Builds and compiles the model of a run of STEPS steps."""
    keras.utils.set_random_seed(config.seed)
    classes = [f"class {i}" for i in range(num_classes)]
    model = build_model(config, classes, steps_per_epoch=STEPS / config.epochs)
    model.optimizer.build(model.trainable_variables)
    model.run_eagerly = eager
    return model


def make_training_steps(model, batch):
    """The step that training runs, on this batch: BEFORE its losses set in, and the FULL one."""
    steps = loop.make_steps(model, tf.distribute.get_strategy())
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())

    def taken_at(iterations):
        def step():
            model.optimizer.iterations.assign(iterations)
            return steps(iterator, 1)

        return step

    return {BEFORE: taken_at(0), FULL: taken_at(STEPS)}


def make_step(model, part):
    """Returns a function of (images, labels) that does the work up to a part before FULL."""
    settings, weights = model.objective.settings, model.objective.weights
    parts = [model.feature_extractor, model.classifier]
    if part in ("localizer", "erasing"):
        parts.append(model.localizer)
    variables = [variable for each in parts for variable in each.trainable_variables]
    optimizer = model.optimizer.from_config(model.optimizer.get_config())
    optimizer.build(variables)
    names = ["loss", "cls", "top1_cls"]
    if part in ("localizer", "erasing"):
        names += ["cls_fg", "ac"]
    if part == "erasing":
        names += ["ae", "ae_fg", "pseudo"]
    trackers = [tracker for tracker in model.metrics if tracker.name in names]

    def terms_of(images, labels):
        features = model.feature_extractor(images, training=True)
        score_map = model.classifier(features, training=True)
        offered = settings | {"score_map": score_map, "labels": labels, "allowed": None}
        if "ac" in names:
            mask = losses.of_class(model.localizer(features, training=True), labels)
            offered["mask"] = mask
        if "pseudo" in names:
            is_guided = settings["pseudo_target"] == "guided"
            refined = refine_batch(ops.stop_gradient(mask), images) if is_guided else None
            offered["refined_mask"] = refined
        terms = {term.name: term.of(offered) for term in LOSS_TERMS if term.name in names}
        return terms, ops.mean(score_map, axis=(1, 2))

    def extractor_step(images, labels):
        return ops.mean(model.feature_extractor(images, training=True))

    def forward_step(images, labels):
        return terms_of(images, labels)[0]

    def gradients_step(images, labels):
        with tf.GradientTape() as tape:
            terms, _ = terms_of(images, labels)
            total = ops.mean(terms["cls"])
        return tape.gradient(total, variables)

    def training_step(images, labels):
        with tf.GradientTape() as tape:
            terms, logits = terms_of(images, labels)
            total = sum(weights[name] * ops.mean(value) for name, value in terms.items())
        optimizer.apply(tape.gradient(total, variables), variables)
        for tracker in trackers:
            if tracker.name == "top1_cls":
                tracker.update_state(ops.equal(ops.argmax(logits, axis=-1), labels))
            else:
                tracker.update_state(terms.get(tracker.name, total))
        return {tracker.name: tracker.result() for tracker in trackers}

    others = {"extractor": extractor_step, "forward": forward_step, "gradients": gradients_step}
    return others.get(part, training_step)


def make_batch(config, num_classes):
    """A batch of random pictures and labels."""
    rng = np.random.default_rng(config.seed)
    shape = (config.batch_size, config.input_size, config.input_size, 3)
    images = rng.integers(0, 256, shape, np.uint8)
    return tf.constant(images), tf.constant(rng.integers(0, num_classes, len(images), np.int32))


def make_steps(model, batch, names, eager):
    """Name -> function that takes a step on this batch as a run would."""
    made = make_training_steps(model, batch)
    for part in set(names) - made.keys():
        step = make_step(model, part)
        step = step if eager else tf.function(step, jit_compile=model.jit_compile)
        made[part] = functools.partial(step, *batch)
    return {name: made[name] for name in names}


def run(step):
    """Runs a step to its end; returns (wall seconds, CPU seconds of all threads)."""
    wall, cpu = time.perf_counter(), time.process_time()
    for tensor in tf.nest.flatten(step()):
        if tensor is not None:
            np.asarray(tensor).ravel()[:1]  # waits for an accelerator
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_memory(config, num_classes, eager, part, steps=3):
    """Takes a few steps of one kind; returns peak memory of this process, before and after."""
    if part == FULL and not eager:
        step, _ = make_variant(config, num_classes)
    else:
        model = make_model(config, num_classes, eager)
        step = make_steps(model, make_batch(config, num_classes), [part], eager)[part]
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(steps):
        run(step)
    return {"built": before, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def memory_in_child(part):
    """`measure_memory` in a new process; kibibytes."""
    command = [sys.executable, __file__, *sys.argv[1:], f"--memory_of={part}"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def measure_time(config, num_classes, eager, repeats, names):
    """Runs steps in turn; returns name -> float [repeats, 2] of wall and CPU seconds."""
    model = make_model(config, num_classes, eager)
    steps = make_steps(model, make_batch(config, num_classes), names, eager)
    return run_in_turn(steps, repeats)


def run_in_turn(steps, repeats):
    """Runs functions in turn; returns name -> float [repeats, 2] of wall and CPU seconds."""
    for step in steps.values():  # traces, and the first runs that allocate
        run(step)
        run(step)
    times = {name: [] for name in steps}
    order = list(steps)
    for _ in range(repeats):
        for name in order:
            times[name].append(run(steps[name]))
        order.reverse()  # no step always follows the same one
    return {name: np.array(rows) for name, rows in times.items()}


def make_variant(config, num_classes):
    """Returns a function that takes steps as a run would, and how many it takes."""
    model = make_model(config, num_classes, eager=False)
    count, parts = config.steps_per_execution, config.gradient_accumulation
    steps = loop.make_steps(
        model, tf.distribute.get_strategy(), steps_per_execution=count, parts=parts
    )
    batch = make_batch(
        dataclasses.replace(config, batch_size=config.batch_size // parts), num_classes
    )
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    model.optimizer.iterations.assign(STEPS)  # all losses are on
    return lambda: steps(iterator, count), count


def compare_variants(config, num_classes, repeats, names):
    """Takes steps of all variants in turn; returns variant -> seconds per step, [repeats, 2]."""
    made = {
        name: make_variant(dataclasses.replace(config, **VARIANTS[name]), num_classes)
        for name in names
    }
    times = run_in_turn({name: steps for name, (steps, _) in made.items()}, repeats)
    return {name: rows / made[name][1] for name, rows in times.items()}


def report_variants(times, batch_size):
    """Renders the comparison as lines of text."""
    plain = next(iter(times.values()))
    lines = [f"{'step':30}{'ms':>9}{'images/s':>10}{'time / plain':>14}{'CPU / plain':>13}"]
    for name, rows in times.items():
        median = np.median(rows[:, 0])
        wall, cpu = np.median(rows / plain, axis=0)
        lines.append(
            f"{name:30}{median * 1000:9.1f}{batch_size / median:10.1f}{wall:14.2f}{cpu:13.2f}"
        )
    return "\n".join(lines)


def parts_table(medians):
    """Renders what each part adds as lines of text."""
    full = medians[FULL]
    lines = [f"{'step, with all parts up to':46}{'ms':>8}{'CPU ms':>8}{'added':>8}{'share':>7}"]
    before = np.zeros(2)
    for part, text in PARTS.items():
        wall, cpu = medians[part] * 1000
        added = medians[part] - before
        lines.append(
            f"{text:46}{wall:8.1f}{cpu:8.1f}{added[0] * 1000:8.1f}{added[0] / full[0]:7.0%}"
        )
        before = medians[part]
    return lines


def report(times, memory, batch_size, start):
    """Renders the measurements as lines of text; `start`: share of the run before the losses."""
    medians = {part: np.median(rows, axis=0) for part, rows in times.items()}
    lines = parts_table(medians) if PARTS.keys() <= times.keys() else []
    for part, wall in ((name, times[name][:, 0]) for name in (CLASSIFICATION, BEFORE, FULL)):
        low, high = np.quantile(batch_size / wall, [0.25, 0.75])
        lines.append(
            f"{part}: {batch_size / np.median(wall):.1f} images/s (quartiles {low:.1f}, {high:.1f})"
        )
        if part in memory:
            peak, built = memory[part]["peak"] / 1024, memory[part]["built"] / 1024
            lines.append(f"  peak memory {peak:.0f} MiB, of which {peak - built:.0f} by the steps")
    times = times | {"run": start * times[BEFORE] + (1 - start) * times[FULL]}
    texts = {
        BEFORE: f"before the losses set in, for {start:.0%} of the steps",
        FULL: "with all losses",
        "run": "averaged over a run",
    }
    for name, text in texts.items():
        wall, cpu = np.median(times[name] / times[CLASSIFICATION], axis=0)
        lines.append(f"training / classification, {text}: time {wall:.2f}, CPU {cpu:.2f}")
    return "\n".join([*lines, "Ratios are medians of those of the repeats."])


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument '{argv[1]}': settings are given as --name=value.")
    values = flags.FLAGS
    config = dataclasses.replace(
        programs.from_flags(values),
        learning_rate=1e-6,  # the numbers stay ordinary ones
    )
    eager = values.mode == "eager"
    if values.memory_of:
        print(json.dumps(measure_memory(config, values.num_classes, eager, values.memory_of)))
        return
    # Before this process grows: a new process starts with the peak of the one that made it.
    memory = {}
    if values.memory and not values.variants:
        memory = {part: memory_in_child(part) for part in (CLASSIFICATION, FULL)}
    print(
        f"{config.extractor}, width {config.width}, {config.input_size} pixels, head width "
        f"{config.head_width}, {values.num_classes} classes, localizer {config.localizer}, "
        f"batch {config.batch_size}, {config.mixed_precision}, {values.mode} mode, "
        f"{values.repeats} repeats; "
        f"{machine.processor()}; {len(tf.config.list_physical_devices('GPU'))} GPUs"
    )
    others = machine.Others()
    if values.variants:
        names = [name for name in VARIANTS if name.split(",")[0] not in values.without]
        times = compare_variants(config, values.num_classes, values.repeats, names)
        print(report_variants(times, config.batch_size), others.line(), sep="\n")
        return
    names = [CLASSIFICATION] if values.ratio else list(PARTS)[:-1]
    times = measure_time(config, values.num_classes, eager, values.repeats, [*names, BEFORE, FULL])
    print(
        report(times, memory, config.batch_size, config.localization_start), others.line(), sep="\n"
    )


if __name__ == "__main__":
    programs.define_flags(extractor_weights="none", width=0.25, batch_size=16)
    flags.DEFINE_integer("num_classes", 20, "Classes.", lower_bound=1)
    flags.DEFINE_integer("repeats", 15, "Steps of each kind that are timed.", lower_bound=1)
    flags.DEFINE_bool("variants", False, "Compare precisions and ways to run the step instead.")
    flags.DEFINE_list("without", [], "Variants that are left out, by the part before a comma.")
    flags.DEFINE_bool("ratio", False, "Leave out the parts: classification and training alone.")
    flags.DEFINE_enum("mode", "graph", ["graph", "eager"], "How the steps run.")
    flags.DEFINE_bool("memory", True, "Measure the peak memory, in two more processes.")
    flags.DEFINE_enum("memory_of", None, [CLASSIFICATION, FULL], "Used by this program itself.")
    app.run(main)
