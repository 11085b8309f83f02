"""The verb that shows a recording of a place: a Rerun recording, or a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from ami.cli.show import Outcome, lines
from ami.cli.verb import Heavy


@dataclass(frozen=True, kw_only=True)
class View(Heavy):
    """Look at a recording of a place: colours, depth, points, and where the camera went.

    --out F.rrd is a Rerun recording (the extra 'view'), --out F.png a contact sheet. With a checkpoint: the depth that
    is read from colours alone, and each view as it was imagined from the ones before it.
    """

    data: Positional[Path]  # a store with depth, points or poses; or the folder of a demo, or of one of its kind
    out: Path  # the new file: .rrd or .png
    checkpoint: Path | None = None  # folder of a checkpoint, or of a finished run, that knows cameras
    episode: int = 0  # which recording

    def run(self) -> Outcome:
        """Write it."""
        from ami import files
        from ami.cli.asking import checkpoint_in
        from ami.evaluation import rrd, sheet
        from ami.evaluation.scene import scene
        from ami.models import checkpoint

        kinds = {".rrd": rrd.recording, ".png": sheet.sheet}
        if self.out.suffix not in kinds:
            raise ValueError(f"--out is {self.out}; a Rerun recording ends in .rrd, a contact sheet in .png")
        if self.out.exists():
            raise ValueError(f"{self.out} is there already; choose another name with --out, or delete it first")
        model = None if self.checkpoint is None else checkpoint.load(checkpoint_in(self.checkpoint)).eval()
        shown = scene(store_in(self.data), self.episode, model)
        content = kinds[self.out.suffix](shown)
        files.write_whole(self.out, lambda file: file.write(content))
        held = {
            "file": str(self.out),
            "recording": shown.title,
            "frames": len(shown.times),
            "points": sum(len(cloud.places) for cloud in shown.clouds),
            "read": None if shown.told is None else shown.told.taught,
        }
        said = f"{held['frames']} frames and {held['points']:,} points of {shown.title} in {self.out}"
        return Outcome(held, lines(said))

    @property
    def writes(self) -> Path:
        """The file it fills."""
        return self.out


def store_in(folder: Path) -> Any:
    """The store that a folder is; of a report, the first with places in it that lies in its folder."""
    from ami.data.episodes import Store
    from ami.evaluation.report import DOCUMENT

    if not (folder / DOCUMENT).is_file():
        return Store.open(folder)
    for index in sorted([*folder.glob("data/*/index.json"), *folder.glob("seed-*/data/*/index.json")]):
        store = Store.open(index.parent)
        if {"depth", "points", "pose"} & store.fields.keys():
            return store
    raise ValueError(f"the report in {folder} has no store with depth, points or poses beside it; name a store")
