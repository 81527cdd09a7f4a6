"""Models that change between two calls of one explainer, or are not what they seem: as the library without us."""

from __future__ import annotations

import contextlib
import copy
import warnings

import numpy as np
import pytest
import torch
from explainers import CLASSES, EXPLAINERS, FEW, INPUTS, Net, array, explainer, near, of_each_kind, rectified
from torch import nn
from torch.nn import functional

import xai_fast as xf
from xai_fast import accelerate
from xai_fast.compat import models
from xai_fast.engine import tiers


@pytest.fixture(autouse=True)
def counted():
    """Counts start at 0."""
    accelerate.reset()
    yield
    accelerate.off()


@torch.no_grad()
def weights(model):
    for parameter in model.parameters():
        parameter.mul_(1.3)


def data(model):
    model.body.weight.data = model.body.weight.data.flip(0)


def buffer(model):
    model.norm.running_mean.add_(0.5)


def module(model):
    model.tanh = nn.Hardtanh(-0.5, 0.7)


def attribute(model):
    model.scale = -2.0


def function(model):
    model.rectify = rectified


def own_forward(model):
    """Beside its class's, with a ReLU that is no module."""
    model.forward = lambda x: 2 * functional.relu(Net.forward(model, x) + 9)


def layer(model):
    """An equal one in the place of the one that hooks are in, or that was named."""
    body = nn.Conv2d(6, 6, 3)
    body.load_state_dict(model.body.state_dict())
    model.body = body


def inplace(model):
    """What `body` returns is written over from now on."""
    model.relu.inplace = True


def forward_hook(model):
    model.body.register_forward_hook(lambda _module, _given, output: output * 1.5 + 0.1)


def writing_hook(model):
    model.body.register_forward_hook(lambda _module, _given, output: output.mul_(1.5))


def pre_hook(model):
    model.tanh.register_forward_pre_hook(lambda _module, given: (given[0] - 0.2,))


def backward_hook(model):
    model.tanh.register_full_backward_hook(lambda _module, given, _asked: (given[0] * 0.5,))


def parametrized(model):
    nn.utils.parametrizations.weight_norm(model.body)
    with torch.no_grad():
        model.body.parametrizations.weight.original0.mul_(1.4)


def frozen(model):
    model.requires_grad_(False)


def half_frozen(model):
    model.stem.requires_grad_(False)


def trained(model):
    """As it is while somebody trains it: batch statistics."""
    model.train()


CHANGES = [
    *(weights, data, buffer, module, attribute, function, own_forward, inplace, forward_hook, writing_hook, pre_hook),
    *(layer, backward_hook, parametrized, frozen, half_frozen, trained),
]
# A few of each way to be served.
SOME = [
    *("captum Saliency", "captum IntegratedGradients", "captum Occlusion", "captum KernelShap", "captum DeepLift"),
    *("captum GuidedBackprop", "captum LayerGradCam", "captum GuidedGradCam", "captum NoiseTunnel"),
    *("pytorch_grad_cam GradCAM", "pytorch_grad_cam AblationCAM", "pytorch_grad_cam FullGrad"),
    *("pytorch_grad_cam GuidedBackpropReLUModel", "pytorch_grad_cam ShapleyCAM", "pytorch_grad_cam FinerCAM"),
    *("torchcam ScoreCAM", "torchcam SmoothGradCAMpp", "shap GradientExplainer", "shap DeepExplainer"),
    *("shap PartitionExplainer", "lime LimeImageExplainer", "quantus PyTorchModel"),
]


def outcome(run):
    """What came, or the exception."""
    try:
        return run(), None
    except Exception as error:
        return None, error


def agree(plain, ours, tolerance=2e-5, *, asleep=False):
    """The same result, which is nothing but zeros where it is `asleep`, or the same exception."""
    (found, error), (found_too, error_too) = plain, ours
    assert type(error_too) is type(error), (error, error_too)
    assert str(error_too) == str(error)
    if error is None:
        near(found_too, found, tolerance, scale=1.0 if asleep else None)
        assert not (asleep and array(found).any())


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", of_each_kind(SOME))
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_changes_between_two_calls(name, change):
    library, made, ask = explainer(name)

    def run():
        model = Net()
        one = made(model)
        before = [ask(one, INPUTS.clone()) for _ in range(2)][1]
        change(model)
        return before, outcome(lambda: ask(one, INPUTS.clone()))

    first, plain = run()
    with xf.accelerate(library):
        first_too, ours = run()
    assert accelerate.report().accelerated > 0, str(accelerate.report())
    near(first_too, first)
    agree(plain, ours)


