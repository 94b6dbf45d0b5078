r"""Trains many settings, seeds and folds at the same time on one GPU: a study in minutes.

    pip install 'jax[cuda12]' keras numpy opencv-python-headless pillow absl-py
    python benchmarks/many_trainings.py --study=NAME.study --flagfile=configs/folder.flags \
        --data_dir=birds --data_dir=beetles --min_steps=480 --output_dir=OUT
    python benchmarks/results.py --add=OUT/birds.npz --facts=OUT/birds.json --name=NAME

The program that users run is `wsol_tf.train`, on TensorFlow, and `wsol_tf.study` for several
settings. A small network leaves a large GPU idle: here the project's network and loss terms, which
are written in `keras.ops`, run under Keras's JAX backend, and `--together` trainings of the same
number of steps are one function under `jax.vmap`. It needs neither TensorFlow nor the rest of
requirements.txt. Maps are scored by the project's own evaluation, in `--processes` processes, while
the next trainings run. Data sets (folders in VOC layout, each `--data_dir`) come one after the
other. What is finished when it ends, by itself, by `--minutes` or by Ctrl-C, is written.

The .study file is that of `wsol_tf.study` (docs/study.md), with its own flagfile, `folds` (at least
2) and rows; of a grid only `grid=seed=0,1,2` is read. Settings that can't be trained here are
refused. Rows may have these besides, experiments that `wsol_tf.train` does not know:

    color_jitter=0.3               contrast, brightness, saturation and, a third of it, each colour
    batch_area=1.5                 weight of |mean area of a batch's masks - 0.25|
    binary=0.5                     weight of the mean of m (1 - m), of the blurred mask
    erased_turns=half, alternate   `bas` counts twice for half of each batch, or every second step

What differs from `wsol_tf.train`:

- Crops and mirroring are drawn by JAX, and cut from pictures of 8/7 of the input's side instead of
  the files. The order of the pictures, the tenth that is held out, the folds and the steps at which
  anything sets in are the project's; random weights are drawn by Keras with another backend.
- All trainings have as many steps as the longest: a few more than some would have.
- Products of matrices are as exact as JAX makes them (on recent GPUs TF32, 10 bits).
- The threshold is chosen from 150 training pictures instead of up to 1,000, and the offset of the
  maps is measured on 64 as it is there.
- There are no checkpoints, no validation and no model to keep: figures alone.

OUT/NAME.npz has the arrays of `benchmarks/results.py --add`, OUT/NAME.json the facts. The mean of
each term over the last tenth of the steps, thresholds and figures are printed.
"""

import dataclasses
import functools
import math
import os
import shlex
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np
from absl import flags

from jax_trainings import backend, plan, scoring  # noqa: F401 - backend comes first
from jax_trainings.study import Study
from wsol_tf import files, programs
from wsol_tf.config import Config
from wsol_tf.data.transforms import View
from wsol_tf.evaluation import workers
from wsol_tf.studies.grid import base_arguments, read_study

THRESHOLD_IMAGES, ALIGN_IMAGES = 150, 64
SETTINGS = tuple(field.name for field in dataclasses.fields(Config) if field.name != "data_dir")


def define_flags():
    """Defines the settings of train, and what this program adds."""
    programs.define_flags(SETTINGS)
    flags.DEFINE_multi_string("data_dir", [], "Folder in VOC layout; several: a study of each.")
    programs.define_path("study", None, "A .study file, see above.", required=True)
    flags.DEFINE_integer("folds", None, "Parts that the pictures are cut into.", lower_bound=2)
    flags.DEFINE_integer("together", 30, "Trainings at the same time.", lower_bound=1)
    flags.DEFINE_integer("processes", os.cpu_count() or 1, "Processes that score; 0: none.", 0)
    flags.DEFINE_float("minutes", 0, "Begin nothing that would end later; 0: no limit.", 0)


def definition_of(values):
    """Reads the study: (its definition, the arguments that all trainings have)."""
    definition = read_study(values.study, plan.EXPERIMENTS)
    definition = dataclasses.replace(definition, folds=values.folds or definition.folds)
    if definition.folds < 2:
        raise ValueError("`folds` must be at least 2: other pictures than those are not scored.")
    base = base_arguments(values.study, definition)
    base += [values[name].serialize() for name in SETTINGS if values[name].present]
    return definition, base


