// What libtorch does, operation by operation.

#include <memory>
#include <set>
#include <string>

#include <ATen/Context.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include "guard.h"

using fastclip::guarded;

namespace profiler = torch::autograd::profiler;

fc_status fc_profile_begin(char** message) {
  return guarded(message, [] {
    using torch::profiler::impl::ActivityType;
    std::set<ActivityType> activities{ActivityType::CPU};
    if (at::hasCUDA()) {
      activities.insert(ActivityType::CUDA);
    }
    const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO,
                                                       /*report_input_shapes=*/true);
    profiler::prepareProfiler(config, activities);
    profiler::enableProfiler(config, activities);
  });
}

fc_status fc_profile_end(const char* path, size_t path_len, char** message) {
  return guarded(message, [&] {
    const auto result = profiler::disableProfiler();
    if (path != nullptr) {
      result->save(std::string(path, path_len));
    }
  });
}
