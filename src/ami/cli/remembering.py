"""The verbs of memory: put recordings in, find them again by a picture, and look after what is kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from tyro.conf import Positional, subcommand

from ami.cli.show import Bars, Outcome, lines, listing, plain, with_lines
from ami.cli.verb import Group, Heavy, Verb


@dataclass(frozen=True, kw_only=True)
class Remember(Heavy):
    """Remember recordings: each step's latent, time, place, surprise and a thumbnail, in a memory on disk."""

    checkpoint: Positional[Path]  # folder of a checkpoint, or of a finished run
    recordings: Positional[tuple[Path, ...]]  # stores, films, or folders of films; what is remembered is not again
    memory: str  # folder of the memory, or postgresql://HOST/DATABASE#NAME; a new one is begun where there is none
    began: str = "0"  # when they began: seconds, or a date as 2026-11-26T04:30; times of moments count from there
    limit: int | None = None  # moments that a new memory holds at most: the surprising and rarely seen stay

    after_interrupt: ClassVar[str] = "the recordings that were remembered stay so, and the same command goes on"

    def run(self) -> Outcome:
        """Remember them."""
        from ami.cli.moments import moments, recordings, second
        from ami.memory.episodic import About, Memory, kind

        if not self.recordings:
            raise ValueError("no recording was named; give stores, films, or folders of films")
        began = second(self.began)
        folder, model, digest = _model(self.checkpoint)
        body, found = recordings(self.recordings, model)
        memory, added, known = None, 0, set()
        if kind(self.memory).exists(self.memory):
            memory = Memory.open(self.memory, write=True)
        try:
            if memory is not None:
                memory.refuse_other(digest)
                _refuse_different(memory, body, self.limit)
                known = set(memory.episodes())
            with Bars() as bars:
                for done, recording in enumerate(found):
                    bars.tell("remembering", done, len(found))
                    if recording.name in known:
                        continue
                    made = moments(model, body, recording, began)
                    if memory is None and made:
                        about = About(digest, body, len(made[0].latent), str(folder.resolve()), self.limit)
                        memory = Memory.create(self.memory, about)
                    if memory is not None:
                        added += len(memory.append(made))
                bars.tell("remembering", len(found), len(found))
            if memory is None:
                raise ValueError("the recordings are shorter than a step of the model; there is nothing to remember")
            held = {**_summary(memory), "added": added, "known_before": sum(each.name in known for each in found)}
        finally:
            if memory is not None:
                memory.close()
        return Outcome(held, lines(f"{added} moments added; {held['moments']} are in {held['memory']}"))

    @property
    def writes(self) -> str:
        """The memory it fills."""
        return _called(self.memory)


@dataclass(frozen=True, kw_only=True)
class Recall(Heavy):
    """When and where was something like this seen? Answers from a memory by likeness to a picture."""

    memory: Positional[str]  # folder of the memory, or postgresql://HOST/DATABASE#NAME
    image: Path  # a picture of what is asked
    top: int = 5  # moments to recall
    apart: float = 1.0  # seconds that lie at least between two of them of the same episode
    since: str | None = None  # not before: seconds, or a date as 2026-11-26T04:30
    until: str | None = None  # not after
    near: tuple[float, float, float, float] | None = None  # x y z and a radius, m: not farther away than that
    episode: tuple[str, ...] = ()  # only in these episodes
    exact: bool = False  # look at every moment, however many there are
    checkpoint: Path | None = None  # whose memory it is, where that does not lie any more where it lay
    sheet: Path | None = None  # a new PNG file: what was asked, and beside it what came back

    def run(self) -> Outcome:
        """Recall."""
        from ami import files
        from ami.cli.moments import document, said, second, sheet
        from ami.cli.planning import read_picture
        from ami.memory.episodic import Memory
        from ami.memory.moment import Where
        from ami.memory.perceiving import perceive_stills

        if self.sheet is not None and self.sheet.exists():
            raise ValueError(f"{self.sheet} is there already; choose another name with --sheet, or delete it first")
        where = Where(
            None if self.since is None else second(self.since),
            None if self.until is None else second(self.until),
            self.near,
            self.episode or None,
        )
        with Memory.open(self.memory) as memory:
            _, model, digest = _model(self.checkpoint or Path(memory.about.folder))
            memory.refuse_other(digest)
            body = memory.about.embodiment
            asked = read_picture(self.image, model.part(body).picture or 64)
            latent = perceive_stills(model, body, asked[None])[0]
            found = memory.recall(latent, self.top, where, apart=self.apart, exact=self.exact)
        if self.sheet is not None:
            drawn = sheet(asked, found)
            files.write_whole(self.sheet, lambda file: file.write(drawn))
        held = document(found)
        rows = [
            (str(each["moment"]), f"{each['distance']:.4g}", each["episode"], said(each["time"]), _place(each))
            for each in held
        ]
        written = [] if self.sheet is None else [f"the sheet is {self.sheet}"]
        return Outcome(
            {"recalled": held}, with_lines(listing([("moment", "distance", "episode", "time", ""), *rows]), *written)
        )

    @property
    def writes(self) -> Path | None:
        """The file it makes."""
        return self.sheet


