// inverted_bottleneck: a pointwise, a depthwise and a pointwise convolution, of which nothing but the result
// is stored; gated_pointwise: the last of them behind a squeeze-and-excitation gate.
#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "../ops.h"
#include "scratch.h"

#ifdef XAI_FAST_SETS
#include <immintrin.h>
#endif

namespace xai_fast {
namespace {

constexpr int64_t kLongest = 7;       // side of a kernel
constexpr int64_t kResults = 7;       // positions of a depthwise convolution at a time
constexpr int64_t kBlock = 4;         // panels of which sums are taken together
constexpr int64_t kTile = 28;         // positions that are gated together
constexpr int64_t kSums = 512 << 10;  // bytes of sums that stay in the second cache

enum class Activation { kNone, kRelu, kRelu6, kSilu, kHardswish };

struct Geometry {
  int64_t height, width, channels, middle;  // of the input, and the channels between in whole registers
  int64_t out_height, out_width, out_channels;
  int64_t side, stride, padding;
};

inline int64_t padded_to(int64_t channels, int64_t panel) { return (channels + panel - 1) / panel * panel; }

// Dense, channels last; `expand` and its bias, `project` and its bias, `other` and `means` may be null.
template <typename Value>
struct Call {
  const Value* inputs;
  const Value* expand;
  const float* expand_bias;
  const float* depth;
  const float* depth_bias;
  const Value* project;
  const float* project_bias;
  const Value* other;
  Value* out;
  float* means;
  Geometry geometry;
  Activation activation;
};

// What one thread does at a time: rows of the output of one row of the batch, in panels of the channels
// between.
struct Part {
  int64_t row, from, to, first, last;
};

template <typename Value>
struct Gated {
  const Value* inputs;
  const float* gate;
  const Value* project;
  const float* project_bias;
  const Value* other;
  Value* out;
  int64_t positions, channels, out_channels;
};

Activation activation_of(const std::string& name) {
  if (name == "relu") return Activation::kRelu;
  if (name == "relu6") return Activation::kRelu6;
  if (name == "silu") return Activation::kSilu;
  if (name == "hardswish") return Activation::kHardswish;
  if (name == "none") return Activation::kNone;
  throw std::invalid_argument("no such activation");
}

#ifdef XAI_FAST_SETS
namespace avx512_bf16 {
constexpr int kLanes = 16, kPixels = 14;  // up to 28 of 32 registers hold sums
#define XAI_FAST_TARGET XAI_FAST_AVX512_BF16
#define XAI_FAST_RECIPROCAL(x) (Lanes) _mm512_maskz_rcp14_ps(0xffff, (__m512)(x))
#define XAI_FAST_VALUES "winograd_halves.h"
#include "bottleneck_lanes.h"
#undef XAI_FAST_VALUES
#undef XAI_FAST_TARGET
}  // namespace avx512_bf16

namespace avx512 {
constexpr int kLanes = 16, kPixels = 14;
#define XAI_FAST_TARGET XAI_FAST_AVX512
#define XAI_FAST_VALUES "winograd_floats.h"
#include "bottleneck_lanes.h"
#undef XAI_FAST_TARGET
#undef XAI_FAST_RECIPROCAL
}  // namespace avx512

namespace avx2 {
constexpr int kLanes = 8, kPixels = 6;  // up to 12 of 16
#define XAI_FAST_TARGET XAI_FAST_AVX2
#define XAI_FAST_RECIPROCAL(x) (Lanes) _mm256_rcp_ps((__m256)(x))
#include "bottleneck_lanes.h"
#undef XAI_FAST_VALUES
#undef XAI_FAST_TARGET
#undef XAI_FAST_RECIPROCAL
}  // namespace avx2
static_assert(avx512::kPanel == 32 && avx512_bf16::kPanel == 32 &&
              avx2::kPanel == 16);  // as `register_panel` says

// Into how many parts each row of the batch is divided, so that all threads have as much to do.
int64_t parts_of(int64_t rows, int64_t most) {
  return rows % threads() == 0 || rows > 8 * threads() ? 1 : std::min(threads(), most);
}

// Into how many strips the rows of the output are divided: their sums fit into the cache, but no strip is so
// low that more than a quarter of what it expands is expanded for its neighbour as well.
int64_t strips_of(int64_t rows, const Geometry& g, int64_t panel) {
  const int64_t bytes = g.out_width * padded_to(g.out_channels, panel) * static_cast<int64_t>(sizeof(float));
  const int64_t high = std::max(kSums / bytes, 4 * (g.side - 1) / g.stride + 1);
  const int64_t parts = parts_of(rows, g.out_height);
  return padded_to((g.out_height + high - 1) / high, parts);
}

// With a projection, which sums over all panels, rows of the output are divided, else the panels.
template <typename Value>
void run(int64_t rows, int64_t panels, int64_t panel, const Call<Value>& call,
         void (*work)(const Call<Value>&, const Part&, Scratch&)) {
  const int64_t height = call.geometry.out_height;
  const int64_t parts = call.project ? strips_of(rows, call.geometry, panel) : parts_of(rows, panels);
#pragma omp parallel
  {
    static thread_local Scratch scratch;
#pragma omp for schedule(static) collapse(2)
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t next = part + 1;
        const Part some = call.project ? Part{row, part * height / parts, next * height / parts, 0, panels}
                                       : Part{row, 0, height, part * panels / parts, next * panels / parts};
        work(call, some, scratch);
      }
    }
  }
}

