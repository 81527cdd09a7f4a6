"""Methods of attention once more, slowly: float64, every matrix of every head written out; see `replicas`."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from replicas import in_double, resized, score

HEADS, WIDTH = 2, 3  # of `subjects.Attends`


@contextmanager
def written_out(model, *, until=2):
    """`Attends` of a model computed head by head; gives the list of its layers' probabilities (rows, heads, T, T).

    With `until` 1 the second layer is left out.
    """
    found = []

    def forward(x):
        tokens = x.flatten(2).mT
        for layer in (model.mixing.first, model.mixing.second)[:until]:
            parts = layer.parts(tokens).split(HEADS * WIDTH, dim=2)
            heads, added = [], []
            for h in range(HEADS):
                q, k, v = (part[:, :, h * WIDTH : (h + 1) * WIDTH] for part in parts)
                logits = torch.einsum("nid,njd->nij", q, k) / WIDTH**0.5
                exponents = (logits - logits.amax(2, keepdim=True)).exp()
                heads.append(exponents / exponents.sum(2, keepdim=True))
                added.append((heads[-1], v))
            every = torch.stack(heads, 1)
            found.append(every)
            mixed = [torch.einsum("nij,njd->nid", every[:, h], v) for h, (_, v) in enumerate(added)]
            tokens = tokens + torch.cat(mixed, 2)
        return tokens.mT.unflatten(2, x.shape[2:])

    model.mixing.forward = forward
    try:
        yield found
    finally:
        del model.mixing.forward


def _replica(formula):
    def replica(model, inputs, targets, *, resolution="input"):
        model = in_double(model)
        maps = []
        for row, target in zip(inputs.double(), targets, strict=True):
            with written_out(model) as found:
                value = score(model, row.clone().requires_grad_() * 1, target)
            # The mean over all tokens, which the cells of `Small` read.
            own = formula(found, value).detach().view([extent // 2 for extent in row.shape[1:]])
            maps.append(own if resolution == "native" else resized(own, row.shape[1:]))
        return torch.stack(maps)[:, None]

    return replica


def _rollout(found, _value):
    count = found[0].shape[-1]
    total = torch.eye(count, dtype=torch.float64)
    for probabilities in found:
        mean = sum(probabilities[0, h] for h in range(HEADS)) / HEADS
        mixed = 0.5 * mean + 0.5 * torch.eye(count, dtype=torch.float64)
        for i in range(count):
            mixed[i] = mixed[i] / mixed[i].sum()
        total = mixed @ total
    return total.mean(0)


def _gradient_rollout(found, value):
    count = found[0].shape[-1]
    total = torch.eye(count, dtype=torch.float64)
    for probabilities, gradient in zip(found, torch.autograd.grad(value, found), strict=True):
        rising = sum((gradient[0, h] * probabilities[0, h]).clamp_min(0) for h in range(HEADS)) / HEADS
        total = total + rising @ total
    return (total - torch.eye(count, dtype=torch.float64)).mean(0)


rollout = _replica(_rollout)
gradient_rollout = _replica(_gradient_rollout)


def legrad(model, inputs, targets, *, resolution="input", blocks=None):
    """Each layer's score is that of the model which ends with it, and every element of its gradient is looked at."""
    model = in_double(model)
    maps = []
    for row, target in zip(inputs.double(), targets, strict=True):
        of_layers = []
        for layer in (1, 2):
            with written_out(model, until=layer) as found:
                value = score(model, row.clone().requires_grad_() * 1, target)
            (gradient,) = torch.autograd.grad(value, found[-1])
            count = gradient.shape[-1]
            own = torch.zeros(count, dtype=torch.float64)
            for h in range(HEADS):
                for i in range(count):
                    own += gradient[0, h, i].clamp_min(0) / (HEADS * count)
            of_layers.append(own)
        of_layers = of_layers[-blocks:] if blocks else of_layers
        own = (sum(of_layers) / len(of_layers)).view([extent // 2 for extent in row.shape[1:]])
        maps.append(own if resolution == "native" else resized(own, row.shape[1:]))
    return torch.stack(maps)[:, None]
