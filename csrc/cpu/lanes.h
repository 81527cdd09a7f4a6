// Registers of kLanes floats. Included once per instruction set, inside a namespace of its own that defines
// kLanes and XAI_FAST_TARGET; hence no include guard.

typedef float Lanes __attribute__((vector_size(4 * kLanes)));

XAI_FAST_TARGET inline Lanes load(const float* from) {
  Lanes lanes;
  __builtin_memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

XAI_FAST_TARGET inline void store(float* to, Lanes lanes) { __builtin_memcpy(to, &lanes, sizeof lanes); }
