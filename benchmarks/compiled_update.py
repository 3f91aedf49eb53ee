"""What it brings to compile the optimizer's update too: W3's and W3large's network with AdamW, ms, medians.

usage: python benchmarks/compiled_update.py [large]
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks import workloads as w


def ms(call: Callable[[], object], nb: int = 15) -> float:
    """Of one call, after a first one."""
    call()
    taken = []
    for _ in range(nb):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1000


def main(large: bool) -> None:
    net = w.w3_network(large)
    x, y = next(iter(w.w3_loader(1)))
    loss = torch.compile(lambda: w.w3_loss(net(x), y), dynamic=False)
    print(f"forward and backward, compiled: {ms(lambda: loss().backward()):.1f}")
    kinds: list[tuple[str, dict[str, Any]]] = [("update", {}), ("fused", {"fused": True})]
    for name, options in kinds:
        print(f"{name}: {ms(torch.optim.AdamW(net.parameters(), **options).step):.2f}")
    update = torch.compile(torch.optim.AdamW(net.parameters()).step)
    start = time.perf_counter()
    update()
    print(f"to compile the update: {time.perf_counter() - start:.0f} s")
    print(f"update, compiled: {ms(update):.2f}")


if __name__ == "__main__":
    main(sys.argv[1:] == ["large"])
