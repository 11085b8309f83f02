"""Learn how objects move each other, from their descriptions alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from ami.data.episodes import Store
from ami.data.loader import Loader, Source
from ami.models.objects import ObjectModel, ObjectsConfig
from ami.objectives.motion import Motion
from ami.recipes.common import by_embodiment, left_out, sides
from ami.training.loop import Stage, drawn_from
from ami.training.optim import Optimisation
from ami.training.run import Recipe


@dataclass(frozen=True)
class ObjectSettings:
    """All that decides what is learned of objects."""

    steps: int = 2000
    batch: int = 128  # clips
    clip: int = 5  # steps in a training clip: one is held, the others are imagined
    width: int = 64
    rounds: int = 3
    optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(rate=3e-3, warmup=50, weight_decay=1e-4, clip=0.5)
    )


OBJECTS = ObjectSettings()


def objects(stores: Sequence[Store], seed: int = 0, settings: ObjectSettings = OBJECTS) -> Recipe:
    """How objects fall, touch and pull each other, from what is told of them: for I-PHYRE."""
    found = by_embodiment(stores)
    if len(found) != 1:
        raise ValueError(f"the recipe 'objects' learns one world at a time; {', '.join(found)} came")
    ((name, store),) = found.items()
    if not store.embodiment.action_dim or "proprio" not in store.fields:
        raise ValueError(f"the recipe 'objects' learns from descriptions of objects; {store.folder} holds '{name}'")
    config = ObjectsConfig(embodiments={name: store.embodiment}, width=settings.width, rounds=settings.rounds)
    source = Source(store, settings.clip, settings.batch, episodes=sides(store)[0])

    def build() -> ObjectModel:
        with drawn_from(seed):
            return ObjectModel(config)

    stage = Stage(
        "move", settings.steps, lambda model: Motion(), lambda model: Loader([source], seed), settings.optimisation
    )
    return Recipe(
        name="objects",
        settings=asdict(settings),
        data={name: store.digest},
        seed=seed,
        build=build,
        stages=(stage,),
        left_out=left_out(found, settings.clip),
    )
