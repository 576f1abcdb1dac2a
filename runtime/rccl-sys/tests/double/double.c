// A test double of RCCL and of the HIP runtime.
//
// It implements the functions that this project calls, for processes of one machine with tensors in host memory. Streams
// are threads that execute their work in order; a communicator's ranks communicate through a file that all of them map. A
// transfer completes only when its partner takes part, whatever its size, which is stricter than RCCL. Calls that are
// undefined behaviour in RCCL (with null or freed communicators, sends outside a group, unequal sizes, new work on a stream
// during a launch) are recorded as misuse.
//
// Environment: DOUBLE_DEVICES is the number of devices. DOUBLE_FAULTS are injected errors: `FUNCTION:N:CODE`, separated by
// commas, for the N-th call of a function; the function `async` is the N-th group, whose transfers then fail after their
// launch.
//
// Compiled with -DOLD it lacks the functions that RCCL 5.4.3 lacks; -DDEVICES=0 simulates a machine without devices.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef DEVICES
#define DEVICES 1
#endif

enum { SUCCESS = 0, INTERNAL = 3, ARGUMENT = 4, USAGE = 5, REMOTE = 6, IN_PROGRESS = 7 };
enum { HIP_INVALID = 1, HIP_NO_DEVICE = 100, HIP_NOT_READY = 600 };
enum { MAX_RANKS = 8, CHUNK = 1 << 16, POLLS = 3, BYTES = 1 };

typedef struct { char internal[128]; } UniqueId;
typedef struct { size_t size; unsigned magic, version; int blocking; } Configuration;

// ---- Records: counted calls, misuse, injected errors ----

static pthread_mutex_t records = PTHREAD_MUTEX_INITIALIZER;
static struct { char name[40]; long calls; } counts[64];
static char misuse_text[4096], last_error[256] = "";

static void misuse(const char *format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  pthread_mutex_lock(&records);
  strncat(misuse_text, line, sizeof misuse_text - strlen(misuse_text) - 1);
  strncat(misuse_text, "\n", sizeof misuse_text - strlen(misuse_text) - 1);
  pthread_mutex_unlock(&records);
}

static long *count_of(const char *name) {
  for (int i = 0; i < 64; i++) {
    if (!counts[i].name[0]) strncpy(counts[i].name, name, sizeof counts[i].name - 1);
    if (!strcmp(counts[i].name, name)) return &counts[i].calls;
  }
  abort();
}

// Counts a call, and returns the code with which it must fail, or 0.
static int called(const char *name) {
  pthread_mutex_lock(&records);
  long calls = ++*count_of(name);
  pthread_mutex_unlock(&records);
  const char *faults = getenv("DOUBLE_FAULTS");
  for (const char *fault = faults; fault && *fault; fault = strchr(fault, ',') ? strchr(fault, ',') + 1 : NULL) {
    char function[40];
    long nth;
    int code;
    if (sscanf(fault, "%39[^:]:%ld:%d", function, &nth, &code) == 3 && !strcmp(function, name) && nth == calls) {
      snprintf(last_error, sizeof last_error, "an injected error");
      return code;
    }
  }
  return SUCCESS;
}
#define CALLED() do { int code_ = called(__func__); if (code_) return code_; } while (0)

long double_calls(const char *name) {
  pthread_mutex_lock(&records);
  long calls = *count_of(name);
  pthread_mutex_unlock(&records);
  return calls;
}
const char *double_misuse(void) { return misuse_text; }

// ---- The file through which the ranks of a communicator communicate ----

typedef struct {
  atomic_int full;
  int kind;
  uint64_t total, length;
  char data[CHUNK];
} Box;

typedef struct {
  atomic_int joined;
  atomic_int taken[MAX_RANKS], lost[MAX_RANKS];
  Box box[]; // from × size + to
} Meeting;

typedef struct { int sends, peer, kind, over; void *data; uint64_t total, at; } Transfer;

