"""Learn from films alone: V-JEPA, which fills in what was hidden of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from ami.data.episodes import Store
from ami.data.loader import Loader, Source
from ami.models.vjepa import VJEPA, sized
from ami.nn.precision import fast_precision
from ami.objectives.masked import Masked, MaskedSettings
from ami.objectives.masks import Slots
from ami.objectives.points import PointSettings
from ami.recipes.common import by_embodiment, gauge_clips, sides
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
    steps: int = 1800
    batch: int = 16  # clips of each kind of film
    objective: MaskedSettings | None = None  # as the size wants
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(rate=2.5e-3, warmup=50))


# Few large tokens: a tube mask hides all of a small mover or none of it, so the baby hides whole slots and is asked
# where things are (ami.objectives.points). A teacher's tokens beside that (weight 0.3) soon were alike in all films, so
# only the predictor learns to fill in tokens: those of a hidden future are what surprise is measured against.
# Larger sizes are taught as V-JEPA is, and nobody has tried them yet.
BABY = MaskedSettings(masks=(Slots(4),), masked=0.0, momentum=None, fill=1.0, points=PointSettings())
BABY_DEPTH = 2  # blocks: more only made fewer steps in the same time
BABY_POINTS = 8  # of each of three finders: one in ten, by itself, misses a mover
VIDEO = FilmSettings()


def resolved(settings: FilmSettings) -> FilmSettings:
    """The settings with what the size and the machine decide filled in."""
    baby = settings.size == "baby"
    precision = fast_precision() if settings.precision == "auto" else settings.precision
    objective = settings.objective or (BABY if baby else MaskedSettings())
    depth = settings.depth or (BABY_DEPTH if baby else None)
    return replace(settings, precision=precision, depth=depth, objective=replace(objective, precision=precision))


def video(stores: Sequence[Store], seed: int = 0, settings: FilmSettings = VIDEO) -> Recipe:
    """A V-JEPA from films, drawn or real: no labels, no actions."""
    settings = resolved(settings)
    objective = settings.objective
    found = by_embodiment(stores)
    for name, store in found.items():
        if store.embodiment.action_dim:
            raise ValueError(
                f"the recipe 'video' learns from films, which have no actions; {store.folder} holds '{name}'"
            )
    config = sized(settings.size, {name: store.embodiment for name, store in found.items()}, picture=settings.picture)
    points = BABY_POINTS if objective and objective.points else 0
    config = config.model_copy(
        update={"causal": settings.causal, "depth": settings.depth or config.depth, "points": points}
    )
    train, held = {}, {}
    for name, store in found.items():
        train[name], held[name] = sides(store)

    def loader(model: VJEPA) -> Loader:
        sources = [
            Source(store, config.slots, settings.batch, config.tubelet, train[name]) for name, store in found.items()
        ]
        return Loader(sources, seed)

    def build() -> VJEPA:
        with drawn_from(seed):
            return VJEPA(config)

    clips = gauge_clips(found, held, config.slots, config.tubelet)
    stage = Stage(
        "watch",
        settings.steps,
        lambda model: Masked(model, objective),
        loader,
        settings.optimisation,
        gauge_clips=clips,
    )
    return Recipe(
        name="video",
        settings=asdict(settings),
        data={name: store.digest for name, store in found.items()},
        seed=seed,
        build=build,
        stages=(stage,),
    )
