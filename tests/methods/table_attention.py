"""The methods of attention's part of the table: replicas, the settings to test them under, and closed forms."""

from __future__ import annotations

import replicas_attention
import torch
from method_case import cases
from torch import nn

# For inputs (N, 3, 13, 11) of `subjects.Small`, which attends in their tests.
ATTENTION_CASES = [
    *cases("AttentionRollout", replicas_attention.rollout, {}, {"resolution": "native"}),
    *cases("GradientAttentionRollout", replicas_attention.gradient_rollout, {}, {"resolution": "native"}),
    *cases("AttnLRP", replicas_attention.attn_lrp, {}, {"layer": "stem_norm"}),
    *cases("LeGrad", replicas_attention.legrad, {}, {"blocks": 1}, {"resolution": "native"}),
]


class Weighing(nn.Module):
    """Every pixel is a token, and all look alike at token j by p_j = softmax(u x_j); the scores are Σ_j p_j W x_j."""

    def __init__(self, classes=4):
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        self.weight = nn.Parameter(torch.randn(classes, 3, generator=generator))
        self.strength = nn.Parameter(torch.randn(3, generator=generator))

    def parts(self, x):
        tokens = x.flatten(2).mT
        return (tokens @ self.strength).softmax(1), tokens @ self.weight.T

    def forward(self, x):
        tokens = x.flatten(2).mT
        logits = (tokens @ self.strength)[:, None, None].expand(-1, 1, tokens.shape[1], -1)
        return (logits.softmax(-1) @ (tokens @ self.weight.T)[:, None])[:, 0].mean(1)


def _weighed(formula):
    def made(inputs, target):
        model = Weighing()
        shares, scores = (part.detach() for part in model.parts(inputs))
        return model, {}, formula(shares, scores[:, :, target]).view(-1, 1, *inputs.shape[2:])

    return made


def _relevant(inputs, target):
    """Half of p_j s_j is the values', and half the probabilities', whose share a softmax keeps but for differences."""
    model = Weighing()
    shares, scores = (part.detach() for part in model.parts(inputs))
    own = scores[:, :, target]
    rising = own - (shares * own).sum(1, keepdim=True)
    slope = model.weight[target].detach() + rising[:, :, None] * model.strength.detach()
    return model, {}, 0.5 * inputs * (shares[:, :, None] * slope).mT.unflatten(2, inputs.shape[2:])


ATTENTION_CLOSED_FORMS = {
    "AttnLRP": _relevant,
    "AttentionRollout": _weighed(lambda p, s: 0.5 * p + 0.5 / p.shape[1]),
    "GradientAttentionRollout": _weighed(lambda p, s: (p * s).clamp_min(0) / p.shape[1]),
    "LeGrad": _weighed(lambda p, s: s.clamp_min(0) / p.shape[1]),
}
