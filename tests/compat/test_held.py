"""Torch modules in functions that a library asks: the engine answers for them, and everything stays as it was."""

from __future__ import annotations

import copy
import functools
import threading

import numpy as np
import pytest
import torch
from subjects import Small, model_state, signals
from torch import nn

from xai_fast.compat.calls import Uncovered
from xai_fast.compat.held import answering


def around(model, **how):
    """A function from arrays to arrays around a model, as tutorials write them."""

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.set_grad_enabled(how.get("graph", False)):
            return model(torch.from_numpy(images)).softmax(1).detach().numpy()

    return predict


IMAGES = signals(5).numpy()


class Holder:
    """Keeps its model as an attribute."""

    def __init__(self, model):
        self.model = model

    def __call__(self, images):
        return around(self.model)(images)

    def predict(self, images):
        return around(self.model)(images)

    def first(self, images):
        return around(self.model[0])(images)


def within(model):
    def inner(images):
        return around(model)(images)

    def outer(images):
        return np.concatenate([inner(images)])

    return outer


class ByGlobal:
    """Its code names a global of this module."""

    def __call__(self, images):
        return around(PLACE["model"])(images)


def by_object(holder):
    return lambda images: holder.predict(images)


PLACE = {}


def by_global(model):
    PLACE["model"] = model
    return ByGlobal()


HELD = {
    "around it": around,
    "around what is around it": within,
    "in a global that its class names": by_global,
    "in a list": lambda model: Holder([model]).first,
    "in an object around it": lambda model: by_object(Holder(model)),
    "a named argument": lambda model: functools.partial(lambda images, held: around(held)(images), held=model),
    "with a graph": functools.partial(around, graph=True),
    "an argument": lambda model: functools.partial(lambda held, images: around(held)(images), model),
    "an attribute": Holder,
    "an attribute of what it is bound to": lambda model: Holder(model).predict,
}


@pytest.mark.parametrize("how", HELD)
def test_the_engine_answers(how):
    model = Small()
    function, before = HELD[how](model), model_state(model)
    truth = around(copy.deepcopy(model).double())(IMAGES.astype(np.float64))
    with answering(function) as found:
        ours = function(IMAGES)
    assert (found.rows, found.reason) == (5, "")
    assert np.abs(ours - truth).max() < 1e-6
    assert model_state(model) == before
    assert "forward" not in vars(model)


def test_another_network_is_not_answered_for():
    """What is not the held module itself runs as it is, with its own weights."""
    model, other = Small(), Small(seed=1)
    with answering(around(model)) as found:
        plain = around(other)(IMAGES)
    assert found.rows == 0
    assert np.array_equal(plain, around(other)(IMAGES))


def test_weights_that_change_meanwhile():
    model = Small()
    function = around(model)
    with answering(function):
        before = function(IMAGES)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
        after = function(IMAGES)
    assert np.abs(after - function(IMAGES)).max() < 1e-6
    assert np.abs(after - before).max() > 1e-3


def test_a_gradient_by_the_parameters():
    model, inputs = Small(), torch.from_numpy(IMAGES)

    def slope():
        return torch.autograd.grad(model(inputs).square().sum(), list(model.parameters()))

    def function():
        return model(inputs)

    plain = slope()
    with answering(function) as found:
        ours = slope()
    assert found.rows == 5
    for one, other in zip(plain, ours, strict=True):
        # Elements are sums that cancel.
        assert (one - other).abs().max() <= 1e-5 * one.abs().max()


@pytest.mark.parametrize(
    "ask",
    [
        lambda model, x: model(x.requires_grad_()).sum().backward() or x.grad,
        lambda model, x: model(x.long().float() * float("nan")),
        lambda model, x: model(x.flatten(1)[:, :3, None, None].expand(-1, -1, 11, 11).clone()),
    ],
    ids=["a gradient by the input", "not a number", "another shape"],
)
def test_what_is_not_served_the_module_answers(ask):
    model = Small()
    plain = ask(model, torch.from_numpy(IMAGES.copy()))
    with answering(around(model)):
        ours = ask(model, torch.from_numpy(IMAGES.copy()))
    torch.testing.assert_close(ours, plain, equal_nan=True)


def test_exceptions_are_the_models():
    model = Small()
    with answering(around(model)), pytest.raises(RuntimeError) as ours:
        model(torch.ones(1, 9, 11, 11))
    with pytest.raises(RuntimeError) as plain:
        model(torch.ones(1, 9, 11, 11))
    assert str(ours.value) == str(plain.value)
    assert "forward" not in vars(model)


def test_other_threads_run_the_module():
    model, counts = Small(), []
    with answering(around(model)) as found:
        thread = threading.Thread(target=lambda: counts.append((model(torch.from_numpy(IMAGES)), found.rows)))
        thread.start()
        thread.join()
    assert counts[0][1] == 0
    assert torch.equal(counts[0][0], model(torch.from_numpy(IMAGES)))


@pytest.mark.parametrize(
    "function",
    [np.mean, around(Small().train()), around(nn.Identity())],
    ids=["no module", "training mode", "nothing to prepare"],
)
def test_functions_without_such_a_module(function):
    with pytest.raises(Uncovered, match="no torch module in eval mode"), answering(function):
        pass
