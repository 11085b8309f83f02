"""Processes that share a model's weights out learn what one learns, and what they save any number of them can load."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from ami import parallel
from ami.data.episodes import Store
from ami.models import checkpoint
from ami.models.snapshot import load_state, open_state, save_state
from ami.nn.video import RotaryBlock
from ami.objectives.masked import MaskedSettings
from ami.objectives.masks import Slots
from ami.objectives.points import PointSettings
from ami.recipes.films import FilmSettings, video
from ami.training.loop import Progress, begin
from ami.training.optim import Optimisation
from ami.training.run import Recipe, read_metrics, train
from tiny_stores import film_store
from two_processes import together

NEAR = 1e-5
# Every loss and every part that an objective may own: a teacher, heads, points. Squared, for the slope of an L1 error
# within rounding of nothing has either sign.
EVERYTHING = MaskedSettings(
    distance="l2",
    masks=(Slots(3), Slots(4)),
    momentum=0.9,
    levels=(0,),
    visible=0.5,
    visible_warmup=3,
    fill=0.5,
    gaussian=0.05,
    variance=0.1,
    covariance=0.1,
    points=PointSettings(),
)
# With its usual epsilon Adam makes whole steps of gradients that are mere rounding: the bias before a softmax, which
# tells where a point is, has no other.
CALM = Optimisation(rate=3e-4, warmup=2, epsilon=1e-4)
SETTINGS = FilmSettings(precision="fp32", steps=6, batch=6, objective=EVERYTHING, optimisation=CALM)
STOPPED = 5  # the step after which a run is stopped; its last save was after 4


def _recipe(folder: Path, **other) -> Recipe:
    return video([Store.open(folder / "films")], 1, replace(SETTINGS, **other))


def _train(folder: Path, run: str, resume: bool = False, watch=lambda tick: None) -> None:
    train(_recipe(folder), folder / run, resume=resume, save_every=2, log_every=1, watch=watch)


class StoppedError(Exception):
    pass


def _train_a_while(folder: Path, run: str) -> None:
    def watch(tick) -> None:
        if tick.step == STOPPED:
            raise StoppedError

    with pytest.raises(StoppedError):
        _train(folder, run, watch=watch)


def _begun(folder: Path) -> Progress:
    recipe = _recipe(folder)
    return begin(recipe.build(), recipe.stages[0], recipe.seed)


def _flat(state: dict) -> dict[str, Tensor]:
    """Every tensor of a training's state, whole."""
    moments = {f"{name} {key}": value for name, held in state["optimiser"].items() for key, value in held.items()}
    flat = {f"model {name}": value for name, value in state["model"].items()} | moments
    flat |= {f"objective {name}": value for name, value in state["objective"].items()}
    return {name: parallel.whole(value) for name, value in flat.items()}


def _restored(folder: Path, run: str) -> dict[str, Tensor]:
    """What these processes hold together once they have gone back to what a run saved."""
    progress = _begun(folder)
    progress.restore(open_state(folder / run / "latest.safetensors")["progress"])
    return _flat(progress.state())


# In two processes, and in three


def on_two(rank: int) -> dict[str, Tensor]:
    folder = Path(os.environ["AMI_TEST_FOLDER"])
    _train(folder, "two")
    _train_a_while(folder, "stopped")
    restored = _restored(folder, "stopped")
    if rank == 0:
        for name in ("stopped-1", "stopped-3"):
            shutil.copytree(folder / "stopped", folder / name)
    parallel.wait()
    _train(folder, "stopped", resume=True)
    held = _what_is_held(_begun(folder))
    _save_and_be_killed_in_the_next(folder)
    return restored | held


def _what_is_held(progress: Progress) -> dict[str, Tensor]:
    """How many numbers of all blocks' weights there are, and how many of them are here."""
    both = nn.ModuleList([progress.model, progress.objective])
    weights = [p for block in both.modules() if isinstance(block, RotaryBlock) for p in block.parameters()]
    assert all(map(parallel.is_shared, weights))
    assert sum(map(parallel.is_shared, both.parameters())) == len(weights)
    here = sum(parallel.part_here(p).numel() for p in weights)
    return {"numbers": torch.tensor(sum(p.numel() for p in weights)), "here": torch.tensor(here)}


