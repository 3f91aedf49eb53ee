"""Two optimizers by hand, the second one first, and both losses logged at the end."""
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset


class SimpleGAN(LightningModule):
    def __init__(self):
        super().__init__()
        self.G = torch.nn.Linear(3, 2)
        self.D = torch.nn.Linear(2, 1)

        # Important: This property activates manual optimization.
        self.automatic_optimization = False

    def sample_G(self, z):
        return self.G(z)

    def training_step(self, batch, batch_idx):
        # Implementation follows a well-known tutorial
        g_opt, d_opt = self.optimizers()

        X, z = batch
        real_label = torch.ones((X.shape[0], 1), device=self.device)
        fake_label = torch.zeros((X.shape[0], 1), device=self.device)

        g_X = self.sample_G(z)

        ##########################
        # Optimize Discriminator #
        ##########################
        d_x = self.D(X)
        errD_real = torch.nn.functional.binary_cross_entropy_with_logits(d_x, real_label)

        d_z = self.D(g_X.detach())
        errD_fake = torch.nn.functional.binary_cross_entropy_with_logits(d_z, fake_label)

        errD = errD_real + errD_fake

        d_opt.zero_grad()
        self.manual_backward(errD)
        d_opt.step()

        ######################
        # Optimize Generator #
        ######################
        d_z = self.D(g_X)
        errG = torch.nn.functional.binary_cross_entropy_with_logits(d_z, real_label)

        g_opt.zero_grad()
        self.manual_backward(errG)
        g_opt.step()

        self.log_dict({"g_loss": errG, "d_loss": errD}, prog_bar=True)

    def configure_optimizers(self):
        g_opt = torch.optim.Adam(self.G.parameters(), lr=0.02)
        d_opt = torch.optim.Adam(self.D.parameters(), lr=0.01)
        return g_opt, d_opt


torch.manual_seed(4)
model = SimpleGAN()
loader = DataLoader(TensorDataset(torch.randn(40, 2), torch.randn(40, 3)), batch_size=8)
Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_model_summary=False).fit(model, loader)
