"""Re-running only the region that a window reaches gives the numbers of the whole model, or is not done at all.

The same three kinds of models as in `test_tail.py`, from where the stubborn ones come; and variants other than windows.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import generated
import networks
import numpy as np
import pytest
import test_tail
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from torch import nn
from torch.nn import functional as F

import xai_fast as xf
from xai_fast.engine import Recipe
from xai_fast.engine.reducers.coverage import CoverageMean
from xai_fast.engine.replay.local.grouping import grouped
from xai_fast.engine.replay.local.local import PLANS
from xai_fast.engine.replay.local.replay import Replay
from xai_fast.engine.samplers.masks import HiddenMasks
from xai_fast.engine.samplers.windows import Windows
from xai_fast.graph.processor import assuming

one_thread = test_tail.one_thread


def occlusion(model, plan, inputs, target=None, *, window=5, stride=3, baseline=0.0, **options):
    """The map under a plan, from a fresh engine on a copy; or the ValueError that came instead."""
    engine = xf.Engine(copy.deepcopy(model), plan=plan, **options)
    try:
        return xf.Occlusion(engine, window=window, stride=stride, baseline=baseline).attribute(inputs, target)
    except ValueError as error:
        return error


def assert_same(model, inputs, target=None, *, plan="local", **settings):
    """The same map locally and densely; returns what the local plan gave."""
    expected = occlusion(model, "dense", inputs, target, **settings)
    actual = occlusion(model, plan, inputs, target, **settings)
    if isinstance(expected, Exception):
        assert isinstance(actual, Exception), f"{expected} became a map"
        return actual
    if not isinstance(actual, Exception):
        assert actual.shape == expected.shape
        error = (actual - expected).abs().max().item()
        assert error <= 1e-10 * max(expected.abs().max().item(), 1e-3), f"off by {error:.2e}"
    return actual


def assert_local(model, inputs, target=None, **settings):
    """The same map, and the local plan was taken."""
    actual = assert_same(model, inputs, target, **settings)
    assert isinstance(actual, torch.Tensor), actual


def local_plan(engine):
    """The local plan that an engine's last call has kept."""
    (store,) = engine.store.contents().prepared.values()
    return next(found for found in next(iter(store.made.values())).all(PLANS) if not isinstance(found, str))


# Random networks


def compare_on(net, drawing):
    inputs = generated.inputs(net.double(), dtype=torch.float64)
    window = (drawing.draw(st.integers(1, 7)), drawing.draw(st.integers(1, 7)))
    stride = (drawing.draw(st.integers(1, 6)), drawing.draw(st.integers(2, 6)))
    assert_same(net, inputs, window=window, stride=stride)


@test_tail.examples(40)
@given(net=generated.networks(), drawing=st.data())
def test_windows_on_a_random_network(net, drawing):
    compare_on(net, drawing)


@pytest.mark.slow
@test_tail.examples(500)
@given(net=generated.networks(max_depth=6), drawing=st.data())
def test_windows_on_many_random_networks(net, drawing):
    compare_on(net, drawing)


def test_most_random_networks_have_a_local_plan():
    """A test that only ever meets refusals would prove nothing."""
    nets = [generated.network(seed, depth=3).double() for seed in range(24)]
    found = [occlusion(net, "local", generated.inputs(net, n=1, dtype=torch.float64)) for net in nets]
    assert sum(isinstance(part, torch.Tensor) for part in found) >= 18


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", generated.ARCHITECTURES)
def test_maps_of_scores_with_a_callable_target(name, seed):
    model = generated.ARCHITECTURES[name](seed).double()
    assert_local(model, generated.inputs(model, dtype=torch.float64), generated.inner)


# torchvision

GLOBAL = {"vit", "vit_b_16"}  # attention from the first block on: only what precedes it is local


