"""One process per device, with weights, gradients and optimizer state sharded: torch's FSDP2."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pytorch_lightning.data.casting import place
from pytorch_lightning.errors import FitError, MisconfigurationException
from pytorch_lightning.nested import map_tensors
from pytorch_lightning.processes import Processes, is_sharded
from pytorch_lightning.strategies.strategy import Strategy

HOLDERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Modules that are never called, so that nothing would bring their weights together."""


class FullySharded(Strategy):
    """Every process holds a shard of every weight, of its gradient and of its optimizer state.

    Weights are gathered group by group, while the group computes. ``shard`` chooses the modules that are a group: a
    list of types, or a function of a module. By default every module with at least ``min_parameters`` is a group,
    innermost first, and the remaining parameters are the last group. A module that is a group must be called as a
    module (``self.block(x)``, not ``self.block.encode(x)``). ``options`` are passed to
    ``torch.distributed.fsdp.fully_shard``.

    A rolling save is a folder in which every process writes its shard, if all processes see the same file system;
    otherwise, and with ``save_shards=False``, the first process gathers it into one file, as it does for
    ``ModelCheckpoint``. ``python -m pytorch_lightning.checkpoints consolidate RUN_FOLDER`` makes one file of a folder.

    In hooks between steps the module's parameters are ``DTensor``s: ``p.full_tensor()``, called in every process,
    returns the whole parameter. Precision works with autocast, as in other strategies: weights, sums of gradients and
    normalization stay in float32 with 'bf16' and '16'. A single process isn't sharded. Source: Zhao et al., "PyTorch
    FSDP: Experiences on Scaling Fully Sharded Data Parallel" (2023).

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(nb_processes=2, distributed_backend=FullySharded(shard=[nn.TransformerEncoderLayer]))
    """

    name = "fsdp"
    several_processes = True

    def __init__(
        self,
        min_parameters: int = 1_000_000,
        shard: Sequence[type[nn.Module]] | Callable[[nn.Module], bool] | None = None,
        save_shards: bool = True,
        **options: Any,
    ) -> None:
        self._save_shards = options.pop("save_pieces", save_shards)  # its first name
        self._min_parameters, self._options, self._shard = min_parameters, options, shard
        self._entry: Any = None
        self._mesh: Any = None
        self._before: list[tuple[nn.Module, type, set[str]]] = []
        self._originals: list[tuple[nn.Module, str, nn.Parameter]] = []
        self._uncalled: dict[nn.Module, Any] = {}
        """The groups that weren't called yet, and what would see it."""
        self._use: Any = None
        """Compares what the processes use, where there are several."""

    def attach(self, device: torch.device, processes: Processes, devices: Sequence[torch.device] = ()) -> None:
        super().attach(device, processes, devices)
        self._entry = self._mesh = None
        self.runs_together = self.saves_together = self.reads_shards = processes.nb > 1
        self.saves_shards = self._save_shards and self.saves_together

    def place(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        # moved to the device only if it stays whole; otherwise ``shard`` moves a shard there
        place(module, self.device if self.processes.nb == 1 else None, dtype)

    def shard(self, module: nn.Module) -> None:
        if self.processes.nb == 1:
            return
        self.refuse_lazy(module)
        from torch.distributed.fsdp import fully_shard

        from pytorch_lightning.strategies.same_use import SameUse

        scalars = [name for name, p in module.named_parameters() if p.dim() == 0]
        if scalars:
            raise MisconfigurationException(
                f"distributed_backend='fsdp' can't shard the parameters {scalars}, which have no dimension. Give them"
                " one: nn.Parameter(torch.zeros(1))."
            )
        mesh = self._mesh_of_all()
        self._before = [(m, m.__class__, set(vars(m))) for m in module.modules()]
        self._originals = [
            (owner, name, parameter)
            for owner in module.modules()
            for name, parameter in owner._parameters.items()
            if parameter is not None
        ]
        for group in self._groups(module):
            fully_shard(group, mesh=mesh, **self._options)
            self._note_call(group)
        self._use = SameUse(module, list(self._uncalled), self.processes)
        # the module itself isn't wrapped: it keeps its class, and every step of it can be the way in
        self._entry = fully_shard(Entry(module), mesh=mesh, **self._options)
        for _, _, parameter in self._originals:
            parameter.data = parameter.data.new_empty(0)
        self._before = [(m, kind, set(vars(m)) - names) for m, kind, names in self._before]

    def _mesh_of_all(self) -> Any:
        from torch.distributed.device_mesh import init_device_mesh

        if self._mesh is None:
            self._mesh = init_device_mesh(self.device.type, (self.processes.nb,))
        return self._mesh

    def _groups(self, module: nn.Module) -> list[nn.Module]:
        """The modules that are a group of their own, innermost first."""
        owners: dict[Tensor, set[nn.Module]] = {}
        for owner, _, parameter in self._originals:
            owners.setdefault(parameter, set()).add(owner)
        groups: list[nn.Module] = []
        taken: set[Tensor] = set()
        # torch's own attention takes the weights of this layer, and doesn't call it
        never_called = {m.out_proj for m in module.modules() if isinstance(m, nn.MultiheadAttention)}
        for candidate in reversed(list(module.modules())):
            inside = set(candidate.modules())
            parameters = set(candidate.parameters())
            # a weight that is tied to one elsewhere stays with it, in the last group
            tied = any(not owners[p] <= inside for p in parameters)
            if candidate is module or isinstance(candidate, HOLDERS) or tied or not parameters - taken:
                continue
            if candidate in never_called:
                continue
            if self._is_group(candidate, sum(p.numel() for p in parameters - taken)):
                groups.append(candidate)
                taken |= parameters
        return groups

    def _is_group(self, module: nn.Module, nb_parameters: int) -> bool:
        if self._shard is None:
            return nb_parameters >= self._min_parameters
        return bool(self._shard(module)) if callable(self._shard) else isinstance(module, tuple(self._shard))

    @torch.no_grad()
    def unshard(self, module: nn.Module) -> None:
        if self._entry is None:
            return
        from torch.distributed._composable_state import _module_state_mapping  # no public call undoes fully_shard

        whole: dict[Tensor, Tensor] = {}
        for owner, name, original in self._originals:
            piece: Any = owner._parameters.get(name)
            if is_sharded(piece):
                if original not in whole:
                    whole[original] = gathered(piece).to(original.device)
                    original.data, original.grad = whole[original], None
                    original.requires_grad = piece.requires_grad
                owner._parameters[name] = original
        for changed, kind, added in self._before:
            changed.__class__ = kind
            _module_state_mapping.pop(changed, None)
            for attribute in added:
                del changed.__dict__[attribute]
            remove_hooks_of("torch.distributed.fsdp", changed)
        for handle in self._uncalled.values():
            handle.remove()
        self._use.end()
        self._entry, self._before, self._originals, self._uncalled = None, [], [], {}
        module.cpu()  # where it came from: no device may have the room for all of it

    def step_function(self, module: nn.Module, name: str, *, takes_optimizer: bool = False) -> Callable[..., Any]:
        if self._entry is None:
            return getattr(module, name)  # type: ignore[no-any-return]
        entry = self._entry

        def run(*arguments: Any) -> Any:
            try:
                return entry(name, *arguments)
            except RuntimeError as error:
                groups = self._in_the_way(error)
                if not groups:
                    raise
                kinds = {m: type(m).__name__.removeprefix("FSDP") for m in groups}
                names = [f"{name} ({kinds[m]})" for name, m in module.named_modules() if m in groups]
                raise FitError(
                    "the weights of a module that is sharded by itself were used while it wasn't called:"
                    f" {', '.join(names[:5])}{', ...' if names[5:] else ''}. Call it as a module, or choose the modules"
                    " that are sharded by themselves, with distributed_backend=FullySharded(shard=[Block]) from"
                    " pytorch_lightning.strategies."
                ) from error

        def step(*arguments: Any) -> Any:
            try:
                return run(*arguments)
            finally:
                entry.reshard()  # there is no backward pass that would

        return run if name == "training_step" else step

    def _note_call(self, group: nn.Module) -> None:
        def note(*_: Any) -> None:
            self._uncalled.pop(group).remove()

        self._uncalled[group] = group.register_forward_pre_hook(note)

    def _in_the_way(self, error: RuntimeError) -> set[nn.Module]:
        """The groups one of whose shards came into a computation with whole tensors, since nobody called it: those in
        the innermost module that has any."""
        if "DTensor" not in str(error):
            return set()
        frame, running = error.__traceback__, list[Any]()
        while frame is not None:
            running.append(frame.tb_frame.f_locals.get("self"))
            frame = frame.tb_next
        for owner in reversed(running):
            inside = set(owner.modules()) if isinstance(owner, nn.Module) else set()
            if not inside.isdisjoint(self._uncalled):
                return inside.intersection(self._uncalled)
        return set()

    def changed(self, optimizers: Sequence[Optimizer]) -> list[str]:
        whole = [p for o in optimizers for group in o.param_groups for p in group["params"] if not is_sharded(p)]
        if whole and self._entry is not None:
            raise FitError(
                f"an optimizer was given {len(whole)} parameters after the module was sharded, or of something else"
                " than the module: with distributed_backend='fsdp' they can't be exchanged. Make the layer in __init__,"
                " frozen, and unfreeze it later; or use 'ddp'."
            )
        return []

    @contextmanager
    def _together(self, last: bool) -> Iterator[None]:
        self._use.begin()
        self._entry.set_requires_gradient_sync(last)
        try:
            yield
        except RuntimeError as error:
            if "imed out" in str(error):
                error.add_note(self._use.advice)
            raise
        finally:
            self._entry.set_requires_gradient_sync(True)

    def exchanging(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if self._entry is None else self._together(last)

    def add_up(self, table: Tensor) -> Tensor:
        if self._entry is not None:
            self._use.compare_groups()
        return super().add_up(table)

    def begin_add_up(self, table: Tensor) -> Callable[[], Tensor]:
        self.add_up(table)
        return lambda: table

    def not_exchanged(self) -> tuple[list[str], list[str]]:
        if self._entry is not None:
            self._use.compare_gradients()
        return [], []

    @torch.no_grad()
    def whole(self, data: Any) -> Any:
        def gather(tensor: torch.Tensor) -> torch.Tensor:
            if not is_sharded(tensor):
                return tensor
            tensor = gathered(tensor)
            return tensor.cpu() if self.processes.is_first else tensor.new_empty(0)

        return map_tensors(data, gather)

    def refusal(self, optimizer: Optimizer) -> str | None:
        if self._entry is not None and isinstance(optimizer, torch.optim.LBFGS):
            return "LBFGS needs all gradients in one vector, which torch can't build from shards. Use 'ddp'"
        return None

    def shard_tensor(self, tensor: Tensor, dim: int) -> Tensor:
        if self._entry is None:
            return tensor
        from torch.distributed.tensor import Shard, distribute_tensor

        return distribute_tensor(tensor.to(self.device), self._mesh, [Shard(dim)], src_data_rank=None)

    def shard_of(self, own: Tensor, dim: int, shape: torch.Size) -> Tensor:
        from torch.distributed.tensor import DTensor, Shard

        strides, local = torch.empty(shape, device="meta").stride(), own.to(self.device)
        return DTensor.from_local(
            local, self._mesh_of_all(), [Shard(dim)], run_check=False, shape=shape, stride=strides
        )

    def shard_optimizer_state(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        from torch.distributed.tensor import distribute_tensor

        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        names = [name for group in state["param_groups"] for name in group["params"]]
        by_name = dict(zip(names, parameters, strict=False))

        def piece(value: Any, parameter: Any) -> Any:
            if not is_sharded(parameter) or not isinstance(value, Tensor) or value.shape != parameter.shape:
                return value
            if is_sharded(value):  # by this process alone, when it read the save
                piece_of_it: Any = value
                return piece_of_it.redistribute(parameter.device_mesh, parameter.placements)
            value = value.to(self.device)
            return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)

        cut = {
            name: {key: piece(value, by_name.get(name)) for key, value in values.items()}
            for name, values in state["state"].items()
        }
        return {**state, "state": cut}


def gathered(piece: Any) -> Tensor:
    """The whole tensor, in memory of its size: torch leaves it in a padded buffer, which would be saved along."""
    whole: Tensor = piece.full_tensor()
    return whole if whole.untyped_storage().nbytes() == whole.nbytes else whole.clone()


class Entry(nn.Module):
    """The way into every step of a module: torch brings the weights together around a ``forward``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, name: str, *arguments: Any) -> Any:
        return getattr(self.module, name)(*arguments)


def remove_hooks_of(package: str, module: nn.Module) -> None:
    """Remove the hooks that ``package`` registered on ``module``."""
    tables = [table for name, table in vars(module).items() if "hooks" in name and isinstance(table, dict)]
    theirs = set()
    for table in tables:
        for key, hook in table.items():
            function = getattr(hook, "hook", hook)
            if str(getattr(function, "__module__", "")).startswith(package):
                theirs.add(key)
    for table in tables:
        for key in theirs & set(table):
            del table[key]
