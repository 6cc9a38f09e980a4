/* Unit tests of the device server. */
#define _GNU_SOURCE /* memfd_create */
#include <string.h>
#include <sys/mman.h>
#include <tvm/ffi/c_api.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <unistd.h>

#include "contexts.h"
#include "handle.h"
#include "harness.h"
#include "protocol.h"
#include "registry.h"

enum { MEMORY_LIMIT = 1 << 20 };

static struct script script;
static struct replies replies;

static void run(void) { serve(script.bytes, script.size, MEMORY_LIMIT, &replies); }

static void call_function(uint64_t function, int32_t count) {
  script_begin(&script, RPC_CALL_FUNC);
  script_u64(&script, function);
  script_i32(&script, count);
}

static void stream_reads_across_buffers(void) {
  enum { SIZE = 3 * STREAM_BUFFER_BYTES + 5 };
  static struct stream stream;
  static unsigned char sent[SIZE], got[SIZE];
  for (size_t i = 0; i < SIZE; ++i) sent[i] = (unsigned char)(i * 7);
  const uint64_t size = SIZE;
  FILE* file = tmpfile();
  CHECK(file != NULL);
  CHECK(fwrite(&size, sizeof size, 1, file) == 1 && fwrite(sent, SIZE, 1, file) == 1);
  rewind(file);
  stream_init(&stream, fileno(file), -1);
  CHECK(stream_next_packet(&stream) && stream.remaining == SIZE);
  CHECK(stream_take(&stream, got, 3) && stream_take(&stream, got + 3, SIZE - 3));
  CHECK(memcmp(sent, got, SIZE) == 0);
  CHECK(!stream_take(&stream, got, 1) && !stream.closed);
  CHECK(!stream_next_packet(&stream) && stream.closed);
  fclose(file);
}

static void heap_refuses_bad_handles(void) {
  struct heap heap;
  struct failure failure;
  uint64_t first = 0, second = 0;
  heap_init(&heap, MEMORY_LIMIT);
  CHECK(heap_alloc(&heap, 100, &first, &failure));
  CHECK(heap_resolve(&heap, first, 0, 100, &failure) != NULL);
  CHECK((uintptr_t)heap_resolve(&heap, first, 0, 1, &failure) % HEAP_ALIGNMENT == 0);
  CHECK(heap_resolve(&heap, first, 100, 0, &failure) != NULL);
  CHECK(heap_resolve(&heap, first, 100, 1, &failure) == NULL);
  CHECK(heap_resolve(&heap, first, 1, UINT64_MAX, &failure) == NULL);
  CHECK(heap_resolve(&heap, first, UINT64_MAX, 1, &failure) == NULL);
  CHECK(heap_free(&heap, first, &failure) && !heap_free(&heap, first, &failure));
  CHECK(heap_alloc(&heap, 100, &second, &failure));
  CHECK(second != first && heap_resolve(&heap, first, 0, 1, &failure) == NULL);
  CHECK(heap_resolve(&heap, 0, 0, 0, &failure) == NULL);
  CHECK(heap_resolve(&heap, UINT64_MAX, 0, 0, &failure) == NULL);
  heap_destroy(&heap);
}

static void heap_says_how_much_is_missing(void) {
  struct heap heap;
  struct failure failure;
  uint64_t memory = 0;
  heap_init(&heap, 1024);
  CHECK(heap_alloc(&heap, 1000, &memory, &failure));
  CHECK(!heap_alloc(&heap, 300, &memory, &failure));
  CHECK(strstr(failure.message, "300 bytes asked for, 1024 of 1024 in use, short by 384") != NULL);
  CHECK(!heap_alloc(&heap, UINT64_MAX, &memory, &failure));
  CHECK(strstr(failure.message, "short by") != NULL);
  CHECK(heap.in_use == 1024);
  heap_destroy(&heap);
}

static void heap_reuses_slots(void) {
  enum { COUNT = 200 };
  struct heap heap;
  struct failure failure;
  uint64_t memory[COUNT];
  heap_init(&heap, MEMORY_LIMIT);
  for (int round = 0; round < 3; ++round) {
    for (uint64_t i = 0; i < COUNT; ++i) {
      CHECK(heap_alloc(&heap, i, &memory[i], &failure));
      memset(heap_resolve(&heap, memory[i], 0, i, &failure), (int)i, (size_t)i);
    }
    for (uint64_t i = 0; i < COUNT; ++i) CHECK(heap_free(&heap, memory[i], &failure));
  }
  CHECK(heap.in_use == 0 && heap.slot_count == 256);
  heap_destroy(&heap);
}

