"""A slot JEPA: how it finds things, follows them, holds what is hidden, and is taught."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ami.cli.training import settings_of
from ami.models import checkpoint, contract
from ami.models.slots import SlotConfig, SlotJEPA, sized
from ami.nn.slots import CELL, KEPT, Ahead, SlotMemory, Slots, SlotStem
from ami.objectives.moving import moving
from ami.objectives.slots import Following, Noticing, SlotSettings
from ami.recipes.slots import SlotsSettings, slots
from ami.training.run import train
from ami.types import Belief, Clip, Latent
from ami.worlds.violations import EMBODIMENT, experience
from tiny_stores import life_store

BODY = replace(EMBODIMENT, action_mean=(0.0, 0.0), action_std=(0.2, 0.2))
RED, BLUE = (0.9, -0.8, -0.8), (-0.8, -0.8, 0.9)
SIDE = 32
DISC = 3.0  # cells


@pytest.fixture(scope="module")
def clip() -> Clip:
    video, gusts, _ = experience(6, np.random.default_rng(0))
    pictures = torch.from_numpy(video).movedim(-1, 2)[:, :, None].contiguous()
    times = torch.arange(24).expand(6, -1) * BODY.step_seconds
    return Clip(BODY.name, times, pictures, actions=torch.from_numpy(gusts).float())


class Vivid(SlotStem):
    """A stem that need not learn: what is of a strong colour is a thing, and nothing stands before it."""

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        _, numbers = super().forward(pictures)
        cells = functional.avg_pool2d(pictures.float(), CELL)
        strong = (cells.amax(1, keepdim=True) - cells.amin(1, keepdim=True) - 100) / 10
        return torch.cat([strong, torch.full_like(strong, -20.0)], 1), numbers


@pytest.fixture
def made() -> SlotJEPA:
    """Who sees things, and is no longer sure that everything goes straight on."""
    torch.manual_seed(0)
    made = SlotJEPA(sized({BODY.name: BODY}))
    made.stem = Vivid(made.config.stem)
    with torch.no_grad():
        for parameter in made.memory.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made.eval()


def memory() -> SlotMemory:
    """Untrained: what it can do without learning."""
    torch.manual_seed(0)
    return SlotMemory(side=SIDE, slots=4, around=2, memory=8, width=8, acts=1).eval()


def drawn(*things: tuple[tuple[float, float], tuple[float, float, float]]) -> torch.Tensor:
    """A picture's maps (1, 4, 32, 32) of discs at places, in cells, of colours."""
    cell = torch.arange(float(SIDE))
    maps = torch.zeros(1, KEPT, SIDE, SIDE)
    for (x, y), colour in things:
        away = ((cell[None] - x) ** 2 + (cell[:, None] - y) ** 2).sqrt()
        disc = (DISC + 0.5 - away).clamp(0, 1)
        maps = maps * (1 - disc) + torch.cat([disc[None], torch.tensor(colour)[:, None, None] * disc])[None]
    return maps


def followed(
    made: SlotMemory, pictures: list[torch.Tensor], covers: torch.Tensor | None = None
) -> tuple[Slots, list[float], list[Slots]]:
    """What is held at the end of a film, how far off each picture was where it was open, and what was held before."""
    covered = torch.zeros(1, 1, SIDE, SIDE) if covers is None else covers
    around, acts = torch.zeros(1, 2, SIDE, SIDE), torch.zeros(1, 1)
    held, missed, past = made.first(pictures[0], covered), [], []
    for picture in pictures[1:]:
        past.append(held)
        ahead = made.expect(held, around, covered, acts)
        painted = made.paint(held, ahead)
        missed.append(float(((picture - painted).square().sum(1, keepdim=True) * (1 - covered)).sum()))
        held, _ = made.look(held, ahead, picture, covered, acts)
    return held, missed, past


def placed(held: Slots) -> list[tuple[float, float]]:
    """Where things are, left to right."""
    return sorted((x, y) for (x, y), there in zip(held.place[0].tolist(), held.there[0].tolist(), strict=True) if there)


SCREEN = torch.zeros(1, 1, SIDE, SIDE)
SCREEN[..., 6:22, 12:20] = 1
WAY = [(3.0 + 1.2 * step, 14.0) for step in range(22)]


def test_a_thing_that_goes_straight_on_is_followed_without_learning() -> None:
    with torch.no_grad():
        held, missed, _ = followed(memory(), [drawn((at, RED)) for at in WAY[:16]])
    assert placed(held) == [pytest.approx(WAY[15], abs=0.2)]
    assert held.pace[0, held.there[0] > 0].tolist() == [pytest.approx([1.2, 0.0], abs=0.05)]
    assert max(missed[4:]) < 0.1 * float(drawn((WAY[0], RED)).square().sum())


