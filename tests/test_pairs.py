"""Published films are found by how they lie, whatever the order; what is missing is one sentence."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ami.data.pairs import find
from ami.data.video import FILM, frame_rate, read_pictures
from ami.evaluation.benchmark import Asking
from ami.evaluation.suites import SUITES
from ami.evaluation.suites.pairs import PairsBenchmark
from ami.evaluation.suites.published import Published, some
from ami.models import checkpoint
from ami.models.jepa import JEPA, sized
from ami.types import Embodiment
from matched_films import FRAMES, SHOWN, Remembers, quadruplet, write_films

COLUMNS = ["SceneIndex", "name", "file_name", "game_name", "condition", "env", "type", "occluder", "Difficulty"]
ORDERS = (("ba", "aa", "ab", "bb"), ("aa", "ba", "bb", "ab"), ("ab", "ba", "bb", "aa"))


def intphys(root: Path, scenes: int = 2) -> Path:
    """The dev set: three blocks, films in any order, one of them compressed otherwise."""
    for block in (1, 2, 3):
        for scene in range(scenes):
            seed = 10 * block + scene
            for number, name in enumerate(ORDERS[seed % 3]):
                film = root / f"O{block}" / f"{scene + 1:02}" / str(number + 1)
                (film / "scene").mkdir(parents=True)
                for frame, picture in enumerate(quadruplet(seed)[name]):
                    Image.fromarray(picture).save(
                        film / "scene" / f"scene_{frame + 1:03}.png", compress_level=1 + 8 * (name == "ab")
                    )
                header = {"block_name": f"O{block}", "is_possible": name in ("aa", "bb")}
                (film / "status.json").write_text(json.dumps({"header": header, "frames": []}))
    return root


def intphys2(root: Path, scenes: int = 2) -> Path:
    """The Main set: a table, and films whose names say nothing."""
    types = {"aa": "1_Possible", "ab": "1_Impossible", "ba": "2_Impossible", "bb": "2_Possible"}
    (root / "Videos").mkdir(parents=True)
    with (root / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*COLUMNS, "Camera"])
        for scene in range(scenes):
            names = {kind: f"{scene:x}{kind}" for kind in types}
            write_films(root / "Videos", scene, {kind: f"{name}.mp4" for kind, name in names.items()}, fps=30)
            for kind in ("bb", "ba", "aa", "ab"):
                condition, camera = ("continuity_swap", "Moving") if scene else ("permanence", "Fixed")
                row = [f"12_{scene}", names[kind], f"Videos/{names[kind]}.mp4", "Box", condition, "None", types[kind]]
                table.writerow([*row, "None", "Easy", camera])
    return root


def grasp(root: Path, films: int = 2) -> Path:
    """The second level: possible and impossible films with the same numbers."""
    for test in ("ObjectPermanence", "GravityInertia2"):
        for number in range(films):
            twins = {"aa": f"P_{test}", "ab": f"IP_{test}", "ba": "P_Other", "bb": "P_Another"}
            for kind, folder in twins.items():
                (root / folder).mkdir(parents=True, exist_ok=True)
                twins[kind] = f"{folder}/{number:03}.mp4"
            write_films(root, number, twins, fps=50)
    return root


def inflevel(root: Path) -> Path:
    """Names that say all."""
    for principle, letters in (("continuity", "vi iv vv ii"), ("gravity", "uv ci ui cv"), ("solidity", "uv ci ui cv")):
        (root / principle).mkdir(parents=True)
        trials = dict(zip(("ab", "ba", "aa", "bb"), letters.split(), strict=True))
        tail = "__LR" if principle == "continuity" else ""
        name = f"{principle}/center__{principle}__cup__duck__"
        write_films(root, 3, {kind: f"{name}{trial}{tail}.mp4" for kind, trial in trials.items()}, fps=30)
    (root / "gravity" / "center__gravity__cup__ball__ui.mp4").write_bytes(b"its twin was never filmed")
    return root


MADE = {"intphys": intphys, "intphys2": intphys2, "grasp": grasp, "inflevel": inflevel}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("published")
    return {name: make(root / name) for name, make in MADE.items()}


def test_intphys_twins_are_those_that_stay_alike_the_longest(published: dict[str, Path]) -> None:
    pairs = find(published["intphys"])
    assert len(pairs) == 12
    assert [pair.principle for pair in pairs[::4]] == ["permanence", "shape-constancy", "continuity"]
    for pair in pairs:
        block, scene = pair.quadruplet.split("/")
        films = quadruplet(10 * int(block[1]) + int(scene) - 1)
        good, bad = (read_pictures(path, 15, fps=15).video for path in (pair.possible, pair.impossible))
        name = next(name for name in ("aa", "bb") if np.array_equal(good, films[name]))
        np.testing.assert_array_equal(bad, films["ab" if name == "aa" else "ba"])
        assert (pair.parts, pair.rate) == (SHOWN / 15, 15)
    assert find(published["intphys"].parent / "intphys", "intphys") == pairs


def test_the_others_say_which_is_whose_twin(published: dict[str, Path]) -> None:
    pairs = find(published["intphys2"])
    assert [(pair.principle, pair.condition, pair.quadruplet) for pair in pairs] == [
        *[("permanence", "fixed", "12_0")] * 2,
        *[("continuity", "moving", "12_1")] * 2,
    ]
    assert [(pair.possible.stem, pair.impossible.stem) for pair in pairs[:2]] == [("0bb", "0ba"), ("0aa", "0ab")]

    pairs = find(published["grasp"])
    assert {pair.principle for pair in pairs} == {"object-permanence", "gravity-inertia"}
    assert all(pair.possible.parent.name == f"P{pair.impossible.parent.name[2:]}" for pair in pairs)
    assert len({pair.quadruplet for pair in pairs}) == len(pairs) == 4

    pairs = find(published["inflevel"])
    trials = {tuple(path.stem.split("__")[4] for path in (pair.possible, pair.impossible)) for pair in pairs}
    assert trials == {("vv", "vi"), ("ii", "iv"), ("ui", "uv"), ("cv", "ci")}
    assert len(pairs) == 6
    assert len({pair.quadruplet for pair in pairs}) == 3


@pytest.mark.parametrize(("name", "place"), [("intphys", "dev"), ("intphys2", "Main"), ("grasp", "videos/level2")])
def test_the_folder_above_will_do(tmp_path: Path, name: str, place: str) -> None:
    MADE[name](tmp_path / place)
    assert find(tmp_path) == find(tmp_path / place)


def test_what_is_missing_is_one_sentence(tmp_path: Path) -> None:
    def refused(folder: Path, match: str, layout: str | None = None) -> None:
        with pytest.raises(ValueError, match=match) as caught:
            find(folder, layout)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "none", "there is no folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"holds no matched films as they are published \(intphys: O1/01/1/scene")
    refused(tmp_path / "empty", r"published \(grasp: P_Gravity/000.mp4 and IP_Gravity/000.mp4, of level2\)", "grasp")

    root = intphys(tmp_path / "a", scenes=1)
    refused(root, r"published \(intphys2: metadata.csv", "intphys2")
    status = root / "O2" / "01" / "3" / "status.json"
    was = status.read_text()
    status.write_text('{"frames": []}')
    refused(root, "does not say in its header whether the film is_possible")
    status.write_text(json.dumps({"header": {"is_possible": not json.loads(was)["header"]["is_possible"]}}))
    refused(root, "01 has [13] possible films of four, and a scene has 2")
    status.unlink()
    refused(root, "status.json is missing: only the dev set of IntPhys says")
    for picture in (root / "O1" / "01" / "2" / "scene").iterdir():
        picture.unlink()
    refused(root, "2/scene holds no pictures; a scene has four films")

    root = intphys2(tmp_path / "b", scenes=1)
    next((root / "Videos").iterdir()).unlink()
    refused(root, "metadata.csv lists .*mp4, which is not there")
    (root / "metadata.csv").write_text("SceneIndex,file_name,condition,Camera\n0,Videos/a.mp4,solidity,Fixed\n")
    refused(root, "says no type: only Debug and Main")

    root = grasp(tmp_path / "c", films=1)
    for film in root.glob("P_*/*.mp4"):
        film.unlink()
    refused(root, "is laid out as grasp, but no film in it has its twin")


def test_a_picture_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no picture"):
        read_pictures(tmp_path, 15)
    (tmp_path / "scene_001.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"picture .*scene_001.png cannot be read"):
        read_pictures(tmp_path, 15)


def test_pairs_are_read_at_the_rate_of_who_watches(published: dict[str, Path]) -> None:
    for name, made in (("intphys", 15), ("intphys2", 30), ("grasp", 50)):
        pair = find(published[name])[0]
        assert pair.frame_rate() == pytest.approx(made)
        for video in pair.read(32, 10.0):
            assert video.shape == (int((FRAMES - 1) / made * 10 + 1e-3) + 1, 32, 32, 3)
    with pytest.raises(ValueError, match="damaged, or not a film"):
        frame_rate(published["inflevel"] / "gravity" / "center__gravity__cup__ball__ui.mp4")


@pytest.mark.parametrize("name", ["intphys", "intphys2"])
def test_who_remembers_is_right_about_published_films(published: dict[str, Path], name: str) -> None:
    benchmark, _ = SUITES[name].asked[0]
    assert isinstance(benchmark, PairsBenchmark)
    model = Remembers()
    model.embodiments = {"film": FILM if name == "intphys" else Embodiment("film", 1 / 20)}
    answer = benchmark.run(model, 100, Asking(pairs=find(published[name])))
    asked = {result.benchmark: result for result in answer.results if result.metric == "pairwise"}
    if name == "intphys":
        assert set(asked) == {f"intphys/{each}" for each in ("permanence", "shape-constancy", "continuity", "all")}
        assert answer.notes == ("Films of 15 frames a second were shown at the 10 that this model watches.",)
        (late,) = (result for result in answer.results if result.metric == "peak_distance")
        assert late.value < 0.3
    else:
        assert set(asked) == {"intphys2/permanence/fixed", "intphys2/continuity/moving", "intphys2/all"}
    assert all(result.value == 1 for result in asked.values())
    assert asked[f"{name}/all"].baselines["brightness"].value == 0.5


def test_whole_quadruplets_are_drawn(published: dict[str, Path]) -> None:
    pairs = find(published["intphys"])
    drawn = some(pairs, 5, np.random.default_rng(0))
    assert len(drawn) == 6
    assert len({pair.quadruplet for pair in drawn}) == 3
    assert some(pairs, 12, np.random.default_rng(0)) == pairs
    assert [pair.quadruplet for pair in some(pairs, 4, np.random.default_rng(1))] != [p.quadruplet for p in pairs[:4]]


def test_films_too_short_or_damaged_are_refused(tmp_path: Path) -> None:
    root = grasp(tmp_path, films=1)  # 21 frames at 50 a second
    with pytest.raises(ValueError, match=r"grasp has films of 5 steps \(.*\), and its rule needs 8, 0.8 s"):
        PairsBenchmark("grasp", Published("grasp")).run(Remembers(), 9, Asking(pairs=find(root)))
    (root / "P_GravityInertia2" / "000.mp4").write_bytes(b"no film")
    with pytest.raises(ValueError, match=r"000.mp4 cannot be decoded \(.*\): it is damaged, or not a film"):
        PairsBenchmark("grasp", Published("grasp")).run(Remembers(), 9, Asking(pairs=find(root)))
    with pytest.raises(ValueError, match="asks about matched films, and none came"):
        PairsBenchmark("grasp", Published("grasp")).run(Remembers(), 9, Asking())


def test_one_command_asks_a_checkpoint(ami, published: dict[str, Path], tmp_path: Path) -> None:
    model = tmp_path / "c"
    papers = checkpoint.Provenance("video", checkpoint.code_version())
    checkpoint.save(model, JEPA(sized("baby", {"film": FILM})), papers)
    said = ami("eval", model, "--suite", "intphys", "--data", published["intphys"], "--out", tmp_path / "o", "--json")
    report = said.document["report"]
    asked = {(result["benchmark"], result["metric"]): result for result in report["results"]}
    assert asked["intphys/all", "pairwise"]["n"] == 12
    assert set(asked["intphys/continuity", "pairwise"]["baselines"]) == {
        *("untrained", "frame-difference", "copy-last", "brightness", "chance")
    }
    assert "15 frames a second" in report["notes"][0]
    assert any("Sliding windows" in sentence for sentence in report["protocol"])
    assert (
        "published films, and 0 folders came" in ami("eval", model, "--suite", "grasp", "--out", tmp_path / "p").mistake
    )
    wrong = ami("eval", model, "--suite", "grasp", "--data", published["intphys"], "--out", tmp_path / "p").mistake
    assert "holds no matched films as they are published (grasp:" in wrong
