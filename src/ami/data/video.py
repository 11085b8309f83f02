"""Film files in and out: a film becomes an episode of small square frames at an even rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Float64, UInt8

from ami import files
from ami.data.episodes import Episode
from ami.data.recording import opened
from ami.types import Embodiment, LeftOut

FILM = Embodiment("film", step_seconds=0.1)
SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
PICTURES = (".png", ".jpg", ".jpeg")
# Without these a text file could be taken for a playlist, and make the reader open other files or the network.
_SAFE = {"format_whitelist": "mov,mp4,avi,matroska,webm", "protocol_whitelist": "file"}
# Real films decode to 300 to 1,000 times their size, a screen recording to a few thousand; a few black kilobytes, made
# to harm, to a hundred thousand. Films that stay below the harmless size may do as they like.
_EXPANSION = 10_000
_HARMLESS_BYTES = 512 * 2**20


def read_film(
    path: Path, *, size: int = 64, fps: float = 10.0, max_frames: int = 36_000, max_bytes: int = 256 * 2**30
) -> Episode:
    """Read a film as ``size`` × ``size`` RGB frames, its middle square, ``fps`` times a second.

    Each moment shows the newest frame at or before it. ``max_frames`` bounds the frames kept; ``max_bytes`` bounds
    what the whole film may decode to (25 minutes of 1080p by default), and a film that would decode to more than
    10,000 times its size is refused as well. ``ValueError``, in one sentence, for a film that is missing, empty, cut
    short, damaged, absurdly large, or no film.
    """
    episode, lost = read_good_part(path, size=size, fps=fps, max_frames=max_frames, max_bytes=max_bytes)
    if lost is not None:
        raise ValueError(lost.why)
    return episode


def read_good_part(
    path: Path, *, size: int = 64, fps: float = 10.0, max_frames: int = 36_000, max_bytes: int = 256 * 2**30
) -> tuple[Episode, LeftOut | None]:
    """As :func:`read_film`, but a film that is cut short or damaged gives what comes before that, and what was lost."""
    path = Path(path)
    if size < 1 or not fps > 0:
        raise ValueError(f"a film cannot be read at {size} pixels and {fps} frames per second; both must be above 0")
    if not path.is_file():
        raise ValueError(f"there is no film {path}")
    if not path.stat().st_size:
        raise ValueError(f"film {path} is empty (0 bytes); copy it again")
    try:
        with av.open(f"file:{path}", options=_SAFE) as container:
            if not container.streams.video:
                raise ValueError(f"film {path} holds no pictures (no video stream)")
            budget = min(max_bytes, max(_HARMLESS_BYTES, _EXPANSION * path.stat().st_size))
            frames = _Frames(path, container, budget)
            video = _sample(frames, path, size, fps, max_frames)
    except FFmpegError as error:
        raise ValueError(f"film {path} cannot be decoded ({error.strerror}): it is damaged, or not a film") from error
    lost = LeftOut(str(path), f"film {path} {frames.damage}", frames.lost) if frames.damage else None
    return Episode(np.arange(len(video)) / fps, video, source=path.name), lost


def read_moments(
    path: Path, seconds: Float64[np.ndarray, "frames"], *, size: int = 64
) -> UInt8[np.ndarray, "frames size size 3"]:
    """The frames of a film nearest to some moments, in their order: seconds since its beginning, which must not fall.

    Decodes from the key frame before the first of them, so that a stretch late in a long film costs no more than an
    early one. ``ValueError`` where no frame lies within one and a half frames of a moment, or the film is damaged.
    """
    reformatter, kept = VideoReformatter(), []
    try:
        with av.open(f"file:{path}", options=_SAFE) as container:
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"
            _refuse_absurd(path, stream.width * stream.height * 3 * len(seconds), 256 * 2**30)
            begin, close = (container.start_time or 0) / av.time_base, 1.5 / _rate(stream)
            container.seek(round((seconds[0] + begin) * av.time_base))
            decoded = ((frame.time - begin, frame) for frame in container.decode(stream) if frame.time is not None)
            last: tuple[float, VideoFrame] | None = None
            for now, frame in decoded:
                while last is not None and len(kept) < len(seconds) and 2 * seconds[len(kept)] < last[0] + now:
                    kept.append((last[0], _square(reformatter, last[1], size)))
                last = now, frame
                if len(kept) == len(seconds):
                    break
            if last is not None and len(kept) < len(seconds):
                shown = _square(reformatter, last[1], size)
                kept += [(last[0], shown)] * (len(seconds) - len(kept))
    except (FFmpegError, IndexError) as error:  # an IndexError: it has no picture
        raise ValueError(f"film {path} cannot be decoded ({error}): it is damaged, or not a film") from error
    far = next((wanted for wanted, (shown, _) in zip(seconds, kept, strict=False) if abs(shown - wanted) > close), None)
    if far is not None or not kept:
        raise ValueError(f"film {path} shows nothing at {seconds[0] if far is None else far:.2f} s; copy it again")
    return np.stack([picture for _, picture in kept])


def read_pictures(folder: Path, rate: float, *, size: int = 64, fps: float = 10.0) -> Episode:
    """Read a folder of pictures, in the order of their names, as a film that was taken at ``rate`` frames a second.

    They are cut and resampled as :func:`read_film` does it. ``ValueError``, in one sentence, for a folder without
    pictures and for a picture that cannot be read.
    """
    if not (found := pictures_in(folder)):
        raise ValueError(f"folder {folder} holds no picture ({' '.join(PICTURES)})")
    timed = ((k / rate, VideoFrame.from_ndarray(read_picture(path), format="rgb24")) for k, path in enumerate(found))
    video = _sample(timed, folder, size, fps, max_frames=36_000)
    return Episode(np.arange(len(video)) / fps, video, source=folder.name)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES) if folder.is_dir() else []


def read_picture(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """One picture in RGB; what it says of transparency is left out."""
    with opened(path) as picture:
        return np.asarray(picture.convert("RGB"))


def frame_rate(path: Path) -> float:
    """Frames a second that a film file says it has."""
    try:
        with av.open(f"file:{path}", options=_SAFE) as container:
            return _rate(container.streams.video[0])
    except (FFmpegError, IndexError) as error:
        raise ValueError(f"film {path} cannot be decoded: it is damaged, or not a film") from error


def write_film(path: Path, frames: UInt8[np.ndarray, "frames height width 3"], fps: float) -> None:
    """Write RGB frames as an H.264 film in an mp4 file. Height and width must be even."""
    if frames.ndim != 4 or frames.dtype != np.uint8 or not len(frames) or frames.shape[3] != 3:
        raise ValueError(f"a film needs uint8 frames (frames, height, width, 3); {frames.dtype} {frames.shape} came")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"H.264 films have an even height and width; {height} × {width} came")

    def write(file: BinaryIO) -> None:
        with av.open(file, "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "18"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for picture in frames:
                container.mux(stream.encode(VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
            container.mux(stream.encode())

    files.write_whole(Path(path), write)


class _Frames:
    """A film's frames with their seconds since the first, in order, as far as they are good; an absurd one is refused.

    Real films exist whose frames all claim the same moment, and whose duration is one frame: where a time stamp does
    not advance, the frame is taken to come one period after the last.
    """

    def __init__(self, path: Path, container: InputContainer, budget: int) -> None:
        self.path, self.budget = path, budget
        self.stream = container.streams.video[0]
        self.stream.thread_type = "SLICE"  # threads over whole pictures can deadlock where several processes read films
        self.decoded = container.decode(self.stream)
        self.period = 1 / _rate(self.stream)
        self.duration = (container.duration or 0) / av.time_base
        self.damage = ""  # once all frames were seen: what is wrong with the film
        self.lost: float | None = None  # and how many seconds are missing, where it says how long it is

    def __iter__(self) -> Iterator[tuple[float, VideoFrame]]:
        stream = self.stream
        _refuse_absurd(self.path, stream.width * stream.height * 3 * max(stream.frames, 1), self.budget)
        count, size, now, stamp = 0, 0, 0.0, None
        try:
            for frame in self.decoded:
                if frame.is_corrupt:
                    self.damage = f"is damaged at {now:.1f} s; copy it again, or cut it there"
                    break
                size += frame.width * frame.height * 3
                _refuse_absurd(self.path, size, self.budget)
                here = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
                if count:
                    now += here - stamp if here is not None and stamp is not None and here > stamp else self.period
                stamp = here
                count += 1
                yield now, frame
        except FFmpegError as error:
            self.damage = f"cannot be decoded beyond {now:.1f} s ({error.strerror}): it is damaged; copy it again"
        if not count:
            raise ValueError(f"film {self.path} {self.damage or 'holds no frame; copy it again'}")
        self._judge(count, now + self.period)

    def _judge(self, count: int, seconds: float) -> None:
        """Are as many frames, or seconds, there as were promised?"""
        promised = max(self.stream.frames * self.period, self.duration)
        if not self.damage and count < 0.95 * self.stream.frames - 2:
            self.damage = f"is cut short: it promises {self.stream.frames} frames and holds {count}"
        if not self.damage and not self.stream.frames and seconds < 0.9 * self.duration - 1:  # it counts seconds only
            self.damage = f"is cut short: it promises {self.duration:.1f} s and holds {seconds:.1f} s"
        if self.damage and promised:
            self.lost = round(max(promised - seconds, 0.0), 3)


def _rate(stream: VideoStream) -> float:
    return float(stream.guessed_rate or stream.average_rate or 25)


def _sample(
    timed: Iterable[tuple[float, VideoFrame]], path: Path, size: int, fps: float, max_frames: int
) -> UInt8[np.ndarray, "frames size size 3"]:
    """The newest frame at or before each tick of ``fps``; frames that no tick shows are never converted."""
    reformatter = VideoReformatter()
    kept: list[np.ndarray] = []
    close = 1e-4  # seconds: time stamps are rounded to the film's clock

    def show(frame: VideoFrame, until: float) -> None:
        """Keep ``frame`` for every tick that comes before ``until``."""
        picture: np.ndarray | None = None
        while len(kept) / fps < until:
            if len(kept) >= max_frames:
                raise ValueError(
                    f"film {path} gives more than {max_frames} frames at {fps:g} a second; cut it, or lower the rate"
                )
            picture = _square(reformatter, frame, size) if picture is None else picture
            kept.append(picture)

    shown: VideoFrame | None = None
    now = 0.0
    for now, frame in timed:
        if shown is not None:
            show(shown, now - close)
        shown = frame
    assert shown is not None
    show(shown, now + close)
    return np.stack(kept)


def _square(reformatter: VideoReformatter, frame: VideoFrame, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The middle square of a frame, upright, averaged down to ``size`` pixels."""
    scale = size / min(frame.width, frame.height)
    width, height = (max(size, round(side * scale)) for side in (frame.width, frame.height))
    # One thread: swscale would otherwise start as many as there are cores for each small picture.
    small = reformatter.reformat(frame, width, height, "rgb24", interpolation=Interpolation.AREA, threads=1)
    left, top = (width - size) // 2, (height - size) // 2
    picture = small.to_ndarray()[top : top + size, left : left + size]
    return np.rot90(picture, round(frame.rotation / 90))  # telephones store upright films lying down


def _refuse_absurd(path: Path, size: int, budget: int) -> None:
    if size > budget:
        raise ValueError(
            f"film {path} decodes to {size / 2**30:.1f} GiB or more and at most {budget / 2**30:.1f} are allowed for "
            f"a file of its size; cut it, or scale it down, first"
        )
