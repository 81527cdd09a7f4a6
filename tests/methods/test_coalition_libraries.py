"""Lime, KernelShap and ShapleySampling against lime and captum, on the draws that those make."""

from __future__ import annotations

import networks
import numpy as np
import pytest
import torch

import xai_fast as xf
from xai_fast.engine import Recipe
from xai_fast.engine.estimators.shapley import OrderMeans, ShapleyRegression
from xai_fast.engine.estimators.shapley_draws import WeightedDraws
from xai_fast.engine.estimators.surrogate import Surrogate
from xai_fast.engine.reducers.coalitions import CoalitionValues, Stage
from xai_fast.engine.samplers.coalitions import Coalitions, Prefixes, Table
from xai_fast.images.baselines import resolve_baseline
from xai_fast.images.segments import SegmentMap


def on_draws(model, inputs, target, labels, baseline, draws, estimator):
    def recipe_of(adopted):
        segments = SegmentMap.of(labels.expand(len(adopted), *labels.shape[-2:]))
        hidden = resolve_baseline(baseline, adopted, None, segments)
        coalitions = Coalitions(adopted, hidden, segments, draws)
        stages = [[Stage(int(count), estimator)] for count in draws.counts]
        return Recipe(variants=coalitions, reduce=CoalitionValues(segments, coalitions, draws.counts, stages))

    outcome, _ = xf.Engine(model).run(recipe_of, inputs, target)
    return outcome


def problem(size=64, cells=4):
    model, inputs = networks.awakened("resnet18").double(), networks.photos(1, size).double()
    place = torch.arange(size) * cells // size
    return model, inputs, place[:, None] * cells + place


def laid(labels, values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)[labels][None, None]


def test_lime_librarys_coefficients():
    lime_image = pytest.importorskip("lime.lime_image", reason="lime is not installed")
    model, inputs, labels = problem()
    n, count = int(labels.max()) + 1, 150

    def classify(batch):
        with torch.no_grad():
            return model(torch.from_numpy(batch).movedim(-1, 1)).softmax(1).numpy()

    explainer = lime_image.LimeImageExplainer(random_state=7)
    theirs = explainer.explain_instance(
        inputs[0].movedim(0, -1).numpy(), classify, labels=(3, 5), top_labels=None, num_samples=count,
        segmentation_fn=lambda _: labels.numpy(), random_seed=1,
    )  # fmt: skip
    shown = np.random.RandomState(7).randint(0, 2, count * n).reshape(count, n).astype(bool)
    shown[0] = True
    shown = torch.from_numpy(shown)
    weights = (-((1 - (shown.sum(1).double() / n).sqrt()) ** 2) / (2 * 0.25**2)).exp()
    probabilities = torch.nn.Sequential(model, torch.nn.Softmax(1))
    ours = on_draws(
        probabilities, inputs, torch.tensor([[3, 5]]), labels[None], "segment_mean",
        Table(shown, torch.tensor([count])), Surrogate(shown, weights, "ridge", 1.0),
    )  # fmt: skip
    for k, label in enumerate((3, 5)):
        expected = torch.zeros(n, dtype=torch.float64)
        for segment, weight in theirs.local_exp[label]:
            expected[segment] = float(weight)
        torch.testing.assert_close(ours.values[:, k], laid(labels, expected), rtol=1e-6, atol=1e-9)
    assert abs(ours.details.fit[0, 1].item() - theirs.score) < 1e-6  # it keeps the last label's


def caught(method, *args, **kwargs):
    """What captum's method returns, and the coalitions, scores and weights that it fitted."""
    fitted, fit = [], method.interpretable_model.fit

    def keep(train_data, **more):
        fitted.extend(torch.cat(column) for column in zip(*train_data, strict=True))
        return fit(train_data, **more)

    method.interpretable_model.fit = keep
    torch.manual_seed(11)
    found = method.attribute(*args, **kwargs)
    return found, fitted


def test_captums_kernel_shap():
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    pytest.importorskip("sklearn", reason="captum fits by scikit-learn")
    model, inputs, labels = problem()
    theirs, (shown, _, _) = caught(
        attr.KernelShap(model), inputs, 0.0, 3, feature_mask=labels[None, None], n_samples=120
    )
    shown = torch.cat([torch.zeros(1, shown.shape[1], dtype=torch.bool), shown[2:].bool()])  # without the whole input
    weights = torch.ones(len(shown), dtype=torch.float64)
    weights[0] = 0
    zeros = torch.zeros(len(shown) - 1, dtype=torch.float64)
    draws = WeightedDraws(shown, weights, torch.arange(-1, len(shown) - 1), zeros.long(), zeros)
    ours = on_draws(
        model, inputs, 3, labels[None], 0.0, Table(shown, torch.tensor([len(shown)])), ShapleyRegression(draws)
    )
    scale = theirs.abs().max().item()  # theirs keeps the sum by two rows of weight 1e6
    torch.testing.assert_close(ours.values, theirs[:, :1].double(), rtol=0, atol=1e-4 * scale)


def test_captums_lime():
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    pytest.importorskip("sklearn", reason="captum fits by scikit-learn")
    model, inputs, labels = problem()
    theirs, (shown, _, weights) = caught(
        attr.Lime(model), inputs, 0.0, 3, feature_mask=labels[None, None], n_samples=120
    )
    shown = shown.bool()
    ours = on_draws(
        model, inputs, 3, labels[None], 0.0, Table(shown, torch.tensor([len(shown)])),
        Surrogate(shown, weights.double(), "lasso", 0.01),
    )  # fmt: skip
    scale = theirs.abs().max().item()
    assert scale > 0
    torch.testing.assert_close(ours.values, theirs[:, :1].double(), rtol=0, atol=2e-3 * scale)  # their descent's 1e-4


def test_captums_shapley_value_sampling():
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    model, inputs, labels = problem()
    torch.manual_seed(11)
    theirs = attr.ShapleyValueSampling(model).attribute(
        inputs, 0.0, 3, feature_mask=labels[None, None], n_samples=5, perturbations_per_eval=4
    )
    torch.manual_seed(11)
    orders = torch.stack([torch.randperm(16) for _ in range(5)])
    ours = on_draws(model, inputs, 3, labels[None], 0.0, Prefixes((orders,)), OrderMeans(orders))
    torch.testing.assert_close(ours.values, theirs[:, :1].double(), rtol=1e-5, atol=1e-5)
