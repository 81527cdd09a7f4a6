"""Architectures that are hard to follow: maps against the plain model in float64, row by row."""

import warnings
from functools import cache

import architectures
import pytest
import torch
from architectures import MEMBERS
from forwards import by_rows

import xai_fast as xf

INPUTS = torch.randn(3, 3, architectures.SIZE, architectures.SIZE, generator=torch.Generator().manual_seed(5))
TARGET = 2
# Sums of integers whatever the dtype, rows that have to be float32, a compiler that knows no second dtype.
_AS_IT_IS = {"int8", "nested", "compiled_method"}


def built(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return MEMBERS[name]().eval()


def plain_score(model):
    return lambda x: model(x)[:, TARGET].detach()


def plain_gradient(model):
    def of_row(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(model(x)[:, TARGET].sum(), x)[0].detach()

    return of_row


def plain_path(model):
    def of_row(x):
        nodes = [(k + 0.5) / 4 for k in range(4)]
        return x * sum(plain_gradient(model)(share * x) for share in nodes) / 4

    return of_row


def plain_occlusion(model):
    def of_row(x):
        found, score = torch.zeros_like(x[:, :1]), plain_score(model)
        clean = score(x)
        for top in range(0, architectures.SIZE, 4):
            for left in range(0, architectures.SIZE, 4):
                hidden = x.clone()
                hidden[..., top : top + 4, left : left + 4] = 0
                found[..., top : top + 4, left : left + 4] = clean - score(hidden)
        return found

    return of_row


METHODS = {
    "scores": (lambda engine, x: engine.scores(x, TARGET), plain_score),
    "Saliency": (lambda engine, x: xf.Saliency(engine, absolute=False).attribute(x, TARGET), plain_gradient),
    "IntegratedGradients": (
        lambda engine, x: xf.IntegratedGradients(engine, n_steps=4, quadrature="middle").attribute(x, TARGET),
        plain_path,
    ),
    "Occlusion": (lambda engine, x: xf.Occlusion(engine, window=4, stride=4).attribute(x, TARGET), plain_occlusion),
}


@cache
def plain(name, method):
    """What the plain model says by rows, in its own dtype and in float64."""
    of = METHODS[method][1]
    single = by_rows(of(built(name)), INPUTS).double()
    return single, single if name in _AS_IT_IS else by_rows(of(built(name).double()), INPUTS.double())


@pytest.mark.parametrize("prepare", [True, "auto"], ids=["prepared", "first call"])
@pytest.mark.parametrize("name", MEMBERS)
def test_maps_are_those_of_the_plain_model(name, prepare):
    if name == "deformable":
        pytest.importorskip("torchvision.ops")
    net = built(name)
    before = {key: value.clone() for key, value in net.state_dict().items() if isinstance(value, torch.Tensor)}
    engine = xf.Engine(net, prepare=prepare)
    for method, (ours, _) in METHODS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = ours(engine, INPUTS)
            except ValueError as error:  # in words, and then the plain model has no gradient either
                if method not in ("Saliency", "IntegratedGradients") or "gradient" not in str(error):
                    raise
                with pytest.raises(RuntimeError):
                    by_rows(plain_gradient(built(name)), INPUTS)
                continue
            single, truth = plain(name, method)
        scale = truth.abs().max()
        assert scale > 0
        own = float((found.double() - truth).abs().max() / scale)
        assert own <= max(4 * float((single - truth).abs().max() / scale), 2e-5), (method, own)
    for key, value in net.state_dict().items():  # the caller's is left as found
        if isinstance(value, torch.Tensor):
            assert torch.equal(value.to_dense(), before[key].to_dense()), key
