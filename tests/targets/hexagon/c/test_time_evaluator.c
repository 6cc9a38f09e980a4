/* Unit tests of time evaluators, on the test's clock. */
#include <string.h>
#include <tvm/ffi/c_api.h>

#include "handle.h"
#include "harness.h"
#include "protocol.h"

enum { MEMORY_LIMIT = 1 << 20, SETTINGS = 7 };

static struct script script;
static struct replies replies;

static void run(void) { serve(script.bytes, script.size, MEMORY_LIMIT, &replies); }

/* Lets evaluator `n` time the probe on the first tensor of the script, which has one byte. */
static void time_probe(uint32_t n) {
  const int64_t shape[] = {1};
  script_begin(&script, RPC_CALL_FUNC);
  script_u64(&script, nth_time_evaluator(n));
  script_i32(&script, 1);
  script_tensor(&script, nth_memory(0), 1, shape, 0);
  script_end(&script);
}

static void free_evaluator(uint32_t n) {
  script_begin(&script, RPC_FREE_HANDLE);
  script_i32(&script, 1);
  script_word(&script, kTVMFFIOpaquePtr, nth_time_evaluator(n));
  script_end(&script);
}

/* Times the probe, checks that the answer is `count` times of one run, and returns how often it ran. */
static int measure(const int64_t settings[SETTINGS], size_t count) {
  script.size = 0;
  script_alloc(&script, 1);
  script_upload(&script, nth_memory(0), 0, "", 1);
  script_time_evaluator(&script, "probe", settings);
  time_probe(0);
  script_download(&script, nth_memory(0), 0, 1);
  run();
  const unsigned char* data = NULL;
  size_t size = 0;
  CHECK(reply_code(&replies, 3, &data, &size) == RPC_RETURN);
  enum { HEAD = 4 + 12 + 4 + 8 }; /* number of values, type of the result, its type index and length */
  CHECK(size == HEAD + count * sizeof(double));
  for (size_t i = 0; i < count; ++i) {
    double seconds = 0;
    memcpy(&seconds, data + HEAD + i * sizeof seconds, sizeof seconds);
    CHECK(seconds > 0.999e-3 * PROBE_MILLISECONDS && seconds < 1.001e-3 * PROBE_MILLISECONDS);
  }
  CHECK(reply_code(&replies, 4, &data, &size) == RPC_COPY_ACK);
  return data[0];
}

static void runs_number_times_repeat(void) {
  register_probe();
  CHECK(measure((const int64_t[]){1, 1, 0, 100, 0, 1, 0}, 1) == 1 + 1);
  CHECK(measure((const int64_t[]){5, 4, 0, 100, 0, 1, 0}, 4) == 1 + 5 * 4);
}

static void short_measurements_grow(void) {
  register_probe();
  /* 2 runs take 4 ms of the 7: 4.5 runs may be enough, and the second measurement starts with 4. */
  CHECK(measure((const int64_t[]){2, 2, 7, 100, 0, 1, 0}, 2) == 1 + 2 + 4 + 4);
  /* 5 runs nearly reach 11 ms: TVM's factor gives 8. */
  CHECK(measure((const int64_t[]){5, 1, 11, 100, 0, 1, 0}, 1) == 1 + 5 + 8);
}

static void cooldown_follows_every_so_many_measurements(void) {
  register_probe();
  const uint64_t begin = clock_nanoseconds();
  CHECK(measure((const int64_t[]){2, 5, 0, 100, 1500, 2, 0}, 5) == 1 + 2 * 5);
  CHECK(clock_nanoseconds() - begin == UINT64_C(1000000) * (11 * PROBE_MILLISECONDS + 3 * 1500));
}

