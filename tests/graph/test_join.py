"""Depthwise convolutions run with the pointwise ones around them, wherever that is the same, and nowhere else."""

from __future__ import annotations

import copy

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import xai_fast as xf
from xai_fast import ops
from xai_fast.graph.fused import FusedBottleneck, PooledConvolution
from xai_fast.graph.fused.onednn.bottleneck import KernelBottleneck
from xai_fast.graph.fused.onednn.probe import failed
from xai_fast.graph.processor import assuming

pytestmark = pytest.mark.skipif(failed() is not None, reason=str(failed()))


class Excitation(nn.Module):
    """A squeeze-and-excitation gate, as torchvision or as timm writes it."""

    def __init__(self, channels, squeeze, gate):
        super().__init__()
        self.squeeze, self.gate = squeeze, gate
        self.down, self.up = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)

    def forward(self, x):
        return self.gate(self.up(self.down(self.squeeze(x)).relu())) * x


class Scaling(Excitation):
    """With a parameter of its own."""

    def __init__(self, *settings):
        super().__init__(*settings)
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 48).view(1, 48, 1, 1))

    def forward(self, x):
        return self.gate(self.up(self.down(self.squeeze(x)).relu()) * self.scale) * x


class InPlace(Excitation):
    def forward(self, x):
        gate = self.gate(self.up(self.down(self.squeeze(x)).relu()))
        x *= gate
        return x


class AcrossChannels(Excitation):
    """Of maps of one position, where a mean over channels has the extents of one over positions."""

    def forward(self, x):
        return self.gate(x.mean(1, keepdim=True) * self.up.weight[:, :1].view(1, -1, 1, 1)) * x


class Block(nn.Module):
    """An inverted residual."""

    def __init__(self, act, gate=None, *, stride=1, side=3, channels=(16, 48, 16), between=None, expands=True):
        super().__init__()
        inward, middle, outward = channels
        self.expand = nn.Conv2d(inward, middle, 1) if expands else nn.Identity()
        self.act = act
        self.depth = nn.Conv2d(middle, middle, side, stride, side // 2, groups=middle)
        self.gate, self.between = gate or nn.Identity(), between or nn.Identity()
        self.project, self.adds = nn.Conv2d(middle, outward, 1), stride == 1 and inward == outward

    def forward(self, x):
        y = self.act(self.expand(x)) if not isinstance(self.expand, nn.Identity) else x
        y = self.project(self.gate(self.between(self.act(self.depth(y)))))
        return y + x if self.adds else y


class Net(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 16, 3, 2, 1), nn.Sequential(*blocks)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x).relu()).mean((2, 3)))


def mean(x):
    return x.mean((2, 3), keepdim=True)


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


def chain(*, second=None, **settings):
    """Three convolutions, the one between with settings of its own, behind which another activation may stand."""
    settings = {"kernel_size": 3, "padding": 1, "groups": 48, "out_channels": 48, **settings}
    return nn.Sequential(
        *(nn.Conv2d(16, 48, 1), nn.ReLU(), nn.Conv2d(48, **settings), second or nn.ReLU()),
        nn.Conv2d(settings["out_channels"], 16, 1),
    )


BLOCKS = {
    "relu6": (lambda: Block(nn.ReLU6()), [3]),
    "in place": (lambda: Block(nn.ReLU(inplace=True)), [3]),
    "strided": (lambda: Block(nn.Hardswish(), stride=2, side=5), [3]),
    "narrower": (lambda: Block(nn.SiLU(), channels=(16, 40, 16)), [3]),
    "no expansion": (lambda: Block(nn.ReLU(), channels=(16, 16, 16), expands=False), [2]),
    "gate of torchvision": (lambda: Block(nn.SiLU(), Excitation(48, nn.AdaptiveAvgPool2d(1), nn.Sigmoid())), [7]),
    "gate of timm": (lambda: Block(nn.Hardswish(), Excitation(48, mean, F.hardsigmoid), stride=2), [8]),
    "a gate of the user's": (lambda: Block(nn.ReLU(), Excitation(48, mean, lambda g: (g * 3).tanh() + 1)), [10]),
    "two activations": (lambda: chain(second=nn.SiLU()), [2]),
    "a gate with a number of its own": (lambda: Block(nn.ReLU(), Scaling(48, mean, nn.Sigmoid())), [9]),
    "a gate by the largest": (lambda: Block(nn.ReLU(), Excitation(48, nn.AdaptiveMaxPool2d(1), nn.Sigmoid())), [2]),
    "a gate that multiplies in place": (lambda: Block(nn.ReLU(), InPlace(48, mean, nn.Sigmoid())), [7]),
    "something between": (lambda: Block(nn.ReLU(), between=nn.LocalResponseNorm(2)), [2]),
}

