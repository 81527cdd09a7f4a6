// Copies of strided blocks, with conversion of dtype and memory layout: what every op that writes a batch is
// made of.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../half.h"
#include "../instructions.h"

namespace xai_fast {

// A block of at most four axes read through one set of strides and written through another.
struct Block {
  int axes = 0;
  int64_t size[4] = {};
  int64_t from[4] = {};
  int64_t to[4] = {};

  void add(int64_t length, int64_t from_stride, int64_t to_stride) {
    size[axes] = length;
    from[axes] = from_stride;
    to[axes] = to_stride;
    ++axes;
  }

  int64_t elements() const {
    int64_t product = 1;
    for (int axis = 0; axis < axes; ++axis) product *= size[axis];
    return product;
  }

  // The same block with its axes in the order of the written memory, those of length one dropped, and
  // neighbours that both sides walk in one stride merged.
  Block simplified() const {
    int order[4] = {0, 1, 2, 3};
    std::stable_sort(order, order + axes, [this](int a, int b) { return to[a] > to[b]; });
    Block result;
    for (int i = 0; i < axes; ++i) {
      const int axis = order[i];
      if (size[axis] == 1) continue;
      const int last = result.axes - 1;
      if (last >= 0 && result.from[last] == from[axis] * size[axis] &&
          result.to[last] == to[axis] * size[axis]) {
        result.size[last] *= size[axis];
        result.from[last] = from[axis];
        result.to[last] = to[axis];
      } else {
        result.add(size[axis], from[axis], to[axis]);
      }
    }
    return result;
  }

  int longest() const { return static_cast<int>(std::max_element(size, size + std::max(axes, 1)) - size); }
};

namespace copying {

template <typename To, typename From>
void run(const From* from, To* to, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) to[i] = convert<To>(from[i]);
  });
}

// Planes to pixels: `channels` arrays of n elements, `stride` apart, become n vectors.
template <int channels, typename To, typename From>
void interleave(const From* from, int64_t stride, To* to, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) {
      for (int c = 0; c < channels; ++c) to[i * channels + c] = convert<To>(from[c * stride + i]);
    }
  });
}

// Pixels to planes.
template <int channels, typename To, typename From>
void deinterleave(const From* from, To* to, int64_t stride, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    for (int c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < n; ++i) to[c * stride + i] = convert<To>(from[i * channels + c]);
    }
  });
}

// Any strides; tiles keep both sides of a transposition within the first-level cache.
template <typename To, typename From>
void strided(const From* from, To* to, const int64_t* size, const int64_t* from_stride,
             const int64_t* to_stride) {
  constexpr int64_t tile = 32;
  for (int64_t i0 = 0; i0 < size[0]; i0 += tile) {
    const int64_t stop0 = std::min(i0 + tile, size[0]);
    for (int64_t j0 = 0; j0 < size[1]; j0 += tile) {
      const int64_t stop1 = std::min(j0 + tile, size[1]);
      for (int64_t i = i0; i < stop0; ++i) {
        for (int64_t j = j0; j < stop1; ++j) {
          to[i * to_stride[0] + j * to_stride[1]] =
              convert<To>(from[i * from_stride[0] + j * from_stride[1]]);
        }
      }
    }
  }
}

// Two axes, the second one the denser in the written memory.
template <typename To, typename From>
void plane(const From* from, To* to, const int64_t* size, const int64_t* from_stride,
           const int64_t* to_stride) {
  const bool dense = to_stride[1] == 1;
  if (dense && (from_stride[1] == 1 || size[1] == 1)) {
    for (int64_t i = 0; i < size[0]; ++i) {
      if constexpr (std::is_same_v<To, From>) {
        std::memcpy(to + i * to_stride[0], from + i * from_stride[0], size[1] * sizeof(To));
      } else {
        run(from + i * from_stride[0], to + i * to_stride[0], size[1]);
      }
    }
  } else if (dense && from_stride[1] == 0) {
    for (int64_t i = 0; i < size[0]; ++i) {
      std::fill_n(to + i * to_stride[0], size[1], convert<To>(from[i * from_stride[0]]));
    }
  } else if (dense && from_stride[0] == 1 && to_stride[0] == 3 && size[1] == 3) {
    interleave<3>(from, from_stride[1], to, size[0]);
  } else if (dense && from_stride[0] == 1 && from_stride[1] == 3 && size[0] == 3) {
    deinterleave<3>(from, to, to_stride[0], size[1]);
  } else {
    strided(from, to, size, from_stride, to_stride);
  }
}

}  // namespace copying

template <typename To, typename From>
void copy(const From* from, To* to, const Block& any_block) {
  const Block block = any_block.simplified();
  if (block.elements() == 0) return;
  int64_t size[4] = {1, 1, 1, 1}, from_stride[4] = {0, 0, 0, 1}, to_stride[4] = {0, 0, 0, 1};
  for (int axis = 0; axis < block.axes; ++axis) {
    const int slot = 4 - block.axes + axis;
    size[slot] = block.size[axis];
    from_stride[slot] = block.from[axis];
    to_stride[slot] = block.to[axis];
  }
  for (int64_t i = 0; i < size[0]; ++i) {
    for (int64_t j = 0; j < size[1]; ++j) {
      copying::plane(from + i * from_stride[0] + j * from_stride[1], to + i * to_stride[0] + j * to_stride[1],
                     size + 2, from_stride + 2, to_stride + 2);
    }
  }
}

// Copies the `part`-th of `parts` slices of a block, cut along its longest axis.
template <typename To, typename From>
void copy_part(const From* from, To* to, Block block, int64_t part, int64_t parts) {
  const int axis = block.longest();
  const int64_t length = block.axes ? block.size[axis] : 1;
  const int64_t start = length * part / parts, stop = length * (part + 1) / parts;
  if (block.axes) {
    block.size[axis] = stop - start;
  } else if (start == stop) {
    return;
  }
  copy(from + start * block.from[axis], to + start * block.to[axis], block);
}

}  // namespace xai_fast
