"""All kinds of models and callers: odd outputs, in-place layers, hooks, changes between calls, failures in forward."""

from __future__ import annotations

import gc
from collections import namedtuple
from functools import cache

import pytest
import torch
from subjects import Small, global_state, model_state, signals
from table import CASES, OF_EACH_PASS
from torch import nn

import xai_fast as xf

first = pytest.mark.parametrize("case", OF_EACH_PASS, ids=lambda case: case.method)
TARGETS = [1, 3, 0]


def near(actual, expected, bound=1e-5):
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max().item()
    assert error <= bound * max(expected.abs().max().item(), 1e-3), f"off by {error:.2e}"


@cache
def told(case, target=tuple(TARGETS), samples=3):
    """The map of the plain `Small`, which many tests look for and none changes."""
    target = list(target) if isinstance(target, tuple) else target
    return case.on(Small()).attribute(signals(samples), target, **case.call)


# Outputs


class Output(nn.Module):
    """`Small` with its answer wrapped in something; its layers are below `net`."""

    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = Small(), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


def below_net(case):
    """The settings of a case with its layer's name as `Output` has it."""
    layer = case.settings.get("layer")
    if layer is None:
        return case.settings
    below = [f"net.{one}" for one in layer] if isinstance(layer, list) else f"net.{layer}"
    return {**case.settings, "layer": below}


class WithLogits:
    def __init__(self, logits):
        self.logits = logits


Pair = namedtuple("Pair", ["scores", "features"])
WRAPPINGS = {
    "tuple": lambda s: (s, s.exp()),
    "list": lambda s: [s, s.exp()],
    "named tuple": lambda s: Pair(s, s.exp()),
    "indices first": lambda s: (s.argmax(1), s),
    "dict": lambda s: {"features": s.exp(), "logits": s},
    "dict of one": lambda s: {"anything": s},
    "logits": WithLogits,
}


@pytest.mark.parametrize("name", WRAPPINGS)
@first
def test_outputs_in_which_scores_are_found(case, name):
    if case.needs_graph and name == "logits":
        pytest.skip("the output is an object, in which no graph sees")
    inputs = signals()
    expected = told(case)
    settings = below_net(case)
    method = getattr(xf, case.method)(Output(WRAPPINGS[name]), **settings)
    near(method.attribute(inputs, TARGETS), expected)


@first
def test_output_says_where_the_scores_are(case):
    inputs = signals()
    expected = told(case)
    settings = below_net(case)
    model = Output(lambda s: {"logits": s.exp(), "deep": {"mine": s}})
    engine = xf.Engine(model, output=lambda raw: raw["deep"]["mine"])
    near(getattr(xf, case.method)(engine, **settings).attribute(inputs, TARGETS), expected)
    if case.needs_truth or case.needs_classes:
        return
    raw = getattr(xf, case.method)(model, **settings).attribute(inputs, lambda raw: raw["deep"]["mine"][:, 2])
    near(raw, told(case, 2))


@first
def test_outputs_that_are_no_scores(case):
    inputs = signals()
    settings = below_net(case)
    with pytest.raises(TypeError, match="`output`"):
        getattr(xf, case.method)(Output(lambda s: "a cat"), **settings).attribute(inputs, 1)
    with pytest.raises(ValueError, match=r"`target`.*scores"):
        getattr(xf, case.method)(Output(lambda s: s[:, :, None]), **settings).attribute(inputs, 1)
    if not case.needs_truth:  # one score per row tells two true classes apart
        with pytest.raises(ValueError, match=r"`target` 1.*scores"):
            getattr(xf, case.method)(Output(lambda s: s[:, 0]), **settings).attribute(inputs, 1)


# Insides


@first
def test_layers_that_write_into_their_input(case):
    """Also the very first one, which writes into what the engine hands in."""
    model, inputs = Small(inplace=True), signals()
    kept = inputs.clone()
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        actual = case.on(model.to(dtype)).attribute(inputs.to(dtype), TARGETS)
        near(actual, case.expected(model, inputs.to(dtype), TARGETS), bound)
    assert torch.equal(inputs, kept)


