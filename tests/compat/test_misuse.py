"""Wrong arguments, in every library: the library's own exception or result, and a model that stays as it was."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from explainers import CAPTUM, EXPLAINERS, GRAD_CAM, INPUTS, SHAP, TORCHCAM, Net, explainer, of_each_kind
from subjects import model_state

import xai_fast as xf
from xai_fast import accelerate


@pytest.fixture(autouse=True)
def counted():
    """Counts start at 0."""
    accelerate.reset()
    yield
    accelerate.off()


INPUT = {
    "no tensor": lambda: "a string",
    "nothing": lambda: None,
    "an array": lambda: INPUTS.numpy(),
    "a list": lambda: [INPUTS],
    "an empty tuple": lambda: (),
    "an empty batch": lambda: INPUTS[:0],
    "one image without an axis of rows": lambda: INPUTS[0],
    "too few channels": lambda: INPUTS[:, :2],
    "too small": lambda: INPUTS[:, :, :3, :3],
    "whole numbers": lambda: (9 * INPUTS).long(),
    "another precision": lambda: INPUTS.double(),
    "no numbers": lambda: torch.full_like(INPUTS, torch.nan),
    "meta": lambda: INPUTS.to("meta"),
    "sparse": lambda: INPUTS.to_sparse(),
}
ARGUMENTS = {
    **{
        f"captum {name}": {
            "a class that is not there": {"target": 9},
            "a class below 0": {"target": -1},
            "classes that are not there": {"target": [1, 2, 9]},
            "too few classes": {"target": [1, 2]},
            "a class that is no number": {"target": "cat"},
            "a fraction": {"target": 1.5},
            "true": {"target": True},
            "fractions": {"target": torch.tensor([0.5, 1.0, 2.0])},
            "no class": {"target": None},
            "a tuple that selects a row": {"target": (1, 2)},
            "an unknown argument": {"nonsense": 1},
            "a wrong baseline": {"baselines": INPUTS[:2]},
            "a baseline of another size": {"baselines": INPUTS[:, :, :4]},
            "a baseline that is no tensor": {"baselines": "black"},
            "no steps": {"n_steps": 0},
            "steps that are no number": {"n_steps": "many"},
            "no samples": {"n_samples": 0},
            "half a sample": {"n_samples": 1.5},
            "no rows at a time": {"perturbations_per_eval": 0},
            "a mask of another size": {"feature_mask": torch.zeros(1, 1, 4, 4, dtype=torch.long)},
            "a mask of fractions": {"feature_mask": torch.rand(1, 1, 13, 11)},
            "a window that is too large": {"sliding_window_shapes": (3, 40, 5)},
            "a window of one number": {"sliding_window_shapes": 3},
            "a window of too few axes": {"sliding_window_shapes": (3, 3)},
            "a step that leaves gaps": {"strides": (3, 9, 9)},
            "an unknown quadrature": {"method": "simpson"},
            "noise of an unknown kind": {"nt_type": "smoothest"},
            "rows of noise": {"nt_samples": 0},
            "further arguments that the model does not take": {"additional_forward_args": 3},
        }
        for name in CAPTUM
    },
    **{
        f"pytorch_grad_cam {name}": {
            "too few targets": {"targets": [lambda row: row[1]]},
            "no list": {"targets": lambda row: row[1]},
            "targets that return no number": {"targets": [lambda row: row] * 3},
            "targets that fail": {"targets": [lambda row: row["cat"]] * 3},
            "an unknown argument": {"nonsense": 1},
        }
        for name in GRAD_CAM
        if name != "GuidedBackpropReLUModel"
    },
    "pytorch_grad_cam GuidedBackpropReLUModel": {
        "a class that is not there": {"target_category": 9},
        "a class below 0": {"target_category": -1},
        "a fraction": {"target_category": 1.5},
        "a string": {"target_category": "cat"},
        "true": {"target_category": True},
    },
    **{
        f"torchcam {name}": {
            "a class that is not there": {"class_idx": 9},
            "a class below 0": {"class_idx": -1},
            "too few classes": {"class_idx": [1]},
            "a string": {"class_idx": "cat"},
            "no class": {"class_idx": None},
            "a target that returns a row": {"class_idx": None, "targets": lambda row: row},
            "a class and a target": {"targets": lambda row: row[1]},
        }
        for name in TORCHCAM
    },
    **{
        f"shap {name}": {
            "no draws": {"nsamples": 0},
            "half a draw": {"nsamples": 1.5},
            "an unknown order": {"ranked_outputs": 1, "output_rank_order": "best"},
            "more outputs than there are": {"ranked_outputs": 9},
            "no outputs": {"ranked_outputs": 0},
            "a seed that is none": {"rseed": "seed"},
            "an unknown argument": {"nonsense": 1},
        }
        for name in SHAP
        if name != "PartitionExplainer"
    },
    "lime LimeImageExplainer": {
        "no samples": {"num_samples": 0},
        "a class that is not there": {"labels": (9,)},
        "an unknown metric": {"distance_metric": "nearly"},
        "no rows at a time": {"batch_size": 0},
        "an unknown argument": {"nonsense": 1},
    },
    "quantus PyTorchModel": {"an unknown argument": {"nonsense": 1}, "with a gradient": {"grad": True}},
}


def outcome(run):
    """The result as an array, or the type and text of the exception, and the model's state."""
    try:
        result = run()
    except Exception as error:
        return type(error), re.sub(r"0x[0-9a-f]+", "", str(error))
    parts = result if isinstance(result, tuple) else (result,)
    return [part.detach().numpy() if isinstance(part, torch.Tensor) else np.asarray(part) for part in parts]


