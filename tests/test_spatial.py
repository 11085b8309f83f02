"""The spatial JEPA: what it perceives of a view by any of its senses, what it says of elsewhere, how it is taught."""

import itertools
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from ami import geometry
from ami.data.camera import CAMERA, Cameras, as_camera
from ami.data.episodes import Store
from ami.evaluation import places
from ami.evaluation.benchmark import Asking
from ami.evaluation.suites import spatial as spatial_suite
from ami.evaluation.suites.real_places import RealPlaces, chance
from ami.models import checkpoint, contract
from ami.models.baselines import CopyLast
from ami.models.spatial import SpatialJEPA, sized
from ami.nn.senses import (
    CellStem,
    PointStem,
    bearings,
    colour_pieces,
    depth_pieces,
    directions,
    farthest,
    rays,
)
from ami.nn.views import Elsewhere, told
from ami.objectives.across import Across, AcrossSettings
from ami.recipes.spatial import SPATIAL, spatial, spatial_colours, spatial_shuffled
from ami.training.run import train
from ami.types import Clip, Latent
from tiny_stores import maze_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return maze_store(tmp_path_factory.mktemp("maze") / "store", 8, 8, seed=5)


@pytest.fixture(scope="module")
def clip(store: Store) -> Clip:
    made = Cameras((store,)).clips(np.array([[episode, 0] for episode in range(4)]), 6)
    return replace(made, points=scattered(made))


def scattered(clip: Clip) -> torch.Tensor:
    assert clip.depth is not None
    assert clip.intrinsics is not None
    return geometry.unproject(clip.depth[:, :, 0, 0], clip.intrinsics[:, None]).flatten(2, 3)[:, :, ::32]


def model(seed: int = 0) -> SpatialJEPA:
    torch.manual_seed(seed)
    return SpatialJEPA(sized({CAMERA.name: CAMERA})).eval()


TAUGHT = {"across", "lying", "colours", "codes", "variance", "covariance"}
SENSES = [("video",), ("depth",), ("points",), ("video", "depth"), ("video", "depth", "points")]


def only(clip: Clip, *names: str) -> Clip:
    return replace(clip, **{name: None for name in ("video", "depth", "points") if name not in names})


@pytest.mark.parametrize("names", SENSES)
def test_it_keeps_the_contract_with_any_senses(clip: Clip, names: tuple[str, ...]) -> None:
    contract.check(model(), only(clip, *names))


def test_a_sense_that_is_absent_is_not_a_sense_of_nothing(clip: Clip) -> None:
    made = model()
    assert clip.depth is not None
    with torch.no_grad():
        absent = made.encode(only(clip, "video")).values
        unknown = made.encode(replace(only(clip, "video", "depth"), depth=torch.zeros_like(clip.depth))).values
    assert not torch.allclose(absent, unknown)


def test_what_is_absent_is_never_computed(clip: Clip) -> None:
    made = model()
    for stem in (made.encoder.depths, made.encoder.points):
        for parameter in stem.parameters():
            parameter.data.fill_(torch.nan)
    assert made.encode(only(clip, "video")).values.isfinite().all()


def test_the_order_of_points_does_not_matter_and_unknown_ones_take_no_part(clip: Clip) -> None:
    torch.manual_seed(0)
    stem = PointStem(32)
    assert clip.points is not None
    points = clip.points[0]
    mixed = points[:, torch.randperm(points.shape[1])]
    more = torch.cat([torch.zeros_like(points[:, :9]), points], 1)
    for other in (mixed, more):
        for one, two in zip(stem(points), stem(other), strict=True):
            torch.testing.assert_close(one, two)


def test_centres_are_far_apart_and_none_is_made_up() -> None:
    line = torch.tensor([[[1.0, 0, 0], [2.0, 0, 0], [1.1, 0, 0], [4.0, 0, 0], [0, 0, 0]]])
    chosen, there = farthest(line, geometry.known(line), 5)
    assert chosen[0, :3].tolist() == [0, 3, 1]  # the nearest, the farthest from it, the one between
    assert there[0].tolist() == [True, True, True, True, False]


