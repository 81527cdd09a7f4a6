"""Forwards of a network by the engines that people would switch to: onnxruntime and OpenVINO, an extra each."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

Forward = Callable[[], Tensor]


def onnxruntime(model: nn.Module, x: Tensor) -> Forward:
    """In float32, with all of its optimisations, on as many threads as torch."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        torch.onnx.export(copy.deepcopy(model), (x,), path, dynamo=False)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name, values = session.get_inputs()[0].name, x.numpy()
    return lambda: torch.from_numpy(session.run(None, {name: values})[0])


def openvino(model: nn.Module, x: Tensor, precision: str) -> Forward:
    """In "f32" or "bf16", for one request at a time, on as many threads as torch."""
    import openvino as ov

    # Traced here, because its own tracing takes the rounding of two runs for a fault.
    traced = torch.jit.trace(copy.deepcopy(model), x, check_trace=False)
    converted = ov.convert_model(traced, example_input=x)
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = ov.Core().compile_model(converted, "CPU", settings).create_infer_request()
    values = x.numpy()

    def forward() -> Tensor:
        results = request.infer({0: values}, share_inputs=True, share_outputs=True)
        return torch.from_numpy(next(iter(results.values())).copy())

    return forward


ENGINES: dict[str, Callable[[nn.Module, Tensor], Forward]] = {
    "onnxruntime": onnxruntime,
    "openvino": lambda model, x: openvino(model, x, "f32"),
    "openvino_bf16": lambda model, x: openvino(model, x, "bf16"),
}
