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


def attn_lrp(model, inputs, targets, *, layer=None):
    """Relevance itself handed down through `Small`, step by step; nothing is differentiated but what is linear."""
    model = in_double(model)
    maps = []
    for row, target in zip(inputs.double(), targets, strict=True):
        with torch.no_grad():
            x = row[None].clamp_min(0) if model.inplace is not None else row[None]  # of a ReLU, one to one
            normed = model.stem_norm(model.stem(x))
            lit = normed.clamp_min(0)
            pooled = model.pool(lit)
            body = model.body_norm(model.body(pooled))
            added = body + pooled
            joined = added.clamp_min(0)
            tokens = [joined.flatten(2).mT[0]]
            blocks = [] if isinstance(model.mixing, torch.nn.Identity) else [model.mixing.first, model.mixing.second]
            for block in blocks:
                tokens.append(_attended(block, tokens[-1])[-1])
            space = tokens[-1].mT.view(1, -1, *joined.shape[2:])
            output = model(x.clone())[0]
            told = torch.zeros_like(output)
            if isinstance(target, torch.Tensor) and target.ndim:
                told = output * target
            else:
                told[target] = output[target]
        relevance = _back(lambda x: model.head(model.cells(x).flatten(1)), space, told[None])
        relevance = relevance.flatten(2).mT[0]
        for block, into in zip(blocks[::-1], tokens[-2::-1], strict=True):
            relevance = _through(block, into, relevance)
        relevance = relevance.mT.view_as(joined)
        kept = relevance * pooled / added
        relevance = kept + _back(lambda x: model.body_norm(model.body(x)), pooled, relevance - kept)
        relevance = _back(model.pool, lit, relevance)
        if layer is None:
            relevance = _back(lambda x: model.stem_norm(model.stem(x)), x, relevance)
        maps.append(relevance[0])
    return torch.stack(maps)


def _back(linear, x, relevance):
    """The 0-rule: x_i sum_k w_ik R_k / z_k, for what is linear but for what it adds."""
    x = x.detach().requires_grad_()
    z = linear(x)
    shares = torch.where(relevance == 0, 0.0, relevance / z.detach())
    return (x * torch.autograd.grad(z, x, shares)[0]).detach()


def _attended(block, tokens):
    """Per head queries, keys, values, logits and probabilities of (T, 6), and what comes out."""
    every, joined = [], []
    parts = block.parts(tokens).split(HEADS * WIDTH, dim=1)
    for h in range(HEADS):
        q, k, v = (part[:, h * WIDTH : (h + 1) * WIDTH] for part in parts)
        logits = q @ k.mT / WIDTH**0.5
        every.append((q, k, v, logits, logits.softmax(1)))
        joined.append(every[-1][-1] @ v)
    return [*every, tokens + torch.cat(joined, 1)]


def _through(block, tokens, relevance):
    """Relevance (T, 6) of what a block returns to that of what it is given."""
    with torch.no_grad():
        *heads, out = _attended(block, tokens)
        below = relevance * tokens / out
        of_parts = [torch.zeros_like(tokens) for _ in "qkv"]
        for h, (q, k, v, logits, p) in enumerate(heads):
            own = slice(h * WIDTH, (h + 1) * WIDTH)
            share = relevance[:, own] / out[:, own]  # of each number that is added up, per unit of it
            of_parts[2][:, own] = 0.5 * v * (p.mT @ share)
            of_p = 0.5 * p * (share @ v.mT)
            of_logits = logits * (of_p - p * of_p.sum(1, keepdim=True))
            per_unit = of_logits / logits / WIDTH**0.5
            of_parts[0][:, own] = 0.5 * q * (per_unit @ k)
            of_parts[1][:, own] = 0.5 * k * (per_unit.mT @ q)
    return below + _back(block.parts, tokens, torch.cat(of_parts, 1))
