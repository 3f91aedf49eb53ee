"""How long training waits for a save: durable in the foreground, and by the writer's thread.

25 million parameters with Adam (300 MB). Both ways take turns, so that a busy machine slows both.
usage: python benchmarks/save_stall.py [folder]
"""

import statistics
import sys
import tempfile
import time
from typing import Any

import torch
from torch import nn

from pytorch_lightning.checkpoints.run_store import RunStore
from pytorch_lightning.checkpoints.writer import Writer


def state() -> tuple[nn.Module, dict[str, Any]]:
    model = nn.Sequential(*(nn.Linear(500, 500) for _ in range(100)))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 500)).sum().backward()
    optimizer.step()
    return model, {
        "state_dict": dict(model.state_dict()),
        "optimizer_states": [optimizer.state_dict()],
        "epoch": 0,
        "global_step": 1,
        "format": 1,
        "parts": {},
    }


def main(folder: str) -> None:
    model, checkpoint = state()
    seconds: dict[str, list[float]] = {"foreground": [], "thread": [], "thread, written after": []}
    with RunStore(folder) as store:
        writer = Writer(store)
        for step in range(0, 20, 2):
            for name, wait in (("foreground", True), ("thread", False)):
                start = time.perf_counter()
                writer.save(checkpoint, step + (not wait), wait=wait, module_state=model.state_dict())
                seconds[name].append(time.perf_counter() - start)
            writer.flush()
            seconds["thread, written after"].append(time.perf_counter() - start)
        writer.close()
    for name, each in seconds.items():
        print(f"{name:22} first {1000 * each[0]:5.0f} ms, median of the rest {1000 * statistics.median(each[1:]):5.0f}")
    ratio = statistics.median(seconds["thread"][1:]) / statistics.median(seconds["foreground"][1:])
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as scratch:
        main(scratch)