def _save_and_be_killed_in_the_next(folder: Path) -> None:
    def die() -> None:
        raise StoppedError

    progress = _begun(folder)
    save_state(folder / "torn" / "latest.safetensors", progress.state(), 1)
    with torch.no_grad():
        for parameter in progress.model.parameters():
            parallel.part_here(parameter).zero_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "wait", die)
        with pytest.raises(StoppedError):
            save_state(folder / "torn" / "latest.safetensors", progress.state(), 2)


def on_three(rank: int) -> dict[str, Tensor]:
    folder = Path(os.environ["AMI_TEST_FOLDER"])
    _train(folder, "three")
    restored = _restored(folder, "stopped-3")
    _train(folder, "stopped-3", resume=True)
    with pytest.raises(ValueError, match="a batch of 8 does not divide over 3 processes; choose a multiple"):
        train(_recipe(folder, batch=8), folder / "eight")
    kind, said = (ValueError, "already holds a run") if rank == 0 else (RuntimeError, "the first process could not")
    with pytest.raises(kind, match=said):
        _train(folder, "three")

    few = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))  # 4 rows are 2, 2 and 0; 2 rows are 1, 1 and 0
    with torch.no_grad():
        for number, parameter in enumerate(few.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).view_as(parameter) + 100 * number)
    before = {name: value.clone() for name, value in few.state_dict().items()}
    parallel.share_out(few, nn.Linear)
    for parameter in few.parameters():
        first, last = parallel.rows_here(parameter)
        assert len(parallel.part_here(parameter)) == last - first
    save_state(folder / "few.safetensors", few.state_dict())
    parallel.wait()
    stored = open_state(folder / "few.safetensors")
    for name, value in few.state_dict().items():
        assert torch.equal(parallel.part_here(stored[name].like(value)), parallel.part_here(value))
        assert torch.equal(stored[name].like(), before[name])
    return restored


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    film_store(folder / "films", films=3, frames=40)
    _train(folder, "one")
    return folder


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Tensor]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMI_TEST_FOLDER", str(folder))
        return together(on_two, 2)


