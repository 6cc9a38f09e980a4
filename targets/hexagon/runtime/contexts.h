/* Hardware contexts: threads that share the tasks of a kernel's parallel loops, and what each of them did. */
#ifndef MLLM_CONTEXTS_H
#define MLLM_CONTEXTS_H

#include <stdint.h>

/* HVX contexts of a Hexagon NPU. */
enum { CONTEXTS_MAX = 4 };

/* A task of a parallel loop, as generated code defines it. */
typedef struct {
  void* sync_handle;
  int32_t num_task;
} TVMParallelGroupEnv;

typedef int (*FTVMParallelLambda)(int task_id, TVMParallelGroupEnv* environment, void* closure);

/* Work of one kernel call. `packets` counts what lies on the longest path: the serial parts, and in each
 * parallel loop the context that had most to do; the other numbers are sums over all contexts. */
struct work {
  uint64_t packets;
  uint64_t total_packets;
  uint64_t instructions;
  uint64_t hvx_instructions;
  uint32_t contexts; /* most that shared a loop */
};

/* How many contexts later parallel loops use, 1 to CONTEXTS_MAX. */
void contexts_use(uint32_t count);

/* Runs tasks 0 to `tasks` - 1 (0: one a context); context c runs tasks c, c + contexts, and so on, so that
 * counts do not depend on timing. Returns the first non-zero result of a task, or -1 without threads. */
int contexts_launch(FTVMParallelLambda task, void* closure, int32_t tasks);

/* Start and end of a kernel call. */
void work_begin(void);
struct work work_end(void);

#endif
