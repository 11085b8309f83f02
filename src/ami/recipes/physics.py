"""Learn from films how things move, and where they are while they cannot be seen: a recurrent JEPA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from ami.data.episodes import Store
from ami.data.loader import Loader, Source
from ami.models.recurrent import RecurrentJEPA, sized
from ami.nn.precision import fast_precision
from ami.objectives.foresight import Foresight, ForesightSettings
from ami.objectives.kinds import ByEmbodiment
from ami.objectives.retention import Retention, RetentionSettings
from ami.recipes.common import by_embodiment, gauge_clips, left_out, parted
from ami.training.loop import Stage, drawn_from
from ami.training.optim import Optimisation
from ami.training.run import Recipe


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
    config = sized(split.bodies, settings.size, settings.picture).model_copy(update={"screened": screened})

    def source(name: str) -> Source:
        shape = (
            (settings.retained_clip, settings.retained_batch) if name in retains else (settings.clip, settings.batch)
        )
        return Source(found[name], *shape, episodes=split.train[name])

    sources = [source(name) for name in found]

    def build() -> RecurrentJEPA:
        with drawn_from(seed):
            return RecurrentJEPA(config)

    stage = Stage(
        "expect",
        settings.steps,
        lambda model: ByEmbodiment({name: Retention(retention) for name in retains}, Foresight(objective)),
        lambda model: Loader(sources, seed),
        settings.optimisation,
        gauge_clips=gauge_clips(found, split.held, settings.clip),
    )
    return Recipe(
        name="physics",
        settings=asdict(settings),
        data={name: store.digest for name, store in found.items()},
        seed=seed,
        build=build,
        stages=(stage,),
        left_out=left_out(found, settings.clip),
    )
