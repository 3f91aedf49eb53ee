"""What values in a readable checkpoint can't do: call, take away, overwrite what isn't theirs, or read past an end."""

import dataclasses
import socket
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import CheckpointError, MisconfigurationException
from tests.security import hostile, victims
from tests.security.victims import HPARAMS, QUIET, Victim

DELETED: list[str] = []


@dataclasses.dataclass
class Temporary:
    """A class of the program that does something when an object of it goes."""

    path: str

    def __del__(self) -> None:
        DELETED.append(self.path)


class Drawing(Victim):
    """Draws from generators of its own."""

    def __init__(self, hparams: Any) -> None:
        super().__init__(hparams)
        self.mersenne = np.random.Generator(np.random.MT19937(1))
        self.philox = np.random.Generator(np.random.Philox(1))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.mersenne.random(), self.philox.random()
        return super().training_step(data_batch, batch_nb)


class Keep(Callback):
    """Saves after the sixth batch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_batch_end(self, run: Any) -> None:
        if run.progress.global_step == 6:
            run.save(self.path)


def model(kind: type[Victim] = Victim) -> Victim:
    torch.manual_seed(3)
    return kind(Namespace(**HPARAMS))


def changed(folder: Path, change: Callable[[dict[str, Any]], Any], kind: type[Victim] = Victim) -> Path:
    """A checkpoint that somebody changed."""
    path = folder / "x.ckpt"
    victims.fit(model(kind), folder / "first", [Keep(path)], max_nb_epochs=2)
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    return path


def resume(path: Path, kind: type[Victim] = Victim) -> Victim:
    resumed = model(kind)
    victims.fit(resumed, path.parent / "second", resume=path, max_nb_epochs=2)
    return resumed


def check_refused(path: Path, words: str, kind: type[Victim] = Victim) -> None:
    with hostile.measured() as took, pytest.raises(CheckpointError, match=words) as caught:
        resume(path, kind)
    hostile.check_one_line(caught.value)
    assert took.seconds < hostile.MOST_SECONDS
    assert took.peak < hostile.ROOM


def nodes_of(checkpoint: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Those of the attributes, and the module's among them."""
    part = checkpoint["parts"]["attributes"]
    return part["nodes"], part["values"]["module"]


# ---------------------------------------------------------------------------------------------- attributes
NODES = {
    "a function of torch": ("dtype", "load"),
    "a large array": ("array", torch.empty(0, dtype=torch.uint8), "'<f8'", [10**9, 10**3]),
    "an array of objects": ("array", torch.zeros(8, dtype=torch.uint8), "'|O'", [1]),
    "a long type of an array": ("array", torch.zeros(8, dtype=torch.uint8), "(" * 50_000, [1]),
    "what runs when it goes": ("dataclass", __name__, "Temporary", [["path", "/etc"]]),
    "a class behind others": ("dataclass", __name__, "dataclasses.Field", []),
    "a module": ("dataclass", "subprocess", "Popen", [["args", "true"]]),
    "itself": ("tuple", [("node", 0)]),
    "nothing": (),
    "another place": ("list", None, [("node", 10**9)]),
}


@pytest.mark.parametrize("kind", NODES)
def test_an_attribute_is_a_value_or_left_as_it_is(kind: str, tmp_path: Path) -> None:
    def change(checkpoint: dict[str, Any]) -> None:
        nodes, _ = nodes_of(checkpoint)
        nodes[:] = [NODES[kind]] * len(nodes)

    DELETED.clear()
    path = changed(tmp_path, change)
    try:
        resumed = resume(path)
    except CheckpointError as error:
        hostile.check_one_line(error)
    else:
        assert type(resumed.history) is list
        assert type(resumed.mean) is torch.Tensor
    assert DELETED == []


NAMES = ["_parameters", "_modules", "_forward_hooks", "forward", "training_step", "configure_optimizers", "_trainer",
         "__class__", "__dict__", "hparams", "training", "_lazy_x", "parameters", "layers"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_makes_a_module_one_is_no_attribute_that_a_file_names(name: str, tmp_path: Path) -> None:
    """Neither taken away nor replaced, where the program's own mark is that of an absent one."""

    def change(checkpoint: dict[str, Any]) -> None:
        _, values = nodes_of(checkpoint)
        values[name] = ["gone", 5]

    resumed, whole = resume(changed(tmp_path, change)), model()
    victims.fit(whole, tmp_path / "whole", max_nb_epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))
    path = tmp_path / "x.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    nodes_of(checkpoint)[1][name] = ["gone"]
    torch.save(checkpoint, path)
    assert all(torch.equal(a, b) for a, b in zip(resume(path).parameters(), whole.parameters(), strict=True))


