"""Commands of ``python -m pytorch_lightning``: each is a function of its words, in a file of its own."""

import sys
from collections.abc import Callable, Sequence

from pytorch_lightning.commands.from_lightning import from_lightning
from pytorch_lightning.commands.new import new

COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "new": (new, "start a project: a folder with a program that trains, a test and a README"),
    "from_lightning": (from_lightning, "rewrite a program of Lightning 2: it prints the file as it is written here"),
}
"""Each command by its name: what it runs, which returns the exit status, and what it is for."""

PROGRAM = "python -m pytorch_lightning"


def main(words: Sequence[str]) -> int:
    """Run the command that ``words`` begin with; returns the exit status."""
    name = words[0] if words else ""
    if name in COMMANDS:
        return COMMANDS[name][0](words[1:])
    if name and name not in ("-h", "--help"):
        known = ", ".join(COMMANDS)
        print(f"{PROGRAM}: there is no command {name!r}; there is: {known}. --help says more.", file=sys.stderr)
        return 2
    width = max(map(len, COMMANDS))
    lines = [f"  {command.ljust(width)}  {text}" for command, (_, text) in COMMANDS.items()]
    usage = [f"usage: {PROGRAM} COMMAND ...", "", "commands:", *lines, "", f"{PROGRAM} COMMAND --help says more."]
    print("\n".join(usage), file=sys.stdout if name else sys.stderr)
    return 0 if name else 2
