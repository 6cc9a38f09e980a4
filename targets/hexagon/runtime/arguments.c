#include "arguments.h"

#include <inttypes.h>
#include <tvm/ffi/c_api.h>

static bool take(struct stream* stream, void* out, size_t size, struct failure* failure) {
  return stream_take(stream, out, size) || fail(failure, "malformed packet: it ends inside a value");
}

static bool read_shape(struct stream* stream, struct tensor_view* tensor, struct failure* failure) {
  if (tensor->dimensions < 0 || tensor->dimensions > TENSOR_DIMENSIONS_MAX) {
    return fail(failure, "a tensor of %" PRId32 " dimensions: at most %d are supported", tensor->dimensions,
                TENSOR_DIMENSIONS_MAX);
  }
  return take(stream, tensor->shape, (size_t)tensor->dimensions * sizeof tensor->shape[0], failure);
}

bool tensor_view_read(struct stream* stream, struct tensor_view* tensor, struct failure* failure) {
  return take(stream, &tensor->memory, sizeof tensor->memory, failure) &&
         take(stream, &tensor->device_type, sizeof tensor->device_type, failure) &&
         take(stream, &tensor->device_id, sizeof tensor->device_id, failure) &&
         take(stream, &tensor->dimensions, sizeof tensor->dimensions, failure) &&
         take(stream, &tensor->type_code, sizeof tensor->type_code, failure) &&
         take(stream, &tensor->bits, sizeof tensor->bits, failure) &&
         take(stream, &tensor->lanes, sizeof tensor->lanes, failure) &&
         read_shape(stream, tensor, failure) &&
         take(stream, &tensor->byte_offset, sizeof tensor->byte_offset, failure);
}

bool tensor_view_bytes(const struct tensor_view* tensor, uint64_t* bytes, struct failure* failure) {
  uint64_t elements = 1;
  bool overflow = false;
  for (int32_t i = 0; i < tensor->dimensions; ++i) {
    if (tensor->shape[i] < 0) {
      return fail(failure, "dimension %" PRId32 " of a tensor is negative: %" PRId64, i, tensor->shape[i]);
    }
    overflow |= __builtin_mul_overflow(elements, (uint64_t)tensor->shape[i], &elements);
  }
  /* Whole bytes for each element, though some kernels would pack smaller ones: enough for either. */
  const uint64_t element_bytes = ((uint64_t)tensor->bits * tensor->lanes + 7) / 8;
  overflow |= __builtin_mul_overflow(elements, element_bytes, bytes);
  return !overflow || fail(failure, "the size of a tensor overflows 64 bits");
}

static bool read_text(struct stream* stream, struct arguments* arguments, struct argument* argument,
                      struct failure* failure) {
  uint64_t size = 0;
  if (!take(stream, &size, sizeof size, failure)) return false;
  const uint32_t free_bytes = ARGUMENT_TEXT_BYTES - arguments->text_used;
  if (size >= free_bytes) {
    return fail(failure, "a text argument of %" PRIu64 " bytes: at most %" PRIu32 " are supported", size,
                free_bytes - (free_bytes != 0));
  }
  char* text = arguments->text + arguments->text_used;
  if (!take(stream, text, (size_t)size, failure)) return false;
  text[size] = '\0';
  arguments->text_used += (uint32_t)size + 1;
  argument->type_index = kTVMFFIRawStr;
  argument->value.text = text;
  return true;
}

/* Strings and bytes that are objects repeat their type after the type index. */
static bool read_object(struct stream* stream, struct arguments* arguments, struct argument* argument,
                        struct failure* failure) {
  uint32_t type_index = 0;
  if (!take(stream, &type_index, sizeof type_index, failure)) return false;
  if (type_index == kTVMFFIStr || type_index == kTVMFFIBytes) {
    return read_text(stream, arguments, argument, failure);
  }
  return fail(failure, "cannot receive an object of type index %" PRIu32, type_index);
}

static bool read_argument(struct stream* stream, struct arguments* arguments, struct argument* argument,
                          struct failure* failure) {
  if (!take(stream, &argument->type_index, sizeof argument->type_index, failure)) return false;
  switch (argument->type_index) {
    case kTVMFFINone:
      return true;
    case kTVMFFIInt:
    case kTVMFFIBool:
    case kTVMFFIFloat:
    case kTVMFFIOpaquePtr:
    case kTVMFFIDataType:
    case kTVMFFIDevice:
    case kTVMFFIFunction:
    case kTVMFFIModule:
      return take(stream, &argument->value.word, sizeof argument->value.word, failure);
    case kTVMFFIDLTensorPtr:
      return tensor_view_read(stream, &argument->value.tensor, failure);
    case kTVMFFIRawStr:
    case kTVMFFIByteArrayPtr:
      return read_text(stream, arguments, argument, failure);
    case kTVMFFISmallStr:
    case kTVMFFISmallBytes:
    case kTVMFFIStr:
    case kTVMFFIBytes:
      return read_object(stream, arguments, argument, failure);
    default:
      return fail(failure, "cannot receive a value of type index %" PRId32, argument->type_index);
  }
}

bool arguments_read(struct stream* stream, struct arguments* arguments, struct failure* failure) {
  arguments->count = 0;
  arguments->text_used = 0;
  int32_t count = 0;
  if (!take(stream, &count, sizeof count, failure)) return false;
  if (count < 0 || count > ARGUMENTS_MAX) {
    return fail(failure, "%" PRId32 " arguments: at most %d are supported", count, ARGUMENTS_MAX);
  }
  for (; arguments->count < count; ++arguments->count) {
    if (!read_argument(stream, arguments, &arguments->values[arguments->count], failure)) return false;
  }
  return true;
}
