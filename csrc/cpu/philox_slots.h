// Philox for registers of kSlots 64-bit slots, a Register, of whose lower halves `product` makes 64-bit
// products. Included once per instruction set, inside a namespace of its own that defines these and
// XAI_FAST_TARGET; hence no include guard.

typedef uint64_t Slots __attribute__((vector_size(8 * kSlots)));

// words[j][i]: word j of the block `first` + i, for n blocks rounded up to whole registers. What stands in
// the upper halves of slots is never read: counters wrap there as in 32 bits.
XAI_FAST_TARGET inline void words(const Stream& stream, uint32_t first, int n, uint32_t (*words)[kBlocks]) {
  constexpr int kTogether = 2 * kSlots;
  static_assert(kBlocks % kTogether == 0);
  const Slots even = Slots{} + kEven, odd = Slots{} + kOdd;
  Slots number{};
  for (int slot = 0; slot < kSlots; ++slot) number[slot] = 2 * slot;
  for (int i = 0; i < n; i += kTogether) {
    Slots c[2][4];  // of the even blocks and of the odd ones
    for (int half = 0; half < 2; ++half) {
      c[half][0] = number + (static_cast<uint64_t>(first) + i + half);
      c[half][1] = Slots{} + stream.draw;
      c[half][2] = Slots{} + stream.key_low;
      c[half][3] = Slots{} + stream.key_high;
    }
    uint32_t k0 = stream.seed_low, k1 = stream.seed_high;
#pragma GCC unroll 10
    for (int round = 0; round < kRounds; ++round) {
      const Slots key0 = Slots{} + k0, key1 = Slots{} + k1;
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const Slots product0 = (Slots)product((Register)even, (Register)c[half][0]);
        const Slots product2 = (Slots)product((Register)odd, (Register)c[half][2]);
        c[half][0] = product2 >> 32 ^ c[half][1] ^ key0;
        c[half][1] = product2;
        c[half][2] = product0 >> 32 ^ c[half][3] ^ key1;
        c[half][3] = product0;
      }
      k0 += kStep0;
      k1 += kStep1;
    }
    for (int j = 0; j < 4; ++j) {
      const Slots both = (c[0][j] & 0xffffffffu) | c[1][j] << 32;
      __builtin_memcpy(words[j] + i, &both, sizeof both);
    }
  }
}