static void registry_keeps_functions_only(void) {
  const size_t before = registry_count();
  register_probe();
  register_probe();
  CHECK(TVMFFIEnvModRegisterSystemLibSymbol("mllm___tvm_ffi__library_ctx", &replies) == 0);
  CHECK(registry_count() == before + 1);
  CHECK(registry_find("probe") == before && registry_find("prob") == registry_count());
  CHECK(registry_at(registry_count()) == NULL && registry_at(UINT64_MAX) == NULL);
}

static void copies_round_trip(void) {
  script_init(&script);
  script_alloc(&script, 1000);
  script_upload(&script, nth_memory(0), 10, "hello", 5);
  script_download(&script, nth_memory(0), 11, 3);
  script_free(&script, nth_memory(0));
  run();
  const unsigned char* data = NULL;
  size_t size = 0;
  CHECK(reply_count(&replies) == 5);
  CHECK(returned_word(&replies, 1) == nth_memory(0));
  CHECK(reply_code(&replies, 3, &data, &size) == RPC_COPY_ACK);
  CHECK(size == 3 && memcmp(data, "ell", 3) == 0);
}

static void copies_out_of_bounds_are_refused(void) {
  script_alloc(&script, 100);
  script_upload(&script, nth_memory(0), 98, "hello", 5);
  script_upload(&script, nth_memory(0), UINT64_MAX - 1, "hello", 5);
  script_upload(&script, nth_memory(1), 0, "hello", 5);
  script_download(&script, nth_memory(0), 0, UINT64_C(1) << 32);
  script_free(&script, 12345);
  script_download(&script, nth_memory(0), 0, 100);
  run();
  CHECK(reply_count(&replies) == 7);
  check_exception(&replies, 1, "5 bytes at offset 98 are outside a device tensor of 100 bytes");
  check_exception(&replies, 2, "are outside");
  check_exception(&replies, 3, "is not the handle of a device tensor");
  check_exception(&replies, 4, "are outside");
  check_exception(&replies, 5, "0x3039 is not the handle of a device tensor");
  const unsigned char* data = NULL;
  size_t size = 0;
  CHECK(reply_code(&replies, 6, &data, &size) == RPC_COPY_ACK && size == 100);
}

static void copies_between_tensors(void) {
  const int64_t shape[] = {4}, large[] = {5};
  script_alloc(&script, 4);
  script_alloc(&script, 4);
  script_upload(&script, nth_memory(0), 0, "abcd", 4);
  for (int i = 0; i < 2; ++i) {
    script_begin(&script, RPC_COPY_AMONG_REMOTE);
    script_i32(&script, 3);
    script_tensor(&script, nth_memory(0), 1, i == 0 ? shape : large, 0);
    script_tensor(&script, nth_memory(1), 1, shape, 0);
    script_i32(&script, kTVMFFINone);
    script_end(&script);
  }
  script_download(&script, nth_memory(1), 0, 4);
  run();
  check_exception(&replies, 4, "are outside");
  const unsigned char* data = NULL;
  size_t size = 0;
  CHECK(reply_code(&replies, 5, &data, &size) == RPC_COPY_ACK && memcmp(data, "abcd", 4) == 0);
}

static void connection_copies_are_checked(void) {
  const int64_t shape[] = {4};
  const int64_t calls[][2] = {{0, 4}, {2, 3}, {-1, 2}, {0, 7}, {0, 1}};
  script_alloc(&script, 8);
  script_find(&script, "mllm.receive");
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; ++i) {
    call_function(handle_make(HANDLE_BUILTIN, 1), 3);
    script_tensor(&script, nth_memory(0), 1, shape, 0);
    script_word(&script, kTVMFFIInt, (uint64_t)calls[i][0]);
    script_word(&script, kTVMFFIInt, (uint64_t)calls[i][1]);
    script_end(&script);
  }
  script_download(&script, nth_memory(0), 0, 8);
  run();
  CHECK(returned_word(&replies, 1) == handle_make(HANDLE_BUILTIN, 1));
  check_exception(&replies, 4, "are outside");
  check_exception(&replies, 5, "the data connection failed: it ends");
  check_exception(&replies, 6, "no data connection");
  const unsigned char* data = NULL;
  size_t size = 0;
  /* "conn" at 0, "ect" at 2, and the "ion" that came before the connection ended at 0. */
  CHECK(reply_code(&replies, 7, &data, &size) == RPC_COPY_ACK && memcmp(data, "ionct", 5) == 0);
}

