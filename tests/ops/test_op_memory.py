"""Tensor arguments whose memory does not hold what they stand for: every op resolves them, or refuses in words."""

from __future__ import annotations

import inspect

import pytest
import torch
from ops_support import CASES, FUNCTIONS
from torch import Tensor
from views import VIEWS

from xai_fast import ops

SUMS = ("total", "squares", "gram", "moment", "bins")  # written by the caller's contract into contiguous memory
PLACES = [
    (name, argument)
    for name in CASES
    for argument, parameter in inspect.signature(getattr(ops, name)).parameters.items()
    if str(parameter.annotation) in ("Tensor", "Tensor | None")
]


def case_with(name, argument):
    """Arguments of the smallest case in which the op has that tensor, not empty."""
    dtype = CASES[name][0].dtypes[0]
    candidates = [case.arguments(dtype) for case in CASES[name] if not case.workload]
    full = [given for given in candidates if all(v.numel() for v in given.values() if isinstance(v, Tensor))]
    return next(given for given in full if isinstance(given[argument], Tensor) and given[argument].numel() > 1)


def called(name, arguments):
    fresh = {
        key: value.clone() if key in (*SUMS, "out") and isinstance(value, Tensor) else value
        for key, value in arguments.items()
    }
    return FUNCTIONS[name](**fresh)


@pytest.mark.numbers
@pytest.mark.parametrize(("name", "argument"), PLACES, ids=lambda part: part)
def test_an_argument_is_read_as_it_is_meant(name, argument):
    arguments = case_with(name, argument)
    expected = called(name, arguments)
    for kind, view in VIEWS.items():
        odd = view(arguments[argument])
        call = called
        if argument == "out":
            odd, call = odd.detach(), lambda name, given: FUNCTIONS[name](**given)  # written as it is
        try:
            actual = call(name, {**arguments, argument: odd})
        except (ValueError, TypeError) as error:  # a layout that the contract refuses, by name
            assert f"`{argument}`" in str(error)  # noqa: PT017
            assert kind != "negated"
            continue
        torch.testing.assert_close(actual.as_subclass(Tensor), expected, rtol=1e-6, atol=1e-6, equal_nan=True, msg=kind)


@pytest.mark.numbers
@pytest.mark.parametrize(("name", "argument"), [place for place in PLACES if place[1] in (*SUMS, "out")])
def test_what_is_written_lands_where_it_is_meant(name, argument):
    """Into a tensor whose sign is flipped when it is read: what the caller reads is the result."""
    arguments = case_with(name, argument)
    expected = called(name, arguments)
    mine = {
        key: value.clone() for key, value in arguments.items() if isinstance(value, Tensor) and key in (*SUMS, "out")
    }
    mine[argument] = torch._neg_view(-mine[argument])
    getattr(ops, name)(**{**arguments, **mine})
    if name in ("moments",):
        actual = torch.stack([mine[key] for key in ("total", "squares") if key in mine])
    elif name == "surrogate_normal":
        actual = torch.cat([mine["gram"], mine["moment"]], dim=1)
    else:
        actual = mine[argument]
    torch.testing.assert_close(actual.resolve_neg(), expected, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize(("name", "argument"), PLACES, ids=lambda part: part)
@pytest.mark.parametrize("without", ["sparse", "meta", "zeros without memory"])
def test_tensors_without_memory_are_named_or_read(name, argument, without):
    arguments = case_with(name, argument)
    value = arguments[argument]
    if without == "zeros without memory":
        arguments |= {argument: torch.zeros_like(value)}
        lazy = torch._efficientzerotensor(value.shape, dtype=value.dtype)
        try:
            expected = called(name, dict(arguments))
            actual = FUNCTIONS[name](**{**arguments, argument: lazy})
        except (ValueError, TypeError) as error:
            assert f"`{argument}`" in str(error)  # noqa: PT017
        else:
            torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
        return
    odd = value.to_sparse() if without == "sparse" else value.to("meta")
    with pytest.raises((TypeError, ValueError), match="`"):
        FUNCTIONS[name](**{**arguments, argument: odd})


OVERLAPPING = {
    "expanded": lambda shape, dtype: torch.zeros((), dtype=dtype).expand(shape),
    "rows over each other": lambda shape, dtype: torch.zeros(10_000, dtype=dtype).as_strided(shape, (1,) * len(shape)),
}


@pytest.mark.parametrize("name", [name for name, argument in PLACES if argument == "out"])
@pytest.mark.parametrize("view", OVERLAPPING)
def test_elements_that_share_memory_are_not_written(name, view):
    arguments = case_with(name, "out")
    odd = OVERLAPPING[view](arguments["out"].shape, arguments["out"].dtype)
    with pytest.raises(ValueError, match="`out`"):
        getattr(ops, name)(**{**arguments, "out": odd})


@pytest.mark.numbers
@pytest.mark.parametrize("name", ["hide_windows", "grid_masks", "add_noise", "path_points", "hide_segments"])
def test_rows_are_read_before_they_are_written(name):
    """The memory of `inputs` holds the results: each row would otherwise read what another has written."""
    arguments = case_with(name, "out")
    rows = len(arguments["out"])
    arguments["inputs"] = torch.randn(rows, *arguments["inputs"].shape[1:]).to(arguments["out"].dtype)
    arguments["sample"] = torch.arange(rows).flip(0)
    if name == "hide_segments":
        arguments["labels"] = arguments["labels"][:1].expand(rows, *arguments["labels"].shape[1:])
    if arguments.get("baseline") is not None and name != "path_points":
        arguments["baseline"] = torch.zeros((), dtype=arguments["inputs"].dtype)
    expected = FUNCTIONS[name](**{**arguments, "out": torch.empty_like(arguments["inputs"])})
    shared = arguments["inputs"].clone()
    actual = FUNCTIONS[name](**{**arguments, "inputs": shared.view_as(shared), "out": shared})
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_two_sums_in_one_memory_are_named():
    memory = torch.zeros(1, 3, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"`(squares|total)` shares memory with `(squares|total)`"):
        ops.moments(torch.ones(2, 3, 4), None, torch.zeros(2).long(), memory, memory.view_as(memory))


def test_what_needs_a_gradient_is_not_written():
    arguments = case_with("hide_windows", "out")
    with pytest.raises(ValueError, match="`out` requires a gradient"):
        ops.hide_windows(
            **{**arguments, "out": torch.zeros_like(arguments["out"], dtype=torch.float32).requires_grad_()}
        )
