"""What a target names and what a model returns are read as they are meant, or refused in words.

The judge is the plain model in float64: the gradient by autograd of what the target means, or its fall under a window.
"""

from __future__ import annotations

import dataclasses
from collections import namedtuple

import numpy as np
import pytest
import torch
from methods.subjects import signals
from torch import nn
from torch.nn import functional as F

import xai_fast as xf
from xai_fast import targets
from xai_fast.core.prepared import widened

INPUTS = signals(3, (3, 9, 8), dtype=torch.float64)


class Net(nn.Module):
    """Scores, and what is returned of them; counts the rows it is given."""

    def __init__(self, returns, n_outputs):
        super().__init__()
        self.returns, self.seen = returns, []
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, n_outputs)

    def forward(self, x):
        return self.returns(self.head(torch.relu(self.conv(x)).mean((2, 3))))


def net(returns=lambda scores: scores, n_outputs=3):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = Net(returns, n_outputs).double().eval()
        model.head.weight.data.mul_(8)
    return model


def gradient(model, score, inputs=INPUTS):
    leaf = inputs.clone().requires_grad_()
    return torch.autograd.grad(score(model(leaf)).sum(), leaf)[0]


def close(actual, expected):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-9 * expected.abs().max()


def assert_explained(model, target, score, inputs=INPUTS, **settings):
    """By gradient and by occlusion, what `score` of the raw output says; on a batch and on one input."""
    for some in (inputs, inputs[:1]):
        engine = xf.Engine(model, **settings)
        close(xf.Saliency(engine, absolute=False).attribute(some, target), gradient(model, score, some))
        hidden = some.clone()
        hidden[:, :, :9, :4] = 0
        fall = (score(model(some)) - score(model(hidden))).detach()
        close(xf.Occlusion(engine, window=(9, 4)).attribute(some, target)[:, 0, 0, 0], fall)


# One logit

ONE = {
    "probability": (targets.probability(0), torch.sigmoid),
    "probability of the best": (targets.probability(), torch.sigmoid),
    "log_probability": (targets.log_probability(0), F.logsigmoid),
    "cross_entropy of 1": (targets.cross_entropy(1), lambda s: F.softplus(-s)),
    "cross_entropy of 0": (targets.cross_entropy(0), F.softplus),
    "index": (0, lambda s: s),
    "none": (None, lambda s: s),
}
COLUMNS = {"(N, 1)": lambda s: s, "(N,)": lambda s: s[:, 0], "squeezed": lambda s: s.squeeze()}


@pytest.mark.parametrize("shape", COLUMNS)
@pytest.mark.parametrize("name", ONE)
def test_one_logit_means_its_sigmoid(name, shape):
    target, formula = ONE[name]
    assert_explained(net(COLUMNS[shape], 1), target, lambda s: formula(s.reshape(-1)))


def test_labels_of_one_logit_may_differ():
    labels = torch.tensor([1.0, 0, 1]).double()
    expected = gradient(
        net(n_outputs=1), lambda s: F.binary_cross_entropy_with_logits(s[:, 0], labels, reduction="none")
    )
    method = xf.Saliency(net(n_outputs=1), absolute=False)
    close(method.attribute(INPUTS, targets.cross_entropy([1, 0, 1])), expected)
    close(xf.ErrorAttribution(net(n_outputs=1)).attribute(INPUTS, [1, 0, 1]), expected)


@pytest.mark.parametrize("against", ["distribution", "predicted"])
def test_the_error_of_one_logit_is_between_two_classes(against):
    """The scores of the classes 0 and 1 are 0 and s."""
    model, true = net(n_outputs=1), torch.tensor([1, 0, 0])
    scores = model(INPUTS).detach()[:, 0]
    share = (scores > 0).double() if against == "predicted" else scores.sigmoid()
    method = xf.ErrorAttribution(model, kind="activation", against=against, layer="conv")
    error, bias = share - true, model.head.bias.detach()
    torch.testing.assert_close(method(INPUTS, true).score, error * scores)
    sums = method.attribute(INPUTS, true, resolution="native").sum((1, 2, 3))
    torch.testing.assert_close(sums, error * (scores - bias))