static void bad_settings_are_refused(void) {
  const struct {
    int64_t settings[SETTINGS];
    const char* refusal;
  } cases[] = {
      {{0, 1, 0, 100, 0, 1, 0}, "time_evaluator: number is 0, expected 1 to 2147483647"},
      {{-1, 1, 0, 100, 0, 1, 0}, "number is -1"},
      {{INT64_C(1) << 31, 1, 0, 100, 0, 1, 0}, "number is 2147483648"},
      {{1, 0, 0, 100, 0, 1, 0}, "repeat is 0"},
      {{1, (1 << 20) + 1, 0, 100, 0, 1, 0}, "repeat is 1048577, expected 1 to 1048576"},
      {{1, 1, -1, 100, 0, 1, 0}, "min_repeat_ms is -1, expected 0 to"},
      {{1, 1, 0, -1, 0, 1, 0}, "limit_zero_time_iterations is -1"},
      {{1, 1, 0, 100, -1, 1, 0}, "cooldown_interval_ms is -1"},
      {{1, 1, 0, 100, 0, 0, 0}, "repeats_to_cooldown is 0"},
      {{1, 1, 0, 100, 0, 1, 4}, "cannot flush caches: expected cache_flush_bytes=0"},
  };
  enum { CASES = sizeof cases / sizeof cases[0] };
  register_probe();
  for (size_t i = 0; i < CASES; ++i) script_time_evaluator(&script, "probe", cases[i].settings);
  script_time_evaluator(&script, "nothing", (const int64_t[]){1, 1, 0, 100, 0, 1, 0});
  time_probe(0);
  run();
  for (size_t i = 0; i < CASES; ++i) check_exception(&replies, i, cases[i].refusal);
  check_exception(&replies, CASES, "there is no kernel \"nothing\" on this device");
  check_exception(&replies, CASES + 1, "is not the handle of a time evaluator");
}

static void failing_kernels_are_reported(void) {
  register_probe();
  script_alloc(&script, 1);
  script_time_evaluator(&script, "probe", (const int64_t[]){PROBE_RUNS_MAX, 1, 0, 100, 0, 1, 0});
  time_probe(0);
  script_begin(&script, RPC_CALL_FUNC); /* without the tensor that it takes */
  script_u64(&script, nth_time_evaluator(0));
  script_i32(&script, 0);
  script_end(&script);
  script_free(&script, nth_memory(0));
  time_probe(0);
  run();
  check_exception(&replies, 2, "kernel probe: RuntimeError: probe ran too often");
  check_exception(&replies, 3, "kernel probe: ValueError: probe takes tensors");
  check_exception(&replies, 5, "is not the handle of a device tensor");
}

static void freed_evaluators_are_gone(void) {
  const int64_t settings[SETTINGS] = {1, 1, 0, 100, 0, 1, 0};
  register_probe();
  script_alloc(&script, 1);
  for (int i = 0; i < TIME_EVALUATORS_MAX + 1; ++i) script_time_evaluator(&script, "probe", settings);
  free_evaluator(7);
  free_evaluator(7);
  time_probe(7);
  script_time_evaluator(&script, "probe", settings);
  time_probe(8);
  run();
  const size_t next = 1 + TIME_EVALUATORS_MAX;
  check_exception(&replies, next, "at most 256 time evaluators at a time");
  check_exception(&replies, next + 2, "is not the handle of a time evaluator");
  check_exception(&replies, next + 3, "is not the handle of a time evaluator");
  const unsigned char* data = NULL;
  size_t size = 0;
  CHECK(reply_code(&replies, next + 4, &data, &size) == RPC_RETURN);
  CHECK(reply_code(&replies, next + 5, &data, &size) == RPC_RETURN);
}

static const struct test tests[] = {
    {"runs_number_times_repeat", runs_number_times_repeat},
    {"short_measurements_grow", short_measurements_grow},
    {"cooldown_follows_every_so_many_measurements", cooldown_follows_every_so_many_measurements},
    {"bad_settings_are_refused", bad_settings_are_refused},
    {"failing_kernels_are_reported", failing_kernels_are_reported},
    {"freed_evaluators_are_gone", freed_evaluators_are_gone},
};

int main(int argc, char** argv) { return run_tests(tests, sizeof tests / sizeof tests[0], argc, argv); }
