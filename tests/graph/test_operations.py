"""The table of operations and the code that follows from it know the same words, and what has no rule is listed."""

from __future__ import annotations

from typing import get_args

import pytest
from torch import nn

from xai_fast.engine.gradients.backward.activations import derivative_of
from xai_fast.engine.gradients.rescale.linear import FORMS
from xai_fast.engine.gradients.rescale.rules import FACTORS, MIXING, NONLINEAR
from xai_fast.engine.replay.local.rules import RULES
from xai_fast.graph.fuse import activation_of
from xai_fast.graph.magnitudes import SIZES
from xai_fast.graph.operation import Fusion, Gradient, Kind, Linear, Region, Rescale, Size
from xai_fast.graph.operations import OPERATIONS, known_of, operation_of
from xai_fast.graph.steps import Step, Value

COLUMNS = {
    "region": (Region, RULES),
    "rescale": (Rescale, NONLINEAR),
    "size": (Size, SIZES),
    "linear": (Linear, {"all": None, "first": None, **FACTORS, **MIXING}),
    "gradient": (Gradient, {"of output": None, "of input": None, **FORMS}),
    "fusion": (Fusion, {"convolution": None, "linear": None, "attention": None}),
}


@pytest.mark.parametrize("column", COLUMNS)
def test_every_word_of_the_table_has_code_and_every_rule_an_operation(column):
    words, rules = COLUMNS[column]
    assert {*get_args(words)} == {"", *rules}
    assert {getattr(operation, column) for operation in OPERATIONS.values()} == {*get_args(words)}


def without(column):
    return {o.name for o in OPERATIONS.values() if not getattr(o, column) and o.kind is not Kind.NUMBER}


NAMELESS = {"conv", "conv_transpose", "max_pool", "avg_pool", "lp_pool", "adaptive_avg_pool", "adaptive_max_pool"}


def test_what_no_box_passes_is_listed():
    """What mixes positions, and views that nobody has needed."""
    assert without("region") == NAMELESS | {
        *("lp_pool1d", "lp_pool2d", "lp_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
        *("matmul", "bmm", "einsum", "addmm", "baddbmm", "scaled_dot_product_attention", "multi_head_attention"),
        *("max", "min", "group_norm", "instance_norm", "stack"),
        *("expand", "expand_as", "t", "roll", "repeat", "tile", "gather", "unfold", "fold"),
    }


def test_what_the_rescale_rule_refuses_is_listed():
    assert without("linear") & without("rescale") == NAMELESS | {
        *("lp_pool1d", "lp_pool2d", "lp_pool3d", "detach", "gt", "lt", "ge", "le", "eq", "ne"),
        *("scaled_dot_product_attention", "multi_head_attention", "max", "min", "amax", "amin", "std", "var", "norm"),
        *("normalize", "glu", "layer_norm", "rms_norm", "group_norm", "instance_norm", "local_response_norm"),
    }


@pytest.mark.parametrize("operation", [o for o in OPERATIONS.values() if o.gradient in ("of output", "of input")],
                         ids=lambda operation: operation.name)  # fmt: skip
def test_an_activation_is_fused_and_its_derivative_is_told_as_the_table_says(operation):
    names = ("ReLU", "ReLU6", "Hardtanh", "LeakyReLU", "Sigmoid", "Tanh", "SiLU", "Hardswish", "GELU")
    modules = [getattr(nn, name)() for name in names]
    (module,) = [module for module in modules if operation_of(module) == operation.name]
    activation = activation_of(Step(1, module, (Value(0),), {}, operation.name, operation.kind, ""))
    assert activation is not None
    derivative = derivative_of(activation, "gradient")
    assert derivative is not None
    assert derivative.from_output == (operation.gradient == "of output")


def test_what_is_not_known_has_empty_cells():
    assert known_of("").kind is known_of("no such operation").kind is Kind.UNKNOWN
    assert not any(getattr(known_of(""), column) for column in COLUMNS)
