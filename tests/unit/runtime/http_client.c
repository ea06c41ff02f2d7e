#include "tests/unit/runtime/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define BODY_BYTES_MAX (64u << 20)

int http_connect_small(const char *address, int receive_bytes)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in remote = {.sin_family = AF_INET};
    const struct sockaddr *to = (const struct sockaddr *)&local;
    socklen_t bytes = sizeof(local);
    if (address[0] != '/') {
        char host[64];
        const char *colon = strrchr(address, ':');
        snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
        inet_pton(AF_INET, host, &remote.sin_addr);
        remote.sin_port = htons((uint16_t)strtol(colon + 1, NULL, 10));
        to = (const struct sockaddr *)&remote;
        bytes = sizeof(remote);
    } else {
        snprintf(local.sun_path, sizeof(local.sun_path), "%s", address);
    }
    int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = 20};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (receive_bytes)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    if (connect(fd, to, bytes) == 0)
        return fd;
    close(fd);
    return -1;
}

int http_connect(const char *address)
{
    return http_connect_small(address, 0);
}

void http_send(int fd, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes) {
        ssize_t sent = send(fd, at, bytes, MSG_NOSIGNAL);
        if (sent <= 0)
            return; /* the reading side tells */
        at += sent;
        bytes -= (size_t)sent;
    }
}

void http_ask(int fd, const char *path, const char *extra, const char *body)
{
    char head[2048];
    int bytes = snprintf(head, sizeof(head), "%s %s HTTP/1.1\r\nHost: test\r\n%s",
                         body ? "POST" : "GET", path, extra ? extra : "");
    if (body)
        bytes +=
            snprintf(head + bytes, sizeof(head) - (size_t)bytes,
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    bytes += snprintf(head + bytes, sizeof(head) - (size_t)bytes, "\r\n");
    http_send(fd, head, (size_t)bytes);
    if (body)
        http_send(fd, body, strlen(body));
}

const char *http_header(const struct http_reply *reply, const char *name)
{
    static _Thread_local char value[256];
    size_t length = strlen(name);
    value[0] = '\0';
    for (const char *at = strchr(reply->head, '\n'); at; at = strchr(at + 1, '\n'))
        if (strncasecmp(at + 1, name, length) == 0 && at[1 + length] == ':') {
            const char *from = at + 1 + length + 1;
            from += strspn(from, " ");
            snprintf(value, sizeof(value), "%.*s", (int)strcspn(from, "\r\n"), from);
        }
    return value;
}

static bool read_byte(int fd, char *out)
{
    return recv(fd, out, 1, 0) == 1;
}

static bool read_line(int fd, char *line, size_t bytes)
{
    size_t used = 0;
    char byte;
    while (used + 1 < bytes && read_byte(fd, &byte)) {
        line[used++] = byte;
        if (byte == '\n') {
            line[used] = '\0';
            return true;
        }
    }
    line[used] = '\0';
    return false;
}

static bool read_into(int fd, struct spw_buffer *out, size_t bytes)
{
    char piece[8192];
    while (bytes) {
        ssize_t got = recv(fd, piece, bytes < sizeof(piece) ? bytes : sizeof(piece), 0);
        if (got <= 0)
            return false;
        spw_buffer_add(out, piece, (size_t)got);
        bytes -= (size_t)got;
    }
    return true;
}

void http_read(int fd, struct http_reply *reply, bool head_only)
{
    char line[1024];
    memset(reply, 0, sizeof(*reply));
    spw_buffer_init(&reply->body, BODY_BYTES_MAX);
    do { /* an interim answer (100) comes before the real one */
        reply->head[0] = '\0';
        for (size_t used = 0; read_line(fd, line, sizeof(line)) && strcmp(line, "\r\n") != 0;)
            used += (size_t)snprintf(reply->head + used, sizeof(reply->head) - used, "%s", line);
        if (sscanf(reply->head, "HTTP/1.1 %d", &reply->status) != 1)
            return;
    } while (reply->status == 100);
    if (head_only || reply->status == 204) {
        reply->complete = true;
        return;
    }
    if (strcasecmp(http_header(reply, "Transfer-Encoding"), "chunked") != 0) {
        reply->complete =
            read_into(fd, &reply->body, strtoul(http_header(reply, "Content-Length"), NULL, 10));
        return;
    }
    while (read_line(fd, line, sizeof(line))) {
        size_t bytes = strtoul(line, NULL, 16);
        if (bytes == 0) {
            reply->complete = read_line(fd, line, sizeof(line));
            return;
        }
        if (!read_into(fd, &reply->body, bytes) || !read_line(fd, line, sizeof(line)))
            return;
    }
}

void http_reply_done(struct http_reply *reply)
{
    spw_buffer_done(&reply->body);
}

json_t *http_call(const char *address, const char *path, const char *extra, const char *body,
                  int *out_status)
{
    struct http_reply reply;
    int fd = http_connect(address);
    *out_status = 0;
    if (fd < 0)
        return NULL;
    http_ask(fd, path, extra, body);
    http_read(fd, &reply, false);
    close(fd);
    *out_status = reply.status;
    json_t *json = json_loads(spw_buffer_text(&reply.body), JSON_REJECT_DUPLICATES, NULL);
    http_reply_done(&reply);
    return json;
}
