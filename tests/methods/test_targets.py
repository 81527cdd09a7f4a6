"""Every way to say what is explained gives the map it names: indices, many at once, the argmax, functions, losses."""

from __future__ import annotations

import pytest
import torch
from subjects import Small, signals
from table import CASES, FIRST
from torch.nn import functional

import xai_fast as xf
from xai_fast import targets

every = pytest.mark.parametrize("case", CASES, ids=str)
first = pytest.mark.parametrize("case", FIRST, ids=lambda case: case.method)


@pytest.fixture
def model():
    return Small().double()


@pytest.fixture
def inputs():
    return signals(dtype=torch.float64)


def same(actual, expected):
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-13)


@first
def test_indices_in_every_form(case, model, inputs):
    method = case.on(model)
    expected = torch.cat([method.attribute(inputs[n : n + 1], t) for n, t in enumerate([1, 3, 0])])
    for form in ([1, 3, 0], (1, 3, 0), torch.tensor([1, 3, 0]), torch.tensor([1, 3, 0], dtype=torch.int32)):
        same(method.attribute(inputs, form), expected)
    expected = method.attribute(inputs, [2, 2, 2])
    for form in (2, torch.tensor(2), torch.tensor([2, 2, 2]), torch.tensor([2, 2, 2]).numpy()):
        same(method.attribute(inputs, form), expected)
    assert not torch.allclose(expected, method.attribute(inputs, 1)) or not xf.methods()[case.method].class_specific


@every
def test_many_targets_from_one_sweep(case, model, inputs):
    """The columns equal single runs, the axis K follows N, and no row runs forward more than once."""
    method = case.on(xf.Engine(model, plan="dense"))
    wanted = torch.tensor([[0, 1, 4], [2, 2, 3], [4, 0, 1]])
    method.attribute(inputs, wanted, **case.call)
    model.record.chunks.clear()
    explanation = method(inputs, wanted, **case.call)
    assert model.record.rows == method.cost(inputs.shape).forwards
    assert explanation.values.shape[:2] == (3, 3)
    assert torch.equal(explanation.target, wanted)
    for k in range(3):
        alone = method(inputs, wanted[:, k], **case.call)
        same(explanation.values[:, k], alone.values)
        same(explanation.score[:, k], alone.score)
    one = method.attribute(inputs, wanted[:, :1], **case.call)
    same(one, explanation.values[:, :1])


@every
def test_none_is_the_argmax_of_the_clean_input(case, model, inputs):
    method = case.on(model)
    best = model(inputs).argmax(1)
    assert len(set(best.tolist())) > 1, "the inputs tell nothing apart"
    explanation = method(inputs, **case.call)
    assert torch.equal(explanation.target, best)
    same(explanation.values, method.attribute(inputs, best, **case.call))
    same(explanation.score, model(inputs).detach().gather(1, best[:, None])[:, 0])


@first
def test_callables_get_the_raw_output_and_the_sample(case, model, inputs):
    method = case.on(xf.Engine(model, batch_size=2))
    seen = []

    def plain(output):
        assert isinstance(output, torch.Tensor)
        return output[:, 2]

    def with_sample(output, sample):
        assert sample.dtype is torch.long
        assert sample.shape == (len(output),)
        seen.extend(sample.tolist())
        return output.gather(1, torch.tensor([1, 3, 0])[sample][:, None])[:, 0]

    same(method.attribute(inputs, plain), method.attribute(inputs, 2))
    explanation = method(inputs, with_sample)
    same(explanation.values, method.attribute(inputs, [1, 3, 0]))
    assert explanation.target is with_sample
    assert [seen.count(n) for n in range(3)] == explanation.evaluations.tolist()
    same(method.attribute(inputs, lambda output, extra=7: output[:, 2]), method.attribute(inputs, 2))


FORMULAS = {
    "probability": (targets.probability(2), lambda s: s.softmax(1)[:, 2]),
    "log_probability": (targets.log_probability(2), lambda s: s.log_softmax(1)[:, 2]),
    "margin": (targets.margin(2, 0), lambda s: s[:, 0] - s[:, 2]),
    "cross_entropy": (targets.cross_entropy(2), lambda s: -s.log_softmax(1)[:, 2]),
}


@pytest.mark.parametrize("name", FORMULAS)
@first
def test_named_targets_are_their_formulas(case, name, model, inputs):
    named, formula = FORMULAS[name]
    method = case.on(model)
    explanation = method(inputs, named)
    same(explanation.values, method.attribute(inputs, formula))
    same(explanation.score, formula(model(inputs)).detach())
    assert explanation.values.abs().max() > 1e-5


@first
def test_named_targets_take_classes_per_sample_and_the_argmax(case, model, inputs):
    method, best = case.on(model), model(inputs).argmax(1)
    same(method.attribute(inputs, targets.probability()), method.attribute(inputs, targets.probability(best)))
    same(
        method.attribute(inputs, targets.margin([4, 4, 1])),
        method.attribute(inputs, lambda s, n: _pick(s, best[n]) - _pick(s, torch.tensor([4, 4, 1])[n])),
    )
    labels = torch.tensor([1, 3, 0])
    same(
        method.attribute(inputs, targets.cross_entropy(labels)),
        method.attribute(inputs, lambda s, n: functional.cross_entropy(s, labels[n], reduction="none")),
    )
    same(method.attribute(inputs, targets.margin(1, 1)), torch.zeros_like(method.attribute(inputs, 1)))


def _pick(scores, classes):
    return scores.gather(1, classes[:, None])[:, 0]


def test_a_loss_is_the_loss_itself():
    """Hiding what speaks for the class raises the loss, so it attributes negatively."""
    inputs = torch.zeros(1, 1, 4, 4)
    inputs[..., 1, 2] = 3.0

    def model(x):
        return torch.stack([x.sum((1, 2, 3)), -x.sum((1, 2, 3))], dim=1)

    loss = xf.Occlusion(model, window=1).attribute(inputs, targets.cross_entropy(0))
    assert loss[0, 0, 1, 2] < -0.1
    assert xf.Occlusion(model, window=1).attribute(inputs, targets.probability(0))[0, 0, 1, 2] > 0.1


@first
def test_engine_scores(case, model, inputs):
    engine = case.on(model).engine
    clean = model(inputs).detach()
    same(engine.scores(inputs, [1, 3, 0]), clean[torch.arange(3), torch.tensor([1, 3, 0])])
    same(engine.scores(inputs), clean.amax(1))
    same(engine.scores(inputs, torch.tensor([[0, 1]] * 3)), clean[:, :2])
    same(engine.scores(inputs, lambda s: s.sum(1)), clean.sum(1))
