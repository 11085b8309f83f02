"""Point clouds as episodes: PLY and PCD files, and folders of them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from ami import geometry
from ami.data.episode import Episode
from ami.data.recording import Recording, Wanted
from ami.types import Embodiment

CLOUDS = Embodiment("clouds", step_seconds=0.1)
SUFFIXES = (".ply", ".pcd")
_AXES = ("x", "y", "z")
_PLY_KINDS = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}
_PLY_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_NOWHERE = (0, 0, 0, 1, 0, 0, 0)  # the viewpoint that PCD files have where nobody knows
_HEADER = 64 * 2**10  # bytes within which a header must end


_Columns = Mapping[str, np.ndarray] | np.ndarray  # a structured array is asked for its columns like a mapping


@dataclass(frozen=True)
class Cloud:
    """Points in the axes of what measured them, and where that was."""

    points: Float[np.ndarray, "points 3"]  # metres, if the file's author kept to them
    pose: Float[np.ndarray, "4 4"] | None = None  # to the world; ``None`` where the file does not say


def is_clouds(path: Path) -> bool:
    """Is this a cloud, or a folder of clouds?"""
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    return path.is_dir() and bool(_inside(path))


def open_clouds(path: Path, wanted: Wanted) -> Recording:
    """A cloud is an episode of one frame; those of a folder are one episode, in the order of their names.

    There are 10 frames a second, or ``wanted.fps``: clouds have no clock. Each frame has ``wanted.points`` points: of
    more, that many drawn without looking, the same ones whenever they are read; where there are fewer, (0, 0, 0) stands
    for none, as it does for a pixel without depth. Points are taken to be metres in the axes of the sensor. Where a PCD
    file says where the sensor was, that is the frame's pose.
    """
    found = _inside(path) if path.is_dir() else [path]
    body = replace(CLOUDS, step_seconds=1 / wanted.fps) if wanted.fps else CLOUDS
    return Recording(path, body, (path.name,), lambda _: (_episode(path, found, body, wanted.points), None))


def _inside(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())


def _episode(path: Path, found: list[Path], body: Embodiment, count: int) -> Episode:
    clouds = [read_cloud(file) for file in found]
    poses = [cloud.pose for cloud in clouds if cloud.pose is not None]
    if poses and len(poses) < len(clouds):
        raise ValueError(f"{path}: {len(poses)} of {len(clouds)} clouds say where the sensor was; all must, or none")
    return Episode(
        times=np.arange(len(clouds)) * body.step_seconds,
        points=np.stack([drawn(cloud.points, count, frame) for frame, cloud in enumerate(clouds)]),
        pose=np.stack(poses) if poses else None,
        source=path.name,
    )


def drawn(points: Float[np.ndarray, "all 3"], count: int, key: int) -> Float[np.ndarray, "count 3"]:
    """As many points as are wanted: a draw of them that depends on ``key`` alone, or all and (0, 0, 0) for the rest."""
    known = points[(points != 0).any(1)]
    if len(known) > count:
        known = known[np.sort(np.random.default_rng((0x50, key)).choice(len(known), count, replace=False))]
    return np.concatenate([known, np.zeros((count - len(known), 3))])


def read_cloud(path: Path) -> Cloud:
    """Read a PLY or PCD file (text, binary or compressed). ``ValueError`` says in one sentence what is wrong with it.

    NaN is refused, but for a PCD file that is a picture of points (a height above 1), where it stands for a pixel that
    saw nothing.
    """
    path = Path(path)
    content = path.read_bytes()
    read: Callable[[bytes], Cloud] = _pcd if path.suffix.lower() == ".pcd" else _ply
    try:
        cloud = read(content)
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        said = f"{error} is missing in its header" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a point cloud that can be read: {said}") from error
    if not len(cloud.points):
        raise ValueError(f"{path} holds no point")
    if not np.isfinite(cloud.points).all():
        raise ValueError(f"{path} holds points that are NaN or infinite; leave them out")
    return cloud


def _ply(content: bytes) -> Cloud:
    """Source: Turk 1994, "The PLY polygon file format"."""
    header, body = _parted(content, b"end_header")
    lines = [line.split() for line in header.splitlines()]
    if lines[0] != ["ply"]:
        raise ValueError("it does not begin with 'ply'")
    order = _PLY_ORDERS[next((line[1] for line in lines if line[:1] == ["format"]), "format")]
    elements: dict[str, tuple[int, list[tuple[str, str]]]] = {}
    for line in lines:
        if line[:1] == ["element"]:
            elements[line[1]] = (int(line[2]), [])
        elif line[:1] == ["property"] and "list" in line and "vertex" not in elements:
            break  # nobody can say where the vertices begin
        elif line[:1] == ["property"] and "list" not in line:
            elements[list(elements)[-1]][1].append((line[-1], order + _PLY_KINDS[line[1]]))
    for name, (count, fields) in elements.items():
        if name == "vertex":
            return Cloud(_axes(_rows(body, count, np.dtype(fields), order == "=")))
        size = count * np.dtype(fields).itemsize
        body = body.split(b"\n", count)[-1] if order == "=" else body[size:]
    raise ValueError("it has no vertices, or a list before them")


def _pcd(content: bytes) -> Cloud:
    """Source: the PCD format of the Point Cloud Library, version 0.7."""
    header, body = _parted(content, b"\nDATA")
    how, body = body.split(b"\n", 1)
    how = how.strip()
    held = {words[0]: words[1:] for line in header.splitlines() if (words := line.split())}
    count = int(held["POINTS"][0]) if "POINTS" in held else int(held["WIDTH"][0]) * int(held["HEIGHT"][0])
    repeats = map(int, held.get("COUNT", ["1"] * len(held["FIELDS"])))
    kinds = [f"<{kind.lower()}{size}" for kind, size in zip(held["TYPE"], held["SIZE"], strict=True)]
    names = [f"{name}/{k}" if name not in _AXES else name for k, name in enumerate(held["FIELDS"])]  # "_" comes twice
    fields = np.dtype([(name, kind, (n,)) for name, kind, n in zip(names, kinds, repeats, strict=True)])
    if how == b"binary_compressed":
        body = _by_rows(body, count, fields)
    elif how not in (b"ascii", b"binary"):
        raise ValueError(f"its data are {how.decode()!r}; known are ascii, binary and binary_compressed")
    points = _axes(_rows(body, count, fields, how == b"ascii"))
    if int(held["HEIGHT"][0]) > 1:
        points = points[np.isfinite(points).all(1)]
    x, y, z, *turn = (float(word) for word in held.get("VIEWPOINT", _NOWHERE))
    if (x, y, z, *turn) == tuple(map(float, _NOWHERE)):
        return Cloud(points)
    rotation = geometry.from_quaternion(torch.tensor([*turn[1:], turn[0]], dtype=torch.float64))
    return Cloud(points, geometry.assemble(rotation, torch.tensor([x, y, z], dtype=torch.float64)).numpy())


def _parted(content: bytes, mark: bytes) -> tuple[str, bytes]:
    """The header up to the line that ``mark`` begins, and what comes after the mark (of PLY: after its line)."""
    head, found, body = content[:_HEADER].partition(mark)
    if not found:
        raise ValueError("its header has no end")
    body += content[_HEADER:]
    return head.decode("ascii"), body if mark.startswith(b"\n") else body.split(b"\n", 1)[1]


def _rows(body: bytes, count: int, fields: np.dtype, text: bool) -> _Columns:
    """So many rows of numbers, by the names of their columns."""
    if count < 0 or (len(body) < count * fields.itemsize and not text):
        raise ValueError(f"it is cut short: it promises {count} points")
    if not text:
        return np.frombuffer(body, fields, count)
    lines = body.splitlines()[:count]
    if len(lines) < count:
        raise ValueError(f"it is cut short: it promises {count} points and holds {len(lines)}")
    wide = np.array([line.split() for line in lines], np.float64).reshape(count, -1)
    column, named = 0, {}
    for name in fields.names or ():
        named[name] = wide[:, column]
        column += int(np.prod(fields[name].shape))
    return named


def _axes(rows: _Columns) -> Float[np.ndarray, "points 3"]:
    return np.stack([rows[axis].reshape(-1).astype(np.float64) for axis in _AXES], 1)


def _by_rows(body: bytes, count: int, fields: np.dtype) -> bytes:
    """PCD's compressed data: field after field, packed together; row after row as the others have it."""
    packed, size = struct.unpack_from("<II", body)
    if size != count * fields.itemsize:
        raise ValueError(f"its compressed part says {size} bytes and {count * fields.itemsize} are wanted")
    flat, rows, start = _unpacked(body[8 : 8 + packed], size), np.zeros(count, fields), 0
    for name in fields.names or ():
        stop = start + count * fields[name].itemsize
        rows[name] = np.frombuffer(flat[start:stop], fields[name].base).reshape(rows[name].shape)
        start = stop
    return rows.tobytes()


def _unpacked(packed: bytes, size: int) -> bytes:
    """Undo LZF (Lehmann's liblzf): literal runs, and copies of what was written shortly before."""
    out, at = bytearray(), 0
    while at < len(packed) and len(out) <= size:
        control, at = packed[at], at + 1
        if control < 32:
            out += packed[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5
        if length == 7:
            length, at = length + packed[at], at + 1
        back, at = ((control & 31) << 8) + packed[at] + 1, at + 1
        if back > len(out):
            raise ValueError("its compressed part is damaged")
        begin = len(out) - back
        piece = bytes(out[begin : begin + length + 2])
        out += (piece * ((length + 2) // len(piece) + 1))[: length + 2]
    if len(out) != size:
        raise ValueError("its compressed part is damaged")
    return bytes(out)
