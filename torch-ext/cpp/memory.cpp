// How much memory tensors take.

#include <algorithm>
#include <memory>
#include <mutex>

#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include "guard.h"

using fastclip::guarded;

namespace {

class Meter final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* /*ptr*/, int64_t alloc_size, size_t /*total_allocated*/, size_t /*total_reserved*/,
                         c10::Device /*device*/) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    live_ += alloc_size;
    peak_ = std::max(peak_, live_);
  }

  bool memoryProfilingEnabled() const override {
    return true;
  }

  int64_t peak() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return peak_;
  }

 private:
  std::mutex mutex_;
  int64_t live_ = 0;
  int64_t peak_ = 0;
};

// By c10's interface for any device: what implements it for GPUs registers itself when the CUDA part of libtorch is loaded.
c10::DeviceAllocator& gpu_allocator() {
  auto* registered = c10::GetAllocator(c10::DeviceType::CUDA);
  auto* allocator = dynamic_cast<c10::DeviceAllocator*>(registered);
  TORCH_CHECK(allocator != nullptr && allocator->initialized(), "no tensor has been made on a GPU yet");
  return *allocator;
}

}  // namespace

struct fc_meter {
  std::shared_ptr<Meter> meter = std::make_shared<Meter>();
  c10::DebugInfoGuard guard{c10::DebugInfoKind::PROFILER_STATE, meter};
};

fc_status fc_meter_new(fc_meter** meter, char** message) {
  return guarded(message, [&] { *meter = new fc_meter(); });
}

int64_t fc_meter_peak(fc_meter* meter) {
  return meter->meter->peak();
}

void fc_meter_free(fc_meter* meter) {
  delete meter;
}

fc_status fc_memory_peak(int32_t device_index, int64_t* allocated, int64_t* reserved, char** message) {
  return guarded(message, [&] {
    constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = gpu_allocator().getDeviceStats(static_cast<c10::DeviceIndex>(device_index));
    *allocated = stats.allocated_bytes[kAll].peak;
    *reserved = stats.reserved_bytes[kAll].peak;
  });
}
