"""From pictures of any size to what a model finds in them."""

import functools
from collections.abc import Sequence

import numpy as np

from wsol_tf.data.transforms import resize_image
from wsol_tf.model import inputs, refinement, score_maps


class Localizing:
    """The part of a Localization that its users call on their pictures."""

    background_class: str | None = None  # that of pictures without any object

    def localize(
        self,
        image: np.ndarray,
        *,
        map: str | None = None,
        threshold: float | str | None = None,
        top_k: int | None = None,
    ) -> score_maps.Found:
        """Finds the object in a picture, as `python -m wsol_tf.predict` does.

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

        Returns:
            score_maps.Found: score map, mask and boxes in pixels of the picture; predicted class
            and its probability. Where that class is the `background_class`, the mask is empty and
            there is no box.

        Raises:
            ValueError: the picture has another dtype or shape, the map is unknown, the threshold is
                no such number, or none was given and none is stored.
            FloatingPointError: the model's output is NaN or infinite.
        """
        return self.localize_batch([image], map=map, threshold=threshold, top_k=top_k)[0]

    def localize_batch(
        self,
        images: Sequence[np.ndarray] | np.ndarray,
        *,
        map: str | None = None,
        threshold: float | str | None = None,
        top_k: int | None = None,
        batch_size: int = 32,
    ) -> list[score_maps.Found]:
        """Finds the objects in several pictures; see `localize`.

        Args:
            images: pictures uint8 `[height, width, 3]` of any sizes, or an array of them.
            map: kind of map, as for `localize`.
            threshold: score-map threshold, as for `localize`.
            top_k: classes of the map "topk", as for `localize`.
            batch_size: pictures that the network sees at once.

        Returns:
            A Found for each picture, in their order.

        Raises:
            ValueError: as `localize`, for any of the pictures.
            FloatingPointError: as `localize`, for any of the pictures.
        """
        for image in images:
            inputs.check_picture(image)
        kind = self.map if map is None else map
        score_maps.check_kind(kind)
        kind = "predicted" if kind == "true" else kind
        threshold = inputs.threshold_of(kind, threshold, self.thresholds)
        refine = None if self.refine == "none" else refinement.refine
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
                    refine=refine and functools.partial(refine, picture=batch[i]),
                )
                for i, image in enumerate(part)
            ]
        return [
            score_maps.without_object(each) if each.class_name == self.background_class else each
            for each in found
        ]
