"""One model for everything: parts that act, watch, expect, find their way and look about, in one checkpoint."""

from __future__ import annotations

from itertools import combinations

from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ami.models.jepa import JEPA, JEPAConfig
from ami.models.places import PlacesConfig, PlacesJEPA
from ami.models.recurrent import RecurrentConfig, RecurrentJEPA
from ami.models.spatial import SpatialConfig, SpatialJEPA
from ami.models.vjepa import VJEPA, VJEPAConfig
from ami.types import Belief, Clip, Latent, WorldModel


class MindConfig(BaseModel):
    """The settings of all parts that it has, one at least. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    acting: JEPAConfig | None = None
    watching: VJEPAConfig | None = None
    expecting: RecurrentConfig | None = None
    exploring: PlacesConfig | None = None
    viewing: SpatialConfig | None = None


PARTS = ("acting", "watching", "expecting", "exploring", "viewing")


class Mind(WorldModel):
    """A JEPA acts, a V-JEPA watches, a recurrent JEPA lives through films, a JEPA of places walks about, and a spatial
    JEPA views what cameras with poses see.

    Who acts needs a few numbers that a planner can roll out a thousand times; what a film shows needs a whole grid of
    tokens; what it hides needs a memory of that grid; where things are needs one of places; and how it looks from any
    pose, by whatever sense, needs cells that know where they lie. Today the parts share nothing but the checkpoint, its
    digest and the recipe that trains them all.
    """

    def __init__(self, config: MindConfig) -> None:
        super().__init__()
        given = {name: part for name in PARTS if (part := getattr(config, name)) is not None}
        if not given:
            raise ValueError(f"a mind has one part at least, of {', '.join(PARTS)}; this one has none")
        for one, other in combinations(given.values(), 2):
            if twice := one.embodiments.keys() & other.embodiments.keys():
                raise ValueError(f"'{min(twice)}' cannot belong to two parts of a mind; give it to one")
        self.config = config
        self.acting = None if config.acting is None else JEPA(config.acting)
        self.watching = None if config.watching is None else VJEPA(config.watching)
        self.expecting = None if config.expecting is None else RecurrentJEPA(config.expecting)
        self.exploring = None if config.exploring is None else PlacesJEPA(config.exploring)
        self.viewing = None if config.viewing is None else SpatialJEPA(config.viewing)
        self.embodiments = {name: body for part in self.parts for name, body in part.embodiments.items()}
        self.latent_shape, self.picture = self.parts[0].latent_shape, self.parts[0].picture
        self.causal = all(part.causal for part in self.parts)
        self.frames = max(part.frames for part in self.parts)
        self.reaches = () if self.acting is None else self.acting.reaches
        self.judges = () if self.acting is None else self.acting.judges
        self.imitates = () if self.acting is None else self.acting.imitates
        self.unsure = () if self.acting is None else self.acting.unsure
        self.lives = () if self.expecting is None else self.expecting.lives
        self.places = () if self.exploring is None else self.exploring.places

    @property
    def parts(self) -> list[WorldModel]:
        """Those that it has."""
        own = self.acting, self.watching, self.expecting, self.exploring, self.viewing
        return [part for part in own if part is not None]

    def part(self, embodiment: str) -> WorldModel:
        """Who answers for an embodiment."""
        self.known(embodiment)
        return next(part for part in self.parts if embodiment in part.embodiments)

    def encode(self, clip: Clip) -> Latent:
        """As its part does."""
        return self.part(clip.embodiment).encode(clip)

    def believe(
        self,
        belief: Belief | None,
        seen: Latent,
        actions: Float[Tensor, "batch time action"] | None,
        embodiment: str = "",
    ) -> Belief:
        """As its part does."""
        return self.part(belief.embodiment if belief else embodiment).believe(belief, seen, actions, embodiment)

    def predict(self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, horizon: int) -> Latent:
        """As its part does."""
        return self.part(belief.embodiment).predict(belief, actions, horizon)

    def energy(
        self, belief: Belief, actions: Float[Tensor, "batch horizon action"] | None, future: Latent
    ) -> Float[Tensor, "batch horizon"]:
        """As its part does; energies of two parts are in two units."""
        return self.part(belief.embodiment).energy(belief, actions, future)

    def reach(self, now: Latent, goal: Latent, embodiment: str) -> Float[Tensor, "batch time"]:
        """As its part does."""
        return self.part(embodiment).reach(now, goal, embodiment)

    def reachable(self, now: Latent, goal: Latent, embodiment: str) -> Float[Tensor, "batch time"]:
        """As its part does."""
        return self.part(embodiment).reachable(now, goal, embodiment)

    def landmarks(self, embodiment: str) -> Latent | None:
        """As its part does."""
        return self.part(embodiment).landmarks(embodiment)

    def uncertainty(
        self, imagined: Latent, actions: Float[Tensor, "batch horizon action"], embodiment: str
    ) -> Float[Tensor, "batch horizon"]:
        """As its part does."""
        return self.part(embodiment).uncertainty(imagined, actions, embodiment)

    def propose(self, belief: Belief, goal: Latent, horizon: int) -> Float[Tensor, "batch horizon action"]:
        """As its part does."""
        return self.part(belief.embodiment).propose(belief, goal, horizon)

    def where(self, belief: Belief) -> Float[Tensor, "batch pose"]:
        """As its part does."""
        return self.part(belief.embodiment).where(belief)

    def look(self, belief: Belief, poses: Float[Tensor, "batch view pose"]) -> Latent:
        """As its part does."""
        return self.part(belief.embodiment).look(belief, poses)

    def free(self, belief: Belief, points: Float[Tensor, "batch point axis"]) -> Float[Tensor, "batch point"]:
        """As its part does."""
        return self.part(belief.embodiment).free(belief, points)

    def recognise(
        self, belief: Belief, poses: Float[Tensor, "batch view pose"], seen: Latent
    ) -> Float[Tensor, "batch seen"]:
        """As its part does."""
        return self.part(belief.embodiment).recognise(belief, poses, seen)

    def remind(self, belief: Belief, poses: Float[Tensor, "batch view pose"], seen: Latent) -> Belief:
        """As its part does."""
        return self.part(belief.embodiment).remind(belief, poses, seen)
