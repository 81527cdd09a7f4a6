// Table of contents of the kernels for GPUs: reads tensors through Python, releases the GIL, queues the op.
#include "../caster.h"
#include "ops.h"

namespace py = pybind11;

#ifndef XAI_FAST_ARCHITECTURES
#define XAI_FAST_ARCHITECTURES ""  // no machine code: built for the host, for tests
#endif

PYBIND11_MODULE(_compiled_cuda, module) {
  using without_gil = py::call_guard<py::gil_scoped_release>;
  module.doc() = "The CUDA kernels of xai_fast.ops; contracts are documented there.";

  module.attr("architectures") = XAI_FAST_ARCHITECTURES;
  module.def("hide_segments", &xai_fast::cuda::hide_segments, without_gil());
  module.def("hide_windows", &xai_fast::cuda::hide_windows, without_gil());
  module.def("region_gather", &xai_fast::cuda::region_gather, without_gil());
}
