"""shap's torch explainers accelerated give what shap gives: numbers, layout, draws, checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ruled import Modules
from subjects import Small, signals
from torch import nn

import xai_fast as xf
from xai_fast import accelerate

shap = pytest.importorskip("shap", reason="shap is not installed")

BACKGROUND = signals(4, seed=5)


@pytest.fixture(autouse=True)
def counted():
    """Counts start at 0."""
    accelerate.reset()
    yield
    accelerate.off()


def explained(kind, model, *, inputs=None, background=BACKGROUND, settings=(), **call):
    """The result, and the number that NumPy's generator gives next."""
    inputs = signals() if inputs is None else inputs
    explainer = getattr(shap, kind)(model, background, **dict(settings))
    np.random.seed(2)
    torch.manual_seed(2)
    return explainer.shap_values(inputs, **call), np.random.rand()


def accelerated(run):
    with xf.accelerate("shap"):
        return run()


def same(plain, ours, tolerance=2e-6):
    (one, drawn), (other, drawn_too) = plain, ours
    assert drawn == drawn_too, "as many draws as shap's"
    assert type(one) is type(other)
    if isinstance(one, tuple):
        assert torch.equal(one[1], other[1])
        assert one[1].dtype is other[1].dtype
        one, other = one[0], other[0]
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    assert np.abs(one).max() > 1e-4
    assert np.abs(one - other).max() <= tolerance * np.abs(one).max()


CALLS = {
    "all outputs": ("GradientExplainer", Small, {"nsamples": 7}),
    "ranked": ("GradientExplainer", Small, {"nsamples": 5, "ranked_outputs": 2, "rseed": 1}),
    "ranked from below": (
        "GradientExplainer",
        Small,
        {"nsamples": 5, "ranked_outputs": 1, "output_rank_order": "min"},
    ),
    "ranked by magnitude": (
        "GradientExplainer",
        Small,
        {"nsamples": 5, "ranked_outputs": 3, "output_rank_order": "max_abs"},
    ),
    "multipliers": ("DeepExplainer", Modules, {}),
    "multipliers of one output": ("DeepExplainer", Modules, {"ranked_outputs": 1, "check_additivity": False}),
}


@pytest.mark.parametrize("name", CALLS)
def test_shaps_numbers(name):
    kind, model, call = CALLS[name]
    model = model()
    same(explained(kind, model, **call), accelerated(lambda: explained(kind, model, **call)), 1e-5)
    (row,) = accelerate.report().rows
    assert (row.method, row.reason) == (kind, "")


def test_one_output():
    model = nn.Sequential(Modules(), nn.Linear(5, 1)).eval()
    same(
        explained("GradientExplainer", model, nsamples=4, ranked_outputs=1),
        accelerated(lambda: explained("GradientExplainer", model, nsamples=4, ranked_outputs=1)),
        1e-5,
    )
    assert accelerate.report().accelerated == 1


NOT_COVERED = {
    "`local_smoothing`": lambda: explained(
        "GradientExplainer", Small(), nsamples=3, settings={"local_smoothing": 0.1}.items()
    ),
    "`local_smoothing`, or variances": lambda: (
        explained("GradientExplainer", Small(), nsamples=3, return_variances=True)[0][0],
        0,
    ),
    "the input of a layer": lambda: explained("GradientExplainer", (model := Small(), model.body), nsamples=3),
    "an operation that shap's rule": lambda: explained("DeepExplainer", Small(), check_additivity=False),
    "few rows": lambda: explained("DeepExplainer", Modules(), background=BACKGROUND[:1], inputs=signals(1)),
}


@pytest.mark.parametrize("reason", NOT_COVERED)
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_covered_runs_shaps_code(reason, rows_that_pay):
    if reason == "few rows":
        rows_that_pay(8)
    same(NOT_COVERED[reason](), accelerated(NOT_COVERED[reason]), 1e-6)
    (row,) = accelerate.report().rows
    assert row.reason.startswith(reason), row.reason


def test_exceptions_stay_shaps():
    for ask in (
        lambda: explained("GradientExplainer", Small(), ranked_outputs=1, output_rank_order="best"),
        lambda: explained("GradientExplainer", Small(), inputs=[signals()]),
    ):
        with pytest.raises(Exception) as plain:  # noqa: PT011 - the same one, whichever it is
            ask()
        with pytest.raises(type(plain.value)) as ours:
            accelerated(ask)
        assert str(ours.value) == str(plain.value)


def test_partitions_of_a_function_around_a_model():
    """Its splits and sums, for which the engine answers in the model's place."""
    model = Small()
    pictures = (255 * torch.rand(2, 12, 10, 3, generator=torch.Generator().manual_seed(0))).numpy()

    def predict(images):
        return model(torch.as_tensor(images).permute(0, 3, 1, 2).float() / 64).softmax(1)

    def run():
        explainer = shap.Explainer(predict, shap.maskers.Image(0, (12, 10, 3)))
        found = explainer(pictures, max_evals=60, batch_size=9, outputs=[1, 3], silent=True)
        return found.values, found.base_values

    plain, ours = run(), accelerated(run)
    for one, other in zip(plain, ours, strict=True):
        assert np.asarray(one).shape == np.asarray(other).shape
        np.testing.assert_allclose(other, one, rtol=0, atol=2e-7)  # differences of probabilities in float32
    assert np.abs(plain[0].sum((1, 2, 3))).max() > 1e-2, "the network sleeps"
    (row,) = accelerate.report().rows
    assert (row.method, row.reason, row.calls) == ("PartitionExplainer", "", 2)
    assert "forward" not in vars(model)


def test_partitions_of_a_function_that_cannot_be_seen_into():
    def run():
        explainer = shap.Explainer(lambda images: images.mean((1, 2)), shap.maskers.Image(0, (6, 6, 3)))
        return explainer(np.random.default_rng(0).random((1, 6, 6, 3)), max_evals=20, silent=True).values

    # NumPy's means depend on where an array lies in memory.
    np.testing.assert_allclose(accelerated(run), run(), rtol=0, atol=1e-15)
    (row,) = accelerate.report().rows
    assert row.reason == "a function in which no torch module in eval mode is seen"
