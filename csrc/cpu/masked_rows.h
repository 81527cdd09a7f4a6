// Rows of a batch that are made from their inputs under masks that all channels share: cut into tiles of some
// channels by some lines or by a part of one, each with a part of the mask as it lies in the written memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../ops.h"
#include "scratch.h"
#include "shared_rows.h"
#include "tiles.h"

namespace xai_fast {

// A part of a line of an enlarged mask: which row's, where it starts among the spatial axes, and its length.
struct MaskPart {
  int64_t row, z, y, x, length;
};

// A tensor (R, C, *S) as five axes.
struct Strides {
  int64_t row, plane, z, y, x;

  explicit Strides(const Tensor& tensor)
      : row(tensor.strides[0]), plane(tensor.strides[1]), z(0), y(0), x(0) {
    int64_t* const space[3] = {&z, &y, &x};
    for (int axis = 2; axis < tensor.axes; ++axis) *space[axis + 3 - tensor.axes] = tensor.strides[axis];
  }
};

class MaskedTiles {
 public:
  static constexpr int64_t kCapacity = 4096;  // elements: all that is read and written stays in cache
  static constexpr int64_t kMostPlanes = 16;
  static constexpr int64_t kShortestLine = 64;

  // `read`: the tensors that rows are made from, which lie as they like.
  MaskedTiles(const Tensor& out, std::vector<const Tensor*> read) : out_(out), to_(out) {
    const int space = out.axes - 2;
    for (int axis = 0; axis < space; ++axis) extent_[3 - space + axis] = out.shape[2 + axis];
    const int64_t width = extent_[2];
    planes_ = std::min(out.shape[1], kMostPlanes);
    pixelwise_ = planes_ == out.shape[1] && planes_ > 1 && to_.plane == 1;
    length_ = std::min(width, std::max(kShortestLine, kCapacity / planes_));
    read.push_back(&out);
    const bool joined = std::all_of(read.begin(), read.end(), [&](const Tensor* tensor) {
      const Strides strides(*tensor);
      return width == 1 || extent_[1] == 1 || strides.y == strides.x * width;
    });
    lines_ = length_ == width && joined
                 ? std::min(extent_[1], std::max<int64_t>(kCapacity / (planes_ * width), 1))
                 : 1;
    planewise_ = pieces(out.shape[1], planes_);
    linewise_ = pieces(extent_[1], lines_);
    along_ = pieces(width, length_);
  }

  int64_t count() const { return planewise_ * extent_[0] * linewise_ * along_; }
  int64_t capacity() const { return planes_ * lines_ * length_; }

  struct Tile {
    int64_t plane, z, y, x;                     // where it starts
    int64_t channels, lines, length, elements;  // elements: of one channel
  };

  Tile operator[](int64_t index) const {
    Tile tile{};
    tile.x = index % along_ * length_;
    tile.length = std::min(length_, extent_[2] - tile.x);
    index /= along_;
    tile.y = index % linewise_ * lines_;
    tile.lines = std::min(lines_, extent_[1] - tile.y);
    index /= linewise_;
    tile.z = index % extent_[0];
    tile.plane = index / extent_[0] * planes_;
    tile.channels = std::min(planes_, out_.shape[1] - tile.plane);
    tile.elements = tile.lines * tile.length;
    return tile;
  }

  // Row `row` of a tensor in a tile, in the order of the written memory.
  TileOf of(const Tile& tile, const Tensor& tensor, int64_t row) const {
    const Strides strides(tensor);
    const int64_t offset = row * strides.row + tile.plane * strides.plane + tile.z * strides.z +
                           tile.y * strides.y + tile.x * strides.x;
    const int64_t step = tile.elements == tile.lines ? strides.y : strides.x;
    if (pixelwise_) return {tensor, offset, tile.elements, tile.channels, step, strides.plane};
    return {tensor, offset, tile.channels, tile.elements, strides.plane, step};
  }

