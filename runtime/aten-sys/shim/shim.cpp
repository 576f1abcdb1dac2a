// extern "C" functions over ATen: fused attention, the switches of fixed arithmetic, the current stream, memory figures.
//
// Tensors are passed as in tch: pointers to at::Tensor; results are new ones, which the caller frees. No exception leaves
// a function; it returns 0, or 1 and a text.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_backward.h>
#include <ATen/ops/empty.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstring>
#include <exception>

struct aten_text {
  char* bytes;
  size_t capacity;
};

namespace {

void write(const aten_text& to, const char* text) {
  if (to.capacity > 0) {
    const size_t length = std::min(std::strlen(text), to.capacity - 1);
    std::memcpy(to.bytes, text, length);
    to.bytes[length] = 0;
  }
}

template <class F>
int guarded(aten_text error, F&& call) {
  try {
    call();
    return 0;
  } catch (const c10::Error& e) {
    write(error, e.what_without_backtrace());
  } catch (const std::exception& e) {
    write(error, e.what());
  } catch (...) {
    write(error, "an exception of unknown type");
  }
  return 1;
}

const at::Tensor& of(const void* tensor) {
  return *static_cast<const at::Tensor*>(tensor);
}

void* returned(at::Tensor tensor) {
  return new at::Tensor(std::move(tensor));
}

c10::Device device(int index) {
  return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
}

} // namespace

extern "C" {

int aten_flash_forward(
    const void* query, const void* key, const void* value, double scale, void** out, void** lse, aten_text error) {
  return guarded(error, [&] {
    auto result = at::_scaled_dot_product_flash_attention(of(query), of(key), of(value), 0.0, true, false, scale);
    *out = returned(std::get<0>(result));
    *lse = returned(std::get<1>(result));
  });
}

int aten_flash_backward(
    const void* dout, const void* query, const void* key, const void* value, const void* out, const void* lse,
    double scale, void** dquery, void** dkey, void** dvalue, aten_text error) {
  return guarded(error, [&] {
    const auto& q = of(query);
    // Without dropout no random numbers are drawn; the state only has to be there.
    const auto state = at::empty({2}, q.options().dtype(at::kUInt64));
    auto result = at::_scaled_dot_product_flash_attention_backward(
        of(dout), q, of(key), of(value), of(out), of(lse), at::Tensor(), at::Tensor(), q.size(2), of(key).size(2), 0.0,
        true, state, at::empty({0}, q.options().dtype(at::kUInt64)), scale);
    *dquery = returned(std::get<0>(result));
    *dkey = returned(std::get<1>(result));
    *dvalue = returned(std::get<2>(result));
  });
}

int aten_fix_arithmetic(aten_text error) {
  return guarded(error, [] {
    auto& context = at::globalContext();
    context.setDeterministicAlgorithms(true, false);
    context.setDeterministicFillUninitializedMemory(false);
    context.setAllowTF32CuBLAS(false);
    context.setAllowTF32CuDNN(false);
    // Sums over parts of the inner dimension are in f32. Without such parts cuBLAS has no kernel for some shapes, and libtorch
    // refuses the setting.
    context.setAllowBF16ReductionCuBLAS(false, true);
    context.setAllowFP16ReductionCuBLAS(false, true);
    context.setAllowFP16AccumulationCuBLAS(false);
    context.setBlasPreferredBackend(at::BlasBackend::Cublas);
  });
}

int aten_stream(int index, void** stream, aten_text error) {
  return guarded(error, [&] {
    const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    *stream = guard.getStream(device(index)).native_handle();
  });
}

// figures: bytes of tensors now, at most; bytes taken from the device now, at most.
int aten_memory(int index, int64_t figures[4], aten_text error) {
  return guarded(error, [&] {
    const auto stats = c10::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(device(index).index());
    figures[0] = stats.allocated_bytes[0].current;
    figures[1] = stats.allocated_bytes[0].peak;
    figures[2] = stats.reserved_bytes[0].current;
    figures[3] = stats.reserved_bytes[0].peak;
  });
}

} // extern "C"
