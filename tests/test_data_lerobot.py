"""Datasets that the ``lerobot`` package wrote itself (tests/golden/lerobot) come in whole, in both versions."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ami.data.episodes import Store
from ami.data.ingest import ingest
from ami.data.recording import Wanted
from conftest import Said

pytest.importorskip("pyarrow", reason="the extra 'robots' is not installed")
GOLDEN = Path(__file__).parent / "golden" / "lerobot"
VERSIONS = ("v2.1", "v3.0")
LENGTHS = (5, 7, 4)


@pytest.fixture(params=VERSIONS)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / request.param, tmp_path / "toy"))


def test_what_was_recorded_comes_in(dataset: Path, tmp_path: Path, ami: Callable[..., Said]) -> None:
    assert ami("ingest", dataset, "--out", tmp_path / "d", "--json").document["frames"] == sum(LENGTHS)
    said = ami("data", "info", tmp_path / "d", "--json").document
    assert (said["episodes"], said["fields"]["video"], said["fields"]["proprio"]) == (3, [64, 64, 3], [3])
    store = Store.open(tmp_path / "d")
    body = store.embodiment
    assert (body.name, body.step_seconds, body.low, body.high) == ("toy_arm", 0.1, (0, 0), (2, 6))
    for number, length in enumerate(LENGTHS):
        episode = store.read(number)
        frames = np.arange(length)
        np.testing.assert_array_equal(episode.actions, np.stack([0 * frames + number, frames], 1)[:-1])
        np.testing.assert_array_equal(episode.proprio, np.stack([0 * frames + number, frames, 0 * frames + 0.5], 1))
        np.testing.assert_allclose(episode.times, frames / 10)
        assert episode.source == f"toy/{number}: task {number % 2}"


def test_pictures_are_those_of_their_frames(dataset: Path, tmp_path: Path) -> None:
    """A white column, 8 px wide, goes 4 px to the right at each frame; 48 of 64 px, the middle, become 64."""
    for camera, scale, left in (("front", 64 / 48, 8), ("observation.images.wrist", 2.0, 0)):
        ingest([dataset], tmp_path / camera, Wanted(camera=camera))
        for number, length in enumerate(LENGTHS):
            row = Store.open(tmp_path / camera).read(number).video[:, 32, :, 0].astype(float)
            wanted = (12 + 4 * np.arange(length) - left) * scale
            for white, middle in zip(row > 200, wanted, strict=True):
                if 6 < middle < 58:  # it is there as a whole
                    assert abs(np.flatnonzero(white).mean() + 0.5 - middle) < 1.5
            assert abs(np.median(row[row < 200]) - (40 + 50 * number)) < 4  # each episode has a grey of its own


def test_both_versions_say_the_same(tmp_path: Path) -> None:
    digests = {ingest([GOLDEN / version], tmp_path / version).digest for version in VERSIONS}
    assert len(digests) == 1


def edit(dataset: Path, **changes: object) -> None:
    path = dataset / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def no_film(dataset: Path) -> None:
    for film in dataset.rglob("*.mp4"):
        film.unlink()


def torn_film(dataset: Path) -> None:
    for film in dataset.rglob("*.mp4"):
        film.write_bytes(film.read_bytes()[:200])


def torn_table(dataset: Path) -> None:
    for table in (dataset / "data").rglob("*.parquet"):
        table.write_bytes(table.read_bytes()[:1000])


def other_episode(dataset: Path) -> None:
    """The first episode's rows are another's."""
    import pyarrow as pa
    from pyarrow import parquet

    for path in (dataset / "data").rglob("*.parquet"):
        table = parquet.ParquetFile(path).read()
        column = table.column_names.index("episode_index")
        parquet.write_table(table.set_column(column, "episode_index", pa.array([9] * table.num_rows)), path)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (no_film, "cannot be decoded"),
        (torn_film, "cannot be decoded"),
        (torn_table, "cannot be read"),
        (other_episode, "holds 0 frames of episode 0 and 5 were promised"),
        (lambda dataset: edit(dataset, codebase_version="v1.6"), "it has version v1.6; known are 2.0 to 3.0"),
        (lambda dataset: edit(dataset, fps=0), "is not a LeRobot dataset that can be read"),
        (lambda dataset: edit(dataset, data_path="../../secret.parquet"), "leads outside of the dataset"),
        (lambda dataset: edit(dataset, features=None), "is not a LeRobot dataset that can be read"),
    ],
)
def test_what_is_broken_is_refused_in_one_sentence(
    harm: Callable[[Path], None], said: str, dataset: Path, tmp_path: Path, ami: Callable[..., Said]
) -> None:
    harm(dataset)
    assert said in ami("ingest", dataset, "--out", tmp_path / "d").mistake


def test_without_the_extra_it_says_how_to_get_it(
    tmp_path: Path, ami: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    mistake = ami("ingest", GOLDEN / "v3.0", "--skip-bad", "--out", tmp_path / "d").mistake
    assert mistake.endswith("install the extra with pip install 'openami[robots]'\n")


def test_a_camera_that_is_not_there(dataset: Path, tmp_path: Path, ami: Callable[..., Said]) -> None:
    mistake = ami("ingest", dataset, "--camera", "rear", "--out", tmp_path / "d").mistake
    assert "there are observation.images.front, observation.images.wrist" in mistake


def test_a_damaged_episode_can_be_left_out(tmp_path: Path, ami: Callable[..., Said]) -> None:
    dataset = Path(shutil.copytree(GOLDEN / "v2.1", tmp_path / "toy"))
    (film,) = dataset.rglob("*000001.mp4")
    film.unlink()
    said = ami("ingest", dataset, "--skip-bad", "--out", tmp_path / "d", "--json").document
    assert (said["episodes"], [each["name"] for each in said["skipped"]]) == (2, [f"{dataset}: episode 1"])
