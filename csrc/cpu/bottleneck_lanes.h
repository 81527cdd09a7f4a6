// The arithmetic of inverted_bottleneck on registers of kLanes floats. Included once per instruction set,
// inside a namespace of its own that defines kLanes, kPixels and XAI_FAST_TARGET; hence no include guard.
// XAI_FAST_VALUES is the header of what is read, multiplied and written.

#include "lanes.h"

#include XAI_FAST_VALUES

constexpr int64_t kPanel = 2 * kLanes;  // channels that stay in registers while others are summed

// What activations that only cut do, which costs next to nothing where sums are still in registers.
struct Bounds {
  float least, most;

  XAI_FAST_TARGET Lanes operator()(Lanes x) const {
    const Lanes low = Lanes{} + least, high = Lanes{} + most;
    x = x < low ? low : x;  // comparisons let NaN through
    return x > high ? high : x;
  }
};

struct Unbounded {
  XAI_FAST_TARGET Lanes operator()(Lanes x) const { return x; }
};

inline Bounds bounds_of(Activation activation) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const bool cuts = activation == Activation::kRelu || activation == Activation::kRelu6;
  return {cuts ? 0.0f : -kInfinity, activation == Activation::kRelu6 ? 6.0f : kInfinity};
}

// sums (pixels, vectors * kLanes), `apart` floats from one pixel to the next, of inputs times weights
// (channels, kPanel), added to `start`, or to what is there where that is null. Inputs of a pixel lie
// `stride` values apart from the next one's. kTogether channels are multiplied by one instruction, and their
// weights lie side by side.
template <int pixels, int vectors, typename Finish>
XAI_FAST_TARGET void products(const Value* inputs, int64_t stride, const Value* weights, int64_t channels,
                              const float* start, Finish finish, float* sums, int64_t apart) {
  Lanes sum[pixels][vectors];  // in registers, which takes loops that are unrolled
#pragma GCC unroll 16
  for (int pixel = 0; pixel < pixels; ++pixel) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v)
      sum[pixel][v] = load((start ? start : sums + pixel * apart) + v * kLanes);
  }
#pragma GCC unroll 1
  for (int64_t channel = 0; channel < channels; channel += kTogether, weights += kTogether * kPanel) {
    Weights weight[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) weight[v] = load_weights(weights + v * kTogether * kLanes);
#pragma GCC unroll 16
    for (int pixel = 0; pixel < pixels; ++pixel) {
      const Factor value = factor(inputs + pixel * stride + channel);
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) add_products(sum[pixel][v], value, weight[v]);
    }
  }
#pragma GCC unroll 16
  for (int pixel = 0; pixel < pixels; ++pixel) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) store(sums + pixel * apart + v * kLanes, finish(sum[pixel][v]));
  }
}

// The same for any number of pixels: as many at a time as registers hold, then what is left in smaller steps.
template <int vectors, typename Finish>
XAI_FAST_TARGET void multiply(const Value* inputs, int64_t stride, int64_t pixels, const Value* weights,
                              int64_t channels, const float* start, Finish finish, float* sums,
                              int64_t apart) {
  const auto step = [&](auto run, int64_t count) {
    run(inputs, stride, weights, channels, start, finish, sums, apart);
    inputs += count * stride;
    sums += count * apart;
    pixels -= count;
  };
  while (pixels >= kPixels) step(products<kPixels, vectors, Finish>, kPixels);
  if (pixels >= kPixels / 2) step(products<kPixels / 2, vectors, Finish>, kPixels / 2);
  if (pixels >= 4) step(products<4, vectors, Finish>, 4);
  if (pixels >= 2) step(products<2, vectors, Finish>, 2);
  if (pixels >= 1) step(products<1, vectors, Finish>, 1);
}

