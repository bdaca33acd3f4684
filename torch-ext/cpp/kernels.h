// What transformers do between matrix products, in few passes over memory: kernels of kernels.cu on GPUs, operations of
// libtorch elsewhere. All tensors are contiguous.

#pragma once

#include <ATen/core/Tensor.h>

namespace fastclip::kernels {

struct AddedNorm {
  at::Tensor sum;
  at::Tensor normed;
  at::Tensor mean;
  at::Tensor rstd;
};

// x + added, and its layer norm.
AddedNorm add_norm(const at::Tensor& x, const at::Tensor& added, const at::Tensor& weight, const at::Tensor& bias,
                   double eps);

struct AddedNormGradients {
  // Of x, and of what was added to it.
  at::Tensor x;
  at::Tensor weight;
  at::Tensor bias;
  // Sums of the first over rows.
  at::Tensor added_to_all;
};

// The derivatives of `add_norm`, with those at both of its results.
AddedNormGradients add_norm_backward(const at::Tensor& dnormed, const at::Tensor& dsum, const AddedNorm& found,
                                     const at::Tensor& weight);

// Something, and its sums over rows.
struct Summed {
  at::Tensor value;
  at::Tensor sums;
};

// The derivative of exact GELU with respect to x.
Summed gelu_backward(const at::Tensor& dy, const at::Tensor& x);

// Three tensors beside each other along the last dimension.
Summed join_three(const at::Tensor& first, const at::Tensor& second, const at::Tensor& third);

// What the same functions are on the current GPU, in bf16; loaded before.
namespace gpu {
AddedNorm add_norm(const at::Tensor& x, const at::Tensor& added, const at::Tensor& weight, const at::Tensor& bias,
                   double eps);
AddedNormGradients add_norm_backward(const at::Tensor& dnormed, const at::Tensor& dsum, const AddedNorm& found,
                                     const at::Tensor& weight);
Summed gelu_backward(const at::Tensor& dy, const at::Tensor& x);
Summed join_three(const at::Tensor& first, const at::Tensor& second, const at::Tensor& third);
}  // namespace gpu

}  // namespace fastclip::kernels