template <typename Value>
void run(int64_t rows, const Gated<Value>& call,
         void (*project)(const Gated<Value>&, int64_t, int64_t, int64_t, Scratch&)) {
  const int64_t parts = parts_of(rows, call.positions);
#pragma omp parallel
  {
    static thread_local Scratch scratch;
#pragma omp for schedule(static) collapse(2)
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t part = 0; part < parts; ++part) {
        project(call, row, part * call.positions / parts, (part + 1) * call.positions / parts, scratch);
      }
    }
  }
}
#endif

}  // namespace

void inverted_bottleneck(const Tensor& inputs, const Tensor& expand, const Tensor& expand_bias,
                         const Tensor& depth, const Tensor& depth_bias, const Tensor& project,
                         const Tensor& project_bias, const Tensor& other, const Tensor& out,
                         const Tensor& means, int64_t stride, int64_t padding,
                         const std::string& activation) {
#ifdef XAI_FAST_SETS
  if (out.size() == 0) return;
  const int64_t panel = depth.shape[2], side = depth.shape[1] == 9 ? 3 : depth.shape[1] == 25 ? 5 : 7;
  const Geometry geometry{inputs.shape[2], inputs.shape[3], inputs.shape[1], depth_bias.shape[0],
                          out.shape[2],    out.shape[3],    out.shape[1],    side,
                          stride,          padding};
  const auto convolve = [&](auto work, auto value) {
    using Value = decltype(value);
    run<Value>(out.shape[0], depth.shape[0], panel,
               Call<Value>{inputs.as<const Value>(), expand.as<const Value>(), expand_bias.as<const float>(),
                           depth.as<const float>(), depth_bias.as<const float>(), project.as<const Value>(),
                           project_bias.as<const float>(), other.as<const Value>(), out.as<Value>(),
                           means.as<float>(), geometry, activation_of(activation)},
               work);
  };
  if (inputs.dtype == Dtype::kBFloat16) {
    convolve(avx512_bf16::work, BFloat16{});
  } else if (panel == avx512::kPanel) {
    convolve(avx512::work, float{});
  } else {
    convolve(avx2::work, float{});
  }
#else
  throw std::logic_error("inverted_bottleneck was built for another processor");
#endif
}

void gated_pointwise(const Tensor& inputs, const Tensor& gate, const Tensor& project,
                     const Tensor& project_bias, const Tensor& other, const Tensor& out) {
#ifdef XAI_FAST_SETS
  if (out.size() == 0) return;
  const auto convolve = [&](auto project_gated, auto value) {
    using Value = decltype(value);
    run<Value>(out.shape[0],
               Gated<Value>{inputs.as<const Value>(), gate.as<const float>(), project.as<const Value>(),
                            project_bias.as<const float>(), other.as<const Value>(), out.as<Value>(),
                            out.shape[2] * out.shape[3], inputs.shape[1], out.shape[1]},
               project_gated);
  };
  if (inputs.dtype == Dtype::kBFloat16) {
    convolve(avx512_bf16::project_gated, BFloat16{});
  } else if (project.shape[2] == avx512::kPanel) {
    convolve(avx512::project_gated, float{});
  } else {
    convolve(avx2::project_gated, float{});
  }
#else
  throw std::logic_error("gated_pointwise was built for another processor");
#endif
}

}  // namespace xai_fast
