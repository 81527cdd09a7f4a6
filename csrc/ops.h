// The kernels, one per op. Shapes and values were checked in Python; what each computes is written in
// xai_fast/ops/<op>.
#pragma once

#include <string>

#include "tensor.h"

namespace xai_fast {

// inputs, baseline (N, C, *S); sample (M,); boxes (M, 1 + len(S), 2); out (M, C, *S). The
// floating tensors have any strides, the integer ones are dense.
void hide_windows(const Tensor& inputs, const Tensor& baseline, const Tensor& sample, const Tensor& boxes,
                  const Tensor& out);

// values (N, W, K) float32 or float64, any strides; boxes (W, A, 2) dense; out (N, K, *A axes) dense, of that
// dtype.
void window_mean(const Tensor& values, const Tensor& boxes, const Tensor& out);

// activations (N, C, h, w), any strides; weights (N, K, C) and out (N, K, H, W), dense and of one dtype:
// float64 when activations are, else float32 or float64.
void cam_reduce(const Tensor& activations, const Tensor& weights, bool relu, const Tensor& out);

// base (N, C, *S), patch (M, C, *P) or nothing, out (M, C, *R), of one floating dtype and any strides;
// patch_at or nothing, sample (M,) and at (M, len(S)) dense; border "constant", "replicate", "reflect" or
// "circular".
void region_gather(const Tensor& base, const Tensor& patch, const Tensor& patch_at, const Tensor& sample,
                   const Tensor& at, const Tensor& out, const std::string& border, double fill);

}  // namespace xai_fast
