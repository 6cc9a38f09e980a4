#define _XOPEN_SOURCE 700 /* sockets, poll */
#include "link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPT_MILLISECONDS = 5000 };

static void close_fd(int* fd) {
  if (*fd >= 0) (void)close(*fd);
  *fd = -1;
}

void link_close(struct link* link) {
  close_fd(&link->listener);
  close_fd(&link->fd);
}

static bool listen_at(int fd, uint32_t address, uint16_t* port) {
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
  socklen_t size = sizeof name;
  if (bind(fd, (struct sockaddr*)&name, size) != 0 || listen(fd, 1) != 0) return false;
  if (getsockname(fd, (struct sockaddr*)&name, &size) != 0) return false;
  *port = ntohs(name.sin_port);
  return true;
}

bool link_listen(struct link* link, uint32_t address, uint16_t* port, struct failure* failure) {
  link_close(link);
  link->listener = socket(AF_INET, SOCK_STREAM, 0);
  if (link->listener >= 0 && listen_at(link->listener, address, port)) return true;
  fail(failure, "cannot listen for a data connection: %s", strerror(errno));
  link_close(link);
  return false;
}

bool link_accept(struct link* link, const char* token, struct failure* failure) {
  char received[LINK_TOKEN_BYTES];
  struct pollfd wait = {.fd = link->listener, .events = POLLIN};
  if (link->listener < 0 || poll(&wait, 1, ACCEPT_MILLISECONDS) != 1) {
    return fail(failure, "no client opened a data connection");
  }
  link->fd = accept(link->listener, NULL, NULL);
  close_fd(&link->listener);
  wait.fd = link->fd;
  const bool known = link->fd >= 0 && poll(&wait, 1, ACCEPT_MILLISECONDS) == 1 &&
                     link_read(link, (unsigned char*)received, sizeof received, failure) &&
                     memcmp(received, token, sizeof received) == 0;
  if (known) return true;
  link_close(link);
  return fail(failure, "a stranger opened the data connection");
}

static bool check(struct link* link, ssize_t count, struct failure* failure) {
  if (count > 0 || (count < 0 && errno == EINTR)) return true;
  fail(failure, "the data connection failed: %s", count == 0 ? "it ends" : strerror(errno));
  link_close(link);
  return false;
}

static bool check_open(const struct link* link, struct failure* failure) {
  return link->fd >= 0 || fail(failure, "this session has no data connection");
}

bool link_read(struct link* link, unsigned char* out, size_t size, struct failure* failure) {
  if (!check_open(link, failure)) return false;
  for (size_t done = 0; done < size;) {
    const ssize_t count = read(link->fd, out + done, size - done);
    if (!check(link, count, failure)) return false;
    if (count > 0) done += (size_t)count;
  }
  return true;
}

bool link_write(struct link* link, const unsigned char* data, size_t size, struct failure* failure) {
  if (!check_open(link, failure)) return false;
  for (size_t done = 0; done < size;) {
    const ssize_t count = write(link->fd, data + done, size - done);
    if (!check(link, count, failure)) return false;
    if (count > 0) done += (size_t)count;
  }
  return true;
}
