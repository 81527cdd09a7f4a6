// winograd_convolution: 3x3 convolutions of stride 1 by Winograd's minimal filtering, with what follows them.
#include <algorithm>
#include <stdexcept>

#include "../ops.h"
#include "scratch.h"

#ifdef XAI_FAST_SETS
#include <immintrin.h>
#endif

namespace xai_fast {
namespace {

// Where a tile lies: its row of the batch, and its place among the row's tiles.
struct Place {
  int64_t row, y, x;
};

struct Geometry {
  int64_t height, width, channels;
  int64_t out_height, out_width, out_channels;
  int64_t padding;
  bool relu;

  int64_t down() const { return (out_height + 1) / 2; }
  int64_t across() const { return (out_width + 1) / 2; }

  Place place(int64_t tile) const {
    const int64_t per_row = down() * across(), inside = tile % per_row;
    return {tile / per_row, inside / across(), inside % across()};
  }
};

// Dense, channels last; `bias` and `other` may be null.
template <typename Value>
struct Call {
  const Value* inputs;
  const Value* kernels;
  const Value* bias;
  const Value* other;
  Value* out;
  Geometry geometry;
  int64_t tiles;  // of a block, for which scratch memory is laid out
};

#ifdef XAI_FAST_SETS
namespace avx512_bf16 {
constexpr int kLanes = 16, kRows = 12;  // 24 of 32 registers hold sums
#define XAI_FAST_TARGET XAI_FAST_AVX512_BF16
#define XAI_FAST_VALUES "winograd_halves.h"
#include "winograd_tiles.h"
#undef XAI_FAST_VALUES
#undef XAI_FAST_TARGET
}  // namespace avx512_bf16

namespace avx512 {
constexpr int kLanes = 16, kRows = 12;  // 24 of 32 registers hold sums
#define XAI_FAST_TARGET XAI_FAST_AVX512
#define XAI_FAST_VALUES "winograd_floats.h"
#include "winograd_tiles.h"
#undef XAI_FAST_VALUES
#undef XAI_FAST_TARGET
}  // namespace avx512

namespace avx2 {
constexpr int kLanes = 8, kRows = 6;  // 12 of 16
#define XAI_FAST_TARGET XAI_FAST_AVX2
#define XAI_FAST_VALUES "winograd_floats.h"
#include "winograd_tiles.h"
#undef XAI_FAST_VALUES
#undef XAI_FAST_TARGET
}  // namespace avx2
static_assert(avx512::kPanel == 32 && avx512_bf16::kPanel == 32 &&
              avx2::kPanel == 16);  // as `register_panel` says

template <typename Value>
struct Kernel {
  int64_t rows, panel;
  void (*read)(const Call<Value>&, int64_t, int64_t, Value*);
  void (*write)(const Call<Value>&, const Value*, int64_t, int64_t, int64_t, int64_t, float*);
};

// Works through blocks of tiles, of equal size and number per thread. Where there are too few tiles for that,
// threads share their patches and divide the output's channels.
template <typename Value>
void run(int64_t rows, const Kernel<Value>& kernel, Call<Value> call) {
  const Geometry& g = call.geometry;
  // Many channels: rather patches that leave the second cache than weights that are read more often.
  const int64_t largest = g.channels < 512 ? 36 : 72;
  const int64_t n_threads = threads(), panels = g.out_channels / kernel.panel;
  const int64_t total = rows * g.down() * g.across();
  const int64_t splits = total < 36 * n_threads ? std::min(n_threads, panels) : 1;
  int64_t blocks = (total + largest - 1) / largest;
  if (splits == 1) blocks = (blocks + n_threads - 1) / n_threads * n_threads;
  const int64_t even = (total + blocks - 1) / blocks;
  call.tiles = (even + kernel.rows - 1) / kernel.rows * kernel.rows;
  blocks = (total + call.tiles - 1) / call.tiles;

  const int64_t patches = 16 * call.tiles * g.channels;
  static thread_local Scratch shared;
  Value* const common = splits > 1 ? shared.of<Value>(blocks * patches) : nullptr;

#pragma omp parallel
  {
    static thread_local Scratch own, products;
    float* const sums = products.of<float>(16 * call.tiles * kernel.panel);
    Value* const mine = common ? nullptr : own.of<Value>(patches);
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t first = block * call.tiles, last = std::min(total, first + call.tiles);
      kernel.read(call, first, last, common ? common + block * patches : mine);
      if (!common) kernel.write(call, mine, first, last, 0, panels, sums);
    }
    if (common) {
#pragma omp for schedule(static) collapse(2)
      for (int64_t split = 0; split < splits; ++split) {
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t first = block * call.tiles, last = std::min(total, first + call.tiles);
          kernel.write(call, common + block * patches, first, last, split * panels / splits,
                       (split + 1) * panels / splits, sums);
        }
      }
    }
  }
}
#endif

}  // namespace

void winograd_convolution(const Tensor& inputs, const Tensor& kernels, const Tensor& bias,
                          const Tensor& other, const Tensor& out, int64_t padding, bool relu) {
#ifdef XAI_FAST_SETS
  if (out.size() == 0) return;
  const Geometry geometry{inputs.shape[2], inputs.shape[3], inputs.shape[1], out.shape[2],
                          out.shape[3],    out.shape[1],    padding,         relu};
  const auto convolve = [&](const auto& kernel, auto value) {
    using Value = decltype(value);
    run(out.shape[0], kernel,
        Call<Value>{inputs.as<const Value>(), kernels.as<const Value>(), bias.as<const Value>(),
                    other.as<const Value>(), out.as<Value>(), geometry, 0});
  };
  if (inputs.dtype == Dtype::kBFloat16) {
    using namespace avx512_bf16;
    convolve(Kernel<BFloat16>{kRows, kPanel, read_tiles, write_tiles}, BFloat16{});
  } else if (kernels.shape[3] == avx512::kPanel) {
    using namespace avx512;
    convolve(Kernel<float>{kRows, kPanel, read_tiles, write_tiles}, float{});
  } else {
    using namespace avx2;
    convolve(Kernel<float>{kRows, kPanel, read_tiles, write_tiles}, float{});
  }
#else
  throw std::logic_error("winograd_convolution was built for another processor");
#endif
}

}  // namespace xai_fast
