"""V-JEPA 2's published weights in and out: the layout of Hugging Face's ``VJEPA2Model``, encoder and predictor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from ami import files
from ami.models.vjepa import VJEPA, VJEPAConfig
from ami.types import Embodiment

CONFIG, TENSORS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
BODY = "film"
# Theirs to ours. ``crop_size`` and ``frames_per_clip`` are the sizes at which it was trained.
_FIELDS = {
    "patch_size": "patch",
    "crop_size": "picture",
    "tubelet_size": "tubelet",
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "mlp_ratio": "widen",
    "layer_norm_eps": "eps",
    "pred_hidden_size": "predictor_width",
    "pred_num_hidden_layers": "predictor_depth",
    "pred_num_attention_heads": "predictor_heads",
    "pred_mlp_ratio": "predictor_widen",
    "pred_num_mask_tokens": "kinds",
}
# What we build is these; another value would be another architecture.
_FIXED: Mapping[str, Any] = {
    "model_type": "vjepa2",
    "architectures": ["VJEPA2Model"],
    "in_chans": 3,
    "qkv_bias": True,
    "hidden_act": "gelu",
}
# What says nothing about the weights of encoder and predictor: training, and the classifier's pooler.
_IGNORED = {
    *("drop_path_rate", "attention_probs_dropout_prob", "attention_dropout", "initializer_range", "num_pooler_layers"),
    *("pred_zero_init_mask_tokens", "torch_dtype", "dtype", "transformers_version", "_name_or_path"),
    *("hidden_dropout_prob", "name_or_path", "return_dict", "output_hidden_states", "output_attentions"),
    *("image_size", "use_SiLU", "wide_SiLU", "is_composition", "id2label", "label2id", "problem_type"),
}
_DEFAULTS: Mapping[str, Any] = {  # of the published configuration, for what a file leaves out
    "patch_size": 16,
    "crop_size": 256,
    "frames_per_clip": 64,
    "tubelet_size": 2,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "mlp_ratio": 4.0,
    "layer_norm_eps": 1e-6,
    "pred_hidden_size": 384,
    "pred_num_hidden_layers": 12,
    "pred_num_attention_heads": 12,
    "pred_mlp_ratio": 4.0,
    "pred_num_mask_tokens": 10,
}


def read(folder: Path, fps: float = 4.0) -> VJEPA:
    """The model in a local folder of that layout, its tensors in one file or in several.

    ``fps`` is the rate at which films shall be shown to it (V-JEPA 2 was trained at 4). Every tensor must be accounted
    for; ``ValueError`` names the first that is missing, left over or of another shape.
    """
    if not fps > 0:
        raise ValueError(f"{fps} frames a second cannot be shown; V-JEPA 2 was trained at 4")
    config = _config(_json(folder / CONFIG, folder), folder / CONFIG, fps)
    with torch.device("meta"):  # nothing is drawn that would be replaced
        model = VJEPA(config)
    theirs, ours = _tensors(folder), {}
    for part in _parts(config):
        for name in part.theirs:
            if name not in theirs:
                raise ValueError(f"{folder} lacks the tensor {name!r}; copy it again")
        ours[part.ours] = part.join([theirs.pop(name) for name in part.theirs])
    if theirs:
        raise ValueError(
            f"{folder} has a tensor {min(theirs)!r} (of {len(theirs)}) that no encoder or predictor of V-JEPA 2 has"
        )
    for name, tensor in model.state_dict().items():
        if ours[name].shape != tensor.shape:
            said = next(part.theirs[0] for part in _parts(config) if part.ours == name)
            raise ValueError(
                f"{folder}: the tensor {said!r} gives {tuple(ours[name].shape)}, but its {CONFIG} asks for "
                f"{tuple(tensor.shape)}"
            )
    with torch.random.fork_rng(devices=[]):
        model = VJEPA(config)
    model.load_state_dict(ours)
    return model.eval()


def write(model: VJEPA, folder: Path) -> None:
    """The same layout again, in a new folder. ``ValueError`` for a model that it cannot hold."""
    config = model.config
    more = config.causal or config.pictures or config.points or config.own
    if not (config.tiled and config.affine) or more or config.stem != "patches":
        raise ValueError(
            "only a model of V-JEPA 2's architecture can be written in its layout (tiled rotary positions, no causal "
            "mask, one product from patch to token); this one has another"
        )
    if folder.exists():
        raise ValueError(f"{folder} is there already; choose a new folder")
    document = {theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()}
    document |= {"frames_per_clip": config.slots * config.tubelet, **_FIXED}
    held, theirs = model.state_dict(), {}
    for part in _parts(config):
        for name, tensor in zip(part.theirs, part.split(held[part.ours]), strict=True):
            theirs[name] = tensor.contiguous().clone()
    with files.whole_folder(folder) as whole:
        files.write_whole(whole / TENSORS, lambda file: file.write(safetensors.torch.save(theirs, {"format": "pt"})))
        files.write_json(whole / CONFIG, document)


@dataclass(frozen=True)
class _Part:
    """One of our tensors and those of theirs that it is made of."""

    ours: str
    theirs: tuple[str, ...]
    heads: int = 0  # of queries and keys, whose dimensions are laid out anew
    shape: tuple[int, ...] | None = None  # theirs, where ours is flat

    def join(self, tensors: list[Tensor]) -> Tensor:
        """Theirs to ours."""
        if self.heads:
            query, key, value = tensors
            for name, tensor in zip(self.theirs, tensors, strict=True):
                if tensor.shape != query.shape:
                    raise ValueError(
                        f"the tensors {self.theirs[0]!r} and {name!r} are of shapes {tuple(query.shape)} and "
                        f"{tuple(tensor.shape)}, and should be of one"
                    )
            return torch.cat([self._laid(query, True), self._laid(key, True), value])
        (tensor,) = tensors
        return tensor if self.shape is None else tensor.flatten(1) if self.ours.endswith("weight") else tensor[:, 0, 0]

    def split(self, tensor: Tensor) -> list[Tensor]:
        """Ours to theirs."""
        if self.heads:
            query, key, value = tensor.chunk(3)
            return [self._laid(query, False), self._laid(key, False), value]
        return [tensor if self.shape is None else tensor.view(len(tensor), *self.shape)]

    def _laid(self, rows: Tensor, halves: bool) -> Tensor:
        """Neighbouring dimensions of each head make a plane with them, those of two halves with us."""
        if len(rows) % (2 * self.heads):
            raise ValueError(f"the tensor {self.theirs[0]!r} has {len(rows)} rows, not for {self.heads} heads")
        split = rows.unflatten(0, (self.heads, -1, 2) if halves else (self.heads, 2, -1))
        return split.transpose(1, 2).reshape(rows.shape)


def _parts(config: VJEPAConfig) -> Iterator[_Part]:
    cube = (3, config.tubelet, config.patch, config.patch)
    embedding = "encoder.embeddings.patch_embeddings.proj"
    yield _Part("encoder.stem.project.weight", (f"{embedding}.weight",), shape=cube)
    yield _Part("encoder.stem.project.bias", (f"{embedding}.bias",))
    yield from _blocks("encoder", config.depth, config.heads)
    yield _Part("predictor.hidden", ("predictor.embeddings.mask_tokens",), shape=(1, 1, config.predictor_width))
    yield from _blocks("predictor", config.predictor_depth, config.predictor_heads)
    for kind in ("weight", "bias"):
        yield _Part(f"encoder.norm.{kind}", (f"encoder.layernorm.{kind}",))
        yield _Part(f"predictor.norm.{kind}", (f"predictor.layernorm.{kind}",))
        yield _Part(f"predictor.enter.{kind}", (f"predictor.embeddings.predictor_embeddings.{kind}",))
        yield _Part(f"predictor.leave.{kind}", (f"predictor.proj.{kind}",))


def _blocks(place: str, depth: int, heads: int) -> Iterator[_Part]:
    same = {
        "before_attention": "norm1",
        "attended": "attention.proj",
        "before_network": "norm2",
        "widen": "mlp.fc1",
        "narrow": "mlp.fc2",
    }
    for number in range(depth):
        ours, theirs = f"{place}.blocks.{number}", f"{place}.layer.{number}"
        for kind in ("weight", "bias"):
            names = tuple(f"{theirs}.attention.{part}.{kind}" for part in ("query", "key", "value"))
            yield _Part(f"{ours}.query_key_value.{kind}", names, heads=heads)
            for one, other in same.items():
                yield _Part(f"{ours}.{one}.{kind}", (f"{theirs}.{other}.{kind}",))


def _config(document: Mapping[str, Any], path: Path, fps: float) -> VJEPAConfig:
    if "model_type" not in document:
        raise ValueError(f"{path} has no model_type; a V-JEPA 2 says 'vjepa2'")
    for name, value in document.items():
        if name in _FIXED and value != _FIXED[name]:
            raise ValueError(f"{path} says {name} = {value!r}; only {_FIXED[name]!r} can be read")
        if name not in {*_FIXED, *_IGNORED, *_DEFAULTS}:
            raise ValueError(f"{path} has a field {name!r} that V-JEPA 2's architecture does not have")
    held = {**_DEFAULTS, **document}
    for name in ("frames_per_clip", "tubelet_size"):
        if type(held[name]) is not int or held[name] < 1:
            raise ValueError(f"{path} says {name} = {held[name]!r}; a whole number above 0 was wanted")
    try:
        return VJEPAConfig(
            embodiments={BODY: Embodiment(BODY, step_seconds=held["tubelet_size"] / fps)},
            slots=held["frames_per_clip"] // held["tubelet_size"],
            stem="patches",
            causal=False,
            tiled=True,
            affine=True,
            **{ours: held[theirs] for theirs, ours in _FIELDS.items()},
        )
    except ValidationError as error:
        first = error.errors()[0]
    name = next((theirs for theirs, ours in _FIELDS.items() if ours == first["loc"][0]), "frames_per_clip")
    raise ValueError(f"{path} says {name} = {held[name]!r}, which no model can have: {first['msg'].lower()}")


def _json(path: Path, folder: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{folder} is no folder of a V-JEPA 2 model: it has no {path.name}")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); copy it again") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} is damaged: it should hold one JSON object")
    return document


def _tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors in fp32, from one file or from those that an index names."""
    shards = [TENSORS]
    if (folder / INDEX).is_file():
        named = _json(folder / INDEX, folder).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(n, str) and Path(n).name == n for n in named.values()):
            raise ValueError(f"{folder / INDEX} is damaged: its weight_map should name files of this folder")
        shards = sorted(set(named.values()))
    found: dict[str, Tensor] = {}
    for shard in shards:
        if not (folder / shard).is_file():
            raise ValueError(f"{folder} lacks the file {shard}; copy it again")
        try:
            found |= safetensors.torch.load_file(folder / shard)
        except SafetensorError as error:
            raise ValueError(f"{folder / shard} is damaged ({error}); copy it again") from None
    return {name: tensor.float() for name, tensor in found.items()}
