"""Out of memory: what a step keeps for its backward pass, and two ways to keep less of it."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything


def data():
    x = torch.randn(512, 16, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, x.sum(dim=1, keepdim=True).sin())


class Deep(LightningModule):
    """``recompute`` keeps the inputs of each block only, and computes the rest again in the backward pass."""

    def __init__(self, batch_size, recompute=False):
        super().__init__()
        self.inputs, self.output = nn.Linear(16, 64), nn.Linear(64, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)) for _ in range(4)
        )
        self.batch_size, self.recompute = batch_size, recompute

    def forward(self, x):
        x = self.inputs(x)
        for block in self.blocks:
            x = x + (checkpoint(block, x, use_reentrant=False) if self.recompute else block(x))
        return self.output(x)

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        return nn.functional.mse_loss(self(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.001)

    @property
    def tng_dataloader(self):
        return DataLoader(data(), batch_size=self.batch_size, shuffle=True)


def nb_bytes_kept(model):
    """What a training step of this model keeps between its forward and its backward pass, weights aside."""
    weights, kept = {p.data_ptr() for p in model.parameters()}, {}

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.training_step(next(iter(model.tng_dataloader)), 0).backward()
    return sum(kept.values())


def fit(batch_size, recompute=False, **options):
    seed_everything(0)
    model = Deep(batch_size, recompute)
    kept = nb_bytes_kept(model)
    trainer = Trainer(False, max_nb_epochs=3, print_weights_summary=False, silence=["no-validation"], **options)
    trainer.fit(model)
    weights = nn.utils.parameters_to_vector(model.parameters()).detach()
    return kept / 2**20, trainer.progress.nb_optimizer_steps, weights


if __name__ == "__main__":
    _, _, large = fit(batch_size=128)
    remedies: dict[str, dict[str, Any]] = {
        "batches of 128": {"batch_size": 128},
        "4 batches of 32": {"batch_size": 32, "accumulate_grad_batches": 4},
        "recomputed": {"batch_size": 128, "recompute": True},
        "both": {"batch_size": 32, "accumulate_grad_batches": 4, "recompute": True},
    }
    for name, options in remedies.items():
        megabytes, nb_steps, weights = fit(**options)
        same = torch.allclose(weights, large, atol=1e-3)
        print(f"{name:16} keeps {megabytes:.2f} MB, {nb_steps} steps, the same weights: {same}")
