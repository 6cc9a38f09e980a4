/* TVM's time evaluators (runtime.RPCTimeEvaluator): functions that run a kernel repeatedly and return how long
 * it took. */
#ifndef MLLM_TIME_EVALUATOR_H
#define MLLM_TIME_EVALUATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "failure.h"

struct server;
struct kernel;

/* How many evaluators a client may hold. */
enum { TIME_EVALUATORS_MAX = 256 };

struct time_evaluator {
  const struct kernel* kernel; /* NULL when the slot is free */
  uint32_t generation;         /* so that the handle of one that was freed is refused */
  int32_t number;              /* runs of one measurement */
  int32_t repeat;              /* measurements */
  int32_t min_repeat_ms;       /* shortest measurement; `number` grows until it is reached */
  int32_t limit_zero_time_iterations;
  int32_t cooldown_interval_ms;
  int32_t repeats_to_cooldown;
};

/* (module or None, kernel, device type, device id, number, repeat, min_repeat_ms, limit_zero_time_iterations,
 * cooldown_interval_ms, repeats_to_cooldown, cache_flush_bytes, f_preproc) -> the evaluator, a function. */
bool time_evaluator_create(struct server* server);

/* (the kernel's arguments) -> `repeat` doubles as bytes: mean wall seconds of a run, on this device's clock.
 * The first run is not measured. */
bool time_evaluator_call(struct server* server, uint64_t handle);

bool time_evaluator_free(struct server* server, uint64_t handle);

#endif
