"""One recipe learns from whatever experience it is given, and refuses what it cannot learn from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ami.data.crops import Crop, uncut
from ami.data.episodes import Episode, Store
from ami.data.ingest import ingest
from ami.data.ranges import Ranged
from ami.data.video import FILM
from ami.evaluation.ask import held_out_clip
from ami.evaluation.benchmark import Asking
from ami.evaluation.films import rate
from ami.evaluation.suites import spatial as views
from ami.evaluation.suites.robots import NextLatent
from ami.models import checkpoint
from ami.models.jepa import JEPA
from ami.models.mind import Mind
from ami.models.recurrent import RecurrentJEPA
from ami.models.vjepa import VJEPA
from ami.objectives.masked import MaskedSettings
from ami.objectives.points import PointSettings
from ami.recipes import RECIPES
from ami.recipes.baby import BabySettings, baby, bridge, tasks
from ami.recipes.common import by_embodiment, gauge_clips, measured, sides
from ami.recipes.films import DRAWN, RECORDED, VIDEO, FilmSettings, resolved, video
from ami.recipes.physics import PhysicsSettings, physics
from ami.recipes.places import PlacesSettings, places
from ami.recipes.spatial import SpatialSettings, spatial
from ami.training.run import Tick, read_metrics, train
from ami.types import Embodiment, LeftOut
from ami.worlds.rooms import REVISITED
from tiny_stores import TINY, film_store, game_store, life_store, maze_store, robot_store, rooms_store, table_store


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return rooms_store(tmp_path_factory.mktemp("recipes") / "rooms")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return film_store(tmp_path_factory.mktemp("recipes") / "films")


@pytest.fixture(scope="module")
def robots(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return robot_store(tmp_path_factory.mktemp("recipes") / "robots")


def test_a_baby_learns_from_rooms_alone(rooms: Store, tmp_path: Path) -> None:
    model = checkpoint.load(train(baby([rooms], 0, TINY), tmp_path / "run", log_every=1))
    assert set(model.embodiments) == {"two-rooms"}
    last = read_metrics(tmp_path / "run")[-1]
    assert {"stage", "step", "cpu_seconds", "gradient", "two-rooms/prediction", "two-rooms/gauge/probe"} <= set(last)


def test_whether_any_way_leads_is_learned_where_a_place_was_walked_twice(rooms: Store, tmp_path: Path) -> None:
    settings = replace(TINY, reach=3, reach_batch=16, enough=10)
    walked = rooms_store(tmp_path / "walked", 12, 20, REVISITED)
    model = checkpoint.load(train(baby([walked], 0, settings), tmp_path / "run", log_every=1))
    assert model.reaches == model.judges == ("two-rooms",)
    assert "two-rooms/reachable" in read_metrics(tmp_path / "run")[-1]
    once = baby([rooms], 0, settings).build()
    assert once.reaches
    assert not once.judges


def test_how_far_off_it_may_be_is_learned_last_and_changes_nothing_else(rooms: Store, tmp_path: Path) -> None:
    settings = replace(TINY, reach=3, reach_batch=16, enough=10)
    sure = checkpoint.load(train(baby([rooms], 0, settings), tmp_path / "sure"))
    unsure = checkpoint.load(train(baby([rooms], 0, replace(settings, unsure=3)), tmp_path / "unsure", log_every=1))
    assert sure.unsure == ()
    assert unsure.unsure == ("two-rooms",)
    learned = unsure.state_dict()
    assert all(torch.equal(learned[name], held) for name, held in sure.state_dict().items())
    assert {"two-rooms/unsure", "two-rooms/whence"} <= set(read_metrics(tmp_path / "unsure")[-1])


def test_a_baby_learns_from_all_there_is_in_whatever_order_it_comes(
    rooms: Store, films: Store, robots: Store, tmp_path: Path
) -> None:
    recipe = baby([rooms, films, robots], 0, TINY)
    assert recipe.data == {"film": films.digest, "two-rooms": rooms.digest, "widowx": robots.digest}
    model = checkpoint.load(done := train(recipe, tmp_path / "run", log_every=1))
    assert set(model.embodiments) == {"film", "two-rooms", "widowx"}
    rows = read_metrics(tmp_path / "run")
    assert {"two-rooms/prediction", "two-rooms/inverse", "widowx/prediction", "widowx/inverse"} <= set(rows[0])
    assert {"film/points", "film/gauge/rank_0"} <= set(rows[-1])
    assert [row["stage"] for row in rows[:: len(rows) // 3]][:3] == ["perceive", "refine", "watch"]
    again = train(baby([robots, rooms, films], 0, TINY), tmp_path / "again")
    assert checkpoint.digest(again) == checkpoint.digest(done)


def test_the_most_plentiful_experience_has_the_largest_batch(rooms: Store, films: Store, robots: Store) -> None:
    recipe = baby([rooms, films, robots], 0, TINY)
    sizes = {clip.embodiment: (len(clip), clip.steps) for clip in recipe.stages[0].loader(recipe.build()).batch(0)}
    assert sizes == {"two-rooms": (8, 6), "widowx": (4, 6)}


def test_each_kind_of_experience_counts_by_the_root_of_its_frames(rooms: Store, tmp_path: Path) -> None:
    settings = replace(TINY, small_batch=2, small_weight=0.25)
    for episodes, batch, weight in ((20, 8, 1.0), (5, 4, 0.5), (1, 2, 0.25)):
        robots = robot_store(tmp_path / f"{episodes}", episodes)  # of 10 frames each; the rooms have 200
        recipe = baby([rooms, robots], 0, settings)
        perceive = recipe.stages[0]
        sizes = {clip.embodiment: len(clip) for clip in perceive.loader(recipe.build()).batch(0)}
        assert sizes == {"two-rooms": 8, "widowx": batch}
        assert perceive.weights == pytest.approx({"two-rooms": 1.0, "widowx": weight})


def test_a_wider_network_learns_in_proportion_slower(rooms: Store) -> None:
    own, wider = (baby([rooms], 0, replace(TINY, size=size)).stages for size in ("baby", "tiny"))
    assert [stage.optimisation.rate for stage in own] == [5e-3, 8e-3]  # as they were found
    assert [stage.optimisation.rate for stage in wider] == pytest.approx([5e-3 * 96 / 192, 8e-3 * 128 / 384])


def test_ways_are_learned_from_as_many_latents_as_a_belief_holds(rooms: Store, tmp_path: Path) -> None:
    settings = replace(TINY, window=2, enough=100, reach=3, reach_batch=16)
    recipe = tasks([rooms], 0, settings)
    model = checkpoint.load(train(recipe, tmp_path / "run", log_every=1))
    assert isinstance(model, JEPA)
    assert (model.config.window, model.reaches) == (2, ("two-rooms",))
    seen, joined = (stage.loader(model) for stage in recipe.stages[1:])
    assert {clip.steps for clip in joined.batch(0)} == {5}  # three moments, start and goal
    assert joined.sources[0].store.store is seen.sources[0].store  # each frame is encoded once for both
    assert read_metrics(tmp_path / "run")[-1]["two-rooms/reach"] > 0


def test_a_part_learns_what_it_would_have_learned_alone(rooms: Store, films: Store, tmp_path: Path) -> None:
    ticks: list[Tick] = []
    done = train(baby([rooms, films], 0, TINY), tmp_path / "both", log_every=1, workers=2, watch=ticks.append)
    mind = checkpoint.load(done)
    acts = checkpoint.load(train(baby([rooms], 0, TINY), tmp_path / "acts"))
    watches = checkpoint.load(train(video([films], 0, TINY.films), tmp_path / "watches"))
    assert isinstance(mind, Mind)
    assert checkpoint.digest(mind.acting) == checkpoint.digest(acts)
    assert checkpoint.digest(mind.watching) == checkpoint.digest(watches)
    assert [row["step"] for row in read_metrics(tmp_path / "both")] == list(range(1, 19))
    assert {(tick.stage, tick.steps) for tick in ticks} == {("perceive", 6), ("refine", 6), ("watch", 6)}
    papers = [checkpoint.read_provenance(tmp_path / "both" / part / "checkpoint") for part in ("acting", "watching")]
    assert sum(each.cpu_seconds for each in papers) == pytest.approx(checkpoint.read_provenance(done).cpu_seconds, 0.5)


def test_a_run_of_parts_goes_on_with_the_part_at_which_it_was_stopped(
    rooms: Store, films: Store, tmp_path: Path
) -> None:
    def stop(tick: Tick) -> None:
        if (tick.stage, tick.step) == ("watch", 4):
            raise KeyboardInterrupt

    recipe, run = baby([rooms, films], 0, TINY), tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, save_every=2, log_every=1, watch=stop)
    assert not (run / "checkpoint").exists()
    before = (run / "acting" / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    gone_on = train(recipe, run, save_every=2, log_every=1, resume=True)
    assert (run / "acting" / "checkpoint" / "model.safetensors").stat().st_mtime_ns == before
    assert checkpoint.digest(gone_on) == checkpoint.digest(train(recipe, tmp_path / "whole"))
    assert [row["step"] for row in read_metrics(run)] == list(range(1, 19))


def test_films_are_known_by_time_and_a_step_is_as_long_as_its_frames(films: Store) -> None:
    recipe = video([films], 0, TINY.films)
    model = recipe.build()
    assert rate(model) == pytest.approx(10.0)
    assert isinstance(recipe.stages[0].loader(model).sources[0].store, Ranged)


def test_what_is_lived_through_is_learned_as_if_alone(rooms: Store, films: Store, tmp_path: Path) -> None:
    lived = life_store(tmp_path / "physics")
    alone = PhysicsSettings(steps=2, batch=2, leaps=2)
    settings = replace(TINY, physics=alone, films=replace(TINY.films, steps=2, batch=2))
    mind = checkpoint.load(train(baby([rooms, films, lived], 0, settings), tmp_path / "mind"))
    assert isinstance(mind, Mind)
    assert mind.lives == ("physics",)
    assert mind.expecting is not None
    specialist = checkpoint.load(train(physics([lived], 0, alone), tmp_path / "alone"))
    assert checkpoint.digest(mind.expecting) == checkpoint.digest(specialist)


def test_what_is_walked_through_is_learned_as_if_alone(rooms: Store, tmp_path: Path) -> None:
    walks = maze_store(tmp_path / "maze", 8, 16)
    alone = PlacesSettings(steps=2, batch=2, clip=12)
    mind = checkpoint.load(train(baby([rooms, walks], 0, replace(TINY, places=alone)), tmp_path / "mind"))
    assert isinstance(mind, Mind)
    assert mind.places == ("maze",)
    assert mind.exploring is not None
    specialist = checkpoint.load(train(places([walks], 0, alone), tmp_path / "alone"))
    assert checkpoint.digest(mind.exploring) == checkpoint.digest(specialist)
    with pytest.raises(ValueError, match="lacks depth, pose; places are learned from it"):
        places([rooms])


def test_what_cameras_see_is_learned_as_if_alone_also_of_walks(rooms: Store, tmp_path: Path) -> None:
    walks, table = maze_store(tmp_path / "maze", 8, 16), table_store(tmp_path / "tabletop")
    walked, alone = PlacesSettings(steps=2, batch=2, clip=12), SpatialSettings(steps=2, measures=2, batch=4, clip=3)
    settings = replace(TINY, places=walked, spatial=alone)
    mind = checkpoint.load(train(baby([rooms, walks, table], 0, settings), tmp_path / "mind"))
    assert isinstance(mind, Mind)
    assert set(mind.embodiments) == {"two-rooms", "maze", "camera"}
    assert mind.viewing is not None
    specialist = checkpoint.load(train(spatial([walks, table], 0, alone), tmp_path / "alone"))
    assert checkpoint.digest(mind.viewing) == checkpoint.digest(specialist)
    asked = replace(views.QUICK[0], learn=6, steps=4, among=4, probe_steps=3)
    said, alone_said = (asked.run(each, 4, Asking(seed=0)).results for each in (mind, specialist))
    assert [each.value for each in said] == [each.value for each in alone_said]
    assert mind.exploring is not None
    explorer = checkpoint.load(train(places([walks], 0, walked), tmp_path / "explorer"))
    assert checkpoint.digest(mind.exploring) == checkpoint.digest(explorer)
    without = replace(settings, spatial=replace(alone, steps=0))
    assert set(baby([rooms, walks, table], 0, without).build().embodiments) == {"two-rooms", "maze", "tabletop"}


def test_one_part_expects_physics_and_remembers_what_cups_hide(tmp_path: Path) -> None:
    lived = life_store(tmp_path / "physics")
    games = game_store(tmp_path / "cups")
    few = PhysicsSettings(steps=2, batch=2, retained_batch=2, leaps=2)
    model = checkpoint.load(train(physics([lived, games], 0, few), tmp_path / "both"))
    assert isinstance(model, RecurrentJEPA)
    assert model.lives == ("cups", "physics")
    rows = read_metrics(tmp_path / "both")
    last = set([row for row in rows if row["stage"] == "expect"][-1])
    assert {"cups/told", "cups/prediction", "cups/behind", "physics/prediction", "physics/stands"} <= last
    assert "cups/stands" not in last, "screens were put before cups"
    assert not any(name.startswith("cups/") for name in rows[-1]), "cups taught leaps"


def test_specialists_learn_from_their_kind(films: Store, robots: Store, tmp_path: Path) -> None:
    assert {each.__name__.replace("_", "-"): each for each in RECIPES.values()} == RECIPES
    few = replace(TINY, steps=2, refine=2)
    with_teacher = replace(DRAWN, masked=0.3, momentum=0.996)
    settings = replace(VIDEO, steps=2, batch=4, objective=with_teacher)
    seen = checkpoint.load(train(video([films], 0, settings), tmp_path / "video"))
    assert isinstance(seen, VJEPA)
    last = read_metrics(tmp_path / "video")[-1]
    assert {"film/masked", "film/points", "film/gauge/rank_0", "film/gauge/deviation_0"} <= set(last)
    assert last["gauge/mask_ratio_0"] == 0.5
    assert 0 < last["gauge/teacher_distance"] < 0.1
    moved = checkpoint.load(train(bridge([robots], 0, few), tmp_path / "bridge"))
    assert set(moved.embodiments) == {"widowx"}


def test_drawn_films_are_taught_by_points_and_recorded_ones_as_the_size_has_it() -> None:
    exact = replace(VIDEO, precision="fp32")
    for size, fast in (("baby", 2.5e-3), ("small", 1.25e-3)):
        drawn = resolved(replace(exact, size=size), ("drawn-film",))
        assert drawn.objective == replace(DRAWN, points=PointSettings(fades=VIDEO.steps, films=("drawn-film",)))
        assert drawn.optimisation is not None
        assert drawn.optimisation.rate == pytest.approx(fast)
    assert resolved(exact, ()).objective == replace(RECORDED, points=PointSettings(fades=VIDEO.steps))
    large = resolved(replace(exact, size="large"), ())
    assert (large.depth, large.objective) == (None, MaskedSettings())
    assert large.optimisation is not None
    assert large.optimisation.rate == pytest.approx(5.25e-4 * (16 / 3072) ** 0.5)


def test_a_clip_counts_alike_whatever_its_kind(films: Store, tmp_path: Path) -> None:
    """Few recorded films beside many drawn ones have small batches, whose mean must not weigh as much."""
    drawn = larger(tmp_path / "drawn", 64, (60, 60), truth=True, body="drawn-film")
    recipe = video([films, drawn], 0, replace(VIDEO, batch=8, small_batch=2))
    assert recipe.stages[0].weights == {"drawn-film": 1.0, "film": 0.25}


def larger(
    folder: Path, side: int, frames: tuple[int, ...] = (20, 20), truth: bool = False, body: str = FILM.name
) -> Store:
    """Films of noise."""
    store, rng = Store.create(folder, replace(FILM, name=body), ("x",) if truth else ()), np.random.default_rng(6)
    for count in frames:
        video = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        known = np.zeros((count, 1), np.float32) if truth else None
        store.append([Episode(np.arange(count) * 0.1, video, truth=known, source=f"{count}.mp4")])
    return store


def test_real_films_are_cropped_where_it_is_asked_for_and_drawn_ones_never(films: Store, tmp_path: Path) -> None:
    assert (resolved(VIDEO, ()).crop, resolved(replace(VIDEO, size="small"), ()).crop) == (None, (0.3, 1.0))
    real, drawn = larger(tmp_path / "real", 96), larger(tmp_path / "drawn", 96, truth=True)

    def crop(store: Store, settings: FilmSettings) -> Crop | None:
        recipe = video([store], 0, settings)
        loader = recipe.stages[0].loader(recipe.build())
        assert loader.batch(0)[0].video.shape[-2:] == (64, 64)
        assert recipe.stages[0].gauge_clips[0].video.shape[-2:] == (64, 64)
        return loader.sources[0].crop

    cropping = replace(VIDEO, crop=(0.5, 0.8))
    assert crop(real, cropping) == Crop(64, (0.5, 0.8))
    assert crop(films, cropping) == Crop(64, (0.5, 0.8))
    assert crop(drawn, cropping) == crop(real, VIDEO) == uncut(64)
    assert crop(films, VIDEO) is None
    with pytest.raises(ValueError, match=r"96 x 96 px and the model is to see 128; ingest the films with --size 128"):
        video([real], 0, replace(VIDEO, picture=128))


def test_a_run_on_crops_that_is_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    store = larger(tmp_path / "real", 96)
    settings = replace(VIDEO, steps=4, batch=2, crop=(0.3, 1.0))

    def stop(tick: Tick) -> None:
        if tick.step == 3:
            raise KeyboardInterrupt

    whole = train(video([store], 0, settings), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(video([store], 0, settings), tmp_path / "stopped", save_every=2, watch=stop)
    gone_on = train(video([store], 0, settings), tmp_path / "stopped", save_every=2, resume=True)
    assert checkpoint.digest(gone_on) == checkpoint.digest(whole)


def test_what_the_data_lacks_is_in_the_papers_of_the_checkpoint(tmp_path: Path) -> None:
    store = larger(tmp_path / "real", 64, frames=(20, 15, 20))
    store.leave_out([LeftOut("torn.mp4", "is torn", 5.0), LeftOut("empty.mp4", "is empty")])
    done = train(video([store], 0, replace(VIDEO, steps=2, batch=2)), tmp_path / "run")
    assert checkpoint.read_provenance(done).left_out == (
        LeftOut("torn.mp4", "is torn", 5.0, clips=3),  # of 16 frames, 10 a second
        LeftOut("empty.mp4", "is empty"),
        LeftOut("15.mp4", "it has 15 frames and a clip 16", 1.5, clips=0),
    )


def test_mixtures_that_make_no_sense_are_refused(rooms: Store, films: Store, robots: Store, tmp_path: Path) -> None:
    mistakes = {
        "'video' learns from films, which have no actions; .* holds 'two-rooms'": lambda: video([films, rooms]),
        "'bridge' learns from episodes with actions; .* holds 'film'": lambda: bridge([robots, films]),
        "'tasks' learns from episodes with actions; .* holds 'film'": lambda: tasks([rooms, films]),
        "both hold 'two-rooms'; collect into one store": lambda: baby([rooms, rooms]),
        "none was given; name at least one store": lambda: baby([]),
        "holds no episodes; collect or ingest some": lambda: baby([Store.create(tmp_path / "empty", WALKER)]),
        "nobody acts in .*; the recipes 'video', 'physics', 'slots', 'places' and 'spatial' do without": lambda: baby(
            [films]
        ),
        "there is no size 'giant'": lambda: baby([rooms], 0, BabySettings(size="giant")),
    }
    for sentence, mistake in mistakes.items():
        with pytest.raises(ValueError, match=sentence) as caught:
            mistake()
        assert "\n" not in str(caught.value)


WALKER = Embodiment("walker", 0.1, (-1.0, -1.0), (1.0, 1.0))


def test_actions_are_measured_on_the_training_side_alone(tmp_path: Path) -> None:
    store, rng = Store.create(tmp_path / "s", WALKER), np.random.default_rng(0)
    made = [
        Episode(
            np.arange(9.0), actions=np.stack([rng.normal(0.3, 0.2, 8), np.full(8, 0.5)], 1).astype(np.float32), source=s
        )
        for s in map(str, range(20))
    ]
    store.append(made)
    train_side, held = sides(store)
    assert sorted([*train_side, *held]) == list(range(20))
    assert 2 <= len(held) <= 8
    body = measured(store, train_side)
    done = np.concatenate([made[episode].actions for episode in train_side])
    assert body.action_mean == pytest.approx(done.mean(0), rel=1e-5)
    assert body.action_std[0] == pytest.approx(done[:, 0].std(), rel=1e-5)
    assert body.action_std[1] == pytest.approx(0.1)  # it never moves: a twentieth of its range
    assert measured(store, held).action_mean[0] != pytest.approx(body.action_mean[0], rel=1e-3)


def test_gauges_look_at_what_is_held_out(rooms: Store, films: Store) -> None:
    stores = by_embodiment([rooms, films])
    assert list(stores) == ["film", "two-rooms"]
    held = {name: sides(store)[1] for name, store in stores.items()}
    film, walk = gauge_clips(stores, held, 6)
    assert (film.embodiment, len(film)) == ("film", 2)  # of two films none can be spared
    assert len(walk) == len(held["two-rooms"]) > 1
    assert np.array_equal(walk.truth[0], rooms.read(held["two-rooms"][0]).truth[-6:])
    # Of recorded films all learn from what comes first.
    assert torch.equal(film.video[0, :, 0, :, 0, 0], torch.tensor(films.arrays(0)["video"][-6:, 0, 0]))
    assert gauge_clips({"film": films}, {"film": (0, 1)}, 31) == ()


def test_real_robot_episodes_teach_a_bridge(shared_data: Path, tmp_path: Path) -> None:
    ingest([shared_data / "robot"], tmp_path / "store")
    store = Store.open(tmp_path / "store")
    settings = BabySettings(steps=25, refine=40, unsure=0, batch=16, refine_batch=64)
    model = checkpoint.load(train(bridge([store], 0, settings), tmp_path / "run"))
    train_side, held = sides(store)
    results = {result.metric: result for result in NextLatent().run(model, held_out_clip(store, held))}
    assert set(results) == {"rank_vs_copy", "rank_vs_shuffled", "error_vs_copy", "error_vs_shuffled"}
    assert all(result.n == 9 * len(held) for result in results.values())
    # A few seconds teach what was seen often: on its own training side the prediction beats the copy.
    known = {result.metric: result for result in NextLatent().run(model, held_out_clip(store, train_side))}
    assert known["error_vs_copy"].value < 1.0
    assert known["rank_vs_copy"].value > 0.5
