"""Normal equations are those of their definition, go on from what is there, and fit what a surrogate can say."""

from __future__ import annotations

import pytest
import torch
from ops_support import BACKENDS

from xai_fast import ops
from xai_fast.ops.surrogate_normal.cases import CASES


@pytest.fixture(params=["reference", *BACKENDS])
def backend(request):
    if reason := ops.backends()[request.param]:
        pytest.skip(reason)
    with ops.using(request.param):
        yield request.param


def case(name):
    return next(case for case in CASES if case.name == name).arguments(torch.float64)


def test_every_entry_is_the_sum_over_rows(backend):
    arguments = case("a tile's width and one")
    keep, weights, scores = arguments["keep"].tolist(), arguments["weights"].tolist(), arguments["scores"].tolist()
    gram, moment = (torch.zeros_like(arguments[name]) for name in ("gram", "moment"))
    ops.surrogate_normal(arguments["keep"], arguments["weights"], arguments["scores"], gram, moment)
    design = [[1.0, *map(float, row)] for row in keep]
    for i, j in ((0, 0), (0, 5), (5, 0), (7, 7), (3, 31), (32, 16), (32, 32)):
        expected = sum(w * x[i] * x[j] for w, x in zip(weights, design, strict=True))
        assert gram[i, j].item() == pytest.approx(expected, rel=1e-12)
    for i, target in ((0, 0), (4, 2), (32, 1)):
        expected = sum(w * x[i] * s[target] for w, x, s in zip(weights, design, scores, strict=True))
        assert moment[i, target].item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    if backend == "reference":  # a library's product need not be symmetric to the bit
        torch.testing.assert_close(gram, gram.T, rtol=1e-13, atol=0)
    else:
        assert gram.equal(gram.T)


def test_rows_may_come_in_any_number_of_calls(backend):
    arguments = case("several tiles")
    whole = [arguments[name].clone() for name in ("gram", "moment")]
    parts = [value.clone() for value in whole]
    rows = [arguments[name] for name in ("keep", "weights", "scores")]
    ops.surrogate_normal(*rows, *whole)
    for piece in zip(*(value.split([1, 3, 64, 63]) for value in rows), strict=True):
        ops.surrogate_normal(*piece, *parts)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-12)
        assert backend != "cpp" or one.equal(other)


def test_a_linear_score_is_found(backend):
    """With an intercept and whatever weights, where the rows decide the coefficients."""
    arguments = case("several tiles")
    coefficients = torch.randn(76, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = coefficients[0] + arguments["keep"].double() @ coefficients[1:]
    gram, moment = torch.zeros(76, 76).double(), torch.zeros(76, 4).double()
    assert ops.surrogate_normal(arguments["keep"], arguments["weights"], scores, gram, moment) == (gram, moment)
    torch.testing.assert_close(torch.linalg.solve(gram, moment), coefficients, rtol=1e-8, atol=1e-8)


def test_versions_of_what_was_written_rise(backend):
    arguments = case("one row")
    versions = arguments["gram"]._version, arguments["moment"]._version
    ops.surrogate_normal(**arguments)
    assert arguments["gram"]._version > versions[0]
    assert arguments["moment"]._version > versions[1]
