// The kernels, one per op. Shapes and values were checked in Python; what each computes is written in
// xai_fast/ops/<op>.
#pragma once

#include "tensor.h"

namespace xai_fast {

// inputs, baseline (N, C, *S); sample (M,); boxes (M, 1 + len(S), 2); out (M, C, *S). The
// floating tensors have any strides, the integer ones are dense.
void hide_windows(const Tensor& inputs, const Tensor& baseline, const Tensor& sample, const Tensor& boxes,
                  const Tensor& out);

}  // namespace xai_fast
