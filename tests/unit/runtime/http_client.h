/* http_client.h - a plain HTTP/1.1 client for tests: blocking sockets, every byte under control. */
#ifndef SPW_TEST_HTTP_CLIENT_H
#define SPW_TEST_HTTP_CLIENT_H

#include "runtime/base/buffer.h"

#include <jansson.h>

struct http_reply {
    int status;      /* 0: the connection ended before an answer */
    char head[4096]; /* status line and headers */
    struct spw_buffer body;
    bool complete; /* the body's end was seen */
};

int http_connect(const char *address); /* "host:port" or a socket's path; -1 */
int http_connect_small(const char *address, int receive_bytes);
void http_send(int fd, const void *data, size_t bytes);
/* POST with JSON when body is not NULL, else a GET. extra: header lines with their line ends. */
void http_ask(int fd, const char *path, const char *extra, const char *body);
/* Read one answer; head_only for HEAD. */
void http_read(int fd, struct http_reply *reply, bool head_only);
void http_reply_done(struct http_reply *reply);
/* The value of a header, "" when it is not there; static memory. */
const char *http_header(const struct http_reply *reply, const char *name);
/* One request on a connection of its own; the body as JSON (NULL when it is none). */
json_t *http_call(const char *address, const char *path, const char *extra, const char *body,
                  int *out_status);

#endif
