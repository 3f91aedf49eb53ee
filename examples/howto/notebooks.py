"""A notebook: cells that ``# %%`` separates."""

# %%
import pandas
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning
from pytorch_lightning import LightningModule, Trainer, seed_everything

# %% The model: run this cell again after each change of it
x = torch.linspace(-3, 3, 300)[:, None]
samples = TensorDataset(x, x.sin() + 0.1 * torch.randn(300, 1, generator=torch.Generator().manual_seed(0)))


class Curve(LightningModule):
    def __init__(self, width=16):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x):
        return self.network(x)

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        return nn.functional.mse_loss(self(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.005)

    @property
    def tng_dataloader(self):
        return DataLoader(samples, batch_size=30, shuffle=True)


# %% Train it: the weights begin anew in each run of this cell
seed_everything(0)
model = Curve()
trainer = Trainer(max_nb_epochs=5, add_log_row_interval=5, print_weights_summary=False, silence=["no-validation"])
trainer.fit(model)

# %% Train it further: another fit begins with the weights that are there
before = trainer.metrics["tng_loss_epoch"]
trainer.fit(model)
print(f"loss {before:.3f}, then {trainer.metrics['tng_loss_epoch']:.3f}")

# %% Look at what it learnt
with torch.no_grad():
    print(f"sin(1) is {model(torch.ones(1, 1)).item():.1f}")

# %% Look at the rows of the run, and at all runs
rows = pandas.read_csv(f"{trainer.folder}/metrics.csv")
print(f"{len(rows)} rows, from {rows['tng_loss'].iloc[0]:.2f} to {rows['tng_loss'].iloc[-1]:.2f}")
pytorch_lightning.runs("lightning_logs")
