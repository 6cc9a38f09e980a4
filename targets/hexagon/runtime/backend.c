#include "backend.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

enum { WORKSPACE_ALIGNMENT = 128 };

/* As in tvm/runtime/c_backend_api.h, whose includes are C++. */
typedef struct {
  void* sync_handle;
  int32_t num_task;
} TVMParallelGroupEnv;

typedef int (*FTVMParallelLambda)(int task_id, TVMParallelGroupEnv* environment, void* closure);

void* TVMBackendAllocWorkspace(int device_type, int device_id, uint64_t nbytes, int dtype_code_hint,
                               int dtype_bits_hint);
int TVMBackendFreeWorkspace(int device_type, int device_id, void* pointer);
int TVMBackendParallelLaunch(FTVMParallelLambda lambda, void* closure, int num_task);

/* Kernels raise errors without a context, and one kernel runs at a time. */
static char last_error[1536];

void backend_clear_error(void) { last_error[0] = '\0'; }

const char* backend_error(void) { return last_error; }

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** message_parts, int32_t num_parts) {
  int used = snprintf(last_error, sizeof last_error, "%s: ", kind);
  for (int32_t i = 0; i < num_parts && used >= 0 && (size_t)used < sizeof last_error; ++i) {
    if (message_parts[i] == NULL) continue;
    used += snprintf(last_error + used, sizeof last_error - (size_t)used, "%s", message_parts[i]);
  }
}

void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) {
  TVMFFIErrorSetRaisedFromCStrParts(kind, &message, 1);
}

void* TVMBackendAllocWorkspace(int device_type, int device_id, uint64_t nbytes, int dtype_code_hint,
                               int dtype_bits_hint) {
  (void)device_type, (void)device_id, (void)dtype_code_hint, (void)dtype_bits_hint;
  void* workspace = NULL;
  if (nbytes <= SIZE_MAX - WORKSPACE_ALIGNMENT) {
    const size_t vectors = ((size_t)nbytes + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT;
    workspace = aligned_alloc(WORKSPACE_ALIGNMENT, (vectors + (vectors == 0)) * WORKSPACE_ALIGNMENT);
  }
  if (workspace == NULL) {
    snprintf(last_error, sizeof last_error, "MemoryError: no free block of %" PRIu64 " bytes for a workspace",
             nbytes);
  }
  return workspace;
}

int TVMBackendFreeWorkspace(int device_type, int device_id, void* pointer) {
  (void)device_type, (void)device_id;
  free(pointer);
  return 0;
}

/* One after the other: a device process is one hardware thread. */
int TVMBackendParallelLaunch(FTVMParallelLambda lambda, void* closure, int num_task) {
  TVMParallelGroupEnv environment = {.sync_handle = NULL, .num_task = num_task > 0 ? num_task : 1};
  for (int task = 0; task < environment.num_task; ++task) {
    if (lambda(task, &environment, closure) != 0) return -1;
  }
  return 0;
}
