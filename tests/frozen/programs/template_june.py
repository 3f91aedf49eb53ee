"""The whole project template of June 2019: parser, experiment, both callbacks, every option of the trainer."""
import os
from collections import OrderedDict

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from test_tube import Experiment, HyperOptArgumentParser
from torch import optim
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning.callbacks.pt_callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.models.trainer import Trainer
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.utils.arg_parse import add_default_args

SEED = 2019


def two_moons(nb_samples, seed):
    rng = np.random.RandomState(seed)
    angle = rng.rand(nb_samples) * np.pi
    label = rng.randint(0, 2, nb_samples)
    x = np.stack([np.cos(angle) + label, (1 - 2 * label) * np.sin(angle) + 0.3 * label], axis=1)
    x += 0.05 * rng.randn(nb_samples, 2)
    return TensorDataset(torch.tensor(x, dtype=torch.float), torch.tensor(label, dtype=torch.long))


class MoonModel(LightningModule):

    def __init__(self, hparams):
        super(MoonModel, self).__init__(hparams)
        self.hparams = hparams
        self.batch_size = hparams.batch_size
        self.c_d1 = nn.Linear(self.hparams.in_features, self.hparams.hidden_dim)
        self.c_d1_drop = nn.Dropout(self.hparams.drop_prob)
        self.c_d2 = nn.Linear(self.hparams.hidden_dim, self.hparams.out_features)

    def forward(self, x):
        x = self.c_d1_drop(torch.tanh(self.c_d1(x)))
        return F.log_softmax(self.c_d2(x), dim=1)

    def loss(self, labels, logits):
        return F.nll_loss(logits, labels)

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        loss_val = self.loss(y, self.forward(x))
        return OrderedDict({'loss': loss_val, 'prog': {'tng_loss': loss_val, 'batch_nb': batch_nb}})

    def validation_step(self, data_batch, batch_nb):
        x, y = data_batch
        y_hat = self.forward(x)
        loss_val = self.loss(y, y_hat)
        val_acc = torch.sum(y == torch.argmax(y_hat, dim=1)).item() / (len(y) * 1.0)
        return OrderedDict({'val_loss': loss_val, 'val_acc': torch.tensor(val_acc)})

    def validation_end(self, outputs):
        val_loss_mean = 0
        val_acc_mean = 0
        for output in outputs:
            val_loss_mean += output['val_loss']
            val_acc_mean += output['val_acc']
        val_loss_mean /= len(outputs)
        val_acc_mean /= len(outputs)
        return {'val_loss': val_loss_mean.item(), 'val_acc': val_acc_mean.item()}

    def update_tng_log_metrics(self, logs):
        logs['weight_norm'] = self.c_d1.weight.norm().item()
        return logs

    def get_save_dict(self):
        return {'state_dict': self.state_dict()}

    def load_model_specific(self, checkpoint):
        self.load_state_dict(checkpoint['state_dict'])

    def configure_optimizers(self):
        optimizer = self.choose(self.hparams.optimizer_name)
        return [optimizer]

    def choose(self, name):
        if name == 'adam':
            return optim.Adam(self.parameters(), lr=self.hparams.learning_rate)
        return optim.SGD(self.parameters(), lr=self.hparams.learning_rate)

    @property
    def tng_dataloader(self):
        if self._tng_dataloader is None:
            try:
                self._tng_dataloader = DataLoader(two_moons(512, 1), batch_size=self.batch_size, shuffle=True)
            except Exception as e:
                raise e
        return self._tng_dataloader

    @property
    def val_dataloader(self):
        if self._val_dataloader is None:
            try:
                self._val_dataloader = DataLoader(two_moons(256, 2), batch_size=self.batch_size, shuffle=True)
            except Exception as e:
                raise e
        return self._val_dataloader

    @property
    def test_dataloader(self):
        if self._test_dataloader is None:
            try:
                self._test_dataloader = DataLoader(two_moons(256, 3), batch_size=self.batch_size, shuffle=True)
            except Exception as e:
                raise e
        return self._test_dataloader

    @staticmethod
    def add_model_specific_args(parent_parser, root_dir):
        parser = HyperOptArgumentParser(strategy=parent_parser.strategy, parents=[parent_parser])
        parser.set_defaults(gradient_clip=5.0)
        parser.opt_list('--drop_prob', default=0.1, options=[0.1, 0.5], type=float, tunable=False)
        parser.add_argument('--in_features', default=2)
        parser.add_argument('--out_features', default=2)
        parser.add_argument('--hidden_dim', default=32)
        parser.opt_list('--learning_rate', default=0.02, type=float, options=[0.001, 0.02], tunable=False)
        parser.opt_list('--batch_size', default=64, type=int, options=[32, 64], tunable=False)
        parser.opt_list('--optimizer_name', default='adam', type=str, options=['adam', 'sgd'], tunable=False)
        return parser


