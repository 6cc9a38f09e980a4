/* A server of TVM RPC for one client: memory, copies and calls on this device. */
#ifndef MLLM_SERVER_H
#define MLLM_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "arguments.h"
#include "failure.h"
#include "heap.h"
#include "link.h"
#include "stream.h"
#include "time_evaluator.h"

struct server {
  struct stream stream;
  struct heap heap;
  struct link link; /* for bulk copies, if a client opened one */
  struct time_evaluator time_evaluators[TIME_EVALUATORS_MAX];
  struct arguments arguments;
  struct failure failure;
};

/* A server of at most `memory_limit` bytes of device memory. */
void server_init(struct server* server, int read_fd, int write_fd, uint64_t memory_limit);

/* Serves one request. False at the end of the session: the client said so, or is gone. */
bool server_serve_one(struct server* server);

void server_destroy(struct server* server);

#endif
