"""Forwards that are hard to trace: captured and right, or refused; and nothing that other threads run is disturbed."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import pytest
import torch
from forwards import Forward, StraightThrough
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

import xai_fast as xf
from xai_fast.core.prepare import prepare
from xai_fast.core.verify import difference, observe
from xai_fast.graph.capture import CaptureError, trace


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conv():
    layer = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        layer.weight.copy_(draw(4, 3, 3, 3))
    return layer


class Pair(NamedTuple):
    low: torch.Tensor
    high: torch.Tensor


class Ends(nn.Module):
    def forward(self, ordered):
        return Pair(ordered.values[:, 0], ordered.values[:, -1])


def checked(self, x):
    if x.shape[1] != 3 or x.ndim != 4:
        raise ValueError(f"three channels, not {x.shape}")
    return self.a(x)


def of_rows_and_sizes(self, x):
    n, _, h, w = x.shape
    mask = torch.zeros(h, w)
    mask[: h // 2] = 1
    return x * self.p.expand(n, -1, -1, -1) + torch.zeros((n, 3, 1, 1)) + torch.arange(w, dtype=x.dtype) * mask


def unpacked(self, x):
    n, *rest = x.shape
    for part in x.chunk(3, 1):
        last = part
    return x.new_zeros(n, 2) + last.mean((2, 3)) + len(rest)


def cached(self, x):
    key = (x.shape[2], str(x.device))
    if key not in self.cache:
        self.cache[key] = self.bias[:, self.index]
    return x.mean((2, 3)) + self.cache[key]


def written(self, x):
    y = x * 2
    y[:, 0] = x[:, 1]
    return y.mean((2, 3))


def without_gradient(self, x):
    with torch.no_grad():
        y = self.a(x)
    return self.a(x) + y


def sized(self, x):
    n = x.shape[0]
    return self.q[:n].sum(0) + x.mean((2, 3)) if x.numel() else x


CAPTURED = {
    "a check of the shape": Forward(checked, a=conv()),
    "sizes and rows": Forward(of_rows_and_sizes, p=nn.Parameter(draw(1, 3, 1, 1))),
    "unpacking": Forward(unpacked),
    "writes in place": Forward(written),
    "no_grad": Forward(without_gradient, a=conv()),
    "a function with a backward of its own": Forward(lambda s, x: s.a(StraightThrough.apply(x)), a=conv()),
    "rows of a constant": Forward(sized, q=nn.Parameter(draw(4, 3))),
    "a product of sizes": Forward(lambda s, x: x.flatten(1) * float(np.prod(x.shape[1:]))),
    "a list of parameters": Forward(
        lambda s, x: x * s.p[1], p=nn.ParameterList([torch.ones(1), torch.full((1,), 3.0)])
    ),
    "a forward called directly": Forward(lambda s, x: s.a.forward(x), a=conv()),
    "a scripted part": Forward(lambda s, x: s.a(x), a=torch.jit.script(conv())),
    "a module with two names": Forward(lambda s, x: s.a(x) + s.b(x), **dict.fromkeys("ab", conv())),
    "branches on weights": Forward(lambda s, x: x * 2 if s.g > 0 else -x, g=nn.Parameter(torch.tensor(2.0))),
    "sizes that are computed": Forward(
        lambda s, x: functional.interpolate(x, size=(int(x.shape[2] * 1.5), round(x.shape[3] / 2))).flatten(1)
    ),
    "parts that have names": Forward(
        lambda s, x: x.max(dim=1).values + s.a(x.sort(1)).low * x.aminmax(dim=1).max + x.topk(2, 1).values[:, 1],
        a=Ends(),
    ),
    "nested outputs": Forward(lambda s, x: {"a": s.a(x), "b": [x.mean(1), 3]}, a=conv()),
    "modules that do nothing in a row": nn.Sequential(
        conv(), nn.Dropout(), nn.Identity(), nn.Dropout2d(), nn.ReLU(), nn.Identity(), nn.Identity()
    ),
}
REFUSED = {
    "branches on data": Forward(lambda s, x: x if x.sum() > 0 else -x),
    "numbers taken from data": Forward(lambda s, x: x * int(x.argmax())),
    "branches on rows": Forward(lambda s, x: x.squeeze() if len(x) > 1 else x),
    "a loop over rows": Forward(lambda s, x: torch.stack([x[i] * 2 for i in range(x.shape[0])])),
    "numpy": Forward(lambda s, x: torch.from_numpy(x.numpy()) * 2),
    "hooks of tensors": Forward(lambda s, x: (x * 2).register_hook(lambda g: -g)),
}


def tensors(output):
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("kind", CAPTURED)
def test_what_is_traced_gives_the_same_for_any_number_of_rows(kind):
    model, inputs = CAPTURED[kind].eval().requires_grad_(False), draw(2, 3, 16, 12)
    state = {path: dict(vars(module)) for path, module in model.named_modules()}
    graph = trace(model, frozenset(), inputs)
    assert all(vars(module) == state[path] for path, module in model.named_modules())
    for answers, rows in zip(graph.record(inputs), (inputs[:1], inputs), strict=True):
        for answer, truth in zip(tensors(answers), tensors(model(rows)), strict=True):
            torch.testing.assert_close(answer, truth)
    assert graph.gradient_gaps == (kind in ("no_grad", "a function with a backward of its own"))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_depends_on_data_or_rows_is_refused(kind):
    with pytest.raises(CaptureError):
        trace(REFUSED[kind].eval(), frozenset(), draw(2, 3, 16, 12))


def prepared_for(model, inputs):
    return prepare(model.eval(), frozenset(), fast=False, compiled=False, example=inputs[:1])


def test_modules_that_do_nothing_do_not_cost_the_capture():
    model = nn.Sequential(*CAPTURED["modules that do nothing in a row"], nn.Flatten(), nn.Linear(4 * 140, 2))
    prepared = prepared_for(model, draw(1, 3, 16, 12))
    assert prepared.captured, prepared.resists
    (captured,) = prepared.captured.values()
    assert not {step.operation for step in captured.graph.steps} & {"identity", "dropout"}


def test_what_a_forward_keeps_once_does_not_cost_the_capture():
    model = Forward(cached, bias=nn.Parameter(draw(1, 3)), index=torch.tensor([2, 0, 1]), cache={})
    prepared = prepared_for(model, draw(1, 3, 16, 12))
    assert prepared.captured, prepared.resists
    assert not model.cache


def reference_kept(self, x):
    if self.first is None:
        self.first = x.mean((2, 3))
    return x.mean((2, 3)) - self.first


def counted(self, x):
    self.count += 1
    return x.mean((2, 3))


@pytest.mark.parametrize(
    ("model", "name"),
    [(Forward(reference_kept, first=None), "first"), (Forward(counted, count=0), "count")],
    ids=["of the first input", "every time"],
)
def test_what_a_forward_keeps_of_its_inputs_does(model, name):
    prepared = prepared_for(model, draw(1, 3, 16, 12))
    assert not prepared.captured
    assert prepared.resists == f"its forward changes `{name}`"


def test_a_buffer_that_the_forward_changes_is_noticed():
    model = Forward(counted)
    model.register_buffer("count", torch.zeros(()))
    assert prepared_for(model, draw(1, 3, 16, 12)).resists == "its forward changes `count`"


@pytest.mark.parametrize("kind", ["a check of the shape", "branches on data"])
def test_forwards_of_other_threads_go_on_while_a_model_is_prepared(kind):
    def make():
        body = {**CAPTURED, **REFUSED}[kind]
        return nn.Sequential(body, nn.Flatten(), nn.LazyLinear(3)).eval()

    inputs, other = draw(1, 3, 12, 12), nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU()).eval()
    truth, failures, stop = other(inputs), [], threading.Event()

    def work():
        while not stop.is_set():
            try:
                answer = other(inputs)
                if not torch.equal(answer, truth):
                    failures.append("another answer")
            except Exception as error:
                failures.append(repr(error))

    model = make()
    model(inputs)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            prepared_for(model, inputs)
    finally:
        stop.set()
        thread.join()
    assert not failures, failures[0]


def test_what_cannot_be_captured_says_nothing_on_the_standard_streams(capfd):
    model = nn.Sequential(REFUSED["branches on data"], conv(), nn.Flatten(), nn.Linear(400, 2)).eval()
    xf.Saliency(model).attribute(draw(1, 3, 12, 12), 1)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_rounds_its_own_output_far_is_judged_by_float64():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(64)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    norm.running_var.uniform_(0.5, 1.5)
    body = nn.Sequential(nn.Conv2d(3, 64, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = Forward(lambda s, x: s.body(x) + 3000.0 - 3000.0, body=body).eval()  # a rounding of a thousandth
    prepared = prepared_for(model, draw(1, 3, 16, 12))
    assert prepared.folded == 1
    assert prepared.captured, prepared.resists
    assert not prepared.alone
    seen = observe(model, [draw(1, 3, 16, 12)])
    near = seen.outputs[0] + 2.5e-4
    assert difference(seen.outputs[0], near, torch.float32) is not None
    assert seen.differs(0, near, torch.float32) is None
    assert seen.differs(0, seen.outputs[0] + 0.01, torch.float32) is not None  # more than rounding


@pytest.mark.parametrize("container", [dict, list, tuple])
def test_what_an_earlier_forward_has_kept_is_copied(container):
    """Caches of attention biases hold tensors with a history, which plain deep copies refuse."""

    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
            self.bias, self.cache = nn.Parameter(torch.randn(4)), container()

        def forward(self, x):
            if not self.cache:
                kept = self.bias.exp()
                self.cache = {"bias": kept} if container is dict else container([kept])
            bias = self.cache["bias"] if container is dict else self.cache[0]
            return self.head(torch.relu(self.conv(x) + bias[:, None, None]).mean((2, 3)))

    model, x = Caching().double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    model(x)
    seen = x.clone().requires_grad_()
    model(seen)[:, 1].sum().backward()
    engine = xf.Engine(model)
    method = xf.Saliency(engine, absolute=False)
    torch.testing.assert_close(method.attribute(x, 1), seen.grad, rtol=1e-10, atol=1e-14)
    assert "model: own copy" in engine.explain_plan(method, x)