def test_what_goes_behind_a_screen_goes_on_there_and_is_missed_when_it_does_not_come_out() -> None:
    covered = [drawn((at, RED)) * (1 - SCREEN) for at in WAY]
    gone = [*covered[:12], *[torch.zeros_like(covered[0])] * 10]
    other = [*covered[:12], *[drawn((at, BLUE)) * (1 - SCREEN) for at in WAY[12:]]]
    with torch.no_grad():
        held, seen, past = followed(memory(), covered, SCREEN)
        lost, absent, _ = followed(memory(), gone, SCREEN)
        _, changed, _ = followed(memory(), other, SCREEN)
    hidden = past[10]  # quite behind it
    assert placed(hidden) == [pytest.approx(WAY[10], abs=0.5)]
    assert placed(held) == [pytest.approx(WAY[-1], abs=0.3)]
    assert not placed(lost)
    assert max(absent[11:]) > 3 * max(seen[11:])
    assert max(changed[11:]) > 3 * max(seen[11:])


def test_what_is_covered_goes_straight_on_whatever_was_learned() -> None:
    made = memory()
    with torch.no_grad():
        for parameter in made.bend.parameters():
            parameter.add_(torch.randn_like(parameter))
        held, _, _ = followed(memory(), [drawn((at, RED)) for at in WAY[:8]])
        around, acts, straight = torch.zeros(1, 2, SIDE, SIDE), torch.zeros(1, 1), held.place + held.pace
        hidden = made.expect(held, around, torch.ones(1, 1, SIDE, SIDE), acts)
        seen = made.expect(held, around, torch.zeros(1, 1, SIDE, SIDE), acts)
    there = held.there > 0
    torch.testing.assert_close(hidden.place[there], straight[there])
    assert (seen.place - straight)[there].norm() > 0.1


def test_things_that_pass_each_other_keep_what_they_are() -> None:
    pictures = [drawn(((6 + 1.1 * step, 12.0), RED), ((26 - 1.1 * step, 18.0), BLUE)) for step in range(18)]
    with torch.no_grad():
        held, _, _ = followed(memory(), pictures)
    assert placed(held) == [pytest.approx((7.3, 18.0), abs=0.4), pytest.approx((24.7, 12.0), abs=0.4)]
    colours = held.view[0, :, 1:].sum((2, 3)) / held.size[0][:, None].clamp_min(1e-3)
    for place, colour in zip(held.place[0], colours, strict=True):
        if 0 < place[0] < SIDE:
            assert colour.tolist() == pytest.approx(BLUE if place[0] < 16 else RED, abs=0.15)


def test_what_is_new_is_given_a_slot_and_what_left_the_view_gives_one_back() -> None:
    pictures = [drawn(((3 - 1.5 * step, 8.0), RED)) if step < 6 else torch.zeros(1, 4, SIDE, SIDE) for step in range(6)]
    pictures += [drawn(((2.0 + step, 20.0), BLUE)) for step in range(5)]
    with torch.no_grad():
        held, missed, _ = followed(memory(), pictures)
    assert placed(held) == [pytest.approx((6.0, 20.0), abs=0.3)]
    assert missed[5] > 20, "nobody was there the step before"


def test_slots_are_a_row_of_numbers_and_back() -> None:
    with torch.no_grad():
        held, _, _ = followed(memory(), [drawn((at, RED)) for at in WAY[:4]])
    again = Slots.of(held.flat())
    for one, other in zip(held, again, strict=True):
        torch.testing.assert_close(one, other)


def test_it_keeps_the_contract(made: SlotJEPA, clip: Clip) -> None:
    contract.check(made, clip.between(4, 12))


def test_following_a_film_expects_what_a_belief_at_each_step_predicts(made: SlotJEPA, clip: Clip) -> None:
    short = clip.between(0, 6)
    assert short.actions is not None
    with torch.no_grad():
        seen = made.encode(short)
        places = made.follow(seen, short.actions, BODY.name).place
        belief = made.believe(None, seen.between(0, 5), short.actions[:, :4], BODY.name)
        ahead = made.predict(belief, short.actions[:, 4:], 1)
        assert belief.recurrent is not None
        held = Slots.of(belief.recurrent)
        painted = made.memory.paint(held, Ahead(places[:, 4], held.pace, held.memory, held.memory))
    torch.testing.assert_close(painted.flatten(2).transpose(1, 2), ahead.values[:, 0, :, :KEPT])


def test_energy_is_asked_where_nothing_stands_before_things(made: SlotJEPA, clip: Clip) -> None:
    with torch.no_grad():
        seen = made.encode(clip.between(0, 5))
        belief = made.believe(None, seen.between(0, 4), None, BODY.name)
        last = seen.values[:, 4:].clone()
        open_, covered = last.clone(), last.clone()
        open_[..., KEPT], covered[..., KEPT] = 0.0, 1.0
        energies = [made.energy(belief, None, Latent(each, seen.times[:, 4:])) for each in (open_, covered)]
    assert (energies[0] > 0).all()
    assert not energies[1].any()


