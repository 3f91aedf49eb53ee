"""``python -m pytorch_lightning new FOLDER``: a project that runs at once, copied from a template."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

TEMPLATES = Path(__file__).parent.parent / "templates"

ABOUT = {
    "mnist": "reads handwritten digits",
    "gan": "draws digits: two networks and two optimizers",
    "text": "writes text, character by character",
    "tabular": "predicts a number from the others of its row",
    "minimal": "one file of 30 lines",
}
"""Each template by its name, and what its model does."""


def new(words: Sequence[str]) -> int:
    """Write a project into the folder that ``words`` name; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m pytorch_lightning new",
        description="Start a project: train.py, which takes every option of the Trainer, a test and a README.",
        epilog="templates: " + "; ".join(f"{name} {text}" for name, text in ABOUT.items()),
    )
    parser.add_argument("folder", help="where it is written; it must not exist yet, or be empty")
    parser.add_argument("--template", choices=list(ABOUT), default="mnist", help="what to start from (default: mnist)")
    given = parser.parse_args(words)
    try:
        problem = refusal(given.folder)
        if problem is None:
            copy(TEMPLATES / given.template, Path(given.folder))
    except OSError as error:
        problem = f"{given.folder!r} can't be written: {error.strerror or error}. Name another folder, or mend that."
    if problem is not None:
        print(f"{parser.prog}: {problem}", file=sys.stderr)
        return 1
    print(f"{given.folder}: the template {given.template}. To train it:\n")
    print(f"  cd {quoted(given.folder)} && python train.py\n\nIts README.md has the next commands.")
    return 0


def refusal(name: str) -> str | None:
    """Why no project can be written into a folder of this name, if so."""
    if not name.strip() or not name.isprintable():
        return f"{name!r} is no name for a folder. Name one, such as my_project."
    folder = Path(name)
    if folder.is_dir():
        if any(folder.iterdir()):
            return f"the folder {name!r} isn't empty, and nothing in it is replaced. Name another one."
    elif folder.exists() or folder.is_symlink():
        return f"{name!r} is there, and it isn't a folder. Name another one."
    return None


def copy(template: Path, folder: Path) -> None:
    """The files of ``template``, as files of the user's own: nothing that exists is replaced."""
    sources = sorted(template.rglob("*"))
    if not sources:
        raise OSError(f"the installed package has no {template}; install it again")
    for source in sources:
        if source.is_file() and "__pycache__" not in source.parts:
            target = folder / source.relative_to(template)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.write(source.read_bytes())


def quoted(name: str) -> str:
    """As a shell takes it; ``cd`` would take a dash for an option."""
    import shlex

    return shlex.quote(f"./{name}" if name.startswith("-") else name)
