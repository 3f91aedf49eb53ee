"""A run over two hosts that meet over a network, two processes on each."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import pytorch_lightning
from tests.hosts.network import Hosts, refusal
from tests.launchers.nets import Net, trainer

ROOT = Path(pytorch_lightning.__file__).parent.parent
LIMIT = 150
"""Seconds for a run over two hosts."""

pytestmark = pytest.mark.root

PROGRAM = """
import json, os, sys
from pathlib import Path
from tests.launchers.nets import Net, trainer
folder, backend, mishap = sys.argv[1:]
model = Net(mishap)
run = trainer(folder, distributed_backend=backend, process_timeout_minutes=1)
result = run.fit(model)
told = {
    "result": result,
    "world_size": run.world_size,
    "node_rank": run.node_rank,
    "host": os.uname().nodename,
    "global_step": run.global_step,
    "val_loss": run.tqdm_metrics["val_loss"],
    "weights": [value.tolist() for value in model.state_dict().values()],
}
Path(folder, f"told_{run.proc_rank}.json").write_text(json.dumps(told))
"""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    reason = refusal()
    if reason is not None:
        pytest.skip(reason)
    with Hosts(2) as two:
        yield two


def run_on_both(hosts: Hosts, folder: Path, *arguments: str) -> list[tuple[int, str]]:
    """The program by torchrun on each host: exit codes and what was written to stderr."""
    (folder / "program.py").write_text(PROGRAM)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2", "--rdzv-backend=c10d"),
        *(f"--rdzv-endpoint={hosts.names[0]}:29400", "--rdzv-id=run", "program.py", str(folder), *arguments),
    ]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = [
        hosts.start(i, command, cwd=folder, env=variables, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for i in (0, 1)
    ]
    try:
        return [(process.returncode, error) for process in running for error in [process.communicate(timeout=LIMIT)[1]]]
    finally:
        for process in running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.mark.parametrize("backend", ["ddp"])
def test_two_hosts_train_like_one_process_with_their_virtual_ranks(hosts: Hosts, tmp_path: Path, backend: str) -> None:
    ended = run_on_both(hosts, tmp_path, backend, "")
    assert [code for code, _ in ended] == [0, 0], ended
    told = [json.loads((tmp_path / f"told_{rank}.json").read_text()) for rank in range(4)]
    assert [each["host"] for each in told] == [hosts.names[each["node_rank"]] for each in told]
    assert sorted(each["node_rank"] for each in told) == [0, 0, 1, 1]
    assert len(list(tmp_path.glob("Net/version_*"))) == 1, "one process writes"

    model = Net()
    alone = trainer(tmp_path / "alone", virtual_ranks=4)
    alone.fit(model)
    for each in told:
        assert (each["result"], each["world_size"], each["global_step"]) == (1, 4, alone.global_step)
        assert each["val_loss"] == pytest.approx(alone.tqdm_metrics["val_loss"], rel=1e-5)
        assert each["weights"] == told[0]["weights"]
        for ours, theirs in zip(each["weights"], model.state_dict().values(), strict=True):
            torch.testing.assert_close(torch.tensor(ours), theirs, rtol=1e-5, atol=1e-6)


def test_a_process_that_fails_on_one_host_ends_the_run_on_both(hosts: Hosts, tmp_path: Path) -> None:
    ended = run_on_both(hosts, tmp_path, "ddp", "raise_own")
    assert all(code != 0 for code, _ in ended)
    assert "[rank 1] ZeroDivisionError: something of the user's own" in "".join(error for _, error in ended)
