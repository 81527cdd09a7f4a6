"""One thread for these tests: their models are so small that threads would only wait for each other."""

from __future__ import annotations

import pytest
import torch
from subjects import Small


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def subject(request, monkeypatch):
    """`Small` has attention in tests of a case that needs it."""
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    monkeypatch.setattr(Small, "attends", getattr(params.get("case"), "needs_attention", False))
