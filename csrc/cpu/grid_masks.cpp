// grid_masks: rows of a batch become their input where an enlarged grid keeps it, and the baseline elsewhere.
#include <algorithm>
#include <vector>

#include "../ops.h"
#include "tiles.h"

namespace xai_fast {
namespace {

constexpr int64_t kCapacity = 4096;  // elements of a tile: all that is read and written stays in cache
constexpr int64_t kSmallestBatch = 1 << 14;  // below, threads cost more than they save
constexpr int64_t kMostPlanes = 16;
constexpr int64_t kShortestLine = 64;

// One of three spatial axes; those that a signal or an image lacks have one position and one cell.
template <typename Real>
struct Axis {
  int64_t extent = 1, cells = 1;
  std::vector<int32_t> low = {0};  // of two neighbouring cells, for every position of the enlarged grid
  std::vector<Real> share = {0};   // of the second one

  Axis() = default;
  Axis(int64_t extent, int64_t cells, const double* places) : extent(extent), cells(cells) {
    const int64_t length = (cells + 1) * std::max<int64_t>((extent + cells - 1) / cells, 1);
    const int32_t last = static_cast<int32_t>(std::max<int64_t>(cells - 2, 0));
    low.resize(length);
    share.resize(length);
    for (int64_t i = 0; i < length; ++i) {
      low[i] = std::min(static_cast<int32_t>(places[i]), last);
      share[i] = static_cast<Real>(places[i] - low[i]);
    }
  }

  int64_t high(int64_t position) const { return std::min<int64_t>(low[position] + 1, cells - 1); }
};

template <typename Real>
Real between(Real first, Real second, Real share) {
  return first + share * (second - first);
}

// The grid, interpolated along its first two axes at positions z and y of the enlarged one: a value per cell
// of the last axis, and how far it is from there to the next.
template <typename Real>
void read_line(const uint8_t* grid, const Axis<Real> (&axes)[3], int64_t z, int64_t y, Real* value,
               Real* rise) {
  const int64_t cells = axes[2].cells, plane = axes[1].cells * cells;
  const uint8_t* const corner[2] = {grid + axes[0].low[z] * plane, grid + axes[0].high(z) * plane};
  const int64_t line[2] = {axes[1].low[y] * cells, axes[1].high(y) * cells};
  for (int64_t i = 0; i < cells; ++i) {
    Real ends[2];
    for (int side = 0; side < 2; ++side) {
      ends[side] = between<Real>(corner[0][line[side] + i], corner[1][line[side] + i], axes[0].share[z]);
    }
    value[i] = between<Real>(ends[0], ends[1], axes[1].share[y]);
  }
  for (int64_t i = 0; i < cells; ++i) rise[i] = i + 1 < cells ? value[i + 1] - value[i] : Real(0);
}

template <typename Real>
void enlarge(const Real* value, const Real* rise, const int32_t* low, const Real* share, Real* mask,
             int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) mask[i] = value[low[i]] + share[i] * rise[low[i]];
  });
}

template <typename Real>
void mix(const Real* mask, const Real* shown, const Real* hidden, Real* mixed, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) mixed[i] = mask[i] * shown[i] + (1 - mask[i]) * hidden[i];
  });
}

// A tensor (R, C, *S) as five axes.
struct Strides {
  int64_t row, plane, z, y, x;

  explicit Strides(const Tensor& tensor)
      : row(tensor.strides[0]), plane(tensor.strides[1]), z(0), y(0), x(0) {
    int64_t* const space[3] = {&z, &y, &x};
    for (int axis = 2; axis < tensor.axes; ++axis) *space[axis + 3 - tensor.axes] = tensor.strides[axis];
  }
};

// Rows cut into tiles of some channels by some lines or by a part of one, each with one mask for all
// channels.
template <typename Real>
struct Masks {
  const Tensor *inputs, *baseline, *out;
  Strides from, instead, to;
  Axis<Real> axes[3];
  int64_t planes, length, lines;       // of the largest tile; several lines only where they are whole
  int64_t planewise, linewise, along;  // tiles over channels, lines and along a line

  Masks(const Tensor& inputs, const Tensor& baseline, const Tensor& grids, const double* places,
        const Tensor& out)
      : inputs(&inputs), baseline(&baseline), out(&out), from(inputs), instead(baseline), to(out) {
    const int space = out.axes - 2;
    for (int axis = 0; axis < space; ++axis) {
      const int64_t extent = out.shape[2 + axis], cells = grids.shape[1 + axis];
      Axis<Real>& own = axes[3 - space + axis];
      own = Axis<Real>(extent, cells, places);
      places += own.low.size();
    }
    const int64_t width = axes[2].extent;
    planes = std::min(out.shape[1], kMostPlanes);
    length = std::min(width, std::max(kShortestLine, kCapacity / planes));
    lines = length == width && joined(from) && joined(instead) && joined(to)
                ? std::min(axes[1].extent, std::max<int64_t>(kCapacity / (planes * width), 1))
                : 1;
    planewise = pieces(out.shape[1], planes);
    linewise = pieces(axes[1].extent, lines);
    along = pieces(width, length);
  }

