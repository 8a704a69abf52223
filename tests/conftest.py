"""Settings that hold for every test."""

import torch

# small tensors gain nothing from threads, and `pytest -n` already fills the cores
torch.set_num_threads(1)