  // The same for a mask: `mask` holds the tile's lines one after the other, and `spread` room for each
  // channel's. Returns values for `period` elements in that order, which repeat.
  template <typename Real>
  const Real* spread(const Tile& tile, const Real* mask, Real* spread, int64_t& period) const {
    period = tile.elements;
    if (!pixelwise_) return mask;
    period *= tile.channels;
    const int64_t channels = tile.channels, elements = tile.elements;
    vectorised([=]() XAI_FAST_INLINED {
      if (channels == 3) {
#pragma GCC ivdep
        for (int64_t i = 0; i < elements; ++i) {
          for (int64_t c = 0; c < 3; ++c) spread[3 * i + c] = mask[i];
        }
      } else {
        for (int64_t i = 0; i < elements; ++i) std::fill_n(spread + channels * i, channels, mask[i]);
      }
    });
    return spread;
  }

 private:
  const Tensor& out_;
  Strides to_;
  bool pixelwise_;  // channels lie beside each other
  int64_t extent_[3] = {1, 1, 1};
  int64_t planes_, length_, lines_;       // of the largest tile; several lines only where they are whole
  int64_t planewise_, linewise_, along_;  // tiles over channels, lines and along a line

  static int64_t pieces(int64_t extent, int64_t step) { return (extent + step - 1) / step; }
};

// Writes every row: `line(part, mask)` computes a part of a mask's line, and `mix(mask, values, to, n)`
// elements of a row from the mask and from what was read of each of the tensors.
template <typename To, typename Real, int kRead, typename Line, typename Mix>
void write_masked_rows(const Tensor* const (&read)[kRead], const int64_t* sample, const Tensor& out,
                       const Line& line, const Mix& mix) {
  constexpr int64_t smallest_batch = 1 << 14;  // below, threads cost more than they save
  const MaskedTiles tiles(out, {read, read + kRead});
  const int64_t n_rows = out.shape[0], n_tiles = tiles.count(), capacity = tiles.capacity();
  const SharedRows shared(
      n_rows, [sample](int64_t row) { return sample[row]; }, rows_of_a_piece(n_rows, threads()));

#pragma omp parallel if (out.size() > smallest_batch)
  {
    std::vector<Real> buffers[kRead], mask(capacity), spread(capacity);
    for (auto& buffer : buffers) buffer.resize(capacity);
    std::vector<To> mixed(capacity);
    Writer<To> writer(out);
#pragma omp for schedule(static) collapse(2)
    for (int64_t piece = 0; piece < shared.pieces(); ++piece) {
      for (int64_t index = 0; index < n_tiles; ++index) {
        const auto tile = tiles[index];
        const int64_t start = shared.starts[piece], stop = shared.starts[piece + 1];
        const Real* values[kRead];
        for (int t = 0; t < kRead; ++t) {
          values[t] = tiles.of(tile, *read[t], sample[shared.rows[start]]).read(buffers[t].data());
        }
        for (int64_t i = start; i < stop; ++i) {
          const int64_t row = shared.rows[i];
          for (int64_t y = 0; y < tile.lines; ++y) {
            line(MaskPart{row, tile.z, tile.y + y, tile.x, tile.length}, mask.data() + y * tile.length);
          }
          int64_t period = 0;
          const Real* const over = tiles.spread(tile, mask.data(), spread.data(), period);
          writer.fill(tiles.of(tile, out, row), mixed.data(), [&](int64_t at, int64_t n, To* to) {
            for (const int64_t end = at + n; at < end;) {  // channel by channel, or all at once
              const int64_t place = at % period, count = std::min(period - place, end - at);
              const Real* from[kRead];
              for (int t = 0; t < kRead; ++t) from[t] = values[t] + at;
              mix(over + place, from, to, count);
              to += count;
              at += count;
            }
          });
        }
      }
    }
  }
}

}  // namespace xai_fast
