#include "proto/client.h"

#include "proto/message.h"
#include "runtime/base/clock.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 1024u

struct spw_client {
    char *url, *unix_path, *ca_path, *cert_path, *key_path, *authorization;
    size_t message_bytes_max;
    CURL *easy;
    CURLM *multi;
    atomic_bool cancelled;

    /* of the call that runs */
    bool (*message)(void *context, const uint8_t *data, size_t bytes);
    void *context;
    struct spw_buffer in;
    bool stopped_by_caller, too_large, bad_frame, status_seen, type_ok;
    enum spw_grpc_status status;
    uint32_t retry_after;
    char words[WORDS_MAX];
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void start_curl(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

static char *copy(const char *text)
{
    return text ? strdup(text) : NULL;
}

static bool starts_with(const char *text, const char *word)
{
    return strncmp(text, word, strlen(word)) == 0;
}

static char *join(const char *before, const char *text)
{
    size_t bytes = strlen(before) + strlen(text) + 1;
    char *joined = malloc(bytes);
    if (joined)
        snprintf(joined, bytes, "%s%s", before, text);
    return joined;
}

enum spw_status spw_client_open(const char *address, const struct spw_client_options *options,
                                struct spw_client **out_client, struct spw_error *error)
{
    static const struct spw_client_options defaults;
    options = options ? options : &defaults;
    pthread_once(&curl_once, start_curl);
    bool scheme = starts_with(address, "http://") || starts_with(address, "https://");
    bool is_unix = starts_with(address, "unix:");
    if ((is_unix && address[5] != '/') ||
        (!scheme && !is_unix && (!strchr(address, ':') || strstr(address, "://"))))
        return spw_fail(error, SPW_INVALID,
                        "address \"%s\": write http://host:port, https://host:port or unix:/path",
                        address);
    struct spw_client *client = calloc(1, sizeof(*client));
    if (!client)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for a client");
    client->unix_path = is_unix ? strdup(address + 5) : NULL;
    client->url = is_unix ? strdup("http://localhost") : join(scheme ? "" : "http://", address);
    client->ca_path = copy(options->ca_path);
    client->cert_path = copy(options->cert_path);
    client->key_path = copy(options->key_path);
    client->authorization = copy(options->authorization);
    client->message_bytes_max = options->message_bytes_max ? options->message_bytes_max : 64u << 20;
    client->easy = curl_easy_init();
    client->multi = curl_multi_init();
    if (!client->url || !client->easy || !client->multi) {
        spw_client_close(client);
        return spw_fail(error, SPW_NO_MEMORY, "no memory for a client");
    }
    size_t length = strlen(client->url);
    if (length > 0 && client->url[length - 1] == '/')
        client->url[length - 1] = '\0';
    uint64_t connect_ns =
        options->connect_timeout_ns ? options->connect_timeout_ns : 5 * SPW_SECOND;
    CURL *easy = client->easy;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(connect_ns / SPW_MS));
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                     starts_with(client->url, "https://")
                         ? (long)CURL_HTTP_VERSION_2TLS
                         : (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
    /* libcurl 7.88 breaks cleartext HTTP/2 on a connection that it uses again (curl#10634) */
    unsigned version = curl_version_info(CURLVERSION_NOW)->version_num;
    if (version >= 0x075800 && version < 0x080000 && !starts_with(client->url, "https://")) {
        curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
        curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    }
    if (client->unix_path)
        curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, client->unix_path);
    if (client->ca_path) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, client->ca_path);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
    if (client->cert_path)
        curl_easy_setopt(easy, CURLOPT_SSLCERT, client->cert_path);
    if (client->key_path)
        curl_easy_setopt(easy, CURLOPT_SSLKEY, client->key_path);
    *out_client = client;
    return SPW_OK;
}

void spw_client_close(struct spw_client *client)
{
    if (!client)
        return;
    curl_easy_cleanup(client->easy);
    curl_multi_cleanup(client->multi);
    free(client->url);
    free(client->unix_path);
    free(client->ca_path);
    free(client->cert_path);
    free(client->key_path);
    free(client->authorization);
    free(client);
}

