"""The folder that a trained model is kept in: it can act alone, is whole or not there, and no file in it can run code.

config.json         {"schema": 1, "model": KIND, "config": {...}}, closed: an unknown key is an error
model.safetensors   every tensor of the model
provenance.json     where it came from
"""

from __future__ import annotations

import difflib
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from pydantic import BaseModel, TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from ami import files
from ami.models.jepa import JEPA, JEPAConfig
from ami.models.mind import Mind, MindConfig
from ami.models.objects import ObjectModel, ObjectsConfig
from ami.models.places import PlacesConfig, PlacesJEPA
from ami.models.recurrent import RecurrentConfig, RecurrentJEPA
from ami.models.slots import SlotConfig, SlotJEPA
from ami.models.spatial import SpatialConfig, SpatialJEPA
from ami.models.vjepa import VJEPA, VJEPAConfig
from ami.types import LeftOut, WorldModel

SCHEMA = 1
CONFIG, TENSORS, PROVENANCE = "config.json", "model.safetensors", "provenance.json"

Kinds = Mapping[str, tuple[type[BaseModel], Callable[..., WorldModel]]]
# What a checkpoint may hold: its name in config.json, its settings (frozen, extra="forbid") and the model built from
# them, which keeps them as ``model.config``.
MODELS: Kinds = {
    "jepa": (JEPAConfig, JEPA),
    "vjepa": (VJEPAConfig, VJEPA),
    "recurrent": (RecurrentConfig, RecurrentJEPA),
    "slots": (SlotConfig, SlotJEPA),
    "places": (PlacesConfig, PlacesJEPA),
    "mind": (MindConfig, Mind),
    "objects": (ObjectsConfig, ObjectModel),
    "spatial": (SpatialConfig, SpatialJEPA),
}


@dataclass(frozen=True)
class CodeVersion:
    """Which code ran: ``commit`` and ``dirty`` are ``None`` where it does not lie in a git checkout."""

    version: str
    commit: str | None = None
    dirty: bool | None = None


@dataclass(frozen=True)
class Provenance:
    """Where a checkpoint came from."""

    recipe: str  # its name
    code: CodeVersion
    settings: Mapping[str, Any] = field(default_factory=dict)  # the recipe, resolved
    data: Mapping[str, str] = field(default_factory=dict)  # each store's name and digest
    seeds: tuple[int, ...] = ()
    steps: int = 0  # of the optimiser
    cpu_seconds: float = 0.0  # spent on training, all processes together
    seconds: float = 0.0  # that it took by the clock
    device: str = "cpu"  # that computed it, or the name of the GPU
    left_out: tuple[LeftOut, ...] = ()  # recordings that the data lacks, each with the reason
    warnings: tuple[str, ...] = ()  # what its gauges said while it trained
    torch: str = str(torch.__version__)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def code_version() -> CodeVersion:
    """The installed version and, in a git checkout, the commit and whether the package differs from it."""
    try:
        version = metadata.version("openami")
    except metadata.PackageNotFoundError:
        version = "unknown"
    package = Path(__file__).parents[1]
    # Tracked, and not merely inside some checkout: an environment may lie in a user's own repository.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return CodeVersion(version)
    commit, changes = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
    return CodeVersion(version, commit, None if changes is None else bool(changes))


def save(folder: Path, model: WorldModel, provenance: Provenance, kinds: Kinds = MODELS) -> None:
    """Write a checkpoint to a folder that is empty or not there yet: whole, or not at all."""
    if not folder.is_dir() and os.path.lexists(folder):
        raise ValueError(f"{folder} is not a folder, so no checkpoint can be written there; choose another name")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} already holds something; choose a new folder for the checkpoint")
    config = _config_document(model, kinds)
    with files.whole_folder(folder) as part:
        files.write_whole(part / TENSORS, lambda file: file.write(safetensors.torch.save(_tensors(model))))
        files.write_json(part / PROVENANCE, asdict(provenance))
        files.write_json(part / CONFIG, config)


def load(folder: Path, kinds: Kinds = MODELS) -> WorldModel:
    """Build the model that a checkpoint holds, ready to act: on the CPU, in evaluation mode.

    A setting that the file lacks takes its default, so that older checkpoints stay readable: the default of a new
    setting must mean what was done before there was one. Raises ``ValueError`` with what is wrong and where.
    """
    document, tensors = _read_config(folder), _read_tensors(folder)
    kind = document["model"]
    if kind not in kinds:
        raise ValueError(f"{folder} holds a model of kind {kind!r}, which is unknown here{_near(kind, kinds)}")
    config_class, model_class = kinds[kind]
    config = _validate(config_class, document["config"], folder / CONFIG)
    with torch.random.fork_rng(devices=[]):  # its first weights are replaced: the caller's random numbers are not spent
        model = model_class(config)
    _same_tensors(model.state_dict(), tensors, folder)
    model.load_state_dict(tensors)
    return model.eval()


