"""Learn from films how things move, and where they are while they cannot be seen: a recurrent JEPA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from ami.data.episodes import Store
from ami.data.loader import Loader, Source
from ami.models.recurrent import RecurrentJEPA, sized
from ami.nn.precision import fast_precision
from ami.objectives.foresight import Foresight, ForesightSettings
from ami.objectives.kinds import ByEmbodiment
from ami.objectives.leaps import Leaps, LeapsSettings
from ami.objectives.retention import Retention, RetentionSettings
from ami.recipes.common import by_embodiment, gauge_clips, left_out, parted
from ami.recipes.leaps import SETTLE, LeapStore
from ami.training.loop import Stage, drawn_from
from ami.training.optim import Optimisation
from ami.training.run import Recipe


@dataclass(frozen=True)
class LeapingSettings:
    """What is foretold at once when all else is learned, and how it is learned."""

    leap: int = 8  # steps
    blocks: int = 2  # of what foretells them
    films: int = 9000  # of each embodiment, at most
    each: int = 5  # leaps in a film
    screens: float = 0.85  # share of the films before which a screen is put
    batch: int = 64  # leaps
    objective: LeapsSettings = field(default_factory=LeapsSettings)
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(rate=3e-3, warmup=100))


@dataclass(frozen=True)
class PhysicsSettings:
    """All that decides what is learned of physics."""

    size: str = "baby"  # the one dial: baby, tiny, small
    picture: int = 64  # px on a side
    precision: str = "auto"  # while it trains: "fp32", "bf16", or "auto": what this machine does fast
    steps: int = 2500
    clip: int = 24  # steps in a training clip
    batch: int = 16  # clips
    objective: ForesightSettings = field(default_factory=ForesightSettings)
    retains: tuple[str, ...] = ("cups",)  # embodiments whose acts bring to light what was out of sight
    retention: RetentionSettings = field(default_factory=RetentionSettings)  # and how they are lived through
    retained_clip: int = 32  # steps in a clip of theirs: so many that something was hidden, moved and shown again
    retained_batch: int = 32  # clips
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(rate=3e-3, warmup=50))
    leaps: int = 5000  # steps of learning to leap, at the end; 0: all is foretold step by step
    leaping: LeapingSettings = field(default_factory=LeapingSettings)


PHYSICS = PhysicsSettings()


def physics(stores: Sequence[Store], seed: int = 0, settings: PhysicsSettings = PHYSICS) -> Recipe:
    """A recurrent JEPA from films, with or without actions: it expects, looks, and remembers."""
    found = by_embodiment(stores)
    precision = fast_precision() if settings.precision == "auto" else settings.precision
    settings = replace(settings, precision=precision)
    objective = replace(settings.objective, precision=precision)
    retention = replace(settings.retention, precision=precision)
    retains = [name for name in found if name in settings.retains]
    split = parted(found)
    screened = tuple(name for name in found if name not in retains)
    leaping = settings.leaping if settings.leaps and screened else None
    if leaping and settings.clip < (least := leaping.leap + SETTLE + 1):
        raise ValueError(f"a leap of {leaping.leap} steps fits in clips of {least} or more, not of {settings.clip}")
    config = sized(split.bodies, settings.size, settings.picture).model_copy(
        update={"screened": screened} | ({"leap": leaping.leap, "leaping": leaping.blocks} if leaping else {})
    )

    def source(name: str) -> Source:
        shape = (
            (settings.retained_clip, settings.retained_batch) if name in retains else (settings.clip, settings.batch)
        )
        return Source(found[name], *shape, episodes=split.train[name])

    sources = [source(name) for name in found]

    def build() -> RecurrentJEPA:
        with drawn_from(seed):
            return RecurrentJEPA(config)

    expect = Stage(
        "expect",
        settings.steps,
        lambda model: ByEmbodiment({name: Retention(retention) for name in retains}, Foresight(objective)),
        lambda model: Loader(sources, seed),
        settings.optimisation,
        gauge_clips=gauge_clips(found, split.held, settings.clip),
    )
    leap = _leap({found[name]: split.train[name] for name in screened}, seed, settings)
    return Recipe(
        name="physics",
        settings=asdict(settings),
        data={name: store.digest for name, store in found.items()},
        seed=seed,
        build=build,
        stages=(expect, leap) if leaping else (expect,),
        left_out=left_out(found, settings.clip),
    )


def _leap(films: Mapping[Store, tuple[int, ...]], seed: int, settings: PhysicsSettings) -> Stage:
    """Learn to foretell several steps of the episodes of some stores at once, all else standing still."""
    how, half = settings.leaping, settings.precision == "bf16"
    objective = replace(how.objective, precision="bf16" if half else "fp32")

    def leaps(model: RecurrentJEPA, store: Store) -> LeapStore:
        what = {"films": how.films, "each": how.each, "screens": how.screens}
        return LeapStore(store, model, steps=settings.clip, **what, episodes=films[store], seed=seed, half=half)

    return Stage(
        "leap",
        settings.leaps,
        lambda model: Leaps(objective),
        lambda model: Loader([Source(leaps(model, store), 2, how.batch) for store in films], seed),
        how.optimisation,
        frozen=("stem", "norm", "memory", "doors"),
    )
