/* Memory shared with a client on the same machine, for bulk copies: the part that rpcmem plays on a phone. */
#ifndef MLLM_WINDOW_H
#define MLLM_WINDOW_H

#include <stdbool.h>
#include <stddef.h>

struct window {
  unsigned char* data;
  size_t size; /* 0 when there is no window */
};

/* Maps the whole of a shared memory file; false when that is not possible. */
bool window_map(struct window* window, int fd);

#endif
