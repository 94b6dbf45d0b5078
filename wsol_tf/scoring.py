"""Scores anything that gives score maps on a data set, and reports it beside its baselines."""

import dataclasses
import functools
import itertools
import os
import sys
from collections.abc import Callable

import keras
import numpy as np
from PIL import Image

from wsol_tf import definitions, pictures, pipeline
from wsol_tf.metrics import OUTCOMES, THRESHOLDS, LocalizationMetrics, outcomes
from wsol_tf.score_maps import box_iou, localize, map_of
from wsol_tf.standard_metrics import BoxAccuracy, PixelPrecision, problem_of, standard_map

# Metrics of wsolevaluation that can be asked for; see `standard_metrics`.
METRICS = ("max_box_acc", "max_box_acc_v2", "pxap", "piou")
CHUNK = 16  # Pairs that are scored together; small, so that processes end at about the same time.


@dataclasses.dataclass(frozen=True)
class View:
    """What of a picture the network sees: sizes in pixels, and which part.

    `crop`: resized to resize_size, then the centre square of input_size (as the papers score);
    `whole`: resized to input_size (as predict shows it). The aspect is ignored in both.
    """

    input_size: int
    resize_size: int
    kind: str = "crop"

    def offset_and_side(self):
        """Where the view begins in the resized picture, and that picture's side."""
        if self.kind == "crop":
            return (self.resize_size - self.input_size) // 2, self.resize_size
        return 0, self.input_size

    def to_picture(self, box, height, width):
        """Maps a box in the view to pixels of the picture, clipped to it, `[4]`."""
        offset, side = self.offset_and_side()
        scale = np.array([width, height] * 2) / side
        return np.clip((np.asarray(box) + offset) * scale, 0, [width, height] * 2)


@dataclasses.dataclass(frozen=True)
class Pair:
    """One (picture, class present) as it is scored; arrays are in pixels of the view."""

    position: int
    image: np.ndarray
    image_id: str
    size: tuple[int, int]
    label: int
    boxes: np.ndarray | None
    mask: np.ndarray | None
    allowed: np.ndarray
    logits: np.ndarray | None
    maps: dict[str, np.ndarray]
    activation: np.ndarray | None  # positive part of the class's score map F_c

    @property
    def probabilities(self):
        """softmax of the logits over the allowed classes, `[classes]`; None without logits."""
        if self.logits is None:
            return None
        logits = np.where(self.allowed, self.logits, -np.inf)
        with np.errstate(invalid="ignore"):  # NaN logits give NaN, and are reported as such
            exponents = np.exp(logits - logits.max())
            return exponents / exponents.sum()


@dataclasses.dataclass(frozen=True)
class Method:
    """What is scored: anything that gives score maps, and how they are read.

    Attributes:
        predict, view, top_k, own_maps, ten_crop: see `pairs`.
        kinds: kinds of map: the one that is scored, then those that stand beside it.
        thresholds: dict kind -> score-map threshold, a number or "otsu"; needs the first kind.
        threshold_from: where that threshold comes from, for the report.
    """

    predict: Callable
    view: View
    kinds: tuple[str, ...]
    thresholds: dict
    threshold_from: str
    top_k: int = 5
    own_maps: Callable | None = None
    ten_crop: bool = False

    def pairs(self, source, positions, *, kinds=None, **keywords):
        """Yields a Pair for each (picture, class present) at these positions."""
        return pairs(
            self.predict,
            source,
            positions,
            kinds=kinds or self.kinds,
            view=self.view,
            top_k=self.top_k,
            own_maps=self.own_maps,
            ten_crop=self.ten_crop,
            **keywords,
        )


def method_of(
    model, *, kind=None, threshold="stored", view="crop", top_k=None, ten_crop=False
) -> Method:
    """Makes a Method of a trained model, with the mean map and CAM beside the map asked for.

    Args:
        model: a Localization.
        kind: the map that is scored, see `score_maps.map_of`; None takes the model's.
        threshold: a number, "otsu", or "stored" for the one in the model.
        view: "crop" or "whole", see `View`.
        top_k: classes of the map "topk"; None takes the model's.
        ten_crop: see `pairs`.

    Raises:
        ValueError: when the threshold is "stored" and the model has none for this map.
    """
    kind = kind or model.map
    beside = ["mean", "true", "cam"]
    if model.localizer.output.shape[-1] == 1:  # then all maps but CAM are the same one
        beside = ["cam"]
    thresholds = dict(model.thresholds)
    if threshold != "stored":
        thresholds[kind] = threshold
    elif kind not in thresholds:
        raise ValueError(
            f"The model stores no threshold for map '{kind}' (it has: "
            f"{', '.join(thresholds) or 'none'}). Pass --threshold=otsu or a number in 0..1."
        )
    return Method(
        predict=model.predict_on_batch,
        view=View(model.input_size, model.resize_size, view),
        kinds=tuple(dict.fromkeys([kind, *beside])),
        thresholds=thresholds,
        threshold_from="stored with the model" if threshold == "stored" else "given",
        top_k=top_k or model.top_k,
        ten_crop=ten_crop,
    )


