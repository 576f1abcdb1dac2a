// Stands in for Gloo's header of this name. c10d's headers hold both classes by pointer alone.
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
