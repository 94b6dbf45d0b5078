"""Annotations for the tools in which people correct them: labelme, Label Studio, CVAT."""

import json
import os
import urllib.parse
from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

from wsol_tf import files
from wsol_tf.annotations.formats import Options
from wsol_tf.annotations.names import fit_text, relative_to
from wsol_tf.annotations.record import Annotated


def write_labelme(output_dir: str, pictures: Iterable[Annotated], options: Options) -> list[str]:
    """Writes labelme/NAME.json for each picture, in the form of labelme 5; pictures stay away.

    The path of a picture is relative to its JSON, as labelme looks for it.
    """
    folder = os.path.join(output_dir, "labelme")
    os.makedirs(folder, exist_ok=True)
    for picture in pictures:
        shapes: list[dict] = []
        for known in picture.objects:
            x0, y0, x1, y1 = known.box
            shapes.append(
                {
                    "label": known.class_name,
                    "points": known.polygon if options.shape == "polygon" else [[x0, y0], [x1, y1]],
                    "group_id": None,
                    "description": f"score {known.score:.4f}",
                    "shape_type": "polygon" if options.shape == "polygon" else "rectangle",
                    "flags": {},
                    "mask": None,
                }
            )
        content: dict = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": relative_to(picture.path, os.path.abspath(folder)),
            "imageData": None,
            "imageHeight": picture.height,
            "imageWidth": picture.width,
        }
        with open(os.path.join(folder, f"{picture.stem}.json"), "w") as file:
            json.dump(content, file)
    return []


def write_labelstudio(
    output_dir: str, pictures: Iterable[Annotated], options: Options
) -> list[str]:
    """Writes labelstudio.json, tasks with predictions, and the labelling interface they are for."""
    tag = "PolygonLabels" if options.shape == "polygon" else "RectangleLabels"
    labels = "".join(
        f"    <Label value={quoteattr(fit_text(name))}/>\n" for name in options.classes
    )
    files.write(
        os.path.join(output_dir, "labelstudio.xml"),
        f'<View>\n  <Image name="image" value="$image"/>\n  <{tag} name="label" toName="image">\n'
        f"{labels}  </{tag}>\n</View>\n",
    )
    place = os.path.join(output_dir, "labelstudio.json")
    with files.replacing(place) as unfinished, open(unfinished, "w") as file:
        file.write("[")
        for number, picture in enumerate(pictures):
            file.write(("," if number else "") + "\n" + json.dumps(_task(picture, options)))
        file.write("\n]\n")
    return [
        "Set up Label Studio's project with labelstudio.xml, and serve the pictures where "
        f"`image_url={options.image_url}` leads. Files of its own machine are served from folders "
        "inside its document root that are a source storage of the project."
    ]


def _task(picture, options):
    path = urllib.parse.quote(os.fsencode(picture.relative))
    return {
        "data": {"image": options.image_url + path},
        "predictions": [
            {
                "model_version": "wsol_tf",
                "score": round(1 - picture.uncertainty, 4),  # Label Studio can sort tasks by it
                "result": [
                    _region(picture, known, number, options.shape)
                    for number, known in enumerate(picture.objects, 1)
                ],
            }
        ],
    }


def _region(picture, known, number, shape):
    """An object as Label Studio has it: places are percentages of the picture."""
    across, down = 100 / picture.width, 100 / picture.height
    name = fit_text(known.class_name)
    if shape == "polygon":
        points = [[x * across, y * down] for x, y in known.polygon]
        kind, value = "polygonlabels", {"points": points, "closed": True, "polygonlabels": [name]}
    else:
        x0, y0, x1, y1 = known.box
        kind = "rectanglelabels"
        value = {
            "x": x0 * across,
            "y": y0 * down,
            "width": (x1 - x0) * across,
            "height": (y1 - y0) * down,
            "rotation": 0,
            "rectanglelabels": [name],
        }
    return {
        "id": f"object{number}",
        "type": kind,
        "from_name": "label",
        "to_name": "image",
        "original_width": picture.width,
        "original_height": picture.height,
        "image_rotation": 0,
        "value": value,
        "score": round(known.score, 4),
    }


def write_cvat(output_dir: str, pictures: Iterable[Annotated], options: Options) -> list[str]:
    """Writes annotations.xml in the form of "CVAT for images 1.1"."""
    labels = "".join(
        f"        <label><name>{escape(fit_text(name))}</name><attributes></attributes></label>\n"
        for name in options.classes
    )
    place = os.path.join(output_dir, "annotations.xml")
    with files.replacing(place) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
        file.write("  <version>1.1</version>\n  <meta>\n    <task>\n      <labels>\n")
        file.write(f"{labels}      </labels>\n    </task>\n  </meta>\n")
        for number, picture in enumerate(pictures):
            file.write(
                f'  <image id="{number}" name={quoteattr(fit_text(picture.relative))} '
                f'width="{picture.width}" height="{picture.height}">\n'
            )
            file.writelines(_cvat_shape(known, options.shape) for known in picture.objects)
            file.write("  </image>\n")
        file.write("</annotations>\n")
    return ["CVAT has no place for a score: doubtful.csv has the pictures' own."]


def _cvat_shape(known, shape):
    label = f'label={quoteattr(fit_text(known.class_name))} source="auto" occluded="0"'
    if shape == "polygon":
        points = ";".join(f"{x}.00,{y}.00" for x, y in known.polygon)
        return f'    <polygon {label} points="{points}" z_order="0">\n    </polygon>\n'
    corners = zip(("xtl", "ytl", "xbr", "ybr"), known.box, strict=True)
    edges = " ".join(f'{name}="{edge}.00"' for name, edge in corners)
    return f'    <box {label} {edges} z_order="0">\n    </box>\n'
