#define _GNU_SOURCE /* memfd_create */
#include "harness.h"

#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <tvm/ffi/c_api.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <unistd.h>

#include "functions.h"
#include "handle.h"
#include "protocol.h"

static uint64_t nanoseconds;
static int probe_runs;

uint64_t clock_nanoseconds(void) { return nanoseconds; }

int __wrap_clock_gettime(clockid_t clock, struct timespec* now);
int __wrap_nanosleep(const struct timespec* time, struct timespec* left);

int __wrap_clock_gettime(clockid_t clock, struct timespec* now) {
  CHECK(clock == CLOCK_MONOTONIC);
  *now = (struct timespec){(time_t)(nanoseconds / 1000000000), (long)(nanoseconds % 1000000000)};
  return 0;
}

int __wrap_nanosleep(const struct timespec* time, struct timespec* left) {
  CHECK(time->tv_sec >= 0 && time->tv_nsec >= 0 && time->tv_nsec < 1000000000 && left == NULL);
  nanoseconds += (uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_nsec;
  return 0;
}

void script_bytes(struct script* script, const void* data, size_t size) {
  CHECK(size <= SCRIPT_BYTES - script->size);
  if (size != 0) memcpy(script->bytes + script->size, data, size);
  script->size += size;
}

void script_i32(struct script* script, int32_t value) { script_bytes(script, &value, sizeof value); }

void script_u64(struct script* script, uint64_t value) { script_bytes(script, &value, sizeof value); }

void script_begin(struct script* script, int32_t code) {
  script->packet = script->size;
  script_u64(script, 0);
  script_i32(script, code);
}

void script_end(struct script* script) {
  const uint64_t size = script->size - script->packet - sizeof size;
  memcpy(script->bytes + script->packet, &size, sizeof size);
}

void script_word(struct script* script, int32_t type_index, uint64_t value) {
  script_i32(script, type_index);
  script_u64(script, value);
}

void script_text(struct script* script, const char* text) {
  script_word(script, kTVMFFIRawStr, strlen(text));
  script_bytes(script, text, strlen(text));
}

void script_bare_tensor(struct script* script, uint64_t memory, int32_t dimensions, const int64_t* shape,
                        uint64_t byte_offset) {
  const DLDataType int8 = {.code = kDLInt, .bits = 8, .lanes = 1};
  script_u64(script, memory);
  script_i32(script, kDLCPU);
  script_i32(script, 0);
  script_i32(script, dimensions);
  script_bytes(script, &int8, sizeof int8);
  if (dimensions > 0) script_bytes(script, shape, (size_t)dimensions * sizeof *shape);
  script_u64(script, byte_offset);
}

void script_tensor(struct script* script, uint64_t memory, int32_t dimensions, const int64_t* shape,
                   uint64_t byte_offset) {
  script_i32(script, kTVMFFIDLTensorPtr);
  script_bare_tensor(script, memory, dimensions, shape, byte_offset);
}

void script_init(struct script* script) {
  script_begin(script, RPC_INIT_SERVER);
  script_u64(script, strlen(RPC_PROTOCOL_VERSION));
  script_bytes(script, RPC_PROTOCOL_VERSION, strlen(RPC_PROTOCOL_VERSION));
  script_i32(script, 0);
  script_end(script);
}

void script_alloc(struct script* script, uint64_t size) {
  script_begin(script, RPC_DEV_ALLOC_DATA);
  script_i32(script, 4);
  script_word(script, kTVMFFIDevice, kDLCPU);
  script_word(script, kTVMFFIInt, size);
  script_word(script, kTVMFFIInt, 64);
  script_word(script, kTVMFFIDataType, 0);
  script_end(script);
}

void script_free(struct script* script, uint64_t memory) {
  script_begin(script, RPC_DEV_FREE_DATA);
  script_i32(script, 2);
  script_word(script, kTVMFFIDevice, kDLCPU);
  script_word(script, kTVMFFIOpaquePtr, memory);
  script_end(script);
}

void script_upload(struct script* script, uint64_t memory, uint64_t offset, const void* data, size_t size) {
  const int64_t shape[] = {(int64_t)size};
  script_begin(script, RPC_COPY_TO_REMOTE);
  script_bare_tensor(script, memory, 1, shape, offset);
  script_u64(script, size);
  script_bytes(script, data, size);
  script_end(script);
}

void script_download(struct script* script, uint64_t memory, uint64_t offset, uint64_t size) {
  const int64_t shape[] = {(int64_t)size};
  script_begin(script, RPC_COPY_FROM_REMOTE);
  script_bare_tensor(script, memory, 1, shape, offset);
  script_u64(script, size);
  script_end(script);
}

void script_find(struct script* script, const char* name) {
  script_begin(script, RPC_GET_GLOBAL_FUNC);
  script_i32(script, 1);
  script_text(script, name);
  script_end(script);
}

void script_time_evaluator(struct script* script, const char* name, const int64_t settings[7]) {
  script_begin(script, RPC_CALL_FUNC);
  script_u64(script, function_find("runtime.RPCTimeEvaluator"));
  script_i32(script, 12);
  script_word(script, kTVMFFIModule, handle_make(HANDLE_MODULE, 1));
  script_text(script, name);
  script_word(script, kTVMFFIInt, kDLCPU);
  script_word(script, kTVMFFIInt, 0);
  for (int i = 0; i < 7; ++i) script_word(script, kTVMFFIInt, (uint64_t)settings[i]);
  script_text(script, "");
  script_end(script);
}

uint64_t nth_time_evaluator(uint32_t n) { return handle_make(HANDLE_TIME_EVALUATOR, UINT64_C(1) << 32 | n); }

uint64_t nth_memory(uint32_t n) { return handle_make(HANDLE_MEMORY, UINT64_C(1) << 32 | n); }

static int memory_file(const unsigned char* data, size_t size) {
  const int fd = memfd_create("test", 0);
  CHECK(fd >= 0);
  CHECK(write(fd, data, size) == (ssize_t)size);
  CHECK(lseek(fd, 0, SEEK_SET) == 0);
  return fd;
}

void serve(const unsigned char* requests, size_t size, uint64_t memory_limit, struct replies* replies) {
  static struct server server;
  const int in = memory_file(requests, size);
  const int out = memory_file(NULL, 0);
  server_init(&server, in, out, memory_limit);
  probe_runs = 0;
  server.link.fd = memory_file((const unsigned char*)"connection", 10);
  while (server_serve_one(&server)) {
  }
  const ssize_t count = pread(out, replies->bytes, REPLIES_BYTES, 0);
  CHECK(count >= 0 && count < REPLIES_BYTES);
  replies->size = (size_t)count;
  server_destroy(&server);
  close(in);
  close(out);
  reply_count(replies);
}

/* The offset of the packet after the one at `offset`. */
static size_t next_reply(const struct replies* replies, size_t offset) {
  uint64_t size = 0;
  CHECK(replies->size - offset >= sizeof size);
  memcpy(&size, replies->bytes + offset, sizeof size);
  CHECK(size >= sizeof(int32_t) && size <= replies->size - offset - sizeof size);
  return offset + sizeof size + (size_t)size;
}

size_t reply_count(const struct replies* replies) {
  size_t count = 0;
  for (size_t offset = 0; offset < replies->size; offset = next_reply(replies, offset)) ++count;
  return count;
}

int32_t reply_code(const struct replies* replies, size_t n, const unsigned char** data, size_t* size) {
  size_t offset = 0;
  for (; n != 0; --n) offset = next_reply(replies, offset);
  const size_t end = next_reply(replies, offset);
  int32_t code = 0;
  memcpy(&code, replies->bytes + offset + sizeof(uint64_t), sizeof code);
  *data = replies->bytes + offset + sizeof(uint64_t) + sizeof code;
  *size = end - offset - sizeof(uint64_t) - sizeof code;
  return code;
}

void check_exception(const struct replies* replies, size_t n, const char* text) {
  enum { HEAD = 4 + 4 + 8 }; /* number of values, type, length */
  const unsigned char* data = NULL;
  size_t size = 0;
  CHECK(reply_code(replies, n, &data, &size) == RPC_EXCEPTION);
  CHECK(size >= HEAD);
  if (memmem(data + HEAD, size - HEAD, text, strlen(text)) != NULL) return;
  fprintf(stderr, "expected '%s' in '%.*s'\n", text, (int)(size - HEAD), (const char*)data + HEAD);
  exit(1);
}

uint64_t returned_word(const struct replies* replies, size_t n) {
  const unsigned char* data = NULL;
  size_t size = 0;
  CHECK(reply_code(replies, n, &data, &size) == RPC_RETURN);
  CHECK(size == 4 + 4 + 8);
  uint64_t word = 0;
  memcpy(&word, data + 8, sizeof word);
  return word;
}

static int probe(void* handle, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  (void)handle, (void)result;
  if (count == 0) {
    TVMFFIErrorSetRaisedFromCStrParts("ValueError", (const char*[]){"probe takes", NULL, " tensors"}, 3);
    return -1;
  }
  if (++probe_runs == PROBE_RUNS_MAX) {
    TVMFFIErrorSetRaisedFromCStr("RuntimeError", "probe ran too often");
    return -1;
  }
  nanoseconds += PROBE_MILLISECONDS * UINT64_C(1000000);
  for (int32_t i = 0; i < count; ++i) {
    if (arguments[i].type_index != kTVMFFIDLTensorPtr) continue;
    const DLTensor* tensor = arguments[i].v_ptr;
    int64_t bytes = 1;
    for (int32_t d = 0; d < tensor->ndim; ++d) bytes *= tensor->shape[d];
    bytes *= (tensor->dtype.bits * tensor->dtype.lanes + 7) / 8;
    for (int64_t b = 0; b < bytes; ++b) ++((unsigned char*)tensor->data)[b];
  }
  return 0;
}

void register_probe(void) {
  TVMFFISafeCallType call = probe;
  void* symbol = NULL;
  memcpy(&symbol, &call, sizeof symbol);
  CHECK(TVMFFIEnvModRegisterSystemLibSymbol("__tvm_ffi_probe", symbol) == 0);
}

int run_tests(const struct test* tests, size_t count, int argc, char** argv) {
  const char* wanted = argc == 2 ? argv[1] : "list";
  for (size_t i = 0; i < count; ++i) {
    if (strcmp(wanted, "list") == 0) puts(tests[i].name);
    if (strcmp(wanted, tests[i].name) != 0) continue;
    tests[i].run();
    return 0;
  }
  return strcmp(wanted, "list") == 0 ? 0 : 2;
}