def pairs(
    predict,
    source,
    positions,
    *,
    kinds,
    view,
    batch_size=32,
    top_k=5,
    own_maps=None,
    ten_crop=False,
    progress=None,
):
    """Yields a Pair for each (picture, class present), in order.

    Args:
        predict: function of a uint8 batch `[batch, input_size, input_size, 3]` that returns a
            dict of arrays `logits`, `score_map` and `localization_map`, as `Localization` does.
            What it leaves out is missing: no `logits` means no Top-1.
        source: a `sources.Source`.
        positions: positions in the source.
        kinds: kinds of map to pick, see `score_maps.map_of`.
        view: a View.
        top_k: classes that the map "topk" averages over.
        own_maps: optional function of a batch (Example of arrays) that returns a dict kind -> one
            map per picture: `[h, w]`, `[h, w, classes]`, or a dict label -> `[h, w]`. These kinds
            come from it, and `logits` as well if it names them.
        ten_crop: whether a Pair's logits are those of ten crops together, as BAS classifies, see
            `pipeline.ten_crop_probabilities`; maps are of the view all the same.
        progress: optional function of the number of pictures done.
    """
    batches = pipeline.evaluation_batches(
        source,
        positions,
        input_size=view.input_size,
        resize_size=view.resize_size,
        batch_size=batch_size,
        view=view.kind,
    )
    position_of = {source.image_ids[position]: int(position) for position in positions}
    done = 0
    for batch in source.report.watch(batches.as_numpy_iterator()):
        outputs = {name: np.asarray(value) for name, value in predict(batch.image).items()}
        outputs |= own_maps(batch) if own_maps else {}
        logits = outputs.get("logits")
        if ten_crop:
            read = (source.read_image(position_of[name.decode()]) for name in batch.image_id)
            resized = np.stack([pipeline.resize_image(image, view.resize_size) for image in read])
            logits = np.log(
                pipeline.ten_crop_probabilities(
                    lambda crops: predict(crops)["logits"], resized, view.input_size
                )
            )
        for i, image in enumerate(batch.image):
            image_id = batch.image_id[i].decode()
            given = {name: value[i] for name, value in outputs.items()}
            labels = batch.labels[i][batch.labels[i] >= 0]
            for label in labels.tolist():
                allowed = np.ones(len(source.classes), bool)
                allowed[labels] = False
                allowed[label] = True
                own = batch.box_labels[i] == label
                yield Pair(
                    position=position_of[image_id],
                    image=image,
                    image_id=image_id,
                    size=tuple(batch.size[i].tolist()),
                    label=label,
                    boxes=batch.boxes[i][own] if source.has_boxes else None,
                    mask=_of_class(batch.mask[i], label) if batch.mask[i].size else None,
                    allowed=allowed,
                    logits=None if logits is None else logits[i],
                    maps={kind: _map(given, kind, label, top_k, allowed) for kind in kinds},
                    activation=_activation(given, label),
                )
        done += len(batch.image)
        if progress:
            progress(done)


def accumulate(scored_pairs, kinds, *, thresholds=()):
    """Feeds pairs into one LocalizationMetrics per kind of map.

    Args:
        scored_pairs: an iterable of Pair.
        kinds: kinds of map.
        thresholds: score-map thresholds to measure besides metrics.THRESHOLDS.

    Returns:
        dict kind -> LocalizationMetrics.
    """
    measured = np.append(THRESHOLDS, [t for t in thresholds if t != "otsu"])
    accumulators = {kind: LocalizationMetrics(measured) for kind in kinds}
    for pair in scored_pairs:
        for kind, accumulator in accumulators.items():
            accumulator.add(
                pair.image_id,
                pair.label,
                pair.logits,
                pair.maps[kind],
                pair.boxes,
                pair.image.shape[:2],
                mask=pair.mask,
                allowed=pair.allowed,
                # A CAM is no mask that the activation could judge: it is the activation.
                activation=None if kind == "cam" else pair.activation,
            )
    return accumulators