# CAM's formula is defined for the last layer alone.
AT_ANY_LAYER = [case for case in CASES if "layer" in case.settings and case.method != "CAM"]


@pytest.mark.parametrize("case", AT_ANY_LAYER, ids=str)
def test_a_layer_whose_output_is_overwritten(case):
    """What a layer returned is what counts, also where an in-place ReLU overwrites it right after."""
    layer = ["stem_norm", "pool"] if case.method == "RefineCAM" else "stem_norm"
    shape = (3, 7, 5) if case.method == "ReciproCAM" else (3, 13, 11)  # a forward per position of the layer
    inputs, settings = signals(shape=shape, dtype=torch.float64), {**case.settings, "layer": layer}
    expected = case.replica(Small(inplace=True).double(), inputs, TARGETS, **settings, **case.call)
    for lock in (False,) if case.needs_graph else (False, True):
        actual = getattr(xf, case.method)(Small(inplace=True, lock=lock).double(), **settings).attribute(
            inputs, TARGETS, **case.call
        )
        near(actual, expected, 1e-10)


@first
def test_train_mode_with_dropout(case):
    """A model in training is explained as it answers in evaluation, and stays in training."""
    model, inputs = Small(dropout=0.5).train(), signals()
    expected = told(case)
    near(case.on(model).attribute(inputs, TARGETS), expected)
    assert all(module.training for module in model.modules())
    if case.needs_graph:
        return
    locked = Small(dropout=0.5, lock=True).train()
    near(case.on(locked).attribute(inputs, TARGETS), expected)
    assert all(module.training for module in locked.modules())


@pytest.mark.parametrize("method", ["Occlusion", "Saliency", "InputXGradient"])
def test_plain_callables(method):
    case, inputs = next(case for case in OF_EACH_PASS if case.method == method), signals()
    model = Small()
    expected = told(case)
    before = model_state(model)
    for function in (lambda x: model(x), model.forward, lambda x: {"logits": model(x)}):
        near(case.on(function).attribute(inputs, TARGETS), expected)
    assert model_state(model) == before


@first
def test_an_uncopyable_model_answers_as_a_copyable_one(case):
    inputs = signals()
    if case.needs_graph:
        with pytest.raises(ValueError, match="by the rescale rule: the model cannot be copied"):
            case.on(Small(lock=True)).attribute(inputs, TARGETS)
        return
    for row in (row for row in CASES if row.method == case.method):
        actual = row.on(Small(lock=True)).attribute(inputs, TARGETS, **row.call)
        expected = told(row)
        # Falls of a score round as the score does, however small they are.
        assert (actual - expected).abs().max() <= 1e-5 * max(expected.abs().max().item(), 1.0)


@pytest.mark.parametrize("lock", [False, True], ids=["copied", "uncopyable"])
def test_the_automatic_layer(lock):
    """It is the last one whose positions matter, found without a trace on the model."""
    model, inputs = Small(lock=lock).train(), signals()
    before, world = model_state(model), global_state()
    explanation = xf.GradCAM(model)(inputs, TARGETS)
    assert explanation.layer == ("body_norm",)
    near(explanation.values, xf.GradCAM(Small(), layer="body_norm").attribute(inputs, TARGETS))
    assert model_state(model) == before
    assert global_state() == world


def test_a_layer_by_module_is_found_by_identity():
    model, inputs = Small(), signals()
    by_module = xf.GradCAM(model, layer=[model.body, model.stem])
    assert by_module.layer == ["body", "stem"]
    assert torch.equal(by_module.attribute(inputs, 1), xf.GradCAM(model, layer=["body", "stem"]).attribute(inputs, 1))


@first
def test_a_frozen_model(case):
    model, inputs = Small().requires_grad_(False), signals()
    near(case.on(model).attribute(inputs, TARGETS), told(case))
    assert not any(parameter.requires_grad for parameter in model.parameters())


@first
def test_weights_made_under_inference_mode(case):
    with torch.inference_mode():
        model, inputs = Small(), signals()
    near(case.on(model).attribute(inputs, TARGETS), told(case))


