"""Questions about films: no frame on both sides, what is blind is at chance, and what knows the truth is perfect."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ami.data.episodes import Episode, Store
from ami.data.video import FILM
from ami.evaluation import features
from ami.evaluation.ask import Question, ask
from ami.evaluation.benchmark import Asking, Benchmark
from ami.evaluation.films import film_clip
from ami.evaluation.suites import SUITES
from ami.evaluation.suites import real as real_module
from ami.evaluation.suites.real import TASKS, RealFilms, known_ranges
from ami.evaluation.suites.recognition import QUANTITIES, DrawnFilms, judge, targets
from ami.evaluation.suites.splice import Splice
from ami.models import checkpoint, vjepa
from ami.models.baselines import Pixels
from ami.models.jepa import JEPA, sized
from ami.models.vjepa import VJEPA
from ami.types import Embodiment
from ami.worlds import films as drawn
from elsewhere import GPU, Elsewhere, put


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two films of a bright square, to the right in one and down in the other, again and again; noise elsewhere."""
    held, rng = Store.create(tmp_path_factory.mktemp("films") / "s", FILM), np.random.default_rng(0)
    made = []
    for number in range(2):
        back = rng.integers(60, 120, (64, 64, 3))
        video = np.repeat(back[None], 180, 0).astype(np.uint8)
        for frame in range(180):
            at = (3 * frame) % 48
            down, right = (20, at) if number == 0 else (at, 30)
            video[frame, down : down + 16, right : right + 16] = 250
        made.append(Episode(np.arange(180) / 10, video, source=f"film {number}"))
    held.append(made)
    return held


@pytest.mark.parametrize("frames", [20, 60, 97, 98, 200, 314, 1000])
@pytest.mark.parametrize("rules", [RealFilms("order"), RealFilms("order", clip=16, learn=70, choose=24, held=33)])
def test_no_frame_is_on_both_sides(rules: RealFilms, frames: int) -> None:
    learn, choose, ask = rules.ranges(frames)
    side = np.zeros(frames, int)
    for number, ranges in enumerate((learn, choose, ask), 1):
        for first, end in ranges:
            assert 0 <= first < end <= frames
            assert not side[first:end].any()
            side[first:end] = number
    for first, end in ask:
        near = side[max(first - rules.clip, 0) : end + rules.clip]
        assert not np.isin(near, (1, 2)).any(), "the gap is longer than a clip"
    for first, end in choose:
        assert not (side[max(first - rules.clip, 0) : end + rules.clip] == 1).any()


@pytest.mark.parametrize("frames", [100, 180, 314, 1000])
def test_a_model_may_learn_from_nothing_that_is_asked_about(frames: int) -> None:
    _, _, ask = RealFilms("order").ranges(frames)
    known = known_ranges(frames)
    assert all(first < end <= 0.6 * frames for first, end in known), "splices are made in the rest"
    assert all(end <= start or stop <= first for first, end in known for start, stop in ask)
    assert sum(end - first for first, end in known) > 0.3 * frames
    assert known_ranges(40) == [(0, 40)], "a film that is asked about nothing may be seen whole"


def test_the_arrow_of_time_is_read_off_what_moves_one_way(store: Store) -> None:
    answer = RealFilms("arrow-of-time").run(Pixels({"film": FILM}).eval(), 40, Asking(films=store))
    (result,) = answer.results
    assert (result.benchmark, result.metric, result.n) == ("real/arrow-of-time", "accuracy", 40)
    assert result.value > 0.9
    assert result.baselines["flow"].value > 0.9


def test_a_clip_turned_round_gets_the_other_answer(store: Store) -> None:
    rules = RealFilms("arrow-of-time")
    known, held, asked = rules.split(store)
    turned = replace(asked, clips=[clip[::-1] for clip in asked.clips])
    wins = rules._wins(features.pixels, known, held, asked)
    np.testing.assert_array_equal(rules._wins(features.pixels, known, held, turned), 1 - wins)


@pytest.mark.parametrize("task", TASKS)
def test_who_sees_nothing_is_at_chance(store: Store, task) -> None:
    def blind(films):
        return torch.zeros(len(films), len(films[0]), 1, 1)

    wins = RealFilms(task)._wins(blind, *RealFilms(task).split(store))
    assert wins.mean() == pytest.approx(0.5, abs=0.1)


def test_order_speed_and_retrieval_are_asked(store: Store) -> None:
    for task, least in (("order", 0.0), ("speed", 0.7), ("retrieval", 1.0)):
        (result,) = RealFilms(task).run(Pixels({"film": FILM}).eval(), 12, Asking(films=store)).results
        assert result.n == 12
        assert result.value >= least


@pytest.mark.parametrize("benchmark", [RealFilms("speed"), Splice("cut")])
def test_a_model_on_a_gpu_is_asked_where_it_lies(
    store: Store, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = VJEPA(vjepa.sized("baby", {FILM.name: replace(FILM, step_seconds=2 * FILM.step_seconds)})).eval()
    here = benchmark.run(model, 4, Asking(films=store)).results[0]
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda pictures: pictures)
    with Elsewhere():
        put(model)
        assert film_clip(model, store.arrays(0)["video"]).times.device == GPU
        there = benchmark.run(model, 4, Asking(films=store)).results[0]
    assert (there.value, there.baselines) == (here.value, here.baselines)


