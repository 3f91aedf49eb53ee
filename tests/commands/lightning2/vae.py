"""A variational autoencoder: a dict of losses."""
import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader


class VAE(L.LightningModule):
    def __init__(self, enc_out_dim=8, latent_dim=2, kl_coeff=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Linear(6, enc_out_dim), nn.ReLU())
        self.decoder = nn.Linear(latent_dim, 6)
        self.fc_mu = nn.Linear(enc_out_dim, latent_dim)
        self.fc_var = nn.Linear(enc_out_dim, latent_dim)

    def _run_step(self, x):
        x_encoded = self.encoder(x)
        mu, log_var = self.fc_mu(x_encoded), self.fc_var(x_encoded)
        noise = torch.linspace(-1, 1, mu.numel()).view_as(mu)
        z = mu + noise * torch.exp(log_var / 2)
        return z, self.decoder(z), mu, log_var

    def step(self, batch, batch_idx):
        x = batch
        z, x_hat, mu, log_var = self._run_step(x)
        recon_loss = nn.functional.mse_loss(x_hat, x, reduction="mean")
        kl = -0.5 * (1 + log_var - mu.pow(2) - log_var.exp()).sum(1).mean()
        kl *= self.hparams.kl_coeff
        loss = kl + recon_loss
        logs = {
            "recon_loss": recon_loss,
            "kl": kl,
            "loss": loss,
        }
        return loss, logs

    def training_step(self, batch, batch_idx):
        loss, logs = self.step(batch, batch_idx)
        self.log_dict({f"train_{k}": v for k, v in logs.items()}, on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch, batch_idx):
        loss, logs = self.step(batch, batch_idx)
        self.log_dict({f"val_{k}": v for k, v in logs.items()})
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


L.seed_everything(25)
data = torch.randn(40, 6)
model = VAE()
trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(data, batch_size=8), DataLoader(data[:18], batch_size=8))
numbers = {"val_loss": trainer.callback_metrics["val_loss"].item()}
