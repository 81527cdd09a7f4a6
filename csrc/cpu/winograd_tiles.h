// The arithmetic of winograd_convolution on registers of kLanes floats. Included once per instruction set,
// inside a namespace of its own that defines kLanes, kRows and XAI_FAST_TARGET; hence no include guard.
// XAI_FAST_VALUES is the header of what is read, multiplied and written.
//
// F(2x2, 3x3) of Lavin and Gray (2016): four results from 16 products per pair of channels where the
// definition takes 36.

#include "lanes.h"

#include XAI_FAST_VALUES

constexpr int64_t kPanel = 2 * kLanes;  // results of one row that stay in registers while channels are summed

// kLanes channels of one 4x4 patch of the input, transformed: number i of the 16 goes to `out + i * apart`.
XAI_FAST_TARGET void transform_input(const Value* image, const Geometry& g, int64_t top, int64_t left,
                                     Value* out, int64_t apart) {
  Lanes patch[4][4];
  const bool inside = top >= 0 && left >= 0 && top + 4 <= g.height && left + 4 <= g.width;
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      const int64_t y = top + i, x = left + j;
      const bool read = inside || (y >= 0 && y < g.height && x >= 0 && x < g.width);
      patch[i][j] = read ? widened(image + (y * g.width + x) * g.channels) : Lanes{};
    }
  }
  Lanes half[4][4];
  for (int j = 0; j < 4; ++j) {
    half[0][j] = patch[0][j] - patch[2][j];
    half[1][j] = patch[1][j] + patch[2][j];
    half[2][j] = patch[2][j] - patch[1][j];
    half[3][j] = patch[1][j] - patch[3][j];
  }
  for (int i = 0; i < 4; ++i, out += 4 * apart) {
    narrow_to(out, half[i][0] - half[i][2]);
    narrow_to(out + apart, half[i][1] + half[i][2]);
    narrow_to(out + 2 * apart, half[i][2] - half[i][1]);
    narrow_to(out + 3 * apart, half[i][1] - half[i][3]);
  }
}

