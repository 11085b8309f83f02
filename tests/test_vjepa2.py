"""V-JEPA 2's weights mean here what they mean in transformers, come and go unchanged, and are refused when damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers import VJEPA2Config, VJEPA2Model

from ami.models import checkpoint, vjepa2
from ami.models.vjepa import VJEPA, sized
from ami.types import Clip

ROWS = 2
TINY = {
    **{"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "crop_size": 32, "frames_per_clip": 4},
    **{"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2},
}


def theirs(seed: int = 0, **settings) -> VJEPA2Model:
    """A model of transformers with random weights, large enough that every part tells in its answers."""
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(seed)
        model = VJEPA2Model(VJEPA2Config(**{**TINY, **settings})).eval()
        for tensor in model.parameters():
            tensor.data += 0.1 * torch.randn_like(tensor)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one as transformers writes it. Nobody changes it."""
    folder = tmp_path_factory.mktemp("theirs") / "model"
    theirs().save_pretrained(folder)
    return folder


def drawn(seed: int) -> dict[str, int | float]:
    """The settings of a small model, at random."""
    draw = torch.Generator().manual_seed(seed)

    def one(*choices):
        return choices[int(torch.randint(len(choices), (1,), generator=draw))]

    heads, patch, tubelet = one(1, 2, 3), one(8, 16), one(1, 2, 2)
    return {
        "hidden_size": heads * one(16, 20, 24, 32),
        "num_attention_heads": heads,
        "num_hidden_layers": one(1, 2, 3),
        "mlp_ratio": one(2.0, 4.0, 48 / 11),
        "patch_size": patch,
        "crop_size": patch * one(2, 3, 4),
        "tubelet_size": tubelet,
        "frames_per_clip": tubelet * one(1, 2, 4),
        "pred_hidden_size": 2 * one(12, 18, 30),
        "pred_num_attention_heads": 2,
        "pred_num_hidden_layers": one(1, 2),
        "pred_mlp_ratio": one(2.0, 4.0),
        "pred_num_mask_tokens": one(2, 3, 10),
    }


@pytest.mark.parametrize("seed", range(8))
@torch.no_grad()
def test_features_and_predictions_are_those_of_transformers(seed: int, tmp_path: Path) -> None:
    other = theirs(seed, **drawn(seed))
    other.save_pretrained(tmp_path)
    model, config = vjepa2.read(tmp_path), other.config
    draw = torch.Generator().manual_seed(seed)
    slots, side = config.frames_per_clip // config.tubelet_size, config.crop_size
    shape = (ROWS, slots, config.tubelet_size, 3, side, side)
    video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (model.config.mean, model.config.std))
    pixels = (video.flatten(1, 2) / 255 - mean) / std

    features = model.encode(Clip("film", torch.arange(slots).expand(ROWS, -1) / 2, video)).values.flatten(1, 2)
    tokens = features.shape[1]
    everything = torch.arange(tokens).expand(ROWS, -1)
    answer = other(pixel_values_videos=pixels)
    torch.testing.assert_close(features, answer.last_hidden_state, atol=1e-4, rtol=0)
    predicted = model.predictor(features, everything, everything, slots=slots, kind=1)
    torch.testing.assert_close(predicted, answer.predictor_output.last_hidden_state, atol=1e-4, rtol=0)

    order = torch.stack([torch.randperm(tokens, generator=draw) for _ in range(ROWS)])
    seen, asked = order[:, : tokens // 2].sort(1).values, order[:, tokens // 2 : tokens // 2 + max(tokens // 3, 1)]
    answer = other(pixel_values_videos=pixels, context_mask=[seen], target_mask=[asked])
    context = features.gather(1, seen[..., None].expand(-1, -1, features.shape[-1]))
    predicted = model.predictor(context, seen, asked, slots=slots, kind=1)
    torch.testing.assert_close(predicted, answer.predictor_output.last_hidden_state, atol=1e-4, rtol=0)
    assert (model.predictor(context, seen, asked, slots=slots) - predicted).abs().max() > 1e-2


def test_the_widest_block_is_as_wide_as_theirs() -> None:
    # 1408 × 48/11 is 6,144 only where it is not rounded down to 6,143.
    document = {"mlp_ratio": 4.363636363636363, "hidden_size": 1408, "num_attention_heads": 22, "num_hidden_layers": 1}
    with torch.device("meta"):
        other = VJEPA2Model(VJEPA2Config(**document))
        model = VJEPA(sized("giant", {}).model_copy(update={"depth": 1, "tiled": True, "affine": True, "kinds": 10}))
    assert model.encoder.blocks[0].widen.out_features == other.encoder.layer[0].mlp.fc1.out_features
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in other.parameters())


def test_tensors_in_several_files_are_those_in_one(folder: Path, tmp_path: Path) -> None:
    theirs().save_pretrained(tmp_path, max_shard_size="60KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert checkpoint.digest(vjepa2.read(tmp_path)) == checkpoint.digest(vjepa2.read(folder))
    shards[1].unlink()
    with pytest.raises(ValueError, match=f"lacks the file {shards[1].name}; copy it again"):
        vjepa2.read(tmp_path)
    index = tmp_path / vjepa2.INDEX
    for damaged in ({}, {"weight_map": ["a"]}, {"weight_map": {"a": "../b.safetensors"}}, {"weight_map": {"a": 1}}):
        index.write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match="its weight_map should name files of this folder"):
            vjepa2.read(tmp_path)


