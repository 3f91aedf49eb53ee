"""Processes stay replicas of each other: what is used in some steps only, frozen, unfrozen or added while training is
exchanged as a loop by hand would, or refused before a wrong step; and a killed run gives the same bits."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.strategies import programs
from tests.strategies.programs import CHANGES, EPOCHS, SOME, Attends, Gan, Net, batches, killed, refused, trained

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], list[Any]]:
    """What each process of each program ended with: weights, or the text of an error."""
    folder = tmp_path_factory.mktemp("replicas")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", programs.__name__, str(folder)]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    found: dict[tuple[str, int], list[Any]] = {}
    for name, nb in programs.programs():
        paths = [folder / f"{name}-{nb}-{rank}.pt" for rank in range(nb)]
        found[name, nb] = [torch.load(path) if path.exists() else None for path in paths]
    return found


def by_hand(model: Net, nb: int, accumulate: int = 1, nb_batches: int | None = None) -> nn.Module:
    """The gradients of each window's mean loss over the batches of all ranks, then a step."""
    configured = model.configure_optimizers()
    optimizers = configured if isinstance(configured, list) else [configured]
    step, data = 0, batches()[:nb_batches]
    rounds = [data[i : i + nb] for i in range(0, len(data), nb)]
    for epoch in range(EPOCHS):
        model.at_epoch(epoch, optimizers[0])
        for place in range(0, len(rounds), accumulate):
            window = rounds[place : place + accumulate]
            for i, optimizer in enumerate(optimizers):
                model.zero_grad()
                for of_round in window:
                    model.at_step(step)
                    step += i == 0
                    for batch in of_round:
                        loss: Any = model.training_step(batch, 0, *([i] if len(optimizers) > 1 else []))
                        (loss / sum(map(len, window))).backward()
                optimizer.step()
    return model


HANDS: dict[str, Any] = {
    "some": lambda nb: by_hand(SOME(), nb),
    "some, accumulated": lambda nb: by_hand(SOME(), nb, 3),
    "gan": lambda nb: by_hand(Gan(), nb),
    "layers": lambda nb: by_hand(CHANGES["layers"](), nb),
    "layers, found": lambda nb: by_hand(CHANGES["layers"](), nb),
    "epochs, accumulated": lambda nb: by_hand(CHANGES["epochs"](), nb, 3),
    "epochs, exact": lambda nb: by_hand(CHANGES["epochs"](), nb),
    "group": lambda nb: by_hand(CHANGES["group"](), nb),
    "layers, sharded": lambda nb: by_hand(CHANGES["layers"](), nb),
    "attends, sharded": lambda nb: by_hand(Attends(), nb),
    "static": lambda nb: by_hand(Net("not the second"), nb, nb_batches=10),
    "layers, views": lambda nb: by_hand(CHANGES["layers"](), nb),
    "epochs, accumulated, views": lambda nb: by_hand(CHANGES["epochs"](), nb, 3),
}


@pytest.mark.parametrize(("name", "nb"), trained())
def test_what_changes_while_training_is_trained_as_by_hand(told: Any, name: str, nb: int) -> None:
    expected = HANDS[name](nb).state_dict()
    for of_rank in told[name, nb]:
        assert isinstance(of_rank, dict), of_rank
        torch.testing.assert_close(of_rank, expected, rtol=1e-5, atol=1e-6)


MESSAGES = {
    "unused last": "no gradient from training_step of Net: layers.1.weight, layers.1.bias",
    "unused by one of three": "no gradient from training_step of Net: layers.1.weight, layers.1.bias",
    "unused later": "no gradient from training_step of Net: layers.1.weight, layers.1.bias",
    "static, accumulated": "pass accumulate_grad_batches=1",
    "static, short round": "static_graph=True needs a batch in every process",
    "inside": "weren't exchanged between the processes: layers.0.weight, layers.0.bias",
    "one rank": "in some processes and not in all: layers.0.weight, layers.0.bias",
    "alone": "1 parameters that aren't the module's",
    "group, sharded": "with distributed_backend='fsdp' they can't be exchanged",
    "some, sharded layers": "only some of them used layers.0, layers.1",
    "some, sharded": "layers.0.bias, layers.0.weight, layers.1.bias, layers.1.weight got a gradient in some of them",
    "borrows, sharded": "used while it wasn't called: layers.3 (Linear)",
    "touched, epoch's end": "layers.2.bias of process 1 isn't that of process 0",
    "touched, saved": "layers.2.bias of process 1 isn't that of process 0",
}


@pytest.mark.parametrize(("name", "nb"), refused())
def test_what_would_be_wrong_ends_with_an_error_that_names_it(told: Any, name: str, nb: int) -> None:
    errors = told[name, nb]
    assert all(isinstance(error, str) for error in errors), errors
    assert any(MESSAGES[name] in error for error in errors), errors


def test_a_notice_says_where_a_resumed_run_may_have_other_bits(told: Any) -> None:
    assert "a resumed run may differ in its last bits: with static_graph=True" in told["static, said", 3][0]


@pytest.mark.parametrize("nb", sorted({nb for _, nb in killed()}))
def test_a_killed_run_of_several_processes_gives_the_same_bits(told: Any, nb: int) -> None:
    assert None in told["killed", nb]
    for of_rank in told["resumed", nb]:
        assert isinstance(of_rank, dict), of_rank
        for name, value in told["undisturbed", nb][0].items():
            assert torch.equal(of_rank[name], value), name
