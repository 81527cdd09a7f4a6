// What hide_windows and hide_segments share: rows that are their input in some elements and the baseline in
// others.
#pragma once

#include "axes.h"
#include "launch.h"

namespace xai_fast::cuda {

// A row of `count` elements at a time. `Shown` is made for a row and says of a position whether the input
// shows there, or of a whole piece that it does.
template <typename To, typename From, typename Index, int count, typename Shown>
struct Hidden {
  int64_t pieces;
  const From *inputs, *baseline;
  const int64_t* sample;
  To* out;
  Lengths<Index> lengths;
  Rows<Index> input_rows, baseline_rows, out_rows;
  bool alike;  // a row of the inputs lies in memory as one of `out` does, and may be read a piece at a time
  Shown shown;

  XAI_FAST_BOTH void write(int64_t row, int64_t piece) const {
    const int64_t source = sample[row];
    const From* const kept = inputs + source * input_rows.row;
    const From* const instead = baseline + source * baseline_rows.row;
    const Index first = static_cast<Index>(piece) * count;
    Index at[kAxes];
    lengths.find(first, at);
    const auto here = shown.of(row, source);
    Piece<To, count> values;
    if constexpr (count > 1 && std::is_same_v<To, From>) {
      if (alike) {
        Index last[kAxes];
        lengths.find(first + count - 1, last);
        if (here.throughout(at, last)) {
          *reinterpret_cast<Piece<To, count>*>(out + row * out_rows.row + first) =
              *reinterpret_cast<const Piece<To, count>*>(kept + first);
          return;
        }
      }
    }
    const Index place = count == 1 ? out_rows.offset(at) : first;
    for (int i = 0; i < count; ++i) {
      const From value = here.at(at) ? kept[input_rows.offset(at)] : instead[baseline_rows.offset(at)];
      values.values[i] = convert<To>(value);
      if (i + 1 < count) lengths.advance(at);
    }
    *reinterpret_cast<Piece<To, count>*>(out + row * out_rows.row + place) = values;
  }
};

template <typename To, typename From, typename Index, int count, typename Shown>
void launch_hidden(const Tensor& inputs, const Tensor& baseline, const Tensor& sample, const Tensor& out,
                   const Order& order, const Shown& shown, Queue queue) {
  Hidden<To, From, Index, count, Shown> body;
  body.pieces = order.elements(out) / count;
  body.inputs = inputs.as<const From>();
  body.baseline = baseline.as<const From>();
  body.sample = sample.as<const int64_t>();
  body.out = out.as<To>();
  body.lengths = Lengths<Index>(order, out);
  body.input_rows = Rows<Index>(order, inputs);
  body.baseline_rows = Rows<Index>(order, baseline);
  body.out_rows = Rows<Index>(order, out);
  body.alike = order.dense(inputs) && aligned(inputs, sizeof(From));
  body.shown = shown;
  launch(body, out.shape[0], queue);
}

// Chooses types and sizes. `shown` makes a Shown for an index type: Shown<int32_t> or Shown<int64_t>.
template <template <typename> class Shown, typename Make>
void hide(const Tensor& inputs, const Tensor& baseline, const Tensor& sample, const Tensor& out, bool narrow,
          const Order& order, const Make& make, Queue queue) {
  with_floating(inputs.dtype, [&](auto from) {
    with_floating(out.dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      constexpr int count = static_cast<int>(kVector / sizeof(To));
      const bool whole = order.dense(out) && aligned(out, sizeof(To)) && order.elements(out) % count == 0;
      if (!narrow) {
        const Shown<int64_t> shown = make(int64_t{});
        launch_hidden<To, From, int64_t, 1>(inputs, baseline, sample, out, order, shown, queue);
      } else if (whole) {
        const Shown<int32_t> shown = make(int32_t{});
        launch_hidden<To, From, int32_t, count>(inputs, baseline, sample, out, order, shown, queue);
      } else {
        const Shown<int32_t> shown = make(int32_t{});
        launch_hidden<To, From, int32_t, 1>(inputs, baseline, sample, out, order, shown, queue);
      }
    });
  });
}

}  // namespace xai_fast::cuda
