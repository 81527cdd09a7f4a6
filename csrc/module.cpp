// Table of contents of the compiled kernels: reads tensors through Python, releases the GIL, calls the op.
#include <pybind11/pybind11.h>

#include <string>
#include <unordered_map>
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
    static PyObject* const kShape = PyUnicode_InternFromString("shape");
    static PyObject* const kStride = PyUnicode_InternFromString("stride");
    static PyObject* const kDataPtr = PyUnicode_InternFromString("data_ptr");
    static PyObject* const kDtype = PyUnicode_InternFromString("dtype");
    const tuple shape = ask(source, kShape), strides = call(source, kStride);
    value.axes = static_cast<int>(shape.size());
    if (value.axes > xai_fast::kMaxAxes) return false;
    for (int axis = 0; axis < value.axes; ++axis) {
      value.shape[axis] = PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), axis));
      value.strides[axis] = PyLong_AsLongLong(PyTuple_GET_ITEM(strides.ptr(), axis));
    }
    value.data = PyLong_AsVoidPtr(call(source, kDataPtr).ptr());
    return read_dtype(ask(source, kDtype));
  }

 private:
  static object checked(PyObject* result) {
    if (!result) throw error_already_set();
    return reinterpret_steal<object>(result);
  }
  static object ask(handle source, PyObject* name) { return checked(PyObject_GetAttr(source.ptr(), name)); }
  static object call(handle source, PyObject* name) {
    return checked(PyObject_CallMethodNoArgs(source.ptr(), name));
  }

  // Names are compared once per dtype: torch keeps one object for each.
  bool read_dtype(const object& dtype) {
    using xai_fast::Dtype;
    static const std::pair<const char*, Dtype> kNames[] = {{"torch.float32", Dtype::kFloat32},
                                                           {"torch.bfloat16", Dtype::kBFloat16},
                                                           {"torch.float16", Dtype::kFloat16},
                                                           {"torch.float64", Dtype::kFloat64},
                                                           {"torch.int64", Dtype::kInt64}};
    static std::unordered_map<PyObject*, Dtype> known;
    if (const auto found = known.find(dtype.ptr()); found != known.end()) {
      value.dtype = found->second;
      return true;
    }
    const std::string name = str(dtype);
    for (const auto& [text, meaning] : kNames) {
      if (name == text) {
        value.dtype = known[dtype.inc_ref().ptr()] = meaning;
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

  module.def("cam_reduce", &xai_fast::cam_reduce, without_gil());
  module.def("hide_windows", &xai_fast::hide_windows, without_gil());
  module.def("window_mean", &xai_fast::window_mean, without_gil());
}
