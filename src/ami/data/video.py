"""Film files in and out: a film becomes an episode of small square frames at an even rate."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8

from ami import files
from ami.data.episodes import Episode
from ami.types import Embodiment

FILM = Embodiment("film", step_seconds=0.1)
SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
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
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"  # threads over whole pictures can deadlock where several processes read films
            budget = min(max_bytes, max(_HARMLESS_BYTES, _EXPANSION * path.stat().st_size))
            seconds = (container.duration or 0) / av.time_base
            timed = _timed(path, stream, container.decode(stream), seconds, budget)
            video = _sample(timed, path, size, fps, max_frames)
    except FFmpegError as error:
        raise ValueError(f"film {path} cannot be decoded ({error.strerror}): it is damaged, or not a film") from error
    return Episode(np.arange(len(video)) / fps, video, source=path.name)


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


def _timed(
    path: Path, stream: VideoStream, frames: Iterator[VideoFrame], promised: float, budget: int
) -> Iterator[tuple[float, VideoFrame]]:
    """Every frame with its second since the first, in order; a film that is absurd, damaged or cut short is refused.

    Real films exist whose frames all claim the same moment, and whose duration is one frame: where a time stamp does
    not advance, the frame is taken to come one period after the last.
    """
    period = 1 / float(stream.guessed_rate or stream.average_rate or 25)
    _refuse_absurd(path, stream.width * stream.height * 3 * max(stream.frames, 1), budget)
    count, decoded, now, stamp = 0, 0, 0.0, None
    for frame in frames:
        if frame.is_corrupt:
            raise ValueError(f"film {path} is damaged at {now:.1f} s; copy it again, or cut it there")
        decoded += frame.width * frame.height * 3
        _refuse_absurd(path, decoded, budget)
        here = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
        if count:
            now += here - stamp if here is not None and stamp is not None and here > stamp else period
        stamp = here
        count += 1
        yield now, frame
    if not count:
        raise ValueError(f"film {path} holds no frame; copy it again")
    if count < 0.95 * stream.frames - 2:
        raise ValueError(f"film {path} is cut short: it promises {stream.frames} frames and holds {count}")
    if not stream.frames and now + period < 0.9 * promised - 1:  # this container counts no frames, only seconds
        raise ValueError(f"film {path} is cut short: it promises {promised:.1f} s and holds {now + period:.1f} s")


def _sample(
    timed: Iterator[tuple[float, VideoFrame]], path: Path, size: int, fps: float, max_frames: int
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
