/* What clients hold instead of pointers: 64 bits, the highest 8 of which say what kind of thing it names. */
#ifndef MLLM_HANDLE_H
#define MLLM_HANDLE_H

#include <stdbool.h>
#include <stdint.h>

/* Not zero: clients take a handle of zero for "no such thing". */
enum handle_kind {
  HANDLE_MEMORY = 1,
  HANDLE_KERNEL,
  HANDLE_BUILTIN,
  HANDLE_MODULE,
  HANDLE_TIME_EVALUATOR
};

static inline uint64_t handle_make(enum handle_kind kind, uint64_t value) {
  return (uint64_t)kind << 56 | value;
}

static inline bool handle_is(uint64_t handle, enum handle_kind kind) {
  return handle >> 56 == (uint64_t)kind;
}

static inline uint64_t handle_value(uint64_t handle) { return handle & (UINT64_MAX >> 8); }

#endif