// sums (rows, kPanel) of inputs times weights (channels, kPanel), added to what is there or not. The inputs
// of kRows tiles lie together: kLanes channels of each, then the next kLanes. kTogether channels are
// multiplied by one instruction, and their weights lie side by side.
//
// `cold`: whether weights come from far away, and are asked for before they are needed.
template <int rows, bool cold>
XAI_FAST_TARGET void multiply(const Value* inputs, const Value* weights, int64_t groups, bool add,
                              float* sums) {
  Lanes sum[rows][2];  // in registers, which takes loops that are unrolled
#pragma GCC unroll 16
  for (int row = 0; row < rows; ++row) {
    sum[row][0] = sum[row][1] = Lanes{};
  }
  for (int64_t group = 0; group < groups; ++group, inputs += kRows * kLanes) {
#pragma GCC unroll 1
    for (int channel = 0; channel < kLanes; channel += kTogether, weights += kTogether * kPanel) {
      const Weights left = load_weights(weights), right = load_weights(weights + kTogether * kLanes);
      if (cold) {
        __builtin_prefetch(weights + 24 * kTogether * kPanel);
        __builtin_prefetch(weights + kTogether * (24 * kPanel + kLanes));
      }
#pragma GCC unroll 16
      for (int row = 0; row < rows; ++row) {
        const Factor value = factor(inputs + row * kLanes + channel);
        add_products(sum[row][0], value, left);
        add_products(sum[row][1], value, right);
      }
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < rows; ++row) {
    float* const to = sums + row * kPanel;
    store(to, add ? load(to) + sum[row][0] : sum[row][0]);
    store(to + kLanes, add ? load(to + kLanes) + sum[row][1] : sum[row][1]);
  }
}

// `count` tiles: as many rows at a time as registers hold, then what is left of them in smaller steps.
XAI_FAST_TARGET void multiply_tiles(const Value* inputs, const Value* weights, int64_t count,
                                    const Geometry& g, int64_t groups, bool add, float* sums) {
  int64_t tile = 0;
  const auto step = [&](auto run, int64_t rows) {
    run(inputs + tile * g.channels, weights, groups, add, sums + tile * kPanel);
    tile += rows;
  };
  if (count >= kRows) step(multiply<kRows, true>, kRows);
  while (count - tile > 2 * kRows / 3) step(multiply<kRows, false>, kRows);
  if (count - tile > kRows / 3) step(multiply<2 * kRows / 3, false>, kRows);
  if (count > tile) step(multiply<kRows / 3, false>, kRows);
}

// kLanes channels of one 2x2 patch of the output, from the 16 sums at `sums + i * apart`.
XAI_FAST_TARGET void transform_output(const float* sums, int64_t apart, const Geometry& g, int64_t top,
                                      int64_t left, int64_t channel, const Value* bias, const Value* other,
                                      Value* out) {
  Lanes half[2][4];
  for (int j = 0; j < 4; ++j) {
    const Lanes first = load(sums + j * apart), second = load(sums + (4 + j) * apart),
                third = load(sums + (8 + j) * apart), fourth = load(sums + (12 + j) * apart);
    half[0][j] = first + second + third;
    half[1][j] = second - third - fourth;
  }
  const Lanes shift = bias ? widened(bias + channel) : Lanes{};
  for (int i = 0; i < 2 && top + i < g.out_height; ++i) {
    const Lanes results[2] = {half[i][0] + half[i][1] + half[i][2] + shift,
                              half[i][1] - half[i][2] - half[i][3] + shift};
    for (int j = 0; j < 2 && left + j < g.out_width; ++j) {
      const int64_t at = ((top + i) * g.out_width + left + j) * g.out_channels + channel;
      Lanes result = results[j];
      if (other) result += widened(other + at);
      if (g.relu) result = result < 0 ? Lanes{} : result;  // NaN stays, as torch has it
      narrow_to(out + at, result);
    }
  }
}

// Tiles `first` to `last`: their patches of the input into `inputs` (16, tiles, channels), grouped for
// `multiply`.
XAI_FAST_TARGET void read_tiles(const Call<Value>& call, int64_t first, int64_t last, Value* inputs) {
  const Geometry& g = call.geometry;
  for (int64_t tile = first; tile < last; ++tile) {
    const Place place = g.place(tile);
    const Value* const image = call.inputs + place.row * g.height * g.width * g.channels;
    const int64_t local = tile - first;
    Value* const to = inputs + local / kRows * kRows * g.channels + local % kRows * kLanes;
    for (int64_t c = 0; c < g.channels; c += kLanes) {
      transform_input(image + c, g, 2 * place.y - g.padding, 2 * place.x - g.padding, to + c * kRows,
                      call.tiles * g.channels);
    }
  }
}

// Those tiles' results in panels `from` to `to` of the output's channels; `sums` holds (16, tiles, kPanel).
XAI_FAST_TARGET void write_tiles(const Call<Value>& call, const Value* inputs, int64_t first, int64_t last,
                                 int64_t from, int64_t to, float* sums) {
  // Channels are summed 32 (or pairs of them) at a time, and those sums then: rounding grows with the length
  // of a sum, and the weights of so many stay in the first cache.
  constexpr int64_t kAtOnce = 32 * kTogether / kLanes;
  const Geometry& g = call.geometry;
  const int64_t groups = g.channels / kLanes, apart = call.tiles * kPanel;
  for (int64_t panel = from; panel < to; ++panel) {
    for (int64_t i = 0; i < 16; ++i) {
      const Value* const weights = call.kernels + (panel * 16 + i) * g.channels * kPanel;
      for (int64_t group = 0; group < groups; group += kAtOnce) {
        multiply_tiles(inputs + (i * call.tiles * g.channels) + group * kRows * kLanes,
                       weights + group * kLanes * kPanel, last - first, g, std::min(kAtOnce, groups - group),
                       group > 0, sums + i * apart);
      }
    }
    for (int64_t tile = first; tile < last; ++tile) {
      const Place place = g.place(tile);
      const int64_t start = place.row * g.out_height * g.out_width * g.out_channels;
      for (int64_t lanes = 0; lanes < kPanel; lanes += kLanes) {
        transform_output(sums + (tile - first) * kPanel + lanes, apart, g, 2 * place.y, 2 * place.x,
                         panel * kPanel + lanes, call.bias, call.other ? call.other + start : nullptr,
                         call.out + start);
      }
    }
  }
}
