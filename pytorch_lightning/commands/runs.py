"""``python -m pytorch_lightning runs [FOLDER]``: what runs there are, and what became of them."""

import argparse
import datetime
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def runs(words: Sequence[str]) -> int:
    """Print the runs in the folder that ``words`` name; returns the exit status."""
    from pytorch_lightning.errors import MisconfigurationException, one_line
    from pytorch_lightning.run.listing import rows_of

    parser = argparse.ArgumentParser(
        "python -m pytorch_lightning runs",
        description="List runs: state, duration, hparams, last and best metrics.",
        epilog="In Python: pytorch_lightning.runs(FOLDER), a table of all that is known.",
    )
    parser.add_argument("folder", nargs="?", default="lightning_logs", help="where they lie (default: lightning_logs)")
    parser.add_argument("--best", metavar="METRIC", help="the best value of this metric first")
    parser.add_argument("--differ", action="store_true", help="of the hparams only those that differ")
    given = parser.parse_args(words)
    try:
        rows = rows_of(given.folder, given.best, given.differ)
    except MisconfigurationException as error:
        print(error, file=sys.stderr)
        return 1
    for row in rows:
        print(one_line(f"{row['folder']}: {headline(row)}"))
        if "fork" in row:
            print(f"  fork of {one_line(row['fork'], 2000)}")
        for kind in ("hparams", "last", "best"):
            entries = {key.partition(".")[2]: value for key, value in row.items() if key.startswith(f"{kind}.")}
            text = ", ".join(f"{name}={shown(value)}" for name, value in entries.items())
            print(f"  {kind}: {one_line(text, 2000)}" if text else "", end="\n" if text else "")
    if not rows:
        print(f"{given.folder}: no runs")
    return 0


def headline(row: Mapping[str, Any]) -> str:
    """How a run ended, how long it took, and how far it came."""
    what = row["state"] + (f" ({row['error']})" if row["error"] else "") + (", resumable" if row["resumable"] else "")
    seconds, starts, step = row["seconds"], row["starts"], row["global_step"]
    took = "" if seconds is None else f", {datetime.timedelta(seconds=round(seconds))}"
    times = f" in {starts} starts" if starts is not None and starts > 1 else ""
    return f"{what}{took}{times}" + ("" if step is None else f", {step} batches")


def shown(value: Any) -> str:
    """A number in 6 digits, anything else as it is."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
