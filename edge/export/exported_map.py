"""Which score map of a model a file holds."""

import dataclasses
from collections.abc import Sequence

# As they are written; "class" is class:NAME.
KINDS = ("mean", "topk", "predicted", "all", "present")


@dataclasses.dataclass(frozen=True)
class ExportedMap:
    """The score map that a file holds; `str()` gives it as users and the metadata write it.

    Attributes:
        kind: "mean", "topk", "predicted", "all", "present" (all maps, with what says which classes
            are in a picture) or "class".
        class_name: the class of kind "class"; None for the others.
    """

    kind: str
    class_name: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ExportedMap":
        """Reads one of KINDS or "class:NAME".

        Raises:
            ValueError: any other text.
        """
        kind, colon, name = text.partition(":")
        if kind == "class" and colon:
            return cls(kind, name)
        if text not in KINDS:
            raise ValueError(f"Unknown map '{text}'. Legal: {', '.join(KINDS)}, class:NAME.")
        return cls(text)

    def __str__(self) -> str:
        return self.kind if self.class_name is None else f"{self.kind}:{self.class_name}"

    @property
    def needs_classifier(self) -> bool:
        """Whether the network must classify to know which maps are asked for."""
        return self.kind in ("topk", "predicted")

    @property
    def has_classifier(self) -> bool:
        """Whether the file gives class scores for the map's sake."""
        return self.needs_classifier or self.kind == "present"

    @property
    def has_all_maps(self) -> bool:
        """Whether the file gives a map for each class."""
        return self.kind in ("all", "present")

    @property
    def stored_kind(self) -> str:
        """The kind of map, as `score_maps.map_of` names it, whose stored threshold fits."""
        return {"all": "true", "class": "true", "present": "predicted"}.get(self.kind, self.kind)

    def label(self, classes: Sequence[str]) -> int | None:
        """Returns the id of the class of kind "class"; None for the others."""
        return None if self.class_name is None else list(classes).index(self.class_name)

    def channels(self, classes: Sequence[str]) -> slice:
        """Returns which channels of the localizer the map is made of."""
        label = self.label(classes)
        return slice(None) if label is None else slice(label, label + 1)

    def check(
        self, classes: Sequence[str], num_channels: int, presence: float | None = None
    ) -> None:
        """Refuses a map that a model does not have.

        Args:
            classes: names of the model's classes.
            num_channels: channels of its localizer, one for each class or a single one.
            presence: its presence threshold, or None.

        Raises:
            ValueError: an unknown class; maps of classes where the localizer has one channel; or
                nothing says which classes are present.
        """
        if self.class_name is not None and self.class_name not in classes:
            raise ValueError(
                f"The model has no class '{self.class_name}'. It has: {', '.join(classes)}."
            )
        if self.kind != "mean" and num_channels == 1:
            raise ValueError(
                "The model's localizer has one channel for all classes, so there is no map "
                f"'{self}'. Use `map=mean`."
            )
        if self.kind == "present" and presence is None:
            raise ValueError(
                "The model stores no presence threshold, from which on a class counts as present. "
                "Use another `map`, or train it again: train chooses one."
            )
