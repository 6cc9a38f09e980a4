#include "reply.h"

#include <string.h>
#include <tvm/ffi/c_api.h>

#include "protocol.h"

/* The fixed part of a packet; the longest has two values. */
struct head {
  size_t size;
  unsigned char bytes[64];
};

static void put(struct head* head, const void* data, size_t size) {
  memcpy(head->bytes + head->size, data, size);
  head->size += size;
}

static void put_i32(struct head* head, int32_t value) { put(head, &value, sizeof value); }

static void put_i64(struct head* head, int64_t value) { put(head, &value, sizeof value); }

static struct head begin(int32_t code) {
  struct head head = {.size = sizeof(uint64_t)};
  put_i32(&head, code);
  return head;
}

static struct head begin_values(int32_t code, int32_t count) {
  struct head head = begin(code);
  put_i32(&head, count);
  return head;
}

static void put_word(struct head* head, int32_t type_index, int64_t word) {
  put_i32(head, type_index);
  put_i64(head, word);
}

static bool finish(struct stream* stream, struct head* head, const void* body, size_t size) {
  const uint64_t packet_bytes = head->size - sizeof packet_bytes + size;
  memcpy(head->bytes, &packet_bytes, sizeof packet_bytes);
  return stream_send(stream, head->bytes, head->size, body, size);
}

bool reply_none(struct stream* stream) {
  struct head head = begin_values(RPC_RETURN, 1);
  put_i32(&head, kTVMFFINone);
  return finish(stream, &head, NULL, 0);
}

bool reply_int(struct stream* stream, int64_t value) {
  struct head head = begin_values(RPC_RETURN, 1);
  put_word(&head, kTVMFFIInt, value);
  return finish(stream, &head, NULL, 0);
}

bool reply_handle(struct stream* stream, uint64_t handle) {
  struct head head = begin_values(RPC_RETURN, 1);
  put_word(&head, kTVMFFIOpaquePtr, (int64_t)handle);
  return finish(stream, &head, NULL, 0);
}

bool reply_data(struct stream* stream, const void* data, size_t size) {
  struct head head = begin(RPC_COPY_ACK);
  return finish(stream, &head, data, size);
}

bool reply_call_none(struct stream* stream) {
  struct head head = begin_values(RPC_RETURN, 2);
  put_word(&head, kTVMFFIInt, kTVMFFINone);
  put_i32(&head, kTVMFFINone);
  return finish(stream, &head, NULL, 0);
}

bool reply_call_int(struct stream* stream, int64_t value) {
  struct head head = begin_values(RPC_RETURN, 2);
  put_word(&head, kTVMFFIInt, kTVMFFIInt);
  put_word(&head, kTVMFFIInt, value);
  return finish(stream, &head, NULL, 0);
}

bool reply_call_handle(struct stream* stream, int32_t type_index, uint64_t handle) {
  struct head head = begin_values(RPC_RETURN, 2);
  put_word(&head, kTVMFFIInt, type_index);
  put_word(&head, kTVMFFIOpaquePtr, (int64_t)handle);
  return finish(stream, &head, NULL, 0);
}

bool reply_call_bytes(struct stream* stream, const void* data, size_t size) {
  struct head head = begin_values(RPC_RETURN, 2);
  put_word(&head, kTVMFFIInt, kTVMFFIBytes);
  put_word(&head, kTVMFFIByteArrayPtr, (int64_t)size);
  return finish(stream, &head, data, size);
}

bool reply_call_text(struct stream* stream, const char* text, size_t size) {
  struct head head = begin_values(RPC_RETURN, 2);
  put_word(&head, kTVMFFIInt, kTVMFFIStr);
  put_word(&head, kTVMFFIRawStr, (int64_t)size);
  return finish(stream, &head, text, size);
}

bool reply_exception(struct stream* stream, const char* message) {
  struct head head = begin_values(RPC_EXCEPTION, 1);
  const size_t size = strlen(message);
  put_word(&head, kTVMFFIRawStr, (int64_t)size);
  return finish(stream, &head, message, size);
}