def choose_thresholds(accumulators, rule):
    """Chooses a threshold per kind of map.

    Args:
        accumulators: dict kind -> LocalizationMetrics.
        rule: "boxes" or "maps", see `LocalizationMetrics.choose_threshold_from_boxes` and
            `choose_threshold_from_maps`.

    Returns:
        dict kind -> threshold.

    Raises:
        ValueError: the rule is "boxes" and none of the pictures has one.
    """
    if rule == "boxes":
        return {kind: a.choose_threshold_from_boxes() for kind, a in accumulators.items()}
    return {kind: a.choose_threshold_from_maps() for kind, a in accumulators.items()}


class Standard:
    """The metrics of wsolevaluation over pairs; see `standard_metrics`.

    Args:
        metrics: names of METRICS; no others are computed.
        view: the View that the pairs are seen in.
    """

    def __init__(self, metrics, view):
        self.metrics, self.view = tuple(metrics), view
        kinds = {"max_box_acc": "single", "max_box_acc_v2": "multi"}
        contours = [kinds[name] for name in metrics if name in kinds]
        self.boxes = BoxAccuracy(contours=contours) if contours else None
        self.pixels = PixelPrecision() if {"pxap", "piou"} & {*metrics} else None

    def add(self, pair, score_map):
        """Scores the map `[h, w]`, of any range, of a pair."""
        height, width = pair.image.shape[:2]
        problem = problem_of(score_map, raw=True)
        if self.metrics:
            score_map = standard_map(score_map, height, width)
        if self.boxes and pair.boxes is not None:
            boxes = _inclusive(pair.boxes, pair.size, self.view)
            self.boxes.add(pair.image_id, score_map, boxes, problem=problem)
        if self.pixels and pair.mask is not None:
            self.pixels.add(pair.image_id, score_map, pair.mask, problem=problem)

    def merge(self, other):
        """Adds the pairs of another one with the same metrics."""
        for own, others in ((self.boxes, other.boxes), (self.pixels, other.pixels)):
            if own:
                own.merge(others)

    def result(self):
        """The figures by name; None where the data has no boxes or no masks."""
        figures = {}
        for accumulator in (self.boxes, self.pixels):
            if accumulator and accumulator.num_images:
                figures |= accumulator.result()
        return {name: figures.get(name, {"value": None}) for name in self.metrics}


def _inclusive(boxes, size, view):
    """Turns boxes in the view into wsolevaluation's: whole pixels, the last ones inclusive.

    Its boxes are whole pixels of the picture, whose corners are scaled and cut down.
    """
    height, width = size
    in_picture = np.round([view.to_picture(box, height, width) for box in boxes]).reshape(-1, 4)
    in_picture[:, 2:] = np.maximum(in_picture[:, 2:] - 1, in_picture[:, :2])
    offset, side = view.offset_and_side()
    # Multiplied first, as in `standard_metrics.resize_boxes`: a cut is sensitive to rounding.
    scaled = in_picture * side / np.array([width, height] * 2) - offset
    return np.clip(scaled.astype(int), 0, view.input_size - 1)


def report(accumulators, kind, thresholds, class_names):
    """Makes the figures of one kind of map, with CAM and the trivial boxes beside them.

    Args:
        accumulators: dict kind -> LocalizationMetrics.
        kind: the kind that the figures are of.
        thresholds: dict kind -> threshold; kinds without one are reported at Otsu's.
        class_names: names of the classes.

    Returns:
        A dict for JSON: the figures of `LocalizationMetrics.result`, `threshold_curves`, `map`,
        and `other_maps`.
    """
    figures = accumulators[kind].result(thresholds.get(kind, "otsu"), class_names=class_names)
    figures["map"] = kind
    figures["threshold_curves"] = accumulators[kind].threshold_curves()
    shown = ("gt_known_loc", "top1_loc", "top5_loc", "miou_box", "miou_mask", "threshold",
             "gt_known_loc_oracle", "oracle_threshold", "gt_known_loc_otsu",
             "outcomes")  # fmt: skip
    figures["other_maps"] = {}
    for other, accumulator in accumulators.items():
        if other != kind:
            result = accumulator.result(thresholds.get(other, "otsu"))
            figures["other_maps"][other] = {name: result[name] for name in shown}
    return figures


