// Queues of work on a device, and marks in them. By c10's interface for any device, so that nothing of CUDA is needed to
// compile it: what implements it for GPUs registers itself when the CUDA part of libtorch is loaded.

#include <utility>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "guard.h"
#include "handles.h"

using c10::impl::VirtualGuardImpl;
using fastclip::guarded;
using fastclip::tensor;

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
    const VirtualGuardImpl device_of(stream->stream.device_type());
    device_of.setDevice(stream->stream.device());
    *previous = new fc_stream{device_of.exchangeStream(stream->stream)};
  });
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

fc_status fc_copy_async(fc_tensor* dst, fc_tensor* src, char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    tensor(dst).copy_(tensor(src), /*non_blocking=*/true);
  });
}

fc_status fc_copy_bytes_async(fc_tensor* dst, const uint8_t* bytes, size_t num_bytes, char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    auto& to = tensor(dst);
    TORCH_CHECK(to.is_contiguous() && to.nbytes() == num_bytes, num_bytes, " bytes do not fill a tensor of ",
                to.nbytes());
    // Only read, whatever the type says.
    const auto from = at::from_blob(const_cast<uint8_t*>(bytes), to.sizes(), to.options().device(at::kCPU));
    to.copy_(from, /*non_blocking=*/true);
  });
}

fc_status fc_upload(fc_tensor* src, int32_t device_index, fc_tensor** copy, char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    // libtorch keeps the page-locked copy, though nobody refers to it any more, until the device has read it.
    *copy = new at::Tensor(tensor(src).pin_memory().to(device(device_index), /*non_blocking=*/true));
  });
}

fc_status fc_download(fc_tensor* src, fc_tensor** copy, char** message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    const auto& from = tensor(src);
    const auto options = from.options().device(at::kCPU).pinned_memory(!from.is_cpu());
    auto to = at::empty(from.sizes(), options);
    to.copy_(from, /*non_blocking=*/true);
    *copy = new at::Tensor(std::move(to));
  });
}
