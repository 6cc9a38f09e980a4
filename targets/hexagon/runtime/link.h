/* A TCP connection that carries the bytes of bulk copies, beside the one that carries requests: TVM's own
 * client and server take copies apart byte by byte. */
#ifndef MLLM_LINK_H
#define MLLM_LINK_H

#include <stddef.h>
#include <stdint.h>

#include "failure.h"

enum { LINK_TOKEN_BYTES = 32 };

struct link {
  int listener; /* -1 when nothing is awaited */
  int fd;       /* -1 when there is no connection */
};

/* Waits for a client at an address of this machine (IPv4, in host byte order) and some port. */
bool link_listen(struct link* link, uint32_t address, uint16_t* port, struct failure* failure);

/* Takes the connection of the client that was told of it, which sends LINK_TOKEN_BYTES of `token` first. */
bool link_accept(struct link* link, const char* token, struct failure* failure);

/* Receives or sends `size` bytes; after a failure the connection is closed. */
bool link_read(struct link* link, unsigned char* out, size_t size, struct failure* failure);
bool link_write(struct link* link, const unsigned char* data, size_t size, struct failure* failure);

void link_close(struct link* link);

#endif
