"""Checkpoints and snapshots come back as they were, and whatever is wrong with one is said in a sentence."""

import json
import math
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from ami.models import checkpoint
from ami.models.checkpoint import CodeVersion, Provenance, code_version, digest, load, read_provenance, save
from ami.models.snapshot import load_state, save_state
from ami.types import Embodiment, WorldModel


class TinyConfig(BaseModel):
    """Settings of :class:`Tiny`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: int = 3
    depth: int = 1
    embodiments: dict[str, Embodiment] = {}


class Tiny(WorldModel):
    """Weights of several kinds: tied, transposed in memory, 16-bit, a buffer, an empty one and a scalar."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embodiments, self.latent_shape = config.embodiments, (1, config.width)
        self.one = nn.Linear(config.width, config.width)
        self.tied = self.one
        self.strided = nn.Parameter(torch.randn(2, config.width).T)
        self.bits = nn.Parameter(torch.randn(5).bfloat16())
        self.norm = nn.BatchNorm1d(config.width)
        self.scale = nn.Parameter(torch.randn(()))
        self.register_buffer("empty", torch.zeros(0, 3))


KINDS = {"tiny": (TinyConfig, Tiny)}
POINT = Embodiment("point", 0.4, (-1.0, -1.0), (1.0, 1.0), (0.1, 1 / 3), (0.5, 0.25))
WHENCE = Provenance("baby", CodeVersion("0.1", "abc", False), {"lr": 2e-3}, {"rooms": "d1"}, (0, 1), 400, 51.5)


def a_model(**settings):
    torch.manual_seed(3)
    model = Tiny(TinyConfig(embodiments={"point": POINT}, **settings))
    model.norm(torch.randn(4, model.config.width))  # its running mean moves
    return model


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "ckpt", a_model(), WHENCE, KINDS)
    return tmp_path / "ckpt"


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def edit_tensors(folder, change):
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def test_a_checkpoint_comes_back_bit_for_bit_and_can_act_alone(folder):
    model, again = a_model(), load(folder, KINDS)
    assert again.config == model.config
    assert again.embodiments == {"point": POINT}
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == again.state_dict()[name].dtype
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert read_provenance(folder) == WHENCE
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "provenance.json"]
    assert list(folder.parent.iterdir()) == [folder]


def test_loading_spends_none_of_the_callers_random_numbers(folder):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load(folder, KINDS)
    assert torch.equal(torch.rand(3), expected)


def test_the_digest_names_contents_and_not_files(folder, tmp_path):
    name = digest(folder)
    assert name == digest(a_model(), KINDS) == digest(load(folder, KINDS), KINDS)
    # The same tensors in another file: other metadata, other order of the settings, another origin.
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"note": "hello"})
    edit(folder / "provenance.json", lambda document: document.update(steps=1))
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(dict(reversed(document.items()))))
    assert digest(folder) == name


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.bits.data.view(torch.int16).bitwise_xor_(1),
        lambda model: model.norm.running_mean.add_(1e-6),
        lambda model: setattr(model, "empty", torch.zeros(3, 0)),
        lambda model: setattr(model, "bits", nn.Parameter(model.bits.data.view(torch.int16), requires_grad=False)),
        lambda model: setattr(model, "config", model.config.model_copy(update={"depth": 2})),
        lambda model: model.register_buffer("more", torch.zeros(0)),
    ],
    ids=["one bit", "a buffer", "a shape", "a dtype", "a setting", "a name"],
)
def test_any_difference_changes_the_digest(change):
    model = a_model()
    change(model)
    assert digest(model, KINDS) != digest(a_model(), KINDS)


def test_older_checkpoints_take_the_default_of_newer_settings(folder):
    edit(folder / "config.json", lambda document: document["config"].pop("depth"))
    assert load(folder, KINDS).config.depth == 1


def _flat(folder):
    shutil.rmtree(folder)
    folder.write_text("I am a file")


