"""Looking inside: where filters fire, and what they want to see, against hooks, closed forms and a slow replica."""

from __future__ import annotations

import dataclasses
import math
import warnings

import pytest
import torch
from PIL import Image
from subjects import Small, Watch, global_state, model_state, signals
from torch import nn
from torch.nn import functional

import xai_fast as xf
from xai_fast.methods.activation_maximization import ActivationMaximization
from xai_fast.methods.distortions import Distortions
from xai_fast.methods.filter_activation import FilterActivation
from xai_fast.methods.parametrizations import Pixels, Spectrum
from xai_fast.results.filter_images import FilterImages
from xai_fast.results.filter_maps import FilterMaps

PREPROCESS = xf.Preprocess(resize=None, crop=(13, 11), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
parametrizations = pytest.mark.parametrize("parametrization", ["pixels", "fourier"])


def hooked(model, layer, inputs):
    """What the model's own layer returns, as (N, channels, *s)."""
    found = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _layer, _args, output: found.append(output))
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        handle.remove()
    return found[0] if found[0].ndim > 2 else found[0][..., None, None]


@pytest.fixture(scope="module")
def demo():
    return xf.load("demo")


@pytest.fixture(scope="module")
def photos(demo):
    from xai_fast.models.demo import photographs

    images = torch.stack([demo.preprocess(photo) for photo in photographs(("cat", "coffee"))])
    return functional.interpolate(images, (96, 96), mode="bilinear", antialias=True)


# Where filters fire.


@pytest.mark.parametrize("plan", ["dense", "tail", "auto"])
@pytest.mark.parametrize("layer", ["stem", "stem_norm", "pool", "body_norm", "head"])
def test_activations_are_what_the_layer_returns(layer, plan):
    model, inputs = Small().double(), signals(dtype=torch.float64)
    expected = hooked(model, layer, inputs)[:, [4, 0]]
    maps = FilterActivation(xf.Engine(model, plan=plan, batch_size=2), layer=layer, filters=[4, 0])(inputs)
    assert maps.values.shape == expected.shape
    assert torch.allclose(maps.values, expected, atol=1e-12, rtol=0)
    assert (maps.layer, maps.filters, maps.size) == (layer, (4, 0), (13, 11))
    assert maps.evaluations.tolist() == [1, 1, 1]


def test_activations_at_the_size_of_the_input():
    model, inputs = Small(), signals()
    method = FilterActivation(model, layer="pool", filters=2)
    native = hooked(model, "pool", inputs)[:, 2:3]
    expected = functional.interpolate(native, (13, 11), mode="bilinear", align_corners=False)
    assert torch.allclose(method.attribute(inputs), expected, atol=1e-5)
    assert torch.allclose(method.attribute(inputs, resolution="native"), native, atol=1e-5)
    assert torch.allclose(method(inputs).heatmap(), expected, atol=1e-5)


def test_all_filters_and_the_automatic_layer():
    model, inputs = Small(), signals()
    maps = FilterActivation(model)(inputs)
    assert maps.filters == tuple(range(6))
    assert maps.layer == xf.Engine.of(model).layers("auto", inputs)[0]
    assert torch.allclose(maps.values, hooked(model, maps.layer, inputs), atol=1e-5)


@pytest.mark.parametrize("axes", [1, 3])
def test_activations_on_signals_and_volumes(axes):
    model, inputs = Small(axes=axes), signals(2, (3, 9, 7, 8)[: axes + 1])
    maps = FilterActivation(model, layer="pool", filters=[1, 5])(inputs)
    assert torch.allclose(maps.values, hooked(model, "pool", inputs)[:, [1, 5]], atol=1e-5)
    assert maps.heatmap().shape == (2, 2, *inputs.shape[2:])
    assert maps._repr_png_() is None
    with pytest.raises(ValueError, match="`images`"):
        maps.overlay()


class Tokens(nn.Module):
    """Patches of 4 pixels as tokens behind a class token, as in ViT, or as a grid with channels last, as in Swin."""

    def __init__(self, grid):
        super().__init__()
        self.grid, self.patches, self.mix, self.head = grid, nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.patches(x)
        x = x.permute(0, 2, 3, 1) if self.grid else functional.pad(x.flatten(2).transpose(1, 2), (0, 0, 1, 0))
        x = self.mix(x)
        return self.head(x.flatten(1, -2).mean(1))


