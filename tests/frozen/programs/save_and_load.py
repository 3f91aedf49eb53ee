"""Saving and loading in the style of 2019: a checkpoint by hand, the tags of the run, predictions as before."""
import os

import torch
import torch.nn as nn
import torch.nn.functional as F
from test_tube import Experiment, HyperOptArgumentParser
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as ptl


class Model(ptl.LightningModule):

    def __init__(self, hparams):
        super(Model, self).__init__()
        self.hparams = hparams
        self.layers = nn.Sequential(nn.Linear(6, hparams.hidden), nn.Dropout(hparams.drop_prob), nn.ReLU(),
                                    nn.Linear(hparams.hidden, 2))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        return {'loss': F.cross_entropy(self.forward(x), y)}

    def on_save_checkpoint(self, checkpoint):
        checkpoint['note'] = 'kept'

    def on_load_checkpoint(self, checkpoint):
        self.note = checkpoint['note']

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)]

    @ptl.data_loader
    def tng_dataloader(self):
        x = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=32, shuffle=True)

    @staticmethod
    def add_model_specific_args(parent_parser, root_dir):
        parser = HyperOptArgumentParser(strategy=parent_parser.strategy, parents=[parent_parser])
        parser.add_argument('--hidden', default=16, type=int)
        parser.add_argument('--lr', default=0.1, type=float)
        parser.opt_list('--drop_prob', default=0.25, type=float, options=[0.25, 0.5], tunable=True)
        parser.add_argument('--label', default='none')
        parser.add_argument('--flag', action='store_true')
        return parser


if __name__ == '__main__':
    parent = HyperOptArgumentParser(strategy='random_search', add_help=False)
    hparams = Model.add_model_specific_args(parent, os.getcwd()).parse_args(['--hidden', '12', '--flag'])
    exp = Experiment(save_dir=os.getcwd(), name='saving')
    exp.argparse(hparams)
    exp.save()
    model = Model(hparams)
    trainer = ptl.Trainer(experiment=exp, max_nb_epochs=3, show_progress_bar=False)
    trainer.fit(model)

    x, y = model.tng_dataloader.dataset.tensors
    model.eval()
    with torch.no_grad():
        before = model(x)
    new_weights_path = os.path.join(os.getcwd(), 'save_test.ckpt')
    trainer.save_checkpoint(new_weights_path)
    assert os.path.exists(new_weights_path)

    tags_path = exp.get_data_path(exp.name, exp.version)
    tags_path = os.path.join(tags_path, 'meta_tags.csv')
    model_2 = Model.load_from_metrics(weights_path=new_weights_path, tags_csv=tags_path, on_gpu=False)
    model_2.eval()
    with torch.no_grad():
        assert torch.all(torch.eq(model_2(x), before)).item() == 1
    assert model_2.note == 'kept'
    tags = model_2.hparams
    assert (tags.hidden, tags.lr, tags.drop_prob, tags.label, tags.flag) == (12, 0.1, 0.25, 'none', True), vars(tags)
    assert (model_2(x).argmax(1) == y).float().mean().item() > 0.9

    # what users read of the file themselves
    checkpoint = torch.load(new_weights_path, map_location=lambda storage, loc: storage)
    assert {'state_dict', 'epoch', 'global_step', 'optimizer_states'} <= set(checkpoint)
    assert checkpoint['global_step'] == 3 * 8
    model_3 = Model(hparams)
    model_3.load_state_dict(checkpoint['state_dict'])
    model_3.freeze()
    model_3.eval()
    assert torch.equal(model_3(x), before)
    print('ok')
