#define _XOPEN_SOURCE 700 /* pread, pwrite */
#include "window.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static bool check(struct window window, ssize_t count, size_t size, struct failure* failure) {
  if (window.fd < 0) return fail(failure, "this session has no shared window");
  if (count > 0 || (count < 0 && errno == EINTR)) return true;
  return fail(failure, "the shared window does not take %zu more bytes: %s", size,
              count == 0 ? "it ends there" : strerror(errno));
}

bool window_read(struct window window, unsigned char* out, size_t size, struct failure* failure) {
  for (size_t done = 0; done < size;) {
    const ssize_t count = pread(window.fd, out + done, size - done, (off_t)done);
    if (!check(window, count, size - done, failure)) return false;
    if (count > 0) done += (size_t)count;
  }
  return true;
}

bool window_write(struct window window, const unsigned char* data, size_t size, struct failure* failure) {
  for (size_t done = 0; done < size;) {
    const ssize_t count = pwrite(window.fd, data + done, size - done, (off_t)done);
    if (!check(window, count, size - done, failure)) return false;
    if (count > 0) done += (size_t)count;
  }
  return true;
}