@pytest.mark.parametrize("grid", [False, True], ids=["tokens", "channels last"])
def test_activations_and_pictures_of_transformers(grid):
    torch.manual_seed(0)
    model, inputs = Tokens(grid), signals(2, (3, 16, 24))
    expected = model.mix(model.patches(inputs).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)[:, [5, 1]].detach()
    maps = FilterActivation(model, layer="mix", filters=[5, 1])(inputs)
    assert torch.allclose(maps.values, expected, atol=1e-5)
    seen = ActivationMaximization(model, layer="mix", filters=[5, 1], start="image", n_steps=3)(inputs)
    assert torch.allclose(seen.history[0], expected.sum((2, 3)), atol=1e-4)
    assert (seen.history[3] > seen.history[0]).all()


def test_nothing_runs_behind_the_layer():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before, behind = Watch(), Watch()
        model = nn.Sequential(before, nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), behind, nn.Flatten())
    inputs = signals(5)
    for plan in ("auto", "dense"):
        engine = xf.Engine(model, plan=plan, batch_size=2)
        methods = (
            (FilterActivation(engine, layer="1", filters=0), (inputs,), 5),
            (ActivationMaximization(engine, layer="1", filters=[0, 2], start="image", n_steps=3), (inputs,), 40),
        )
        for method, args, rows in methods:
            method(*args)
            before.record.chunks.clear()
            behind.record.chunks.clear()
            result = method(*args)
            assert (before.record.rows, behind.record.rows) == (rows, 0)
            assert max(before.record.chunks) == 2
            assert int(result.evaluations.sum()) == rows
            assert method.cost((5, 3, 13, 11)).forwards == rows
    assert ActivationMaximization(model, layer="1", filters=None).cost((3, 13, 11)) == xf.Cost(412, 400)


def test_the_output_may_be_anything():
    """A filter is about no class, so nobody asks for a table of scores."""

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return {"boxes": [self.conv(x).mean((2, 3))], "sizes": "large"}

    model, inputs = Detector(), signals(2)
    engine = xf.Engine(model, output=lambda raw: raw.logits)
    maps = FilterActivation(engine, layer="conv", filters=1)(inputs)
    assert torch.allclose(maps.values, model.conv(inputs)[:, 1:2].detach(), atol=1e-5)
    seen = ActivationMaximization(engine, layer="conv", filters=1, start="image", n_steps=2)(inputs)
    assert (seen.scores[1] > seen.scores[0]).all()


def test_looking_at_a_linear_layer_does_not_fix_the_number_of_classes():
    model = nn.Sequential(nn.Flatten(), nn.Linear(429, 3), nn.Linear(3, 9))
    FilterActivation(model, layer="1")(signals())
    ActivationMaximization(model, layer="1", filters=0, start="image", n_steps=1)(signals())
    assert xf.Saliency(model).attribute(signals(), 8).shape == (3, 3, 13, 11)


def test_nan_is_reported_for_its_sample():
    model = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), Logarithm())
    nn.init.ones_(model[0].weight)
    inputs = torch.stack([torch.ones(3, 4, 4), -torch.ones(3, 4, 4)])
    with pytest.raises(xf.NonFiniteError) as caught:
        FilterActivation(model, layer="1", filters=1)(inputs)
    assert caught.value.samples == [1]
    assert torch.allclose(caught.value.values[0], torch.tensor(3.0).log())


class Logarithm(nn.Module):
    """NaN for negative numbers."""

    def forward(self, x):
        return x.log()


# What filters want to see.


