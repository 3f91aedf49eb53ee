"""torchrun processes of which one ends early: what torchrun starts again resumes by itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.launchers.test_spawned import rows_of
from tests.launchers.test_torchrun import torchrun

PROGRAM = """
import json, os, sys
from pathlib import Path
attempt, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
mishap = os.environ.get("MISHAP", "") if attempt == "0" else ""
if ":" in mishap and rank == "0":
    os.environ["FAULT"] = mishap
if os.environ.get("MISHAP") == "die" and rank == "1":
    os.environ["TORCHELASTIC_RESTART_COUNT"] = "0"  # as on a machine that came back
from tests.launchers.nets import Net, trainer

class Own(Net):
    def on_fit_start(self):
        Path(f"began_{attempt}_{rank}").write_text(str(self.trainer.global_step))
    def training_step(self, data_batch, batch_nb):
        if self.global_step == 4 and rank == "1" and mishap and ":" not in mishap:
            getattr(self, mishap)()
        return super().training_step(data_batch, batch_nb)

model = Own()
run = trainer("logs", save_every_nb_batches=1, max_nb_epochs=3, process_timeout_minutes=0.15)
result = run.fit(model)
state = [value.tolist() for value in model.state_dict().values()]
state += [run.optimizers[0].state[p]["exp_avg_sq"].tolist() for p in model.parameters()]
Path(f"told_{rank}.json").write_text(json.dumps([result, run.global_step, state]))
"""


def end_of(folder: Path, *options: str, **variables: str) -> Any:
    done = torchrun(folder, PROGRAM, *options, **variables)
    assert done.returncode == 0, done.stderr
    told = [json.loads((folder / f"told_{rank}.json").read_text()) for rank in (0, 1)]
    (run,) = (folder / "logs/Own").iterdir()
    return told, rows_of(run)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return end_of(tmp_path_factory.mktemp("undisturbed"))


NAMELESS = ("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0")
NAMED = (*NAMELESS, "--rdzv-id=run")


@pytest.mark.parametrize(
    ("mishap", "rendezvous"),
    [
        pytest.param("die", NAMED, id="killed"),
        pytest.param("raise_own", NAMELESS, id="raises"),
        pytest.param("hang", (), id="hangs"),
        pytest.param("write.written:3", (), id="killed in a save"),
    ],
)
def test_a_run_that_one_process_ends_resumes_automatically_to_the_same_result(
    tmp_path: Path, undisturbed: Any, mishap: str, rendezvous: tuple[str, ...]
) -> None:
    ended = end_of(tmp_path, "--max-restarts=1", *rendezvous, MISHAP=mishap)
    began = {path.name: int(path.read_text()) for path in tmp_path.glob("began_*")}
    assert began["began_0_0"] == began["began_0_1"] == 0
    assert 0 < began["began_1_0"] == began["began_1_1"] <= 4, "a restart that resumes"
    assert ended == undisturbed
