#define _XOPEN_SOURCE 700 /* pthread */
#include "backend.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

#include "contexts.h"

enum { WORKSPACE_ALIGNMENT = 128 };

/* As in tvm/runtime/c_backend_api.h, whose includes are C++. */
void* TVMBackendAllocWorkspace(int device_type, int device_id, uint64_t nbytes, int dtype_code_hint,
                               int dtype_bits_hint);
int TVMBackendFreeWorkspace(int device_type, int device_id, void* pointer);
int TVMBackendParallelLaunch(FTVMParallelLambda lambda, void* closure, int num_task);

/* Kernels raise errors without a context, and one kernel runs at a time. When several tasks of its parallel
 * loop fail, the message is one of theirs. */
static char last_error[1536];
static pthread_mutex_t error_lock = PTHREAD_MUTEX_INITIALIZER;

void backend_clear_error(void) { last_error[0] = '\0'; }

const char* backend_error(void) { return last_error; }

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** message_parts, int32_t num_parts) {
  pthread_mutex_lock(&error_lock);
  int used = snprintf(last_error, sizeof last_error, "%s: ", kind);
  for (int32_t i = 0; i < num_parts && used >= 0 && (size_t)used < sizeof last_error; ++i) {
    if (message_parts[i] == NULL) continue;
    used += snprintf(last_error + used, sizeof last_error - (size_t)used, "%s", message_parts[i]);
  }
  pthread_mutex_unlock(&error_lock);
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
    char message[96];
    snprintf(message, sizeof message, "no free block of %" PRIu64 " bytes for a workspace", nbytes);
    TVMFFIErrorSetRaisedFromCStr("MemoryError", message);
  }
  return workspace;
}

int TVMBackendFreeWorkspace(int device_type, int device_id, void* pointer) {
  (void)device_type, (void)device_id;
  free(pointer);
  return 0;
}

int TVMBackendParallelLaunch(FTVMParallelLambda lambda, void* closure, int num_task) {
  const int status = contexts_launch(lambda, closure, num_task);
  if (status != 0 && last_error[0] == '\0') {
    snprintf(last_error, sizeof last_error, "RuntimeError: a parallel loop failed with status %d", status);
  }
  return status;
}
