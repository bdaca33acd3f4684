// Turns exceptions into a status and a message.
#pragma once

#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

#include <c10/util/Exception.h>
#include <torch/csrc/distributed/c10d/exception.h>
#include <gloo/common/error.h>

#include "fastclip.h"

namespace fastclip {

// Null if there is no memory for it: a lost message must not become a second failure.
inline char* copy_message(const std::string& text) noexcept {
  auto* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy != nullptr) {
    std::memcpy(copy, text.c_str(), text.size() + 1);
  }
  return copy;
}

inline bool contains(const std::string& text, const char* part) noexcept {
  return text.find(part) != std::string::npos;
}

// c10d and gloo have one exception type for broken connections and (mostly) time-outs, so that the words must decide.
inline fc_status network_status(const std::string& text) noexcept {
  if (contains(text, "EADDRINUSE") || contains(text, "ddress already in use")) {
    return FC_ADDRESS_IN_USE;
  }
  if (contains(text, "imed out") || contains(text, "imeout")) {
    return FC_TIMED_OUT;
  }
  return FC_CONNECTION_LOST;
}

// Runs `body`; on an exception stores what it said and returns what it means.
template <typename Body>
fc_status guarded(char** message, const Body& body) noexcept {
  try {
    body();
    return FC_OK;
  } catch (const c10::DistError& error) {
    // The text without the C++ backtrace, which would bury the one line that matters.
    const std::string text = error.what_without_backtrace();
    *message = copy_message(text);
    return network_status(text);
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    *message = copy_message(text);
    return FC_REFUSED;
  } catch (const gloo::IoException& error) {
    const std::string text = error.what();
    *message = copy_message(text);
    return network_status(text);
  } catch (const std::exception& error) {
    // Gloo and c10d also report failed connections and time-outs as plain runtime errors.
    const std::string text = error.what();
    *message = copy_message(text);
    const bool is_timeout = contains(text, "imed out") || contains(text, "imeout");
    const bool is_network = contains(text, "onnect") || contains(text, "ocket") || contains(text, "gloo/transport");
    return is_timeout ? FC_TIMED_OUT : is_network ? FC_CONNECTION_LOST : FC_REFUSED;
  } catch (...) {
    *message = copy_message("an exception of unknown type");
    return FC_REFUSED;
  }
}

}  // namespace fastclip
