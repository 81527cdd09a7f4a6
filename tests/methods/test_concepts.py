"""Deep feature factorization: a planted product, the conditions of an optimum, classes by hand, pictures, refusals."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from subjects import Small, global_state, model_state, signals
from torch import nn

import xai_fast as xf
from xai_fast.engine.estimators.factorization import factorized

DFF = xf.DeepFeatureFactorization


def hooked(model, layer, inputs):
    found = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _layer, _args, output: found.append(output))
    with torch.no_grad():
        model(inputs)
    handle.remove()
    return found[0]


def replaced(model, layer, inputs, told):
    handle = model.get_submodule(layer).register_forward_hook(lambda _layer, _args, _output: told)
    with torch.no_grad():
        scores = model(inputs)
    handle.remove()
    return scores


def uniform(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_planted_product_is_found():
    """Each concept alone at some positions and on some channels, which leaves one factorisation."""
    strengths, concepts = uniform(60, 3) * (torch.arange(60)[:, None] % 3 != torch.arange(3)), uniform(3, 12, seed=1)
    concepts[:, :3] = torch.eye(3)
    strengths[:9] = torch.eye(3).repeat(3, 1) * 2
    found = factorized(strengths @ concepts, 3, 0)
    assert found.explained > 1 - 1e-4
    product = found.strengths @ found.concepts
    assert (product - strengths @ concepts).abs().max() < 0.05
    assert min(found.strengths.min(), found.concepts.min()) >= 0
    norms = found.strengths.norm(dim=0) * found.concepts.norm(dim=1)
    assert torch.equal(norms, norms.sort(descending=True).values)


def test_it_ends_where_no_entry_would_rather_change():
    """The Karush-Kuhn-Tucker conditions of the squared error."""
    table = uniform(50, 20)
    found = factorized(table, 4, 0)
    residual = found.strengths @ found.concepts - table
    for factor, slope in (
        (found.strengths, residual @ found.concepts.T),
        (found.concepts, found.strengths.T @ residual),
    ):
        scale = slope.abs().max() + factor.abs().max()
        assert slope[factor == 0].min() > -0.02 * scale
        assert (factor * slope).abs().max() < 0.02 * scale
    assert found.explained == pytest.approx(1 - float(residual.square().sum() / table.square().sum()), rel=1e-9)


def test_of_nothing_and_of_less_than_was_asked_for():
    nothing = factorized(torch.zeros(6, 5), 2, 0)
    assert nothing.explained == 1
    assert not nothing.strengths.any()
    single = factorized(torch.outer(uniform(7), uniform(5, seed=1)), 3, 0)
    assert single.explained > 1 - 1e-9
    assert torch.isfinite(single.strengths).all()


@pytest.mark.parametrize("plan", ["dense", "tail"])
@pytest.mark.parametrize("layer", ["pool", "body_norm"])  # of which the second is negative in places
def test_maps_and_classes_by_hand(layer, plan):
    model, inputs = Small().double(), signals(dtype=torch.float64)
    activation = hooked(model, layer, inputs)
    table = activation.movedim(1, -1).flatten(0, 2)
    none = table.amin(0).clamp_max(0)
    assert (layer == "pool") == bool((none == 0).all())
    factors = factorized(table - none, 3, 7)
    most = factors.strengths.amax(0)
    result = DFF(xf.Engine(model, plan=plan, batch_size=2), layer=layer, n_concepts=3, seed=7)(inputs)
    expected = (factors.strengths / most).view(3, *activation.shape[2:], 3).movedim(-1, 1)
    assert torch.allclose(result.values, expected, atol=1e-9)
    assert result.values.flatten(2).amax(2).amax(0).tolist() == [1, 1, 1]
    assert torch.allclose(result.concepts, none + factors.concepts * most[:, None], atol=1e-9)
    assert result.explained == pytest.approx(factors.explained, rel=1e-9)
    told = torch.cat([none[None], result.concepts])[:, :, None, None].expand(4, -1, *activation.shape[2:])
    scores = replaced(model, layer, inputs[:1].expand(4, -1, -1, -1), told.contiguous())
    assert torch.allclose(result.gains, scores[1:] - scores[:1], atol=1e-9)
    assert result.evaluations.tolist() == [5, 1, 1]
    assert result.evaluations.sum() <= DFF(model, layer=layer, n_concepts=3).cost(inputs.shape).forwards


def test_maps_at_the_size_of_the_input_and_the_same_again():
    model, inputs = Small(), signals()
    method = DFF(model, layer="pool", n_concepts=4)
    before, world = model_state(model), global_state()
    maps = method.attribute(inputs)
    assert maps.shape == (3, 4, 13, 11)
    assert torch.equal(maps, method(inputs).heatmap())
    assert torch.equal(maps, DFF(Small(), layer="pool", n_concepts=4).attribute(inputs))
    assert method.attribute(inputs, resolution="native").shape == (3, 4, 6, 5)
    assert model_state(model) == before
    assert global_state() == world


class Tokens(nn.Module):
    """Patches and a class token that is read."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.patches, self.mix, self.head = nn.Conv2d(3, 8, 3, 3), nn.Linear(8, 8), nn.Linear(8, 5)
            self.start = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x):
        tokens = self.patches(x).flatten(2).mT
        tokens = self.mix(torch.cat([self.start.expand(len(x), -1, -1) + tokens.mean(1, keepdim=True), tokens], 1))
        return self.head(tokens[:, 0])


