"""Two futures as one page: pictures of both beside what was recorded, and the numbers of each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ami.evaluation.futures import Film
from ami.evaluation.page import png
from ami.evaluation.style import document

_STYLE = """
.numbers { margin-top: 40px; } .numbers td, .numbers thead th { white-space: nowrap; text-align: left; }
.at { display: flex; gap: 3px; color: var(--soft); font-size: 0.78rem; }
.at span { width: clamp(56px, calc((min(100vw, 1080px) - 90px) / (var(--frames) + 1) - 4px), 128px); }
"""


def page(
    held: Mapping[str, Any],
    pictures: tuple[Sequence[int], Mapping[str, Film]],
    numbers: Sequence[Sequence[str]],
    said: Sequence[str],
) -> str:
    """The whole HTML document; nothing is fetched from anywhere.

    ``pictures`` are of some steps, from 1, row by row; ``numbers`` are rows of text below a row of names.
    """
    steps, rows = pictures
    title = f"What if {held['what_if']}?"
    film = "".join(_row(name, film) for name, film in rows.items())
    times = "".join(f"<span>{held['times'][step - 1]:.1f} s</span>" for step in steps)
    head, *body = numbers
    cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    body = f"""<header>
<p class="kicker">AMI imagines</p>
<h1>{escape(title)}</h1>
<p class="said">Episode {held["episode"]} of {escape(held["store"]["folder"])}, believed up to step {held["start"]}.
What is imagined is shown by the recorded moment of the store that the model perceives as most alike. Checkpoint
<code>{escape(held["checkpoint"][:12])}</code>.</p>
</header>
<main>
<figure class="film"><div class="reel" style="--frames: {len(steps)}"><div class="rows"><div class="at">{times}</div>
{film}</div></div></figure>
<section class="numbers"><h2>Step by step</h2><ul>{"".join(f"<li>{escape(line)}</li>" for line in said)}</ul>
<table><thead><tr>{"".join(f"<th scope=col>{escape(cell)}</th>" for cell in head)}</tr></thead>
<tbody>{cells}</tbody></table></section>
</main>
"""
    return document(title, body, style=_STYLE)


def _row(name: str, film: Film) -> str:
    frames = "".join(f'<img alt="" width="{f.shape[1]}" height="{f.shape[0]}" src="{png(f)}">' for f in film)
    return (
        f'<span class="which">{escape(name)}</span>'
        f'<div class="frames" role="img" aria-label="{escape(name)}, {len(film)} frames">{frames}</div>'
    )
