"""A network that DeepLIFT's rules for modules see whole."""

from __future__ import annotations

import torch
from torch import nn


class Modules(nn.Module):
    """Modules that run once each, none after another of captum's: what its DeepLIFT sees whole."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.tanh, self.body = nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Conv2d(6, 6, 3)
            self.relu, self.pool, self.head = nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Linear(24, 5)
        self.eval()

    def forward(self, x):
        return self.head(self.pool(self.relu(self.body(self.tanh(self.conv(x))))).flatten(1))
