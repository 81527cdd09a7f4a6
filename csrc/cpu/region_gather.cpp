// region_gather: regions of maps that differ from kept ones inside a patch, put together from blocks.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "../ops.h"
#include "copy.h"

namespace xai_fast {
namespace {

constexpr int64_t kTaskBytes = 32 * 1024;  // below, threads cost more than they save

enum class Border { kConstant, kReplicate, kReflect, kCircular };
enum class Source { kFill, kBase, kPatch };

Border border_named(const std::string& name) {
  if (name == "constant") return Border::kConstant;
  if (name == "replicate") return Border::kReplicate;
  if (name == "reflect") return Border::kReflect;
  if (name == "circular") return Border::kCircular;
  throw std::invalid_argument("unknown border " + name);
}

// Consecutive elements of an axis of a region that read one source, from `place` on the map's axis onwards:
// in steps of 1, or of 0 and -1 where the border replicates and reflects.
struct Run {
  Source source;
  int64_t start, length, place, step;
};

void append(std::vector<Run>& runs, Source source, int64_t i, int64_t place) {
  if (!runs.empty() && runs.back().source == source) {
    Run& last = runs.back();
    if (last.length == 1 && std::abs(place - last.place) <= 1) last.step = place - last.place;
    if (last.place + last.step * last.length == place) {
      ++last.length;
      return;
    }
  }
  runs.push_back({source, i, 1, place, 1});
}

// One axis of a row: where the region and the patch lie, and how the part of it that is written falls into
// runs: beside the patch on another axis, and otherwise.
struct Axis {
  int64_t length, extent, at, patch_extent, patch_at;
  Run whole;
  std::vector<Run> beside, through;

  void divide(Border border, int64_t start, int64_t stop) {
    const bool periodic = border == Border::kReflect || border == Border::kCircular;
    const int64_t period = border == Border::kReflect ? std::max<int64_t>(2 * (extent - 1), 1) : extent;
    // Any integer is an origin: it is brought near the map first, where sums do not overflow.
    int64_t near = periodic ? at % period : std::clamp(at, -length, extent);
    if (periodic && near < 0) near += period;
    whole = {Source::kFill, start, stop - start, 0, 0};
    beside.clear();
    through.clear();
    for (int64_t i = start; i < stop; ++i) {
      int64_t place = near + i;
      if (border == Border::kConstant && (place < 0 || place >= extent)) {
        append(beside, Source::kFill, i, 0);
        append(through, Source::kFill, i, 0);
        continue;
      }
      if (border == Border::kReplicate) place = std::clamp<int64_t>(place, 0, extent - 1);
      if (periodic && place >= period) place %= period;
      if (border == Border::kReflect) place = std::min(place, period - place);
      append(beside, Source::kBase, i, place);
      // Exact for any origin of the patch: a negative difference is a huge unsigned one.
      const bool patched = static_cast<uint64_t>(place) - static_cast<uint64_t>(patch_at) <
                           static_cast<uint64_t>(patch_extent);
      append(through, patched ? Source::kPatch : Source::kBase, i, place);
    }
  }
};

// The first and the last `width` bytes of at least as many; between them, of up to twice as many, everything.
template <int width>
void copy_ends(const char* from, char* to, int64_t bytes) {
  char first[width], last[width];
  std::memcpy(first, from, width);
  std::memcpy(last, from + bytes - width, width);
  std::memcpy(to, first, width);
  std::memcpy(to + bytes - width, last, width);
}

// memcpy, without a call for the short lines of which planes with few columns are made.
template <typename T>
void copy_line(const T* values, T* line, int64_t n) {
  const char* const from = reinterpret_cast<const char*>(values);
  char* const to = reinterpret_cast<char*>(line);
  const int64_t bytes = n * static_cast<int64_t>(sizeof(T));
  if (bytes > 64) {
    std::memcpy(to, from, bytes);
  } else if (bytes >= 32) {
    copy_ends<32>(from, to, bytes);
  } else if (bytes >= 16) {
    copy_ends<16>(from, to, bytes);
  } else if (bytes >= 8) {
    copy_ends<8>(from, to, bytes);
  } else if (bytes >= 4) {
    copy_ends<4>(from, to, bytes);
  } else {
    copy_ends<2>(from, to, bytes);
  }
}

// Copies a block whose axes are in the order of the written memory, four of them.
template <typename T>
void copy_ordered(const T* from, T* to, const int64_t* size, const int64_t* from_stride,
                  const int64_t* to_stride) {
  for (int64_t i = 0; i < size[0]; ++i) {
    for (int64_t j = 0; j < size[1]; ++j) {
      const T* const plane = from + i * from_stride[0] + j * from_stride[1];
      T* const target = to + i * to_stride[0] + j * to_stride[1];
      if (from_stride[3] == 1 && to_stride[3] == 1) {
        for (int64_t k = 0; k < size[2]; ++k) {
          copy_line(plane + k * from_stride[2], target + k * to_stride[2], size[3]);
        }
      } else {
        copying::plane(plane, target, size + 2, from_stride + 2, to_stride + 2);
      }
    }
  }
}

// Some channels of one row; everything that varies from task to task.
template <typename T>
struct Row {
  const Tensor &base_map, &patch_map, &out_map;
  const T fill;
  const std::vector<int> order;  // its axes but the first, the outermost in memory first
  const T *base = nullptr, *patch = nullptr;
  T* out = nullptr;
  int64_t channels = 0;
  Axis axes[3];
  Run chosen[3];

