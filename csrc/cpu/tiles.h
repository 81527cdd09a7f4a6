// Rows of batches cut into tiles that fit the cache: the same elements of several tensors, each in a memory
// layout of its own, as dense planes of one floating type.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "../tensor.h"
#include "copy.h"
#include "stream.h"

namespace xai_fast {

// All axes but the first of tensors with equal extents there; neighbours that every tensor walks in one
// stride are merged. The innermost two that remain are a tile's.
template <int tensors>
struct Tiling {
  struct Tile {
    int64_t planes, length;
    int64_t element;          // of the first one: its number within the row, whatever the memory layout
    int64_t offset[tensors];  // of the first one in the memory of each tensor's row
  };

  int64_t elements = 1, count = 1;
  int64_t planes = 1, length = 1;  // of the largest tile
  int64_t plane_elements = 0;      // from one plane of a tile to the next, as `Tile::element` counts
  int64_t plane_stride[tensors] = {}, line_stride[tensors] = {};

  // `densest`: a tensor whose memory the axes are to follow, or null for their logical order, which alone
  // makes `Tile::element` run through the lines.
  Tiling(const Tensor* const (&given)[tensors], int64_t capacity, const Tensor* densest = nullptr) {
    int order[kMaxAxes];
    const int n_axes = given[0]->axes - 1;
    for (int i = 0; i < n_axes; ++i) order[i] = n_axes - i;
    if (densest) {
      std::stable_sort(order, order + n_axes,
                       [densest](int a, int b) { return densest->strides[a] < densest->strides[b]; });
    }
    for (int i = 0; i < n_axes; ++i) merge(given, order[i]);
    if (elements == 0) {
      count = 0;
      return;
    }
    for (int t = 0; t < tensors; ++t) {
      line_stride[t] = stride_[0][t];
      plane_stride[t] = stride_[1][t];
    }
    plane_elements = number_[1];
    // Several planes at once, so that both sides of a transposition are read and written a cache line at a
    // time.
    planes = std::min(size_[1], std::max<int64_t>(16, capacity / size_[0]));
    length = std::min(size_[0], std::max<int64_t>(4, capacity / planes / 4 * 4));
    for (int axis = 0; axis < kMaxAxes; ++axis) count *= pieces(axis);
  }

  Tile operator[](int64_t index) const {
    Tile tile{1, 1, 0, {}};
    for (int axis = 0; axis < kMaxAxes; ++axis) {
      const int64_t start = index % pieces(axis) * step(axis);
      index /= pieces(axis);
      if (axis == 0) tile.length = std::min(length, size_[0] - start);
      if (axis == 1) tile.planes = std::min(planes, size_[1] - start);
      tile.element += start * number_[axis];
      for (int t = 0; t < tensors; ++t) tile.offset[t] += start * stride_[axis][t];
    }
    return tile;
  }

 private:
  int axes_ = 0;
  int64_t size_[kMaxAxes] = {1, 1, 1, 1, 1, 1};  // the innermost first
  int64_t number_[kMaxAxes] = {};
  int64_t stride_[kMaxAxes][tensors] = {};

  int64_t step(int axis) const { return axis == 0 ? length : axis == 1 ? planes : 1; }
  int64_t pieces(int axis) const { return (size_[axis] + step(axis) - 1) / step(axis); }

  void merge(const Tensor* const (&given)[tensors], int axis) {
    const int64_t extent = given[0]->shape[axis];
    if (extent == 1) return;
    const int last = axes_ - 1;
    bool merged = last >= 0;
    for (int t = 0; merged && t < tensors; ++t) {
      merged = given[t]->strides[axis] == stride_[last][t] * size_[last];
    }
    if (merged) {
      size_[last] *= extent;
    } else {
      size_[axes_] = extent;
      number_[axes_] = elements;
      for (int t = 0; t < tensors; ++t) stride_[axes_][t] = given[t]->strides[axis];
      ++axes_;
    }
    elements *= extent;
  }
};

template <typename T>
inline constexpr Dtype kDtypeOf = std::is_same_v<T, double>     ? Dtype::kFloat64
                                  : std::is_same_v<T, float>    ? Dtype::kFloat32
                                  : std::is_same_v<T, BFloat16> ? Dtype::kBFloat16
                                                                : Dtype::kFloat16;

// One tile of a tensor: where it starts and how it lies there.
struct TileOf {
  const Tensor& tensor;
  int64_t offset, planes, length, plane_stride, line_stride;