  int64_t count() const { return planewise * axes[0].extent * linewise * along; }
  int64_t capacity() const { return planes * lines * length; }

  struct Buffers {
    std::vector<Real> shown, hidden, mixed, mask, value, rise;
    explicit Buffers(const Masks& masks)
        : shown(masks.capacity()),
          hidden(masks.capacity()),
          mixed(masks.capacity()),
          mask(masks.lines * masks.length),
          value(masks.axes[2].cells),
          rise(masks.axes[2].cells) {}
  };

  void write(int64_t row, int64_t index, int64_t sample, const uint8_t* grid, const int64_t* shift,
             Buffers& buffers) const {
    const int64_t x = index % along * length, part = std::min(length, axes[2].extent - x);
    index /= along;
    const int64_t y = index % linewise * lines, height = std::min(lines, axes[1].extent - y);
    index /= linewise;
    const int64_t z = index % axes[0].extent, plane = index / axes[0].extent * planes;
    const int space = out->axes - 2;
    const int64_t moved[3] = {space > 2 ? shift[space - 3] : 0, space > 1 ? shift[space - 2] : 0,
                              shift[space - 1]};
    for (int64_t line = 0; line < height; ++line) {
      read_line(grid, axes, z + moved[0], y + line + moved[1], buffers.value.data(), buffers.rise.data());
      enlarge(buffers.value.data(), buffers.rise.data(), axes[2].low.data() + x + moved[2],
              axes[2].share.data() + x + moved[2], buffers.mask.data() + line * part, part);
    }

    const int64_t channels = std::min(planes, out->shape[1] - plane), elements = height * part;
    const auto tile = [&](const Tensor& tensor, const Strides& strides, int64_t at) {
      const int64_t offset =
          at * strides.row + plane * strides.plane + z * strides.z + y * strides.y + x * strides.x;
      return TileOf{tensor,   offset,        channels,
                    elements, strides.plane, elements == height ? strides.y : strides.x};
    };
    const Real* const shown = tile(*inputs, from, sample).template read<Real>(buffers.shown.data());
    const Real* const hidden = tile(*baseline, instead, sample).template read<Real>(buffers.hidden.data());
    const TileOf target = tile(*out, to, row);
    const bool direct = target.template dense<Real>();
    Real* const mixed = direct ? out->template as<Real>() + target.offset : buffers.mixed.data();
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t start = c * elements;
      mix(buffers.mask.data(), shown + start, hidden + start, mixed + start, elements);
    }
    if (!direct) target.write(mixed);
  }

 private:
  static int64_t pieces(int64_t extent, int64_t step) { return (extent + step - 1) / step; }

  // Whether one stride walks through the elements of all lines.
  bool joined(const Strides& strides) const {
    return axes[2].extent == 1 || axes[1].extent == 1 || strides.y == strides.x * axes[2].extent;
  }
};

template <typename Real>
void mask_rows(const Tensor& inputs, const Tensor& baseline, const Tensor& grids, const int64_t* shifts,
               const int64_t* sample, const double* places, const Tensor& out) {
  const Masks<Real> masks(inputs, baseline, grids, places, out);
  const int64_t n_rows = out.shape[0], n_tiles = masks.count(), cells = grids.size() / n_rows;
  const int space = out.axes - 2;

#pragma omp parallel if (out.size() > kSmallestBatch)
  {
    typename Masks<Real>::Buffers buffers(masks);
#pragma omp for schedule(static) collapse(2)
    for (int64_t row = 0; row < n_rows; ++row) {
      for (int64_t index = 0; index < n_tiles; ++index) {
        masks.write(row, index, sample[row], grids.as<const uint8_t>() + row * cells, shifts + row * space,
                    buffers);
      }
    }
  }
}

}  // namespace

void grid_masks(const Tensor& inputs, const Tensor& baseline, const Tensor& grids, const Tensor& shifts,
                const Tensor& sample, const Tensor& places, const Tensor& out) {
  if (out.size() == 0) return;
  const auto run = inputs.dtype == Dtype::kFloat64 ? mask_rows<double> : mask_rows<float>;
  run(inputs, baseline, grids, shifts.as<const int64_t>(), sample.as<const int64_t>(),
      places.as<const double>(), out);
}

}  // namespace xai_fast
