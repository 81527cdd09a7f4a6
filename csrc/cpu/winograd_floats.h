// float32 for winograd_tiles.h: what it reads, multiplies and writes. Included inside a namespace that
// defines kLanes, kRows and XAI_FAST_TARGET.

using Value = float;
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
using Weights = Lanes;
using Factor = float;
constexpr int kTogether = 1;

XAI_FAST_TARGET inline Lanes load(const float* from) {
  Lanes lanes;
  __builtin_memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

XAI_FAST_TARGET inline void store(float* to, Lanes lanes) { __builtin_memcpy(to, &lanes, sizeof lanes); }

XAI_FAST_TARGET inline Lanes widened(const Value* from) { return load(from); }
XAI_FAST_TARGET inline void narrow_to(Value* to, Lanes lanes) { store(to, lanes); }
XAI_FAST_TARGET inline Weights load_weights(const Value* from) { return load(from); }
XAI_FAST_TARGET inline Factor factor(const Value* from) { return *from; }
XAI_FAST_TARGET inline void add_products(Lanes& sum, Factor value, Weights weights) {
  sum += value * weights;
}
