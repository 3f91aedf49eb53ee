"""The programs of ``changing`` in 2 and 3 processes: ``python -m tests.faults.changing_together FOLDER FIRST NB`` runs
those of ``NB`` seeds, each undisturbed, then cut and resumed. One program, so that torch is imported once; each group
of processes is made of its forks."""

import itertools
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing

from pytorch_lightning import Trainer
from pytorch_lightning.launchers.environment import leave
from pytorch_lightning.strategies import Distributed, FullySharded
from tests.faults import changing
from tests.faults.changing import NB, NB_EPOCHS, SIZE, ByHand, Changing, Counting
from tests.launchers.grouped import enter_group
from tests.saves import every_save_written

dist: Any = distributed
mp: Any = multiprocessing

STRATEGIES: dict[str, Any] = {
    "ddp": lambda: "ddp",
    "ddp, some unused": lambda: Distributed(find_unused_parameters=True),
    "fsdp": lambda: "fsdp",
    "fsdp, layer by layer": lambda: FullySharded(min_parameters=16),
}
SECONDS = 100
"""A group that isn't at its end by then hangs."""


def draw(seed: int) -> dict[str, Any]:
    """A program of ``changing``, and how it is shared out."""
    made, lot = changing.draw(seed), random.Random(f"{seed}, together")
    strategies = [*STRATEGIES, "ddp"]
    if "deque" in made["changes"]:  # its loss takes a weight of a layer that it doesn't call
        strategies.remove("fsdp, layer by layer")
    nb = lot.choice((2, 3))
    made |= {
        "nb": nb,
        "strategy": lot.choice(strategies),
        "uneven": lot.choice(("wait", "wait", "repeat", "drop")),
        "own_shares": lot.random() < 0.3,
        "cuts": [(*cut, lot.choice((None, *range(nb)))) for cut in made["cuts"]],
    }
    if {"freeze", "unfreeze", "add_group"} & {*made["changes"]}:
        made["accumulate"] = 1  # inside a window that is an error
    if made["sampler"] == "stream" and made["norm"]:
        made["workers"], made["persistent"] = 0, False  # each would end with a batch of one sample
    if made["uneven"] == "drop" and made["sampler"] == "counts last":
        made["sampler"] = "counts first"  # it doesn't come to its end
    if lot.random() < 0.2 and (made["sampler"] not in ("list", "stream")) and not made["own_shares"]:
        made["sampler"] = lot.choice(("of torch", "of torch, shuffled"))
    return made


PLACES: list[dict[str, Any]] = [
    # in a last round that is a short one, and the sampler counts
    {**draw(46), "cuts": [("term", 5, None)]},
    # at the end of an epoch, which one process's share came to before the others', and the dataset was changed in it
    {**draw(72), "changes": ["late"], "save_every": 1, "cuts": [("term", 11, 0), ("kill", 13, 0)]},
]
"""Cuts at certain places."""


def made_of(seed: int) -> dict[str, Any]:
    """A program made by lot, or before those one of ``PLACES``."""
    return draw(seed) if seed >= 0 else PLACES[-1 - seed]


def samples_of(made: dict[str, Any], rank: int) -> range:
    """What process ``rank`` has: everything, or a share of its own, which are of different lengths."""
    if not made["own_shares"]:
        return range(NB * made["nb"])
    lengths = [NB, NB - 4, NB - 8][: made["nb"]]
    first = sum(lengths[:rank])
    return range(first, first + lengths[rank])


def train(rank: int, folder: str, made: dict[str, Any], cut: Any) -> None:
    changing.train(
        folder,
        made,
        cut,
        samples_of(made, rank),
        rank,
        distributed_backend=STRATEGIES[made["strategy"]](),
        uneven_batches=made["uneven"],
        data_is_sharded=made["own_shares"],
        precision=precision_of(made),
        process_timeout_minutes=0.5,
    )


def precision_of(made: dict[str, Any]) -> str:
    """64 bits where a loop by hand is compared, which rounds its sums in another order."""
    return "64" if draws_nothing(made) else "32"


def draws_nothing(made: dict[str, Any]) -> bool:
    return changing.draws_nothing(made) and made["sampler"] != "of torch, shuffled"


def run_process(
    rank: int, nb: int, folder: str, port: int, made: dict[str, Any], cut: Any, train: Callable[..., None]
) -> None:
    """What a process does from its fork on."""
    handle = os.open(f"{folder}/said-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(handle, stream)
    torch.set_num_threads(1)
    enter_group(rank, nb, port)
    code: Any = 0
    try:
        with every_save_written():
            train(rank, folder, made, cut)
        leave()
    except BaseException as error:
        traceback.print_exc()
        code = error.code if isinstance(error, SystemExit) else 1
        leave()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(folder: Path, made: dict[str, Any], cut: Any = None, train: Callable[..., None] = train) -> list[int | None]:
    """The exit codes of the processes of a run of ``train(rank, folder, made, cut)``; None for one that hung."""
    folder.mkdir(parents=True, exist_ok=True)
    nb, context = made["nb"], mp.get_context("fork")
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    of_all = nb, str(folder), store.port, made, cut, train
    group = [context.Process(target=run_process, args=(rank, *of_all)) for rank in range(nb)]
    deadline = time.monotonic() + SECONDS
    for process in group:
        process.start()
    for process in group:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in group]
    for process in group:
        process.kill()
        process.join()
    return codes


