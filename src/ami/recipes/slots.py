"""Learn from films what things are, how they go on and meet, and where they are while they cannot be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from ami.data.episodes import Store
from ami.data.loader import Loader, Source
from ami.models.slots import SlotJEPA, sized
from ami.nn.precision import fast_precision
from ami.objectives.slots import Following, Noticing, SlotSettings
from ami.recipes.common import by_embodiment, gauge_clips, left_out, parted
from ami.training.loop import Stage, drawn_from
from ami.training.optim import Optimisation
from ami.training.run import Recipe


@dataclass(frozen=True)
class SlotsSettings:
    """All that decides what is learned of things."""

    size: str = "baby"  # the one dial: baby, tiny, small
    picture: int = 64  # px on a side
    precision: str = "auto"  # while it trains: "fp32", "bf16", or "auto": what this machine does fast
    notice: int = 400  # steps of the first stage: what in a picture is a thing
    notice_batch: int = 8  # clips
    steps: int = 900  # of the second: how things go on, with what sees them frozen
    clip: int = 24  # steps in a training clip
    batch: int = 12  # clips
    objective: SlotSettings = field(default_factory=SlotSettings)
    notice_optimisation: Optimisation = field(default_factory=lambda: Optimisation(rate=3e-3, warmup=30))
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(rate=2e-3, warmup=50))


SLOTS = SlotsSettings()


def slots(stores: Sequence[Store], seed: int = 0, settings: SlotsSettings = SLOTS) -> Recipe:
    """A slot JEPA from films, with or without actions: it notices what moves, and then learns how that goes on."""
    found = by_embodiment(stores)
    precision = fast_precision() if settings.precision == "auto" else settings.precision
    settings = replace(settings, precision=precision)
    objective = replace(settings.objective, precision=precision)
    split = parted(found)
    config = sized(split.bodies, settings.size, settings.picture)

    def loader(batch: int) -> Loader:
        return Loader([Source(found[name], settings.clip, batch, episodes=split.train[name]) for name in found], seed)

    def build() -> SlotJEPA:
        with drawn_from(seed):
            return SlotJEPA(config)

    clips = gauge_clips(found, split.held, settings.clip)
    notice = Stage(
        "notice",
        settings.notice,
        lambda model: Noticing(objective),
        lambda model: loader(settings.notice_batch),
        settings.notice_optimisation,
        frozen=("around", "memory", "doors"),
        gauge_clips=clips,
    )
    follow = Stage(
        "follow",
        settings.steps,
        lambda model: Following(objective),
        lambda model: loader(settings.batch),
        settings.optimisation,
        frozen=("stem",),
        gauge_clips=clips,
    )
    return Recipe(
        name="slots",
        settings=asdict(settings),
        data={name: store.digest for name, store in found.items()},
        seed=seed,
        build=build,
        stages=(notice, follow),
        left_out=left_out(found, settings.clip),
    )