def climbed(model, layer, channel, image, *, n_steps, lr, bounds=None):
    """The method, slowly: one picture, one filter, Adam written out, in float64."""
    image = image.double().clone()
    first, second, history = torch.zeros_like(image), torch.zeros_like(image), []
    for step in range(1, n_steps + 2):
        leaf = image.clone().requires_grad_()
        found = []
        handle = model.get_submodule(layer).register_forward_hook(lambda _l, _a, output: found.append(output))  # noqa: B023
        model(leaf[None])
        handle.remove()
        score = found[0][0, channel].sum()
        history.append(score.item())
        if step > n_steps:
            return image, torch.tensor(history, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(score, leaf)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        image = image + lr * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        if bounds is not None:
            image = image.clamp(*bounds)


@pytest.mark.parametrize("known", [False, True], ids=["free", "displayable"])
def test_pixels_equal_their_replica(known):
    model, images = Small().double(), 0.3 * signals(2, dtype=torch.float64)
    engine = xf.Engine(model, preprocess=PREPROCESS if known else None, batch_size=3)
    bounds = [PREPROCESS.value_of(level).double().view(3, 1, 1) for level in (0.0, 1.0)] if known else None
    seen = ActivationMaximization(engine, layer="body_norm", filters=[3, 0], start="image", n_steps=12, lr=0.3)(images)
    assert seen.images.shape == (2, 2, 3, 13, 11)
    assert seen.history.shape == (13, 2, 2)
    for n in range(2):
        for k, channel in enumerate((3, 0)):
            start = images[n] if bounds is None else images[n].clamp(*bounds)
            image, history = climbed(model, "body_norm", channel, start, n_steps=12, lr=0.3, bounds=bounds)
            assert torch.allclose(seen.images[n, k], image, atol=1e-9, rtol=0)
            assert torch.allclose(seen.history[:, n, k], history, atol=1e-8, rtol=0)


def test_a_linear_filter_moves_by_the_sign_of_its_gradient():
    """The gradient is the same everywhere, so every step of Adam is the step size: the closed form."""
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), signals(2)
    seen = ActivationMaximization(model, layer="0", filters=[2, 1], start="image", n_steps=10, lr=0.05)(images)
    for k, channel in enumerate((2, 1)):
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model[0](leaf)[:, channel].sum(), leaf)
        assert torch.allclose(seen.images[:, k], images + 0.5 * gradient.sign(), atol=1e-4)
        rise = 0.05 * gradient.abs().flatten(1).sum(1)
        expected = seen.history[0, :, k] + torch.arange(11)[:, None] * rise
        assert torch.allclose(seen.history[:, :, k], expected, rtol=1e-4, atol=1e-3)


@parametrizations
@pytest.mark.parametrize("start", ["noise", "image"])
def test_activations_rise_on_a_trained_network(demo, photos, start, parametrization):
    method = ActivationMaximization(
        demo.model, layer="layer3", filters=[7, 86], start=start, n_steps=25, parametrization=parametrization
    )
    seen = method(photos) if start == "image" else method(size=96)
    first, last = seen.scores
    assert (last > 2.5 * first.clamp_min(100)).all()
    assert (seen.history.diff(dim=0) > 0).float().mean() > 0.9
    black, white = (demo.preprocess.value_of(level).view(3, 1, 1) for level in (0.0, 1.0))
    assert ((seen.images >= black - 1e-5) & (seen.images <= white + 1e-5)).all()
    assert seen.evaluations.tolist() == [52, 52] if start == "image" else [60]


@parametrizations
def test_the_history_begins_and_ends_with_the_picture_itself(parametrization):
    """Whatever the model was shown in between."""
    model, images = Small().double(), signals(2, dtype=torch.float64)
    engine = xf.Engine(model, preprocess=PREPROCESS)
    settings = {"parametrization": parametrization, "jitter": 3, "scale": 0.3, "blur": 1.0, "n_steps": 4}
    seen = ActivationMaximization(engine, layer="pool", filters=[1, 4], start="image", **settings)(images)
    end = hooked(model, "pool", seen.images.flatten(0, 1)).unflatten(0, (2, 2))[:, [0, 1], [1, 4]].sum((2, 3))
    assert torch.allclose(seen.history[-1], end, atol=1e-9)
    shown = PREPROCESS.pixels(images).clamp(*((0.01, 0.99) if parametrization == "fourier" else (0, 1)))
    mean, std = (torch.tensor(s, dtype=torch.float64).view(3, 1, 1) for s in (PREPROCESS.mean, PREPROCESS.std))
    start = hooked(model, "pool", (shown - mean) / std)[:, [1, 4]].sum((2, 3))
    assert torch.allclose(seen.history[0], start, atol=1e-5)  # statistics are float32
    assert torch.equal(seen.scores, seen.history[[0, -1]])
    plain = ActivationMaximization(engine, layer="pool", filters=[1, 4], start="image", **{**settings, "jitter": 0})
    assert not torch.allclose(plain(images).history[1:-1], seen.history[1:-1], atol=1e-3)