def test_depth_is_told_in_ratios_and_unknown_from_near() -> None:
    torch.manual_seed(0)
    stem = CellStem(2 * 16**2, 8)
    near, far, last, none = (depth_pieces(torch.full((1, 1, 1, 16, 16), each), 16) for each in (1.0, 1e5, 100.0, 0.0))
    torch.testing.assert_close(stem(far), stem(last))  # as far as depth is told apart
    assert not torch.allclose(stem(near), stem(none))  # though the logarithm of 1 m is that of nothing known


def test_a_piece_is_what_lies_in_its_cell() -> None:
    depth = torch.arange(1.0, 1 + 2 * 32 * 48).view(1, 2, 1, 32, 48)
    far, known = depth_pieces(depth, 16).unflatten(2, (2, 2, 256)).unbind(3)
    assert known.all()
    wanted = depth[0, 1, 0, 16:, 32:].clamp(max=100.0).log()  # the second frame of the last cell
    torch.testing.assert_close(far[0, 5, 1], wanted.flatten())


def test_cells_look_where_the_camera_does() -> None:
    wide = bearings(rays(torch.tensor([[32.0, 32.0, 32.0, 32.0]]), 4, 64))[0]
    assert wide[0, 0] < 0 < wide[-1, 0]  # the first row looks up, and down is positive
    torch.testing.assert_close(wide[:4, 1].tan(), torch.tensor([-0.75, -0.25, 0.25, 0.75]))
    narrow = bearings(rays(torch.tensor([[64.0, 64.0, 32.0, 32.0]]), 4, 64))[0]
    assert narrow[3, 1] < wide[3, 1]


def test_to_turn_is_to_shift_bearings() -> None:
    point = torch.tensor([[0.5, 0.0, 2.0]])
    pose = geometry.from_motion(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.3, 0.0]))  # to the right
    after = bearings(geometry.place(geometry.inverse(pose), point))
    torch.testing.assert_close(after - bearings(point), torch.tensor([[0.0, -0.3, 0.0]]), atol=1e-5, rtol=0)


def test_directions_are_what_bearings_tell() -> None:
    points = torch.randn(50, 3)
    torch.testing.assert_close(directions(bearings(points)), points, atol=1e-5, rtol=1e-4)


def test_colours_and_depth_are_cut_alike() -> None:
    video = torch.arange(3 * 16 * 24).view(1, 1, 3, 16, 24).remainder(255).to(torch.uint8)
    pieces = (colour_pieces(video, 8) * 64 + 127.5).unflatten(2, (3, 8, 8))
    torch.testing.assert_close(pieces[0, 5], video[0, 0, :, 8:, 16:].float())


def test_a_view_is_alone_whose_depth_no_other_has() -> None:
    near = torch.full((4, 256), 0.2)
    near[1] += 0.004
    near[2, :16] += 0.5
    assert places.alone(near, 0.01).tolist() == [False, False, True, False]
    assert places.alone(near[1:], 0.003).all()


def carried(turn: float, ranges: tuple[float, ...]) -> torch.Tensor:
    """Of which cells of each view that is held, all from one place, each cell takes how much after a turn."""
    where = bearings(rays(torch.full((1, 4), 32.0), 8, 64))[0]
    held = torch.stack([torch.cat([where[:, :2], torch.full((64, 1), each).log()], 1) for each in ranges])
    moved = bearings(geometry.place(geometry.inverse(turned(turn)), directions(held)))
    made = Elsewhere(dim=64 * len(ranges), width=12, depth=1, heads=1, takers=1)
    value = torch.eye(64 * len(ranges)).view(len(ranges), 64, -1)
    with torch.no_grad():
        made.sharp.fill_(6.0)
        taken = made.carried(
            value[None], torch.zeros(1, *value.shape[:2], 1), moved[None, None], where[None, None, :, :2]
        )
    return taken[0, 0, :, : 64 * len(ranges)].view(64, len(ranges), 64)


def turned(right: float) -> torch.Tensor:
    return geometry.from_motion(torch.tensor([0.0, 0.0, 0.0, 0.0, right, 0.0]))


