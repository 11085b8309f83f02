"""The report as one page for people: no script, nothing fetched, readable in light, in dark, on a phone and aloud."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ami.evaluation import plots
from ami.evaluation.plots import MODEL
from ami.evaluation.strips import Beside, Strip
from ami.evaluation.style import document
from ami.types import Interval, Result

if TYPE_CHECKING:  # report.py writes the page, so it imports this file
    from ami.evaluation.report import Report

# What a reader who is new to these models needs to know of a curve, by a part of its name.
GAUGES = {
    "rank": "directions the latent uses; 1 would be collapse",
    "std": "spread of the latent; 0 would be collapse",
    "probe": "error of a linear reading of the state",
    "sigreg": "how far the latents are from a Gaussian",
    "inverse": "how badly the action is read off two latents",
    "loss": "what training minimises",
}


def page(report: Report) -> str:
    """The whole HTML document. All text is escaped; the page forbids itself to load anything."""
    series = _series(report.results)
    sections = (
        _glance(report.results, series),
        _questions(report.results, series),
        _distances(report.results, series),
        _films(report.strips),
        _curves(report),
        _reproduce(report),
        _notes(report.notes),
    )
    title = f"AMI report: {report.checkpoint.recipe} on {report.suite.name}"
    return document(title, f"{_head(report)}\n<main>\n{''.join(sections)}</main>\n")


def readable(name: str) -> str:
    """A machine's name as words: ``success_ever`` becomes ``success ever``."""
    return name.replace("_", " ")


def _series(results: Sequence[Result]) -> dict[str, int]:
    """The number of each name's mark, the same all over the page; the model's is 0."""
    names = {MODEL: 0}
    for result in results:
        for name in [*result.baselines, *(row for held in _bins(result) for row in held["rows"])]:
            names.setdefault(name, len(names))
    return names


def _bins(result: Result) -> Sequence[dict]:
    return (result.details or {}).get("by_distance", ())


def _all(result: Result) -> dict[str, Interval]:
    """The model's answer and, beside it, its baselines'."""
    return {MODEL: Interval(result.value, result.low, result.high), **result.baselines}


def _who(name: str) -> str:
    return "this model" if name == MODEL else readable(name)


def _head(report: Report) -> str:
    checkpoint, code = report.checkpoint, report.code
    spent = sum(report.cpu_seconds.values())
    made = f", made in {spent:,.0f} CPU-seconds of collecting and training" if spent else ""
    lead = (
        f"One world model with {checkpoint.parameters:,} parameters{made}. All of the numbers below are this one "
        "checkpoint’s, each with its interval and beside what simpler ways of doing the same would have scored."
    )
    stages = ", ".join(f"{readable(stage)} {seconds:,.0f}" for stage, seconds in report.cpu_seconds.items())
    facts = {
        "Checkpoint": f"<code>{_breakable(checkpoint.digest)}</code>",
        "Recipe": escape(checkpoint.recipe),
        "Suite": f"{escape(report.suite.name)} <code>{escape(report.suite.digest[:12])}</code>",
        "Code": f"AMI {escape(code.version)}" + (f" <code>{escape(code.commit[:12])}</code>" if code.commit else ""),
        "When": escape(report.created.replace("T", " ")),
        "Machine": escape(" · ".join(f"{readable(name)} {value}" for name, value in report.machine.items())),
        "CPU-seconds": f"{spent:,.0f} ({escape(stages)})" if stages else "",
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items() if value)
    doubt = ""
    if code.dirty:
        doubt = "The code held changes that are in no commit: these numbers cannot be traced to an exact version of it."
    elif not code.commit:
        doubt = "The commit of the code is not known: these numbers cannot be traced to an exact version of it."
    warning = f'<p class="warning"><strong>Not reproducible to the letter.</strong> {doubt}</p>' if doubt else ""
    return f"""<header>
<p class="kicker">AMI report</p>
<h1>What <em>{escape(checkpoint.recipe)}</em> can do</h1>
<p class="lead">{lead}</p>
{warning}<dl class="facts">{listed}</dl>
</header>"""