@pytest.fixture(scope="module")
def three(folder: Path, two: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMI_TEST_FOLDER", str(folder))
        return together(on_three, 3)


# The same is learned


def _losses(run: Path) -> Tensor:
    losses = [
        [value for name, value in row.items() if name.startswith("film/") and "gauge" not in name]
        for row in read_metrics(run)
    ]
    assert [row["step"] for row in read_metrics(run)] == list(range(1, 7))
    return torch.tensor(losses, dtype=torch.float64)


def _the_same(one: Path, other: Path) -> None:
    """The losses of every step; weights of the model, the teacher and all that teaches; what the optimiser knows."""
    torch.testing.assert_close(_losses(other), _losses(one), rtol=NEAR, atol=NEAR)
    alone, shared = (_flat(load_state(run / "latest.safetensors")["progress"]) for run in (one, other))
    assert alone.keys() == shared.keys()
    for name, value in alone.items():
        torch.testing.assert_close(shared[name], value, rtol=NEAR, atol=NEAR, msg=lambda m, n=name: f"{n}: {m}")
    final, gathered = (checkpoint.load(run / "checkpoint").state_dict() for run in (one, other))
    for name, value in final.items():
        torch.testing.assert_close(gathered[name], value, rtol=0, atol=NEAR, msg=lambda m, n=name: f"{n}: {m}")


def test_two_and_three_processes_learn_what_one_does(folder: Path, two: list, three: list) -> None:
    _the_same(folder / "one", folder / "two")
    _the_same(folder / "one", folder / "three")
    began, ended = _recipe(folder).build().state_dict(), checkpoint.load(folder / "one" / "checkpoint").state_dict()
    assert (ended["encoder.blocks.0.widen.weight"] - began["encoder.blocks.0.widen.weight"]).abs().max() > 3e-4


def test_each_process_holds_its_share_of_the_blocks(two: list[dict[str, Tensor]]) -> None:
    assert two[0]["here"] + two[1]["here"] == two[0]["numbers"]
    assert two[0]["here"] == two[1]["here"]


# What was saved by two


def test_a_state_saved_by_two_loads_on_any_number_identically(folder: Path, two: list, three: list) -> None:
    saved = _flat(load_state(folder / "stopped-1" / "latest.safetensors")["progress"])
    assert any("teacher" in name for name in saved)
    assert any("exp_avg" in name for name in saved)
    for held in (_restored(folder, "stopped-1"), *two, *three):
        assert saved.keys() <= held.keys()
        for name, value in saved.items():
            assert torch.equal(held[name], value), name


def test_a_run_stopped_on_two_goes_on_with_the_same_bits_on_two(folder: Path, two: list) -> None:
    assert checkpoint.digest(folder / "stopped" / "checkpoint") == checkpoint.digest(folder / "two" / "checkpoint")
    assert torch.equal(_losses(folder / "stopped"), _losses(folder / "two"))


def test_it_goes_on_within_rounding_on_three_and_on_one(folder: Path, two: list, three: list) -> None:
    _the_same(folder / "one", folder / "stopped-3")
    shutil.copytree(folder / "stopped-1", folder / "resumed")
    _train(folder, "resumed", resume=True)
    _the_same(folder / "one", folder / "resumed")


def test_a_save_that_was_cut_short_leaves_the_one_before(folder: Path, two: list) -> None:
    found = {file.name for file in (folder / "torn").iterdir()}
    assert found == {"latest.safetensors", "latest.1.1.safetensors", "latest.2.1.safetensors"}
    held = load_state(folder / "torn" / "latest.safetensors")["model"]
    for name, value in _recipe(folder).build().state_dict().items():
        assert torch.equal(held[name], value), name


def test_the_files_of_older_saves_are_gone(folder: Path, two: list) -> None:
    assert {file.name for file in (folder / "two").glob("latest*")} == {"latest.safetensors", "latest.6.1.safetensors"}


# What is wrong with a folder is said


@pytest.fixture
def saved(folder: Path, two: list, tmp_path: Path) -> Path:
    """A state saved by two, to be spoilt."""
    shutil.copytree(folder / "stopped-1", tmp_path / "run")
    return tmp_path / "run" / "latest.safetensors"


def test_a_missing_file_is_named(saved: Path) -> None:
    saved.with_name("latest.4.1.safetensors").unlink()
    with pytest.raises(ValueError, match=r"latest\.4\.1\.safetensors is missing: .* by 2 processes into 2 files"):
        load_state(saved)


@pytest.mark.parametrize("name", ["latest.safetensors", "latest.4.1.safetensors"])
def test_a_truncated_file_is_damaged(saved: Path, name: str) -> None:
    cut = saved.with_name(name)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{name} is damaged"):
        load_state(saved)


def _rewrite(path: Path, change) -> None:
    with safe_open(path, framework="pt") as file:
        told = file.metadata()
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, told)


def test_another_number_of_tensors_or_of_rows_is_damage(saved: Path) -> None:
    part = saved.with_name("latest.4.1.safetensors")
    name = min(safetensors.torch.load_file(part))
    _rewrite(part, lambda tensors: tensors.update({name: tensors[name][1:].clone()}))
    with pytest.raises(ValueError, match=rf"its files hold other rows of tensor {name} than were saved"):
        load_state(saved)
    _rewrite(part, lambda tensors: tensors.pop(name))
    with pytest.raises(ValueError, match=r"latest\.4\.1\.safetensors is damaged: it holds (\d+) tensors, and \d+ were"):
        load_state(saved)


def test_files_of_two_saves_are_not_mixed(folder: Path, saved: Path) -> None:
    part = saved.with_name("latest.4.1.safetensors")
    shutil.copy(folder / "two" / "latest.6.1.safetensors", part)
    with pytest.raises(ValueError, match="does not belong to"):
        load_state(saved)
    with pytest.raises(ValueError, match="is one process's part of a snapshot"):
        load_state(part)


# Started by torchrun


def test_torchrun_trains_and_only_the_first_process_speaks(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    words = ["train", "video", "--data", str(folder / "films"), "--out", str(folder / "torchrun"), "--steps", "2"]
    done = subprocess.run(
        [*command, "-m", "ami", *words, "--json"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["checkpoint"] == str(folder / "torchrun" / "checkpoint")
    assert done.stderr == ""
