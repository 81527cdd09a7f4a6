"""The rescale rule adds up to the difference of the scores, is captum's where that is right, or says what it lacks."""

from __future__ import annotations

import copy
from collections import namedtuple
from functools import cache

import generated
import networks
import pytest
import test_tail
import torch
from hypothesis import given
from methods import subjects
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.utils._pytree import tree_leaves
from torchvision.models import mobilenetv3

import xai_fast as xf
from xai_fast.core import secants
from xai_fast.core.copies import copied
from xai_fast.core.prepare import prepare
from xai_fast.engine.gradients.rescale import Rescale, rescale_of
from xai_fast.engine.gradients.rescale.quotients import quotient

one_thread = test_tail.one_thread
OF, TO = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([1, 0, 1, 0, 0])  # pairs in no order, one of them twice


def prepared_for(model, inputs, layers=()):
    return prepare(model, frozenset(layers), fast=False, compiled=False, example=inputs[:1])


def found_for(model, inputs, layers=()):
    return rescale_of(prepared_for(model, inputs, layers), inputs.shape[1:], layers)


def rule_for(model, inputs, layers=()):
    found = found_for(model, inputs, layers)
    assert isinstance(found, Rescale), found
    return found


def class_scores(raw, columns=(0, 2)):
    """Two class scores (rows, 2) of whatever a model returns."""
    return next(leaf for leaf in tree_leaves(raw) if leaf.ndim == 2)[:, list(columns)]


def pair_up(rescale, batch, references, of=OF, to=TO, columns=(0, 2)):
    """Multipliers per layer, differences of what they belong to, and differences of the scores (P, K)."""
    run = rescale(batch, references)
    scores = class_scores(run.raw, columns)
    rise = (scores[of] - class_scores(run.raw_references, columns)[to]).detach()
    pairs = run.activations or [(batch, references)]
    return run.multipliers(scores, of, to), [x[of] - b[to] for x, b in pairs], rise


def assert_adds_up(rescale, batch, references, tolerance=1e-9):
    multipliers, differences, rise = pair_up(rescale, batch, references)
    for multiplier, difference in zip(multipliers, differences, strict=True):
        assert multiplier.shape == (len(OF), 2, *difference.shape[1:])
        total = (multiplier * difference[:, None]).flatten(2).sum(2)
        # A score that nothing changes has a rise of rounding, which nothing has to add up to.
        assert (total - rise).abs().max() <= tolerance * rise.abs().max().clamp_min(1e-4)


# By hand


def test_two_layers_by_hand():
    """Hidden (x1 + 2 x2 - 1, x2 - x1) = h, then 3 relu(h1) - 2 relu(h2) + 1/2; the multipliers are from paper."""
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double().eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 2], [-1, 1]]))
        net[0].bias.copy_(torch.tensor([-1.0, 0]))
        net[2].weight.copy_(torch.tensor([[3.0, -2]]))
        net[2].bias.fill_(0.5)
    batch, references = torch.tensor([[2.0, 1]]).double(), torch.tensor([[0.0, 0], [-1, 2]]).double()
    run = rule_for(net, batch)(batch, references)
    (multipliers,) = run.multipliers(run.raw, torch.tensor([0, 0]), torch.tensor([0, 1]))
    # h goes from (-1, 0) to (3, -1) and from (2, 3) to (3, -1): quotients (3/4, 0) and (1, 3/4).
    assert multipliers.tolist() == [[[2.25, 4.5]], [[4.5, 4.5]]]


def test_a_window_shared_by_two_maxima():
    """Overlapping windows give to one position what both add; a maximum that falls is counted where it was."""
    net = nn.Sequential(nn.MaxPool1d(2, 1), nn.Flatten(), nn.Linear(2, 1, bias=False)).double().eval()
    with torch.no_grad():
        net[2].weight.copy_(torch.tensor([[1.0, 10]]))
    batch, references = torch.tensor([[[0.0, 3, 1]], [[1.0, 0, 0]]]).double(), torch.tensor([[[0.0, 1, 2]]]).double()
    run = rule_for(net, batch)(batch, references)
    (multipliers,) = run.multipliers(run.raw, torch.tensor([0, 1]), torch.tensor([0, 0]))
    # First the maxima rise from (1, 2) to (3, 3), at the middle; then from (1, 2) to (1, 0), falling at the end.
    assert multipliers.flatten(1).tolist() == [[0, (1 * 2 + 10 * 1) / 2, 0], [0, 0, 10]]


