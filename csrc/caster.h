// How torch.Tensor arguments of the compiled functions become Tensors: without libtorch, at build time or
// later.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "tensor.h"

namespace xai_fast {

// What DLPack 1.3 lays down of its exchange of tensors between C extensions; torch offers it as a capsule.
struct DLTensor {
  void* data;
  int32_t device[2];
  int32_t axes;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

struct DLExchange {
  uint32_t major, minor;
  void* previous;
  void* other_functions[3];
  int (*view)(void* object, DLTensor* view);  // writes what the object keeps alive; 0 when it could
  void* current_stream;
};

// The exchange of torch.Tensor, or null where this torch has none that is understood here.
inline const DLExchange* exchange_of_torch() {
  const pybind11::object tensor = pybind11::module_::import("torch").attr("Tensor");
  const pybind11::object capsule = pybind11::getattr(tensor, "__dlpack_c_exchange_api__", pybind11::none());
  if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
  const auto* exchange =
      static_cast<const DLExchange*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  return exchange->major == 1 && exchange->view ? exchange : nullptr;
}

}  // namespace xai_fast

namespace pybind11::detail {

// Reads a torch.Tensor so that neither building nor loading needs libtorch. On which device its memory is,
// the dispatch in Python saw to.
template <>
struct type_caster<xai_fast::Tensor> {
  PYBIND11_TYPE_CASTER(xai_fast::Tensor, const_name("torch.Tensor"));

  bool load(handle source, bool) {
    if (source.is_none()) return true;  // nothing: no axes and no memory; an op that needs a tensor checked
    static const xai_fast::DLExchange* const kExchange = xai_fast::exchange_of_torch();
    return kExchange ? read_view(*kExchange, source) : read_attributes(source);
  }

 private:
  bool read_view(const xai_fast::DLExchange& exchange, handle source) {
    using xai_fast::Dtype;
    xai_fast::DLTensor view{};
    if (exchange.view(source.ptr(), &view) != 0) throw error_already_set();
    if (view.axes > xai_fast::kMaxAxes || view.lanes != 1) return false;
    value.axes = view.axes;
    std::copy_n(view.shape, view.axes, value.shape);
    std::copy_n(view.strides, view.axes, value.strides);
    value.data = static_cast<char*>(view.data) + view.byte_offset;
    static constexpr std::tuple<int, int, Dtype> kTypes[] = {
        {2, 32, Dtype::kFloat32}, {4, 16, Dtype::kBFloat16}, {2, 16, Dtype::kFloat16},
        {2, 64, Dtype::kFloat64}, {0, 64, Dtype::kInt64},    {6, 8, Dtype::kBool}};
    for (const auto& [code, bits, meaning] : kTypes) {
      if (view.code == code && view.bits == bits) {
        value.dtype = meaning;
        return true;
      }
    }
    return false;
  }

  bool read_attributes(handle source) {
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
    static const std::pair<const char*, Dtype> kNames[] = {
        {"torch.float32", Dtype::kFloat32}, {"torch.bfloat16", Dtype::kBFloat16},
        {"torch.float16", Dtype::kFloat16}, {"torch.float64", Dtype::kFloat64},
        {"torch.int64", Dtype::kInt64},     {"torch.bool", Dtype::kBool}};
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
