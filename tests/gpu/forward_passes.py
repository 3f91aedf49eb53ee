"""Forward passes on CUDA: on a GPU, or, without one, with torch's fake tensors, which have its device and no
numbers. A tensor that was left on the CPU raises either way. Prints what came out, as JSON."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import workloads

CUDA = torch.device("cuda", 0)


def text() -> torch.Tensor:
    return torch.zeros(2, workloads.BLOCK, dtype=torch.long, device=CUDA)


PASSES: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "W1": (workloads.w1_network, lambda: torch.zeros(4, 32, device=CUDA)),
    "W2": (workloads.w2_network, lambda: torch.zeros(4, 784, device=CUDA)),
    "W3": (workloads.w3_network, text),
    "W3large": (lambda: workloads.w3_network(large=True), text),
}


@contextlib.contextmanager
def autocast(dtype: torch.dtype | None) -> Any:
    """CUDA's autocast, also where torch itself would turn it off for want of a GPU."""
    torch.set_autocast_enabled("cuda", dtype is not None)
    torch.set_autocast_dtype("cuda", dtype or torch.float16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


def main() -> None:
    here = torch.cuda.is_available()
    found: dict[str, Any] = {"on": "cuda" if here else "fake cuda", "outputs": {}}
    mode: Any = contextlib.nullcontext() if here else FakeTensorMode()
    for name, (make, example) in PASSES.items():
        with mode, torch.device(CUDA):
            network, x = make(), example()
        each = found["outputs"][name] = {}
        for precision, dtype in {"32": None, "bf16": torch.bfloat16, "16": torch.float16}.items():
            with mode, autocast(dtype):
                output = network(x)
            each[precision] = {"device": str(output.device), "dtype": str(output.dtype)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
