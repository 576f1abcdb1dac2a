// Runs the source of the kernels on a CPU: every thread of a block is a fiber, one block after the other.
//
// A fiber runs until it waits: at a barrier for all fibers of its block, at a shuffle for those of its group of 32. Lanes of
// a group have to reach the same shuffles in the same order.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

struct Index {
  unsigned int x, y, z;
};
extern Index threadIdx, blockIdx, blockDim;

#define __global__
#define __device__
#define __forceinline__ inline
// Blocks run one after the other.
#define __shared__ static

void wait_for_block();
float exchange(float value, int mask);
#define __syncthreads() wait_for_block()
#define __shfl_xor_sync(lanes, value, mask) exchange(value, mask)

#define __expf(value) std::exp(static_cast<float>(value))
inline float __fdividef(float a, float b) {
  return a / b;
}
inline float __uint_as_float(unsigned int bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline unsigned int __float_as_uint(float value) {
  unsigned int bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

// A kernel that takes its arguments as a driver does: an array of their addresses.
typedef void (*Kernel)(void** arguments);

template <class F>
struct Unpack;
template <class... A>
struct Unpack<void(A...)> {
  template <size_t... I>
  static void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(arguments[I])...);
  }
  static void call(void (*kernel)(A...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<A...>());
  }
};

struct Entry {
  const char* name;
  Kernel kernel;
};
#define ENTRY(text, function) \
  {text, [](void** arguments) { Unpack<decltype(function)>::call(function, arguments); }}
