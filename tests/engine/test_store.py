"""What is prepared for a model: shared between layers, counted in bytes, let go where it is too much."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

import xai_fast as xf
from xai_fast.core.memory import give_back
from xai_fast.core.sharing import held, share_weights
from xai_fast.core.shelf import Shelf, Shelves
from xai_fast.engine import used


def network():
    torch.manual_seed(0)
    layers = []
    for _ in range(3):
        layers += [nn.Conv2d(16 if layers else 3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


def prepared_of(engine):
    return engine.store.contents().prepared


def test_copies_for_different_layers_share_weights_and_what_is_packed():
    model, x = network(), torch.randn(2, 3, 32, 32)
    engine = xf.Engine(model)
    for layer in ("2", "5", "8", "0"):
        xf.GradCAM(engine, layer=layer).attribute(x, 1)
    copies = [prepared.module for prepared in prepared_of(engine).values()]
    assert len(copies) == 4
    last = {id(copy.get_parameter("6.weight")) for copy in copies}
    assert len(last) == 1, "no layer that was looked at changes how the last block is folded"
    first = [copy.get_parameter("0.weight") for copy in copies]
    assert len({id(weight) for weight in first}) == 2, "unfolded where its own output is looked at"
    assert not any(theirs is ours for ours in model.parameters() for copy in copies for theirs in copy.parameters())
    own = sum(parameter.nbytes for parameter in model.parameters())
    weights = held(*copies)
    assert sum(weights.values()) < 2 * own + 4 * 4096 + 600 * len(weights)


def test_only_what_is_the_same_to_the_byte_is_shared():
    one, other, third = network(), network(), network()
    with torch.no_grad():
        other[3].weight[0, 0, 0, 0] += 1e-6
        third[6].weight.data = third[6].weight.data.contiguous(memory_format=torch.channels_last)
    buffer = one[1].running_mean
    share_weights(one, [other, third])
    assert one[3].weight is third[3].weight
    assert one[6].weight is other[6].weight
    assert one[1].running_mean is buffer


def test_what_was_not_used_for_longest_is_let_go_and_made_again():
    model, x = network(), torch.randn(2, 3, 32, 32)
    expected = {layer: xf.GradCAM(xf.Engine(network()), layer=layer).attribute(x, 1) for layer in ("2", "5", "8")}
    engine = xf.Engine(model, memory_limit=1)
    for layer in ("2", "5", "8", "2"):
        torch.testing.assert_close(xf.GradCAM(engine, layer=layer).attribute(x, 1), expected[layer])
        assert [anchors for anchors, *_ in prepared_of(engine)] == [frozenset({layer})]
    roomy = xf.Engine(network(), memory_limit=1 << 30)
    for layer in ("2", "5", "8", "2"):
        xf.GradCAM(roomy, layer=layer).attribute(x, 1)
    assert len(prepared_of(roomy)) == 3


def test_shapes_are_let_go_one_by_one():
    engine = xf.Engine(network(), memory_limit=400_000)
    method = xf.Saliency(engine)
    sizes = range(24, 64, 2)
    for size in sizes:
        method.attribute(torch.randn(1, 3, size, size), 1)
    (prepared,) = prepared_of(engine).values()
    kept = [shape[-1] for shape in prepared.footprints]
    assert 0 < len(kept) < len(sizes)
    assert kept == list(sizes)[-len(kept) :], "the last used stay"
    assert set(prepared.captured) == set(prepared.footprints)
    assert set(prepared.made) <= set(prepared.footprints)
    x = torch.randn(1, 3, 24, 24)
    torch.testing.assert_close(method.attribute(x, 1), xf.Saliency(xf.Engine(network())).attribute(x, 1))


def test_a_shelf_keeps_the_last_used():
    squares: Shelf[int, int] = Shelf("squares", most=2)
    shelves, made = Shelves(), []

    def square(number):
        made.append(number)
        return number**2

    for number in (2, 3, 2, 4, 2, 3):
        assert shelves.find(squares, number, lambda number=number: square(number)) == number**2
    assert made == [2, 3, 4, 3]
    assert list(shelves.all(squares)) == [4, 9]


def test_bytes_are_counted_once():
    weight = nn.Parameter(torch.zeros(1000))
    one, other = nn.Linear(1, 1), nn.Linear(1, 1)
    one.weight = other.weight = weight
    found = held(one, other, [weight.view(10, 100)])
    assert found.pop(weight.untyped_storage().data_ptr()) == 4000
    assert sum(found.values()) < 2000, "two biases, and a guess for each object"


def test_asking_what_objects_hold_adds_nothing_to_them():
    def has_dictionary(item):
        return any(isinstance(part, dict) for part in gc.get_referents(item))

    shelves = [Shelf(f"shelf {number}") for number in range(50)]
    assert not any(map(has_dictionary, shelves)), "Python makes one where somebody asks for it"
    assert len(held(shelves)) == 1, "an entry for each would hold as much as they do"
    assert not any(map(has_dictionary, shelves))


def test_memory_is_given_back_once_several_shapes_were_prepared_or_forgotten(monkeypatch):
    calls = []
    monkeypatch.setattr(used, "give_back", lambda: calls.append(1))
    method = xf.Saliency(xf.Engine(network(), prepare=True))
    for size, given_back in ((24, 0), (24, 0), (25, 1), (24, 1), (25, 1), (26, 1), (27, 2), (27, 2)):
        method.attribute(torch.randn(1, 3, size, size), 0)
        assert len(calls) == given_back, "whoever has one shape pays nothing"
    give_back()  # as it is here


@pytest.mark.parametrize("frozen", [False, True])
def test_the_user_may_still_change_the_model(frozen):
    """Shared weights are the copies', never the caller's."""
    model, x = network(), torch.randn(1, 3, 32, 32)
    engine = xf.Engine(model, frozen=frozen)
    before = [xf.GradCAM(engine, layer=layer).attribute(x, 1) for layer in ("2", "5")]
    with torch.no_grad():
        model[6].weight.mul_(-1)
    after = [xf.GradCAM(engine, layer=layer).attribute(x, 1) for layer in ("2", "5")]
    assert all(torch.equal(one, two) == frozen for one, two in zip(before, after, strict=True))


def test_a_model_can_be_prepared_before_the_first_call(monkeypatch):
    model, x = network(), torch.randn(2, 3, 32, 32)
    engine = xf.Engine(model)
    engine.prepare(x)
    monkeypatch.setattr("xai_fast.core.prepare.prepare", None)
    monkeypatch.setattr("xai_fast.core.prepare.verify", None)
    assert xf.Saliency(engine).attribute(x, 1).shape == x.shape
    with pytest.raises(TypeError, match="`inputs`"):
        engine.prepare(x.numpy())
