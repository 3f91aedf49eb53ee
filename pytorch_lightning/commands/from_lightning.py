"""``python -m pytorch_lightning from_lightning train.py``: a program of Lightning 2, rewritten to this library."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def from_lightning(words: Sequence[str]) -> int:
    """Print the file that ``words`` name as it is written here; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m pytorch_lightning from_lightning",
        description="Rewrite a program of Lightning 2: names, hooks, self.log, options of the Trainer. What a person"
        " has to look at gets a comment that begins with '# from_lightning:'.",
        epilog="Formatting and comments are kept. It needs libcst: pip install libcst, or the extra [convert].",
    )
    parser.add_argument("file", help="the program; it isn't run")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-o", "--output", metavar="FILE", help="write there, a file that doesn't exist yet")
    where.add_argument("--in-place", action="store_true", help="write into the file itself")
    given = parser.parse_args(words)
    try:
        converted = converted_file(given.file)
        if given.output or given.in_place:
            with open(given.output or given.file, "x" if given.output else "w", encoding="utf-8", newline="") as file:
                file.write(converted.text)
    except (OSError, UnicodeDecodeError) as error:
        name = getattr(error, "filename", None) or given.file
        return refuse(parser.prog, f"{name!r}: {getattr(error, 'strerror', None) or 'it is no text in UTF-8'}.")
    except ModuleNotFoundError as error:
        if error.name != "libcst":
            raise
        return refuse(parser.prog, "it needs libcst. Write: pip install libcst")
    except SyntaxError as error:
        return refuse(parser.prog, f"{given.file!r} isn't Python: {error}.")
    if not (given.output or given.in_place):
        sys.stdout.write(converted.text)
    places = converted.text.count("# from_lightning:")
    for note in converted.notes:
        print(f"{parser.prog}: {note}", file=sys.stderr)
    print(f"{parser.prog}: {count_of(places)} '# from_lightning:'.", file=sys.stderr)
    return 0


def count_of(places: int) -> str:
    """How many places need a person, as a sentence begins."""
    if not places:
        return "no place needs a person; one would have a comment"
    return f"{places} {'place needs' if places == 1 else 'places need'} a person: look for"


def converted_file(name: str):  # type: ignore[no-untyped-def]  # libcst is imported only here
    """The conversion of the file ``name``. Raises ``SyntaxError`` where it isn't Python."""
    from pytorch_lightning.commands.conversion.program import convert

    with open(name, encoding="utf-8", newline="") as file:
        return convert(file.read(), Path(name).name)


def refuse(program: str, why: str) -> int:
    """Say in one line why nothing was written."""
    print(f"{program}: {why}", file=sys.stderr)
    return 1
