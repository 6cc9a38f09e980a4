/* Functions for bulk copies: memory shared with a client on the same machine, or a data connection. */
#ifndef MLLM_TRANSFER_H
#define MLLM_TRANSFER_H

#include <stdbool.h>

struct server;

/* (path, token) -> 1 when that file starts with the token, and large tensors will live in it; else 0. */
bool transfer_share(struct server* server);

/* (tensor) -> where its first byte is in the shared file, or -1. */
bool transfer_file_offset(struct server* server);

/* (IPv4 address as an integer) -> the port where the data connection is awaited. */
bool transfer_listen(struct server* server);

/* (token) -> None, once the data connection is there. */
bool transfer_accept(struct server* server);

/* (tensor, offset, size) -> None: that part of a tensor comes or goes over the data connection. */
bool transfer_receive(struct server* server);
bool transfer_send(struct server* server);

#endif
