// bias_relu: what follows a convolution, in one pass over memory: a bias per channel, perhaps another map, a
// ReLU.
#include <algorithm>
#include <type_traits>

#include "../ops.h"

namespace xai_fast {
namespace {

constexpr int64_t kSmallestBatch = 1 << 14;  // elements below which threads cost more than they save
constexpr int64_t kLine = 1 << 13;  // elements at once, so that a few long lines are shared by threads

template <typename T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T>
inline T rectified(Wide<T> value) {
  return convert<T>(value <= 0 ? Wide<T>(0) : value);  // NaN is not below zero, and stays
}

// `step`: 1 where every element of the line has a bias of its own, 0 where all share one.
template <int step, typename T>
void line(const T* values, const T* bias, const T* other, T* out, int64_t n) {
  if (other) {
    vectorised([=]() XAI_FAST_INLINED {
      for (int64_t i = 0; i < n; ++i) {
        out[i] = rectified<T>((widen(values[i]) + widen(bias[i * step])) + widen(other[i]));
      }
    });
  } else {
    vectorised([=]() XAI_FAST_INLINED {
      for (int64_t i = 0; i < n; ++i) out[i] = rectified<T>(widen(values[i]) + widen(bias[i * step]));
    });
  }
}

template <typename T>
void fill(const Tensor& values, const Tensor& bias, const Tensor& other, const Tensor& out, bool last) {
  const int64_t channels = values.shape[1],
                columns = last ? channels : values.size() / (values.shape[0] * channels);
  const int64_t rows = values.size() / columns, pieces = (columns + kLine - 1) / kLine;
  const auto* const from = values.as<const T>();
  const auto* const biases = bias.as<const T>();
  const auto* const beside = other.as<const T>();
  auto* const to = out.as<T>();
#pragma omp parallel for schedule(static) if (out.size() > kSmallestBatch)
  for (int64_t piece = 0; piece < rows * pieces; ++piece) {
    const int64_t row = piece / pieces, start = piece % pieces * kLine, at = row * columns + start;
    const int64_t n = std::min(kLine, columns - start);
    const T* const summand = beside ? beside + at : nullptr;
    if (last) {
      line<1>(from + at, biases + start, summand, to + at, n);
    } else {
      line<0>(from + at, biases + row % channels, summand, to + at, n);
    }
  }
}

}  // namespace

void bias_relu(const Tensor& values, const Tensor& bias, const Tensor& other, const Tensor& out) {
  if (out.size() == 0) return;
  // Whether channels are last in memory: their stride is then one, or there is one position alone.
  const bool last = values.shape[1] > 1 ? values.strides[1] == 1 : false;
  with_floating(out.dtype, [&](auto value) { fill<decltype(value)>(values, bias, other, out, last); });
}

}  // namespace xai_fast
