"""Others in the same process: what threads draw stays drawn, one call at a time per model, and forks go on."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import xai_fast as xf
from xai_fast.engine import tiers

INPUTS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def net():
    """Made without the global generators, from which other threads draw here."""
    generator = torch.Generator().manual_seed(0)
    layers = torch.nn.utils.skip_init(nn.Conv2d, 3, 8, 3), torch.nn.utils.skip_init(nn.Linear, 32, 4)
    for parameter in (p for layer in layers for p in layer.parameters()):
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return nn.Sequential(layers[0], nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), layers[1]).eval()


def gradient(model, inputs, target=1):
    leaf = inputs.double().requires_grad_()
    return torch.autograd.grad(model.double()(leaf)[:, target].sum(), leaf)[0]


def near(actual, expected, bound=1e-5):
    assert (actual.double() - expected).abs().max() <= bound * expected.abs().max()


DRAWS = {"torch": lambda: torch.rand(1, dtype=torch.float64).item(), "numpy": np.random.rand, "python": random.random}


class Drawing(nn.Module):
    """Draws in its forward, and answers as without."""

    def __init__(self, draw):
        super().__init__()
        self.net, self.draw = net(), draw

    def forward(self, x):
        return self.net(x) + 0 * self.draw()


@pytest.fixture
def others():
    """Another thread that draws from every generator; yields what it drew."""
    drawn, stop = {name: [] for name in DRAWS}, threading.Event()

    def work():
        while not stop.wait(1e-3):
            for name, draw in DRAWS.items():
                drawn[name].append(draw())

    thread = threading.Thread(target=work)
    thread.start()
    yield drawn
    stop.set()
    thread.join()


def enough(drawn):
    until = time.monotonic() + 5
    while len(drawn["torch"]) < 20 and time.monotonic() < until:
        time.sleep(1e-3)


KINDS = {"captured": lambda: net(), "callable": lambda: (lambda model: lambda x: model(x))(net())}
QUIET = {
    "attention without dropout": lambda: nn.functional.scaled_dot_product_attention(
        *[torch.ones(1, 1, 2, 2)] * 3
    ).sum(),
    "a generator of its own": lambda: torch.rand(1, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize(
    "model", [*KINDS.values(), *(lambda f=f: Drawing(f) for f in QUIET.values())], ids=[*KINDS, *QUIET]
)
def test_what_another_thread_draws_is_not_drawn_twice(others, model):
    for _ in range(2):
        xf.Saliency(model()).attribute(INPUTS, target=1)
    enough(others)
    for name, drawn in others.items():
        assert len(set(drawn)) == len(drawn), f"{len(drawn) - len(set(drawn))} draws of {name} came twice"


class Meanwhile(nn.Module):
    """Something draws while it runs, and more than one thread does: whether it was this forward takes another one."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        torch.rand(1)
        return self.net(x)


@pytest.mark.parametrize("tier", ["plain", "prepared"])
@pytest.mark.parametrize("method", [xf.GradCAM, xf.EigenCAM, xf.Saliency])
def test_a_forward_that_is_repeated_counts_once(others, method, tier):
    """A layer that runs once is no layer that runs more than once."""
    model, settings = Meanwhile().eval(), {} if method is xf.Saliency else {"layer": "net.0"}
    with tiers.assuming(tier):
        found = method(xf.Engine(model), **settings).attribute(INPUTS, target=1)
        near(found, method(xf.Engine(model.net), **(settings and {"layer": "0"})).attribute(INPUTS, target=1).double())


