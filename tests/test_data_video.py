"""Films are sampled at the right moments, and files that are no good film are refused."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ami.data.video import FILM, read_film, write_film


def grey(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frame k is of grey 5k."""
    return np.broadcast_to(
        (5 * np.arange(count, dtype=np.uint8))[:, None, None, None], (count, height, width, 3)
    ).copy()


def shown(path: Path, **settings) -> list[int]:
    """Which frames of a grey film were kept."""
    video = read_film(path, size=16, **settings).video
    return np.round(video.mean((1, 2, 3)) / 5).astype(int).tolist()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "grey.mp4"
    write_film(path, grey(40), fps=12)
    return path


def test_each_tick_shows_the_newest_frame(film: Path) -> None:
    last = 39 / 12
    for fps in (12.0, 10.0, 4.0, 30.0):
        ticks = np.arange(int(last * fps + 1e-3) + 1)
        assert shown(film, fps=fps) == np.floor(ticks / fps * 12 + 1e-3).astype(int).tolist()
        np.testing.assert_allclose(read_film(film, fps=fps).times, ticks / fps)


@pytest.mark.parametrize("native", [10, 24, 25, 30, 30000 / 1001])
def test_films_of_any_rate_and_length_are_cut_at_the_rate_that_is_asked_for(tmp_path: Path, native: float) -> None:
    for frames in (7, 50):
        write_film(tmp_path / "f.mp4", grey(frames), fps=native)
        for fps in (4.0, 10.0, 15.0):
            ticks = np.arange(int((frames - 1) / native * fps + 1e-3) + 1)
            newest = np.floor((ticks / fps + 1.01e-4) * native).astype(int)  # a tenth of a millisecond early is in time
            assert shown(tmp_path / "f.mp4", fps=fps) == newest.tolist()


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_film_whose_rate_varies_is_cut_by_its_time_stamps(tmp_path: Path, container: str) -> None:
    stamps = [0, 40, 100, 130, 299, 333, 900, 1000, 1170, 1500]  # ms
    path = tmp_path / f"varies.{container}"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.time_base = 64, 48, Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        for picture, stamp in zip(grey(len(stamps)), stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    for fps in (10.0, 4.0, 25.0):
        ticks = np.arange(int(1.5 * fps + 1e-6) + 1) * 1000 / fps  # ms
        newest = np.searchsorted(stamps, ticks + 0.1, side="right") - 1
        assert shown(path, fps=fps) == newest.tolist()


def test_written_films_come_back_in_rgb_with_their_middle(tmp_path: Path) -> None:
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :20], picture[:, 20:40], picture[:, 40:60], picture[:, 60:] = 128, (250, 0, 0), (0, 0, 250), 128
    write_film(tmp_path / "f.mp4", np.stack([picture] * 3), fps=10)
    episode = read_film(tmp_path / "f.mp4", size=20)
    assert episode.video.shape == (3, 20, 20, 3)
    assert episode.source == "f.mp4"
    assert abs(episode.video[0, 10, 4].astype(int) - (250, 0, 0)).max() < 15
    assert abs(episode.video[0, 10, 15].astype(int) - (0, 0, 250)).max() < 15


def test_films_of_a_telephone_stand_upright(tmp_path: Path) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32] = 250  # light on the left of the sensor
    path = tmp_path / "phone.mp4"
    write_film(path, np.stack([picture] * 2), fps=10)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # the track's display matrix, ISO 14496-12 section 8.3.2
    one = 1 << 16
    content[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 64 * one, 0, 1 << 30)  # a quarter turn clockwise
    path.write_bytes(content)
    video = read_film(path).video.astype(int)
    assert video[0, :24].min() > 200
    assert video[0, 40:].max() < 50


def test_real_films_whose_time_stamps_all_say_zero(shared_data: Path) -> None:
    for name, frames in (("cups", 100), ("bottles", 200), ("cars", 314)):  # 300 at 29.97, 600 at 30, 377 at 12 fps
        episode = read_film(shared_data / "video" / f"{name}.mp4")
        assert len(episode) == frames
        assert np.allclose(np.diff(episode.times), FILM.step_seconds)
        assert episode.video.std() > 20  # a picture, not a colour


def refused(path: Path, match: str, **settings) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        read_film(path, **settings)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_film(tmp_path: Path, film: Path) -> None:
    refused(tmp_path / "none.mp4", "there is no film")
    (tmp_path / "zero.mp4").touch()
    refused(tmp_path / "zero.mp4", "is empty")
    (tmp_path / "grey.mp4").write_bytes(film.read_bytes())
    # The last is a playlist, through which a text file could make the reader open files it was never given.
    for number, text in enumerate(("hello\n" * 500, "#EXTM3U\ngrey.mp4\n", "ffconcat version 1.0\nfile grey.mp4\n")):
        path = tmp_path / f"text{number}.mp4"
        path.write_text(text)
        refused(path, "damaged, or not a film")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    refused(tmp_path / "sound.mp4", "no video stream")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.85])
def test_films_cut_short(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    write_film(tmp_path / "whole.mp4", noise, fps=10)
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: int(share * len(content))])
    refused(tmp_path / "cut.mp4", "cut short|damaged")


def test_films_cut_short_between_two_frames(tmp_path: Path, film: Path) -> None:
    with av.open(str(film)) as container:
        starts = sorted(packet.pos for packet in container.demux(video=0) if packet.size)
    (tmp_path / "cut.mp4").write_bytes(film.read_bytes()[: starts[25]])  # nothing is damaged, only missing
    refused(tmp_path / "cut.mp4", "cut short: it promises 40 frames and holds 25")


def test_films_cut_short_in_a_container_that_counts_no_frames(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    with av.open(str(tmp_path / "whole.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        for picture in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert len(read_film(tmp_path / "whole.mkv")) == 60
    content = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    refused(tmp_path / "cut.mkv", "cut short|damaged")


@pytest.mark.parametrize("container", ["mp4", "mkv"])  # one says how many frames it holds, the other does not
def test_a_small_file_that_decodes_to_gigabytes(tmp_path: Path, container: str) -> None:
    path = tmp_path / f"bomb.{container}"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width = stream.height = 4096
        black = av.VideoFrame(4096, 4096, "yuv420p")
        for plane in black.planes:
            plane.update(bytes(plane.buffer_size))
        for k in range(12):
            black.pts = k
            file.mux(stream.encode(black))
        file.mux(stream.encode())
    assert path.stat().st_size < 100_000
    refused(path, r"decodes to 0\.\d GiB or more")


def test_limits_can_be_set(film: Path) -> None:
    size = 40 * 48 * 64 * 3
    refused(film, "decodes to", max_bytes=size - 1)
    assert len(read_film(film, max_bytes=size)) == 33
    refused(film, "more than 32 frames at 10 a second", max_frames=32)
    with pytest.raises(ValueError, match="both must be above 0"):
        read_film(film, fps=0.0)


def test_frames_that_no_film_can_hold(tmp_path: Path) -> None:
    for frames, match in (
        (np.zeros((2, 31, 32, 3), np.uint8), "even height and width; 31 × 32"),
        (np.zeros((2, 32, 32, 3), np.float32), "float32"),
        (np.zeros((0, 32, 32, 3), np.uint8), "uint8 frames"),
    ):
        with pytest.raises(ValueError, match=match):
            write_film(tmp_path / "f.mp4", frames, 10)
    assert not list(tmp_path.iterdir())
