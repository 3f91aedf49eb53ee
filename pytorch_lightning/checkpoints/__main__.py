"""``python -m pytorch_lightning.checkpoints consolidate RUN_FOLDER [--output FILE]``"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from pytorch_lightning.checkpoints.consolidation import consolidate
from pytorch_lightning.errors import CheckpointError


def main(arguments: Sequence[str] | None = None, program: str = "python -m pytorch_lightning.checkpoints") -> int:
    """Run the command; returns its exit status."""
    parser = ArgumentParser(prog=program, description="Work on checkpoints.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("consolidate", help="write the newest sharded checkpoint as one plain file")
    command.add_argument("folder", help="a run's folder, or the folder of one checkpoint")
    command.add_argument("--output", help="the file to write; by default next to the sharded checkpoint")
    given = parser.parse_args(arguments)
    try:
        print(consolidate(given.folder, given.output))
    except CheckpointError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
