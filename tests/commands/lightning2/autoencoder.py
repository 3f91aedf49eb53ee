"""The first program of a tutorial: an autoencoder, a hundred batches."""
import lightning as L
import torch
from torch import nn, utils

encoder = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
decoder = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 16))


# the module
class LitAutoEncoder(L.LightningModule):
    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def training_step(self, batch, batch_idx):
        # training_step defines the train loop
        x, _ = batch
        x = x.view(x.size(0), -1)
        z = self.encoder(x)
        x_hat = self.decoder(z)
        loss = nn.functional.mse_loss(x_hat, x)
        # Logging to TensorBoard (if installed) by default
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        return optimizer


torch.manual_seed(1)
for part in (encoder, decoder):
    for p in part.parameters():
        nn.init.normal_(p, std=0.2)
model = LitAutoEncoder(encoder, decoder)
dataset = utils.data.TensorDataset(torch.randn(256, 4, 4), torch.zeros(256))
train_loader = utils.data.DataLoader(dataset, batch_size=8)
trainer = L.Trainer(limit_train_batches=20, max_epochs=1)
trainer.fit(model=model, train_dataloaders=train_loader)
