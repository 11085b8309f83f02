"""The teacher follows exactly and never learns; the student learns from what it did not see."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ami.objectives.masked import Masked, MaskedSettings, normal, take
from ami.objectives.masks import Blocks, Grid, Slots
from ami.objectives.teacher import Teacher
from ami.types import Clip, WorldModel

GRID = Grid(2, 4, 4)
MASKS = (Blocks(2, 0.15), Slots(1))


class Encoder(nn.Module):
    """A token is a random view of its patch and of the mean of all that it was shown with."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Linear(12, 6)
        self.norm = nn.BatchNorm1d(6)
        self.saw: list[int] = []

    def forward(self, video: Tensor, visible: Tensor | None) -> Tensor:
        cut = video.float().unflatten(-1, (4, 2)).unflatten(-3, (4, 2)).permute(0, 1, 4, 6, 2, 3, 5, 7)
        tokens = cut.flatten(4).flatten(1, 3) / 255
        tokens = tokens if visible is None else take(tokens, visible)
        self.saw.append(tokens.shape[1])
        tokens = self.look(tokens)
        return self.norm((tokens + tokens.mean(1, keepdim=True)).flatten(0, 1)).view_as(tokens)


class Predictor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Embedding(GRID.slots * GRID.tokens, 6)
        self.out = nn.Linear(6, 6)

    def forward(self, context: Tensor, visible: Tensor, wanted: Tensor) -> Tensor:
        return self.out(context.mean(1, keepdim=True) + self.place(wanted))


class Tiny(WorldModel):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.random.default_generator.manual_seed(0)
            self.encoder, self.predictor = Encoder(), Predictor()

    def grid_of(self, clip: Clip) -> Grid:
        return GRID


def film(batch: int = 6) -> Clip:
    video = torch.randint(0, 256, (batch, 2, 1, 3, 8, 8), dtype=torch.uint8, generator=drawn(1))
    return Clip("film", times=torch.arange(2.0).expand(batch, 2), video=video)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def test_the_teacher_is_an_exact_average_of_parameters_and_buffers() -> None:
    student = Encoder()
    teacher = Teacher(student, 0.9)
    wanted = copy.deepcopy(student).state_dict()
    for step in range(5):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=drawn(step)))
            student(film().video, None)  # moves the running statistics
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
        Teacher(Encoder(), 1.0)


def test_no_gradient_passes_the_teacher() -> None:
    """A flipped stop-gradient would give the target a gradient: the loss would not be one of the guesses alone."""
    model, clip = Tiny(), film()
    objective = Masked(model, MaskedSettings(masks=MASKS))
    assert objective.teacher is not None
    total(objective.losses(model, clip, drawn())).backward()
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_gradient_is_that_of_the_guesses_alone() -> None:
    model, clip = Tiny(), film()
    objective = Masked(model, MaskedSettings(masks=(Slots(1),), distance="l2"))
    objective.losses(model, clip, drawn())["masked"].backward()
    found = [parameter.grad.clone() for parameter in model.encoder.parameters()]
    twin = Tiny()
    fixed = normal(copy.deepcopy(twin.encoder)(clip.video, None)).detach()
    mask = Slots(1).draw(len(clip), GRID, drawn())
    guessed = twin.predictor(twin.encoder(clip.video, mask.visible), mask.visible, mask.hidden)
    (guessed - take(fixed, mask.hidden)).square().mean().backward()
    for one, other in zip(found, twin.encoder.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


def test_hidden_tokens_never_enter_the_student() -> None:
    model, clip = Tiny(), film()
    objective = Masked(model, MaskedSettings(masks=MASKS))
    objective.losses(model, clip, drawn())
    masks = [masking.draw(len(clip), GRID, generator) for generator in [drawn()] for masking in MASKS]
    assert model.encoder.saw == [mask.visible.shape[1] for mask in masks]
    assert objective.teacher is not None
    assert objective.teacher.copy.saw == [GRID.slots * GRID.tokens]  # once, for all masks


@pytest.mark.parametrize("settings", [{}, {"momentum": None, "gaussian": 0.1}, {"momentum": None, "variance": 1.0}])
def test_the_error_falls(settings: dict[str, Any]) -> None:
    model, clip = Tiny(), film(16)
    objective = Masked(model, MaskedSettings(masks=MASKS, **settings))
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    seen = []
    for step in range(120):
        losses = objective.losses(model, clip, drawn(step))
        adam.zero_grad()
        total(losses).backward()
        adam.step()
        objective.after_step(model)
        seen.append(float(losses["masked"].detach()))
    assert sum(seen[-5:]) < 0.9 * sum(seen[:5])


def test_what_was_seen_counts_more_and_more() -> None:
    model, clip = Tiny(), film()
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
        Masked(Tiny(), MaskedSettings(momentum=None))


def test_the_teacher_belongs_to_the_objective() -> None:
    model = Tiny()
    objective = Masked(model, MaskedSettings())
    assert not any("teacher" in name for name in model.state_dict())
    assert any(name.startswith("teacher.copy.") for name in objective.state_dict())