def trained(study, trainer, values, ends):
    """Trains group by group; yields the `scoring.Maps` of each training.

    Args:
        study: the Study.
        trainer: the Trainer of its pictures.
        values: the parsed flags.
        ends: time from which on nothing is begun, or would not be finished; inf: never.
    """
    config, total, seconds = study.config, len(study.trainings), 0.0
    size = min(values.together, total)
    for first in range(0, total, size):
        if time.monotonic() + seconds > ends:
            programs.say(f"No time for the last {total - first} trainings.")
            return
        started = time.monotonic()
        # A last, smaller group is filled up: another size would be compiled anew.
        numbers = [min(first + i, total - 1) for i in range(size)]
        group = [study.trainings[number] for number in numbers]
        kept, last = trainer.train(group, study.steps)
        known = [chosen(study, training, THRESHOLD_IMAGES) for training in group]
        seen = [np.concatenate([own, t.scored]) for own, t in zip(known, group, strict=True)]
        outputs = trainer.predict(kept, seen)
        group = group[: total - first]
        offsets = [(0.0, 0.0) for _ in group]
        if config.align:
            of = [chosen(study, training, ALIGN_IMAGES) for training in group]
            offsets = [trainer.offset(kept, i, own) for i, own in enumerate(of)]
        seconds = time.monotonic() - started
        programs.say(
            f"{study.name}: trainings {first + 1} to {first + len(group)} of {total} took "
            f"{seconds:.1f} s, {size * study.steps * config.batch_size / seconds:.0f} pictures a "
            "second."
        )
        for i, training in enumerate(group):
            study.minutes[numbers[i]] = seconds / 60 / len(group)
            study.last[numbers[i]] |= {name: float(value[i]) for name, value in last.items()}
            yield scoring.Maps(
                number=numbers[i],
                known=known[i],
                scored=training.scored,
                outputs=outputs[i],
                offset=offsets[i],
                kinds=scoring.kinds_of(config),
                top_k=config.top_k,
                refine=config.refine,
                view=View(config.input_size, config.crop_from),
            )


def chosen(study, training, count):
    """Chooses pictures that a training knows, each class with its share, as `train` does."""
    from wsol_tf.training.thresholds import spread

    return training.known[spread([study.source.labels[i] for i in training.known], count)]


def run_study(study, values, facts, map_chunks, ends):
    """Trains and scores one data set, and writes what is finished."""
    from jax_trainings.training import Trainer

    present = np.zeros((len(study.source), len(study.source.classes)), bool)
    for i, label in study.pairs:
        present[i, label] = True
    examples = study.read()
    pictures = np.stack([example.image for example in examples])
    guided = any(t.config.pseudo_target == "guided" for t in study.trainings)
    trainer = Trainer(study.config, pictures, present, guided)
    programs.say(
        f"{study.source.name}: {files.counted(len(examples), 'picture')}; {trainer.loaded}; "
        f"{files.counted(len(study.trainings), 'training')} of {study.steps} steps."
    )
    with tempfile.TemporaryDirectory() as folder:
        scoring.store_pictures(folder, study.source, examples)
        score = functools.partial(scoring.score, folder=folder)
        try:
            found = map_chunks(score, trained(study, trainer, values, ends))
            for count, (number, lines, thresholds) in enumerate(found, 1):
                study.add(number, lines, thresholds)
                if None in thresholds.values():
                    programs.say(f"{study.name_of(number)} has no finite map: all are misses.")
                if count % values.together == 0:
                    study.write(values.output_dir, facts)
        except RuntimeError as error:  # what XLA raises, without a kind of its own
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise ValueError(
                f"{values.together} trainings do not fit into the memory of the device. Lower "
                "`together`."
            ) from error
        finally:
            if len(study.rows_begun()):
                study.write(values.output_dir, facts)
                programs.say(study.table())


def command_of(values):
    """The command that repeats a run, a flag on each line."""
    given = [values[name].serialize().split("\n") for name in values if values[name].present]
    given = [shlex.quote(argument) for arguments in given for argument in arguments]
    return " \\\n    ".join(["python benchmarks/many_trainings.py", *given])


def run(values):
    """Runs the study on each data set."""
    definition, base = definition_of(values)
    studies = [Study(files.expanded(path), base, definition) for path in values.data_dir]
    names = [study.name for study in studies]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`data_dir` must name folders of different names. Received: {names}.")
    programs.make_output_dir(values.output_dir)
    ends = time.monotonic() + 60 * (values.minutes or math.inf)
    import jax

    facts = {
        "command": command_of(values),
        "machine": f"one {jax.devices()[0].device_kind}",
    }
    with workers.mapper(values.processes) as map_chunks:
        for study in studies:
            notes = [
                f"{study.steps} steps of {study.config.batch_size} pictures; {values.together} "
                "trainings ran at the same time, each row has its share of the minutes. "
                "benchmarks/many_trainings.py says what differs from wsol_tf.train."
            ]
            run_study(study, values, facts | {"notes": notes}, map_chunks, ends)


if __name__ == "__main__":
    programs.main(define_flags, run)
