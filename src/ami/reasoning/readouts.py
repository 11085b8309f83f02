"""Read-outs on disk: they lie in a checkpoint's folder and are no part of the checkpoint.

readouts.safetensors   the weight of each read-out under its name, and in the header what each one is (``Shelf``, JSON)

One file, so that weights and what is said of them are always of the same writing. The checkpoint's digest does not know
of it, and nothing that plans or scores looks into it unless asked to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from ami import files
from ami.reasoning.readout import Readout

FILE = "readouts.safetensors"
_HEADER = "ami-readouts"
Features = Literal["latent", "recurrent"]


class Fitted(BaseModel):
    """What a read-out reads, how well, and where it learned it. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    embodiment: str
    quantities: tuple[str, ...] = Field(min_length=1)
    unit: str
    features: Features = Field(description="a latent, all its tokens together, or the recurrent state of a belief")
    error: tuple[float, ...] = Field(description="mean absolute, of each quantity, in episodes it did not learn from")
    imagined: tuple[float, ...] | None = Field(None, description="and in imagined steps of theirs, if it reads such")
    r2: tuple[float, ...] = Field(description="share of each quantity's variance there that it accounts for")
    learned: int = Field(ge=1, description="steps that it was fitted on")
    measured: int = Field(ge=1, description="steps that the error is of")
    data: str = Field(description="digest of the store")

    @model_validator(mode="after")
    def _each(self) -> Self:
        if any(len(each) != len(self.quantities) for each in (self.error, self.r2, self.imagined or self.error)):
            raise ValueError(f"{len(self.quantities)} quantities need as many errors and r2, each its own")
        return self


class Shelf(BaseModel):
    """The read-outs of one checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = Field(default=1, alias="schema")
    checkpoint: str = Field(description="digest of the checkpoint whose features they read")
    readouts: dict[str, Fitted] = {}


@dataclass(frozen=True)
class Kept:
    """A read-out and what is known of it."""

    readout: Readout
    fitted: Fitted


def save(folder: Path, checkpoint: str, kept: Mapping[str, Kept]) -> None:
    """Write the read-outs of the checkpoint in ``folder``, whose digest is ``checkpoint``: these and no others."""
    shelf = Shelf(checkpoint=checkpoint, readouts={name: each.fitted for name, each in kept.items()})
    weights = {name: each.readout.weight.detach().clone().contiguous() for name, each in kept.items()}
    header = {_HEADER: shelf.model_dump_json(by_alias=True)}
    files.write_whole(folder / FILE, lambda file: file.write(safetensors.torch.save(weights, header)))


def load(folder: Path, checkpoint: str) -> dict[str, Kept]:
    """The read-outs in a checkpoint's folder by name; none where it has no file of them.

    ``ValueError`` where the file is damaged, or where its read-outs were fitted on another checkpoint's features.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        with safe_open(path, "pt") as held:
            shelf = Shelf.model_validate_json((held.metadata() or {}).get(_HEADER, ""))
            weights = {name: held.get_tensor(name) for name in shelf.readouts}
    except (SafetensorError, ValidationError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and fit its read-outs again") from error
    if shelf.checkpoint != checkpoint:
        raise ValueError(
            f"{path} belongs to the checkpoint {shelf.checkpoint[:12]} and this one is {checkpoint[:12]}; "
            "delete it and fit its read-outs again"
        )
    for name, fitted in shelf.readouts.items():
        if weights[name].ndim != 2 or weights[name].shape[1] != len(fitted.quantities):
            raise ValueError(f"{path} is damaged: {name!r} does not read {len(fitted.quantities)} quantities")
    return {name: Kept(Readout(weights[name]), fitted) for name, fitted in shelf.readouts.items()}
