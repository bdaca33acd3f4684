// Linear layers together with what stands around them in a transformer, so that backward reads each gradient once: as one
// node of the graph each, above the operations of kernels.h.

#include <utility>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/native_layer_norm.h>
#include <ATen/ops/native_layer_norm_backward.h>
#include <ATen/ops/unsafe_chunk.h>
#include <torch/csrc/autograd/custom_function.h>

#include "guard.h"
#include "handles.h"
#include "kernels.h"

using at::Tensor;
using fastclip::guarded;
using fastclip::tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace fastclip::kernels {

namespace {

Tensor rows_of(const Tensor& x) {
  return x.reshape({-1, x.size(-1)});
}

Summed with_sums(Tensor value) {
  auto sums = rows_of(value).sum(0);
  return {std::move(value), std::move(sums)};
}

}  // namespace

AddedNorm add_norm(const Tensor& x, const Tensor& added, const Tensor& weight, const Tensor& bias, double eps) {
#ifdef FASTCLIP_CUDA
  if (x.is_cuda()) {
    return gpu::add_norm(x, added, weight, bias, eps);
  }
#endif
  auto sum = x + added;
  auto [normed, mean, rstd] = at::native_layer_norm(sum, weight.sizes(), weight, bias, eps);
  return {std::move(sum), std::move(normed), std::move(mean), std::move(rstd)};
}

AddedNormGradients add_norm_backward(const Tensor& dnormed, const Tensor& dsum, const AddedNorm& found,
                                     const Tensor& weight) {
#ifdef FASTCLIP_CUDA
  if (dnormed.is_cuda()) {
    return gpu::add_norm_backward(dnormed, dsum, found, weight);
  }
#endif
  // The bias enters no derivative, and is asked for all the same.
  auto [dx, dweight, dbias] = at::native_layer_norm_backward(dnormed, found.sum, weight.sizes(), found.mean, found.rstd,
                                                             weight, weight, {true, true, true});
  auto [value, sums] = with_sums(dx + dsum);
  return {std::move(value), std::move(dweight), std::move(dbias), std::move(sums)};
}

Summed gelu_backward(const Tensor& dy, const Tensor& x) {
#ifdef FASTCLIP_CUDA
  if (dy.is_cuda()) {
    return gpu::gelu_backward(dy, x);
  }
#endif
  return with_sums(at::gelu_backward(dy, x));
}

Summed join_three(const Tensor& first, const Tensor& second, const Tensor& third) {
#ifdef FASTCLIP_CUDA
  if (first.is_cuda()) {
    return gpu::join_three(first, second, third);
  }
#endif
  return with_sums(at::cat({first, second, third}, -1));
}

namespace {

// A linear layer is x·Wᵀ + b. With the derivative at its output, these are those at its input and weight, if the layer's
// input `place` needs one: parts of a tower may be locked.
Tensor linear_dx(const AutogradContext* context, size_t place, const Tensor& dy, const Tensor& weight) {
  return context->needs_input_grad(place) ? dy.matmul(weight) : Tensor();
}

Tensor linear_dweight(const AutogradContext* context, size_t place, const Tensor& dy, const Tensor& x) {
  return context->needs_input_grad(place) ? rows_of(dy).t().mm(rows_of(x)) : Tensor();
}

// What forward saved.
variable_list saved_of(const AutogradContext* context) {
  // Kernels leave no history.
  TORCH_CHECK(!at::GradMode::is_enabled(), "fused layers can be differentiated once only");
  return context->get_saved_variables();
}

// gelu(x·Wᵀ + b)
class LinearGelu : public Function<LinearGelu> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const Tensor& bias) {
    const auto hidden = at::linear(x, weight, bias);
    context->save_for_backward({x, weight, hidden});
    return at::gelu(hidden);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = saved_of(context);
    const auto &x = saved[0], &weight = saved[1], &hidden = saved[2];
    const auto found = kernels::gelu_backward(gradients[0].contiguous(), hidden);
    return {linear_dx(context, 0, found.value, weight), linear_dweight(context, 1, found.value, x), found.sums};
  }
};

// x·Wᵀ + b, cut into three along the last dimension.
class LinearSplit : public Function<LinearSplit> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const Tensor& bias) {
    context->save_for_backward({x, weight});
    // Not views of each other for autograd, which would ask how each may be changed in place.
    return at::unsafe_chunk(at::linear(x, weight, bias), 3, -1);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = saved_of(context);
    const auto &x = saved[0], &weight = saved[1];
    const auto found =
        join_three(gradients[0].contiguous(), gradients[1].contiguous(), gradients[2].contiguous());
    return {linear_dx(context, 0, found.value, weight), linear_dweight(context, 1, found.value, x), found.sums};
  }
};

// sum = x + (y·Wᵀ + b), and its layer norm.
class LinearAddNorm : public Function<LinearAddNorm> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& x, const Tensor& y, const Tensor& weight,
                               const Tensor& bias, const Tensor& norm_weight, const Tensor& norm_bias, double eps) {
    auto found = add_norm(x, at::linear(y, weight, bias), norm_weight, norm_bias, eps);
    context->save_for_backward({y, weight, norm_weight, found.sum, found.mean, found.rstd});
    return {found.sum, found.normed};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = saved_of(context);
    const auto &y = saved[0], &weight = saved[1], &norm_weight = saved[2];
    const AddedNorm found{saved[3], {}, saved[4], saved[5]};
    const auto back = add_norm_backward(gradients[1].contiguous(), gradients[0].contiguous(), found, norm_weight);
    auto dy = linear_dx(context, 1, back.x, weight);
    auto dweight = linear_dweight(context, 2, back.x, y);
    return {back.x, std::move(dy), std::move(dweight), back.added_to_all, back.weight, back.bias, Tensor()};
  }
};

}  // namespace

}  // namespace fastclip::kernels

using namespace fastclip::kernels;

fc_status fc_linear_gelu(fc_tensor* x, fc_tensor* weight, fc_tensor* bias, fc_tensor** activated, char** message) {
  return guarded(message, [&] {
    *activated = new Tensor(LinearGelu::apply(tensor(x), tensor(weight), tensor(bias)));
  });
}

fc_status fc_linear_split(fc_tensor* x, fc_tensor* weight, fc_tensor* bias, fc_tensor** parts, char** message) {
  return guarded(message, [&] {
    const auto found = LinearSplit::apply(tensor(x), tensor(weight), tensor(bias));
    for (size_t part = 0; part < 3; ++part) {
      parts[part] = new Tensor(found[part]);
    }
  });
}

fc_status fc_linear_add_norm(fc_tensor* x, fc_tensor* y, fc_tensor* weight, fc_tensor* bias, fc_tensor* norm_weight,
                             fc_tensor* norm_bias, double eps, fc_tensor** sum, fc_tensor** normed, char** message) {
  return guarded(message, [&] {
    const auto found = LinearAddNorm::apply(tensor(x), tensor(y), tensor(weight), tensor(bias), tensor(norm_weight),
                                            tensor(norm_bias), eps);
    *sum = new Tensor(found[0]);
    *normed = new Tensor(found[1]);
  });
}
