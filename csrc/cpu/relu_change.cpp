// relu_change: what a ReLU makes of a change to a part of a kept map.
#include "../ops.h"

namespace xai_fast {
namespace {

constexpr int64_t kSmallestBatch = 1 << 14;  // elements below which threads cost more than they save

inline float rectified(float value) { return value < 0 ? 0.0f : value; }  // NaN stays, as torch has it

void change_line(const float* base, const BFloat16* change, BFloat16* out, int64_t n) {
  vectorised_widely([=]() XAI_FAST_INLINED {
    for (int64_t i = 0; i < n; ++i) {
      narrow(rectified(base[i] + widen(change[i])) - rectified(base[i]), out[i]);
    }
  });
}

}  // namespace

void relu_change(const Tensor& base, const Tensor& change, const Tensor& sample, const Tensor& at,
                 const Tensor& out) {
  const int64_t channels = base.shape[1], height = base.shape[2], width = base.shape[3];
  const int64_t rows = out.shape[0], lines = out.shape[2], line = out.shape[3] * channels;
  const auto* const maps = base.as<const float>();
  const auto* const samples = sample.as<const int64_t>();
  const auto* const places = at.as<const int64_t>();
#pragma omp parallel for schedule(static) if (out.size() > kSmallestBatch)
  for (int64_t row = 0; row < rows; ++row) {
    const float* const first =
        maps + ((samples[row] * height + places[2 * row]) * width + places[2 * row + 1]) * channels;
    for (int64_t y = 0; y < lines; ++y) {
      const int64_t to = (row * lines + y) * line;
      change_line(first + y * width * channels, change.as<const BFloat16>() + to, out.as<BFloat16>() + to,
                  line);
    }
  }
}

}  // namespace xai_fast