@first
def test_the_default_dtype_of_the_caller(case):
    model, other, inputs = Small(), Small(), signals()
    expected = case.on(model).attribute(inputs, TARGETS)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(case.on(other).attribute(inputs, TARGETS), expected)
    finally:
        torch.set_default_dtype(torch.float32)


# Changes between calls


def _in_place(model):
    with torch.no_grad():
        model.stem.weight.mul_(-1.5)


def _data(model):
    model.body.weight.data.mul_(-1.5)


def _new_data(model):
    model.body.weight.data = model.body.weight.data.flip(0)


def _state_dict(model):
    model.load_state_dict(Small(seed=9).state_dict())


def _parameter(model):
    model.head.weight = nn.Parameter(model.head.weight.detach().flip(0))


def _module(model):
    model.head = nn.Linear(24, 5)


def _buffer(model):
    model.stem_norm.running_mean.add_(1.0)


def _hook(model):
    model.body.register_forward_hook(lambda module, args, output: output * -2)


def _pre_hook(model):
    model.body_norm.register_forward_pre_hook(lambda module, args: (args[0] * -2,))


def _optimiser(model):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(signals(dtype=torch.float64)).square().sum().backward()
    optimiser.step()
    optimiser.zero_grad()


CHANGES = [_in_place, _data, _new_data, _state_dict, _parameter, _module, _buffer, _hook, _pre_hook, _optimiser]
BEHIND_ATTENTION = [_parameter, _module]
BEHIND_THE_POOL = [_data, _new_data, _parameter, _module, _hook, _pre_hook]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__[1:])
@first
def test_changes_of_the_model_are_noticed(case, change):
    """In float64 against the replica, which looks at the model as it now is."""
    if case.needs_graph and change in (_hook, _pre_hook):
        pytest.skip("hooks that change tensors are refused, see test_rescale")
    model, inputs = Small().double(), signals(dtype=torch.float64)
    method = case.on(model)
    before = method.attribute(inputs, TARGETS)
    change(model)
    model.double()
    expected = case.expected(model, inputs, TARGETS)
    # A map of a layer alone, of no class and without a gradient, knows nothing of what is behind it.
    asks_behind = case.class_specific or method.cost(inputs.shape).backwards > 0
    before_it = BEHIND_ATTENTION if case.needs_attention else BEHIND_THE_POOL if "layer" in case.settings else []
    assert torch.allclose(expected, before, rtol=1e-3) == (not asks_behind and change in before_it)
    near(method.attribute(inputs, TARGETS), expected, 1e-10)
    assert torch.equal(method.attribute(inputs, TARGETS), method.attribute(inputs, TARGETS))


@first
def test_a_removed_hook_is_noticed_and_a_dtype_too(case):
    if case.needs_graph:
        pytest.skip("hooks that change tensors are refused, see test_rescale")
    model, inputs = Small(), signals()
    method = case.on(model)
    expected = method.attribute(inputs, TARGETS)
    handle = model.stem.register_forward_hook(lambda module, args, output: output * -2)
    assert not torch.allclose(method.attribute(inputs, TARGETS), expected, rtol=1e-3)
    handle.remove()
    near(method.attribute(inputs, TARGETS), expected)
    model.double()
    near(method.attribute(inputs.double(), TARGETS), case.expected(model, inputs, TARGETS), 1e-10)


@first
def test_refresh_is_for_what_cannot_be_seen(case):
    class Scaled(Small):
        factor = 1.0

        def forward(self, x):
            return super().forward(x) * self.factor

    if case.method == "CAM":
        pytest.skip("what follows its linear layer is refused")
    model, inputs = Scaled(), signals()
    method = case.on(model)
    expected = method.attribute(inputs, TARGETS)
    model.factor = -2.0
    method.engine.refresh()
    changed = method.attribute(inputs, TARGETS)
    curved = ("GuidedBackprop", "Deconvolution", "ErrorAttribution", "ClassAttention", "GradientAttentionRollout")
    if case.method in ("EigenCAM", "FullGrad", "AttentionRollout"):  # of the layer alone; of normalised absolute values
        near(changed, expected)
    elif case.method == "ReciproCAM" or not ("CAM" in case.method or case.method in (*curved, "LeGrad")):
        near(changed, expected * (2.0 if case.method == "Saliency" else -2.0))
    else:  # these rectify, or take a loss
        assert not torch.allclose(changed, expected, rtol=1e-3)


