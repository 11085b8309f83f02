"""The pictures of a report: SVG in the page's CSS colours, so that one drawing serves light and dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ami.types import Interval

MODEL = "model"  # the name of the checkpoint's own row where it stands among baselines
PERCENT = {"%": 1.0, "fraction": 100.0, "share": 100.0, "proportion": 100.0}  # factor from a unit to percent
# Matplotlib writes literal colours: these stand for CSS variables. series0 is the model; the page gives the others a
# palette that colour-blind people can tell apart, and every series also has a shape of its own.
PAINT = {f"series{i}": f"#01000{i}" for i in range(9)} | {
    "ink": "#010010",
    "soft": "#010020",
    "line": "#010030",
    "card": "#010040",
}
MARKERS = "oD^sxv+<>"
SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z",
    "M0-5.5L5.5 0 0 5.5-5.5 0Z",
    "M0-5L5 4H-5Z",
    "M-4-4H4V4H-4Z",
    "M-4-4L4 4M4-4L-4 4",
    "M0 5L5-4H-5Z",
    "M-5 0H5M0-5V5",
    "M-5 0L4-5V5Z",
    "M5 0L-4-5V5Z",
)
POINTS_DRAWN = 150  # of a training curve; longer ones are cut in so many stretches


def amount(value: float, unit: str) -> str:
    """A number as people read it: fractions become percent; the unit follows."""
    if unit in PERCENT:
        return f"{number(value, unit)} %"
    return f"{number(value, unit)} {unit}".rstrip()


def number(value: float, unit: str) -> str:
    """A number as ``amount`` writes it, without its unit."""
    if unit in PERCENT:
        return f"{value * PERCENT[unit]:.1f}"
    if abs(value) < 10:
        return f"{round(value, 3) + 0.0:.3f}"
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def span(values: Sequence[Interval], unit: str) -> tuple[float, float]:
    """The ends of an axis that holds all of ``values``: 0 to 100 % for a share, else from 0 past the furthest."""
    if unit in PERCENT:
        return 0.0, 100.0 / PERCENT[unit]
    low, high = min([0.0, *(v.low for v in values)]), max([0.0, *(v.high for v in values)])
    step = 10.0 ** math.floor(math.log10((high - low) or 1.0)) / 2
    return math.floor(low / step) * step, math.ceil(high / step) * step or 1.0


def symbol(series: int) -> str:
    """A series' mark alone, for a legend."""
    return f'<svg class="key" aria-hidden="true" viewBox="-8 -8 16 16">{_shape(series)}</svg>'


def whisker(values: Mapping[int, Interval], ends: tuple[float, float]) -> str:
    """One line of a dot plot: each series' mark at its value, the first drawn last, and with its interval.

    Places are percentages, so the plot takes whatever width the page has and marks keep their size. It says nothing
    to a screen reader: the numbers stand beside it.
    """
    ticks = "".join(f'<line class="tick" x1="{x}%" x2="{x}%" y1="0" y2="100%"/>' for x in (2, 26, 50, 74, 98))
    first = next(iter(values))
    held = values[first]
    low, high = (_place(end, ends) for end in (held.low, held.high))
    bar = f'<line class="bar s{look(first)[0]}" x1="{low}%" x2="{high}%" y1="50%" y2="50%"/>'
    marks = "".join(
        f'<svg x="{_place(held.value, ends)}%" y="50%" overflow="visible">{_shape(series)}</svg>'
        for series, held in reversed(list(values.items()))
    )
    return f'<svg class="whisker" aria-hidden="true">{ticks}{bar}{marks}</svg>'


def axis(ends: tuple[float, float], unit: str) -> str:
    """The scale below a column of whiskers: its two ends and its middle."""
    at = ((2, ends[0]), (50, sum(ends) / 2), (98, ends[1]))
    factor = PERCENT.get(unit, 1.0)
    text = "".join(f'<text x="{x}%" y="11" text-anchor="middle">{value * factor:.3g}</text>' for x, value in at)
    return f'<svg class="axis" aria-hidden="true">{text}</svg>'


def by_distance(bins: Sequence[Mapping[str, Any]], unit: str, series: Mapping[str, int], title: str) -> str:
    """Success by the distance to the goal; one line with whiskers per row of the bins."""
    factor = PERCENT.get(unit, 1.0)
    figure = Figure(figsize=(4.8, 2.9), layout="constrained")
    axes = figure.subplots()
    names = [name for name in series if any(name in held["rows"] for held in bins)]
    said = []
    for place, name in reversed(list(enumerate(names))):  # the model last, on top
        at = [i for i, held in enumerate(bins) if name in held["rows"]]
        rows = [bins[i]["rows"][name] for i in at]
        value, low, high = (np.array([row[key] for row in rows]) * factor for key in ("value", "low", "high"))
        x = np.array(at) + 0.09 * (place - (len(names) - 1) / 2)  # side by side, so that whiskers do not hide whiskers
        (shape, full), own = look(series[name]), series[name] == 0
        colour = PAINT[f"series{shape}"]
        axes.plot(x, value, color=colour, linewidth=2.2 if own else 1.1, linestyle="-" if own else (0, (4, 2)))
        axes.vlines(x, low, high, color=colour, linewidth=2.0 if own else 1.1)
        fill = colour if full else PAINT["card"]
        axes.plot(x, value, MARKERS[shape], color=colour, markerfacecolor=fill, markersize=6.5 if own else 5.5)
        said.insert(0, f"{name}: " + ", ".join(number(v, "%" if unit in PERCENT else unit) for v in value))
    labels = [f"{held['low']:g}–{held['high']:g}" for held in bins]
    axes.set_xticks(range(len(bins)), [f"{label}\nn = {held['n']}" for label, held in zip(labels, bins, strict=True)])
    axes.set_xlim(-0.5, len(bins) - 0.5)
    axes.set_xlabel(f"distance to the goal, {bins[0]['unit']}", color=PAINT["soft"], fontsize=9)
    if unit in PERCENT:
        axes.set_ylim(-3, 103)
        axes.set_yticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
    _quiet(figure)
    return _svg(figure, f"{title} for goals {', '.join(labels)} {bins[0]['unit']} away. {'. '.join(said)}.")


