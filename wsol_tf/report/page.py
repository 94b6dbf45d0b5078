"""One page that shows a scoring to people: figures, charts and pictures in a single HTML file.

The file asks for nothing from elsewhere and runs no script: it can be mailed, archived, printed.
Everything is put in as a text node or an attribute of a tree, so that no class name becomes markup.
"""

import base64
import datetime
import io
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from wsol_tf.evaluation.metrics import OUTCOMES
from wsol_tf.report import charts, definitions

MOST_ROWS = 1000  # of a table of classes
MOST_NAMES = 100  # of a list of pictures
STANDARD = ("max_box_acc", "max_box_acc_v2", "pxap", "piou")

STYLE = """
:root { color-scheme: light dark; --paper: #faf9f6; --ink: #222228; --faint: #66666e;
  --line: #dddad2; --card: #ffffff; --strong: #00507f; }
@media (prefers-color-scheme: dark) { :root { --paper: #1b1a17; --ink: #ececf0; --faint: #a2a2ac;
  --line: #3a3a42; --card: #1f1f25; --strong: #7cc4f0; }
  img.chart { filter: invert(0.92) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { background: var(--paper); color: var(--ink); max-width: 62rem; margin: 0 auto;
  padding: 2rem 1.25rem 4rem; font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .6rem; }
p { margin: .5rem 0; max-width: 46rem; }
.faint, figcaption, dd, .note { color: var(--faint); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .8rem;
  margin: 1.5rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .8rem 1rem; }
.card b { display: block; font-size: 2rem; line-height: 1.25; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.card .note { font-size: .84rem; line-height: 1.4; margin-top: .25rem; }
.card.main { border: 2px solid var(--strong); }
.card.main b { color: var(--strong); }
.card.oracle { border-style: dashed; background: none; }
.card.oracle b, td.oracle, th.oracle { color: var(--faint); font-style: italic; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: .94rem; overflow-wrap: normal; }
th, td { padding: .38rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
th { font-weight: 600; }
thead th { color: var(--faint); font-size: .84rem; line-height: 1.3; vertical-align: bottom; }
th:first-child, td.text { text-align: left; }
tbody th { min-width: 12.5rem; font-weight: 500; }
tr.main > * { font-weight: 700; }
td.text { color: var(--faint); overflow-wrap: anywhere; min-width: 11rem; }
img { max-width: 100%; height: auto; }
img.chart { display: block; width: 100%; max-width: 44rem; margin: 1rem 0; border-radius: .4rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .9rem; }
figure { margin: 0; break-inside: avoid; }
figure img { display: block; width: 100%; border-radius: .3rem; }
figcaption { font-size: .84rem; line-height: 1.35; margin-top: .25rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .4rem;
  padding: .8rem 1rem; white-space: pre-wrap; font-size: .86rem; }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--strong); }
dt { font-family: ui-monospace, monospace; font-size: .88rem; margin-top: .7rem; }
dd { margin: 0 0 0 1.2rem; font-size: .92rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .8rem;
  color: var(--faint); font-size: .84rem; }
@media (max-width: 40rem) { body { padding: 1.2rem .8rem 3rem; } table { font-size: .86rem; }
  th, td { padding: .35rem .4rem; } tbody th { min-width: 6.5rem; } td.text { min-width: 9rem; } }
@media print { body { background: none; max-width: none; padding: 0; font-size: .8rem; }
  .cards { grid-template-columns: repeat(5, 1fr); }
  .tiles { grid-template-columns: repeat(3, 1fr); }
  details.print::details-content { content-visibility: visible; block-size: auto; }
  .wide { overflow: visible; } img.chart { width: auto; max-height: 21cm; }
  h2 { margin-top: 1.6rem; } footer { margin-top: 1rem; }
  h2, h3, summary, p.faint { break-after: avoid; } tr, .card, img { break-inside: avoid; } }
"""