def read_provenance(folder: Path) -> Provenance:
    """Where a checkpoint came from."""
    _read_config(folder)
    return _validate(Provenance, _read_json(folder / PROVENANCE), folder / PROVENANCE)


def digest(model: Path | WorldModel, kinds: Kinds = MODELS) -> str:
    """The name of what a checkpoint folder, or a model in memory, holds: sha256 over its settings and its tensors.

    It is taken over each tensor's name, dtype, shape and bytes, in the order of the names, and never over file bytes:
    the same weights may be laid out in a file in several ways.
    """
    if isinstance(model, Path):
        document, tensors = _read_config(model), _read_tensors(model)
    else:
        document, tensors = _config_document(model, kinds), _tensors(model)

    def parts() -> Iterator[bytes | memoryview]:
        yield files.canonical(document)
        for name, tensor in sorted(tensors.items()):
            yield files.canonical([name, str(tensor.dtype), list(tensor.shape)])
            yield tensor.flatten().view(torch.uint8).numpy().data

    return files.digest(parts())


def _tensors(model: WorldModel) -> dict[str, Tensor]:
    """Every tensor of a model, in memory of its own: the format refuses tensors that share it (tied weights)."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}


def _config_document(model: WorldModel, kinds: Kinds) -> dict[str, Any]:
    kind = next((kind for kind, (_, known) in kinds.items() if type(model) is known), None)
    if kind is None:
        raise ValueError(f"a {type(model).__name__} has no kind of checkpoint; the kinds are {', '.join(kinds)}")
    config = cast(BaseModel, model.config)  # a model in ``kinds`` has one
    return {"schema": SCHEMA, "model": kind, "config": config.model_dump(mode="json")}


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the folder of a checkpoint")
    if missing := [name for name in (CONFIG, TENSORS, PROVENANCE) if not (folder / name).is_file()]:
        raise ValueError(f"{folder} is not a checkpoint: it has no {missing[0]}")
    path = folder / CONFIG
    document = _read_json(path)
    if isinstance(schema := document.get("schema"), int) and schema > SCHEMA:
        raise ValueError(f"{path} is of schema {schema} and this version reads up to {SCHEMA}; install a newer AMI")
    wanted = {"schema": int, "model": str, "config": dict}
    if unknown := sorted(document.keys() - wanted.keys()):
        raise ValueError(f"{path} has an unknown key {unknown[0]!r}{_near(unknown[0], wanted)}")
    for key, kind in wanted.items():
        if not isinstance(document.get(key), kind):
            raise ValueError(f"{path} is damaged: {key!r} should be there and be of type {kind.__name__}")
    return document


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # broken JSON or broken text
        raise ValueError(f"{path} is damaged ({error}); copy the checkpoint again") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} is damaged: it should hold one JSON object")
    return document


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(folder / TENSORS)
    except SafetensorError as error:
        raise ValueError(f"{folder / TENSORS} is damaged ({error}); copy the checkpoint again") from None


def _validate(kind: type, document: dict[str, Any], path: Path) -> Any:
    """A document as a settings class; the first thing wrong with it in one sentence."""
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):  # in settings; in a dataclass inside them
        raise ValueError(f"{path} has an unknown key {where!r}{_near(where, _names(adapter))}")
    raise ValueError(f"{path} is wrong at {where!r}: {first['msg']}")


def _names(adapter: TypeAdapter) -> list[str]:
    """Every key that settings, and the settings inside them, may have."""
    schema = adapter.json_schema()
    return [name for part in (schema, *schema.get("$defs", {}).values()) for name in part.get("properties", {})]


def _same_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], folder: Path) -> None:
    if missing := sorted(wanted.keys() - found.keys()):
        raise ValueError(f"{folder} lacks the tensor {missing[0]!r}{_more(missing)}; it cannot be this model")
    if extra := sorted(found.keys() - wanted.keys()):
        raise ValueError(f"{folder} has a tensor {extra[0]!r}{_more(extra)} that this model has no place for")
    for name, tensor in wanted.items():
        if _kind(tensor) != _kind(found[name]):
            raise ValueError(
                f"{folder}: the tensor {name!r} is {_kind(found[name])}, but its settings ask for {_kind(tensor)}"
            )


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _near(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """What else might have been meant, as the end of a sentence."""
    matches = difflib.get_close_matches(name.rpartition(".")[2], list(known), n=3)
    return f"; did you mean {' or '.join(map(repr, matches))}?" if matches else f"; known are {', '.join(known)}"


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers, or ``None`` where there is no git, no checkout, or it refuses."""
    try:
        answer = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