def curve(steps: Sequence[float], values: Sequence[float], name: str) -> str:
    """One number during training. A long curve shows means of equal stretches in a band from least to most.

    The scale is logarithmic where every value is positive and they span a factor of thirty.
    """
    parts = np.array_split(np.arange(len(steps)), min(len(steps), POINTS_DRAWN))
    x, y = np.asarray(steps, float), np.asarray(values, float)
    middle = [x[part].mean() for part in parts]
    figure = Figure(figsize=(2.9, 1.6), layout="constrained")
    axes = figure.subplots()
    if len(parts) < len(y):
        least, most = [y[part].min() for part in parts], [y[part].max() for part in parts]
        axes.fill_between(middle, least, most, color=PAINT["series0"], alpha=0.2, linewidth=0)
    axes.plot(middle, [y[part].mean() for part in parts], color=PAINT["series0"], linewidth=1.8)
    axes.set_xlim(x[0], max(x[-1], x[0] + 1))
    if y.min() > 0 and y.max() / y.min() >= 30:
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    _quiet(figure)
    return _svg(figure, f"{name} from {number(y[0], '')} at step {x[0]:g} to {number(y[-1], '')} at step {x[-1]:g}")


def beside(curves: Mapping[str, np.ndarray], moment: int | None, title: str) -> str:
    """A number for each frame of films that lie above one another, as wide as they are; a line where they part."""
    count = len(next(iter(curves.values())))
    figure = Figure(figsize=(0.7 * count, 1.5))
    figure.subplots_adjust(0.0, 0.05, 1.0, 0.95)
    axes = figure.subplots()
    for series, (name, values) in enumerate(curves.items()):
        axes.plot(np.arange(count) + 0.5, values, color=PAINT[f"series{series}"], linewidth=2.0, label=name)
    if moment is not None:
        axes.axvline(moment, color=PAINT["soft"], linewidth=1.0)
    axes.set_xlim(0, count)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(loc="upper left", frameon=False, labelcolor=PAINT["ink"])
    _quiet(figure)
    highest = {name: int(np.nanargmax(values)) for name, values in curves.items()}
    said = ", ".join(f"{name}: highest at frame {frame + 1}" for name, frame in highest.items())
    return _svg(figure, f"{title}: surprise frame by frame. {said}.")


def _place(value: float, ends: tuple[float, float]) -> float:
    """In percent of the width; what is beyond an end of the axis lies at its edge, and its number says what it is."""
    return round(min(max(2.0 + 96.0 * (value - ends[0]) / (ends[1] - ends[0]), 0.0), 100.0), 2)


def look(series: int) -> tuple[int, bool]:
    """Which shape and colour a series has, and whether it is filled: the model's own, and every second round."""
    if not series:
        return 0, True
    again, place = divmod(series - 1, len(SHAPES) - 1)
    return 1 + place, again % 2 == 1


def _shape(series: int) -> str:
    place, full = look(series)
    return f'<path class="mark s{place}{" full" if full else ""}" d="{SHAPES[place]}"/>'


def _quiet(figure: Figure) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(PAINT["line"])
        axes.grid(axis="y", color=PAINT["line"], linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", length=0, labelcolor=PAINT["soft"], labelsize=9)


def _svg(figure: Figure, label: str) -> str:
    """The figure as inline SVG: text stays text in the page's font, nothing depends on the clock."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(
            text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    drawn = text.getvalue()
    for name, colour in PAINT.items():
        drawn = drawn.replace(colour, f"var(--{name})")
    drawn = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", drawn)
    drawn = re.sub(r"<g id=\"[^\"]*\"", "<g", drawn)  # figure_1, axes_1, …: would be doubled on the page
    # A style inside an inline SVG rules the whole page.
    drawn = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", drawn, flags=re.S)
    box = re.search(r'viewBox="[^"]*"', drawn)
    assert box is not None
    inside = drawn[drawn.index(">", drawn.index("<svg")) + 1 :].strip()
    return f'<svg class="chart" role="img" aria-label="{escape(label)}" {box.group()}>\n{inside}'
