"""Records a real run in a terminal, as an SVG that moves: ``python docs/recording.py`` writes docs/recording.svg.

A project is started and trained, killed by ``kill -9`` in the middle, and resumed by the same command.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from html import escape
from pathlib import Path

import pyte

PICTURE = Path(__file__).parent / "recording.svg"
COLUMNS, ROWS = 118, 30
EVERY = 0.2
"""Seconds between two looks at the screen."""
MOST_FRAMES = 70
TRAIN = "python train.py --max_nb_epochs 3 --save_every_nb_batches 5 --resume auto"
KILLED_AT = re.compile(r"epoch 2: +[4-9]\d%")
"""What the bar shows when the process is killed."""

Frame = tuple[float, list[str]]


class Terminal:
    """A terminal that programs run in, one after the other, and what it showed when."""

    def __init__(self) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.frames = list[Frame]()
        self.shown = 0.0

    def type(self, command: str) -> None:
        """Show a command as if somebody had typed it."""
        self.stream.feed(f"$ {command}\r\n".encode())
        self.look(1.0)

    def look(self, seconds: float) -> None:
        """Keep what the screen shows, for that long."""
        lines = [line.rstrip() for line in self.screen.display]
        if self.frames and self.frames[-1][1] == lines:
            self.frames[-1] = (self.frames[-1][0] + min(seconds, 0.6), lines)
        else:
            self.frames.append((seconds, lines))

    def run(self, command: str, folder: str, *, is_killed: bool = False) -> None:
        """Run a command; ``is_killed``: up to the place of ``KILLED_AT``."""
        self.type(command)
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        process = subprocess.Popen(
            command.split(), stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, start_new_session=True
        )
        os.close(theirs)
        last = time.monotonic()
        while True:
            if select.select([ours], [], [], 0.05)[0]:
                try:
                    data = os.read(ours, 65536)
                except OSError:  # the end, on Linux
                    break
                if not data:
                    break
                self.stream.feed(data)
            now = time.monotonic()
            if is_killed and any(map(KILLED_AT.search, self.screen.display)):
                os.killpg(process.pid, signal.SIGKILL)
                is_killed = False
            if now - last > EVERY:
                self.look(min(now - last, 0.6))
                last = now
        code = process.wait()
        os.close(ours)
        if code == -signal.SIGKILL:
            self.stream.feed(b"\r\nKilled\r\n")
        self.look(2.0)


def thinned(frames: list[Frame]) -> list[Frame]:
    """At most ``MOST_FRAMES`` of them; one that is left out lends its time to the one before."""
    step = max(1, -(-len(frames) // MOST_FRAMES))
    kept = list[Frame]()
    for place, (seconds, lines) in enumerate(frames):
        if place % step == 0 or seconds >= 1.0:
            kept.append((seconds, lines))
        else:
            kept[-1] = (kept[-1][0] + seconds, kept[-1][1])
    return kept


def drawn(frames: list[Frame]) -> str:
    """The frames one after the other, over and over."""
    total = sum(seconds for seconds, _ in frames) + 3.0
    width, height = COLUMNS * 7.25 + 20, ROWS * 16 + 20
    style = [".f{visibility:hidden}text{font:12px monospace;fill:#ddd;white-space:pre}"]
    groups, start = list[str](), 0.0
    for number, (seconds, lines) in enumerate(frames):
        end = 100.0 if number == len(frames) - 1 else 100 * (start + seconds) / total
        begin = 100 * start / total
        before = f"0%{{visibility:hidden}}{begin:.2f}%{{visibility:visible}}" if number else "0%{visibility:visible}"
        style.append(f"@keyframes k{number}{{{before}{end:.2f}%{{visibility:hidden}}100%{{visibility:hidden}}}}")
        style.append(f"#f{number}{{animation:k{number} {total:.1f}s step-end infinite}}")
        texts = [f'<text x="10" y="{24 + 16 * row}">{escape(line)}</text>' for row, line in enumerate(lines) if line]
        groups.append(f'<g class="f" id="f{number}">{"".join(texts)}</g>')
        start += seconds
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}">'
        f"<style>{''.join(style)}</style>"
        f'<rect width="100%" height="100%" rx="6" fill="#1d1f21"/>{"".join(groups)}</svg>\n'
    )


def main() -> None:
    terminal = Terminal()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        terminal.run("python -m pytorch_lightning new digits", folder)
        terminal.run(TRAIN, f"{folder}/digits", is_killed=True)
        terminal.run(TRAIN, f"{folder}/digits")
    PICTURE.write_text(drawn(thinned(terminal.frames)))
    print(f"{PICTURE}: {len(terminal.frames)} frames, {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
