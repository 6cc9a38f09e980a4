#define _GNU_SOURCE /* fallocate */
#include "heap.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "handle.h"

enum { SLOTS_MAX = 1 << 20, GENERATION_MASK = 0xFFFFFF };

/* Parts of the shared file start at a multiple of the largest page size, that of emulated Hexagons. */
enum { PAGE_BYTES = 1 << 16 };

void heap_init(struct heap* heap, uint64_t limit) {
  memset(heap, 0, sizeof *heap);
  heap->limit = limit;
  heap->shared_fd = -1;
  heap->file_end = PAGE_BYTES;
}

static uint64_t mapped_size(uint64_t size) { return (size + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES; }

static void release(const struct heap* heap, struct heap_slot* slot) {
  if (slot->file_start == 0) {
    free(slot->data);
  } else {
    const uint64_t size = mapped_size(slot->size);
    (void)munmap(slot->data, (size_t)size);
    /* Gives the memory back; nothing else ever uses this part. */
    (void)fallocate(heap->shared_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)slot->file_start,
                    (off_t)size);
  }
  slot->data = NULL;
}

void heap_destroy(struct heap* heap) {
  for (uint32_t i = 0; i < heap->slot_count; ++i) {
    if (heap->slots[i].data != NULL) release(heap, &heap->slots[i]);
  }
  free(heap->slots);
  heap_init(heap, heap->limit);
}

uint64_t heap_default_limit(void) {
  /* What remains of a 32-bit address space beside code, stacks and the C library. */
  const uint64_t address_space = sizeof(void*) == 4 ? UINT64_C(3584) << 20 : UINT64_MAX >> 1;
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) return address_space;
  const uint64_t physical = (uint64_t)pages * (uint64_t)page_bytes;
  return physical < address_space ? physical : address_space;
}

static uint64_t make_handle(uint32_t slot, uint32_t generation) {
  return handle_make(HANDLE_MEMORY, (uint64_t)generation << 32 | slot);
}

static bool grow(struct heap* heap, struct failure* failure) {
  const uint32_t count = heap->slot_count == 0 ? 64 : heap->slot_count * 2;
  if (count > SLOTS_MAX) return fail(failure, "too many device tensors: at most %d can exist", SLOTS_MAX);
  struct heap_slot* slots = realloc(heap->slots, count * sizeof *slots);
  if (slots == NULL) return fail(failure, "device out of memory for its table of tensors");
  for (uint32_t i = heap->slot_count; i < count; ++i) {
    slots[i] = (struct heap_slot){.data = NULL, .generation = 1, .next_free = i + 1};
  }
  heap->slots = slots;
  heap->first_free = heap->slot_count;
  heap->slot_count = count;
  return true;
}

/* What a block of `size` bytes takes: a whole number of vectors, at least one. Saturates. */
static uint64_t padded_size(uint64_t size) {
  if (size == 0) return HEAP_ALIGNMENT;
  if (size > UINT64_MAX - HEAP_ALIGNMENT) return UINT64_MAX;
  return (size + (HEAP_ALIGNMENT - 1)) / HEAP_ALIGNMENT * HEAP_ALIGNMENT;
}

static bool check_fits(const struct heap* heap, uint64_t size, struct failure* failure) {
  const uint64_t available = heap->limit - heap->in_use;
  const uint64_t padded = padded_size(size);
  if (padded <= available) return true;
  return fail(failure,
              "device out of memory: %" PRIu64 " bytes asked for, %" PRIu64 " of %" PRIu64
              " in use, short by %" PRIu64 " bytes",
              size, heap->in_use, heap->limit, padded - available);
}

static unsigned char* map_shared(struct heap* heap, uint64_t size) {
  void* data = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, heap->shared_fd,
                    (off_t)heap->file_end);
  if (data == MAP_FAILED) return NULL;
  heap->file_end += size;
  return data;
}

bool heap_alloc(struct heap* heap, uint64_t size, uint64_t* handle, struct failure* failure) {
  if (!check_fits(heap, size, failure)) return false;
  if (heap->first_free == heap->slot_count && !grow(heap, failure)) return false;
  const uint64_t padded = padded_size(size);
  const bool shared = heap->shared_fd >= 0 && size >= HEAP_SHARED_BYTES;
  const uint64_t file_start = shared ? heap->file_end : 0;
  unsigned char* data =
      shared ? map_shared(heap, mapped_size(size)) : aligned_alloc(HEAP_ALIGNMENT, (size_t)padded);
  if (data == NULL) {
    return fail(failure,
                "device out of memory: no free block of %" PRIu64 " bytes, with %" PRIu64 " of %" PRIu64
                " bytes in use",
                size, heap->in_use, heap->limit);
  }
  const uint32_t index = heap->first_free;
  struct heap_slot* slot = &heap->slots[index];
  heap->first_free = slot->next_free;
  heap->in_use += padded;
  slot->data = data;
  slot->size = size;
  slot->file_start = file_start;
  *handle = make_handle(index, slot->generation);
  return true;
}

static struct heap_slot* find_slot(const struct heap* heap, uint64_t handle) {
  const uint32_t index = (uint32_t)handle;
  if (index >= heap->slot_count) return NULL;
  struct heap_slot* slot = &heap->slots[index];
  if (slot->data == NULL || make_handle(index, slot->generation) != handle) return NULL;
  return slot;
}

bool heap_free(struct heap* heap, uint64_t handle, struct failure* failure) {
  struct heap_slot* slot = find_slot(heap, handle);
  if (slot == NULL) return fail(failure, "0x%" PRIx64 " is not the handle of a device tensor", handle);
  release(heap, slot);
  heap->in_use -= padded_size(slot->size);
  slot->generation = (slot->generation + 1) & GENERATION_MASK;
  slot->next_free = heap->first_free;
  heap->first_free = (uint32_t)handle;
  return true;
}

unsigned char* heap_resolve(const struct heap* heap, uint64_t handle, uint64_t offset, uint64_t size,
                            struct failure* failure) {
  const struct heap_slot* slot = find_slot(heap, handle);
  if (slot == NULL) {
    fail(failure, "0x%" PRIx64 " is not the handle of a device tensor", handle);
    return NULL;
  }
  if (offset > slot->size || size > slot->size - offset) {
    fail(failure, "%" PRIu64 " bytes at offset %" PRIu64 " are outside a device tensor of %" PRIu64 " bytes",
         size, offset, slot->size);
    return NULL;
  }
  return slot->data + offset;
}

uint64_t heap_file_offset(const struct heap* heap, uint64_t handle) {
  const struct heap_slot* slot = find_slot(heap, handle);
  return slot == NULL ? 0 : slot->file_start;
}