APART = {
    "an activation that the kernel has not": lambda: Block(nn.GELU()),
    "dilated": lambda: chain(padding=2, dilation=2),
    "two outputs per channel": lambda: chain(out_channels=96),
    "groups that are no depthwise ones": lambda: chain(groups=4),
    "oblong": lambda: chain(kernel_size=(3, 5), padding=(1, 2)),
    "even": lambda: chain(kernel_size=4),
    "wide strides": lambda: chain(stride=3),
    "a ReLU in the end": lambda: nn.Sequential(nn.Conv2d(16, 48, 1), nn.ReLU(), nn.Conv2d(48, 16, 1), nn.ReLU()),
}


def captured(model, x, **settings):
    engine = xf.Engine(model, plan="dense", prepare=True, **settings)
    prepared = engine.prepared(frozenset(), x)
    return prepared, next(iter(prepared.captured.values()))


def joins(found):
    """How many steps each joined one stands for."""
    return [len(step.call.steps) for step in found._whole.steps if isinstance(step.call, FusedBottleneck)]


@pytest.fixture(params=["avx2", "avx512", "reference"])
def way(request):
    """Every kernel of this processor, and the reference in the place of one."""
    if request.param == "reference":
        with ops.using("reference"), assuming(bottlenecks=True):
            yield request.param
        return
    if request.param not in ops.instruction_sets():
        pytest.skip(f"no kernel for {request.param} here")
    with ops.limited_to(request.param):
        yield request.param


@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_joined_convolutions_are_those_apart(name, way):
    model, x = seeded(lambda: Net(BLOCKS[name][0]())), networks.photos(3, 33)
    prepared, found = captured(copy.deepcopy(model), x)
    assert joins(found) == BLOCKS[name][1]
    truth = copy.deepcopy(model).double()(x.double())
    for rows in (1, 3):
        y = prepared(prepared.empty(rows, x).copy_(x[:rows]))
        torch.testing.assert_close(y.double(), truth[:rows], rtol=1e-5, atol=1e-5 * truth.abs().max().item())


