"""Re-running only what lies behind a layer gives the numbers of the whole model, or is not done at all.

Three kinds of models: random ones that write the same things in many ways (`generated.py`), torchvision's (narrow ones
by default, in full width and at every layer with `--slow`), and ones whose forward does what no graph can hold. It is
long because each of the latter is a class.
"""

from __future__ import annotations

import copy
import dataclasses
from functools import cache

import generated
import networks
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from torchvision.models import (
    convnext,
    densenet,
    mobilenetv2,
    resnet,
    shufflenetv2,
    swin_transformer,
    vision_transformer,
)

import xai_fast as xf

METHODS = ("GradCAM", "AblationCAM", "ReciproCAM")
ABLATING = METHODS[1:]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The models are so small that threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def activations(model, inputs):
    """{layer: shape} of the tensors that layers return, in order of their first completion."""
    shapes = {}

    def note(name):
        def hook(_module, _args, output):
            tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
            if tensors and tensors[0].ndim in (3, 4) and len(tensors[0]) == 2:  # position tables have no rows
                shapes.setdefault(name, tuple(tensors[0].shape))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    with torch.no_grad():
        model(torch.cat([inputs[:1], inputs[:1]]))
    for handle in handles:
        handle.remove()
    return shapes


def images(model, inputs):
    """The layers that return (N, C, h, w)."""
    return [name for name, shape in activations(model, inputs).items() if len(shape) == 4]


def answer(engine, method, layer, inputs, target, **options):
    """The map, or the error that came instead."""
    try:
        return getattr(xf, method)(engine, layer=layer, **options).attribute(inputs, target)
    except (ValueError, TypeError, RuntimeError) as error:
        return error


def assert_agree(actual, expected, where=""):
    """Equal to 1e-10 of the largest value (a dead layer's map is rounding), or refused with the same words."""
    if isinstance(expected, Exception):
        assert type(actual) is type(expected), f"{where}: {expected!r} became {actual!r}"
        if isinstance(expected, ValueError):
            assert str(actual) == str(expected), where
        return
    if isinstance(actual, Exception):
        raise AssertionError(f"{where}: refused where the whole model answers") from actual
    assert actual.shape == expected.shape, where
    error = (actual - expected).abs().max().item()
    assert error <= 1e-10 * max(expected.abs().max().item(), 1e-3), f"{where}: off by {error:.2e}"


def assert_plans_agree(model, method, layer, inputs, target=None, plan="auto", **options):
    """The same map from fresh engines under `plan` and under "dense"; returns the dense answer."""
    expected = answer(xf.Engine(copy.deepcopy(model), plan="dense"), method, layer, inputs, target, **options)
    actual = answer(xf.Engine(copy.deepcopy(model), plan=plan), method, layer, inputs, target, **options)
    assert_agree(actual, expected, f"{method} at {layer!r} under {plan!r}")
    return expected


# Random networks


