/* Device memory: blocks that clients name by handle, never by address.
 *
 * A handle holds a slot number and the slot's generation, so one that was freed, or made up, is refused. */
#ifndef MLLM_HEAP_H
#define MLLM_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#include "failure.h"

/* Length of an HVX vector: kernels are compiled for buffers with this alignment. */
enum { HEAP_ALIGNMENT = 128 };

/* Blocks of this size and up live in the shared file, if there is one. */
enum { HEAP_SHARED_BYTES = 4096 };

struct heap_slot {
  unsigned char* data; /* NULL when the slot is free */
  uint64_t size;       /* bytes asked for */
  uint64_t file_start; /* offset in the shared file; 0 for private memory */
  uint32_t generation;
  uint32_t next_free;
};

struct heap {
  struct heap_slot* slots;
  uint32_t slot_count;
  uint32_t first_free; /* slot_count when there is none */
  uint64_t in_use;     /* bytes, with padding */
  uint64_t limit;      /* bytes */
  int shared_fd;       /* a memory file that a client on this machine maps, reads and writes too, or -1 */
  uint64_t file_end;   /* every block gets a new part of it: files have holes, and room for 2^42 bytes */
};

/* A heap of at most `limit` bytes. */
void heap_init(struct heap* heap, uint64_t limit);

/* Frees every block. */
void heap_destroy(struct heap* heap);

/* Bytes this machine can give to a heap. */
uint64_t heap_default_limit(void);

/* Allocates `size` bytes (0 is allowed), aligned to HEAP_ALIGNMENT, with unspecified contents. */
bool heap_alloc(struct heap* heap, uint64_t size, uint64_t* handle, struct failure* failure);

bool heap_free(struct heap* heap, uint64_t handle, struct failure* failure);

/* The address of bytes [offset, offset + size) of a block, or NULL when it has no such bytes. */
unsigned char* heap_resolve(const struct heap* heap, uint64_t handle, uint64_t offset, uint64_t size,
                            struct failure* failure);

/* Where a block starts in the shared file; 0 when it does not live there, or is none. */
uint64_t heap_file_offset(const struct heap* heap, uint64_t handle);

#endif
