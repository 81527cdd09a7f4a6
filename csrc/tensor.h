// What the kernels see of a torch.Tensor: address, dtype, shape and strides, read without libtorch.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <type_traits>

#include "half.h"

namespace xai_fast {

constexpr int kMaxAxes = 6;

enum class Dtype { kFloat16, kBFloat16, kFloat32, kFloat64, kInt64, kBool };

// A view of memory that Python owns; the caller of a kernel keeps it alive. Strides count elements.
struct Tensor {
  void* data = nullptr;
  Dtype dtype = Dtype::kFloat32;
  int axes = 0;
  int64_t shape[kMaxAxes] = {};
  int64_t strides[kMaxAxes] = {};

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }

  int64_t size() const {
    int64_t product = 1;
    for (int axis = 0; axis < axes; ++axis) product *= shape[axis];
    return product;
  }
};

// Calls `function` with a value of the C++ type that holds one element.
template <typename Function>
void with_floating(Dtype dtype, Function&& function) {
  switch (dtype) {
    case Dtype::kFloat16:
      return function(Half{});
    case Dtype::kBFloat16:
      return function(BFloat16{});
    case Dtype::kFloat32:
      return function(float{});
    case Dtype::kFloat64:
      return function(double{});
    case Dtype::kInt64:
    case Dtype::kBool:
      break;
  }
  throw std::invalid_argument("expected a floating dtype");
}

inline int64_t bytes_of(Dtype floating) {
  int64_t bytes = 0;
  with_floating(floating, [&](auto value) { bytes = sizeof value; });
  return bytes;
}

}  // namespace xai_fast
