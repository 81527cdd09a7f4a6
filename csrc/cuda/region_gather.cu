// region_gather on GPUs: regions of maps that differ from kept ones inside a patch, an element or a vector
// per thread.
#include "axes.h"
#include "launch.h"
#include "ops.h"

namespace xai_fast::cuda {
namespace {

enum class Border { kConstant, kReplicate, kReflect, kCircular };

Border border_named(const std::string& name) {
  if (name == "constant") return Border::kConstant;
  if (name == "replicate") return Border::kReplicate;
  if (name == "reflect") return Border::kReflect;
  if (name == "circular") return Border::kCircular;
  throw std::invalid_argument("unknown border " + name);
}

struct alignas(kVector) Vector {
  uint64_t halves[2];
};

// Where a position of an axis of a region reads on that of the map; outside of it where it is filled. Any
// integer is an origin: it is brought near the map first, where sums do not overflow.
XAI_FAST_BOTH inline int64_t place_of(int64_t i, int64_t at, int64_t length, int64_t extent, Border border) {
  if (border == Border::kConstant || border == Border::kReplicate) {
    const int64_t place = (at < -length ? -length : at > extent ? extent : at) + i;
    if (border == Border::kConstant) return place;
    return place < 0 ? 0 : place >= extent ? extent - 1 : place;
  }
  const int64_t period = border == Border::kCircular ? extent : extent > 1 ? 2 * (extent - 1) : 1;
  int64_t place = at % period;
  if (place < 0) place += period;
  place = (place + i) % period;
  return border == Border::kReflect && period - place < place ? period - place : place;
}

template <typename T, typename Index>
struct Gathered {
  int64_t pieces;
  const T *base, *patch;  // no patch: null, of no extent
  const int64_t *patch_at, *sample, *at;
  T* out;
  T fill;
  Border border;
  int axes;                                    // in space
  int column[kAxes];                           // of `at` and `patch_at`; negative for channels
  int64_t extent[kAxes], patch_extent[kAxes];  // of the map and the patch
  Lengths<Index> lengths;
  Rows<Index> out_rows;
  Rows<int64_t> base_rows, patch_rows;

  XAI_FAST_BOTH void write(int64_t row, int64_t piece) const {
    Index position[kAxes];
    lengths.find(static_cast<Index>(piece), position);
    bool kept = true, pasted = patch != nullptr;
    int64_t from = 0, changed = 0;
    for (int i = 0; i < kAxes; ++i) {
      int64_t place = position[i], inside = position[i];
      if (column[i] >= 0) {
        place = place_of(place, at[row * axes + column[i]], lengths.axis[i].value, extent[i], border);
        kept &= place >= 0 && place < extent[i];
        if (patch) {  // exact for any origin: a negative difference is a huge unsigned one
          const uint64_t difference =
              static_cast<uint64_t>(place) - static_cast<uint64_t>(patch_at[row * axes + column[i]]);
          pasted &= difference < static_cast<uint64_t>(patch_extent[i]);
          inside = static_cast<int64_t>(difference);
        }
      }
      from += place * base_rows.stride[i];
      changed += inside * patch_rows.stride[i];
    }
    T value = fill;
    if (kept)
      value = pasted ? patch[row * patch_rows.row + changed] : base[sample[row] * base_rows.row + from];
    out[row * out_rows.row + out_rows.offset(position)] = value;
  }
};

// The tensors as they are given to a launch: in elements, or in vectors along an axis that is dense in all of
// them.
struct Maps {
  Tensor base, patch, out;

  // Whether rows may be read and written in vectors of `count` elements, each of them channels of one
  // position.
  bool in_vectors(const Order& order, int64_t count, int64_t element_size) const {
    const int channels = kAxes - 1;  // in the order of memory the densest axis
    if (order.column(channels) != 0 || out.shape[1] % count != 0) return false;
    for (const Tensor* tensor : {&base, &patch, &out}) {
      if (!tensor->data) continue;
      if (tensor->strides[1] != 1 || !aligned(*tensor, element_size)) return false;
      for (int i = 0; i < channels; ++i) {
        if (order.stride(*tensor, i) % count != 0) return false;
      }
    }
    return true;
  }

  void join(int64_t count) {
    for (Tensor* tensor : {&base, &patch, &out}) {
      if (!tensor->data) continue;
      tensor->shape[1] /= count;
      for (int axis = 0; axis < tensor->axes; ++axis) {
        if (axis != 1) tensor->strides[axis] /= count;
      }
    }
  }
};

template <typename T, typename Index>
void gather(const Maps& maps, const Tensor& patch_at, const Tensor& sample, const Tensor& at, Border border,
            T fill, const Order& order, Queue queue) {
  Gathered<T, Index> body;
  body.pieces = order.elements(maps.out);
  body.base = maps.base.as<const T>();
  body.patch = maps.patch.as<const T>();
  body.patch_at = patch_at.as<const int64_t>();
  body.sample = sample.as<const int64_t>();
  body.at = at.as<const int64_t>();
  body.out = maps.out.as<T>();
  body.fill = fill;
  body.border = border;
  body.axes = maps.out.axes - 2;
  body.lengths = Lengths<Index>(order, maps.out);
  body.out_rows = Rows<Index>(order, maps.out);
  body.base_rows = Rows<int64_t>(order, maps.base);
  if (maps.patch.axes) body.patch_rows = Rows<int64_t>(order, maps.patch);
  for (int i = 0; i < kAxes; ++i) {
    body.column[i] = order.column(i) - 1;
    body.extent[i] = order.length(maps.base, i);
    body.patch_extent[i] = maps.patch.axes ? order.length(maps.patch, i) : 0;
  }
  launch(body, maps.out.shape[0], queue);
}

// `Bits` has the size of an element: values are only copied.
template <typename Bits>
void gather_sized(Maps maps, const Tensor& patch_at, const Tensor& sample, const Tensor& at, Border border,
                  Bits fill, Queue queue) {
  constexpr int64_t count = kVector / sizeof(Bits);
  const Order order(maps.out);
  if (maps.in_vectors(order, count, sizeof(Bits)) && narrow_rows(order, {&maps.out})) {
    Vector repeated;
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(reinterpret_cast<char*>(&repeated) + i * sizeof(Bits), &fill, sizeof(Bits));
    }
    maps.join(count);
    gather<Vector, int32_t>(maps, patch_at, sample, at, border, repeated, order, queue);
  } else if (narrow_rows(order, {&maps.out})) {
    gather<Bits, int32_t>(maps, patch_at, sample, at, border, fill, order, queue);
  } else {
    gather<Bits, int64_t>(maps, patch_at, sample, at, border, fill, order, queue);
  }
}

}  // namespace

void region_gather(const Tensor& base, const Tensor& patch, const Tensor& patch_at, const Tensor& sample,
                   const Tensor& at, const Tensor& out, const std::string& border, double fill, int device,
                   uint64_t stream) {
  if (out.size() == 0) return;
  const Border kind = border_named(border);
  with_floating(out.dtype, [&](auto value) {
    using Real = decltype(value);
    using Bits = std::conditional_t<sizeof(Real) == 2, uint16_t,
                                    std::conditional_t<sizeof(Real) == 4, uint32_t, uint64_t>>;
    const auto bits = bit_cast<Bits>(convert<Real>(fill));
    gather_sized<Bits>({base, patch, out}, patch_at, sample, at, kind, bits, {device, stream});
  });
}

}  // namespace xai_fast::cuda