void spw_client_cancel(struct spw_client *client)
{
    atomic_store(&client->cancelled, true);
    (void)curl_multi_wakeup(client->multi);
}

enum spw_grpc_status spw_client_last_status(const struct spw_client *client)
{
    return client->status;
}

uint32_t spw_client_retry_after(const struct spw_client *client)
{
    return client->retry_after;
}

/* Headers and trailers, one line each. */
static size_t on_header(char *data, size_t size, size_t count, void *user)
{
    struct spw_client *client = user;
    size_t bytes = size * count;
    char *colon = memchr(data, ':', bytes);
    if (!colon || colon == data)
        return bytes;
    size_t name_bytes = (size_t)(colon - data);
    const char *value = colon + 1;
    size_t value_bytes = bytes - name_bytes - 1;
    while (value_bytes > 0 && (*value == ' ' || *value == '\t')) {
        value++;
        value_bytes--;
    }
    while (value_bytes > 0 && (value[value_bytes - 1] == '\r' || value[value_bytes - 1] == '\n'))
        value_bytes--;
    char number[16];
    snprintf(number, sizeof(number), "%.*s", (int)SPW_MIN(value_bytes, 15u), value);
#define IS(word) (name_bytes == sizeof(word) - 1 && strncasecmp(data, word, name_bytes) == 0)
    if (IS("grpc-status")) {
        long status = strtol(number, NULL, 10);
        client->status_seen = true;
        client->status = status >= 0 && status <= SPW_GRPC_UNAUTHENTICATED
                             ? (enum spw_grpc_status)status
                             : SPW_GRPC_UNKNOWN;
    } else if (IS("grpc-message")) {
        (void)spw_grpc_percent_decode(value, value_bytes, client->words, sizeof(client->words));
    } else if (IS("retry-after")) {
        long seconds = strtol(number, NULL, 10);
        client->retry_after = (uint32_t)SPW_MAX(0, SPW_MIN(seconds, 86400));
    } else if (IS("content-type")) {
        client->type_ok = starts_with(value, "application/grpc");
    }
#undef IS
    return bytes;
}

/* Whole messages out of what has come. False: stop. */
static bool take_messages(struct spw_client *client)
{
    size_t at = 0;
    while (client->in.bytes - at >= SPW_GRPC_PREFIX_BYTES) {
        const uint8_t *from = client->in.data + at;
        size_t length = spw_grpc_prefix_length(from);
        if (from[0] != 0) {
            client->bad_frame = true;
            return false;
        }
        if (length > client->message_bytes_max) {
            client->too_large = true;
            return false;
        }
        if (client->in.bytes - at - SPW_GRPC_PREFIX_BYTES < length)
            break;
        if (!client->message(client->context, from + SPW_GRPC_PREFIX_BYTES, length)) {
            client->stopped_by_caller = true;
            return false;
        }
        at += SPW_GRPC_PREFIX_BYTES + length;
    }
    if (at > 0) {
        memmove(client->in.data, client->in.data + at, client->in.bytes - at);
        client->in.bytes -= at;
    }
    return true;
}

static size_t on_body(char *data, size_t size, size_t count, void *user)
{
    struct spw_client *client = user;
    size_t bytes = size * count;
    if (!client->type_ok)
        return bytes; /* not gRPC: the status of HTTP says what it is */
    spw_buffer_add(&client->in, data, bytes);
    if (client->in.failed) {
        client->too_large = true;
        return 0;
    }
    return take_messages(client) ? bytes : 0;
}