static void large_blocks_live_in_the_shared_file(void) {
  static struct heap heap;
  struct failure failure;
  uint64_t small = 0, large = 0, other = 0;
  heap_init(&heap, 1 << 20);
  heap.shared_fd = memfd_create("shared", 0);
  CHECK(ftruncate(heap.shared_fd, 1 << 20) == 0);
  CHECK(heap_alloc(&heap, HEAP_SHARED_BYTES - 1, &small, &failure));
  CHECK(heap_alloc(&heap, HEAP_SHARED_BYTES, &large, &failure));
  CHECK(heap_alloc(&heap, HEAP_SHARED_BYTES, &other, &failure));
  CHECK(heap_file_offset(&heap, small) == 0 && heap_file_offset(&heap, 0) == 0);
  CHECK(heap_file_offset(&heap, large) != heap_file_offset(&heap, other));
  CHECK(pwrite(heap.shared_fd, "shared", 6, (off_t)heap_file_offset(&heap, large)) == 6);
  CHECK(memcmp(heap_resolve(&heap, large, 0, 6, &failure), "shared", 6) == 0);
  const off_t freed = (off_t)heap_file_offset(&heap, large);
  CHECK(heap_free(&heap, large, &failure) && heap_file_offset(&heap, large) == 0);
  char left[6];
  CHECK(pread(heap.shared_fd, left, sizeof left, freed) == 6 && left[0] == 0);
  heap_destroy(&heap);
}

static int count_task(int task, TVMParallelGroupEnv* environment, void* closure) {
  int* done = closure;
  ++done[task];
  return environment->num_task == 10 && task == 7 ? -1 : 0;
}

static int nested_task(int task, TVMParallelGroupEnv* environment, void* closure) {
  (void)environment;
  return contexts_launch(count_task, (int*)closure + 4 * task, 0);
}

static void contexts_share_tasks(void) {
  int done[16] = {0};
  work_begin();
  CHECK(contexts_launch(count_task, done, 9) == 0);
  CHECK(work_end().contexts == CONTEXTS_MAX);
  for (int i = 0; i < 9; ++i) CHECK(done[i] == 1);
  CHECK(contexts_launch(count_task, done, 10) == -1);
  memset(done, 0, sizeof done);
  CHECK(contexts_launch(nested_task, done, 0) == 0);
  for (int i = 0; i < 16; ++i) CHECK(done[i] == (i % 4 == 0));
  contexts_use(1);
  work_begin();
  CHECK(contexts_launch(count_task, done, 0) == 0 && work_end().contexts == 1);
}

static void kernels_get_checked_tensors(void) {
  const int64_t good[] = {2, 3}, large[] = {3, 3}, negative[] = {-1, 3}, huge[] = {INT64_MAX, INT64_MAX};
  const int64_t empty_huge[] = {0, INT64_MAX, INT64_MAX};
  const struct {
    const int64_t* shape;
    int32_t dimensions;
    uint64_t offset;
    const char* refusal;
  } cases[] = {
      {good, 2, 0, NULL},
      {empty_huge, 3, 0, NULL},
      {good, 2, 1, "outside"},
      {large, 2, 0, "outside"},
      {negative, 2, 0, "negative"},
      {huge, 2, 0, "overflows"},
      {good, -1, 0, "-1 dimensions"},
      {good, 9, 0, "9 dimensions"},
  };
  enum { CASES = sizeof cases / sizeof cases[0] };
  register_probe();
  script_alloc(&script, 6);
  for (size_t i = 0; i < CASES; ++i) {
    call_function(handle_make(HANDLE_KERNEL, registry_find("probe")), 1);
    script_tensor(&script, nth_memory(0), cases[i].dimensions > 3 ? 0 : cases[i].dimensions, cases[i].shape,
                  cases[i].offset);
    /* The number of dimensions, as it is after two handles, a count, a type and a device. */
    memcpy(script.bytes + script.packet + 8 + 4 + 8 + 4 + 4 + 8 + 8, &cases[i].dimensions, sizeof(int32_t));
    script_end(&script);
  }
  run();
  CHECK(reply_count(&replies) == CASES + 1);
  for (size_t i = 0; i < CASES; ++i) {
    const unsigned char* data = NULL;
    size_t size = 0;
    const int32_t code = reply_code(&replies, i + 1, &data, &size);
    if (cases[i].refusal == NULL) {
      CHECK(code == RPC_RETURN && size == 4 + 12 + 12 + 40);
    } else {
      check_exception(&replies, i + 1, cases[i].refusal);
    }
  }
}

static void kernels_take_no_pointers(void) {
  register_probe();
  call_function(handle_make(HANDLE_KERNEL, registry_find("probe")), 1);
  script_word(&script, kTVMFFIOpaquePtr, 0xdeadbeef);
  script_end(&script);
  call_function(handle_make(HANDLE_KERNEL, registry_find("probe")), 0);
  script_end(&script);
  run();
  check_exception(&replies, 0, "expected a tensor or a number");
  check_exception(&replies, 1, "kernel probe: ValueError: probe takes tensors");
}

