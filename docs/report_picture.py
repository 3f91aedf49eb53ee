"""Makes a report of three real runs and photographs its top: ``python docs/report_picture.py`` writes docs/report.png.

The runs are those of a new project. The first is killed twice by ``kill -9``, and resumed by the same command.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "report.png"
WIDTH, HEIGHT = 1400, 1250
COLORS = 128
RUNS = (
    "--learning_rate 0.004 --drop_prob 0.4 --resume auto",
    "--learning_rate 0.002",
    "--learning_rate 0.0005 --hidden_dim 16",
)
KILLED_AFTER = (200, 350)
"""Saves of the first run after which it is killed."""


def run(words: list[str], folder: Path, killed_after: int | None = None) -> None:
    """Run a command of this Python; ``killed_after``: until there is the save of that step."""
    process = subprocess.Popen([sys.executable, *words], cwd=folder, stdout=subprocess.DEVNULL)
    while process.poll() is None and killed_after is not None:
        if list(folder.rglob(f"step-{killed_after:012}.ckpt")):
            process.kill()
        time.sleep(0.01)
    assert process.wait() == (0 if killed_after is None else -9)


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests.commands.browser import Browser

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(["-m", "pytorch_lightning", "new", "project", "--template", "mnist"], folder)
        for i, words in enumerate(RUNS):
            options = [*words.split(), "--max_nb_epochs", "12", "--seed", "1", "--track_grad_norm", "2"]
            for step in KILLED_AFTER if i == 0 else ():
                run(["train.py", *options], folder / "project", step)
            run(["train.py", *options], folder / "project")
        runs = sorted((folder / "project").glob("lightning_logs/*/version_*"))
        run(["-m", "pytorch_lightning", "report", *map(str, runs), "-o", "report.html"], folder)
        browser = Browser()
        try:
            browser.open(folder / "report.html", WIDTH, HEIGHT)
            browser.wait("document.querySelectorAll('.scatterlayer .trace').length > 9")
            time.sleep(1.0)
            browser.picture(folder / "report.png")
        finally:
            browser.close()
        with Image.open(folder / "report.png") as image:
            image.convert("RGB").quantize(COLORS).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
