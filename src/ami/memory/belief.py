"""A belief on disk, for a process that is ended and begins again: one file, for the checkpoint whose belief it is."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ami import files
from ami.types import Belief, Latent

_KEY = "ami.belief.1"


def save_belief(path: Path, belief: Belief, checkpoint: str) -> None:
    """Write a belief of the checkpoint with that digest, whole; what lay there before is replaced.

    Its tensors are a safetensors file's, bit for bit, and its header says whose they are.
    """
    parts = {
        "values": belief.latents.values,
        "times": belief.latents.times,
        "actions": belief.actions,
        "recurrent": belief.recurrent,
        "earlier": belief.earlier,
        "recalled": None if belief.recalled is None else belief.recalled.values,
        "recalled_times": None if belief.recalled is None else belief.recalled.times,
    }
    # Copies, for the format refuses tensors that share memory, and rows of a larger belief do.
    held = {name: part.detach().cpu().contiguous().clone() for name, part in parts.items() if part is not None}
    said = {_KEY: json.dumps({"checkpoint": checkpoint, "embodiment": belief.embodiment})}
    written = safetensors.torch.save(held, metadata=said)
    files.write_whole(path, lambda file: file.write(written))


def load_belief(path: Path, checkpoint: str) -> Belief:
    """The belief in a file, on the CPU. ``ValueError`` unless it is one of the checkpoint with that digest."""
    if not path.is_file():
        raise ValueError(f"there is no belief at {path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get(_KEY)
            held: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or is no belief ({error}); begin a new belief") from None
    if said is None:
        raise ValueError(f"{path} holds tensors, but is not a belief that this version of AMI can read")
    about = json.loads(said)
    if about["checkpoint"] != checkpoint:
        raise ValueError(
            f"{path} is a belief of checkpoint {about['checkpoint'][:12]}, and means nothing to {checkpoint[:12]}; "
            "load it with the checkpoint that it came from, or begin a new belief"
        )
    recalled = Latent(held["recalled"], held["recalled_times"]) if "recalled" in held else None
    latents = Latent(held["values"], held["times"])
    carried = {name: held.get(name) for name in ("actions", "recurrent", "earlier")}
    return Belief(about["embodiment"], latents, recalled=recalled, **carried)