@parametrizations
@pytest.mark.parametrize("start", ["noise", "image"])
def test_filters_in_one_batch_equal_one_by_one(start, parametrization):
    model, images = Small().double(), signals(2, dtype=torch.float64)
    settings = {"layer": "pool", "start": start, "parametrization": parametrization, "n_steps": 6}
    settings |= {"jitter": 2, "scale": 0.2, "blur": 0.7}

    def run(engine, filters, images):
        method = ActivationMaximization(engine, filters=filters, **settings)
        return method(images) if start == "image" else method(size=(13, 11))

    together = run(xf.Engine(model, batch_size=100), [4, 0, 2], images)
    for batch_size in (1, 2):
        other = run(xf.Engine(model, batch_size=batch_size), [4, 0, 2], images)
        assert torch.allclose(other.images, together.images, atol=1e-9)
    for k, channel in enumerate((4, 0, 2)):
        for n in range(len(together)):
            alone = run(xf.Engine(model), channel, images[n : n + 1])
            assert torch.allclose(alone.images[0, 0], together.images[n, k], atol=1e-9)
            assert torch.allclose(alone.history[:, 0, 0], together.history[:, n, k], atol=1e-8)


@parametrizations
def test_seeds(parametrization):
    model = Small()

    def run(seed, **settings):
        method = ActivationMaximization(
            model, layer="pool", filters=1, parametrization=parametrization, n_steps=3, seed=seed, **settings
        )
        return method(size=16).images

    before = global_state()
    assert torch.equal(run(5), run(5))
    assert torch.equal(run(5, jitter=4), run(5, jitter=4))
    assert not torch.allclose(run(5), run(6), atol=0.1)
    assert not torch.allclose(run(5), run(5, jitter=4), atol=0.01)
    assert global_state() == before


class Threshold(nn.Module):
    """Two filters behind a ReLU: the mean of 9x9 pixels must exceed 0.7 for the first, 70 for the second."""

    def __init__(self):
        super().__init__()
        self.layer = nn.ReLU()

    def forward(self, x):
        mean = functional.avg_pool2d(x.mean(1, keepdim=True), 9, 1)
        return self.layer(torch.cat([mean - 0.7, mean - 70], 1)).mean((2, 3))


def test_silent_filters_begin_where_they_fire_or_are_named():
    white = FilterActivation(Threshold(), layer="layer")(signals(1, (3, 32, 32)))
    assert white.values.max() == 0, "the case tells nothing"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = ActivationMaximization(Threshold(), layer="layer", filters=0, n_steps=5)(size=32)
    assert seen.scores[1] > seen.scores[0]
    assert seen.scores[0] > 0
    with pytest.warns(UserWarning, match="`filters` 1 of layer 'layer' stayed at zero"):
        seen = ActivationMaximization(Threshold(), layer="layer", filters=[0, 1], n_steps=5)(size=32)
    assert seen.scores[1, 0, 0] > 0


def test_nan_stops_and_names_the_filter():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), Logarithm())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1, 1], [1, 1, -1.99], [1, 1, 1]])[..., None, None])
    good, bad = torch.ones(3, 4, 4), -torch.ones(3, 4, 4)
    method = ActivationMaximization(model, layer="1", filters=[2, 0], start="image", n_steps=5)
    with pytest.raises(FloatingPointError, match=r"filter 2 of layer '1'.* 0 of 5 steps on the picture of image 1"):
        method(torch.stack([good, bad]))
    with pytest.raises(FloatingPointError, match=r"filter 2 .* after 0 of 5 .* of image 0"):
        method(bad[None])
    with pytest.raises(FloatingPointError, match=r"filter 2 .* after 0 of 5 steps on the picture;"):
        ActivationMaximization(model, layer="1", filters=2, n_steps=5)(size=8)
    # Blur mixes the borders in, and the second filter's logarithm is of nearly nothing.
    shown = torch.stack([good, good])
    shown[1, 2, 0, 0] = 1.5
    with pytest.raises(FloatingPointError, match=r"filter 1 .* of image 1"):
        ActivationMaximization(model, layer="1", filters=[0, 1], start="image", n_steps=5)(shown)


