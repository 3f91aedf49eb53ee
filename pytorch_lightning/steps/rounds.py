"""The hot path where a window's batches belong to several virtual ranks, in this process or in others.

A round holds one batch per virtual rank. This process runs its own virtual ranks one after the other; their gradients
add up, and those of all processes are added in the window's last backward pass. What each batch weighs travels in a
small table beside them, so that an epoch may end in a short round: no sample is padded, repeated or dropped, and the
numbers don't depend on how many processes there are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pytorch_lightning.data.sharing import IDLE, Spare
from pytorch_lightning.errors import FitError
from pytorch_lightning.processes import Share
from pytorch_lightning.run.metrics import Metrics, check_loss, read_output
from pytorch_lightning.seeding import MODEL, seed_device, seed_streams
from pytorch_lightning.steps.buffers import BufferPerRank, kept_buffers
from pytorch_lightning.steps.current_step import FETCHING, FETCHING_NEXT, PREPARING, RUNNING, STEPPED
from pytorch_lightning.steps.exact_sum import ExactSum
from pytorch_lightning.steps.optimizers import clear_gradients, gradients_of, needs_closure, only_requiring
from pytorch_lightning.steps.round_table import RoundTable, RoundWeights
from pytorch_lightning.steps.step_inputs import StepInputs, TrainWindow, WindowWeights
from pytorch_lightning.steps.update import build_update
from pytorch_lightning.strategies.strategy import Strategy


@dataclass
class Round:
    """What this process has of a round."""

    slots: list[tuple[int, Any]] = field(default_factory=list)
    """(virtual rank, its batch or ``IDLE``) for each virtual rank that this process runs."""
    ended: list[int] = field(default_factory=list)
    """The virtual ranks whose ``on_batch_start`` ends the epoch."""
    place: tuple[int, int] = 0, 0
    """``batch_nb`` and ``global_step``, where several rounds are taken before they run."""


class Rounds:
    """One window's rounds: their batches, the gradients, the sum over processes, and the step."""

    def __init__(
        self, inputs: StepInputs, strategy: Strategy, share: Share, module: nn.Module, in_order: bool, keeps: bool
    ) -> None:
        self.inputs, self.strategy, self.share = inputs, strategy, share
        each = range(len(inputs.optimizers))
        self.groups = [(i,) for i in each] if inputs.takes_optimizer else [tuple(each)]
        self.weights = [RoundWeights() for _ in self.groups]
        self.stepped = [False for _ in each]
        self.update = build_update(inputs, [WindowWeights() for _ in each], self.stepped)
        self.buffers = BufferPerRank(module, strategy, len(share.mine), keeps)
        self.table = RoundTable(inputs, strategy, share)
        self.spare = Spare(strategy.processes, module) if strategy.runs_together else None
        self._module = module
        self._exact = ExactSum(inputs.optimizers, share, strategy.processes) if in_order else None
        # what a user's optimizer_step lets wait was exchanged already
        self._held = HeldGradients() if inputs.optimizer_step is not None else None
        self._step = inputs.timed("forward", inputs.step)
        self._backward = inputs.timed("backward", inputs.precision.backward)
        self._looked_for_unused = False

    def next_round(self, batches: Iterator[Any], finish: Callable[[], None] | None = None) -> Round:
        """The next round, on the device; without slots at the end of the epoch. Where there is one, ``finish`` ends
        the round before it first."""
        inputs, current, taken, drawn = self.inputs, self.inputs.current, Round(), list[Any]()
        current.phase, current.slots = FETCHING if finish is None else FETCHING_NEXT, taken.slots
        for virtual_rank, batch in zip(self.share.mine, batches, strict=False):
            if finish is not None and not taken.slots:
                finish()
            current.phase, current.arguments, current.virtual_rank = PREPARING, (batch,), virtual_rank
            if self.spare is not None:
                drawn.append(batch)
            if batch is not None and batch is not IDLE:
                self._seed(virtual_rank, 0)
                if inputs.before_batch and -1 in [hook(batch) for hook in inputs.before_batch]:
                    taken.ended.append(virtual_rank)
                    batch = None
                elif inputs.to_device is not None:
                    batch = inputs.to_device(batch)
            # a batch that is skipped has a place in the epoch and no weight
            taken.slots.append((virtual_rank, IDLE if batch is None else batch))
            current.phase = FETCHING
        if self.spare is not None and taken.slots:
            self.spare.take(drawn)
        return taken

    def run(self, taken: Round, group: int, last: bool) -> tuple[Any, Any]:
        """Forward and backward of a round for one group of optimizers; ``last``: of the window. Returns the weighted
        sum of its losses and the sum of the weights."""
        prog: Any = None
        current, extra = self.inputs.current, (group,) if self.inputs.takes_optimizer else ()
        current.phase, current.slots = RUNNING, taken.slots
        self.table.open(taken.ended)
        with self._requiring(group):
            for virtual_rank, batch in taken.slots:
                current.virtual_rank = virtual_rank
                current.arguments = (batch, self.inputs.progress.batch_nb, *extra)
                exchanges = last and virtual_rank == taken.slots[-1][0]
                self.buffers.begin(virtual_rank)
                if self._exact is not None:
                    self._exact.begin(virtual_rank)
                with self.strategy.exchanging(exchanges and self._exact is None):
                    if batch is not IDLE:
                        shown = self._run_batch(current.arguments, virtual_rank, group)
                        prog = shown if prog is None else prog
                    elif self.spare is not None:
                        self._run_filler(virtual_rank, group)
                    elif exchanges and self._exact is None:
                        self.strategy.run_idle()
                if self._exact is not None:
                    self._exact.end(virtual_rank)
                self.buffers.end(virtual_rank)
        return self.table.close(self.weights[group], prog)

    def _run_batch(self, arguments: tuple[Any, ...], virtual_rank: int, group: int) -> Any:
        inputs, progress = self.inputs, self.inputs.progress
        self._seed(virtual_rank, group)
        loss, prog, count = read_output(self._step(*arguments), inputs.name, progress)
        if not loss.requires_grad or loss.numel() != 1:
            check_loss(loss, inputs.name, progress)
        self.table.note(virtual_rank, loss, count)
        self._backward(loss if count is None else loss * (count / self.weights[group].reference))
        return prog or {}

    def _run_filler(self, virtual_rank: int, group: int) -> None:
        """Take part in a pass of the other processes, with a batch that weighs nothing."""
        assert self.spare is not None
        inputs, batch = self.inputs, self.spare.batch
        if batch is None:  # nobody has one
            return
        self._seed(virtual_rank, group)
        batch = batch if inputs.to_device is None else inputs.to_device(batch)
        extra = (group,) if inputs.takes_optimizer else ()
        with kept_buffers(self._module):
            loss, _, _ = read_output(inputs.step(batch, inputs.progress.batch_nb, *extra), inputs.name, inputs.progress)
            inputs.precision.backward(loss * 0.0)

    def _seed(self, virtual_rank: int, group: int) -> None:
        word = seed_streams(self.inputs.seed, MODEL, self.inputs.progress.global_step, virtual_rank, group)
        if self.inputs.on_device:
            seed_device(word)

    def _requiring(self, group: int) -> AbstractContextManager[None]:
        if not self.inputs.takes_optimizer:
            return nullcontext()
        alone = self.strategy.processes.nb == 1
        return only_requiring(self.inputs.optimizers, group) if alone else self._only(group)

    @contextmanager
    def _only(self, group: int) -> Iterator[None]:
        """A scope for a pass that is for one group of several."""
        # DDP remembers that they have gradients, so it must find some
        optimizers, others = self.inputs.optimizers, HeldGradients(zeros=True)
        rest = [optimizer for i, optimizer in enumerate(optimizers) if i not in self.groups[group]]
        # otherwise an exchange would take along, too early, what the others have so far
        others.take(rest)
        with only_requiring(optimizers, group):
            yield
        others.put_back(rest)

    def exchange_late(self, group: int) -> None:
        """The window ended before its last round: exchange what there is."""
        self.inputs.current.phase = STEPPED
        if self._exact is None:
            with self._requiring(group), self.strategy.exchanging(True):
                if self.spare is not None:
                    self._run_filler(self.share.mine[-1], group)
                else:
                    self.strategy.run_idle()

    def make_ready(self, group: int) -> bool:
        """Turn the sums of gradients into means; False where no virtual rank had a batch."""
        self.inputs.current.phase = STEPPED  # of no batch alone
        chosen = [self.inputs.optimizers[i] for i in self.groups[group]]
        averaged_over = self.strategy.processes.nb
        if self._exact is not None:
            averaged_over = 1
            self._exact.put_sums(chosen)
        elif not self._looked_for_unused:
            self._looked_for_unused = True
            check_unused(self.strategy, self.inputs.name)
        ready = self.weights[group].close(gradients_of(chosen), averaged_over)
        if self._held is not None:
            self._held.put_back(chosen)
        elif not ready:
            for optimizer in chosen:
                clear_gradients(optimizer)
        return ready

    def step(self, group: int) -> None:
        """All gradients of a group are there: step its optimizers."""
        if self.make_ready(group):
            self.update(self.groups[group])

    def open_window(self) -> None:
        """Before the first batch of a window."""
        self.inputs.current.buffers_before = self.buffers.at_start
        self.stepped[:] = [False for _ in self.stepped]
        self.buffers.open()
        if self._held is not None:
            self._held.take(self.inputs.optimizers)

    def close_window(self) -> None:
        """After the last step of a window."""
        self.buffers.close()
        if self.inputs.precision.scales:
            self.inputs.precision.update()
        self.inputs.progress.nb_optimizer_steps += any(self.stepped)

    def finish_round(self) -> None:
        """Rows and hooks, then count the round. One whose batches were all skipped only has its place."""
        self.inputs.current.phase = STEPPED
        if self.table.any_present:
            for hook in self.inputs.after_batch:
                hook()
            self.inputs.progress.global_step += 1
        self.inputs.progress.batch_nb += 1