def test_what_one_logit_cannot_mean_is_refused():
    with pytest.raises(ValueError, match=r"`target` margin compares two classes.*give `target=0`"):
        xf.Saliency(net(n_outputs=1)).attribute(INPUTS, targets.margin(0))
    with pytest.raises(ValueError, match="`target` 1 is not a class of this model, which has 1"):
        xf.Saliency(net(n_outputs=1)).attribute(INPUTS, targets.probability(1))
    with pytest.raises(ValueError, match="`target` 2 is not a class"):
        xf.Saliency(net(n_outputs=1)).attribute(INPUTS, targets.cross_entropy(2))


# Where the scores are


@dataclasses.dataclass(frozen=True)
class Frozen:
    features: torch.Tensor
    logits: torch.Tensor


@dataclasses.dataclass
class Head:
    prediction: torch.Tensor


@dataclasses.dataclass
class Nested:
    extra: object
    head: Head


class Plain:
    def __init__(self, logits):
        self.logits = logits


Named = namedtuple("Named", ["aux", "scores"])
WRAPPED = {
    "frozen dataclass": lambda s: Frozen(s * 2, s),
    "nested dataclass": lambda s: Nested("words", Head(s)),
    "object": Plain,
    "named tuple": lambda s: Named(s * 2, s),
    "dict in a dict": lambda s: {"aux": None, "first": {"mask": s > 0, "logits": s}},
    "dataclass in a dict": lambda s: {"first": Frozen(s * 2, s)},
    "index first": lambda s: (s.argmax(1), s),
}


def scores_in(raw):
    """What each of them holds, found by hand."""
    match raw:
        case dict():
            return scores_in(raw.get("first", raw.get("logits")))
        case Nested():
            return raw.head.prediction
        case Named():
            return raw.scores
        case tuple():
            return raw[1]
    return raw if isinstance(raw, torch.Tensor) else raw.logits


@pytest.mark.parametrize("name", WRAPPED)
def test_scores_are_found_wherever_they_are(name):
    assert_explained(net(WRAPPED[name]), 2, lambda raw: scores_in(raw)[:, 2])
    assert_explained(net(WRAPPED[name]), targets.probability(1), lambda raw: scores_in(raw).softmax(1)[:, 1])


@pytest.mark.parametrize("name", [name for name in WRAPPED if name != "object"])  # which no graph can fill in
def test_deeplift_of_wrapped_scores(name):
    close(xf.DeepLift(net(WRAPPED[name])).attribute(INPUTS, 2), xf.DeepLift(net()).attribute(INPUTS, 2))


def test_hugging_face_outputs():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    wrap = {"ModelOutput": lambda s: outputs.ImageClassifierOutput(logits=s, hidden_states=(s * 2,))}
    assert_explained(net(wrap["ModelOutput"]), 1, lambda raw: raw.logits[:, 1])


def test_half_precision_inside_an_object_is_widened_on_a_copy():
    raw = Nested(3, Head(torch.ones(2, 3).half()))
    wide = widened({"a": raw})["a"]
    assert (wide.head.prediction.dtype, raw.head.prediction.dtype) == (torch.float32, torch.float16)
    assert (wide.extra, type(wide)) == (3, Nested)
    frozen = widened(Frozen(torch.ones(1).double(), torch.ones(1).bfloat16()))
    assert (frozen.features.dtype, frozen.logits.dtype) == (torch.float64, torch.float32)