# Sums


@cache
def narrow(name):
    return test_tail.narrow(name), networks.photos(3, 64).double()


@pytest.mark.parametrize("name", ["resnet", "resnext", "densenet", "mobilenet_v2", "shufflenet_v2"])
def test_narrow_torchvision_networks_add_up(name):
    """Functional additions, ReLUs in place and as functions, ReLU6, pooling, concatenation, shuffled channels."""
    model, inputs = narrow(name)
    rescale = rule_for(model, inputs)
    assert_adds_up(rescale, inputs[:2], torch.stack([torch.zeros_like(inputs[0]), inputs[2]]))


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "googlenet", "squeezenet1_1"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("vgg11", "inception_v3", "densenet121")),
    ],
)
def test_torchvision_networks_add_up(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    inputs = networks.photos(3, 96 if name == "inception_v3" else 64).double()
    rescale = rule_for(networks.awakened(name, **options).double(), inputs)
    assert_adds_up(rescale, inputs[:2], torch.stack([torch.zeros_like(inputs[0]), inputs[2]]))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_signals_images_and_volumes_add_up(axes, inplace):
    inputs = subjects.signals(4, (3, 9, 7, 8)[: axes + 1], dtype=torch.float64)
    model = subjects.Small(axes, inplace=inplace).double()
    assert_adds_up(rule_for(model, inputs), inputs[:2], inputs[2:])
    assert_adds_up(rule_for(model, inputs, ("pool",)), inputs[:2], inputs[2:])


def test_single_precision_adds_up():
    inputs = networks.photos(3, 64)
    rescale = rule_for(networks.awakened("resnet18"), inputs)
    assert_adds_up(rescale, inputs[:2], torch.stack([torch.zeros_like(inputs[0]), inputs[2]]), tolerance=1e-4)


def compare_on(net):
    """The sum at the input and behind every block, which the whole network goes through; or a reason in words."""
    inputs = generated.inputs(net.double(), 3).double()
    blocks = [name for name, _ in net.named_modules() if name.startswith("blocks.") and name.count(".") == 1]
    prepared = prepared_for(net, inputs, blocks)
    for layers in ((), *((block,) for block in blocks), tuple(blocks)):
        found = rescale_of(prepared, inputs.shape[1:], layers)
        if isinstance(found, str):
            assert len(found.split()) > 4
        elif not found.reasons:
            run = found(inputs[:2], inputs[2:])
            with torch.no_grad():
                expected = class_scores(net(inputs[:2].clone()))
            assert (class_scores(run.raw) - expected).abs().max() <= 1e-9 * expected.abs().max().clamp_min(1e-4)
            assert_adds_up(found, inputs[:2], torch.stack([torch.zeros_like(inputs[0]), inputs[2] / 2]))


@test_tail.examples(40)
@given(net=generated.networks())
def test_random_networks_add_up(net):
    compare_on(net)


@pytest.mark.slow
@test_tail.examples(500)
@given(net=generated.networks(max_depth=4))
def test_many_random_networks_add_up(net):
    compare_on(net)


class Reusing(nn.Module):
    """One ReLU in place, after everything, over tensors that are read again."""

    def __init__(self):
        super().__init__()
        self.relu, self.one, self.two = nn.ReLU(inplace=True), nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)
        generated.wake(self)

    def forward(self, x):
        y = self.one(x)
        half = y * 0.5
        y = self.relu(y)
        z = self.two(y)
        z += y
        z = self.relu(self.relu(z) - half)
        return self.head(z.mean((2, 3)))


def test_a_relu_in_place_that_is_used_again():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Reusing().double().eval()
    inputs = subjects.signals(4, (3, 9, 8), dtype=torch.float64)
    for layers in ((), ("one",), ("two",)):
        rescale = rule_for(model, inputs, layers)
        multipliers, differences, rise = pair_up(rescale, inputs[:2], inputs[2:])
        total = (multipliers[0] * differences[0][:, None]).flatten(2).sum(2)
        assert torch.allclose(total, rise, rtol=1e-9) == (layers != ("two",))  # y goes past it


# Against captum


