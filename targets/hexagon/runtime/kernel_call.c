#define _XOPEN_SOURCE 700 /* alarm */
#include "kernel_call.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"
#include "reply.h"

static void set_dense_strides(int64_t* strides, const int64_t* shape, int32_t dimensions) {
  int64_t stride = 1;
  for (int32_t i = dimensions - 1; i >= 0; --i) {
    strides[i] = stride;
    /* Only a tensor without elements gets here with lengths whose product overflows. */
    if (__builtin_mul_overflow(stride, shape[i], &stride)) stride = 0;
  }
}

static bool bind_tensor(const struct heap* heap, const struct tensor_view* view, struct frame* frame,
                        int32_t index, struct failure* failure) {
  uint64_t bytes = 0;
  if (!tensor_view_bytes(view, &bytes, failure)) return false;
  unsigned char* data = heap_resolve(heap, view->memory, view->byte_offset, bytes, failure);
  if (data == NULL) return false;
  memcpy(frame->shapes[index], view->shape, (size_t)view->dimensions * sizeof view->shape[0]);
  set_dense_strides(frame->strides[index], frame->shapes[index], view->dimensions);
  frame->tensors[index] = (DLTensor){
      .data = data,
      .device = {.device_type = kDLCPU, .device_id = 0},
      .ndim = view->dimensions,
      .dtype = {.code = view->type_code, .bits = view->bits, .lanes = view->lanes},
      .shape = frame->shapes[index],
      .strides = frame->strides[index],
      .byte_offset = 0,
  };
  frame->values[index].v_ptr = &frame->tensors[index];
  return true;
}

static bool bind_argument(const struct heap* heap, const struct argument* argument, struct frame* frame,
                          int32_t index, struct failure* failure) {
  TVMFFIAny* value = &frame->values[index];
  memset(value, 0, sizeof *value);
  value->type_index = argument->type_index;
  switch (argument->type_index) {
    case kTVMFFIInt:
    case kTVMFFIBool:
    case kTVMFFIFloat:
      value->v_uint64 = argument->value.word;
      return true;
    case kTVMFFIDLTensorPtr:
      return bind_tensor(heap, &argument->value.tensor, frame, index, failure);
    default:
      /* Generated code would follow any other value as a pointer. */
      return fail(failure, "argument %" PRId32 " of a kernel has type index %" PRId32
                           ": expected a tensor or a number", index, argument->type_index);
  }
}

bool frame_bind(struct frame* frame, const struct heap* heap, const struct arguments* arguments,
                struct failure* failure) {
  frame->count = arguments->count;
  for (int32_t i = 0; i < arguments->count; ++i) {
    if (!bind_argument(heap, &arguments->values[i], frame, i, failure)) return false;
  }
  return true;
}

/* Signal handlers have no argument of the program's, and there is one alarm clock a process. */
static unsigned limit_seconds;

static void end_process(int signal_number) {
  static const char message[] = "a kernel ran for longer than its limit\n";
  (void)signal_number;
  (void)!write(STDERR_FILENO, message, sizeof message - 1);
  _exit(124);
}

void kernel_call_limit(unsigned seconds) {
  limit_seconds = seconds;
  signal(SIGALRM, end_process);
}

bool kernel_run(const struct kernel* kernel, const struct frame* frame, struct work* work,
                struct failure* failure) {
  TVMFFIAny result = {.type_index = kTVMFFINone};
  backend_clear_error();
  if (limit_seconds != 0) (void)alarm(limit_seconds);
  work_begin();
  const int status = kernel->call(NULL, frame->values, frame->count, &result);
  *work = work_end();
  if (limit_seconds != 0) (void)alarm(0);
  return status == 0 || fail(failure, "kernel %s: %s", kernel->name, backend_error());
}

static bool reply_work(struct stream* stream, struct work work) {
  const uint64_t counts[5] = {work.packets, work.instructions, work.hvx_instructions, work.total_packets,
                              work.contexts};
  return reply_call_bytes(stream, counts, sizeof counts);
}

bool kernel_call(struct stream* stream, const struct heap* heap, const struct kernel* kernel,
                 const struct arguments* arguments, struct failure* failure) {
  struct frame frame;
  struct work work;
  if (!frame_bind(&frame, heap, arguments, failure) || !kernel_run(kernel, &frame, &work, failure)) return false;
  reply_work(stream, work);
  return true;
}
