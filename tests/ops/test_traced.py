"""Ops inside of compiled graphs: one node each, registered as torch wants it, with what they give outside."""

from __future__ import annotations

import inspect

import pytest
import torch
from ops_support import CASES
from test_op_backends import has_no_kernel
from torch import Tensor

from xai_fast import ops

WRITTEN = ("out", "total", "squares", "gram", "moment", "bins")


def arguments_of(name):
    """Those of the first small case in which nothing is empty, in the dtypes that come first."""
    for case in CASES[name]:
        arguments = case.arguments(case.dtypes[0])
        tensors = [value for value in arguments.values() if isinstance(value, Tensor)]
        if not case.workload and all(value.numel() for value in tensors):
            return {
                key: value.clone() if key in WRITTEN and value is not None else value
                for key, value in arguments.items()
            }
    raise AssertionError(f"{name} has no case without empty tensors")


def node_of(name):
    return getattr(torch.ops.xai_fast, name).default


def skip_where_nothing_runs(name):
    if has_no_kernel(name, CASES[name][0].dtypes[0]):
        pytest.skip("no kernel of this dtype for this processor")


def test_every_op_is_registered():
    for name in ops.all_ops():
        names = [argument.name for argument in node_of(name)._schema.arguments]
        assert names == list(inspect.signature(getattr(ops, name)).parameters)


@pytest.mark.parametrize("name", CASES)
def test_registered_as_torch_wants_it(name):
    """Schema, aliasing, the fake implementation on static and dynamic shapes, and under AOT dispatch."""
    skip_where_nothing_runs(name)
    arguments = arguments_of(name)
    keywords = {argument.name for argument in node_of(name)._schema.arguments if argument.kwarg_only}
    if "seed" in arguments:  # torch's integers have a sign
        arguments["seed"] -= 2**64 if arguments["seed"] >= 2**63 else 0
    given = tuple(value for key, value in arguments.items() if key not in keywords)
    torch.library.opcheck(node_of(name), given, {key: value for key, value in arguments.items() if key in keywords})


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", CASES)
def test_a_graph_passes_through(name, dynamic):
    """Without a break, and with what the op gives by itself; what comes before and after is in the same graph."""
    skip_where_nothing_runs(name)
    function = getattr(ops, name)
    graphs = []

    def kept(graph, _inputs):
        graphs.append(graph)
        return graph

    def around(arguments):
        answer = function(**arguments)
        written = [arguments[key] for key in WRITTEN if isinstance(arguments.get(key), Tensor)]
        answers = answer if isinstance(answer, tuple) else (answer,)
        return [value + 1 for value in (*answers, *written) if isinstance(value, Tensor)]

    torch._dynamo.reset()
    try:
        compiled = torch.compile(around, backend=kept, fullgraph=True, dynamic=dynamic)
        actual, expected = compiled(arguments_of(name)), around(arguments_of(name))
    finally:
        torch._dynamo.reset()
    assert len(actual) == len(expected) > 0
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    (graph,) = graphs
    assert [node.target for node in graph.graph.nodes].count(node_of(name)) == 1


def test_what_is_written_reaches_the_caller_through_aot():
    """Where a graph is made free of writes, as every real compiler has it, the batch is written in the end."""
    arguments = arguments_of("hide_windows")
    expected = ops.hide_windows(**arguments_of("hide_windows"))

    def write(out):
        return ops.hide_windows(**{**arguments, "out": out}) * 2

    torch._dynamo.reset()
    out = torch.zeros_like(arguments["out"])
    doubled = torch.compile(write, backend="aot_eager", fullgraph=True)(out)
    torch._dynamo.reset()
    assert torch.equal(out, expected)
    assert torch.equal(doubled, expected * 2)


def test_seeds_of_64_bits():
    arguments = {**arguments_of("add_noise"), "seed": 2**64 - 3}
    expected = ops.add_noise(**{**arguments, "out": torch.empty_like(arguments["out"])})
    torch._dynamo.reset()
    compiled = torch.compile(lambda out: ops.add_noise(**{**arguments, "out": out}), backend="eager", fullgraph=True)
    actual = compiled(torch.empty_like(arguments["out"]))
    torch._dynamo.reset()
    assert torch.equal(actual, expected)


def test_wrong_arguments_are_named_inside_of_a_graph():
    arguments = arguments_of("hide_windows")
    arguments["sample"] = arguments["sample"] + 100
    torch._dynamo.reset()
    compiled = torch.compile(lambda given: ops.hide_windows(**given), backend="eager", fullgraph=True)
    with pytest.raises(ValueError, match="`sample` has values from 100"):
        compiled(arguments)
    torch._dynamo.reset()
