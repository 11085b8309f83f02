"""A timeline as one page: the film, the curve of surprise below it, and the moments that stand out."""

from __future__ import annotations

import base64
import io
import tempfile
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from ami.data.video import write_film
from ami.evaluation.style import document
from ami.evaluation.timeline import Film, Moment, Timeline

_WIDE, _HIGH = 1000.0, 220.0  # of the drawing, in its own units; the page stretches it
_STRIP = 12  # pictures under the curve
_STYLE = """
video { display: block; width: 100%; max-width: 420px; border-radius: 8px; background: #000; }
.which { margin: 22px 0 0; } .curve { margin: 4px 0 6px; } .curve svg { width: 100%; height: 220px; cursor: pointer; }
.curve path { fill: none; stroke: var(--series0); stroke-width: 2px; vector-effect: non-scaling-stroke; }
.curve line { stroke: var(--line); vector-effect: non-scaling-stroke; }
.curve line.moment { stroke: var(--series1); stroke-dasharray: 3 3; } .curve line.now { stroke: var(--ink); }
.labels { position: relative; height: 1.4em; color: var(--soft); font-size: 0.8rem; }
.labels span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.labels span:first-child { transform: none; } .labels span:last-child { transform: translateX(-100%); }
.strip { display: flex; } .strip img { display: block; width: calc(100% / var(--frames)); }
.moments { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 18px; }
.moments figure { margin: 0; } .moments img { width: 100%; border-radius: 6px; display: block; }
"""
_SCRIPT = """
const film = document.querySelector("video"), plot = document.querySelector(".curve svg");
const now = plot.querySelector(".now"), seconds = Number(plot.dataset.seconds), wide = Number(plot.dataset.wide);
function show() {
  const x = film.currentTime / seconds * wide;
  now.setAttribute("x1", x); now.setAttribute("x2", x);
  requestAnimationFrame(show);
}
plot.addEventListener("click", event => {
  const box = plot.getBoundingClientRect();
  film.currentTime = (event.clientX - box.left) / box.width * seconds;
});
show();
"""


def page(timeline: Timeline, frames: Film, rate: float, checkpoint: str) -> str:
    """The whole HTML document. ``frames`` are shown, ``rate`` a second; nothing is fetched from anywhere."""
    seconds = len(frames) / rate
    moments = "".join(_moment(each, frames, rate) for each in timeline.moments)
    lead = (
        "How badly each step fits what the model expected of it, in deviations above what is ordinary. "
        f"Calibrated on {'this film itself' if timeline.calibrated_on == 'itself' else 'other, ordinary films'}. "
        "A click on the curve shows the film there."
    )
    body = f"""<header>
<p class="kicker">AMI watches</p>
<h1>{escape(timeline.film)}</h1>
<p class="said">{lead} Checkpoint <code>{escape(checkpoint[:12])}</code>.</p>
</header>
<main>
<video controls muted playsinline src="{_mp4(frames, rate)}"></video>
{_curve(timeline, seconds)}
<div class="strip" style="--frames: {_STRIP}" aria-hidden="true">{_strip(frames)}</div>
<section><h2>What stands out</h2>
<div class="moments">{moments or "<p>Nothing does.</p>"}</div></section>
</main>
"""
    return document(f"AMI watches {timeline.film}", body, style=_STYLE, script=_SCRIPT)


def _curve(timeline: Timeline, seconds: float) -> str:
    """The curve over the film's whole length, with 0 (ordinary) drawn in and each moment marked."""
    judged = [(t, v) for t, v in zip(timeline.times, timeline.surprise, strict=True) if v is not None]
    low, high = min(-1.0, *(v for _, v in judged)), max(1.0, *(v for _, v in judged))

    def x(time: float) -> float:
        return round(_WIDE * time / seconds, 2)

    def y(value: float) -> float:
        return round(_HIGH * (high - value) / (high - low), 2)

    path = "M" + "L".join(f"{x(t)} {y(v)}" for t, v in judged)
    marks = "".join(
        f'<line class="moment" x1="{x(each.time)}" x2="{x(each.time)}" y1="0" y2="{_HIGH}"/>'
        for each in timeline.moments
    )
    ticks = "".join(f'<span style="left: {20 * k}%">{seconds * k / 5:.1f} s</span>' for k in range(6))
    said = f"surprise from {low:.1f} to {high:.1f} deviations over {seconds:.1f} seconds"
    return f"""<p class="which">surprise, {low:.1f} to {high:.1f} deviations; the level line is what is ordinary</p>
<div class="curve"><svg viewBox="0 0 {_WIDE:g} {_HIGH:g}" preserveAspectRatio="none" role="img" aria-label="{said}"
data-seconds="{seconds}" data-wide="{_WIDE:g}"><line x1="0" x2="{_WIDE:g}" y1="{y(0)}" y2="{y(0)}"/>{marks}
<path d="{path}"/><line class="now" x1="0" x2="0" y1="0" y2="{_HIGH:g}"/></svg></div>
<div class="labels">{ticks}</div>"""


def _moment(moment: Moment, frames: Film, rate: float) -> str:
    frame = min(round(moment.time * rate), len(frames) - 1)
    picture = _jpeg(frames[frame])
    said = (
        f"<b>{moment.time:.1f} s</b> <small>{moment.surprise:.1f} deviations, "
        f"{moment.stands_out:.1f} above its neighbours</small>"
    )
    return (
        f'<figure><img alt="the film at {moment.time:.1f} s" src="{picture}"><figcaption>{said}</figcaption></figure>'
    )


def _strip(frames: Film) -> str:
    """Each picture is from the middle of the stretch of the curve that it stands below."""
    chosen = (np.arange(_STRIP) + 0.5) * len(frames) / _STRIP
    return "".join(f'<img alt="" src="{_jpeg(frames[int(k)])}">' for k in chosen)


def _jpeg(picture: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, format="jpeg", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _mp4(frames: Film, rate: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_film(path, np.ascontiguousarray(frames), rate)
        return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
