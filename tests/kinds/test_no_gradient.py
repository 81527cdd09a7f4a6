"""Where no gradient reaches the input, every gradient method says so; a map of zeros would be a lie."""

from __future__ import annotations

import warnings

import pytest
import torch
from forwards import INPUTS, Forward, network
from torch import nn
from torch.nn import functional as F

import xai_fast as xf


class LeadsNothingBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.relu()

    @staticmethod
    def backward(ctx, gradient):
        return None


def cut(function):
    """`function` between the mean over positions and the classes."""
    return Forward(lambda self, x: self.n[3:](function(self.n[:3](x))), n=network())


def without_gradient(mode):
    def forward(self, x):
        with mode():
            features = self.n[:3](x)
        return self.n[3:](features.clone())

    return Forward(forward, n=network())


def quantised():
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 4)), {nn.Linear})


CUT = {
    "detach": lambda: cut(lambda z: z.detach()),
    "data": lambda: cut(lambda z: z.data),
    "round": lambda: cut(lambda z: torch.round(8 * z)),
    "floor": lambda: cut(torch.floor),
    "sign": lambda: cut(torch.sign),
    "floor division": lambda: cut(lambda z: torch.div(z, 0.1, rounding_mode="floor")),
    "integers": lambda: cut(lambda z: (100 * z).int().float()),
    "no_grad": lambda: without_gradient(torch.no_grad),
    "inference_mode": lambda: without_gradient(torch.inference_mode),
    "a function without a backward": lambda: cut(LeadsNothingBack.apply),
    "argmax": lambda: Forward(lambda self, x: F.one_hot(self.n(x).argmax(1), 4).float(), n=network()),
    "comparison": lambda: Forward(lambda self, x: (self.n(x) > 0).float(), n=network()),
    "buckets": lambda: Forward(
        lambda self, x: self.e(torch.bucketize(x.mean((1, 2, 3)), torch.linspace(-1, 1, 9))), e=nn.Embedding(10, 4)
    ),
    "numpy": lambda: Forward(lambda self, x: self.n(torch.from_numpy(1.0 * x.detach().numpy())), n=network()),
    "dynamic quantisation": quantised,
}
METHODS = {
    "Saliency": xf.Saliency,
    "InputXGradient": xf.InputXGradient,
    "IntegratedGradients": lambda model: xf.IntegratedGradients(model, n_steps=3),
    "SmoothGrad": lambda model: xf.SmoothGrad(model, n_samples=2),
    "GradientShap": lambda model: xf.GradientShap(model, baselines=torch.zeros(1, 3, 16, 16), n_samples=2),
    "GuidedBackprop": xf.GuidedBackprop,
    "Deconvolution": xf.Deconvolution,
    "ErrorAttribution": lambda model: xf.ErrorAttribution(model, kind="gradient"),
}


@pytest.mark.parametrize("name", CUT)
@pytest.mark.filterwarnings("ignore:rows of a batch", "ignore:no ReLU ran", "ignore::DeprecationWarning")
def test_every_gradient_method_says_that_no_gradient_arrives(name):
    model = CUT[name]().eval()
    for make in METHODS.values():
        with pytest.raises(ValueError, match=r"`target` does not depend differentiably .* such as Occlusion or RISE"):
            make(model).attribute(INPUTS, target=torch.tensor([1, 2]))


@pytest.mark.parametrize("name", ["detach", "no_grad", "round", "a function without a backward"])
@pytest.mark.filterwarnings("ignore:rows of a batch")
def test_a_layer_before_a_cut_is_named(name):
    model = CUT[name]().eval()
    with pytest.raises(ValueError, match=r"does not depend differentiably on (layer 'n.0'|the input or layer)"):
        xf.GradCAM(model, layer="n.0").attribute(INPUTS, target=1)


def test_a_layer_that_the_score_does_not_read_is_named():
    model = Forward(lambda self, x: (self.n(x), self.side(x)), n=network(), side=nn.Conv2d(3, 4, 3)).eval()
    with pytest.raises(ValueError, match="layer 'side'"):
        xf.GradCAM(model, layer=["n.0", "side"]).attribute(INPUTS, target=lambda output: output[0][:, 1])


def test_a_network_that_does_not_answer_gives_zeros():
    """All of its ReLUs are dead: the gradient is zero, and there is one."""
    model = network()
    nn.init.constant_(model[0].bias, -100.0)
    assert not xf.Saliency(model).attribute(INPUTS, target=1).any()
    assert not xf.GuidedBackprop(model).attribute(INPUTS, target=1).any()


def test_scores_are_asked_all_the_same():
    model = CUT["detach"]().eval()
    values = xf.Occlusion(model, window=8).attribute(INPUTS, target=1)
    with torch.no_grad():
        hidden = INPUTS.clone()
        hidden[:, :, :8, :8] = 0
        fall = (model(INPUTS) - model(hidden))[:, 1]
    torch.testing.assert_close(values[:, 0, 0, 0], fall, rtol=1e-4, atol=1e-6)


def test_a_layer_behind_a_cut_has_its_map():
    model = Forward(lambda self, x: self.n(self.first(x).detach()), first=nn.Conv2d(3, 3, 3), n=network()).eval()
    found = xf.GradCAM(model, layer="n.1").attribute(INPUTS, target=1, resolution="native")
    with torch.no_grad():
        activation = model.n[:2](model.first(INPUTS))
    weight = model.n[4].weight[1].detach() / activation[0, 0].numel()
    torch.testing.assert_close(found[:, 0], F.relu(torch.einsum("nchw,c->nhw", activation, weight)))
