"""One thread, so that tests on a busy machine don't wait for each other; and nothing is fetched."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for the programs that tests start

import torch

torch.set_num_threads(1)