def charts_of(figures):
    """Draws the charts of a scoring: dict of file name (no ending) -> uint8 RGB array.

    figures: what metrics.json holds. Without boxes there is no chart.
    """
    drawn = {}
    curves = figures["threshold_curves"]
    if curves is None:
        return drawn
    fixed = figures["threshold"] != "otsu"
    drawn["threshold_curves"] = charts.threshold_curves(
        curves["score_map_thresholds"],
        {level / 100: curves[f"gt_known_loc_iou_{level}"] for level in (30, 50, 70)},
        chosen=(figures["threshold"], figures["gt_known_loc"]) if fixed else None,
        oracle=(figures["oracle_threshold"], figures["gt_known_loc_oracle"]),
        levels={
            "best centred box": figures["baselines"]["centered_box_oracle"]["gt_known_loc"],
            "Otsu per map": figures["gt_known_loc_otsu"],
        },
    )
    drawn["outcomes"] = charts.outcome_bars(
        {_map_name(kind): row["outcomes"] for kind, row in _maps(figures)},
        {name: definitions.NAMES[name] for name in OUTCOMES},
    )
    drawn["per_class"] = charts.class_bars(
        figures["per_class"]["classes"], mean=figures["per_class"]["gt_known_loc"]
    )
    return drawn


def write_report(path, figures, drawn, tiles, *, title, command):
    """Writes the page.

    path: file to write; figures: what metrics.json holds; drawn: charts, see `charts_of`; tiles:
    dict of heading -> list of (uint8 picture [height, width, 3], caption), those of an outcome
    under its name, see `scoring.draw`; title: heading of the page; command: what made the figures.
    The file stays below 4 MB whatever the size of the data set: beyond 1,000 classes and 100
    pictures a list says how many more there are.
    """
    body = [
        _tag("p", "Weakly-supervised object localization, scored", class_="faint"),
        _tag("h1", title),
        _tag("p", _verdict(figures)),
        _cards(figures),
        *_compared(figures),
        *_standard(figures),
        *_thresholds(figures, drawn),
        *_sheet(figures, tiles),
        *_outcomes(figures, drawn, tiles),
        *_classes(figures, drawn),
        *_troubles(figures),
        *_made_by(figures, command),
        *_definitions(figures),
        _tag("footer", "Made by wsol_tf on ", f"{datetime.date.today():%d %B %Y}."),
    ]
    page = _tag(
        "html",
        _tag(
            "head",
            _tag("meta", charset="utf-8"),
            _tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            _tag("title", title),
            _tag("style", STYLE),
        ),
        _tag("body", _tag("main", *body)),
        lang="en",
    )
    text = ElementTree.tostring(page, encoding="unicode", method="html")
    # File names may hold bytes that are no text: those become character references.
    with open(path, "w", encoding="utf-8", errors="xmlcharrefreplace") as file:
        file.write(f"<!DOCTYPE html>\n{text}\n")


def _verdict(figures):
    """The scoring in two or three sentences."""
    if figures["gt_known_loc"] is None:
        return (
            f"{figures['num_pairs']} pairs of a picture and a class in it were scored. The data "
            "has no boxes, so nothing is said on them."
        )
    counts = figures["outcomes"]
    scored, right = sum(counts.values()), counts["right"]
    boxes = right + counts["wrong_class"]
    centred = figures["baselines"]["centered_box_oracle"]["gt_known_loc"]
    ahead = boxes - round(centred * scored)
    both = "" if figures["top1_loc"] is None else f"Box and class are right for {right}. "
    error = np.sqrt(figures["gt_known_loc"] * (1 - figures["gt_known_loc"]) / scored)
    return (
        f"The box is right for {boxes} of {scored} "
        f"{'pictures' if scored == figures['num_images'] else 'pairs of a picture and a class'}, "
        f"{abs(ahead)} {'more' if ahead >= 0 else 'fewer'} than the best centred box, which looks "
        f"at no picture. {both}With this many, the standard error of GT-known Loc is about "
        f"{error:.3f}."
    )