BAD = {
    "no folder": (shutil.rmtree, "is not a folder"),
    "a file": (_flat, "is not a folder"),
    "no config": (lambda f: (f / "config.json").unlink(), "is not a checkpoint: it has no config.json"),
    "no tensors": (lambda f: (f / "model.safetensors").unlink(), "it has no model.safetensors"),
    "broken JSON": (lambda f: (f / "config.json").write_text('{"schema": 1,'), "config.json is damaged"),
    "JSON that is no object": (lambda f: (f / "config.json").write_text("[1]"), "one JSON object"),
    "text that is no text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\xfa"), "config.json is damaged"),
    "newer schema": (lambda f: edit(f / "config.json", lambda d: d.update(schema=2)), "schema 2.*install a newer AMI"),
    "schema of words": (lambda f: edit(f / "config.json", lambda d: d.update(schema="x")), "'schema' should be"),
    "unknown top key": (
        lambda f: edit(f / "config.json", lambda d: d.update(modle=1)),
        "'modle'; did you mean 'model'",
    ),
    "unknown kind": (lambda f: edit(f / "config.json", lambda d: d.update(model="tinny")), "did you mean 'tiny'"),
    "unknown setting": (
        lambda f: edit(f / "config.json", lambda d: d["config"].update(widht=1)),
        "unknown key 'widht'; did you mean 'width'",
    ),
    "unknown setting inside": (
        lambda f: edit(f / "config.json", lambda d: d["config"]["embodiments"]["point"].update(lows=[])),
        "unknown key 'embodiments.point.lows'; did you mean 'low'",
    ),
    "wrong setting": (lambda f: edit(f / "config.json", lambda d: d["config"].update(width="a")), "at 'width'"),
    "missing tensor": (lambda f: edit_tensors(f, lambda t: t.pop("bits")), "lacks the tensor 'bits'; it"),
    "missing tensors": (lambda f: edit_tensors(f, lambda t: (t.pop("bits"), t.pop("scale"))), "'bits' \\(and 1 more"),
    "extra tensor": (lambda f: edit_tensors(f, lambda t: t.update(ghost=torch.ones(1))), "a tensor 'ghost' that"),
    "wrong shape": (
        lambda f: edit_tensors(f, lambda t: t.update(bits=torch.ones(6).bfloat16())),
        r"'bits' is \(6,\) bfloat16, but its settings ask for \(5,\) bfloat16",
    ),
    "wrong dtype": (lambda f: edit_tensors(f, lambda t: t.update(bits=torch.ones(5))), r"'bits' is \(5,\) float32"),
    "empty tensors": (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors is damaged"),
    "cut tensors": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-7]),
        "model.safetensors is damaged",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_one_sentence(name, folder):
    spoil, sentence = BAD[name]
    spoil(folder)
    with pytest.raises(ValueError, match=sentence) as caught:
        load(folder, KINDS)
    assert "\n" not in str(caught.value)


def test_a_wrong_provenance_is_said(folder):
    edit(folder / "provenance.json", lambda document: document.pop("recipe"))
    with pytest.raises(ValueError, match=r"provenance.json is wrong at 'recipe'"):
        read_provenance(folder)


def test_a_checkpoint_is_never_overwritten(folder):
    before = digest(folder)
    with pytest.raises(ValueError, match="already holds something"):
        save(folder, a_model(width=4), WHENCE, KINDS)
    with pytest.raises(ValueError, match="is not a folder, so no checkpoint"):
        save(folder / "config.json", a_model(), WHENCE, KINDS)
    assert digest(folder) == before


def test_an_empty_folder_will_do(tmp_path):
    save(tmp_path, a_model(), WHENCE, KINDS)
    assert digest(tmp_path) == digest(a_model(), KINDS)


@pytest.mark.parametrize("when", ["write_json", "write_whole", "rename"])
def test_a_failed_save_leaves_nothing(when, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os if when == "rename" else checkpoint.files, when, full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path / "ckpt", a_model(), WHENCE, KINDS)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a WorldModel has no kind of checkpoint; the kinds are tiny"):
        save(tmp_path / "ckpt", WorldModel(), WHENCE, KINDS)