def plain_net(activation, pool):
    """Modules of their own and none twice; a convolution before pooling, where captum's hooks keep their order."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), activation(), nn.Conv2d(6, 6, 1), pool)
        head = nn.Sequential(nn.Conv2d(6, 8, 3), activation(), nn.Flatten(), nn.Linear(128, 7), nn.Tanh())
        return nn.Sequential(*body, *head, nn.Linear(7, 5)).double().eval()


def inputs_and_references(shared=4):
    """Three of each, equal in some rows of their pixels, where quotients are 0 / 0."""
    inputs, references = subjects.signals(6, (3, 12, 12), dtype=torch.float64).split(3)
    references = references.clone()
    references[:, :, :shared] = inputs[:, :, :shared]
    return inputs, references


def assert_equal_to(actual, expected):
    assert (actual - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d((2, 2), ceil_mode=True), nn.AvgPool2d(2)], ids=str)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus])
def test_equal_to_captum(activation, pool, poison):
    attr = pytest.importorskip("captum.attr")
    net, (inputs, references) = plain_net(activation, pool), inputs_and_references()
    each = torch.arange(3)
    (multipliers,), (difference,), _ = pair_up(rule_for(net, inputs), inputs, references, each, each, (2,))
    expected = attr.DeepLift(net).attribute(inputs.clone(), references.clone(), target=2)
    assert_equal_to(multipliers[:, 0] * difference, expected.detach())


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_equal_to_captum_on_the_same_references_for_all():
    attr = pytest.importorskip("captum.attr")
    net, (inputs, references) = plain_net(nn.ReLU, nn.MaxPool2d(2)), inputs_and_references()
    of, to = torch.arange(3).repeat_interleave(2), torch.arange(2).repeat(3)
    (multipliers,), (difference,), _ = pair_up(rule_for(net, inputs), inputs, references[:2], of, to, (4,))
    actual = (multipliers[:, 0] * difference).unflatten(0, (3, 2)).mean(1)
    expected = attr.DeepLiftShap(net).attribute(inputs.clone(), references[:2].clone(), target=4)
    assert_equal_to(actual, expected.detach())


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.parametrize("layer", range(10))
def test_equal_to_captum_at_layers(layer):
    attr = pytest.importorskip("captum.attr")
    net, (inputs, references) = plain_net(nn.Tanh, nn.MaxPool2d(2)), inputs_and_references(shared=0)
    each = torch.arange(3)
    rescale = rule_for(net, inputs, (str(layer),))
    (multipliers,), (difference,), _ = pair_up(rescale, inputs, references, each, each, (1,))
    expected = attr.LayerDeepLift(net, net[layer]).attribute(inputs.clone(), references.clone(), target=1)
    assert_equal_to(multipliers[:, 0] * difference, expected.detach())


class Gated(nn.Module):
    def __init__(self, gate):
        super().__init__()
        self.conv, self.head, self.gate = nn.Conv2d(3, 6, 3), nn.Linear(6, 3), gate

    def forward(self, x):
        return self.head(self.gate(self.conv(x)).mean((2, 3)))


# Softmax, which captum takes for an elementwise function and so does not add up behind (captum#1367)


def slow_softmax(x, b, k, *, logarithm):
    """Multipliers of p_k or its logarithm, class after class: the quotients of exp, of the sum's log, of p's exp."""
    total_x, total_b = x.exp().sum(), b.exp().sum()
    of_log = (total_x.log() - total_b.log()) / (total_x - total_b)
    found = torch.stack([-of_log * (x[i].exp() - b[i].exp()) / (x[i] - b[i]) for i in range(len(x))])
    found[k] += 1
    log_x, log_b = x[k] - total_x.log(), b[k] - total_b.log()
    return found if logarithm else found * (log_x.exp() - log_b.exp()) / (log_x - log_b)


SOFTMAX = {
    "module": (nn.Softmax(1), False),
    "log module": (nn.LogSoftmax(1), True),
    "function": (lambda s: F.softmax(s, dim=-1), False),
    "log function": (lambda s: torch.log_softmax(s, 1), True),
    "default axis": (lambda s: F.softmax(s, _stacklevel=5), False),
}


class Ending(Gated):
    """Scores, and what the network makes of them in the end."""

    def __init__(self, last):
        super().__init__(torch.tanh)
        self.last = last

    def forward(self, x):
        return self.last(super().forward(x))


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
@pytest.mark.parametrize("size", [1.0, 40.0], ids=["moderate", "saturated"])
@pytest.mark.parametrize("name", SOFTMAX)
def test_softmax_at_the_end(name, size):
    """The multipliers of the scores before it, by hand, whether the probabilities are moderate or nearly 0 and 1."""
    last, logarithm = SOFTMAX[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Ending(last).double().eval()
    net.head.weight.data.mul_(size)
    inputs = subjects.signals(4, (3, 9, 8), dtype=torch.float64)
    assert_adds_up(rule_for(net, inputs), inputs[:2], inputs[2:])
    rescale = rule_for(net, inputs, ("head",))
    multipliers, _, _ = pair_up(rescale, inputs[:2], inputs[2:])
    x, b = rescale(inputs[:2], inputs[2:]).activations[0]
    for pair, (i, j) in enumerate(zip(OF, TO, strict=True)):
        for column, k in enumerate((0, 2)):
            slow = slow_softmax(x[i], b[j], k, logarithm=logarithm)
            assert_equal_to(multipliers[0][pair, column], slow)


@pytest.mark.parametrize(
    "gate",
    [
        lambda y: y.softmax(1),
        lambda y: y.flatten(2).softmax(-1).view_as(y),
        lambda y: F.log_softmax(y, 1),
        nn.Softmax2d(),
        lambda y: (y.softmax(2) * 3).log_softmax(3).softmax(1),
    ],
    ids=["channels", "positions", "logarithm", "Softmax2d", "three"],
)
def test_softmax_in_the_middle_adds_up(gate):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Gated(gate).double().eval()
    inputs = subjects.signals(4, (3, 9, 8), dtype=torch.float64)
    assert_adds_up(rule_for(model, inputs), inputs[:2], inputs[2:])


def test_softmax_of_equal_scores_is_its_derivative():
    """And masks, which are minus infinity in both, receive nothing."""
    scores = torch.tensor([[1.0, 2, -torch.inf, 0]]).double().requires_grad_()
    for function, multipliers in ((F.softmax, secants.softmax), (F.log_softmax, secants.log_softmax)):
        seed = torch.tensor([[0.0, 1, 0, 0]]).double()
        (expected,) = torch.autograd.grad(function(scores, 1)[0, 1], scores)
        found = multipliers(scores.detach(), scores.detach(), 1, seed)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


# Weights that are computed


class Positive(nn.Module):
    """A formula of the user's own."""

    def forward(self, weight):
        return weight.abs() + 0.1


