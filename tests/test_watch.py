"""``ami watch`` writes a timeline and a page that needs nothing else; what it cannot watch is one sentence."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.matched_films import SHOWN, Remembers, quadruplet

from ami import cores
from ami.data.episodes import Store
from ami.data.video import FILM, write_film
from ami.evaluation.timeline import APART, watch
from ami.models import checkpoint
from ami.models.baselines import Pixels
from ami.models.jepa import JEPA, sized
from ami.reasoning.surprise import Watching
from ami.types import Embodiment


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(cores, "_keep_memory", lambda: None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "c"
    checkpoint.save(
        folder, JEPA(sized("baby", {"film": FILM})), checkpoint.Provenance("video", checkpoint.code_version())
    )
    return folder


def film(path: Path, frames: int = 40, cut: int = 25) -> Path:
    """A texture that goes by, and from frame ``cut`` on another one."""
    rng = np.random.default_rng(3)
    wide = np.kron(rng.integers(0, 256, (2, 8, 24, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    pictures = [np.roll(wide[int(k >= cut)], -k, axis=1)[:, :64] for k in range(frames)]
    write_film(path, np.stack(pictures), fps=10)
    return path


def test_a_cut_is_the_moment_that_stands_out() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    drift = np.arange(60)[:, None, None, None] // 3
    video = np.where(np.arange(60)[:, None, None, None] < 30, pictures[0] // 2 + drift, pictures[1] // 2 + drift)
    timeline = watch(Pixels({"film": FILM}).eval(), video.astype(np.uint8), Watching())
    assert timeline.moments[0].time == pytest.approx(3.0)
    times = [moment.time for moment in timeline.moments]
    assert all(abs(a - b) >= APART for k, a in enumerate(times) for b in times[:k])
    out = [moment.stands_out for moment in timeline.moments]
    assert out == sorted(out, reverse=True)


def test_what_a_model_holds_that_lives_through_films_counts_however_long_ago_it_was() -> None:
    """A ball comes out in another row than it went in, five frames before: no window of three steps has seen that."""
    holds, forgets = Remembers().eval(), Remembers().eval()
    holds.lives = ("film",)
    video = quadruplet(1)["ab"]
    assert [each.time for each in watch(holds, video, Watching()).moments] == [pytest.approx(SHOWN / 10)]
    assert not watch(forgets, video, Watching()).moments
    longer = watch(holds, video, Watching(context=2, horizon=3)).surprise
    assert [value is None for value in longer] == [True] * 2 + [False] * (len(video) - 2)
    assert np.argmax(np.array(longer[2:], float)) == SHOWN - 2


def test_a_timeline_and_a_page_are_written(ami, model: Path, tmp_path: Path) -> None:
    path = film(tmp_path / "a & b.mp4")
    said = ami("watch", model, path, "--out", tmp_path / "o", "--json")
    code, out, err = said.code, said.out, said.err
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["checkpoint"] == checkpoint.digest(model)
    (told,) = document["films"]
    assert set(told) == {"film", "step_seconds", "calibrated_on", "times", "surprise", "moments"}
    assert (told["film"], told["step_seconds"], told["calibrated_on"]) == ("a & b.mp4", 0.1, "itself")
    assert told["times"] == pytest.approx(np.arange(40) / 10)
    assert told["surprise"][:2] == [None, None]
    assert all(isinstance(value, float) for value in told["surprise"][2:])
    assert all(set(moment) == {"time", "surprise", "stands_out"} for moment in told["moments"])
    written = json.loads((tmp_path / "o" / "a & b.json").read_text(encoding="utf-8"))
    assert {key: written[key] for key in told} == told
    assert written["watching"]["context"] == document["watching"]["context"] == 2
    html = (tmp_path / "o" / "a & b.html").read_text(encoding="utf-8")
    assert "<title>AMI watches a &amp; b.mp4</title>" in html
    assert "data:video/mp4;base64," in html
    assert "<path d=" in html
    assert "default-src 'none'" in html
    assert not re.search(r"""(?:src|href)=["'](?!data:)|url\(|@import|https?://""", html), "nothing is fetched"


def test_films_are_calibrated_on_others_where_these_are_named(ami, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    one, other = film(folder / "a.mp4"), film(folder / "b.mp4", 30, 99)
    said = ami("watch", model, folder, "--ordinary", other, "--out", tmp_path / "o", "--json")
    code, out = said.code, said.out
    assert code == 0
    document = json.loads(out)
    assert [each["film"] for each in document["films"]] == [one.name, other.name]
    assert document["ordinary"] == ["b.mp4"]
    assert {each["calibrated_on"] for each in document["films"]} == {"ordinary films"}
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["a.html", "a.json", "b.html", "b.json"]
    said = ami("watch", model, one, "--out", tmp_path / "p")
    code, out = said.code, said.out
    assert code == 0
    assert "a.mp4" in out


def test_what_cannot_be_watched_is_one_sentence(ami, model: Path, tmp_path: Path) -> None:
    good, short, text = film(tmp_path / "g.mp4"), film(tmp_path / "s.mp4", 2), tmp_path / "t.mp4"
    text.write_text("no film\n" * 40)
    (tmp_path / "empty").mkdir()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x").touch()
    robot = tmp_path / "robot"
    body = Embodiment("arm", 0.1, (0.0,), (1.0,))
    checkpoint.save(
        robot, JEPA(sized("baby", {"arm": body})), checkpoint.Provenance("bridge", checkpoint.code_version())
    )
    for words, sentence in (
        ((model, good, short), "s.mp4 has 2 frames at 10 a second; surprise needs 3 or more"),
        ((model, text), "damaged, or not a film"),
        ((model, tmp_path / "none.mp4"), "there is no film"),
        ((model, tmp_path / "empty"), "holds no film"),
        ((tmp_path / "nothing", good), "nothing"),
        ((robot, good), "has learned arm: nothing that is watched"),
        ((model, good, "--out", tmp_path / "used"), "is not empty"),
    ):
        said = ami("watch", *([] if "--out" in words else ["--out", tmp_path / "o"]), *words)
        code, out, err = said.code, said.out, said.err
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert sentence in err
        assert not (tmp_path / "o").exists()
    assert ami("watch", model, "--out", tmp_path / "o").code == 2


def test_a_store_of_films_is_no_question_for_rooms(model: Path, tmp_path: Path) -> None:
    from ami.cli.asking import ask_about
    from ami.cli.show import Bars
    from ami.evaluation.ask import Question

    store = Store.create(tmp_path / "s", FILM)
    with (
        pytest.raises(ValueError, match=r"asks nothing; choose demo-films, .*real-places-2, real-films, video"),
        Bars() as bars,
    ):
        ask_about(model, Question("rooms"), [store], bars, ())
