"""The make-believe device itself: it refuses what CUDA refuses, allows what CUDA allows, and counts what goes over."""

from __future__ import annotations

import pytest
import torch
from make_believe_gpu import OnDevice, device, module_to_device, to_device
from torch import nn

from xai_fast.ops import all_ops

X = torch.arange(12.0).view(3, 4)

REFUSED = {
    "sum": lambda there, here: there + here,
    "product": lambda there, here: there @ here.T,
    "joined": lambda there, here: torch.cat([there, here]),
    "chosen": lambda there, here: torch.where(here > 0, there, there),
    "gathered": lambda there, here: there.gather(1, here.long().clamp(max=3)),
    "selected": lambda there, here: there.index_select(0, torch.tensor([0, 2])),
    "indexed from the device": lambda there, here: here[there.long().clamp(max=2)],
    "number where none may be": lambda there, here: torch.stack([there[0, 0], here[0, 0]]),
    "written over": lambda there, here: here.add_(there),
    "as an array": lambda there, here: there.numpy(),
}
ALLOWED = {
    "a number of the host": lambda there, here: there + here[0, 1],
    "a choice of one": lambda there, here: torch.where(there > 3, there, here[0, 0]),
    "a copy": lambda there, here: there.clone().copy_(here),
    "a row by a number": lambda there, here: there[1],
}
READS = {
    "a number": lambda there: there[0, 0].item(),
    "a truth value": lambda there: bool((there > 0).all()),
    "an index": lambda there: range(10)[there.long()[0, 1]],
    "a list": lambda there: there.tolist(),
    "a copy to the host": lambda there: there.cpu(),
    "another": lambda there: there.to("cpu"),
    "one over memory of the host": lambda there: torch.empty(3, 4).copy_(there),
    "positions": lambda there: there.nonzero(),
    "chosen by a mask": lambda there: there[there > 3],
    "distinct ones": lambda there: there.unique(),
    "distinct ones in a row": lambda there: there.flatten().unique_consecutive(),
    "counts": lambda there: torch.bincount(there.flatten().long()),
    "equality": lambda there: torch.equal(there, there),
    "closeness": lambda there: torch.allclose(there, there),
    "repeats": lambda there: there[0].repeat_interleave(there[0].long()),
    "a wait": lambda there: torch.cuda.synchronize(),
}
COPIES = {
    "a table": lambda there: torch.tensor([1, 2], device="cuda"),
    "a tensor": lambda there: torch.zeros(3).to("cuda"),
    "to where another is": lambda there: torch.zeros(3).to(there),
    "indices": lambda there: there[torch.tensor([0, 2])],
    "indices to write at": lambda there: there.index_put_((torch.tensor([0]),), there[1].clone()),
    "a table of its kind": lambda there: there.new_tensor([0, 1]),
    "into memory of the device": lambda there: there.copy_(torch.zeros(3, 4)),
}
NEITHER = {
    "numbers in a row": lambda there: torch.arange(4, device=there.device),
    "room": lambda there: torch.empty_like(there).zero_(),
    "a place": lambda there: there[1:2, 3],
    "indices of the device": lambda there: there[torch.arange(2, device="cuda")],
    "a masked fill": lambda there: there.masked_fill(there > 3, 0.0),
    "a mask filled with a number": lambda there: there.__setitem__(there > 3, 0.0),
    "a kind": lambda there: there.double(),
    "a place that it has": lambda there: there.to("cuda"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_to_mix(name):
    with device(), pytest.raises((RuntimeError, TypeError), match=r"device|cpu"):
        REFUSED[name](to_device(X), X.clone())


@pytest.mark.parametrize("name", ALLOWED)
def test_allows_what_cuda_allows(name):
    with device():
        there = ALLOWED[name](to_device(X), X)
        assert isinstance(there, OnDevice)
        assert there.device == torch.device("cuda", 0)
        assert there.is_cuda
        assert not there.is_cpu
    assert torch.equal(there.held, ALLOWED[name](X, X))


@pytest.mark.parametrize(
    ("kind", "name"), [*(("reads", name) for name in READS), *(("copies", name) for name in COPIES)]
)
def test_counts_what_goes_over(kind, name):
    with device() as ledger:
        there = to_device(X)
        ledger.clear()
        (READS if kind == "reads" else COPIES)[name](there)
        reads, copies = ledger.totals
    assert (reads, copies) == ((1, 0) if kind == "reads" else (0, 1)), str(ledger)


@pytest.mark.parametrize("name", NEITHER)
def test_counts_nothing_else(name):
    with device() as ledger:
        there = to_device(X)
        ledger.clear()
        NEITHER[name](there)
        assert ledger.totals == (0, 0), str(ledger)


def test_a_network_gives_the_same_there():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    expected = model.eval()(x)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    with device():
        there = to_device(x.detach()).requires_grad_()
        actual = module_to_device(model)(there)
        (found,) = torch.autograd.grad(actual.sum(), there)
        assert isinstance(found, OnDevice)
    assert torch.equal(actual.held, expected)
    assert torch.equal(found.held, gradient)


def test_refuses_a_kernel_over_memory_of_the_host():
    boxes = torch.tensor([[[0, 1], [0, 2], [0, 2]]])
    with device(), pytest.raises(RuntimeError, match="pointer to the CPU"):
        all_ops()["window_mean"](to_device(torch.ones(1, 1, 1)), boxes, to_device(torch.empty(1, 1, 1, 2, 2)))


def test_leaves_torch_as_it_was():
    before = torch.cuda.is_available
    with device():
        assert torch.cuda.is_available()
    assert torch.cuda.is_available is before
