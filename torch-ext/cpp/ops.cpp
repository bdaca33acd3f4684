// Operations on lists of tensors, which tch's generated bindings leave out, and settings of the process.

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_addcmul.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_div.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sign.h>
#include <ATen/ops/_foreach_sqrt.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <c10/util/Logging.h>
#include <torch/version.h>

#include "guard.h"

using fastclip::guarded;

namespace {

std::vector<at::Tensor> tensor_list(fc_tensor* const* tensors, size_t num_tensors) {
  std::vector<at::Tensor> list;
  list.reserve(num_tensors);
  for (size_t i = 0; i < num_tensors; ++i) {
    list.push_back(*static_cast<at::Tensor*>(tensors[i]));
  }
  return list;
}

std::optional<at::Tensor> optional(fc_tensor* handle) {
  return handle == nullptr ? std::nullopt : std::optional<at::Tensor>(*static_cast<at::Tensor*>(handle));
}

// 1 − beta^step for each step count.
std::vector<at::Scalar> bias_corrections(const std::vector<at::Tensor>& steps, double beta) {
  std::vector<at::Scalar> corrections;
  corrections.reserve(steps.size());
  for (const auto& step : steps) {
    corrections.emplace_back(1.0 - std::pow(beta, step.item<double>()));
  }
  return corrections;
}

// |param|/|update| for each pair, 1 where either norm is 0. Stays on the device.
std::vector<at::Tensor> trust_ratios(const std::vector<at::Tensor>& params, const std::vector<at::Tensor>& updates) {
  const auto param_norms = at::stack(at::_foreach_norm(params, 2));
  const auto update_norms = at::stack(at::_foreach_norm(updates, 2));
  const auto are_positive = param_norms.gt(0).logical_and(update_norms.gt(0));
  return at::where(are_positive, param_norms.div(update_norms), at::ones_like(param_norms)).unbind();
}

}  // namespace

fc_status fc_fused_adamw(fc_tensor* const* params, fc_tensor* const* grads, fc_tensor* const* exp_avgs,
                         fc_tensor* const* exp_avg_sqs, fc_tensor* const* steps, size_t num_tensors, double lr,
                         double beta1, double beta2, double weight_decay, double eps, fc_tensor* rate, fc_tensor* skip,
                         char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    auto param_list = tensor_list(params, num_tensors);
    auto exp_avg_list = tensor_list(exp_avgs, num_tensors);
    auto exp_avg_sq_list = tensor_list(exp_avg_sqs, num_tensors);
    auto step_list = tensor_list(steps, num_tensors);
    const auto grad_list = tensor_list(grads, num_tensors);
    const auto is_skipped = optional(skip);
    at::_foreach_add_(step_list, 1);
    if (rate != nullptr) {
      at::_fused_adamw_(param_list, grad_list, exp_avg_list, exp_avg_sq_list, /*max_exp_avg_sqs=*/{}, step_list,
                        *optional(rate), beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false,
                        /*grad_scale=*/{}, is_skipped);
    } else {
      at::_fused_adamw_(param_list, grad_list, exp_avg_list, exp_avg_sq_list, /*max_exp_avg_sqs=*/{}, step_list, lr,
                        beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{},
                        is_skipped);
    }
    if (is_skipped.has_value()) {
      at::_foreach_sub_(step_list, std::vector<at::Tensor>(num_tensors, *is_skipped));
    }
  });
}

fc_status fc_foreach_lamb(fc_tensor* const* params, fc_tensor* const* grads, fc_tensor* const* exp_avgs,
                          fc_tensor* const* exp_avg_sqs, fc_tensor* const* steps, size_t num_tensors, double lr,
                          double beta1, double beta2, double weight_decay, double eps, char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    auto param_list = tensor_list(params, num_tensors);
    auto exp_avg_list = tensor_list(exp_avgs, num_tensors);
    auto exp_avg_sq_list = tensor_list(exp_avg_sqs, num_tensors);
    auto step_list = tensor_list(steps, num_tensors);
    const auto grad_list = tensor_list(grads, num_tensors);
    for (const auto& step : step_list) {
      TORCH_CHECK(step.is_cpu(), "step counts of LAMB must be on the CPU, one is on ", step.device());
    }
    at::_foreach_add_(step_list, 1);
    at::_foreach_lerp_(exp_avg_list, grad_list, 1 - beta1);
    at::_foreach_mul_(exp_avg_sq_list, beta2);
    at::_foreach_addcmul_(exp_avg_sq_list, grad_list, grad_list, 1 - beta2);

    auto updates = at::_foreach_div(exp_avg_list, bias_corrections(step_list, beta1));
    {
      auto denominators = at::_foreach_div(exp_avg_sq_list, bias_corrections(step_list, beta2));
      at::_foreach_sqrt_(denominators);
      at::_foreach_add_(denominators, eps);
      at::_foreach_div_(updates, denominators);
    }
    if (weight_decay != 0) {
      at::_foreach_add_(updates, param_list, weight_decay);
      at::_foreach_mul_(updates, trust_ratios(param_list, updates));
    }
    at::_foreach_add_(param_list, updates, -lr);
  });
}