# ---------------------------------------------------------------------------------------------- generators
@pytest.mark.parametrize("place", [-1, 625, 10**9])
def test_numpy_does_not_read_past_the_end_of_a_state(place: int, tmp_path: Path) -> None:
    """Its setters take any place: the next number would come from somewhere else in memory."""

    def change(checkpoint: dict[str, Any]) -> None:
        kind, words, _, *gauss = np.random.get_state(legacy=True)
        checkpoint["parts"]["random"]["numpy"] = [kind, torch.from_numpy(words.astype(np.int64)), place, *gauss]

    check_refused(changed(tmp_path, change), "its part 'random'")
    for name, kind in {"pos": "mersenne", "buffer_pos": "philox"}.items():

        def change_own(checkpoint: dict[str, Any], name: str = name) -> None:
            for node in checkpoint["parts"]["random"]["own"]["nodes"]:
                for pair in node[-1] if node[0] == "dict" else ():
                    pair[1] = place if pair[0] == name else pair[1]

        folder = tmp_path / kind
        folder.mkdir()
        check_refused(changed(folder, change_own, Drawing), "its place isn't one that the generator has", Drawing)


def test_generators_that_nobody_changed_are_put_back(tmp_path: Path) -> None:
    whole, resumed = model(Drawing), resume(changed(tmp_path, lambda checkpoint: None, Drawing), Drawing)
    victims.fit(whole, tmp_path / "whole", max_nb_epochs=2)
    assert isinstance(resumed, Drawing)
    assert isinstance(whole, Drawing)
    assert (resumed.mersenne.random(), resumed.philox.random()) == (whole.mersenne.random(), whole.philox.random())


# ---------------------------------------------------------------------------------------------- optimizers, schedules
def of_first(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda checkpoint: checkpoint["optimizer_states"][0]["state"][0].__setitem__(name, value)


def of_group(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda checkpoint: checkpoint["optimizer_states"][0]["param_groups"][0].__setitem__(name, value)


def of_schedule(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda checkpoint: checkpoint["lr_schedulers"][0].__setitem__(name, value)


STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another shape": of_first("exp_avg", torch.zeros(7)),
    "a number": of_first("exp_avg", 1),
    "a text": of_first("step", "x"),
    "a step before the first": of_first("step", torch.tensor(-1.0)),
    "an absent one": lambda checkpoint: checkpoint["optimizer_states"][0]["state"][0].pop("exp_avg"),
    "repeated": of_first("exp_avg", torch.zeros(1, dtype=torch.float64).expand(2**24)),
    "three betas": of_group("betas", (0.9, 0.9, 0.9)),
    "large betas": of_group("betas", (0.9, 2.0)),
    "capturable on the CPU": of_group("capturable", True),
    "eps as text": of_group("eps", "x"),
    "no rate": of_group("lr", float("nan")),
    "a schedule's method": of_schedule("get_lr", 1),
    "a schedule's optimizer": of_schedule("optimizer", 1),
    "a schedule of no steps": of_schedule("step_size", 0),
    "a schedule of text": of_schedule("gamma", "x"),
    "a schedule without a place": lambda checkpoint: checkpoint["lr_schedulers"][0].pop("last_epoch"),
}


@pytest.mark.parametrize("kind", STATES)
def test_a_state_with_which_an_optimizer_or_a_schedule_cannot_step_is_refused(kind: str, tmp_path: Path) -> None:
    check_refused(changed(tmp_path, STATES[kind]), "(Adam|StepLR) doesn't fit|its objects")


def test_a_tensor_that_repeats_its_bytes_takes_no_memory(tmp_path: Path) -> None:
    """16 GB of one number."""

    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["optimizer_states"][0]["state"][0]["exp_avg"] = torch.zeros(1).expand(2**32)

    check_refused(changed(tmp_path, change), "its objects would take|as often as they are referred to")


# ---------------------------------------------------------------------------------------------- names, texts
def test_a_hyperparameter_may_have_any_name_that_a_namespace_can_have(tmp_path: Path) -> None:
    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["hparams"]["self"] = 3

    assert Victim.load_from_checkpoint(changed(tmp_path, change)).hparams.self == 3


def test_what_a_checkpoint_says_cannot_command_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["parts"]["versions"]["python"] = "\x1b[2J\x07\x9b31m"
        checkpoint["parts"]["callbacks"]["\x1b]0;x\x07 0"] = {"x": 1}
        checkpoint["parts"]["attributes"]["values"]["\x1b[2J"] = {}

    resume(changed(tmp_path, change))
    said = capsys.readouterr()
    assert "python was \\x1b[2J" in said.err
    assert not set(said.err + said.out) & {"\x1b", "\x07", "\x9b"}


def test_a_port_that_is_in_use_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": 0, "WORLD_SIZE": 2}.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(MisconfigurationException, match=f"127.0.0.1:{port}.*in use") as caught:
            Trainer(False, **QUIET).fit(model())
    hostile.check_one_line(caught.value)
