"""The benchmarks ask what they say: fresh pairs, pictures only, judged by the true state, row by row."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ami import files
from ami.evaluation.benchmark import Asking
from ami.evaluation.simulator import RoomsSimulator
from ami.evaluation.suites import SUITES, control
from ami.evaluation.suites.compute import ComputeBenchmark
from ami.evaluation.suites.control import Pairs, RoomsBenchmark
from ami.evaluation.suites.guarded import GuardrailBenchmark, SweptBenchmark, _joined
from ami.evaluation.suites.robots import NextLatent
from ami.evaluation.suites.ways import NoPlanBenchmark, WaysBenchmark
from ami.models.contract import check
from ami.models.jepa import JEPA, sized
from ami.planning.costs import GoalDistance, Sum
from ami.planning.sampling import SamplingSettings
from ami.types import Belief, Clip, Embodiment, Latent, WorldModel
from ami.worlds import rooms as tr
from ami.worlds.rooms import EMBODIMENT, Rooms
from known_worlds import Redness

QUICK = SamplingSettings(samples=64, iterations=4, elites=8)


def _walk(benchmark: RoomsBenchmark, pairs: Pairs, action: tuple[float, float]):
    return benchmark.play(pairs, lambda position, step: np.broadcast_to(np.array(action), position.shape))


def test_the_same_planner_on_the_true_simulator_beats_the_straight_line() -> None:
    benchmark = RoomsBenchmark("door", planner=replace(QUICK, samples=128), warm_iterations=2)
    pairs = benchmark.pairs(0, 24)
    others = benchmark._baselines(Redness().eval(), pairs, Asking())
    assert others["simulator"].reached.mean() > 0.8 > 0.6 > others["straight-line"].reached.mean()
    assert others["zero-action"].reached.sum() == 0
    assert others["random"].reached.mean() < 0.25


def test_a_planner_that_seeks_what_it_should_avoid_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "GoalDistance", lambda *args, **held: Sum(((-1.0, GoalDistance(*args, **held)),)))
    benchmark = RoomsBenchmark("fixed", cross_room=False, planner=QUICK)
    played = benchmark.plan(RoomsSimulator().eval(), benchmark.pairs(0, 10), Asking())
    assert played.reached.mean() <= 0.1
    assert played.error.mean() > 25


def test_a_model_that_sees_only_pictures_finds_goals_in_its_room() -> None:
    benchmark = RoomsBenchmark("wall", cross_room=False, planner=QUICK, horizon=8)
    answer = benchmark.run(Redness().eval(), 10, Asking(seed=1, strips=0))
    ever, end = answer.results
    assert (ever.benchmark, ever.metric, end.metric) == ("two-rooms/wall/same-room", "success_ever", "success_end")
    assert ever.value == 1.0
    assert ever.low == pytest.approx(10 / (10 + 1.959964**2))
    assert ever.model_calls >= 10 * 64 * 4
    assert set(ever.baselines) == {"random", "zero-action", "straight-line", "simulator"}
    assert ever.baselines["straight-line"].value == 1.0


def test_an_episode_does_not_depend_on_how_many_there_are() -> None:
    benchmark = RoomsBenchmark("door", planner=QUICK, horizon=8, steps=8)
    many, few = (benchmark.pairs(3, n) for n in (16, 8))
    np.testing.assert_array_equal(many.start[:8], few.start)
    np.testing.assert_array_equal(many.rooms.door[:8], few.rooms.door)
    for model in (Redness().eval(), RoomsSimulator().eval()):
        path = [benchmark.plan(model, pairs, Asking(seed=3)).path for pairs in (many, few)]
        np.testing.assert_array_equal(path[0][:, :8], path[1])
    draws = [benchmark._baselines(Redness().eval(), pairs, Asking(seed=3))["random"].path for pairs in (many, few)]
    np.testing.assert_array_equal(draws[0][:, :8], draws[1])


def test_pairs_are_fresh() -> None:
    benchmark = RoomsBenchmark("wall")
    pairs, others = benchmark.pairs(0, 30), benchmark.pairs(1, 30)
    assert pairs.distance.min() >= benchmark.apart
    assert not set(pairs.rooms.door) & set(others.rooms.door)
    for seed in (0, 1):
        trained = np.concatenate([episode.truth for episode in tr.collect("wall", 30, 2, seed)])[:, 3]
        assert not set(trained) & set(np.float32(pairs.rooms.door))
    near = replace(benchmark, bins=(9.0, 120.0))
    assert near._distances(pairs).told("success_ever", {"model": _walk(near, pairs, (0, 0))})[0]["n"] == 30


def test_success_is_judged_after_every_environment_step() -> None:
    """Passing 4 px beside the goal in the middle of a model step, when 8 px are covered at once, is within 4.5 px."""
    rooms = Rooms(np.full(2, 40.0), np.full(2, 32.0))
    pairs = Pairs(rooms, np.array([[10.0, 10.0]] * 2), np.array([[14.0, 30.0], [15.0, 30.0]]))
    played = _walk(RoomsBenchmark("fixed", steps=5), pairs, (0.0, 1.0))
    assert len(played.path) == 21
    np.testing.assert_array_equal(played.path[-1], [[10.0, 50.0]] * 2)
    assert played.reached.tolist() == [True, False]
    assert np.linalg.norm(played.path[::4] - pairs.goal, axis=-1)[:, 0].min() > 4.5


def test_being_there_once_is_not_ending_there() -> None:
    rooms = Rooms(np.full(3, 40.0), np.full(3, 32.0))
    goal = np.array([[10.0, 20.0], [10.0, 47.1], [10.0, 46.9]])
    played = _walk(RoomsBenchmark("fixed", steps=5), Pairs(rooms, np.full((3, 2), 10.0), goal), (0.0, 1.0))
    assert played.reached.tolist() == [True, True, True]
    assert played.ended.tolist() == [False, True, False]
    np.testing.assert_allclose(played.error, [30.0, 2.9, 3.1])


def test_details_and_films_say_what_happened() -> None:
    benchmark, said = RoomsBenchmark("door", planner=QUICK, horizon=6, steps=6), []

    def decode(latent: Latent) -> np.ndarray:
        return np.full((*latent.times.shape, 64, 64, 3), 7, np.uint8)

    asking = Asking(
        decode=decode, strips=2, untrained=Redness().eval(), baseline_n=3, progress=lambda *a: said.append(a)
    )
    answer = benchmark.run(Redness().eval(), 6, asking)
    for result in answer.results:
        assert result.details is not None
        files.canonical(dict(result.details))
        assert sum(held["n"] for held in result.details["by_distance"]) == 6
        assert len(result.details["episodes"]) == 6
        wins = [row["ever" if result.metric == "success_ever" else "end"] for row in result.details["episodes"]]
        assert np.mean(wins) == pytest.approx(result.value)
    fresh = answer.results[0].baselines["untrained"]
    assert fresh.high - fresh.low > answer.results[0].high - answer.results[0].low
    assert len(answer.strips) == 2
    for strip in answer.strips:
        assert strip.imagined is not None
        assert strip.real.shape == strip.imagined.shape == (6, 64, 64, 3)
        assert "px from the goal" in strip.caption
    assert ("two-rooms/door/cross-room: model", 6, 6) in said


def test_a_suite_is_pinned_by_its_digest() -> None:
    suite = SUITES["rooms"]
    assert {each.name for each, n in suite.asked if n >= 200} >= {f"two-rooms/{f}/cross-room" for f in tr.FAMILIES}
    assert suite.digest == replace(suite).digest != SUITES["rooms-quick"].digest
    (first, n), *rest = suite.asked
    assert isinstance(first, RoomsBenchmark)
    for changed in (replace(first, near=5.0), replace(first, planner=replace(first.planner, samples=255))):
        assert replace(suite, asked=((changed, n), *rest)).digest != suite.digest
    assert any("4.5 px" in sentence for sentence in suite.protocol)


def test_the_simulator_imagines_what_happens() -> None:
    rng = np.random.default_rng(0)
    rooms = tr.sample_rooms("wall", 50, rng)
    positions, actions = tr.explore(rooms, 12, rng)
    truth = np.concatenate([positions, np.broadcast_to(np.stack([rooms.wall, rooms.door], -1), (12, 50, 2))], -1)
    clip = Clip(
        EMBODIMENT.name,
        torch.arange(12).repeat(50, 1) * EMBODIMENT.step_seconds,
        truth=torch.from_numpy(truth.transpose(1, 0, 2)).float(),
        actions=torch.from_numpy(actions.transpose(1, 0, 2)).float(),
    )
    model = RoomsSimulator().eval()
    assert clip.actions is not None
    seen = model.encode(clip)
    belief = model.believe(None, Latent(seen.values[:, :2], seen.times[:, :2]), clip.actions[:, :1])
    future = Latent(seen.values[:, 2:], seen.times[:, 2:])
    imagined = model.predict(belief, clip.actions[:, 1:], 10)
    # A float32 may fall on the other side of the door's edge; then a wall is in the way of one and not of the other.
    assert ((imagined.values - future.values).abs().amax((1, 2, 3)) < 1e-3).float().mean() >= 0.96
    torch.testing.assert_close(imagined.times, future.times)
    wrong = model.energy(belief, -clip.actions[:, 1:], future).mean()
    assert wrong > 100 * model.energy(belief, clip.actions[:, 1:], future).median() + 1
    check(model, clip, differentiable=False)
    with pytest.raises(ValueError, match="true state"):
        model.encode(replace(clip, truth=None))


class Arm(WorldModel):
    """Knows its pose; believes that an action moves it by ``gain`` times itself."""

    embodiments = {"arm": Embodiment("arm", 0.2, (-1.0,) * 3, (1.0,) * 3)}  # noqa: RUF012
    latent_shape = (1, 3)

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def encode(self, clip: Clip) -> Latent:
        assert clip.proprio is not None
        return Latent(clip.proprio[:, :, None], clip.times)

    def believe(self, belief, seen, actions, embodiment=""):
        assert actions.shape[1] == seen.steps - 1
        return Belief(embodiment, seen, actions)

    def predict(self, belief, actions, horizon):
        moved = self.gain * actions.cumsum(1)[:, :, None]
        return Latent(belief.latents.values[:, -1:] + moved, belief.latents.times[:, -1:] + 0.2)


def _arms(episodes: int = 12, noise: float = 0.05) -> Clip:
    rng = torch.Generator().manual_seed(0)
    actions = torch.rand(episodes, 9, 3, generator=rng) * 2 - 1
    pose = torch.cat([torch.zeros(episodes, 1, 3), actions.cumsum(1)], 1)
    pose = pose + noise * torch.randn(pose.shape, generator=rng)
    return Clip("arm", torch.arange(10).repeat(episodes, 1) * 0.2, proprio=pose, actions=actions)


def _asked(gain: float, **held) -> dict[str, tuple[float, float, float]]:
    results = NextLatent().run(Arm(gain).eval(), _arms(**held), seed=0)
    return {result.metric: (result.low, result.value, result.high) for result in results}


def test_a_model_that_knows_its_actions_is_told_apart() -> None:
    known = _asked(1.0)
    assert known["rank_vs_copy"] == (pytest.approx(0.025 ** (1 / 12)), 1.0, 1.0)
    assert known["rank_vs_shuffled"][0] > 0.9
    assert known["error_vs_copy"][2] < 0.3
    assert known["error_vs_shuffled"][2] < 0.3
    backwards = _asked(-1.0)
    assert backwards["rank_vs_copy"][1] < 0.1
    assert backwards["rank_vs_shuffled"][2] < 0.5
    assert backwards["error_vs_copy"][0] > 1.5


def test_a_model_that_copies_gets_exactly_one_half() -> None:
    for metric, interval in _asked(0.0).items():
        even = 0.5 if metric.startswith("rank") else 1.0
        assert interval == (even, even, even), metric


def test_always_winning_in_few_episodes_is_no_certainty() -> None:
    low, value, high = _asked(1.0, episodes=4, noise=0.0)["rank_vs_copy"]
    assert (value, high) == (1.0, 1.0)
    assert low == pytest.approx(0.025 ** (1 / 4))


def test_questions_without_an_answer_are_refused() -> None:
    with pytest.raises(ValueError, match="two or more episodes"):
        NextLatent().run(Arm(1.0), _arms(episodes=1))
    with pytest.raises(ValueError, match="without actions"):
        NextLatent().run(Arm(1.0), replace(_arms(), actions=None))
    with pytest.raises(ValueError, match="fixed, door, wall"):
        RoomsBenchmark("doors")
    with pytest.raises(ValueError, match="at least one"):
        RoomsBenchmark("door").run(Redness().eval(), 0, Asking())


def test_a_plan_too_short_for_a_strip_is_left_out_of_it() -> None:
    benchmark = WaysBenchmark("wall", steps=4)
    pairs, model = benchmark.pairs(0, 2), _learned_ways()
    played = benchmark.plan(model, pairs, Asking())
    assert played.imagined is not None
    assert played.imagined.steps == benchmark.ways.horizon
    strips = benchmark._strips(
        pairs, played, Asking(decode=lambda latent: np.zeros((1, latent.steps, 64, 64, 3), np.uint8))
    )
    assert all(strip.imagined is None for strip in strips)
    answer = benchmark.run(model, 2, Asking(baseline_n=1))
    assert {"flat", "random", "straight-line", "simulator"} <= set(answer.results[0].baselines)


def test_more_search_is_asked_the_same_questions_and_costs_more() -> None:
    benchmark = ComputeBenchmark(WaysBenchmark("wall", steps=4), searches=((4, 1, 1), (16, 2, 1)))
    answer = benchmark.run(_learned_ways(), 3, Asking())
    name = "two-rooms/wall/cross-room/compute"
    assert [result.benchmark for result in answer.results] == [*2 * [f"{name}/4x1x1"], *2 * [f"{name}/16x2x1"]]
    little, _, much, _ = answer.results
    assert little.model_calls == 3 * 4 * 4  # futures: episodes, actions, candidates
    assert much.model_calls == 3 * (33 + 3 * 17)  # the mean is imagined too, and one iteration is enough later
    assert all("CPU-milliseconds an action" in note for note in answer.notes)
    assert len(answer.notes) == 2


def test_goals_of_a_walk_are_fresh_and_not_begun_solved() -> None:
    benchmark = WaysBenchmark("wall", ahead=100, steps=50)
    pairs = benchmark.pairs(0, 12)
    assert (pairs.distance >= benchmark.apart).all()
    np.testing.assert_array_equal(benchmark.pairs(0, 5).goal, pairs.goal[:5])
    assert benchmark.name == "two-rooms/wall/distance-100"


def test_a_forbidden_place_lies_on_the_way_and_leaves_another() -> None:
    benchmark = GuardrailBenchmark()
    for row in range(6):
        rooms, start, goal, place = benchmark._pair(np.random.default_rng(row))
        assert min(np.linalg.norm(start[0] - place), np.linalg.norm(goal[0] - place)) > benchmark.radius
        assert rooms.side(start) == rooms.side(goal)
        share = np.linalg.norm(start[0] - place) / np.linalg.norm(start[0] - goal[0])
        assert 0.4 <= share <= 0.6
    narrow = Rooms(np.array([26.0]), np.array([32.0]))
    ends = np.array([14.0, 10.0]), np.array([14.0, 54.0])
    assert not _joined(narrow, *ends, np.array([14.0, 32.0]), 9.0)
    assert _joined(narrow, *ends, np.array([14.0, 32.0]), 5.0)


def test_a_model_without_ways_is_not_asked_what_needs_them() -> None:
    for benchmark in (GuardrailBenchmark(), NoPlanBenchmark(sealed=True)):
        with pytest.raises(ValueError, match="learned ways"):
            benchmark.run(Redness().eval(), 2, Asking())


def test_with_ways_every_question_has_an_answer() -> None:
    model = _learned_ways()
    for benchmark in (GuardrailBenchmark(), SweptBenchmark()):
        answer = replace(benchmark, labelled=40, steps=2).run(model, 3, Asking())
        assert [each.metric for each in answer.results] == ["violations", "success_ever", "success_end"]
    told = NoPlanBenchmark(sealed=True, steps=2).run(model, 3, Asking(untrained=model)).results[0]
    assert told.metric == "no_plan_right"
    assert told.baselines["untrained"].value == told.value


def test_who_doubts_that_there_is_a_way_says_so_whatever_is_imagined() -> None:
    model, name = _learned_ways(judges=True), EMBODIMENT.name
    anywhere = NoPlanBenchmark(sealed=True, steps=1, arrived=1e9)  # wherever it gets in imagination, it has arrived
    for odds, doubted in ((-9.0, 1.0), (9.0, 0.0)):
        model.way(name).any.change.bias.fill_(odds)
        assert anywhere.run(model, 3, Asking()).results[0].value == doubted
    assert anywhere.run(_learned_ways(), 3, Asking()).results[0].value == 0.0


def test_the_same_pairs_are_asked_with_doors_and_without() -> None:
    sealed, reachable = (NoPlanBenchmark(sealed=sealed).pairs(3, 20) for sealed in (True, False))
    np.testing.assert_array_equal(sealed.rooms.wall, reachable.rooms.wall)
    np.testing.assert_array_equal(sealed.goal, reachable.goal)
    assert np.isinf(sealed.distance).all()
    assert np.isfinite(reachable.distance).all()


def _learned_ways(judges: bool = False) -> JEPA:
    torch.manual_seed(0)
    names = (EMBODIMENT.name,)
    built = JEPA(sized("baby", {EMBODIMENT.name: EMBODIMENT}, reaches=names, judges=names if judges else ()))
    return built.eval().requires_grad_(False)