typedef struct Stream Stream;
typedef struct Event Event;
typedef struct Comm Comm;
typedef struct Work {
  struct Work *next;
  Comm *comm; // of transfers
  int num_transfers;
  Transfer *transfers;
  Event *event; // to wait for, or to record
  int waits;
  long sequence;
} Work;

struct Comm {
  Comm *next;
  Meeting *meeting;
  int rank, size, nonblocking, finalized, freed;
  atomic_int error, aborted, running, polls;
  Work *launch; // passed to its stream after it was polled often enough
  Stream *on;
};

struct Stream {
  Stream *next;
  pthread_mutex_t lock;
  pthread_cond_t more;
  Work *first, **last;
  int ended;
};

struct Event { pthread_mutex_t lock; long recorded; atomic_long done; };

static Comm *communicators;
static Stream *streams, *default_stream;

static Comm *alive(Comm *comm, const char *function) {
  if (!comm) {
    misuse("%s: null communicator", function);
    return NULL;
  }
  for (Comm *known = communicators; known; known = known->next)
    if (known == comm) {
      if (!known->freed) return known;
      misuse("%s: communicator after its end", function);
      return NULL;
    }
  misuse("%s: no communicator", function);
  return NULL;
}

// ---- Work of a stream ----

static void fail(Comm *comm, int code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  atomic_store(&comm->error, code);
}

// Advances a transfer; returns whether anything moved.
static int advance(Comm *comm, Transfer *transfer) {
  Meeting *meeting = comm->meeting;
  int me = comm->rank, peer = transfer->peer;
  Box *box = transfer->sends ? &meeting->box[me * comm->size + peer] : &meeting->box[peer * comm->size + me];
  int lost = atomic_load(&meeting->lost[peer]), full = atomic_load(&box->full);
  uint64_t left = transfer->total - transfer->at; // never 0 at first
  if (transfer->sends && !full) {
    if (!left) return transfer->over = 1;
    if (!lost) {
      box->length = left < CHUNK ? left : CHUNK;
      box->total = transfer->total;
      box->kind = transfer->kind;
      memcpy(box->data, (char *)transfer->data + transfer->at, box->length);
      transfer->at += box->length;
      atomic_store(&box->full, 1);
      return 1;
    }
  } else if (!transfer->sends && full) {
    if (box->total != transfer->total || box->kind != transfer->kind) {
      misuse("rank %d gets %lu bytes (kind %d) from rank %d and expects %lu (kind %d)", me, (unsigned long)box->total,
             box->kind, peer, (unsigned long)transfer->total, transfer->kind);
      fail(comm, USAGE, "sizes differ");
      return 0;
    }
    memcpy((char *)transfer->data + transfer->at, box->data, box->length);
    transfer->at += box->length;
    if (transfer->at == transfer->total) transfer->over = 1;
    atomic_store(&box->full, 0);
    return 1;
  }
  if (lost && !transfer->over && atomic_load(&box->full) == full) fail(comm, REMOTE, "lost rank %d", peer);
  return 0;
}

static void transfer_all(Work *work) {
  Comm *comm = work->comm;
  for (;;) {
    int moved = 0, left = 0;
    for (int i = 0; i < work->num_transfers; i++) {
      Transfer *transfer = &work->transfers[i];
      if (transfer->over) continue;
      left++;
      int first = 1; // first of the transfers between these two ranks in this direction
      for (int j = 0; j < i; j++) {
        Transfer *other = &work->transfers[j];
        if (!other->over && other->peer == transfer->peer && other->sends == transfer->sends) first = 0;
      }
      if (first && !atomic_load(&comm->error) && !atomic_load(&comm->aborted)) moved += advance(comm, transfer);
    }
    if (!left) break;
    if (atomic_load(&comm->aborted)) {
      for (int i = 0; i < work->num_transfers; i++) {
        Transfer *transfer = &work->transfers[i];
        if (!transfer->over)
          misuse("unfinished: rank %d, %s of %lu bytes with rank %d", comm->rank, transfer->sends ? "send" : "receive",
                 (unsigned long)transfer->total, transfer->peer);
      }
      return;
    }
    if (!moved) usleep(50);
  }
}