def build_round_window(
    inputs: StepInputs, *, strategy: Strategy, share: Share, module: nn.Module, in_order: bool, keeps: bool
) -> TrainWindow:
    """The window function where there are several virtual ranks. ``in_order``: see ``exact_sum``; ``keeps``: keep the
    buffers of each step's start."""
    rounds = Rounds(inputs, strategy, share, module, in_order, keeps)
    if any(map(needs_closure, inputs.optimizers)):
        # of the further evaluations nothing is kept, and a line search may well try a point whose loss isn't finite
        tried = replace(inputs, metrics=Metrics(), nonfinite=lambda loss: None)
        again = Rounds(tried, strategy, share, module, in_order, keeps)
        again.buffers, again.weights, again.spare = rounds.buffers, rounds.weights, rounds.spare
        return build_closure_rounds(rounds, again)
    progress, groups = inputs.progress, range(len(rounds.groups))

    def train_window(batches: Iterator[Any], size: int, accumulate: int) -> None:
        each_steps_alone = inputs.takes_optimizer and accumulate == 1
        nb_run, nb_counted = 0, 0
        while nb_run < size and not progress.epoch_over:
            if not nb_run:
                rounds.open_window()
            taken = rounds.next_round(batches, rounds.finish_round if nb_counted else None)
            if not taken.slots:
                break
            nb_run += 1
            for group in groups:
                rounds.run(taken, group, last=nb_run == size)
                if each_steps_alone:
                    rounds.step(group)
            # a round in which nobody trained, since hooks ended the epoch, isn't one
            nb_counted = nb_run if rounds.table.any_present or not progress.epoch_over else 0
        if nb_run < size:
            progress.epoch_over = True
        if not nb_run:
            inputs.current.leave()
            return
        for group in groups if not each_steps_alone else ():
            if nb_run < size:
                rounds.exchange_late(group)
            rounds.step(group)
        rounds.close_window()
        if nb_counted:
            rounds.finish_round()
        for advance in inputs.schedules:
            advance(rounds.stepped)
        inputs.current.leave()

    return train_window


