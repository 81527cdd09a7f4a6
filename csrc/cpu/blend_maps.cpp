// blend_maps: rows of a batch become their input times a small map, which is resized line by line.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../ops.h"
#include "taps.h"

namespace xai_fast {
namespace {

constexpr int64_t kSmallestBatch = 1 << 14;  // below, threads cost more than they save

template <typename To, typename From, typename Sum>
XAI_FAST_INLINED inline void multiply(const From* from, int64_t from_stride, const Sum* factors, To* to,
                                      int64_t to_stride, int64_t n) {
  vectorised([=]() XAI_FAST_INLINED {
    if (from_stride == 1 && to_stride == 1) {
      for (int64_t i = 0; i < n; ++i) to[i] = convert<To>(convert<Sum>(from[i]) * factors[i]);
    } else {
      for (int64_t i = 0; i < n; ++i) {
        to[i * to_stride] = convert<To>(convert<Sum>(from[i * from_stride]) * factors[i]);
      }
    }
  });
}

template <typename To, typename From, typename Sum>
void blend(const Tensor& inputs, const Tensor& maps, const int64_t* sample, const int64_t* number,
           const double* scale, const Tensor& out) {
  const int64_t n_rows = out.shape[0], channels = out.shape[1], height = out.shape[2], width = out.shape[3];
  const int64_t map_height = maps.shape[1], map_width = maps.shape[2];
  const Taps<Sum> rows(map_height, height), columns(map_width, width);

#pragma omp parallel if (out.size() > kSmallestBatch)
  {
    std::vector<Sum> line(map_width), factors(width);
#pragma omp for schedule(static) collapse(2)
    for (int64_t row = 0; row < n_rows; ++row) {
      for (int64_t y = 0; y < height; ++y) {
        const Sum* const map = maps.as<const Sum>() + number[row] * map_height * map_width;
        blend_lines(map + rows.low[y] * map_width, map + rows.high[y] * map_width, rows.share[y], line.data(),
                    map_width);
        stretch_line(line.data(), columns.low.data(), columns.high.data(), columns.share.data(),
                     factors.data(), width);
        const Sum by = static_cast<Sum>(scale[row]);
        for (int64_t x = 0; x < width; ++x) factors[x] *= by;
        const From* from = inputs.as<const From>() + sample[row] * inputs.strides[0] + y * inputs.strides[2];
        To* to = out.as<To>() + row * out.strides[0] + y * out.strides[2];
        for (int64_t c = 0; c < channels; ++c) {
          multiply(from + c * inputs.strides[1], inputs.strides[3], factors.data(), to + c * out.strides[1],
                   out.strides[3], width);
        }
      }
    }
  }
}

}  // namespace

void blend_maps(const Tensor& inputs, const Tensor& maps, const Tensor& sample, const Tensor& number,
                const Tensor& scale, const Tensor& out) {
  if (out.size() == 0) return;
  with_floating(inputs.dtype, [&](auto from) {
    with_floating(out.dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      const auto* const samples = sample.as<const int64_t>();
      const auto* const numbers = number.as<const int64_t>();
      const auto* const scales = scale.as<const double>();
      if (maps.dtype == Dtype::kFloat64) {
        blend<To, From, double>(inputs, maps, samples, numbers, scales, out);
      } else if constexpr (!std::is_same_v<From, double>) {
        blend<To, From, float>(inputs, maps, samples, numbers, scales, out);
      }
    });
  });
}

}  // namespace xai_fast
