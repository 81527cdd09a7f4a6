// bfloat16 for winograd_tiles.h: pairs of channels are multiplied and added up in float32 by one instruction.
// Patches are transformed in float32 and rounded once. Included as winograd_floats.h is.

using Value = BFloat16;
typedef uint16_t Bits16 __attribute__((vector_size(2 * kLanes)));
typedef uint32_t Bits32 __attribute__((vector_size(4 * kLanes)));
using Weights = __m512bh;  // of kLanes outputs, two channels each
using Factor = __m512bh;   // two channels, again and again
constexpr int kTogether = 2;

XAI_FAST_TARGET inline Lanes widened(const Value* from) {
  Bits16 bits;
  __builtin_memcpy(&bits, from, sizeof bits);
  return (Lanes)(__builtin_convertvector(bits, Bits32) << 16);
}

XAI_FAST_TARGET inline void narrow_to(Value* to, Lanes lanes) {
  const __m256bh bits = _mm512_cvtneps_pbh((__m512)lanes);
  __builtin_memcpy(to, &bits, sizeof bits);
}

XAI_FAST_TARGET inline Weights load_weights(const Value* from) { return (__m512bh)_mm512_loadu_si512(from); }

XAI_FAST_TARGET inline Factor factor(const Value* from) {
  int pair;
  __builtin_memcpy(&pair, from, sizeof pair);
  return (__m512bh)_mm512_set1_epi32(pair);
}

XAI_FAST_TARGET inline void add_products(Lanes& sum, Factor value, Weights weights) {
  sum = (Lanes)_mm512_dpbf16_ps((__m512)sum, value, weights);
}