# ------------------------------------------------------------------------------------------ by hand
class Replica:
    """A process of the loop by hand."""

    def __init__(self, made: dict[str, Any], rank: int) -> None:
        torch.manual_seed(3)
        self.model = changing.model_of(made, samples_of(made, rank)).double()
        self.trainer: Any = ByHand(self.model)
        self.model.trainer = self.trainer
        self.model.train()
        self.counting = Counting()
        self.trainer.optimizers, self.trainer.schedulers = self.model.configure_optimizers()
        self.stepping, self.schedulers = self.trainer.optimizers, self.trainer.schedulers
        self.loader = self.model.tng_dataloader
        self.have_stepped = False

    @property
    def module(self) -> Changing:
        """What a callback's ``run`` has."""
        return self.model

    def begin_epoch(self, epoch: int) -> Iterator[Any]:
        self.trainer.current_epoch, self.have_stepped = epoch, False
        if hasattr(getattr(self.loader, "sampler", None), "set_epoch"):
            self.loader.sampler.set_epoch(epoch)
        self.model.on_epoch_start()
        return iter(self.loader)

    def end_batch(self, is_last: bool, by_step: bool) -> None:
        self.model.on_batch_end()
        self.counting.on_batch_end(self)
        if is_last and by_step:
            self.schedulers[0]["scheduler"].step()
        self.trainer.global_step += 1
        if is_last and self.stepping is not self.trainer.optimizers:
            self.stepping, self.schedulers = self.trainer.optimizers, self.trainer.schedulers
            self.have_stepped = False


def rounds_of(made: dict[str, Any], iterators: list[Iterator[Any]]) -> Iterator[list[Any]]:
    """A batch for each process, or None, as torch's own recipe shares them out."""
    while True:
        if made["own_shares"]:
            found = [next(iterator, None) for iterator in iterators]
        else:
            found = [[*itertools.islice(iterator, made["nb"])] for iterator in iterators]
            found = [dealt[rank] if rank < len(dealt) else None for rank, dealt in enumerate(found)]
        missing = [batch is None for batch in found]
        if all(missing) or (any(missing) and made["uneven"] == "drop"):
            return
        yield found


def nb_rounds_of(made: dict[str, Any], replicas: list[Replica]) -> int:
    lengths = [-(-len(samples_of(made, r)) // SIZE) for r in range(made["nb"])]
    if made["sampler"] != "stream":
        lengths = [len(replica.loader) for replica in replicas]
    if made["own_shares"]:
        return min(lengths) if made["uneven"] == "drop" else max(lengths)
    return lengths[0] // made["nb"] if made["uneven"] == "drop" else -(-lengths[0] // made["nb"])


def by_hand(made: dict[str, Any]) -> dict[str, Tensor]:
    """The weights after the shortest loop that does the same: as many models as processes, each with optimizers of its
    own, which step by the mean of the gradients of all."""
    replicas = [Replica(made, rank) for rank in range(made["nb"])]
    for epoch in range(NB_EPOCHS):
        rounds = rounds_of(made, [replica.begin_epoch(epoch) for replica in replicas])
        nb_rounds = nb_rounds_of(made, replicas)
        for place in range(0, nb_rounds, made["accumulate"]):
            size = min(made["accumulate"], nb_rounds - place)
            nb_counted = 0
            for number in range(place, place + size):
                found = next(rounds)
                for replica, batch in zip(replicas, found, strict=True):
                    if batch is not None:
                        nb_counted += 1
                        x, y = batch
                        replica.model.training_step((x.double(), y), number)["loss"].backward()
                is_last = number + 1 == place + size
                if is_last:
                    step_all(replicas, nb_counted)
                for replica in replicas:
                    replica.end_batch(is_last, made["schedule"] in ("step", "cosine"))
        assert next(rounds, None) is None
        for replica in replicas:
            if made["schedule"] in ("epoch", "lambda") and replica.have_stepped:
                replica.schedulers[0].step()
            replica.model.on_epoch_end()
    return replicas[0].model.state_dict()


def step_all(replicas: list[Replica], nb_batches: int) -> None:
    """The mean of the gradients of all batches, a step of each optimizer, and the buffers of the first process."""
    for parameters in zip(*(replica.model.parameters() for replica in replicas), strict=True):
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            parameter.grad = sum(gradients) / nb_batches if gradients else None
    for replica in replicas:
        for optimizer in replica.stepping:
            optimizer.step()
        replica.have_stepped = True
        replica.model.zero_grad()
        with torch.no_grad():
            for mine, firsts in zip(replica.model.buffers(), replicas[0].model.buffers(), strict=True):
                mine.copy_(firsts)


def main(folder: str, first: str, nb: str) -> None:
    """``first`` is at least ``-len(PLACES)``."""
    import_all()
    run_all(folder, range(int(first), int(first) + int(nb)), made_of, train)


def import_all() -> None:
    """What is imported late is imported once."""
    torch.set_num_threads(1)
    for options in ({"virtual_ranks": 2}, {}):
        quiet = {"max_nb_epochs": 1, "progress_bar": False, "print_weights_summary": False}
        Trainer(False, **quiet, **options).fit(changing.model_of(changing.draw(0)))


def run_all(folder: str, seeds: range, made_of: Callable[[int], dict[str, Any]], train: Callable[..., None]) -> None:
    """Each program undisturbed, then cut and resumed."""
    for seed in seeds:
        began, made, place = time.monotonic(), made_of(seed), Path(folder, str(seed))
        codes = [run(place / "whole", made, None, train)]
        codes += [run(place / "cut", made, cut, train) for cut in made["cuts"]]
        saids = "\n".join(path.read_text() for path in sorted((place / "cut").glob("said-*")))
        codes.append(run(place / "cut", made, None, train))
        torch.save({"codes": codes, "said": saids}, place / "codes.pt")
        if os.environ.get("TIMES"):
            print(seed, made["nb"], made["strategy"], codes, f"{time.monotonic() - began:.1f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
