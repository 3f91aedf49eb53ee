"""A fit whose ``training_step`` makes its own steps (``automatic_optimization = False``): what it can't be, and its
windows. Imported only there."""

from functools import partial
from typing import Any

from torch.optim import Optimizer

from pytorch_lightning.data.loader import length_of
from pytorch_lightning.errors import Problem, attempt
from pytorch_lightning.processes import Share
from pytorch_lightning.run.hooks import can_be_called, is_overridden, takes_one_more
from pytorch_lightning.seeding import MODEL, reseed_generators, seed_device, seed_streams
from pytorch_lightning.steps.exchange import Exchange
from pytorch_lightning.steps.manual import ManualSteps, build_manual_window
from pytorch_lightning.steps.optimizers import parameters_of
from pytorch_lightning.steps.step_inputs import StepInputs, TrainWindow, build_seed_batch, with_timers
from pytorch_lightning.trainer.basis import Basis, FitRequest

OFF = "automatic_optimization = False"


def manual_problems(request: FitRequest, share: Share, optimizers: list[Optimizer], loader: Any) -> list[Problem]:
    """What can't be, where ``training_step`` makes its own steps."""
    module, config, name = request.module, request.config, type(request.module).__name__
    processes, problems = request.strategy.processes, list[Problem]()
    if can_be_called(module, "training_step") and takes_one_more(module, "training_step", False):
        what = f"{name}.training_step takes three arguments, and with {OFF} it is called once for each batch"
        problems.append(Problem(what, do="Write def training_step(self, data_batch, batch_nb)"))
    if is_overridden(module, "optimizer_step"):
        what = f"{name}.optimizer_step is never called with {OFF}"
        problems.append(Problem(what, do="Do it in training_step, around self.manual_step()"))
    if config.accumulate_grad_batches not in (1, {1: 1}):
        received = f"accumulate_grad_batches={config.accumulate_grad_batches!r}"
        advice = "Divide the loss by n, and call self.manual_step() in every n-th batch only"
        problems.append(Problem(f"with {OFF} a window is one batch", received, advice))
    if config.compile:
        advice = "Compile its parts: self.net.compile(), in __init__"
        problems.append(Problem(f"compile doesn't work with {OFF}: a compiled step can't step", do=advice))
    for optimizer in optimizers:
        if not hasattr(optimizer, "register_step_post_hook"):
            kind = type(optimizer).__name__
            what = f"{kind} isn't derived from torch.optim.Optimizer, so its steps in training_step can't be counted"
            problems.append(Problem(what, do="Derive it, or let the trainer make the steps"))
    if share.nb != processes.nb:
        what = f"with {OFF} each virtual rank needs a process: a step of one needs the gradients of all"
        received = f"{share.nb} virtual ranks on {processes.nb} process{'es' * (processes.nb > 1)}"
        problems.append(Problem(what, received, f"Start {share.nb} processes, or begin a run without virtual_ranks"))
    attempt(problems, lambda: request.strategy.manual_step_function(module))
    return problems + _uneven_problems(request, share, loader)


def _uneven_problems(request: FitRequest, share: Share, loader: Any) -> list[Problem]:
    how, nb = request.config.uneven_batches, length_of(loader)
    is_uneven = how == "wait" and nb is not None and not share.own and nb % share.nb
    if share.nb == 1 or not (how == "repeat" or is_uneven):
        return []
    what = f"with {OFF} every process needs a batch in every round, since it makes steps of its own"
    received = f"uneven_batches={how!r}" + (f" and {nb} batches for {share.nb} processes" if is_uneven else "")
    return [Problem(what, received, "Pass uneven_batches='drop', which leaves out a short last round")]


def build_manual_windows(
    inputs: StepInputs, request: FitRequest, basis: Basis, before: ManualSteps | None
) -> tuple[ManualSteps, TrainWindow, TrainWindow]:
    """The steps, the window function, and the same with its phases timed. ``before``: the steps of other optimizers,
    in whose place these come."""
    strategy, timings, module = basis.strategy, request.run.timings, request.module
    if before is not None:
        before.detach()
    elif basis.resumed is None:  # a backward pass before the fit leaves nothing behind
        for parameter in (*module.parameters(), *parameters_of(inputs.optimizers)):
            parameter.grad = None
    several = strategy.processes.nb > 1
    exchange = Exchange(inputs, strategy, module) if several else None
    seed_batch = partial(_seed, inputs, basis.share.mine[0]) if several else build_seed_batch(inputs)
    timed = with_timers(inputs, timings)
    steps = ManualSteps(timed, exchange)
    window = build_manual_window(inputs, steps, seed_batch, timed=False)
    return steps, window, timings.sampling(build_manual_window(timed, steps, seed_batch, timed=True))


def _seed(inputs: StepInputs, virtual_rank: int, global_step: int) -> None:
    word = seed_streams(inputs.seed, MODEL, global_step, virtual_rank, 0)
    if inputs.generators:
        reseed_generators(inputs.generators, word)
    if inputs.on_device:
        seed_device(word)
