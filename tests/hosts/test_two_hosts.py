"""A run over two hosts that meet over a network, two processes on each."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import pytorch_lightning
from tests.hosts.network import Hosts, refusal
from tests.launchers.nets import Net, trainer
from tests.launchers.test_spawned import rows_of

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


LASTING = """
import json, os, sys, threading
from pathlib import Path
from tests.launchers.nets import Net, trainer

folder, backend, options, waits = sys.argv[1:]

class Lasting(Net):
    def on_fit_start(self):
        Path(folder, f"began_{os.environ['RANK']}").write_text(str(run.global_step))
    def training_step(self, data_batch, batch_nb):
        if waits and run.global_step == 4 and run.proc_rank == 3 and not Path(folder, "waits").exists():
            Path(folder, "waits").touch()
            threading.Event().wait()  # for what kills it
        return super().training_step(data_batch, batch_nb)

model = Lasting()
run = trainer(f"{folder}/logs", distributed_backend=backend, process_timeout_minutes=1, max_nb_epochs=5,
              save_every_nb_batches=1, **json.loads(options))
result = run.fit(model)
state = [value.tolist() for value in model.state_dict().values()]
Path(folder, f"told_{run.proc_rank}.json").write_text(json.dumps([result, run.global_step, state]))
"""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    reason = refusal()
    if reason is not None:
        pytest.skip(reason)
    with Hosts(2) as two:
        yield two


def start_on(hosts: Hosts, i: int, folder: Path, *words: str) -> "subprocess.Popen[str]":
    """torchrun, and what it is to run, on a host."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2", "--rdzv-backend=c10d"),
        *(f"--rdzv-endpoint={hosts.names[0]}:29400", "--rdzv-id=run", *words),
    ]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return hosts.start(i, command, cwd=folder, env=variables, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def run_on_both(hosts: Hosts, folder: Path, *arguments: str) -> list[tuple[int, str]]:
    """The program by torchrun on each host: exit codes and what was written to stderr."""
    (folder / "program.py").write_text(PROGRAM)
    return to_the_end([start_on(hosts, i, folder, "program.py", str(folder), *arguments) for i in (0, 1)])


def to_the_end(running: "list[subprocess.Popen[str]]") -> list[tuple[int, str]]:
    try:
        return [(process.returncode, error) for process in running for error in [process.communicate(timeout=LIMIT)[1]]]
    finally:
        for process in running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.mark.parametrize("backend", ["ddp", "fsdp"])
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


def last(hosts: Hosts, folder: Path, backend: str, **options: Any) -> None:
    """A run without kills, from its beginning or resumed."""
    words = ("lasting.py", str(folder), backend, json.dumps(options), "")
    ended = to_the_end([start_on(hosts, i, folder, *words) for i in (0, 1)])
    assert [code for code, _ in ended] == [0, 0], ended


def end_of(folder: Path) -> Any:
    (run,) = (folder / "logs/Lasting").iterdir()
    return [json.loads((folder / f"told_{rank}.json").read_text()) for rank in range(4)], rows_of(run)


@pytest.mark.parametrize("backend", ["ddp", "fsdp"])
def test_a_run_resumes_to_the_same_result_after_one_of_its_hosts_is_lost(
    hosts: Hosts, tmp_path: Path, backend: str
) -> None:
    """torchrun's agent on it too. The same command is run again on both."""
    calm, lost = tmp_path / "calm", tmp_path / "lost"
    for folder in (calm, lost):
        folder.mkdir()
        (folder / "lasting.py").write_text(LASTING)
    last(hosts, calm, backend)

    options = {"resume": "auto"}
    words = ("lasting.py", str(lost), backend, json.dumps(options), "waits")
    stays, goes = (start_on(hosts, i, lost, *words) for i in (0, 1))
    there = ["bash", "-c", f"until [ -e {lost}/waits ]; do sleep 0.1; done"]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(there, check=True, timeout=LIMIT / 2)
    if not (lost / "waits").exists():
        for i in (0, 1):
            hosts.kill(i)
        pytest.fail(f"it didn't come so far: {[p.communicate(timeout=LIMIT)[1] for p in (stays, goes)]}")
    hosts.kill(1)
    goes.communicate(timeout=LIMIT)
    ((code, said),) = to_the_end([stays])
    assert code != 0, said
    last(hosts, lost, backend, **options)
    began = {int((lost / f"began_{rank}").read_text()) for rank in range(4)}
    assert len(began) == 1
    assert 0 < began.pop() <= 4
    assert end_of(lost) == end_of(calm)