def examples(count):
    """So many networks, the same ones every time; a slow machine is no failure."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=slow)


@examples(30)
@given(net=generated.networks(), data=st.data())
def test_any_layer_of_a_random_network(net, data):
    inputs = generated.inputs(net.double(), dtype=torch.float64)
    layer = data.draw(st.sampled_from(images(net, inputs)))
    for method in METHODS:
        assert_plans_agree(net, method, layer, inputs)


@examples(12)
@given(net=generated.networks(max_depth=3), data=st.data())
def test_several_layers_and_all_options_on_a_random_network(net, data):
    inputs = generated.inputs(net.double(), n=1, dtype=torch.float64)
    layers = data.draw(st.lists(st.sampled_from(images(net, inputs)), min_size=1, max_size=3, unique=True))
    options = {"fuse": data.draw(st.sampled_from(["max", "mean"])), "aug_smooth": data.draw(st.booleans())}
    method = data.draw(st.sampled_from(METHODS))
    if method == "ReciproCAM":
        options["gaussian"] = data.draw(st.booleans())
    assert_plans_agree(net, method, layers, inputs, **options)


@pytest.mark.slow
@examples(400)
@given(net=generated.networks(max_depth=6), data=st.data())
def test_any_layer_of_many_random_networks(net, data):
    inputs = generated.inputs(net.double(), dtype=torch.float64)
    layer = data.draw(st.sampled_from(images(net, inputs)))
    assert_plans_agree(net, data.draw(st.sampled_from(METHODS)), layer, inputs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", generated.ARCHITECTURES)
def test_maps_of_scores_with_a_callable_target(name, seed, method):
    model = generated.ARCHITECTURES[name](seed).double()
    inputs = generated.inputs(model, dtype=torch.float64)
    for layer in images(model, inputs)[seed::5]:
        assert_plans_agree(model, method, layer, inputs, generated.inner)


@pytest.mark.parametrize("method", METHODS)
def test_several_targets_at_once(method):
    model = generated.network(3).double()
    inputs = generated.inputs(model, dtype=torch.float64)
    assert_plans_agree(model, method, "blocks.1", inputs, torch.tensor([[0, 3], [4, 2]]))


def test_the_random_networks_are_awake():
    """Scores that differ between inputs, rows that do not see each other, and every block kind at least once."""
    kinds = set()
    for seed in range(60):
        net = generated.network(seed, depth=3)
        kinds.update(type(module) for module in net.modules() if isinstance(module, generated.Block))
        with torch.no_grad():
            batch = generated.inputs(net, 4)
            together = tree_leaves(net.double()(batch.double()))
            alone = tree_leaves(net(batch[2:3].double()))
        scores = next(leaf for leaf in together if leaf.ndim == 2)
        assert scores.std(0).max() > 0.01, f"network {seed} sleeps"
        for one, all_rows in zip(alone, together, strict=True):
            assert torch.allclose(one, all_rows[2:3], rtol=1e-9, atol=1e-11), f"rows of network {seed} see each other"
    assert kinds == set(generated.BLOCKS)


# torchvision


class NarrowResNet(resnet.ResNet):
    """A block per stage, of a quarter of the channels."""

    def __init__(self, block, **options):
        super().__init__(block, [1, 1, 1, 1], **options)
        self.fc = nn.Linear(128 * block.expansion, 10)

    def _make_layer(self, block, planes, *args, **options):
        return super()._make_layer(block, planes // 4, *args, **options)


NARROW = {
    "resnet": lambda: NarrowResNet(resnet.BasicBlock),
    "resnext": lambda: NarrowResNet(resnet.Bottleneck, groups=4, width_per_group=16),
    "densenet": lambda: densenet.DenseNet(8, (2, 2, 2), 8, num_classes=10),
    "mobilenet_v2": lambda: mobilenetv2.MobileNetV2(num_classes=10, width_mult=0.25),
    "shufflenet_v2": lambda: shufflenetv2.ShuffleNetV2([2, 2, 2], [12, 16, 24, 32, 48], num_classes=10),
    "convnext": lambda: convnext.ConvNeXt(
        [convnext.CNBlockConfig(8, 16, 2), convnext.CNBlockConfig(16, None, 2)], num_classes=10
    ),
    "swin": lambda: swin_transformer.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=10),
    "swin_v2": lambda: swin_transformer.SwinTransformer(
        *([4, 4], 8, [2, 2], [2, 2], [4, 4]),
        num_classes=10,
        block=swin_transformer.SwinTransformerBlockV2,
        downsample_layer=swin_transformer.PatchMergingV2,
    ),
    "vit": lambda: vision_transformer.VisionTransformer(64, 16, 3, 2, 16, 32, num_classes=10),
}
# Name to (options of the builder, side of the photo). The first ones are fast enough to look at every time.
FULL = {
    "resnet18": ({}, 64),
    "googlenet": ({"init_weights": False}, 64),
    "mobilenet_v3_small": ({}, 64),
    "squeezenet1_1": ({}, 64),
    "lraspp_mobilenet_v3_large": ({"weights_backbone": None, "num_classes": 5}, 64),
    "inception_v3": ({"init_weights": False}, 96),
    "resnet50": ({}, 64),
    "densenet121": ({}, 64),
    "mobilenet_v2": ({}, 64),
    "convnext_tiny": ({}, 64),
    "swin_t": ({}, 64),
    "efficientnet_b0": ({}, 64),
    "regnet_y_400mf": ({}, 64),
    "shufflenet_v2_x0_5": ({}, 64),
    "vgg11": ({}, 64),
    "vit_b_16": ({"image_size": 64}, 64),
    "fcn_resnet50": ({"weights_backbone": None, "num_classes": 5}, 64),
    "deeplabv3_resnet50": ({"weights_backbone": None, "num_classes": 5}, 64),
}
EVERY_TIME = list(FULL)[:5]


@cache
def narrow(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return networks.awaken(NARROW[name](), networks.photos(12, 64)).double()


def full(name):
    options, side = FULL[name]
    return networks.awakened(name, **options).double(), networks.photos(1, side).double(), target_of(name)


def target_of(name):
    return generated.inner if name.startswith(("lraspp", "fcn", "deeplab")) else None


def spread(items, count):
    """About `count` of the items, evenly from the first to the last."""
    items = list(items)
    if len(items) <= count:
        return items
    return [items[round(k * (len(items) - 1) / (count - 1))] for k in range(count)]


def affordable(shapes, method, rows=40):
    """Layers at which a method needs no more than so many rows of the whole model."""
    found = []
    for name, shape in shapes.items():
        channels_last = len(shape) == 3 or shape[1] == shape[2] != shape[3]
        channels = shape[-1] if channels_last else shape[1]
        positions = shape[1] if len(shape) == 3 else torch.Size(shape).numel() // (shape[0] * channels)
        if (channels if method == "AblationCAM" else positions) <= rows:
            found.append(name)
    return found


def assert_tail_equals_dense(model, method, layers, inputs, target=None):
    """At each of the layers, with one engine per plan; at one of them at least there must be a map."""
    dense, tail = xf.Engine(model, plan="dense"), xf.Engine(model, plan="tail")
    maps = 0
    for layer in layers:
        expected = answer(dense, method, layer, inputs, target)
        assert_agree(answer(tail, method, layer, inputs, target), expected, f"{method} at {layer!r}")
        maps += isinstance(expected, torch.Tensor)
    assert maps


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NARROW)
def test_narrow_torchvision_networks(name, method):
    model, inputs = narrow(name), networks.photos(1, 64).double()
    shapes = activations(model, inputs)
    layers = list(shapes) if method == "GradCAM" else affordable(shapes, method, rows=64)
    # In eval mode it returns what it was given, which no graph tells from what gave it.
    layers = [layer for layer in layers if not layer.endswith("stochastic_depth")]
    assert_tail_equals_dense(model, method, spread(layers, 6), inputs)


@pytest.mark.parametrize("name", EVERY_TIME)
def test_torchvision_networks_at_some_layers(name):
    model, inputs, target = full(name)
    shapes = activations(model, inputs)
    assert_tail_equals_dense(model, "GradCAM", spread(shapes, 4), inputs, target)
    assert_tail_equals_dense(model, "ReciproCAM", spread(affordable(shapes, "ReciproCAM", 16), 2), inputs, target)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FULL)
def test_torchvision_networks_at_every_layer(name, method):
    model, inputs, target = full(name)
    shapes = activations(model, inputs)
    layers = list(shapes) if method == "GradCAM" else spread(affordable(shapes, method), 8)
    if method == "AblationCAM" and not layers:
        pytest.skip("every layer is wider than is cheap to ablate")
    assert_tail_equals_dense(model, method, layers, inputs, target)


@pytest.mark.slow
@pytest.mark.parametrize("method", ABLATING)
@pytest.mark.parametrize("name", NARROW)
def test_narrow_torchvision_networks_at_every_layer(name, method):
    model, inputs = narrow(name), networks.photos(1, 64).double()
    assert_tail_equals_dense(model, method, affordable(activations(model, inputs), method, rows=256), inputs)


# Forwards with a mind of their own


class Plain(nn.Module):
    """Two convolutions and a head; a subclass puts something between them."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)
        generated.wake(self)

    def between(self, x):
        return x

    def after(self, scores):
        return scores

    def forward(self, x):
        x = self.between(torch.relu(self.one(x)))
        x = torch.relu(self.two(x))
        return self.after(self.head(x.mean((2, 3))))


