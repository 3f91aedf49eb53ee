"""A model comes back as its constructor was called, without any code of the user's."""

import copy
import dataclasses
import enum
import pickle
import sys
import types
from argparse import Namespace
from collections.abc import Mapping, MutableSequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pytest
import torch
from torch import nn

from pytorch_lightning import LightningModule
from pytorch_lightning.errors import CheckpointError, MisconfigurationException
from tests.recorder import quiet_trainer

T = TypeVar("T")


class Base(LightningModule):
    """One weight; what a subclass was made with lies in ``got``."""

    def __init__(self, hparams: Any = None) -> None:
        super().__init__(hparams)
        self.layer = nn.Linear(1, 1)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.layer(data_batch).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    tng_dataloader = property(lambda self: [torch.ones(1, 1)] * 2)  # type: ignore[assignment]


class Widths(Base):
    def __init__(self, first: Any, /, width: Any = 32, *more: Any, scale: Any = (1, 2), **rest: Any) -> None:
        super().__init__()
        self.got = (first, width, more, scale, rest)


class Hyper(Base):
    def __init__(self, args: Any) -> None:
        super().__init__()
        self.hparams = args


def saved(folder: Path, model: Base) -> Path:
    trainer = quiet_trainer(folder, max_nb_epochs=1)
    trainer.fit(model)
    trainer.save_checkpoint(folder / "x.ckpt")
    return folder / "x.ckpt"


def there_and_back(folder: Path, model: Base, **overrides: Any) -> Any:
    loaded = type(model).load_from_checkpoint(saved(folder, model), **overrides)
    assert torch.equal(loaded.layer.weight, model.layer.weight)
    return loaded


class Color(enum.Enum):
    RED = "red"


