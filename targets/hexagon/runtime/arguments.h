/* TVM's packed sequence of values, as it is in a packet: read, checked and kept for one request. */
#ifndef MLLM_ARGUMENTS_H
#define MLLM_ARGUMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "failure.h"
#include "stream.h"

enum { ARGUMENTS_MAX = 64, TENSOR_DIMENSIONS_MAX = 8, ARGUMENT_TEXT_BYTES = 4096 };

/* A tensor on this device: a handle of its memory, and where in it the elements lie. */
struct tensor_view {
  uint64_t memory;
  int32_t device_type;
  int32_t device_id;
  int32_t dimensions;
  uint8_t type_code;
  uint8_t bits;
  uint16_t lanes;
  int64_t shape[TENSOR_DIMENSIONS_MAX];
  uint64_t byte_offset;
};

struct argument {
  int32_t type_index; /* TVMFFITypeIndex; every kind of string becomes kTVMFFIRawStr */
  union {
    uint64_t word; /* integers, floats, handles, types and devices, as they are in the packet */
    const char* text;
    struct tensor_view tensor;
  } value;
};

struct arguments {
  int32_t count;
  struct argument values[ARGUMENTS_MAX];
  uint32_t text_used;
  char text[ARGUMENT_TEXT_BYTES];
};

/* Reads the arguments of the current packet. */
bool arguments_read(struct stream* stream, struct arguments* arguments, struct failure* failure);

/* Reads one tensor of the current packet. */
bool tensor_view_read(struct stream* stream, struct tensor_view* tensor, struct failure* failure);

/* Bytes of the elements; false when a length is negative or the product overflows. */
bool tensor_view_bytes(const struct tensor_view* tensor, uint64_t* bytes, struct failure* failure);

#endif
