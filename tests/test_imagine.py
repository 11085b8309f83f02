"""``ami imagine`` tells two futures apart, beside the truth of both; ``ami readout`` says what they are in units."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ami.cli import training
from ami.cli.imagining import parsed
from ami.cli.show import Bars
from ami.data.episodes import Episode, Store
from ami.evaluation.nearest import nearest_frames
from ami.models import checkpoint, vjepa
from ami.worlds import films
from ami.worlds.rooms import TRUTH, Rooms
from tiny_stores import TINY, rooms_store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of rooms, and a run that has learned from it for a moment."""
    folder = tmp_path_factory.mktemp("made")
    store = rooms_store(folder / "d", 10, 14, "wall")
    with Bars() as bars:
        training.train("baby", [store], folder / "r", 0, bars, settings=replace(TINY, steps=20))
    return folder


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of drawn films, and a V-JEPA that is new."""
    folder = tmp_path_factory.mktemp("watched")
    store = Store.create(folder / "d", films.EMBODIMENT, films.TRUTH)
    store.append(films.collect(5, 16, 3))
    body = replace(films.EMBODIMENT, step_seconds=2 * films.EMBODIMENT.step_seconds)
    model = vjepa.VJEPA(vjepa.sized("baby", {body.name: body}))
    checkpoint.save(folder / "c", model, checkpoint.Provenance("video", checkpoint.code_version()))
    return folder


def test_what_may_be_asked() -> None:
    assert parsed("action=0.5,0") == (((0, (0.5, 0.0)),), None)
    assert parsed("action=0:0.5,-1;3:0,0") == (((0, (0.5, -1.0)), (3, (0.0, 0.0))), None)
    assert parsed("past=7") == ((), 7)
    for words in ("", "action", "action=", "action=a,b", "action=0;1:", "action=nan,0", "action=3:0,0;1:0,0", "past=x"):
        with pytest.raises(ValueError, match=r"cannot be read; write action=0\.5,0 or "):
            parsed(words)


def test_two_futures_are_told_apart_beside_the_truth(ami, made: Path, tmp_path: Path) -> None:
    before = checkpoint.digest(made / "r" / "checkpoint")
    words = ("readout", made / "r", made / "d", "--name", "place", "--columns", "agent_x", "agent_y", "--unit", "px")
    (fitted,) = ami(*words, "--json").document["readouts"]
    assert (fitted["name"], fitted["quantities"], fitted["unit"]) == ("place", ["agent_x", "agent_y"], "px")
    assert "has a read-out 'place'; choose another name, or say --replace" in ami(*words).mistake
    assert ami(*words, "--replace").code == 0
    assert re.search(
        r"place\s+two-rooms, latent\s+agent_x ± [\d.]+ px \(R² -?[\d.]+, imagined ± [\d.]+\)",
        ami("readout", made / "r").out,
    )
    asked = ("imagine", made / "r", made / "d", "--episode", 4, "--what-if", "action=2:1,0;4:0,-1")
    held = ami(*asked, "--start", 5, "--steps", 6, "--out", tmp_path / "o", "--json").document
    assert held["checkpoint"] == before == checkpoint.digest(made / "r" / "checkpoint")
    assert held["times"] == pytest.approx(0.4 * np.arange(6, 12))
    recorded = Store.open(made / "d").arrays(4)
    np.testing.assert_allclose(held["actions"]["factual"], recorded["actions"][5:11])
    np.testing.assert_allclose(held["actions"]["what_if"][:2], recorded["actions"][5:7])
    assert held["actions"]["what_if"][2:] == [[1, 0], [1, 0], [0, -1], [0, -1]]
    assert held["apart"][:2] == [0, 0]
    assert all(apart > 0 for apart in held["apart"][2:])
    energy = held["energy"]
    assert energy["factual"][:2] == pytest.approx(energy["what_if"][:2])
    assert energy["factual"][3] != energy["what_if"][3]
    assert held["inferred"]
    assert np.mean(energy["factual"]) < np.mean(energy["before_inferring"])
    (read,) = held["readouts"]
    np.testing.assert_allclose(np.subtract(read["what_if"], read["factual"]), read["apart"], atol=1e-4)
    np.testing.assert_allclose(read["truth"]["factual"], recorded["truth"][6:12, :2])
    at, wall, door = recorded["truth"][5, None, :2], recorded["truth"][5, 2:3], recorded["truth"][5, 3:]
    for action, told in zip(held["actions"]["what_if"], read["truth"]["what_if"], strict=True):
        at = Rooms(wall, door).step(at, np.array([action]))[-1]
        np.testing.assert_allclose(told, at[0], atol=1e-3)
    page = (tmp_path / "o" / "imagined.html").read_text(encoding="utf-8")
    rows = re.findall(r'aria-label="([^"]*), 6 frames"', page)
    assert rows == ["recorded", "imagined", "what if", "what if, truly"]
    assert not re.search(r'(src|href)="(?!data:)|https?:', page)
    written = json.loads((tmp_path / "o" / "imagined.json").read_text(encoding="utf-8"))
    assert {"folder": str(tmp_path / "o"), **written} == held
    other = ("imagine", made / "r", made / "d", "--episode", 4, "--what-if", "past=7", "--start", 5, "--steps", 1)
    (there,) = ami(*other, "--out", tmp_path / "q", "--json").document["readouts"]
    at, wall, door = np.split(Store.open(made / "d").arrays(7)["truth"][5], [2, 3])
    at = Rooms(wall, door).step(at[None], recorded["actions"][5:6])[-1]  # from its place, what was done here
    np.testing.assert_allclose(there["truth"]["what_if"], at, atol=1e-3)
    said = ami(*asked, "--out", tmp_path / "p", "--infer", "nothing").out
    assert "place imagined" in said
    assert "hidden causes inferred" not in said


def test_another_past_is_what_was_seen_instead(ami, watched: Path, tmp_path: Path) -> None:
    ami("readout", watched / "c", watched / "d", "--name", "mover", "--columns", "a_x", "--unit", "px")
    words = ("imagine", watched / "c", watched / "d", "--episode", 0, "--what-if", "past=2", "--steps", 2)
    held = ami(*words, "--out", tmp_path / "o", "--json").document
    assert (held["actions"], held["past"], held["start"]) == (None, 2, 3)
    assert held["times"] == pytest.approx([0.9, 1.1])  # of each step's last frame
    assert min(held["apart"]) > 0
    (read,) = held["readouts"]
    column, store = films.TRUTH.index("a_x"), Store.open(watched / "d")
    for which, episode in (("factual", 0), ("what_if", 2)):
        np.testing.assert_allclose(np.ravel(read["truth"][which]), store.arrays(episode)["truth"][[9, 11], column])
    assert "nobody acts as 'drawn-film'" in ami(*words[:-3], "action=1", "--out", tmp_path / "p").mistake
    same = ami(*words[:-3], "past=0", "--out", tmp_path / "q", "--infer", "nothing", "--json").document
    assert max(same["apart"]) == 0


def test_what_is_imagined_is_shown_by_recorded_pictures(made: Path) -> None:
    store, model = Store.open(made / "d"), checkpoint.load(made / "r" / "checkpoint")
    clip = store.clips(np.array([[4, 0], [7, 3]]), 5)
    with torch.no_grad():
        shown = nearest_frames(model, store, 4)(model.encode(clip))
    assert clip.video is not None
    assert (shown == clip.video[:, :, 0].permute(0, 1, 3, 4, 2).numpy()).all()


def test_mistakes_are_one_sentence_and_write_nothing(ami, made: Path, watched: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"

    def mistake(*change: object, episode: int = 4, what_if: str = "action=1,0", data: Path = made / "d") -> str:
        asked = ("imagine", made / "r", data, "--episode", episode, "--what-if", what_if, "--out", out)
        return ami(*asked, *change).mistake

    for said, message in (
        (mistake(what_if="friction=0"), "--what-if is 'friction=0', which cannot be read"),
        (mistake(what_if="action=1"), "action 1 from step 0 does not fit: 'two-rooms' has 2 numbers in an action"),
        (mistake(what_if="action=9:1,0"), "and steps 0 to 6 are imagined"),
        (mistake(what_if="action=1.5,0"), "out of bounds: 'two-rooms' acts from (-1.0, -1.0) to (1.0, 1.0)"),
        (mistake(what_if="past=99"), "there is no episode 99"),
        (mistake(episode=10), "there is no episode 10"),
        (mistake("--start", 13), "0 steps after step 13 were asked for, and episode 4 has steps 0 to 13"),
        (mistake("--start", 3, "--steps", 11), "11 steps after step 3"),
        (mistake("--start", -1), "let both futures lie within it"),
        (mistake(data=watched / "d"), "does not know the embodiment 'drawn-film'; it knows two-rooms"),
        (ami("readout", made / "r", made / "d", "--name", "x").mistake, "give --name and --columns"),
        (ami("readout", made / "r", made / "d", "--name", "x", "--columns", "speed").mistake, "no column 'speed'"),
    ):
        assert message in said
    assert not out.exists()
    out.mkdir()
    (out / "x").touch()
    assert "is not empty" in mistake()
    alone = Store.create(tmp_path / "alone", Store.open(made / "d").embodiment, TRUTH)
    alone.append([Episode(**Store.open(made / "d").arrays(0))])
    lonely = ("imagine", made / "r", tmp_path / "alone", "--episode", 0, "--what-if", "action=1,0")
    assert "no two other stretches" in ami(*lonely, "--out", tmp_path / "p").mistake
    assert ami(*lonely, "--out", tmp_path / "p", "--infer", "nothing").code == 0
