"""The one baby, and its specialists for robots and simulated tasks: the same, with fewer kinds of experience."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ami.data.episodes import Store
from ami.data.loader import Loader, Source
from ami.data.views import Views
from ami.memory.retention import choose
from ami.models.jepa import JEPA, JEPAConfig, sized
from ami.nn.precision import fast_precision
from ami.objectives.prediction import Dynamics, Prediction, PredictionSettings
from ami.objectives.reach import Reach
from ami.objectives.uncertainty import Uncertainty
from ami.recipes.common import by_embodiment, gauge_clips, left_out, measured, sides
from ami.recipes.films import FilmSettings, video
from ami.recipes.mind import joined
from ami.recipes.physics import PhysicsSettings, physics
from ami.recipes.places import PlacesSettings, places
from ami.recipes.spatial import SpatialSettings, spatial
from ami.training.hindsight import HindsightStore
from ami.training.loop import Stage, drawn_from
from ami.training.optim import Optimisation
from ami.training.perceived import PerceivedStore
from ami.training.run import Recipe
from ami.training.ways import WaySettings, WayStore
from ami.types import Clip, Embodiment


@dataclass(frozen=True)
class BabySettings:
    """All that decides how a baby grows up."""

    size: str = "baby"  # the one dial: baby, tiny, small, base, large
    picture: int = 64  # px on a side
    window: int = 1  # latents a belief holds
    precision: str = "auto"  # of the encoder while it trains: "fp32", "bf16", or "auto": what this machine does fast
    steps: int = 600  # of the first stage: perceive and predict
    refine: int = 1400  # of the second: predict better, with the encoder frozen
    reach: int = 600  # of the third: how far things are and what to do first, with all else frozen
    unsure: int = 200  # of the fourth: how far off what is imagined may be, with all else frozen
    clip: int = 9  # steps in a training clip
    batch: int = 64  # clips at a time of the kind of experience that there is most of
    small_batch: int = 8  # of any other kind, at least
    small_weight: float = 0.15  # of its losses, at least: fewer clips say less surely where to go
    enough: int = 5000  # frames; experience with fewer is seen in ``views``, shifted and in other lights
    views: int = 16
    displace: float = 1.0  # and its latents are moved about in the second stage, by so many deviations
    refine_batch: int = 256  # clips of the second stage, and of the fourth
    small_refine_batch: int = 64
    reach_batch: int = 1024  # ways of the third
    small_reach_batch: int = 128
    objective: PredictionSettings = field(default_factory=PredictionSettings)
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(rate=5e-3))
    refine_optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(rate=8e-3, warmup=50, weight_decay=1e-4)
    )
    ways: WaySettings = field(default_factory=WaySettings)
    reach_optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(rate=3e-3, warmup=50, weight_decay=1e-4)
    )
    imitated: tuple[str, ...] = ("push-t", "cube")  # embodiments recorded while they were after something
    ahead: int = 5  # steps to what they were after, at most
    settled: tuple[str, ...] = ("point-maze",)  # embodiments that are always in one place: landmarks of it are kept
    films: FilmSettings = field(default_factory=lambda: FilmSettings(steps=900))  # of the part that watches films
    lives: tuple[str, ...] = ("physics", "cups")  # embodiments whose films are lived through, by the part that expects
    physics: PhysicsSettings = field(default_factory=lambda: PhysicsSettings(steps=200, leaps=400))  # of that part
    walks: tuple[str, ...] = ("maze",)  # embodiments that walk about, of whom it is learned what is where
    places: PlacesSettings = field(default_factory=lambda: PlacesSettings(steps=200))  # of that part
    cameras: tuple[str, ...] = ("maze", "tabletop")  # embodiments whose views are learned, from any pose
    spatial: SpatialSettings = field(
        default_factory=lambda: SpatialSettings(steps=150, measures=300)
    )  # of that part; 0: no such part


# What each recipe begins from.
SETTINGS = {
    "baby": BabySettings(),
    "bridge": BabySettings(steps=300, refine=500, batch=32),
    # One picture knows no velocity, so a belief holds two. SIGReg counts clips: twice as many, half the weight.
    "tasks": BabySettings(
        size="tiny",
        window=2,
        steps=650,
        refine=400,
        reach=500,
        batch=128,
        refine_batch=512,
        small_refine_batch=128,
        objective=PredictionSettings(gaussian=0.1),
    ),
}

# The same with more of everything, for layouts of any kind: what `ami reproduce plan` trains.
PLAN = BabySettings(
    steps=1500, refine=3000, reach=2500, unsure=600, small_batch=32, small_weight=0.3, small_reach_batch=256
)
# Where the wall stands still and only the door moves, so much is enough.
DOOR = BabySettings(steps=900, refine=1400, reach=1400, unsure=0)


def baby(stores: Sequence[Store], seed: int = 0, settings: BabySettings | None = None) -> Recipe:
    """One model for all the experience it is given: parts of it learn to act, watch, expect, explore and view.

    Who acts is learned by the first; films that nobody acts in are watched by the second; those named in ``lives`` are
    lived through step by step by the third; of those named in ``walks`` the fourth learns what is where; and all that
    ``cameras`` names, walks among them, the fifth sees as one camera that is moved.
    """
    settings = settings or SETTINGS["baby"]
    found = by_embodiment(stores)
    lived = [store for kind, store in found.items() if kind in settings.lives]
    walked = [store for kind, store in found.items() if kind in settings.walks]
    viewed = [store for kind, store in found.items() if kind in settings.cameras and settings.spatial.steps]
    other = {kind: store for kind, store in found.items() if store not in [*lived, *walked, *viewed]}
    bodies = {kind: store for kind, store in other.items() if store.embodiment.action_dim}
    films = [store for kind, store in other.items() if not store.embodiment.action_dim]
    parts: dict[str, Callable[[], Recipe]] = {}
    if bodies:
        parts["acting"] = partial(acting, "baby", bodies, seed, settings)
    if films:
        parts["watching"] = partial(video, films, seed, settings.films)
    if lived:
        parts["expecting"] = partial(physics, lived, seed, settings.physics)
    if walked:
        parts["exploring"] = partial(places, walked, seed, settings.places)
    if viewed:
        parts["viewing"] = partial(spatial, viewed, seed, settings.spatial)
    if len(parts) == 1 and not bodies:
        raise ValueError(
            f"nobody acts in {stores[0].folder}; "
            "the recipes 'video', 'physics', 'slots', 'places' and 'spatial' do without"
        )
    if len(parts) == 1:
        return parts["acting"]()
    told = {"watching": "films", "expecting": "physics", "exploring": "places", "viewing": "spatial"}
    return joined("baby", parts, told)


def bridge(stores: Sequence[Store], seed: int = 0, settings: BabySettings | None = None) -> Recipe:
    """The same from robot episodes alone: the next latent under the action done."""
    return _acting_alone("bridge", stores, seed, settings)


def tasks(stores: Sequence[Store], seed: int = 0, settings: BabySettings | None = None) -> Recipe:
    """One wider model for several simulated tasks of like weight; made for a GPU."""
    return _acting_alone("tasks", stores, seed, settings)


def _acting_alone(name: str, stores: Sequence[Store], seed: int, settings: BabySettings | None) -> Recipe:
    found = by_embodiment(stores)
    for kind, store in found.items():
        if not store.embodiment.action_dim:
            raise ValueError(f"the recipe '{name}' learns from episodes with actions; {store.folder} holds '{kind}'")
    return acting(name, found, seed, settings or SETTINGS[name])


def acting(name: str, stores: Mapping[str, Store], seed: int, settings: BabySettings) -> Recipe:
    """A JEPA in four stages: perceive and predict, predict better, how far things are, how far off that may be.

    The last two only of embodiments with enough experience: a graph can be made of their walks, and what is missed of
    them tells what will be missed of others.
    """
    if settings.precision == "auto":
        settings = replace(settings, precision=fast_precision())
    parted = {kind: sides(store) for kind, store in stores.items()}
    train, held = ({kind: each[side] for kind, each in parted.items()} for side in (0, 1))
    able = tuple(kind for kind, store in stores.items() if _able(store, settings))
    reaches, unsure = able if settings.reach else (), able if settings.unsure else ()
    judges = tuple(kind for kind in reaches if _several(stores[kind], train[kind]))
    bodies = {kind: measured(store, train[kind]) for kind, store in stores.items()}
    config = _config(bodies, settings, reaches, judges, unsure)
    settings, shares = _paced(settings, config), _shares(stores)
    batches = _batches(shares, settings.batch, settings.small_batch)
    refine_batches = _batches(shares, settings.refine_batch, settings.small_refine_batch)
    reach_batches = _batches(shares, settings.reach_batch, settings.small_reach_batch)

    seen = {kind: _seen(store, settings) for kind, store in stores.items()}
    train = {kind: view.of(train[kind]) if isinstance(view := seen[kind], Views) else train[kind] for kind in stores}
    weights = {kind: max(share, settings.small_weight) for kind, share in shares.items()}
    displace = {kind: settings.displace for kind, view in seen.items() if isinstance(view, Views)}

    def pictures(model: JEPA) -> Loader:
        sources = [Source(store, settings.clip, batches[kind], episodes=train[kind]) for kind, store in seen.items()]
        return Loader(sources, seed)

    @lru_cache(maxsize=1)  # after the first stage the encoder is frozen: both others learn from the same latents
    def perceived(model: JEPA) -> dict[str, PerceivedStore]:
        return {kind: PerceivedStore(store, model, train[kind]) for kind, store in seen.items()}

    def latents(model: JEPA) -> Loader:
        short = settings.objective.rollout + settings.window
        return Loader([Source(store, short, refine_batches[kind]) for kind, store in perceived(model).items()], seed)

    def ways(model: JEPA) -> Loader:
        for kind in config.settled:
            model.settle(kind, _landmarks(perceived(model)[kind], config.landmarks))
        joined = replace(settings.ways, window=settings.window, fast=settings.precision == "bf16")
        found = {
            kind: HindsightStore(seen, joined.before, settings.ahead)
            if kind in config.imitates
            else WayStore(seen, model, config.embodiments[kind], joined)
            for kind, seen in perceived(model).items()
            if kind in reaches
        }
        return Loader([Source(each, joined.before + 2, reach_batches[kind]) for kind, each in found.items()], seed)

    clips = gauge_clips(stores, held, settings.clip)
    return Recipe(
        name=name,
        settings=asdict(settings),
        data={kind: store.digest for kind, store in stores.items()},
        seed=seed,
        build=lambda: _build(config, seed),
        left_out=left_out(stores, settings.clip),
        stages=_stages(config, settings, (pictures, latents, ways), weights, displace, clips),
    )


def _stages(
    config: JEPAConfig,
    settings: BabySettings,
    loaders: tuple[Callable[[JEPA], Loader], ...],
    weights: Mapping[str, float],
    displace: Mapping[str, float],
    clips: tuple[Clip, ...],
) -> tuple[Stage, ...]:
    """Perceive and predict; predict better; learn ways; learn doubt. Each freezes what those before it have learned.

    The last two only for whom the config has room for that.
    """
    pictures, latents, ways = loaders
    found = (
        Stage(
            "perceive",
            settings.steps,
            lambda model: Prediction(model, settings.objective),
            pictures,
            settings.optimisation,
            weights=weights,
            gauge_clips=clips,
        ),
        Stage(
            "refine",
            settings.refine,
            lambda model: Dynamics(settings.objective.rollout, displace),
            latents,
            settings.refine_optimisation,
            weights=weights,
            frozen=("encoder",),
            gauge_every=settings.refine,
            gauge_clips=clips,
        ),
        Stage(
            "reach",
            settings.reach,
            lambda model: Reach(settings.precision == "bf16"),
            ways,
            settings.reach_optimisation,
            frozen=("encoder", "predictor", "doors"),
            gauge_every=max(settings.reach, 1),
            gauge_clips=clips,
        ),
        Stage(
            "unsure",
            settings.unsure,
            lambda model: Uncertainty(),
            latents,
            settings.refine_optimisation,
            frozen=("encoder", "predictor", "doors", "ways"),
            gauge_every=max(settings.unsure, 1),
        ),
    )
    who = {"reach": config.reaches, "unsure": config.unsure}
    return tuple(stage for stage in found if who.get(stage.name, True))


def _config(
    bodies: Mapping[str, Embodiment],
    settings: BabySettings,
    reaches: tuple[str, ...],
    judges: tuple[str, ...],
    unsure: tuple[str, ...],
) -> JEPAConfig:
    return sized(
        settings.size,
        bodies,
        picture=settings.picture,
        window=settings.window,
        precision=settings.precision,
        reaches=reaches,
        judges=judges,
        imitates=tuple(kind for kind in reaches if kind in settings.imitated),
        settled=tuple(kind for kind in reaches if kind in settings.settled),
        unsure=unsure,
    )


def _landmarks(perceived: PerceivedStore, count: int) -> Float[Tensor, "landmarks tokens dim"]:
    """As varied a choice of moments as there is room for: as memory chooses what it keeps."""
    seen = perceived.latents.flatten(1).half().numpy()
    kept = choose(seen, np.full(len(seen), np.nan), count, 0.0, torch.Generator().manual_seed(0))
    return perceived.latents[torch.from_numpy(kept.rows)]


def _paced(settings: BabySettings, config: JEPAConfig) -> BabySettings:
    """The rates were found for the size ``baby``; a wider network learns in proportion slower (Yang et al. 2022)."""
    known = sized("baby", {})
    stem = known.widths[-1] / config.widths[-1]
    heads = known.predictor_width / config.predictor_width

    def slower(found: Optimisation, ratio: float) -> Optimisation:
        return replace(found, rate=found.rate * ratio)

    return replace(
        settings,
        optimisation=slower(settings.optimisation, stem),
        refine_optimisation=slower(settings.refine_optimisation, heads),
        reach_optimisation=slower(settings.reach_optimisation, heads),
    )


def _seen(store: Store, settings: BabySettings) -> Store | Views:
    """Experience as it is trained on: of little, many views."""
    return Views(store, settings.views) if _frames(store) < settings.enough else store


def _able(store: Store, settings: BabySettings) -> bool:
    """Whether it can be learned how far things are: somebody acts, often enough."""
    return bool(store.embodiment.action_dim) and _frames(store) >= settings.enough


def _several(store: Store, episodes: Sequence[int]) -> bool:
    """Whether some place was walked more than once: only then is it known what no walk joins."""
    places = [place for episode in episodes if (place := store.episodes[episode].place)]
    return len(set(places)) < len(places)


def _shares(stores: Mapping[str, Store]) -> dict[str, float]:
    """How much is learned of each kind at a step, the largest 1: the root of its frames, so that little is not drowned.

    Source: Lample and Conneau 2019, section 3.1, for languages.
    """
    frames = {kind: _frames(store) for kind, store in stores.items()}
    return {kind: (count / max(frames.values())) ** 0.5 for kind, count in frames.items()}


def _batches(shares: Mapping[str, float], most: int, least: int) -> dict[str, int]:
    """Clips of each kind: so many times ``least``, the largest ``most``."""
    return {kind: most if share == 1 else least * max(round(share * most / least), 1) for kind, share in shares.items()}


def _frames(store: Store) -> int:
    return sum(info.length for info in store.episodes)


def _build(config: JEPAConfig, seed: int) -> JEPA:
    with drawn_from(seed):
        return JEPA(config)
