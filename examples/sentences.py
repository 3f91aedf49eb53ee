"""A language model on sentences of different lengths: warm-up and decay, accumulation, a loss that counts tokens.

``python sentences.py`` trains a small transformer to continue counting (``three four five ...``), in seconds on a CPU,
and prints its perplexity. Started again after it was killed it resumes where ``--resume auto`` is given.
"""

import math
import os
import random
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from pytorch_lightning import LightningModule, Trainer, add_default_args, seed_everything

WORDS = ["", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "."]
PADDING, NB_LONGEST = 0, 16


def sentences(nb: int, seed: int) -> list[Tensor]:
    """Sentences that count up or down, as numbers of words: a step, then 2 to 12 digits, then a full stop."""
    draw, made = random.Random(seed), list[Tensor]()
    for _ in range(nb):
        start, step = draw.randrange(10), draw.choice([1, 2, 9])
        digits = [(start + n * step) % 10 for n in range(draw.randrange(2, 13))]
        made.append(torch.tensor([step + 1, *(digit + 1 for digit in digits), len(WORDS) - 1]))
    return made


def collate(batch: list[Tensor]) -> Tensor:
    return pad_sequence(batch, batch_first=True, padding_value=PADDING)


class LanguageModel(LightningModule):
    """Words of shape (batch, length) to logits of the next one."""

    def __init__(self, hparams: Namespace) -> None:
        super().__init__(hparams)
        dim = hparams.hidden_dim
        self.embedding, self.positions = nn.Embedding(len(WORDS), dim), nn.Embedding(NB_LONGEST, dim)
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.output = nn.Linear(dim, len(WORDS))

    def forward(self, words: Tensor) -> Tensor:
        length = words.shape[1]
        earlier = nn.Transformer.generate_square_subsequent_mask(length, device=words.device)
        places = torch.arange(length, device=words.device)
        states = self.layers(self.embedding(words) + self.positions(places), mask=earlier, is_causal=True)
        logits: Tensor = self.output(states)
        return logits

    def loss(self, words: Tensor) -> dict[str, Any]:
        """The mean over the words, and how many they are: batches of long sentences weigh more."""
        logits, following = self(words[:, :-1]), words[:, 1:]
        loss = F.cross_entropy(logits.flatten(0, 1), following.flatten(), ignore_index=PADDING)
        return {"loss": loss, "loss_count": (following != PADDING).sum()}

    def training_step(self, data_batch: Tensor, batch_nb: int) -> dict[str, Any]:
        given = self.loss(data_batch)
        return {**given, "prog_epoch": {"nll": given["loss"]}}

    def validation_step(self, data_batch: Tensor, batch_nb: int) -> dict[str, Any]:
        return self.loss(data_batch)

    def validation_end(self, outputs: list[dict[str, Any]]) -> dict[str, float]:
        total = sum(float(output["loss_count"]) for output in outputs)
        loss = sum(float(output["loss"]) * float(output["loss_count"]) for output in outputs) / total
        return {"val_loss": loss, "perplexity": math.exp(loss)}

    def configure_optimizers(self) -> Any:
        optimizer = optim.AdamW(self.parameters(), lr=self.hparams.learning_rate)
        nb: int | None = self.trainer.nb_total_steps  # windows, not batches
        if nb is None:
            raise SystemExit("With --accumulate_nb_samples pass --max_nb_steps, too: the decay ends there.")
        nb_warm = nb // 10

        def rate(step: int) -> float:
            return min((step + 1) / (nb_warm + 1), (nb - step) / (nb - nb_warm))

        return [optimizer], [{"scheduler": optim.lr_scheduler.LambdaLR(optimizer, rate), "interval": "step"}]

    def loader(self, nb: int, seed: int, shuffle: bool) -> DataLoader[Any]:
        made: Any = sentences(nb, seed)  # torch takes a list for a dataset, though its types don't say so
        return DataLoader(made, batch_size=self.hparams.batch_size, shuffle=shuffle, collate_fn=collate)

    @property
    def tng_dataloader(self) -> DataLoader[Any]:
        return self.loader(1000, 0, shuffle=True)

    @property
    def val_dataloader(self) -> DataLoader[Any]:
        return self.loader(200, 1, shuffle=False)


def main(hparams: Namespace) -> None:
    seed_everything(hparams.seed)  # the weights that the model begins with
    model = LanguageModel(hparams)
    trainer = Trainer.from_args(hparams)
    trainer.fit(model)
    print(f"steps           {trainer.progress.nb_optimizer_steps} of {trainer.nb_total_steps}")
    print(f"perplexity      {trainer.metrics['perplexity']:.3f}")


if __name__ == "__main__":
    root_dir = os.path.dirname(os.path.realpath(__file__))

    parser = ArgumentParser(usage="%(prog)s [--option value ...]", formatter_class=ArgumentDefaultsHelpFormatter)
    add_default_args(parser, root_dir)
    parser.add_argument("--hidden_dim", default=32, type=int, help="numbers of a word")
    parser.add_argument("--learning_rate", default=0.01, type=float, help="the largest one")
    parser.add_argument("--batch_size", default=16, type=int, help="sentences in a batch")
    parser.set_defaults(max_nb_epochs=8, accumulate_grad_batches=2, gradient_clip=1.0, seed=1, tt_name="sentences")
    main(parser.parse_args())