class Drawn(nn.Module):
    """Another weight in every forward."""

    def forward(self, weight):
        return weight + torch.randn_like(weight)


COMPUTED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "own": lambda layer: parametrize.register_parametrization(layer, "weight", Positive()),
    "weight_norm by a hook": nn.utils.weight_norm,
    "spectral_norm by a hook": nn.utils.spectral_norm,
}


@pytest.mark.filterwarnings("ignore:.*is deprecated in favor of")
@pytest.mark.parametrize("name", COMPUTED)
def test_computed_weights_are_as_good_as_plain_ones(name):
    """Also after what they are computed from has changed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, plain = (Gated(torch.tanh).double() for _ in range(2))
        for layer in (model.conv, model.head):
            COMPUTED[name](layer)
        model(subjects.signals(2, (3, 9, 8), dtype=torch.float64))  # spectral norms estimate themselves in training
    model, plain = model.eval(), plain.eval()
    inputs = subjects.signals(2, (3, 9, 8), dtype=torch.float64)
    method = xf.DeepLift(model)
    for factor in (1, 0.5):
        with torch.no_grad():
            next(p for n, p in model.conv.named_parameters() if n != "bias").mul_(factor)
            model(inputs)
            for layer in ("conv", "head"):
                getattr(plain, layer).weight.copy_(getattr(model, layer).weight)
                getattr(plain, layer).bias.copy_(getattr(model, layer).bias)
        assert_equal_to(method.attribute(inputs, 1), xf.DeepLift(plain).attribute(inputs, 1))
        assert_equal_to(
            xf.DeepLift(model, layer="conv").attribute(inputs, 1), xf.DeepLift(plain, layer="conv").attribute(inputs, 1)
        )
    assert "weight" not in dict(model.conv.named_parameters()), "the caller's own was made plain"


def test_weights_that_are_drawn_are_no_constants():
    layer = nn.Linear(3, 2)
    parametrize.register_parametrization(layer, "weight", Drawn(), unsafe=True)
    assert parametrize.is_parametrized(copied(layer))


# Half precision


HALVES = {torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(
    "gate",
    [torch.relu, nn.PReLU(6), F.gelu, torch.sigmoid, lambda y: F.max_pool2d(y, 2, 1), lambda y: y.softmax(1)],
    ids=["relu", "prelu", "gelu", "sigmoid", "max pool", "softmax"],
)
def test_half_precision_adds_up_and_is_finite(gate, dtype):
    """Also between inputs that differ by a rounding, or nowhere: the quotients are float32's."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Gated(gate).eval()
    exact = copy.deepcopy(model).to(dtype).double()
    inputs = subjects.signals(4, (3, 9, 8)).to(dtype)
    inputs[3] = inputs[1] * (1 + torch.finfo(dtype).eps)
    run = rule_for(model.to(dtype), inputs)
    for of, to in ((OF, TO), (torch.tensor([1]), torch.tensor([1]))):
        (found,), _, _ = pair_up(run, inputs[:2], inputs[2:], of, to)
        (truth,), _, _ = pair_up(rule_for(exact, inputs.double()), inputs[:2].double(), inputs[2:].double(), of, to)
        assert found.isfinite().all()
        assert (found.double() - truth).pow(2).mean().sqrt() <= HALVES[dtype] * truth.abs().max()


