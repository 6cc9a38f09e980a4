#define _XOPEN_SOURCE 700 /* clock_gettime, nanosleep */
#include "time_evaluator.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>
#include <tvm/ffi/c_api.h>

#include "handle.h"
#include "kernel_call.h"
#include "registry.h"
#include "reply.h"
#include "server.h"

/* The arguments of time_evaluator_create. */
enum {
  MODULE,
  NAME,
  DEVICE_TYPE,
  DEVICE_ID,
  NUMBER,
  REPEAT,
  MIN_REPEAT_MS,
  LIMIT_ZERO_TIME_ITERATIONS,
  COOLDOWN_INTERVAL_MS,
  REPEATS_TO_COOLDOWN,
  CACHE_FLUSH_BYTES,
  PREPROCESS,
  ARGUMENT_COUNT
};

/* All results are kept until the end: 8 MiB. */
enum { REPEAT_MAX = 1 << 20, GENERATION_MASK = 0xFFFFFF };

/* By how much a measurement that was too short grows at least, as in TVM's own evaluator. */
static const double GROWTH = 1.618;

static bool has_types(const struct arguments* arguments) {
  const struct argument* values = arguments->values;
  if (arguments->count != ARGUMENT_COUNT) return false;
  bool good = values[MODULE].type_index == kTVMFFINone || values[MODULE].type_index == kTVMFFIModule;
  good &= values[NAME].type_index == kTVMFFIRawStr && values[PREPROCESS].type_index == kTVMFFIRawStr;
  for (int i = DEVICE_TYPE; i <= CACHE_FLUSH_BYTES; ++i) good &= values[i].type_index == kTVMFFIInt;
  return good;
}

static bool check_ranges(const struct argument* values, struct failure* failure) {
  static const struct {
    int32_t index, least, most;
    const char* name;
  } ranges[] = {
      {NUMBER, 1, INT32_MAX, "number"},
      {REPEAT, 1, REPEAT_MAX, "repeat"},
      {MIN_REPEAT_MS, 0, INT32_MAX, "min_repeat_ms"},
      {LIMIT_ZERO_TIME_ITERATIONS, 0, INT32_MAX, "limit_zero_time_iterations"},
      {COOLDOWN_INTERVAL_MS, 0, INT32_MAX, "cooldown_interval_ms"},
      {REPEATS_TO_COOLDOWN, 1, INT32_MAX, "repeats_to_cooldown"},
  };
  for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; ++i) {
    const int64_t value = (int64_t)values[ranges[i].index].value.word;
    if (value >= ranges[i].least && value <= ranges[i].most) continue;
    return fail(failure, "time_evaluator: %s is %" PRId64 ", expected %" PRId32 " to %" PRId32, ranges[i].name,
                value, ranges[i].least, ranges[i].most);
  }
  return true;
}

static bool check_supported(const struct argument* values, struct failure* failure) {
  if (values[DEVICE_TYPE].value.word != kDLCPU || values[DEVICE_ID].value.word != 0) {
    return fail(failure, "time_evaluator: there is no device of type %" PRIu64 " and id %" PRIu64
                         " here: expected the session's cpu(0)",
                values[DEVICE_TYPE].value.word, values[DEVICE_ID].value.word);
  }
  if (values[CACHE_FLUSH_BYTES].value.word != 0) {
    return fail(failure, "time_evaluator: this device cannot flush caches: expected cache_flush_bytes=0");
  }
  if (values[PREPROCESS].value.text[0] != '\0') {
    return fail(failure, "time_evaluator: this device has no function to run before a measurement: "
                         "expected f_preproc=\"\", not \"%s\"", values[PREPROCESS].value.text);
  }
  return true;
}

static const struct kernel* find_kernel(const struct argument* values, struct failure* failure) {
  if (values[MODULE].type_index == kTVMFFIModule && !handle_is(values[MODULE].value.word, HANDLE_MODULE)) {
    fail(failure, "0x%" PRIx64 " is not the handle of a module", values[MODULE].value.word);
    return NULL;
  }
  const struct kernel* kernel = registry_at(registry_find(values[NAME].value.text));
  if (kernel == NULL) {
    fail(failure, "time_evaluator: there is no kernel \"%s\" on this device; mllm.kernels() lists them",
         values[NAME].value.text);
  }
  return kernel;
}

static bool check_arguments(struct server* server) {
  if (!has_types(&server->arguments)) {
    return fail(&server->failure, "runtime.RPCTimeEvaluator takes a module, a name, nine integers and a name");
  }
  const struct argument* values = server->arguments.values;
  return check_ranges(values, &server->failure) && check_supported(values, &server->failure);
}

static struct time_evaluator* free_slot(struct server* server) {
  for (uint32_t i = 0; i < TIME_EVALUATORS_MAX; ++i) {
    if (server->time_evaluators[i].kernel == NULL) return &server->time_evaluators[i];
  }
  fail(&server->failure, "at most %d time evaluators at a time: drop some", TIME_EVALUATORS_MAX);
  return NULL;
}

