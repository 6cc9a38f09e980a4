/* Calls of generated kernels with checked arguments. */
#ifndef MLLM_KERNEL_CALL_H
#define MLLM_KERNEL_CALL_H

#include <stdbool.h>

#include "arguments.h"
#include "failure.h"
#include "heap.h"
#include "registry.h"
#include "stream.h"

/* Calls a kernel and replies with what it cost: packets on the longest path, instructions, HVX instructions
 * and packets of all contexts, and how many contexts there were, as five little-endian int64. False with a reason when an argument was refused or the kernel raised an error. */
bool kernel_call(struct stream* stream, const struct heap* heap, const struct kernel* kernel,
                 const struct arguments* arguments, struct failure* failure);

/* Ends this process when a later call takes more than `seconds` of wall time; 0 (the default) is no limit. A
 * kernel cannot be stopped otherwise, and whoever waits for it learns of it by the process's end. */
void kernel_call_limit(unsigned seconds);

#endif