# The user's hooks


@first
def test_the_users_forward_hooks_fire_on_the_rows(case):
    model, inputs = Small(), signals()
    fired = []
    model.stem.register_forward_hook(lambda module, args, output: fired.append(len(output)))
    model.body_norm.register_forward_pre_hook(lambda module, args: fired.append(len(args[0])))
    method = case.on(xf.Engine(model, plan="dense"))
    for _ in range(2):  # whether it is the first call or a later one
        fired.clear()
        ran = int(method(inputs, TARGETS).evaluations.sum())
        assert sum(fired) == 2 * ran
        assert ran <= method.cost(inputs.shape).forwards if case.repeats else ran == method.cost(inputs.shape).forwards


@pytest.mark.parametrize("layer", ["stem_norm", "stem"])
@pytest.mark.parametrize("method", ["Saliency", "InputXGradient"])
def test_the_users_backward_hooks_change_the_gradient(method, layer):
    """A hook that changes gradients is part of the model: this is how guided backpropagation is built by hand."""
    model, inputs = Small(), signals()
    expected = getattr(xf, method)(Small()).attribute(inputs, TARGETS)
    model.get_submodule(layer).register_full_backward_hook(lambda module, grad, _: (grad[0] * 3,))
    near(getattr(xf, method)(model).attribute(inputs, TARGETS), 3 * expected)


# NaN


class Poisoned(Small):
    """Answers NaN for inputs whose first element is above 100."""

    def forward(self, x):
        bad = x[:, 0].flatten(1)[:, :1] > 100
        return torch.where(bad, torch.nan, super().forward(x))


@cache
def poisoned(attends):
    """One for the cases that only ask it; in `test_nan_everywhere` each pass prepares one of its own on such inputs."""
    return Poisoned()


def takes_any_model(case):
    """Whether the method asks nothing of the model: a graph, or a linear layer whose outputs are the scores."""
    return not case.needs_graph and case.method != "CAM"


@pytest.mark.parametrize("several", [False, True], ids=["one target", "K targets"])
@pytest.mark.parametrize("case", [case for case in CASES if takes_any_model(case)], ids=str)
def test_nan_names_the_sample_and_keeps_the_other_maps(case, several):
    if several and case.needs_truth:
        pytest.skip("one class is true")
    model, inputs = poisoned(Small.attends), signals(4)
    inputs[1, 0, 0, 0] = inputs[3, 0, 0, 0] = 101.0
    target = torch.tensor([[1, 0], [2, 3], [0, 1], [1, 2]]) if several else [1, 2, 0, 1]
    method = case.on(xf.Engine(model, batch_size=3))
    with pytest.raises(xf.NonFiniteError, match="samples 1, 3 ") as caught:
        method.attribute(inputs, target, **case.call)
    assert caught.value.samples == [1, 3]
    values = caught.value.values
    chosen = target[::2] if isinstance(target, list) else target[[0, 2]]
    expected = method.attribute(inputs[[0, 2]], chosen, **case.call)
    assert values.shape == (4, *expected.shape[1:])
    assert values.dtype is inputs.dtype
    near(values[[0, 2]], expected)
    assert values[[1, 3]].isnan().all()


@pytest.mark.parametrize("case", [case for case in OF_EACH_PASS if takes_any_model(case)], ids=lambda case: case.method)
def test_nan_everywhere(case):
    model, inputs = Poisoned(), signals(2)
    inputs[:, 0, 0, 0] = 101.0
    with pytest.raises(xf.NonFiniteError, match="samples 0, 1 "):
        case.on(model).attribute(inputs, 1)
    with pytest.raises(xf.NonFiniteError, match="sample 0 "):
        case.on(model).attribute(inputs[:1], case.target(inputs[:1]))
    inputs[:, 0, 0, 0] = 0.0
    assert case.on(model).attribute(inputs, 1).isfinite().all()


