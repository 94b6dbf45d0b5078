"""What is known of a picture that was localized: a line of the journal, what formats write."""

import dataclasses
import json
from typing import Any


@dataclasses.dataclass(frozen=True)
class Object:
    """An object in a picture.

    Attributes:
        class_name: its class.
        score: mean of the score map inside it, 0..1.
        box: x0, y0, x1, y1 edges in pixels, half-open.
        area: its pixels.
        polygon: x and y of each point of its outline in edges of pixels, holes cut in.
    """

    class_name: str
    score: float
    box: tuple[int, int, int, int]
    area: int
    polygon: list[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Annotated:
    """A picture and what was found in it.

    Attributes:
        path: the file, absolute.
        version: its size in bytes and the time of its last change in nanoseconds.
        relative: its path in the folder that was annotated, with slashes.
        name: name of a file that no other picture of the run has, with the picture's suffix; no
            other has it without the suffix either.
        height: of the picture, upright, in pixels.
        width: of the picture, upright, in pixels.
        probability: of its predicted class, 0..1; None where the model has no classifier.
        doubts: see `uncertainty.doubts`.
        objects: the objects, the largest first.
        thumbnail: a small copy of the picture as a data URI.
    """

    path: str
    version: tuple[int, int]
    relative: str
    name: str
    height: int
    width: int
    probability: float | None
    doubts: dict[str, float]
    objects: tuple[Object, ...]
    thumbnail: str

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.name.rpartition(".")[0]

    @property
    def uncertainty(self) -> float:
        """The mean of the doubts, 0..1."""
        return sum(self.doubts.values()) / max(1, len(self.doubts))


def to_line(picture: Annotated) -> str:
    """Returns a picture as one line of JSON, without the newline."""
    return json.dumps(dataclasses.asdict(picture), allow_nan=False, separators=(",", ":"))


def from_line(line: str | bytes) -> Annotated:
    """Reads what `to_line` wrote.

    Raises:
        ValueError: it is something else, or only a part of it.
    """
    try:
        values: dict[str, Any] = json.loads(line)
        objects = tuple(
            Object(**{**value, "box": tuple(value["box"])}) for value in values.pop("objects")
        )
        version = tuple(values.pop("version"))
        return Annotated(**values, version=version, objects=objects)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"This is no line of a journal ({error}).") from None
