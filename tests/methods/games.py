"""Games of a few players, whose values are known, and how a method is asked about them."""

from __future__ import annotations

import torch

PLAYERS = 8


class Game(torch.nn.Module):
    """A score that is a function of which of its players' values are 1."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value(x[:, 0] > 0.5).double()[:, None]


def played(value, method, **settings):
    """The values (players,) of a game."""
    ones, segments = torch.ones(1, 1, PLAYERS, dtype=torch.float64), torch.arange(PLAYERS)
    return method(Game(value), segments=segments, **settings)(ones, 0)


GAMES = {
    "additive": (lambda on: (on * torch.arange(PLAYERS)).sum(1), lambda i: float(i)),
    "and": (lambda on: on[:, 1] & on[:, 3], lambda i: 0.5 * (i in (1, 3))),
    "xor": (lambda on: on[:, 1] ^ on[:, 3], lambda i: 0.0),
    "majority": (lambda on: on.sum(1) > PLAYERS / 2, lambda i: 1 / PLAYERS),
    "glove": (
        lambda on: torch.minimum(on[:, :1].sum(1), on[:, 1:3].sum(1)),
        lambda i: {0: 2 / 3, 1: 1 / 6, 2: 1 / 6}.get(i, 0.0),
    ),
}


def tanh_game(on):
    """A game with interactions of every order."""
    weights = torch.linspace(-1, 1, PLAYERS, dtype=torch.float64)
    three = (on[:, 0] & on[:, 4] & on[:, 6]).double()
    return torch.tanh(2 * (on.double() @ weights)) + three - 0.7 * (on[:, 2] & on[:, 5]).double()
