"""Learn places from what cameras with poses saw: a JEPA of colours, depth, points and motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from ami.data.camera import CAMERA, Moved
from ami.data.episodes import Store
from ami.data.loader import Loader, Source
from ami.models.spatial import SpatialJEPA, sized
from ami.nn.precision import fast_precision
from ami.objectives.across import Across, AcrossSettings
from ami.recipes.common import left_out, sides
from ami.training.loop import Stage, drawn_from
from ami.training.optim import Optimisation
from ami.training.run import Recipe


@dataclass(frozen=True)
class PlacesSettings:
    """All that decides what is learned of places."""

    size: str = "baby"  # the one dial: baby, tiny, small
    picture: int = 64  # px on a side
    precision: str = "auto"  # while it trains: "fp32", "bf16", or "auto": what this machine does fast
    steps: int = 4000
    clip: int = 5  # steps in a training clip
    batch: int = 16  # clips, of each store
    senses: Literal["all", "colours"] = "all"  # "colours": the twin that never sees depth nor hears how it moved
    objective: AcrossSettings = field(default_factory=AcrossSettings)
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(rate=2e-3, warmup=50))


PLACES = PlacesSettings()


def spatial(stores: Sequence[Store], seed: int = 0, settings: PlacesSettings = PLACES) -> Recipe:
    """A JEPA of places from any stores with pictures and poses, all of them seen as one camera's."""
    if not stores:
        raise ValueError("a recipe learns from experience and none was given; name at least one store with --data")
    precision = fast_precision() if settings.precision == "auto" else settings.precision
    settings = replace(settings, precision=precision)
    objective = replace(settings.objective, precision=precision)
    seen = [Moved(store, colours_only=settings.senses == "colours") for store in stores]
    config = sized({CAMERA.name: CAMERA}, settings.size, settings.picture)
    sources = [Source(each, settings.clip, settings.batch, episodes=sides(each.store)[0]) for each in seen]
    held = [each.clips(each.windows(settings.clip, 1, sides(each.store)[1])[:: settings.clip][:64], settings.clip) for each in seen]

    def build() -> SpatialJEPA:
        with drawn_from(seed):
            return SpatialJEPA(config)

    stage = Stage(
        "places",
        settings.steps,
        lambda model: Across(model, objective),
        lambda model: Loader(sources, seed),
        settings.optimisation,
        gauge_clips=tuple(held[:1]),
    )
    named = {store.embodiment.name: store for store in stores}
    return Recipe(
        name="spatial",
        settings=asdict(settings),
        data={name: store.digest for name, store in named.items()},
        seed=seed,
        build=build,
        stages=(stage,),
        left_out=left_out(named, settings.clip),
    )