static enum spw_status transport_failed(struct spw_client *client, CURLcode code, const char *words,
                                        struct spw_error *error)
{
    const char *address = client->unix_path ? client->unix_path : client->url;
    if (atomic_load(&client->cancelled) || client->stopped_by_caller) {
        client->status = SPW_GRPC_CANCELLED;
        return spw_fail(error, SPW_CANCELLED, "cancelled");
    }
    client->status = SPW_GRPC_INTERNAL;
    if (client->too_large)
        return spw_fail(error, SPW_TOO_LARGE, "%s: an answer is larger than %zu bytes", address,
                        client->message_bytes_max);
    if (client->bad_frame)
        return spw_fail(error, SPW_CORRUPT, "%s: the answer is compressed or damaged", address);
    bool connected = code != CURLE_COULDNT_CONNECT && code != CURLE_COULDNT_RESOLVE_HOST;
    if (code == CURLE_OPERATION_TIMEDOUT) {
        client->status = SPW_GRPC_DEADLINE_EXCEEDED;
        return spw_fail(error, SPW_TIMEOUT, "%s: no answer in time", address);
    }
    client->status = SPW_GRPC_UNAVAILABLE;
    return spw_fail(error, connected ? SPW_PEER_LOST : SPW_IO, "%s: %s", address,
                    words[0] ? words : curl_easy_strerror(code));
}

enum spw_status spw_client_status_of(enum spw_grpc_status status)
{
    switch (status) {
    case SPW_GRPC_OK:
        return SPW_OK;
    case SPW_GRPC_CANCELLED:
    case SPW_GRPC_ABORTED:
        return SPW_CANCELLED;
    case SPW_GRPC_INVALID_ARGUMENT:
    case SPW_GRPC_FAILED_PRECONDITION:
    case SPW_GRPC_ALREADY_EXISTS:
        return SPW_INVALID;
    case SPW_GRPC_OUT_OF_RANGE:
        return SPW_TOO_LARGE;
    case SPW_GRPC_DEADLINE_EXCEEDED:
        return SPW_TIMEOUT;
    case SPW_GRPC_NOT_FOUND:
        return SPW_NOT_FOUND;
    case SPW_GRPC_PERMISSION_DENIED:
    case SPW_GRPC_UNAUTHENTICATED:
        return SPW_DENIED;
    case SPW_GRPC_RESOURCE_EXHAUSTED:
        return SPW_FULL;
    case SPW_GRPC_UNIMPLEMENTED:
        return SPW_UNSUPPORTED;
    case SPW_GRPC_UNAVAILABLE:
        return SPW_PEER_LOST;
    case SPW_GRPC_DATA_LOSS:
        return SPW_CORRUPT;
    case SPW_GRPC_UNKNOWN:
    case SPW_GRPC_INTERNAL:
        break;
    }
    return SPW_INTERNAL;
}

static enum spw_status finish_call(struct spw_client *client, CURLcode code, const char *words,
                                   struct spw_error *error)
{
    /* the server's word counts, even when it then reset a stream that was still sending */
    if (!client->status_seen && code != CURLE_OK)
        return transport_failed(client, code, words, error);
    if (client->stopped_by_caller || client->too_large || client->bad_frame)
        return transport_failed(client, code, words, error);
    if (!client->status_seen) {
        long http = 0, version = 0;
        curl_easy_getinfo(client->easy, CURLINFO_RESPONSE_CODE, &http);
        curl_easy_getinfo(client->easy, CURLINFO_HTTP_VERSION, &version);
        client->status = SPW_GRPC_UNAVAILABLE;
        return spw_fail(error, SPW_IO, "%s does not speak gRPC (HTTP/%s status %ld)", client->url,
                        version == CURL_HTTP_VERSION_2_0 ? "2" : "1.1", http);
    }
    if (client->status == SPW_GRPC_OK && client->in.bytes > 0) {
        client->status = SPW_GRPC_INTERNAL;
        return spw_fail(error, SPW_CORRUPT, "%s: the last message is cut short", client->url);
    }
    if (client->status == SPW_GRPC_OK)
        return SPW_OK;
    return spw_fail(error, spw_client_status_of(client->status), "%s",
                    client->words[0] ? client->words : spw_grpc_status_name(client->status));
}

/* Run the easy handle that is set up; from another thread spw_client_cancel ends it. The status is
 * the last thing of a call: libcurl 7.88 may wait for more after an answer that came before the
 * request was out, so a little after the status the call is over whatever libcurl says.
 */
