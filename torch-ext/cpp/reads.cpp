// Which operators read values of tensors: where the tensors lie on a GPU, the host waits for each of them.

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include <ATen/record_function.h>

#include "guard.h"

using fastclip::guarded;

struct fc_reads {
  at::CallbackHandle handle = at::INVALID_CALLBACK_HANDLE;
  std::string names;
};

namespace {

// All that hand a number to the host (`item`), or whose result has a shape that depends on values.
constexpr std::array<std::string_view, 10> kReads{
    "aten::_local_scalar_dense", "aten::equal",      "aten::nonzero",    "aten::masked_select",      "aten::_unique",
    "aten::_unique2",            "aten::unique_dim", "aten::bincount",   "aten::unique_consecutive", "aten::repeat_interleave",
};

thread_local fc_reads* current = nullptr;

std::unique_ptr<at::ObserverContext> note(const at::RecordFunction& function) {
  const std::string_view name = function.name();
  if (current != nullptr && std::find(kReads.begin(), kReads.end(), name) != kReads.end()) {
    current->names.append(current->names.empty() ? "" : " ").append(name);
  }
  return nullptr;
}

}  // namespace

fc_status fc_reads_new(fc_reads** reads, char** message) {
  return guarded(message, [&] {
    TORCH_CHECK(current == nullptr, "what this thread reads is noted already");
    auto made = std::make_unique<fc_reads>();
    made->handle = at::addThreadLocalCallback(at::RecordFunctionCallback(note).scopes({at::RecordScope::FUNCTION}));
    current = made.get();
    *reads = made.release();
  });
}

fc_status fc_reads_names(fc_reads* reads, uint8_t** text, size_t* text_len, char** message) {
  return guarded(message, [&] {
    // One byte more, since nothing of no bytes may be nothing at all.
    auto* bytes = static_cast<uint8_t*>(std::malloc(reads->names.size() + 1));
    TORCH_CHECK(bytes != nullptr, "no memory for the names of operators");
    std::memcpy(bytes, reads->names.c_str(), reads->names.size() + 1);
    *text = bytes;
    *text_len = reads->names.size();
  });
}

void fc_reads_free(fc_reads* reads) {
  current = nullptr;
  char* message = nullptr;
  guarded(&message, [&] { at::removeCallback(reads->handle); });
  fc_message_free(message);
  delete reads;
}