def _glance(results: Sequence[Result], series: dict[str, int]) -> str:
    """Every answer on one line. Answers in the same unit stand together on one scale, which is drawn below them."""
    units = dict.fromkeys("%" if result.unit in plots.PERCENT else result.unit for result in results)
    groups = []
    for unit in units:
        same = [result for result in results if result.unit == unit or (unit == "%" and result.unit in plots.PERCENT)]
        held = [interval for result in same for interval in _all(result).values()]
        lines = "".join(
            _line(
                result, series, plots.span(held, result.unit), first=i == 0 or result.benchmark != same[i - 1].benchmark
            )
            for i, result in enumerate(same)
        )
        scale = plots.axis(plots.span(held, unit), unit)
        groups.append(f'<tbody>{lines}<tr class="scale"><td></td><td class="plot">{scale}</td></tr></tbody>')
    table = f"""{_legend(series, series)}
<table class="glance"><thead><tr><th scope="col">question</th><th scope="col" class="plot">answer</th>
<th scope="col">value</th><th scope="col">interval</th><th scope="col">n</th></tr></thead>{"".join(groups)}</table>"""
    lead = "The dot is the model’s score and the bar its interval; a small mark is another way of doing the same task."
    return _section("At a glance", table, lead) if groups else ""


def _line(result: Result, series: dict[str, int], ends: tuple[float, float], *, first: bool) -> str:
    label = f"<b>{_breakable(result.benchmark)}</b> " if first else ""
    marks = {series[name]: held for name, held in _all(result).items()}
    return (
        f'<tr{" class=next" if first else ""}><th scope="row">{label}<span>{_metric(result)}</span></th>'
        f'<td class="plot">{plots.whisker(marks, ends)}</td>{_numbers(result, result.unit)}'
        f'<td class="n">{result.n:,}</td></tr>'
    )


def _legend(series: dict[str, int], names: Iterable[str]) -> str:
    shown = "".join(f"<li>{plots.symbol(series[name])}{escape(_who(name))}</li>" for name in series if name in names)
    return f'<ul class="legend">{shown}</ul>'


def _questions(results: Sequence[Result], series: dict[str, int]) -> str:
    """A card per benchmark: the model and each baseline, plot and numbers."""
    cards = []
    for benchmark in dict.fromkeys(result.benchmark for result in results):
        tables = "".join(_answer(result, series) for result in results if result.benchmark == benchmark)
        cards.append(f'<article class="card"><h3>{_breakable(benchmark)}</h3>{tables}</article>')
    return _section("Question by question", f'<div class="cards">{"".join(cards)}</div>') if cards else ""


def _answer(result: Result, series: dict[str, int]) -> str:
    ends = plots.span(list(_all(result).values()), result.unit)
    rows = []
    for name, held in _all(result).items():
        rows.append(
            f'<tr{" class=own" if name == MODEL else ""}><th scope="row">{escape(_who(name))}</th>'
            f'<td class="plot">{plots.whisker({series[name]: held}, ends)}</td>{_numbers(held, result.unit)}</tr>'
        )
    seeds = f"seed{'s' * (len(result.seeds) > 1)} {', '.join(map(str, result.seeds))}"
    cost = f"{plots.number(result.seconds, '')} s" + (
        f", {result.model_calls:,} model calls" if result.model_calls else ""
    )
    asked = f"n = {result.n:,} · {escape(result.interval)} · {seeds} · {cost}"
    columns = "".join(f'<th scope="col">{name}</th>' for name in ("who", "plot", "value", "interval"))
    return f"""<table><caption><b>{_metric(result)}</b>{asked}</caption>
<colgroup><col class="who"><col><col class="worth"><col class="between"></colgroup>
<thead class="hidden"><tr>{columns}</tr></thead>
<tbody>{"".join(rows)}</tbody>
<tfoot><tr><td></td><td class="plot">{plots.axis(ends, result.unit)}</td><td></td><td></td></tr></tfoot></table>"""


def _numbers(held: Interval | Result, unit: str) -> str:
    low, high = plots.number(held.low, unit), plots.number(held.high, unit)
    value = plots.amount(held.value, unit if unit in plots.PERCENT else "")  # other units stand beside the metric
    return f'<td class="value">{value}</td><td class="range">{low} to {high}</td>'


def _metric(result: Result) -> str:
    unit = "" if result.unit in plots.PERCENT or not result.unit else f", {result.unit}"
    return escape(readable(result.metric) + unit)


def _distances(results: Sequence[Result], series: dict[str, int]) -> str:
    charts, seen = [], set()
    for result in results:
        bins = _bins(result)
        if not bins:
            continue
        seen |= {name for held in bins for name in held["rows"]}
        title = f"{result.benchmark}, {readable(result.metric)}"
        drawn = plots.by_distance(bins, result.unit, series, title)
        caption = f"<b>{_breakable(result.benchmark)}</b> {escape(readable(result.metric))}"
        charts.append(f"<figure class=card><figcaption>{caption}</figcaption>{drawn}</figure>")
    body = f'{_legend(series, seen)}<div class="cards">{"".join(charts)}</div>'
    return _section("Further is harder", body, "Success by the distance to the goal.") if charts else ""


