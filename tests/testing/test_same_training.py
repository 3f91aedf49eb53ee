"""``same_training``: planted changes are found at their batch and tensor, wherever training runs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.seeding import order_scope
from pytorch_lightning.testing import same_training
from pytorch_lightning.testing.fingerprints import Fingerprint

NB_SAMPLES, SIZE, NB_BATCHES = 48, 2, 20
CHANGED_SAMPLE = 29
LONG_SUM = 2**20


class Points(Dataset):
    def __init__(self, changed: bool) -> None:
        self.x = torch.randn(NB_SAMPLES, 6, generator=torch.Generator().manual_seed(0))
        if changed:
            self.x[CHANGED_SAMPLE, 3] = torch.nextafter(self.x[CHANGED_SAMPLE, 3], torch.tensor(9.0))

    def __len__(self) -> int:
        return NB_SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.x[index] + 0.01 * torch.rand(6), index % 3


class Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean()


class Net(LightningModule):
    """``plant`` is what was changed in it."""

    def __init__(self, plant: str = "", nb_workers: int = 0) -> None:
        super().__init__()
        self.plant, self.nb_workers = plant, nb_workers
        self.first, self.norm, self.drop, self.last = (
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3),
        )  # fmt: skip
        self.sum = Sum()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.plant == "line" and self.global_step >= 6:
            x = x * 1.0000002
        return self.last(self.drop(torch.relu(self.norm(x))))

    def training_step(self, data_batch: Any, batch_nb: int) -> Tensor:
        x, y = data_batch
        if self.plant == "dropout" and self.global_step == 11:
            torch.rand(1)
        spread = self.sum(x.flatten().repeat(LONG_SUM // x.numel())) if self.plant == "threads" else 0.0
        return F.cross_entropy(self(x), y) + 0.0 * spread

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        if self.plant == "bit":
            optimizer.register_step_post_hook(self.flip)
        return optimizer

    def flip(self, *_: Any) -> None:
        if self.global_step == 9:
            self.last.weight.data.view(torch.int32)[1, 2] ^= 1

    @property
    def tng_dataloader(self) -> DataLoader:
        return DataLoader(Points(self.plant == "sample"), SIZE, shuffle=True, num_workers=self.nb_workers)


class Threads(Callback):
    """Sets the number of threads, in each process."""

    def __init__(self, nb: int) -> None:
        self._nb = nb

    def on_fit_start(self, run: Any) -> None:
        torch.set_num_threads(self._nb)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def made(plant: str = "", nb_workers: int = 0) -> Net:
    torch.manual_seed(4)
    return Net(plant, nb_workers)


def batch_of_the_sample(seed: int = 1) -> tuple[int, int]:
    """The round and the virtual rank in which a hand-written loop sees the sample that is changed."""
    loader, number = DataLoader(range(NB_SAMPLES), SIZE, shuffle=True), 0
    for epoch in range(2):
        with order_scope(seed, epoch):
            for batch in loader:
                if CHANGED_SAMPLE in batch:
                    return divmod(number, 2)
                number += 1
    raise AssertionError("it isn't in the data")


ROUND, RANK = batch_of_the_sample()
PLANTS = {
    "sample": (f"batch {ROUND} of virtual rank {RANK}", "the batch[0]"),
    "bit": ("batch 9", "the weight last.weight after the step"),
    "dropout": ("batch 11 of virtual rank 0", "the output of drop (Dropout)"),
    "line": ("batch 6 of virtual rank 0", "the output of norm (BatchNorm1d)"),
    "threads": ("batch 0 of virtual rank 0", "the output of sum (Sum)"),
}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("golden") / "golden.json"
    same_training(made(), path, NB_BATCHES, update=True, virtual_ranks=2, exact_elastic=True)
    return path


def said(*arguments: Any, **options: Any) -> str:
    """What the failing comparison says."""
    with pytest.raises(AssertionError) as raised:
        same_training(*arguments, **options)
    return str(raised.value)


def planted(folder: Path, golden: Path, plant: str, **where: Any) -> None:
    nb_workers = where.pop("nb_workers", 0)
    where |= {"virtual_ranks": 2, "exact_elastic": True}
    if plant == "threads":  # the sum must be in both
        golden = folder / "threads.json"
        one, two = [Threads(1)], [Threads(2)]
        same_training(made(plant), golden, 3, update=True, callbacks=one, virtual_ranks=2, exact_elastic=True)
        text = said(made(plant, nb_workers), golden, 3, callbacks=two, **where)
    else:
        text = said(made(plant, nb_workers), golden, NB_BATCHES, **where)
    place, name = PLANTS[plant]
    first, second, *_ = text.splitlines()
    assert re.search(rf"from {place}\b(?! of)", first.replace("; ", " ; ")), text
    assert second.strip().startswith(f"{name} "), text


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_change_is_found(tmp_path: Path, golden: Path, plant: str) -> None:
    planted(tmp_path, golden, plant)


@pytest.mark.slow
@pytest.mark.parametrize("nb_workers", [0, 2])
@pytest.mark.parametrize("nb_processes", [1, 2])
@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_change_is_found_anywhere(
    tmp_path: Path, golden: Path, plant: str, nb_processes: int, nb_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plant == "threads":  # a copy of this process would keep one
        monkeypatch.setattr("pytorch_lightning.launchers.spawned.start_method", lambda: "spawn")
        monkeypatch.setattr("pytorch_lightning.launchers.spawned.check_guard", lambda frame: None)
    planted(tmp_path, golden, plant, nb_processes=nb_processes, nb_workers=nb_workers)


def test_the_same_training_is_the_same(golden: Path) -> None:
    options: dict[str, Any] = {"virtual_ranks": 2, "exact_elastic": True}
    before = golden.read_bytes()
    same_training(made(), golden, NB_BATCHES, **options)
    same_training(made(), golden, 7, **options)
    same_training(made(), golden, NB_BATCHES, resume_at=13, **options)
    assert golden.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("where", [{"nb_workers": 2}, {"nb_processes": 2}, {"nb_processes": 2, "resume_at": 5}])
def test_it_is_the_same_anywhere(golden: Path, where: dict[str, Any]) -> None:
    model = made(nb_workers=where.pop("nb_workers", 0))
    same_training(model, golden, NB_BATCHES, virtual_ranks=2, exact_elastic=True, **where)


def test_the_file_holds_what_a_loop_by_hand_computes(tmp_path: Path) -> None:
    """Losses, and fingerprints of gradients and weights, of plain torch."""

    class Plain(Net):
        def training_step(self, data_batch: Any, batch_nb: int) -> Tensor:
            x, y = data_batch
            return F.cross_entropy(self.last(torch.relu(self.first(x))), y)

        @property
        def tng_dataloader(self) -> Any:
            return [(torch.ones(4, 6) * n, torch.tensor([0, 1, 2, 0])) for n in range(3)]

    torch.manual_seed(4)
    same_training(Plain(), tmp_path / "golden.json", 5, update=True)
    head = json.loads((tmp_path / "golden.json").read_text())
    lines = [line.split(" ", 3) for line in head["records"]]
    kept = {(int(batch), head["names"][int(name)]): value for batch, _, name, value in lines}
    torch.manual_seed(4)
    model = Plain()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for n in range(5):
        x, y = model.tng_dataloader[n % 3]
        optimizer.zero_grad()
        loss = F.cross_entropy(model.last(torch.relu(model.first(x))), y)
        loss.backward()
        assert kept[n, "the loss"] == loss.item().hex()
        assert kept[n, "the gradient of first.weight"] == Fingerprint.of(model.first.weight.grad).to_text()
        optimizer.step()
        assert kept[n, "the weight last.bias after the step"] == Fingerprint.of(model.last.bias).to_text()
    assert (5, "the loss") not in kept


def test_the_model_stays_as_it_is(tmp_path: Path) -> None:
    model = made()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    same_training(model, tmp_path / "golden.json", 3, update=True)
    assert all(bool((before[name] == value).all()) for name, value in model.state_dict().items())
    assert "training_step" not in vars(model)
    assert bool((torch.get_rng_state() == state).all())
    assert [path.name for path in tmp_path.iterdir()] == ["golden.json"]


def test_a_function_makes_the_model_from_the_seed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    same_training(Net, tmp_path / "golden.json", 4, update=True)
    torch.manual_seed(1)
    same_training(Net, tmp_path / "golden.json", 4, resume_at=2)
    text = said(Net, tmp_path / "golden.json", 4, seed=2)
    assert "from what is there before the first batch" in text
    assert "seed was 1, and is 2" in text


class Smooth(Net):
    """Without gradients that are nothing but rounding."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Tensor:
        x, y = data_batch
        factor = 1.00001 if self.plant and self.global_step >= 6 else 1.0
        return F.cross_entropy(self.last(torch.tanh(factor * self.first(x))), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_tolerance(tmp_path: Path) -> None:
    def make(plant: str = "") -> Smooth:
        torch.manual_seed(4)
        return Smooth(plant)

    golden = tmp_path / "golden.json"
    same_training(make(), golden, 8, update=True)
    assert "differs" in said(make("line"), golden, 8)
    same_training(make("line"), golden, 8, tolerance=1e-3)
    assert "from batch 6" in said(make("line"), golden, 8, tolerance=1e-7)
    assert "the indices were" in said(make(), golden, 8, tolerance=1e-3, seed=2)


def test_the_size_of_a_difference() -> None:
    generator = torch.Generator().manual_seed(3)
    ratios = []
    for numel in (7, 500, 9000, 100_000):
        for _ in range(20):
            a = torch.randn(numel, generator=generator)
            d = 0.01 * torch.randn(numel, generator=generator)
            found = Fingerprint.of(a).far_from(Fingerprint.of(a + d))
            ratios.append(found / d.norm().item())
    assert 0.8 < float(np.median(ratios)) < 1.2
    assert max(ratios) < 3
    assert float(np.sqrt(np.mean(np.square(ratios)))) == pytest.approx(1, abs=0.2)
    a = torch.randn(10_000)
    assert Fingerprint.of(a).far_from(Fingerprint.of(a.clone())) == 0
    assert Fingerprint.from_text(Fingerprint.of(a).to_text()).crc == Fingerprint.of(a).crc


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2, 3, dtype=torch.bfloat16),
        torch.ones(3, dtype=torch.complex64),
        torch.tensor([True, False]),
        torch.tensor(float("nan")),
        torch.zeros(0),
        torch.ones(3, 4).T,
        torch.eye(3).to_sparse(),
        torch.tensor([2**62, -(2**62)]),
    ],
)
def test_any_tensor_has_a_fingerprint(tensor: Tensor) -> None:
    made = Fingerprint.of(tensor)
    assert made == Fingerprint.of(tensor.clone()) or made.norm != made.norm
    assert Fingerprint.from_text(made.to_text()).crc == made.crc
    if tensor.numel() and tensor.layout == torch.strided:
        other = tensor.clone(memory_format=torch.contiguous_format)
        other.view(-1)[:1] = 0 if tensor.dtype != torch.bool else False
        assert Fingerprint.of(other).crc != made.crc


