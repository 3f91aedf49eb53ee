"""FSDP2R: python -m benchmarks.programs.shards CONTESTANT FOLDER new|resumed|auto

Two processes, each with a part of the weights and of Adam's numbers (fsdp). ``new`` trains and leaves a sharded
checkpoint; ``resumed`` goes on from its path, ``auto`` finds it. Prints how many MB each process had read until its
first step (the larger of the two), and how many of the checkpoint's are of its own shards.

What is read is ``rchar`` of /proc/self/io, and pages of the checkpoint's files that are mapped then. A process reads
other things too: what a resume reads is the difference of what ``resumed`` and ``new`` read. By hand a resume is
``torch.distributed.checkpoint``.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from benchmarks import workloads as w
from pytorch_lightning import LightningModule, Trainer

WIDTH = 512


def read_so_far(folder: str) -> float:
    """MB that this process has read."""
    found = re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())
    assert found is not None
    mapped, of_folder = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            of_folder = folder in line
        elif of_folder and line.startswith("Rss:"):
            mapped += int(line.split()[1]) * 1024
    return (int(found[1]) + mapped) / 2**20


def network() -> nn.Module:
    return w.ck_network(WIDTH)


def lean(folder: str, how: str) -> None:
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo")
    net = network()
    fully_shard(net, mesh=dist.init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.Adam(net.parameters())
    if how == "resumed":
        weights, numbers = get_state_dict(net, optimizer)
        checkpoint.load({"net": weights, "optimizer": numbers}, checkpoint_id=f"{folder}/kept")
        set_state_dict(net, optimizer, model_state_dict=weights, optim_state_dict=numbers)
    Path(folder, f"{how}_{dist.get_rank()}").write_text(str(read_so_far(folder)))
    for x in w.ck_batches(2, WIDTH):
        optimizer.zero_grad()
        net(x).pow(2).mean().backward()
        optimizer.step()
    if how == "new":
        weights, numbers = get_state_dict(net, optimizer)
        checkpoint.save({"net": weights, "optimizer": numbers}, checkpoint_id=f"{folder}/kept")
    dist.destroy_process_group()


class Sharded(LightningModule):
    def __init__(self, folder: str, how: str) -> None:
        super().__init__()
        self.net, self.folder, self.how = network(), folder, how

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        path = Path(self.folder, f"{self.how}_{self.trainer.proc_rank}")
        if not path.exists():
            path.write_text(str(read_so_far(self.folder)))
        return {"loss": self.net(data_batch).pow(2).mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())

    @property
    def tng_dataloader(self) -> Any:
        return w.ck_batches(16, WIDTH)


def kept(folder: str) -> Path:
    """The sharded checkpoint."""
    return next(path for path in Path(folder).rglob("*") if path.name == "kept" or path.suffix == ".ckpt")


def ours(folder: str, how: str) -> None:
    options: dict[str, Any] = {
        "new": {"resume": "auto", "max_nb_steps": 2},
        "resumed": {"resume": how == "resumed" and kept(folder), "max_nb_steps": 4},
        "auto": {"resume": "auto", "max_nb_steps": 4},
    }[how]
    trainer = Trainer(max_nb_epochs=1, default_save_path=folder, nb_processes=2, distributed_backend="fsdp", **options)
    trainer.fit(Sharded(folder, how))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
    told = [*Path(sys.argv[2]).glob(f"{sys.argv[3]}_*")]
    if len(told) == 2:
        size = sum(path.stat().st_size for path in kept(sys.argv[2]).iterdir()) / 2**20
        print(json.dumps({"read": max(float(path.read_text()) for path in told), "own": size / 2}), flush=True)
