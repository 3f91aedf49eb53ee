"""A model of sequences: perplexity, and the gradients' norm before the step."""
import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


class Sequences(Dataset):
    def __init__(self, tokens, block_size=6):
        self.tokens, self.block_size = tokens, block_size

    def __len__(self):
        return len(self.tokens) - self.block_size

    def __getitem__(self, i):
        return self.tokens[i : i + self.block_size], self.tokens[i + 1 : i + self.block_size + 1]


class LanguageModel(L.LightningModule):
    def __init__(self, vocab_size=11):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 8)
        self.rnn = nn.GRU(8, 16, batch_first=True)
        self.out = nn.Linear(16, vocab_size)

    def forward(self, inputs, hidden=None):
        features, hidden = self.rnn(self.embedding(inputs), hidden)
        return self.out(features), hidden

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        output, _ = self(inputs)
        loss = F.cross_entropy(output.flatten(0, 1), targets.flatten())
        self.log("loss", loss, prog_bar=True)
        self.log("ppl", torch.exp(loss.detach()), prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        inputs, targets = batch
        output, _ = self(inputs)
        loss = F.cross_entropy(output.flatten(0, 1), targets.flatten())
        self.log_dict({"val_loss": loss, "val_ppl": loss.exp()}, batch_size=inputs.size(0))

    def on_before_optimizer_step(self, optimizer):
        norms = {f"norm_{n}": p.grad.norm() for n, p in self.out.named_parameters()}
        self.log_dict(norms)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


L.seed_everything(24)
tokens = torch.arange(60) % 11
model = LanguageModel()
trainer = L.Trainer(max_epochs=2, gradient_clip_val=0.25, enable_progress_bar=False, enable_checkpointing=False)
trainer.fit(model, DataLoader(Sequences(tokens), 9), DataLoader(Sequences(tokens[:25]), 9))
numbers = {"val_ppl": trainer.callback_metrics["val_ppl"].item()}
