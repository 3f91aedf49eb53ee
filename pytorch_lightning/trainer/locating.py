"""Which samples a batch of a run had: a function of the counters in one of its saves. Nothing was logged for it."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from pytorch_lightning import seeding
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.data.transfer import build_transfer
from pytorch_lightning.errors import FitError
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.progress import Progress
from pytorch_lightning.trainer.fit_plan import FitPlan
from pytorch_lightning.trainer.replaying import Reached


class Located(NamedTuple):
    """A batch of a run; a round of batches where there are several virtual ranks."""

    epoch: int
    batch_nb: int
    indices: list[Any]
    """What the sampler gave, for each virtual rank; None for one that had no batch in an epoch's last round."""


class Locate(Callback):
    """Finds batch ``step`` when a fit that resumes from ``saved`` starts, and ends that fit before it trains."""

    found: Located

    def __init__(self, saved: Mapping[str, Any], step: int) -> None:
        self._saved, self._step = saved, step

    def on_fit_start(self, run: Any) -> None:
        self.found = locate(run.module.trainer._plan, self._saved, self._step)
        raise Reached


def locate(plan: FitPlan, saved: Mapping[str, Any], step: int) -> Located:
    """Where batch ``step`` is, and its indices, in a fit that resumes from ``saved``. Raises ``FitError`` where that
    can't be known for sure."""
    loader, parts, ranks = plan.loader, saved["parts"], plan.loader.share.nb
    if loader.share.own:
        raise refused(step, "with data_is_sharded each process had a loader of its own")
    if plan.config.reload_dataloaders_every_nb_epochs:
        raise refused(step, "the loaders are read again while training, with reload_dataloaders_every_nb_epochs")
    if loader.looks_at_data is None:
        raise refused(step, "the training loader gives no indices: it is a stream, or a list of ready batches")
    plan.attributes.restore()
    at_save = plan.progress.epoch
    epoch, batch_nb = place_of(plan, step)
    has_state = any(parts["data"].get(name) is not None for name in ("sampler", "loader"))
    changed = changed_data(parts["attributes"]["values"], loader.looks_at_data)
    if epoch != at_save and has_state:
        raise refused(
            step, f"the sampler or the loader has a state of its own, and the save has that of epoch {at_save}"
        )
    if epoch != at_save and changed:
        what = f"{', '.join(changed[:5])} changed while training, and the save has what it was in epoch {at_save}"
        raise refused(step, f"{what}: the order of other epochs may depend on that")
    indices = []
    for number in range(batch_nb * ranks, (batch_nb + 1) * ranks):
        plan.attributes.data.begin_order(at_save)  # the data are as they were when that epoch began
        indices.append(loader.indices_at(epoch, number))
    plan.attributes.data.begin_order(at_save)
    check_order(plan, parts["data"], step, only_begun=has_state or bool(changed))
    return Located(epoch, batch_nb, indices)


def refused(step: int, why: str) -> FitError:
    """The error of a batch that isn't known."""
    return FitError(f"the samples of batch {step} can't be told exactly: {why}.")


def place_of(plan: FitPlan, step: int) -> tuple[int, int]:
    """The epoch of batch ``step``, and its number there. The lengths of the epochs must lead to the place that the save
    has."""
    progress, nb_before = plan.progress, 0
    of_this = plan.length.at(progress.epoch)  # first: an epoch that is resumed has the length that it began with
    of_this = progress.batch_nb if progress.epoch_over else of_this
    found: tuple[int, int] | None = None
    epoch = 0
    while found is None or epoch <= progress.epoch:
        if epoch == progress.epoch and nb_before + progress.batch_nb != progress.global_step:
            raise refused(
                step,
                f"the epochs before epoch {epoch} have {nb_before} batches by the length of the loader and the options"
                f" of the run, and by the save {progress.global_step - progress.batch_nb}. An epoch was ended early, or"
                " the data or the options are others",
            )
        nb = of_this if epoch == progress.epoch else plan.length.at(epoch)
        if nb is None:
            raise refused(step, "the training loader doesn't say how long an epoch is")
        if epoch >= plan.config.max_nb_epochs:
            nb = progress.batch_nb if epoch == progress.epoch else 0
        if found is None and step < nb_before + nb:
            found = epoch, step - nb_before
        nb_before, epoch = nb_before + nb, epoch + 1
        if found is None and epoch > max(plan.config.max_nb_epochs, progress.epoch):
            raise FitError(f"there is no batch {step}: the run has {nb_before}. Pass a global_step, from 0 on.")
    return found