def main(hparams, cluster, results_dict):
    hparams.__setattr__('on_gpu', torch.cuda.is_available())

    exp = Experiment(
        name=hparams.tt_name,
        debug=hparams.debug,
        save_dir=hparams.tt_save_path,
        version=hparams.hpc_exp_number,
        autosave=False,
        description=hparams.tt_description
    )
    exp.argparse(hparams)
    exp.save()

    model = MoonModel(hparams)

    early_stop = EarlyStopping(
        monitor=hparams.early_stop_metric,
        patience=hparams.early_stop_patience,
        verbose=True,
        mode=hparams.early_stop_mode
    )
    model_save_path = '{}/{}/{}'.format(hparams.model_save_path, exp.name, exp.version)
    checkpoint = ModelCheckpoint(
        filepath=model_save_path,
        save_function=None,
        save_best_only=True,
        verbose=True,
        monitor=hparams.model_save_monitor_value,
        mode=hparams.model_save_monitor_mode
    )

    trainer = Trainer(
        experiment=exp,
        checkpoint_callback=checkpoint,
        early_stop_callback=early_stop,
        cluster=cluster,
        process_position=0,
        current_gpu_name=0,
        gpus=None,
        progress_bar=not hparams.log_stdout,
        overfit_pct=hparams.overfit,
        track_grad_norm=hparams.track_grad_norm,
        fast_dev_run=hparams.fast_dev_run,
        check_val_every_n_epoch=hparams.check_val_every_n_epoch,
        accumulate_grad_batches=hparams.accumulate_grad_batches,
        enable_early_stop=hparams.enable_early_stop,
        max_nb_epochs=hparams.max_nb_epochs,
        min_nb_epochs=hparams.min_nb_epochs,
        train_percent_check=hparams.train_percent_check,
        val_percent_check=hparams.val_percent_check,
        test_percent_check=hparams.test_percent_check,
        val_check_interval=hparams.val_check_interval,
        log_save_interval=hparams.log_save_interval,
        add_log_row_interval=hparams.add_log_row_interval,
        lr_scheduler_milestones=hparams.lr_scheduler_milestones,
        use_amp=hparams.use_amp,
        amp_level=hparams.amp_level,
        print_nan_grads=hparams.check_grad_nans,
        gradient_clip=hparams.gradient_clip
    )
    trainer.fit(model)
    results_dict['acc'] = checkpoint.best
    results_dict['path'] = checkpoint.best_path
    results_dict['tags'] = '{}/{}/version_{}/meta_tags.csv'.format(hparams.tt_save_path, exp.name, exp.version)


if __name__ == '__main__':
    torch.manual_seed(SEED)
    np.random.seed(SEED)

    root_dir = os.getcwd()
    parent_parser = HyperOptArgumentParser(strategy='grid_search', add_help=False)
    add_default_args(parent_parser, root_dir, possible_model_names=['moons'], rand_seed=SEED)
    parser = MoonModel.add_model_specific_args(parent_parser, root_dir)
    hyperparams = parser.parse_args(['--max_nb_epochs', '30', '--min_nb_epochs', '5', '--add_log_row_interval', '5',
                                     '--lr_scheduler_milestones', '20,25', '--track_grad_norm', '2'])

    results = {}
    main(hyperparams, None, results)
    assert results['acc'] > 0.95, results

    # the files of the run, and the model from them
    assert os.listdir('model_weights/{}/0'.format(hyperparams.tt_name)) == [os.path.basename(results['path'])]
    assert os.path.basename(results['path']).startswith('_ckpt_epoch_')
    loaded = MoonModel.load_from_metrics(weights_path=results['path'], tags_csv=results['tags'], on_gpu=False,
                                         map_location=None)
    loaded.eval()
    loaded.freeze()
    x, y = two_moons(256, 2).tensors
    assert (loaded(x).argmax(1) == y).float().mean().item() > 0.95
    assert loaded.hparams.learning_rate == 0.02
    import pandas as pd
    frame = pd.read_csv('test_tube_logs/{}/version_0/metrics.csv'.format(hyperparams.tt_name))
    assert {'tng_loss', 'val_acc', 'weight_norm', 'grad_2_norm_total'} <= set(frame.columns)
    print('ok')
