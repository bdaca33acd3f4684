// Gradients that autograd adds up in buckets, and that are summed over ranks while backward still runs.

#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "guard.h"
#include "handles.h"

using fastclip::guarded;
using fastclip::tensor;

namespace impl = torch::autograd::impl;

namespace {

struct Bucket {
  at::Tensor flat;
  size_t num_leaves = 0;
  // Leaves whose gradient is of another kind, and is still to be added to its place.
  std::vector<size_t> waiting;
  // Leaves whose gradient has not come yet in this backward pass.
  size_t num_missing = 0;
  c10::intrusive_ptr<c10d::Work> work;
};

}  // namespace

struct fc_buckets {
  std::vector<at::Tensor> leaves;
  // Where the gradient of each leaf is added up: autograd does it where the leaf is of the same kind, its hook otherwise.
  std::vector<at::Tensor> gradients;
  std::vector<size_t> bucket_of;
  std::vector<bool> has_come;
  std::vector<Bucket> buckets;
  // By leaf: whether its place is still as `clear` left it. Only of those whose gradients are of another kind.
  std::vector<bool> is_zero;
  // One number a bucket.
  at::Tensor largest;

  // Autograd runs hooks on a thread for each device; what follows is theirs and the caller's.
  std::mutex mutex;
  bool is_armed = false;
  fc_group* group = nullptr;
  uint64_t* sequence = nullptr;
  // The first bucket that has not left. Buckets leave in their order, so that it is the same on all ranks.
  size_t next = 0;
  // The first thing that went wrong, also in passes before the last. An exception that left a hook would unwind through autograd, which would report it as
  // its own; buckets after it stay, since the run is over.
  std::exception_ptr failure;

  void clear() {
    const std::lock_guard<std::mutex> lock(mutex);
    at::NoGradGuard no_grad;
    for (auto& bucket : buckets) {
      bucket.flat.zero_();
    }
    is_zero.assign(leaves.size(), true);
  }

  void arm(fc_group* over, uint64_t* counter) {
    const std::lock_guard<std::mutex> lock(mutex);
    has_come.assign(leaves.size(), false);
    for (auto& bucket : buckets) {
      bucket.num_missing = bucket.num_leaves;
      bucket.work.reset();
    }
    group = over;
    sequence = counter;
    next = 0;
    is_armed = true;
    attempt([&] { launch_full(); });
  }

  // The gradient of a leaf is complete.
  void come(size_t leaf) noexcept {
    const std::lock_guard<std::mutex> lock(mutex);
    attempt([&] {
      auto& bucket = buckets[bucket_of[leaf]];
      if (is_taken_over(leaf)) {
        bucket.waiting.push_back(leaf);
      }
      // Left where it is, the next pass would add to it, and round it; and only what can be copied gains by waiting.
      if (!is_armed || !is_zero[leaf]) {
        take_over(bucket);
      }
      if (!is_armed) {
        return;
      }
      TORCH_CHECK(!has_come[leaf], "a parameter got a second gradient while its bucket was being reduced");
      has_come[leaf] = true;
      bucket.num_missing -= 1;
      launch_full();
    });
  }

  // Lets buckets leave that wait for gradients which do not come: those stay as they are.
  void finish() {
    const std::lock_guard<std::mutex> lock(mutex);
    for (auto& bucket : buckets) {
      bucket.num_missing = 0;
    }
    attempt([&] { launch_full(); });
    const auto first_failure = failure;
    disarm();
    if (first_failure != nullptr) {
      std::rethrow_exception(first_failure);
    }
  }

  void disarm() noexcept {
    is_armed = false;
    group = nullptr;
    sequence = nullptr;
    failure = nullptr;
    // What a pass left behind that was broken off must not be added to the next one.
    for (auto& bucket : buckets) {
      bucket.waiting.clear();
    }
    for (size_t i = 0; i < leaves.size(); ++i) {
      if (is_taken_over(i)) {
        leaves[i].mutable_grad() = at::Tensor();
      }
    }
  }

 private:
  template <typename Body>
  void attempt(const Body& body) noexcept {
    if (failure != nullptr) {
      return;
    }
    try {
      body();
    } catch (...) {
      failure = std::current_exception();
    }
  }

  // Whether the gradient of the leaf is of another kind than what it is added to.
  bool is_taken_over(size_t leaf) const {
    return leaves[leaf].scalar_type() != gradients[leaf].scalar_type();
  }

  // Adds the gradients that wait to those of their leaves, and gives their memory back. All at once where it can be: there
  // are hundreds of parameters, most of them small.
  void take_over(Bucket& bucket) {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> to;
    std::vector<at::Tensor> from;
    for (const size_t leaf : bucket.waiting) {
      auto& gradient = gradients[leaf];
      const auto& added = leaves[leaf].grad();
      // Weights of convolutions may lie otherwise in memory.
      if (is_zero[leaf] && added.strides() == gradient.strides()) {
        to.push_back(gradient);
        from.push_back(added);
      } else {
        gradient.add_(added);
      }
      is_zero[leaf] = false;
      leaves[leaf].mutable_grad() = at::Tensor();
    }
    bucket.waiting.clear();
    if (!to.empty()) {
      at::_foreach_copy_(to, from);
    }
  }

