/* A reason why a request was refused; it travels to the client as the text of an RPC exception. */
#ifndef MLLM_FAILURE_H
#define MLLM_FAILURE_H

#include <stdbool.h>

struct failure {
  char message[2048];
};

/* Records a printf-style message. Always returns false, so that `return fail(...)` reads well. */
bool fail(struct failure* failure, const char* format, ...) __attribute__((format(printf, 2, 3)));

#endif