def test_a_logarithm_near_zero_in_single_precision():
    """It bends where values of one lie flat, so that no derivative stands in for the quotient."""
    x, b = torch.tensor([1e-4, 3e-4, 1e-6]), torch.tensor([2e-4, 1e-4, 1e-6])
    found = quotient(torch.log, x, b).double()
    x, b = x.double(), b.double()
    torch.testing.assert_close(found[:2], ((x.log() - b.log()) / (x - b))[:2], rtol=1e-5, atol=0)
    torch.testing.assert_close(found[2], 1 / x[2], rtol=1e-6, atol=0)


# Pairs


@pytest.mark.parametrize("layers", [(), ("pool", "body")])
def test_pairs_do_not_depend_on_each_other(layers):
    """Any pairs at once, with several scores: what each gives alone; and a run answers again."""
    inputs = subjects.signals(5, dtype=torch.float64)
    rescale = rule_for(subjects.Small().double(), inputs, layers)
    together, _, _ = pair_up(rescale, inputs[:2], inputs[2:], OF, TO, (0, 3, 1))
    run = rescale(inputs[:2], inputs[2:])
    for pair, (i, j) in enumerate(zip(OF.tolist(), TO.tolist(), strict=True)):
        alone = rescale(inputs[i : i + 1], inputs[2 + j : 3 + j])
        zero = torch.tensor([0])
        for k, column in enumerate((0, 3, 1)):
            first = alone.multipliers(alone.raw[:, [column]], zero, zero)
            again = run.multipliers(run.raw[:, [column]], OF[pair : pair + 1], TO[pair : pair + 1])
            for one, two, many in zip(first, again, together, strict=True):
                assert torch.allclose(one[0, 0], many[pair, k], rtol=1e-10, atol=1e-12)
                assert torch.allclose(two[0, 0], many[pair, k], rtol=1e-10, atol=1e-12)


def test_every_row_runs_forward_once():
    inputs = subjects.signals(5)
    model = subjects.Small()
    rescale = rule_for(model, inputs)
    model.record.chunks.clear()
    run = rescale(inputs[:2], inputs[2:])
    run.multipliers(run.raw, OF, TO)
    run.multipliers(run.raw, OF[:2], TO[:2])
    assert model.record.chunks == [5]


def test_what_a_run_returns():
    """A dictionary as the model returns it, with leaves for the inputs and none for the references."""
    inputs = networks.photos(4, 48)[:, :2, :37, :29].double()
    model = networks.odd_network().double()
    run = rule_for(model, inputs, ("dilated", "norm"))(inputs[:1], inputs[1:])
    with torch.no_grad():
        expected = model(inputs)
    assert list(run.raw) == ["logits", "aux"] == list(run.raw_references)
    for key, value in expected.items():
        assert run.raw[key].is_leaf
        assert run.raw[key].requires_grad
        assert not run.raw_references[key].requires_grad
        assert torch.allclose(torch.cat([run.raw[key], run.raw_references[key]]), value)
    assert [(len(x), len(b), x.shape[1]) for x, b in run.activations] == [(1, 3, 8), (1, 3, 6)]