@pytest.mark.parametrize("plain", [False, True], ids=["module", "callable"])
@pytest.mark.parametrize("name", DRAWS)
def test_a_model_that_draws_leaves_the_generator_as_found(name, plain):
    """Also beside another thread that lives but draws nothing."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        model = Drawing(DRAWS[name])
        method = xf.Saliency((lambda x: model(x)) if plain else model, absolute=False)
        before = torch.get_rng_state(), np.random.get_state()[1:3], random.getstate()
        for _ in range(2):  # the call that prepares, and a later one
            actual = method.attribute(INPUTS, target=1)
            after = torch.get_rng_state(), np.random.get_state()[1:3], random.getstate()
            assert torch.equal(before[0], after[0])
            assert before[1][0].tolist() == after[1][0].tolist()
            assert before[1][1] == after[1][1]
            assert before[2] == after[2]
    finally:
        done.set()
        thread.join()
    near(actual, gradient(net(), INPUTS))


@pytest.mark.parametrize("lock", [False, True], ids=["copied", "uncopyable"])
def test_one_model_in_many_threads(lock):
    """Engines of their own or a shared one, prepared at the same time, hooks and kept activations and all."""
    model, expected = net(), gradient(net(), INPUTS)
    layer = xf.GradCAM(net(), layer="1").attribute(INPUTS, target=1)
    if lock:
        model.lock = threading.Lock()
    shared = xf.Engine(model)
    start = threading.Barrier(4)

    def work(number):
        engine = shared if number % 2 else xf.Engine(model)
        start.wait()
        found = []
        for _ in range(3):
            found.append(xf.Saliency(engine, absolute=False).attribute(INPUTS, target=1))
            found.append(xf.GradCAM(engine, layer="1").attribute(INPUTS, target=1))
        return found

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(4)):
            for map_ in found[::2]:
                near(map_, expected)
            for map_ in found[1::2]:
                near(map_, layer.double())
    assert not any(module.training for module in model.modules())


def test_two_engines_of_what_cannot_be_copied_take_turns():
    running, most = 0, 0

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.lock = net(), threading.Lock()

        def forward(self, x):
            nonlocal running, most
            running += 1
            most = max(most, running)
            time.sleep(1e-3)
            running -= 1
            return self.net(x)

    model = Counts()
    callables = [model, nn.DataParallel(model), model.forward]
    engines = [xf.Engine(m) for m in callables * 2]
    with ThreadPoolExecutor(len(engines)) as pool:
        list(pool.map(lambda engine: xf.Occlusion(engine, window=8).attribute(INPUTS, target=1), engines))
    assert most == 1


def test_engine_of_is_one_for_all_threads():
    model = net()
    with ThreadPoolExecutor(8) as pool:
        engines = list(pool.map(lambda _: xf.Engine.of(model), range(32)))
    assert all(engine is engines[0] for engine in engines)


def test_deterministic_mode_ends_with_the_last_call_that_wants_it():
    inside, go, seen = threading.Event(), threading.Event(), []

    def first(x):
        inside.set()
        go.wait(5)
        seen.append(torch.are_deterministic_algorithms_enabled())
        return x.mean((2, 3))

    thread = threading.Thread(target=lambda: xf.Occlusion(xf.Engine(first, deterministic=True), window=16)(INPUTS, 1))
    thread.start()
    inside.wait(5)
    xf.Occlusion(xf.Engine(lambda x: x.mean((2, 3)), deterministic=True), window=16)(INPUTS, 1)
    go.set()
    thread.join()
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()


def forked(call, seconds=20.0):
    """Runs `call` in a fork; whether it returned True there, in time."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if call() else 2
        finally:
            os._exit(code)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_goes_on_where_the_parent_was():
    """With what was prepared, on another thread count than the parent's, whose threads are not there."""
    inputs = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    model, threads = net(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        methods = [xf.Saliency(model, absolute=False), xf.Occlusion(model, window=16), xf.GradCAM(model, layer="1")]
        expected = [method.attribute(inputs, target=1) for method in methods]

        def child():
            maps = [method.attribute(inputs, target=1) for method in methods]
            return all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(maps, expected, strict=True))

        assert forked(child)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_has_its_turn():
    """That thread and its lock are not there, nor what it was about to do to the copy."""
    model, expected = net(), gradient(net(), INPUTS)
    inside, go = threading.Event(), threading.Event()
    engine = xf.Engine(model, output=lambda raw: (inside.set(), go.wait(30), raw)[2])
    method = xf.Saliency(model, absolute=False)
    method.attribute(INPUTS, target=1)
    thread = threading.Thread(target=lambda: xf.Saliency(engine).attribute(INPUTS, target=1))
    thread.start()
    inside.wait(10)
    try:
        actual = []
        assert forked(lambda: actual.append(method.attribute(INPUTS, target=1)) or near(actual[0], expected) is None)
    finally:
        go.set()
        thread.join()
