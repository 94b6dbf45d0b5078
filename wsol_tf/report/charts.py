"""Charts for people: the curves of a training, and what a scoring found.

Numbers in, uint8 RGB arrays [height, width, 3] out; no files are read or written. Readers who are
colour-blind can tell the colours apart, and dashes tell lines apart where a chart is printed in
gray.
"""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

PAPER, INK, FAINT, GRID = "#faf9f6", "#222228", "#66666e", "#dddad2"
TERM_COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#cc79a7", "#009e73", "#7a5c00")
LEVEL_STYLES = (("#3f9fd8", (0, (6, 2))), ("#00507f", "-"), ("#d55e00", (0, (2, 1.5))))
MAIN_LEVEL = LEVEL_STYLES[1][0]  # colour of IoU 0.5, the level of all marks
# Right is blue, the right box of a wrong class a pale blue, all that is wrong with a box warm.
OUTCOME_COLOURS = ("#0072b2", "#8cc8ec", "#e69f00", "#d55e00", "#8a4b9c", "#b9b6ad")
DARK_COLOURS = ("#0072b2", "#d55e00", "#8a4b9c")  # on these, text is light
GT_KNOWN_COLOUR, TOP1_COLOUR = "#8cc8ec", "#0072b2"
TEXT_BACKGROUND = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}
WIDTH = 6.6  # inches at 150 dpi: text stays legible where a phone shrinks the chart
MOST_CLASSES = 50  # More than that are drawn as a curve over all, with the ends named.
NUM_NAMED = 20  # of the best and of the worst classes, where there are more than MOST_CLASSES

ClassRow = tuple[str, float, float | None, int]  # name, GT-known Loc, Top-1 Loc, pairs


def training_curves(
    history: Mapping[str, Sequence[float]], weights: Mapping[str, float]
) -> np.ndarray:
    """Plots a training: the loss and its weighted terms by epoch, and the scores beside them.

    Terms are drawn times their weight, so that they show what they contribute. Every 'val_' curve
    is dashed, and cut off where it rises far above all others.

    Args:
        history: dict of name -> one value per epoch, as Keras's History has it: 'loss', the terms,
            and scores, with 'val_' in front for validation. Whatever is neither the loss nor a term
            is a score, except for learning rates, which are left out.
        weights: dict of term -> weight; a term of weight 0 is left out.

    Returns:
        uint8 `[height, width, 3]`.
    """
    figure = _new_figure(13, 5.2, dpi=110)
    losses_axes, scores_axes = figure.subplots(1, 2)
    colours = dict(zip(weights, itertools.cycle(TERM_COLOURS), strict=False))
    score_names = []
    for name, values in history.items():
        plain = name.removeprefix("val_")
        dashed = "--" if plain != name else "-"
        if plain == "loss":
            _plot_epochs(losses_axes, values, name, color=INK, linewidth=2.6, linestyle=dashed)
        elif plain in weights:
            if weights[plain]:
                label = name if weights[plain] == 1 else f"{name} × {weights[plain]:g}"
                scaled = np.asarray(values, float) * weights[plain]
                _plot_epochs(losses_axes, scaled, label, color=colours[plain], linestyle=dashed)
        elif plain not in ("learning_rate", "lr"):
            if plain not in score_names:
                score_names.append(plain)
            colour = TERM_COLOURS[score_names.index(plain) % len(TERM_COLOURS)]
            _plot_epochs(scores_axes, values, name, color=colour, linestyle=dashed)
    _finish_epochs(losses_axes, "Loss, and each term times its full weight")
    _finish_epochs(scores_axes, "Scores")
    if all(np.nanmin([*line.get_ydata(), np.inf]) >= 0 for line in losses_axes.lines):
        losses_axes.set_ylim(bottom=0)
        _cut_spikes(losses_axes)
    scores = [value for line in scores_axes.lines for value in line.get_ydata()]
    if all(not np.isfinite(value) or 0 <= value <= 1 for value in scores):
        scores_axes.set_ylim(0, 1.02)
    return _rendered(figure)


