// Replaces Gloo's header of this name. c10d's headers only use pointers to both classes.
#pragma once

namespace gloo {
namespace transport {
class Device;
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer() = 0;
};
} // namespace transport
} // namespace gloo