def test_a_buffer_that_training_does_not_read(tmp_path: Path) -> None:
    golden, other = tmp_path / "golden.json", made()
    same_training(made(), golden, 3, update=True)
    other.norm.momentum = 0.2
    _, second, *_ = said(other, golden, 3).splitlines()
    assert second.strip().startswith("the buffer norm.running_mean at the end differs")


class Two(Net):
    """Another network in the place of the first one's middle."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Sequential(nn.Dropout(0.5), nn.Identity())  # type: ignore[assignment]


def test_another_structure_is_named(tmp_path: Path) -> None:
    golden = tmp_path / "golden.json"
    same_training(made(), golden, 3, update=True)
    torch.manual_seed(4)
    text = said(Two(), golden, 3)
    assert "the output of drop.0 (Dropout) is computed, and the output of drop (Dropout) of batch 0 was" in text


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 3},
        pytest.param({"precision": "bf16"}, marks=pytest.mark.slow),
        pytest.param({"gradient_clip": 0.01}, marks=pytest.mark.slow),
    ],
)
def test_options_change_what_is_computed(tmp_path: Path, options: dict[str, Any]) -> None:
    golden = tmp_path / "golden.json"
    same_training(made(), golden, 6, update=True, **options)
    same_training(made(), golden, 6, resume_at=3, **options)
    ((name, value),) = options.items()
    assert f"{name} was {value!r}, and is not given" in said(made(), golden, 6)


class Own(Net):
    """Two optimizers and steps by hand; validated, with a schedule."""

    automatic_optimization = False

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        for i in range(2):
            loss = super().training_step(data_batch, batch_nb)
            self.manual_step(i, loss)
        return loss

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"val_loss": F.cross_entropy(self(data_batch[0]), data_batch[1])}

    def validation_end(self, outputs: Any) -> dict[str, Any]:
        factor = 2.0 if self.plant == "validation" else 1.0
        return {"val_loss": factor * torch.stack([o["val_loss"] for o in outputs]).mean()}

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.first.parameters(), 0.1), torch.optim.SGD(self.last.parameters(), 0.1)]

    @property
    def val_dataloader(self) -> DataLoader:
        return DataLoader(Points(False), 16)


def test_own_steps_and_validations(tmp_path: Path) -> None:
    def make(plant: str = "") -> Own:
        torch.manual_seed(4)
        return Own(plant)

    golden = tmp_path / "golden.json"
    same_training(make(), golden, 30, update=True)
    same_training(make(), golden, 30)
    text = said(make("validation"), golden, 30)
    assert "from batch 23" in text
    assert "val_loss of the validation after it was" in text


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    golden = tmp_path / "golden.json"
    assert "doesn't exist. Write it with pytest --update" in said(made(), golden, 2)
    same_training(made(), golden, 2, update=True)
    assert "holds 2 batches, and 3 are to be compared" in said(made(), golden, 3)
    assert "training ended after 4 batches" in said(made(), golden, 9, max_nb_steps=4)
    for wrong in ({"format": 9}, {"format": 1}, []):
        golden.write_text(json.dumps(wrong))
        assert "can't be read" in said(made(), golden, 2)
    for options, what in (
        ({"compile": True}, "sets compile itself"),
        ({"distributed_backend": "fsdp"}, "compares whole tensors"),
        ({"tolerance": -1}, "tolerance must be"),
        ({"resume_at": 2}, "resume_at must lie between"),
        ({"no_such_option": 2}, "no_such_option"),
    ):
        with pytest.raises(MisconfigurationException, match=what):
            same_training(made(), golden, 2, **options)
    with pytest.raises(MisconfigurationException, match="nb_batches must be"):
        same_training(made(), golden, 0)


CONFTEST = "from pytorch_lightning.testing import pytest_addoption, pytest_configure\n"
TEST = """
import torch
from pytorch_lightning.testing import same_training
from tests.testing.test_same_training import Net

def test_it():
    same_training(Net, "golden.json", 3)
"""


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("-n", "2")])
def test_pytest_writes_it_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]) -> None:
    import subprocess
    import sys

    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TEST)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    start = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *more)
    for words, code in (((), 1), (("--update",), 0), ((), 0)):
        ended = subprocess.run([*start, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == code, ended.stdout + ended.stderr
