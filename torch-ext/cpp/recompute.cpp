// Parts of a network whose inner results are computed again in backward instead of being kept.

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "guard.h"
#include "handles.h"

using fastclip::guarded;
using fastclip::tensor;
using torch::autograd::variable_list;

namespace {

// A function of tensors that the caller owns until it is released.
class Body {
 public:
  Body(fc_body call, void* context, void (*release)(void*)) : call_(call), context_(context), release_(release) {}
  Body(const Body&) = delete;
  Body& operator=(const Body&) = delete;
  ~Body() {
    release_(context_);
  }

  at::Tensor operator()(const variable_list& inputs) const {
    std::vector<fc_tensor*> handles;
    handles.reserve(inputs.size());
    for (const auto& input : inputs) {
      handles.push_back(const_cast<at::Tensor*>(&input));
    }
    fc_tensor* handle = call_(context_, handles.data(), handles.size());
    TORCH_CHECK(handle != nullptr, "what is to be computed again could not be computed");
    const std::unique_ptr<at::Tensor> output(static_cast<at::Tensor*>(handle));
    return *output;
  }

 private:
  fc_body call_;
  void* context_;
  void (*release_)(void*);
};

class Recomputation final : public torch::autograd::Node {
 public:
  Recomputation(std::shared_ptr<Body> body, const variable_list& inputs)
      : Node(torch::autograd::collect_next_edges(inputs)), body_(std::move(body)) {
    saved_.reserve(inputs.size());
    for (const auto& input : inputs) {
      saved_.emplace_back(input, /*is_output=*/false);
    }
  }

  variable_list apply(variable_list&& gradients) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    variable_list found(saved_.size());
    if (!gradients.at(0).defined()) {
      return found;
    }
    // Leaves of a graph of its own. Gradients come back as results and not at the leaves, so that what autograd does
    // with them afterwards, hooks on parameters among it, is what it does without recomputing.
    variable_list leaves;
    variable_list wanted;
    std::vector<size_t> places;
    for (size_t i = 0; i < saved_.size(); ++i) {
      leaves.push_back(saved_[i].unpack().detach());
      if (task_should_compute_output(i)) {
        leaves.back().set_requires_grad(true);
        wanted.push_back(leaves.back());
        places.push_back(i);
      }
    }
    at::Tensor output;
    {
      const at::AutoGradMode enable_grad(true);
      output = (*body_)(leaves);
    }
    leaves.clear();
    auto derived = torch::autograd::grad({output}, wanted, {gradients[0]}, /*retain_graph=*/std::nullopt,
                                         /*create_graph=*/false, /*allow_unused=*/true);
    for (size_t i = 0; i < places.size(); ++i) {
      found[places[i]] = std::move(derived[i]);
    }
    return found;
  }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& saved : saved_) {
      saved.reset_data();
    }
  }

  std::string name() const override {
    return "FastClipRecomputation";
  }

 private:
  std::shared_ptr<Body> body_;
  std::vector<torch::autograd::SavedVariable> saved_;
};

}  // namespace

fc_status fc_recompute(fc_tensor* const* inputs, size_t num_inputs, fc_body call, void* context,
                       void (*release)(void*), fc_tensor** output, char** message) {
  return guarded(message, [&] {
    auto body = std::make_shared<Body>(call, context, release);
    variable_list list;
    list.reserve(num_inputs);
    for (size_t i = 0; i < num_inputs; ++i) {
      list.push_back(tensor(inputs[i]));
    }
    at::Tensor result;
    {
      const at::NoGradGuard no_grad;
      result = (*body)(list);
    }
    if (torch::autograd::compute_requires_grad(at::TensorList(list))) {
      const std::shared_ptr<torch::autograd::Node> node(new Recomputation(std::move(body), list),
                                                        torch::autograd::deleteNode);
      torch::autograd::set_history(result, node);
    }
    *output = new at::Tensor(std::move(result));
  });
}