class Centred(nn.Module):
    """Rows of a batch that know each other."""

    def __init__(self, how):
        super().__init__()
        self.net, self.how = Net(), how
        if how == "statistics of the batch":
            self.net.norm = nn.BatchNorm2d(6, track_running_stats=False)
        for part in ("stem", "norm", "tanh", "body", "relu", "pool", "head"):
            setattr(self, part, getattr(self.net, part))
        self.eval()

    def forward(self, x):
        scores = self.net(x)
        return scores - 0.5 * scores.mean(0) if self.how == "scores of the batch" else scores


@pytest.mark.parametrize("how", ["statistics of the batch", "scores of the batch"])
@pytest.mark.parametrize("name", of_each_kind([name for name in EXPLAINERS if "GuidedBackpropReLU" not in name]))
@pytest.mark.parametrize("tier", ["plain", "prepared"])
@pytest.mark.filterwarnings("ignore")
def test_rows_that_depend_on_each_other(name, how, tier):
    """The engine says what a row alone gets, and the library what its batches get."""
    library, made, ask = explainer(name)
    plain = outcome(lambda: ask(made(Centred(how))))
    with xf.accelerate(library), tiers.assuming(tier):
        ours = outcome(lambda: ask(made(Centred(how))))
    agree(plain, ours)


@pytest.mark.parametrize("name", of_each_kind([*FEW, "captum IntegratedGradients", "torchcam SSCAM"]))
@pytest.mark.filterwarnings("ignore")
def test_rows_are_asked_about_where_the_engine_does_not_know(name, monkeypatch):
    """Preparing a model tells; on a plain copy the model itself is run for it, once."""
    library, made, ask = explainer(name)
    found = []
    monkeypatch.setattr(models, "_mixed", lambda *_: found.append(1))
    for tier, times in (("prepared", 0), ("plain", 1)):
        model = Net()
        with xf.accelerate(library), tiers.assuming(tier):
            one = made(model)
            ask(one)
            ask(one)
        assert len(found) == times
    assert accelerate.report().accelerated > 0


def test_of_rows_that_depend_on_each_other_the_engine_speaks_to_its_own_users():
    """Nothing is said of rows that run alone where the library's batches answer; to who asks the engine it is."""
    library, made, ask = explainer("captum Saliency")
    model = Centred("scores of the batch")
    with xf.accelerate(library), warnings.catch_warnings():
        warnings.filterwarnings("error", message="rows of a batch")
        ask(made(model))
        ask(made(model))
    assert {row.reason.partition(":")[0] for row in accelerate.report().rows} == {
        "rows of a batch depend on each other"
    }
    with pytest.warns(UserWarning, match="rows of a batch depend on each other"):
        xf.Saliency(model).attribute(INPUTS, CLASSES)