def test_a_layer_beside_the_way_to_the_score():
    inputs = networks.photos(4, 48)[:, :2, :37, :29].double()
    run = rule_for(networks.odd_network().double(), inputs, ("grouped",))(inputs[:1], inputs[1:])
    (multipliers,) = run.multipliers(run.raw["aux"], torch.tensor([0, 0]), torch.tensor([2, 1]))
    assert multipliers.shape == (2, 3, *run.activations[0][0].shape[1:])
    assert not multipliers.any()


def test_scores_without_gradient_are_refused():
    inputs = subjects.signals(2)
    run = rule_for(subjects.Small(), inputs)(inputs[:1], inputs[1:])
    with pytest.raises(ValueError, match="does not depend differentiably"):
        run.multipliers(run.raw.detach(), torch.tensor([0]), torch.tensor([0]))


def test_close_pairs_in_single_precision():
    """Where float32 differences are rounding, the derivative steps in: quotients would be wrong by their own size."""
    net, (inputs, _) = plain_net(nn.Sigmoid, nn.AvgPool2d(2)), inputs_and_references()
    inputs = inputs.float().double()
    close = (inputs + 1e-5 * subjects.signals(3, (3, 12, 12), seed=5)).float().double()
    each = torch.arange(3)
    (exact,), _, _ = pair_up(rule_for(net, inputs), inputs, close, each, each)
    (single,), _, _ = pair_up(rule_for(net.float(), inputs.float()), inputs.float(), close.float(), each, each)
    assert (single - exact).abs().max() <= 1e-4 * exact.abs().max()


# Where there is no rule


class Doubling(nn.Module):
    """A leaf of the user's own: nobody knows what it computes."""

    def forward(self, x):
        return x * 2


class Watching(nn.Module):
    """Hands its input on while it is captured."""

    asleep = True

    def forward(self, x):
        return x if self.asleep else -x


def on_small(*modules):
    return nn.Sequential(nn.Conv2d(3, 6, 3), *modules, nn.Flatten(), nn.LazyLinear(3))


def with_hook():
    net = on_small(nn.Sequential(nn.ReLU()))
    net[1].register_forward_hook(lambda *_: None)
    return net


