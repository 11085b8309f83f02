"""How recordings become moments, and pictures questions."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from ami.data.crops import whole
from ami.data.episodes import Episode, Store
from ami.data.video import read_film
from ami.evaluation.films import film_side, passive, rate
from ami.memory.moment import Moment, Recalled, posed
from ami.memory.perceiving import perceive_stills
from ami.reasoning.surprise import Watching, energies
from ami.types import Clip, Latent, WorldModel

_QUALITY = 90  # of thumbnails: a 64 px picture takes about 2 kB
_SHOWN, _CAPTION = 160, 56  # px of a picture on a sheet, and of the lines below it
_LONG, _LATEST = 3e8, 2.5e11  # seconds: no film is as long as the years since 1970; and the last year that has a name


@dataclass(frozen=True)
class Recording:
    """Something to remember, read when it is its turn."""

    name: str  # of the episode
    source: str
    store: Store | None = None
    number: int = 0  # in the store

    def read(self, model: WorldModel) -> Episode:
        """Its frames, as the model sees them."""
        if self.store is not None:
            return self.store.read(self.number)
        return read_film(Path(self.source), size=film_side(model), fps=rate(model))


def recordings(paths: tuple[Path, ...], model: WorldModel) -> tuple[str, list[Recording]]:
    """What the paths name, and its one embodiment: stores, films, and folders of films."""
    from ami.cli.watching import films_in

    found: list[Recording] = []
    bodies: dict[str, Path] = {}
    for path in paths:
        if (path / "index.json").is_file():
            store = Store.open(path)
            found += [Recording(f"{path.resolve().name}/{k}", str(path), store, k) for k in range(len(store))]
            bodies[store.embodiment.name] = path
        else:
            found += [Recording(film.name, str(film)) for film in films_in([path])]
            bodies[passive(model).name] = path
    first: dict[str, str] = {}
    for each in found:
        if first.setdefault(each.name, each.source) != each.source:
            raise ValueError(
                f"{first[each.name]} and {each.source} would both be the episode '{each.name}'; rename one"
            )
    if len(bodies) != 1:
        said = " and ".join(f"{body!r} ({path})" for body, path in bodies.items()) or "nothing"
        raise ValueError(f"a memory holds what one embodiment saw, and {said} was named; name recordings of one")
    (body,) = bodies
    if body not in model.embodiments:
        raise ValueError(f"this model has not learned {body!r}; it knows {', '.join(sorted(model.embodiments))}")
    return body, found


def moments(model: WorldModel, body: str, recording: Recording, began: float) -> list[Moment]:
    """A recording, one moment for each step of the model: its last frame, and how surprising the step was."""
    episode, part = recording.read(model), model.part(body)
    clip = _steps(part, body, episode, recording.name)
    if clip is None:
        return []
    assert clip.video is not None
    pictures = clip.video[0, :, -1].permute(0, 2, 3, 1).numpy()
    surprise = _surprise(part, clip, episode)
    poses = [(None, None)] * clip.steps if clip.pose is None else map(posed, clip.pose[0].numpy())
    return [
        Moment(
            latent=latent,
            time=began + time,
            place=place,
            episode=recording.name,
            source=recording.source,
            surprise=None if math.isnan(energy) else energy,
            thumbnail=_jpeg(picture),
            turn=turn,
        )
        for latent, time, (place, turn), energy, picture in zip(
            perceive_stills(model, body, pictures), clip.times[0].tolist(), poses, surprise, pictures, strict=True
        )
    ]


def _steps(part: WorldModel, body: str, episode: Episode, name: str) -> Clip | None:
    """An episode in whole steps at the model's size; ``None`` where it is shorter than one."""
    if episode.video is None:
        raise ValueError(f"{name} has no video, and what is remembered is seen; record it with a camera")
    steps, size = len(episode) // part.frames, part.picture
    if not steps:
        return None
    last = slice(part.frames - 1, steps * part.frames, part.frames)
    video = torch.from_numpy(np.array(episode.video[: steps * part.frames]))
    clip = Clip(
        body,
        torch.from_numpy(episode.times[last].copy())[None],
        video.unflatten(0, (steps, part.frames)).permute(0, 1, 4, 2, 3)[None],
        pose=None if episode.pose is None else torch.from_numpy(episode.pose[last].copy())[None],
    )
    return clip if size is None else whole(clip, size)