static CURLcode perform(struct spw_client *client)
{
    CURLcode code = CURLE_OK;
    int running = 1, patience = 5;
    if (curl_multi_add_handle(client->multi, client->easy) != CURLM_OK)
        return CURLE_FAILED_INIT;
    while (running && patience > 0) {
        if (atomic_load(&client->cancelled)) {
            code = CURLE_ABORTED_BY_CALLBACK;
            break;
        }
        if (curl_multi_perform(client->multi, &running) != CURLM_OK) {
            code = CURLE_FAILED_INIT;
            break;
        }
        if (client->status_seen)
            patience--;
        int wait_ms = client->status_seen ? 2 : 1000;
        if (running && curl_multi_poll(client->multi, NULL, 0, wait_ms, NULL) != CURLM_OK) {
            code = CURLE_FAILED_INIT;
            break;
        }
    }
    int left;
    for (CURLMsg *note = curl_multi_info_read(client->multi, &left); note;
         note = curl_multi_info_read(client->multi, &left))
        if (note->msg == CURLMSG_DONE)
            code = note->data.result;
    curl_multi_remove_handle(client->multi, client->easy);
    return code;
}

static struct curl_slist *make_headers(const struct spw_client *client, uint64_t timeout_ns)
{
    static const char *const fixed[] = {"content-type: application/grpc",
                                        "te: trailers",
                                        "grpc-accept-encoding: identity",
                                        "accept:",
                                        "expect:",
                                        "user-agent: spillway"};
    struct curl_slist *headers = NULL;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(fixed); i++)
        headers = curl_slist_append(headers, fixed[i]);
    if (timeout_ns > 0) {
        char timeout[10], line[32];
        spw_grpc_timeout_format(timeout_ns, timeout);
        snprintf(line, sizeof(line), "grpc-timeout: %s", timeout);
        headers = curl_slist_append(headers, line);
    }
    if (client->authorization) {
        char *line = join("authorization: ", client->authorization);
        if (line)
            headers = curl_slist_append(headers, line);
        free(line);
    }
    return headers;
}

enum spw_status spw_client_call(struct spw_client *client, const char *path,
                                const ProtobufCMessage *request, uint64_t timeout_ns,
                                bool (*message)(void *context, const uint8_t *data, size_t bytes),
                                void *context, struct spw_error *error)
{
    struct spw_buffer body;
    char words[CURL_ERROR_SIZE] = "";
    spw_buffer_init(&body, (size_t)UINT32_MAX);
    uint8_t *prefix = spw_buffer_extend(&body, SPW_GRPC_PREFIX_BYTES);
    spw_message_pack(request, &body);
    struct curl_slist *headers = make_headers(client, timeout_ns);
    char *url = join(client->url, path);
    enum spw_status status;
    if (!prefix || body.failed || !headers || !url) {
        status = spw_fail(error, SPW_NO_MEMORY, "no memory for a request");
        goto out;
    }
    spw_grpc_prefix_put(body.data, (uint32_t)(body.bytes - SPW_GRPC_PREFIX_BYTES));
    client->message = message;
    client->context = context;
    client->stopped_by_caller = client->too_large = client->bad_frame = false;
    client->status_seen = client->type_ok = false;
    client->status = SPW_GRPC_UNKNOWN;
    client->retry_after = 0;
    client->words[0] = '\0';
    spw_buffer_init(&client->in,
                    client->message_bytes_max + SPW_GRPC_PREFIX_BYTES + CURL_MAX_READ_SIZE);
    CURL *easy = client->easy;
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, (char *)body.data);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.bytes);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, client);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, client);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, words);
    /* the server answers a passed deadline itself; the client's own limit comes a little later */
    uint64_t limit_ms = timeout_ns ? timeout_ns / SPW_MS + 500 : 0;
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)SPW_MIN(limit_ms, (uint64_t)INT32_MAX));
    CURLcode code = perform(client);
    status = finish_call(client, code, words, error);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, NULL);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, NULL);
    atomic_store(&client->cancelled, false);
    spw_buffer_done(&client->in);
out:
    curl_slist_free_all(headers);
    free(url);
    spw_buffer_done(&body);
    return status;
}