REFUSED = {
    "product": (lambda: Gated(lambda y: y * y.mean(1, keepdim=True)), "product behind 'conv' (mul of two values"),
    "quotient": (lambda: Gated(lambda y: y / (1 + y.abs())), "quotient behind 'conv' (truediv of two values"),
    "matmul": (lambda: Gated(lambda y: y @ y.mT), "product behind 'conv' (matmul of two values"),
    "maximum": (lambda: Gated(lambda y: torch.maximum(y, y.flip(1))), "maximum behind 'conv' of values that all"),
    "amax": (lambda: Gated(lambda y: y - y.amax(1, keepdim=True)), "amax behind 'conv'"),
    "detached": (lambda: Gated(lambda y: y + y.detach()), "detach behind 'conv'"),
    "comparison": (lambda: Gated(lambda y: (y > 0).to(y)), "gt behind 'conv', which returns bool"),
    "softmax over rows": (lambda: Gated(lambda y: y.softmax(0)), "every row runs alone"),
    "layer norm": (lambda: on_small(nn.LayerNorm(5)), "layer_norm at '1'"),
    "group norm": (lambda: on_small(nn.GroupNorm(2, 6)), "group_norm at '1'"),
    "gated unit": (lambda: on_small(nn.GLU(1)), "glu at '1'"),
    "own leaf": (lambda: on_small(Doubling()), "needs a formula, and none is known for Doubling at '1'"),
    "hook": (with_hook, "cannot look past the hook on '1' into it"),
    "function": (lambda: Gated(torch.atan), "none is known for atan behind 'conv'"),
    "softmin": (lambda: nn.Sequential(on_small(), nn.Softmin(1)), "none is known for Softmin at '1'"),
    "part": (lambda: Gated(lambda y: (y[:, :2].mul_(2), y)[1]), "writes in place into a part of what conv2d at 'conv'"),
    "item": (lambda: Gated(lambda y: y * y.sum().item()), "every row runs alone"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:rows of a batch depend")
def test_steps_without_a_rule_are_named(name):
    make, words = REFUSED[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
    inputs = subjects.signals(2, (3, 7, 7))
    model(inputs)
    reason = found_for(model.double(), inputs.double())
    assert isinstance(reason, str)
    assert words in reason, reason


@pytest.mark.parametrize(("name", "words"), [("vit", "layer_norm at"), ("convnext", "layer_norm")])
def test_transformers_and_their_like_are_refused(name, words):
    model, inputs = narrow(name)
    reason = found_for(model, inputs)
    assert isinstance(reason, str)
    assert words in reason


def test_squeeze_and_excitation_is_refused():
    settings = mobilenetv3.InvertedResidualConfig(8, 3, 8, 8, True, "RE", 2, 1, 1)
    model = networks.awaken(mobilenetv3.MobileNetV3([settings], 16, num_classes=10), networks.photos(4, 64)).double()
    reason = found_for(model, networks.photos(1, 64).double())
    words = "the product at 'features.1.block.1' (mul of two values that both depend on the input)"
    assert reason == f"the rescale rule does not exist for {words}"


def test_a_layer_behind_what_has_no_rule():
    """Nothing before the layer has to have one."""
    model = nn.Sequential(nn.LayerNorm(7), nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(150, 3)).double()
    inputs = subjects.signals(4, (3, 7, 7), dtype=torch.float64)
    assert isinstance(found_for(model.eval(), inputs), str)
    assert_adds_up(rule_for(model, inputs, ("1",)), inputs[:2], inputs[2:])


def test_a_module_that_stops_handing_on():
    inputs = subjects.signals(2, (3, 7, 7))
    model = nn.Sequential(nn.Conv2d(3, 6, 3), Watching(), nn.ReLU(), nn.Flatten(), nn.Linear(150, 3)).eval()
    rescale = rule_for(model, inputs)
    rescale(inputs[:1], inputs[1:])
    Watching.asleep = False
    try:
        with pytest.raises(RuntimeError, match="Watching at '1' returned its input when"):
            rescale(inputs[:1], inputs[1:])
    finally:
        Watching.asleep = True


def test_hooks_that_only_look_are_passed():
    """They fire once per forward and never backwards, and the module keeps its rule."""
    inputs, seen = subjects.signals(4, (3, 12, 12), dtype=torch.float64), []
    net = plain_net(nn.Tanh, nn.MaxPool2d(2))
    expected, _, _ = pair_up(rule_for(net, inputs), inputs[:2], inputs[2:])
    for layer in (0, 1, 2, 4, 6, 8):
        net[layer].register_forward_hook(lambda _module, _args, made: seen.append(len(made)))
    net[3].register_forward_pre_hook(lambda _module, args: seen.append(len(args[0])))
    rescale = rule_for(net, inputs)
    seen.clear()
    actual, _, _ = pair_up(rescale, inputs[:2], inputs[2:])
    assert seen == [4] * 7
    assert_equal_to(actual[0], expected[0])


@pytest.mark.parametrize("changes", ["out", "out in place", "in", "in in place"])
def test_hooks_that_change_something_are_an_error(changes):
    inputs, net = subjects.signals(2, (3, 12, 12)), plain_net(nn.Tanh, nn.MaxPool2d(2)).float()
    register = net[3].register_forward_hook if "out" in changes else net[3].register_forward_pre_hook
    hooks = {
        "out": lambda _module, _args, made: made * 2,
        "out in place": lambda _module, _args, made: _nothing(made.mul_(2)),
        "in": lambda _module, args: args[0] * 2,
        "in in place": lambda _module, args: _nothing(args[0].mul_(2)),
    }
    register(hooks[changes])
    rescale = rule_for(net, inputs)
    with pytest.raises(ValueError, match="cannot pass the hook on '3', which changes a tensor"):
        rescale(inputs[:1], inputs[1:])


def _nothing(_tensor):
    return None


def half_of_what_comes_back(module):
    module.register_full_backward_hook(lambda _module, given, _asked: tuple(g if g is None else g / 2 for g in given))


def half_of_what_arrives(module):
    module.register_full_backward_pre_hook(lambda _module, given: (given[0] / 2,))


def half_by_the_tensor(module):
    def hook(_module, _args, made):
        if made.requires_grad:
            made.register_hook(lambda gradient: gradient / 2)

    module.register_forward_hook(hook)


@pytest.mark.parametrize("layer", [5, 2, 8], ids=["convolution", "tanh", "linear"])
@pytest.mark.parametrize("hook", [half_of_what_comes_back, half_of_what_arrives, half_by_the_tensor])
def test_hooks_that_change_gradients_are_an_error(hook, layer):
    """The formulas are told apart from what hooks make of them; the forward says nothing about it."""
    inputs, net = subjects.signals(2, (3, 12, 12)), plain_net(nn.Tanh, nn.MaxPool2d(2)).float()
    hook(net[layer])
    with pytest.raises(ValueError, match="a hook changes gradients"):
        xf.DeepLift(net).attribute(inputs, 1)


@pytest.mark.parametrize("look", ["full_backward_hook", "full_backward_pre_hook"])
def test_backward_hooks_that_only_look_are_passed(look):
    inputs, net = subjects.signals(2, (3, 12, 12), dtype=torch.float64), plain_net(nn.Tanh, nn.MaxPool2d(2))
    expected = xf.DeepLift(net).attribute(inputs, 1)
    for layer in (2, 5, 8):
        getattr(net[layer], f"register_{look}")(lambda *_: None)
    assert_equal_to(xf.DeepLift(net).attribute(inputs, 1), expected)


@pytest.mark.filterwarnings("ignore:rows of a batch depend")
def test_what_resists_capture_says_so():
    model, inputs = test_tail.Branching().double().eval(), subjects.signals(2, (3, 16, 16), dtype=torch.float64)
    prepared = prepared_for(model, inputs)
    assert rescale_of(prepared, inputs.shape[1:]) == prepared.resists != ""
    assert "shape" in rescale_of(prepared_for(Reusing().double().eval(), inputs), (3, 20, 20))


def test_layers_that_run_twice_are_an_error():
    inputs = subjects.signals(2, (3, 9, 8))
    with pytest.raises(ValueError, match="more than once"):
        found_for(Reusing().eval(), inputs, ("relu",))


def test_square_and_clamp_and_constants():
    """One tensor read twice is a function of one; constants made on the spot follow the number of rows."""

    def gate(y):
        y = y * y / 2 - torch.relu(y).pow(2) + 1 / (2 + y.sigmoid())
        y = torch.maximum(y, y.new_full((y.shape[0], 1, 1, 1), 0.1).expand_as(y)).clamp(-1, 3)
        return torch.cat(y.chunk(2, 1)[::-1], 1) + F.pad(y, (1, 1, 1, 1), mode="replicate")[..., 1:-1, 2:]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Gated(gate).double().eval()
    inputs = subjects.signals(4, (3, 9, 8), dtype=torch.float64)
    assert_adds_up(rule_for(model, inputs), inputs[:2], inputs[2:])


Two = namedtuple("Two", ["scores", "more"])


class Returning(nn.Module):
    """The scores, wrapped up with something made of them."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap, self.conv, self.head = wrap, nn.Conv2d(3, 6, 3), nn.Linear(6, 3)
        generated.wake(self)

    def forward(self, x):
        return self.wrap(self.head(torch.relu(self.conv(x)).mean((2, 3))))


WRAPPINGS = {
    "named tuple": lambda s: Two(s, s.exp()),
    "indices first": lambda s: (s.argmax(1), s),
    "nested": lambda s: {"a": [s, Two(s * 2, None)]},
    "without a rule": lambda s: {"scores": s, "products": s.cumprod(1), "largest": s.amax(1)},
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_what_the_score_does_not_read_needs_no_rule(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Returning(WRAPPINGS[name]).double().eval()
    inputs = subjects.signals(4, (3, 9, 8), dtype=torch.float64)
    rescale = rule_for(model, inputs)
    assert_adds_up(rescale, inputs[:2], inputs[2:])
    run = rescale(inputs[:2], inputs[2:])
    with torch.no_grad():
        expected = model(inputs[:2])
    assert type(run.raw) is type(expected)
    for mine, truth in zip(tree_leaves(run.raw), tree_leaves(expected), strict=True):
        assert mine is truth is None or torch.allclose(mine, truth)


def test_what_the_score_reads_needs_a_rule():
    model, inputs = Returning(WRAPPINGS["without a rule"]).double().eval(), subjects.signals(2, (3, 9, 8)).double()
    run, zero = rule_for(model, inputs)(inputs[:1], inputs[1:]), torch.tensor([0])
    with pytest.raises(ValueError, match=r"`target` reads what cannot be explained: .*cumprod behind 'head'"):
        run.multipliers(run.raw["scores"] + run.raw["products"], zero, zero)