static void unknown_things_are_refused(void) {
  script_find(&script, "nothing");
  call_function(handle_make(HANDLE_KERNEL, 1000), 0);
  script_end(&script);
  call_function(77, 0);
  script_end(&script);
  script_begin(&script, 1000);
  script_end(&script);
  script_begin(&script, -1);
  script_end(&script);
  script_begin(&script, RPC_RETURN);
  script_end(&script);
  run();
  const unsigned char* data = NULL;
  size_t size = 0;
  CHECK(reply_code(&replies, 0, &data, &size) == RPC_RETURN && size == 8);
  check_exception(&replies, 1, "is not the handle of a function");
  check_exception(&replies, 2, "0x4d is not the handle of a function");
  check_exception(&replies, 3, "unknown request code 1000");
  check_exception(&replies, 4, "unknown request code -1");
  check_exception(&replies, 5, "unknown request code 4");
}

static void malformed_packets_keep_the_stream_in_step(void) {
  script_begin(&script, RPC_DEV_FREE_DATA); /* no values */
  script_end(&script);
  script_begin(&script, RPC_GET_GLOBAL_FUNC); /* a text longer than its packet */
  script_i32(&script, 1);
  script_word(&script, kTVMFFIRawStr, 100);
  script_end(&script);
  script_begin(&script, RPC_GET_GLOBAL_FUNC); /* a text that is too long */
  script_i32(&script, 1);
  script_word(&script, kTVMFFIRawStr, UINT64_MAX);
  script_end(&script);
  script_begin(&script, RPC_CALL_FUNC); /* too many values */
  script_u64(&script, handle_make(HANDLE_BUILTIN, 0));
  script_i32(&script, INT32_MAX);
  script_end(&script);
  script_begin(&script, RPC_FREE_HANDLE); /* an object */
  script_i32(&script, 1);
  script_i32(&script, kTVMFFIArray);
  script_end(&script);
  script_alloc(&script, 8);
  run();
  check_exception(&replies, 0, "malformed packet");
  check_exception(&replies, 1, "malformed packet");
  check_exception(&replies, 2, "a text argument of 18446744073709551615 bytes");
  check_exception(&replies, 3, "2147483647 arguments");
  check_exception(&replies, 4, "type index 71");
  CHECK(returned_word(&replies, 5) == nth_memory(0));
}

static void oversized_and_truncated_packets_end_the_session(void) {
  script_alloc(&script, 8);
  script_u64(&script, UINT64_MAX); /* a packet that never ends */
  script_i32(&script, RPC_DEV_FREE_DATA);
  run();
  CHECK(reply_count(&replies) == 1);
  script.size = 0;
  script_alloc(&script, 8);
  for (size_t size = 0; size < script.size; ++size) {
    serve(script.bytes, size, MEMORY_LIMIT, &replies);
    CHECK(reply_count(&replies) == 0);
  }
}

static void other_protocols_are_refused(void) {
  script_begin(&script, RPC_INIT_SERVER);
  script_u64(&script, 5);
  script_bytes(&script, "0.9.9", 5);
  script_i32(&script, 0);
  script_end(&script);
  script_begin(&script, RPC_INIT_SERVER);
  script_u64(&script, 1000);
  script_end(&script);
  run();
  check_exception(&replies, 0, "the client speaks RPC protocol 0.9.9, this device 0.8.0");
  check_exception(&replies, 1, "too long");
}

static void shutdown_ends_the_session(void) {
  script_begin(&script, RPC_SHUTDOWN);
  script_end(&script);
  script_alloc(&script, 8);
  run();
  CHECK(reply_count(&replies) == 0);
}

static const struct test tests[] = {
    {"stream_reads_across_buffers", stream_reads_across_buffers},
    {"heap_refuses_bad_handles", heap_refuses_bad_handles},
    {"heap_says_how_much_is_missing", heap_says_how_much_is_missing},
    {"heap_reuses_slots", heap_reuses_slots},
    {"registry_keeps_functions_only", registry_keeps_functions_only},
    {"copies_round_trip", copies_round_trip},
    {"copies_out_of_bounds_are_refused", copies_out_of_bounds_are_refused},
    {"copies_between_tensors", copies_between_tensors},
    {"connection_copies_are_checked", connection_copies_are_checked},
    {"large_blocks_live_in_the_shared_file", large_blocks_live_in_the_shared_file},
    {"contexts_share_tasks", contexts_share_tasks},
    {"kernels_get_checked_tensors", kernels_get_checked_tensors},
    {"kernels_take_no_pointers", kernels_take_no_pointers},
    {"unknown_things_are_refused", unknown_things_are_refused},
    {"malformed_packets_keep_the_stream_in_step", malformed_packets_keep_the_stream_in_step},
    {"oversized_and_truncated_packets_end_the_session", oversized_and_truncated_packets_end_the_session},
    {"other_protocols_are_refused", other_protocols_are_refused},
    {"shutdown_ends_the_session", shutdown_ends_the_session},
};

int main(int argc, char** argv) { return run_tests(tests, sizeof tests / sizeof tests[0], argc, argv); }
