"""A run of several processes of which one is killed."""

import csv
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

from tests.faults import warm
from tests.faults.killing import Result, digest


def train(
    rank: int, nb: int, port: int, folder: str, strategy: str | None, own_disks: bool = False, save_shards: bool = True
) -> None:
    """What each process does: it resumes the run, as users' programs do."""
    if nb > 1:
        os.environ.update(
            RANK=str(rank), WORLD_SIZE=str(nb), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(nb), GROUP_RANK="0",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        )  # fmt: skip
    import torch

    from pytorch_lightning import Trainer
    from pytorch_lightning.strategies import FullySharded
    from tests.faults.models import Network

    if own_disks:  # each process sees another folder under the same path
        Path(folder, str(rank)).mkdir()
        os.chdir(Path(folder, str(rank)))
    torch.manual_seed(3)

    class Plain(Network):
        def on_batch_end(self) -> None:
            """Between batches weights that are cut up can't be changed as whole ones."""

    model = Plain()
    trainer = Trainer(
        distributed_backend=FullySharded(min_parameters=50, save_shards=save_shards)
        if strategy == "fsdp"
        else strategy,
        virtual_ranks=2,
        process_timeout_minutes=0.5,
        seed=5,
        max_nb_epochs=3,
        default_save_path="runs" if own_disks else folder,
        add_log_row_interval=2,
        log_save_interval=2,
        save_every_nb_batches=2,
        progress_bar=False,
        print_weights_summary=False,
        silence=("no-validation", "other-library"),
        resume="auto",
    )
    assert trainer.fit(model) == 1
    if rank == 0:
        Path(folder, "end.json").write_text(json.dumps(digest(model.state_dict())))


def processes(folder: Path, strategy: str | None, nb: int, faults: dict[int, str], **options: Any) -> list[Any]:
    """The processes of a run, started; ``faults`` by rank."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    return [
        warm.started(
            train, r, nb, port, str(folder), strategy, output=folder / f"said-{r}", fault=faults.get(r, ""), **options
        )
        for r in range(nb)
    ]


def ended(running: list[Any], folder: Path, seconds: float = 60) -> list[int]:
    """How all ended."""
    for rank, process in enumerate(running):
        process.join(seconds)
        assert process.exitcode is not None, (folder / f"said-{rank}").read_text()
    return [process.exitcode for process in running]


def result_of(folder: Path) -> Result:
    """What a run left behind."""
    from pytorch_lightning.checkpoints.sharded import read_any

    (save,) = folder.glob("*/version_0/checkpoints/step-*")
    checkpoint = read_any(save)
    with open(save.parent.parent / "metrics.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "created_at"} for row in csv.DictReader(file)]
    states = [checkpoint[key] for key in ("state_dict", "optimizer_states", "lr_schedulers")]
    weights = json.loads((folder / "end.json").read_text())
    return Result(digest(states), [weights, checkpoint["epoch"], checkpoint["global_step"]], rows)


def run_to_the_end(folder: Path, strategy: str | None, nb: int) -> Result:
    running = processes(folder, strategy, nb, {})
    codes = ended(running, folder)
    assert codes == [0] * nb, [(folder / f"said-{rank}").read_text() for rank in range(nb)]
    return result_of(folder)


def kill_one(folder: Path, strategy: str, rank: int, fault: str) -> None:
    """Run in two processes, of which ``rank`` is killed; the other must end by itself."""
    codes = ended(processes(folder, strategy, 2, {rank: fault}), folder, seconds=30)
    said = (folder / f"said-{1 - rank}").read_text()
    assert codes[rank] == -signal.SIGKILL, f"{fault} was never reached: {said}"
