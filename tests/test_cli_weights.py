"""``ami import``, ``export`` and ``features`` do what they say; every mistake is one sentence that costs nothing."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import VJEPA2Config, VJEPA2Model

from ami import files
from ami.cli import features
from ami.data.video import FILM, read_film, write_film
from ami.evaluation.films import film_clip
from ami.models import checkpoint, vjepa, vjepa2
from ami.models.jepa import JEPA, sized
from ami.models.mind import Mind, MindConfig
from ami.types import Clip, Embodiment, Latent, WorldModel
from elsewhere import Elsewhere, put


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small weights as transformers writes them."""
    folder = tmp_path_factory.mktemp("theirs") / "model"
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "crop_size": 32, "frames_per_clip": 4}
    predictor = {"pred_hidden_size": 16, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
    VJEPA2Model(VJEPA2Config(**sizes, **predictor)).save_pretrained(folder)
    return folder


def saved(folder: Path, model: WorldModel) -> Path:
    checkpoint.save(folder, model, checkpoint.Provenance("test", checkpoint.CodeVersion("0")))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained babies: one perceives each step by itself, one clips of 8 steps of 2 frames, and one is both."""
    folder = tmp_path_factory.mktemp("models")
    clips = vjepa.sized("baby", {"film": Embodiment("film", 0.2)}, picture=32)
    acts = sized("baby", {"arm": Embodiment("arm", 0.1, (-1.0,), (1.0,))}, picture=32)
    return {
        "jepa": saved(folder / "jepa", JEPA(sized("baby", {"film": FILM}, picture=32))),
        "vjepa": saved(folder / "vjepa", vjepa.VJEPA(clips)),
        "mind": saved(folder / "mind", Mind(MindConfig(acting=acts, watching=clips))),
    }


def film(path: Path, frames: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_film(path, np.random.default_rng(seed).integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8), fps=10)
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two films and, deeper, a third."""
    folder = tmp_path_factory.mktemp("films")
    for name, frames in (("a.mp4", 40), ("b.mp4", 20), ("more/c.mp4", 33)):
        film(folder / name, frames, frames)
    return folder


def opened(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


# Weights


def test_weights_come_in_with_where_they_are_from_and_go_out_unchanged(ami, theirs: Path, tmp_path: Path) -> None:
    held = ami("import", theirs, tmp_path / "c", "--fps", 8, "--json").document
    model, came_from = checkpoint.load(tmp_path / "c"), checkpoint.read_provenance(tmp_path / "c")
    assert held["digest"] == checkpoint.digest(tmp_path / "c") == checkpoint.digest(vjepa2.read(theirs, fps=8))
    assert held["parameters"] == sum(p.numel() for p in model.parameters())
    assert model.embodiments["film"].step_seconds == 2 / 8
    assert came_from.recipe == "imported"
    assert came_from.settings["from"] == str(theirs)
    assert came_from.settings["files"] == {vjepa2.TENSORS: files.digest_file(theirs / vjepa2.TENSORS)}

    assert ami("export", tmp_path / "c", tmp_path / "back", "--json").document["digest"] == held["digest"]
    before, after = (safetensors.torch.load_file(folder / vjepa2.TENSORS) for folder in (theirs, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "parameters" in ami("import", tmp_path / "back", tmp_path / "again").out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "back", "c"]


def test_weights_that_cannot_come_in_or_go_out(ami, theirs: Path, models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").touch()
    mistakes = {
        ("import", tmp_path / "none", tmp_path / "c"): "is no folder of a V-JEPA 2 model: it has no config.json",
        ("import", models["jepa"], tmp_path / "c"): "config.json has no model_type",
        ("import", theirs, tmp_path / "c", "--fps", "0"): "V-JEPA 2 was trained at 4",
        ("import", theirs, tmp_path / "full"): "is not empty; choose a new folder, or delete this one first",
        ("export", tmp_path / "none", tmp_path / "o"): "is not a folder; give the folder of a checkpoint",
        ("export", models["jepa"], tmp_path / "o"): "holds a JEPA, and that layout is for V-JEPA 2 alone",
        ("export", models["vjepa"], tmp_path / "o"): "only a model of V-JEPA 2's architecture can be written",
    }
    for words, sentence in mistakes.items():
        assert sentence in ami(*words).mistake
    ami("import", theirs, tmp_path / "c")
    assert "is there already; choose a new folder" in ami("export", tmp_path / "c", tmp_path / "full").mistake
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "full"]


def test_a_disk_that_is_full_leaves_no_part_of_a_folder(ami, theirs: Path, tmp_path: Path, monkeypatch) -> None:
    ami("import", theirs, tmp_path / "c")
    monkeypatch.setattr(files, "write_json", lambda path, document: files.write_text(Path("/dev/full/x"), ""))
    said = ami("export", tmp_path / "c", tmp_path / "out")
    assert said.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


# Features


@pytest.mark.parametrize("kind", ["jepa", "vjepa", "mind"])
def test_features_are_what_the_model_perceives_clip_by_clip(
    ami, kind: str, models: dict[str, Path], films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_TOKENS", 1)  # one clip at a time
    held = ami("features", models[kind], films, "--out", tmp_path / "f.npz", "--clip", 4, "--json").document
    model, arrays = checkpoint.load(models[kind]).part("film"), opened(tmp_path / "f.npz")
    frames = 4 * model.frames
    clips = [40 // frames, 20 // frames, 33 // frames]
    assert held["skipped"] == []
    assert (held["films"], held["clips"], held["fps"], held["seconds"]) == (3, sum(clips), 10, frames / 10)
    assert arrays["films"].tolist() == [str(films / name) for name in ("a.mp4", "b.mp4", "more/c.mp4")]
    assert arrays["film"].tolist() == [number for number, count in enumerate(clips) for _ in range(count)]
    assert arrays["times"].tolist() == pytest.approx([frames / 10 * k for count in clips for k in range(count)])
    assert (arrays["features"].dtype, arrays["times"].dtype) == (np.float32, np.float64)
    tokens, dim = model.latent_shape
    assert arrays["features"].shape == (held["clips"], held["tokens"], held["dim"])
    assert arrays["features"].shape == (sum(clips), 4 * tokens, dim)

    video = read_film(films / "more" / "c.mp4", size=32, fps=10).video
    assert video is not None
    with torch.no_grad():
        last = model.encode(film_clip(model, video[frames : 2 * frames])).values.flatten(1, 2)[0].numpy()
    second = [k for k, number in enumerate(arrays["film"]) if number == 2][1]
    np.testing.assert_allclose(arrays["features"][second], last, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


def test_clips_are_by_default_what_the_model_learned_with(
    ami, models: dict[str, Path], films: Path, tmp_path: Path
) -> None:
    for kind, tokens in (("vjepa", 8 * 4), ("jepa", 8 * 2)):
        said = ami("features", models[kind], films / "a.mp4", "--out", tmp_path / f"{kind}.npz", "--json").document
        assert (said["steps"], said["tokens"]) == (8, tokens)
    fast = ami("features", models["jepa"], films / "a.mp4", "--out", tmp_path / "5.npz", "--fps", 5, "--json").document
    assert (fast["fps"], fast["clips"], fast["seconds"]) == (5, 2, 1.6)
    assert (
        "2 clips of 1.6 s from 1 films"
        in ami("features", models["jepa"], films / "a.mp4", "--out", tmp_path / "again.npz", "--fps", 5).out
    )


def test_bad_films_are_refused_or_left_out(ami, models: dict[str, Path], films: Path, tmp_path: Path) -> None:
    bad, short, out = tmp_path / "bad.mp4", film(tmp_path / "short.mp4", 5), tmp_path / "f.npz"
    bad.write_bytes((films / "a.mp4").read_bytes()[:3000])
    asked = ("features", models["jepa"], bad, films / "b.mp4", short, "--out", out)
    assert "(--skip-bad leaves such films out and goes on)" in ami(*asked).mistake
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.mp4", "short.mp4"]
    held = ami(*asked, "--skip-bad", "--json").document
    assert [name for name, _ in held["skipped"]] == [str(bad), str(short)]
    assert "has 5 frames at 10 a second and a clip 8" in held["skipped"][1][1]
    assert opened(out)["films"].tolist() == [str(films / "b.mp4")]
    alone = ami("features", models["jepa"], bad, "--skip-bad", "--out", tmp_path / "g.npz").mistake
    assert "not one of 1 films could be used" in alone
    assert "left out" in ami(*asked[:-1], tmp_path / "h.npz", "--skip-bad").out


def test_features_that_cannot_be(ami, models: dict[str, Path], films: Path, tmp_path: Path) -> None:
    model, out = models["jepa"], tmp_path / "f.npz"
    arm = saved(tmp_path / "arm", JEPA(sized("baby", {"arm": Embodiment("arm", 0.1, (-1.0,), (1.0,))})))
    (tmp_path / "held.npz").touch()
    (tmp_path / "empty").mkdir()
    mistakes = {
        (tmp_path / "none", films, "--out", out): "is not a folder; give the folder of a checkpoint",
        (model, "--out", out): "no file was named; give recordings (.mp4 .mov",
        (model, tmp_path / "none.mp4", "--out", out): "there is no file or folder",
        (model, tmp_path / "held.npz", "--out", out): "is not a recording by its name; known are .mp4",
        (model, tmp_path / "empty", "--out", out): "holds no recording (.mp4",
        (model, films, "--out", tmp_path / "f.csv"): "whose name ends in .npz",
        (model, films, "--out", tmp_path / "held.npz"): "is there already; choose another name",
        (model, films, "--out", out, "--fps", "-1"): "--fps is -1; it must be above 0, and this model learned with 10",
        (model, films, "--out", out, "--clip", "0"): "--clip is 0; a clip has at least 1 step",
        (arm, films, "--out", out): "nothing that is watched without acting",
    }
    for words, sentence in mistakes.items():
        assert sentence in ami("features", *words).mistake
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arm", "empty", "held.npz"]


def test_an_interrupt_leaves_nothing(ami, models: dict[str, Path], films: Path, tmp_path: Path, monkeypatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", stop)
    said = ami("features", models["jepa"], films, "--out", tmp_path / "f.npz")
    assert said.code == 130
    assert "nothing was written" in said.err
    assert not list(tmp_path.iterdir())


def test_a_gpu_perceives_the_same_of_films_that_are_read_ahead(
    models: dict[str, Path], films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = features.Shown.to(checkpoint.load(models["vjepa"]), None, 2)
    several = 3 * [films / "a.mp4", films / "b.mp4"]
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda pictures: pictures)
    with features.Bars() as bars:
        features.extract(shown, several, tmp_path / "here.npz", False, bars)
        with Elsewhere():
            put(shown.model)
            assert len(list(shown.read_ahead(several))) == len(several)
            features.extract(shown, several, tmp_path / "there.npz", False, bars)
    here, there = (opened(tmp_path / f"{name}.npz") for name in ("here", "there"))
    assert here.keys() == there.keys()
    for name in here:
        np.testing.assert_array_equal(here[name], there[name])


class Wide(WorldModel):
    """Perceives 100,000 numbers in a step: how bright it is."""

    def __init__(self) -> None:
        super().__init__()
        self.embodiments, self.latent_shape, self.picture = {"film": FILM}, (10, 10_000), 32

    def encode(self, clip: Clip) -> Latent:
        """Perceive."""
        assert clip.video is not None
        level = clip.video.float().mean((2, 3, 4, 5))
        return Latent(level[:, :, None, None].expand(-1, -1, *self.latent_shape), clip.times)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is measured as Linux tells it")
def test_many_films_are_not_held_in_memory(films: Path, tmp_path: Path) -> None:
    """200 MB of features pass through a process that grows by less than a quarter of that."""
    held: list[int] = []

    class Watched(features.Bars):
        def tell(self, what: str, done: int, total: int, note: str = "") -> None:
            status = Path("/proc/self/status").read_text().split()
            held.append(1024 * int(status[status.index("RssAnon:") + 1]))

    shown = features.Shown.to(Wide(), None, 8)
    for name in ("warm", "f"):
        held.clear()
        with Watched() as bars:
            features.extract(shown, [films / "a.mp4", films / "b.mp4"] * 9, tmp_path / f"{name}.npz", False, bars)
    size = (tmp_path / "f.npz").stat().st_size
    assert size > 200e6
    assert max(held) - held[0] < 0.25 * size
    level = opened(tmp_path / "f.npz")["features"][:, 0, 0]
    assert len(level) == 9 * (5 + 2)
    np.testing.assert_array_equal(level[:7], level[7:14])
