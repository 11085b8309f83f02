"""The report: what is written is what was measured, it can be read back, and its page needs nothing but itself."""

import base64
import dataclasses
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ami import files
from ami.evaluation import page, plots
from ami.evaluation.report import Checkpoint, Code, Report, Suite, read_report, table, this_machine, write_report
from ami.evaluation.strips import Strip
from ami.types import Interval, Result

EVIL = '<script>alert("1")</script> & </style>'
EPISODES = [
    {"start": [10.0, 20.0], "ever": True, "error_px": 1.5},
    {"start": [9.0, 8.0], "ever": False, "error_px": 31.0},
]


def bins(*values: float) -> list[dict]:
    def row(value: float) -> dict:
        return {"value": value, "low": value - 0.05, "high": value + 0.05}

    return [
        {
            "low": 15.0 * i,
            "high": 15.0 * (i + 1),
            "unit": "px",
            "n": 20 + i,
            "rows": {"model": row(v), "random": row(0.1)},
        }
        for i, v in enumerate(values)
    ]


def result(metric: str = "success_ever", value: float = 0.975, unit: str = "fraction", **changes) -> Result:
    baselines = {"random": Interval(0.365, 0.301, 0.434), "straight-line": Interval(0.443, 0.376, 0.512)}
    details = {"by_distance": bins(0.9, 0.7, 0.3), "episodes": EPISODES}
    made = Result("two-rooms/fixed/cross-room", metric, value, value - 0.0321, value + 0.0144, 200, unit, (7, 8),
                  "Wilson 95 %", baselines, 41.25, 3072, details)  # fmt: skip
    return dataclasses.replace(made, **changes)


def strip() -> Strip:
    frames = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3)).astype(np.uint8)
    return Strip("fixed, pair 3", frames, frames[::-1], frames[1], "reached after 64 steps")


def report(**changes) -> Report:
    made = Report(
        checkpoint=Checkpoint(digest="3f9a2c1e" * 8, parameters=435_712, recipe="baby"),
        suite=Suite(name="rooms", digest="ab12cd34" * 8),
        code=Code(version="0.1.0", commit="9c1d77aa" * 5, dirty=False),
        results=(
            result(),
            result("success_end", 0.915),
            result("error_ratio", 0.8349, "times copy-last", details=None),
        ),
        created="2026-11-23T22:40:00+01:00",
        machine={"cores": 2, "precision": "fp32"},
        cpu_seconds={"collect": 21.0, "train": 92.0},
        strips=(strip(),),
        curves=[
            {"step": s, "loss/total": math.exp(-s / 10), "effective_rank": 4.0 + s, "note": "x"} for s in range(60)
        ],
        protocol=("The goal is a picture.",),
        commands=("make demo",),
        notes=(EVIL,),
        provenance={"seed": 7, "data": ["aa", "bb"]},
    )
    return dataclasses.replace(made, **changes)


