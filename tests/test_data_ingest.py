"""Files become a store, all of it or nothing, and every refusal is one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest

from ami.data.episodes import Store
from ami.data.ingest import ingest
from ami.data.recording import Wanted
from ami.data.robots import WIDOWX, read_bridge
from ami.data.video import read_film, write_film
from ami.types import LeftOut


def film(path: Path, seed: int = 0, frames: int = 12) -> Path:
    write_film(path, np.random.default_rng(seed).integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8), fps=10)
    return path


def robot(path: Path, **changes) -> Path:
    rng = np.random.default_rng(0)
    held = {
        "images": rng.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8),
        "actions": rng.random((5, 7), np.float32) * 0.05,
        "states": rng.random((5, 7), np.float32),
        "instruction": "put it there",
    }
    np.savez(path, **{name: value for name, value in (held | changes).items() if value is not None})
    return path


def test_real_robot_episodes(shared_data: Path, tmp_path: Path) -> None:
    report = ingest([shared_data / "robot"], tmp_path / "bridge")
    store = Store.open(tmp_path / "bridge")
    assert (report.episodes, report.frames, report.digest) == (25, 250, store.digest)
    assert store.embodiment == WIDOWX
    assert (store.read(0).source or "").startswith("episode_000.npz: put cup")
    clip = store.clips(store.windows(10), 10)
    moved = clip.proprio.diff(dim=1)  # between frames

    def agreement(actions, motion) -> float:
        """Mean correlation over x, y, z."""
        return float(
            np.mean([np.corrcoef(actions[..., k].flatten(), motion[..., k].flatten())[0, 1] for k in range(3)])
        )

    assert agreement(clip.actions, moved) > 0.8  # an action goes with the motion that follows it
    assert agreement(clip.actions[:, 1:], moved[:, :-1]) < 0.6  # and not with the motion before it


def test_real_films(shared_data: Path, tmp_path: Path) -> None:
    report = ingest(
        [shared_data / "video" / "cups.mp4", shared_data / "video" / "dog.mp4"], tmp_path / "d", Wanted(fps=5.0)
    )
    store = Store.open(tmp_path / "d")
    assert store.embodiment.step_seconds == pytest.approx(0.2)
    assert store.embodiment.action_dim == 0
    assert [info.source for info in store.episodes] == ["cups.mp4", "dog.mp4"]
    assert store.verify() == []
    assert report.frames == 50 + 49


def test_a_bad_file_stops_it_and_nothing_appears(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    film(films / "a.mp4")
    (films / "b.mp4").touch()
    with pytest.raises(ValueError, match=r"b\.mp4 is empty.*--skip-bad leaves such files out") as caught:
        ingest([films], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films"]


def test_bad_files_can_be_left_out_and_are_recorded(tmp_path: Path) -> None:
    good, bad = film(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    bad.write_text("no film")
    copy = tmp_path / "c.mp4"
    copy.write_bytes(good.read_bytes())
    told: list[tuple[int, int]] = []
    report = ingest(
        [bad, good, copy], tmp_path / "out", skip_bad=True, progress=lambda done, total: told.append((done, total))
    )
    store = Store.open(tmp_path / "out")
    assert len(store) == report.episodes == 1
    (skipped,) = report.skipped
    assert (skipped.name, skipped.seconds) == (str(bad), None)
    assert "damaged, or not a film" in skipped.why
    assert report.duplicates == (LeftOut(str(copy), f"the same content as {good}", 0.0),)
    assert report.left_out == store.left_out == report.skipped + report.duplicates
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    with pytest.raises(ValueError, match="not one of 1 files could be read"):
        ingest([bad], tmp_path / "none", skip_bad=True)
    assert not (tmp_path / "none").exists()


def test_of_a_film_that_ends_too_soon_the_beginning_is_kept_and_the_rest_is_written_down(tmp_path: Path) -> None:
    film(tmp_path / "whole.mp4", frames=40)
    content = (tmp_path / "whole.mp4").read_bytes()
    bad = tmp_path / "cut.mp4"
    bad.write_bytes(content[: int(0.6 * len(content))])
    with pytest.raises(ValueError, match=r"cut\.mp4 (is cut short|is damaged|cannot be decoded).*--skip-bad"):
        ingest([bad], tmp_path / "out")
    report = ingest([bad], tmp_path / "out", skip_bad=True)
    (lost,) = report.shortened
    assert report.skipped == ()
    assert lost.name == str(bad)
    assert f"; its first {report.frames / 10:.1f} s were kept" in lost.why
    assert lost.seconds == pytest.approx(4.0 - report.frames / 10, abs=1e-3)
    assert 15 < report.frames < 30  # of 40
    store = Store.open(tmp_path / "out")
    assert store.left_out == report.left_out == (lost,)
    kept, all_of_it = store.arrays(0)["video"], read_film(tmp_path / "whole.mp4").video
    assert np.array_equal(kept, all_of_it[: report.frames])


def test_bytes_that_were_changed_in_the_middle_of_a_film_are_written_down(tmp_path: Path) -> None:
    """Whatever a decoder makes of damage: what is kept is the film's beginning, or the film is whole."""
    film(tmp_path / "whole.mp4", frames=40)
    content = bytearray((tmp_path / "whole.mp4").read_bytes())
    whole = read_film(tmp_path / "whole.mp4").video
    middle = len(content) * 3 // 5
    content[middle : middle + 3000] = bytes(3000)
    (tmp_path / "hurt.mp4").write_bytes(content)
    report = ingest([tmp_path / "hurt.mp4"], tmp_path / "out", skip_bad=True)
    (lost,) = report.shortened
    assert 0 < report.frames < 40
    assert lost.seconds == pytest.approx(4.0 - report.frames / 10, abs=1e-3)
    assert np.array_equal(Store.open(tmp_path / "out").arrays(0)["video"], whole[: report.frames])


