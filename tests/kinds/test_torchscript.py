"""TorchScript modules, however they were made, are explained as callables; what looks at a layer says what to do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import xai_fast as xf


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(8 * 100, 4)).eval()


def inputs():
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


FORMS = {
    "scripted": torch.jit.script,
    "traced": lambda model: torch.jit.trace(model, inputs()),
    "frozen": lambda model: torch.jit.freeze(torch.jit.script(model)),
    "in training mode": lambda model: torch.jit.script(model.train()),
}
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")


@pytest.mark.parametrize("form", FORMS)
def test_script_is_explained_as_the_module_it_was_made_from(form):
    script, point = FORMS[form](network()), inputs().double().requires_grad_()
    (truth,) = torch.autograd.grad(copy.deepcopy(network()).double()(point)[:, 1].sum(), point)
    saliency = xf.Saliency(script, absolute=False).attribute(inputs(), 1)
    assert (saliency - truth).abs().max() <= 1e-5 * truth.abs().max()
    exact = xf.Occlusion(xf.Engine(network().double(), plan="dense"), window=4).attribute(inputs().double(), 1)
    found = xf.Occlusion(script, window=4).attribute(inputs(), 1)
    assert (found - exact).abs().max() <= 1e-5 * exact.abs().max()
    assert "it is TorchScript" in xf.Engine(script).explain_plan(xf.Occlusion(script, window=4), inputs())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layer", ["auto", "0"])
def test_layers_of_script_are_refused_in_words(form, layer):
    with pytest.raises(ValueError, match=r"`layer` cannot be looked at inside TorchScript.*give the Python module"):
        xf.GradCAM(FORMS[form](network()), layer=layer).attribute(inputs(), 1)