@pytest.mark.parametrize("name", test_tail.NARROW)
def test_narrow_torchvision_networks(name):
    actual = assert_same(test_tail.narrow(name), networks.photos(2, 64).double(), window=15, stride=16)
    assert isinstance(actual, torch.Tensor), actual


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in test_tail.EVERY_TIME else pytest.mark.slow) for name in test_tail.FULL],
)
def test_full_torchvision_networks(name):
    model, inputs, target = test_tail.full(name)
    assert_local(model, inputs, target, window=15, stride=24)


@pytest.mark.parametrize(
    "name", ["resnet18", pytest.param("vgg11", marks=pytest.mark.slow), "mobilenet_v3_small", "shufflenet_v2_x0_5"]
)
def test_rounding_in_single_precision_is_that_of_whole_runs(name):
    model, inputs = networks.awakened(name), networks.photos(1, 64)
    target = int(model(inputs).argmax())
    truth = occlusion(copy.deepcopy(model).double(), "dense", inputs.double(), target, window=15, stride=8)
    error = {
        plan: (occlusion(model, plan, inputs, target, window=15, stride=8) - truth).square().mean().sqrt()
        for plan in ("local", "dense")
    }
    near = error["local"] <= 2 * error["dense"] + 1e-7 * truth.abs().max()
    if not near and name == "vgg11" and torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.xfail("other kernels of oneDNN run on patches than on whole maps here: seen at 2.25, not understood yet")
    assert near, error


# Windows, inputs and targets


@pytest.fixture(scope="module")
def small():
    model = generated.network(3).double()
    return model, generated.inputs(model, n=3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("window", "stride"),
    [(1, 1), (3, 3), (5, 2), (4, 7), ((2, 9), (3, 4)), ((1, 4, 4), (1, 3, 3)), ((2, 5, 3), (1, 2, 3)), (12, 12)],
    ids=str,
)
def test_any_window(small, window, stride):
    assert_local(*small, window=window, stride=stride)


def test_several_targets_and_several_images(small):
    model, inputs = small
    assert_local(model, inputs, torch.tensor([[0, 3], [4, 2], [1, 1]]))


@pytest.mark.parametrize("baseline", ["image_mean", "blur", 0.7, "tensor"])
def test_any_baseline(small, baseline):
    model, inputs = small
    assert_local(model, inputs, baseline=inputs.flip(-1) if baseline == "tensor" else baseline)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_any_number_of_rows_at_once(small, batch_size):
    assert_local(*small, batch_size=batch_size)


def test_signals_and_volumes():
    torch.manual_seed(2)
    signal = nn.Sequential(
        *(nn.Conv1d(2, 6, 5, padding="same"), nn.BatchNorm1d(6), nn.ReLU(), nn.MaxPool1d(3, 2, ceil_mode=True)),
        *(nn.Conv1d(6, 6, 3, 2, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(48, 3)),
    )
    volume = nn.Sequential(
        *(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool3d(2, padding=1, count_include_pad=False)),
        *(nn.ConvTranspose3d(4, 4, 2, 2), nn.Hardswish(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)),
    )
    assert_local(signal.double().eval(), torch.randn(2, 2, 31).double(), window=4, stride=3)
    assert_local(volume.double().eval(), torch.randn(1, 2, 7, 8, 9).double(), window=3, stride=3)


class Ways(nn.Module):
    """Operations that the random networks lack, one after the other, each with what a box does to it."""

    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 8, 3, padding=2, dilation=2), nn.ConvTranspose2d(8, 4, 3, 2, 1, 1)
        self.same = nn.Conv2d(8, 8, (2, 4), padding="same", padding_mode="reflect", groups=4)
        self.gate = nn.Parameter(torch.rand(1, 8, 1, 12))
        self.norm, self.mix = nn.LayerNorm(8), nn.Linear(8, 8)
        self.last = nn.Linear(4, 5)

    def forward(self, x):
        x = self.conv(x)
        x = torch.where(x > 0.1, x, 0.3 * x) * self.gate
        x = self.same(x).clamp_(-3, 3)
        x = F.glu(torch.cat([x, x.roll(1, dims=1)], dim=1), dim=1)
        x = self.mix(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        x = x + F.pad(x, (1, -1, -2, 2), mode="constant", value=0.5)
        x = F.lp_pool2d(x.abs(), 2, 2) + F.avg_pool2d(x, 3, 2, padding=1, ceil_mode=True)[..., :6, :6]
        x = F.interpolate(x, scale_factor=1.7, mode="bicubic")
        x = self.up(x)[:, :, 1::2, 2:]
        x = F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2)
        return self.last(x.mean([2, 3]))


