"""``ami remember``, ``ami recall`` and ``ami memory`` do what they say; every mistake is one sentence."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ami.cli.moments import said, second
from ami.data.episodes import Episode, Store
from ami.data.video import FILM, read_film, write_film
from ami.memory.episodic import Memory
from ami.models import checkpoint
from ami.models.jepa import JEPA, sized
from ami.types import Embodiment

CAR = Embodiment("car", 0.5, low=(-1.0,), high=(1.0,))


def saved(folder: Path, **more) -> Path:
    model = JEPA(sized("baby", {"film": FILM, "car": CAR}, **more))
    checkpoint.save(folder, model, checkpoint.Provenance("baby", checkpoint.code_version()))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints, two films of textures that go by, drives with poses, and a memory of the films."""
    folder, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    for name in ("c", "other"):
        saved(folder / name)
    (folder / "films").mkdir()
    for name in ("one", "two"):
        wide = np.kron(rng.integers(0, 256, (8, 24, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        video = np.stack([np.roll(wide, -3 * k, axis=1)[:, :64] for k in range(20)])
        write_film(folder / "films" / f"{name}.mp4", video, fps=10)
    store = Store.create(folder / "drives", CAR)
    for start in (0, 10):
        pose = np.tile(np.eye(4), (6, 1, 1))
        pose[:, 0, 3] = start + np.arange(6)
        video = rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
        actions = np.zeros((5, 1), np.float32)
        store.append([Episode(np.arange(6) * 0.5, video, pose=pose.astype(np.float32), actions=actions)])
    return folder


@pytest.fixture
def memory(ami, made: Path, tmp_path: Path) -> Path:
    assert ami("remember", made / "c", made / "films", "--memory", tmp_path / "m", "--began", "1970-01-02").code == 0
    return tmp_path / "m"


def frame(made: Path, number: int, path: Path) -> Path:
    video = read_film(made / "films" / "two.mp4", size=64, fps=10).video
    assert video is not None
    Image.fromarray(video[number]).save(path)
    return path


def test_a_moment_is_found_by_its_picture(ami, made: Path, memory: Path, tmp_path: Path) -> None:
    asked = frame(made, 13, tmp_path / "q.png")
    said = ami("recall", memory, "--image", asked, "--top", 3, "--sheet", tmp_path / "s.png", "--json")
    first, *others = said.document["recalled"]
    assert (first["episode"], first["time"]) == ("two.mp4", pytest.approx(86400 + 1.3))
    assert first["distance"] < 1e-2 < others[0]["distance"]
    assert first["surprise"] is not None
    assert Image.open(tmp_path / "s.png").size == (4 * 160, 216)
    assert "already" in ami("recall", memory, "--image", asked, "--sheet", tmp_path / "s.png").mistake
    after = "--since", "1970-01-02T00:00:01.5"
    since = ami("recall", memory, "--image", asked, *after, "--top", 99, "--json").document["recalled"]
    assert {each["episode"] for each in since} == {"one.mp4", "two.mp4"}
    assert all(each["time"] >= 86401.5 for each in since)
    one = ("recall", memory, "--image", asked, "--episode", "one.mp4", "--top", 99, "--json")
    assert [each["episode"] for each in ami(*one, "--apart", 0).document["recalled"]] == ["one.mp4"] * 20
    first, second = ami(*one).document["recalled"]  # of a film of two seconds
    assert abs(first["time"] - second["time"]) >= 1
    assert "0 s or more between them" in ami(*one, "--apart", -1).mistake
    with Image.open(tmp_path / "s.png") as shown:
        assert np.asarray(shown)[20:40, 20:40].std() > 1


def test_a_date_is_said_as_a_date_and_a_time_of_a_film_in_seconds() -> None:
    assert said(1.3) == "1.30 s"
    assert said(second("2026-11-26T04:30")) == "2026-11-26 04:30:00.000"
    assert said(second("2026-11-26T04:30:00.1+01:00")) == "2026-11-26 03:30:00.100"
    assert said(1e30).endswith(" s")


def test_what_is_remembered_is_not_remembered_again(ami, made: Path, memory: Path) -> None:
    again = ami("remember", made / "c", made / "films", "--memory", memory, "--json").document
    assert (again["added"], again["known_before"], again["moments"]) == (0, 2, 40)


def test_where_it_was_is_remembered(ami, made: Path, tmp_path: Path) -> None:
    drives = ("remember", made / "c", made / "drives", "--memory", tmp_path / "d")
    held = ami(*drives, "--json").document
    assert (held["embodiment"], held["moments"], held["with_place"], held["dim"]) == ("car", 12, 12, 32)
    asked = frame(made, 0, tmp_path / "q.png")
    by = ("--near", 11, 0, 0, 1, "--apart", 0)
    near = ami("recall", tmp_path / "d", "--image", asked, *by, "--json").document["recalled"]
    assert sorted(each["place"][0] for each in near) == [10, 11, 12]
    assert "remembers what 'car' saw, not 'film'" in ami(*drives[:2], made / "films", *drives[3:]).mistake
    assert "a memory holds what one embodiment saw" in ami(*drives[:3], made / "films", *drives[3:]).mistake


def test_a_limit_is_kept(ami, made: Path, tmp_path: Path) -> None:
    words = ("remember", made / "c", made / "films", "--memory", tmp_path / "m", "--limit")
    assert ami(*words, 16, "--json").document["moments"] <= 16
    assert "was begun with a limit of 16" in ami(*words, 17).mistake
    pruned = ami("memory", "prune", tmp_path / "m", "--keep", 9, "--json").document
    assert pruned["after"] == 9 < pruned["before"]
    assert pruned["radius"] > 0


def test_it_goes_out_and_in_and_over_to_another_checkpoint(ami, made: Path, memory: Path, tmp_path: Path) -> None:
    asked = frame(made, 13, tmp_path / "q.png")
    assert ami("memory", "export", memory, "--out", tmp_path / "x.npz", "--json").document["moments"] == 40
    again = tmp_path / "again"
    assert ami("memory", "import", tmp_path / "x.npz", "--memory", again, "--json").document["moments"] == 40
    assert "reembed" in ami("recall", again, "--image", asked, "--checkpoint", made / "other").mistake
    assert "reembed" in ami("remember", made / "other", made / "films", "--memory", again).mistake
    digest = checkpoint.digest(made / "other")
    assert ami("memory", "reembed", again, made / "other", "--json").document["checkpoint"] == digest
    (first,) = ami("recall", again, "--image", asked, "--top", 1, "--json").document["recalled"]
    assert (first["episode"], first["time"]) == ("two.mp4", pytest.approx(86400 + 1.3))
    assert ami("memory", "forget", again, "--episode", "two.mp4", "--json").document == {"forgotten": 20, "left": 20}
    assert ami("memory", "info", again, "--json").document["episodes"] == 1
    assert ami("memory", "check", again, "--json").document == []


def test_damage_ends_with_1(ami, memory: Path) -> None:
    path = memory / "memory.sqlite"
    held = bytearray(path.read_bytes())
    held[bytes(held).rindex(b"\xff\xd8\xff") + 300] ^= 1
    path.write_bytes(held)
    said = ami("memory", "check", memory, "--json")
    assert said.code == 1
    assert "is not what was written" in said.document[0]


def test_mistakes_are_one_sentence(ami, made: Path, memory: Path, tmp_path: Path) -> None:
    asked = frame(made, 0, tmp_path / "q.png")
    with Memory.open(memory, write=True):
        assert "one writer at a time" in ami("remember", made / "c", made / "films", "--memory", memory).mistake
    assert "no such folder" in ami("memory", "info", tmp_path / "none").mistake
    assert "is no time" in ami("recall", memory, "--image", asked, "--since", "yesterday").mistake
    assert "nothing was named to forget" in ami("memory", "forget", memory).mistake
    assert "keep 1 or more" in ami("memory", "prune", memory, "--keep", 0).mistake
    assert "sqlite cannot be read" in ami("recall", memory, "--image", memory / "memory.sqlite").mistake
    twice = shutil.copytree(made / "films", tmp_path / "else" / "films")
    words = ("remember", made / "c", made / "films", twice, "--memory", tmp_path / "n")
    assert "would both be the episode 'one.mp4'" in ami(*words).mistake
    assert "ends in .npz" in ami("memory", "export", memory, "--out", tmp_path / "x.zip").mistake
    assert "holds no film" in ami("remember", made / "c", tmp_path, "--memory", tmp_path / "n").mistake
    assert not (tmp_path / "n").exists()


def test_a_server_keeps_it_as_well(ami, made: Path, memory: Path, server: str, tmp_path: Path) -> None:
    films, asked = made / "films", frame(made, 13, tmp_path / "q.png")
    house, again = f"{server}#house", f"{server}#again"
    said = ami("remember", made / "c", films, "--memory", house, "--began", "1970-01-02", "--json").document
    assert (said["added"], said["memory"].rpartition("#")[2]) == (40, "house")
    assert ami("remember", made / "c", films, "--memory", house, "--json").document["known_before"] == 2
    assert ami("memory", "export", memory, "--out", tmp_path / "x.npz", "--json").document["moments"] == 40
    assert ami("memory", "import", tmp_path / "x.npz", "--memory", again, "--json").document["moments"] == 40
    here, there, copied = (
        ami("recall", place, "--image", asked, "--since", 86401, "--json").document for place in (memory, house, again)
    )
    assert here == there == copied
    assert ami("memory", "forget", house, "--episode", "one.mp4", "--json").document == {"forgotten": 20, "left": 20}
    assert ami("memory", "check", house, "--json").document == []
    assert "is there; choose a new name" in ami("memory", "import", tmp_path / "x.npz", "--memory", house).mistake
    with Memory.open(house, write=True):
        assert "one writer at a time" in ami("memory", "prune", house, "--keep", 9).mistake