def _cards(figures):
    at = (
        "at Otsu's threshold of each map"
        if figures["threshold"] == "otsu"
        else f"at the fixed threshold {figures['threshold']:.2f}, {figures['threshold_from']}"
    )
    cards = []
    if figures["gt_known_loc"] is not None:
        centred = figures["baselines"]["centered_box_oracle"]
        cards += [
            ("main", "gt_known_loc", figures["gt_known_loc"], f"right boxes, {at}"),
            ("", "top1_loc", figures["top1_loc"], "right box and right class, same threshold"),
        ]
    cards += [
        ("", "top1_cls", figures["top1_cls"], "right class, boxes play no part"),
        ("", "miou_mask", figures["miou_mask"], at),
    ]
    if figures["gt_known_loc"] is not None:
        cards += [
            (
                "oracle",
                "gt_known_loc_oracle",
                figures["gt_known_loc_oracle"],
                f"upper bound: threshold {figures['oracle_threshold']:.2f} is the best on these "
                "very pictures",
            ),
            (
                "oracle",
                "Best centred box",
                centred["gt_known_loc"],
                f"baseline that looks at no picture: {centred['area_fraction']:.0%} of the view, "
                "the best on these very pictures",
            ),
        ]
    return _tag(
        "div",
        *(
            _tag(
                "div",
                _capital(definitions.NAMES.get(name, name)),
                _tag("b", _figure(value)),
                _tag("div", note, class_="note"),
                class_=f"card {kind}".strip(),
            )
            for kind, name, value, note in cards
            if value is not None
        ),
        class_="cards",
    )


def _compared(figures):
    """The table of this map, the other maps and the boxes that look at no picture."""
    if figures["gt_known_loc"] is None:
        return []
    names = ("gt_known_loc", "top1_loc", "top5_loc", "miou_box", "miou_mask")
    names = [name for name in names if figures[name] is not None]
    head = ["", *(definitions.NAMES[name] for name in names), "threshold"]
    head = [_tag("th", text) for text in head]
    head += [_tag("th", "oracle GT-known Loc", class_="oracle")]
    head += [_tag("th", "at threshold", class_="oracle")]
    rows = []
    for kind, row in _maps(figures):
        oracle = (_figure(row["gt_known_loc_oracle"]), _figure(row["oracle_threshold"], 2))
        rows.append(
            _tag(
                "tr",
                _tag("th", _map_name(kind)),
                *(_tag("td", _figure(row[name])) for name in names),
                _tag("td", _figure(row["threshold"], 2)),
                *(_tag("td", value, class_="oracle") for value in oracle),
                **({"class_": "main"} if row is figures else {}),
            )
        )
    centred = figures["baselines"]["centered_box_oracle"]
    for name, row, oracle in (
        ("whole view as box", figures["baselines"]["whole_view"], False),
        (f"best centred box ({centred['area_fraction']:.0%})", centred, True),
    ):
        kind = {"class_": "oracle"} if oracle else {}
        cells = [_tag("td", _figure(row.get(column)), **kind) for column in names]
        rows.append(_tag("tr", _tag("th", name), *cells, *(_tag("td", "–") for _ in range(3))))
    return [
        _tag("h2", "Beside its baselines"),
        _tag(
            "p",
            "A figure in slanted gray is an oracle: its threshold, or the size of its box, was "
            "chosen on the very pictures that it is measured on.",
            class_="faint",
        ),
        _table(head, rows),
    ]


def _standard(figures):
    """The metrics of Choe et al., where they were asked for, as standard_metrics gives them."""
    shown = []  # name, figure, threshold
    for name in STANDARD:
        metric = figures.get(name)
        if metric is None or metric["value"] is None:
            continue
        shown.append((definitions.NAMES[name], metric["value"], metric.get("threshold")))
        if name == "max_box_acc_v2":
            for level, row in metric["iou_levels"].items():
                shown.append((f"MaxBoxAccV2 at IoU {level}", row["accuracy"], row["threshold"]))
    if not shown:
        return []
    head = [_tag("th", text) for text in ("", "figure", "at threshold")]
    rows = []
    for name, *numbers in shown:
        kind = None if name == definitions.NAMES["pxap"] else "oracle"
        cells = (_tag("td", _figure(number), class_=kind) for number in numbers)
        rows.append(_tag("tr", _tag("th", name), *cells))
    note = (
        "As the standard code of the field computes them. MaxBoxAcc, MaxBoxAccV2 and pIoU take the "
        "threshold that is best on these very pictures, so they are oracles; PxAP needs none."
    )
    heading = "Standard metrics (Choe et al.)"
    return [_tag("h2", heading), _tag("p", note, class_="faint"), _table(head, rows)]


