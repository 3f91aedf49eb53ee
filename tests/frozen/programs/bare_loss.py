"""The least that a program of 2019 gets by with: a step that returns its loss, and one optimizer, not in a list."""
import torch
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as ptl


class Line(ptl.LightningModule):

    def __init__(self):
        super(Line, self).__init__()
        self.l1 = torch.nn.Linear(1, 1)
        self.loss = torch.nn.MSELoss()      # a submodule of this name
        self.device = torch.device('cpu')   # users assign this one themselves

    def forward(self, x):
        return self.l1(x)

    def training_step(self, batch, batch_nb):
        x, y = batch
        return self.loss(self.forward(x.to(self.device)), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @ptl.data_loader
    def tng_dataloader(self):
        x = torch.linspace(-1, 1, 64).unsqueeze(1)
        return DataLoader(TensorDataset(x, 3 * x - 1), batch_size=8, shuffle=True)


model = Line()
trainer = ptl.Trainer(max_nb_epochs=30, gradient_clip=-1, nb_sanity_val_steps=0)
trainer.fit(model)
assert abs(model.l1.weight.item() - 3) < 0.01
assert abs(model.l1.bias.item() + 1) < 0.01
assert trainer.avg_loss < 1e-3
assert trainer.global_step == 240
print('ok')