static void *run(void *argument) {
  Stream *stream = argument;
  for (;;) {
    pthread_mutex_lock(&stream->lock);
    while (!stream->first && !stream->ended) pthread_cond_wait(&stream->more, &stream->lock);
    Work *work = stream->first;
    if (work && !(stream->first = work->next)) stream->last = &stream->first;
    pthread_mutex_unlock(&stream->lock);
    if (!work) return NULL;
    if (work->comm) {
      transfer_all(work);
      atomic_fetch_sub(&work->comm->running, 1);
    } else if (work->waits) {
      while (atomic_load(&work->event->done) < work->sequence) usleep(50);
    } else {
      atomic_store(&work->event->done, work->sequence);
    }
    free(work->transfers);
    free(work);
  }
}

static Stream *new_stream(void) {
  Stream *stream = calloc(1, sizeof *stream);
  pthread_mutex_init(&stream->lock, NULL);
  pthread_cond_init(&stream->more, NULL);
  stream->last = &stream->first;
  stream->next = streams;
  streams = stream;
  pthread_t thread;
  pthread_create(&thread, NULL, run, stream);
  pthread_detach(thread);
  return stream;
}

static Stream *known(Stream *stream, const char *function) {
  if (!stream) return default_stream ? default_stream : (default_stream = new_stream());
  for (Stream *other = streams; other; other = other->next)
    if (other == stream && !other->ended) return stream;
  misuse("%s: no stream", function);
  return NULL;
}

static void give(Stream *stream, Work *work) {
  pthread_mutex_lock(&stream->lock);
  *stream->last = work;
  stream->last = &work->next;
  pthread_cond_signal(&stream->more);
  pthread_mutex_unlock(&stream->lock);
}

static void not_during_a_launch(Stream *stream, const char *function) {
  for (Comm *comm = communicators; comm; comm = comm->next)
    if (!comm->freed && comm->launch && comm->on == stream) misuse("%s: while a launch is under way", function);
}

// ---- The runtime ----

int hipGetDeviceCount(int *count) {
  CALLED();
  const char *devices = getenv("DOUBLE_DEVICES");
  *count = devices ? atoi(devices) : DEVICES;
  return *count ? SUCCESS : HIP_NO_DEVICE;
}
int hipRuntimeGetVersion(int *version) { CALLED(); *version = 60342131; return SUCCESS; }
const char *hipGetErrorString(int code) {
  return code == HIP_NO_DEVICE ? "no ROCm-capable device is detected" : code == HIP_INVALID ? "invalid argument" : "unknown";
}
int hipSetDevice(int device) { CALLED(); return device == 0 ? SUCCESS : HIP_INVALID; }

int hipStreamCreateWithFlags(Stream **stream, unsigned flags) {
  CALLED();
  if (flags != 1) misuse("hipStreamCreateWithFlags: flags %u", flags);
  *stream = new_stream();
  return SUCCESS;
}
int hipStreamDestroy(Stream *stream) {
  CALLED();
  if (!stream || !known(stream, __func__)) return HIP_INVALID;
  pthread_mutex_lock(&stream->lock);
  stream->ended = 1; // its thread ends after all its work; the stream is kept as ended
  pthread_cond_signal(&stream->more);
  pthread_mutex_unlock(&stream->lock);
  return SUCCESS;
}
int hipEventCreateWithFlags(Event **event, unsigned flags) {
  CALLED();
  if (flags != 2) misuse("hipEventCreateWithFlags: flags %u", flags);
  *event = calloc(1, sizeof **event);
  return SUCCESS;
}
int hipEventDestroy(Event *event) { CALLED(); (void)event; return SUCCESS; } // streams may still reach it
int hipEventQuery(Event *event) {
  CALLED();
  return atomic_load(&event->done) >= event->recorded ? SUCCESS : HIP_NOT_READY;
}
static int at_event(Stream *stream, Event *event, int waits, const char *function) {
  if (!(stream = known(stream, function))) return HIP_INVALID;
  not_during_a_launch(stream, function);
  Work *work = calloc(1, sizeof *work);
  work->event = event;
  work->waits = waits;
  work->sequence = waits ? event->recorded : ++event->recorded;
  give(stream, work);
  return SUCCESS;
}
int hipEventRecord(Event *event, Stream *stream) { CALLED(); return at_event(stream, event, 0, __func__); }
int hipStreamWaitEvent(Stream *stream, Event *event, unsigned flags) {
  CALLED();
  (void)flags;
  return at_event(stream, event, 1, __func__);
}