def _thresholds(figures, drawn):
    if "threshold_curves" not in drawn:
        return []
    text = (
        "The box is cut out of the score map at a threshold. Where the thick line is flat, the "
        "choice matters little."
    )
    if figures["threshold"] == "otsu":
        text += " Here each map has a threshold of its own, Otsu's, which needs no boxes."
    else:
        lost = figures["gt_known_loc_oracle"] - figures["gt_known_loc"]
        text += (
            f" The chosen threshold loses {lost:.3f} against the oracle, which nobody could have "
            "known beforehand."
            if lost > 0.0005
            else " The chosen threshold is as good as any on these pictures."
        )
    alt = "GT-known Loc against the score-map threshold, from IoU 0.3, 0.5 and 0.7 on"
    return [
        _tag("h2", "The choice of the threshold"),
        _tag("p", text, class_="faint"),
        _chart(drawn["threshold_curves"], alt),
    ]


def _outcomes(figures, drawn, tiles):
    if "outcomes" not in drawn:
        return []
    counts, names = figures["outcomes"], definitions.NAMES
    total = max(1, sum(counts.values()))
    rows = [
        _tag(
            "tr",
            _tag("th", names[name]),
            _tag("td", _value(counts[name], str(counts[name]))),
            _tag("td", f"{counts[name] / total:.0%}"),
            _tag("td", definitions.DEFINITIONS[name], class_="text"),
        )
        for name in OUTCOMES
    ]
    parts = [
        _tag("h2", "What went wrong"),
        _tag(
            "p",
            "Each pair is counted once, at the threshold above. The kinds of wrong boxes are those "
            "of TS-CAM's error analysis (Gao et al., ICCV 2021); unlike there, a wrong class does "
            "not hide what the box does.",
            class_="faint",
        ),
        _chart(drawn["outcomes"], "Shares of right boxes and of each kind of error, by score map"),
        _table([_tag("th", text) for text in ("", "pairs", "share", "")], rows),
    ]
    for name in OUTCOMES[1:]:
        if tiles.get(name):
            heading = f"{_capital(names[name])}: {len(tiles[name])} of {counts[name]}"
            parts += [_tag("h3", heading), _tiles(tiles[name])]
    return parts


def _sheet(figures, tiles):
    parts = []
    for heading, row in tiles.items():
        if heading not in OUTCOMES and row:
            parts += [_tag("h3", _capital(heading))] if heading else []
            parts.append(_tiles(row))
    if not parts:
        return []
    title, note = "Localizations", "Picture, score map, and mask with its box in cyan"
    if figures["gt_known_loc"] is not None:
        title, note = "Best, median and worst boxes", f"{note} and the true boxes dashed in white"
    return [_tag("h2", title), _tag("p", f"{note}.", class_="faint"), *parts]


def _classes(figures, drawn):
    classes = figures["per_class"]["classes"]
    columns = ("gt_known_loc", "top1_loc", "miou_box", "miou_mask", "top1_cls")
    columns = [name for name in columns if any(row[name] is not None for row in classes.values())]
    rows = [
        _tag(
            "tr",
            _tag("th", name),
            *(_tag("td", _figure(row[column])) for column in columns),
            _tag("td", str(row["num_pairs"])),
        )
        for name, row in list(classes.items())[:MOST_ROWS]
    ]
    head = [_tag("th", text) for text in ("", *(definitions.NAMES[c] for c in columns), "pairs")]
    parts = [_tag("h2", "Class by class")]
    if drawn.get("per_class") is not None:
        parts.append(_chart(drawn["per_class"], "GT-known Loc and Top-1 Loc of each class"))
    title = f"All figures of {len(rows)} classes"
    if len(classes) > len(rows):
        title += f"; metrics.json has the other {len(classes) - len(rows)}"
    printed = "print" if len(rows) <= charts.MOST_CLASSES else None
    table = _tag("details", _tag("summary", title), _table(head, rows), class_=printed)
    return [*parts, table]


