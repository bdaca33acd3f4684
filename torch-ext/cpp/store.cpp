// The key-value store through which ranks find each other.

#include <chrono>
#include <string>
#include <vector>

#include "guard.h"
#include "handles.h"

using fastclip::guarded;

namespace {

std::vector<uint8_t> bytes(const uint8_t* data, size_t len) {
  return len == 0 ? std::vector<uint8_t>() : std::vector<uint8_t>(data, data + len);
}

std::vector<std::string> strings(const char* const* texts, const size_t* lens, size_t num_texts) {
  std::vector<std::string> result;
  result.reserve(num_texts);
  for (size_t i = 0; i < num_texts; ++i) {
    result.emplace_back(texts[i], lens[i]);
  }
  return result;
}

void hand_out(const std::vector<uint8_t>& from, uint8_t** value, size_t* value_len) {
  // One byte more than needed, as malloc(0) may return null.
  auto* copy = static_cast<uint8_t*>(std::malloc(from.size() + 1));
  if (copy == nullptr) {
    throw std::bad_alloc();
  }
  std::copy(from.begin(), from.end(), copy);
  *value = copy;
  *value_len = from.size();
}

}  // namespace

void fc_message_free(char* message) {
  std::free(message);
}

void fc_bytes_free(uint8_t* bytes) {
  std::free(bytes);
}

fc_status fc_store_new(const char* host, size_t host_len, uint16_t port, int32_t is_server, int64_t timeout_ms,
                       fc_store** store, char** message) {
  return guarded(message, [&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = is_server != 0;
    // Waiting for workers here would time out without saying who is missing; the caller does it by name.
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    *store = new fc_store{c10::make_intrusive<c10d::TCPStore>(std::string(host, host_len), options)};
  });
}

void fc_store_free(fc_store* store) {
  delete store;
}

uint16_t fc_store_port(const fc_store* store) {
  return store->store->getPort();
}

fc_status fc_store_set(fc_store* store, const char* key, size_t key_len, const uint8_t* value, size_t value_len,
                       char** message) {
  return guarded(message, [&] { store->store->set(std::string(key, key_len), bytes(value, value_len)); });
}

fc_status fc_store_compare_set(fc_store* store, const char* key, size_t key_len, const uint8_t* expected,
                               size_t expected_len, const uint8_t* desired, size_t desired_len, uint8_t** value,
                               size_t* value_len, char** message) {
  return guarded(message, [&] {
    hand_out(store->store->compareSet(std::string(key, key_len), bytes(expected, expected_len),
                                      bytes(desired, desired_len)),
             value, value_len);
  });
}

fc_status fc_store_get(fc_store* store, const char* key, size_t key_len, uint8_t** value, size_t* value_len,
                       char** message) {
  return guarded(message, [&] { hand_out(store->store->get(std::string(key, key_len)), value, value_len); });
}

fc_status fc_store_add(fc_store* store, const char* key, size_t key_len, int64_t amount, int64_t* sum,
                       char** message) {
  return guarded(message, [&] { *sum = store->store->add(std::string(key, key_len), amount); });
}

fc_status fc_store_check(fc_store* store, const char* const* keys, const size_t* key_lens, size_t num_keys,
                         int32_t* all_set, char** message) {
  return guarded(message, [&] { *all_set = store->store->check(strings(keys, key_lens, num_keys)) ? 1 : 0; });
}

fc_status fc_store_wait(fc_store* store, const char* const* keys, const size_t* key_lens, size_t num_keys,
                        int64_t timeout_ms, char** message) {
  return guarded(message, [&] {
    store->store->wait(strings(keys, key_lens, num_keys), std::chrono::milliseconds(timeout_ms));
  });
}
