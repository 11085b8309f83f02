"""A training run's state in one file, so that it goes on bit for bit: optimiser, random generators, step, teacher.

The file is safetensors: its tensors are those of the state, and its header holds everything else as JSON. Nothing in
it can run code, which a pickle could.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ami import files

_KEY = "ami.snapshot.1"


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state whole: nested dicts, lists and tuples of tensors, numbers, text and ``None``.

    Keys may be text or whole numbers, as in an optimiser's ``state_dict()``. Raises ``ValueError`` for anything else,
    with its place in the state.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_encode(state, "state", tensors), allow_nan=False)
    files.write_whole(path, lambda file: file.write(safetensors.torch.save(tensors, {_KEY: tree})))


def load_state(path: Path) -> dict[str, Any]:
    """Read what :func:`save_state` wrote: the same types, the same bits, every tensor on the CPU."""
    if not path.is_file():
        raise ValueError(f"there is no snapshot at {path}; a run writes one each time it saves")
    try:
        with safe_open(path, framework="pt") as file:
            tree = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); resume from an older snapshot") from None
    if tree is None:
        raise ValueError(f"{path} holds tensors but is not a snapshot that this version of AMI can read")
    return _decode(json.loads(tree), tensors)


def _encode(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """Plain values as they are; all else as an object with one key, which says what it was."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A copy of its own: tensors that share memory (tied weights) are refused by the format.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        if wrong := [key for key in value if type(key) not in (str, int)]:
            raise ValueError(f"{place} has the key {wrong[0]!r}; a snapshot's keys are text or whole numbers")
        return {"dict": [[key, _encode(item, f"{place}[{key!r}]", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(item, f"{place}[{i}]", tensors) for i, item in enumerate(value)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(float(value))}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{place} is a {type(value).__name__}, which a snapshot cannot hold; save numbers or tensors")


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "float":
        return float(held)
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in held}
    items = [_decode(item, tensors) for item in held]
    return items if kind == "list" else tuple(items)