// ---- Communicators ----

int ncclGetVersion(int *version) { CALLED(); *version = 22105; return SUCCESS; }
const char *ncclGetErrorString(int code) {
  static const char *texts[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error",
                                "invalid argument", "invalid usage", "remote process exited or there was a network error",
                                "operation in progress"};
  return code >= 0 && code < 8 ? texts[code] : "unknown result code";
}

// The id is the name of a file next to the double itself.
int ncclGetUniqueId(UniqueId *id) {
  CALLED();
  Dl_info own;
  if (!dladdr((void *)misuse_text, &own)) return INTERNAL;
  int folder = (int)(strrchr(own.dli_fname, '/') - own.dli_fname);
  snprintf(id->internal, sizeof id->internal, "%.*s/meeting-XXXXXX", folder, own.dli_fname);
  int file = mkstemp(id->internal);
  if (file < 0) return INTERNAL;
  close(file);
  return SUCCESS;
}

static int join(Comm **out, int size, UniqueId id, int rank, int nonblocking) {
  *out = NULL;
  if (rank < 0 || rank >= size || size > MAX_RANKS) return ARGUMENT;
  size_t length = sizeof(Meeting) + sizeof(Box) * size * size;
  int file = open(id.internal, O_RDWR);
  if (file < 0 || ftruncate(file, length)) return INTERNAL;
  Comm *comm = calloc(1, sizeof *comm);
  comm->meeting = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (comm->meeting == MAP_FAILED) return INTERNAL;
  comm->rank = rank, comm->size = size, comm->nonblocking = nonblocking;
  if (atomic_exchange(&comm->meeting->taken[rank], 1)) misuse("rank %d has joined twice", rank);
  if (atomic_fetch_add(&comm->meeting->joined, 1) + 1 == size) unlink(id.internal);
  comm->next = communicators;
  communicators = comm;
  *out = comm;
  if (nonblocking) return IN_PROGRESS;
  while (atomic_load(&comm->meeting->joined) < size) usleep(100);
  return SUCCESS;
}

int ncclCommInitRank(Comm **comm, int size, UniqueId id, int rank) { CALLED(); return join(comm, size, id, rank, 0); }
#ifndef OLD
int ncclCommInitRankConfig(Comm **comm, int size, UniqueId id, int rank, Configuration *how) {
  CALLED();
  if (how->magic != 0xcafebeef || how->size < sizeof *how) return ARGUMENT;
  return join(comm, size, id, rank, !how->blocking);
}
const char *ncclGetLastError(Comm *comm) { (void)comm; return last_error; }
#endif

int ncclCommGetAsyncError(Comm *comm, int *state) {
  CALLED();
  if (!(comm = alive(comm, __func__))) return ARGUMENT;
  if (atomic_load(&comm->meeting->joined) < comm->size) return *state = IN_PROGRESS, SUCCESS;
  if (atomic_load(&comm->polls) > 0 && atomic_fetch_sub(&comm->polls, 1) > 1) return *state = IN_PROGRESS, SUCCESS;
  if (comm->launch) {
    give(comm->on, comm->launch);
    comm->launch = NULL;
  }
  *state = atomic_load(&comm->error);
  return SUCCESS;
}

