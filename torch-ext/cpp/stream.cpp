// Queues of work on a device, and marks in them. By c10's interface for any device, so that nothing of CUDA is needed to
// compile it: what implements it for GPUs registers itself when the CUDA part of libtorch is loaded.

#include <memory>

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "guard.h"

using c10::impl::VirtualGuardImpl;
using fastclip::guarded;

struct fc_stream {
  c10::Stream stream;
};

struct fc_event {
  c10::Event event;
};

namespace {

c10::Device device(int32_t index) {
  TORCH_CHECK(c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA), "this libtorch has no CUDA part, or it is not linked");
  return {c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)};
}

c10::DeviceAllocator& allocator(int32_t index) {
  auto* allocator = at::getDeviceAllocator(device(index).type());
  TORCH_CHECK(allocator != nullptr && allocator->initialized(), "no tensor has been made on a GPU yet");
  return *allocator;
}

}  // namespace

fc_status fc_stream_new(int32_t device_index, fc_stream** stream, char** message) {
  return guarded(message, [&] {
    const auto on = device(device_index);
    *stream = new fc_stream{VirtualGuardImpl(on.type()).getStreamFromGlobalPool(on)};
  });
}

fc_status fc_stream_current(int32_t device_index, fc_stream** stream, char** message) {
  return guarded(message, [&] {
    const auto on = device(device_index);
    *stream = new fc_stream{VirtualGuardImpl(on.type()).getStream(on)};
  });
}

void fc_stream_free(fc_stream* stream) {
  delete stream;
}

fc_status fc_stream_enter(fc_stream* stream, fc_stream** previous, char** message) {
  return guarded(message, [&] {
    *previous = new fc_stream{VirtualGuardImpl(stream->stream.device_type()).exchangeStream(stream->stream)};
  });
}

fc_status fc_stream_synchronize(fc_stream* stream, char** message) {
  return guarded(message, [&] { stream->stream.synchronize(); });
}

fc_status fc_event_new(fc_event** event, char** message) {
  return guarded(message, [&] {
    device(0);
    *event = new fc_event{c10::Event(c10::DeviceType::CUDA)};
  });
}

void fc_event_free(fc_event* event) {
  delete event;
}

fc_status fc_event_record(fc_event* event, fc_stream* stream, char** message) {
  return guarded(message, [&] { event->event.record(stream->stream); });
}

fc_status fc_event_block(fc_event* event, fc_stream* stream, char** message) {
  return guarded(message, [&] { event->event.block(stream->stream); });
}

fc_status fc_event_query(fc_event* event, int32_t* has_passed, char** message) {
  return guarded(message, [&] { *has_passed = event->event.query() ? 1 : 0; });
}

fc_status fc_event_synchronize(fc_event* event, char** message) {
  return guarded(message, [&] { event->event.synchronize(); });
}

fc_status fc_memory_peak(int32_t device_index, int64_t* allocated, int64_t* reserved, char** message) {
  return guarded(message, [&] {
    constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto stats = allocator(device_index).getDeviceStats(static_cast<c10::DeviceIndex>(device_index));
    *allocated = stats.allocated_bytes[kAll].peak;
    *reserved = stats.reserved_bytes[kAll].peak;
  });
}

fc_status fc_memory_reset_peak(int32_t device_index, char** message) {
  return guarded(message,
                 [&] { allocator(device_index).resetPeakStats(static_cast<c10::DeviceIndex>(device_index)); });
}