def test_a_turned_camera_takes_each_cell_from_where_it_was() -> None:
    columns = bearings(rays(torch.full((1, 4), 32.0), 8, 64))[0, 32:40, 1]  # of a row that is almost level
    taken = carried(0.3, (2.0,))[32:40, 0]
    for column, bearing in enumerate(columns):
        if bearing + 0.3 < columns[-1]:  # what comes into view was not seen
            assert taken[column].argmax() == 32 + (columns - bearing - 0.3).abs().argmin()
    assert taken[0].sum() > 0.5 > taken[7].sum()


def test_what_is_nearer_hides_what_is_behind() -> None:
    taken = carried(0.0, (3.0, 1.0)).sum(2)
    assert (taken[:, 1] > 2 * taken[:, 0]).all()


def test_motions_are_those_between_the_poses(clip: Clip) -> None:
    assert clip.actions is not None
    assert clip.pose is not None
    pose = clip.pose[:, 0]
    for step in range(5):
        pose = pose @ geometry.from_motion(clip.actions[:, step])
    torch.testing.assert_close(pose, clip.pose[:, 5], atol=1e-5, rtol=0)
    turned = geometry.from_motion(torch.tensor([[1.0, 2.0, 3.0, 0.3, -0.2, 0.1]])).expand(len(clip), 6, 4, 4)
    moved = as_camera(replace(clip, pose=turned @ clip.pose))
    torch.testing.assert_close(moved.actions, clip.actions, atol=1e-5, rtol=0)


def test_where_a_walk_leads_decides_what_is_seen_not_how_it_went(clip: Clip) -> None:
    made, there = model(), torch.tensor([0.2, 0.0, 0.4, 0.0, 0.5, 0.0])
    with torch.no_grad():
        belief = made.believe(None, made.encode(clip), clip.actions, CAMERA.name)
        still = torch.zeros(len(clip), 1, 6)
        straight = made.predict(belief, there.expand(len(clip), 1, 6), 1).values[:, -1]
        waited = made.predict(belief, torch.cat([still, there.expand(len(clip), 1, 6)], 1), 2).values[:, -1]
    torch.testing.assert_close(straight, waited)


def test_the_order_in_which_views_were_held_does_not_matter(clip: Clip) -> None:
    made = model()
    assert clip.pose is not None
    with torch.no_grad():
        views, poses = (
            made.encode(clip).values[:, :3],
            geometry.relative(clip.pose[:, None, :3], clip.pose[:, 5:, None]),
        )
        torch.testing.assert_close(made.views_from(views, poses), made.views_from(views.flip(1), poses.flip(2)))
        assert not torch.allclose(made.views_from(views, poses), made.views_from(views, poses.flip(2)))


def test_views_asked_for_and_pairs_measured_together_are_those_asked_alone(clip: Clip) -> None:
    made = model()
    assert clip.pose is not None
    with torch.no_grad():
        views, poses = made.encode(clip).values, geometry.relative(clip.pose[:, None], clip.pose[:, 2:5, None])
        seen, motion = made.views_from(views, poses), made.measure(views, views[:, 2:5])
        without = torch.tensor([False, True, True, False, True, True]).expand(len(clip), 3, 6)
        fewer = made.elsewhere(made.taught(views), made.lying(views), poses, without)
        for step in range(3):
            torch.testing.assert_close(seen[:, [step]], made.views_from(views, poses[:, [step]]))
        told_alike = made.taught(made.views_from(views[:, ::3], poses[:, :, ::3]))
        torch.testing.assert_close(fewer, told_alike, atol=1e-5, rtol=1e-4)
        for here in range(6):
            alone = made.measure(views[:, here, None], views[:, 3, None])
            torch.testing.assert_close(motion[:, 1, here], alone[:, 0, 0], atol=1e-5, rtol=1e-4)


