"""Text generation: a small transformer that learns, character by character, to write the months and their lengths."""

import math
import random

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything

LENGTHS = {"jan": 31, "feb": 28, "mar": 31, "apr": 30, "may": 31, "jun": 30, "jul": 31, "aug": 31, "sep": 30}
MONTHS = random.Random(0).choices(list(LENGTHS), k=400)
TEXT = "".join(f"{month} has {LENGTHS[month]} days\n" for month in MONTHS)  # yours: Path(...).read_text()
CHARACTERS = sorted(set(TEXT))
NB_SEEN = 24  # characters that the model sees at once


def encode(text):
    return torch.tensor([CHARACTERS.index(character) for character in text])


def decode(numbers):
    return "".join(CHARACTERS[number] for number in numbers)


class Writer(LightningModule):
    """Characters of shape (batch, length) to logits of the next ones, of shape (batch, length, characters)."""

    def __init__(self, dim=48, nb_layers=1, dropout=0.0):
        super().__init__()
        self.characters, self.places = nn.Embedding(len(CHARACTERS), dim), nn.Embedding(NB_SEEN, dim)
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=dropout, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, nb_layers, enable_nested_tensor=False)
        self.output = nn.Linear(dim, len(CHARACTERS))

    def forward(self, seen):
        length = seen.shape[1]
        earlier = nn.Transformer.generate_square_subsequent_mask(length, device=seen.device)
        embedded = self.characters(seen) + self.places(torch.arange(length, device=seen.device))
        return self.output(self.layers(embedded, mask=earlier, is_causal=True))

    def loss(self, pieces):
        logits = self(pieces[:, :-1])  # what comes after each character, from those up to it
        return nn.functional.cross_entropy(logits.flatten(0, 1), pieces[:, 1:].flatten())

    def training_step(self, data_batch, batch_nb):
        return self.loss(*data_batch)

    def validation_step(self, data_batch, batch_nb):
        return {"val_loss": self.loss(*data_batch)}

    @torch.no_grad()
    def write(self, start, nb, temperature=0.0):
        """``start`` and ``nb`` more characters: the likeliest ones, or drawn, the more freely the higher."""
        self.eval()
        numbers = encode(start).tolist()
        for _ in range(nb):
            seen = torch.tensor([numbers[-NB_SEEN:]], device=self.output.weight.device)
            logits = self(seen)[0, -1]
            if temperature > 0:
                numbers.append(torch.multinomial((logits / temperature).softmax(0), 1).item())
            else:
                numbers.append(logits.argmax().item())
        return decode(numbers)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=self.trainer.nb_total_steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def pieces(self, begin, end):
        """Pieces of the text: what is seen, and one character more, from every fifth place on."""
        return TensorDataset(encode(TEXT)[begin:end].unfold(0, NB_SEEN + 1, 5).contiguous())

    @property
    def tng_dataloader(self):
        return DataLoader(self.pieces(0, len(TEXT) * 9 // 10), batch_size=32, shuffle=True)

    @property
    def val_dataloader(self):
        return DataLoader(self.pieces(len(TEXT) * 9 // 10, len(TEXT)), batch_size=128)


if __name__ == "__main__":
    seed_everything(0)
    model = Writer()
    trainer = Trainer(max_nb_epochs=5, gradient_clip=1.0, print_weights_summary=False, default_save_path="writer")
    trainer.fit(model)
    print(f"loss {trainer.metrics['val_loss']:.2f}, where guessing has {math.log(len(CHARACTERS)):.2f}")
    for start in ("feb has ", "jun has ", "aug has "):
        print(model.write(start, nb=7))
