// See ../algorithm.h. The exceptions are declared with their bases, because catching needs those: handlers match by
// the name of a type, which is all that the two sides share.
#pragma once

#include <stdexcept>

namespace gloo {

struct Exception : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Thrown for broken connections and, with words that say so, for time-outs.
struct IoException : public Exception {
  using Exception::Exception;
};

}  // namespace gloo
