// The kernels, one per op. Shapes and values were checked in Python; what each computes is written in
// xai_fast/ops/<op>.
#pragma once

#include <cstdint>
#include <string>

#include "instructions.h"
#include "tensor.h"

namespace xai_fast {

// inputs, baseline (N, C, *S); sample (M,); boxes (M, 1 + len(S), 2); out (M, C, *S). The
// floating tensors have any strides, the integer ones are dense.
void hide_windows(const Tensor& inputs, const Tensor& baseline, const Tensor& sample, const Tensor& boxes,
                  const Tensor& out);

// inputs, baseline (N, C, *S) and labels int64 of that shape, any strides; sample (M,); keep bool (M, K),
// dense, K above every label; out (M, C, *S), floating, any strides.
void hide_segments(const Tensor& inputs, const Tensor& baseline, const Tensor& labels, const Tensor& sample,
                   const Tensor& keep, const Tensor& out);

// inputs, baseline (N, C, *S) and out (M, C, *S), floating, any strides; grids bool (M, *cells), shifts (M,
// len(S)), sample (M,) and places float64 (every axis's after the other's), dense.
void grid_masks(const Tensor& inputs, const Tensor& baseline, const Tensor& grids, const Tensor& shifts,
                const Tensor& sample, const Tensor& places, const Tensor& out);

// grids bool (M, C), bin (M,), weights float64 (M, T) and bins float64 (B, T, C), all dense.
void grid_reduce(const Tensor& grids, const Tensor& bin, const Tensor& weights, const Tensor& bins);

// inputs (N, C, *S) and out (M, C, *S), floating, any strides; scale float64, sample, key and draw (M,),
// dense.
void add_noise(const Tensor& inputs, const Tensor& scale, const Tensor& sample, const Tensor& key,
               const Tensor& draw, uint64_t seed, const Tensor& out);

// inputs (N, C, *S) and baseline (B, C, *S) of one dtype, out (M, C, *S), floating, any strides; sample,
// reference and alpha, which is float64, (M,), dense. out may be inputs where sample counts its rows.
void path_points(const Tensor& inputs, const Tensor& baseline, const Tensor& sample, const Tensor& reference,
                 const Tensor& alpha, const Tensor& out);

// values (M, *E), at most five axes E, floating, any strides; weight (M,) float64 or nothing, group (M,),
// dense; total and squares (G, *E) float64, dense, or one of them nothing.
void moments(const Tensor& values, const Tensor& weight, const Tensor& group, const Tensor& total,
             const Tensor& squares);

// keep bool (M, K), weights float64 (M,), scores float64 (M, T), gram float64 (1 + K, 1 + K), symmetric,
// moment float64 (1 + K, T); all dense.
void surrogate_normal(const Tensor& keep, const Tensor& weights, const Tensor& scores, const Tensor& gram,
                      const Tensor& moment);

// values (N, W, K) float32 or float64, any strides; boxes (W, A, 2) dense; out (N, K, *A axes) dense, of that
// dtype.
void window_mean(const Tensor& values, const Tensor& boxes, const Tensor& out);

// values, out and, if it is a tensor, other (M, C, *S) of one layout without gaps, channels first or last,
// and bias (C,), dense, all of one floating dtype; out may be values or other.
void bias_relu(const Tensor& values, const Tensor& bias, const Tensor& other, const Tensor& out);

// activations (N, C, h, w), any strides; weights (N, K, C) and out (N, K, H, W), dense and of one dtype:
// float64 when activations are, else float32 or float64.
void cam_reduce(const Tensor& activations, const Tensor& weights, bool relu, const Tensor& out);

// inputs (N, C, H, W) and out (M, C, H, W), floating, any strides; maps (B, h, w), float64 when inputs are,
// else float32 or float64; sample, number and scale, which is float64, (M,), dense.
void blend_maps(const Tensor& inputs, const Tensor& maps, const Tensor& sample, const Tensor& number,
                const Tensor& scale, const Tensor& out);

// base (N, C, *S), patch (M, C, *P) or nothing, out (M, C, *R), of one floating dtype and any strides;
// patch_at or nothing, sample (M,) and at (M, len(S)) dense; border "constant", "replicate", "reflect" or
// "circular".
void region_gather(const Tensor& base, const Tensor& patch, const Tensor& patch_at, const Tensor& sample,
                   const Tensor& at, const Tensor& out, const std::string& border, double fill);

// base (N, C, H, W) float32, change and out (M, C, h, w) bfloat16, dense with channels last; sample (M,) and
// at (M, 2) dense, within base. out may be change.
void relu_change(const Tensor& base, const Tensor& change, const Tensor& sample, const Tensor& at,
                 const Tensor& out);

// inputs (N, C, H, W), other or nothing and out (N, K, H', W'), dense with channels last; kernels (K / P, 16,
// C / T, P, T) and bias (K,) or nothing, dense; all float32 with T = 1, or all bfloat16 with T = 2; C a
// multiple of P / 2. out may be other.
void winograd_convolution(const Tensor& inputs, const Tensor& kernels, const Tensor& bias,
                          const Tensor& other, const Tensor& out, int64_t padding, bool relu);

// inputs (N, C, H, W), other or nothing and out (N, K, H', W'), dense with channels last; expand (M / P, C /
// T, P, T) or nothing, then M is C, and project (K / P, M / T, P, T) or nothing, then K is M, dense, M and K
// rounded up to whole panels; all float32 with T = 1, or all bfloat16 with T = 2. depth (M / P, side * side,
// P) and the biases, of whole half panels (M) and panels (K), means (N, K) or nothing, float32, dense. P is
// register_panel's. out may be other.
void inverted_bottleneck(const Tensor& inputs, const Tensor& expand, const Tensor& expand_bias,
                         const Tensor& depth, const Tensor& depth_bias, const Tensor& project,
                         const Tensor& project_bias, const Tensor& other, const Tensor& out,
                         const Tensor& means, int64_t stride, int64_t padding, const std::string& activation);

// inputs (N, M, H, W), other or nothing and out (N, K, H, W), dense with channels last; gate (N, M) float32,
// dense; project and its bias as above. out may be other.
void gated_pointwise(const Tensor& inputs, const Tensor& gate, const Tensor& project,
                     const Tensor& project_bias, const Tensor& other, const Tensor& out);

// The P above for this processor, as many channels as two registers hold, or 0 where those kernels cannot
// run: in float32, and in bfloat16.
int64_t register_panel();
int64_t register_panel_of_halves();

// spans int64 (T, 2), dense: where T pieces of memory begin, 0 for none, and their bytes; out int64 (T,),
// dense.
void byte_hash(const Tensor& spans, const Tensor& out);

// Nothing, or why this process cannot be told which pages of memory were written.
std::string cannot_watch_pages();

// ranges int64 (n, 2), dense: addresses from and to, at borders of pages. Returns the number of this look, 0
// where nothing can be told. out int64 (n,), dense: 0 where nothing was written since look `since`, 1 where
// something was, 2 where that cannot be told; ranges that were never asked about count as written.
uint64_t written_pages(const Tensor& ranges, uint64_t since, const Tensor& out);

// values float32 or bfloat16 of n elements, dense in any order of axes; bits int64 (ceil(n / 64),), dense.
void sign_bits(const Tensor& values, const Tensor& bits);

// gradient and out float32 or bfloat16, laid out as those values were; bits as above. out may be gradient.
void pass_bits(const Tensor& gradient, const Tensor& bits, const Tensor& out);

}  // namespace xai_fast
