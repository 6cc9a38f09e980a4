/* The functions of TVM's runtime that generated kernels call. */
#ifndef MLLM_BACKEND_H
#define MLLM_BACKEND_H

/* Forgets the error raised last. */
void backend_clear_error(void);

/* The error a kernel raised last, as "Kind: message". */
const char* backend_error(void);

#endif
