"""Settings that hold for every test."""

import hypothesis
import torch

# small tensors gain nothing from threads, and `pytest -n` already fills the cores
torch.set_num_threads(1)

# a busy machine is slow now and then, which says nothing about the code
hypothesis.settings.register_profile("prefrl", deadline=None)
hypothesis.settings.load_profile("prefrl")