  int64_t elements() const { return planes * length; }

  // Whether its memory already holds dense planes, and of T.
  bool dense() const { return lines() && (plane_stride == length || planes == 1); }
  template <typename T>
  bool dense() const {
    return tensor.dtype == kDtypeOf<T> && dense();
  }

  // Whether its planes are lines of memory, and the same tile with lines that follow each other as one.
  bool lines() const { return line_stride == 1 || length == 1; }
  TileOf joined() const { return dense() ? TileOf{tensor, offset, 1, elements(), elements(), 1} : *this; }
  template <typename T>
  T* line(int64_t plane) const {
    return tensor.as<T>() + offset + plane * plane_stride;
  }

  // Dense planes of T: where they are, or converted into `buffer`.
  template <typename T>
  const T* read(T* buffer) const {
    return dense<T>() ? tensor.as<const T>() + offset : copied(buffer);
  }

  // The same, always into `buffer`.
  template <typename T>
  const T* copied(T* buffer) const {
    with_floating(tensor.dtype, [&](auto value) {
      Block block;
      block.add(planes, plane_stride, length);
      block.add(length, line_stride, 1);
      copy(tensor.as<const decltype(value)>() + offset, buffer, block);
    });
    return buffer;
  }

  template <typename T>
  void write(const T* values) const {
    with_floating(tensor.dtype, [&](auto value) {
      Block block;
      block.add(planes, length, plane_stride);
      block.add(length, 1, line_stride);
      copy(values, tensor.as<decltype(value)>() + offset, block);
    });
  }
};

// How one thread writes tiles of a batch of To: past the caches where the batch is larger than they are.
template <typename To>
class Writer {
 public:
  explicit Writer(const Tensor& out)
      : past_(out.size() * static_cast<int64_t>(sizeof(To)) > kPastCaches), block_(kBlock) {}
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() {
    if (past_) streamed();
  }

  // The values of a tile in the order of its planes, without a gap.
  void put(const TileOf& target, const To* values) const {
    if (!past_ || !target.lines()) return target.write(values);
    const TileOf whole = target.joined();
    for (int64_t plane = 0; plane < whole.planes; ++plane) {
      stream(values + plane * whole.length, whole.line<To>(plane), whole.length);
    }
  }

  // A tile whose values are computed by `compute(first, count, to)`: `count` of them from the `first` on in
  // that order, asked for one after the other. In small blocks, so that the processor computes one while it
  // writes another; `buffer` has room for the tile.
  template <typename Compute>
  void fill(const TileOf& target, To* buffer, Compute compute) {
    if (!target.lines()) {
      compute(0, target.elements(), buffer);
      return target.write(static_cast<const To*>(buffer));
    }
    const TileOf whole = target.joined();
    const int64_t most = past_ ? kBlock : whole.length;
    for (int64_t plane = 0; plane < whole.planes; ++plane) {
      To* const to = whole.line<To>(plane);
      for (int64_t at = 0; at < whole.length; at += most) {
        const int64_t first = plane * whole.length + at, count = std::min(most, whole.length - at);
        compute(first, count, past_ ? block_.data() : to + at);
        if (past_) stream(static_cast<const To*>(block_.data()), to + at, count);
      }
    }
  }

 private:
  static constexpr int64_t kBlock = 2048;
  bool past_;
  std::vector<To> block_;
};

// Tile `tile` of row `row` of a tensor, the `which`-th of its tiling.
template <int tensors>
TileOf tile_of(const Tiling<tensors>& tiling, const typename Tiling<tensors>::Tile& tile, int which,
               const Tensor& tensor, int64_t row) {
  return {tensor,
          tile.offset[which] + row * tensor.strides[0],
          tile.planes,
          tile.length,
          tiling.plane_stride[which],
          tiling.line_stride[which]};
}

}  // namespace xai_fast
