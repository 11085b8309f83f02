"""Learn places from what cameras with poses saw: a spatial JEPA, of colours, depth, points and motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from ami.data.camera import CAMERA, Cameras
from ami.data.episodes import Store
from ami.data.lens import Lens
from ami.data.loader import Loader, Source
from ami.models.spatial import SpatialJEPA, sized
from ami.nn.precision import fast_precision
from ami.objectives.across import Across, AcrossSettings, Moved
from ami.recipes.common import by_embodiment, left_out, sides
from ami.recipes.walks import WalkStore
from ami.training.loop import Stage, drawn_from
from ami.training.optim import Optimisation
from ami.training.run import Recipe


@dataclass(frozen=True)
class SpatialSettings:
    """All that decides what is learned of places."""

    size: str = "baby"  # the one dial: baby, tiny, small
    picture: int = 64  # px on a side
    precision: str = "auto"  # while it trains: "fp32", "bf16", or "auto": what this machine does fast
    steps: int = 6000
    clip: int = 5  # steps in a training clip
    batch: int = 16  # clips, of all stores together
    senses: Literal["all", "colours"] = "all"  # "colours": the twin that never sees depth nor hears how it moved
    lens: Lens | None = field(default_factory=Lens)  # what clips are shown through, besides as they are
    objective: AcrossSettings = field(default_factory=AcrossSettings)
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(rate=2e-3, warmup=50))
    measures: int = 6000  # steps, at the end, of learning to measure motions, while latents stand still
    measured_colours: float = 0.75  # share of the walks that are then perceived by colours alone


SPATIAL = SpatialSettings()
_COST = 1.44, 0.31  # of a step, and of one that measures, in steps of the twin from colours alone


def spatial(stores: Sequence[Store], seed: int = 0, settings: SpatialSettings = SPATIAL) -> Recipe:
    """A spatial JEPA from any stores with pictures and poses, all of them seen as one camera's."""
    named = by_embodiment(stores)
    precision = fast_precision() if settings.precision == "auto" else settings.precision
    settings = replace(settings, precision=precision, objective=replace(settings.objective, precision=precision))
    measures = settings.measures and settings.senses == "all"
    cameras = Cameras(tuple(stores), colours_only=settings.senses == "colours")
    trained, held = _sides(stores)
    config = sized({CAMERA.name: CAMERA}, settings.size, settings.picture)
    gauged = cameras.windows(settings.clip, episodes=held)[:: settings.clip]

    def build() -> SpatialJEPA:
        with drawn_from(seed):
            return SpatialJEPA(config)

    stage = Stage(
        "places",
        settings.steps,
        lambda model: Across(model, settings.objective),
        lambda model: Loader(
            [Source(cameras, settings.clip, settings.batch, episodes=trained, crop=settings.lens)], seed
        ),
        settings.optimisation,
        gauge_clips=(cameras.clips(gauged[:: max(len(gauged) // 64, 1)], settings.clip),) if len(gauged) else (),
    )
    return Recipe(
        name="spatial",
        settings=asdict(settings),
        data={name: store.digest for name, store in named.items()},
        seed=seed,
        build=build,
        stages=(stage, _measure(cameras, trained, seed, settings)) if measures else (stage,),
        left_out=left_out(named, settings.clip),
    )


def _measure(cameras: Cameras, trained: tuple[int, ...], seed: int, settings: SpatialSettings) -> Stage:
    """Learn how the camera moved, and more of what is seen from elsewhere, all that is perceived standing still."""

    def walks(model: SpatialJEPA) -> WalkStore:
        half = settings.precision == "bf16"
        return WalkStore(cameras, model, trained, colours=settings.measured_colours, seed=seed, half=half)

    return Stage(
        "measure",
        settings.measures,
        lambda model: Moved(settings.objective),
        lambda model: Loader([Source(walks(model), settings.clip, settings.batch)], seed),
        settings.optimisation,
        frozen=("encoder", "norm", "lies"),
    )


def spatial_colours(stores: Sequence[Store], seed: int = 0, settings: SpatialSettings = SPATIAL) -> Recipe:
    """The twin from colours alone: what depth and poses are worth is what it lacks.

    Its steps are cheaper, so it has more of them: as many CPU-seconds as the model with these ``settings`` has.
    """
    steps = round(_COST[0] * settings.steps + _COST[1] * settings.measures)
    return replace(spatial(stores, seed, replace(settings, senses="colours", steps=steps)), name="spatial-colours")


def spatial_shuffled(stores: Sequence[Store], seed: int = 0, settings: SpatialSettings = SPATIAL) -> Recipe:
    """The twin that is told the poses of other clips: what it cannot do was learned from poses."""
    objective = replace(settings.objective, shuffled=True)
    return replace(spatial(stores, seed, replace(settings, objective=objective)), name="spatial-shuffled")


def _sides(stores: Sequence[Store]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Episodes to train on and those held out, of all stores, numbered one after another."""
    trained, held, first = [], [], 0
    for store in stores:
        own = sides(store)
        trained += [first + number for number in own[0]]
        held += [first + number for number in own[1]]
        first += len(store)
    return tuple(trained), tuple(held)