@torch.no_grad()
def _surprise(part: WorldModel, clip: Clip, episode: Episode) -> list[float]:
    """The energy of each step after those before it, NaN where too few came before; in the model's own units."""
    watching = Watching()
    if episode.actions is None:
        judged = energies(part, clip, watching)[:, 0].tolist() if clip.steps >= watching.window else []
        return [math.nan] * (clip.steps - len(judged)) + judged
    actions = torch.from_numpy(np.array(episode.actions, np.float32))[None]
    seen, belief, felt = part.encode(clip), None, [math.nan]
    for step in range(clip.steps - 1):
        now, then = (Latent(seen.values[:, k : k + 1], seen.times[:, k : k + 1]) for k in (step, step + 1))
        belief = part.believe(belief, now, actions[:, step - 1 : step] if step else None, clip.embodiment)
        felt.append(part.energy(belief, actions[:, step : step + 1], then).item())
    return felt


def looked_at(model: WorldModel, body: str, thumbnails: list[bytes]) -> np.ndarray:
    """Thumbnails as a model perceives them."""
    side = model.part(body).picture or 64
    opened = (Image.open(io.BytesIO(thumbnail)).convert("RGB") for thumbnail in thumbnails)
    pictures = [picture if picture.size == (side, side) else picture.resize((side, side)) for picture in opened]
    return perceive_stills(model, body, np.stack([np.asarray(picture) for picture in pictures]))


def second(said: str) -> float:
    """A point in time: seconds, or a date and time (of UTC, where it says nothing else) since 1970."""
    try:
        return float(said)
    except ValueError:
        pass
    try:
        date = datetime.fromisoformat(said)
    except ValueError:
        raise ValueError(f"{said!r} is no time; give seconds, or a date as 2026-11-26T04:30") from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def said(second: float) -> str:
    """A point in time as people read it: seconds, or the date (of UTC) where the clock is that of the world."""
    if not _LONG < second < _LATEST:
        return f"{second:.2f} s"
    return datetime.fromtimestamp(second, UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")


def document(recalled: list[Recalled]) -> list[dict[str, Any]]:
    """What was recalled, for machines: all but the latents and the pictures."""
    return [
        {
            "moment": each.number,
            "distance": each.distance,
            "time": each.moment.time,
            "place": each.moment.place,
            "turn": each.moment.turn,
            "episode": each.moment.episode,
            "source": each.moment.source,
            "surprise": each.moment.surprise,
        }
        for each in recalled
    ]


def sheet(question: np.ndarray, recalled: list[Recalled]) -> bytes:
    """A PNG picture: what was asked, and beside it what came back, with when and how far."""
    cells = [(Image.fromarray(question), "asked", "")]
    for each in recalled:
        picture = each.moment.thumbnail
        shown = Image.open(io.BytesIO(picture)).convert("RGB") if picture else Image.new("RGB", (1, 1), "lightgrey")
        cells.append((shown, each.moment.episode, f"{said(each.moment.time)}\ndistance {each.distance:.3g}"))
    page = Image.new("RGB", (_SHOWN * len(cells), _SHOWN + _CAPTION), "white")
    pen = ImageDraw.Draw(page)
    for place, (picture, name, facts) in enumerate(cells):
        page.paste(picture.resize((_SHOWN - 8, _SHOWN - 8), Image.Resampling.BICUBIC), (place * _SHOWN + 4, 4))
        pen.text((place * _SHOWN + 4, _SHOWN), f"{name[-24:]}\n{facts}", fill="black")
    written = io.BytesIO()
    page.save(written, "PNG")
    return written.getvalue()


def _jpeg(picture: np.ndarray) -> bytes:
    written = io.BytesIO()
    Image.fromarray(picture).save(written, "JPEG", quality=_QUALITY)
    return written.getvalue()