@pytest.mark.parametrize("make", [lambda m: m, copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize(
    "model",
    [
        lambda: Widths(1),
        lambda: Widths(1, 2, 3, [4], scale=None, depth=5),
        lambda: Widths({"a": Namespace(b=[Namespace(c=1)])}, {1, 2}, Path("p"), scale=b"", of=frozenset({("a", 1)})),
    ],
)
def test_a_model_is_made_as_it_was_made_before(tmp_path: Path, model: Any, make: Any) -> None:
    loaded = there_and_back(tmp_path, make(model()))
    assert loaded.got == model().got
    assert list(map(type, loaded.got)) == list(map(type, model().got))


def test_tensors_and_arrays_are_arguments_too_and_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    first, width, _, scale, _ = there_and_back(
        tmp_path, Widths(torch.tensor([1.0, 2.0]), np.arange(3), scale=np.float32(0.5))
    ).got
    assert first.tolist() == [1.0, 2.0]
    assert isinstance(width, np.ndarray)
    assert width.tolist() == [0, 1, 2]
    assert scale == 0.5


def test_a_default_that_changes_later_doesnt_change_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, Widths(1))
    monkeypatch.setattr(Widths.__init__, "__kwdefaults__", {"scale": 99})
    monkeypatch.setattr(Widths.__init__, "__defaults__", (64,))
    assert Widths(1).got == (1, 64, (), 99, {})
    assert Widths.load_from_checkpoint(path).got == (1, 32, (), (1, 2), {})


def test_an_argument_is_kept_as_it_was_at_the_call(tmp_path: Path) -> None:
    class Growing(Base):
        def __init__(self, sizes: list[int]) -> None:
            super().__init__()
            sizes.append(9)
            self.sizes = sizes

    assert there_and_back(tmp_path, Growing([1, 2])).sizes == [1, 2, 9]


@pytest.mark.parametrize(
    "value",
    [
        nn.ReLU(),
        Color.RED,
        len,
        torch.ones(2, requires_grad=True),
        torch.ones(2**20),
        list(range(200_000)),
        {1: object},
    ],
)
def test_what_isnt_plain_is_named_and_can_be_given(tmp_path: Path, value: Any) -> None:
    path = saved(tmp_path, Widths(7, value))
    with pytest.raises(CheckpointError, match=r"width \(.*Widths\.load_from_checkpoint\(path, width=\.\.\.\)"):
        Widths.load_from_checkpoint(path)
    loaded = Widths.load_from_checkpoint(path, width=value)
    assert loaded.got[:2] == (7, value) if not isinstance(value, torch.Tensor) else loaded.got[1] is value
    with pytest.raises(CheckpointError, match=r"\*more\[1\] \(.*path, more=\.\.\."):
        Widths.load_from_checkpoint(saved(tmp_path, Widths(7, 8, 9, value)))


def test_a_default_that_isnt_plain_is_left_to_the_constructor(tmp_path: Path) -> None:
    class Active(Base):
        def __init__(self, act: Any = torch.relu, width: int = 3) -> None:
            super().__init__()
            self.got = (act, width)

    assert there_and_back(tmp_path, Active(width=5)).got == (torch.relu, 5)


def test_arguments_are_overridden_by_name_and_a_wrong_name_is_an_error(tmp_path: Path) -> None:
    class Named(Base):
        def __init__(self, path: str, width: int = 3) -> None:
            super().__init__()
            self.got = (path, width)

    path = saved(tmp_path, Named("here", 4))
    assert Named.load_from_checkpoint(path, width=5).got == ("here", 5)
    assert Named.load_from_checkpoint(path, path="there").got == ("there", 4)
    assert Named.load_from_checkpoint(path=path).got == ("here", 4)
    with pytest.raises(MisconfigurationException, match=r"no parameter 'widht'.*Did you mean 'width'"):
        Named.load_from_checkpoint(path, widht=5)
    with pytest.raises(MisconfigurationException, match=r"takes no hparams.*path, width"):
        Flag.load_from_checkpoint(saved(tmp_path, Flag()), hparams={"lr": 1})


class Flag(Base):
    def __init__(self, path: int = 1, width: bool = False) -> None:
        super().__init__()
        self.got = (path, width)


def test_a_secret_is_in_no_file(tmp_path: Path) -> None:
    class Client(Base):
        def __init__(self, api_key: str, max_token: int = 3) -> None:
            super().__init__()
            self.got = (api_key, max_token)

    path = saved(tmp_path, Client("sk-0123456789", 5))
    assert b"sk-0123456789" not in path.read_bytes()
    with pytest.raises(CheckpointError, match=r"api_key \(a secret, by its name\)"):
        Client.load_from_checkpoint(path)
    assert Client.load_from_checkpoint(path, api_key="k").got == ("k", 5)


def test_any_kind_of_class_is_recorded(tmp_path: Path) -> None:
    class Typed(Base, Generic[T]):
        def __init__(self, width: int = 3) -> None:
            super().__init__()
            self.width = width

    @dataclasses.dataclass(eq=False)
    class Data(Base):
        width: int = 3

        def __post_init__(self) -> None:
            super().__init__()

    class Mixin:
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return super().__new__(cls)

    class Mixed(Base, Mixin):
        def __init__(self, width: int = 3) -> None:
            super().__init__()
            self.width = width

    class Inner(Mixed):
        def __init__(self, half: int, **others: Any) -> None:
            super().__init__(width=2 * half, **others)

    assert there_and_back(tmp_path, Typed[int](width=5)).width == 5
    assert there_and_back(tmp_path, Data(5)).width == 5
    assert there_and_back(tmp_path, Mixed(5)).width == 5
    assert there_and_back(tmp_path, Inner(3)).width == 6


HPARAMS = [
    {"lr": 0.1, "layers": {1: [2, 3]}},
    Namespace(lr=0.1, inner=Namespace(size=3), several=[Namespace(n=1)]),
    {},
    Namespace(),
    {"lr": Namespace(a=1)},
]


@pytest.mark.parametrize("hparams", HPARAMS)
@pytest.mark.parametrize("make", [lambda m: m, copy.deepcopy])
def test_hparams_come_back_as_they_were(tmp_path: Path, hparams: Any, make: Any) -> None:
    loaded = there_and_back(tmp_path, make(Hyper(hparams)))
    assert type(loaded.hparams) is type(hparams)
    assert loaded.hparams == hparams
    quiet_trainer(tmp_path, max_nb_epochs=1).fit(loaded)


def test_no_hparams_come_back_where_none_were(tmp_path: Path) -> None:
    assert there_and_back(tmp_path, Hyper(None)).hparams is None
    assert there_and_back(tmp_path, Widths(1)).hparams is None


def test_hparams_come_back_as_they_were_when_they_were_saved(tmp_path: Path) -> None:
    hparams = Namespace(lr=0.1, function=len)
    model = Hyper(hparams)
    hparams.lr = 0.2
    assert there_and_back(tmp_path, model).hparams == Namespace(lr=0.2)
    model = Hyper({"lr": 0.1})
    model.hparams = {"lr": 0.3}  # not what it was made with
    assert there_and_back(tmp_path, model).hparams == {"lr": 0.1}
    assert there_and_back(tmp_path, model, hparams={"lr": 0.4}).hparams == {"lr": 0.4}


class Config(Mapping[str, Any]):
    __module__ = "omegaconf.dictconfig"

    def __init__(self, values: dict[str, Any]) -> None:
        vars(self).update(values=values)

    def __getitem__(self, key: str) -> Any:
        return wrapped(vars(self)["values"][key])

    def __getattr__(self, key: str) -> Any:
        return self[key]

    def __iter__(self) -> Any:
        return iter(vars(self)["values"])

    def __len__(self) -> int:
        return len(vars(self)["values"])


class Row(MutableSequence[Any]):
    __module__ = "omegaconf.listconfig"

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __len__(self) -> int:
        return len(self.values)

    __setitem__ = __delitem__ = insert = None  # type: ignore[assignment]


def wrapped(value: Any) -> Any:
    return Config(value) if isinstance(value, dict) else Row(value) if isinstance(value, list) else value


def test_a_config_of_omegaconf_comes_back_as_a_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"a": {"b": [1, 2]}}
    library = types.SimpleNamespace(to_container=lambda value, resolve: vars(value)["values"])
    monkeypatch.setitem(sys.modules, "omegaconf", types.SimpleNamespace(OmegaConf=library))  # type: ignore[arg-type]
    assert there_and_back(tmp_path, Hyper(Config(made))).hparams == made
    assert there_and_back(tmp_path, Hyper({"x": Config(made)})).hparams == {"x": made}
    assert there_and_back(tmp_path, Widths(Row([1, 2]))).got[0] == [1, 2]