def test_a_world_that_is_turned_gives_the_same_motions_and_losses(clip: Clip) -> None:
    made, world = model(), geometry.from_motion(torch.tensor([3.0, 1.0, 2.0, 0.4, 0.1, -1.0]))
    objective = Across(made, AcrossSettings(often=1.0))
    assert clip.pose is not None
    one, other = (
        objective.losses(made, replace(clip, pose=pose), torch.Generator().manual_seed(0))
        for pose in (clip.pose, world @ clip.pose)
    )
    for name, loss in one.items():
        torch.testing.assert_close(other[name], loss, atol=1e-4, rtol=1e-4)


def test_it_is_taught_across_senses_and_from_elsewhere(clip: Clip) -> None:
    torch.manual_seed(0)
    made = SpatialJEPA(sized({CAMERA.name: CAMERA}))
    objective = Across(made, AcrossSettings(hidden=0.9, often=1.0))
    seeds = [k for k in range(9) if _has_points(made, objective, clip, k)]
    assert 0 < len(seeds) < 9  # some steps have points, and not all
    optimiser = torch.optim.Adam([*made.parameters(), *objective.parameters()], 2e-3)
    first: dict[str, float] = {}
    losses: dict[str, torch.Tensor] = {}
    for _ in range(25):
        losses = objective.losses(made.train(), replace(clip, points=None), torch.Generator().manual_seed(seeds[0]))
        assert set(losses) == TAUGHT | {"depth", "view", "motion"}
        first = first or {name: float(loss.detach()) for name, loss in losses.items()}
        optimiser.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        assert [name for name, p in made.named_parameters() if p.grad is None] == []
        optimiser.step()
    for name in ("depth", "motion"):
        assert losses[name] < 0.9 * first[name], name


def _has_points(made: SpatialJEPA, objective: Across, clip: Clip, seed: int) -> bool:
    """Whether a step of that seed teaches what points are."""
    losses = objective.losses(made.train(), replace(clip, points=None), torch.Generator().manual_seed(seed))
    (gradient,) = torch.autograd.grad(losses["across"], made.encoder.points.token.weight, allow_unused=True)
    return gradient is not None


def test_colours_alone_teach_what_they_can(store: Store) -> None:
    made, twin = model().train(), Cameras((store,), colours_only=True)
    clip = twin.clips(np.array([[0, 0], [1, 0]]), 5)
    assert (clip.depth, clip.pose, clip.actions) == (None, None, None)
    assert set(Across(made).losses(made, clip, torch.Generator())) == TAUGHT


def test_a_code_that_says_only_where_a_cell_lies_does_not_pass(clip: Clip) -> None:
    made = model().train()
    for stem in (made.encoder.colours.token, made.encoder.depths.token):
        torch.nn.init.zeros_(stem.weight)
    losses = Across(made).losses(made, only(clip, "video", "depth"), torch.Generator().manual_seed(0))
    settings = AcrossSettings()
    assert losses["variance"] > 0.95 * settings.variance * settings.spread


def test_stores_are_one_camera_and_rows_come_as_asked(store: Store) -> None:
    both = Cameras((store, store))
    windows = both.windows(6, episodes=[1, 9])
    assert set(windows[:, 0]) == {1, 9}
    clip = both.clips(windows[[0, -1, 1, -2]], 6)
    alone = Cameras((store,)).clips(windows[[0, -1, 1, -2]] - np.array([[0, 0], [8, 0], [0, 0], [8, 0]]), 6)
    assert clip.embodiment == CAMERA.name
    for one, other in ((clip.video, alone.video), (clip.depth, alone.depth), (clip.actions, alone.actions)):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


def test_a_recipe_trains_it_and_a_checkpoint_holds_it(store: Store, tmp_path) -> None:
    few = replace(SPATIAL, steps=2, measures=2, clip=4, batch=2, precision="fp32")
    kept = {
        make.__name__: train(make([store], 3, few), tmp_path / make.__name__)
        for make in (spatial, spatial_colours, spatial_shuffled)
    }
    for name, folder in kept.items():
        assert isinstance(checkpoint.load(folder), SpatialJEPA)
        assert checkpoint.read_provenance(folder).recipe == name.replace("_", "-")
    assert len({checkpoint.digest(folder) for folder in kept.values()}) == 3
    with pytest.raises(ValueError, match="none was given"):
        spatial([])


