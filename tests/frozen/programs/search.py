"""A search of 2019 in one process: every trial of a parser gets an experiment and a Trainer of its own."""
import os

import torch
from test_tube import Experiment, HyperOptArgumentParser
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl
from pytorch_lightning.utilities.arg_parse import add_default_args
from pytorch_lightning.utilities.debugging import MisconfigurationException


class Line(pl.LightningModule):

    def __init__(self, hparams):
        super(Line, self).__init__()
        self.hparams = hparams
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_nb):
        x, y = batch
        return {'loss': (self.layer(x) - y).pow(2).mean()}

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate)]

    @pl.data_loader
    def tng_dataloader(self):
        x = torch.linspace(-1, 1, 32).unsqueeze(1)
        return DataLoader(TensorDataset(x, x), batch_size=8, shuffle=True)

    @staticmethod
    def add_model_specific_args(parent_parser, root_dir):
        parser = HyperOptArgumentParser(strategy=parent_parser.strategy, parents=[parent_parser])
        parser.opt_list('--learning_rate', default=0.1, type=float, options=[1e-4, 1e-2, 0.3], tunable=True)
        # a flag that the trainer's defaults have already
        parser.opt_range('--gradient_clip', default=1.0, type=float, low=1.0, high=10.0, nb_samples=2, tunable=True)
        return parser


if __name__ == '__main__':
    root_dir = os.getcwd()
    parent_parser = HyperOptArgumentParser(strategy='grid_search', add_help=False)
    add_default_args(parent_parser, root_dir)
    parser = Line.add_model_specific_args(parent_parser, root_dir)
    hparams = parser.parse_args(['--nb_hopt_trials', '6', '--interactive', 'True'])
    losses = {}
    for trial in hparams.trials(hparams.nb_hopt_trials):
        torch.manual_seed(0)
        exp = Experiment(name='search', save_dir=trial.tt_save_path)
        exp.argparse(trial)
        trainer = pl.Trainer(experiment=exp, max_nb_epochs=10, gradient_clip=trial.gradient_clip, progress_bar=False)
        trainer.fit(Line(trial))
        exp.close()
        losses[(trial.learning_rate, round(float(trial.gradient_clip), 3))] = trainer.avg_loss
    assert len(losses) == 6
    assert min(losses, key=losses.get)[0] == 0.3, losses
    assert len(os.listdir('test_tube_logs/search')) == 6
    try:
        pl.Trainer(max_nb_epochs=0)
    except MisconfigurationException as error:
        assert 'max_nb_epochs' in str(error)
    else:
        raise AssertionError('not refused')
    print('ok')