  // Writes all combinations of the runs of this axis and those that follow.
  void write(int axis, Source source) {
    if (axis == out_map.axes - 2) return write_block(source);
    if (source == Source::kFill) {
      chosen[axis] = axes[axis].whole;
      return write(axis + 1, source);
    }
    for (const Run& run : source == Source::kPatch ? axes[axis].through : axes[axis].beside) {
      chosen[axis] = run;
      write(axis + 1, run.source);
    }
  }

  // Merges axes that both sides walk in one stride, from the outermost to the densest.
  void write_block(Source source) const {
    const Tensor& map = source == Source::kPatch ? patch_map : base_map;
    const T* from = source == Source::kFill ? &fill : source == Source::kPatch ? patch : base;
    T* to = out;
    Block block;
    for (const int axis : order) {
      int64_t length = channels, from_stride = source == Source::kFill ? 0 : map.strides[axis];
      const int64_t to_stride = out_map.strides[axis];
      if (axis > 1) {
        const Run& run = chosen[axis - 2];
        from += (run.place - (source == Source::kPatch ? axes[axis - 2].patch_at : 0)) * from_stride;
        to += run.start * to_stride;
        from_stride *= run.step;
        length = run.length;
      }
      const int last = block.axes - 1;
      if (length == 1) continue;
      if (last >= 0 && block.from[last] == from_stride * length && block.to[last] == to_stride * length) {
        block.size[last] *= length;
        block.from[last] = from_stride;
        block.to[last] = to_stride;
      } else {
        block.add(length, from_stride, to_stride);
      }
    }
    int64_t size[4] = {1, 1, 1, 1}, from_stride[4] = {0, 0, 0, 1}, to_stride[4] = {0, 0, 0, 1};
    for (int axis = 0; axis < block.axes; ++axis) {
      const int slot = 4 - block.axes + axis;
      size[slot] = block.size[axis];
      from_stride[slot] = block.from[axis];
      to_stride[slot] = block.to[axis];
    }
    copy_ordered(from, to, size, from_stride, to_stride);
  }
};

// The axes of a row, the outermost in memory first, those without extent last.
std::vector<int> in_memory(const Tensor& out) {
  std::vector<int> order;
  for (int axis = 1; axis < out.axes; ++axis) order.push_back(axis);
  const auto outer = [&out](int axis) { return out.shape[axis] == 1 ? 0 : out.strides[axis]; };
  std::stable_sort(order.begin(), order.end(), [&outer](int a, int b) { return outer(a) > outer(b); });
  return order;
}

template <typename T>
void gather_regions(const Tensor& base, const Tensor& patch, const int64_t* patch_at, const int64_t* sample,
                    const int64_t* at, const Tensor& out, Border border, T fill) {
  const int64_t n_rows = out.shape[0], row_bytes = out.size() / n_rows * static_cast<int64_t>(sizeof(T));
  const std::vector<int> order = in_memory(out);
  // Cut along the outermost axis: what is dense stays in one piece.
  const int n_axes = out.axes - 2, cut = order.front();
  const int64_t parts = std::clamp<int64_t>(row_bytes / kTaskBytes, 1, out.shape[cut]);

#pragma omp parallel if (n_rows * row_bytes > kTaskBytes)
  {
    Row<T> row{base, patch, out, fill, order};
#pragma omp for schedule(static) collapse(2)
    for (int64_t m = 0; m < n_rows; ++m) {
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t start = out.shape[cut] * part / parts, stop = out.shape[cut] * (part + 1) / parts;
        const int64_t first = cut == 1 ? start : 0;
        row.channels = cut == 1 ? stop - start : out.shape[1];
        row.base = base.as<const T>() + sample[m] * base.strides[0] + first * base.strides[1];
        row.out = out.as<T>() + m * out.strides[0] + first * out.strides[1];
        if (patch.data) row.patch = patch.as<const T>() + m * patch.strides[0] + first * patch.strides[1];
        for (int axis = 0; axis < n_axes; ++axis) {
          Axis& a = row.axes[axis];
          a.length = out.shape[axis + 2];
          a.extent = base.shape[axis + 2];
          a.at = at[m * n_axes + axis];
          a.patch_extent = patch.data ? patch.shape[axis + 2] : 0;
          a.patch_at = patch.data ? patch_at[m * n_axes + axis] : 0;
          const bool whole = axis + 2 != cut;
          a.divide(border, whole ? 0 : start, whole ? a.length : stop);
        }
        row.write(0, patch.data ? Source::kPatch : Source::kBase);
      }
    }
  }
}

}  // namespace

void region_gather(const Tensor& base, const Tensor& patch, const Tensor& patch_at, const Tensor& sample,
                   const Tensor& at, const Tensor& out, const std::string& border, double fill) {
  if (out.size() == 0) return;
  const Border kind = border_named(border);
  with_floating(out.dtype, [&](auto value) {
    gather_regions(base, patch, patch_at.as<const int64_t>(), sample.as<const int64_t>(),
                   at.as<const int64_t>(), out, kind, convert<decltype(value)>(fill));
  });
}

}  // namespace xai_fast
