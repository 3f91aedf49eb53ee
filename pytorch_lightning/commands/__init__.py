"""Commands of ``python -m pytorch_lightning``: each is a function of its words, in a file of its own."""

import sys
from collections.abc import Callable, Sequence

from pytorch_lightning.commands.entries import consolidate, fork, replay, samples, verify
from pytorch_lightning.commands.from_lightning import from_lightning
from pytorch_lightning.commands.new import new
from pytorch_lightning.commands.report import report
from pytorch_lightning.commands.runs import runs

COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "new": (new, "start a project: a folder with a program that trains, a test and a README"),
    "from_lightning": (from_lightning, "rewrite a program of Lightning 2: it prints the file as it is written here"),
    "replay": (replay, "run the training step that raised again, from its crash bundle, on the CPU"),
    "samples": (samples, "print the dataset indices of any batch of a run, and with --loss the loss of each"),
    "verify": (verify, "check a run's certificate: train from one of its saves to the next, and compare bit by bit"),
    "fork": (fork, "train a run once more, exactly up to a batch and with other settings from there on"),
    "consolidate": (consolidate, "write the newest sharded checkpoint of a run as one plain file"),
    "runs": (runs, "list the runs in a folder: state, duration, hparams, last and best metrics"),
    "report": (report, "write a page about runs: curves, what differs, where the time went, what was logged"),
}
"""Each command by its name: what it runs, which returns the exit status, and what it is for."""

PROGRAM = "python -m pytorch_lightning"


def main(words: Sequence[str]) -> int:
    """Run the command that ``words`` begin with; returns the exit status."""
    name = words[0] if words else ""
    if name in COMMANDS:
        return COMMANDS[name][0](words[1:])
    if name and name not in ("-h", "--help"):
        from pytorch_lightning.errors import near

        known, meant = ", ".join(COMMANDS), near(name.lower().replace("-", "_"), COMMANDS)
        print(f"{PROGRAM}: there is no command {name!r}.{meant} Commands: {known}.", file=sys.stderr)
        return 2
    width = max(map(len, COMMANDS))
    lines = [f"  {command.ljust(width)}  {text}" for command, (_, text) in COMMANDS.items()]
    usage = [f"usage: {PROGRAM} COMMAND ...", "", "commands:", *lines, "", f"{PROGRAM} COMMAND --help says more."]
    print("\n".join(usage), file=sys.stdout if name else sys.stderr)
    return 0 if name else 2