def test_in_a_transformer_every_token_is_given_the_concept():
    model, inputs = Tokens(), signals(2, (3, 12, 15))
    result = DFF(model, layer="mix", n_concepts=2)(inputs)
    assert result.values.shape == (2, 2, 4, 5)
    expected = model.head(result.concepts) - model.head(hooked(model, "mix", inputs)[:, 1:].amin((0, 1)).clamp_max(0))
    assert torch.allclose(result.gains, expected.detach(), atol=1e-4)


def test_a_model_without_class_scores_has_concepts_too():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1))
    result = DFF(model, layer="1", n_concepts=2)(signals())
    assert result.gains.shape == (2, 0)
    assert result.labels() == [[], []]
    assert isinstance(result.figure(), Image.Image)


def test_names_of_classes_pictures_and_files(tmp_path):
    engine = xf.Engine(Small(), classes=["ant", "bee", "cat", "dog", "eel"])
    method = DFF(engine, layer="pool", n_concepts=3, top_k=2)
    assert repr(eval(repr(method), {"DeepFeatureFactorization": DFF, "engine": engine})) == repr(method)
    result = method(signals())
    best = result.gains[0].argsort(descending=True)[:2].tolist()
    assert [name for name, _ in result.labels()[0]] == [engine.classes[k] for k in best]
    assert [picture.size for picture in result.overlay()] == [(11, 13)] * 3
    assert result.figure().height > result.figure(width=240).height
    assert result._repr_png_().startswith(b"\x89PNG")
    loaded = xf.ConceptMaps.load(result.save(tmp_path).parent)
    assert torch.equal(loaded.values, result.values)
    assert loaded.labels() == result.labels()
    assert repr(loaded) == repr(result)
    assert len(loaded) == 3


def test_signals_are_no_pictures():
    result = DFF(Small(axes=1), layer="pool", n_concepts=2)(signals(2, (3, 9)))
    assert result.heatmap().shape == (2, 2, 9)
    assert result._repr_png_() is None
    with pytest.raises(ValueError, match="`images`"):
        result.overlay()


class Root(nn.Module):
    def forward(self, x):
        return (100 - x).sqrt()


def test_nan_names_the_sample_and_keeps_the_other_maps():
    model = nn.Sequential(Root(), nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    inputs = signals()
    model(inputs)
    inputs[1, 0, 0, 0] = 101
    with pytest.raises(xf.NonFiniteError, match="sample 1 ") as caught:
        DFF(model, layer="2", n_concepts=2)(inputs)
    expected = DFF(model, layer="2", n_concepts=2)(inputs[[0, 2]])
    assert torch.allclose(caught.value.values[[0, 2]], expected.values, atol=1e-5)
    inputs[:, 0, 0, 0] = 101
    with pytest.raises(xf.NonFiniteError, match="samples 0, 1, 2 "):
        DFF(model, layer="2", n_concepts=2)(inputs)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"n_concepts": 0}, ValueError, "`n_concepts`"),
        ({"n_concepts": 2.0}, TypeError, "`n_concepts`"),
        ({"top_k": -1}, ValueError, "`top_k`"),
        ({"seed": -1}, ValueError, "`seed`"),
        ({"layer": ["pool", "stem"]}, ValueError, "`layer`"),
        ({"grid": 3}, TypeError, "`grid`"),
    ],
)
def test_settings_that_fit_no_input(settings, error, said):
    with pytest.raises(error, match=said):
        DFF(Small(), **settings)


def test_what_fits_no_layer_and_targets_are_refused_before_anything_runs():
    model, inputs = Small(), signals()
    with pytest.raises(ValueError, match=r"`n_concepts` is 7.*6 channels.*at most 6"):
        DFF(model, layer="pool", n_concepts=7)(inputs)
    for call in (DFF(model), DFF(model).attribute):
        with pytest.raises(ValueError, match=r"`target`.*no class"):
            call(inputs, 1)
