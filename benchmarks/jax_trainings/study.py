"""A study of one data set: its pictures, its trainings, and what they reached."""

import io
import os

import numpy as np

from jax_trainings import backend, plan, scoring  # noqa: F401 - backend comes first
from wsol_tf import files
from wsol_tf.data.registry import open_dataset
from wsol_tf.data.transforms import resize
from wsol_tf.evaluation.localized_map import LOCALIZED
from wsol_tf.evaluation.scored_pair import CENTERED_AREAS
from wsol_tf.model.score_maps import PLAIN


class Study:
    """One data set in VOC layout, and what is trained on it.

    Args:
        path: the folder.
        base: arguments that all trainings have.
        definition: a `wsol_tf.studies.grid.StudyFile`.

    Attributes:
        name: the folder's.
        source: all its pictures.
        config: what all trainings share.
        rows, seeds: what is varied.
        trainings: all of them, see `plan.trainings_of`.
        steps: of each.
        minutes: of each its share of the time that it was trained in; NaN: not finished.
        last: of each name -> number, for the table.
        arrays: those of single pictures that `benchmarks/results.py` reads.

    Raises:
        ValueError: the data or the rows can't be used.
    """

    def __init__(self, path, base, definition):
        self.name = os.path.basename(os.path.abspath(path))
        self.definition = definition
        self.rows, self.seeds = plan.rows_of(base, definition)
        self.config = plan.settings_of(base, self.rows[0])[0]
        self.source = open_dataset(
            "voc_folder",
            path,
            "+".join(filter(None, (self.config.split, self.config.val_split))),
            image_size=self.config.crop_from,
            single_class=self.config.single_class,
            on_bad_image="fail",
        )
        labels = self.source.labels
        if not self.source.has_boxes:
            raise ValueError(f"{self.source.name} has no boxes: nothing could be scored.")
        self.trainings = plan.trainings_of(base, self.rows, self.seeds, labels, definition.folds)
        self.steps = plan.steps_of(self.trainings)
        self.minutes = np.full(len(self.trainings), np.nan)
        self.last = [{} for _ in self.trainings]
        self.pairs = [(i, int(label)) for i, own in enumerate(labels) for label in own]
        self.arrays = {}

    def read(self):
        """Reads all pictures, resized as the project does for scoring: a list of Examples."""
        side = self.config.crop_from
        return list(self.source.read_examples(transform=lambda example: resize(example, side)))

    def name_of(self, number):
        """What people call a training."""
        training = self.trainings[number]
        seed = self.seeds[training.seed]
        return f"Row '{self.rows[training.row].label}', seed {seed}, fold {training.fold + 1}"

    def add(self, number, lines, thresholds):
        """Takes what `scoring.score` says of a training."""
        training, source = self.trainings[number], self.source
        kind = scoring.kinds_of(training.config)[0]
        if thresholds[kind] is not None:
            self.last[number]["threshold"] = thresholds[kind]
        keys = [(source.image_ids[i], source.classes[label]) for i, label in self.pairs]
        columns = {key: column for column, key in enumerate(keys)}
        place = training.row, training.seed
        for line in lines:
            column = columns[line["image_id"], line["class"]]
            self._put("iou", (*place, column), line["iou"][kind])
            self._put("mask_iou", (*place, column), line["mask_iou"][kind])
            self._put("plain_iou", (*place, column), line["iou"].get(PLAIN))
            self._put("plain_mask_iou", (*place, column), line["mask_iou"].get(PLAIN))
            self._put("cam_iou", (*place, column), line["iou"]["cam"])
            self._put("top1_cls", (*place, column), float(line["class_rank"] == 0))
            self._put("centered_ious", column, line["centered_ious"])

    def _put(self, name, place, value):
        if value is None:
            return
        shape = (len(self.rows), len(self.seeds), len(self.pairs))
        if name == "centered_ious":
            shape = (len(self.pairs), len(CENTERED_AREAS))
        self.arrays.setdefault(name, np.full(shape, np.nan))[place] = value

    def rows_begun(self):
        """The numbers of the rows of which some training is finished and scored."""
        scored = ~np.isnan(self.arrays.get("iou", np.full((len(self.rows), 1, 1), np.nan)))
        return np.flatnonzero(scored.any((1, 2)))

    def of_row(self, row, values):
        """The mean of a list with a number for each training over the finished ones of a row."""
        done = [
            value
            for training, value, minutes in zip(self.trainings, values, self.minutes, strict=True)
            if training.row == row and not np.isnan(minutes)
        ]
        return float(np.mean(done))

    def table(self):
        """A line for each row: its figures over all pictures, and what the networks were like."""
        lines = [f"{'':32}GT-known  box mIoU  not refined    CAM  Top-1 Cls  threshold   area"]
        for row in self.rows_begun():
            figures = [
                self._mean("iou", row, LOCALIZED),
                self._mean("iou", row),
                self._mean("plain_iou", row, LOCALIZED),
                self._mean("cam_iou", row, LOCALIZED),
                self._mean("top1_cls", row),
                self.of_row(row, [last.get("threshold", np.nan) for last in self.last]),
                self.of_row(row, [last.get("ac", np.nan) for last in self.last]),
            ]
            widths = (8, 10, 13, 7, 11, 11, 7)
            text = "".join(f"{x:{width}.3f}" for x, width in zip(figures, widths, strict=True))
            lines.append(f"{self.rows[row].label:32}{text}")
        return "\n".join(lines)

    def _mean(self, name, row, least=None):
        values = self.arrays.get(name, np.full((len(self.rows), 1, 1), np.nan))[row]
        values = values[~np.isnan(values)]
        if not len(values):
            return np.nan
        return float(np.mean(values if least is None else values >= least))

    def write(self, folder, facts):
        """Writes NAME.npz and NAME.json with the rows of which some training is scored.

        Args:
            folder: where to.
            facts: those that this study does not know: command, machine and notes.
        """
        rows = self.rows_begun()
        of_rows = {n: array[rows] for n, array in self.arrays.items() if n != "centered_ious"}
        arrays = self.arrays | of_rows
        arrays |= {
            "rows": np.array([self.rows[row].label for row in rows]),
            "seeds": np.array(self.seeds),
            "images": np.array([i for i, _ in self.pairs]),
            "minutes": np.array([self.of_row(row, self.minutes) for row in rows]),
        }
        data = io.BytesIO()
        np.savez_compressed(data, **arrays)
        files.write(os.path.join(folder, f"{self.name}.npz"), data.getvalue())
        facts = {
            "title": self.definition.title or self.name,
            "question": self.definition.question,
            "data": self.name,
            "width": self.config.width,
            "folds": self.definition.folds,
            "program": "the network and losses of wsol_tf under Keras's JAX backend",
            "settings": [dict(self.rows[row].settings) for row in rows],
            **facts,
        }
        files.write_json(os.path.join(folder, f"{self.name}.json"), facts)