// e to the power of x: 2^n times a polynomial in what remains, within two units in the last place. Overflows
// to infinity, and to 0 below what float32 holds without denormal numbers.
XAI_FAST_TARGET inline Lanes exponential(Lanes x) {
  typedef int32_t Whole __attribute__((vector_size(4 * kLanes)));
  const Lanes low = Lanes{} - 87.0f, high = Lanes{} + 89.0f;
  const Lanes bounded = x < low ? low : (x > high ? high : x);
  const Lanes shifted = bounded * 1.44269504f + 12582912.0f;  // rounds to a whole number in the last bits
  const Lanes whole = shifted - 12582912.0f;
  const Lanes rest = (bounded - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Lanes sum = Lanes{} + 1.9875691500e-4f;
  sum = sum * rest + 1.3981999507e-3f;
  sum = sum * rest + 8.3334519073e-3f;
  sum = sum * rest + 4.1665795894e-2f;
  sum = sum * rest + 1.6666665459e-1f;
  sum = sum * rest + 5.0000001201e-1f;
  sum = (sum * rest * rest + rest) + 1.0f;
  const Whole power = __builtin_convertvector(whole, Whole) + 127;
  return sum * (Lanes)(power << 23);
}

// The other activations, of a multiple of kLanes values.
XAI_FAST_TARGET void curve(float* values, int64_t count, Activation activation) {
  const Lanes zero{}, six = zero + 6.0f;
  if (activation == Activation::kSilu) {
    for (int64_t i = 0; i < count; i += kLanes) {
      const Lanes x = load(values + i);
      store(values + i, x / (exponential(zero - x) + 1.0f));
    }
  } else if (activation == Activation::kHardswish) {
    for (int64_t i = 0; i < count; i += kLanes) {
      const Lanes x = load(values + i), moved = x + 3.0f;
      store(values + i, x * (moved < zero ? zero : (moved > six ? six : moved)) / 6.0f);
    }
  }
}

// kLanes channels of some positions of one row of the output, from `side` rows of the input that are padded
// with zeros. Every value is read once and meets the weights of one row of the kernel in registers.
template <int side, int stride, int results>
XAI_FAST_TARGET void taps(const float* const* rows, int64_t from, const float* weights, const float* bias,
                          Bounds bounds, float* to) {
  Lanes sum[results];
#pragma GCC unroll 8
  for (int x = 0; x < results; ++x) sum[x] = load(bias);
#pragma GCC unroll 1
  for (int i = 0; i < side; ++i, weights += side * kPanel) {
    Lanes weight[side];
#pragma GCC unroll 8
    for (int j = 0; j < side; ++j) weight[j] = load(weights + j * kPanel);
    const float* const row = rows[i] + from;
#pragma GCC unroll 32
    for (int at = 0; at < (results - 1) * stride + side; ++at) {
      const Lanes value = load(row + at * kPanel);
#pragma GCC unroll 8
      for (int j = 0; j < side; ++j) {
        if (at >= j && (at - j) % stride == 0 && (at - j) / stride < results) {
          sum[(at - j) / stride] += value * weight[j];
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int x = 0; x < results; ++x) store(to + x * kPanel, bounds(sum[x]));
}

// One row of the output, of the `channels` of one panel.
template <int side, int stride>
XAI_FAST_TARGET void depthwise(const float* const* rows, int64_t width, int64_t channels,
                               const float* weights, const float* bias, Bounds bounds, float* to) {
  for (int64_t lanes = 0; lanes < channels; lanes += kLanes) {
    int64_t x = 0;
    for (; width - x >= kResults; x += kResults) {
      taps<side, stride, kResults>(rows, x * stride * kPanel + lanes, weights + lanes, bias + lanes, bounds,
                                   to + x * kPanel + lanes);
    }
    for (; x < width; ++x) {
      taps<side, stride, 1>(rows, x * stride * kPanel + lanes, weights + lanes, bias + lanes, bounds,
                            to + x * kPanel + lanes);
    }
  }
}

using Depthwise = void (*)(const float* const*, int64_t, int64_t, const float*, const float*, Bounds, float*);

template <int side>
Depthwise depthwise_of(int64_t stride) {
  return stride == 1 ? depthwise<side, 1> : depthwise<side, 2>;
}

inline Depthwise depthwise_of(const Geometry& g) {
  return g.side == 3   ? depthwise_of<3>(g.stride)
         : g.side == 5 ? depthwise_of<5>(g.stride)
                       : depthwise_of<7>(g.stride);
}

// Floats that hold as many rows of the padded input, in one panel's channels, as the kernel is long.
inline int64_t ring_of(const Geometry& g) { return g.side * (g.width + 2 * g.padding) * kPanel; }

// How many channels of a panel there are, in whole registers.
inline int64_t used_of(const Geometry& g, int64_t panel) {
  return std::min(kPanel, g.middle - panel * kPanel);
}

// One row of the input in the channels of one panel, expanded and activated, or as it is, between columns of
// zeros.
XAI_FAST_TARGET void expand_row(const Call<Value>& call, const Value* image, int64_t y, int64_t panel,
                                float* to) {
  const Geometry& g = call.geometry;
  const int64_t wide = g.width + 2 * g.padding;
  if (y < 0 || y >= g.height) {
    std::fill(to, to + wide * kPanel, 0.0f);
    return;
  }
  const Value* const row = image + y * g.width * g.channels;
  float* const inside = to + g.padding * kPanel;
  std::fill(to, inside, 0.0f);
  std::fill(inside + g.width * kPanel, to + wide * kPanel, 0.0f);
  if (call.expand) {
    const auto expand = used_of(g, panel) > kLanes ? multiply<2, Bounds> : multiply<1, Bounds>;
    expand(row, g.channels, g.width, call.expand + panel * g.channels * kPanel, g.channels,
           call.expand_bias + panel * kPanel, bounds_of(call.activation), inside, kPanel);
    curve(inside, g.width * kPanel, call.activation);
    return;
  }
  for (int64_t x = 0; x < g.width; ++x) {
    const Value* const from = row + x * g.channels + panel * kPanel;
    for (int64_t c = 0; c < used_of(g, panel); c += kLanes) store(inside + x * kPanel + c, widened(from + c));
  }
}

// `count` sums, of which there are as many as fill registers, as values; `other` is added where it is not
// null.
XAI_FAST_TARGET inline void finish(const float* sums, int64_t count, const Value* other, Value* out) {
  int64_t c = 0;
  for (; c + kLanes <= count; c += kLanes) {
    narrow_to(out + c, other ? load(sums + c) + widened(other + c) : load(sums + c));
  }
  if (c == count) return;
  Value some[kLanes] = {};
  if (other) std::memcpy(some, other + c, (count - c) * sizeof(Value));
  narrow_to(some, load(sums + c) + widened(some));
  std::memcpy(out + c, some, (count - c) * sizeof(Value));
}

// What one strip works on: `sums` (rows, W', K), `rings` the last rows of the input in the channels of each
// panel of a block, `deep` (W', kPanel) and `narrowed` (W', kBlock * kPanel), which is of values.
struct Buffers {
  float *sums, *rings, *deep;
  Value* narrowed;
};

XAI_FAST_TARGET Buffers buffers_of(const Geometry& g, int64_t rows, Scratch& scratch) {
  const int64_t in_sums = rows * g.out_width * padded_to(g.out_channels, kPanel);
  const int64_t in_rings = kBlock * ring_of(g), in_row = g.out_width * kPanel;
  float* const sums = scratch.floats(in_sums + in_rings + (1 + kBlock) * in_row);
  float* const deep = sums + in_sums + in_rings;
  return {sums, sums + in_sums, deep, reinterpret_cast<Value*>(deep + in_row)};
}

// Row y of the output in one panel's channels, from a ring that holds rows of the input up to `next`.
XAI_FAST_TARGET void deepen_row(const Call<Value>& call, const Value* image, int64_t y, int64_t panel,
                                int64_t next, float* ring, float* deep) {
  const Geometry& g = call.geometry;
  const int64_t top = y * g.stride - g.padding, wide = ring_of(g) / g.side;
  const float* rows[kLongest];
  for (int64_t i = 0; i < g.side; ++i) {
    float* const row = ring + (top + i + g.padding) % g.side * wide;
    if (top + i >= next) expand_row(call, image, top + i, panel, row);
    rows[i] = row;
  }
  depthwise_of(g)(rows, g.out_width, used_of(g, panel), call.depth + panel * g.side * g.side * kPanel,
                  call.depth_bias + panel * kPanel, bounds_of(call.activation), deep);
  curve(deep, g.out_width * kPanel, call.activation);
}

// Row y of the output in the channels of one panel, as values where they belong.
XAI_FAST_TARGET void write_row(const Call<Value>& call, int64_t row, int64_t y, int64_t panel,
                               const float* deep) {
  const Geometry& g = call.geometry;
  const int64_t channel = panel * kPanel, count = std::min(kPanel, g.out_channels - channel);
  Value* const out = call.out + (row * g.out_height + y) * g.out_width * g.out_channels + channel;
  for (int64_t x = 0; x < g.out_width; ++x)
    finish(deep + x * kPanel, count, nullptr, out + x * g.out_channels);
}

// Rows `from` to `to` of the output of one row of the batch. A few panels of the channels between at a time,
// so that their weights stay in the first cache, and no more of their rows than the kernel is long in the
// second.
XAI_FAST_TARGET void strip(const Call<Value>& call, int64_t row, int64_t from, int64_t to, Scratch& scratch) {
  const Geometry& g = call.geometry;
  const Buffers buffers = buffers_of(g, to - from, scratch);
  const Value* const image = call.inputs + row * g.height * g.width * g.channels;
  const int64_t padded = padded_to(g.out_channels, kPanel), panels = padded_to(g.middle, kPanel) / kPanel;
  for (int64_t block = 0; block < panels; block += kBlock) {
    const int64_t many = std::min<int64_t>(kBlock, panels - block);
    int64_t next = from * g.stride - g.padding;
    for (int64_t y = from; y < to; ++y) {
      for (int64_t i = 0; i < many; ++i) {
        deepen_row(call, image, y, block + i, next, buffers.rings + i * ring_of(g), buffers.deep);
        if (!call.project) {
          write_row(call, row, y, block + i, buffers.deep);
          continue;
        }
        for (int64_t x = 0; x < g.out_width; ++x) {
          for (int64_t c = 0; c < kPanel; c += kLanes) {
            narrow_to(buffers.narrowed + (x * kBlock + i) * kPanel + c, load(buffers.deep + x * kPanel + c));
          }
        }
      }
      next = y * g.stride - g.padding + g.side;
      const int64_t used = std::min(many * kPanel, g.middle - block * kPanel);
      for (int64_t out = 0; call.project && out < padded; out += kPanel) {
        multiply<2>(buffers.narrowed, kBlock * kPanel, g.out_width,
                    call.project + (out * panels + block * kPanel) * kPanel, used,
                    block == 0 ? call.project_bias + out : nullptr, Unbounded{},
                    buffers.sums + (y - from) * g.out_width * padded + out, padded);
      }
    }
  }
  for (int64_t y = from; call.project && y < to; ++y) {
    for (int64_t x = 0; x < g.out_width; ++x) {
      const int64_t at = ((row * g.out_height + y) * g.out_width + x) * g.out_channels;
      finish(buffers.sums + ((y - from) * g.out_width + x) * padded, g.out_channels,
             call.other ? call.other + at : nullptr, call.out + at);
    }
  }
}
