"""Other libraries, each in an environment of its own that shares torch with this one."""

import json
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parent / ".peers"

PEERS = {
    "lightning": ["lightning"],
    "accelerate_peer": ["accelerate"],
    "ignite_peer": ["pytorch-ignite"],
    "hf_trainer": ["transformers", "accelerate"],
    "keras_peer": ["keras"],
    "fastai_peer": ["fastai"],
    "skorch_peer": ["skorch"],
}
"""Contestant, and what pip installs for it."""


def python_of(name: str) -> str | None:
    """The interpreter that runs a contestant; None where its environment isn't there."""
    if name not in PEERS:
        return sys.executable
    if (FOLDER / name / "installed").exists():
        return str(FOLDER / name / "bin" / "python")
    # a machine may have them in its one environment
    there = all(find_spec(package.replace("pytorch-", "")) is not None for package in PEERS[name])
    return sys.executable if there else None


def set_up(names: list[str]) -> None:
    """Make the environments of ``names``. What this environment has (torch, numpy) isn't installed again."""
    for name in names:
        folder = FOLDER / name
        print(f"{name}: pip install {' '.join(PEERS[name])}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        # a library that wants another torch isn't installed: it couldn't be compared
        limits = folder / "constraints.txt"
        limits.write_text(f"torch=={version('torch')}\n")
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--constraint", limits]
        done = subprocess.run([*pip, *PEERS[name]])
        if done.returncode == 0:
            (folder / "installed").touch()


def versions() -> dict[str, str]:
    """The version of every library that is measured."""
    found = {}
    for name, packages in PEERS.items():
        python = python_of(name)
        if python is not None:
            code = f"from importlib.metadata import version; import json; print(json.dumps(version({packages[0]!r})))"
            done = subprocess.run([python, "-c", code], capture_output=True, text=True)
            if done.returncode == 0:
                found[packages[0]] = json.loads(done.stdout)
    return found