def test_nan_on_the_way_says_after_how_many_steps():
    class Falls(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            return self.layer((1 - x[:, :1].clamp_min(0)).sqrt() + 3 * x[:, :1])

    images = torch.full((1, 3, 4, 4), 0.75)
    with pytest.raises(FloatingPointError, match=r"filter 0 of layer 'layer' .* after 3 of 9 steps"):
        ActivationMaximization(Falls(), layer="layer", filters=0, start="image", n_steps=9)(images)


@pytest.mark.parametrize("axes", [1, 3])
@parametrizations
def test_pictures_of_signals_and_volumes(axes, parametrization):
    model, inputs = Small(axes=axes).double(), signals(2, (3, 9, 7, 8)[: axes + 1], torch.float64)
    settings = {"layer": "pool", "filters": [0, 3], "parametrization": parametrization, "n_steps": 8, "start": "image"}
    engine = xf.Engine(model, preprocess=PREPROCESS)  # which is about photos, and changes nothing here
    seen = ActivationMaximization(engine, **settings)(inputs)
    assert seen.images.shape == (2, 2, *inputs.shape[1:])
    assert (seen.scores[1] > seen.scores[0]).all()
    moved = ActivationMaximization(model, **settings, jitter=1, scale=0.1, blur=0.5)(inputs)
    assert moved.images.isfinite().all()
    assert not torch.allclose(moved.images, seen.images, atol=0.01)
    assert seen._repr_png_() is None


@pytest.mark.parametrize("mode", ["fast"])
def test_reduced_precision(mode):
    model, images = Small(), signals(2)
    seen = ActivationMaximization(xf.Engine(model, mode=mode), layer="pool", filters=[0, 3], start="image")(images)
    exact = ActivationMaximization(model, layer="pool", filters=[0, 3], start="image")(images)
    assert seen.images.dtype is torch.float32
    assert torch.allclose(seen.scores, exact.scores, rtol=0.05)


def test_sizes_of_noise(demo):
    model = Small()
    method = ActivationMaximization(model, layer="pool", filters=0, n_steps=1)
    for size, shape in ((16, (3, 16, 16)), ((13, 11), (3, 13, 11)), ((3, 9, 8), (3, 9, 8)), (None, (3, 224, 224))):
        assert method(size=size).images.shape == (1, 1, *shape)
    known = ActivationMaximization(xf.Engine(model, preprocess=PREPROCESS), layer="pool", filters=0, n_steps=1)
    assert known().images.shape == (1, 1, 3, 13, 11)
    grey = ActivationMaximization(Small(channels=1), layer="pool", filters=0, n_steps=1)
    assert grey(size=9).images.shape == (1, 1, 1, 9, 9)
    assert ActivationMaximization(demo.model, layer="stem", filters=0, n_steps=1)().images.shape == (1, 1, 3, 224, 224)


def test_progress():
    seen = []
    engine = xf.Engine(Small(), progress=lambda done, total: seen.append((done, total)), batch_size=2)
    ActivationMaximization(engine, layer="pool", filters=[0, 1], start="image", n_steps=3)(signals(2))
    assert seen[-1] == (16, 16)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


# The parts of the second method.


@pytest.mark.parametrize("size", [(13, 11), (8, 12), (1, 5), (7,), (4, 5, 6)], ids=str)
@pytest.mark.parametrize("preprocess", [None, PREPROCESS], ids=["free", "displayable"])
def test_a_spectrum_begins_at_the_picture(size, preprocess):
    images = 0.3 * signals(2, (3, *size), torch.float64)
    spectrum = Spectrum((3, *size), preprocess)
    assert torch.allclose(spectrum.picture(spectrum.parameters(images)), images, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (63, 65)], ids=str)
