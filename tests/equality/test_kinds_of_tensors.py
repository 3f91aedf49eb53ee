"""Complex tensors, buffers that are assigned, and batch objects that move themselves: as by hand."""

from collections import OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.optim import SGD, Adagrad
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pytorch_lightning.data.transfer import build_transfer
from pytorch_lightning.errors import MisconfigurationException
from tests.equality.by_hand import Buffers
from tests.equality.models import Classifier, assert_same, fit, samples, windows


class Rotary(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("turns", torch.polar(torch.ones(3), torch.arange(3.0)))


KINDS = [
    ("64", torch.complex128),
    ("bf16-true", torch.complex64),
    ("16-true", torch.complex64),
    ("32", torch.complex64),
]


@pytest.mark.parametrize(("precision", "dtype"), KINDS)
def test_complex_tensors_stay_complex(
    tmp_path: Path, precision: str, dtype: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = fit(tmp_path, Rotary(), nb_epochs=1, precision=precision)
    assert model.turns.dtype == dtype
    torch.testing.assert_close(model.turns.to(torch.complex64), Rotary().turns)
    assert capsys.readouterr().err.count("[complex-tensors]") == precision.endswith("-true")


def test_complex_parameters_are_refused_where_losses_are_scaled(tmp_path: Path) -> None:
    class Complex(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.turn = nn.Parameter(torch.ones(1, dtype=torch.complex64))

    with pytest.raises(MisconfigurationException, match="complex parameters"):
        fit(tmp_path, Complex(), precision="16")


class Averaging(Classifier):
    """Keeps a running mean by putting another tensor in its buffer's place."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.loss((x - self.mean, y))


def test_assigned_buffers_are_those_of_the_first_virtual_rank(tmp_path: Path) -> None:
    model, mean = fit(tmp_path, Averaging(), nb_epochs=1, virtual_ranks=2), torch.zeros(6)
    for x, _ in list(Averaging().tng_dataloader)[::2]:
        mean = 0.9 * mean + 0.1 * x.mean(0)
    assert model.mean.equal(mean)


class Followed(Classifier):
    """An average of the weights, whose buffer counts how often it was updated; ``hook`` does."""

    def __init__(self, hook: str) -> None:
        super().__init__(norm=True)
        self.average = AveragedModel(self.layers, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        self.hook, self.before = hook, []

    def follow(self, hook: str) -> None:
        if hook == self.hook:
            self.average.update_parameters(self.layers)
            self.before.append(self.average.n_averaged.item())

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.follow("on_before_zero_grad")

    def on_batch_end(self) -> None:
        self.follow("on_batch_end")

    def configure_optimizers(self) -> Any:
        return SGD(self.layers.parameters(), 0.1)


@pytest.mark.parametrize("hook", ["on_before_zero_grad", "on_batch_end"])
@pytest.mark.parametrize(
    ("options", "nb"),
    [({}, (5, 5)), ({"virtual_ranks": 2}, (3, 3)), ({"virtual_ranks": 2, "accumulate_grad_batches": 2}, (2, 3))],
    ids=str,
)
def test_buffers_that_hooks_change_between_passes(tmp_path: Path, hook: str, options: Any, nb: Any) -> None:
    model = fit(tmp_path, Followed(hook), nb_epochs=1, silence=("unused-parameter",), **options)
    assert model.before == list(range(1, nb[hook == "on_batch_end"] + 1))
    if "accumulate_grad_batches" in options:
        return
    by_hand = Followed(hook)
    optimizer = by_hand.configure_optimizers()
    for batches in windows(by_hand.tng_dataloader, options.get("virtual_ranks", 1)):
        buffers = Buffers(by_hand)
        optimizer.zero_grad()
        for rank, batch in enumerate(batches):
            buffers.show(rank)
            (by_hand.loss(batch) / len(batches)).backward()
        buffers.show(0)
        optimizer.step()
        by_hand.follow(hook)
    assert_same(by_hand, model)


def test_a_packed_sequence_is_moved_and_cast_by_itself() -> None:
    packed = pack_sequence([torch.randn(3, 2), torch.randn(2, 2)])
    moved: Any = build_transfer(torch.device("meta"), torch.float64)
    result = moved({"words": packed})["words"]
    assert isinstance(result, PackedSequence)
    assert (result.data.device.type, result.data.dtype) == ("meta", torch.float64)
    assert result.batch_sizes.device.type == "cpu"


class Words(dict[str, Any]):
    def to(self, device: torch.device) -> None:
        self["moved"] = device


def test_a_batch_with_a_to_of_its_own_is_moved_by_that() -> None:
    moved: Any = build_transfer(torch.device("meta"))
    words = moved([Words()])[0]
    assert type(words) is Words
    assert words["moved"] == torch.device("meta")


@dataclass(frozen=True)
class Held:
    """A frozen batch that knows more than its arguments say."""

    x: Tensor
    scale: InitVar[float]
    scaled: Tensor = field(init=False)

    def __post_init__(self, scale: float) -> None:
        object.__setattr__(self, "scaled", self.x * scale)


class Encoding(UserDict[str, Any]):
    """As tokenizers give it: it moves itself, and knows nothing of dtypes."""

    def to(self, device: Any) -> "Encoding":
        self.data = {name: tensor.to(device) for name, tensor in self.data.items()}
        return self


class Own(Sequence[Any]):
    """A container with a constructor of its own."""

    def __init__(self, *, items: Any, name: str) -> None:
        self._items, self.name = items, name

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)


BATCHES: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "deque": (lambda x: deque([x], maxlen=3), lambda batch: batch[0]),
    "set": (lambda x: {x}, lambda batch: next(iter(batch))),
    "frozenset": (lambda x: frozenset([x]), lambda batch: next(iter(batch))),
    "defaultdict": (lambda x: defaultdict(list, x=x), lambda batch: batch["x"]),
    "OrderedDict": (lambda x: OrderedDict(x=x), lambda batch: batch["x"]),
    "UserList": (lambda x: UserList([x, x]), lambda batch: batch[1]),
    "max": (lambda x: x.unsqueeze(0).max(0), lambda batch: batch.values),
    "Held": (lambda x: Held(x / 2, 2.0), lambda batch: batch.scaled),
    "Encoding": (lambda x: Encoding(x=x), lambda batch: batch["x"]),
    "Own": (lambda x: Own(items=[x], name="a"), lambda batch: batch[0]),
    "PackedSequence": (lambda x: pack_sequence([*x.unsqueeze(1)]), lambda batch: batch.data),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_in_containers_of_all_kinds(tmp_path: Path, name: str) -> None:
    pack, unpack = BATCHES[name]
    types = set()

    class Packed(Classifier):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            types.add(type(data_batch[0]))
            return self.loss((unpack(data_batch[0]), data_batch[1]))

        @property
        def tng_dataloader(self) -> Any:
            x, y = samples()
            return [(pack(part), labels) for part, labels in zip(x.split(4), y.split(4), strict=True)]

    by_hand = Classifier().double()
    optimizer = by_hand.configure_optimizers()
    for x, y in by_hand.tng_dataloader:
        optimizer.zero_grad()
        by_hand.loss((x.double(), y)).backward()
        optimizer.step()
    assert_same(by_hand, fit(tmp_path, Packed(), nb_epochs=1, precision="64"))
    assert types == {type(pack(torch.ones(1, 6)))}


@pytest.mark.parametrize("name", BATCHES)
def test_containers_of_all_kinds_are_moved_to_another_device(name: str) -> None:
    pack, unpack = BATCHES[name]
    batch = pack(torch.ones(1, 6))
    moved: Any = build_transfer(torch.device("meta"), torch.float64)
    result = moved([batch])[0]
    assert type(result) is type(batch)
    assert (unpack(result).device.type, unpack(result).dtype) == ("meta", torch.float64)
    if name != "Encoding":  # which changes itself
        assert unpack(batch).device.type == "cpu"


class Looked(Classifier):
    """Looks an embedding up without a layer that says that its gradients are sparse."""

    def __init__(self, optimize: Any, late: bool = False) -> None:
        super().__init__(optimize)
        self.table = nn.Parameter(torch.linspace(-1, 1, 60).reshape(10, 6))
        self.late = late

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        words = nn.functional.embedding(y, self.table, sparse=True)
        return self.loss((x if self.late and batch_nb < 2 else x + words, y))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of torch's Adagrad
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", [SGD, Adagrad])
def test_optimizers_with_sparse_gradients_are_not_fused(tmp_path: Path, kind: Any, late: bool) -> None:
    def optimize(parameters: Any) -> Any:
        *others, table = sorted(parameters, key=lambda parameter: parameter.shape == (10, 6))
        return kind([{"params": [table]}, {"params": others}], 0.1)

    by_hand = Looked(optimize, late)
    optimizer = by_hand.configure_optimizers()
    optimizer.param_groups[1]["fused"] = True
    for _ in range(2):
        for n, batch in enumerate(by_hand.tng_dataloader):
            optimizer.zero_grad()
            by_hand.training_step(batch, n).backward()
            optimizer.step()
    trained = []
    model = Looked(lambda parameters: trained.append(optimize(parameters)) or trained[-1], late)
    assert_same(by_hand, fit(tmp_path, model, nb_epochs=2, fused_optimizers=True))
    assert [group["fused"] for group in trained[-1].param_groups] == [None, True]
