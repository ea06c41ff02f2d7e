/* The HTTP door over TLS: who comes in with which certificate. */
#include "tests/unit/proto/certificates.h"
#include "tests/unit/runtime/http_client.h"
#include "tests/unit/runtime/http_fake.h"

#include "runtime/base/log.h"

#include <setjmp.h>
#include <stdarg.h>
/* cmocka wants the two above */
#include <cmocka.h>

#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct http_fake *fake;
static struct certificates files;

static int load(void **state)
{
    (void)state;
    certificates_make(&files);
    fake = http_fake_create();
    return fake ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    http_fake_destroy(fake);
    certificates_remove(&files);
    return 0;
}

/* Status of GET path (POST when body is given), 0 when there was no answer. The text goes to out.
 */
static int ask(const char *cert, const char *key, const char *path, const char *body, char *out,
               size_t out_bytes)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    assert_int_equal(SSL_CTX_load_verify_locations(context, files.ca, NULL), 1);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (cert) {
        assert_int_equal(SSL_CTX_use_certificate_file(context, cert, SSL_FILETYPE_PEM), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM), 1);
    }
    SSL *ssl = SSL_new(context);
    int fd = http_connect(spw_door_http_address(fake->http)), status = 0;
    char request[512];
    size_t used = 0;
    out[0] = '\0';
    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) == 1) {
        int bytes =
            snprintf(request, sizeof(request),
                     "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     body ? "POST" : "GET", path, body ? strlen(body) : 0, body ? body : "");
        (void)SSL_write(ssl, request, bytes);
        for (int got; used + 1 < out_bytes &&
                      (got = SSL_read(ssl, out + used, (int)(out_bytes - used - 1))) > 0;)
            used += (size_t)got;
        out[used] = '\0';
        (void)sscanf(out, "HTTP/1.1 %d", &status);
    }
    SSL_free(ssl);
    SSL_CTX_free(context);
    close(fd);
    return status;
}

static void start(const char *client_ca)
{
    http_fake_start(fake,
                    &(struct spw_door_http_config){.tcp = "127.0.0.1:0",
                                                   .tls_cert = files.server,
                                                   .tls_key = files.server_key,
                                                   .tls_client_ca = client_ca,
                                                   .connections_max = 8},
                    NULL);
}

static void test_tls(void **state)
{
    char text[65536];
    struct http_reply reply;
    (void)state;
    start(NULL);
    assert_int_equal(ask(NULL, NULL, "/v1/models", NULL, text, sizeof(text)), 200);
    assert_int_equal(ask(NULL, NULL, "/v1/completions",
                         "{\"prompt\":[1],\"max_tokens\":40,\"stream\":true}", text, sizeof(text)),
                     200);
    assert_non_null(strstr(text, "data: [DONE]"));
    /* plain HTTP finds no door here */
    int fd = http_connect(spw_door_http_address(fake->http));
    http_ask(fd, "/v1/models", NULL, NULL);
    http_read(fd, &reply, false);
    assert_int_equal(reply.status, 0);
    http_reply_done(&reply);
    close(fd);
    http_fake_stop(fake, 0);
}

static void test_mutual_tls(void **state)
{
    char text[65536];
    (void)state;
    start(files.ca);
    assert_int_equal(ask(files.client, files.client_key, "/v1/models", NULL, text, sizeof(text)),
                     200);
    assert_int_equal(ask(files.client, files.client_key, "/v1/completions",
                         "{\"prompt\":[1],\"max_tokens\":40}", text, sizeof(text)),
                     200);
    /* without a certificate, and with one of a stranger's: nothing is served */
    static const char *const paths[] = {"/v1/models", "/health", "/nothing"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(paths); i++) {
        assert_int_equal(ask(NULL, NULL, paths[i], NULL, text, sizeof(text)), 403);
        assert_non_null(strstr(text, "client_certificate_required"));
        int status = ask(files.stranger, files.stranger_key, paths[i], NULL, text, sizeof(text));
        assert_true(status == 403 || status == 0);
    }
    assert_int_equal(ask(NULL, NULL, "/v1/completions", "{\"prompt\":[1]}", text, sizeof(text)),
                     403);
    assert_int_equal(atomic_load(&fake->taken), 1);
    http_fake_stop(fake, 0);
}

static void test_bad_files(void **state)
{
    (void)state;
    const struct {
        const char *cert, *key, *ca, *part;
    } rows[] = {
        {files.server, NULL, NULL, "both a certificate and a key"},
        {NULL, NULL, files.ca, "both a certificate and a key"},
        {"/nowhere/cert.pem", files.server_key, NULL, "/nowhere/cert.pem"},
        {files.server, "/dev/null", NULL, "/dev/null"},
        {files.server, files.client_key, NULL, "a pair of PEM files"},
        {files.server_key, files.server_key, NULL, "a pair of PEM files"},
        {files.server, files.server_key, "/dev/null", "/dev/null"},
        {files.server, files.server_key, files.server_key, "no certificate in it"},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct spw_error error = {{0}};
        struct spw_door_http *http = NULL;
        struct spw_door_http_config config = {.service = &fake->service,
                                              .tcp = "127.0.0.1:0",
                                              .tls_cert = rows[i].cert,
                                              .tls_key = rows[i].key,
                                              .tls_client_ca = rows[i].ca,
                                              .connections_max = 8};
        enum spw_status status = spw_door_http_start(&config, &http, &error);
        if (status != SPW_CONFIG || !strstr(error.text, rows[i].part))
            print_error("row %zu: %s\n", i, error.text);
        assert_int_equal(status, SPW_CONFIG);
        assert_non_null(strstr(error.text, rows[i].part));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_mutual_tls),
        cmocka_unit_test(test_bad_files),
    };
    spw_log_level_set(SPW_LOG_ERROR);
    return cmocka_run_group_tests(tests, load, unload);
}