class Alternating(Plain):
    calls = 0

    def between(self, x):
        self.calls += 1
        return x if self.calls % 2 else 1.5 * x.flip(-1)


class Warming(Plain):
    """Settles only after some calls, when whoever compared it has gone."""

    calls = 0

    def between(self, x):
        self.calls += 1
        return x if self.calls < 6 else 0.5 * x.flip(-1)


class Growing(Plain):
    def __init__(self):
        super().__init__()
        self.seen = []

    def between(self, x):
        self.seen.append(1)
        return x * len(self.seen) ** 0.5


class Buffered(Plain):
    """Counts in a buffer, as momentum encoders do, and uses the count."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def between(self, x):
        self.count += 1
        return x / self.count.to(x.dtype).sqrt()


class Branching(Plain):
    def between(self, x):
        if x.mean() > x.detach().amax() / 8:
            return x - 0.5
        return -1.3 * x


class BranchingOnScores(Plain):
    def after(self, scores):
        return scores * 2 if scores.sum() > 0 else scores - 1


class Drawing(Plain):
    def between(self, x):
        return x + 0.3 * torch.rand(x.shape, dtype=x.dtype)


class DrawingLike(Plain):
    """Draws through a call that a graph can record."""

    def between(self, x):
        return x + 0.3 * torch.rand_like(x)


class AlwaysDropping(Plain):
    """Monte-Carlo dropout: stays on in eval mode."""

    def between(self, x):
        return F.dropout(x, 0.3, training=True)


class Trying(Plain):
    def between(self, x):
        try:
            if float(x.max()) > 2.5:
                raise ArithmeticError
            return x * 2
        except ArithmeticError:
            return x.clamp(max=2)


class Itemised(Plain):
    def between(self, x):
        return x / (1 + x.abs().max().item())


class Numbered(Plain):
    """Goes through numpy."""

    def between(self, x):
        return x * torch.from_numpy(x.detach().numpy() > 0.3)


class BatchSized(Plain):
    """Asks for the number of rows in Python."""

    def between(self, x):
        return torch.stack([x[row] * 1.25 for row in range(len(x))])


class AcrossRows(Plain):
    """Rows that see each other: every row is told the first row's mean."""

    def between(self, x):
        return x + x[:1].mean()


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    features: torch.Tensor


