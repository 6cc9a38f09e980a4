#include "registry.h"

#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/extra/c_env_api.h>

/* Generated code calls the registration function without a context, so the table has to be global.
 * It is written before main starts and only read afterwards. */
static struct kernel* kernels;
static size_t kernel_count;

size_t registry_count(void) { return kernel_count; }

const struct kernel* registry_at(uint64_t index) { return index < kernel_count ? &kernels[index] : NULL; }

size_t registry_find(const char* name) {
  size_t i = 0;
  while (i < kernel_count && strcmp(kernels[i].name, name) != 0) ++i;
  return i;
}

static int append(struct kernel kernel) {
  struct kernel* grown = realloc(kernels, (kernel_count + 1) * sizeof *grown);
  if (grown == NULL) return -1;
  kernels = grown;
  kernels[kernel_count++] = kernel;
  return 0;
}

int TVMFFIEnvModRegisterSystemLibSymbol(const char* name, void* symbol) {
  static const char prefix[] = "__tvm_ffi_";
  /* The other symbols (the library's context, for example) are not functions. */
  if (strncmp(name, prefix, sizeof prefix - 1) != 0) return 0;
  struct kernel kernel = {.name = name + sizeof prefix - 1};
  /* ISO C has no cast from an object pointer to a function pointer. */
  memcpy(&kernel.call, &symbol, sizeof kernel.call);
  const size_t index = registry_find(kernel.name);
  if (index == kernel_count) return append(kernel);
  kernels[index] = kernel;
  return 0;
}
