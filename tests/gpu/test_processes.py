"""What carries gradients on a GPU, as far as one GPU shows it: a group of one process, and one device taken twice."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from pytorch_lightning.processes import Processes
from pytorch_lightning.strategies import DataParallel, Distributed, FullySharded
from tests.gpu.models import Images, Plain, Validated, assert_same_bits, bits_of, farthest, trainer_in
from tests.gpu.places import Place

pytestmark = pytest.mark.gpu


class Several(int):
    """A number of processes that is 1 and passes for more, so that one process goes the way of several."""

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    def __gt__(self, other: int) -> bool:
        return True

    __hash__ = int.__hash__


class GroupOfOne:
    """What makes a strategy of several processes take a group of one for more."""

    def attach(self, device: torch.device, processes: Processes, devices: Sequence[torch.device] = ()) -> None:
        objects = dist.new_group(backend="gloo")
        own = Processes(nb=Several(1), group=objects, backend=dist.get_backend())
        super().attach(device, own, devices)  # type: ignore[misc]


class OneDistributed(GroupOfOne, Distributed):
    """ddp in a group of one."""


class OneFullySharded(GroupOfOne, FullySharded):
    """fsdp in a group of one."""


@pytest.fixture
def group(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A group of this process alone; what carries its gradients."""
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if place.is_gpu else "gloo"
    dist.init_process_group(backend, store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield backend
    from pytorch_lightning.processes import before_leaving

    for let_go in before_leaving:
        let_go()
    dist.destroy_process_group()


@pytest.mark.stands_in("CPU")
@pytest.mark.share(60)
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 3}, {"precision": "16"}], ids=str)
@pytest.mark.parametrize("make", [OneDistributed, OneFullySharded])
def test_a_group_of_one_trains_as_one_process(
    place: Place, tmp_path: Path, group: str, make: Any, options: Any
) -> None:
    """A fit whose gradients, tables, buffers and objects travel through NCCL, in a group of one process, gives the
    weights of a plain fit: by ddp, and by fsdp, which shards the weights and gathers them again."""
    grouped, plain = Images(), Images()
    strategy = make() if make is OneDistributed else make(min_parameters=100)
    trainer = trainer_in(tmp_path, gpus=place.gpus, distributed_backend=strategy, save_every_nb_batches=3, **options)
    assert trainer.fit(grouped) == 1
    assert dist.get_backend() == group
    trainer_in(tmp_path, gpus=place.gpus, **options).fit(plain)
    assert farthest(bits_of(grouped), bits_of(plain)) <= 1e-5
    resumed = Images()
    path = tmp_path / "end.ckpt"
    trainer.save_checkpoint(path)
    if make is OneDistributed:
        trainer = trainer_in(tmp_path, gpus=place.gpus, resume=path, max_nb_epochs=2, **options)
        trainer.fit(resumed)
        assert len(resumed.losses) == resumed.nb_batches


@pytest.mark.stands_in("CPU")
def test_what_a_group_exchanges(place: Place, group: str) -> None:
    """The library's own exchanges run over NCCL: tables of float64, buffers of every type, objects over gloo."""
    strategy = OneDistributed()
    strategy.attach(place.device, Processes())
    table = torch.arange(10.0, dtype=torch.float64, device=place.device).reshape(2, 5)
    assert torch.equal(strategy.add_up(table.clone()), table)
    module = Images().to(place.device)
    before = bits_of(module)
    strategy.share_buffers(module)
    assert_same_bits(bits_of(module), before)
    assert strategy.processes.gather({"a": 1}) == [{"a": 1}]
    assert strategy.processes.from_first("b") == "b"
    strategy.processes.wait()


class Twice(DataParallel):
    """dp over one device, taken twice."""

    def attach(self, device: torch.device, processes: Processes, devices: Sequence[torch.device] = ()) -> None:
        super().attach(device, processes, [device, device])


@pytest.fixture
def copies_on_one_device(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU torch's own replicas, where it makes two on one device; elsewhere others that it can't make there."""
    if place.is_gpu:
        try:
            nn.parallel.replicate(nn.Linear(1, 1).to(place.device), [place.device, place.device])
        except (RuntimeError, ValueError) as error:
            pytest.skip(f"torch makes no two replicas on one GPU: {error}")
        return
    from pytorch_lightning.strategies import data_parallel

    def shared(module: nn.Module, devices: Any, detach: bool = False) -> list[nn.Module]:
        return [module for _ in devices]

    def in_turn(modules: Any, inputs: Any, devices: Any) -> list[Any]:
        return [module(*given) for module, given in zip(modules, inputs, strict=True)]

    monkeypatch.setattr(data_parallel, "replicate", shared)
    monkeypatch.setattr(data_parallel, "parallel_apply", in_turn)


@pytest.mark.parametrize("options", [{}, {"precision": "bf16"}, {"accumulate_grad_batches": 2}], ids=str)
def test_dp_over_one_device_twice(place: Place, tmp_path: Path, copies_on_one_device: None, options: Any) -> None:
    """dp with torch's own replicas and threads, on one GPU taken twice, gives the weights and the validation of a
    plain fit; each half of a batch goes to its device by itself."""
    halves, plain = Validated(), Validated()
    trainer = trainer_in(tmp_path, gpus=place.gpus, distributed_backend=Twice(), **options)
    trainer.fit(halves)
    other = trainer_in(tmp_path, gpus=place.gpus, **options)
    other.fit(plain)
    close = 0.05 if "precision" in options else 1e-4
    assert trainer.use_dp
    assert farthest(bits_of(halves), bits_of(plain)) <= close
    assert trainer.validate()["val_loss"] == pytest.approx(other.validate()["val_loss"], rel=max(close, 1e-3))


def test_dp_and_ddp_over_one_device_are_plain_runs(place: Place, tmp_path: Path) -> None:
    """distributed_backend='dp', 'ddp' and 'fsdp' with one GPU and one process train as without."""
    plain = Plain()
    trainer_in(tmp_path, gpus=place.gpus).fit(plain)
    for backend in ("dp", "ddp", "fsdp"):
        model = Plain()
        trainer_in(tmp_path, gpus=place.gpus, distributed_backend=backend).fit(model)
        assert_same_bits(bits_of(model), bits_of(plain))
