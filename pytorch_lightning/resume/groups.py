"""Which parameters an optimizer has, by name: groups that were added while training are made again."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from pytorch_lightning.errors import CheckpointError, FitError, Notices
from pytorch_lightning.processes import is_sharded
from pytorch_lightning.resume.own_state import OwnState


class GroupsPart:
    """The kind of each optimizer, and the names of the parameters in each of its groups."""

    def __init__(self, module: nn.Module, optimizers: Sequence[Optimizer], notices: Notices) -> None:
        self._module, self._optimizers, self._notices = module, optimizers, notices
        self.nb_made = 1
        """How often ``configure_optimizers`` was called in this run; 0 where others were put in their place since."""
        self._note_first()

    def _note_first(self) -> None:
        self._at_first = [len(optimizer.param_groups) for optimizer in self._optimizers]
        self._own = [OwnState(optimizer) for optimizer in self._optimizers]
        self._names = {p: name for name, p in self._module.named_parameters()}

    def note_new(self, by_the_hook: bool) -> None:
        """Other optimizers are there; ``by_the_hook``: as ``configure_optimizers`` makes them."""
        self.nb_made = self.nb_made + 1 if by_the_hook else 0
        self._note_first()

    def state_dict(self) -> dict[str, Any]:
        """Kinds and names. Raises ``FitError`` for a group that was added with parameters of something else."""
        names = {id(p): name for name, p in self._module.named_parameters(remove_duplicate=False)}
        optimizers = []
        for optimizer, nb_first, own in zip(self._optimizers, self._at_first, self._own, strict=True):
            groups = [[names.get(id(p)) for p in group["params"]] for group in optimizer.param_groups]
            nameless = sum(name is None for group in groups[nb_first:] for name in group)
            if nameless:
                raise FitError(
                    f"a group that was added to {type(optimizer).__name__} while training holds {nameless} parameters"
                    f" that aren't {type(self._module).__name__}'s, so a checkpoint can't name them. Make them the"
                    " module's: assign the layer or the nn.Parameter to an attribute of it before fit."
                )
            state = own.state_dict()
            optimizers.append({"kind": type(optimizer).__name__, "groups": groups, **({"own": state} if state else {})})
        self._check_replaced(names)
        lost = sorted({name for own in self._own for name in own.lost()})
        if lost:
            self._notices.say(
                "lost-optimizer-state",
                f"changed while training, and a checkpoint can't hold it: {', '.join(lost)}. A resumed fit finds it as"
                " configure_optimizers makes it. Give the optimizer a state_dict and a load_state_dict that keep what"
                " matters of it",
            )
        return {"made": self.nb_made, "optimizers": optimizers}

    def _check_replaced(self, names: dict[int, str]) -> None:
        held = [p for optimizer in self._optimizers for group in optimizer.param_groups for p in group["params"]]
        trained = {name for p in held if (name := names.get(id(p))) is not None}
        # after a fit whole weights are in the place of shards
        lost = [p for p in held if id(p) not in names and not is_sharded(p)]
        replaced = [name for p in lost if (name := self._names.get(p)) in {*names.values()}]
        untrained = [name for name in replaced if name not in trained]
        if untrained:
            raise FitError(
                f"another parameter is in the place of {', '.join(map(str, untrained[:5]))}, which an optimizer still"
                " updates: the new one isn't trained, but it would be after a resume. Write into the old one (with"
                " torch.no_grad(): parameter.copy_(value)), or call self.trainer.reconfigure_optimizers() in the same"
                " hook."
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What optimizers keep of their own: ``make_again`` came before their states."""
        self.nb_made = state["made"]
        for own, saved in zip(self._own, state["optimizers"], strict=True):
            if "own" in saved:
                own.load_state_dict(saved["own"])

    def make_again(self, state: dict[str, Any], path: str, configure: Callable[[], object]) -> None:
        """Bring the optimizers to the groups that ``state`` names. ``configure`` calls ``configure_optimizers`` with
        attributes as they are in the checkpoint. Raises ``CheckpointError`` where they stay others."""
        if state["made"] > 1 and not self._fits(state):
            configure()
        if state["made"] == 1 or self._kinds(state) == self._kinds(self.state_dict()):
            self._add_all(state, path)
        if state["made"] != 1 and not self._fits(state):
            self._refuse(state, path)

    @staticmethod
    def _kinds(state: dict[str, Any]) -> list[str]:
        return [optimizer["kind"] for optimizer in state["optimizers"]]

    def _add_all(self, state: dict[str, Any], path: str) -> None:
        if len(state["optimizers"]) == len(self._optimizers):
            for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
                self._add_groups(optimizer, saved, path)

    def _refuse(self, state: dict[str, Any], path: str) -> None:
        before, now = (self._described(s["optimizers"]) for s in (state, self.state_dict()))
        raise CheckpointError(
            f"{path} doesn't fit configure_optimizers: its optimizers were replaced while training, by {before},"
            f" and that gives {now}."
            " Let configure_optimizers return what is to be used (it sees the attributes of the module and"
            " current_epoch), and call self.trainer.reconfigure_optimizers() instead of assigning."
        )

    def _fits(self, state: dict[str, Any]) -> bool:
        now = self.state_dict()["optimizers"]
        return [o["kind"] for o in now] == [o["kind"] for o in state["optimizers"]] and all(
            [*map(len, a["groups"])] == [*map(len, b["groups"])] for a, b in zip(now, state["optimizers"], strict=True)
        )

    @staticmethod
    def _described(optimizers: Sequence[dict[str, Any]]) -> str:
        return ", ".join(f"{o['kind']} of {sum(map(len, o['groups']))} parameters" for o in optimizers) or "none"

    def _add_groups(self, optimizer: Optimizer, saved: dict[str, Any], path: str) -> None:
        kind = type(optimizer).__name__
        if saved["kind"] != kind:
            raise CheckpointError(
                f"{path} doesn't fit configure_optimizers: the state is that of a different optimizer,"
                f" {saved['kind']}, not {kind}. Resume with the optimizer that wrote it."
            )
        named = dict(self._module.named_parameters(remove_duplicate=False))
        names = {id(p): name for name, p in named.items()}
        there = [[names.get(id(p)) for p in group["params"]] for group in optimizer.param_groups]
        added = saved["groups"][len(there) :]
        unknown = [name for group in added for name in group if name not in named]
        if unknown:
            raise CheckpointError(
                f"{path} doesn't fit {type(self._module).__name__}: a group of {saved['kind']} that was added while"
                f" training holds {', '.join(map(str, unknown[:3]))}, which isn't there. Resume with the model that"
                " wrote it."
            )
        before = saved["groups"][: len(there)]
        known = all(name in named for group in before for name in group)
        if known and before != there and all(name is not None for group in there for name in group):
            raise CheckpointError(
                f"{path} doesn't fit configure_optimizers: {saved['kind']} had the parameters {_shown(before)}, and has"
                f" {_shown(there)}. Resume with the model that wrote it."
            )
        twice = [name for group in added for name in group if name in itertools.chain(*there)]
        if twice:
            raise CheckpointError(
                f"{path} doesn't fit configure_optimizers: {', '.join(map(str, twice[:3]))} was replaced while training"
                " and added as a group, and now it is in a group from the start. Let configure_optimizers return what"
                " is to be used, and call self.trainer.reconfigure_optimizers() instead of adding."
            )
        for group in added:
            optimizer.add_param_group({"params": [named[name] for name in group]})


def _shown(groups: Sequence[Sequence[Any]]) -> str:
    text = "; ".join(", ".join(map(str, group[:4])) + (", ..." if len(group) > 4 else "") for group in groups[:3])
    return f"{text}; ..." if len(groups) > 3 else text
