// window_mean: the mean value of the windows that cover each element, in O(windows + elements) per map.
//
// A window adds its value at its corners with alternating signs, and prefix sums along the axes spread it
// over its inside. In floating point that would leave the rounding errors of one window on all elements after
// it; here values are scaled to 64-bit integers first, whose sums are exact whatever the order, so nothing is
// left where a window ends and the result does not depend on the number of threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../ops.h"

namespace xai_fast {
namespace {

struct Grid {
  int axes = 0;
  int64_t elements = 1;
  int64_t extents[4] = {};
  int64_t strides[4] = {};

  explicit Grid(const Tensor& maps) : axes(maps.axes - 2) {
    for (int axis = axes - 1; axis >= 0; --axis) {
      extents[axis] = maps.shape[axis + 2];
      strides[axis] = elements;
      elements *= extents[axis];
    }
  }
};

bool is_empty(const Grid& grid, const int64_t* box) {
  for (int axis = 0; axis < grid.axes; ++axis) {
    if (box[2 * axis] == box[2 * axis + 1]) return true;
  }
  return false;
}

// Adds `value` to the differences of one window. Corners beyond the grid affect no element.
void add_corners(const Grid& grid, const int64_t* box, uint64_t value, uint64_t* differences) {
  if (is_empty(grid, box)) return;
  for (int corner = 0; corner < 1 << grid.axes; ++corner) {
    int64_t index = 0;
    uint64_t signed_value = value;
    bool inside = true;
    for (int axis = 0; axis < grid.axes; ++axis) {
      const int end = corner >> axis & 1;
      const int64_t position = box[2 * axis + end];
      inside = inside && position < grid.extents[axis];
      index += position * grid.strides[axis];
      if (end) signed_value = 0 - signed_value;
    }
    if (inside) differences[index] += signed_value;
  }
}

void sum_line(uint64_t* line, int64_t n) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) line[i] = sum += line[i];
}

void add_line(const uint64_t* before, uint64_t* line, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) line[i] += before[i];
  });
}

void sum_along_axes(const Grid& grid, uint64_t* sums) {
  for (int axis = 0; axis < grid.axes; ++axis) {
    const int64_t stride = grid.strides[axis], extent = grid.extents[axis];
    for (int64_t start = 0; start < grid.elements; start += stride * extent) {
      if (stride == 1) {
        sum_line(sums + start, extent);
        continue;
      }
      for (int64_t i = 1; i < extent; ++i) {
        add_line(sums + start + (i - 1) * stride, sums + start + i * stride, stride);
      }
    }
  }
}

std::vector<uint64_t> count_windows(const Grid& grid, const int64_t* boxes, int64_t n_windows) {
  std::vector<uint64_t> counts(grid.elements);
  for (int64_t w = 0; w < n_windows; ++w) add_corners(grid, boxes + w * 2 * grid.axes, 1, counts.data());
  sum_along_axes(grid, counts.data());
  return counts;
}

// The values of one map, one per window.
template <typename T>
struct Column {
  const T* data;
  int64_t stride;
  int64_t n_windows;

  double operator[](int64_t w) const { return static_cast<double>(data[w * stride]); }
};

// Whether integers can stand for the values, and the power of two above them.
template <typename T>
bool fits_integers(const Column<T>& values, int* exponent) {
  double largest = 0;
  for (int64_t w = 0; w < values.n_windows; ++w) {
    if (!std::isfinite(values[w])) return false;
    largest = std::max(largest, std::fabs(values[w]));
  }
  std::frexp(largest, exponent);
  return largest == 0 ||
         *exponent > -900;  // smaller ones would leave the range of normal numbers when scaled back
}

// One over the number of windows that cover each element, 0 where none does.
std::vector<double> shares_of(const std::vector<uint64_t>& counts) {
  std::vector<double> shares(counts.size());
  for (size_t i = 0; i < counts.size(); ++i)
    shares[i] = counts[i] ? 1.0 / static_cast<double>(counts[i]) : 0.0;
  return shares;
}

// `bits` is how large a scaled value may be so that no sum overflows.
template <typename T>
void write_mean(const Grid& grid, const int64_t* boxes, const Column<T>& values, int exponent, int bits,
                const std::vector<double>& shares, std::vector<uint64_t>& sums, T* out) {
  std::fill(sums.begin(), sums.end(), 0);
  for (int64_t w = 0; w < values.n_windows; ++w) {
    const int64_t scaled = std::llrint(std::ldexp(values[w], bits - exponent));
    add_corners(grid, boxes + w * 2 * grid.axes, static_cast<uint64_t>(scaled), sums.data());
  }
  sum_along_axes(grid, sums.data());
  const double unit = std::ldexp(1.0, exponent - bits);
  for (int64_t i = 0; i < grid.elements; ++i) {
    out[i] = static_cast<T>(static_cast<double>(static_cast<int64_t>(sums[i])) * unit * shares[i]);
  }
}

// The plain loop, for values that are infinite, not a number or next to nothing: they stay within their
// windows.
template <typename T>
void write_mean_plainly(const Grid& grid, const int64_t* boxes, const Column<T>& values,
                        const std::vector<uint64_t>& counts, T* out) {
  for (int64_t i = 0; i < grid.elements; ++i) {
    double total = 0;
    for (int64_t w = 0; w < values.n_windows; ++w) {
      bool inside = true;
      for (int axis = 0; axis < grid.axes; ++axis) {
        const int64_t position = i / grid.strides[axis] % grid.extents[axis];
        const int64_t* const range = boxes + (w * grid.axes + axis) * 2;
        inside = inside && range[0] <= position && position < range[1];
      }
      if (inside) total += values[w];
    }
    out[i] = counts[i] ? static_cast<T>(total / static_cast<double>(counts[i])) : T(0);
  }
}

template <typename T>
void write_means(const Tensor& values, const int64_t* boxes, const Tensor& out) {
  const Grid grid(out);
  const int64_t n_windows = values.shape[1], n_targets = out.shape[1], n_maps = out.shape[0] * n_targets;
  const std::vector<uint64_t> counts = count_windows(grid, boxes, n_windows);
  const uint64_t most = *std::max_element(counts.begin(), counts.end());
  const std::vector<double> shares = shares_of(counts);
  int bits = 62;
  while (bits > 0 && most >> (62 - bits)) --bits;

#pragma omp parallel if (n_maps > 1)
  {
    std::vector<uint64_t> sums(grid.elements);
#pragma omp for schedule(static)
    for (int64_t map = 0; map < n_maps; ++map) {
      const T* const first =
          values.as<const T>() + map / n_targets * values.strides[0] + map % n_targets * values.strides[2];
      const Column<T> column{first, values.strides[1], n_windows};
      T* const target = out.as<T>() + map * grid.elements;
      int exponent = 0;
      if (fits_integers(column, &exponent)) {
        write_mean(grid, boxes, column, exponent, bits, shares, sums, target);
      } else {
        write_mean_plainly(grid, boxes, column, counts, target);
      }
    }
  }
}

}  // namespace

void window_mean(const Tensor& values, const Tensor& boxes, const Tensor& out) {
  if (out.size() == 0) return;
  if (values.dtype == Dtype::kFloat32) {
    write_means<float>(values, boxes.as<const int64_t>(), out);
  } else {
    write_means<double>(values, boxes.as<const int64_t>(), out);
  }
}

}  // namespace xai_fast
