// Groups over NCCL: between processes that compute on NVIDIA GPUs. Compiled with the feature `cuda` only.

#include <chrono>
#include <string>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "guard.h"
#include "handles.h"

fc_status fc_group_nccl_new(fc_store* store, const char* prefix, size_t prefix_len, int32_t rank, int32_t world_size,
                            int64_t timeout_ms, int32_t device_index, fc_group** group, char** message) {
  return fastclip::guarded(message, [&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout_ms);
    auto corner = c10::make_intrusive<c10d::PrefixStore>(std::string(prefix, prefix_len), store->store);
    auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(corner, rank, world_size, options);
    // Without a bound device, barriers and the first collective must guess which GPU belongs to this rank.
    backend->setBoundDeviceId(at::Device(at::kCUDA, static_cast<at::DeviceIndex>(device_index)));
    *group = new fc_group{backend};
  });
}
