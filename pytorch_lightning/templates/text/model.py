"""A model that learns which character comes next, and writes text with it."""

import random
from argparse import Namespace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule

NB_CHARACTERS = 256
"""The bytes of UTF-8: no list of characters has to be kept, and any text will do."""


def text_of(path: str | Path | None = None) -> Tensor:
    """The text of a file as numbers, or, without one, a made one: sums such as ``12+7=19;``, always the same."""
    if path is not None:
        text = Path(path).read_bytes()
    else:
        numbers = random.Random(0)
        pairs = [(numbers.randrange(30), numbers.randrange(30)) for _ in range(5000)]
        text = "".join(f"{a}+{b}={a + b};" for a, b in pairs).encode()
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


class CharacterModel(LightningModule):
    """Characters of shape (batch, length) to logits of the next one, of shape (batch, length, NB_CHARACTERS)."""

    def __init__(self, hparams: Namespace) -> None:
        super().__init__(hparams)
        self.embedding = nn.Embedding(NB_CHARACTERS, hparams.hidden_dim)
        self.recurrent = nn.GRU(hparams.hidden_dim, hparams.hidden_dim, batch_first=True)
        self.output = nn.Linear(hparams.hidden_dim, NB_CHARACTERS)

    def forward(self, characters: Tensor) -> Tensor:
        states, _ = self.recurrent(self.embedding(characters))
        logits: Tensor = self.output(states)
        return logits

    def loss(self, data_batch: list[Tensor]) -> Tensor:
        (characters,) = data_batch
        logits = self(characters[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), characters[:, 1:].flatten())

    def training_step(self, data_batch: list[Tensor], batch_nb: int) -> dict[str, Tensor]:
        return {"loss": self.loss(data_batch)}

    def validation_step(self, data_batch: list[Tensor], batch_nb: int) -> dict[str, Tensor]:
        return {"val_loss": self.loss(data_batch) * len(data_batch[0]), "nb": torch.tensor(len(data_batch[0]))}

    def validation_end(self, outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        # the last batch may be smaller than the others, so each counts by its size
        loss, nb = (torch.stack([output[key] for output in outputs]).sum() for key in ("val_loss", "nb"))
        return {"val_loss": loss / nb}

    def configure_optimizers(self) -> list[optim.Optimizer]:
        return [optim.Adam(self.parameters(), lr=self.hparams.learning_rate)]

    @torch.no_grad()
    def write(self, start: str, length: int) -> str:
        """``start``, continued by ``length`` characters, each the likeliest."""
        self.eval()
        characters = list(start.encode())
        for _ in range(length):
            seen = torch.tensor([characters[-self.hparams.length :]], device=self.output.weight.device)
            characters.append(int(self(seen)[0, -1].argmax()))
        return bytes(characters).decode(errors="replace")

    def pieces(self, validation: bool) -> TensorDataset:
        """Pieces of ``length`` characters and the next: the last tenth of the text is for validation."""
        text, length = text_of(self.hparams.text), self.hparams.length
        cut = len(text) * 9 // 10
        part = text[cut:] if validation else text[:cut]
        if len(part) <= length:
            needed = 10 * (length + 1)
            raise SystemExit(f"{self.hparams.text}: too short. It needs {needed} characters, or a smaller --length.")
        return TensorDataset(part.unfold(0, length + 1, length).contiguous())

    @property
    def tng_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.pieces(validation=False), batch_size=self.hparams.batch_size, shuffle=True)

    @property
    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.pieces(validation=True), batch_size=self.hparams.batch_size)
