"""Fails unless the last 'test accuracy' line of a log reaches a bound: ``check_accuracy.py LOG BOUND``."""

import re
import sys
from pathlib import Path

found = re.findall(r"test accuracy\s+([0-9.]+)", Path(sys.argv[1]).read_text())
if not found or float(found[-1]) < float(sys.argv[2]):
    sys.exit(f"expected a test accuracy of at least {sys.argv[2]}, found {found[-1:] or 'none'}")
