"""Each illness is found where it is, and nowhere else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ami.data.doctor import check, info
from ami.data.episodes import Episode, Store
from ami.data.ingest import ingest
from ami.types import Embodiment, LeftOut

BODY = Embodiment("toy", 0.1, low=(-1.0, -1.0), high=(1.0, 1.0))


def healthy(seed: int, frames: int = 20) -> Episode:
    rng = np.random.default_rng(seed)
    return Episode(
        times=np.arange(frames) * 0.1,
        video=rng.integers(0, 256, (frames, 8, 8, 3), dtype=np.uint8),
        actions=rng.uniform(-1, 1, (frames - 1, 2)).astype(np.float32),
        truth=rng.uniform(0, 64, (frames, 1)).astype(np.float32),
    )


@pytest.fixture
def make(tmp_path: Path):
    def store(*episodes: Episode, name: str = "s") -> Store:
        made = Store.create(tmp_path / name, BODY, ("x",))
        made.append(episodes)
        return made

    return store


def told(store: Store, against: Store | None = None) -> dict[str, str]:
    """What the doctor complains of."""
    return {f.name: f"{f.level}: {f.message}" for f in check(store, against) if f.level != "ok"}


def test_a_healthy_store_has_no_complaint(make) -> None:
    store = make(*map(healthy, range(4)))
    assert told(store) == {}
    assert told(store, make(healthy(9), name="t")) == {}
    said = {f.name: f.message for f in check(store)}
    assert said["coverage"] == "4 episodes, 80 frames, 0.1 minutes, 20 windows of 16 steps"
    assert said["actions visited"].endswith("100%, 100%")
    assert "(100% of it)" in said["truth visited"]


def ill(**changes) -> Episode:
    return replace(healthy(5), **changes)


def actions(change) -> Episode:
    held = healthy(5).actions.copy()
    change(held)
    return ill(actions=held)


def test_a_constant_action(make) -> None:
    found = told(make(actions(lambda a: a[:, 1].fill(0.25))))
    assert "dimension 1: 0.25 to 0.25" in found.pop("constant actions")
    assert list(found) == ["actions visited"]


def test_actions_of_other_units(make) -> None:
    found = told(make(actions(lambda a: np.multiply(a[:, 0], 0.005, out=a[:, 0]))))
    assert "dimension 0" in found["scale"]
    assert "differ" in found["not normalised"]
    assert "bounds" not in found


def test_actions_outside_their_bounds(make) -> None:
    assert list(told(make(actions(lambda a: a[3:4].fill(1.5)), healthy(6)))) == ["bounds"]
    found = told(make(actions(lambda a: np.multiply(a, 100, out=a)), name="t"))
    assert found["bounds"].startswith("error: 19 of 19 actions (100.0%)")


def test_frames_at_another_pace(make) -> None:
    found = told(make(healthy(0), ill(times=np.arange(20) * 0.2)))
    assert found == {"step": "error: frames are 0.2 s apart (median) where 'toy' says 0.1 s: episode 1"}


def test_numbers_that_are_none(make) -> None:
    found = told(make(healthy(0), ill(truth=np.full((20, 1), np.nan, np.float32))))
    assert found["nan"] == "warning: NaN or infinity in truth of episode 1"


def test_pictures_that_show_nothing_or_stand_still(make) -> None:
    video = healthy(5).video.copy()
    video[4:6] = 0
    assert told(make(ill(video=video)))["blank frames"].startswith("warning: 2 of 20 frames")
    found = told(make(ill(video=np.repeat(video[:1], 20, 0)), name="t"))
    assert list(found) == ["frozen film"]
    assert "100% of frames repeat" in found["frozen film"]


def test_copies(make) -> None:
    assert told(make(healthy(0), healthy(1), healthy(0))) == {
        "duplicates": "warning: 2 episodes are copies of one another: episode 0, episode 2"
    }


def test_what_did_not_come_in(make) -> None:
    store = make(*(healthy(k) for k in range(3)))
    store.leave_out([LeftOut("a.mp4", "is torn", 2.5), LeftOut("b.mp4", "is empty")])
    assert told(store)["left out"] == (
        "warning: 2 recordings did not come in, or not to their end (2.5 s at least): a.mp4, b.mp4"
    )


def test_short_episodes(make) -> None:
    assert "longest episode has 9" in told(make(*(healthy(k, 9) for k in range(9))))["coverage"]


def test_training_data_in_the_evaluation(make) -> None:
    train = make(*map(healthy, range(3)))
    assert "1 episodes are also in" in told(train, make(healthy(2), healthy(9), name="same"))["overlap"]
    mixed = ill(video=np.concatenate([healthy(5).video[:15], healthy(1).video[:5]]))
    assert "error: 5 frames are also in" in told(train, make(mixed, name="frames"))["overlap"]
    black = ill(video=np.where(np.arange(20)[:, None, None, None] < 2, 0, healthy(5).video).astype(np.uint8))
    other = ill(video=np.where(np.arange(20)[:, None, None, None] < 2, 0, healthy(6).video).astype(np.uint8))
    assert "overlap" not in told(make(black, name="b"), make(other, name="o"))


def test_damage_is_named(make) -> None:
    store = make(healthy(0), healthy(1))
    path = store.folder / "shards" / "00000" / "actions.npy"
    held = np.load(path)
    held[25] += 0.01
    np.save(path, held)
    assert told(Store.open(store.folder))["files"].startswith("error: episode 1 (no source, shards/00000) has changed")
    path.unlink()
    assert list(told(Store.open(store.folder))) == ["files"]


def test_an_empty_store(make) -> None:
    store = make()
    assert list(told(store)) == ["empty"]
    assert info(store)["frames"] == 0


def test_info_is_plain(make) -> None:
    said = info(make(healthy(0), healthy(1, 30)))
    assert (said["episodes"], said["frames"], said["shortest"], said["longest"]) == (2, 50, 20, 30)
    assert said["minutes"] == pytest.approx(50 * 0.1 / 60)
    assert said["fields"]["video"] == [8, 8, 3]


def test_real_robot_data(shared_data: Path, tmp_path: Path) -> None:
    ingest([shared_data / "robot"], tmp_path / "b")
    found = told(Store.open(tmp_path / "b"))
    assert sorted(found) == ["bounds", "coverage", "not normalised"]
    assert "1 of 225 actions" in found["bounds"]