@torch.no_grad()
def test_a_mean_over_channels_is_no_squeeze():
    def make():
        return Net(nn.AdaptiveAvgPool2d(1), Block(nn.ReLU(), AcrossChannels(48, mean, nn.Sigmoid())))

    model, x = seeded(make), networks.photos(2, 33)
    prepared, found = captured(copy.deepcopy(model), x)
    assert joins(found) == [2]
    truth = copy.deepcopy(model).double()(x.double())
    torch.testing.assert_close(prepared(prepared.empty(2, x).copy_(x)).double(), truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", APART)
@torch.no_grad()
def test_others_stay_apart(name):
    model, x = seeded(lambda: Net(APART[name]())), networks.photos(2, 33)
    prepared, found = captured(copy.deepcopy(model), x)
    assert joins(found) == []
    truth = copy.deepcopy(model).double()(x.double())
    torch.testing.assert_close(prepared(prepared.empty(2, x).copy_(x)).double(), truth, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_value_that_is_needed_elsewhere_is_made():
    """What the first convolution makes goes to the head as well; or what the second one makes."""

    class Twice(nn.Module):
        def __init__(self, early):
            super().__init__()
            self.early, self.stem, self.head = early, nn.Conv2d(3, 16, 3, 2, 1), nn.Linear(48, 5)
            self.expand, self.depth = nn.Conv2d(16, 48, 1), nn.Conv2d(48, 48, 3, 1, 1, groups=48)
            self.project, self.end = nn.Conv2d(48, 16, 1), nn.Linear(16, 5)

        def forward(self, x):
            wide = self.expand(self.stem(x).relu()).relu()
            deep = self.depth(wide).relu()
            y = self.project(deep)
            return self.end(y.mean((2, 3))) + self.head((wide if self.early else deep).mean((2, 3)))

    for early, count in ((True, [2]), (False, [2])):
        model, x = seeded(lambda early=early: Twice(early)), networks.photos(2, 33)
        prepared, found = captured(copy.deepcopy(model), x)
        assert joins(found) == count
        truth = copy.deepcopy(model).double()(x.double())
        torch.testing.assert_close(prepared(prepared.empty(2, x).copy_(x)).double(), truth, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_residual_sum_does_not_overwrite_what_is_still_read():
    """A block that adds its own input, several of them behind each other, in strips of several threads."""
    model = seeded(lambda: Net(*(Block(nn.ReLU6(), channels=(16, 96, 16)) for _ in range(4))))
    x, before = networks.photos(3, 65), torch.get_num_threads()
    truth = copy.deepcopy(model).double()(x.double())
    prepared, found = captured(copy.deepcopy(model), x)
    assert joins(found) == [3] * 4
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            for rows in (1, 3):
                y = prepared(prepared.empty(rows, x).copy_(x[:rows]))
                torch.testing.assert_close(y.double(), truth[:rows], rtol=1e-5, atol=1e-5 * truth.abs().max().item())
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def test_a_residual_sum_does_not_overwrite_what_is_read_under_another_name():
    """A view of what is convolved is added."""

    class Viewing(Block):
        def forward(self, x):
            y = self.project(self.act(self.depth(self.act(self.expand(x)))))
            return y + x.flatten(2).view(x.shape)

    model, x = seeded(lambda: Net(Viewing(nn.ReLU6()), Viewing(nn.ReLU6()))), networks.photos(2, 33)
    truth = copy.deepcopy(model).double()(x.double())
    prepared, _ = captured(copy.deepcopy(model), x)
    y = prepared(prepared.empty(2, x).copy_(x))
    torch.testing.assert_close(y.double(), truth, rtol=1e-5, atol=1e-5 * truth.abs().max().item())


@pytest.mark.parametrize("name", ["relu6", "narrower", "gate of timm", "gate of torchvision"])
@pytest.mark.parametrize("size", [1e30, 3e38, torch.nan, torch.inf], ids=str)
@torch.no_grad()
def test_nan_and_infinities_show_where_the_model_has_them(name, size):
    """Also where weights are so large that what lies between the convolutions would have been measured."""
    for scale in (1.0, 1e12):
        model = seeded(lambda: Net(BLOCKS[name][0](), Block(nn.ReLU6())))
        model.blocks[0].expand.weight *= scale
        x = networks.photos(2, 33)
        prepared, _ = captured(copy.deepcopy(model), x)
        batch = prepared.empty(2, x).copy_(x)
        batch[1, 0, 5, 7] = size
        found, plain = prepared(batch), model(batch.contiguous())
        assert found.isnan().equal(plain.isnan()) or not found[1].isfinite().any()
        assert found[0].isfinite().equal(plain[0].isfinite())
        assert plain[1].isfinite().all() or not found[1].isfinite().all()


@torch.no_grad()
def test_what_is_not_measured_between_is_measured_in_the_end():
    """Bounds grow from block to block; a join measures its result where its parts would have measured between them."""
    model = seeded(lambda: Net(*(Block(nn.SiLU(), channels=(16, 96, 16)) for _ in range(12))))
    for block in model.blocks:
        block.depth.weight *= 30
    x = networks.photos(2, 33)
    prepared, found = captured(copy.deepcopy(model), x)
    calls = [step.call for step in found._whole.steps if isinstance(step.call, FusedBottleneck)]
    assert len(calls) == 12
    assert any(call.most is not None for call in calls)
    truth = copy.deepcopy(model).double()(x.double())
    y = prepared(prepared.empty(2, x).copy_(x))
    torch.testing.assert_close(y.double(), truth, rtol=1e-5, atol=1e-5 * truth.abs().max().item())


@pytest.mark.parametrize("bottlenecks", [True, False])
@torch.no_grad()
def test_a_switch_decides(bottlenecks, monkeypatch):
    model, x = seeded(lambda: Net(Block(nn.ReLU6()))), networks.photos(2, 33)
    with assuming(bottlenecks=bottlenecks):
        _, found = captured(model, x)
        assert joins(found) == ([3] if bottlenecks else [])


def test_maps_are_the_same_with_and_without(monkeypatch):
    """Methods that run whole forwards take joined steps; gradients and regions the steps that those stand for."""
    model = seeded(lambda: Net(Block(nn.ReLU6()), Block(nn.SiLU(), Excitation(48, mean, nn.Sigmoid()))))
    x, runs = networks.photos(2, 33), []
    run = KernelBottleneck._run
    monkeypatch.setattr(KernelBottleneck, "_run", lambda *args: runs.append(1) or run(*args))
    for method in (
        lambda m: xf.Occlusion(m, window=9, stride=8),
        lambda m: xf.RISE(m, n_masks=24),
        lambda m: xf.IntegratedGradients(m, n_steps=4),
        lambda m: xf.GradCAM(m, layer="blocks.0"),
    ):
        maps = []
        for way in (None, False):
            with assuming() if way is None else assuming(bottlenecks=way):
                maps.append(method(xf.Engine(copy.deepcopy(model))).attribute(x, target=1).double())
        torch.testing.assert_close(maps[0], maps[1], rtol=1e-4, atol=1e-4 * maps[1].abs().max().item())
    assert runs


# Averages before a convolution


def transition(pool=None, *, between=None, **settings):
    """The end of a dense block."""
    convolution = nn.Conv2d(16, **{"out_channels": 16, "kernel_size": 1, **settings})
    return nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), convolution, between or nn.Identity(), pool or nn.AvgPool2d(2))


EARLY = {
    "DenseNet's": transition,
    "without bias": lambda: transition(bias=False),
    "in groups": lambda: transition(groups=4),
    "overlapping windows": lambda: transition(nn.AvgPool2d(3, 2)),
    "oblong": lambda: transition(nn.AvgPool2d((2, 3), (2, 3))),
}
LATE = {
    "padded": lambda: transition(nn.AvgPool2d(3, 2, 1)),
    "windows beyond the border": lambda: transition(nn.AvgPool2d(2, ceil_mode=True)),
    "a divisor of its own": lambda: transition(nn.AvgPool2d(2, divisor_override=3)),
    "no fewer positions": lambda: transition(nn.AvgPool2d(2, 1)),
    "the largest": lambda: transition(nn.MaxPool2d(2)),
    "an activation between": lambda: transition(between=nn.ReLU()),
    "strided": lambda: transition(stride=2),
    "3x3": lambda: transition(kernel_size=3),
    "zeros around": lambda: transition(padding=1),
}


def early(found):
    return sum(isinstance(step.call, PooledConvolution) for step in found._whole.steps)


@pytest.mark.parametrize("name", [*EARLY, *LATE])
@torch.no_grad()
def test_averages_are_taken_before_a_pointwise_convolution(name):
    model, x = seeded(lambda: Net((EARLY | LATE)[name]())), networks.photos(3, 33)
    prepared, found = captured(copy.deepcopy(model), x)
    assert early(found) == (name in EARLY)
    truth = copy.deepcopy(model).double()(x.double())
    for rows in (1, 3):
        y = prepared(prepared.empty(rows, x).copy_(x[:rows]))
        torch.testing.assert_close(y.double(), truth[:rows], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_convolution_that_is_read_elsewhere_is_made_before_averages():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.pool = nn.Conv2d(16, 16, 1), nn.AvgPool2d(2)

        def forward(self, x):
            y = self.convolution(x)
            return self.pool(y) + mean(y)

    model, x = seeded(lambda: Net(Both())), networks.photos(2, 33)
    prepared, found = captured(copy.deepcopy(model), x)
    assert early(found) == 0
    truth = copy.deepcopy(model).double()(x.double())
    torch.testing.assert_close(prepared(prepared.empty(2, x).copy_(x)).double(), truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1e30, 3e38, torch.nan, torch.inf], ids=str)
@torch.no_grad()
def test_nan_and_infinities_show_behind_averages(size):
    for scale in (1.0, 1e12, 1e37):
        model = seeded(lambda: Net(transition(), nn.ReLU()))
        model.blocks[0][2].weight *= scale
        x = networks.photos(2, 33)
        prepared, found = captured(copy.deepcopy(model), x)
        assert early(found) == 1
        batch = prepared.empty(2, x).copy_(x)
        batch[1, 0, 5, 7] = size
        got, plain = prepared(batch), model(batch.contiguous())
        assert got.isnan().equal(plain.isnan()) or not got[1].isfinite().any()
        assert got[0].isfinite().equal(plain[0].isfinite())
        assert plain[1].isfinite().all() or not got[1].isfinite().all()


@pytest.mark.skipif(failed(torch.bfloat16) is not None, reason=str(failed(torch.bfloat16)))
@pytest.mark.parametrize("name", [name for name in BLOCKS if name != "something between"])
@torch.no_grad()
def test_halves_are_joined(name):
    model, x = seeded(lambda: Net(BLOCKS[name][0]())), networks.photos(3, 33)
    with assuming(halves=True, bottlenecks=True):
        prepared, found = captured(copy.deepcopy(model), x, mode="fast")
    assert prepared.dtype is torch.bfloat16
    assert joins(found) == BLOCKS[name][1]
    truth = copy.deepcopy(model).double()(x.double())
    y = prepared(prepared.empty(3, x).copy_(x))
    torch.testing.assert_close(y.double(), truth, rtol=0, atol=2**-5 * truth.abs().max().item())


class ActNorm(nn.BatchNorm2d):
    """A normalisation with an activation behind it in one module, as timm has it."""

    def __init__(self, channels, act):
        super().__init__(channels)
        self.act = act

    def forward(self, x):
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)
        return self.act(y)


