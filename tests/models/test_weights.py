"""Reading weights: every way people save them, every way a file can be broken, and no code from a pickle."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from xai_fast.models.weights import load_weights, read_state_dict


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.fixture
def state():
    return {key: torch.randn_like(v) if v.ndim else v for key, v in network().state_dict().items()}


def assert_loaded(path, state, **options):
    model = network()
    load_weights(model, read_state_dict(path, **options), path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


SAVED = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"epoch": 2, "state_dict": s},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {0: {"m": torch.ones(9)}}}},
    "any_key": lambda s: {"checkpoint": {"weights_of_the_net": s, "lr": torch.tensor(0.1)}},
    "module": lambda s: prefixed(s, "module."),
    "compiled": lambda s: {"net": prefixed(s, "_orig_mod.")},
    "both": lambda s: prefixed(s, "_orig_mod.module."),
    "averaged": lambda s: {"model_ema": {"n_averaged": torch.tensor(5), **prefixed(s, "module.")}},
    "no_counters": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("form", SAVED)
def test_forms(tmp_path, state, form):
    torch.save(SAVED[form](state), tmp_path / "w.pth")
    assert_loaded(tmp_path / "w.pth", state)


def test_an_optimisers_state_is_not_mistaken_for_the_model(tmp_path):
    model = nn.Linear(2, 1)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    torch.save({"optimizer": optimiser.state_dict(), "net": model.state_dict()}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == model.state_dict().keys()


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_is_known_by_content(tmp_path, state, name):
    save_file(state, tmp_path / name)
    assert_loaded(tmp_path / name, state)


def test_prefix_that_belongs_to_the_model_stays(tmp_path):
    model = nn.ModuleDict({"module": nn.Linear(2, 2)})
    torch.save(model.state_dict(), tmp_path / "w.pth")
    load_weights(model, read_state_dict(tmp_path / "w.pth"), "w.pth")


class Malicious:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.mark.parametrize("save", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
def test_a_pickle_never_runs_unasked(tmp_path, state, save):
    canary = tmp_path / "canary"
    save({"state_dict": state, "extra": Malicious(canary)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"`weights`.*Python objects.*run code.*allow_pickle=True.*safetensors"):
        read_state_dict(tmp_path / "w.pth")
    assert not canary.exists()


def test_a_whole_model_needs_allow_pickle(tmp_path):
    model = network()
    torch.save(model, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="allow_pickle=True"):
        read_state_dict(tmp_path / "w.pth")
    assert_loaded(tmp_path / "w.pth", model.state_dict(), allow_pickle=True)


def test_mismatch_says_counts_names_and_shapes_and_changes_nothing(state):
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state["3.weight"] = torch.zeros(7, 4)
    state["extra"] = torch.zeros(1)
    del state["0.bias"]
    with pytest.raises(ValueError, match=r"`weights`: w\.pth does not fit Sequential") as raised:
        load_weights(model, state, "w.pth")
    message = str(raised.value)
    assert "1 missing from the file (0.bias)" in message
    assert "1 not in the model (extra)" in message
    assert "1 of another shape (3.weight (7, 4) for (2, 4))" in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_long_lists_are_cut():
    with pytest.raises(ValueError, match=r"9 not in the model \(a0, a1, a2, a3, \.\.\.\)"):
        load_weights(network(), {f"a{i}": torch.ones(1) for i in range(9)}, "w.pth")


def torch_file(path):
    torch.save({f"w{i}": torch.randn(64, 64) for i in range(4)}, path)
    return path.read_bytes()


def safetensors_file(path):
    save_file({"w": torch.randn(64, 64)}, path)
    return path.read_bytes()


BROKEN = {
    "empty.pth": (lambda p: b"", "is empty"),
    "text.pth": (lambda p: b"epoch,loss\n1,0.5\n", "cannot be read"),
    "page.pth": (lambda p: b"<!DOCTYPE html><html></html>", "cannot be read"),
    "half.pth": (lambda p: torch_file(p)[:9000], "cannot be read: truncated"),
    "half.safetensors": (lambda p: safetensors_file(p)[:9000], "damaged or not a safetensors file"),
    "text.safetensors": (lambda p: b"hello", "damaged or not a safetensors file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content(tmp_path / "whole"))
    with pytest.raises(ValueError, match=f"`weights`: .*{message}"):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("allow_pickle", [False, True])
def test_broken_files_stay_clear_errors_when_pickles_are_allowed(tmp_path, allow_pickle):
    (tmp_path / "w.pth").write_bytes(b"\x80\x02garbage")
    with pytest.raises(ValueError, match="`weights`"):
        read_state_dict(tmp_path / "w.pth", allow_pickle)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match=r"`weights`: there is no file .*gone\.pth"):
        read_state_dict(tmp_path / "gone.pth")
    with pytest.raises(ValueError, match=r"`weights`: .* is a folder"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], torch.ones(2), {}])
def test_files_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="no state dict"):
        read_state_dict(tmp_path / "w.pth")