def test_the_code_version_is_that_of_the_package_and_of_no_checkout_around_it(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *identity, "-C", tmp_path, *arguments], check=True, capture_output=True, text=True
        )

    package = tmp_path / "ami"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(checkpoint, "__file__", str(package / "models" / "checkpoint.py"))
    version = code_version().version
    assert code_version() == CodeVersion(version)
    git("init", "-q")
    (tmp_path / "theirs.txt").write_text("")
    git("add", "theirs.txt")
    git("commit", "-qm", "a user's own")
    assert code_version() == CodeVersion(version)
    git("add", "ami")
    git("commit", "-qm", "now ours")
    commit = git("rev-parse", "HEAD").stdout.strip()
    (tmp_path / "theirs.txt").write_text("notes beside the package")
    assert code_version() == CodeVersion(version, commit, False)
    (package / "new.py").write_text("")
    assert code_version() == CodeVersion(version, commit, True)
    monkeypatch.setenv("PATH", "")
    assert code_version() == CodeVersion(version)


def _trained(steps, model, optimizer, generator):
    for _ in range(steps):
        optimizer.zero_grad()
        (model(torch.randn(8, 3, generator=generator)) - 1).square().mean().backward()
        optimizer.step()


def _start():
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(5)
    model = nn.Linear(3, 2)
    groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias], "lr": 3e-3}]
    return model, torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98)), generator


def test_training_goes_on_from_a_snapshot_bit_for_bit(tmp_path):
    model, optimizer, generator = _start()
    _trained(3, model, optimizer, generator)
    kept = {"optimizer": optimizer.state_dict(), "model": model.state_dict(), "rng": generator.get_state(), "step": 3}
    save_state(tmp_path / "state.safetensors", kept)
    _trained(3, model, optimizer, generator)

    other, other_optimizer, other_generator = _start()
    state = load_state(tmp_path / "state.safetensors")
    other.load_state_dict(state["model"])
    other_optimizer.load_state_dict(state["optimizer"])
    other_generator.set_state(state["rng"])
    _trained(3, other, other_optimizer, other_generator)
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)


def _identical(one, two):
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return list(one) == list(two) and all(_identical(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_identical, one, two))
    return one == two or (isinstance(one, float) and math.isnan(one) and math.isnan(two))


def test_a_snapshot_keeps_every_type(tmp_path):
    model, optimizer, generator = _start()
    _trained(2, model, optimizer, generator)
    shared = torch.arange(6).reshape(2, 3)
    state = {
        "adamw": optimizer.state_dict(),
        "numbers": [0.1 + 0.2, -0.0, 1e-320, math.inf, -math.inf, math.nan, 2**100, True, None, "ä\n"],
        "nested": {"empty": {}, "tuple": (1, (2.0,)), 7: [], "tensor": "tensor"},
        "tensors": [shared, shared.T, shared[0], torch.zeros(0, 2), torch.ones(()).bfloat16(), torch.tensor([True])],
    }
    path = tmp_path / "state.safetensors"
    save_state(path, state)
    assert _identical(load_state(path), state)
    assert str(load_state(path)["numbers"][1]) == "-0.0"
    assert list(tmp_path.iterdir()) == [path]


def test_bad_snapshots_and_states_are_refused(tmp_path):
    path = tmp_path / "state.safetensors"
    with pytest.raises(ValueError, match="there is no snapshot at"):
        load_state(path)
    with pytest.raises(ValueError, match=r"state\['a'\]\[1\] is a set"):
        save_state(path, {"a": [0, {1}]})
    with pytest.raises(ValueError, match=r"state\['a'\] has the key 1.5"):
        save_state(path, {"a": {1.5: 0}})
    assert not path.exists()
    safetensors.torch.save_file({"a": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="is not a snapshot"):
        load_state(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="is damaged"):
        load_state(path)


def test_provenance_is_plain_json(folder):
    assert json.loads((folder / "provenance.json").read_text()) == json.loads(json.dumps(asdict(WHENCE)))
    assert Path(folder / "config.json").read_text().startswith('{\n  "schema": 1,\n  "model": "tiny"')
