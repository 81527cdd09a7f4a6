// The axes of a row in the order of the memory that is written, and the positions of its elements along them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "../tensor.h"

namespace xai_fast::cuda {

constexpr int kAxes = 4;  // of a row: channels, and up to three in space

// Divides by a number that a launch knows. What has 31 bits is divided by one product (Granlund and
// Montgomery 1994).
template <typename Index>
struct Divisor {
  Index value = 1;
  uint32_t factor = 1, shift = 0;

  Divisor() = default;
  explicit Divisor(int64_t number) : value(static_cast<Index>(std::max<int64_t>(number, 1))) {
    if constexpr (std::is_same_v<Index, int32_t>) {
      const uint64_t divisor = static_cast<uint64_t>(value);
      while ((uint64_t{1} << shift) < divisor) ++shift;
      factor =
          static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift) - divisor)) / divisor + 1);
    }
  }

  XAI_FAST_BOTH Index divide(Index number) const {
    if constexpr (std::is_same_v<Index, int32_t>) {
      const uint32_t n = static_cast<uint32_t>(number);
      const uint32_t high = static_cast<uint32_t>((static_cast<uint64_t>(n) * factor) >> 32);
      return static_cast<Index>((high + n) >> shift);
    } else {
      return number / value;
    }
  }
};

// Axes of a row, the outermost in memory first; those that a row lacks have length 1 and come before them.
struct Order {
  int axis[kAxes];  // of the tensor, 0 where the row has none

  explicit Order(const Tensor& out) {
    const int count = out.axes - 1;
    for (int i = 0; i < kAxes; ++i) axis[i] = std::max(i - (kAxes - count) + 1, 0);
    const auto outer = [&out](int a) { return a == 0 || out.shape[a] == 1 ? INT64_MAX : out.strides[a]; };
    std::stable_sort(axis, axis + kAxes, [&outer](int a, int b) { return outer(a) > outer(b); });
  }

  int64_t length(const Tensor& tensor, int i) const { return axis[i] ? tensor.shape[axis[i]] : 1; }
  int64_t stride(const Tensor& tensor, int i) const {
    return length(tensor, i) > 1 ? tensor.strides[axis[i]] : 0;
  }
  // Which axis of a row, channels first, this is; negative for none.
  int column(int i) const { return axis[i] - 1; }

  int64_t elements(const Tensor& tensor) const {
    int64_t product = 1;
    for (int i = 0; i < kAxes; ++i) product *= length(tensor, i);
    return product;
  }
  // The last element of a row lies this far behind the first.
  int64_t reach(const Tensor& tensor) const {
    int64_t sum = 0;
    for (int i = 0; i < kAxes; ++i) sum += std::max<int64_t>(length(tensor, i) - 1, 0) * stride(tensor, i);
    return sum;
  }
  // Whether a row of this tensor is one piece of memory, in this order.
  bool dense(const Tensor& tensor) const {
    int64_t expected = 1;
    for (int i = kAxes - 1; i >= 0; --i) {
      if (length(tensor, i) > 1 && stride(tensor, i) != expected) return false;
      expected *= length(tensor, i);
    }
    return true;
  }
};

// Lengths of the axes of a row: finds the position of an element, and of the next one.
template <typename Index>
struct Lengths {
  Divisor<Index> axis[kAxes];

  Lengths() = default;
  Lengths(const Order& order, const Tensor& tensor) {
    for (int i = 0; i < kAxes; ++i) axis[i] = Divisor<Index>(order.length(tensor, i));
  }

  XAI_FAST_BOTH void find(Index element, Index (&at)[kAxes]) const {
    for (int i = kAxes - 1; i > 0; --i) {
      const Index rest = axis[i].divide(element);
      at[i] = element - rest * axis[i].value;
      element = rest;
    }
    at[0] = element;
  }

  XAI_FAST_BOTH void advance(Index (&at)[kAxes]) const {
    int i = kAxes - 1;
    while (i > 0 && ++at[i] == axis[i].value) at[i--] = 0;
    if (i == 0) ++at[0];
  }
};

// Where a row of a tensor lies, in elements.
template <typename Index>
struct Rows {
  int64_t row = 0;
  Index stride[kAxes] = {};

  Rows() = default;
  Rows(const Order& order, const Tensor& tensor) : row(tensor.strides[0]) {
    for (int i = 0; i < kAxes; ++i) stride[i] = static_cast<Index>(order.stride(tensor, i));
  }

  XAI_FAST_BOTH Index offset(const Index (&at)[kAxes]) const {
    Index sum = 0;
    for (int i = 0; i < kAxes; ++i) sum += at[i] * stride[i];
    return sum;
  }
};

// Whether numbers of 31 bits tell every element of a row, and every place in its memory.
inline bool narrow_rows(const Order& order, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* tensor : tensors) {
    if (order.elements(*tensor) > INT32_MAX - 1024 || order.reach(*tensor) > INT32_MAX) return false;
  }
  return true;
}

constexpr int64_t kVector = 16;  // bytes that one thread reads or writes at once

inline bool aligned(const Tensor& tensor, int64_t element_size) {
  const bool rows = tensor.shape[0] < 2 || tensor.strides[0] * element_size % kVector == 0;
  return reinterpret_cast<uintptr_t>(tensor.data) % kVector == 0 && rows;
}

// Consecutive elements of a row that one thread writes.
template <typename T, int count>
struct alignas(count == 1 ? alignof(T) : kVector) Piece {
  T values[count];
};

}  // namespace xai_fast::cuda
