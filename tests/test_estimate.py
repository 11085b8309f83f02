"""What a training will take is what torch counts, what the papers say, and what a data sheet gives."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import l1_loss
from torch.utils.flop_counter import FlopCounterMode

from ami.models.vjepa import VJEPA, VJEPAConfig, sized
from ami.nn.rotary import grid, turns
from ami.nn.video import RotaryBlock
from ami.recipes import scale
from ami.training.estimate import ACCELERATORS, UTILISATION, Cluster, Masked, Tower, estimate
from ami.types import Embodiment

FILM = {"film": Embodiment("film", 0.5)}
SIZES = ("baby", "tiny", "small", "base", "large", "huge", "giant")
EIGHT = Cluster(8, "H100")


def step(model: VJEPA, teacher: torch.nn.Module, work: Masked, clips: int) -> None:
    """A training step, as its objective does it."""
    config = model.config
    shape = (clips, config.slots, config.tubelet, 3, config.picture, config.picture)
    video = torch.zeros(shape, dtype=torch.uint8)
    with torch.no_grad():
        (target,) = teacher(video)
    order = torch.randperm(work.tokens).expand(clips, -1)
    for kind, (seen, hidden) in enumerate(work.masks):
        visible, asked = order[:, :seen].sort(1).values, order[:, seen : seen + hidden]
        (context,) = model.encoder(video, visible)
        guess = model.predictor(context, visible, asked, slots=config.slots, kind=kind)
        l1_loss(guess, target.gather(1, asked[..., None].expand(-1, -1, config.width))).backward()


@pytest.mark.parametrize(
    "settings", [{}, {"stem": "pieces"}, {"widen": 2.5, "predictor_widen": 3.0, "depth": 3}, {"anew": True}]
)
def test_operations_are_those_that_torch_counts(settings: dict) -> None:
    small = {"picture": 64, "slots": 4, "width": 48, "depth": 2, "heads": 2, "predictor_width": 24, "causal": False}
    model = VJEPA(VJEPAConfig(embodiments=FILM, predictor_heads=2, predictor_depth=2, **{**small, **settings}))
    work = scale.work(model.config, model)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        step(model, copy.deepcopy(model.encoder), work, clips=2)
    assert counter.get_total_flops() == 2 * work.flops


def test_a_block_has_the_parameters_it_is_said_to_have() -> None:
    model = VJEPA(sized("baby", FILM))
    tower = scale.work(model.config, model).encoder
    assert tower.block_parameters == sum(p.numel() for p in model.encoder.blocks[0].parameters())


def test_a_block_keeps_what_it_is_said_to_keep_for_its_backward_pass() -> None:
    tokens, width, half = 512, 192, torch.bfloat16
    block, where = RotaryBlock(width, 3).to(half), turns(grid(8, 8, 8), width // 3)
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes(), tensor  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        block(torch.randn(1, tokens, width, dtype=half, requires_grad=True), where)
    weights = {p.untyped_storage().data_ptr() for p in block.parameters()}
    held = sum(size for pointer, (size, _) in kept.items() if pointer not in weights)
    # The tables of the turns, and each token's mean and deviation, are the rest.
    assert Tower(width, 1, 4 * width).inside(tokens) == pytest.approx(held, rel=0.05)


def test_what_is_seen_is_what_rectangles_leave() -> None:
    draw, side = torch.Generator().manual_seed(0), 16
    for count, share in scale.MASKS:
        left = []
        for _ in range(800):
            aspect = 0.75 + 0.75 * float(torch.rand((), generator=draw))
            height, width = round((share * side**2 * aspect) ** 0.5), round((share * side**2 / aspect) ** 0.5)
            free = torch.ones(side, side)
            for _ in range(count):
                top = int(torch.randint(side - height + 1, (), generator=draw))
                across = int(torch.randint(side - width + 1, (), generator=draw))
                free[top : top + height, across : across + width] = 0
            left.append(float(free.sum()))
        assert scale.visible(count, share, side) == pytest.approx(sum(left) / len(left), rel=0.05)
    assert scale.visible(1, 1.0, 4) == 1  # something must be seen


def test_the_sizes_of_the_paper_are_trained_as_in_the_paper() -> None:
    plans = {size: scale.preview(size, EIGHT)["schedule"] for size in SIZES}
    for size in ("large", "huge", "giant"):
        plan = plans[size]
        assert (plan["batch"], plan["steps"], plan["warmup"]) == (3072, 240_000, 12_000)
        assert plan["rate"] == pytest.approx(5.25e-4)
    # Below them everything shrinks with the model, and small models learn faster.
    for name, sign in (("batch", 1), ("steps", 1), ("rate", -1)):
        held = [sign * plans[size][name] for size in SIZES]
        assert held == sorted(held)
    assert scale.schedule(1024, 303_000_000, steps=60).warmup == 3


def test_memory_is_shared_by_the_gpus_and_time_too() -> None:
    work = Masked(Tower(64, 2, 256), Tower(32, 1, 128), (1000, 0), 100, 50, ((20, 30),))
    one = estimate(work, 10**9, 10**9, batch=64, steps=1000, cluster=Cluster(1, "A100"))
    many = estimate(work, 10**9, 10**9, batch=64, steps=1000, cluster=Cluster(64, "A100"))
    blocks = 3 * 2 * work.encoder.block_parameters
    assert one.state_bytes - blocks == 4 * (4 + 1) * 10**9  # weight, gradient, two moments; and the teacher
    assert many.state_bytes - blocks == (one.state_bytes - blocks) / 64
    assert many.hours == pytest.approx(one.hours / 64)
    assert many.gpu_hours == pytest.approx(one.hours)
    assert one.hours * 3600 * 312e12 * UTILISATION == pytest.approx(1000 * 64 * work.flops)
    assert (one.clips_at_once, many.clips_at_once) == (64, 1)
    fast = estimate(work, 10**9, 10**9, batch=64, steps=1000, cluster=Cluster(1, "H100"))
    assert fast.hours == pytest.approx(one.hours * 312 / 989)


def test_a_step_is_one_pass_and_fits_whole_or_not() -> None:
    """The loop accumulates no gradients, so nothing is reckoned that would need it to."""
    work = Masked(Tower(64, 2, 256), Tower(32, 1, 128), (1000, 0), 100, 50, ((20, 30),))
    room = 0.9 * ACCELERATORS["A100"].memory
    gathered = 3 * 2 * work.encoder.block_parameters
    trained = int((room - gathered - 10.5 * work.activations) / 16)
    ten, eleven = (estimate(work, trained, 0, batch=n, steps=1, cluster=Cluster(1, "A100")) for n in (10, 11))
    assert (ten.fits, ten.clips_at_once, ten.room) == (True, 10, 10)
    assert ten.memory_bytes <= room < eleven.memory_bytes
    assert (eleven.fits, eleven.clips_at_once, eleven.room) == (False, 11, 10)
    assert estimate(work, trained * 2, 0, batch=1, steps=1, cluster=Cluster(1, "A100")).room == 0


def test_a_giant_is_reckoned_without_being_built() -> None:
    held = scale.preview("giant", EIGHT)
    parts, takes = held["parameters"], held["takes"]
    assert parts["encoder"] == pytest.approx(1.01e9, rel=0.01)
    # 6 operations for each weight and token of the student, 2 for the teacher's; attention and predictor besides.
    seen = sum(mask["visible"] for mask in held["clip"]["masks"])
    floor = 3072 * parts["encoder"] * (6 * seen + 2 * held["clip"]["tokens"])
    assert floor < takes["flops_per_step"] < 1.5 * floor
    assert not takes["fits"]  # 384 clips on each of eight GPUs
    assert scale.preview("giant", Cluster(64, "H100"))["takes"]["fits"]
    assert scale.preview("giant", Cluster(1, "A100"))["takes"]["hours"] > 10_000
    small = scale.preview("giant", EIGHT, picture=128)
    assert small["clip"]["tokens"] < held["clip"]["tokens"]
    assert small["takes"]["flops_per_step"] < takes["flops_per_step"]


def test_a_dry_run_needs_no_data_and_says_all(ami, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ("video", "--size", "giant", "--dry-run", "--cluster", "16xB200")
    said = ami("train", *asked, "--json")
    code, out, err = said.code, said.out, said.err
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads(json.dumps({"recipe": "video", **scale.preview("giant", Cluster(16, "B200"))}))
    said = ami("train", *asked).out
    for word in ("1,012,171,136 in the encoder", "GiB", "16xB200", "40% of its peak", "2,048 tokens"):
        assert word in said
    out = ami("train", "video", "--dry-run", "--steps", "100", "--json").out
    assert (json.loads(out)["size"], json.loads(out)["schedule"]["steps"]) == ("baby", 100)
    said = ami("train", "video", "--size", "giant", "--dry-run", "--cluster", "1xA100").out
    assert "clips on each GPU: 3072, of the " in said
    assert "a step does not fit; reckon with more GPUs" in said
    tight = replace(ACCELERATORS["A100"], memory=1e9)
    monkeypatch.setitem(ACCELERATORS, "A100", tight)
    said = ami("train", "video", "--size", "giant", "--dry-run", "--cluster", "1xA100").out
    assert "of the 0 that its memory holds" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("video", "--dry-run", "--size", "vast"),
            "there is no size 'vast'; choose one of baby, tiny, small, base, large, h",
        ),
        (
            ("video", "--dry-run", "--cluster", "8xT4"),
            "there is no cluster '8xT4'; say 8xH100, or so many of A100, H100",
        ),
        (("video", "--dry-run", "--cluster", "0xH100"), "there is no cluster '0xH100'"),
        (("video", "--dry-run", "--steps", "0"), "0 steps were asked for; at least 1 is needed"),
        (("baby", "--dry-run"), "a dry run reckons what a V-JEPA takes, by the recipe video; baby is not one"),
        (("vido", "--dry-run"), "there is no recipe 'vido'; did you mean video?"),
        (("video",), "name them with --data and --out"),
        (("video", "--out", "r"), "name them with --data and --out"),
        (("video", "--data", "d"), "name them with --data and --out"),
    ],
)
def test_what_cannot_be_reckoned(ami, words: tuple[str, ...], sentence: str) -> None:
    assert sentence in ami("train", *words).mistake
