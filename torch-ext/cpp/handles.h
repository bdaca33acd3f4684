// What the opaque handles of the C interface hold.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include "fastclip.h"

struct fc_store {
  c10::intrusive_ptr<c10d::TCPStore> store;
};

struct fc_group {
  c10::intrusive_ptr<c10d::Backend> backend;
};

struct fc_work {
  c10::intrusive_ptr<c10d::Work> work;
};

namespace fastclip {

inline at::Tensor& tensor(fc_tensor* handle) {
  return *static_cast<at::Tensor*>(handle);
}

}  // namespace fastclip