def score_and_draw(
    method, source, positions=None, *, sheet_path, title, metrics=(), log=print, map_chunks=map
):
    """Scores a method on a data set and draws the contact sheet.

    Args:
        method: a Method.
        source: a `sources.Source`.
        positions: positions in the source; None takes all.
        sheet_path: file that the contact sheet is written to.
        title: heading of the sheet.
        metrics: names of METRICS to compute besides.
        log: function that takes lines of text for the user.
        map_chunks: `map`, or one of `workers.mapper` to score in several processes.

    Returns:
        (figures, lines, tiles): what metrics.json and predictions.jsonl hold, and examples, best,
        median and worst and of each kind of error: dict heading -> list of (picture, caption).

    Raises:
        ValueError: when no picture can be read.
    """
    kind, thresholds = method.kinds[0], method.thresholds
    positions = range(len(source)) if positions is None else positions
    progress = keras.utils.Progbar(len(positions), unit_name="picture")
    shown = progress.update if sys.stdout.isatty() else None
    lines = []
    standard = Standard(metrics, method.view)
    accumulators = accumulate((), method.kinds, thresholds=thresholds.values())
    score = functools.partial(
        _score,
        kinds=method.kinds,
        thresholds=thresholds,
        view=method.view,
        metrics=metrics,
        class_names=source.classes,
    )
    chunks = _chunks(method.pairs(source, positions, progress=shown))
    for scored_accumulators, scored_standard, scored_lines in map_chunks(score, chunks):
        for name, accumulator in accumulators.items():
            accumulator.merge(scored_accumulators[name])
        standard.merge(scored_standard)
        lines += scored_lines
    if not lines:
        raise ValueError(f"{source.name}: no picture can be read.\n{source.report.summary()}")
    figures = report(accumulators, kind, thresholds, source.classes)
    figures["threshold_from"] = method.threshold_from
    figures["view"] = method.view.kind
    figures["ten_crop"] = method.ten_crop
    single = [
        i for i, labels in zip(source.image_ids, source.labels, strict=True) if len(labels) == 1
    ]
    part = accumulators[kind].subset(single)
    if 0 < len(part) < len(accumulators[kind]):
        result = part.result(thresholds[kind])
        names = ("gt_known_loc", "top1_loc", "top1_cls", "miou_box", "miou_mask", "num_pairs")
        figures["single_class"] = {name: result[name] for name in names}
    figures |= standard.result()
    figures["skipped"] = dict(source.report.skipped)
    log(table(figures))
    if source.report.skipped or source.report.noted:
        log(source.report.summary())
    tiles = draw(method, source, best_median_worst(lines) | examples_of_errors(lines))
    on_sheet = {heading: row for heading, row in tiles.items() if heading not in OUTCOMES}
    Image.fromarray(sheet(on_sheet, title)).save(sheet_path)
    return figures, lines, tiles


def _chunks(scored_pairs):
    """Lists of pairs, whose pictures keep nothing but their size: scoring reads no more."""
    light = (dataclasses.replace(pair, image=pair.image[..., :0]) for pair in scored_pairs)
    while chunk := list(itertools.islice(light, CHUNK)):
        yield chunk


def _score(chunk, *, kinds, thresholds, view, metrics, class_names):
    """Scores some pairs: (dict kind -> LocalizationMetrics, Standard, lines of predictions)."""
    kind = kinds[0]
    standard = Standard(metrics, view)
    for pair in chunk:
        standard.add(pair, pair.maps[kind])
    lines = [prediction(pair, kind, thresholds[kind], view, class_names) for pair in chunk]
    return accumulate(chunk, kinds, thresholds=thresholds.values()), standard, lines


def sheet_title(dataset, data_dir, split):
    """Heading of a contact sheet: the data set's folder, or its name, and the split."""
    return f"{os.path.basename(os.path.normpath(data_dir or dataset))}, {split}"


