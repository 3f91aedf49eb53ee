"""A trained model without this library: weights for plain torch, and a program of torch.export."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything


def network():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1))


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, x):
        return self.network(x)

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        return nn.functional.mse_loss(self(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self):
        x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=20, shuffle=True)


if __name__ == "__main__":
    seed_everything(0)
    model = Model()
    Trainer(max_nb_epochs=5, print_weights_summary=False, default_save_path="exporting").fit(model)
    model.eval()  # without dropout
    x = torch.ones(3, 4)
    with torch.no_grad():
        expected = model(x)

    # the weights: a part of the module is a plain nn.Module
    torch.save(model.network.state_dict(), "weights.pt")
    plain = network().eval()
    plain.load_state_dict(torch.load("weights.pt", weights_only=True))
    print("plain torch", torch.equal(plain(x), expected))

    # a program: no class is needed to run it, and batches may have any size
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model.network, (x,), dynamic_shapes=({0: batch},))
    torch.export.save(exported, "model.pt2")
    program = torch.export.load("model.pt2").module()
    print("torch.export", torch.allclose(program(torch.ones(7, 4))[:3], expected))