  void launch_full() {
    at::NoGradGuard no_grad;
    for (; next < buckets.size() && buckets[next].num_missing == 0; ++next) {
      auto& bucket = buckets[next];
      take_over(bucket);
      auto slot = largest.select(0, static_cast<int64_t>(next));
      at::linalg_vector_norm_out(slot, bucket.flat, std::numeric_limits<double>::infinity());
      if (group != nullptr) {
        // Read by other threads to see how far this rank is; never by them to order anything.
        __atomic_add_fetch(sequence, 1, __ATOMIC_RELAXED);
        std::vector<at::Tensor> tensors{bucket.flat};
        // On a GPU the reduction waits for what the current stream holds, and hooks run under the stream that wrote the
        // gradients.
        bucket.work = group->backend->allreduce(tensors);
      }
    }
  }
};

namespace {

// Runs after autograd has added a gradient to that of its leaf: once in a backward pass, however often the leaf is used.
class Arrival final : public torch::autograd::PostAccumulateGradHook {
 public:
  Arrival(fc_buckets* buckets, size_t leaf) : buckets_(buckets), leaf_(leaf) {}

  void operator()(const at::Tensor& /*leaf*/) override {
    buckets_->come(leaf_);
  }

 private:
  fc_buckets* buckets_;
  size_t leaf_;
};

void release(fc_buckets& buckets) {
  for (auto& leaf : buckets.leaves) {
    impl::set_post_acc_grad_hooks(leaf, nullptr);
    leaf.mutable_grad() = at::Tensor();
  }
}

}  // namespace

fc_status fc_buckets_new(fc_tensor* const* leaves, fc_tensor* const* gradients, const size_t* bucket_of,
                         size_t num_leaves, fc_tensor* const* flats, size_t num_buckets, fc_tensor* largest,
                         fc_buckets** buckets, char** message) {
  return guarded(message, [&] {
    auto made = std::make_unique<fc_buckets>();
    made->largest = tensor(largest);
    made->bucket_of.assign(bucket_of, bucket_of + num_leaves);
    for (size_t i = 0; i < num_buckets; ++i) {
      made->buckets.emplace_back();
      made->buckets.back().flat = tensor(flats[i]);
    }
    for (size_t i = 0; i < num_leaves; ++i) {
      const auto& leaf = tensor(leaves[i]);
      TORCH_CHECK(leaf.requires_grad() && leaf.is_leaf(), "parameter ", i, " is no leaf that asks for a gradient");
      TORCH_CHECK(impl::post_acc_grad_hooks(leaf) == nullptr, "the gradient of parameter ", i, " has a bucket already");
    }
    try {
      for (size_t i = 0; i < num_leaves; ++i) {
        made->buckets.at(bucket_of[i]).num_leaves += 1;
        made->leaves.push_back(tensor(leaves[i]));
        made->gradients.push_back(tensor(gradients[i]));
        // Autograd adds in place to a gradient that is there.
        if (made->leaves.back().scalar_type() == made->gradients.back().scalar_type()) {
          made->leaves.back().mutable_grad() = made->gradients.back();
        }
        impl::set_post_acc_grad_hooks(made->leaves.back(), std::make_unique<Arrival>(made.get(), i));
      }
    } catch (...) {
      release(*made);
      throw;
    }
    made->is_zero.assign(num_leaves, true);
    *buckets = made.release();
  });
}

void fc_buckets_free(fc_buckets* buckets) {
  if (buckets == nullptr) {
    return;
  }
  char* message = nullptr;
  guarded(&message, [&] { release(*buckets); });
  fc_message_free(message);
  delete buckets;
}

fc_status fc_buckets_clear(fc_buckets* buckets, char** message) {
  return guarded(message, [&] { buckets->clear(); });
}

fc_status fc_buckets_arm(fc_buckets* buckets, fc_group* group, uint64_t* sequence, char** message) {
  return guarded(message, [&] { buckets->arm(group, sequence); });
}

fc_status fc_buckets_finish(fc_buckets* buckets, char** message) {
  return guarded(message, [&] { buckets->finish(); });
}

void fc_buckets_disarm(fc_buckets* buckets) {
  const std::lock_guard<std::mutex> lock(buckets->mutex);
  buckets->disarm();
}

fc_status fc_buckets_take_work(fc_buckets* buckets, size_t bucket, fc_work** work, char** message) {
  return guarded(message, [&] {
    auto& running = buckets->buckets.at(bucket).work;
    TORCH_CHECK(running != nullptr, "bucket ", bucket, " is not being reduced");
    *work = new fc_work{running};
    running.reset();
  });
}
