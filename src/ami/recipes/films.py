"""Learn from films alone: V-JEPA, which fills in what was hidden of a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from ami.data.crops import Crop, uncut, whole
from ami.data.episodes import Store
from ami.data.loader import Loader, Source
from ami.data.ranges import Ranged
from ami.evaluation.suites.real import known_ranges
from ami.models.vjepa import VJEPA, VJEPAConfig, sized
from ami.nn.precision import fast_precision
from ami.nn.video import RotaryBlock
from ami.objectives.masked import Masked, MaskedSettings
from ami.objectives.masks import Slots
from ami.objectives.points import PointSettings
from ami.recipes.common import by_embodiment, gauge_clips, left_out, sides
from ami.recipes.scale import rate
from ami.training.loop import Stage, drawn_from
from ami.training.optim import Optimisation
from ami.training.run import Recipe


@dataclass(frozen=True)
class FilmSettings:
    """All that decides what is learned from films."""

    size: str = "baby"  # the one dial: baby, tiny, small, base, large, huge, giant
    picture: int | None = None  # px on a side; as many as the size wants
    depth: int | None = None  # blocks of the encoder; as many as the size wants
    causal: bool = False  # whether a step hears only those before it
    precision: str = "auto"  # while it trains: "fp32", "bf16", or "auto": what this machine does fast
    # Least and greatest share of a real film's picture that a clip shows; None: all of it; as the size wants.
    crop: tuple[float, float] | Literal["auto"] | None = "auto"
    steps: int = 1800
    batch: int = 16  # clips of the most plentiful kind of film
    small_batch: int = 4  # and of every other kind
    objective: MaskedSettings | None = None  # as the size wants
    optimisation: Optimisation | None = None  # as the size and the batch want


# Few large tokens: a tube mask hides all of a small mover or none of it, so of films beside drawn ones whole slots are
# hidden, and it is asked where things are (ami.objectives.points). So at every size: in the time in which a small model
# learned to say so with an R² of 0.88, V-JEPA's own objective took it to 0.34 (docs/log.md). A teacher's tokens beside
# that (weight 0.3) soon were alike in all films, so only the predictor learns to fill in tokens: those of a hidden
# future are what surprise is measured against.
DRAWN = MaskedSettings(masks=(Slots(4),), masked=0.0, momentum=None, fill=1.0, own=1.0, points=PointSettings())
# Films that were recorded have more to tell than where a few movers are, and where there are no drawn ones beside them
# a baby's tokens are targets too, kept alive by SIGReg: a cut is told with an AUROC of 0.99 (docs/log.md). Larger sizes
# learn them as V-JEPA does.
RECORDED = replace(DRAWN, masked=1.0, gaussian=0.2, fill=0.0)
BABY_OPTIMISATION = Optimisation(rate=2.5e-3, warmup=50)
_DRAWN_RATE = 2.5e-3, 96  # and the width that it is for; it falls with the root of the width
BABY_DEPTH = 2  # blocks: more only made fewer steps in the same time
BABY_POINTS = 8  # of each of three finders: one in ten, by itself, misses a mover
OWN = 16  # numbers of each frame of a patch: what a splice changes, for points tell nothing of what a patch shows
VIDEO = FilmSettings()


def resolved(settings: FilmSettings, drawn: tuple[str, ...]) -> FilmSettings:
    """The settings with what the size, the machine and the films (which kinds are ``drawn``) decide."""
    baby = settings.size == "baby"
    precision = fast_precision() if settings.precision == "auto" else settings.precision
    objective = settings.objective or (DRAWN if drawn else RECORDED if baby else MaskedSettings())
    if objective.points is not None and not objective.points.fades:
        objective = replace(objective, points=replace(objective.points, fades=settings.steps, films=drawn))
    depth = settings.depth or (BABY_DEPTH if baby else None)
    crop = settings.crop if settings.crop != "auto" else None if baby else Crop.scale
    if (optimisation := settings.optimisation) is None:
        width = sized(settings.size, {}).width
        highest, narrow = _DRAWN_RATE
        fast = highest * (narrow / width) ** 0.5 if objective.points else rate(width, settings.batch)
        warmup = round(settings.steps / 20)
        optimisation = BABY_OPTIMISATION if baby else Optimisation(rate=fast, warmup=warmup, weight_decay=0.04)
    return replace(
        settings,
        precision=precision,
        depth=depth,
        objective=replace(objective, precision=precision),
        crop=crop,
        optimisation=optimisation,
    )


def video(stores: Sequence[Store], seed: int = 0, settings: FilmSettings = VIDEO) -> Recipe:
    """A V-JEPA from films, drawn or real: no labels, no actions."""
    found = by_embodiment(stores)
    settings = resolved(settings, drawn=tuple(name for name, store in found.items() if store.truth_names))
    objective, optimisation = settings.objective, settings.optimisation
    assert optimisation is not None
    for name, store in found.items():
        if store.embodiment.action_dim:
            raise ValueError(
                f"the recipe 'video' learns from films, which have no actions; {store.folder} holds '{name}'"
            )
    config = _config(found, settings)
    most = max(found.values(), key=lambda store: sum(info.length for info in store.episodes))
    batches = {name: settings.batch if store is most else settings.small_batch for name, store in found.items()}
    sources = [_source(store, config, settings, batches[name]) for name, store in found.items()]
    held = {name: sides(store)[1] for name, store in found.items()}

    def build() -> VJEPA:
        with drawn_from(seed):
            return VJEPA(config)

    clips = tuple(whole(clip, config.picture) for clip in gauge_clips(found, held, config.slots, config.tubelet))
    stage = Stage(
        "watch",
        settings.steps,
        lambda model: Masked(model, objective),
        lambda model: Loader(sources, seed),
        optimisation,
        weights={name: size / settings.batch for name, size in batches.items()},  # a clip counts alike, of any kind
        shared=RotaryBlock,
        gauge_clips=clips,
    )
    return Recipe(
        name="video",
        settings=asdict(settings),
        data={name: store.digest for name, store in found.items()},
        seed=seed,
        build=build,
        stages=(stage,),
        left_out=left_out(found, config.slots * config.tubelet),
    )


def _config(stores: Mapping[str, Store], settings: FilmSettings) -> VJEPAConfig:
    """A model whose steps are so many frames of each store as its size wants."""
    config = sized(settings.size, {name: store.embodiment for name, store in stores.items()}, picture=settings.picture)
    bodies = {
        name: replace(body, step_seconds=config.tubelet * body.step_seconds)
        for name, body in config.embodiments.items()
    }
    taught = settings.objective is not None and settings.objective.points is not None
    own = {"depth": settings.depth or config.depth, "points": BABY_POINTS if taught else 0, "own": OWN if taught else 0}
    return config.model_copy(update={"embodiments": bodies, "causal": settings.causal, **own})


def _source(store: Store, config: VJEPAConfig, settings: FilmSettings, batch: int) -> Source:
    """Where clips come from. Recorded films are parted by time, so that they can be asked about; drawn ones whole."""
    drawn = bool(store.truth_names)
    seen = store if drawn else Ranged(store, known_ranges)
    train = sides(store)[0] if drawn else None
    return Source(seen, config.slots, batch, config.tubelet, train, _crop(store, config, settings))


def _crop(store: Store, config: VJEPAConfig, settings: FilmSettings) -> Crop | None:
    """How clips of a store are cut. Drawn films are seen whole: their truth is told in pixels of the whole view."""
    if "video" not in store.fields:
        raise ValueError(f"the recipe 'video' learns from films; {store.folder} holds no pictures")
    height, width, _ = store.fields["video"]
    if min(height, width) < config.picture:
        raise ValueError(
            f"{store.folder} has pictures of {height} x {width} px and the model is to see {config.picture}; ingest "
            f"the films with --size {config.picture} or more, or train with --picture {min(height, width)}"
        )
    if settings.crop and settings.crop != "auto" and not store.truth_names:
        return Crop(config.picture, settings.crop)
    return None if height == width == config.picture else uncut(config.picture)
