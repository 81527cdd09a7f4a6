// The arithmetic of inverted_bottleneck and gated_pointwise on registers of kLanes floats. Included once per
// instruction set, inside a namespace of its own that defines kLanes, kPixels (as many positions as registers
// hold two sums each of), XAI_FAST_TARGET and XAI_FAST_RECIPROCAL, to 12 bits; hence no include guard.
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

// x / (1 + e^-x). The power is 2^n times Taylor's polynomial in what remains, within a few units in the last
// place, and stays finite; NaN comes through by x.
XAI_FAST_TARGET inline Lanes silu(Lanes x) {
  typedef int32_t Bits __attribute__((vector_size(4 * kLanes)));
  const Lanes low = Lanes{} - 126.0f, high = Lanes{} + 126.0f;
  Lanes power = x * -1.44269504f;
  power = power < low ? low : power;
  power = power > high ? high : power;
  const Lanes shifted = power + 12582912.0f;  // rounds; the whole number is in the last bits
  const Lanes rest = power - (shifted - 12582912.0f);
  Lanes sum = Lanes{} + 9.6181291e-3f;
  if (kTogether == 1) sum += (rest * 1.5403530e-4f + 1.3333558e-3f) * rest;
  sum = sum * rest + 5.5504109e-2f;
  sum = sum * rest + 2.4022651e-1f;
  sum = sum * rest + 6.9314718e-1f;
  sum = sum * rest + 1.0f;
  const Lanes below = (Lanes)((Bits)sum + ((Bits)shifted << 23)) + 1.0f;
  Lanes inverse = XAI_FAST_RECIPROCAL(below);
  // It has 12 bits or more; Newton's step gives twice as many.
  if (kTogether == 1) inverse = inverse * (2.0f - below * inverse);
  return x * inverse;
}

