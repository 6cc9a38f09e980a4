#include "server.h"

#include <inttypes.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

#include "functions.h"
#include "handle.h"
#include "protocol.h"
#include "reply.h"

/* A handler reads the rest of its packet and replies once, or returns false with a reason, which becomes
 * an RPC exception. What it leaves of the packet is dropped. */
typedef bool (*handler)(struct server* server);

static bool take(struct server* server, void* out, size_t size) {
  return stream_take(&server->stream, out, size) ||
         fail(&server->failure, "malformed packet: it ends before its last value");
}

/* Reads the arguments and checks their types. */
static bool read_arguments(struct server* server, const char* request, int32_t count, const int32_t* types) {
  const struct arguments* arguments = &server->arguments;
  if (!arguments_read(&server->stream, &server->arguments, &server->failure)) return false;
  if (arguments->count != count) {
    return fail(&server->failure, "%s takes %" PRId32 " arguments, %" PRId32 " given", request, count,
                arguments->count);
  }
  for (int32_t i = 0; i < count; ++i) {
    if (arguments->values[i].type_index == types[i]) continue;
    return fail(&server->failure, "argument %" PRId32 " of %s has type index %" PRId32 ", expected %" PRId32,
                i, request, arguments->values[i].type_index, types[i]);
  }
  return true;
}

static uint64_t word_argument(const struct server* server, int32_t index) {
  return server->arguments.values[index].value.word;
}

static bool init_server(struct server* server) {
  char version[sizeof RPC_PROTOCOL_VERSION] = {0};
  uint64_t size = 0;
  if (!take(server, &size, sizeof size)) return false;
  if (size >= sizeof version) return fail(&server->failure, "the version of the protocol is too long");
  if (!take(server, version, (size_t)size)) return false;
  if (strcmp(version, RPC_PROTOCOL_VERSION) != 0) {
    return fail(&server->failure, "the client speaks RPC protocol %s, this device %s", version,
                RPC_PROTOCOL_VERSION);
  }
  if (!read_arguments(server, "the session constructor", 0, NULL)) return false;
  reply_none(&server->stream);
  return true;
}

static bool call_func(struct server* server) {
  uint64_t function = 0;
  if (!take(server, &function, sizeof function)) return false;
  if (!arguments_read(&server->stream, &server->arguments, &server->failure)) return false;
  return function_call(server, function);
}

static bool read_copy(struct server* server, unsigned char** data, uint64_t* size) {
  struct tensor_view tensor;
  if (!tensor_view_read(&server->stream, &tensor, &server->failure)) return false;
  if (!take(server, size, sizeof *size)) return false;
  *data = heap_resolve(&server->heap, tensor.memory, tensor.byte_offset, *size, &server->failure);
  return *data != NULL;
}

static bool copy_from_remote(struct server* server) {
  unsigned char* data = NULL;
  uint64_t size = 0;
  if (!read_copy(server, &data, &size)) return false;
  reply_data(&server->stream, data, (size_t)size);
  return true;
}

static bool copy_to_remote(struct server* server) {
  unsigned char* data = NULL;
  uint64_t size = 0;
  if (!read_copy(server, &data, &size) || !take(server, data, (size_t)size)) return false;
  reply_none(&server->stream);
  return true;
}

static bool get_global_func(struct server* server) {
  if (!read_arguments(server, "GetGlobalFunc", 1, (const int32_t[]){kTVMFFIRawStr})) return false;
  const uint64_t function = function_find(server->arguments.values[0].value.text);
  if (function == 0) {
    reply_none(&server->stream);
  } else {
    reply_handle(&server->stream, function);
  }
  return true;
}

/* Kernels, the server's own functions and modules live as long as the process: there is nothing to free. */
static bool free_handle(struct server* server) {
  if (!read_arguments(server, "FreeHandle", 1, (const int32_t[]){kTVMFFIOpaquePtr})) return false;
  const uint64_t handle = word_argument(server, 0);
  if (handle_is(handle, HANDLE_TIME_EVALUATOR)) {
    if (!time_evaluator_free(server, handle)) return false;
  } else if (!handle_is(handle, HANDLE_KERNEL) && !handle_is(handle, HANDLE_BUILTIN) &&
             !handle_is(handle, HANDLE_MODULE)) {
    return fail(&server->failure, "0x%" PRIx64 " is not the handle of a function or a module", handle);
  }
  reply_none(&server->stream);
  return true;
}

static bool get_attribute(struct server* server) {
  enum { ATTRIBUTE_EXISTS = 0 };
  if (!read_arguments(server, "GetAttr", 2, (const int32_t[]){kTVMFFIDevice, kTVMFFIInt})) return false;
  const uint64_t cpu_0 = kDLCPU;
  if (word_argument(server, 1) == ATTRIBUTE_EXISTS) {
    reply_int(&server->stream, word_argument(server, 0) == cpu_0);
  } else {
    reply_none(&server->stream);
  }
  return true;
}

static bool allocate(struct server* server, uint64_t size) {
  uint64_t memory = 0;
  if (!heap_alloc(&server->heap, size, &memory, &server->failure)) return false;
  reply_handle(&server->stream, memory);
  return true;
}