def test_energy_has_a_gradient_to_where_things_are_held_to_be(made: SlotJEPA, clip: Clip) -> None:
    with torch.no_grad():
        seen = made.encode(clip.between(0, 8))
        belief = made.believe(None, seen.between(0, 5), None, BODY.name)
    assert belief.recurrent is not None
    unknown = belief.recurrent.clone().requires_grad_()
    told = Belief(belief.embodiment, belief.latents, recurrent=unknown)
    made.energy(told, None, seen.between(5, 8)).sum().backward()
    assert unknown.grad is not None
    assert unknown.grad[..., :4].any()


def test_what_moves_is_a_thing_and_a_still_ground_is_none() -> None:
    ground = torch.randint(90, 150, (1, 1, 1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    video = ground.repeat(1, 12, 1, 1, 1, 1)
    for step in range(12):
        video[0, step, 0, :, 20:30, 4 * step : 4 * step + 10] = torch.tensor([250, 10, 10], dtype=torch.uint8)[
            :, None, None
        ]
    video[0, 5] = 128
    things, known, blank = moving(video[:, :, 0], 2)
    assert blank[0].tolist() == [step == 5 for step in range(12)]
    assert not known[0, 5]
    for step in (0, 3, 11):
        assert known[0, step]
        assert (things[0, step, 10:15, 2 * step : 2 * step + 5] == 1).all()
        things[0, step, 10:15, 2 * step : 2 * step + 5] = 0
        assert not things[0, step].any()


def test_noticing_teaches_the_stem_and_following_what_comes_after(made: SlotJEPA, clip: Clip) -> None:
    made.stem = SlotStem(made.config.stem)
    made.train()
    for objective, taught in ((Noticing(), {"stem"}), (Following(), {"around", "memory", "doors"})):
        made.zero_grad()
        if isinstance(objective, Following):
            made.stem.requires_grad_(False)
        losses = objective.losses(made, clip, torch.Generator().manual_seed(0))
        torch.stack(list(losses.values())).sum().backward()
        reached = {name.split(".")[0] for name, each in made.named_parameters() if each.grad is not None}
        assert reached == taught
        assert all(each.isfinite() for each in losses.values())


def test_where_things_are_is_learned_from_the_film_without_its_screen(made: SlotJEPA, clip: Clip) -> None:
    """Without a screen the student sees what its teacher sees: what is missed is by how much each step was missed."""
    with torch.no_grad():
        seen = made.encode(clip)
        film = made.follow(seen, clip.actions, clip.embodiment)
        far = (film.place - film.looked).norm(dim=-1)
        counts = film.told * film.there * (film.looks >= 2)
        unscreened = Following(SlotSettings(screens=0.0, near=1e-6)).losses(made, clip, torch.Generator())
    assert counts.sum() > 20
    missed = float((far * counts).sum() / counts.sum())
    assert float(unscreened["place"]) == pytest.approx(missed, rel=0.25)


def test_a_clip_without_pictures_is_refused(made: SlotJEPA, clip: Clip) -> None:
    blind = replace(clip, video=None, proprio=torch.zeros(6, 24, 2))
    for objective in (Noticing(), Following()):
        with pytest.raises(ValueError, match="the clip has none; give clips with video"):
            objective.losses(made, blind, torch.Generator())
    with pytest.raises(ValueError, match="no slot JEPA of size 'giant'; choose one of baby, tiny, small"):
        sized({BODY.name: BODY}, "giant")
    with pytest.raises(ValueError, match="needs actions of shape"):
        made.believe(None, made.encode(clip.between(0, 3)), torch.zeros(6, 5, 2), BODY.name)
    with pytest.raises(ValueError, match="Extra inputs"):
        SlotConfig(embodiments={BODY.name: BODY}, heads=3)  # pyright: ignore[reportCallIssue]


def test_the_recipe_notices_then_follows_and_its_checkpoint_is_the_same_model(tmp_path: Path) -> None:
    store = life_store(tmp_path / "physics")
    settings = SlotsSettings(notice=2, steps=2, notice_batch=2, batch=2)
    folder = train(slots([store], 0, settings), tmp_path / "run")
    made = checkpoint.load(folder)
    assert isinstance(made, SlotJEPA)
    assert [stage.name for stage in slots([store], 0, settings).stages] == ["notice", "follow"]
    alone = checkpoint.load(train(slots([store], 0, replace(settings, steps=1)), tmp_path / "less"))
    assert isinstance(alone, SlotJEPA)
    one, other = made.state_dict(), alone.state_dict()
    changed = {name.split(".")[0] for name in one if not torch.equal(one[name], other[name])}
    assert changed == {"around", "memory", "doors"}, "what sees is frozen while things are followed"


def test_so_many_steps_are_asked_for_in_all() -> None:
    for steps in (2, 13, 130):
        asked = settings_of("slots", steps=steps)
        assert isinstance(asked, SlotsSettings)
        assert (asked.notice, asked.steps) == (max(round(steps * 4 / 13), 1), steps - max(round(steps * 4 / 13), 1))
    with pytest.raises(ValueError, match="1 steps were asked for; at least 2 are needed, one for each stage"):
        settings_of("slots", steps=1)