class Page(HTMLParser):
    """What stands on a page: its tags and its text. Raises where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "wbr", "col"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, report())
    return folder


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_what_was_measured_is_read_back(written):
    read = read_report(written)
    first = read["results"][0]
    assert (first["value"], first["low"], first["high"]) == (0.975, 0.975 - 0.0321, 0.975 + 0.0144)
    assert first["baselines"]["straight-line"] == {"value": 0.443, "low": 0.376, "high": 0.512}
    asked = {"benchmark", "metric", "value", "low", "high", "n", "unit", "seeds", "interval", "baselines", "seconds"}
    assert asked | {"model_calls", "by_distance"} == set(first)
    assert first["by_distance"] == bins(0.9, 0.7, 0.3)
    assert read["checkpoint"] == {"digest": "3f9a2c1e" * 8, "parameters": 435_712, "recipe": "baby"}
    assert read["code"]["dirty"] is False
    assert read["suite"]["name"] == "rooms"
    assert read["schema"] == 1


def test_episodes_are_logged_once_for_all_metrics_read_off_them(written):
    lines = [json.loads(line) for line in (written / "episodes.jsonl").read_text().splitlines()]
    assert [line["error_px"] for line in lines] == [1.5, 31.0]
    assert lines[1]["metrics"] == ["success_ever", "success_end"]
    assert lines[1]["benchmark"] == "two-rooms/fixed/cross-room"


def test_the_same_report_gives_the_same_bytes(written, tmp_path):
    write_report(tmp_path, report())
    for name in ("report.json", "report.html", "episodes.jsonl"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"recipe": "baby"', '"recipe": "baby", "mood": 1', "checkpoint.mood"),
        ('"schema": 1', '"schema": 2', "schema"),
        ('"value": 0.975', '"value": 0.5', "not inside"),
        ('"value": 0.975', '"value": NaN', "damaged"),
        (
            '"metric": "success_end"',
            '"metric": "success_ever"',
            "more than once: two-rooms/fixed/cross-room success_ever",
        ),
        ('"n": 200', '"n": 0', "results.0.n"),
        ('"created"', '"crea', "damaged"),
    ],
)
def test_a_damaged_report_is_refused_in_one_sentence(copied, old, new, told):
    path = copied / "report.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(told)) as error:
        read_report(copied)
    assert "\n" not in str(error.value)


def test_a_missing_report_or_another_episode_log_is_refused(copied, tmp_path_factory):
    with pytest.raises(ValueError, match=r"holds no report\.json"):
        read_report(tmp_path_factory.mktemp("empty"))
    log = copied / "episodes.jsonl"
    log.write_text(log.read_text().replace("false", "true"))
    with pytest.raises(ValueError, match="is not the episode log"):
        read_report(copied)


def test_a_result_without_numbers_leaves_nothing_behind(tmp_path):
    broken = result(baselines={"random": Interval(math.nan, 0.0, 1.0)})
    with pytest.raises(ValueError, match="finite"):
        write_report(tmp_path, report(results=[broken]))
    assert not list(tmp_path.iterdir())


def test_a_report_cut_off_before_its_end_is_not_a_report(tmp_path, monkeypatch):
    def full_disk(path, document):
        raise OSError("no space left")

    monkeypatch.setattr(files, "write_json", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_report(tmp_path, report(curves=()))
    with pytest.raises(ValueError, match="holds no"):
        read_report(tmp_path)


def test_the_page_needs_nothing_but_itself(written):
    html = (written / "report.html").read_text()
    read = Page(html)
    for tag, attributes in read.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("data:image/png;base64,", "#"))
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\((?!#)|@import", html)
    assert ("meta", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in [
        (tag, attributes.get("content")) for tag, attributes in read.tags
    ]


def test_the_page_shows_every_answer_and_every_baseline(written):
    text = Page((written / "report.html").read_text()).text
    for shown in report().results:
        assert shown.benchmark in text
        assert shown.metric.replace("_", " ") in text
        for held in [Interval(shown.value, shown.low, shown.high), *shown.baselines.values()]:
            scale, digits = (100, ".1f") if shown.unit == "fraction" else (1, ".3f")
            assert f"{format(held.low * scale, digits)} to {format(held.high * scale, digits)}" in text
            assert format(held.value * scale, digits) in text
    for said in (
        *("random", "straight-line", "n = 200", "Wilson 95 %", "seeds 7, 8", "3,072 model calls", "times copy-last"),
        *("435,712", "9c1d77aa", "113 CPU-seconds", "precision fp32", "make demo", "The goal is a picture."),
        *("reached after 64 steps", "effective rank", "2026-11-23 22:40"),
    ):
        assert said in text, said
    assert text.count("3f9a2c1e" * 8) == 1


def test_all_text_is_escaped():
    evil = report(
        checkpoint=Checkpoint(digest=EVIL, parameters=1, recipe=EVIL),
        suite=Suite(name=EVIL, digest=EVIL),
        code=Code(version=EVIL, commit=EVIL, dirty=True),
        results=[result(benchmark=EVIL, metric=EVIL, unit=EVIL, interval=EVIL, baselines={EVIL: Interval(1, 1, 1)})],
        created=EVIL,
        machine={EVIL: EVIL},
        cpu_seconds={EVIL: 1.0},
        strips=[dataclasses.replace(strip(), title=EVIL, caption=EVIL)],
        curves=[{"step": s, EVIL: 1.0} for s in range(3)],
        commands=[EVIL],
        protocol=[EVIL],
        provenance={EVIL: EVIL},
    )
    html = page.page(evil)
    assert "<script" not in html
    assert html.count("</style>") == 1
    assert Page(html).text.count(EVIL) > 10


def test_the_page_can_be_read_aloud_and_by_the_colour_blind(written):
    tags = Page((written / "report.html").read_text()).tags
    assert all("alt" in attributes for tag, attributes in tags if tag == "img")
    charts = [attributes for tag, attributes in tags if tag == "svg"]
    assert all(
        attributes.get("aria-label") or "aria-hidden" in attributes or "x" in attributes for attributes in charts
    )
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")
    assert any("model: 90.0, 70.0, 30.0" in (attributes.get("aria-label") or "") for attributes in charts)
    assert len(set(plots.SHAPES)) == len(set(plots.MARKERS)) == len(plots.SHAPES)


def test_pictures_are_the_frames_pixel_for_pixel(written):
    tags = Page((written / "report.html").read_text()).tags
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode((attributes["src"] or "").split(",")[1]))))
        for tag, attributes in tags
        if tag == "img"
    ]
    film = strip()
    assert film.imagined is not None
    assert np.array_equal(np.stack(shown), np.concatenate([film.real, film.imagined, film.goal[None]]))


@pytest.mark.parametrize(
    ("commit", "dirty", "warned"), [("9c1d", False, False), ("9c1d", True, True), (None, None, True)]
)
def test_code_that_cannot_be_traced_is_said_at_the_head(commit, dirty, warned):
    html = page.page(report(code=Code(version="0.1.0", commit=commit, dirty=dirty), results=(), curves=()))
    assert ('class="warning"' in html) == warned


def test_an_empty_report_is_still_a_page(tmp_path):
    bare = report(results=(), strips=(), curves=(), notes=(), protocol=(), commands=(), provenance={}, cpu_seconds={})
    write_report(tmp_path, bare)
    text = Page((tmp_path / "report.html").read_text()).text
    assert "At a glance" not in text
    assert "435,712 parameters. All" in text
    assert read_report(tmp_path)["results"] == []


def test_marks_stand_where_their_numbers_are():
    drawn = plots.whisker({0: Interval(0.75, 0.5, 1.0), 1: Interval(0.25, 0.0, 0.5)}, (0.0, 1.0))
    places = [float(x) for x in re.findall(r'<svg x="([\d.]+)%"', drawn)]
    assert places == [26.0, 74.0]  # the model is drawn last; 0 lies at 2 % and 1 at 98 %
    assert 'class="bar s0" x1="50.0%" x2="98.0%"' in drawn
    assert plots.span([], "fraction") == (0.0, 1.0)
    assert plots.span([Interval(0.83, 0.78, 1.21)], "times") == (0.0, 1.5)


def test_a_higher_score_is_drawn_higher():
    drawn = plots.by_distance(bins(0.9, 0.7, 0.3), "fraction", {"model": 0, "random": 1}, "fixed")
    marks = [float(y) for y in re.findall(r'<use [^>]*y="([\d.]+)" style="fill: var\(--series0\)', drawn)]
    assert len(marks) == 3
    assert marks == sorted(marks)
    assert (marks[1] - marks[0]) / (marks[2] - marks[1]) == pytest.approx(0.5, abs=1e-3)
    assert "#0100" not in drawn  # every colour is one of the page's


def test_a_long_curve_stays_small_and_still_shows_a_spike():
    steps = list(range(10_000))
    spike = plots.curve(steps, [1.0 + (step == 5000) for step in steps], "loss")
    assert len(spike) < 40_000
    band = re.findall(r"[ML] [\d.]+ (-?[\d.]+)", re.findall(r'<path id="[^"]*" d="(M[^"]*)"', spike)[0])
    line = re.findall(r'<path d="(M[^"]*)" clip-path[^>]*stroke: var\(--series0\)', spike)[-1]
    assert np.ptp(np.array(band, float)) > 50  # the mean of the stretch hardly rises, the band holds the spike
    assert np.ptp(np.array(re.findall(r"[ML] [\d.]+ ([\d.]+)", line), float)) < 5


def test_a_curve_over_decades_is_drawn_straight():
    drawn = plots.curve(range(50), [math.exp(-step / 5) for step in range(50)], "loss")
    path = re.findall(r'<path d="(M[^"]*)" clip-path[^>]*stroke: var\(--series0\)', drawn)[-1]
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)]
    assert np.ptp(heights) > 50
    line = np.linspace(heights[0], heights[-1], len(heights))
    np.testing.assert_allclose(heights, line, atol=0.5)


def test_a_strip_whose_films_do_not_match_is_refused():
    with pytest.raises(ValueError, match="1 imagined frames beside 3 real"):
        dataclasses.replace(strip(), imagined=strip().real[:1])
    with pytest.raises(ValueError, match="uint8"):
        dataclasses.replace(strip(), goal=strip().goal.astype(np.float32))


def test_the_terminal_shows_each_answer_beside_its_baselines():
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    console.print(table(report()))
    shown = console.file.getvalue()
    row = next(line for line in shown.splitlines() if "success_ever" in line)
    assert row.split() == ["success_ever", "97.5", "%", "94.3–98.9", "200", "36.5", "44.3"]
    assert "two-rooms/fixed/cross-room" in shown


def test_the_machine_is_described():
    described = this_machine("fp32")
    assert described["precision"] == "fp32"
    assert int(described["cores"]) >= 1


def test_no_two_baselines_look_alike_however_many_there_are() -> None:
    looks = [plots.symbol(series) for series in range(2 * len(plots.SHAPES) - 1)]
    assert len(set(looks)) == len(looks)
