"""From pictures of any size to what a model finds in them."""

from collections.abc import Sequence

import numpy as np

from wsol_tf.data.transforms import resize_image
from wsol_tf.model import alignment, inputs, refinement, score_maps


class Localizing:
    """The part of a Localization that its users call on their pictures."""

    def localize(
        self,
        image: np.ndarray,
        *,
        map: str | None = None,
        threshold: float | str | None = None,
        top_k: int | None = None,
        classes: float | str = "predicted",
        min_area: float = 0.0,
        max_objects: int = 0,
    ) -> score_maps.Found:
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
            max_objects: at most so many objects of a class, the largest; 0: all.

        Returns:
            score_maps.Found: score map, mask and boxes in pixels of the picture; predicted class
            and its probability; the other classes in `others`.

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
        max_objects: int = 0,
        batch_size: int = 32,
    ) -> list[score_maps.Found]:
        """Finds the objects in several pictures; see `localize`.

        Args:
            images: pictures uint8 `[height, width, 3]` of any sizes, or an array of them.
            map: kind of map, as for `localize`.
            threshold: score-map threshold, as for `localize`.
            top_k: classes of the map "topk", as for `localize`.
            classes: whose objects are found, as for `localize`.
            min_area: as for `localize`.
            max_objects: as for `localize`.
            batch_size: pictures that the network sees at once.

        Returns:
            A Found for each picture, in their order.

        Raises:
            ValueError: as `localize`, for any of the pictures.
            FloatingPointError: as `localize`, for any of the pictures.
        """
        for image in images:
            inputs.check_picture(image)
        score_maps.check_objects(min_area, max_objects)
        kind, present = self.objects_asked_for(classes, map)
        threshold = inputs.threshold_of(kind, threshold, self.thresholds)
        found = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            batch = np.stack([resize_image(image, self.input_size) for image in part])
            outputs = {name: np.asarray(x) for name, x in self.predict_on_batch(batch).items()}
            found += [
                score_maps.find(
                    {name: values[i] for name, values in outputs.items()},
                    self.classes,
                    *image.shape[:2],
                    kind=kind,
                    threshold=threshold,
                    top_k=top_k or self.top_k,
                    prepare=self._preparing(batch[i]),
                    min_area=min_area,
                    max_objects=max_objects,
                    present=present,
                )
                for i, image in enumerate(part)
            ]
        return found

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
