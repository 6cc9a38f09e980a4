/* Calls of generated kernels with checked arguments. */
#ifndef MLLM_KERNEL_CALL_H
#define MLLM_KERNEL_CALL_H

#include <stdbool.h>
#include <stdint.h>
#include <tvm/ffi/c_api.h>

#include "arguments.h"
#include "contexts.h"
#include "failure.h"
#include "heap.h"
#include "registry.h"
#include "stream.h"

/* The arguments of a kernel, in the form generated code takes them. */
struct frame {
  int32_t count;
  TVMFFIAny values[ARGUMENTS_MAX];
  DLTensor tensors[ARGUMENTS_MAX];
  int64_t shapes[ARGUMENTS_MAX][TENSOR_DIMENSIONS_MAX];
  int64_t strides[ARGUMENTS_MAX][TENSOR_DIMENSIONS_MAX];
};

/* Checks `arguments` and points `frame`, which stays where it is, at them; false with a reason when one is
 * refused. */
bool frame_bind(struct frame* frame, const struct heap* heap, const struct arguments* arguments,
                struct failure* failure);

/* Runs a kernel once; false with a reason when it raised an error. */
bool kernel_run(const struct kernel* kernel, const struct frame* frame, struct work* work,
                struct failure* failure);

/* Runs a kernel and replies with what it cost: packets on the longest path, instructions, HVX instructions
 * and packets of all contexts, and how many contexts there were, as five little-endian int64. */
bool kernel_call(struct stream* stream, const struct heap* heap, const struct kernel* kernel,
                 const struct arguments* arguments, struct failure* failure);

/* Ends this process when a later call takes more than `seconds` of wall time; 0 (the default) is no limit. A
 * kernel cannot be stopped otherwise, and whoever waits for it learns of it by the process's end. */
void kernel_call_limit(unsigned seconds);

#endif
