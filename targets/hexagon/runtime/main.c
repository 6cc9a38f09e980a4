/* The device process: `server [MEMORY_FD] READ_FD WRITE_FD`.
 * TVM's client adds the ends of its two pipes; a client on this machine shares memory in MEMORY_FD. */
#define _GNU_SOURCE /* F_SETPIPE_SZ */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "server.h"

enum { PIPE_BYTES = 1 << 20 };

/* A file descriptor, or -1. */
static int parse_fd(const char* text) {
  char* end = NULL;
  errno = 0;
  const long value = strtol(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || value < 0 || value > 1 << 20) return -1;
  return fcntl((int)value, F_GETFD) < 0 ? -1 : (int)value;
}

/* Fewer and larger transfers; without it the server is slower, not wrong. */
static void enlarge_pipe(int fd) {
#ifdef F_SETPIPE_SZ
  (void)fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES);
#else
  (void)fd;
#endif
}

static int usage(const char* program) {
  fprintf(stderr, "usage: %s [MEMORY_FD] READ_FD WRITE_FD (from tvm.rpc.PopenSession)\n", program);
  return 2;
}

int main(int argc, char** argv) {
  static struct server server;
  const int read_fd = argc >= 3 ? parse_fd(argv[argc - 2]) : -1;
  const int write_fd = argc >= 3 ? parse_fd(argv[argc - 1]) : -1;
  const int memory_fd = argc >= 4 ? parse_fd(argv[1]) : -1;
  if (argc > 4 || read_fd < 0 || write_fd < 0 || (argc == 4 && memory_fd < 0)) return usage(argv[0]);
  /* A client that is gone shows as a failed write. */
  signal(SIGPIPE, SIG_IGN);
  /* Ctrl-C reaches every process of a terminal; what it means is the client's business. */
  signal(SIGINT, SIG_IGN);
  enlarge_pipe(read_fd);
  enlarge_pipe(write_fd);
  server_init(&server, read_fd, write_fd, heap_default_limit());
  server.heap.shared_fd = memory_fd;
  while (server_serve_one(&server)) {
  }
  server_destroy(&server);
  return 0;
}