def changed_data(values: Mapping[str, Any], looks_at_data: bool) -> list[str]:
    """What of the data changed while training, as far as an order may depend on it. ``set_epoch`` may set ``epoch``:
    that is a function of the epoch.

    >>> changed_data({"sampler": {"epoch": [], "weights": []}, "training dataset": {"n": []}}, False)
    ['sampler.weights']
    """
    owners = ("sampler", "batch sampler", *(("training dataset",) if looks_at_data else ()))
    return [f"{path}.{n}" for path, names in values.items() if path.startswith(owners) for n in names if n != "epoch"]


def check_order(plan: FitPlan, data: Mapping[str, Any], step: int, only_begun: bool) -> None:
    """Compare with the checksum that the save has. ``only_begun``: of the epoch that it is in, not of the last one."""
    progress = plan.progress
    if data["indices_crc"] is not None:
        place: Any = progress.epoch, progress.batch_nb * plan.loader.share.nb, data["indices_crc"]
    elif data.get("finished") is not None and not only_begun:
        place = data["finished"]
    else:
        return
    epoch, nb, crc = place
    if plan.loader.crc_again(epoch, nb) != crc:
        raise refused(
            step,
            f"the data give other indices than in the run; the first {nb} batches of epoch {epoch} have another"
            " checksum than the save. The dataset or its sampler is another one",
        )


# ------------------------------------------------------------------------------------------------ losses
def note_losses(module: LightningModule, step: int, nb_ranks: int) -> dict[int, list[tuple[Any, float | None]]]:
    """Let ``module`` compute the loss of each sample alone where it would train on batch ``step``, which ``nb_ranks``
    virtual ranks have a part of, and then raise ``Reached``. They will be in what is returned: (index, loss) by virtual
    rank, the loss None where ``training_step`` returns None."""
    found: dict[int, list[tuple[Any, float | None]]] = {}
    training_step = module.training_step

    @functools.wraps(training_step)
    def with_losses(*arguments: Any) -> Any:
        plan: FitPlan = module.trainer._plan
        rank = plan.current.virtual_rank
        if plan.progress.global_step == step and rank not in found:
            found[rank] = losses_of(plan, training_step, arguments, rank)
            if len(found) == nb_ranks:
                raise Reached
        return training_step(*arguments)

    module.__dict__["training_step"] = with_losses
    return found


def losses_of(plan: FitPlan, training_step: Any, arguments: tuple[Any, ...], rank: int) -> Any:
    """(index, loss) of each sample of the batch that is about to be trained on, with the weights, buffers and random
    streams that its step begins with."""
    progress, module = plan.progress, plan.module
    number = progress.batch_nb * plan.loader.share.nb + rank
    samples = plan.loader.samples_at(progress.epoch, number)
    if samples is None or plan.run.has_several_loaders:
        raise FitError("a batch of this loader can't be made of one sample: --loss needs a batch_size and one dataset.")
    precision: Any = plan.saver.parts["precision"]
    transfer = build_transfer(torch.device("cpu"), precision.dtype)
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    losses, begun = list[tuple[Any, float | None]](), seeding.get_generator_states()
    with seeding.preserved(), torch.no_grad():
        for index, batch in samples:
            seeding.set_generator_states(begun)
            batch = batch if transfer is None else transfer(batch)
            losses.append((index, loss_of(training_step, (batch, *arguments[1:]), index, progress)))
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
    return losses


def loss_of(training_step: Any, arguments: tuple[Any, ...], index: Any, progress: Progress) -> float | None:
    """The loss that ``training_step`` gives. Raises ``FitError`` with the sample's ``index`` for what it raises."""
    try:
        output = training_step(*arguments)
        loss = output["loss"] if isinstance(output, Mapping) else output
        return None if loss is None else float(loss)
    except Exception as error:
        raise FitError(
            f"training_step raises for sample {index} alone (global_step {progress.global_step}):"
            f" {type(error).__name__}: {error}. --loss needs a step that takes a batch of one."
        ) from error
