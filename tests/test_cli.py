"""Every verb does what it says and nothing else, and every mistake is one sentence that costs nothing."""

import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from ami import files
from ami.cli import asking, demo, entry, reproduce, training, verbs
from ami.cli.collecting import WORLDS
from ami.cli.show import Bars
from ami.data.episodes import Store
from ami.data.video import write_film
from ami.evaluation import ask as ask_module
from ami.evaluation import page
from ami.evaluation.benchmark import Suite
from ami.evaluation.report import read_report
from ami.evaluation.statistics import wilson
from ami.evaluation.suites import SUITES
from ami.evaluation.suites.control import RoomsBenchmark
from ami.models import checkpoint
from ami.models.jepa import JEPA, sized
from ami.planning.sampling import SamplingSettings
from ami.recipes import RECIPES
from ami.recipes.baby import SETTINGS, BabySettings
from ami.recipes.common import sides
from ami.recipes.films import FilmSettings
from ami.types import Objective
from ami.worlds import gym
from ami.worlds.rooms import EMBODIMENT
from tiny_stores import TINY, robot_store

SEARCH = SamplingSettings(samples=8, iterations=2, elites=4)
ASKED = RoomsBenchmark("fixed", steps=2, planner=SEARCH, horizon=3, warm_iterations=1)
SCALE = demo.Scale(settings=TINY, episodes=10, steps=10, drawn=8, physics=0, mazes=0, suite="tiny", with_films="tiny")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything as it is, only small."""
    for name in SETTINGS:
        monkeypatch.setitem(SETTINGS, name, TINY)
    monkeypatch.setitem(SUITES, "tiny", Suite("tiny", ((ASKED, 3),)))
    monkeypatch.setitem(SUITES, "other", Suite("other", ((ASKED, 2),)))
    monkeypatch.setattr(ask_module, "fit_decoder", partial(ask_module.fit_decoder, steps=2))
    monkeypatch.setattr(demo, "FULL", SCALE)
    monkeypatch.setitem(reproduce.CAPABILITIES, "rooms", SCALE)
    monkeypatch.setattr(page, "_curves", lambda curves: "")  # what takes longest of a report


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and a run that nobody changes."""
    folder = tmp_path_factory.mktemp("made")
    assert entry.run(["collect", "two-rooms/all", "--out", str(folder / "d"), "--episodes", "11", "--steps", "12"]) == 0
    with Bars() as bars:
        training.train("baby", [Store.open(folder / "d")], folder / "r", 0, bars, settings=TINY)
    return folder


def film(path: Path, seed: int = 0) -> Path:
    write_film(path, np.random.default_rng(seed).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), fps=10)
    return path


def robot(path: Path, seed: int = 0, actions: float = 0.02) -> Path:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    np.savez(path, images=images, actions=np.full((8, 7), actions, np.float32), states=rng.random((8, 7), np.float32))
    return path


