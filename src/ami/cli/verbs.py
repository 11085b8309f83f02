"""The verbs of the command line and their settings; what is heavy to import is imported when a verb runs."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, subcommand

from ami.cli.imagining import Imagine, Readout
from ami.cli.remembering import Memories, Recall, Remember
from ami.cli.show import Bars, Outcome, comparison, findings, lines, listed, listing, missing, plain, with_lines
from ami.cli.verb import Group, Heavy, Verb
from ami.cli.viewing import View
from ami.cli.watching import Watch
from ami.cli.weights import Export, Features, Import


@dataclass(frozen=True, kw_only=True)
class Demo(Heavy):
    """The main job: gather experience, train one baby model, ask it everything, write the report.

    What is done is kept: interrupted, the same command goes on; finished, it shows the report again.
    """

    out: Path = Path("runs/demo")  # folder for the data, the run and the report
    data: tuple[Path, ...] = ()  # films and robot episodes to learn from as well: files, or folders of them
    skip_bad: bool = False  # leave out what cannot be read, a file or the end of a film
    seed: int = 0  # of the experience, the training and the questions
    fresh: bool = False  # delete what an earlier demo left in the folder, and begin anew

    after_interrupt: ClassVar[str] = "what was done is kept, and the same command goes on from there"

    def run(self) -> Outcome:
        """Do the main job."""
        from ami.cli import demo

        request = demo.Request(self.out, self.data, self.seed, self.skip_bad)
        if self.fresh:
            demo.clear(self.out)
        with Bars() as bars:
            document, made = demo.demo(request, bars)
        return demo.outcome(self.out, document, "the report is" if made else "this demo was finished before:")

    @property
    def writes(self) -> Path:
        """The folder it fills."""
        return self.out


@dataclass(frozen=True, kw_only=True)
class Worlds(Verb):
    """List the worlds that experience can be recorded in."""

    def run(self) -> Outcome:
        """Say what there is."""
        from ami.cli.collecting import WORLDS

        return listed(WORLDS)


@dataclass(frozen=True, kw_only=True)
class Recipes(Verb):
    """List the recipes that a model can be trained by."""

    def run(self) -> Outcome:
        """Say what there is."""
        from ami.recipes import RECIPES

        return listed({name: (recipe.__doc__ or "").split("\n")[0] for name, recipe in RECIPES.items()})


@dataclass(frozen=True, kw_only=True)
class Suites(Verb):
    """List the suites of questions that a checkpoint can be asked."""

    def run(self) -> Outcome:
        """Say what there is."""
        from ami.evaluation.suites import SUITES

        return listed({name: suite.asks for name, suite in SUITES.items()})


@dataclass(frozen=True, kw_only=True)
class Collect(Verb):
    """Record experience in a world into a new store."""

    world: Positional[str]  # a name that `ami worlds` lists, or gym:ID for any Gymnasium environment with pixels
    out: Path  # folder of the new store
    episodes: int = 300  # in all; several families share them equally
    steps: int = 65  # model steps in an episode
    seed: int = 0  # of the layouts and the walks

    def run(self) -> Outcome:
        """Record it."""
        from ami.cli.collecting import collect
        from ami.data.doctor import info

        with Bars() as bars:
            store = collect(self.world, self.out, self.episodes, self.steps, self.seed, bars.tell)
        held = info(store)
        return Outcome(held, lines(f"{held['episodes']} episodes, {held['frames']} frames in {self.out}"))

    @property
    def writes(self) -> Path:
        """The folder it fills."""
        return self.out


@dataclass(frozen=True, kw_only=True)
class Ingest(Verb):
    """Turn recordings into a new store, all of them or nothing.

    Films (mp4, mov, avi, mkv, webm), RGB-D folders (TUM, 7-Scenes), point clouds (ply, pcd), robot episodes (LeRobot
    datasets, robomimic's hdf5, Push-T's zarr, BridgeData's npz).
    """

    paths: Positional[tuple[Path, ...]]  # files, or folders of them
    out: Path  # folder of the new store
    size: int = 64  # px on a side: pictures are cut to their middle square
    fps: float | None = None  # frames a second: where it is not said, 10 of films and clouds, all of anything else
    camera: str | None = None  # which camera of a robot, by its name; the first, if not said
    calibration: Path | None = None  # camera.json (fx, fy, cx, cy, depth_scale) of RGB-D folders that have none
    points: int = 1024  # points to keep of each cloud
    skip_bad: bool = False  # leave out what cannot be read, a file or the end of a film; the index lists it

    def run(self) -> Outcome:
        """Read them."""
        from ami.data.ingest import ingest
        from ami.data.recording import Wanted

        wanted = Wanted(self.size, self.fps, self.camera, self.calibration, self.points)
        with Bars() as bars:
            report = ingest(
                self.paths,
                self.out,
                wanted,
                skip_bad=self.skip_bad,
                progress=lambda done, total: bars.tell("reading files", done, total),
            )
        held = {**asdict(report), "store": str(report.store)}
        said = f"{report.episodes} episodes, {report.frames} frames in {self.out}"
        return Outcome(held, lines(said, *missing(report.left_out)))

    @property
    def writes(self) -> Path:
        """The folder it fills."""
        return self.out


@dataclass(frozen=True, kw_only=True)
class Info(Verb):
    """Say what a store holds."""

    store: Positional[Path]  # folder of the store

    def run(self) -> Outcome:
        """Look at it."""
        from ami.data.doctor import info
        from ami.data.episodes import Store

        store = Store.open(self.store)
        held = info(store)
        shown = listing([(name, plain(value)) for name, value in held.items() if name != "left_out"])
        return Outcome(held, with_lines(shown, *missing(store.left_out)))


@dataclass(frozen=True, kw_only=True)
class Check(Verb):
    """Examine a store as a doctor would; the exit code is 1 where something is wrong, 0 where something may be."""

    store: Positional[Path]  # folder of the store
    against: Path | None = None  # another store, to look for episodes and frames that are in both

    def run(self) -> Outcome:
        """Examine it."""
        from ami.data.doctor import check
        from ami.data.episodes import Store

        other = None if self.against is None else Store.open(self.against)
        found = [asdict(finding) for finding in check(Store.open(self.store), other)]
        return Outcome(found, findings(found), int(any(each["level"] == "error" for each in found)))


@dataclass(frozen=True)
class Data(Group):
    """Look into a store: what it holds, and what is wrong with it."""

    what: Annotated[Info, subcommand("info")] | Annotated[Check, subcommand("check")]


@dataclass(frozen=True, kw_only=True)
class Train(Heavy):
    """Train a model by a recipe; the checkpoint is in the run's folder at the end. `torchrun` starts several ranks."""

    recipe: Positional[str]  # a name that `ami recipes` lists
    data: tuple[Path, ...] = ()  # stores to learn from, one for each embodiment
    out: Path | None = None  # folder of the run
    seed: int = 0  # of the first weights and of everything drawn
    size: str | None = None  # baby, tiny, small (who only acts: to large; video: to giant); else as the recipe says
    picture: int | None = None  # px on a side that a model of the recipe video sees; as many as its size wants
    steps: int | None = None  # in all; of a baby, of its first two stages, to which all else is in proportion
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    resume: bool = False  # go on with a run that was stopped, with the same words as before
    dry_run: bool = False  # only say what a V-JEPA of --size (baby to giant) would take; needs no --data and no --out
    cluster: str = "8xH100"  # to reckon with in a dry run: so many of A100, H100, H200 or B200

    after_interrupt: ClassVar[str] = "the same command with --resume goes on from the last saved step"

    def run(self) -> Outcome:
        """Train it."""
        from ami import parallel
        from ami.cli.refuse import choose
        from ami.cli.training import outcome, preview, settings_of, train
        from ami.data.episodes import Store
        from ami.recipes import RECIPES

        choose("recipe", self.recipe, RECIPES)
        if self.dry_run:
            return preview(self.recipe, self.size, self.steps, self.picture, self.cluster)
        if not self.data or self.out is None:
            raise ValueError("a training learns from stores and needs a folder; name them with --data and --out")
        settings = settings_of(self.recipe, self.size, self.steps, self.picture)
        device = parallel.device(self.device)
        parallel.start(device)
        alone_or_first = parallel.rank() == 0
        try:
            stores = [Store.open(folder) for folder in self.data]
            with Bars(shown=alone_or_first) as bars:
                done = train(
                    self.recipe,
                    stores,
                    self.out,
                    self.seed,
                    bars,
                    settings=settings,
                    resume=self.resume,
                    device=device,
                )
        finally:
            parallel.stop()
        if not alone_or_first:
            return Outcome(None, silent=True)
        return outcome(done)

    @property
    def writes(self) -> Path | None:
        """The folder it fills."""
        return self.out


@dataclass(frozen=True, kw_only=True)
class Eval(Heavy):
    """Ask a checkpoint the questions of a suite, with all baselines, and write the report."""

    checkpoint: Positional[Path]  # folder of a checkpoint, or of a finished run
    suite: str  # a name that `ami suites` lists
    out: Path  # folder of the new report
    n: int | None = None  # episodes for each question, in place of the suite's number
    seed: int = 0  # of the fresh episodes
    data: tuple[Path, ...] = ()  # stores of rooms (film strips), robots or films; or the folder of published films
    rivals: tuple[Path, ...] = ()  # other checkpoints or runs, which suites of places ask the same beside it
    device: Literal["cpu", "cuda"] = "cpu"  # where the model lies: suites of films can be asked on a GPU
    diagnose: bool = False  # ask goals in Two Rooms again with the truth in place of each part: which loses the points?

    def run(self) -> Outcome:
        """Ask it."""
        from ami.cli.asking import ask_about, checkpoint_in, given
        from ami.cli.refuse import choose, refuse_used
        from ami.evaluation.ask import Question
        from ami.evaluation.report import read_report, table, write_report
        from ami.evaluation.suites import SUITES

        choose("suite", self.suite, SUITES)
        refuse_used(self.out)
        words = ["ami", "eval", str(self.checkpoint), "--suite", self.suite, "--out", str(self.out)]
        words += [] if self.n is None else ["--n", str(self.n)]
        words += ["--seed", str(self.seed), *(("--data", *map(str, self.data)) if self.data else ())]
        words += ("--rivals", *map(str, self.rivals)) if self.rivals else ()
        stores, pairs = given(SUITES[self.suite], self.data)
        words += ("--device", self.device) if self.device != "cpu" else ()
        words += ("--diagnose",) if self.diagnose else ()
        question = Question(self.suite, self.seed, self.n, device=self.device, diagnose=self.diagnose)
        asked = checkpoint_in(self.checkpoint), question
        with Bars() as bars:
            report = ask_about(*asked, stores, bars, (shlex.join(words),), pairs, self.rivals)
        write_report(self.out, report)
        held = {"folder": str(self.out), "report": read_report(self.out)}
        said = report.notes if self.diagnose else ()  # its sentence is what was asked for
        return Outcome(held, with_lines(table(report), *said, f"the report is {self.out / 'report.html'}"))

    @property
    def writes(self) -> Path:
        """The folder it fills."""
        return self.out


@dataclass(frozen=True, kw_only=True)
class Compare(Verb):
    """Put reports side by side that answer the same suite."""

    reports: Positional[tuple[Path, ...]]  # folders of reports

    def run(self) -> Outcome:
        """Compare them."""
        from ami.evaluation.report import read_report

        documents = [read_report(folder) for folder in self.reports]
        if not documents:
            raise ValueError("no report was named; give the folders of two or more")
        first = documents[0]["suite"]
        for folder, document in zip(self.reports, documents, strict=True):
            if document["suite"] != first:
                one, other = (f"{suite['name']} ({suite['digest'][:8]})" for suite in (first, document["suite"]))
                raise ValueError(
                    f"{self.reports[0]} answers the suite {one} and {folder} answers {other}: their numbers mean "
                    f"different things; ask both checkpoints the same suite with ami eval"
                )
        names = [str(folder) for folder in self.reports]
        held = [{"folder": name, **document} for name, document in zip(names, documents, strict=True)]
        return Outcome({"suite": first, "reports": held}, comparison(names, documents))


@dataclass(frozen=True, kw_only=True)
class Plan(Heavy):
    """Plan once, to a goal that is shown as a picture: in a world, or from one picture of yours to another."""

    checkpoint: Positional[Path]  # folder of a checkpoint, or of a finished run
    world: str | None = None  # two-rooms/fixed, /door, /wall or /sealed: start and goal are drawn
    start: Path | None = None  # a picture of now, in place of a world
    goal: Path | None = None  # a picture of what is wanted, from --start or in a world
    embodiment: str | None = None  # who acts, where the model knows several that can
    horizon: int = 16  # steps to plan ahead
    seed: int = 0  # of start and goal, and of the search
    budget_ms: float | None = None  # milliseconds: the best found until then; 0 is the first guess

    def run(self) -> Outcome:
        """Plan."""
        from ami.cli.planning import plan, shown

        asked = self.checkpoint, self.world, self.start, self.goal, self.embodiment, self.horizon, self.seed
        held = plan(*asked, budget_ms=self.budget_ms)
        return Outcome(held, shown(held))


@dataclass(frozen=True, kw_only=True)
class Reproduce(Heavy):
    """Make a capability's figures from nothing, once for each training seed, and pool them."""

    # whose figures
    what: Positional[Literal["rooms", "plan", "wall", "door", "video", "reason", "memory", "spatial"]]
    seeds: int = 1  # trainings, each with experience and questions of its own
    data: tuple[Path, ...] = ()  # films and robots to learn from as well; RGB-D folders to be asked about, unseen
    out: Path | None = None  # folder for all of it; runs/reproduce/NAME where it is not said

    after_interrupt: ClassVar[str] = Demo.after_interrupt

    def run(self) -> Outcome:
        """Make them."""
        from ami.cli.demo import outcome
        from ami.cli.reproduce import reproduce

        with Bars() as bars:
            document = reproduce(self.what, self.writes, self.seeds, bars, self.data)
        return outcome(self.writes, document, "the report is")

    @property
    def writes(self) -> Path:
        """The folder it fills."""
        return self.out or Path("runs/reproduce") / self.what


VERBS: dict[str, type] = {
    "demo": Demo,
    "worlds": Worlds,
    "recipes": Recipes,
    "suites": Suites,
    "collect": Collect,
    "ingest": Ingest,
    "data": Data,
    "train": Train,
    "import": Import,
    "export": Export,
    "features": Features,
    "eval": Eval,
    "compare": Compare,
    "plan": Plan,
    "watch": Watch,
    "view": View,
    "readout": Readout,
    "imagine": Imagine,
    "remember": Remember,
    "recall": Recall,
    "memory": Memories,
}