def test_there_and_back_nothing_is_changed(folder: Path, tmp_path: Path) -> None:
    vjepa2.write(vjepa2.read(folder, fps=8), tmp_path / "back")
    before, after = (safetensors.torch.load_file(place / vjepa2.TENSORS) for place in (folder, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = VJEPA2Model.from_pretrained(tmp_path / "back").eval()
    kept = {name: value for name, value in again.config.to_dict().items() if name in TINY}
    assert kept == TINY
    pixels = torch.randn(1, 4, 3, 32, 32)
    with torch.no_grad():
        one, other = (model(pixel_values_videos=pixels).last_hidden_state for model in (again, theirs()))
    assert torch.equal(one, other)


def test_half_precision_weights_are_widened(folder: Path, tmp_path: Path) -> None:
    theirs().to(torch.bfloat16).save_pretrained(tmp_path)
    assert {tensor.dtype for tensor in vjepa2.read(tmp_path).state_dict().values()} == {torch.float32}
    assert vjepa2.read(folder, fps=8).embodiments["film"].step_seconds == 0.25


def test_what_published_files_also_say_changes_nothing(folder: Path, tmp_path: Path) -> None:
    other = copied(folder, tmp_path / "model")
    said(image_size=256, use_SiLU=False, wide_SiLU=False, hidden_dropout_prob=0.0, torch_dtype="float32")(other)
    assert checkpoint.digest(vjepa2.read(other)) == checkpoint.digest(vjepa2.read(folder))


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def said(**changes) -> Callable[[Path], object]:
    """A damage: the configuration says something else."""

    def change(folder: Path) -> None:
        path = folder / vjepa2.CONFIG
        document = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({name: value for name, value in document.items() if value is not ...}))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    """A damage: other tensors."""

    def rewrite(folder: Path) -> None:
        held = safetensors.torch.load_file(folder / vjepa2.TENSORS)
        change(held)
        safetensors.torch.save_file(held, folder / vjepa2.TENSORS)

    return rewrite


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:200])


BIAS, WEIGHT = "encoder.layernorm.bias", "predictor.layer.0.attention.key.weight"
DAMAGES: dict[str, Callable[[Path], object]] = {
    "is no folder of a V-JEPA 2 model: it has no config.json": lambda folder: (folder / vjepa2.CONFIG).unlink(),
    "lacks the file model.safetensors; copy it again": lambda folder: (folder / vjepa2.TENSORS).unlink(),
    "config.json is damaged .*; copy it again": cut(vjepa2.CONFIG),
    "it should hold one JSON object": lambda folder: (folder / vjepa2.CONFIG).write_text("[]"),
    "model.safetensors is damaged .*; copy it again": cut(vjepa2.TENSORS),
    "lacks the tensor 'encoder.layernorm.bias'": tensors(lambda held: held.pop(BIAS)),
    "has a tensor 'decoder' .* that no encoder or predictor": tensors(lambda held: held.update(decoder=torch.ones(1))),
    "'encoder.layernorm.bias' gives .7,., but its config.json asks for .48,.": tensors(
        lambda held: held.update({BIAS: torch.ones(7)})
    ),
    "attention.query.weight' and '.*key.weight' are of shapes .24, 24. and .24, 7., and should be of one": tensors(
        lambda held: held.update({WEIGHT: torch.ones(24, 7)})
    ),
    "patch_embeddings.proj.weight' gives .48, 1536., but its config.json asks for .96, 1536.": said(hidden_size=96),
    "has a field 'colour' that V-JEPA 2's architecture does not have": said(colour="red"),
    "says model_type = 'vit'; only 'vjepa2' can be read": said(model_type="vit"),
    "has no model_type; a V-JEPA 2 says 'vjepa2'": said(model_type=...),
    "says hidden_act = 'relu'; only 'gelu' can be read": said(hidden_act="relu"),
    "says architectures = .'VJEPA2ForVideoClassification'.; only": said(architectures=["VJEPA2ForVideoClassification"]),
    "says tubelet_size = 0; a whole number above 0 was wanted": said(tubelet_size=0),
    "says frames_per_clip = 'all'; a whole number": said(frames_per_clip="all"),
    "says frames_per_clip = 1, which no model can have": said(frames_per_clip=1),
    "says hidden_size = 'wide', which no model can have": said(hidden_size="wide"),
    "says layer_norm_eps = 0, which no model can have": said(layer_norm_eps=0),
    "30 px cannot be cut in patches of 16": said(crop_size=30),
    "a width of 48 cannot be shared by 5 heads": said(num_attention_heads=5),
}


@pytest.mark.parametrize("sentence", DAMAGES)
def test_what_is_damaged_is_refused_in_one_sentence(sentence: str, folder: Path, tmp_path: Path) -> None:
    damaged = copied(folder, tmp_path / "model")
    DAMAGES[sentence](damaged)
    with pytest.raises(ValueError, match=sentence) as caught:
        vjepa2.read(damaged)
    assert "\n" not in str(caught.value)


def test_folders_and_rates_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder of a V-JEPA 2 model"):
        vjepa2.read(tmp_path / "none")
    for fps in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="frames a second cannot be shown; V-JEPA 2 was trained at 4"):
            vjepa2.read(folder, fps)


def test_only_their_architecture_goes_out(folder: Path, tmp_path: Path) -> None:
    model = vjepa2.read(folder)
    with pytest.raises(ValueError, match="is there already; choose a new folder"):
        vjepa2.write(model, tmp_path)
    for own in ({"causal": True}, {"tiled": False}, {"affine": False}, {"pictures": True}):
        other = VJEPA(model.config.model_copy(update=own))
        with pytest.raises(ValueError, match="only a model of V-JEPA 2's architecture can be written in its layout"):
            vjepa2.write(other, tmp_path / "out")
    assert not (tmp_path / "out").exists()