fc_status fc_foreach_lion(fc_tensor* const* params, fc_tensor* const* grads, fc_tensor* const* exp_avgs,
                          size_t num_tensors, double lr, double beta1, double beta2, double weight_decay,
                          char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    auto param_list = tensor_list(params, num_tensors);
    auto exp_avg_list = tensor_list(exp_avgs, num_tensors);
    const auto grad_list = tensor_list(grads, num_tensors);
    auto updates = at::_foreach_lerp(exp_avg_list, grad_list, 1 - beta1);
    at::_foreach_sign_(updates);
    at::_foreach_mul_(param_list, 1 - lr * weight_decay);
    at::_foreach_add_(param_list, updates, -lr);
    at::_foreach_lerp_(exp_avg_list, grad_list, 1 - beta2);
  });
}

fc_status fc_fused_sgd(fc_tensor* const* params, fc_tensor* const* grads, fc_tensor* const* momentum_buffers,
                       size_t num_tensors, double lr, double momentum, double weight_decay, int32_t is_nesterov,
                       fc_tensor* rate, fc_tensor* skip, char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    auto param_list = tensor_list(params, num_tensors);
    const auto grad_list = tensor_list(grads, num_tensors);
    auto buffer_list = tensor_list(momentum_buffers, momentum == 0 ? 0 : num_tensors);
    // Buffers that begin at 0 need no special first step: there is no dampening.
    if (rate != nullptr) {
      at::_fused_sgd_(param_list, grad_list, buffer_list, weight_decay, momentum, *optional(rate), /*dampening=*/0,
                      is_nesterov != 0, /*maximize=*/false, /*is_first_step=*/false, /*grad_scale=*/{}, optional(skip));
    } else {
      at::_fused_sgd_(param_list, grad_list, buffer_list, weight_decay, momentum, lr, /*dampening=*/0, is_nesterov != 0,
                      /*maximize=*/false, /*is_first_step=*/false, /*grad_scale=*/{}, optional(skip));
    }
  });
}

fc_status fc_foreach_norm(fc_tensor* const* tensors, size_t num_tensors, fc_tensor** norm, char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    const auto norms = at::_foreach_norm(tensor_list(tensors, num_tensors), 2);
    *norm = new at::Tensor(at::linalg_vector_norm(at::stack(norms)));
  });
}

fc_status fc_foreach_largest(fc_tensor* const* tensors, size_t num_tensors, fc_tensor** largest, char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    const auto all = at::_foreach_norm(tensor_list(tensors, num_tensors), std::numeric_limits<double>::infinity());
    *largest = new at::Tensor(at::stack(all));
  });
}

fc_status fc_foreach_mul(fc_tensor* const* tensors, size_t num_tensors, fc_tensor* factor, char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    auto list = tensor_list(tensors, num_tensors);
    at::_foreach_mul_(list, *static_cast<at::Tensor*>(factor));
  });
}

fc_status fc_foreach_copy(fc_tensor* const* dsts, fc_tensor* const* srcs, size_t num_tensors, char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    auto dst_list = tensor_list(dsts, num_tensors);
    at::_foreach_copy_(dst_list, tensor_list(srcs, num_tensors));
  });
}

fc_status fc_set_num_threads(int32_t num_threads, char** message) {
  return guarded(message, [&] { at::set_num_threads(num_threads); });
}

int32_t fc_num_threads(void) {
  return at::get_num_threads();
}

fc_status fc_set_deterministic(int32_t enabled, char** message) {
  return guarded(message, [&] {
    at::globalContext().setDeterministicAlgorithms(enabled != 0, /*warn_only=*/false);
  });
}

fc_status fc_set_cudnn_attention(int32_t enabled, char** message) {
  return guarded(message, [&] { at::globalContext().setSDPUseCuDNN(enabled != 0); });
}

fc_status fc_set_tf32(int32_t enabled, char** message) {
  return guarded(message, [&] {
    at::globalContext().setAllowTF32CuBLAS(enabled != 0);
    at::globalContext().setAllowTF32CuDNN(enabled != 0);
  });
}

void fc_silence_log(void) {
  FLAGS_caffe2_log_level = 3;
}

const char* fc_torch_version(void) {
  return TORCH_VERSION;
}
