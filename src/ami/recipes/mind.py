"""Recipes made one: parts that act, watch, expect, explore and view, each trained by itself into one checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from ami.models.mind import Mind, MindConfig
from ami.training.run import Recipe
from ami.types import WorldModel


def joined(name: str, parts: Mapping[str, Callable[[], Recipe]], under: Mapping[str, str]) -> Recipe:
    """The recipe of a mind whose ``parts``, by their names there, learn exactly what they would have learned alone.

    ``under`` says by which name a part's settings are kept; those of a part that is not in it are at the top.
    """
    recipes = {part: make() for part, make in parts.items()}
    settings: dict[str, Any] = {}
    for part, recipe in recipes.items():
        settings |= {under[part]: recipe.settings} if part in under else recipe.settings
    return Recipe(
        name=name,
        settings=settings,
        data={kind: digest for recipe in recipes.values() for kind, digest in recipe.data.items()},
        seed=next(iter(recipes.values())).seed,
        build=lambda: _mind({part: recipe.build() for part, recipe in recipes.items()}),
        stages=tuple(stage for recipe in recipes.values() for stage in recipe.stages),
        left_out=tuple(each for recipe in recipes.values() for each in recipe.left_out),
        parts=parts,
        join=_mind,
    )


def _mind(parts: Mapping[str, WorldModel]) -> Mind:
    """One model of several."""
    mind = Mind(MindConfig(**{name: cast(Any, model).config for name, model in parts.items()}))
    for name, model in parts.items():
        setattr(mind, name, model)
    return mind
