"""From pictures of any size to what a model finds in them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wsol_tf.data.transforms import resize_image
from wsol_tf.model import alignment, finding, frozen, inputs, refinement, score_maps


class Localizing:
    """The part of a Localization that its users call on their pictures."""

    background_class: str | None = None  # that of pictures without any object
    separate: bool = False  # objects that touch
    _frozen: Callable[[Any], dict[str, np.ndarray]] | None = None

    def freeze(self) -> None:
        """Predicts with the weights as they are now, in two thirds to three quarters of the time.

        For a model that is done: `frozen.predictor` makes constants of its weights. `compile`,
        `set_weights` and `load_weights` end it; a weight that is assigned to by itself counts only
        after one of these.
        """
        self._frozen = frozen.predictor(self)

    def thaw(self) -> None:
        """Ends `freeze`: weights are read at every call again."""
        self._frozen = None

    def predict_on_batch(self, x: Any) -> dict[str, np.ndarray]:
        """Computes the outputs of a batch as numpy arrays, see `keras.Model` and `freeze`."""
        if self._frozen is None:
            return super().predict_on_batch(x)  # type: ignore[misc]
        return self._frozen(x)

    def set_weights(self, weights: Any) -> None:
        """Sets all weights, see `keras.Model`."""
        self.thaw()
        super().set_weights(weights)  # type: ignore[misc]

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        """Loads weights from a file, see `keras.Model`."""
        self.thaw()
        super().load_weights(*args, **kwargs)  # type: ignore[misc]

    def localize(
        self,
        image: np.ndarray,
        *,
        map: str | None = None,
        threshold: float | str | None = None,
        top_k: int | None = None,
        classes: float | str = "predicted",
        min_area: float = 0.0,
        min_picture_area: float = 0.0,
        max_objects: int = 0,
    ) -> finding.Found:
        """Finds the objects in a picture, as `python -m wsol_tf.predict` does.

        The whole picture is resized to the network's input (bilinear, antialiased, the aspect
        ignored); its score map is stretched to 0..1, resized to the picture and cut at the
        threshold (the steps of BAS, arXiv 2112.00580).

        Args:
            image: uint8 `[height, width, 3]`, RGB in 0..255, any size.
            map: kind of map, one of config.MAPS; None: the model's. Nobody knows the true class
                here, so "true" is "predicted", and "cam" is that of the predicted class.
            threshold: score-map threshold in 0..1, or "otsu" for the map's own; None: the stored
                one of this kind of map.
            top_k: classes that the map "topk" averages over; None: the model's.
            classes: whose objects are found: of the "predicted" class, of all that are "present",
                which is those of the model's `presence_threshold` and more, or a probability in
                place of that threshold. Several classes need a map of each: "predicted", which is
                then the default, of a localizer per class, or "cam".
            min_area: components of the mask with fewer pixels than this share of the largest one's
                are no objects, 0..1.
            min_picture_area: components with fewer pixels than this share of the picture's are no
                objects, 0..1; where none is left, `box` is None.
            max_objects: at most so many objects of a class, the first; 0: all.

        Returns:
            finding.Found: score map, mask and boxes in pixels of the picture; predicted class
            and its probability; the other classes in `others`. Where the predicted class is the
            `background_class`, the mask is empty and there is no box.

        Raises:
            ValueError: the picture has another dtype or shape, the map is unknown, the threshold is
                no such number, or none was given and none is stored; a setting of the objects is
                out of its range, or the map is of no single class.
            FloatingPointError: the model's output is NaN or infinite.
        """
        return self.localize_batch(
            [image],
            map=map,
            threshold=threshold,
            top_k=top_k,
            classes=classes,
            min_area=min_area,
            min_picture_area=min_picture_area,
            max_objects=max_objects,
        )[0]

    def localize_batch(
        self,
        images: Sequence[np.ndarray] | np.ndarray,
        *,
        map: str | None = None,
        threshold: float | str | None = None,
        top_k: int | None = None,
        classes: float | str = "predicted",
        min_area: float = 0.0,
        min_picture_area: float = 0.0,
        max_objects: int = 0,
        batch_size: int = 32,
    ) -> list[finding.Found]:
        """Finds the objects in several pictures; see `localize`.

        Args:
            images: pictures uint8 `[height, width, 3]` of any sizes, or an array of them.
            map: kind of map, as for `localize`.
            threshold: score-map threshold, as for `localize`.
            top_k: classes of the map "topk", as for `localize`.
            classes: whose objects are found, as for `localize`.
            min_area: as for `localize`.
            min_picture_area: as for `localize`.
            max_objects: as for `localize`.
            batch_size: pictures that the network sees at once.

        Returns:
            A Found for each picture, in their order.

        Raises:
            ValueError: as `localize`, for any of the pictures.
            FloatingPointError: as `localize`, for any of the pictures.
        """
        asked = dict(map=map, threshold=threshold, top_k=top_k, classes=classes, min_area=min_area)
        settings = self._settings(
            **asked, min_picture_area=min_picture_area, max_objects=max_objects
        )
        for image in images:
            inputs.check_picture(image)
        found = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            seen, outputs = self._see(part)
            found += [
                self._find(image, seen[i], {name: x[i] for name, x in outputs.items()}, settings)
                for i, image in enumerate(part)
            ]
        return found

    def localize_each(self, image: np.ndarray, *asked: Mapping[str, Any]) -> list[finding.Found]:
        """Finds the objects in a picture in several ways; the network sees it once.

        Args:
            image: the picture, as for `localize`.
            *asked: arguments of `localize` by name, for each way.

        Returns:
            For each way what `localize` gives.

        Raises:
            ValueError: as `localize`, for any of the ways.
            FloatingPointError: as `localize`.
        """
        ways = [self._settings(**arguments) for arguments in asked]
        inputs.check_picture(image)
        seen, outputs = self._see([image])
        first = {name: x[0] for name, x in outputs.items()}
        return [self._find(image, seen[0], first, settings) for settings in ways]

    def _settings(
        self,
        map: str | None = None,
        threshold: float | str | None = None,
        top_k: int | None = None,
        classes: float | str = "predicted",
        min_area: float = 0.0,
        min_picture_area: float = 0.0,
        max_objects: int = 0,
    ) -> dict[str, Any]:
        """What `finding.find` is asked for by arguments of `localize`."""
        score_maps.check_objects(min_area, min_picture_area, max_objects)
        kind, present = self.objects_asked_for(classes, map)
        return {
            "kind": kind,
            "threshold": inputs.threshold_of(kind, threshold, self.thresholds),
            "top_k": top_k or self.top_k,
            "min_area": min_area,
            "min_picture_area": min_picture_area,
            "max_objects": max_objects,
            "present": present,
        }

    def _see(self, images):
        """The pictures as the network sees them, and what it gives for them."""
        seen = np.stack([resize_image(image, self.input_size) for image in images])
        return seen, {name: np.asarray(x) for name, x in self.predict_on_batch(seen).items()}

    def _find(self, image, seen, outputs, settings):
        """What is found in one picture, with `_settings`."""
        prepare = self._preparing(seen)
        found = finding.find(
            outputs,
            self.classes,
            *image.shape[:2],
            prepare=prepare,
            separate=self.separate,
            **settings,
        )
        return finding.without_background(found, self.background_class)

    def _preparing(self, picture):
        """What is done to the localizer's map of a picture before the threshold cuts it."""

        def prepare(score_map):
            score_map = alignment.placed(score_map, self.offset)
            return refinement.refine(score_map, picture) if self.refine == "guided" else score_map

        return prepare

    def objects_asked_for(self, classes: float | str, map: str | None) -> tuple[str, float | None]:
        """Says what `localize` looks for with these arguments, see `inputs.objects_asked_for`."""
        return inputs.objects_asked_for(
            classes,
            map,
            own_kind=self.map,
            channels=self.localizer.output.shape[-1],
            stored=self.presence_threshold,
        )
