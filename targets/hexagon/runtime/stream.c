#include "stream.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

void stream_init(struct stream* stream, int read_fd, int write_fd) {
  memset(stream, 0, sizeof *stream);
  stream->read_fd = read_fd;
  stream->write_fd = write_fd;
}

/* One read into `out`; 0 when the peer is gone. */
static size_t read_some(struct stream* stream, unsigned char* out, size_t size) {
  ssize_t count;
  do {
    count = read(stream->read_fd, out, size);
  } while (count < 0 && errno == EINTR);
  if (count <= 0) {
    stream->closed = true;
    return 0;
  }
  return (size_t)count;
}

static size_t take_buffered(struct stream* stream, unsigned char* out, size_t size) {
  size_t available = stream->end - stream->start;
  size_t count = size < available ? size : available;
  memcpy(out, stream->buffer + stream->start, count);
  stream->start += count;
  return count;
}

static bool fill_buffer(struct stream* stream) {
  stream->start = 0;
  stream->end = read_some(stream, stream->buffer, sizeof stream->buffer);
  return stream->end != 0;
}

static bool read_exactly(struct stream* stream, unsigned char* out, size_t size) {
  while (size != 0) {
    size_t count = take_buffered(stream, out, size);
    if (count == 0 && size >= sizeof stream->buffer) {
      count = read_some(stream, out, size);
      if (count == 0) return false;
    } else if (count == 0 && !fill_buffer(stream)) {
      return false;
    }
    out += count;
    size -= count;
  }
  return true;
}

bool stream_next_packet(struct stream* stream) {
  uint64_t size = 0;
  if (stream->closed || !read_exactly(stream, (unsigned char*)&size, sizeof size)) return false;
  stream->remaining = size;
  return true;
}

bool stream_take(struct stream* stream, void* out, size_t size) {
  if (stream->closed || size > stream->remaining) return false;
  if (!read_exactly(stream, out, size)) return false;
  stream->remaining -= size;
  return true;
}

bool stream_drop_packet(struct stream* stream) {
  while (stream->remaining != 0) {
    size_t available = stream->end - stream->start;
    if (available == 0) {
      if (stream->closed || !fill_buffer(stream)) return false;
      continue;
    }
    size_t count = stream->remaining < available ? (size_t)stream->remaining : available;
    stream->start += count;
    stream->remaining -= count;
  }
  return !stream->closed;
}

static bool write_exactly(struct stream* stream, const unsigned char* data, size_t size) {
  while (size != 0) {
    ssize_t count = write(stream->write_fd, data, size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      stream->closed = true;
      return false;
    }
    data += count;
    size -= (size_t)count;
  }
  return true;
}

bool stream_send(struct stream* stream, const void* head, size_t head_size, const void* body,
                 size_t body_size) {
  return write_exactly(stream, head, head_size) && write_exactly(stream, body, body_size);
}
