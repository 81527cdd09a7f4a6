// float16 and bfloat16 as bit patterns: conversions that round to nearest even, written so that compilers
// vectorise them.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define XAI_FAST_BOTH __host__ __device__  // what a kernel on a GPU calls as well
#else
#define XAI_FAST_BOTH
#endif

namespace xai_fast {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

template <typename T>
inline constexpr bool is_sixteen_bit = std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>;

template <typename To, typename From>
XAI_FAST_BOTH inline To bit_cast(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}

XAI_FAST_BOTH inline double widen(double value) { return value; }
XAI_FAST_BOTH inline float widen(float value) { return value; }
XAI_FAST_BOTH inline float widen(BFloat16 value) {
  return bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

XAI_FAST_BOTH inline float widen(Half value) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(value.bits));
#else
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  const uint32_t subnormal =
      bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t special = (magnitude << 13) | 0x7f800000u;
  const uint32_t finite = magnitude < 0x0400u ? subnormal : normal;
  return bit_cast<float>(sign | (magnitude >= 0x7c00u ? special : finite));
#endif
}

XAI_FAST_BOTH inline void narrow(float value, BFloat16& result) {
#ifdef __CUDA_ARCH__  // one instruction there
  result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
#else
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  result.bits = static_cast<uint16_t>(nan ? 0x7fc0u : rounded >> 16);
#endif
}

XAI_FAST_BOTH inline void narrow(float value, Half& result) {
#ifdef __CUDA_ARCH__
  result.bits = __half_as_ushort(__float2half_rn(value));
#else
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t rebased = magnitude - (112u << 23);
  const uint32_t normal =
      (rebased + 0x0fffu + ((rebased >> 13) & 1u)) >> 13;  // a carry out of the mantissa is right
  // Added to 0.5, whose last bit is the smallest float16, a smaller value is rounded by the addition itself.
  const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  result.bits =
      static_cast<uint16_t>(((bits >> 16) & 0x8000u) | (magnitude >= 0x47800000u ? special : finite));
#endif
}

// Rounds to nearest even; float64 reaches a sixteen-bit type by way of float32, as in torch.
template <typename To, typename From>
XAI_FAST_BOTH inline To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (is_sixteen_bit<To>) {
    To result;
    narrow(static_cast<float>(widen(value)), result);
    return result;
  } else {
    return static_cast<To>(widen(value));
  }
}

}  // namespace xai_fast
