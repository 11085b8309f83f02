"""Times our V-JEPA beside transformers' ``VJEPA2Model`` (with SDPA) at the same shape and precision.

    python benchmarks/vjepa.py [--frames 8] [--picture 128] [--rounds 3] [--depth 24]
    python benchmarks/vjepa.py --device cuda --frames 16 --picture 256 --batch 8 --rounds 10

The encoder has the shape of a ViT-L. *Forward* is features of whole clips. *Training step* hides most of a clip:
context through the encoder, hidden tokens through the predictor, L1 to given targets, backward. There ours computes the
visible tokens only; transformers' encoder computes all and masks afterwards. Times are CPU-seconds of one thread, or
seconds until the GPU is done; the two take turns, and the shares are of the fastest matrix product that was seen to be
done at the time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ami.models.vjepa import VJEPA, VJEPAConfig
from ami.types import Clip, Embodiment

WIDTH, HEADS, PATCH, TUBELET = 1024, 16, 16, 2


def ours(slots: int, picture: int, depth: int) -> VJEPA:
    """A model of ours of V-JEPA 2's architecture."""
    return VJEPA(
        VJEPAConfig(
            embodiments={"film": Embodiment("film", 0.5)},
            picture=picture,
            slots=slots,
            width=WIDTH,
            depth=depth,
            heads=HEADS,
            predictor_width=384,
            predictor_depth=12,
            predictor_heads=12,
            causal=False,
            tiled=True,
            affine=True,
        )
    )


def peer(slots: int, picture: int, depth: int) -> torch.nn.Module | None:
    """transformers' model of the same shape, or ``None`` where it is not installed."""
    try:
        from transformers import VJEPA2Config, VJEPA2Model
    except ImportError:
        return None
    config = VJEPA2Config(crop_size=picture, frames_per_clip=slots * TUBELET, num_hidden_layers=depth)
    config._attn_implementation = "sdpa"
    return VJEPA2Model(config)


def split(batch: int, tokens: int, hidden: float) -> tuple[Int[Tensor, "batch kept"], Int[Tensor, "batch masked"]]:
    """Numbers of the tokens that are seen, and of those to be predicted, others in each row."""
    order = torch.rand(batch, tokens, generator=torch.Generator().manual_seed(0)).argsort(1)
    kept = round(tokens * (1 - hidden))
    return order[:, :kept].sort(1).values, order[:, kept:].sort(1).values


def peak(precision: torch.dtype, device: str) -> float:
    """The most operations a second that a large matrix product reaches here."""
    size = 2048 if device == "cpu" else 8192
    one, other = (torch.randn(size, size, device=device).to(precision) for _ in range(2))
    return max(2 * size**3 / spent(lambda: one @ other, device) for _ in range(5))


def spent(work: Callable[[], object], device: str) -> float:
    """CPU-seconds, or seconds until a GPU is done."""
    if device == "cpu":
        began = time.process_time()
        work()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def jobs(options: argparse.Namespace) -> dict[str, tuple[Callable[[], object], Callable[[], object] | None]]:
    """What is timed: ours, and theirs where transformers is installed."""
    slots, side, batch = options.frames // TUBELET, options.picture, options.batch
    with torch.device(options.device):
        mine, other = ours(slots, side, options.depth), peer(slots, side, options.depth)
    tokens = slots * (side // PATCH) ** 2
    seen, hidden = (each.to(options.device) for each in split(batch, tokens, options.hidden))
    video = torch.randint(0, 256, (batch, slots, TUBELET, 3, side, side), dtype=torch.uint8).to(options.device)
    pixels = torch.randn(batch, options.frames, 3, side, side).to(options.device)
    targets = torch.randn(*hidden.shape, WIDTH).to(options.device)
    clip = Clip("film", (torch.arange(slots) * 0.5).expand(batch, -1), video)
    print(f"{batch} × {tokens} tokens, {options.hidden:.0%} hidden, {options.depth} × {WIDTH}, predictor 12 × 384")

    def features() -> object:
        with torch.no_grad():
            return mine.encode(clip)

    def learn() -> None:
        (context,) = mine.encoder(video, seen)
        functional.l1_loss(mine.predictor(context, seen, hidden, slots=slots), targets).backward()

    if other is None:
        print("transformers is not installed and is left out")
        return {"forward": (features, None), "training step": (learn, None)}

    def their_features() -> object:
        with torch.no_grad():
            return other(pixel_values_videos=pixels, skip_predictor=True)

    def their_learn() -> None:
        answer = other(pixel_values_videos=pixels, context_mask=[seen], target_mask=[hidden])
        functional.l1_loss(answer.predictor_output.last_hidden_state, targets).backward()

    return {"forward": (features, their_features), "training step": (learn, their_learn)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--picture", type=int, default=128)
    parser.add_argument("--depth", type=int, default=24)
    parser.add_argument("--hidden", type=float, default=0.8, help="share of tokens that a training step hides")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    asked = jobs(options)
    print(f"{'':24} {'ours, ms':>12} {'theirs':>8} {'ratio':>6} {'share of peak':>14}")
    for precision in (torch.float32, torch.bfloat16):
        half = precision == torch.bfloat16
        with torch.autocast(options.device, torch.bfloat16) if half else nullcontext():
            for name, (work, their_work) in asked.items():
                with FlopCounterMode(display=False) as counter:
                    work()
                times: dict[str, list[float]] = {"ours": [], "theirs": []}
                for _ in range(options.rounds + 1):
                    times["ours"].append(spent(work, options.device))
                    if their_work is not None:
                        times["theirs"].append(spent(their_work, options.device))
                fast, slow = (1000 * median(each[1:] or [0.0]) for each in times.values())  # the first warms up
                share = 1000 * counter.get_total_flops() / fast / peak(precision, options.device)
                beside = f"{slow:8.1f} {slow / fast:5.2f}×" if their_work else " " * 15
                label = f"{name}, {'bf16' if half else 'fp32'}"
                print(f"{label:24} {fast:12.1f} {beside} {share:14.0%}")


if __name__ == "__main__":
    main()