@dataclass(frozen=True, kw_only=True)
class MemoryInfo(Verb):
    """Say what a memory holds."""

    memory: Positional[str]  # folder of the memory, or postgresql://HOST/DATABASE#NAME

    def run(self) -> Outcome:
        """Look at it."""
        from ami.memory.episodic import Memory

        with Memory.open(self.memory) as memory:
            held = _summary(memory)
        return Outcome(held, listing([(name, plain(value)) for name, value in held.items()]))


@dataclass(frozen=True, kw_only=True)
class MemoryCheck(Verb):
    """Look at every byte of a memory; the exit code is 1 where something is wrong."""

    memory: Positional[str]  # folder of the memory, or postgresql://HOST/DATABASE#NAME

    def run(self) -> Outcome:
        """Examine it."""
        from ami.memory.episodic import Memory

        with Memory.open(self.memory) as memory:
            found = memory.check()
        return Outcome(found, lines(*(found or ["all is as it was written"])), int(bool(found)))


@dataclass(frozen=True, kw_only=True)
class MemoryPrune(Verb):
    """Forget all but so many moments: the most surprising stay, and of the rest as varied a choice as there is."""

    memory: Positional[str]  # folder of the memory, or postgresql://HOST/DATABASE#NAME
    keep: int  # moments that stay

    after_interrupt: ClassVar[str] = "nothing was forgotten"

    def run(self) -> Outcome:
        """Forget them."""
        from ami.memory.episodic import Memory

        with Memory.open(self.memory, write=True) as memory:
            done = memory.prune(self.keep)
        said = (
            f"{done.after} of {done.before} moments stay; nothing went that was farther than {done.radius:.4g} from all"
        )
        return Outcome(asdict(done), lines(said))

    @property
    def writes(self) -> str:
        """The memory it changes."""
        return _called(self.memory)


@dataclass(frozen=True, kw_only=True)
class MemoryForget(Verb):
    """Delete moments, and every trace of them on disk."""

    memory: Positional[str]  # folder of the memory, or postgresql://HOST/DATABASE#NAME
    moments: tuple[int, ...] = ()  # their numbers, as ami recall says them
    episode: tuple[str, ...] = ()  # all of these episodes
    blind: bool = False  # all that have no thumbnail

    after_interrupt: ClassVar[str] = "nothing was forgotten"

    def run(self) -> Outcome:
        """Delete them."""
        from ami.memory.episodic import Memory
        from ami.memory.moment import Where

        if not (self.moments or self.episode or self.blind):
            raise ValueError("nothing was named to forget; say --moments, --episode or --blind")
        with Memory.open(self.memory, write=True) as memory:
            going = {*self.moments, *(memory.blind() if self.blind else ())}
            going |= set(memory.rows(Where(episodes=self.episode)).numbers.tolist() if self.episode else ())
            gone, left = memory.forget(going), len(memory)
        return Outcome({"forgotten": gone, "left": left}, lines(f"{gone} moments forgotten; {left} are left"))

    @property
    def writes(self) -> str:
        """The memory it changes."""
        return _called(self.memory)