class Answering(Plain):
    def after(self, scores):
        return Answer(scores, scores.exp())


class Mapping(Plain):
    def after(self, scores):
        return {"features": scores.exp(), "logits": scores}


class Nested(Plain):
    def after(self, scores):
        return scores, [{"more": scores * 2}, None]


class Meter(nn.Module):
    """A user's leaf that counts the rows it sees; copies count into the same list."""

    def __init__(self):
        super().__init__()
        self.rows = _Shared()

    def forward(self, x):
        self.rows.append(len(x))
        return x


class _Shared(list):
    def __deepcopy__(self, memo):
        return self


class Metered(Plain):
    def __init__(self):
        super().__init__()
        self.meter = Meter()

    def between(self, x):
        return self.meter(x)


class Wrapped(Plain):
    """A layer that is called through its `forward`, past its hooks."""

    def between(self, x):
        return self.two.forward(x)


STUBBORN = (Alternating, Warming, Growing, Buffered, Branching, BranchingOnScores, Drawing, DrawingLike, AlwaysDropping)
STUBBORN = (*STUBBORN, Trying, Itemised, Numbered)
WILLING = (Plain, Answering, Mapping, Nested, BatchSized, Metered, Wrapped)
stubborn = pytest.mark.parametrize("make", STUBBORN)
every_method = pytest.mark.parametrize("method", METHODS)
one_or_two = pytest.mark.parametrize("layer", ["one", "two"])