def _films(strips: Sequence[Strip | Beside]) -> str:
    acted = "".join(_film(each) for each in strips if isinstance(each, Strip))
    beside = "".join(_beside(each) for each in strips if isinstance(each, Beside))
    lead = (
        "Above, what happened, left to right. Below, the same stretch as the model imagined it, made visible by a "
        "small decoder. At the right, the goal, a picture like any other."
    )
    twins = "Each pair is alike up to the line, and then one of the two cannot be. Below, how surprised the model is."
    return (_section("Films", acted, lead) if acted else "") + (
        _section("Could this have happened?", beside, twins) if beside else ""
    )


def _reel(name: str, film: np.ndarray, what: str) -> str:
    frames = "".join(f'<img alt="" width="{f.shape[1]}" height="{f.shape[0]}" src="{png(f)}">' for f in film)
    said = escape(f"{what}, {len(film)} frames")
    return f'<span class="which">{escape(name)}</span><div class="frames" role="img" aria-label="{said}">{frames}</div>'


def _beside(films: Beside) -> str:
    drawn = "".join(_reel(name, film, f"{films.title}, {name}") for name, film in films.films.items())
    count = len(next(iter(films.films.values())))
    curve = plots.beside(films.curves, films.moment, films.title)
    return f"""<figure class="film">
<figcaption><b>{escape(films.title)}</b> {escape(films.caption)}</figcaption>
<div class="reel" style="--frames: {count}"><div class="rows">{drawn}{curve}</div></div>
</figure>"""


def _film(strip: Strip) -> str:
    rows = {"happened": strip.real} | ({} if strip.imagined is None else {"imagined": strip.imagined})
    drawn = [_reel(name, film, f"{strip.title}: what {name}") for name, film in rows.items()]
    height, width = strip.goal.shape[:2]
    goal = f'<img alt="{escape(strip.title)}: the goal" width="{width}" height="{height}" src="{png(strip.goal)}">'
    return f"""<figure class="film">
<figcaption><b>{escape(strip.title)}</b> {escape(strip.caption)}</figcaption>
<div class="reel" style="--frames: {len(strip.real)}"><div class="rows">{"".join(drawn)}</div>
<div class="goal"><span class="which">goal</span>{goal}</div></div>
</figure>"""


def _curves(report: Report) -> str:
    """A small chart per number that training logged, in the order in which they were first logged."""
    logged: dict[str, dict[float, float]] = {}
    for row in report.curves:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                logged.setdefault(name, {})[row["step"]] = float(value)  # a resumed run logs a step again
    charts = []
    for name, held in logged.items():
        if len(held) < 2:
            continue
        steps = sorted(held)
        values = [held[step] for step in steps]
        said = next((words for part, words in GAUGES.items() if part in name.lower()), "")
        ends = f"{plots.number(values[0], '')} → {plots.number(values[-1], '')}"
        caption = f"<b>{escape(readable(name))}</b> <span class=ends>{ends}</span> <small>{said}</small>"
        charts.append(
            f"<figure class=small><figcaption>{caption}</figcaption>{plots.curve(steps, values, name)}</figure>"
        )
    lead = (
        "By training step. A line is a mean over neighbouring steps, the band about it goes from the least to the most."
    )
    return _section("How it learned", f'<div class="smalls">{"".join(charts)}</div>', lead) if charts else ""


def _reproduce(report: Report) -> str:
    commands = escape("\n".join(report.commands))
    parts = [f"<pre><code>{commands}</code></pre>"] if commands else []
    parts += [f"<ul>{_items(report.protocol)}</ul>"] if report.protocol else []
    if report.provenance:
        rows = "".join(
            f'<tr><th scope="row">{escape(readable(name))}</th><td>{escape(str(value))}</td></tr>'
            for name, value in report.provenance.items()
        )
        parts.append(f"<details><summary>Where the checkpoint comes from</summary><table>{rows}</table></details>")
    return _section("Make it again", "".join(parts)) if parts else ""


def _notes(notes: Sequence[str]) -> str:
    return _section("What falls short", f"<ul>{_items(notes)}</ul>") if notes else ""


def _items(lines: Iterable[str]) -> str:
    return "".join(f"<li>{escape(line)}</li>" for line in lines)


def _section(title: str, body: str, lead: str = "") -> str:
    said = f'<p class="said">{lead}</p>' if lead else ""
    return f"<section><h2>{title}</h2>{said}{body}</section>\n"


def _breakable(name: str) -> str:
    """A long name that may break after a slash; a digest, after every eight characters."""
    if "/" in name:
        return escape(name).replace("/", "/<wbr>")
    return "<wbr>".join(escape(name[i : i + 8]) for i in range(0, len(name), 8))


def png(picture: np.ndarray) -> str:
    """A picture as an address that holds all of it."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
