"""One Python function per recipe, by name."""

from collections.abc import Callable

from ami.recipes.baby import baby, bridge, tasks
from ami.recipes.films import video
from ami.recipes.objects import objects
from ami.recipes.physics import physics
from ami.recipes.places import places
from ami.recipes.slots import slots
from ami.recipes.spatial import spatial, spatial_colours, spatial_shuffled
from ami.training.run import Recipe

RECIPES: dict[str, Callable[..., Recipe]] = {
    "baby": baby,
    "video": video,
    "bridge": bridge,
    "tasks": tasks,
    "physics": physics,
    "slots": slots,
    "objects": objects,
    "places": places,
    "spatial": spatial,
    "spatial-colours": spatial_colours,
    "spatial-shuffled": spatial_shuffled,
}
