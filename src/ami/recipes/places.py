"""Learn what is where from walks with depth and pose: a JEPA of places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from ami.data.episodes import Store
from ami.data.loader import Loader, Source
from ami.models.places import PlacesJEPA, sized
from ami.nn.precision import fast_precision
from ami.objectives.revisits import Revisits, RevisitSettings
from ami.recipes.common import by_embodiment, gauge_clips, left_out, parted
from ami.training.loop import Stage, drawn_from
from ami.training.optim import Optimisation
from ami.training.run import Recipe


@dataclass(frozen=True)
class PlacesSettings:
    """All that decides what is learned of places."""

    size: str = "baby"  # the one dial: baby, tiny, small
    picture: int = 64  # px on a side
    precision: str = "auto"  # while it trains: "fp32", "bf16", or "auto": what this machine does fast
    steps: int = 3000
    clip: int = 128  # steps of a walk
    batch: int = 8  # walks
    objective: RevisitSettings = field(default_factory=RevisitSettings)
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(rate=4e-3, warmup=30))


PLACES = PlacesSettings()


def places(stores: Sequence[Store], seed: int = 0, settings: PlacesSettings = PLACES) -> Recipe:
    """A JEPA of places from walks with actions, depth and pose: it steps, looks, finds itself, and remembers."""
    found = by_embodiment(stores)
    for name, store in found.items():
        if missing := {"video", "depth", "pose", "actions"} - set(store.fields):
            raise ValueError(
                f"{store.folder} ('{name}') lacks {', '.join(sorted(missing))}; places are learned from it"
            )
    precision = fast_precision() if settings.precision == "auto" else settings.precision
    settings = replace(settings, precision=precision)
    objective = replace(settings.objective, precision=precision)
    split = parted(found)
    config = sized(split.bodies, settings.size, settings.picture).model_copy(update={"half": _half(found)})
    sources = [
        Source(store, settings.clip, settings.batch, episodes=split.train[name]) for name, store in found.items()
    ]

    def build() -> PlacesJEPA:
        with drawn_from(seed):
            return PlacesJEPA(config)

    stage = Stage(
        "revisit",
        settings.steps,
        lambda model: Revisits(model.config.dim, objective),
        lambda model: Loader(sources, seed),
        settings.optimisation,
        gauge_clips=gauge_clips(found, split.held, min(settings.clip, 16)),
    )
    return Recipe(
        name="places",
        settings=asdict(settings),
        data={name: store.digest for name, store in found.items()},
        seed=seed,
        build=build,
        stages=(stage,),
        left_out=left_out(found, settings.clip),
    )


def _half(stores: Mapping[str, Store]) -> float:
    """Tangent of half the angle that the cameras span; 1 where no store says it."""
    said = {
        name: store.fields["video"][1] / 2 / float(store.arrays(0)["intrinsics"][0])
        for name, store in stores.items()
        if "intrinsics" in store.fields
    }
    if len({round(half, 3) for half in said.values()}) > 1:
        told = " and ".join(f"{half:.3f} ('{name}')" for name, half in said.items())
        raise ValueError(
            f"cameras span different angles, of whose halves the tangents are {told}; learn places from one camera"
        )
    return next(iter(said.values()), 1.0)