bool time_evaluator_create(struct server* server) {
  if (!check_arguments(server)) return false;
  const struct argument* values = server->arguments.values;
  const struct kernel* kernel = find_kernel(values, &server->failure);
  struct time_evaluator* slot = kernel == NULL ? NULL : free_slot(server);
  if (slot == NULL) return false;
  *slot = (struct time_evaluator){
      .kernel = kernel,
      .generation = (slot->generation + 1) & GENERATION_MASK,
      .number = (int32_t)values[NUMBER].value.word,
      .repeat = (int32_t)values[REPEAT].value.word,
      .min_repeat_ms = (int32_t)values[MIN_REPEAT_MS].value.word,
      .limit_zero_time_iterations = (int32_t)values[LIMIT_ZERO_TIME_ITERATIONS].value.word,
      .cooldown_interval_ms = (int32_t)values[COOLDOWN_INTERVAL_MS].value.word,
      .repeats_to_cooldown = (int32_t)values[REPEATS_TO_COOLDOWN].value.word,
  };
  const uint64_t value = (uint64_t)slot->generation << 32 | (uint64_t)(slot - server->time_evaluators);
  reply_call_handle(&server->stream, kTVMFFIFunction, handle_make(HANDLE_TIME_EVALUATOR, value));
  return true;
}

static struct time_evaluator* resolve(struct server* server, uint64_t handle) {
  const uint64_t value = handle_value(handle);
  const uint64_t index = value & UINT32_MAX;
  struct time_evaluator* slot = index < TIME_EVALUATORS_MAX ? &server->time_evaluators[index] : NULL;
  if (slot != NULL && slot->kernel != NULL && slot->generation == value >> 32) return slot;
  fail(&server->failure, "0x%" PRIx64 " is not the handle of a time evaluator", handle);
  return NULL;
}

bool time_evaluator_free(struct server* server, uint64_t handle) {
  struct time_evaluator* slot = resolve(server, handle);
  if (slot == NULL) return false;
  slot->kernel = NULL;
  return true;
}

static double seconds_now(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void cool_down(int32_t milliseconds) {
  const struct timespec time = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000L};
  (void)nanosleep(&time, NULL);
}

static bool time_runs(const struct kernel* kernel, const struct frame* frame, int32_t number, double* seconds,
                      struct failure* failure) {
  struct work work;
  const double begin = seconds_now();
  for (int32_t i = 0; i < number; ++i) {
    if (!kernel_run(kernel, frame, &work, failure)) return false;
  }
  *seconds = seconds_now() - begin;
  return true;
}

/* How many runs may take `min_seconds` when `number` took `seconds`, which were fewer. */
static int32_t more_runs(int32_t number, double seconds, double min_seconds) {
  const double enough = min_seconds / (seconds / number) + 1;
  const double grown = number * GROWTH;
  const double runs = enough > grown ? enough : grown;
  return runs < INT32_MAX ? (int32_t)runs : INT32_MAX;
}

/* One measurement, repeated with a larger `number` until it is long enough. */
static bool measure(const struct time_evaluator* evaluator, const struct frame* frame, int32_t* number,
                    double* mean, struct failure* failure) {
  const double min_seconds = evaluator->min_repeat_ms / 1e3;
  int32_t zero_times = 0;
  for (;;) {
    double seconds = 0;
    if (!time_runs(evaluator->kernel, frame, *number, &seconds, failure)) return false;
    *mean = seconds / *number;
    zero_times += seconds == 0;
    if (seconds >= min_seconds || zero_times >= evaluator->limit_zero_time_iterations) return true;
    if (seconds > 0) *number = more_runs(*number, seconds, min_seconds);
  }
}

static bool measure_all(const struct time_evaluator* evaluator, const struct frame* frame, double* means,
                        struct failure* failure) {
  struct work work;
  if (!kernel_run(evaluator->kernel, frame, &work, failure)) return false;
  int32_t number = evaluator->number;
  for (int32_t i = 0; i < evaluator->repeat; ++i) {
    if (!measure(evaluator, frame, &number, &means[i], failure)) return false;
    const bool cools = evaluator->cooldown_interval_ms > 0 && i % evaluator->repeats_to_cooldown == 0;
    if (cools) cool_down(evaluator->cooldown_interval_ms);
  }
  return true;
}

bool time_evaluator_call(struct server* server, uint64_t handle) {
  const struct time_evaluator* evaluator = resolve(server, handle);
  struct frame frame;
  if (evaluator == NULL || !frame_bind(&frame, &server->heap, &server->arguments, &server->failure)) {
    return false;
  }
  double* means = calloc((size_t)evaluator->repeat, sizeof *means);
  if (means == NULL) {
    return fail(&server->failure, "device out of memory: no room for the times of %" PRId32 " measurements",
                evaluator->repeat);
  }
  const bool measured = measure_all(evaluator, &frame, means, &server->failure);
  if (measured) reply_call_bytes(&server->stream, means, (size_t)evaluator->repeat * sizeof *means);
  free(means);
  return measured;
}
