"""The hooks that a module may override; by default they do nothing."""

from typing import Any

from torch.optim import Optimizer


class ModelHooks:
    """Called by the trainer, in the order in which they are defined here."""

    def on_fit_start(self) -> None:
        """First of all; the module is on its device and its optimizers exist.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_fit_start(self):
        ...         print("training on", next(self.parameters()).device)
        """

    def on_sanity_check_start(self) -> None:
        """Before the few validation batches that run before training.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_sanity_check_start(self):
        ...         print("validating a few batches first")
        """

    def on_epoch_start(self) -> None:
        """Before the first batch of an epoch.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_epoch_start(self):
        ...         self.loss_weight = min(1.0, 0.1 * self.current_epoch)
        """

    def on_batch_start(self, data_batch: Any) -> int | None:
        """Before each training step, with the batch as the loader yielded it. Return -1 to end the epoch here.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_batch_start(self, data_batch):
        ...         return -1 if self.global_step == 1000 else None
        """

    def on_after_backward(self) -> None:
        """Once per window, when its gradients are complete and unscaled: after the backward pass, before clipping.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_after_backward(self):
        ...         for parameter in self.parameters():
        ...             parameter.grad.nan_to_num_()
        """

    def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Optimizer, optimizer_i: int) -> None:
        """Step ``optimizer`` (the ``optimizer_i``-th). Override to step less often or to warm up the learning rate.

        With precision='16', ``optimizer.step()`` goes through the gradient scaler. If it isn't called the gradients are
        kept, and the next step is on the mean over all windows since the last one, as with ``accumulate_grad_batches``.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def optimizer_step(self, epoch_nb, batch_nb, optimizer, optimizer_i):
        ...         for group in optimizer.param_groups:
        ...             group["lr"] = 0.1 * min(1.0, (self.global_step + 1) / 500)
        ...         optimizer.step()
        """
        optimizer.step()

    def on_before_zero_grad(self, optimizer: Optimizer) -> None:
        """After ``optimizer`` stepped, before its gradients are cleared.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_before_zero_grad(self, optimizer):
        ...         self.last_norm = self.grad_norm(2)["grad_2_norm_total"]
        """

    def on_tng_metrics(self, metrics: dict[str, Any]) -> None:
        """Before a row is logged: change ``metrics`` in place. Runs before ``update_tng_log_metrics``.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_tng_metrics(self, metrics):
        ...         metrics["loss_in_bits"] = metrics["tng_loss"] / 0.6931
        """

    def update_tng_log_metrics(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Before a row is logged: return the row to log.

        >>> ModelHooks().update_tng_log_metrics({"tng_loss": 0.5})
        {'tng_loss': 0.5}
        """
        return logs

    def on_batch_end(self) -> None:
        """After each batch, and after the optimizer step if the batch was the last of its window.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_batch_end(self):
        ...         if self.global_step % 1000 == 0:
        ...             print(self.trainer.avg_loss)
        """

    def on_pre_performance_check(self) -> None:
        """Before each validation, in training mode.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_pre_performance_check(self):
        ...         self.layer.weight.data.clamp_(-1, 1)
        """

    def on_post_performance_check(self) -> None:
        """After each validation, back in training mode.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_post_performance_check(self):
        ...         self.examples.clear()
        """

    def on_epoch_end(self) -> None:
        """After the last batch and the last validation of an epoch.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_epoch_end(self):
        ...         print(self.current_epoch, self.trainer.metrics)
        """

    def on_fit_end(self) -> None:
        """Last of all, also if the fit was interrupted or failed.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_fit_end(self):
        ...         self.file.close()
        """

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Before a checkpoint is written: add to it in place.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_save_checkpoint(self, checkpoint):
        ...         checkpoint["vocabulary"] = self.vocabulary
        """

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """After a checkpoint was read, before the module is restored from it.

        >>> from pytorch_lightning import LightningModule
        >>> class Model(LightningModule):
        ...     def on_load_checkpoint(self, checkpoint):
        ...         self.vocabulary = checkpoint["vocabulary"]
        """