NOT_SCORES = {
    "class indices": (lambda s: s.argmax(1), TypeError, "the model returned torch.int64"),
    "nothing": (lambda s: None, TypeError, "the model returned NoneType"),
    "other names": (lambda s: type("Thing", (), {"other": s})(), TypeError, "the model returned Thing"),
    "a detector's list": (lambda s: [{"scores": row} for row in s], TypeError, "the model returned list"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NOT_SCORES)
def test_what_holds_no_scores_is_refused(name):
    returns, error, words = NOT_SCORES[name]
    for method in (xf.Saliency(net(returns)), xf.Occlusion(net(returns), window=4)):
        with pytest.raises(error, match=f"{words}.*`output`"):
            method.attribute(INPUTS, 0)


STRANGE = {
    "indices": (lambda s: s.argmax(1), TypeError, "`output` returned torch.int64"),
    "an array": (lambda s: s.detach().numpy(), TypeError, "`output` returned ndarray"),
    "nothing": (lambda s: None, TypeError, "`output` returned NoneType"),
    "the sum": (lambda s: s.sum(), ValueError, r"`output` returned \(\) for 3 input rows"),
    "fewer rows": (lambda s: s[1:], ValueError, r"`output` returned \(2, 3\) for 3 input rows"),
    "three axes": (lambda s: s[:, :, None], ValueError, r"`output` returned \(3, 3, 1\)"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_an_output_function_that_returns_no_table_is_refused(name):
    output, error, words = STRANGE[name]
    for make in (xf.Saliency, lambda engine: xf.Occlusion(engine, window=4)):
        with pytest.raises(error, match=words):
            make(xf.Engine(net(), output=output)).attribute(INPUTS, 0)
    with pytest.raises(TypeError, match="`output` came as int"):
        xf.Engine(net(), output=3)


# How many outputs there are


def test_heads_are_counted_apart():
    """Each `output` function has its own number of classes, whoever was asked first."""
    model = net(lambda s: {"a": s[:, :3], "b": s}, 5)
    first, second = (lambda raw: raw["a"]), (lambda raw: raw["b"])
    for output, count in ((None, 3), (second, 5), (first, 3), (None, 3)):
        engine = xf.Engine(model, output=output)
        close(
            xf.Saliency(engine, absolute=False).attribute(INPUTS, count - 1),
            gradient(model, lambda raw, count=count: raw["b"][:, count - 1]),
        )
        with pytest.raises(ValueError, match=f"`target` {count} is not a class of this model, which has {count}"):
            xf.Saliency(engine).attribute(INPUTS, count)


def test_a_bound_method_as_output_keeps_no_model_alive():
    import gc
    import weakref

    class Owner(Net):
        def pick(self, raw):
            return raw[:, :2]

    model = Owner(lambda s: s, 3).double().eval()
    xf.Saliency(xf.Engine(model, output=model.pick)).attribute(INPUTS, 1)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("make", [xf.Saliency, lambda engine: xf.RISE(engine, n_masks=4)], ids=["Saliency", "RISE"])
def test_names_that_do_not_match_the_outputs_are_refused(make):
    for names in ("ab", ["cat", "dog", "cow", "hen"]):
        method = make(xf.Engine(net(), classes=names))
        with pytest.raises(ValueError, match=f"`classes` holds {len(names)} names and the model has 3 outputs"):
            method.attribute(INPUTS, 0)
    with pytest.raises(ValueError, match="`classes` holds 2 names and the model has 1 output;"):
        make(xf.Engine(net(n_outputs=1), classes=["no", "yes"])).attribute(INPUTS, 0)
    for names in ({0: "cat"}, [0, 1, 2], {"a", "b", "c"}, 3):
        with pytest.raises(TypeError, match="`classes` came as"):
            xf.Engine(net(), classes=names)


def test_names_that_do_not_match_do_not_name_a_prediction():
    """A function target takes any output: the table it happens to be is no table of these classes."""
    explanation = xf.Saliency(xf.Engine(net(), classes=["cat", "dog"]))(INPUTS, lambda raw: raw[:, 2])
    assert explanation.outputs is None


# How many rows there are

ROWS = {
    "one fewer": (lambda s: s[:-1], r"\(2, 3\)"),
    "one for all": (lambda s: s.mean(0, keepdim=True), r"\(1, 3\)"),
    "windows": (lambda s: s.repeat_interleave(4, 0), r"\(12, 3\)"),
    "windows last": (lambda s: s.flatten(), r"\(9,\)"),
}
METHODS = {
    "Saliency": lambda m: xf.Saliency(m),
    "IntegratedGradients": lambda m: xf.IntegratedGradients(m, n_steps=2),
    "SmoothGrad": lambda m: xf.SmoothGrad(m, n_samples=2),
    "DeepLift": lambda m: xf.DeepLift(m),
    "Occlusion": lambda m: xf.Occlusion(m, window=3),
    "RISE": lambda m: xf.RISE(m, n_masks=4, cells=3),
    "KernelShap": lambda m: xf.KernelShap(m, segments=torch.arange(72).view(9, 8) // 18, n_samples=8),
    "GradCAM": lambda m: xf.GradCAM(m, layer="conv"),
    "AblationCAM": lambda m: xf.AblationCAM(m, layer="conv"),
    "ErrorAttribution": lambda m: xf.ErrorAttribution(m, kind="activation", layer="conv"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ROWS)
def test_another_number_of_rows_is_refused(name, method):
    returns, came = ROWS[name]
    with pytest.raises(ValueError, match=f"the model returned {came} for 3 input rows.*`output`"):
        METHODS[method](net(returns)).attribute(INPUTS, 1)


def test_another_number_of_rows_is_refused_by_targets_of_the_output():
    """One embedding for all inputs would be compared with each of theirs."""
    for name in ("one fewer", "one for all", "windows"):
        method = xf.Saliency(net(ROWS[name][0]))
        with pytest.raises(ValueError, match=r"the model returned .* for 3 input rows"):
            method.attribute(INPUTS, targets.similarity(torch.eye(3)))
        segments = xf.Saliency(net(lambda s, name=name: ROWS[name][0](s)[:, :, None, None].expand(-1, -1, 2, 2)))
        with pytest.raises(ValueError, match=r"the model returned .* for 3 input rows"):
            segments.attribute(INPUTS, targets.region(torch.ones(2, 2), 1))


@pytest.mark.parametrize("plan", ["dense", "auto"])
def test_rows_that_are_lost_among_variants_are_refused(plan):
    """One input comes back alone; its variants, many at a time, do not."""
    for name in ("one fewer", "one for all"):
        model = net(lambda s, name=name: ROWS[name][0](s) if len(s) > 1 else s)
        with pytest.raises(ValueError, match=r"the model returned .* input rows"):
            xf.Occlusion(xf.Engine(model, plan=plan, batch_size=4), window=3).attribute(INPUTS[:1], 1)


# What names classes

ONE_HOT = {
    "float": (torch.eye(3), TypeError, r"came as torch.float32 \(3, 3\).*One-hot rows.*`target.argmax\(1\)`"),
    "bool": (torch.eye(3).bool(), TypeError, r"came as torch.bool \(3, 3\).*One-hot rows"),
    "integers": (torch.eye(3).long(), ValueError, r"one-hot rows for a model with 3 outputs.*`target.argmax\(1\)`"),
    "one class alone": (torch.eye(3).long()[[1, 1, 1]], ValueError, "one-hot rows"),
    "bytes": (torch.eye(3).byte(), ValueError, "one-hot rows"),
    "array": (np.eye(3, dtype=int), TypeError, r"came as array\((.|\n)*One-hot rows"),
    "lists": ([[0, 1, 0]] * 3, TypeError, r"came as \[\[.*One-hot rows"),
    "a single row": (torch.tensor([0.0, 1, 0]), TypeError, "came as torch.float32.*One-hot rows"),
}


@pytest.mark.parametrize("name", ONE_HOT)
def test_one_hot_rows_are_refused_with_the_sentence(name):
    target, error, words = ONE_HOT[name]
    for method in (xf.Saliency(net()), xf.Occlusion(net(), window=3)):
        with pytest.raises(error, match=f"`target` .*{words}"):
            method.attribute(INPUTS, target)


def test_one_hot_rows_of_two_outputs():
    """(0, 1) are both classes in order; in any other order they may be one-hot, and are refused."""
    method = xf.Saliency(net(n_outputs=2), absolute=False)
    both = method.attribute(INPUTS, torch.tensor([[0, 1]] * 3))
    for k in range(2):
        close(both[:, k], method.attribute(INPUTS, k))
    for rows in ([[1, 0]] * 3, [[0, 1], [1, 0], [0, 1]]):
        with pytest.raises(ValueError, match=r"`target` .* one-hot rows for a model with 2 outputs"):
            method.attribute(INPUTS, torch.tensor(rows))


def test_indices_that_only_look_like_one_hot_rows():
    """Ones and zeros of another width, or several ones, are classes."""
    method = xf.Saliency(net(), absolute=False)
    for wanted in ([[0, 1]] * 3, [[0, 1, 1]] * 3, [[0, 0, 0]] * 3, [[0, 1, 2]] * 3):
        found = method.attribute(INPUTS, torch.tensor(wanted))
        for k, column in enumerate(wanted[0]):
            close(found[:, k], method.attribute(INPUTS, column))


NO_CLASSES = {
    "a set": {0, 1, 2},
    "a dict": {0: 1, 1: 1, 2: 1},
    "bytes": b"\x00\x01\x02",
    "truth values": np.array([True, False, True]),
    "floats": np.array([0.0, 1.0, 2.0]),
    "a float": np.float64(1.0),
    "nested": [[0, 1, 2]] * 3,
    "too large": 2**70,
    "without numbers": torch.zeros(3, dtype=torch.long, device="meta"),
    "sparse": torch.tensor([0, 1, 2]).to_sparse(),
    "complex": torch.zeros(3, dtype=torch.complex64),
}


@pytest.mark.parametrize("name", NO_CLASSES)
def test_what_is_no_class_index_is_refused_before_anything_runs(name):
    model, rows = net(), []
    model.register_forward_pre_hook(lambda _module, args: rows.append(len(args[0])))
    with pytest.raises(TypeError, match="`target` came"):
        xf.Saliency(model).attribute(INPUTS, NO_CLASSES[name])
    assert not rows


def test_what_is_known_is_refused_before_anything_runs():
    """The number of outputs is known from their names, or from a call before."""
    for model, settings in ((net(), {"classes": "abc"}), (net(), {})):
        rows = []
        engine = xf.Engine(model, **settings)
        if not settings:
            engine.scores(INPUTS, 0)
        model.register_forward_pre_hook(lambda _module, args, rows=rows: rows.append(len(args[0])))
        for target in (3, torch.eye(3).long(), targets.probability(3), targets.cross_entropy([0, 1, 5])):
            if settings:
                with pytest.raises(ValueError, match="`target`"):
                    xf.Occlusion(engine, window=3).attribute(INPUTS, target)
        assert not rows


def test_a_picture_of_one_logit_says_its_sigmoid():
    model = net(n_outputs=1).float()
    (explained,) = xf.explain(INPUTS[:1].float(), model, methods=xf.Saliency(model))
    name, probability = explained.prediction
    assert (name, probability) == ("class 0", pytest.approx(float(model(INPUTS[:1].float()).detach().sigmoid())))


class ImagesAndText(nn.Module):
    """A model of both, as transformers writes them."""

    def __init__(self):
        super().__init__()
        self.words, self.net = nn.Embedding(5, 3), net()

    def forward(self, input_ids=None, pixel_values=None):
        return self.net(pixel_values) + self.words(input_ids).mean(1)


class Images(nn.Module):
    """The same, of images alone."""

    def __init__(self, both):
        super().__init__()
        self.both = both

    def forward(self, x):
        return self.both(input_ids=torch.zeros(len(x), 1, dtype=torch.long), pixel_values=x)


@pytest.mark.parametrize("method", [xf.Saliency, xf.Occlusion, xf.GradCAM, xf.KernelShap, xf.AttentionRollout])
def test_a_model_whose_first_argument_is_text_is_refused_in_words(method):
    settings = {"window": 3} if method is xf.Occlusion else {}
    settings |= {"segments": torch.arange(72).view(9, 8) // 24} if method is xf.KernelShap else {}
    with pytest.raises(ValueError, match="takes `input_ids` first and the images as `pixel_values`"):
        method(ImagesAndText().double().eval(), **settings).attribute(INPUTS, 0)


def test_a_module_that_calls_it_by_names_is_explained():
    assert_explained(Images(ImagesAndText()).double().eval(), 1, lambda scores: scores[:, 1])
