/* The kernels linked into this executable; their object files register them before main starts. */
#ifndef MLLM_REGISTRY_H
#define MLLM_REGISTRY_H

#include <stddef.h>
#include <tvm/ffi/c_api.h>

struct kernel {
  const char* name;
  TVMFFISafeCallType call;
};

size_t registry_count(void);

/* The kernel at `index`, or NULL. */
const struct kernel* registry_at(uint64_t index);

/* The index of the kernel called `name`, or registry_count() when there is none. */
size_t registry_find(const char* name);

#endif