@dataclass(frozen=True, kw_only=True)
class MemoryReembed(Heavy):
    """Bring a memory over to another checkpoint, which looks at all thumbnails again; all of it or nothing."""

    memory: Positional[str]  # folder of the memory, or postgresql://HOST/DATABASE#NAME
    checkpoint: Positional[Path]  # folder of the other checkpoint, or of a finished run
    embodiment: str | None = None  # that it sees them as, where that has another name there

    after_interrupt: ClassVar[str] = "the memory is as it was"

    def run(self) -> Outcome:
        """Bring it over."""
        import numpy as np

        from ami.cli.moments import looked_at
        from ami.cli.refuse import choose
        from ami.memory.episodic import About, Memory
        from ami.memory.perceiving import perceive_stills

        folder, model, digest = _model(self.checkpoint)
        with Memory.open(self.memory, write=True) as memory:
            body = self.embodiment or memory.about.embodiment
            choose("embodiment that this model has learned", body, model.embodiments)
            side = model.part(body).picture or 64
            dim = perceive_stills(model, body, np.zeros((1, side, side, 3), np.uint8)).shape[1]
            memory.reembed(
                About(digest, body, dim, str(folder.resolve())),
                lambda thumbnails: looked_at(model, body, thumbnails),
            )
            held = _summary(memory)
        return Outcome(held, lines(f"{held['moments']} moments are now those of {digest[:12]}"))

    @property
    def writes(self) -> str:
        """The memory it changes."""
        return _called(self.memory)


@dataclass(frozen=True, kw_only=True)
class MemoryExport(Verb):
    """Write a memory as arrays that NumPy alone can open."""

    memory: Positional[str]  # folder of the memory, or postgresql://HOST/DATABASE#NAME
    out: Path  # the new .npz file

    def run(self) -> Outcome:
        """Write it."""
        from ami.memory.episodic import Memory
        from ami.memory.exchange import export

        if self.out.suffix != ".npz" or self.out.exists():
            raise ValueError(f"--out is {self.out}; name a file that is not there yet, and ends in .npz")
        with Memory.open(self.memory) as memory:
            written = export(memory, self.out)
        return Outcome({"file": str(self.out), "moments": written}, lines(f"{written} moments in {self.out}"))

    @property
    def writes(self) -> Path:
        """The file it fills."""
        return self.out


@dataclass(frozen=True, kw_only=True)
class MemoryImport(Verb):
    """Make a new memory of one that was exported."""

    file: Positional[Path]  # the .npz file
    memory: str  # folder of the new memory, or postgresql://HOST/DATABASE#NAME

    def run(self) -> Outcome:
        """Read it."""
        from ami.memory.exchange import bring_in

        read = bring_in(self.file, self.memory)
        return Outcome(
            {"memory": _called(self.memory), "moments": read}, lines(f"{read} moments in {_called(self.memory)}")
        )

    @property
    def writes(self) -> str:
        """The memory it fills."""
        return _called(self.memory)


@dataclass(frozen=True)
class Memories(Group):
    """Look after a memory: what it holds, whether it is whole, what shall be forgotten, out and in."""

    what: (
        Annotated[MemoryInfo, subcommand("info")]
        | Annotated[MemoryCheck, subcommand("check")]
        | Annotated[MemoryPrune, subcommand("prune")]
        | Annotated[MemoryForget, subcommand("forget")]
        | Annotated[MemoryReembed, subcommand("reembed")]
        | Annotated[MemoryExport, subcommand("export")]
        | Annotated[MemoryImport, subcommand("import")]
    )


def _called(memory: str) -> str:
    """A memory as sentences call it: without a password."""
    from ami.memory.episodic import kind

    return kind(memory).called(memory)


def _model(named: Path) -> tuple[Path, Any, str]:
    """A checkpoint's folder, its model and its digest."""
    from ami.cli.asking import checkpoint_in
    from ami.models import checkpoint

    folder = checkpoint_in(named)
    return folder, checkpoint.load(folder).eval(), checkpoint.digest(folder)


def _refuse_different(memory: Any, body: str, limit: int | None) -> None:
    if memory.about.embodiment != body:
        raise ValueError(
            f"{memory.name} remembers what {memory.about.embodiment!r} saw, not {body!r}; name another memory"
        )
    if limit is not None and limit != memory.about.limit:
        raise ValueError(f"{memory.name} was begun with a limit of {memory.about.limit}; --limit is for a new memory")


def _summary(memory: Any) -> dict[str, Any]:
    return {"memory": memory.name, **asdict(memory.about), **memory.summary()}


def _place(each: dict[str, Any]) -> str:
    return "" if each["place"] is None else "at " + " ".join(f"{number:.2f}" for number in each["place"]) + " m"