def agree(plain, ours, what):
    if isinstance(plain, tuple) or isinstance(ours, tuple):
        assert plain == ours, what
        return
    assert len(plain) == len(ours), what
    for one, other in zip(plain, ours, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype), what
        scale = np.nanmax(np.abs(one), initial=1e-3) if np.isfinite(one).any() else 1
        np.testing.assert_allclose(other, one, rtol=0, atol=3e-5 * scale, equal_nan=True, err_msg=what)


def compared(name, wrong):
    """Every wrong call by itself, on a model of its own, plain and accelerated."""
    library, made, ask = explainer(name)
    for what, call in wrong.items():
        plain, left = after_a_right_one(made, ask, call)
        with xf.accelerate(library):
            ours, left_too = after_a_right_one(made, ask, call)
        agree(plain, ours, what)
        assert left_too <= left, what


def after_a_right_one(made, ask, call):
    """What comes of a call, and the modules in which it and a right one leave something behind, as libraries do."""
    model = Net()
    one = made(model)
    alive = [(module, *vars(module).values()) for module in model.modules()]  # so that no other gets their numbers
    state = _kept(model)
    ask(one, INPUTS.clone())
    found = outcome(lambda: call(one, ask))
    assert alive
    return found, {fact[0] for fact in _kept(model) if fact not in state}


def _kept(model):
    """The state without gradients of parameters, which libraries leave behind."""
    return [fact[:-1] if len(fact) == 6 else fact for fact in model_state(model)]


@pytest.mark.parametrize("name", of_each_kind(EXPLAINERS))
@pytest.mark.filterwarnings("ignore")
def test_wrong_inputs(name):
    compared(name, {what: lambda one, ask, wrong=wrong: ask(one, wrong()) for what, wrong in INPUT.items()})


@pytest.mark.parametrize("name", of_each_kind(ARGUMENTS))
@pytest.mark.filterwarnings("ignore")
def test_wrong_arguments(name):
    def wrongly(wrong):
        return lambda one, ask: ask(one, INPUTS.clone(), **wrong)

    compared(name, {what: wrongly(wrong) for what, wrong in ARGUMENTS[name].items()})


class Fails(torch.nn.Module):
    """Fails on a forward of the caller's choice."""

    def __init__(self):
        super().__init__()
        self.fails = False

    def forward(self, x):
        if self.fails:
            raise KeyError("the user's own error")
        return x


@pytest.mark.parametrize("name", of_each_kind(EXPLAINERS))
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_fails(name):
    library, made, ask = explainer(name)

    def run():
        model = Net()
        model.tanh = torch.nn.Sequential(model.tanh, Fails())
        one = made(model)
        ask(one, INPUTS.clone())
        state = _kept(model)
        model.tanh[1].fails = True
        found = outcome(lambda: ask(one, INPUTS.clone()))
        model.tanh[1].fails = False
        return found, _kept(model) != state

    plain, left = run()
    with xf.accelerate(library):
        ours, left_too = run()
    assert plain == ours
    assert plain[0] is KeyError
    assert left or not left_too