class Normed(nn.Module):
    def __init__(self, norm=ActNorm, again=False):
        super().__init__()
        self.conv, self.norm, self.again = nn.Conv2d(3, 16, 3, bias=False), norm(16, nn.ReLU()), again
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(self.norm.bias)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return self.head((self.norm(y) if self.again else y).mean((2, 3)))


class Borrowing(ActNorm):
    """By another epsilon than its own."""

    def forward(self, x):
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, 0.5)
        return self.act(y)


class Looking(ActNorm):
    """Whose numbers are read once more."""

    def forward(self, x):
        return super().forward(x) + self.bias.view(-1, 1, 1)


@pytest.mark.parametrize(
    ("make", "folded"),
    [
        (Normed, 1),
        (lambda: Normed(again=True), 0),
        (lambda: Normed(Borrowing), 0),
        (lambda: Normed(Looking), 0),
    ],
    ids=["as timm has it", "called twice", "another epsilon", "read twice"],
)
def test_a_normalisation_inside_a_module_is_folded_where_nothing_else_is_meant(make, folded):
    """The module's own forward, through which gradients may be taken, means the same afterwards."""
    model, x = seeded(make), networks.photos(2, 33)
    engine = xf.Engine(copy.deepcopy(model), prepare=True)
    prepared = engine.prepared(frozenset(), x)
    assert prepared.folded == folded
    truth = copy.deepcopy(model).double()(x.double())
    for run in (prepared, prepared.module):
        with torch.no_grad():
            y = run(prepared.empty(2, x).copy_(x))
        torch.testing.assert_close(y.double(), truth, rtol=1e-5, atol=1e-5)
    inputs = x.double().requires_grad_()
    copy.deepcopy(model).double()(inputs)[:, 2].sum().backward()
    expected, maps = inputs.grad.abs(), xf.Saliency(engine).attribute(x, target=2).double()
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5 * expected.max().item())


def test_nothing_is_folded_across_a_module_that_somebody_looks_at():
    model, x = seeded(Normed), networks.photos(2, 33)
    engine = xf.Engine(model, prepare=True)
    assert engine.prepared(frozenset({"norm"}), x).folded == 0
    assert engine.prepared(frozenset({"head"}), x).folded == 1