def test_parameters_of_variance_one_are_a_picture_of_variance_one_in_the_colours_of_photographs(size):
    spectrum = Spectrum((3, *size), None)
    generator = torch.Generator().manual_seed(0)
    shape = (200, 3, size[0], size[1] // 2 + 1, 2)
    pictures = spectrum.picture(torch.randn(shape, generator=generator, dtype=torch.float64))
    assert pictures.var(correction=0).item() == pytest.approx(1, rel=0.03)
    pixels = pictures.movedim(1, -1).flatten(0, -2)
    axes = torch.tensor([[1.0, 1, 1], [1, 0, -1], [-1, 2, -1]], dtype=torch.float64)
    along = pixels @ functional.normalize(axes, dim=1).T
    covariance = along.T.cov() / along.T.cov().trace()
    assert torch.allclose(covariance.diagonal(), torch.tensor([0.882, 0.106, 0.012], dtype=torch.float64), atol=0.03)
    # Half the frequency, twice the amplitude.
    power = torch.fft.rfft2(pictures[:, 0]).abs().square().mean(0)
    assert (power[0, 3:6].mean() / power[0, 12:24:4].mean()).sqrt().item() == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_both_blurs_are_gaussian(sigma):
    """A wave keeps its shape and loses the Gaussian's share of its height."""
    places = torch.arange(48, dtype=torch.float64)
    wave = torch.sin(2 * math.pi * places / 8).expand(1, 3, 48, 48)
    expected = math.exp(-2 * (math.pi * sigma / 8) ** 2)
    pixels = Pixels((3, 48, 48), None).settle(wave, sigma)[..., 12:-12]
    assert torch.allclose(pixels, expected * wave[..., 12:-12], atol=0.02)
    spectrum = Spectrum((3, 48, 48), None)
    assert torch.allclose(spectrum.picture(spectrum.settle(spectrum.parameters(wave), sigma)), expected * wave)


def test_blur_ends_before_the_last_step():
    model, images = Small().double(), signals(1, dtype=torch.float64)
    settings = {"layer": "pool", "filters": 0, "start": "image", "lr": 0.0}
    assert torch.equal(ActivationMaximization(model, n_steps=1, blur=3.0, **settings)(images).images[0], images)
    twice = ActivationMaximization(model, n_steps=2, blur=3.0, **settings)(images).images[0]
    assert torch.allclose(twice, Pixels((3, 13, 11), None).settle(images, 1.5), atol=1e-12)


def test_distortions_roll_and_enlarge_around_the_centre():
    ramp = torch.arange(21, dtype=torch.float64).expand(1, 1, 21, 21) - 10
    rolled = Distortions(50, 2, 3, 0.0, 0)
    shifts = {int((rolled(ramp, step)[0, 0, 0, 10] - 10 + 21 + 10) % 21) for step in range(50)}
    assert shifts <= {18, 19, 20, 0, 1, 2, 3}
    assert len(shifts) == 7
    zoomed = Distortions(50, 2, 0, 0.5, 0)
    slopes = torch.stack([zoomed(ramp, step)[0, 0, 0, 8:13].diff() for step in range(50)])
    assert torch.allclose(slopes, slopes[:, :1], atol=1e-9)
    assert all(abs(zoomed(ramp, step)[0, 0, 0, 10]) < 1e-9 for step in range(50))
    factors = 1 / slopes[:, 0]
    assert ((factors >= 0.5) & (factors <= 1.5)).all()
    assert factors.max() > 1.4
    assert factors.min() < 0.6
    mirrored = zoomed(ramp, int(factors.argmin()))
    assert mirrored.max() <= 10
    assert mirrored[0, 0, 0, 0] > mirrored[0, 0, 0, 3]
    assert torch.equal(Distortions(3, 2, 0, 0.0, 0)(ramp, 1), ramp)


# What both leave behind.

METHODS = {
    "maps": lambda model: FilterActivation(model, layer="pool", filters=[1, 4]),
    "images": lambda model: ActivationMaximization(model, layer="pool", filters=[1, 4], start="image", n_steps=2),
}
both = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())


@pytest.mark.parametrize("lock", [False, True], ids=["copied", "uncopyable"])
@pytest.mark.parametrize("fails", [False, True], ids=["well", "failing"])
@both
def test_everything_is_left_as_found(make, fails, lock):
    model, inputs = Small(lock=lock, dropout=0.5), signals()
    model.train()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    method, kept = make(model), inputs.clone()
    method(inputs)
    before, outside = model_state(model), global_state()
    if fails:
        model.record.react = explode
        with pytest.raises(RuntimeError, match="boom"):
            method(inputs)
    else:
        method(inputs)
    assert model_state(model) == before
    assert global_state() == outside
    assert torch.equal(inputs, kept)


def explode(_batch):
    raise RuntimeError("boom")


@both
def test_repr_rebuilds_the_method(make):
    method = make(Small())
    scope = {"engine": method.engine, type(method).__name__: type(method)}
    assert repr(eval(repr(method), scope)) == repr(method)
    with pytest.raises(AttributeError):
        method.filters = 3


@both
def test_dtypes_and_layouts_come_back(make):
    model, inputs = Small(), signals(2)
    expected = make(model)(inputs).numpy()
    for variant in (inputs.double(), inputs.to(memory_format=torch.channels_last), inputs.mT.contiguous().mT):
        result = make(model)(variant)
        tensor = result.values if isinstance(result, FilterMaps) else result.images
        assert tensor.dtype is variant.dtype
        assert abs(result.numpy() - expected).max() < 1e-2


