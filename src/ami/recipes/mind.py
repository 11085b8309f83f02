"""Two recipes made one: a part that acts and a part that watches, trained one after the other into one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ami.models.jepa import JEPA
from ami.models.mind import Mind, MindConfig
from ami.models.vjepa import VJEPA
from ami.objectives.parts import ForPart, part_of
from ami.training.loop import Stage
from ami.training.run import Recipe


def both(name: str, acting: Recipe, watching: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of a mind whose parts learn exactly what they would have learned alone."""

    def build() -> Mind:
        acts, watches = acting.build(), watching.build()
        assert isinstance(acts, JEPA)
        assert isinstance(watches, VJEPA)
        mind = Mind(MindConfig(acting=acts.config, watching=watches.config))
        mind.acting, mind.watching = acts, watches
        return mind

    return Recipe(
        name=name,
        settings=settings,
        data={**acting.data, **watching.data},
        seed=acting.seed,
        build=build,
        stages=(
            *(_of_part(stage, "acting", "watching") for stage in acting.stages),
            *(_of_part(stage, "watching", "acting") for stage in watching.stages),
        ),
        left_out=(*acting.left_out, *watching.left_out),
    )


def _of_part(stage: Stage, part: str, other: str) -> Stage:
    """The stage for one part; the other stays as it is."""
    return replace(
        stage,
        objective=lambda model: ForPart(stage.objective(part_of(model, part)), part),
        loader=lambda model: stage.loader(part_of(model, part)),
        frozen=(*(f"{part}.{name}" for name in stage.frozen), other),
    )
