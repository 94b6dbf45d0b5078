"""Which score map of a model a file holds."""

import dataclasses
from collections.abc import Sequence

KINDS = ("mean", "topk", "predicted", "all")  # as they are written; "class" is class:NAME


@dataclasses.dataclass(frozen=True)
class ExportedMap:
    """The score map that a file holds; `str()` gives it as users and the metadata write it.

    Attributes:
        kind: "mean", "topk", "predicted", "all" or "class".
        class_name: the class of kind "class"; None for the others.
    """

    kind: str
    class_name: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ExportedMap":
        """Reads "mean", "topk", "predicted", "all" or "class:NAME".

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
    def stored_kind(self) -> str:
        """The kind of map, as `score_maps.map_of` names it, whose stored threshold fits."""
        return "true" if self.kind in ("all", "class") else self.kind

    def label(self, classes: Sequence[str]) -> int | None:
        """Returns the id of the class of kind "class"; None for the others."""
        return None if self.class_name is None else list(classes).index(self.class_name)

    def channels(self, classes: Sequence[str]) -> slice:
        """Returns which channels of the localizer the map is made of."""
        label = self.label(classes)
        return slice(None) if label is None else slice(label, label + 1)

    def check(self, classes: Sequence[str], num_channels: int) -> None:
        """Refuses a map that a model does not have.

        Args:
            classes: names of the model's classes.
            num_channels: channels of its localizer, one for each class or a single one.

        Raises:
            ValueError: an unknown class, or maps of classes where the localizer has one channel.
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
