"""Pairs of a picture and a class in it, with the score maps of the method that is scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from wsol_tf.config import LIMITS
from wsol_tf.data import transforms
from wsol_tf.data.batches import BATCH_SIZE, evaluation_batches
from wsol_tf.data.example import IGNORE, Example, competing_classes
from wsol_tf.data.images import BadImage
from wsol_tf.data.source import Source
from wsol_tf.data.transforms import View
from wsol_tf.evaluation.localized_map import own_kind
from wsol_tf.evaluation.suggestion import colours_of
from wsol_tf.evaluation.wsolevaluation import combine_masks, resize_boxes
from wsol_tf.model import alignment, refinement
from wsol_tf.model.score_maps import PLAIN, WHOLE, map_of


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """A picture and one of the classes present in it, as a method sees them.

    Attributes:
        position: position of the picture in its source.
        image: the view, uint8 `[height, width, 3]`; scoring reads its height and width alone.
        image_id: name of the picture.
        size: height and width of the picture in pixels.
        label: class id.
        boxes: true boxes of the class in pixels of the view, float32 `[num_boxes, 4]`, half-open;
            none where the view shows no object of it, None where the data has no boxes.
        mask: true mask of the class, uint8 `[height, width]`: 1 object, 0 not, 255 ignored; None
            where there is none.
        allowed: bool `[classes]`, the classes that compete with the label; None: all.
        logits: `[classes]`; None where nothing says the class.
        maps: kind -> score map `[h, w]` of the class, in any range.
        activation: positive part of the class's score map F_c, `[h, w]`, or None.
        colours: the view as `suggestion.colours_of` gives it, with an activation; else None.
        present: whether the class is in the picture; False for one that is only found there.
        empty: whether the class is that of pictures without any object: there are no boxes and no
            mask to compare with.
        standard_boxes: int64 `[num_boxes, 4]`, the boxes that wsolevaluation's own lists have, in
            pixels of the 224 x 224 that it scores in, see `wsolevaluation.resize_boxes`; None for
            other data.
        standard_mask: uint8 `[224, 224]`, its mask there, see `wsolevaluation.combine_masks`, or
            None.
    """

    position: int
    image: np.ndarray
    image_id: str
    size: tuple[int, int]
    label: int
    boxes: np.ndarray | None = None
    mask: np.ndarray | None = None
    allowed: np.ndarray | None = None
    logits: np.ndarray | None = None
    maps: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    activation: np.ndarray | None = None
    colours: np.ndarray | None = None
    present: bool = True
    empty: bool = False
    standard_boxes: np.ndarray | None = None
    standard_mask: np.ndarray | None = None

    @property
    def probabilities(self) -> np.ndarray | None:
        """Softmax of the logits over the allowed classes, `[classes]`; None without logits."""
        if self.logits is None or self.allowed is None:
            return self.all_probabilities
        return transforms.softmax(np.where(self.allowed, self.logits, -np.inf))

    @property
    def all_probabilities(self) -> np.ndarray | None:
        """Softmax of the logits over all classes, `[classes]`; None without logits."""
        return None if self.logits is None else transforms.softmax(self.logits)


@dataclasses.dataclass(frozen=True)
class Method:
    """What is scored: anything that gives score maps, and how they are read.

    Attributes:
        predict: see `predict_pairs`, as are view, offset, refine, top_k, own_maps and ten_crop.
        view: what of a picture the method sees.
        kinds: kinds of map: the one that is scored, then those reported beside it.
        thresholds: kind -> score-map threshold, a number in 0..1 or "otsu"; the first kind must
            have one, the others are reported at Otsu's where they have none.
        threshold_from: where the threshold of the first kind comes from, in words.
        refine: how the localizer's maps are refined by the picture.
        separate: whether predictions cut objects that touch apart, see `separation`.
        top_k: classes that the map "topk" averages over.
        own_maps: gives maps that `predict` does not.
        ten_crop: whether the class comes from ten crops together.
        background_id: id of the class of pictures without any object, or None.
        presence: probability from which on a class counts as found in a picture, as its
            highest-ranked one always does; None: which classes are there can't be said.
        min_area: which components of a mask are objects, see `score_maps.components`.
        min_picture_area: see `score_maps.components`; of what the method sees.
        max_objects: see `score_maps.components`.
    """

    predict: Callable[[np.ndarray], Mapping[str, Any]]
    view: View
    kinds: tuple[str, ...]
    thresholds: Mapping[str, float | str]
    threshold_from: str
    offset: tuple[float, float] = (0.0, 0.0)
    refine: str = "none"
    separate: bool = False
    top_k: int = 5
    own_maps: Callable[[list[Example]], dict[str, Any]] | None = None
    ten_crop: bool = False
    background_id: int | None = None
    presence: float | None = None
    min_area: float = 0.0
    min_picture_area: float = 0.0
    max_objects: int = 0

    @property
    def limits(self) -> dict[str, Any]:
        """Which components of a mask are objects, as arguments of `score_maps.components`."""
        return {name: getattr(self, name) for name in LIMITS}

    @property
    def separated_kinds(self) -> tuple[str, ...]:
        """The kinds of map whose predictions cut objects that touch apart."""
        whole = (PLAIN, WHOLE, "cam")  # what others do, to compare with
        return tuple(kind for kind in self.kinds if self.separate and kind not in whole)

    @property
    def own_threshold(self) -> float | str:
        """Where the map that a class has for itself is cut: a number in 0..1, or "otsu".

        It is that of the map "predicted", at which `Localization.localize` finds the objects of
        all classes that are present; a method without one cuts it as it scores it.
        """
        own = own_kind(self.kinds)
        given = self.thresholds.get(own, "otsu")
        return self.thresholds.get("predicted", given) if own == "true" else given

    def pairs(
        self,
        source: Source,
        positions: Sequence[int],
        *,
        kinds: Sequence[str] | None = None,
        **options: Any,
    ) -> Iterator[Pair]:
        """Yields a Pair for each (picture, class present) at these positions.

        Args:
            source: the data set.
            positions: positions in the source.
            kinds: kinds of map; None: all of the method's.
            **options: `batch_size`, `progress` and `presence` of `predict_pairs`.
        """
        return predict_pairs(
            self.predict,
            source,
            positions,
            kinds=kinds or self.kinds,
            view=self.view,
            offset=self.offset,
            refine=self.refine,
            top_k=self.top_k,
            own_maps=self.own_maps,
            ten_crop=self.ten_crop,
            background_id=self.background_id,
            **options,
        )


def predict_pairs(
    predict: Callable[[np.ndarray], Mapping[str, Any]],
    source: Source,
    positions: Sequence[int],
    *,
    kinds: Sequence[str],
    view: View,
    batch_size: int = BATCH_SIZE,
    offset: tuple[float, float] = (0.0, 0.0),
    refine: str = "none",
    top_k: int = 5,
    own_maps: Callable[[list[Example]], dict[str, Any]] | None = None,
    ten_crop: bool = False,
    background_id: int | None = None,
    presence: float | None = None,
    progress: Callable[[int], Any] | None = None,
) -> Iterator[Pair]:
    """Yields a Pair for each (picture, class present), those of a picture one after the other.

    Args:
        predict: uint8 `[batch, input_size, input_size, 3]` -> dict of arrays `logits` (without
            them there is no Top-1), `score_map` and `localization_map`, as `Localization` does.
        source: the data set.
        positions: positions in the source.
        kinds: of map, see `score_maps.map_of`; WHOLE: the first once more, PLAIN: it, not refined.
        view: what of a picture is seen.
        batch_size: pictures in a batch, see `batches.evaluation_batches`.
        offset: by which maps of the localizer are moved back, see `alignment.placed`.
        refine: "guided" refines these maps, see `refinement.refine`.
        top_k: classes that the map "topk" averages over.
        own_maps: function of a batch (Examples) that returns a dict kind -> one map per picture:
            `[h, w]`, `[h, w, classes]`, or a dict label -> `[h, w]`; or "logits".
        ten_crop: whether logits are of ten crops, see `transforms.ten_crop_probabilities`.
        background_id: id of the class of pictures without any object, or None.
        presence: yield pairs that are not `present` as well, with one map, see `own_kind`: of each
            class that is not in the picture and has this probability or more, or the highest.
        progress: called with the number of pictures done, after each batch.

    Raises:
        StopAtBadImage: a picture can't be read, and the source is to stop at such a one.
    """
    position_of = {source.image_ids[position]: int(position) for position in positions}
    options = {"kinds": kinds, "offset": offset, "refine": refine, "top_k": top_k}
    options |= {"presence": presence, "background_id": background_id}
    done = 0
    for batch in evaluation_batches(source, positions, view, batch_size):
        outputs = predict(np.stack([example.image for example in batch]))
        outputs = {name: np.asarray(value) for name, value in outputs.items()}
        outputs |= own_maps(batch) if own_maps else {}
        at = [position_of[example.image_id] for example in batch]
        logits = outputs.get("logits")
        if ten_crop:
            logits = _ten_crop_logits(predict, source, at, batch, view)
        for i, example in enumerate(batch):
            own = {name: value[i] for name, value in outputs.items()}
            own_logits = None if logits is None else logits[i]
            yield from _pairs_of_picture(source, at[i], example, own, own_logits, **options)
        done += len(at)
        if progress:
            progress(done)


def _whole_picture(source, position, example):
    """A picture as it is stored; its view, where the file has vanished since that was read."""
    try:
        return source.read_image(position)
    except BadImage:
        return example.image


def _ten_crop_logits(predict, source, positions, batch, view):
    images = [_whole_picture(source, *pair) for pair in zip(positions, batch, strict=True)]
    resized = np.stack([transforms.resize_image(image, view.resize_size) for image in images])
    return np.log(
        transforms.ten_crop_probabilities(
            lambda crops: predict(crops)["logits"], resized, view.input_size
        )
    )


def _pairs_of_picture(
    source,
    position,
    example,
    outputs,
    logits,
    *,
    kinds,
    offset,
    refine,
    top_k,
    presence,
    background_id,
):
    """Yields the pairs of one picture; `outputs` are its rows of a batch."""
    colours = colours_of(example.image) if "score_map" in outputs else None
    of_localizer = [kind for kind in kinds if kind not in ("cam", *outputs)]
    present = example.labels.tolist()
    found = _only_found(present, logits, presence)
    for label in [*present, *(label for label in found if label != background_id)]:
        allowed = competing_classes(example.labels, label, len(source.classes))
        maps = {}
        for kind in kinds if label in present else (own_kind(kinds),):
            picked = kinds[0] if kind in (PLAIN, WHOLE) else kind
            maps[kind] = _map_of_kind(outputs, picked, label, top_k, allowed)
            if kind in of_localizer:
                maps[kind] = alignment.placed(maps[kind], offset)
                if refine == "guided" and kind != PLAIN:
                    maps[kind] = refinement.refine(maps[kind], example.image)
        empty = label == background_id
        has_boxes, has_mask = source.has_boxes and not empty, example.mask.size and not empty
        yield Pair(
            position=position,
            image=example.image,
            image_id=example.image_id,
            size=tuple(example.size.tolist()),
            label=label,
            boxes=example.boxes[example.box_labels == label] if has_boxes else None,
            mask=_class_mask(example.mask, label) if has_mask else None,
            present=label in present,
            allowed=allowed,
            logits=logits,
            maps=maps,
            activation=_activation(outputs, label),
            colours=colours,
            empty=empty,
            **({} if empty else _standard_truth(example.standard)),
        )


def _standard_truth(standard):
    """What the lists of wsolevaluation say of a picture, as its code makes it to be scored."""
    if standard is None:
        return {}
    found = {}
    if standard.size is not None and len(standard.boxes):
        height, width = standard.size
        found["standard_boxes"] = resize_boxes(standard.boxes, (width, height))
    if standard.masks:
        found["standard_mask"] = combine_masks(standard.masks, standard.ignored)
    return found


def _only_found(present, logits, presence):
    """The classes that are not in a picture and are found there, the most probable first."""
    if presence is None or logits is None:
        return []
    probabilities = transforms.softmax(logits)
    ranked = np.argsort(-probabilities, kind="stable").tolist()
    found = [ranked[0], *(label for label in ranked[1:] if probabilities[label] >= presence)]
    return [label for label in found if label not in present]


def _class_mask(mask, label):
    """A mask of class ids + 1 as that of one class: 1 where it is, 255 where ignored, else 0."""
    return np.where(mask == IGNORE, IGNORE, mask == label + 1).astype(np.uint8)


def _activation(outputs, label):
    """Where the classifier sees the class, `[h, w]`, 0 or more; None without a classifier."""
    score_map = outputs.get("score_map")
    return None if score_map is None else np.maximum(score_map[..., label], 0)


def _map_of_kind(outputs, kind, label, top_k, allowed):
    """The map of one kind: given as such (for all classes, per class or by label), or picked."""
    value = outputs.get(kind)
    if isinstance(value, dict):
        return value[label]
    if value is not None:
        return value if value.ndim == 2 else value[..., label]
    names = ("localization_map", "score_map", "logits")
    return map_of(kind, *map(outputs.get, names), label, top_k=top_k, allowed=allowed)
