/* A memory file shared with a client on the same machine, for bulk copies: the part rpcmem plays on a phone.
 *
 * It is read and written rather than mapped: under emulation the copy is then done by the host's kernel. */
#ifndef MLLM_WINDOW_H
#define MLLM_WINDOW_H

#include <stddef.h>

#include "failure.h"

struct window {
  int fd; /* -1 when there is no window */
};

/* Copies the first `size` bytes of the window to `out`. */
bool window_read(struct window window, unsigned char* out, size_t size, struct failure* failure);

/* Copies `size` bytes to the start of the window. */
bool window_write(struct window window, const unsigned char* data, size_t size, struct failure* failure);

#endif