def test_maps_survive_the_disk(tmp_path):
    maps = METHODS["maps"](xf.Engine(Small(), preprocess=PREPROCESS))(signals())
    again = FilterMaps.load(maps.save(tmp_path).parent)
    for key in ("values", "photos", "evaluations"):
        assert torch.equal(getattr(again, key), getattr(maps, key))
    for key in ("layer", "filters", "size", "method", "seconds"):
        assert getattr(again, key) == getattr(maps, key)
    assert again._repr_png_() == maps._repr_png_()
    assert repr(again) == repr(maps)
    with pytest.raises(ValueError, match="holds no FilterImages"):
        FilterImages.load(tmp_path / "filter_maps.safetensors")
    with pytest.raises(ValueError, match="`path`"):
        FilterMaps.load(tmp_path / "nothing")


@pytest.mark.parametrize("start", ["noise", "image"])
def test_images_survive_the_disk(tmp_path, start):
    method = ActivationMaximization(
        xf.Engine(Small(), preprocess=PREPROCESS), layer="pool", filters=[1, 4], n_steps=2, start=start
    )
    seen = method(signals()) if start == "image" else method()
    again = FilterImages.load(seen.save(tmp_path))
    for key in ("images", "history", "evaluations"):
        assert torch.equal(getattr(again, key), getattr(seen, key))
    for key in ("layer", "filters", "method", "seconds", "preprocess"):
        assert getattr(again, key) == getattr(seen, key)
    assert (again.starts is None) == (start == "noise")
    assert again._repr_png_() == seen._repr_png_()
    assert torch.equal(again.to("cpu").images, seen.images)


def test_pictures_of_maps(demo, photos):
    maps = FilterActivation(demo.model, layer="layer2", filters=[3, 9, 1])(photos)
    pictures = maps.overlay()
    assert [picture.size for picture in pictures] == [(96, 96)] * 6
    assert maps.overlay(photos)[4].tobytes() == pictures[4].tobytes()
    large = maps.overlay([Image.new("RGB", (300, 300))] * 2, style="heatmap", scale=None)
    assert large[0].size == (224, 224)
    rows = maps.figure(width=120).size
    assert rows[0] > 4 * 120
    assert maps.figure(width=120, n_filters=2).size[0] < rows[0]
    # A filter's scale is shared by its column: where it is silent the picture says so.
    quiet = FilterMaps(torch.stack([torch.zeros(1, 8, 8), torch.eye(8)[None]]), "a", (0,), (8, 8), "m", torch.ones(2))
    blank = quiet.overlay([Image.new("RGB", (8, 8))] * 2, style="heatmap")[0]
    assert len(blank.getcolors()) == 1
    with pytest.raises(ValueError, match="`images` holds 1 and the result is about 2"):
        maps.overlay(photos[:1])


def test_the_sheet_shows_the_filters_that_fire_most():
    values = torch.zeros(2, 20, 4, 4)
    values[1, 13, 2, 2], values[0, 4, 1, 1], values[0, 5] = 5, 4, -9
    maps = FilterMaps(values, "layer", tuple(range(20)), (8, 8), "method", torch.ones(2))
    assert maps.signed
    assert maps.strongest(2) == [13, 4]


def test_pictures_of_images(demo, photos):
    method = ActivationMaximization(demo.model, layer="layer1", filters=[3, 9], start="image", n_steps=2)
    seen = method(photos)
    pictures = seen.pictures()
    assert [picture.size for picture in pictures] == [(96, 96)] * 4
    expected = (demo.preprocess.pixels(seen.images[1, 0]) * 255).round().byte().permute(1, 2, 0)
    assert pictures[2].tobytes() == bytes(expected.flatten().tolist())
    assert torch.allclose(seen.changes(), (seen.images - photos[:, None]).abs().sum(2))
    assert [picture.size for picture in seen.overlay()] == [(96, 96)] * 4
    noise = ActivationMaximization(demo.model, layer="layer1", filters=None, n_steps=1)(size=32)
    assert len(noise.pictures()) == 24
    assert noise.figure(width=120).size[0] < 8 * 120
    with pytest.raises(ValueError, match='use start="image"'):
        noise.overlay()


# Wrong usage.