def _troubles(figures):
    """What was left out or broken, named."""
    parts = []
    if figures["skipped"]:
        named = [f"{name}: {reason}" for name, reason in figures["skipped"].items()]
        parts += _named("that could not be read, not counted", named)
    for key, what in (
        ("bad_maps", "without a score map, or with NaN or infinity in it, counted as missed"),
        (
            "bad_scores",
            "without class scores, or with NaN or infinity in them, the class counted as wrong",
        ),
        ("constant_maps", "with one value everywhere in the score map: the box is the whole view"),
        ("pairs_without_box", "with an object outside of the view, counted as missed"),
        ("duplicates", "that came twice, counted once"),
    ):
        if figures[key]:
            parts += _named(what, figures[key])
    for stored in ("score_maps", "class_scores"):
        found = figures.get(stored, {})
        for key in ("missing", "unreadable", "outside_0_1", "unused"):
            if found.get(key):
                names = found[key]
                if isinstance(names, dict):
                    names = [f"{name}: {reason}" for name, reason in names.items()]
                what = f"in {stored}, {key}: {definitions.DEFINITIONS[key]}"
                parts += _named(what, names, noun="name")
    if not parts:
        parts = [_tag("p", "Nothing: every picture was read and every score map is sound.")]
    return [_tag("h2", "What was left out or broken"), *parts]


def _named(what, names, noun="picture"):
    shown = [_tag("li", name) for name in names[:MOST_NAMES]]
    if len(names) > MOST_NAMES:
        shown.append(_tag("li", f"and {len(names) - MOST_NAMES} more, see metrics.json"))
    summary = _tag("summary", f"{len(names)} {noun}{'' if len(names) == 1 else 's'} {what}")
    return [_tag("details", summary, _tag("ul", *shown), class_="print")]


def _made_by(figures, command):
    names = ("model", "scored_on", "view", "map", "threshold", "threshold_from", "num_images",
             "num_pairs")  # fmt: skip
    rows = [
        _tag(
            "tr",
            _tag("th", name),
            _tag("td", _value(figures[name], str(figures[name])), class_="text"),
            _tag("td", definitions.DEFINITIONS[name], class_="text"),
        )
        for name in names
        if name in figures
    ]
    return [_tag("h2", "How it was made"), _tag("pre", command), _table([], rows)]


def _definitions(figures):
    terms = []
    for name, text in definitions.of(figures).items():
        terms += [_tag("dt", name), _tag("dd", text)]
    summary = _tag("summary", "What every name in metrics.json means")
    return [_tag("h2", "Definitions"), _tag("details", summary, _tag("dl", *terms))]


def _maps(figures):
    return [(figures["map"], figures), *figures["other_maps"].items()]


def _capital(text):
    return text[:1].upper() + text[1:]


def _map_name(kind):
    return definitions.MAP_NAMES.get(kind, kind)


# --- markup --------------------------------------------------------------------------------------


def _tag(name, /, *children, class_=None, **attributes):
    """Makes an element of texts and elements."""
    element = ElementTree.Element(name, attributes)
    if class_:
        element.set("class", class_)
    for child in children:
        if not isinstance(child, str):
            element.append(child)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + child
        else:
            element.text = (element.text or "") + child
    return element


def _table(head, rows):
    parts = [_tag("thead", _tag("tr", *head))] if head else []
    return _tag("div", _tag("table", *parts, _tag("tbody", *rows)), class_="wide")


def _figure(value, digits=3):
    """A number as it is read, with all of its digits kept in the markup."""
    if value is None:
        return "–"
    return _value(value, value if isinstance(value, str) else f"{value:.{digits}f}")


def _value(value, shown):
    return _tag("data", shown, value=str(value))


def _chart(array, alt):
    # Few colours are enough for a chart, and make the file a third as large.
    image = Image.fromarray(array).quantize(64, dither=Image.Dither.NONE)
    return _tag("img", src=_data_uri(image, "png", optimize=True), alt=alt, class_="chart")


def _tiles(row):
    return _tag(
        "div",
        *(
            _tag(
                "figure",
                _tag("img", src=_data_uri(Image.fromarray(tile), "jpeg", quality=85), alt=caption),
                _tag("figcaption", caption),
            )
            for tile, caption in row
        ),
        class_="tiles",
    )


def _data_uri(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
