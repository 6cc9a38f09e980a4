/* Replies, in the form TVM's client expects. Each sends one packet; false when the peer is gone. */
#ifndef MLLM_REPLY_H
#define MLLM_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stream.h"

/* To requests of the runtime: one value. */
bool reply_none(struct stream* stream);
bool reply_int(struct stream* stream, int64_t value);
bool reply_handle(struct stream* stream, uint64_t handle);

/* To a request for bytes of a tensor. */
bool reply_data(struct stream* stream, const void* data, size_t size);

/* To calls of functions: the type of the result, then the result. */
bool reply_call_none(struct stream* stream);
bool reply_call_int(struct stream* stream, int64_t value);
bool reply_call_handle(struct stream* stream, int32_t type_index, uint64_t handle);
bool reply_call_bytes(struct stream* stream, const void* data, size_t size);
bool reply_call_text(struct stream* stream, const char* text, size_t size);

bool reply_exception(struct stream* stream, const char* message);

#endif
