/* The sockets that clients connect to: TCP and Unix. */
#include "proto/grpc_server_int.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 512

static enum spw_status add_listener(struct spw_grpc_server *server, int fd, bool tls, bool local,
                                    struct spw_error *error)
{
    assert(server->listener_count < SPW_ARRAY_COUNT(server->listeners));
    struct spw_grpc_listener *listener = &server->listeners[server->listener_count++];
    *listener = (struct spw_grpc_listener){{SPW_GRPC_SOURCE_LISTENER, fd}, tls, local};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = listener};
    if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        return spw_fail(error, SPW_IO, "epoll: %s", strerror(errno));
    return SPW_OK;
}

/* "host:port", "[v6]:port", ":port" */
static bool split_address(const char *text, char *out_host, size_t capacity, const char **out_port)
{
    const char *colon = strrchr(text, ':');
    if (!colon || colon[1] == '\0')
        return false;
    const char *host = text;
    size_t bytes = (size_t)(colon - text);
    if (bytes >= 2 && host[0] == '[' && host[bytes - 1] == ']') {
        host++;
        bytes -= 2;
    } else if (memchr(host, ':', bytes)) {
        return false;
    }
    for (const char *at = colon + 1; *at; at++)
        if (*at < '0' || *at > '9')
            return false;
    if (bytes >= capacity || strlen(colon + 1) > 5 || strtol(colon + 1, NULL, 10) > 65535)
        return false;
    memcpy(out_host, host, bytes);
    out_host[bytes] = '\0';
    *out_port = colon + 1;
    return true;
}

static int open_tcp(const struct addrinfo *address)
{
    int fd = socket(address->ai_family, address->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC,
                    address->ai_protocol);
    if (fd < 0)
        return -1;
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static void write_address(int fd, char *out_text)
{
    struct sockaddr_storage bound;
    socklen_t bytes = sizeof(bound);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getsockname(fd, (struct sockaddr *)&bound, &bytes) != 0 ||
        getnameinfo((struct sockaddr *)&bound, bytes, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    bool v6 = bound.ss_family == AF_INET6;
    snprintf(out_text, SPW_GRPC_ADDRESS_BYTES, v6 ? "[%.60s]:%.5s" : "%.60s:%.5s", host, port);
}

static enum spw_status listen_tcp(struct spw_grpc_server *server, const char *text, bool tls,
                                  struct spw_error *error)
{
    char host[256];
    const char *port;
    if (!split_address(text, host, sizeof(host), &port))
        return spw_fail(error, SPW_CONFIG,
                        "gRPC address \"%s\": write host:port, for instance 127.0.0.1:50051", text);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int wrong = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
    if (wrong != 0)
        return spw_fail(error, SPW_CONFIG, "gRPC address \"%s\": %s", text, gai_strerror(wrong));
    int fd = -1;
    for (const struct addrinfo *at = found; at && fd < 0; at = at->ai_next)
        fd = open_tcp(at);
    int saved = errno;
    freeaddrinfo(found);
    if (fd < 0)
        return spw_fail(error, saved == EADDRINUSE || saved == EACCES ? SPW_CONFIG : SPW_IO,
                        "gRPC address \"%s\": %s", text, strerror(saved));
    write_address(fd, server->address);
    return add_listener(server, fd, tls, false, error);
}

/* A socket file that nobody listens on any more may be replaced; nothing else may. */
static enum spw_status clear_path(const char *path, const struct sockaddr_un *address,
                                  struct spw_error *error)
{
    struct stat info;
    if (lstat(path, &info) != 0)
        return SPW_OK;
    if (!S_ISSOCK(info.st_mode))
        return spw_fail(error, SPW_CONFIG, "%s is there already and is no socket", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return spw_fail(error, SPW_IO, "socket: %s", strerror(errno));
    bool alive = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
                 errno != ECONNREFUSED;
    close(fd);
    if (alive)
        return spw_fail(error, SPW_CONFIG, "%s is in use by a running server", path);
    (void)unlink(path);
    return SPW_OK;
}

static enum spw_status listen_unix(struct spw_grpc_server *server, const char *path,
                                   struct spw_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return spw_fail(error, SPW_CONFIG, "socket path %s is longer than %zu characters", path,
                        sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    enum spw_status status = clear_path(path, &address, error);
    if (status != SPW_OK)
        return status;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return spw_fail(error, SPW_IO, "socket: %s", strerror(errno));
    /* closed to others before it listens: nobody can slip in between */
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        chmod(path, 0600) != 0 || listen(fd, BACKLOG) != 0) {
        status = spw_fail(error, SPW_CONFIG, "socket %s: %s", path, strerror(errno));
        close(fd);
        return status;
    }
    server->unix_path = strdup(path);
    return add_listener(server, fd, false, true, error);
}

enum spw_status spw_grpc_listen(struct spw_grpc_server *server,
                                const struct spw_grpc_server_config *config,
                                struct spw_error *error)
{
    enum spw_status status = SPW_OK;
    if (config->tcp)
        status = listen_tcp(server, config->tcp, config->tls_cert != NULL, error);
    if (status == SPW_OK && config->unix_path)
        status = listen_unix(server, config->unix_path, error);
    return status;
}

void spw_grpc_listen_close(struct spw_grpc_server *server)
{
    for (uint32_t i = 0; i < server->listener_count; i++)
        close(server->listeners[i].source.fd);
    server->listener_count = 0;
    if (server->unix_path)
        (void)unlink(server->unix_path);
    free(server->unix_path);
    server->unix_path = NULL;
}