static void end(Comm *comm) {
  for (int polls = 0; atomic_load(&comm->running); polls++) {
    if (polls == 50000) return misuse("a communicator does not end: its work is queued behind another's");
    usleep(100);
  }
  atomic_store(&comm->meeting->lost[comm->rank], 1);
  comm->freed = 1;
}
int ncclCommAbort(Comm *comm) {
  CALLED();
  if (!(comm = alive(comm, __func__))) return ARGUMENT;
  if (comm->launch) atomic_fetch_sub(&comm->running, 1); // never passed to its stream
  comm->launch = NULL;
  atomic_store(&comm->aborted, 1);
  end(comm);
  return SUCCESS;
}
#ifndef OLD
int ncclCommFinalize(Comm *comm) {
  CALLED();
  if (!(comm = alive(comm, __func__))) return ARGUMENT;
  if (atomic_load(&comm->running)) misuse("ncclCommFinalize: transfers are under way");
  comm->finalized = 1;
  atomic_store(&comm->polls, POLLS);
  return comm->nonblocking ? IN_PROGRESS : SUCCESS;
}
#endif
int ncclCommDestroy(Comm *comm) {
  CALLED();
  if (!(comm = alive(comm, __func__))) return ARGUMENT;
  if (comm->nonblocking && (!comm->finalized || atomic_load(&comm->polls)))
    misuse("ncclCommDestroy: not finalized, or finalizing");
  end(comm);
  return SUCCESS;
}

// ---- Groups ----

static _Thread_local int depth, num_grouped;
static _Thread_local Transfer grouped[64];
static _Thread_local Comm *group_comm;
static _Thread_local Stream *group_stream;

static int launch(Comm *comm, Stream *stream, Work *work) {
  work->comm = comm;
  atomic_fetch_add(&comm->running, 1);
  int late = called("async");
  if (late) fail(comm, late, "an injected error");
  if (!comm->nonblocking) return give(stream, work), SUCCESS;
  comm->launch = work;
  comm->on = stream;
  atomic_store(&comm->polls, POLLS);
  return IN_PROGRESS;
}

static int usable(Comm *comm, Stream **stream, const char *function) {
  if (!alive(comm, function)) return ARGUMENT;
  if (!(*stream = known(*stream, function))) return ARGUMENT;
  if (atomic_load(&comm->meeting->joined) < comm->size || atomic_load(&comm->polls))
    misuse("%s: another call is under way", function);
  not_during_a_launch(*stream, function);
  return SUCCESS;
}

int ncclGroupStart(void) { CALLED(); depth++; return SUCCESS; }

int ncclGroupEnd(void) {
  CALLED();
  if (depth-- != 1) return misuse("ncclGroupEnd: no group, or one inside another"), depth = 0, USAGE;
  if (!num_grouped) return misuse("ncclGroupEnd: empty group"), 1;
  Work *work = calloc(1, sizeof *work);
  work->num_transfers = num_grouped;
  work->transfers = calloc(num_grouped, sizeof(Transfer));
  memcpy(work->transfers, grouped, num_grouped * sizeof(Transfer));
  Comm *comm = group_comm;
  num_grouped = 0, group_comm = NULL;
  return launch(comm, group_stream, work);
}

static int group(int sends, void *data, size_t count, int type, int peer, Comm *comm, Stream *stream, const char *function) {
  int code = usable(comm, &stream, function);
  if (code) return code;
  if (!depth) misuse("%s: outside a group", function);
  if (num_grouped && (group_comm != comm || group_stream != stream)) misuse("%s: mixed group", function);
  if (peer < 0 || peer >= comm->size || peer == comm->rank || type != 1 || !count || !data || num_grouped == 64)
    return misuse("%s: rank %d, type %d, %lu bytes", function, peer, type, (unsigned long)count), ARGUMENT;
  group_comm = comm, group_stream = stream;
  grouped[num_grouped++] = (Transfer){.sends = sends, .peer = peer, .kind = BYTES, .data = data, .total = count};
  return SUCCESS;
}
int ncclSend(const void *data, size_t count, int type, int peer, Comm *comm, Stream *stream) {
  CALLED();
  return group(1, (void *)data, count, type, peer, comm, stream, __func__);
}
int ncclRecv(void *data, size_t count, int type, int peer, Comm *comm, Stream *stream) {
  CALLED();
  return group(0, data, count, type, peer, comm, stream, __func__);
}