def test_what_does_not_fit_is_refused_in_a_sentence(clip: Clip) -> None:
    made = model()
    assert clip.video is not None
    assert clip.depth is not None
    with pytest.raises(ValueError, match="the clip has none of them"):
        made.encode(only(clip))
    with pytest.raises(ValueError, match=r"depth has .* this model was built for"):
        made.encode(replace(clip, depth=clip.depth[..., :32, :32]))
    belief = made.believe(None, made.encode(clip), clip.actions, CAMERA.name)
    with pytest.raises(ValueError, match="needs actions of shape"):
        made.predict(belief, None, 2)
    with pytest.raises(ValueError, match="recorded without poses"):
        as_camera(replace(clip, pose=None))
    with pytest.raises(ValueError, match="no spatial JEPA of size 'giant'"):
        sized({}, "giant")


def test_without_motions_only_the_last_view_is_held(clip: Clip) -> None:
    made = model()
    with torch.no_grad():
        seen = made.encode(clip)
    belief = made.believe(None, seen, None, CAMERA.name)
    assert (belief.latents.steps, belief.actions) == (1, None)
    longer = made.believe(None, Latent(seen.values, seen.times), clip.actions, CAMERA.name)
    assert longer.latents.steps == made.config.window


def test_a_camera_that_stands_still_is_told_by_zeros() -> None:
    assert not told(torch.eye(4)).any()


