"""The teacher follows exactly and never learns; the student learns from what it did not see."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ami.models.vjepa import VJEPA, VJEPAConfig, normed
from ami.objectives.masked import Masked, MaskedSettings, take
from ami.objectives.masks import Blocks, Grid, Slots
from ami.objectives.points import PointSettings
from ami.objectives.teacher import Teacher
from ami.types import Clip, Embodiment

GRID = Grid(4, 4, 4)
MASKS = (Blocks(2, 0.15), Slots(2))
CONFIG = VJEPAConfig(
    embodiments={"film": Embodiment("film", 0.2)},
    stem="pieces",
    width=16,
    depth=2,
    heads=2,
    predictor_width=16,
    predictor_depth=1,
    predictor_heads=2,
    slots=4,
)


def tiny(points: int = 0, own: int = 0) -> VJEPA:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        return VJEPA(CONFIG.model_copy(update={"points": points, "own": own}))


def film(batch: int = 6) -> Clip:
    """A bright square on grey, that moves by 4 px a slot."""
    video = torch.full((batch, 4, 2, 3, 64, 64), 90, dtype=torch.uint8)
    for row in range(batch):
        for slot in range(4):
            video[row, slot, :, :, 5 * row % 40 : 5 * row % 40 + 12, 4 * slot + 3 * row : 4 * slot + 3 * row + 12] = 240
    return Clip("film", times=torch.arange(4.0).expand(batch, 4) / 5, video=video)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def test_the_teacher_is_an_exact_average_of_parameters_and_buffers() -> None:
    student = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))
    teacher = Teacher(student, 0.9)
    wanted = copy.deepcopy(student).state_dict()
    for step in range(5):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=drawn(step)))
            student(torch.randn(8, 5, generator=drawn(step)))  # moves the running statistics
        teacher.follow(student)
        for name, value in student.state_dict().items():
            average = 0.9 * wanted[name] + 0.1 * value if value.is_floating_point() else value
            wanted[name] = average.clone()
    for name, value in teacher.copy.state_dict().items():
        torch.testing.assert_close(value, wanted[name], msg=name)
    assert float(teacher.distance(student)) > 0
    assert float(Teacher(student, 0.9).distance(student)) == 0


def test_a_momentum_that_never_follows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"momentum is 1\.0; it must be at least 0 and below 1"):
        Teacher(nn.Linear(2, 2), 1.0)


def test_no_gradient_passes_the_teacher() -> None:
    """A flipped stop-gradient would give the target a gradient: the loss would not be one of the guesses alone."""
    model, clip = tiny(), film()
    objective = Masked(model, MaskedSettings(masks=MASKS))
    assert objective.teacher is not None
    total(objective.losses(model, clip, drawn())).backward()
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())
    assert all(parameter.grad is not None for parameter in model.predictor.parameters())


def test_the_gradient_is_that_of_the_guesses_alone() -> None:
    model, clip = tiny(), film()
    objective = Masked(model, MaskedSettings(masks=(Slots(1),), distance="l2"))
    objective.losses(model, clip, drawn())["masked"].backward()
    found = [parameter.grad.clone() for parameter in model.encoder.parameters()]
    twin = tiny()
    fixed = normed(copy.deepcopy(twin).encoder(clip.video)[-1]).detach()
    mask = Slots(1).draw(len(clip), GRID, drawn())
    (context,) = twin.encoder(clip.video, mask.visible)
    guess = twin.predictor(context, mask.visible, mask.hidden, slots=4)
    (guess - take(fixed, mask.hidden)).square().mean().backward()
    for one, other in zip(found, twin.encoder.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


def test_what_is_hidden_has_no_part_in_the_guess() -> None:
    """Other pictures where nothing is seen: the guess stays, and only the target changes."""
    model, clip = tiny(), film()
    mask = Slots(2, ends=0.5).draw(len(clip), GRID, drawn())
    other = clip.video.clone()
    for row, hidden in enumerate(mask.hidden[:, ::16] // 16):
        other[row, hidden] = 255 - other[row, hidden]
    for video in (clip.video, other):
        (context,) = model.encoder(video, mask.visible)
        guess = model.predictor(context, mask.visible, mask.hidden, slots=4)
        if video is clip.video:
            first = guess
    torch.testing.assert_close(first, guess)


def test_the_target_is_perceived_once_for_all_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip = tiny(), film()
    objective = Masked(model, MaskedSettings(masks=(*MASKS, Slots(1))))
    calls: list[Any] = []
    heard = Teacher.forward
    monkeypatch.setattr(Teacher, "forward", lambda self, *inputs: calls.append(inputs) or heard(self, *inputs))
    objective.losses(model, clip, drawn())
    assert len(calls) == 1
    assert calls[0][1] is None  # it sees the whole clip


def test_own_numbers_are_foreseen_better_than_by_holding_them() -> None:
    """Films that grow brighter go on to do so; with ``fill`` no gradient reaches the encoder."""
    model, clip = tiny(own=8), film()
    assert clip.video is not None
    clip.video[:] = (60 + 30 * torch.arange(4)).view(4, 1, 1, 1, 1)
    weigh = MaskedSettings(masks=(Slots(1, ends=1.0),), masked=0.0, momentum=None, fill=1.0, own=1.0)
    objective = Masked(model, weigh)
    adam = torch.optim.Adam(model.predictor.parameters(), 1e-2)
    errors = []
    for step in range(40):
        losses = objective.losses(model, clip, drawn(step))
        assert set(losses) == {"fill", "own"}
        errors.append(losses["own"].item())
        adam.zero_grad()
        total(losses).backward()
        adam.step()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert errors[-1] < 0.3 * errors[0]
    with pytest.raises(ValueError, match="carry no numbers of their own"):
        Masked(tiny(), weigh)


def test_points_are_read_from_what_is_seen_and_from_what_is_filled_in() -> None:
    model, clip = tiny(points=3), film()
    objective = Masked(model, MaskedSettings(masks=(Slots(2),), masked=0.0, points=PointSettings()))
    losses = objective.losses(model, clip, drawn())
    assert set(losses) == {"points", "crooked", "still", "together", "moves"}
    losses["points"].backward()
    for name, parameter in model.named_parameters():  # the points are a target, no more
        assert (parameter.grad is None) == name.startswith("encoder.points."), name
    (losses["crooked"] + losses["moves"]).backward()
    assert model.encoder.points is not None
    assert all(parameter.grad is not None for parameter in model.encoder.points.parameters())


def test_what_is_filled_in_teaches_the_predictor_alone() -> None:
    model, clip = tiny(points=3), film(8)
    settings = MaskedSettings(masks=(Slots(2),), masked=0.0, momentum=None, fill=0.5, points=PointSettings())
    objective = Masked(model, settings)
    adam, seen = torch.optim.Adam(model.predictor.parameters(), 3e-3), []
    for step in range(60):
        losses = objective.losses(model, clip, drawn(step))
        adam.zero_grad()
        losses["fill"].backward()
        assert all(parameter.grad is None for parameter in model.encoder.parameters())
        adam.step()
        seen.append(float(losses["fill"].detach()))
    assert sum(seen[-5:]) < 0.8 * sum(seen[:5])


def test_points_need_whole_slots_and_a_model_that_finds_some() -> None:
    with pytest.raises(ValueError, match="use masks that hide whole slots"):
        Masked(tiny(points=3), MaskedSettings(masks=MASKS, points=PointSettings()))
    with pytest.raises(ValueError, match="this model finds no points that could be taught"):
        Masked(tiny(), MaskedSettings(masks=(Slots(2),), points=PointSettings()))


@pytest.mark.parametrize(
    "settings",
    [{"momentum": 0.99}, {"momentum": None, "gaussian": 0.01}, {"momentum": 0.99, "levels": (0,), "distance": "l2"}],
)
def test_the_error_falls(settings: dict[str, Any]) -> None:
    model, clip = tiny(), film(8)
    objective = Masked(model, MaskedSettings(masks=MASKS, **settings))
    adam = torch.optim.Adam(model.parameters(), 3e-3)
    seen = []
    for step in range(60):
        losses = objective.losses(model, clip, drawn(step))
        adam.zero_grad()
        total(losses).backward()
        adam.step()
        objective.after_step(model)
        seen.append(float(losses["masked"].detach()))
    assert sum(seen[-5:]) < 0.9 * sum(seen[:5])


def test_what_was_seen_counts_more_and_more() -> None:
    model, clip = tiny(), film()
    objective = Masked(model, MaskedSettings(masks=MASKS, visible=0.5, visible_warmup=4))
    weights = []
    for _ in range(6):
        weights.append(float(objective.losses(model, clip, drawn())["visible"].detach()))
        objective.after_step(model)
    assert weights[0] == 0
    assert weights[1:5] == pytest.approx([weights[4] * share for share in (0.25, 0.5, 0.75, 1)], rel=1e-4)
    assert weights[5] == pytest.approx(weights[4], rel=1e-4)


def test_without_a_teacher_something_must_keep_the_code_alive() -> None:
    with pytest.raises(ValueError, match="without a teacher the code collapses"):
        Masked(tiny(), MaskedSettings(momentum=None))


def test_the_teacher_belongs_to_the_objective() -> None:
    model = tiny()
    objective = Masked(model, MaskedSettings())
    assert not any("teacher" in name for name in model.state_dict())
    assert any(name.startswith("teacher.copy.") for name in objective.state_dict())


def test_what_is_regularised_is_reckoned_in_fp32_whatever_the_precision() -> None:
    settings = MaskedSettings(masks=MASKS, precision="bf16", gaussian=0.1, variance=0.1, covariance=0.1)
    model = tiny()
    losses = Masked(model, settings).losses(model, film(), drawn())
    assert {"gaussian", "variance", "covariance"} <= set(losses)
    assert all(losses[name].dtype == torch.float32 for name in ("gaussian", "variance", "covariance"))
