/* Scripts of request packets, and a server that runs them from memory to memory. */
#ifndef MLLM_TEST_HARNESS_H
#define MLLM_TEST_HARNESS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "server.h"

#define CHECK(condition)                                                         \
  do {                                                                           \
    if (!(condition)) {                                                          \
      fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);    \
      exit(1);                                                                   \
    }                                                                            \
  } while (0)

enum { SCRIPT_BYTES = 1 << 18, REPLIES_BYTES = 1 << 22 };

/* Requests, one after the other, as a client would send them. */
struct script {
  size_t size;
  size_t packet; /* where the packet that is being written begins */
  unsigned char bytes[SCRIPT_BYTES];
};

void script_begin(struct script* script, int32_t code);
void script_bytes(struct script* script, const void* data, size_t size);
void script_i32(struct script* script, int32_t value);
void script_u64(struct script* script, uint64_t value);
void script_end(struct script* script);

/* One value of a packed sequence. */
void script_word(struct script* script, int32_t type_index, uint64_t value);
void script_text(struct script* script, const char* text);
void script_tensor(struct script* script, uint64_t memory, int32_t dimensions, const int64_t* shape,
                   uint64_t byte_offset);

/* A tensor outside a packed sequence, of int8 elements. */
void script_bare_tensor(struct script* script, uint64_t memory, int32_t dimensions, const int64_t* shape,
                        uint64_t byte_offset);

/* Whole requests. */
void script_init(struct script* script);
void script_alloc(struct script* script, uint64_t size);
void script_free(struct script* script, uint64_t memory);
void script_upload(struct script* script, uint64_t memory, uint64_t offset, const void* data, size_t size);
void script_download(struct script* script, uint64_t memory, uint64_t offset, uint64_t size);
void script_find(struct script* script, const char* name);

/* A request for a time evaluator of the kernel `name`, with the integers `number` to `cache_flush_bytes`. */
void script_time_evaluator(struct script* script, const char* name, const int64_t settings[7]);

/* The handle of the n-th allocation of a script that freed nothing before. */
uint64_t nth_memory(uint32_t n);

/* The handle of the n-th time evaluator of a script that freed none before. */
uint64_t nth_time_evaluator(uint32_t n);

/* What a server answered to a script. */
struct replies {
  size_t size;
  unsigned char bytes[REPLIES_BYTES];
};

/* Serves `size` bytes of requests with `memory_limit` bytes of device memory, and checks that the answer
 * is a sequence of whole packets. */
void serve(const unsigned char* requests, size_t size, uint64_t memory_limit, struct replies* replies);

/* The n-th reply: its code, and where its contents are. */
int32_t reply_code(const struct replies* replies, size_t n, const unsigned char** data, size_t* size);
size_t reply_count(const struct replies* replies);

/* Checks that the n-th reply is an exception whose message contains `text`. */
void check_exception(const struct replies* replies, size_t n, const char* text);

/* The single word that the n-th reply returns. */
uint64_t returned_word(const struct replies* replies, size_t n);

/* Registers the kernel "probe", which adds 1 to every byte of its tensors and takes PROBE_MILLISECONDS of the
 * test's clock. It fails when it runs for the PROBE_RUNS_MAX-th time in a session. */
enum { PROBE_MILLISECONDS = 2, PROBE_RUNS_MAX = 2000 };
void register_probe(void);

/* The clock of the test: the server's clock_gettime and nanosleep are linked to it. */
uint64_t clock_nanoseconds(void);

struct test {
  const char* name;
  void (*run)(void);
};

/* `program NAME` runs one test, `program list` names them; the exit code of main. */
int run_tests(const struct test* tests, size_t count, int argc, char** argv);

#endif
