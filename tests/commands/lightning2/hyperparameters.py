"""save_hyperparameters, self.hparams, and a model that is made again from its checkpoint."""
import lightning as L
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Net(L.LightningModule):
    def __init__(self, in_dim=4, hidden_dim=8, learning_rate=1e-2, act=None, **kwargs):
        super().__init__()
        self.save_hyperparameters(ignore=["act"])
        self.act = act or torch.nn.Tanh()
        self.first = torch.nn.Linear(self.hparams.in_dim, self.hparams.hidden_dim)
        self.second = torch.nn.Linear(self.hparams.hidden_dim, 1)

    def forward(self, x):
        return self.second(self.act(self.first(x)))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.mse_loss(self(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(
            self.parameters(),
            lr=self.hparams.learning_rate,
            weight_decay=self.hparams["weight_decay"],
        )


L.seed_everything(0)
x = torch.randn(64, 4)
loader = DataLoader(TensorDataset(x, x.prod(1, keepdim=True)), batch_size=16)
net = Net(hidden_dim=12, weight_decay=0.01)
trainer = L.Trainer(max_epochs=2, enable_progress_bar=False)
trainer.fit(net, loader)
trainer.save_checkpoint("net.ckpt")
model = Net.load_from_checkpoint(checkpoint_path="net.ckpt", map_location="cpu")
assert model.hparams.hidden_dim == 12
model.eval()
with torch.no_grad():
    numbers = {"out": float(model(x).sum())}