def test_films_of_all_rates_show_the_same_moment_at_the_same_frame(tmp_path: Path) -> None:
    """The same bright edge goes over the picture at 32 px a second, filmed by four cameras."""
    for native, seconds in ((10, 1.0), (24, 1.625), (25, 1.2), (30, 0.7)):
        edge = 32 * np.arange(int(native * seconds) + 1) / native
        bright = np.arange(64) < edge[:, None]  # frame, column
        pictures = np.where(bright[:, None, :, None], 230, 20).astype(np.uint8)
        write_film(tmp_path / f"at{native}.mp4", np.broadcast_to(pictures, (len(edge), 64, 64, 3)), native)
    ingest([tmp_path], tmp_path / "out", Wanted(fps=10))
    store = Store.open(tmp_path / "out")
    assert [info.length for info in store.episodes] == [11, 17, 13, 8]
    for number in range(4):
        seen = (store.arrays(number)["video"][:, 32, :, 0] > 125).sum(1)
        # A camera of 24 frames a second shows a moment that is up to 1/24 s old: 1.3 px.
        np.testing.assert_allclose(seen, 3.2 * np.arange(len(seen)), atol=2.0)
    clip = store.clips(np.array([[0, 2], [3, 2]]), 5)
    assert np.allclose(clip.times, 0.2 + 0.1 * np.arange(5))


def test_stores_of_before_say_no_seconds(tmp_path: Path) -> None:
    Store.create(tmp_path / "s", WIDOWX)
    index = json.loads((tmp_path / "s" / "index.json").read_text())
    index["left_out"] = [["a.mp4", "is empty"]]
    (tmp_path / "s" / "index.json").write_text(json.dumps(index))
    store = Store.open(tmp_path / "s")
    store.leave_out([LeftOut("b.mp4", "is torn", 2.5)])
    assert Store.open(tmp_path / "s").left_out == (LeftOut("a.mp4", "is empty"), LeftOut("b.mp4", "is torn", 2.5))


def test_a_store_is_never_overwritten(tmp_path: Path) -> None:
    one = film(tmp_path / "a.mp4")
    before = ingest([one], tmp_path / "out").digest
    with pytest.raises(ValueError, match="already holds a store; choose another folder"):
        ingest([film(tmp_path / "b.mp4", 1)], tmp_path / "out")
    assert Store.open(tmp_path / "out").digest == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    with pytest.raises(ValueError, match="is not empty"):
        ingest([one], tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    assert ingest([one], tmp_path / "empty").digest == before


def test_one_embodiment_a_store(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.mp4 is a film \('film'\) and r\.npz a robot episode \('widowx'\)"):
        ingest([film(tmp_path / "a.mp4"), robot(tmp_path / "r.npz")], tmp_path / "out")


def test_episodes_of_another_size_are_named(tmp_path: Path) -> None:
    robot(tmp_path / "a.npz")
    robot(tmp_path / "b.npz", images=np.zeros((5, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match=r"b\.npz: put it there has \[32, 32, 3\] for video"):
        ingest([tmp_path / "a.npz", tmp_path / "b.npz"], tmp_path / "out")
    assert ingest([tmp_path], tmp_path / "out", skip_bad=True).episodes == 1


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "bare").mkdir()
    for path, match in ((tmp_path / "none", "no file or folder"), (tmp_path / "bare", "holds no recording")):
        with pytest.raises(ValueError, match=match):
            ingest([path], tmp_path / "out")
    with pytest.raises(ValueError, match=r"notes\.txt is not a recording by its name; known are \.mp4"):
        ingest([tmp_path / "notes.txt"], tmp_path / "out", skip_bad=True)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"actions": np.full((5, 7), np.nan, np.float32)}, "actions holds NaN"),
        ({"actions": np.zeros((4, 7), np.float32)}, r"actions have shape \(4, 7\); wanted \(5, 7\)"),
        ({"states": None}, "it lacks states"),
        ({"states": np.array([object()])}, "cannot be loaded when allow_pickle=False|can be read"),
        ({"images": np.zeros((5, 64, 64), np.uint8)}, r"video has shape \(5, 64, 64\)"),
    ],
)
def test_robot_files_that_are_no_good(tmp_path: Path, changes: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        read_bridge(robot(tmp_path / "r.npz", **changes))


def test_robot_files_that_are_torn(tmp_path: Path) -> None:
    path = robot(tmp_path / "r.npz")
    content = path.read_bytes()
    for torn in (b"", b"text", content[:1000], content[:200] + b"\xff" * 50 + content[250:]):
        path.write_bytes(torn)
        with pytest.raises(ValueError, match=r"r\.npz is not a robot episode that can be read"):
            read_bridge(path)
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match="it is no zip archive"):
        read_bridge(path)
    with pytest.raises(ValueError, match="there is no robot episode"):
        read_bridge(tmp_path / "none.npz")
