#include "window.h"

#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>

bool window_map(struct window* window, int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0 || status.st_size <= 0) return false;
  if ((uint64_t)status.st_size > SIZE_MAX) return false;
  void* data = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return false;
  window->data = data;
  window->size = (size_t)status.st_size;
  return true;
}
