// sign_bits and pass_bits: what a ReLU let through, remembered in one bit per element, and applied to
// gradients.
#include <algorithm>
#include <cstdint>

#include "../ops.h"

#ifdef XAI_FAST_SETS
#include <immintrin.h>
#endif

namespace xai_fast {
namespace {

constexpr int64_t kWord = 64;
constexpr int64_t kSmallest = 1 << 12;  // words below which threads cost more than they save

bool passes(float value) { return !(value <= 0); }

// By its pattern: above zero, or NaN of either sign.
bool passes(BFloat16 value) {
  return static_cast<int16_t>(value.bits) > 0 || (value.bits & 0x7fffu) > 0x7f80u;
}

// The first `count` elements of a word; NaN counts as let through, as in torch.
template <typename Value>
uint64_t read_some(const Value* values, int64_t count) {
  uint64_t word = 0;
  for (int64_t i = 0; i < count; ++i) word |= static_cast<uint64_t>(passes(values[i])) << i;
  return word;
}

template <typename Value>
void write_some(const Value* gradient, uint64_t word, Value* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = word >> i & 1 ? gradient[i] : Value{};
}

template <typename Value>
uint64_t read_word(const Value* values) {
  return read_some(values, kWord);
}

template <typename Value>
void write_word(const Value* gradient, uint64_t word, Value* out) {
  write_some(gradient, word, out, kWord);
}

// How one word is read and written.
template <typename Value>
struct Word {
  uint64_t (*read)(const Value* values);
  void (*write)(const Value* gradient, uint64_t word, Value* out);
};

#ifdef XAI_FAST_SETS
namespace avx512 {
XAI_FAST_AVX512 uint64_t read_word(const float* values) {
  uint64_t word = 0;
  for (int part = 0; part < 4; ++part) {
    const __m512 lanes = _mm512_loadu_ps(values + 16 * part);
    word |= static_cast<uint64_t>(_mm512_cmp_ps_mask(lanes, _mm512_setzero_ps(), _CMP_NLE_UQ)) << (16 * part);
  }
  return word;
}

XAI_FAST_AVX512 void write_word(const float* gradient, uint64_t word, float* out) {
  for (int part = 0; part < 4; ++part) {
    const auto mask = static_cast<__mmask16>(word >> (16 * part));
    _mm512_storeu_ps(out + 16 * part, _mm512_maskz_loadu_ps(mask, gradient + 16 * part));
  }
}

XAI_FAST_AVX512 uint64_t read_word(const BFloat16* values) {
  const __m512i largest = _mm512_set1_epi16(0x7f80), magnitude = _mm512_set1_epi16(0x7fff);
  uint64_t word = 0;
  for (int part = 0; part < 2; ++part) {
    const __m512i lanes = _mm512_loadu_si512(values + 32 * part);
    const __mmask32 above = _mm512_cmpgt_epi16_mask(lanes, _mm512_setzero_si512());
    const __mmask32 nan = _mm512_cmpgt_epi16_mask(_mm512_and_si512(lanes, magnitude), largest);
    word |= static_cast<uint64_t>(above | nan) << (32 * part);
  }
  return word;
}

XAI_FAST_AVX512 void write_word(const BFloat16* gradient, uint64_t word, BFloat16* out) {
  for (int part = 0; part < 2; ++part) {
    const auto mask = static_cast<__mmask32>(word >> (32 * part));
    _mm512_storeu_si512(out + 32 * part, _mm512_maskz_loadu_epi16(mask, gradient + 32 * part));
  }
}
}  // namespace avx512

namespace avx2 {
XAI_FAST_AVX2 uint64_t read_word(const float* values) {
  uint64_t word = 0;
  for (int part = 0; part < 8; ++part) {
    const __m256 passed = _mm256_cmp_ps(_mm256_loadu_ps(values + 8 * part), _mm256_setzero_ps(), _CMP_NLE_UQ);
    word |= static_cast<uint64_t>(_mm256_movemask_ps(passed)) << (8 * part);
  }
  return word;
}

XAI_FAST_AVX2 void write_word(const float* gradient, uint64_t word, float* out) {
  const __m256i bit_of_lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  for (int part = 0; part < 8; ++part) {
    const __m256i byte = _mm256_set1_epi32(static_cast<int>(word >> (8 * part)));
    const __m256i passes = _mm256_cmpeq_epi32(_mm256_and_si256(byte, bit_of_lane), bit_of_lane);
    _mm256_storeu_ps(out + 8 * part,
                     _mm256_and_ps(_mm256_loadu_ps(gradient + 8 * part), _mm256_castsi256_ps(passes)));
  }
}
}  // namespace avx2
#endif

Word<float> fastest(float) {
#ifdef XAI_FAST_SETS
  if (instructions() >= Instructions::kAvx512) return {avx512::read_word, avx512::write_word};
  if (instructions() >= Instructions::kAvx2) return {avx2::read_word, avx2::write_word};
#endif
  return {read_word<float>, write_word<float>};
}

Word<BFloat16> fastest(BFloat16) {
#ifdef XAI_FAST_SETS
  if (instructions() >= Instructions::kAvx512) return {avx512::read_word, avx512::write_word};
#endif
  return {read_word<BFloat16>, write_word<BFloat16>};
}

template <typename Value>
void sign_bits_of(const Tensor& values, const Tensor& bits) {
  const auto* const from = values.as<const Value>();
  auto* const to = bits.as<uint64_t>();
  const int64_t n = values.size(), whole = n / kWord;
  const auto read = fastest(Value{}).read;
#pragma omp parallel for schedule(static) if (whole > kSmallest)
  for (int64_t word = 0; word < whole; ++word) to[word] = read(from + word * kWord);
  if (n % kWord) to[whole] = read_some(from + whole * kWord, n % kWord);
}

template <typename Value>
void pass_bits_of(const Tensor& gradient, const Tensor& bits, const Tensor& out) {
  const auto* const from = gradient.as<const Value>();
  const auto* const words = bits.as<const uint64_t>();
  auto* const to = out.as<Value>();
  const int64_t n = gradient.size(), whole = n / kWord;
  const auto write = fastest(Value{}).write;
#pragma omp parallel for schedule(static) if (whole > kSmallest)
  for (int64_t word = 0; word < whole; ++word) write(from + word * kWord, words[word], to + word * kWord);
  if (n % kWord) write_some(from + whole * kWord, words[whole], to + whole * kWord, n % kWord);
}

}  // namespace

void sign_bits(const Tensor& values, const Tensor& bits) {
  if (values.dtype == Dtype::kBFloat16) return sign_bits_of<BFloat16>(values, bits);
  sign_bits_of<float>(values, bits);
}

void pass_bits(const Tensor& gradient, const Tensor& bits, const Tensor& out) {
  if (gradient.dtype == Dtype::kBFloat16) return pass_bits_of<BFloat16>(gradient, bits, out);
  pass_bits_of<float>(gradient, bits, out);
}

}  // namespace xai_fast
