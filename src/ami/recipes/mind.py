"""Recipes made one: parts that act, watch and expect, trained one after the other into one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from ami.models.mind import Mind, MindConfig
from ami.objectives.parts import ForPart, part_of
from ami.training.loop import Stage
from ami.training.run import Recipe


def joined(name: str, parts: Mapping[str, Recipe], settings: Mapping[str, Any]) -> Recipe:
    """The recipe of a mind whose ``parts``, by their names there, learn exactly what they would have learned alone."""

    def build() -> Mind:
        models = {part: cast(Any, recipe.build()) for part, recipe in parts.items()}
        mind = Mind(MindConfig(**{part: model.config for part, model in models.items()}))
        for part, model in models.items():
            setattr(mind, part, model)
        return mind

    return Recipe(
        name=name,
        settings=settings,
        data={kind: digest for recipe in parts.values() for kind, digest in recipe.data.items()},
        seed=next(iter(parts.values())).seed,
        build=build,
        stages=tuple(
            _of_part(stage, part, tuple(other for other in parts if other != part))
            for part, recipe in parts.items()
            for stage in recipe.stages
        ),
        left_out=tuple(each for recipe in parts.values() for each in recipe.left_out),
    )


def _of_part(stage: Stage, part: str, others: tuple[str, ...]) -> Stage:
    """The stage for one part; the others stay as they are."""
    return replace(
        stage,
        objective=lambda model: ForPart(stage.objective(part_of(model, part)), part),
        loader=lambda model: stage.loader(part_of(model, part)),
        frozen=(*(f"{part}.{name}" for name in stage.frozen), *others),
    )
