/* Packets over a pair of file descriptors: a length of 8 bytes, then that many bytes. */
#ifndef MLLM_STREAM_H
#define MLLM_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STREAM_BUFFER_BYTES = 65536 };

struct stream {
  int read_fd;
  int write_fd;
  uint64_t remaining; /* bytes of the current packet that were not taken yet */
  bool closed;        /* the peer is gone, or the descriptor failed */
  size_t start;       /* buffer[start, end) was read from the descriptor and not taken */
  size_t end;
  unsigned char buffer[STREAM_BUFFER_BYTES];
};

void stream_init(struct stream* stream, int read_fd, int write_fd);

/* Starts the next packet, whose length becomes `remaining`; false when the peer is gone. */
bool stream_next_packet(struct stream* stream);

/* Takes `size` bytes of the packet; false when it has fewer, or when the peer is gone (`closed`).
 * Large blocks are read from the descriptor straight into `out`. */
bool stream_take(struct stream* stream, void* out, size_t size);

/* Drops what is left of the packet; false when the peer is gone. */
bool stream_drop_packet(struct stream* stream);

/* Sends two blocks, one after the other; false when the peer is gone. */
bool stream_send(struct stream* stream, const void* head, size_t head_size, const void* body,
                 size_t body_size);

#endif
