/* door_http_listen.c - sockets to listen on, PEM files, and what TLS lets us know of a client. */
#include "runtime/door_http_int.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG       512
#define PEM_BYTES_MAX (1u << 20)

/* "host:port", "[v6]:port", ":port" (any address) */
static bool split_address(const char *text, char *out_host, size_t host_bytes,
                          const char **out_port)
{
    const char *colon = strrchr(text, ':');
    if (!colon || colon[1] == '\0' || strlen(colon + 1) > 5 ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1) || strtol(colon + 1, NULL, 10) > 65535)
        return false;
    size_t bytes = (size_t)(colon - text);
    bool bracketed = bytes >= 2 && text[0] == '[' && text[bytes - 1] == ']';
    if (bracketed) {
        text++;
        bytes -= 2;
    }
    if (bytes >= host_bytes || (!bracketed && memchr(text, ':', bytes)))
        return false;
    memcpy(out_host, text, bytes);
    out_host[bytes] = '\0';
    *out_port = colon + 1;
    return true;
}

static int listen_at(const struct addrinfo *address)
{
    int on = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                    address->ai_protocol);
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static void name_address(int fd, char *out, size_t bytes)
{
    struct sockaddr_storage bound;
    socklen_t bound_bytes = sizeof(bound);
    char host[64], port[8];
    out[0] = '\0';
    if (getsockname(fd, (struct sockaddr *)&bound, &bound_bytes) == 0 &&
        getnameinfo((struct sockaddr *)&bound, bound_bytes, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(out, bytes, bound.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

enum spw_status spw_http_listen_tcp(const char *text, char *out_address, size_t address_bytes,
                                    int *out_fd, struct spw_error *error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char host[256];
    const char *port;
    if (!split_address(text, host, sizeof(host), &port))
        return spw_fail(error, SPW_CONFIG,
                        "HTTP address \"%s\": write host:port, for instance 127.0.0.1:8000", text);
    int wrong = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
    if (wrong != 0)
        return spw_fail(error, SPW_CONFIG, "HTTP address \"%s\": %s", text, gai_strerror(wrong));
    int fd = -1;
    for (const struct addrinfo *at = found; at && fd < 0; at = at->ai_next)
        fd = listen_at(at);
    int saved = errno;
    freeaddrinfo(found);
    if (fd < 0)
        return spw_fail(error, SPW_CONFIG, "HTTP address \"%s\": %s", text, strerror(saved));
    name_address(fd, out_address, address_bytes);
    *out_fd = fd;
    return SPW_OK;
}

/* A socket that nobody answers at any more is in the way; anything else is somebody's. */
static enum spw_status clear_path(const struct sockaddr_un *address, struct spw_error *error)
{
    struct stat info;
    const char *path = address->sun_path;
    if (lstat(path, &info) != 0)
        return SPW_OK;
    if (!S_ISSOCK(info.st_mode))
        return spw_fail(error, SPW_CONFIG, "%s is there already and is no socket", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool dead = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0 &&
                errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    if (!dead)
        return spw_fail(error, SPW_CONFIG, "%s is in use by a running server", path);
    (void)unlink(path);
    return SPW_OK;
}

enum spw_status spw_http_listen_unix(const char *path, int *out_fd, struct spw_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return spw_fail(error, SPW_CONFIG, "socket path %s is longer than %zu characters", path,
                        sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    enum spw_status status = clear_path(&address, error);
    if (status)
        return status;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* the owner's alone before it listens, so that nobody slips in between */
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        chmod(path, 0600) != 0 || listen(fd, BACKLOG) != 0) {
        status = spw_fail(error, SPW_CONFIG, "socket %s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return status;
    }
    *out_fd = fd;
    return SPW_OK;
}

enum spw_status spw_http_read_pem(const char *path, char **out_text, struct spw_error *error)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return spw_fail(error, SPW_CONFIG, "%s: %s", path, strerror(errno));
    char *text = malloc(PEM_BYTES_MAX + 1);
    size_t bytes = text ? fread(text, 1, PEM_BYTES_MAX + 1, file) : 0;
    bool failed = ferror(file) != 0;
    fclose(file);
    if (!text || failed || bytes == 0 || bytes > PEM_BYTES_MAX) {
        free(text);
        return spw_fail(error, SPW_CONFIG, "%s: not readable as a PEM file", path);
    }
    text[bytes] = '\0';
    *out_text = text;
    return SPW_OK;
}

enum spw_status spw_http_read_authority(const char *path, char **out_text, struct spw_error *error)
{
    char *text = NULL;
    gnutls_x509_crt_t *list = NULL;
    unsigned count = 0;
    enum spw_status status = spw_http_read_pem(path, &text, error);
    if (status)
        return status;
    gnutls_datum_t data = {(unsigned char *)text, (unsigned)strlen(text)};
    /* the server library takes a file without any, and lets nobody in then */
    if (gnutls_x509_crt_list_import2(&list, &count, &data, GNUTLS_X509_FMT_PEM, 0) < 0 ||
        count == 0) {
        free(text);
        return spw_fail(error, SPW_CONFIG, "%s: no certificate in it (PEM)", path);
    }
    for (unsigned i = 0; i < count; i++)
        gnutls_x509_crt_deinit(list[i]);
    gnutls_free(list);
    *out_text = text;
    return SPW_OK;
}

bool spw_http_client_verified(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    unsigned problems = 0;
    if (!info || !info->tls_session)
        return false;
    gnutls_session_t session = info->tls_session;
    /* the library only asks for a certificate: a client without one comes as far as here */
    return gnutls_certificate_get_peers(session, NULL) != NULL &&
           gnutls_certificate_verify_peers2(session, &problems) == GNUTLS_E_SUCCESS &&
           problems == 0;
}
