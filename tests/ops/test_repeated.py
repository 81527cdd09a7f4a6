"""Calls of one kind are looked at once, and every other call as if it were the first."""

from __future__ import annotations

import pytest
import torch

from xai_fast import ops

pytestmark = pytest.mark.skipif(ops.register_panel() == 0, reason="no kernel of convolutions here")


class Marked(torch.Tensor):
    """A subclass of the user's."""


class Counted:
    """Minimal filtering of 32 channels, and how often the public function was asked."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(32, 32, 3, 3, generator=generator)
        self.kernels = ops.winograd_kernels(self.weight, ops.register_panel())
        self.asked = 0
        self.repeated = ops.Repeated(ops.all_ops()["winograd_convolution"], self._public)

    def _public(self, *args):
        self.asked += 1
        return ops.winograd_convolution(*args)

    def __call__(self, x, other=None, out=None, padding=1):
        if out is None:
            size = [extent + 2 * padding - 2 for extent in x.shape[2:]]
            out = maps(len(x), 32, *size) * float("nan")
        self.repeated((x, other), out, x, self.kernels, None, other, out, padding, False)
        return out

    def truth(self, x, other=None, padding=1):
        y = torch.nn.functional.conv2d(x.double(), self.weight.double(), padding=padding)
        return y if other is None else y + other.double()


def maps(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)


def assert_close(found, truth):
    torch.testing.assert_close(found.double(), truth, rtol=1e-5, atol=1e-4)


def test_calls_of_one_kind_are_looked_at_once():
    call = Counted()
    assert not call.repeated.knows(maps(2, 32, 6, 5))
    for seed in range(4):
        x, other = maps(2, 32, 6, 5, seed=seed), maps(2, 32, 6, 5, seed=9)
        assert_close(call(x, other), call.truth(x, other))
        assert call.asked == 1
        assert call.repeated.knows(x, other)
        assert call.repeated.knows(x)


@pytest.mark.parametrize("change", ["rows", "extents", "padding", "sum"])
def test_another_kind_is_looked_at_again(change):
    call, x = Counted(), maps(2, 32, 6, 5)
    call(x)
    x = maps(3, 32, 6, 5) if change == "rows" else maps(2, 32, 7, 5) if change == "extents" else x
    other, padding = (maps(2, 32, 6, 5) if change == "sum" else None), (0 if change == "padding" else 1)
    for _ in range(2):
        assert_close(call(x, other, padding=padding), call.truth(x, other, padding))
        assert call.asked == 2


UNUSUAL = {
    "negated": lambda x: torch._neg_view(-x),
    "zeros without memory": lambda x: torch._efficientzerotensor(x.shape),
    "a subclass": lambda x: x.as_subclass(Marked),
    "in another layout": lambda x: x.contiguous(),
    "every second position": lambda x: maps(2, 32, 6, 10)[..., ::2],
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_tensors_are_looked_at_every_time(name):
    call, x = Counted(), maps(2, 32, 6, 5)
    call(x)
    unusual = UNUSUAL[name](x)
    for times in (2, 3):
        found = call(unusual)
        assert_close(torch.Tensor(found), call.truth(torch.Tensor(unusual.clone().as_subclass(torch.Tensor))))
        assert call.asked == times
    assert not call.repeated.knows(unusual)


def test_a_sum_may_be_written_over_what_is_added():
    call, x = Counted(), maps(2, 32, 6, 5)
    for asked in (1, 1):
        other = maps(2, 32, 6, 5, seed=2)
        truth, version = call.truth(x, other), other._version
        assert call(x, other, out=other) is other
        assert_close(other, truth)
        assert other._version > version
        assert call.asked == asked


def test_what_is_convolved_is_never_written_over():
    """The kernel reads it while it writes."""
    call = Counted()
    call(maps(2, 32, 6, 5), maps(2, 32, 6, 5))
    for asked in (2, 3):
        x = maps(2, 32, 6, 5, seed=3)
        truth = call.truth(x, x)
        call(x, x, out=x)
        assert_close(x, truth)
        assert call.asked == asked


def test_a_backend_that_is_forced_runs():
    call, x = Counted(), maps(2, 32, 6, 5)
    call(x)
    with ops.using("reference"):
        assert not call.repeated.knows(x)
        assert_close(call(x), call.truth(x))
    assert call.asked == 2
    with ops.using("cpp"):
        call(x)
    assert call.asked == 2


def test_fewer_instructions_are_another_kind():
    call, x = Counted(), maps(2, 32, 6, 5)
    call(x)
    with ops.limited_to("baseline"):
        assert not call.repeated.knows(x)
        assert_close(call(x), call.truth(x))
    assert call.asked == 2
