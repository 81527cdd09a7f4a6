// float32 for winograd_tiles.h, which includes this: what it reads, multiplies and writes.

using Value = float;
using Weights = Lanes;
using Factor = float;
constexpr int kTogether = 1;

XAI_FAST_TARGET inline Lanes widened(const Value* from) { return load(from); }
XAI_FAST_TARGET inline void narrow_to(Value* to, Lanes lanes) { store(to, lanes); }
XAI_FAST_TARGET inline Weights load_weights(const Value* from) { return load(from); }
XAI_FAST_TARGET inline Factor factor(const Value* from) { return *from; }
XAI_FAST_TARGET inline void add_products(Lanes& sum, Factor value, Weights weights) {
  sum += value * weights;
}
