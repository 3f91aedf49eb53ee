"""Rows to Weights & Biases."""

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.tracker import TrackedRow, Tracker, code_version


class WandbLogger(Tracker):
    """Sends rows to a run of Weights & Biases: one run, whatever happens to the processes that train.

    Its files are in ``{save_dir}/{name}/version_{n}/wandb``. ``project``, ``entity``, ``group``, ``job_type``,
    ``tags``, ``notes`` and ``mode`` ("online", "offline", "disabled") are those of ``wandb.init``, and ``settings`` a
    dict for ``wandb.Settings``. Offline, a resumed run begins its file anew, with all of its rows, and the one before
    is put aside. ``run`` is the wandb.Run while it is open. ``version=None`` takes the next free number. Raises
    ``TypeError`` without a ``save_dir``, and ``MisconfigurationException`` without the extra ``[wandb]``.

    >>> from pytorch_lightning import Trainer
    >>> def train(model):
    ...     logger = WandbLogger("logs", name="digits", project="digits", mode="offline")
    ...     Trainer(experiment=logger).fit(model)
    """

    kind, needs, open_only, takes_files = "wandb", ("wandb", "wandb"), ("run",), True
    takes = ("project", "entity", "group", "job_type", "tags", "notes", "mode", "settings")
    run: Any = None

    @property
    def starts_again(self) -> bool:  # type: ignore[override]
        """Offline: what a killed process wrote last isn't known, and no two files of one run are put together."""
        return self._mode_now() in ("offline", "dryrun", "disabled")

    def _mode_now(self) -> str:
        import wandb

        return str(self.options.get("mode") or os.environ.get("WANDB_MODE") or wandb.setup().settings.mode)

    def prepare(self) -> None:
        import wandb  # noqa: F401

    def connect(self, key: str, unsure: Sequence[TrackedRow]) -> int | None:
        import wandb

        if self.starts_again:
            self._put_aside(key)
        own = {"console": "off", "login_timeout": 1, "git_commit": code_version()}
        settings = wandb.Settings(**(own | (self.options.get("settings") or {})))
        self.run = wandb.init(
            id=key,
            name=f"{self.name}/version_{self._version}",
            resume="allow",
            reinit="create_new",
            dir=str(self.folder),
            **{**self.options, "mode": self._mode_now(), "settings": settings},
        )
        self.run.config.update(self.hparams, allow_val_change=True)
        self.run.define_metric("*", step_metric="global_step")
        return 0 if self.starts_again else int(self.run.summary.get("_row", -1)) + 1

    def send(self, rows: Sequence[TrackedRow]) -> None:
        for row in rows:
            # names with an underscore are wandb's own, and not shown: where this run is, and when
            shown = row.metrics if row.file is None else self._shown(**row.file)
            self.run.log({"global_step": row.step, **shown, "_row": row.number, "_timestamp": row.seconds})

    def _shown(self, kind: str, name: str, path: str) -> dict[str, Any]:
        import wandb

        if kind == "image":
            return {name: wandb.Image(path)}
        if kind == "text":
            return {name: wandb.Html(f"<pre>{html.escape(Path(path).read_text())}</pre>")}
        self.run.save(path, base_path=str(Path(path).parent), policy="now")
        return {}

    def disconnect(self) -> None:
        if self.run is not None:
            self.run.finish()
            self.run = None

    def _put_aside(self, key: str) -> None:
        """Move what earlier processes wrote of this run to where `wandb sync` doesn't look."""
        for path in self.folder.glob(f"wandb/*run-*-{key}"):
            aside = self.folder / "wandb" / "superseded"
            aside.mkdir(exist_ok=True)
            n = sum(1 for _ in aside.iterdir())
            path.rename(aside / f"{n}-{path.name}")