def test_nan_in_a_variant_alone():
    """The clean input is fine, and one hidden window is not."""

    def model(x):
        return torch.where((x[:, 0, 4, 4] == 0)[:, None], torch.nan, x.mean((2, 3)))

    inputs = signals(2).abs() + 0.1
    with pytest.raises(xf.NonFiniteError, match="samples 0, 1 "):
        xf.Occlusion(model, window=3).attribute(inputs, 1)
    marked = inputs.clone()
    marked[0, 1, 0, 0] = -50.0  # outside the windows that hide (4, 4), so that it tells the samples apart
    with pytest.raises(xf.NonFiniteError, match="sample 0 ") as caught:
        xf.Occlusion(lambda x: torch.where(x[:, 1, 0, 0] < 0, model(x).T, x.mean((2, 3)).T).T, window=3).attribute(
            marked, 1
        )
    assert caught.value.values[1].isfinite().all()


# Memory


MEMORY_ERRORS = {
    "CUDA's": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "the CPU allocator's": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    "Python's": lambda: MemoryError(),
}


# Which error it was is settled before what a method does about it: each with a capacity of its own.
@pytest.mark.parametrize(("name", "capacity"), zip(MEMORY_ERRORS, (1, 2, 3), strict=True))
@first
def test_out_of_memory_halves_the_batch(case, name, capacity):
    if case.needs_graph and capacity == 1:
        pytest.skip("a pair is two rows")
    model, inputs = Small(), signals(5)
    expected = told(case, 1, samples=5)

    def react(x):
        if len(x) > capacity:
            raise MEMORY_ERRORS[name]()

    model.record.react = react
    for batch_size in ("auto", 100):
        model.record.chunks.clear()
        near(case.on(xf.Engine(model, batch_size=batch_size)).attribute(inputs, 1), expected)
        assert max(model.record.chunks[-2:]) <= capacity


@first
def test_one_row_that_does_not_fit_is_the_callers_to_know(case):
    model, inputs = Small(), signals(2)
    case.on(model).attribute(inputs, 1)

    def react(x):
        raise torch.OutOfMemoryError("out of memory")

    model.record.react = react
    before = model_state(model)
    with pytest.raises(torch.OutOfMemoryError):
        case.on(model).attribute(inputs, 1)
    assert model_state(model) == before


@first
def test_other_runtime_errors_pass_at_once(case):
    model, inputs = Small(), signals(7)
    method = case.on(xf.Engine(model, batch_size=7))
    method.attribute(inputs, 1)
    model.record.chunks.clear()

    def react(x):
        raise RuntimeError("shapes do not match")

    model.record.react = react
    with pytest.raises(RuntimeError, match="shapes do not match"):
        method.attribute(inputs, 1)
    assert model.record.chunks == [7]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt], ids=["exception", "ctrl-c"])
@pytest.mark.parametrize("at", [1, 2, 3])
@first
def test_a_failure_while_preparing_leaves_nothing_behind(case, at, error):
    """Raised in the rows that verify the copy; the next call starts over and answers right."""
    model, inputs = Small().train(), signals()
    before, world = model_state(model), global_state()

    def react(x):
        if len(model.record.chunks) >= at:
            raise error("now")

    model.record.react = react
    with pytest.raises(error):
        case.on(model).attribute(inputs, TARGETS)
    assert model_state(model) == before
    assert global_state() == world
    model.record.react = None
    near(case.on(model).attribute(inputs, TARGETS), told(case))


def test_progress_counts_every_row():
    told = []
    engine = xf.Engine(Small(), batch_size=4, progress=lambda done, total: told.append((done, total)))
    method = xf.Occlusion(engine, window=4)
    method.attribute(signals(), 1)
    total = method.cost((3, 3, 13, 11)).forwards
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    gc.collect()
