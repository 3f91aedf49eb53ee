"""One plain file from a sharded checkpoint."""

from pathlib import Path

from pytorch_lightning.checkpoints.run_store import saves_in
from pytorch_lightning.checkpoints.sharded import is_sharded, read_sharded
from pytorch_lightning.checkpoints.store import write_checkpoint
from pytorch_lightning.errors import CheckpointError


def find_sharded(folder: str | Path) -> Path:
    """The newest complete sharded checkpoint: ``folder`` itself, or one in it or in its ``checkpoints``.

    Raises ``CheckpointError`` if there is none.
    """
    top = Path(folder)
    for place in () if is_sharded(top) else (top, top / "checkpoints"):
        names = saves_in([path.name for path in place.glob("*") if is_sharded(path)])
        if names:
            return place / names[0]
    if not is_sharded(top):
        raise CheckpointError(
            f"{folder} contains no sharded checkpoint. Pass the folder of a run, or of one of its saves."
        )
    return top


def consolidate(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the newest sharded checkpoint under ``folder`` as one plain file; returns its path.

    Without ``output`` it is written next to the folder. Raises ``CheckpointError`` if there is nothing to read.
    """
    source = find_sharded(folder)
    target = source.parent / f"{source.name.removesuffix('.ckpt')}.whole.ckpt" if output is None else Path(output)
    return write_checkpoint(read_sharded(source), target)