FILTERS = {
    "a float": (1.5, TypeError),
    "a truth value": (True, TypeError),
    "a string": ("3", TypeError),
    "floats": ([1.0], TypeError),
    "none": ([], ValueError),
    "negative": (-1, ValueError),
    "one negative": ([2, -3], ValueError),
    "twice": ([2, 3, 2], ValueError),
}
SETTINGS = {
    "start": ("photo", None, 3),
    "parametrization": ("spectrum", None),
    "n_steps": (-5, 0, 2.5, True, "many"),
    "lr": (-0.1, "fast", float("nan"), None),
    "jitter": (-1, 0.5),
    "blur": (-1.0, float("nan"), "much"),
    "scale": (-0.1, 0.6, float("nan")),
    "seed": (-1, 1.5, None),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("cls", [FilterActivation, ActivationMaximization])
def test_wrong_filters(cls, name):
    value, error = FILTERS[name]
    with pytest.raises(error, match="`filters`"):
        cls(Small(), layer="pool", filters=value)


@pytest.mark.parametrize("cls", [FilterActivation, ActivationMaximization])
def test_filters_may_come_as_numbers_of_any_kind(cls):
    for filters in ((1, 4), range(1, 5, 3), torch.tensor([1, 4]), torch.tensor([1, 4]).numpy()):
        assert cls(Small(), layer="pool", filters=filters).filters == [1, 4]
    assert cls(Small(), layer="pool", filters=torch.tensor(4)).filters == 4


@both
def test_a_filter_that_the_layer_does_not_have(make):
    model, inputs = Small(), signals(7)
    method = dataclasses.replace(make(model), filters=[0, 6])
    with pytest.raises(ValueError, match="`filters` 6 is not in layer 'pool', which has 6; give numbers from 0 to 5"):
        method(inputs)
    assert model.record.rows <= 1


@pytest.mark.parametrize("cls", [FilterActivation, ActivationMaximization])
def test_wrong_layers(cls):
    model = Small()
    with pytest.raises(ValueError, match="`layer` 'pol' is not a layer"):
        cls(model, layer="pol", filters=0)
    with pytest.raises(ValueError, match="`layer` came as a list"):
        cls(model, layer=["pool"], filters=0)
    with pytest.raises(TypeError, match=r"`layer` needs a torch\.nn\.Module"):
        cls(lambda x: x, layer="pool", filters=0)
    assert cls(model, layer=model.pool, filters=0).layer == "pool"
    assert model.record.rows == 0


def test_layers_that_run_twice_or_never():
    conv = nn.Conv2d(3, 3, 1)
    twice = nn.Sequential(conv, nn.ReLU(), conv)
    spare = Small()
    spare.unused = nn.Conv2d(3, 3, 1)
    for model, layer, said in ((twice, "0", "more than once"), (spare, "unused", "never")):
        with pytest.raises(ValueError, match=f"`layer` '{layer}' runs {said}"):
            FilterActivation(model, layer=layer)(signals())
        with pytest.raises(ValueError, match=f"`layer` '{layer}' runs {said}"):
            ActivationMaximization(model, layer=layer, filters=0)(size=8)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in SETTINGS.items() for value in values])
def test_wrong_settings(name, value):
    with pytest.raises(ValueError, match=f"`{name}` came as"):
        ActivationMaximization(Small(), layer="pool", filters=0, **{name: value})


def test_a_target_has_no_meaning():
    model = Small()
    method = FilterActivation(model, layer="pool")
    for call in (method, method.attribute):
        with pytest.raises(ValueError, match="`target` came as 3, and a filter's activation is about no class"):
            call(signals(), 3)
    assert model.record.rows == 0


def test_wrong_calls():
    model = Small()
    noise = ActivationMaximization(model, layer="pool", filters=0)
    image = ActivationMaximization(model, layer="pool", filters=0, start="image")
    with pytest.raises(ValueError, match='`images` came, but start="noise"'):
        noise(signals())
    with pytest.raises(ValueError, match="`images` are missing"):
        image()
    with pytest.raises(ValueError, match="`size` came as 32"):
        image(signals(), size=32)
    for size in (0, -3, (3,), (8, 0), 2.5, "large", (8.0, 8), True):
        with pytest.raises(ValueError, match="`size` came as"):
            noise(size=size)
    with pytest.raises(ValueError, match="`inputs` hold NaN"):
        image(signals() * math.nan)
    with pytest.raises(TypeError, match="`inputs` came as a list"):
        image([signals()])
    with pytest.raises(ValueError, match="without batch axis"):
        image(signals()[0])
    with pytest.raises(ValueError, match="`resolution`"):
        FilterActivation(model, layer="pool").attribute(signals(), resolution="full")
    assert model.record.rows == 0
