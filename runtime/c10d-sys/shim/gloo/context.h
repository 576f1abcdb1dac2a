// Replaces Gloo's header of this name. c10d's headers only use pointers to a Context.
#pragma once
#include <chrono>

namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds);
};
} // namespace gloo
