// cam_reduce: a weighted sum over channels, rectified and resized without a temporary of the final size.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../ops.h"
#include "taps.h"

namespace xai_fast {
namespace {

constexpr int64_t kPixels =
    64;  // pixels per task: their sums for a few targets stay in the first-level cache

// Independent lanes, so that the compiler may use vector registers without reordering what the source says.
template <typename Sum>
XAI_FAST_INLINED inline Sum dot(const Sum* a, const Sum* b, int64_t n) {
  constexpr int64_t width = 32;
  Sum lanes[width] = {};
  int64_t i = 0;
  for (; i + width <= n; i += width) {
    for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  for (int64_t lane = 0; i + lane < n; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  for (int64_t half = width / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

template <typename Sum>
XAI_FAST_INLINED inline void add_scaled(Sum factor, const Sum* values, Sum* sums, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sums[i] += factor * values[i];
}

// n elements `stride` apart as a dense array of Sum: where they are, or converted into `buffer`.
template <typename Sum, typename Value>
XAI_FAST_INLINED inline const Sum* gather(const Value* values, int64_t stride, int64_t n, Sum* buffer) {
  if constexpr (std::is_same_v<Sum, Value>) {
    if (stride == 1) return values;
  }
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) buffer[i] = convert<Sum>(values[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) buffer[i] = convert<Sum>(values[i * stride]);
  }
  return buffer;
}

// Pixels [start, stop) of one grid row of one sample, for every target: grids[k * grid_stride + pixel].
template <typename Sum, typename Value>
void sum_channels(const Value* pixels, int64_t channels, int64_t channel_stride, int64_t pixel_stride,
                  const Sum* weights, int64_t n_targets, int64_t n, Sum* grids, int64_t grid_stride,
                  Sum* buffer) {
  // As a whole, because the lines of small maps are shorter than a call.
  vectorised([=]() XAI_FAST_INLINED {
    if (channel_stride == 1) {
      for (int64_t pixel = 0; pixel < n; ++pixel) {
        const Sum* const vector = gather(pixels + pixel * pixel_stride, 1, channels, buffer);
        for (int64_t k = 0; k < n_targets; ++k) {
          grids[k * grid_stride + pixel] = dot(weights + k * channels, vector, channels);
        }
      }
      return;
    }
    for (int64_t k = 0; k < n_targets; ++k) std::fill_n(grids + k * grid_stride, n, Sum(0));
    for (int64_t c = 0; c < channels; ++c) {
      const Sum* const line = gather(pixels + c * channel_stride, pixel_stride, n, buffer);
      for (int64_t k = 0; k < n_targets; ++k) {
        add_scaled(weights[k * channels + c], line, grids + k * grid_stride, n);
      }
    }
  });
}

template <typename Sum>
void resize(const std::vector<Sum>& grids, int64_t height, int64_t width, const Tensor& out) {
  const int64_t n_maps = out.shape[0] * out.shape[1], out_height = out.shape[2], out_width = out.shape[3];
  const Taps<Sum> rows(height, out_height), columns(width, out_width);

#pragma omp parallel if (n_maps * out_height * out_width > 16384)
  {
    std::vector<Sum> line(width);
#pragma omp for schedule(static) collapse(2)
    for (int64_t map = 0; map < n_maps; ++map) {
      for (int64_t y = 0; y < out_height; ++y) {
        const Sum* const grid = grids.data() + map * height * width;
        blend_lines(grid + rows.low[y] * width, grid + rows.high[y] * width, rows.share[y], line.data(),
                    width);
        columns.stretch(line.data(), 0, out.as<Sum>() + (map * out_height + y) * out_width, out_width);
      }
    }
  }
}

template <typename Sum, typename Value>
void reduce(const Tensor& activations, const Tensor& weights, bool relu, const Tensor& out) {
  const int64_t n_samples = activations.shape[0], channels = activations.shape[1],
                n_targets = weights.shape[1];
  const int64_t stride = activations.strides[1];
  int64_t height = activations.shape[2], width = activations.shape[3];
  const bool resized = height != out.shape[2] || width != out.shape[3];
  std::vector<Sum> small(resized ? n_samples * n_targets * height * width : 0);
  Sum* const grids = resized ? small.data() : out.as<Sum>();

  // Rows of pixels that follow each other in memory are one row.
  const int64_t pixels = height * width;
  const bool merged = height == 1 || activations.strides[2] == width * activations.strides[3];
  const int64_t n_lines = merged ? 1 : height, length = merged ? pixels : width;
  const int64_t n_blocks = (length + kPixels - 1) / kPixels;
  const int64_t n_tasks = n_samples * n_lines * n_blocks;

#pragma omp parallel if (n_samples * channels * pixels > 16384)
  {
    std::vector<Sum> buffer(std::max(channels, kPixels));
#pragma omp for schedule(static)
    for (int64_t task = 0; task < n_tasks; ++task) {
      const int64_t sample = task / (n_lines * n_blocks), line = task / n_blocks % n_lines;
      const int64_t start = task % n_blocks * kPixels, n = std::min(kPixels, length - start);
      const Value* const first = activations.as<const Value>() + sample * activations.strides[0] +
                                 line * activations.strides[2] + start * activations.strides[3];
      Sum* const target = grids + sample * n_targets * pixels + line * width + start;
      sum_channels(first, channels, stride, activations.strides[3],
                   weights.as<const Sum>() + sample * n_targets * channels, n_targets, n, target, pixels,
                   buffer.data());
      for (int64_t k = 0; relu && k < n_targets; ++k) {
        // Written so that a value that is not a number stays one.
        for (int64_t i = 0; i < n; ++i)
          target[k * pixels + i] = target[k * pixels + i] < 0 ? 0 : target[k * pixels + i];
      }
    }
  }
  if (resized) resize(small, height, width, out);
}

}  // namespace

void cam_reduce(const Tensor& activations, const Tensor& weights, bool relu, const Tensor& out) {
  if (out.size() == 0) return;
  with_floating(activations.dtype, [&](auto value) {
    using Value = decltype(value);
    if (out.dtype == Dtype::kFloat64) {
      reduce<double, Value>(activations, weights, relu, out);
    } else if constexpr (!std::is_same_v<Value, double>) {
      reduce<float, Value>(activations, weights, relu, out);
    }
  });
}

}  // namespace xai_fast
