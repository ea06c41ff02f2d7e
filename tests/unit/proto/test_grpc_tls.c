/* TLS: who gets in, and who does not. */
#include "proto/client.h"
#include "runtime/base/clock.h"
#include "tests/unit/proto/certificates.h"
#include "tests/unit/proto/raw_client.h"
#include "tests/unit/proto/test_methods.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include <cmocka.h>

static struct certificates made;
static struct test_server test;

static int setup(void **state)
{
    (void)state;
    certificates_make(&made);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    certificates_remove(&made);
    return 0;
}

static enum spw_status echo(const char *ca, const char *cert, const char *key, size_t bytes)
{
    struct spw_client *client;
    struct spw_client_options options = {.ca_path = ca, .cert_path = cert, .key_path = key};
    Spillway__V1__DetokenizeResponse message = SPILLWAY__V1__DETOKENIZE_RESPONSE__INIT;
    ProtobufCMessage *answer = NULL;
    uint8_t *text = malloc(bytes + 1);
    memset(text, 't', bytes);
    message.text = (ProtobufCBinaryData){bytes, text};
    assert_int_equal(spw_client_open(test.url, &options, &client, NULL), SPW_OK);
    enum spw_status status =
        spw_client_unary(client, "/t.T/Echo", &message.base, 10 * SPW_SECOND,
                         &spillway__v1__detokenize_response__descriptor, &answer, NULL);
    if (status == SPW_OK) {
        const Spillway__V1__DetokenizeResponse *back = (void *)answer;
        assert_int_equal(back->text.len, bytes);
        assert_memory_equal(back->text.data, text, bytes);
    }
    protobuf_c_message_free_unpacked(answer, NULL);
    spw_client_close(client);
    free(text);
    return status;
}

static void server_certificate(void **state)
{
    (void)state;
    struct spw_grpc_server_config config = {.tls_cert = made.server, .tls_key = made.server_key};
    test_server_start(&test, config);
    assert_int_equal(echo(made.ca, NULL, NULL, 10), SPW_OK);
    assert_int_equal(echo(made.ca, NULL, NULL, 3000000), SPW_OK);      /* many records, both ways */
    assert_int_not_equal(echo(made.stranger, NULL, NULL, 10), SPW_OK); /* another CA */
    assert_int_equal(atomic_load(&test.called), 2);
    test_server_stop(&test, 0);
}

static void client_certificate(void **state)
{
    (void)state;
    struct spw_grpc_server_config config = {
        .tls_cert = made.server, .tls_key = made.server_key, .tls_client_ca = made.ca};
    test_server_start(&test, config);
    assert_int_equal(echo(made.ca, made.client, made.client_key, 1000), SPW_OK);
    assert_int_not_equal(echo(made.ca, NULL, NULL, 10), SPW_OK); /* shows none */
    assert_int_not_equal(echo(made.ca, made.stranger, made.stranger_key, 10), SPW_OK);
    assert_int_equal(echo(made.ca, made.client, made.client_key, 10), SPW_OK);
    assert_int_equal(atomic_load(&test.called), 2); /* and nobody else came through */
    test_server_stop(&test, 0);
}

/* Handshake only: with these ALPN protocols and this highest version. */
static bool shakes_hands(const char *alpn, size_t alpn_bytes, int version_max)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(context, version_max);
    SSL *ssl = SSL_new(context);
    int fd = raw_connect(test.url + strlen("https://"));
    if (alpn_bytes)
        SSL_set_alpn_protos(ssl, (const unsigned char *)alpn, (unsigned)alpn_bytes);
    SSL_set_fd(ssl, fd);
    char in[16];
    bool good = SSL_connect(ssl) == 1 && SSL_read(ssl, in, sizeof(in)) > 0; /* its SETTINGS */
    SSL_free(ssl);
    SSL_CTX_free(context);
    close(fd);
    return good;
}

static void protocols(void **state)
{
    (void)state;
    struct spw_grpc_server_config config = {.tls_cert = made.server, .tls_key = made.server_key};
    test_server_start(&test, config);
    assert_true(shakes_hands("\2h2", 3, TLS1_3_VERSION));
    assert_true(shakes_hands("\2h2", 3, TLS1_2_VERSION));
    assert_true(shakes_hands("\10http/1.1\2h2", 12, TLS1_3_VERSION));
    assert_false(shakes_hands("\10http/1.1", 9, TLS1_3_VERSION));
    assert_false(shakes_hands("", 0, TLS1_3_VERSION));
    assert_false(shakes_hands("\2h2", 3, TLS1_1_VERSION));
    /* plain HTTP/2 to the TLS port, and noise */
    struct raw_client plain;
    raw_open(&plain, raw_connect(test.url + strlen("https://")), false, 0);
    raw_run(&plain, NULL, 3000);
    assert_true(plain.lost);
    raw_close(&plain);
    assert_int_equal(echo(made.ca, NULL, NULL, 10), SPW_OK);
    test_server_stop(&test, 0);
}

static void wrong_files(void **state)
{
    (void)state;
    struct spw_grpc_server *server;
    struct spw_error error = {{0}};
    const struct spw_grpc_server_config configs[] = {
        {.tcp = "127.0.0.1:0", .tls_cert = "/nowhere.pem", .tls_key = made.server_key},
        {.tcp = "127.0.0.1:0", .tls_cert = made.server},
        {.tcp = "127.0.0.1:0", .tls_cert = made.server, .tls_key = made.client_key},
        {.tcp = "127.0.0.1:0", .tls_cert = made.server, .tls_key = made.server},
        {.tcp = "127.0.0.1:0",
         .tls_cert = made.server,
         .tls_key = made.server_key,
         .tls_client_ca = "/nowhere.pem"},
        {.tcp = "127.0.0.1:0", .tls_client_ca = made.ca},
        {.tcp = "127.0.0.1:0", .tls_key = made.server_key},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(configs); i++) {
        error.text[0] = '\0';
        assert_int_equal(spw_grpc_server_create(&configs[i], &server, &error), SPW_CONFIG);
        assert_true(error.text[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(server_certificate),
        cmocka_unit_test(client_certificate),
        cmocka_unit_test(protocols),
        cmocka_unit_test(wrong_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