def table(figures):
    """Renders a report as lines of text for a terminal."""
    head = f"{figures['num_images']} pictures"
    if figures["num_pairs"] != figures["num_images"]:
        head += f", {figures['num_pairs']} pairs of a picture and a class in it"
    head += f"; Top-1 Cls {_number(figures['top1_cls'])}, Top-5 Cls {_number(figures['top5_cls'])}"
    if figures["gt_known_loc"] is None:
        text = f"{head}\nNo boxes: localization can't be scored."
        if figures["miou_mask"] is not None:
            text += f" Mask mIoU {_number(figures['miou_mask'])}."
        return "\n".join([text, *_notes(figures)])
    columns = ("GT-known", "Top-1 Loc", "box mIoU", "mask mIoU", "threshold", "oracle GT-known")
    lines = [head, "".join([f"{'':26}", *(f"{column:>12}" for column in columns[:-1]),
                            f"{columns[-1]:>18}"])]  # fmt: skip
    rows = [(figures["map"], figures), *figures["other_maps"].items()]
    for kind, row in rows:
        values = [row[name] for name in ("gt_known_loc", "top1_loc", "miou_box", "miou_mask")]
        oracle = f"{_number(row['gt_known_loc_oracle'])} at {row['oracle_threshold']:.2f}"
        threshold = row["threshold"]
        lines.append(
            f"{definitions.MAP_NAMES[kind]:26}"
            + "".join(f"{_number(value):>12}" for value in values)
            + f"{threshold if threshold == 'otsu' else f'{threshold:.2f}':>12}{oracle:>18}"
        )
    whole, centred = figures["baselines"]["whole_view"], figures["baselines"]["centered_box_oracle"]
    for name, row in (
        ("whole view as box", whole),
        (f"best centred box ({centred['area_fraction']:.0%})", centred),
    ):
        lines.append(
            f"{name:26}{_number(row['gt_known_loc']):>12}{'':12}{_number(row['miou_box']):>12}"
        )
    return "\n".join(lines + _further_lines(figures) + _notes(figures))


def _further_lines(figures):
    """The pictures with a single class, and the metrics of wsolevaluation, a line each."""
    lines = []
    single = figures.get("single_class")
    if single:
        values = [single[name] for name in ("gt_known_loc", "top1_loc", "miou_box", "miou_mask")]
        label = f"{single['num_pairs']} with a single class"
        lines.append(f"{label:26}" + "".join(f"{_number(value):>12}" for value in values))
    for name in METRICS:
        found = figures.get(name)
        if found and found["value"] is not None:
            parts = [f"{definitions.NAMES[name]:26}{found['value']:12.3f}"]
            if found.get("threshold") is not None:
                parts.append(f"at threshold {found['threshold']:.3f}")
            if name == "max_box_acc_v2":
                parts += [
                    f"{row['accuracy']:.3f} from IoU {level} on (at {row['threshold']:.3f})"
                    for level, row in found["iou_levels"].items()
                ]
            lines.append("  ".join(parts))
    return lines


def _notes(figures):
    """A line for each thing that was wrong with outputs, with the first ten pictures."""
    lines = []
    for name, before, after in (
        ("bad_maps", "No score map, or NaN or infinity in it, in", ", counted as wrong"),
        ("bad_scores", "No class scores, or NaN or infinity in them, in", ", counted as wrong"),
        ("constant_maps", "A constant score map, whose box is the whole view, in", ""),
    ):
        if figures[name]:
            count = len(figures[name])
            names = ", ".join(figures[name][:10]) + (", ..." if count > 10 else "")
            lines.append(f"{before} {count} picture{'s' * (count != 1)}{after}: {names}")
    return lines


def prediction(pair, kind, threshold, view, class_names):
    """What the model says about a pair, as a line of predictions.jsonl; boxes in the picture."""
    score_map, _, box = localize(pair.maps[kind], *pair.image.shape[:2], threshold)
    best = None  # nothing says the class
    if pair.logits is not None:
        best = int(np.argmax(np.where(pair.allowed, pair.logits, -np.inf)))
    line = {
        "image_id": pair.image_id,
        "size": {"height": pair.size[0], "width": pair.size[1]},
        "label": class_names[pair.label],
        "class": None if best is None else class_names[best],
        "probability": None if best is None else _finite(pair.probabilities[best]),
        "map": kind,
        "threshold": threshold,
        "box": _box(view.to_picture(box, *pair.size)),
    }
    if pair.boxes is not None:
        line["true_boxes"] = [_box(view.to_picture(b, *pair.size)) for b in pair.boxes]
        finite = np.isfinite(pair.maps[kind]).all()
        line["iou"] = float(box_iou(box[None], pair.boxes).max(initial=0)) if finite else 0.0
        right = pair.logits is None or (
            best == pair.label and np.isfinite(pair.logits[pair.allowed]).all()
        )
        found = outcomes(box, pair.boxes[: None if finite else 0], right)
        line["outcome"] = OUTCOMES[found[0]]
    return line


