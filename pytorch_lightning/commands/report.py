"""``python -m pytorch_lightning report RUN [RUN ...] -o report.html``: runs side by side on one page."""

import argparse
import sys
from collections.abc import Sequence


def report(words: Sequence[str]) -> int:
    """Write the page of the runs that ``words`` name; returns the exit status."""
    from pytorch_lightning.commands.reporting.page import report as write_report
    from pytorch_lightning.errors import MisconfigurationException

    parser = argparse.ArgumentParser(
        "python -m pytorch_lightning report",
        description="Write one HTML page about one or several runs: curves, what differs, where the time went, what was"
        " logged. It needs no network, and the extra [report].",
        epilog="In Python: pytorch_lightning.report(RUNS, 'report.html').",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run, such as .../version_0")
    parser.add_argument("-o", "--output", default="report.html", help="the file, overwritten (default: report.html)")
    given = parser.parse_args(words)
    try:
        path = write_report(given.runs, given.output)
    except MisconfigurationException as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, for any browser")
    return 0
