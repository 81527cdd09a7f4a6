// Table of contents of the compiled kernels: reads tensors through Python, releases the GIL, calls the op.
#include <pybind11/pybind11.h>

#include <string>
#include <utility>

#include "ops.h"

namespace py = pybind11;

namespace pybind11::detail {

// Duck-types a torch.Tensor, so that neither building nor loading needs libtorch. Only CPU tensors get here:
// the dispatch in Python sees to it.
template <>
struct type_caster<xai_fast::Tensor> {
  PYBIND11_TYPE_CASTER(xai_fast::Tensor, const_name("torch.Tensor"));

  bool load(handle source, bool) {
    const tuple shape = source.attr("shape"), strides = source.attr("stride")();
    value.axes = static_cast<int>(shape.size());
    if (value.axes > xai_fast::kMaxAxes) return false;
    for (int axis = 0; axis < value.axes; ++axis) {
      value.shape[axis] = shape[axis].cast<int64_t>();
      value.strides[axis] = strides[axis].cast<int64_t>();
    }
    value.data = reinterpret_cast<void*>(source.attr("data_ptr")().cast<uintptr_t>());
    return read_dtype(str(source.attr("dtype")));
  }

 private:
  bool read_dtype(const std::string& name) {
    using xai_fast::Dtype;
    static constexpr std::pair<const char*, Dtype> kNames[] = {
        {"torch.float32", Dtype::kFloat32}, {"torch.bfloat16", Dtype::kBFloat16},
        {"torch.float16", Dtype::kFloat16}, {"torch.float64", Dtype::kFloat64},
        {"torch.int64", Dtype::kInt64},
    };
    for (const auto& [known, dtype] : kNames) {
      if (name == known) {
        value.dtype = dtype;
        return true;
      }
    }
    return false;
  }
};

}  // namespace pybind11::detail

PYBIND11_MODULE(_compiled, module) {
  using without_gil = py::call_guard<py::gil_scoped_release>;
  module.doc() = "The compiled CPU kernels of xai_fast.ops; contracts are documented there.";

  module.def("hide_windows", &xai_fast::hide_windows, without_gil());
}
