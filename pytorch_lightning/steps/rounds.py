"""The hot path where a window's batches belong to several virtual ranks, in this process or in others.

A round holds one batch per virtual rank. This process runs its own virtual ranks one after the other; their gradients
add up, and those of all processes are added in the window's last backward pass. What each batch weighs travels in a
small table beside them, so that an epoch may end in a short round: no sample is padded, repeated or dropped, and the
numbers don't depend on how many processes there are. An epoch of 10 batches on two processes with four virtual ranks:

    round   batches      process 0 runs   process 1 runs   the step follows the mean of
    0       0 1 2 3      0 1              2 3              4 batches
    1       4 5 6 7      4 5              6 7              4 batches
    2       8 9          8 9              nothing          2 batches: process 1 adds gradients of weight 0

With ``accumulate_grad_batches=2`` the first two rounds make one step, and the last one makes another. On one process
the same four virtual ranks run one after the other: batches 0, 1, 2, 3, then the step.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from pytorch_lightning.data.sharing import IDLE, Spare
from pytorch_lightning.errors import FitError
from pytorch_lightning.processes import Share
from pytorch_lightning.run.metrics import NO_LOSS, at, read_output
from pytorch_lightning.seeding import MODEL, reseed_generators, seed_device, seed_streams
from pytorch_lightning.steps.buffers import BufferPerRank
from pytorch_lightning.steps.closure import FirstThenAgain, NothingToLearn, tried
from pytorch_lightning.steps.current_step import FETCHING, FETCHING_NEXT, PREPARING, RUNNING, STEPPED
from pytorch_lightning.steps.exact_sum import ExactSum
from pytorch_lightning.steps.gradients import HeldGradients
from pytorch_lightning.steps.optimizers import gradients_of, needs_closure, parameters_of, without_gradients
from pytorch_lightning.steps.replicas import Replicas
from pytorch_lightning.steps.round_table import Round, RoundTable, do_nothing
from pytorch_lightning.steps.step_inputs import StepInputs, TrainWindow, build_backward
from pytorch_lightning.steps.traces import without_trace
from pytorch_lightning.steps.update import build_update
from pytorch_lightning.steps.weights import RoundWeights, WindowWeights
from pytorch_lightning.strategies.strategy import Strategy


class Rounds:
    """One window's rounds: their batches, the gradients, the sum over processes, and the step."""

    def __init__(
        self,
        inputs: StepInputs,
        strategy: Strategy,
        share: Share,
        module: nn.Module,
        in_order: bool,
        keeps: bool,
        shares_with: "Rounds | None" = None,
    ) -> None:
        self.inputs, self.strategy, self.share = inputs, strategy, share
        each = range(len(inputs.optimizers))
        self.groups = [(i,) for i in each] if inputs.takes_optimizer else [tuple(each)]
        nb = 1 if in_order or inputs.precision.scales else strategy.processes.nb
        self.weights = [
            RoundWeights(inputs.gradients.references, i, partial(self._scale, group), later=nb & -nb)
            for i, group in enumerate(self.groups)
        ]
        self.stepped = [False for _ in each]
        self._windows = [WindowWeights() for _ in each]
        self.update = build_update(inputs, self._windows, self.stepped)
        self.buffers = BufferPerRank(module, strategy, len(share.mine), keeps)
        self.table = RoundTable(inputs, strategy, share)
        self.spare = Spare(strategy.processes, module) if strategy.runs_together or inputs.repeats else None
        self._module = module
        self._exact = ExactSum(inputs.optimizers, share, strategy.processes) if in_order else None
        self._step = inputs.timed("forward", inputs.step)
        self._backward_all = inputs.timed("backward", inputs.precision.backward)
        self._backward = build_backward(inputs)
        self._keeps_left = inputs.takes_optimizer and len(share.mine) > 1
        self._left: dict[int, dict[str, Any]] = {}
        """What each virtual rank's batch has left on the module, for the turn of the next optimizer."""
        self._replicas = Replicas(inputs, strategy, share) if strategy.processes.nb > 1 and not in_order else None
        if shares_with is not None:
            self.buffers, self.weights, self.spare = shares_with.buffers, shares_with.weights, shares_with.spare
            self._exact = shares_with._exact

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
        if self._replicas is not None and taken.slots:
            self._replicas.follow()
        return taken

    def run(self, taken: Round, group: int, last: bool) -> tuple[Any, Any]:
        """Forward and backward of a round for one group of optimizers; ``last``: of the window. Returns the weighted
        sum of its losses and the sum of the weights.

        Between the passes of its last virtual rank everybody learns the round's losses and weights."""
        prog, exchange = cast("Any", None), partial(self.table.exchange, self.weights[group])
        current, extra = self.inputs.current, (group,) if self.inputs.takes_optimizer else ()
        current.phase, current.slots = RUNNING, taken.slots
        self.table.open(taken.ended)
        with self._requiring(group):
            for virtual_rank, batch in taken.slots:
                current.virtual_rank = virtual_rank
                current.arguments = (batch, self.inputs.progress.batch_nb, *extra)
                is_last = virtual_rank == taken.slots[-1][0]
                between = exchange if is_last else do_nothing
                exchanges = last and is_last and self._exact is None
                self.buffers.begin(virtual_rank)
                if self._exact is not None:
                    self._exact.begin(virtual_rank)
                if group and self._keeps_left:
                    vars(self._module).update(self._left.get(virtual_rank, {}))
                with self.strategy.exchanging(exchanges):
                    if batch is not IDLE:
                        shown = self._run_batch(current.arguments, virtual_rank, group, between, exchanges)
                        prog = shown if prog is None else prog
                    elif self.spare is not None:
                        self._run_filler(virtual_rank, group, between)
                    elif exchanges:
                        self.strategy.run_idle(between)
                    else:
                        between()
                if self._exact is not None:
                    self._exact.end(virtual_rank)
                self.buffers.end(virtual_rank)
                if self._keeps_left:
                    values = vars(self._module).items()
                    self._left[virtual_rank] = {n: v for n, v in values if isinstance(v, (Tensor, list, tuple))}
        self.table.record(prog, joins=group > 0)
        return self.table.weighted

    def _run_batch(
        self, arguments: tuple[Any, ...], virtual_rank: int, group: int, between: Callable[[], None], exchanges: bool
    ) -> Any:
        weights = self.weights[group]
        self._seed(virtual_rank, group)
        loss, prog, count = read_output(self._step(*arguments), self.inputs.name, self.inputs.progress)
        self.table.note(virtual_rank, loss, count)
        if prog and count != 0:
            prog = self.inputs.metrics.take_of_epoch(prog, virtual_rank, 1.0 if count is None else count)
        if count == 0:
            self._run_empty(loss, between, exchanges)
            return None
        weights.note(count)
        between()
        together = self.strategy.processes.nb > 1 and (exchanges or self.spare is not None)
        try:
            (self._backward_all if together else self._backward)(weights.weigh(loss, count))
        except RuntimeError:
            with suppress(RuntimeError):
                self.table.end_exchange()  # where the others stopped for a reason that all can see, that is raised
            raise
        return prog or {}

    def _run_empty(self, loss: Tensor, between: Callable[[], None], exchanges: bool) -> None:
        """Take part in the backward pass of the others for a batch that contributes nothing. Its own gradients may be
        NaN: those of a mean over no items are."""
        if exchanges and self.spare is None:
            self.strategy.run_idle(between)
            return
        between()
        if self.spare is not None:
            self._need(loss)
            self.inputs.precision.backward(loss * 0.0)

    def _need(self, loss: Tensor) -> None:
        """Raises ``FitError`` where a batch that contributes nothing has no loss whose backward pass can be run."""
        if loss is NO_LOSS or not bool(torch.isfinite(loss)):
            what = "None" if loss is NO_LOSS else f"'loss_count': 0 with a loss that isn't finite ({loss.item()})"
            raise FitError(
                f"{self.inputs.name} returned {what}. Where weights are sharded, or batches repeated, its backward pass"
                " is needed all the same: return {'loss': loss.sum() / max(count, 1), 'loss_count': 0}."
                f" {at(self.inputs.progress)}"
            )

    def _run_filler(self, virtual_rank: int, group: int, between: Callable[[], None] = do_nothing) -> None:
        """Take part in a pass of the other processes, with a batch that weighs nothing."""
        assert self.spare is not None
        inputs, batch = self.inputs, self.spare.batch
        if batch is None:  # nobody has one
            between()
            return
        self._seed(virtual_rank, group)
        batch = batch if inputs.to_device is None else inputs.to_device(batch)
        extra = (group,) if inputs.takes_optimizer else ()
        with without_trace(self._module):
            loss, _, _ = read_output(inputs.step(batch, inputs.progress.batch_nb, *extra), inputs.name, inputs.progress)
            between()
            self._need(loss)
            inputs.precision.backward(loss * 0.0)

    def _seed(self, virtual_rank: int, group: int) -> None:
        word = seed_streams(self.inputs.seed, MODEL, self.inputs.progress.global_step, virtual_rank, group)
        if self.inputs.generators:
            reseed_generators(self.inputs.generators, word)
        if self.inputs.on_device:
            seed_device(word)

    def _requiring(self, group: int) -> AbstractContextManager[None]:
        alone = self.strategy.processes.nb == 1
        return self._only(group) if self.inputs.takes_optimizer and not alone else nullcontext()

    @contextmanager
    def _only(self, group: int) -> Iterator[None]:
        """A scope for a pass that is for one group of several."""
        # DDP remembers that they have gradients, so it must find some
        optimizers, others = self.inputs.optimizers, HeldGradients(zeros=True)
        rest = [optimizer for i, optimizer in enumerate(optimizers) if i not in self.groups[group]]
        # otherwise an exchange would take along, too early, what the others have so far
        others.take(rest)
        own = {id(parameter) for i in self.groups[group] for parameter in parameters_of([optimizers[i]])}
        foreign = [parameter for parameter in parameters_of(rest) if id(parameter) not in own]
        if self.strategy.runs_together:
            # FSDP keeps gradients of batches that aren't exchanged in a place of its own, and hands over all of them
            with without_gradients(foreign):
                yield
        else:
            yield
            for parameter in foreign:  # what it gave them isn't theirs
                parameter.grad = None
        others.put_back(rest)

    def exchange_late(self, group: int) -> None:
        """The window ended before its last round: exchange what has been accumulated."""
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
        elif self._replicas is not None:
            self._replicas.check_exchange()
        return self.weights[group].close(gradients_of(chosen), averaged_over)

    def _scale(self, which: Sequence[int], factor: Any) -> None:
        """Multiply what this window's batches of this process gave so far."""
        self.inputs.gradients.scale(which, factor)
        if self._exact is not None:
            self._exact.scale([self.inputs.optimizers[i] for i in which], factor)

    def step(self, group: int) -> None:
        """All gradients of a group are there: step its optimizers."""
        if self.make_ready(group):
            if self.inputs.optimizer_step is not None:
                self._windows[self.groups[group][0]].total = float(self.weights[group].total)
            self.update(self.groups[group])

    def open_window(self, size: int) -> None:
        """Before the first batch of a window of ``size`` rounds."""
        self.inputs.current.buffers_before = self.buffers.at_start
        self.stepped[:] = [False for _ in self.stepped]
        self.buffers.open()
        for weights in self.weights:
            weights.open(size * self.share.nb, self.inputs.nb_samples)
        if self._exact is not None:
            self._exact.open()

    def close_window(self) -> None:
        """After the last step of a window."""
        self.buffers.close()
        self._left.clear()
        self.inputs.gradients.aside.put_back(self.inputs.optimizers)
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
        again = Rounds(tried(inputs), strategy, share, module, in_order, keeps, shares_with=rounds)
        return build_closure_rounds(rounds, again)
    progress, groups = inputs.progress, range(len(rounds.groups))

    def train_window(batches: Iterator[Any], size: int, accumulate: int) -> None:
        each_steps_alone = inputs.takes_optimizer and accumulate == 1
        nb_run, nb_counted, is_full = 0, 0, False
        while nb_run < size and not progress.epoch_over and not is_full:
            if not nb_run:
                rounds.open_window(size)
            taken = rounds.next_round(batches, rounds.finish_round if nb_counted else None)
            if not taken.slots:
                break
            nb_run += 1
            for group in groups:
                if each_steps_alone or (nb_run == 1 and group == 0):
                    inputs.gradients.clear()  # what waits was exchanged already, and is put aside
                rounds.run(taken, group, last=nb_run == size)
                if each_steps_alone:
                    rounds.step(group)
            # a round in which nobody trained, since hooks ended the epoch, isn't one
            nb_counted = nb_run if rounds.table.any_present or not progress.epoch_over else 0
            is_full = inputs.nb_samples is not None and bool(rounds.weights[0].total >= inputs.nb_samples)
        if nb_run < size and not is_full:
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
        inputs.gradients.clear()
        own.weights[group].open(len(taken) * own.share.nb)
        sums = []
        for round_ in taken:
            progress.batch_nb, progress.global_step = round_.place
            sums.append(own.run(round_, group, last=round_ is taken[-1]))
        if not own.make_ready(group):
            raise NothingToLearn
        for prepare in inputs.before_update:
            prepare([inputs.optimizers[group]])
        return torch.as_tensor(sum(loss for loss, _ in sums) / (sum(weight for _, weight in sums) or 1.0))

    def train_window(batches: Iterator[Any], size: int, accumulate: int) -> None:
        rounds.open_window(size)
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
            closure = FirstThenAgain(partial(evaluate, rounds, taken, group), partial(evaluate, again, taken, group))
            with suppress(NothingToLearn):
                rounds.update((group,), closure)
        rounds.close_window()
        progress.batch_nb, progress.global_step = taken[0].place
        for _ in taken:
            rounds.finish_round()
        for advance in inputs.schedules:
            advance(rounds.stepped)
        inputs.current.leave()

    return train_window
