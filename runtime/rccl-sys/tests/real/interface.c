// The vendors' headers against the table and the types of this crate. Compiling it is the test; running it prints the
// header's version.
#include <stddef.h>
#include <stdio.h>
#ifdef ROCM
#include <rccl/rccl.h>
#define RUNTIME(name) hip##name
#else
#include <nccl.h>
#define RUNTIME(name) cuda##name
#endif

typedef RUNTIME(Stream_t) Stream;
typedef RUNTIME(Event_t) Event;
typedef RUNTIME(Error_t) Error;
typedef ncclResult_t Result;
typedef ncclComm_t Comm;

#define IS(function, type) _Static_assert(__builtin_types_compatible_p(__typeof__(function), type), #function)
IS(ncclGetVersion, Result(int *));
IS(ncclGetErrorString, const char *(Result));
IS(ncclGetLastError, const char *(Comm));
IS(ncclGetUniqueId, Result(ncclUniqueId *));
IS(ncclCommInitRank, Result(Comm *, int, ncclUniqueId, int));
IS(ncclCommGetAsyncError, Result(Comm, Result *));
IS(ncclCommAbort, Result(Comm));
IS(ncclCommDestroy, Result(Comm));
IS(ncclGroupStart, Result());
IS(ncclGroupEnd, Result());
IS(ncclSend, Result(const void *, size_t, ncclDataType_t, int, Comm, Stream));
IS(ncclRecv, Result(void *, size_t, ncclDataType_t, int, Comm, Stream));
IS(RUNTIME(GetDeviceCount), Error(int *));
IS(RUNTIME(RuntimeGetVersion), Error(int *));
IS(RUNTIME(GetErrorString), const char *(Error));
IS(RUNTIME(SetDevice), Error(int));
IS(RUNTIME(StreamCreateWithFlags), Error(Stream *, unsigned));
IS(RUNTIME(StreamDestroy), Error(Stream));
IS(RUNTIME(StreamWaitEvent), Error(Stream, Event, unsigned));
IS(RUNTIME(EventCreateWithFlags), Error(Event *, unsigned));
IS(RUNTIME(EventRecord), Error(Event, Stream));
IS(RUNTIME(EventQuery), Error(Event));
IS(RUNTIME(EventDestroy), Error(Event));

// RUST_…: this crate's numbers, defined by the test.
#define EQUALS(left, right) _Static_assert((left) == (right), #left)
EQUALS(sizeof(ncclUniqueId), RUST_UNIQUE_ID);
EQUALS(sizeof(Result), sizeof(int));
EQUALS(sizeof(Error), sizeof(int));
EQUALS(ncclUint8, RUST_U8);
EQUALS(ncclSuccess, RUST_SUCCESS);
EQUALS(ncclRemoteError, RUST_REMOTE_ERROR);
EQUALS(RUNTIME(Success), RUST_SUCCESS);
EQUALS(RUNTIME(ErrorNotReady), RUST_NOT_READY);
EQUALS(RUNTIME(ErrorNoDevice), RUST_NO_DEVICE);
EQUALS(RUNTIME(ErrorInsufficientDriver), RUST_INSUFFICIENT_DRIVER);
EQUALS(RUNTIME(StreamNonBlocking), RUST_STREAM_NON_BLOCKING);
EQUALS(RUNTIME(EventDisableTiming), RUST_EVENT_DISABLE_TIMING);
#if NCCL_VERSION_CODE >= 21400
IS(ncclCommInitRankConfig, Result(Comm *, int, ncclUniqueId, int, ncclConfig_t *));
IS(ncclCommFinalize, Result(Comm));
EQUALS(ncclInProgress, RUST_IN_PROGRESS);
EQUALS(offsetof(ncclConfig_t, size), RUST_CONFIG_SIZE);
EQUALS(offsetof(ncclConfig_t, magic), RUST_CONFIG_MAGIC);
EQUALS(offsetof(ncclConfig_t, version), RUST_CONFIG_VERSION);
EQUALS(offsetof(ncclConfig_t, blocking), RUST_CONFIG_BLOCKING);
EQUALS(NCCL_CONFIG_UNDEF_INT, RUST_CONFIG_UNUSED);
static const ncclConfig_t defaults = NCCL_CONFIG_INITIALIZER;
#endif

int main(void) {
#if NCCL_VERSION_CODE >= 21400
  if (defaults.magic != RUST_MAGIC || defaults.version != NCCL_VERSION_CODE) return 1;
#endif
  return printf("%d\n", NCCL_VERSION_CODE) < 0;
}