def build_closure_rounds(rounds: Rounds, again: Rounds) -> TrainWindow:
    """For optimizers that evaluate the loss themselves (LBFGS): a closure over all rounds of the window."""
    inputs, progress = rounds.inputs, rounds.inputs.progress

    def evaluate(own: Rounds, taken: Sequence[Round], group: int) -> Tensor:
        optimizer = inputs.optimizers[group]
        clear_gradients(optimizer)
        sums = []
        for round_ in taken:
            progress.batch_nb, progress.global_step = round_.place
            sums.append(own.run(round_, group, last=round_ is taken[-1]))
        own.make_ready(group)
        for prepare in inputs.before_update:
            prepare([optimizer])
        return torch.as_tensor(sum(loss for loss, _ in sums) / (sum(weight for _, weight in sums) or 1.0))

    def train_window(batches: Iterator[Any], size: int, accumulate: int) -> None:
        rounds.open_window()
        taken: list[Round] = []
        while len(taken) < size and (following := rounds.next_round(batches)).slots:
            following.place = progress.batch_nb, progress.global_step
            taken.append(following)
            progress.batch_nb, progress.global_step = progress.batch_nb + 1, progress.global_step + 1
        if len(taken) < size:
            progress.epoch_over = True
        if not taken:
            inputs.current.leave()
            return
        progress.batch_nb, progress.global_step = taken[-1].place
        for group in range(len(rounds.groups)):
            evaluations = chain([rounds], repeat(again))
            rounds.update((group,), lambda group=group, own=evaluations: evaluate(next(own), taken, group))
        rounds.close_window()
        progress.batch_nb, progress.global_step = taken[0].place
        for _ in taken:
            rounds.finish_round()
        for advance in inputs.schedules:
            advance(rounds.stepped)
        inputs.current.leave()

    return train_window


class HeldGradients:
    """Gradients that are put aside while others are exchanged."""

    def __init__(self, zeros: bool = False) -> None:
        self._held: dict[Any, Tensor] = {}
        self._zeros = zeros

    def take(self, optimizers: Sequence[Optimizer]) -> None:
        """Put aside what is there."""
        for parameter in gradients_of(optimizers):
            self._held[parameter] = parameter.grad
            parameter.grad = torch.zeros_like(parameter.grad) if self._zeros else None

    def put_back(self, optimizers: Sequence[Optimizer]) -> None:
        """Add what was put aside."""
        for parameter in [p for o in optimizers for group in o.param_groups for p in group["params"]]:
            held = self._held.pop(parameter, None)
            if held is not None:
                parameter.grad = held if parameter.grad is None else held.add_(parameter.grad)


def check_unused(strategy: Strategy, name: str) -> None:
    """Raises ``FitError`` if parameters got no gradient and the strategy doesn't allow that."""
    unused = strategy.unused_parameters()
    if unused:
        shown = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
        raise FitError(
            f"{len(unused)} parameters got no gradient from {name}: {shown}. With several processes every step"
            " waits for the gradients of all parameters. Freeze them (requires_grad=False), or pass"
            " distributed_backend=Distributed(find_unused_parameters=True) from pytorch_lightning.strategies."
        )
