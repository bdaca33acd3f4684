// Groups over Gloo: TCP between processes that compute on CPUs.

#include <chrono>
#include <string>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "guard.h"
#include "handles.h"

fc_status fc_group_gloo_new(fc_store* store, const char* prefix, size_t prefix_len, int32_t rank, int32_t world_size,
                            int64_t timeout_ms, const char* address, size_t address_len, int32_t is_interface,
                            fc_group** group, char** message) {
  return fastclip::guarded(message, [&] {
    // Never the default device: it asks what the name of this machine resolves to, which is wrong on machines whose
    // name resolves to nothing, or to a loopback address that other machines are then told to connect to.
    const std::string where(address, address_len);
    auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
    options->devices.push_back(is_interface != 0 ? c10d::ProcessGroupGloo::createDeviceForInterface(where)
                                                 : c10d::ProcessGroupGloo::createDeviceForHostname(where));
    auto corner = c10::make_intrusive<c10d::PrefixStore>(std::string(prefix, prefix_len), store->store);
    *group = new fc_group{c10::make_intrusive<c10d::ProcessGroupGloo>(corner, rank, world_size, options)};
  });
}