def test_stores_that_cannot_be_asked_are_refused(store: Store, tmp_path: Path) -> None:
    model = Pixels({"film": FILM}).eval()
    with pytest.raises(ValueError, match="needs two or more real films"):
        RealFilms("order").run(model, 4, Asking())
    still = Store.create(tmp_path / "still", FILM)
    still.append([Episode(np.arange(150) / 10, np.full((150, 8, 8, 3), k, np.uint8)) for k in range(2)])
    with pytest.raises(ValueError, match="too little that moves"):
        RealFilms("order").run(model, 4, Asking(films=still))


# Drawn films


def test_targets_hold_every_quantity_once() -> None:
    truth = np.stack([episode.truth[-1] for episode in drawn.collect(30, 3, seed=1)])
    wanted = torch.from_numpy(targets(truth))
    np.testing.assert_array_equal(wanted[:, :2], truth[:, :2])
    for quantity in QUANTITIES:
        assert judge(quantity, wanted, wanted, 0).value == 1.0
    mean = wanted.mean(0).expand_as(wanted)
    assert judge(QUANTITIES[0], mean, wanted, 0).value == pytest.approx(0.0, abs=1e-6)
    assert judge(QUANTITIES[1], wanted.roll(1, 0), wanted, 0).value < 0
    assert judge(QUANTITIES[-1], -wanted, wanted, 0).value == 0.0


def test_drawn_films_are_asked_with_every_rival() -> None:
    body = Embodiment("drawn-film", 0.1)
    model = JEPA(sized("baby", {"drawn-film": body})).eval()
    quick = DrawnFilms(learn=60, supervised_steps=2, attentive_steps=3)
    results = quick.run(model, 20, Asking(seed=1, untrained=model)).results
    names = [(result.benchmark, result.metric) for result in results]
    assert len(set(names)) == 10
    assert {("films/position", "r2"), ("films/velocity", "r2"), ("films/shape", "accuracy_attentive")} < set(names)
    position = results[0]
    rivals = {"untrained", "pixels", "frame-differences", "motion-centroid", "supervised", "chance"}
    assert set(position.baselines) == rivals
    assert position.value == position.baselines["untrained"].value, "the same weights say the same"
    assert position.n == 20
    assert results == tuple(
        replace(each, seconds=before.seconds)
        for each, before in zip(quick.run(model, 20, Asking(seed=1, untrained=model)).results, results, strict=True)
    )


def test_films_are_fresh() -> None:
    quick = DrawnFilms()
    seen = [quick._draw(2, seed)[0][0] for seed in (0, 1, 2)] + [drawn.collect(2, seed=0)[0].video]
    assert all(not np.array_equal(a, b) for k, a in enumerate(seen) for b in seen[:k])


def test_one_mover_before_a_still_camera_is_where_things_change() -> None:
    video = np.full((4, 64, 64, 3), 90, np.uint8)
    for frame in range(4):
        video[frame, 20:28, 10 + 4 * frame : 18 + 4 * frame] = (250, 20, 20)
    seen = features.motion_centroid([video])[0]
    all_change, red_and_moving = seen[:, 0], seen[:, 1]
    for centre in (all_change, red_and_moving):
        right, down = ((centre[:, :2] + 1) * 63 / 2).unbind(1)
        torch.testing.assert_close(down, torch.full((3,), 23.5), atol=0.1, rtol=0)
        torch.testing.assert_close(right, torch.tensor([15.5, 19.5, 23.5]), atol=0.1, rtol=0)


def test_questions_that_are_asked_at_the_same_time_are_answered_the_same(store: Store, tmp_path: Path) -> None:
    body = {FILM.name: replace(FILM, step_seconds=2 * FILM.step_seconds)}
    papers = checkpoint.Provenance(recipe="video", code=checkpoint.CodeVersion("0"))
    checkpoint.save(tmp_path / "model", VJEPA(vjepa.sized("baby", body)).eval(), papers)
    words: list[str] = []
    one, two = (
        ask(
            tmp_path / "model",
            Question("real-films", n=2),
            films=store,
            workers=workers,
            progress=lambda what, done, total: words.append(what),
        )
        for workers in (1, 2)
    )
    assert [replace(each, seconds=0.0) for each in one.results] == [replace(each, seconds=0.0) for each in two.results]
    assert len(one.results) == len(SUITES["real-films"].asked)
    assert sorted(words[: len(words) // 2]) == sorted(words[len(words) // 2 :])


def test_what_cannot_be_asked_on_a_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match="the suite rooms is asked on a CPU; on a GPU there are films, real-films"):
        ask(Path("none"), Question("rooms", device="cuda"))


def test_too_few_episodes_for_an_interval_are_refused_before_the_first_is_drawn() -> None:
    for suite in ("hidden-3", "reason-4", "recall", "spatial-maze-4", "memory-maze"):
        with pytest.raises(ValueError, match="its interval needs 2 or more: give --n 2"):
            ask(Path("none"), Question(suite, n=1))


def test_suites_name_their_questions() -> None:
    assert {each.name for each, _ in SUITES["real-films"].asked} == {
        *(f"real/{task}" for task in TASKS),
        *(f"splice/{kind}" for kind in ("cut", "reverse", "freeze", "teleport")),
    }
    assert len({suite.digest for suite in SUITES.values()}) == len(SUITES)
    asked = {name: {each.name for each, _ in suite.asked} for name, suite in SUITES.items()}
    assert asked["demo-films"] == asked["demo"] | asked["real-films"]
    assert asked["video"] == asked["films"] | asked["real-films"]
    assert real_module.RealFilms("order").gap > real_module.RealFilms("order").clip
