"""Rows logged to TensorBoard."""

from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.csv_logger import FolderLogger
from pytorch_lightning.loggers.event_files import cut_events, event_sizes


class TensorBoardLogger(FolderLogger):
    """Writes event files to ``{save_dir}/{name}/version_{n}/tf``, and the hyperparameters beside them.

    ``version=None`` takes the next free number. A row's numbers become scalars at its ``global_step``, written by
    the SummaryWriter's own thread. ``self.writer`` is that torch.utils.tensorboard.SummaryWriter, for images and
    the like. Raises ``OSError`` if the folder can't be created, ``TypeError`` without a ``save_dir``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logger = TensorBoardLogger(folder, name="digits")  # pass it as Trainer(experiment=logger)
    ...     logger.log_metrics({"tng_loss": 0.5}, step=0)
    ...     logger.close()
    ...     sorted(path.name for path in logger.folder.iterdir())
    ['tf']
    """

    def _begin(self) -> None:
        self._writer: Any = None
        self._purge_step: int | None = None
        self._has_text = False

    @property
    def writer(self) -> Any:
        """The SummaryWriter; opened when it is first asked for, and again after ``close``."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(log_dir=str(self._folder / "tf"), purge_step=self._purge_step)
            self._purge_step = None
        return self._writer

    def resume(self, version: int, step: int) -> None:
        super().resume(version, step)
        self._purge_step = step

    def state_dict(self) -> dict[str, Any]:
        return {"events": event_sizes(self._folder / "tf")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.close()
        cut_events(self._folder / "tf", state["events"], state.get("since"))
        # TensorBoard would hide the points of every axis that lie above that step, a user's own axes too
        self._purge_step = None
        self._has_text = True

    def log_hyperparams(self, hparams: dict[str, Any]) -> None:
        super().log_hyperparams(hparams)
        if hparams and not self._has_text:
            table = "\n".join(f"{key}|{value}" for key, value in hparams.items())
            self.writer.add_text("hparams", f"parameter|value\n-|-\n{table}")

    def log_metrics(self, metrics: dict[str, float | int], step: int) -> None:
        try:
            for name, value in metrics.items():
                if name not in ("epoch", "batch_nb", "global_step"):  # where the row stands
                    self.writer.add_scalar(name, value, step)
        except Exception:
            self._writer = None  # its thread is dead; the next row begins a new event file
            raise

    def log_file(self, kind: str, name: str, path: Path, step: int) -> bool:
        from pytorch_lightning.loggers.media import show

        return show(self.writer, kind, name, path, step)

    def save(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