def inside(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Lists and stores


def test_what_there_is_is_listed(ami) -> None:
    for verb, known in (("worlds", WORLDS), ("recipes", RECIPES), ("suites", SUITES)):
        listed = ami(verb, "--json").document
        assert {each["name"] for each in listed} == set(known)
        assert all(len(each["description"]) > 10 for each in listed)
        assert all(name in ami(verb).out for name in known)
    assert set(gym.WORLDS) <= set(WORLDS)


def test_the_families_share_a_store_equally(ami, made: Path, tmp_path: Path) -> None:
    store = Store.open(made / "d")
    families = Counter(info.source.split("/")[1] for info in store.episodes)
    assert sum(families.values()) == 11
    assert set(families.values()) == {3, 4}
    assert {info.length for info in store.episodes} == {12}
    again, other = (
        ami(
            "collect",
            "two-rooms/all",
            "--out",
            tmp_path / name,
            "--episodes",
            11,
            "--steps",
            12,
            "--seed",
            seed,
            "--json",
        )
        for name, seed in (("same", 0), ("other", 1))
    )
    assert again.document["digest"] == store.digest != other.document["digest"]
    held = Store.open(tmp_path / "other")
    assert not {info.digest for info in store.episodes} & {info.digest for info in held.episodes}
    doors = [{float(s.arrays(n)["truth"][0, 3]) for n in range(11)} for s in (store, held)]
    assert len(doors[0]) == 1 + 11 - families["fixed"]
    assert doors[0] & doors[1] == {32.0}
    assert json.loads((tmp_path / "other" / "collected.json").read_text())["cpu_seconds"] > 0


def test_large_stores_are_recorded_a_part_at_a_time(ami, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    record = gym.record
    monkeypatch.setattr(gym, "record", lambda *a: held.append(a[1]) or record(*a))
    assert ami("collect", "two-rooms/door", "--out", tmp_path / "d", "--episodes", 130, "--steps", 2).code == 0
    assert held == [60, 60, 10]
    store = Store.open(tmp_path / "d")
    assert len({info.digest for info in store.episodes}) == 130


def test_any_environment_is_a_world(ami, tmp_path: Path) -> None:
    words = ("collect", "gym:ami/TwoRooms-door-v0", "--out", tmp_path / "d", "--episodes", 2, "--steps", 5, "--json")
    assert ami(*words).document["frames"] == 10


def test_recordings_become_stores(ami, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    film(films / "a.mp4")
    (films / "b.mp4").touch()
    assert "b.mp4 is empty" in ami("ingest", films, "--out", tmp_path / "d").mistake
    assert inside(tmp_path) == ["films", "films/a.mp4", "films/b.mp4"]
    held = ami("ingest", films, "--out", tmp_path / "d", "--skip-bad", "--size", 32, "--fps", 5, "--json").document
    assert (held["episodes"], held["frames"], len(held["skipped"])) == (1, 10, 1)
    assert ami("data", "info", tmp_path / "d", "--json").document["fields"]["video"] == [32, 32, 3]
    said = ami("ingest", films, "--out", tmp_path / "e", "--skip-bad").out
    assert "1 left out: 1 of unknown length\n" in said
    assert f"left out {films / 'b.mp4'}: film {films / 'b.mp4'} is empty (0 bytes)" in said
    assert "b.mp4 is empty (0 bytes)" in ami("data", "info", tmp_path / "e").out
    (left,) = ami("data", "info", tmp_path / "e", "--json").document["left_out"]
    assert (left["name"], left["seconds"]) == (str(films / "b.mp4"), None)
    assert ami("ingest", robot(tmp_path / "r.npz"), "--out", tmp_path / "f", "--json").document["frames"] == 8


def test_a_training_says_what_its_data_lacks(ami, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    write_film(tmp_path / "whole.mp4", noise, fps=10)
    write_film(tmp_path / "torn.mp4", noise[::-1], fps=10)
    content = (tmp_path / "torn.mp4").read_bytes()
    (tmp_path / "torn.mp4").write_bytes(content[: len(content) // 2])
    write_film(tmp_path / "short.mp4", noise[:9], fps=10)
    ami("ingest", tmp_path, "--out", tmp_path / "d", "--skip-bad")
    words = ("train", "video", "--data", tmp_path / "d", "--steps", 2, "--out", tmp_path / "r")
    said = ami(*words).out
    assert re.search(r"^2 left out: [23]\.\d s \(1 clips\) lost$", said, re.MULTILINE)
    assert re.search(
        r"^left out .*torn\.mp4: film .* it is damaged; .*; its first \d\.\d s were kept$", said, re.MULTILINE
    )
    assert "left out short.mp4: it has 9 frames and a clip 16\n" in said
    held = ami(*words, "--resume", "--json").document  # it is done: nothing is left to do
    assert [(each["name"], each["clips"]) for each in held["left_out"]] == [
        (str(tmp_path / "torn.mp4"), 1),
        ("short.mp4", 0),
    ]


def test_a_training_says_what_its_gauges_warned_of(ami, made: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Objective, "least_deviation", 1e9)
    words = ("train", "baby", "--data", made / "d", "--out", tmp_path / "r")
    assert re.search(r"^features collapsed at step 6: deviation_0 of 'two-rooms' is ", ami(*words).out, re.MULTILINE)
    assert "features collapsed at step 6" in ami(*words, "--resume", "--json").document["advice"][0]


def test_the_doctor_fails_on_errors_only(ami, made: Path, tmp_path: Path) -> None:
    said = ami("data", "check", made / "d", "--json")
    assert (said.code, {each["level"] for each in said.document}) == (0, {"ok", "warning"})  # it is short
    bad = ami("data", "check", made / "d", "--against", made / "d")
    assert bad.code == 1
    assert bad.out.startswith("error")  # the worst first
    assert "files are 0.4 s" not in ami("data", "info", made / "d").out
    assert "two-rooms" in ami("data", "info", made / "d").out


# Training, asking, planning


def test_training_makes_a_checkpoint_and_goes_on(ami, made: Path, tmp_path: Path, monkeypatch) -> None:
    words = ("train", "baby", "--data", made / "d", "--out", tmp_path / "r", "--json")
    train = training.train_recipe

    def stopped(recipe, folder, **settings):
        def watch(tick):
            if tick.step == 5:
                raise KeyboardInterrupt

        return train(recipe, folder, **(settings | {"watch": watch}))

    monkeypatch.setattr(training, "train_recipe", stopped)
    said = ami(*words)
    assert (said.code, said.out) == (130, "")
    assert said.err == "ami: interrupted; the same command with --resume goes on from the last saved step\n"
    monkeypatch.setattr(training, "train_recipe", train)
    assert "already holds a run; go on with --resume" in ami(*words).mistake
    held = ami(*words, "--resume").document
    assert held["steps"] == 12
    assert held["digest"] == checkpoint.digest(made / "r" / "checkpoint")
    assert "another recipe, data or seed" in ami(*words, "--resume", "--seed", 1).mistake


def test_steps_are_shared_as_the_recipe_shares_them() -> None:
    real = BabySettings(steps=500, refine=1500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETTINGS, "baby", real)
        settings = training.settings_of("baby", "tiny", 100)
        assert (settings.size, settings.steps, settings.refine) == ("tiny", 25, 75)
        assert (settings.reach, settings.unsure, settings.films.steps) == (30, 10, 45)  # a twentieth
        assert training.settings_of("baby", steps=2).unsure == 1
        assert training.settings_of("baby") == real
        assert training.settings_of("baby", steps=2).refine == 1
    with pytest.raises(ValueError, match="at least 2"):
        training.settings_of("baby", steps=1)
    assert training.settings_of("video", "small", picture=64) == FilmSettings(size="small", picture=64)
    with pytest.raises(ValueError, match="--picture is for the recipe video"):
        training.settings_of("places", picture=64)


def test_a_bar_shows_the_worst_gauge() -> None:
    measured = {"a/gauge/rank_0": 9.0, "b/gauge/rank_0": 2.0, "a/prediction": 1.0, "b/prediction": 0.5, "gradient": 7.0}
    assert training._note(measured, training._worst(measured)) == "loss 1.5  rank 2"


def test_a_run_is_asked(ami, made: Path, tmp_path: Path) -> None:
    words = ("eval", made / "r", "--suite", "tiny", "--n", 2, "--seed", 5, "--json")
    held = ami(*words, "--out", tmp_path / "a", "--data", made / "d").document["report"]
    assert held == read_report(tmp_path / "a")
    assert held["checkpoint"]["digest"] == checkpoint.digest(made / "r" / "checkpoint")
    assert [(each["n"], each["seeds"]) for each in held["results"]] == [(2, [5])] * 2
    assert set(held["results"][0]["baselines"]) == {"random", "zero-action", "straight-line", "untrained", "simulator"}
    assert held["commands"][0].startswith(f"ami eval {made / 'r'} --suite tiny --out {tmp_path / 'a'} --n 2 --seed 5")
    assert set(held["cpu_seconds"]) == {"collect", "train"}
    again = ami(*words, "--out", tmp_path / "b").document["report"]
    assert [each["value"] for each in again["results"]] == [each["value"] for each in held["results"]]
    table = ami("compare", tmp_path / "a", tmp_path / "b")
    assert table.out.count("n = 2") == 4
    assert len(ami("compare", tmp_path / "a", tmp_path / "b", "--json").document["reports"]) == 2
    assert ami("eval", made / "r" / "checkpoint", "--suite", "other", "--out", tmp_path / "c").code == 0
    assert "different things" in ami("compare", tmp_path / "a", tmp_path / "c").mistake


def test_robots_are_asked_of_what_was_held_out(tmp_path: Path) -> None:
    store = robot_store(tmp_path / "robots", episodes=10)
    trained, held = sides(store)
    clip = asking.held_out(store)
    assert clip is not None
    assert len(clip) == len(held) > 1
    assert np.array_equal(clip.actions[0].numpy(), store.arrays(held[0])["actions"])
    assert not set(trained) & set(held)
    assert asking.held_out(robot_store(tmp_path / "few", episodes=4)) is None


def test_pictures_are_planned_between_as_a_world_is(ami, made: Path, tmp_path: Path) -> None:
    world = ami("plan", made / "r", "--world", "two-rooms/door", "--seed", 3, "--horizon", 4, "--json").document
    pairs = RoomsBenchmark("door").pairs(3, 1)
    for name, place in (("start", pairs.start), ("goal", pairs.goal)):
        Image.fromarray(pairs.rooms.render(place)[0]).save(tmp_path / f"{name}.png")
    pictures = ("--start", tmp_path / "start.png", "--goal", tmp_path / "goal.png")
    drawn = ami("plan", made / "r", *pictures, "--seed", 3, "--horizon", 4, "--json").document
    for name in ("actions", "imagined_cost", "model_calls"):
        assert drawn[name] == world[name]
    assert np.array(world["actions"]).shape == (4, 2)
    position = pairs.start
    for action in world["actions"]:
        position = pairs.rooms.step(position, np.float32(action)[None])[-1]
    assert world["pixels_left"] == pytest.approx(np.linalg.norm(position - pairs.goal), abs=1e-3)
    assert world["pixels_to_go"] == pytest.approx(np.linalg.norm(pairs.start - pairs.goal))
    assert "step 4" in ami("plan", made / "r", *pictures, "--horizon", 4).out
    there = ("--start", tmp_path / "goal.png", "--goal", tmp_path / "goal.png")
    assert ami("plan", made / "r", *there, "--horizon", 1, "--json").document["imagined_cost"] < world["imagined_cost"]


def test_a_plan_says_where_no_way_is_believed_to_lead(ami, tmp_path: Path) -> None:
    names = (EMBODIMENT.name,)
    model = JEPA(sized("baby", {EMBODIMENT.name: EMBODIMENT}, reaches=names, judges=names))
    for folder, odds in (("sealed", -9.0), ("open", 9.0)):
        model.way(EMBODIMENT.name).any.change.bias.data.fill_(odds)
        checkpoint.save(tmp_path / folder, model, checkpoint.Provenance("test", checkpoint.CodeVersion("0")))
    asked = "--world", "two-rooms/sealed", "--horizon", 2
    assert ami("plan", tmp_path / "sealed", *asked, "--json").document["why"] == "unreachable"
    assert ami("plan", tmp_path / "open", *asked, "--json").document["why"] == ""
    assert "no plan was found: unreachable" in ami("plan", tmp_path / "sealed", *asked).out


def test_a_plan_says_how_far_off_its_steps_may_be(ami, tmp_path: Path) -> None:
    for folder, names in (("sure", ()), ("unsure", (EMBODIMENT.name,))):
        model = JEPA(sized("baby", {EMBODIMENT.name: EMBODIMENT}, unsure=names))
        checkpoint.save(tmp_path / folder, model, checkpoint.Provenance("test", checkpoint.CodeVersion("0")))
    asked = "--world", "two-rooms/wall", "--horizon", 3
    assert ami("plan", tmp_path / "sure", *asked, "--json").document["unsure"] is None
    told = ami("plan", tmp_path / "unsure", *asked, "--json").document["unsure"]
    assert len(told) == 3
    assert 0 < told[0] < told[1] < told[2]
    assert f"off by {told[2] ** 0.5:.2f} deviations" in ami("plan", tmp_path / "unsure", *asked).out


def test_a_plan_in_a_world_may_have_a_goal_of_ones_own_and_a_budget(ami, made: Path, tmp_path: Path) -> None:
    pairs = RoomsBenchmark("door").pairs(3, 1)
    Image.fromarray(pairs.rooms.render(pairs.goal)[0]).save(tmp_path / "goal.png")
    asked = ("plan", made / "r", "--world", "two-rooms/door", "--goal", tmp_path / "goal.png", "--horizon", 4, "--json")
    at_once = ami(*asked, "--budget-ms", 0).document
    searched = ami(*asked, "--budget-ms", 200).document
    assert at_once["model_calls"] == 1
    assert searched["model_calls"] > 64
    assert searched["imagined_cost"] < at_once["imagined_cost"]
    assert searched["milliseconds"] < 400  # and not a call late


# The main job


def test_a_demo_goes_on_wherever_it_was_stopped(ami, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    film(recordings / "a.mp4")
    for seed in range(9):
        robot(recordings / f"{seed}.npz", seed, 0.001 * seed)
    out = tmp_path / "demo"
    words = ("demo", "--out", out, "--data", recordings)

    def stop(*a, **b):
        raise KeyboardInterrupt

    done = {"collect": "data/rooms", "ingest": "data/films", "train": "run/checkpoint"}
    for stage in ("ingest", "train", "ask_about"):
        with monkeypatch.context() as patch:
            patch.setattr(demo, stage, stop)
            said = ami(*words)
        assert (said.code, said.err.count("\n")) == (130, 1)
        assert "the same command goes on" in said.err
    (out / "data" / ".rooms.1.part").mkdir()
    before = {name: (out / path).stat().st_mtime_ns for name, path in done.items()}
    held = ami(*words, "--json").document["report"]
    assert {name: (out / path).stat().st_mtime_ns for name, path in done.items()} == before
    assert not [path for path in inside(out) if path.endswith(".part")]
    asked = {each["benchmark"] for each in held["results"]}
    assert asked == {"two-rooms/fixed/cross-room", "bridge/next-latent"}
    assert held["commands"] == [f"ami demo --out {out} --seed 0 --data {recordings}"]
    assert set(held["provenance"]["data"]) == {"two-rooms", "drawn-film", "film", "widowx"}
    assert (out / "report.html").is_file()
    with monkeypatch.context() as patch:
        patch.setattr(demo, "collect", stop)
        patch.setattr(demo, "train", stop)
        again = ami(*words)
        assert again.code == 0
        assert "success_ever" in again.out
        assert f"this demo was finished before: {out / 'report.html'}" in again.out
        assert "--fresh" in ami(*words, "--seed", 1).mistake
    assert read_report(out) == held


def test_fresh_deletes_a_demo_and_nothing_else(ami, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*a, **b):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "collect", stop)
    out, mine = tmp_path / "demo", tmp_path / "mine"
    assert ami("demo", "--out", out).code == 130
    (out / "data").mkdir()
    assert ami("demo", "--out", out).code == 130
    assert inside(out) == ["data", "demo.json"]
    assert ami("demo", "--out", out, "--fresh", "--seed", 1).code == 130
    assert inside(out) == ["demo.json"]
    mine.mkdir()
    (mine / "thesis").touch()
    for words in ((), ("--fresh",)):
        assert "not empty" in ami("demo", "--out", mine, *words).mistake
    assert inside(mine) == ["thesis"]


def test_figures_are_pooled_over_all_episodes(ami, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES, "four", Suite("four", ((ASKED, 4),)))
    monkeypatch.setitem(reproduce.CAPABILITIES, "rooms", replace(SCALE, suite="four"))
    out = tmp_path / "rooms"
    held = ami("reproduce", "rooms", "--seeds", 2, "--out", out, "--json").document["report"]
    assert held == read_report(out)
    parts = [read_report(out / f"seed-{seed}") for seed in range(2)]
    assert len({part["checkpoint"]["digest"] for part in parts}) == 2
    rows = [json.loads(line) for seed in range(2) for line in (out / f"seed-{seed}/episodes.jsonl").open()]
    for place, (answer, key) in enumerate(zip(held["results"], ("ever", "end"), strict=True)):
        whole = wilson(sum(row[key] for row in rows), 8)
        assert (answer["value"], answer["low"], answer["high"]) == (whole.value, whole.low, whole.high)
        assert (answer["n"], answer["seeds"]) == (8, [1000, 1001])
        line = [part["results"][place]["baselines"]["straight-line"]["value"] * 4 for part in parts]
        assert answer["baselines"]["straight-line"]["value"] == pytest.approx(sum(line) / 8)
        assert sum(each["n"] for each in answer["by_distance"]) == 8
    collected = [part["cpu_seconds"]["collect"] for part in parts]
    assert held["cpu_seconds"]["collect"] == pytest.approx(sum(collected) / 2)
    assert ami("reproduce", "rooms", "--out", out, "--json").document["report"]["checkpoint"] == parts[0]["checkpoint"]


@pytest.mark.parametrize(("wins", "n"), [(0, 50), (50, 50), (37, 50), (1, 3), (118, 200)])
def test_an_interval_says_how_many_it_was_made_of(wins: int, n: int) -> None:
    made = wilson(wins, n)
    assert reproduce._trials({"value": made.value, "low": made.low, "high": made.high}, 200) == (wins, n)
    with pytest.raises(ValueError, match="no Wilson interval"):
        reproduce._trials({"value": 0.5, "low": 0.1, "high": 0.6}, 20)


# Mistakes


def test_unknown_names_come_with_near_ones(ami, made: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "x")
    data = ("--data", made / "d")
    for words, near in (
        (("train", "babi", *data), "there is no recipe 'babi'; did you mean baby?"),
        (("train", "zzz", *data), "there are baby, video, bridge"),
        (("train", "baby", *data, "--size", "huge"), "there is no size 'huge'; choose one of baby"),
        (("collect", "two-rooms/dor"), "did you mean two-rooms/door"),
        (("collect", "gym:ami/TwoRoms-door-v0"), "did you mean ami/TwoRooms-door-v0"),
        (("eval", made / "r", "--suite", "room"), "there is no suite 'room'; did you mean rooms"),
        (
            ("eval", made / "r", "--suite", "planning-worlds"),
            "asks a model that has learned ways, and",
        ),
        (("eval", made / "r", "--suite", "memory"), "has not learned where things are in a 'maze'"),
        (("eval", made / "r", "--suite", "recall", "--n", 1), "needs 2 or more: give --n 2"),
    ):
        assert near in ami(*words, *out).mistake
    assert "did you mean two-rooms/door" in ami("plan", made / "r", "--world", "two-rooms/doors").mistake
    assert inside(tmp_path) == []


def test_words_that_cannot_be_understood_end_with_2(ami) -> None:
    for words in (("trian",), ("train",), ("collect", "two-rooms/door", "--ot", "x"), ("eval", "c", "--n", "many")):
        said = ami(*words)
        assert (said.code, said.out) == (2, "")
        assert said.err


def test_folders_that_hold_nothing_or_something_else(ami, made: Path, tmp_path: Path) -> None:
    empty, foreign = tmp_path / "empty", tmp_path / "foreign"
    empty.mkdir()
    foreign.mkdir()
    (foreign / "notes").touch()
    for folder, match in (
        (tmp_path / "none", "no such folder"),
        (made / "d" / "index.json", "it is a file"),
        (empty, "is empty"),
        (foreign, "not a store"),
    ):
        for words in (
            ("data", "info", folder),
            ("data", "check", folder),
            ("data", "check", made / "d", "--against", folder),
        ):
            assert match in ami(*words).mistake
        assert match in ami("train", "baby", "--data", folder, "--out", tmp_path / "x").mistake
    for folder, match in ((tmp_path / "none", "not a folder"), (empty, "not a checkpoint"), (made / "d", "no config")):
        assert match in ami("eval", folder, "--suite", "tiny", "--out", tmp_path / "x").mistake
        assert match in ami("plan", folder, "--world", "two-rooms/door").mistake
    assert "holds no report.json" in ami("compare", empty).mistake
    for verb in (
        ("collect", "two-rooms/door"),
        ("ingest", film(tmp_path / "f.mp4")),
        ("train", "baby", "--data", made / "d"),
        ("eval", made / "r", "--suite", "tiny"),
        ("demo",),
    ):
        assert "not empty" in ami(*verb, "--out", foreign).mistake
    assert "already holds a run" in ami("train", "baby", "--data", made / "d", "--out", made / "r").mistake
    assert "already holds a store" in ami("ingest", tmp_path / "f.mp4", "--out", made / "d").mistake
    assert inside(tmp_path) == ["empty", "f.mp4", "foreign", "foreign/notes"]


def test_recordings_that_are_no_good(ami, tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mp4").read_bytes()
    bad = {
        "cut.mp4": (whole[: len(whole) // 2], "it is damaged; copy it again"),
        "nothing.mp4": (b"", "is empty (0 bytes)"),
        "text.mp4": (b"once upon a time " * 100, "damaged, or not a film"),
    }
    for name, (content, match) in bad.items():
        (tmp_path / name).write_bytes(content)
        assert match in ami("ingest", tmp_path / name, "--out", tmp_path / "d").mistake
        assert match in ami("demo", "--data", tmp_path / name, "--out", tmp_path / f"demo-{name}").mistake
    with pytest.MonkeyPatch.context() as patch:  # the bound itself is proved in test_data_video
        patch.setattr("ami.data.video._EXPANSION", 0)
        patch.setattr("ami.data.video._HARMLESS_BYTES", 1000)
        assert "decodes to 0.0 GiB or more" in ami("ingest", tmp_path / "whole.mp4", "--out", tmp_path / "d").mistake
    nan = robot(tmp_path / "nan.npz", actions=np.nan)
    assert "actions holds NaN" in ami("ingest", nan, "--out", tmp_path / "d").mistake
    assert "no file or folder" in ami("ingest", tmp_path / "none", "--out", tmp_path / "d").mistake
    assert "is not there" in ami("demo", "--data", tmp_path / "none", "--out", tmp_path / "demo").mistake
    assert not (tmp_path / "d").exists()


def test_checkpoints_that_are_damaged(ami, made: Path, tmp_path: Path) -> None:
    def broken(name: str, change) -> Path:
        shutil.copytree(made / "r" / "checkpoint", tmp_path / name)
        change(tmp_path / name)
        return tmp_path / name

    def lose(folder: Path) -> None:
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        tensors.pop(sorted(tensors)[0])
        safetensors.torch.save_file(tensors, folder / "model.safetensors")

    def misspell(folder: Path) -> None:
        document = json.loads((folder / "config.json").read_text())
        document["config"]["widht"] = 3
        files.write_json(folder / "config.json", document)

    unfinished = tmp_path / "run"
    unfinished.mkdir()
    shutil.copy(made / "r" / "recipe.json", unfinished)
    for folder, match in (
        (broken("lost", lose), "lacks the tensor"),
        (broken("misspelt", misspell), "unknown key 'widht'; did you mean 'widths'"),
        (unfinished, "is not finished"),
    ):
        assert match in ami("eval", folder, "--suite", "tiny", "--out", tmp_path / "report").mistake
        assert match in ami("plan", folder, "--world", "two-rooms/door").mistake
    assert not (tmp_path / "report").exists()


def test_settings_that_make_no_sense(ami, made: Path, tmp_path: Path) -> None:
    out, data = ("--out", tmp_path / "x"), ("--data", made / "d")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    (tmp_path / "untrained").mkdir()
    for words, match in (
        (("collect", "two-rooms/all", *out, "--episodes", 2), "at least 3"),
        (("collect", "two-rooms/door", *out, "--steps", 1), "of 2 steps"),
        (("train", "baby", *data, *out, "--steps", 1), "at least 2"),
        (("train", "baby", *data, *out, "--threads", 0), "--threads is 0"),
        (("train", "video", *data, *out), "learns from films"),
        (("eval", made / "r", "--suite", "tiny", *out, "--n", 0), "--n is 0"),
        (("eval", made / "r", "--suite", "tiny", *out, "--seed", -1), "--seed is -1; seeds count from 0"),
        (("reproduce", "rooms", "--seeds", 0), "--seeds is 0"),
        (("plan", made / "r"), "give a world with --world"),
        (("plan", made / "r", "--start", text), "or --start and --goal"),
        (("plan", made / "r", "--world", "two-rooms/door", "--start", text), "or --start and --goal"),
        (("plan", made / "r", "--world", "two-rooms/door", "--budget-ms", -1), "0 milliseconds or more"),
        (("plan", made / "r", "--world", "two-rooms/door", "--horizon", 0), "a plan is 1 step long or more"),
        (("plan", made / "r", "--start", text, "--goal", text), "text.png cannot be read"),
        (("plan", made / "r", "--start", tmp_path / "none", "--goal", text), "none: No such file"),
        (
            ("plan", made / "r", "--world", "two-rooms/door", "--embodiment", "arm"),
            "embodiment 'arm'; it knows two-rooms",
        ),
        (
            ("eval", made / "r", "--suite", "tiny", *out, "--rivals", tmp_path / "untrained"),
            "another row of the report is called 'untrained'",
        ),
    ):
        assert match in ami(*words).mistake
    assert inside(tmp_path) == ["text.png", "untrained"]


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_full_disk_costs_nothing(ami, made: Path, tmp_path: Path, monkeypatch, place: str) -> None:
    films = film(tmp_path / "f.mp4")
    assert ami("collect", "two-rooms/door", "--out", tmp_path / "kept", "--episodes", 2, "--steps", 4).code == 0
    before = inside(tmp_path)

    def full(*a):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for words in (
        ("collect", "two-rooms/door"),
        ("ingest", films),
        ("train", "baby", "--data", made / "d"),
        ("eval", made / "r", "--suite", "tiny"),
        ("demo",),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, place, full)
            said = ami(*words, "--out", tmp_path / "x").mistake
        assert f"{tmp_path / 'x'} could not be written, the disk is full" in said
        assert "what was there before is intact" in said
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
        assert inside(tmp_path) == before
    assert Store.open(tmp_path / "kept").verify() == []


def test_a_run_on_a_disk_that_fills_up_goes_on_when_there_is_room(ami, made: Path, tmp_path: Path, monkeypatch) -> None:
    words = ("train", "baby", "--data", made / "d", "--out", tmp_path / "r", "--json")
    write, count = files.write_whole, []

    def fills_up(path, content):
        count.append(path.name)
        if count.count("latest.safetensors") == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    monkeypatch.setattr(files, "write_whole", fills_up)
    assert "the disk is full" in ami(*words).mistake
    monkeypatch.setattr(files, "write_whole", write)
    assert ami(*words, "--resume").document["digest"] == checkpoint.digest(made / "r" / "checkpoint")


def test_a_real_limit_on_the_size_of_files(ami, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        said = ami("collect", "two-rooms/door", "--out", tmp_path / "d")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"{tmp_path / 'd'} could not be written, the disk is full (File too large)" in said.mistake
    assert inside(tmp_path) == []


def test_failures_of_ours_end_with_1(ami, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: BaseException):
        def act(*a, **b):
            raise error

        monkeypatch.setattr(training, "train_recipe", act)
        return ami("train", "baby", "--data", made / "d", "--out", tmp_path / "r")

    said = fails(RuntimeError("step 3 of perceive: the loss\nis not a number"))
    assert (said.code, said.err) == (1, "ami: step 3 of perceive: the loss is not a number\n")
    said = fails(OSError(errno.EIO, "Input/output error", "disk"))
    assert (said.code, said.err) == (1, "ami: disk: Input/output error\n")
    assert "secret: Permission denied" in fails(PermissionError(errno.EACCES, "Permission denied", "secret")).mistake
    with pytest.raises(TypeError):  # a bug keeps its traceback
        fails(TypeError("a bug"))
    monkeypatch.setenv("AMI_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        fails(RuntimeError("where?"))


def test_threads_are_as_many_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        entry._use_the_machine(2)
        assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        entry._use_the_machine(None)  # OMP_NUM_THREADS is set, and torch has heeded it
        assert torch.get_num_threads() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        entry._use_the_machine(None)
        assert torch.get_num_threads() == len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(before)


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    asked = "import sys; from ami.cli.entry import parse; parse(['train', 'baby', '--data', 'd', '--out', 'r']); "
    ended = subprocess.run(
        [sys.executable, "-c", asked + "print([m for m in ('torch', 'numpy', 'matplotlib') if m in sys.modules])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "[]\n"


def test_every_capability_can_be_reproduced_by_its_name() -> None:
    field = next(each for each in fields(verbs.Reproduce) if each.name == "what")
    for name in reproduce.CAPABILITIES:
        assert repr(name) in str(field.type)
