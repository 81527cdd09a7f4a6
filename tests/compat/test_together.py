"""Two threads with an explainer each on one model: as one after the other, whatever a library does to the model."""

from __future__ import annotations

import threading

import pytest
from explainers import DRAWING, EXPLAINERS, INPUTS, Net, array, explainer, near, of_each_kind, rectified
from torch import nn

import xai_fast as xf
from xai_fast import accelerate

WAIT = 0.4  # seconds that a forward waits for another thread, which must not come by


@pytest.fixture(autouse=True)
def counted():
    """Counts start at 0."""
    accelerate.reset()
    yield
    accelerate.off()


class Meeting:
    """Where the thread named "first" waits, inside of a forward, for the second to come by.

    Attributes:
        open: whether it waits at all.
        inside: set once it does.
        done: set once the second thread has its result.
    """

    def __init__(self):
        self.open, self.inside, self.done = False, threading.Event(), threading.Event()

    def wait(self):
        if self.open and threading.current_thread().name == "first":
            self.inside.set()
            self.done.wait(WAIT)


MEETING = Meeting()


class Gate(nn.Module):
    """Passes on, through the meeting."""

    def forward(self, x):
        MEETING.wait()
        return x


def gated(passed_on):
    """A network with a gate; what is rectified outside of modules is passed on where hooks decide."""
    model = Net()
    model.rectify = rectified if passed_on else None
    model.tanh = nn.Sequential(model.tanh, Gate()) if not passed_on else model.tanh
    model.pool = nn.Sequential(Gate(), model.pool)
    return model.eval()


# Library code that changes the model while it runs, where it is not served: (who, what the model or call is like).
INTRUDERS = {
    **{
        f"captum {name}": {}
        for name in ("GuidedBackprop", "Deconvolution", "GuidedGradCam", "DeepLift", "NoiseTunnel of DeepLift")
    },
    "captum LayerGradCam": {"attribute_to_layer_input": True},
    "captum LayerActivation": {"attribute_to_layer_input": True},
    "captum LayerIntegratedGradients": {"method": "riemann_trapezoid"},
    "pytorch_grad_cam GradCAM": {"targets": [lambda row: row[2]] * 2},
    "pytorch_grad_cam GuidedBackpropReLUModel": {},
    "shap DeepExplainer": {},
    "shap PartitionExplainer": {},
    "lime LimeImageExplainer": {},
}
SECOND = {
    "captum": ("captum Saliency", "captum LayerGradCam", "captum DeepLift"),
    "pytorch_grad_cam": ("pytorch_grad_cam GradCAM", "captum Saliency"),
    "shap": ("shap GradientExplainer", "captum Saliency"),
    "lime": ("captum Saliency",),
}
PAIRS = [(first, second) for first in INTRUDERS for second in SECOND[first.partition(" ")[0]]]


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.filterwarnings("ignore")
def test_a_thread_does_not_see_what_another_does_to_the_model(first, second):
    library, made, ask = explainer(first)
    other_library, made_other, ask_other = explainer(second)
    how, model = INTRUDERS[first], gated(passed_on=True)
    own, other = INPUTS.clone(), INPUTS.clone()  # libraries change whether a tensor takes a gradient, for a while
    truth = ask(made(gated(passed_on=True)), own, **how), ask_other(made_other(gated(passed_on=True)), other)
    found, errors = {}, []

    def run(name, explain):
        try:
            found[name] = explain()
        except Exception as error:
            errors.append(error)
        finally:
            if name == "second":
                MEETING.done.set()

    with xf.accelerate(library, other_library):
        explainers = made(model), made_other(model)
        ask(explainers[0], own, **how), ask_other(explainers[1], other)  # what is asked once per model is asked
        MEETING.__init__()
        MEETING.open = True
        threads = [
            threading.Thread(target=run, args=("first", lambda: ask(explainers[0], own, **how)), name="first"),
            threading.Thread(target=run, args=("second", lambda: ask_other(explainers[1], other)), name="second"),
        ]
        threads[0].start()
        came = MEETING.inside.wait(10)
        threads[1].start()
        for thread in threads:
            thread.join(60)
        MEETING.open = False
    assert not any(thread.is_alive() for thread in threads), "they wait for each other"
    assert not errors, errors
    served = any(row.reason for row in accelerate.report().rows)
    assert came or served, "the first one's own code has to run"
    for name, plain in zip(("first", "second"), truth, strict=True):
        near(found[name], plain)


# torchcam's extractors read what the caller's own forward left behind, and every forward leaves it at all of them.
ALIKE = [name for name in EXPLAINERS if name.partition(" ")[2] not in DRAWING and not name.startswith("torchcam")]


@pytest.mark.parametrize("name", of_each_kind(ALIKE))
@pytest.mark.filterwarnings("ignore")
def test_threads_agree_with_serial(name):
    library, made, ask = explainer(name)
    model, found, errors = Net(), [], []
    plain = ask(made(Net()))

    def run(one):
        try:
            found.extend(ask(one, INPUTS.clone()) for _ in range(2))
        except Exception as error:
            errors.append(error)

    with xf.accelerate(library):
        threads = [threading.Thread(target=run, args=(made(model),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert not errors, errors
    assert len(found) == 6
    for one in found:
        near(array(one), plain)


@pytest.mark.parametrize("name", ["torchcam ScoreCAM", "torchcam ISCAM"])
@pytest.mark.filterwarnings("ignore")
def test_threads_that_extract_from_one_forward(name):
    library, made, ask = explainer(name)
    plain, model, found = ask(made(Net())), Net(), []
    with xf.accelerate(library):
        extractors = [made(model) for _ in range(3)]
        model(INPUTS)
        threads = [threading.Thread(target=lambda one=one: found.append(ask(one, forward=False))) for one in extractors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert len(found) == 3
    for one in found:
        near(one, plain)
