// Operations on lists of tensors, which tch's generated bindings leave out, and settings of the process.

#include <vector>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
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

}  // namespace

fc_status fc_fused_adamw(fc_tensor* const* params, fc_tensor* const* grads, fc_tensor* const* exp_avgs,
                         fc_tensor* const* exp_avg_sqs, fc_tensor* const* steps, size_t num_tensors, double lr,
                         double beta1, double beta2, double weight_decay, double eps, char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    auto param_list = tensor_list(params, num_tensors);
    auto exp_avg_list = tensor_list(exp_avgs, num_tensors);
    auto exp_avg_sq_list = tensor_list(exp_avg_sqs, num_tensors);
    auto step_list = tensor_list(steps, num_tensors);
    const auto grad_list = tensor_list(grads, num_tensors);
    at::_foreach_add_(step_list, 1);
    at::_fused_adamw_(param_list, grad_list, exp_avg_list, exp_avg_sq_list, /*max_exp_avg_sqs=*/{}, step_list, lr,
                      beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false);
  });
}

fc_status fc_foreach_norm(fc_tensor* const* tensors, size_t num_tensors, fc_tensor** norm, char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    const auto norms = at::_foreach_norm(tensor_list(tensors, num_tensors), 2);
    *norm = new at::Tensor(at::linalg_vector_norm(at::stack(norms)));
  });
}

fc_status fc_foreach_mul(fc_tensor* const* tensors, size_t num_tensors, fc_tensor* factor, char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    auto list = tensor_list(tensors, num_tensors);
    at::_foreach_mul_(list, *static_cast<at::Tensor*>(factor));
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

void fc_silence_log(void) {
  FLAGS_caffe2_log_level = 3;
}

const char* fc_torch_version(void) {
  return TORCH_VERSION;
}