def test_operations_of_every_class():
    torch.manual_seed(3)
    model = Ways().double().eval()
    model.through = nn.Identity()
    inputs = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    assert_local(model, inputs, window=3, stride=2)


class Rewritten(nn.Module):
    """One map under several names, written into again and again, every name read afterwards."""

    def __init__(self):
        super().__init__()
        self.conv, self.next = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Linear(6, 4)

    def forward(self, x):
        x = self.conv(x)
        early = self.next(x)
        y = x.relu_()
        z = y.add_(early)
        w = z.mul_(0.5)
        return self.last((self.next(x) * y.sigmoid() + z - w.tanh()).mean((2, 3)))


def test_a_map_that_is_written_into_again_and_again():
    torch.manual_seed(5)
    model = nn.Sequential(Rewritten()).double().eval()
    assert_local(model, torch.randn(2, 3, 11, 12, dtype=torch.float64), window=3, stride=2)


# What is left out


def test_windows_that_are_the_baseline_already_are_not_run(small):
    model, inputs = small
    inputs = inputs.clone()
    inputs[0, :, :6] = 0
    for plan in ("dense", "local"):
        method = xf.Occlusion(xf.Engine(model, plan=plan), window=3, stride=3)
        explanation = method(inputs)
        windows = len(Windows(tuple(inputs.shape[1:]), (3, 3, 3), (3, 3, 3)))
        across = -(-inputs.shape[3] // 3)
        assert explanation.evaluations.tolist() == [1 + windows - 2 * across, 1 + windows, 1 + windows]
        assert (explanation.values[0, :, :6] == 0).all()
        assert explanation.values[0, :, 6:].abs().max() > 0
    assert_local(model, inputs, window=3, stride=3)


def test_an_input_that_is_the_baseline_everywhere_runs_once(small):
    model, inputs = small
    explanation = xf.Occlusion(model, window=4)(torch.zeros_like(inputs[:1]))
    assert explanation.evaluations.tolist() == [1]
    assert (explanation.values == 0).all()


def test_the_unchanged_windows_are_those_without_a_difference():
    generator = torch.Generator().manual_seed(0)
    inputs = (torch.rand(2, 2, 9, 8, generator=generator) > 0.9).float()
    baseline = torch.zeros(1, 2, 1, 1)
    for window, stride in (((2, 3, 2), (2, 2, 2)), ((1, 2, 2), (1, 1, 3))):
        boxes = Windows((2, 9, 8), window, stride).boxes()
        from xai_fast.engine.samplers.windows import HiddenWindows

        found = HiddenWindows(inputs, baseline, boxes).unchanged().view(2, -1)
        for sample in range(2):
            for number, box in enumerate(boxes.tolist()):
                part = inputs[sample][tuple(slice(*side) for side in box)]
                assert found[sample, number] == (part == 0).all()


# Masks


class Segments:
    """Feature ablation in ten lines: what hiding each mask does to the score, laid on its positions."""

    def __init__(self, engine, masks):
        self.engine, self.masks = engine, masks

    def attribute(self, inputs, target=None):
        boxes = torch.zeros(self.masks.shape[1], 3, 2, dtype=torch.long)
        boxes[:, :, 1] = 1

        def recipe(x):
            variants = HiddenMasks(x, torch.zeros(1, dtype=x.dtype), self.masks)
            return Recipe(variants=variants, reduce=Falls(len(x), boxes, (1, 1, 1)))

        return self.engine.run(recipe, inputs, target)[0].values


class Falls(CoverageMean):
    """The falls themselves, (N, K, masks)."""

    def finish(self):
        drops = self._clean[:, None] - self._hidden.view(self._n_samples, len(self._boxes), -1)
        return drops.transpose(1, 2)


@pytest.mark.parametrize("own", [False, True])
def test_superpixels_re_run_their_boxes(small, own):
    model, inputs = small
    generator = torch.Generator().manual_seed(4)
    labels = F.interpolate(torch.rand(3 if own else 1, 1, 4, 5, generator=generator), inputs.shape[2:])[:, 0]
    ranks = torch.unique(labels, return_inverse=True)[1]
    masks = torch.stack([ranks == k for k in range(12)], 1)
    masks[:, 11] = False  # an empty one
    expected = Segments(xf.Engine(model, plan="dense"), masks).attribute(inputs)
    actual = Segments(xf.Engine(model, plan="local"), masks).attribute(inputs)
    assert (actual - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert (actual[..., 11] == 0).all()


# Models that no graph holds


@pytest.mark.parametrize("make", [*test_tail.STUBBORN, *test_tail.WILLING])
@pytest.mark.filterwarnings("ignore:rows of a batch depend")  # some branch on what the whole batch holds
def test_a_forward_with_state_never_gives_a_wrong_number(make):
    model, inputs = test_tail.subject(make)
    torch.manual_seed(3)
    expected = occlusion(model, "dense", inputs, 2, batch_size=4)
    torch.manual_seed(3)
    actual = occlusion(model, "auto", inputs, 2, batch_size=4)
    if isinstance(expected, Exception):
        assert isinstance(actual, Exception)
    else:
        assert (actual - expected).abs().max() <= 1e-10 * max(expected.abs().max(), 1e-3)


@pytest.mark.parametrize("make", test_tail.STUBBORN)
@pytest.mark.filterwarnings("ignore:rows of a batch depend")  # some branch on what the whole batch holds
def test_a_forced_local_plan_says_why_it_cannot(make):
    model, inputs = test_tail.subject(make)
    refused = occlusion(model, "local", inputs, 2)
    assert isinstance(refused, ValueError)
    assert "`plan`" in str(refused)
    engine = xf.Engine(model)
    told = engine.explain_plan(xf.Occlusion(engine, window=5), inputs)
    assert "plan: dense" in told
    assert "local refused" in told


def test_hooks_that_change_an_output_do(small):
    model, inputs = copy.deepcopy(small[0]), small[1]
    handle = model.blocks[0].register_forward_hook(lambda _m, _a, output: output * 1.5 + 1)
    assert isinstance(assert_same(model, inputs, plan="auto"), torch.Tensor)
    handle.remove()


def test_hooks_see_the_rows_that_were_asked_for_and_no_others():
    torch.manual_seed(6)
    body = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).double().eval()
    inputs, rows = torch.randn(2, 3, 16, 16, dtype=torch.float64), []
    method = xf.Occlusion(xf.Engine(model, plan="local"), window=3, stride=2)
    model[4].register_forward_hook(lambda _m, args, _o: rows.append(len(args[0])))
    explanation = method(inputs, 1)
    assert sum(rows) == explanation.evaluations.sum()


# Planning


def test_the_plan_is_told_and_a_forced_one_is_taken(small):
    model, inputs = small
    engine = xf.Engine(model, plan="local")
    told = engine.explain_plan(xf.Occlusion(engine, window=3), inputs)
    assert "plan: local" in told
    assert "re-run only the region" in told


def test_few_rows_are_not_planned_for_until_there_are_many(small):
    model, inputs = copy.deepcopy(small[0]), small[1]  # engines of one model share what is planned and counted
    engine = xf.Engine(model)
    method = xf.Occlusion(engine, window=9)
    assert "so few rows" in engine.explain_plan(method, inputs[:1])
    expected = occlusion(model, "dense", inputs[:1], window=9, stride=9)
    for _ in range(20):
        assert (method.attribute(inputs[:1]) - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert "so few rows" not in engine.explain_plan(method, inputs[:1])


def test_too_little_memory_for_the_clean_activations_is_said(small):
    model, inputs = small
    refused = occlusion(model, "local", inputs, memory_limit=1000)
    assert isinstance(refused, ValueError)
    assert "clean activations" in str(refused)
    assert_same(model, inputs, plan="auto", memory_limit=1000)


def test_few_inputs_are_kept_at_once_where_memory_is_short(small):
    model, inputs = small
    roomy, tight = xf.Engine(model, plan="local"), xf.Engine(model, plan="local")
    method = xf.Occlusion(roomy, window=5)
    expected = method.attribute(inputs)
    tight.memory_limit = int(2.5 * local_plan(roomy).replay.row_bytes)
    actual = xf.Occlusion(tight, window=5).attribute(inputs)
    assert (actual - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("place", ["patches", "finish"])
def test_fewer_rows_where_memory_runs_out(small, monkeypatch, place):
    model, inputs = small
    method = xf.Occlusion(xf.Engine(model, plan="local"), window=3)
    expected = method.attribute(inputs)
    original, sizes = getattr(Replay, place), []

    def scarce(replay, *args):
        rows = len(args[1]) if place == "patches" else len(next(iter(args[0].values())))
        if rows > 3:
            raise torch.OutOfMemoryError("out of memory")
        sizes.append(rows)
        return original(replay, *args)

    monkeypatch.setattr(Replay, place, scarce)
    assert (method.attribute(inputs) - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert max(sizes) <= 3


def test_a_row_that_does_not_fit_is_an_error(small, monkeypatch):
    model, inputs = small
    method = xf.Occlusion(xf.Engine(model, plan="local"), window=3)
    method.attribute(inputs)

    def none(*_args):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Replay, "patches", none)
    with pytest.raises(MemoryError, match="single row"):
        method.attribute(inputs)


def test_groups_hold_every_box_once_and_save_what_they_can():
    generator = np.random.default_rng(0)
    sizes = [generator.integers(1, 9, (60, 5)) for _ in range(2)]
    weights, counts = generator.random(5), np.ones(60)
    groups = grouped(sizes, weights, counts, per_batch=0.0, batch=8)
    assert sorted(np.concatenate(groups).tolist()) == list(range(60))
    ideal = (sizes[0] * sizes[1] @ weights).sum()

    def cost(groups):
        return sum(len(g) * (sizes[0][g].max(0) * sizes[1][g].max(0) @ weights) for g in groups)

    assert cost(groups) <= ideal * (1 + 1e-9), "batches that cost nothing need no compromise"
    dear = grouped(sizes, weights, counts, per_batch=1e9, batch=8)
    assert len(dear) == 1
    some = grouped(sizes, weights, counts, per_batch=30.0, batch=8)
    assert 1 < len(some) < 60
    assert ideal <= cost(some) < cost(dear)


def test_a_float_model_and_another_size_on_one_engine(small):
    model, inputs = copy.deepcopy(small[0]).float(), small[1].float()
    engine = xf.Engine(model, plan="local")
    method = xf.Occlusion(engine, window=5, stride=4)
    for x in (inputs, inputs[:1], F.pad(inputs, (0, 0, 0, 1))):
        try:
            expected = replace(method, model=xf.Engine(copy.deepcopy(model), plan="dense")).attribute(x, 1)
        except RuntimeError:
            continue  # a head of fixed size
        actual = method.attribute(x, 1)
        assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


# Differences in half precision


@pytest.fixture
def halves_pay():
    """As on a machine with instructions for bfloat16; without them the fast mode keeps single precision."""
    with assuming(halves=True):
        yield


def assert_close_in_half(model, inputs, target, **settings):
    truth = occlusion(copy.deepcopy(model).double(), "dense", inputs.double(), target, **settings)
    actual = occlusion(model, "local", inputs, target, mode="fast", **settings)
    assert isinstance(actual, torch.Tensor), actual
    error = (actual - truth).norm() / truth.norm()
    assert 1e-6 < error < 5e-3, f"relative error {error:.1e}; below 1e-6 nothing ran in half precision"
    ranks = [part.flatten().argsort().argsort().double() for part in (actual, truth)]
    assert torch.corrcoef(torch.stack(ranks))[0, 1] > 0.999


def test_differences_in_half_precision_on_the_demonstration(halves_pay):
    model, preprocess, _ = xf.load("demo")
    inputs = preprocess(Image.fromarray(data.astronaut()))[None, :, ::2, ::2]
    assert_close_in_half(model, inputs, model(inputs).argmax(1), window=15, stride=8)


@pytest.mark.slow
def test_differences_in_half_precision_on_a_trained_resnet18(halves_pay):
    model, inputs = networks.trained_resnet18(), networks.photos(1, 112)
    assert_close_in_half(model, inputs, model(inputs).argmax(1), window=15, stride=8)


VIEWS = {
    "contiguous": lambda x: x.contiguous(),
    "view": lambda x: x.view(x.shape),
    "reshape": lambda x: x.reshape(x.shape),
    "slice": lambda x: x[:, :],
    "permute": lambda x: x.permute(0, 1, 2, 3),
    "pad": lambda x: F.pad(x, (0, 0, 0, 0)),
    "dropout": lambda x: F.dropout(x, 0.5, False),
}


class Viewed(nn.Module):
    """A ReLU over what another value still needs, by whatever name it goes."""

    def __init__(self, view):
        super().__init__()
        self.view, self.stem, self.body = view, nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.down, self.head = nn.Conv2d(16, 16, 3, 2, 1), nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        x = self.body(F.relu(VIEWS[self.view](x))) + 2 * x
        return self.head(F.relu(self.down(F.relu(x))).mean((2, 3)))


@pytest.mark.parametrize("view", VIEWS)
def test_differences_are_not_written_over_while_a_view_of_them_is_needed(halves_pay, view):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Viewed(view).eval()
    inputs = networks.photos(1, 48)
    truth = occlusion(copy.deepcopy(model).double(), "dense", inputs.double(), 1, window=6, stride=6)
    found = occlusion(model, "local", inputs, 1, mode="fast", window=6, stride=6)
    assert (found - truth).norm() <= 0.02 * truth.norm()


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("densenet121", "convnext_tiny")]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", *LARGE])
def test_differences_in_half_precision_on_other_networks(halves_pay, name):
    """Untrained networks amplify: what is seen here is that no step is wrong, to a few per cent."""
    model, inputs = networks.awakened(name), networks.photos(1, 64)
    truth = occlusion(model, "dense", inputs, 3, window=15, stride=12)
    actual = occlusion(model, "local", inputs, 3, window=15, stride=12, mode="fast")
    assert isinstance(actual, torch.Tensor), actual
    assert (actual - truth).norm() / truth.norm() < 0.03


def test_differences_pass_every_class_of_operation(halves_pay):
    torch.manual_seed(3)
    model = Ways().eval()
    model.through = nn.Identity()
    inputs = torch.randn(2, 3, 12, 12)
    truth = occlusion(model, "dense", inputs, 1, window=3, stride=2)
    actual = occlusion(model, "local", inputs, 1, window=3, stride=2, mode="fast")
    assert isinstance(actual, torch.Tensor), actual
    assert (actual - truth).norm() / truth.norm() < 0.03


def test_the_fast_mode_keeps_single_precision_where_halves_do_not_pay():
    model, inputs = networks.awakened("resnet18"), networks.photos(1, 64)
    with assuming(halves=False):
        fast = occlusion(model, "local", inputs, 3, window=15, stride=12, mode="fast")
    exact = occlusion(model, "local", inputs, 3, window=15, stride=12)
    assert (fast - exact).abs().max() <= 1e-5 * exact.abs().max()
