"""Networks whose modules say what a library's hooks see: DeepLIFT's rules, and layers that are written over."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


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


class WritesOver(nn.Module):
    """What `body` and `second` return is rectified in place, as DenseNet's features are; the second by a view of it."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body, self.norm, self.second = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3)
            self.pool, self.head = nn.AdaptiveAvgPool2d(2), nn.Linear(24, 5)
        self.eval()

    def forward(self, x):
        x = self.second(self.norm(functional.relu(self.body(x), inplace=True)))
        x.flatten(2).relu_()
        return self.head(self.pool(x).flatten(1))
