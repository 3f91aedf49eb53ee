"""A run that does nothing but save, in a process of its own; imports the package late, under its FAULT."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import torch

NB_VALUES = 40_000


def checkpoint_at(step: int, nb_values: int = NB_VALUES) -> dict[str, Any]:
    """A checkpoint of 160 kB whose every number is ``step``."""
    return {
        "state_dict": {"weight": torch.full((nb_values,), float(step))},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.full((10,), float(step))}}}],
        "epoch": step // 4,
        "global_step": step,
        "format": 2,
        "library": "pytorch-lightning-classic",
        "lr_schedulers": [],
        "parts": {"progress": {"batch_nb": step % 4}, "data": {"seed": 1}},
    }


def is_whole(checkpoint: dict[str, Any], step: int) -> bool:
    weight, average = (
        checkpoint["state_dict"]["weight"],
        checkpoint["optimizer_states"][0]["state"][0]["exp_avg"],
    )
    return bool((weight == step).all() and (average == step).all() and checkpoint["global_step"] == step)


def save_each_step(folder: str, last: int, in_thread: bool = False, finish: bool = False) -> None:
    """Go on from the newest save to step ``last``, saving after each step; says how it went."""
    from pytorch_lightning.checkpoints.run_store import RunStore
    from pytorch_lightning.checkpoints.writer import Writer

    with RunStore(folder) as store:
        writer = Writer(store)
        found = store.newest()
        first = 1 if found is None else found.position.step + 1
        print("goes on from", None if found is None else found.position.step)
        for step in range(first, last + 1):
            checkpoint = checkpoint_at(step)
            writer.save(checkpoint, step, wait=not in_thread)
            if in_thread:
                checkpoint["state_dict"]["weight"].fill_(-1.0)  # training goes on
                writer.flush()
            print("saved", step)
        if finish:
            writer.save(checkpoint_at(last), last, wait=True, finished=True)
        writer.close()
        print(json.dumps({"skipped": writer.nb_skipped}))


def sharded(data: Any) -> Any:
    """``data`` as one process would hold it that has all shards."""
    from pytorch_lightning.checkpoints.shard_files import Shard
    from pytorch_lightning.checkpoints.sharded import Cut, _replaced

    shards = {}

    def take(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() < 2:
            return tensor
        if tensor.numel():
            shards[key] = Shard(tensor.shape, (0,) * tensor.dim(), tensor)
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    return Cut(_replaced(data, take), shards)


def save_sharded(folder: str) -> None:
    """Go on from the newest sharded save to step 2, saving after each step."""
    from pytorch_lightning.checkpoints.run_store import RunStore

    with RunStore(folder) as store:
        found = store.newest()
        for step in range(1 if found is None else found.position.step + 1, 3):
            data = checkpoint_at(step)
            data["state_dict"]["weight"] = data["state_dict"]["weight"].view(-1, 10)
            store.write(sharded(data), step)


def save_and_leave(folder: str) -> None:
    """End without waiting for the save."""
    from pytorch_lightning.checkpoints.run_store import RunStore
    from pytorch_lightning.checkpoints.writer import Writer

    Writer(RunStore(folder).open()).save(checkpoint_at(1), 1)
    raise SystemExit(3)


def hold(folder: str, line: Any) -> None:
    """Keep the folder until the other end of ``line`` is closed."""
    from pytorch_lightning.checkpoints.run_store import RunStore

    with RunStore(folder):
        line.send("held")
        wait_for_end(line)


def hold_with_child(folder: str, line: Any) -> None:
    """The same, with a child that lives on where this process is killed."""
    from pytorch_lightning.checkpoints.run_store import RunStore

    with RunStore(folder):
        if os.fork() == 0:
            line.send("held")
            wait_for_end(line)
            os._exit(0)
        wait_for_end(line)


def wait_for_end(line: Any) -> None:
    with contextlib.suppress(EOFError, ConnectionError):
        line.recv()


def as_nobody(folder: str) -> None:
    """Report what is wrong with the folder to a user without write access."""
    from pytorch_lightning.checkpoints.run_store import folder_problem

    if os.getuid() == 0:  # whom no permission stops
        for parent in Path(folder).parents[:-2]:
            os.chmod(parent, parent.stat().st_mode | 0o055)
        os.setuid(65534)
    print(folder_problem(folder))