def threshold_curves(
    thresholds: Sequence[float],
    accuracies: Mapping[float, Sequence[float]],
    *,
    chosen: tuple[float, float] | None = None,
    oracle: tuple[float, float] | None = None,
    levels: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Plots the share of right boxes against the score-map threshold.

    Args:
        thresholds: `[num_thresholds]`, rising, in 0..1.
        accuracies: dict of box IoU (at most three) -> accuracy at each threshold.
        chosen: (threshold, accuracy) of the threshold that is used, at IoU 0.5.
        oracle: the same of the threshold that is best on these very pictures.
        levels: dict of name -> accuracy at IoU 0.5 that no threshold changes, drawn as thin lines.

    Returns:
        uint8 `[height, width, 3]`.
    """
    figure = _new_figure(WIDTH, 4.7)
    axes = figure.subplots()
    _style_axes(axes)
    styles = LEVEL_STYLES if len(accuracies) > 1 else LEVEL_STYLES[1:]
    for (level, values), (colour, dashes) in zip(accuracies.items(), styles, strict=False):
        width = 2.8 if colour == MAIN_LEVEL else 1.8
        axes.plot(thresholds, values, color=colour, linestyle=dashes, linewidth=width,
                  label=f"IoU {level:g} or more")  # fmt: skip
    _draw_levels(axes, levels or {})
    # The labels of the marks stand where no curve is.
    high, low = (0.97, 0.89) if max(map(max, accuracies.values())) < 0.7 else (0.11, 0.03)
    if chosen is not None:
        _mark_threshold(axes, "chosen", *chosen, high, marker="o", face=INK, dashes="-")
    if oracle is not None:
        _mark_threshold(axes, "oracle", *oracle, low, marker="D", face=PAPER, dashes=(0, (4, 3)))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("score-map threshold", color=FAINT)
    axes.set_title("Share of pairs whose box is right", loc="left", fontsize=12.5, pad=30)
    axes.legend(frameon=False, fontsize=10.5, loc="lower left", bbox_to_anchor=(-0.01, 1.0),
                ncols=3, borderaxespad=0.2, handlelength=2.4, columnspacing=1.2)  # fmt: skip
    return _rendered(figure)


def outcome_bars(rows: Mapping[str, Mapping[str, int]], names: Mapping[str, str]) -> np.ndarray:
    """Draws the outcomes of the pairs: one bar for each score map, cut into shares.

    Args:
        rows: dict of the map's name -> dict of outcome -> count.
        names: dict of outcome -> how people write it, in the order of OUTCOME_COLOURS.

    Returns:
        uint8 `[height, width, 3]`.
    """
    figure = _new_figure(WIDTH, 1.1 + 0.48 * len(rows))
    axes = figure.subplots()
    for y, counts in enumerate(rows.values()):
        total, left = max(1, sum(counts.values())), 0.0
        for outcome, colour in zip(names, OUTCOME_COLOURS, strict=True):
            share = counts[outcome] / total
            axes.barh(y, share, left=left, color=colour, height=0.72, edgecolor=PAPER)
            if share >= 0.055:
                ink = PAPER if colour in DARK_COLOURS else INK
                axes.text(left + share / 2, y, f"{share:.0%}", ha="center", va="center",
                          color=ink, fontsize=10)  # fmt: skip
            left += share
    _name_rows(axes, list(rows), fontsize=11)
    axes.set_xlim(0, 1)
    axes.xaxis.set_visible(False)
    patches = [
        Patch(color=c, label=n) for n, c in zip(names.values(), OUTCOME_COLOURS, strict=True)
    ]
    handles = [patches[i] for i in (0, 3, 1, 4, 2, 5)]  # legends go down, people read across
    figure.legend(handles=handles, frameon=False, fontsize=10, loc="outside upper left", ncols=3,
                  handlelength=1, handleheight=1, columnspacing=1.1, handletextpad=0.5)  # fmt: skip
    return _rendered(figure)


def class_bars(classes: Mapping[str, Mapping[str, Any]], *, mean: float) -> np.ndarray | None:
    """Draws GT-known Loc of each class, with Top-1 Loc inside of it, best first.

    Of more than 50 classes the 20 best and the 20 worst are named, and a curve shows all.

    Args:
        classes: dict of class name -> dict with gt_known_loc and top1_loc (0..1; Top-1 Loc is None
            without class scores) and num_pairs; classes whose gt_known_loc is None are left out.
        mean: GT-known Loc averaged over these classes, for the dashed line.

    Returns:
        uint8 `[height, width, 3]`; None when no class has a figure.
    """
    rows: list[ClassRow] = [
        (name, row["gt_known_loc"], row["top1_loc"], row["num_pairs"])
        for name, row in classes.items()
        if row["gt_known_loc"] is not None
    ]
    if not rows:
        return None
    # Of equal figures, that of more pictures says more: it stands further out at both ends.
    rows.sort(key=lambda row: (-row[1], -(row[2] or 0), -row[3], row[0]))
    worst_first = sorted(rows, key=lambda row: (row[1], row[2] or 0, -row[3], row[0]))
    if len(rows) <= MOST_CLASSES:
        figure = _new_figure(WIDTH, 1.3 + 0.27 * len(rows))
        _draw_bars(figure.subplots(), rows, mean)
    else:
        figure = _new_figure(WIDTH, 14.6)
        profile, best, worst = figure.subplots(3, 1, height_ratios=[3.4, 5.6, 5.6])
        _draw_profile(profile, rows, mean)
        _draw_bars(best, rows[:NUM_NAMED], mean)
        _draw_bars(worst, worst_first[:NUM_NAMED], mean)
        best.set_title(f"The {NUM_NAMED} best, best first", loc="left", fontsize=12)
        worst.set_title(f"The {NUM_NAMED} worst, worst first", loc="left", fontsize=12)
    handles = [Patch(color=GT_KNOWN_COLOUR, label="GT-known Loc")]
    if any(row[2] is not None for row in rows):
        handles.append(Patch(color=TOP1_COLOUR, label="Top-1 Loc: its class is right as well"))
    figure.legend(handles=handles, frameon=False, fontsize=10.5, loc="outside upper left", ncols=2,
                  handlelength=1, handleheight=1)  # fmt: skip
    return _rendered(figure)


def setting_curves(
    name: str, lines: Mapping[str, Sequence[tuple[float, float, float, float]]]
) -> np.ndarray:
    """Plots a figure in 0..1 against a setting, with intervals.

    Args:
        name: the setting.
        lines: name -> points (value of the setting, figure, low, high), rising by value.

    Returns:
        uint8 `[height, width, 3]`.
    """
    figure = _new_figure(WIDTH, 3.6)
    axes = figure.subplots()
    _style_axes(axes)
    values = sorted({point[0] for line in lines.values() for point in line})
    # Far apart by ratio, near each other by difference: then ratios are what one looks at.
    if values[0] > 0 and values[-1] >= 30 * values[0]:
        axes.set_xscale("log")
    for (label, line), colour in zip(lines.items(), itertools.cycle(TERM_COLOURS), strict=False):
        x, mean, low, high = np.array(line, float).T
        axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.errorbar(x, mean, [np.maximum(mean - low, 0), np.maximum(high - mean, 0)],
                      color=colour, marker="o", capsize=3, label=_short(label, 60))  # fmt: skip
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    axes.set_ylim(max(-0.01, min(low, high - 0.1)), min(1.01, max(high, low + 0.1)))
    axes.set_xlabel(name, color=FAINT, parse_math=False)
    axes.set_title("GT-known Loc, with 95 % intervals", loc="left", fontsize=12)
    if any(lines) or len(lines) > 1:
        legend = figure.legend(frameon=False, fontsize=9.5, loc="outside lower left", ncols=2)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return _rendered(figure)


def difference_rows(heading: str, rows: Mapping[str, Any]) -> np.ndarray:
    """Plots differences with their intervals, one below the other, and where none would lie.

    Args:
        heading: what differs from what.
        rows: name -> a difference, see `studies.results.Difference`; coloured where it is shown.

    Returns:
        uint8 `[height, width, 3]`.
    """
    figure = _new_figure(WIDTH, 1.0 + 0.26 * len(rows))
    axes = figure.subplots()
    _style_axes(axes)
    _name_rows(axes, list(rows), 10)
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color=FAINT, linewidth=1)
    colours = {"better": OUTCOME_COLOURS[0], "worse": OUTCOME_COLOURS[3]}
    for i, row in enumerate(rows.values()):
        colour = colours.get(row.verdict, FAINT)
        axes.plot([row.low, row.high], [i, i], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(row.mean, i, "o", color=colour, markerfacecolor=colour if row.verdict in colours
                  else PAPER)  # fmt: skip
    axes.xaxis.set_major_formatter(
        lambda value, _: f"{value:+.2f}".replace("-", "−") if abs(value) > 1e-9 else "0"
    )
    figure.suptitle(_short(heading, 80), x=0.01, ha="left", fontsize=11.5, parse_math=False)
    return _rendered(figure)


def _plot_epochs(axes, values, label, **style):
    values = np.asarray(values, float)
    marker = "o" if len(values) < 3 else None
    axes.plot(np.arange(1, len(values) + 1), values, label=label, marker=marker, **style)


def _finish_epochs(axes, heading):
    axes.set_title(heading, loc="left", fontsize=13, color=INK, pad=10)
    axes.set_xlabel("epoch", color=FAINT)
    _style_axes(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if axes.lines:
        axes.legend(frameon=False, fontsize=9.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        axes.text(0.5, 0.5, "nothing recorded", ha="center", transform=axes.transAxes)


def _cut_spikes(axes):
    """Ends the axis above the training's curves where a few validation losses are far above."""

    def highest(dashed):
        lines = [line for line in axes.lines if (line.get_linestyle() == "--") is dashed]
        values = np.concatenate([[0.0], *(line.get_ydata() for line in lines)])
        return values[np.isfinite(values)].max()

    trained, validated = highest(False), highest(True)
    if 0 < 3 * trained < validated:
        axes.set_ylim(top=1.5 * trained)
        axes.text(
            0.99, 0.98, f"validation reaches {validated:.3g}, above this chart", ha="right",
            va="top", fontsize=9.5, color=FAINT, transform=axes.transAxes, bbox=TEXT_BACKGROUND,
        )  # fmt: skip


def _draw_levels(axes, levels):
    """Draws accuracies that no threshold changes, the highest with its name above the line."""
    names = sorted(levels.items(), key=lambda item: -item[1])
    for i, (name, value) in enumerate(names):
        axes.axhline(value, color=MAIN_LEVEL, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.annotate(f"{name} {value:.3f}", (1, value), (-4, -3 if i else 3), fontsize=9,
                      textcoords="offset points", ha="right", va="top" if i else "bottom",
                      color=MAIN_LEVEL, bbox=TEXT_BACKGROUND)  # fmt: skip


def _mark_threshold(axes, name, threshold, accuracy, height, *, marker, face, dashes):
    """Marks a threshold with a line and a point; its label stands at a height in 0..1."""
    axes.axvline(threshold, color=INK, linewidth=1, linestyle=dashes, zorder=1.5)
    axes.plot(threshold, accuracy, marker, color=INK, markersize=8, markerfacecolor=face,
              markeredgewidth=1.6, zorder=4)  # fmt: skip
    left = threshold > 0.6
    axes.annotate(f"{name} threshold {threshold:.2f}: {accuracy:.3f}", (threshold, height),
                  (-6 if left else 6, 0), textcoords="offset points", fontsize=10.5, color=INK,
                  ha="right" if left else "left", va="center", zorder=5,
                  bbox=TEXT_BACKGROUND)  # fmt: skip


def _draw_profile(axes, rows: list[ClassRow], mean: float):
    """Draws both figures of all classes, each sorted from the best class to the worst."""
    _style_axes(axes)
    order = np.linspace(0, 1, len(rows))
    for column, colour in ((1, GT_KNOWN_COLOUR), (2, TOP1_COLOUR)):
        values = sorted((row[column] or 0 for row in rows), reverse=True)
        axes.fill_between(order, values, color=colour, step="mid", linewidth=0)
    axes.axhline(mean, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["best", "", "median class", "", "worst"])
    axes.set_title(f"All {len(rows)} classes, each figure sorted by itself", loc="left",
                   fontsize=12)  # fmt: skip


def _draw_bars(axes, rows: list[ClassRow], mean: float):
    for y, (_, gt_known, top1, count) in enumerate(rows):
        axes.barh(y, gt_known, color=GT_KNOWN_COLOUR, height=0.78)
        axes.barh(y, top1 or 0, color=TOP1_COLOUR, height=0.42)
        shown = "" if top1 is None else f"{top1:.2f}"
        texts = (f"{gt_known:.2f}", 6, INK), (shown, 35, TOP1_COLOUR), (f"n {count}", 64, FAINT)
        for text, right, ink in texts:
            axes.annotate(text, (1, y), (right, 0), textcoords="offset points", va="center",
                          fontsize=9.5, color=ink, annotation_clip=False)  # fmt: skip
    _style_axes(axes)
    axes.axvline(mean, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(f"mean of classes {mean:.2f}", (mean, -0.6), (0, 2), fontsize=9, color=INK,
                  textcoords="offset points", ha="center", va="bottom")  # fmt: skip
    _name_rows(axes, [row[0] for row in rows], fontsize=10)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])


def _name_rows(axes: Axes, names: Sequence[str], fontsize: float):
    """Names rows from the top down; names are data, so a $ in them starts no formula."""
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), [_short(name) for name in names], parse_math=False)
    axes.tick_params(axis="y", labelsize=fontsize, colors=INK, length=0)
    axes.set_facecolor(PAPER)
    axes.spines[:].set_visible(False)


def _short(name: str, most: int = 28) -> str:
    # A folder's name may hold bytes that are no text, which fonts refuse.
    name = " ".join(str(name).encode(errors="replace").decode().split())
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _new_figure(width: float, height: float, dpi: int = 150) -> Figure:
    """Makes a figure of so many inches."""
    return Figure(figsize=(width, height), dpi=dpi, facecolor=PAPER, layout="constrained")


def _style_axes(axes):
    axes.set_facecolor(PAPER)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, length=0, pad=5)
    axes.spines[:].set_visible(False)


def _rendered(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)  # needs no display
    with warnings.catch_warnings():
        # A class may be named in a script that the font lacks: boxes stand there then.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