def subject(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = make().eval()
    model.size = (13, 14)
    return model.double(), generated.inputs(model, dtype=torch.float64)


@one_or_two
@every_method
@pytest.mark.parametrize("make", [*STUBBORN, *WILLING])
@pytest.mark.filterwarnings("ignore:rows of a batch depend")  # some branch on what the whole batch holds
def test_a_forward_with_state_never_gives_a_wrong_number(make, method, layer):
    model, inputs = subject(make)
    answers = []
    for plan in ("dense", "auto"):
        torch.manual_seed(3)
        engine = xf.Engine(copy.deepcopy(model), plan=plan, batch_size=4)
        answers.append(answer(engine, method, layer, inputs, 2))
    assert isinstance(answers[0], torch.Tensor), answers[0]
    assert_agree(answers[1], answers[0], f"{method} at {layer!r} of {make.__name__}")


@every_method
@stubborn
@pytest.mark.filterwarnings("ignore:rows of a batch depend")  # some branch on what the whole batch holds
def test_the_plan_says_why(make, method):
    model, inputs = subject(make)
    engine = xf.Engine(model)
    told = engine.explain_plan(getattr(xf, method)(engine, layer="one"), inputs)
    refusals = [line for line in told.splitlines() if "tail" in line and "refused" in line]
    assert refusals, told
    assert len(refusals[0].split(":", 1)[-1].strip()) > 10, told


@every_method
@stubborn
@pytest.mark.filterwarnings("ignore:rows of a batch depend")  # some branch on what the whole batch holds
def test_a_forced_tail_refuses_what_no_graph_can_hold(make, method):
    model, inputs = subject(make)
    with pytest.raises(ValueError, match="`plan`"):
        getattr(xf, method)(xf.Engine(model, plan="tail"), layer="one").attribute(inputs, 2)


@pytest.mark.parametrize("make", [Plain, Mapping])
@every_method
def test_a_forced_tail_takes_what_a_graph_can_hold(make, method):
    model, inputs = subject(make)
    assert_plans_agree(model, method, "one", inputs, 2, plan="tail")


@pytest.mark.parametrize("method", ["Occlusion", "Saliency", "InputXGradient"])
def test_a_forced_tail_refuses_a_method_that_changes_the_input(method):
    model, inputs = subject(Plain)
    options = {"window": 5} if method == "Occlusion" else {}
    with pytest.raises(ValueError, match="`plan`"):
        getattr(xf, method)(xf.Engine(model, plan="tail"), **options).attribute(inputs, 2)


@pytest.mark.parametrize("plan", ["auto", "dense", "tail"])
@every_method
def test_a_layer_that_runs_twice_is_refused_under_every_plan(method, plan):
    class Twice(Plain):
        def between(self, x):
            return self.two(x)

    model, inputs = subject(Twice)
    with pytest.raises(ValueError, match="`layer`"):
        getattr(xf, method)(xf.Engine(model, plan=plan), layer="two").attribute(inputs, 2)
    assert_plans_agree(model, method, "one", inputs, 2)


@pytest.mark.parametrize("plan", ["auto", "dense", "tail"])
@every_method
def test_a_layer_that_never_runs_is_refused_under_every_plan(method, plan):
    class Unused(Plain):
        def __init__(self):
            super().__init__()
            self.spare = nn.Conv2d(6, 6, 1)

    model, inputs = subject(Unused)
    with pytest.raises(ValueError, match="`layer`"):
        getattr(xf, method)(xf.Engine(model, plan=plan), layer="spare").attribute(inputs, 2)


@every_method
@pytest.mark.filterwarnings("ignore:rows of a batch depend")  # some branch on what the whole batch holds
def test_rows_that_see_each_other_are_seen_in_the_same_company(method):
    """What such a model should answer is nobody's to say, but with one row per forward it is clear."""
    model, inputs = subject(AcrossRows)
    expected = answer(xf.Engine(copy.deepcopy(model), plan="dense", batch_size=1), method, "one", inputs, 2)
    assert_agree(answer(xf.Engine(model, batch_size=1), method, "one", inputs, 2), expected)


@every_method
def test_hooks_that_change_an_output_do(method):
    model, inputs = subject(Plain)
    without = answer(xf.Engine(copy.deepcopy(model), plan="dense"), method, "one", inputs, 2)
    model.two.register_forward_hook(lambda module, args, output: output * 1.7 + 0.2)
    model.head.register_forward_pre_hook(lambda module, args: (args[0] - 0.4,))
    hooked = assert_plans_agree(model, method, "one", inputs, 2)
    assert (hooked - without).abs().max() > 1e-3 * without.abs().max()


@every_method
def test_hooks_on_the_layer_itself_come_first(method):
    """What a layer returns is what its hooks made of it."""
    model, inputs = subject(Plain)
    model.one.register_forward_hook(lambda module, args, output: output.flip(-1) + 0.3)
    assert_plans_agree(model, method, "one", inputs, 2)


@every_method
def test_hooks_that_count_count_every_row_behind_the_layer(method):
    counts = {}
    for plan in ("dense", "auto"):
        model, inputs = subject(Plain)
        seen = _Shared()
        model.two.register_forward_hook(lambda module, args, output, seen=seen: seen.append(len(output)))
        attribution = getattr(xf, method)(xf.Engine(model, plan=plan), layer="one")
        attribution.attribute(inputs, 2)
        seen.clear()
        attribution.attribute(inputs, 2)
        counts[plan] = sum(seen)
    assert counts["auto"] == counts["dense"]


@every_method
def test_a_patched_forward_is_run(method):
    """Some give an instance a forward of its own."""
    model, inputs = subject(Plain)
    inner = model.two.forward
    model.two.forward = lambda x: inner(x) * 1.3 - 0.1
    assert_plans_agree(model, method, "one", inputs, 2)


@every_method
def test_a_change_between_calls_is_seen(method):
    model, inputs = subject(Plain)
    attribution = getattr(xf, method)(xf.Engine(model), layer="one")
    attribution.attribute(inputs, 2)
    with torch.no_grad():
        model.two.weight.mul_(-1)
    expected = answer(xf.Engine(copy.deepcopy(model), plan="dense"), method, "one", inputs, 2)
    assert_agree(attribution.attribute(inputs, 2), expected)


@every_method
def test_another_size_of_input_on_the_same_engine(method):
    """A graph that was captured at one size must not answer for another with constants of the first."""

    class Sized(Plain):
        def between(self, x):
            height, width = x.shape[2:]
            return x * (height / width) + torch.linspace(-1, 1, width, dtype=x.dtype)

    model, inputs = subject(Sized)
    engines = [xf.Engine(copy.deepcopy(model), plan=plan) for plan in ("dense", "auto")]
    for cut in (0, 3, 1, 0):
        given = inputs[:, :, cut:, : 14 - 2 * cut]
        expected, actual = (answer(engine, method, "one", given, 2) for engine in engines)
        assert_agree(actual, expected, f"{tuple(given.shape)}")


@every_method
def test_other_numbers_of_rows_on_the_same_engine(method):
    model, inputs = subject(BatchSized)
    engines = [xf.Engine(copy.deepcopy(model), plan=plan) for plan in ("dense", "auto")]
    for rows in (inputs[:1], inputs, inputs.repeat(2, 1, 1, 1)[:3], inputs[1:]):
        expected, actual = (answer(engine, method, "one", rows, 2) for engine in engines)
        assert_agree(actual, expected, f"{len(rows)} rows")


@every_method
def test_in_place_right_behind_the_layer(method):
    """The layer's output is overwritten by what follows, and must still be the layer's output for every variant."""

    class Writing(Plain):
        def forward(self, x):
            y = self.one(x)
            z = y[:, :, ::2]
            y.mul_(0.7).add_(0.1)
            x = F.relu(self.two(y) + y, inplace=True)
            return self.head(x.mean((2, 3)) + z.sum((2, 3)) / 50)

    model, inputs = subject(Writing)
    expected = assert_plans_agree(model, method, "one", inputs, 2)
    assert isinstance(expected, torch.Tensor)
    assert_plans_agree(model, method, "two", inputs, 2)


@every_method
def test_a_layer_that_writes_into_its_input(method):
    class Stacked(Plain):
        def __init__(self):
            super().__init__()
            self.act, self.deep = nn.ReLU(inplace=True), nn.Sequential(nn.Hardswish(inplace=True), nn.Identity())

        def forward(self, x):
            x = self.one(x)
            y = self.act(x)
            return self.head((self.deep(self.two(y)) + x).mean((2, 3)))

    model, inputs = subject(Stacked)
    for layer in ("one", "act", "two", "deep", "deep.0", "deep.1"):
        assert_plans_agree(model, method, layer, inputs, 2)


@every_method
def test_a_layer_whose_output_goes_nowhere(method):
    """Its map is zero; at least it is the same zero, or the same refusal."""

    class DeadEnd(Plain):
        def between(self, x):
            self.two(x)
            return x

    class Detached(Plain):
        def between(self, x):
            return x.detach() * 1.5

    for make in (DeadEnd, Detached):
        model, inputs = subject(make)
        assert_plans_agree(model, method, "one", inputs, 2)


@every_method
def test_a_layer_that_returns_several_tensors(method):
    class Pair(nn.Module):
        def forward(self, x):
            return x * 1.5, {"other": x - 1}

    class Several(Plain):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def between(self, x):
            one, rest = self.pair(x)
            return one + rest["other"]

    model, inputs = subject(Several)
    assert_plans_agree(model, method, "pair", inputs, 2)
    assert_plans_agree(model, method, "one", inputs, 2)


class Finishing(nn.Module):
    """Writes into what it is about to return."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        y.mul_(1.5).add_(0.3)
        return y


class Passing(nn.Module):
    """Returns the very tensor that it got, as stochastic depth does in eval mode; no leaf, because of its child."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Identity()

    def forward(self, x):
        return x


class Around(Plain):
    """`inner` between the convolutions; what it got is read again, or written into, afterwards."""

    def __init__(self, inner, write=False):
        super().__init__()
        self.inner, self.write = inner, write

    def between(self, x):
        y = self.inner(x)
        if self.write:
            x.mul_(0.6).add_(0.2)
        return torch.sigmoid(y) - 0.4 * x


@every_method
@pytest.mark.parametrize("write", [False, True], ids=["read", "written"])
@pytest.mark.parametrize(
    "inner",
    [Finishing, Passing, nn.Identity, nn.Dropout, lambda: nn.Sequential(nn.Dropout())],
    ids=["finishing", "passing", "identity", "dropout", "sequential"],
)
def test_a_layer_that_returns_what_others_hold_too(inner, write, method):
    """A layer's output is what it returns, when it returns it, for those who read it from there and for no one else."""
    model, inputs = subject(lambda: Around(inner(), write))
    for layer in ("one", "inner", "two"):
        assert_plans_agree(model, method, layer, inputs, 2)
