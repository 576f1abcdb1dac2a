// extern "C" functions over libtorch's c10d: TCPStore, PrefixStore, ProcessGroupGloo.
//
// Tensors are passed as in tch: pointers to at::Tensor. No exception leaves a function; it returns a status and a text.

#include <ATen/ATen.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/exception.h>
#include <torch/headeronly/version.h>

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

using std::chrono::milliseconds;

struct c10d_store {
  c10::intrusive_ptr<c10d::Store> store;
};
struct c10d_group {
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group;
};
struct c10d_work {
  c10::intrusive_ptr<c10d::Work> work;
};
struct c10d_text {
  char* bytes;
  size_t capacity;
};

namespace {

enum Status { DONE = 0, FAILED = 1, STORE_TIMED_OUT = 2 };

void write(const c10d_text& to, const char* text) {
  if (to.capacity > 0) {
    const size_t length = std::min(std::strlen(text), to.capacity - 1);
    std::memcpy(to.bytes, text, length);
    to.bytes[length] = 0;
  }
}

template <class F>
int guarded(c10d_text error, F&& call) {
  try {
    call();
    return DONE;
  } catch (const c10::DistStoreError& e) {
    write(error, e.what_without_backtrace());
    return STORE_TIMED_OUT;
  } catch (const c10::Error& e) {
    write(error, e.what_without_backtrace());
  } catch (const std::exception& e) {
    write(error, e.what());
  } catch (...) {
    write(error, "an exception of unknown type");
  }
  return FAILED;
}

// Errors are returned; the library would log them again, with backtraces.
void quiet() {
  static std::once_flag once;
  std::call_once(once, [] {
    c10::initLogging();
    FLAGS_caffe2_log_level = 3; // fatal
  });
}

// Threads that are started while this object exists do not preempt a running thread when they wake up.
//
// Gloo's thread polls a connection without sleeping while another thread holds its lock. If it preempts that thread, both
// wait for the scheduler's next tick: 4 ms instead of 0.1 ms for a message of 64 KiB.
class NoPreemption {
#ifdef SCHED_BATCH
 public:
  NoPreemption() {
    sched_param batch{};
    known_ = pthread_getschedparam(pthread_self(), &policy_, &parameters_) == 0 && policy_ == SCHED_OTHER &&
        pthread_setschedparam(pthread_self(), SCHED_BATCH, &batch) == 0;
  }
  ~NoPreemption() {
    if (known_) {
      pthread_setschedparam(pthread_self(), policy_, &parameters_);
    }
  }
  NoPreemption(const NoPreemption&) = delete;
  NoPreemption& operator=(const NoPreemption&) = delete;

 private:
  bool known_ = false;
  int policy_ = 0;
  sched_param parameters_{};
#endif
};

std::vector<at::Tensor> one(const void* tensor) {
  return {*static_cast<const at::Tensor*>(tensor)};
}

} // namespace

extern "C" {

// `listener`: a listening socket, which the store owns and serves; or -1 for a client of `host`:`port`.
int c10d_store_open(
    const char* host,
    uint16_t port,
    int listener,
    int64_t timeout_ms,
    c10d_store** out,
    c10d_text error) {
  return guarded(error, [&] {
    quiet();
    c10d::TCPStoreOptions options;
    options.port = port;
    options.timeout = milliseconds(timeout_ms);
    options.waitWorkers = false;
    if (listener >= 0) {
      options.isServer = true;
      options.masterListenFd = listener;
    }
    *out = new c10d_store{c10::make_intrusive<c10d::TCPStore>(host, options)};
  });
}

// The same store with a prefix, over its own connection: a connection serves one call at a time.
int c10d_store_under(c10d_store* base, const char* prefix, c10d_store** out, c10d_text error) {
  return guarded(error, [&] {
    *out = new c10d_store{c10::make_intrusive<c10d::PrefixStore>(prefix, base->store->clone())};
  });
}

int c10d_store_set(c10d_store* store, const char* key, c10d_text error) {
  return guarded(error, [&] { store->store->set(key, std::vector<uint8_t>{1}); });
}

int c10d_store_wait(c10d_store* store, const char* key, int64_t timeout_ms, c10d_text error) {
  return guarded(error, [&] { store->store->wait({key}, milliseconds(timeout_ms)); });
}

void c10d_store_free(c10d_store* store) {
  delete store;
}

int c10d_group_new(
    c10d_store* store,
    int rank,
    int size,
    const char* address,
    int64_t timeout_ms,
    c10d_group** out,
    c10d_text error) {
  return guarded(error, [&] {
    const NoPreemption scope;
    auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(timeout_ms));
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(address));
    *out = new c10d_group{c10::make_intrusive<c10d::ProcessGroupGloo>(store->store, rank, size, options)};
  });
}

void c10d_group_free(c10d_group* group) {
  delete group;
}

int c10d_send(c10d_group* group, const void* tensor, int to, int tag, c10d_work** out, c10d_text error) {
  return guarded(error, [&] {
    auto tensors = one(tensor);
    *out = new c10d_work{group->group->send(tensors, to, tag)};
  });
}

int c10d_receive(c10d_group* group, const void* tensor, int from, int tag, c10d_work** out, c10d_text error) {
  return guarded(error, [&] {
    auto tensors = one(tensor);
    *out = new c10d_work{group->group->recv(tensors, from, tag)};
  });
}

int c10d_work_wait(c10d_work* work, int64_t timeout_ms, c10d_text error) {
  return guarded(error, [&] { TORCH_CHECK(work->work->wait(milliseconds(timeout_ms)), "aborted"); });
}

void c10d_work_free(c10d_work* work) {
  delete work;
}

uint64_t c10d_libtorch_built_for() {
  return TORCH_ABI_VERSION;
}

size_t c10d_size_of_group() {
  return sizeof(c10d::ProcessGroupGloo);
}

} // extern "C"
