"""What a fit in one process leaves alone: the network, other processes, packages that it has no use for."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = '''
import contextlib
import json
import os
import sys
from pathlib import Path

FORBIDDEN = (
    "socket.", "subprocess.", "urllib.", "http.", "webbrowser.", "pty.", "os.system", "os.exec", "os.spawn",
    "os.posix_spawn", "os.fork",
)
watching = False


def forbid(event, arguments):
    if watching and event.startswith(FORBIDDEN) and event != "socket.gethostname":  # no question to anybody
        print(event, arguments, file=sys.stderr)
        os._exit(3)


sys.addaudithook(forbid)

import torch
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint


def outside():
    """The sockets and the children of this process, also those that python doesn't know of."""
    links = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a save is written by a thread, and its file closed meanwhile
            links.append(os.readlink(path))
    children = "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    return sorted(link for link in links if link.startswith("socket:")), children


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, data_batch, batch_nb):
        seen.append(outside())
        return {"loss": self.layer(data_batch[0]).pow(2).mean()}

    def validation_step(self, data_batch, batch_nb):
        return self.layer(data_batch[0]).pow(2).mean()

    def validation_end(self, outputs):
        return {"val_loss": torch.stack(outputs).mean()}

    def forward(self, data_batch):
        return self.layer(data_batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    tng_dataloader = property(lambda self: DataLoader(TensorDataset(torch.ones(40, 4)), batch_size=4, shuffle=True))
    val_dataloader = test_dataloader = property(lambda self: DataLoader(TensorDataset(torch.ones(8, 4)), batch_size=4))


watching, seen, at_first = True, [], outside()
for nb_epochs in (1, 3):
    callbacks = [EarlyStopping(patience=3), ModelCheckpoint("checkpoints")]
    options = {"save_every_nb_batches": 3, "resume": "auto", "deterministic": True, "callbacks": callbacks}
    trainer = Trainer(max_nb_epochs=nb_epochs, **options)
    assert trainer.fit(Model()) == 1
trainer.test()
trainer.predict(trainer.model)
watching = False
assert len(seen) == 30
print(json.dumps({"changed": [place for place in seen if place != at_first], "modules": sorted(sys.modules)}))
'''

UNUSED = {"test_tube", "pandas", "imageio", "future", "tensorboard", "torchvision", "PIL", "grpc", "google.protobuf"}


def test_a_fit_in_one_process_opens_no_socket_and_starts_no_process(tmp_path: Path) -> None:
    """And it doesn't load what it has no use for: test-tube and its dependencies, torchvision, tensorboard."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["changed"] == []
    assert UNUSED & set(told["modules"]) == set()
    assert "tqdm" in told["modules"]
