"""Other distributions that are imported under this package's name, looked for when it is imported.

Each of them overwrites files of the others in the same folder, and removes them when it goes. The names of metadata
folders are all that is read, unless one is found: under a millisecond for site-packages with 500 distributions.
"""

import os
import sys
import warnings

OURS = "pytorch_lightning_classic"
OTHERS = ("lightning", "pytorch_lightning")
"""As in the name of a metadata folder: ``pytorch-lightning``, and ``lightning``, which installs it."""


def warn_of_namesakes(folder: str) -> None:
    """One ``UserWarning`` where another distribution of this import name is installed: in ``folder``, which holds
    this package, or in a site-packages folder of ``sys.path``. Raises ``ImportError`` where it has overwritten files
    of this package. Silent in a process that another one started: that one has warned."""
    spawned = any(word.startswith("from multiprocessing.") for word in sys.orig_argv)  # before it has a parent_process
    if spawned or any(os.environ.get(name, "0") != "0" for name in ("RANK", "SLURM_PROCID")):
        return
    places = [folder, *(place for place in map(str, sys.path) if place.endswith("-packages"))]
    others = [path for place in dict.fromkeys(places) for path in _metadata_in(place, OTHERS)]
    if not others:
        return
    names = sorted({_title(path) for path in others})
    repair = (
        f"`pip uninstall {' '.join(name.split()[0] for name in names)}`, then"
        " `pip install --force-reinstall --no-deps pytorch-lightning-classic`, or use an environment for each"
    )
    overwritten = _overwritten(folder, others)
    if overwritten:
        raise ImportError(
            f"pytorch-lightning-classic is broken: {' and '.join(names)}, of the same import name, has overwritten"
            f" {len(overwritten)} of its files in {folder}, {overwritten[0]} among them. To repair it: {repair}"
        )
    warnings.warn(
        f"pytorch-lightning-classic is installed together with {' and '.join(names)}, of the same import name: each"
        f" overwrites or removes files of the other. Keep one: {repair}",
        stacklevel=3,  # the line that imports the package
    )


def _metadata_in(folder: str, names: tuple[str, ...]) -> list[str]:
    """The metadata folders of the distributions ``names`` in ``folder``."""
    try:
        entries = os.listdir(folder)
    except OSError:  # a zip file, or one that isn't there
        return []
    return [os.path.join(folder, entry) for entry in entries if entry.startswith(names) and _is_of(entry, names)]


def _is_of(entry: str, names: tuple[str, ...]) -> bool:
    """Whether ``entry`` is the metadata folder of one of ``names``.

    >>> _is_of("lightning-2.6.dist-info", OTHERS), _is_of("lightning_utilities-0.15.dist-info", OTHERS)
    (True, False)
    """
    name, _, rest = entry.partition("-")
    return name in names and rest[:1].isdigit() and rest.endswith((".dist-info", ".egg-info"))


def _title(path: str) -> str:
    """The distribution of a metadata folder.

    >>> _title("lib/pytorch_lightning-1.9-py3.11.egg-info")
    'pytorch-lightning 1.9'
    """
    name, _, rest = os.path.basename(path).partition("-")
    return f"{name.replace('_', '-')} {rest.rpartition('.')[0].partition('-py')[0]}"


def _overwritten(folder: str, others: list[str]) -> list[str]:
    """The files that this distribution installed in ``folder`` and that now are what one of ``others`` installed."""
    installed = [_recorded(path) for path in _metadata_in(folder, (OURS,))]
    found = []
    for theirs in (_recorded(path) for path in others if os.path.dirname(path) == folder):
        for file in sorted(theirs):
            if any(theirs[file] != ours.get(file, theirs[file]) for ours in installed):
                found += [file] if theirs[file] == _hash_of(os.path.join(folder, file)) else []
    return found


def _recorded(metadata: str) -> dict[str, str]:
    """The hash of each file of a distribution as it was installed; empty where that wasn't noted."""
    import csv

    try:
        with open(os.path.join(metadata, "RECORD"), encoding="utf-8", newline="") as file:
            return {row[0]: row[1] for row in csv.reader(file) if len(row) == 3 and row[1]}
    except OSError:
        return {}


def _hash_of(path: str) -> str:
    """The hash of a file, as a RECORD writes it; empty if the file doesn't exist."""
    import base64
    import hashlib

    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).digest()
    except OSError:
        return ""
    return "sha256=" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
