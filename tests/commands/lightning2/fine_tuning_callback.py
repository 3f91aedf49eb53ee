"""BaseFinetuning: the backbone is frozen before training, and joins the optimizer in a later epoch."""
import lightning as L
import torch
from lightning.pytorch.callbacks import BaseFinetuning
from torch.utils.data import DataLoader, TensorDataset


class Milestones(BaseFinetuning):
    def __init__(self, unfreeze_at: int = 2):
        super().__init__()
        self.unfreeze_at = unfreeze_at

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.backbone)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == self.unfreeze_at:
            self.unfreeze_and_add_param_group(modules=pl_module.backbone, optimizer=optimizer, lr=0.01)


class Transfer(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU())
        self.head = torch.nn.Linear(6, 3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.head(self.backbone(x)), y)

    def configure_optimizers(self):
        return torch.optim.SGD(filter(lambda p: p.requires_grad, self.parameters()), lr=0.1)


L.seed_everything(56)
x = torch.randn(30, 4)
model = Transfer()
trainer = L.Trainer(max_epochs=4, callbacks=[Milestones()], logger=False, enable_checkpointing=False)
trainer.fit(model, DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=6))