def best_median_worst(lines, each=6):
    """Picks lines of predictions by box IoU: dict heading -> list of lines."""
    ranked = sorted((line for line in lines if "iou" in line), key=lambda line: -line["iou"])
    if not ranked:
        return {"": lines[: 3 * each]}
    if len(ranked) <= 3 * each:
        return {"all, best first": ranked}
    middle = (len(ranked) - each) // 2
    return {
        "best": ranked[:each],
        "median": ranked[middle : middle + each],
        "worst": ranked[-each:],
    }


def examples_of_errors(lines, each=6):
    """Picks lines of every kind of error, least wrong first: dict outcome -> list of lines."""
    found = {}
    for outcome in OUTCOMES[1:]:
        kind = [line for line in lines if line.get("outcome") == outcome]
        kind.sort(key=lambda line: -line["iou"])
        if kind:
            spread = np.linspace(0, len(kind) - 1, min(each, len(kind))).round().astype(int)
            found[outcome] = [kind[i] for i in spread]
    return found


def draw(method, source, sections):
    """Draws lines of predictions: dict heading -> list of (uint8 [height, width, 3], caption).

    Args:
        method: the Method that the lines are of.
        source: a `datasets.Source`.
        sections: dict heading -> list of lines.
    """
    kind = method.kinds[0]
    wanted = {line["image_id"] for section in sections.values() for line in section}
    positions = [i for i, name in enumerate(source.image_ids) if name in wanted]
    drawn = {}
    for pair in method.pairs(source, positions, kinds=[kind], batch_size=8):
        score_map, mask, box = localize(
            pair.maps[kind], *pair.image.shape[:2], method.thresholds[kind]
        )
        drawn[pair.image_id, source.classes[pair.label]] = pictures.triptych(
            pair.image,
            score_map,
            mask,
            box,
            true_boxes=() if pair.boxes is None else pair.boxes,
            side=200,
        )
    return {
        heading: [(drawn[line["image_id"], line["label"]], caption(line)) for line in section]
        for heading, section in sections.items()
    }


def caption(line):
    """A line of predictions in a few words: box IoU, class, probability, what became of it."""
    text = f"{line['class']} {line['probability'] or 0:.0%}"
    if line["class"] is None:
        text = line["label"]
    elif line["class"] != line["label"]:
        text += f" (true: {line['label']})"
    if "iou" in line:
        # Cut, not rounded: 0.50 stands under what is right, 0.49 under what is not.
        text = f"IoU {np.floor(line['iou'] * 100 + 1e-9) / 100:.2f}, {text}"
        if line["outcome"] not in ("right", "wrong_class"):
            text += f", {definitions.NAMES[line['outcome']]}"
    return text


def sheet(tiles, title):
    """Lays drawn tiles out as a contact sheet, see `draw`."""
    note = "picture | score map | mask, its box in cyan, the true boxes dashed in white"
    rows = {
        heading: [pictures.with_caption(picture, text) for picture, text in row]
        for heading, row in tiles.items()
    }
    return pictures.contact_sheet(rows, title=f"{title}\n{note}", columns=3)


def _of_class(mask, label):
    """A mask of class ids + 1 -> 1 where this class is, 255 where ignored, else 0."""
    return np.where(mask == 255, 255, mask == label + 1).astype(np.uint8)


def _box(box):
    return [round(float(edge), 2) for edge in box]


def _finite(value):
    return float(value) if np.isfinite(value) else None


def _number(value):
    return "-" if value is None else f"{value:.3f}"


def _activation(given, label):
    """Where the classifier sees the class, `[h, w]`, 0 or more; None without a classifier."""
    score_map = given.get("score_map")
    return None if score_map is None else np.maximum(score_map[..., label], 0)


def _map(given, kind, label, top_k, allowed):
    """The map of one kind: given as such (for all classes, per class or by label), or picked."""
    value = given.get(kind)
    if isinstance(value, dict):
        return value[label]
    if value is not None:
        return value if value.ndim == 2 else value[..., label]
    names = ("localization_map", "score_map", "logits")
    return map_of(kind, *map(given.get, names), label, top_k=top_k, allowed=allowed)