def test_processes_that_see_other_views_draw_the_same_numbers(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    made = model()
    objective, short = Across(made), only(clip, "video", "depth").between(0, 2)
    monkeypatch.setattr("ami.parallel.size", lambda: 2)
    monkeypatch.setattr("ami.parallel.mean", lambda tensor: tensor)
    monkeypatch.setattr("ami.parallel.total", lambda value: max(value, 1.0))  # the other has some views as points
    for seed in range(24):
        drawn = []
        for rank in (0, 1):
            monkeypatch.setattr("ami.parallel.rank", lambda rank=rank: rank)
            generator = torch.Generator().manual_seed(seed)
            taught = set(objective.losses(made, short.rows(slice(rank, rank + 1)), generator))
            drawn.append((taught, generator.get_state().tolist()))
        assert drawn[0] == drawn[1]


def test_chance_is_counted_as_if_all_pairings_were_tried() -> None:
    said = [np.array([0, 1, 1, 3]), np.array([2, 1, 2])]
    hits = sum(int((each == np.arange(len(each))).sum()) for each in said)
    tries = [
        sum(int((each == np.array(way)).sum()) for each, way in zip(said, ways, strict=True)) >= hits
        for ways in itertools.product(itertools.permutations(range(4)), itertools.permutations(range(3)))
    ]
    assert chance(said) == pytest.approx(np.mean(tries))


def test_errors_of_poses_are_those_of_known_ones() -> None:
    true = geometry.from_motion(torch.tensor([[1.0, 0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0, 0], [0.0, 0, 0, 0, 0.5, 0]]))
    said = geometry.from_motion(torch.tensor([[2.0, 0, 0, 0, 0.1, 0], [0, 0, 1.0, 0, 0, 0], [0.0, 0, 9.0, 0, 0.5, 0]]))
    off = places.pose_errors(said, true)
    torch.testing.assert_close(off.turned, torch.tensor([5.7296, 0, 0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        off.worst, torch.tensor([5.7296, 90, 0]), atol=1e-2, rtol=0
    )  # who only turned went nowhere
    torch.testing.assert_close(places.under(off.worst, 10.0), torch.tensor([0.42704, 0, 1]), atol=1e-3, rtol=0)


def test_who_reads_best_is_asked_for_each_quantity() -> None:
    seen, noise = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(200, 3)
    truth = torch.cat([seen[:, :1], seen[:, 1:].prod(1, keepdim=True)], 1)
    held = torch.arange(200) >= 160

    def wrong(seen: torch.Tensor, truth: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full((len(asked), 1), 9.0), asked[:, 1:].prod(1, keepdim=True)], 1)

    ways = [places.Way(seen, seen, places.read_ridge), places.Way(seen, seen, wrong), places.Way(noise, noise, wrong)]
    said = places.read_best(ways, truth, held, [slice(0, 1), slice(1, 2)])
    torch.testing.assert_close(said, truth, atol=1e-2, rtol=1e-2)
    liked = places.read_best(ways, truth, held, [slice(None)], lambda said, _: (said[:, :1] - 9.0).abs())
    assert (liked[:, 0] == 9).all(), "who errs least is decided by the error that is given"


def test_a_model_measures_pairs_as_it_was_taught_and_others_have_no_measure(clip: Clip) -> None:
    made = model()
    with torch.no_grad():
        views = made.encode(clip).values
        pairs = torch.tensor([[0, 1, 4], [3, 2, 0]])
        said = places.measured(made, views.flatten(2), pairs)
        assert said is not None
        torch.testing.assert_close(said[1], made.measure(views[3:, 2:3], views[3:, :1])[0, 0, 0], atol=1e-5, rtol=1e-4)
    assert places.measured(CopyLast(made), views.flatten(2), pairs) is None


def test_a_walk_is_the_places_of_its_cameras(clip: Clip) -> None:
    assert clip.pose is not None
    steps = geometry.relative(clip.pose[:, :-1], clip.pose[:, 1:])
    true = geometry.relative(clip.pose[:, :1], clip.pose)[..., :3, 3]
    torch.testing.assert_close(places.walked(steps), true, atol=1e-5, rtol=0)


def test_the_suite_asks_every_question_of_every_rival(clip: Clip) -> None:
    made, asked = model(), replace(spatial_suite.MAZE, learn=12, steps=6, among=8, probe_steps=3)
    rival = model(1)
    answer = asked.run(made, 10, Asking(seed=1, untrained=model(2), rivals={"twin": rival}))
    names = {result.benchmark for result in answer.results}
    wanted = ("depth-from-rgb", "relative-pose", "ego-motion", "cross-modal", "queried-view")
    assert names == {f"spatial/{name}" for name in wanted}
    assert all({"untrained", "twin"} <= result.baselines.keys() for result in answer.results)
    depth = next(result for result in answer.results if result.metric == "rmse")
    assert depth.value < depth.baselines["mean"].value  # a maze's depth shows in how dark it is


@pytest.mark.skipif(find_spec("mujoco") is None, reason="mujoco is not installed: pip install 'openami[worlds]'")
def test_where_the_target_is_is_asked_of_views_and_learned_from_other_films() -> None:
    asked = replace(spatial_suite.TABLE, learn=6, steps=7, among=4, probe_steps=3, things=10)
    answer = asked.run(model(), 12, Asking(seed=1, untrained=model(2)))
    told = {result.benchmark: result for result in answer.results if result.benchmark.startswith("spatial/")}
    assert told.keys() == {"spatial/position", "spatial/velocity", "spatial/yaw"}
    assert told["spatial/yaw"].metric == "r"
    assert all({"untrained", "pixels"} == result.baselines.keys() for result in told.values())
    assert any("10 films of three steps" in line for line in asked.protocol)


def test_chance_is_counted_of_long_recordings_too() -> None:
    assert chance([np.zeros(300, int)]) == 1.0, "whoever always says the same frame is right once, and so is everybody"
    assert chance([np.roll(np.arange(300), 1)]) == 1.0
    assert chance([np.array([0, 1, *np.roll(np.arange(2, 300), 1)])]) == pytest.approx(1 - 2 / np.e, abs=1e-9)


def test_a_frame_is_never_among_those_that_are_held_when_it_is_asked_for() -> None:
    pose = torch.eye(4).repeat(1, 10, 1, 1)
    pose[0, :, 0, 3] = torch.tensor([0, 1, 2, 2, 3, 4, 5, 6, 6, 7.0])  # the camera stands still, twice
    still = Clip(CAMERA.name, torch.arange(10.0)[None], pose=pose)
    for asked in range(10):
        held = RealPlaces()._around(still, asked)
        assert asked not in held
        assert len(held) == 2
    assert RealPlaces()._around(still, 2)[-1] == 3