def test_a_file_of_an_older_version_is_loaded(tmp_path: Path) -> None:
    def older(path: Path) -> Path:
        checkpoint = torch.load(path)
        del checkpoint["init_arguments"]
        torch.save(checkpoint, path)
        return path

    assert Hyper.load_from_checkpoint(older(saved(tmp_path, Hyper({"lr": 0.1})))).hparams == Namespace(lr=0.1)
    assert Hyper.load_from_checkpoint(older(saved(tmp_path, Hyper(None)))).hparams == Namespace()
    assert Flag.load_from_checkpoint(older(saved(tmp_path, Flag(1, True)))).got == (1, False)
    assert Widths.load_from_checkpoint(older(saved(tmp_path, Widths(5))), width=3).got[1] == 3


def test_another_class_takes_what_it_has_a_place_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Narrow(Base):
        def __init__(self, width: int = 1) -> None:
            super().__init__()
            self.got = width

    path = saved(tmp_path, Flag(2, True))
    assert Narrow.load_from_checkpoint(path).got is True
    assert "the arguments path, which Narrow hasn't" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        7,
        {},
        {"call": 3, "hparams_argument": None, "hparams_kinds": None},
        {"call": {"arguments": [1]}, "hparams_argument": None, "hparams_kinds": None},
        {"call": None, "hparams_argument": 5, "hparams_kinds": 5},
        {
            "call": {"arguments": {"width": [[1]]}, "kinds": {("width",): "set"}, "missing": {}},
            "hparams_argument": None,
            "hparams_kinds": None,
        },
        {
            "call": {"arguments": {"width": {"__class__": 1}}, "kinds": {("width",): "Namespace"}, "missing": {}},
            "hparams_argument": ("a", "b"),
            "hparams_kinds": {},
        },
    ],
)
def test_a_damaged_list_of_arguments_is_an_error(tmp_path: Path, wrong: Any) -> None:
    path = saved(tmp_path, Flag(2, True))
    torch.save({**torch.load(path), "init_arguments": wrong}, path)
    with pytest.raises(CheckpointError, match=r"is damaged: its init_arguments|has the hyperparameter '__class__'"):
        Flag.load_from_checkpoint(path)
