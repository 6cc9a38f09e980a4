/* `fuzz_server SEED CASES`: mutations of a valid session. A sanitizer report, a broken reply or an alarm
 * ends the process with an error. */
#include <string.h>
#include <tvm/ffi/c_api.h>
#include <unistd.h>

#include "handle.h"
#include "harness.h"
#include "protocol.h"
#include "registry.h"

enum { MEMORY_LIMIT = 1 << 16, SECONDS = 120 };

struct random {
  uint64_t state;
};

/* xorshift64* */
static uint64_t next_random(struct random* random) {
  random->state ^= random->state >> 12;
  random->state ^= random->state << 25;
  random->state ^= random->state >> 27;
  return random->state * UINT64_C(2685821657736338717);
}

static size_t below(struct random* random, size_t limit) { return (size_t)(next_random(random) % limit); }

static void call_probe(struct script* script, uint64_t function) {
  const int64_t shape[] = {5, 20};
  script_begin(script, RPC_CALL_FUNC);
  script_u64(script, function);
  script_i32(script, 3);
  script_tensor(script, nth_memory(0), 2, shape, 0);
  script_tensor(script, nth_memory(1), 2, shape, 8);
  script_word(script, kTVMFFIInt, 3);
  script_end(script);
}

static void time_probe(struct script* script) {
  script_time_evaluator(script, "probe", (const int64_t[]){2, 3, 5, 10, 7, 2, 0});
  call_probe(script, nth_time_evaluator(0));
  script_begin(script, RPC_FREE_HANDLE);
  script_i32(script, 1);
  script_word(script, kTVMFFIOpaquePtr, nth_time_evaluator(0));
  script_end(script);
}

static void copy_over_connection(struct script* script) {
  const int64_t shape[] = {6};
  for (uint64_t builtin = 1; builtin <= 2; ++builtin) {
    script_begin(script, RPC_CALL_FUNC);
    script_u64(script, handle_make(HANDLE_BUILTIN, builtin));
    script_i32(script, 3);
    script_tensor(script, nth_memory(1), 1, shape, 0);
    script_word(script, kTVMFFIInt, 1);
    script_word(script, kTVMFFIInt, 6);
    script_end(script);
  }
}

static void find_in_module(struct script* script) {
  script_begin(script, RPC_CALL_FUNC);
  script_u64(script, handle_make(HANDLE_BUILTIN, 4));
  script_i32(script, 3);
  script_word(script, kTVMFFIModule, handle_make(HANDLE_MODULE, 1));
  script_text(script, "probe");
  script_word(script, kTVMFFIBool, 1);
  script_end(script);
}

static void copy_among(struct script* script) {
  const int64_t shape[] = {50};
  script_begin(script, RPC_COPY_AMONG_REMOTE);
  script_i32(script, 3);
  script_tensor(script, nth_memory(0), 1, shape, 0);
  script_tensor(script, nth_memory(1), 1, shape, 4);
  script_word(script, kTVMFFIOpaquePtr, 0);
  script_end(script);
}

static void alloc_with_scope(struct script* script) {
  const int64_t shape[] = {8, 16};
  script_begin(script, RPC_DEV_ALLOC_DATA_WITH_SCOPE);
  script_i32(script, 2);
  script_tensor(script, 0, 2, shape, 0);
  script_i32(script, kTVMFFINone);
  script_end(script);
}

static void valid_session(struct script* script) {
  static const unsigned char data[100];
  script_init(script);
  script_alloc(script, 100);
  alloc_with_scope(script);
  script_find(script, "probe");
  script_upload(script, nth_memory(0), 0, data, sizeof data);
  call_probe(script, handle_make(HANDLE_KERNEL, registry_find("probe")));
  time_probe(script);
  copy_over_connection(script);
  copy_among(script);
  find_in_module(script);
  script_download(script, nth_memory(1), 0, 100);
  script_free(script, nth_memory(0));
  script_alloc(script, 300);
  script_begin(script, RPC_SHUTDOWN);
  script_end(script);
}

static void overwrite(struct script* script, struct random* random) {
  static const uint64_t interesting[] = {0,         1,         2,          7,          8,
                                         63,        64,        65,         100,        0x7fffffff,
                                         0xffffffff, 1ULL << 32, 1ULL << 62, 1ULL << 63, UINT64_MAX};
  const size_t width = (size_t)1 << below(random, 4);
  if (script->size < width) return;
  uint64_t value = interesting[below(random, sizeof interesting / sizeof interesting[0])];
  if (below(random, 4) == 0) value = next_random(random);
  memcpy(script->bytes + below(random, script->size - width + 1), &value, width);
}

static void flip_bit(struct script* script, struct random* random) {
  if (script->size == 0) return;
  script->bytes[below(random, script->size)] ^= (unsigned char)(1u << below(random, 8));
}

static void erase(struct script* script, struct random* random) {
  if (script->size == 0) return;
  const size_t start = below(random, script->size);
  const size_t count = below(random, script->size - start) % 32 + 1;
  memmove(script->bytes + start, script->bytes + start + count, script->size - start - count);
  script->size -= count;
}

static void repeat(struct script* script, struct random* random) {
  if (script->size == 0 || script->size > SCRIPT_BYTES / 2) return;
  const size_t start = below(random, script->size);
  const size_t count = below(random, script->size - start) + 1;
  memmove(script->bytes + start + count, script->bytes + start, script->size - start);
  script->size += count;
}

static void truncate_script(struct script* script, struct random* random) {
  script->size = below(random, script->size + 1);
}

static void mutate(struct script* script, struct random* random) {
  static void (*const mutations[])(struct script*, struct random*) = {
      overwrite, overwrite, overwrite, flip_bit, erase, repeat, truncate_script,
  };
  const size_t count = below(random, 4) + 1;
  for (size_t i = 0; i < count; ++i) {
    mutations[below(random, sizeof mutations / sizeof mutations[0])](script, random);
  }
}

int main(int argc, char** argv) {
  static struct script valid, mutated;
  static struct replies replies;
  CHECK(argc == 3);
  struct random random = {.state = strtoull(argv[1], NULL, 10) * 2 + 1};
  const long cases = strtol(argv[2], NULL, 10);
  alarm(SECONDS);
  register_probe();
  valid_session(&valid);
  serve(valid.bytes, valid.size, MEMORY_LIMIT, &replies);
  const unsigned char* data = NULL;
  size_t size = 0;
  for (size_t i = 0; i < reply_count(&replies); ++i) {
    CHECK(reply_code(&replies, i, &data, &size) != RPC_EXCEPTION);
  }
  size_t exceptions = 0;
  for (long i = 0; i < cases; ++i) {
    memcpy(mutated.bytes, valid.bytes, valid.size);
    mutated.size = valid.size;
    mutate(&mutated, &random);
    serve(mutated.bytes, mutated.size, MEMORY_LIMIT, &replies);
    for (size_t n = 0; n < reply_count(&replies); ++n) {
      exceptions += reply_code(&replies, n, &data, &size) == RPC_EXCEPTION;
    }
  }
  printf("%ld cases, %zu exceptions\n", cases, exceptions);
  return 0;
}
