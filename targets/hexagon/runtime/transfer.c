#define _XOPEN_SOURCE 700 /* O_CLOEXEC, pread */
#include "transfer.h"

#include <fcntl.h>
#include <string.h>
#include <tvm/ffi/c_api.h>
#include <unistd.h>

#include "reply.h"
#include "server.h"

static bool takes(struct server* server, const char* what, int32_t count, const int32_t* types) {
  const struct arguments* arguments = &server->arguments;
  bool good = arguments->count == count;
  for (int32_t i = 0; good && i < count; ++i) good = arguments->values[i].type_index == types[i];
  return good || fail(&server->failure, "expected %s", what);
}

/* A file in which a client on this machine put a token: another machine may have one of that name. */
static int open_shared(const char* path, const char* token) {
  char found[LINK_TOKEN_BYTES];
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return -1;
  if (strlen(token) == sizeof found && pread(fd, found, sizeof found, 0) == (ssize_t)sizeof found &&
      memcmp(found, token, sizeof found) == 0) {
    return fd;
  }
  (void)close(fd);
  return -1;
}

bool transfer_share(struct server* server) {
  const struct argument* values = server->arguments.values;
  if (!takes(server, "a path and a token", 2, (const int32_t[]){kTVMFFIRawStr, kTVMFFIRawStr})) return false;
  if (server->heap.shared_fd < 0) server->heap.shared_fd = open_shared(values[0].value.text, values[1].value.text);
  reply_call_int(&server->stream, server->heap.shared_fd >= 0);
  return true;
}

bool transfer_file_offset(struct server* server) {
  if (!takes(server, "a tensor", 1, (const int32_t[]){kTVMFFIDLTensorPtr})) return false;
  const struct tensor_view* tensor = &server->arguments.values[0].value.tensor;
  uint64_t size = 0;
  if (!tensor_view_bytes(tensor, &size, &server->failure)) return false;
  if (heap_resolve(&server->heap, tensor->memory, tensor->byte_offset, size, &server->failure) == NULL) {
    return false;
  }
  const uint64_t start = heap_file_offset(&server->heap, tensor->memory);
  reply_call_int(&server->stream, start == 0 ? -1 : (int64_t)(start + tensor->byte_offset));
  return true;
}

bool transfer_listen(struct server* server) {
  if (!takes(server, "an IPv4 address", 1, (const int32_t[]){kTVMFFIInt})) return false;
  uint16_t port = 0;
  if (!link_listen(&server->link, (uint32_t)server->arguments.values[0].value.word, &port, &server->failure)) {
    return false;
  }
  reply_call_int(&server->stream, port);
  return true;
}

bool transfer_accept(struct server* server) {
  if (!takes(server, "a token", 1, (const int32_t[]){kTVMFFIRawStr})) return false;
  const char* token = server->arguments.values[0].value.text;
  if (strlen(token) != LINK_TOKEN_BYTES) return fail(&server->failure, "expected a token");
  if (!link_accept(&server->link, token, &server->failure)) return false;
  reply_call_none(&server->stream);
  return true;
}

/* Resolves the arguments (tensor, offset, size) to the tensor's bytes [offset, offset + size). */
static unsigned char* copied_part(struct server* server, size_t* size) {
  static const int32_t types[] = {kTVMFFIDLTensorPtr, kTVMFFIInt, kTVMFFIInt};
  const struct argument* values = server->arguments.values;
  if (!takes(server, "a tensor, an offset and a size", 3, types)) return NULL;
  uint64_t offset = 0;
  if (__builtin_add_overflow(values[0].value.tensor.byte_offset, values[1].value.word, &offset)) {
    fail(&server->failure, "the offset of a copy overflows 64 bits");
    return NULL;
  }
  const uint64_t bytes = values[2].value.word;
  /* A block of this size exists, so it fits size_t. */
  *size = (size_t)bytes;
  return heap_resolve(&server->heap, values[0].value.tensor.memory, offset, bytes, &server->failure);
}

bool transfer_receive(struct server* server) {
  size_t size = 0;
  unsigned char* data = copied_part(server, &size);
  if (data == NULL || !link_read(&server->link, data, size, &server->failure)) return false;
  reply_call_none(&server->stream);
  return true;
}

bool transfer_send(struct server* server) {
  size_t size = 0;
  const unsigned char* data = copied_part(server, &size);
  if (data == NULL || !link_write(&server->link, data, size, &server->failure)) return false;
  reply_call_none(&server->stream);
  return true;
}
