"""A language model of July 2019: a hidden state that goes from batch to batch, perplexity, metrics logged by hand."""
import math
import os

import pandas as pd
import torch
import torch.nn as nn
from test_tube import Experiment

import pytorch_lightning as pl

TEXT = 'the cat sat on the mat and the dog sat on the log ' * 40
LETTERS = sorted(set(TEXT))


class LanguageModel(pl.LightningModule):

    def __init__(self, hparams):
        super(LanguageModel, self).__init__()
        self.hparams = hparams
        self.embedding = nn.Embedding(len(LETTERS), 16)
        self.rnn = nn.GRU(16, 32, batch_first=True)
        self.out = nn.Linear(32, len(LETTERS))
        self.loss = nn.CrossEntropyLoss()
        self.hidden = None

    def forward(self, x, hidden):
        y, hidden = self.rnn(self.embedding(x), hidden)
        return self.out(y), hidden

    def on_epoch_start(self):
        self.hidden = None

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        logits, hidden = self.forward(x, self.hidden)
        self.hidden = hidden.detach()
        loss = self.loss(logits.view(-1, len(LETTERS)), y.contiguous().view(-1))
        if batch_nb == 0:
            self.experiment.log({'first_loss': loss.item()}, global_step=self.global_step)
        return {'loss': loss, 'prog': {'ppl': math.exp(loss.item()), 'batch_nb': batch_nb, 'phase': 'training'}}

    def update_tng_log_metrics(self, logs):
        logs['log10_ppl'] = math.log10(logs['ppl'])
        return logs

    def validation_step(self, data_batch, batch_nb):
        x, y = data_batch
        logits, _ = self.forward(x, None)
        return self.loss(logits.view(-1, len(LETTERS)), y.contiguous().view(-1))

    def validation_end(self, outputs):
        return {'val_ppl': torch.stack(outputs).mean().exp()}

    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters(), lr=self.hparams['lr'])]

    def batches(self):
        ids = torch.tensor([LETTERS.index(c) for c in TEXT])
        rows = ids[:len(ids) // 8 * 8].view(8, -1)
        return [(rows[:, i:i + 25], rows[:, i + 1:i + 26]) for i in range(0, rows.size(1) - 26, 25)]

    @property
    def tng_dataloader(self):
        return self.batches()

    @property
    def val_dataloader(self):
        return self.batches()


if __name__ == '__main__':
    exp = Experiment(save_dir=os.getcwd(), name='lm')
    model = LanguageModel({'lr': 0.01})
    trainer = pl.Trainer(exp, gradient_clip=0.25, max_nb_epochs=12, val_check_interval=0.5, add_log_row_interval=1,
                         progress_bar=False)
    trainer.fit(model)
    exp.save()
    assert trainer.tng_tqdm_dic['val_ppl'] < 2.5, trainer.tng_tqdm_dic
    assert trainer.tng_tqdm_dic['phase'] == 'training'
    frame = pd.read_csv(os.path.join(exp.get_data_path(exp.name, exp.version), 'metrics.csv'))
    assert len(frame['first_loss'].dropna()) == 12
    rows = frame.dropna(subset=['log10_ppl'])
    assert len(rows) == 12 * len(model.tng_dataloader)
    assert abs(10 ** rows['log10_ppl'].iloc[-1] - rows['ppl'].iloc[-1]) < 1e-3
    assert rows['ppl'].iloc[-1] < rows['ppl'].iloc[0] / 3
    print('ok')