HALVES = [torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", of_each_kind(SOME))
@pytest.mark.filterwarnings("ignore")
def test_other_precisions(name, dtype):
    library, made, ask = explainer(name)

    def run():
        model = Net().to(dtype)
        return ask(made(model), INPUTS.to(dtype))

    plain = outcome(run)
    with xf.accelerate(library):
        ours = outcome(run)
    agree(plain, ours, 2e-5 if dtype is torch.float64 else 1e-2)


@pytest.mark.parametrize("name", of_each_kind(EXPLAINERS))
@pytest.mark.filterwarnings("ignore")
def test_one_model_under_several_explainers(name):
    """Each made, asked, and asked again after the others."""
    library, made, ask = explainer(name)
    model = Net()
    plain = ask(made(Net()))
    with xf.accelerate(library):
        first, second = made(model), made(model)
        for one in (first, second, first):
            near(ask(one), plain)
        one_by_one = [outcome(lambda at=at: ask(second, INPUTS[at : at + 1])) for at in range(2)]
    for at, found in enumerate(one_by_one):
        agree(outcome(lambda at=at: ask(made(Net()), INPUTS[at : at + 1])), found, asleep="FeaturePermutation" in name)


# What hooks, torchcam's on the model itself among them, keep from the engine, or what it never serves.
UNHOOKED = ("FeaturePermutation", "Deep", "Deconvolution", "PartitionExplainer", "LimeImageExplainer")


@pytest.mark.parametrize("name", of_each_kind(EXPLAINERS))
@pytest.mark.filterwarnings("ignore")
def test_hooks_of_other_libraries(name):
    """Which look on, and stay in the model."""
    library, made, ask = explainer(name)
    others = [other for other in ("torchcam ScoreCAM", "pytorch_grad_cam GradCAM") if EXPLAINERS[other][0] != library]

    def run():
        model = Net()
        looking = [explainer(other)[1](model) for other in others]
        one = made(model)
        found = [outcome(lambda: ask(one, INPUTS.clone())) for _ in range(2)]
        assert len(looking) == len(others)
        return found

    plain = run()
    with xf.accelerate(library):
        ours = run()
    for one, other in zip(plain, ours, strict=True):
        agree(one, other)
    assert accelerate.report().accelerated > 0 or any(part in name for part in UNHOOKED), str(accelerate.report())


@pytest.mark.parametrize("name", of_each_kind(EXPLAINERS))
@pytest.mark.filterwarnings("ignore")
def test_seeds(name):
    """One seed gives one result, and another call goes on in the generators where the library would."""
    library, made, ask = explainer(name)

    def run(model):
        torch.manual_seed(3)
        np.random.seed(3)
        one = made(model)
        ask(one)
        drawn = torch.rand(1).item(), np.random.rand()
        return ask(one), drawn

    plain, drawn = run(Net())
    with xf.accelerate(library):
        ours, drawn_too = run(Net())
    near(ours, plain)
    assert drawn == drawn_too


MODES = {
    "gradients off": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "deterministic": lambda: _set(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled),
    "double by default": lambda: _set(torch.set_default_dtype, torch.get_default_dtype, torch.float64),
    "anomalies looked for": lambda: torch.autograd.set_detect_anomaly(True),
}


@contextlib.contextmanager
def _set(change, look, value=True):
    before = look()
    change(value)
    try:
        yield
    finally:
        change(before)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", of_each_kind(SOME))
@pytest.mark.filterwarnings("ignore")
def test_modes_of_torch(name, mode):
    library, made, ask = explainer(name)
    one, other = made(Net()), made(Net())
    with MODES[mode]():
        plain = outcome(lambda: ask(one))
    with xf.accelerate(library), MODES[mode]():
        ours = outcome(lambda: ask(other))
    agree(plain, ours, 1e-2 if mode == "autocast" else 2e-5)
    if plain[1] is None and isinstance(plain[0], torch.Tensor):
        kinds = [(one.dtype, one.requires_grad, one.is_inference()) for one in (plain[0], ours[0])]
        assert kinds[0] == kinds[1]


LAYOUTS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "turned": lambda x: x.mT.contiguous().mT,
    "a part of something": lambda x: torch.cat([x, x], 2)[:, :, : x.shape[2]],
    "one row many times": lambda x: x[:1].expand_as(x),
    "a parameter": lambda x: nn.Parameter(x.clone()),
    "with a gradient": lambda x: x.clone().requires_grad_(),
    "computed": lambda x: x.clone().requires_grad_() * 1,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "name", of_each_kind([name for name in SOME if not name.startswith(("shap Part", "lime", "quantus"))])
)
@pytest.mark.filterwarnings("ignore")
def test_inputs_of_any_layout(name, layout):
    library, made, ask = explainer(name)
    one, other = made(Net()), made(Net())
    given, given_too = LAYOUTS[layout](INPUTS), LAYOUTS[layout](INPUTS)
    plain = outcome(lambda: ask(one, given))
    with xf.accelerate(library):
        ours = outcome(lambda: ask(other, given_too))
    agree(plain, ours)
    assert torch.equal(given, given_too)
    if plain[1] is None and isinstance(plain[0], torch.Tensor):
        kinds = [(one.dtype, one.requires_grad, one.stride()) for one in (plain[0], ours[0])]
        assert kinds[0] == kinds[1]
    if given.is_leaf:
        if given.grad is not None and given_too.grad is not None:
            near(given_too.grad, given.grad)
        assert (given.grad is None, given.requires_grad) == (given_too.grad is None, given_too.requires_grad)


def around(model):
    """A function whose model is two functions away."""

    def inner(x):
        return model(x)

    return lambda x: inner(x) + 0


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", ["Saliency", "IntegratedGradients", "Occlusion", "FeatureAblation", "KernelShap"])
@pytest.mark.filterwarnings("ignore")
def test_functions_around_models(name, train):
    library, made, ask = explainer(f"captum {name}")
    model = Net().train(train)
    plain = ask(made(around(copy.deepcopy(model))))
    state = copy.deepcopy(model)
    ask(made(around(state)))
    with xf.accelerate(library):
        near(ask(made(around(model))), plain)
    assert accelerate.report().accelerated == (not train), str(accelerate.report())
    for one, other in zip(model.buffers(), state.buffers(), strict=True):
        assert torch.equal(one, other), "running statistics as the library's own call leaves them"


def test_classes_are_not_the_same():
    assert len(set(CLASSES)) == 3