// The other activations, of a multiple of kLanes values.
XAI_FAST_TARGET void curve(float* values, int64_t count, Activation activation) {
  const Lanes zero{}, six = zero + 6.0f;
  if (activation == Activation::kSilu) {
    for (int64_t i = 0; i < count; i += kLanes) store(values + i, silu(load(values + i)));
  } else if (activation == Activation::kHardswish) {
    for (int64_t i = 0; i < count; i += kLanes) {
      const Lanes x = load(values + i), moved = x + 3.0f;
      store(values + i, x * (moved < zero ? zero : (moved > six ? six : moved)) * (1.0f / 6.0f));
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
  float* const sums = scratch.of<float>(in_sums + in_rings + (1 + kBlock) * in_row);
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

// Adds up one row of the output in one panel's channels.
XAI_FAST_TARGET void add_up(const float* deep, int64_t width, float* totals) {
  for (int64_t c = 0; c < kPanel; c += kLanes) {
    Lanes sum{};
    for (int64_t x = 0; x < width; ++x) sum += load(deep + x * kPanel + c);
    store(totals + c, load(totals + c) + sum);
  }
}

// One block's part in row y of the output, projected and added to `sums`; the first block begins with the
// bias.
XAI_FAST_TARGET void project_row(const Call<Value>& call, int64_t block, const Value* narrowed, float* sums) {
  const Geometry& g = call.geometry;
  const int64_t padded = padded_to(g.out_channels, kPanel), panels = padded_to(g.middle, kPanel) / kPanel;
  const int64_t used = std::min(kBlock * kPanel, g.middle - block * kPanel);
  for (int64_t out = 0; out < padded; out += kPanel) {
    multiply<2>(narrowed, kBlock * kPanel, g.out_width,
                call.project + (out * panels + block * kPanel) * kPanel, used,
                block == 0 ? call.project_bias + out : nullptr, Unbounded{}, sums + out, padded);
  }
}

// A part of one row of the batch: rows of the output, and panels of the channels between.
XAI_FAST_TARGET void work(const Call<Value>& call, const Part& part, Scratch& scratch) {
  const Geometry& g = call.geometry;
  const Buffers buffers = buffers_of(g, call.project ? part.to - part.from : 0, scratch);
  const Value* const image = call.inputs + part.row * g.height * g.width * g.channels;
  const int64_t in_row = g.out_width * padded_to(g.out_channels, kPanel);
  // A few panels at a time, so that their weights stay in the first cache, and no more of their rows than the
  // kernel is long in the second.
  for (int64_t block = part.first; block < part.last; block += kBlock) {
    const int64_t many = std::min(kBlock, part.last - block);
    float totals[kBlock * kPanel] = {};
    int64_t next = part.from * g.stride - g.padding;
    for (int64_t y = part.from; y < part.to; ++y) {
      for (int64_t i = 0; i < many; ++i) {
        deepen_row(call, image, y, block + i, next, buffers.rings + i * ring_of(g), buffers.deep);
        if (call.means) add_up(buffers.deep, g.out_width, totals + i * kPanel);
        if (!call.project) {
          write_row(call, part.row, y, block + i, buffers.deep);
          continue;
        }
        for (int64_t x = 0; x < g.out_width; ++x) {
          for (int64_t c = 0; c < kPanel; c += kLanes) {
            narrow_to(buffers.narrowed + (x * kBlock + i) * kPanel + c, load(buffers.deep + x * kPanel + c));
          }
        }
      }
      next = y * g.stride - g.padding + g.side;
      if (call.project) project_row(call, block, buffers.narrowed, buffers.sums + (y - part.from) * in_row);
    }
    for (int64_t c = 0; call.means && c < std::min(many * kPanel, g.out_channels - block * kPanel); ++c) {
      call.means[part.row * g.out_channels + block * kPanel + c] = totals[c] / (g.out_height * g.out_width);
    }
  }
  if (!call.project) return;
  const int64_t first = part.row * g.out_height + part.from;
  for (int64_t x = 0; x < (part.to - part.from) * g.out_width; ++x) {
    const int64_t at = (first * g.out_width + x) * g.out_channels;
    finish(buffers.sums + x * padded_to(g.out_channels, kPanel), g.out_channels,
           call.other ? call.other + at : nullptr, call.out + at);
  }
}

// Positions `from` to `to` of one row of the batch: gated, and then projected.
XAI_FAST_TARGET void project_gated(const Gated<Value>& call, int64_t row, int64_t from, int64_t to,
                                   Scratch& scratch) {
  const int64_t whole = padded_to(call.channels, kLanes), padded = padded_to(call.channels, kPanel);
  float* const gate = scratch.of<float>(whole + kTile * (whole + kPanel));
  float* const sums = gate + whole;
  Value* const gated = reinterpret_cast<Value*>(sums + kTile * kPanel);
  std::fill(gate, gate + whole, 0.0f);
  std::copy_n(call.gate + row * call.channels, call.channels, gate);
  const int64_t full = call.channels / kLanes * kLanes, rest = call.channels - full;
  for (int64_t tile = from; tile < to; tile += kTile) {
    const int64_t count = std::min(kTile, to - tile), start = row * call.positions + tile;
    for (int64_t x = 0; x < count; ++x) {
      const Value* const inputs = call.inputs + (start + x) * call.channels;
      Value* const into = gated + x * whole;
      for (int64_t c = 0; c < full; c += kLanes) narrow_to(into + c, widened(inputs + c) * load(gate + c));
      if (rest == 0) continue;
      Value some[kLanes] = {};
      std::memcpy(some, inputs + full, rest * sizeof(Value));
      narrow_to(into + full, widened(some) * load(gate + full));
    }
    for (int64_t out = 0; out < call.out_channels; out += kPanel) {
      multiply<2>(gated, whole, count, call.project + out * padded, whole, call.project_bias + out,
                  Unbounded{}, sums, kPanel);
      const int64_t used = std::min(kPanel, call.out_channels - out);
      for (int64_t x = 0; x < count; ++x) {
        const int64_t at = (start + x) * call.out_channels + out;
        finish(sums + x * kPanel, used, call.other ? call.other + at : nullptr, call.out + at);
      }
    }
  }
}
