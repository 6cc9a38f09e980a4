#include "functions.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

#include "contexts.h"
#include "handle.h"
#include "kernel_call.h"
#include "registry.h"
#include "reply.h"
#include "server.h"
#include "transfer.h"

/* The names of all kernels, each followed by a line feed. */
static bool list_kernels(struct server* server) {
  size_t size = 0;
  for (size_t i = 0; i < registry_count(); ++i) size += strlen(registry_at(i)->name) + 1;
  char* names = malloc(size + 1);
  if (names == NULL) return fail(&server->failure, "device out of memory: no free block of %zu bytes", size);
  char* end = names;
  for (size_t i = 0; i < registry_count(); ++i) {
    const size_t length = strlen(registry_at(i)->name);
    memcpy(end, registry_at(i)->name, length);
    end += length;
    *end++ = '\n';
  }
  reply_call_text(&server->stream, names, size);
  free(names);
  return true;
}

/* (prefix?) -> the module that holds every kernel. */
static bool system_library(struct server* server) {
  reply_call_handle(&server->stream, kTVMFFIModule, handle_make(HANDLE_MODULE, 1));
  return true;
}

/* (module, name, query_imports) -> function or None. */
static bool module_get_function(struct server* server) {
  const struct argument* values = server->arguments.values;
  if (server->arguments.count != 3 || values[0].type_index != kTVMFFIModule ||
      values[1].type_index != kTVMFFIRawStr) {
    return fail(&server->failure, "ModuleGetFunction takes a module, a name and a flag");
  }
  if (!handle_is(values[0].value.word, HANDLE_MODULE)) {
    return fail(&server->failure, "0x%" PRIx64 " is not the handle of a module", values[0].value.word);
  }
  const uint64_t function = function_find(values[1].value.text);
  if (function == 0) {
    reply_call_none(&server->stream);
  } else {
    reply_call_handle(&server->stream, kTVMFFIFunction, function);
  }
  return true;
}

/* (count) -> None: how many hardware contexts parallel loops use. */
static bool use_contexts(struct server* server) {
  const struct argument* values = server->arguments.values;
  if (server->arguments.count != 1 || values[0].type_index != kTVMFFIInt || values[0].value.word == 0 ||
      values[0].value.word > CONTEXTS_MAX) {
    return fail(&server->failure, "mllm.use_contexts takes a number from 1 to %d", CONTEXTS_MAX);
  }
  contexts_use((uint32_t)values[0].value.word);
  reply_call_none(&server->stream);
  return true;
}

/* (seconds) -> None: a kernel that runs for longer ends this process; 0 is no limit. */
static bool limit_calls(struct server* server) {
  const struct argument* values = server->arguments.values;
  if (server->arguments.count != 1 || values[0].type_index != kTVMFFIInt || values[0].value.word > INT32_MAX) {
    return fail(&server->failure, "mllm.limit_calls takes a number of seconds");
  }
  kernel_call_limit((unsigned)values[0].value.word);
  reply_call_none(&server->stream);
  return true;
}

/* Clients that expect a general computer ask for it. */
static bool load_module(struct server* server) {
  return fail(&server->failure, "this device loads no modules: its kernels are linked into its executable; "
                                "RPCSession.system_lib() returns the module that holds them");
}

static const struct builtin {
  const char* name;
  bool (*call)(struct server* server);
} builtins[] = {
    {"mllm.kernels", list_kernels},
    {"mllm.receive", transfer_receive},
    {"mllm.send", transfer_send},
    {"ffi.SystemLib", system_library},
    {"tvm.rpc.server.ModuleGetFunction", module_get_function},
    {"mllm.use_contexts", use_contexts},
    {"mllm.limit_calls", limit_calls},
    {"mllm.share", transfer_share},
    {"mllm.file_offset", transfer_file_offset},
    {"mllm.listen", transfer_listen},
    {"mllm.accept", transfer_accept},
    {"runtime.RPCTimeEvaluator", time_evaluator_create},
    {"tvm.rpc.server.load_module", load_module},
};

enum { BUILTIN_COUNT = sizeof builtins / sizeof builtins[0] };

uint64_t function_find(const char* name) {
  for (uint64_t i = 0; i < BUILTIN_COUNT; ++i) {
    if (strcmp(builtins[i].name, name) == 0) return handle_make(HANDLE_BUILTIN, i);
  }
  const size_t index = registry_find(name);
  return index == registry_count() ? 0 : handle_make(HANDLE_KERNEL, index);
}

bool function_call(struct server* server, uint64_t function) {
  const uint64_t index = handle_value(function);
  if (handle_is(function, HANDLE_KERNEL) && registry_at(index) != NULL) {
    return kernel_call(&server->stream, &server->heap, registry_at(index), &server->arguments,
                       &server->failure);
  }
  if (handle_is(function, HANDLE_TIME_EVALUATOR)) return time_evaluator_call(server, function);
  if (handle_is(function, HANDLE_BUILTIN) && index < BUILTIN_COUNT) return builtins[index].call(server);
  return fail(&server->failure, "0x%" PRIx64 " is not the handle of a function", function);
}
