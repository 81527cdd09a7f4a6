"""Models of which `torch.compile` has seen a part: right, silent, and with what the caller has compiled left to it."""

import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

import xai_fast as xf

INPUTS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def counting(compiled):
    """A backend that notes what it is given, and runs it as it is."""

    def backend(graph, _inputs):
        compiled.append(graph)
        return graph.forward

    return backend


class Held(nn.Module):
    """Holds one of its own methods, compiled, and has another that its class compiles."""

    def __init__(self, backend):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)
        self.middle = torch.compile(self.between, backend=backend)

    def between(self, x):
        return self.second(x.relu()).relu()

    def forward(self, x):
        return self.head(self.middle(self.first(x)).mean((2, 3)))


def decorated(backend):
    class Decorated(Held):
        @torch.compile(backend=backend)
        def forward(self, x):
            return self.head(self.between(self.first(x)).mean((2, 3)))

    return Decorated(backend)


def parts(backend):
    layers = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*(torch.compile(part, backend=backend) for part in (*layers, nn.Linear(8, 5))))


def in_place(backend):
    net = Held("eager")
    net.second.compile(backend=backend)
    return net


KINDS = {
    "parts": (parts, "2._orig_mod"),
    "a method that it holds": (Held, "second"),
    "a method of its class": (decorated, "second"),
    "in place": (in_place, "second"),
    "whole": (lambda backend: torch.compile(Held("eager"), backend=backend), "second"),
}


@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace")
@pytest.mark.parametrize("prepare", [True, "auto"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_copy_runs_uncompiled_and_is_right(kind, prepare):
    """Layers that are looked at are the copy's, and nothing is compiled for variants of other sizes."""
    make, layer = KINDS[kind]
    compiled = []
    torch.manual_seed(0)
    net = make(counting(compiled)).eval()
    compare(net, layer, xf.Engine(net, prepare=prepare))
    assert not compiled


@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace")
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_cannot_be_copied_runs_uncompiled_and_keeps_what_it_has(kind):
    """What was compiled before hooks of ours were there would not call them."""
    make, layer = KINDS[kind]
    compiled = []
    torch.manual_seed(0)
    net = make(counting(compiled)).eval()
    for module in net.modules():
        module.lock = threading.Lock()
    before = net(INPUTS)
    graphs, held = len(compiled), [dict(vars(module)) for module in net.modules()]
    assert graphs or kind == "in place"  # where what is around it was compiled with it
    compare(net, layer, xf.Engine(net))
    falls = xf.AblationCAM(net, layer=layer).attribute(INPUTS, 1)
    assert falls.isfinite().all()
    assert len(compiled) == graphs
    for module, attributes in zip(net.modules(), held, strict=True):
        now = vars(module)
        assert now.keys() == attributes.keys()
        assert all(now[name] is value for name, value in attributes.items() if callable(value))
    assert torch.equal(net(INPUTS), before)
    assert len(compiled) == graphs


def compare(net, layer, engine):
    found = xf.GradCAM(engine, layer=layer).attribute(INPUTS, 1, resolution="native")
    gradient = xf.Saliency(engine, absolute=False).attribute(INPUTS, 1)
    kept = []
    handle = net.get_submodule(layer).register_forward_hook(lambda _part, _args, output: kept.append(output))
    x = INPUTS.clone().requires_grad_()
    with torch.compiler.set_stance("force_eager"):
        score = net(x)[:, 1].sum()
    handle.remove()
    slope, truth = torch.autograd.grad(score, (kept[0], x))
    cam = torch.einsum("nk,nk...->n...", slope.mean((2, 3)), kept[0]).relu()[:, None]
    torch.testing.assert_close(found, cam.detach(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(gradient, truth, rtol=1e-4, atol=1e-7)


SCRIPT = """
import torch
from torch import nn
import xai_fast as xf

@torch.compile(backend="eager")
def shared(values, by):
    values = values.relu()
    torch._dynamo.graph_break()
    return values * by

class Calls(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(8 if at else 3, 8, 3, padding=1) for at in range(5))
        self.head = nn.Linear(8, 5)
    def forward(self, x):
        for layer in self.layers:
            x = shared(layer(x), 1.0)
        return self.head(x.mean((2, 3)))

layers = nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
parts = nn.Sequential(*(torch.compile(part, backend="eager") for part in (*layers, nn.Linear(8, 5))))
x = torch.randn(2, 3, 16, 16)
for net in (parts.eval(), Calls().eval()):
    for method in (xf.GradCAM(net), xf.Saliency(net), xf.Occlusion(net, window=4, stride=4), xf.ScoreCAM(net)):
        method.attribute(x, 1)
"""


def test_nothing_of_torchs_reaches_stderr():
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