static bool alloc_data(struct server* server) {
  static const int32_t types[] = {kTVMFFIDevice, kTVMFFIInt, kTVMFFIInt, kTVMFFIDataType};
  if (!read_arguments(server, "AllocData", 4, types)) return false;
  if (word_argument(server, 2) > HEAP_ALIGNMENT) {
    return fail(&server->failure, "cannot align device memory to %" PRIu64 " bytes: at most %d are supported",
                word_argument(server, 2), HEAP_ALIGNMENT);
  }
  return allocate(server, word_argument(server, 1));
}

/* (tensor without data, memory scope or None) */
static bool alloc_data_with_scope(struct server* server) {
  struct arguments* arguments = &server->arguments;
  if (!arguments_read(&server->stream, arguments, &server->failure)) return false;
  if (arguments->count != 2 || arguments->values[0].type_index != kTVMFFIDLTensorPtr) {
    return fail(&server->failure, "AllocDataWithScope takes a tensor and a memory scope");
  }
  uint64_t size = 0;
  return tensor_view_bytes(&arguments->values[0].value.tensor, &size, &server->failure) &&
         allocate(server, size);
}

static bool free_data(struct server* server) {
  static const int32_t types[] = {kTVMFFIDevice, kTVMFFIOpaquePtr};
  if (!read_arguments(server, "FreeData", 2, types)) return false;
  if (!heap_free(&server->heap, word_argument(server, 1), &server->failure)) return false;
  reply_none(&server->stream);
  return true;
}

/* (from, to, stream) */
static bool copy_among_remote(struct server* server) {
  struct arguments* arguments = &server->arguments;
  if (!arguments_read(&server->stream, arguments, &server->failure)) return false;
  if (arguments->count != 3 || arguments->values[0].type_index != kTVMFFIDLTensorPtr ||
      arguments->values[1].type_index != kTVMFFIDLTensorPtr) {
    return fail(&server->failure, "CopyAmongRemote takes two tensors and a stream");
  }
  const struct tensor_view* from = &arguments->values[0].value.tensor;
  const struct tensor_view* to = &arguments->values[1].value.tensor;
  uint64_t size = 0;
  if (!tensor_view_bytes(from, &size, &server->failure)) return false;
  void* target = heap_resolve(&server->heap, to->memory, to->byte_offset, size, &server->failure);
  if (target == NULL) return false;
  const void* source = heap_resolve(&server->heap, from->memory, from->byte_offset, size, &server->failure);
  if (source == NULL) return false;
  memmove(target, source, (size_t)size);
  reply_none(&server->stream);
  return true;
}

/* There is one stream, and it is always finished. */
static bool stream_request(struct server* server) {
  if (!arguments_read(&server->stream, &server->arguments, &server->failure)) return false;
  reply_none(&server->stream);
  return true;
}

static handler find_handler(int32_t code) {
  static const handler handlers[] = {
      [RPC_INIT_SERVER] = init_server,
      [RPC_CALL_FUNC] = call_func,
      [RPC_COPY_FROM_REMOTE] = copy_from_remote,
      [RPC_COPY_TO_REMOTE] = copy_to_remote,
      [RPC_GET_GLOBAL_FUNC] = get_global_func,
      [RPC_FREE_HANDLE] = free_handle,
      [RPC_DEV_SET_DEVICE] = stream_request,
      [RPC_DEV_GET_ATTR] = get_attribute,
      [RPC_DEV_ALLOC_DATA] = alloc_data,
      [RPC_DEV_FREE_DATA] = free_data,
      [RPC_DEV_STREAM_SYNC] = stream_request,
      [RPC_COPY_AMONG_REMOTE] = copy_among_remote,
      [RPC_DEV_ALLOC_DATA_WITH_SCOPE] = alloc_data_with_scope,
      [RPC_DEV_CREATE_STREAM] = stream_request,
      [RPC_DEV_FREE_STREAM] = stream_request,
      [RPC_DEV_SET_STREAM] = stream_request,
      [RPC_DEV_GET_CURRENT_STREAM] = stream_request,
  };
  const int32_t count = sizeof handlers / sizeof handlers[0];
  return code >= 0 && code < count ? handlers[code] : NULL;
}

static bool handle(struct server* server, int32_t code) {
  const handler serve = find_handler(code);
  if (serve == NULL) return fail(&server->failure, "unknown request code %" PRId32, code);
  return serve(server);
}

void server_init(struct server* server, int read_fd, int write_fd, uint64_t memory_limit) {
  stream_init(&server->stream, read_fd, write_fd);
  heap_init(&server->heap, memory_limit);
  server->link = (struct link){.listener = -1, .fd = -1};
  memset(server->time_evaluators, 0, sizeof server->time_evaluators);
  server->arguments.count = 0;
  server->failure.message[0] = '\0';
}

bool server_serve_one(struct server* server) {
  struct stream* stream = &server->stream;
  if (!stream_next_packet(stream)) return false;
  if (stream->remaining == 0) return true; /* TVM sends empty packets to keep a connection alive */
  int32_t code = 0;
  const bool has_code = take(server, &code, sizeof code);
  if (has_code && code == RPC_SHUTDOWN) return false;
  const bool served = has_code && handle(server, code);
  /* Dropping comes first: a client that is still sending does not read. */
  if (!stream_drop_packet(stream)) return false;
  return (served || reply_exception(stream, server->failure.message)) && !stream->closed;
}

void server_destroy(struct server* server) {
  link_close(&server->link);
  heap_destroy(&server->heap);
}
