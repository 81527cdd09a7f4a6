// Table of contents of the compiled kernels: reads tensors through Python, releases the GIL, calls the op.
#include "caster.h"
#include "ops.h"

namespace py = pybind11;

PYBIND11_MODULE(_compiled, module) {
  using without_gil = py::call_guard<py::gil_scoped_release>;
  module.doc() = "The compiled CPU kernels of xai_fast.ops; contracts are documented there.";

  module.def("best_instructions", &xai_fast::best_instructions);
  module.def("limit_instructions", &xai_fast::limit_instructions);
  module.def("add_noise", &xai_fast::add_noise, without_gil());
  module.def("bias_relu", &xai_fast::bias_relu, without_gil());
  module.def("blend_maps", &xai_fast::blend_maps, without_gil());
  // Keeps the GIL: no other thread can then free what is read.
  module.def("byte_hash", &xai_fast::byte_hash);
  module.def("cannot_watch_pages", &xai_fast::cannot_watch_pages);
  module.def("cam_reduce", &xai_fast::cam_reduce, without_gil());
  module.def("grid_masks", &xai_fast::grid_masks, without_gil());
  module.def("grid_reduce", &xai_fast::grid_reduce, without_gil());
  module.def("hide_segments", &xai_fast::hide_segments, without_gil());
  module.def("hide_windows", &xai_fast::hide_windows, without_gil());
  module.def("moments", &xai_fast::moments, without_gil());
  module.def("path_points", &xai_fast::path_points, without_gil());
  module.def("pass_bits", &xai_fast::pass_bits, without_gil());
  module.def("region_gather", &xai_fast::region_gather, without_gil());
  module.def("relu_change", &xai_fast::relu_change, without_gil());
  module.def("sign_bits", &xai_fast::sign_bits, without_gil());
  module.def("surrogate_normal", &xai_fast::surrogate_normal, without_gil());
  module.def("window_mean", &xai_fast::window_mean, without_gil());
  // Keeps the GIL as well: what it locks would stay locked in a child that is forked meanwhile.
  module.def("written_pages", &xai_fast::written_pages);
  module.def("winograd_convolution", &xai_fast::winograd_convolution, without_gil());
  module.def("inverted_bottleneck", &xai_fast::inverted_bottleneck, without_gil());
  module.def("gated_pointwise", &xai_fast::gated_pointwise, without_gil());
  module.def("register_panel", &xai_fast::register_panel);
  module.def("register_panel_of_halves", &xai_fast::register_panel_of_halves);
}
