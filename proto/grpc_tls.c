/* TLS of the server: which protocols, which certificate, who must show one. */
#include "proto/grpc_server_int.h"

#include <openssl/err.h>
#include <string.h>

/* h2 or nothing. */
static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_bytes,
                       const unsigned char *in, unsigned in_bytes, void *context)
{
    static const unsigned char h2[] = {2, 'h', '2'};
    (void)ssl;
    (void)context;
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, out_bytes, h2, sizeof(h2), in, in_bytes) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static enum spw_status fail_with_reason(struct spw_error *error, const char *what, const char *path)
{
    unsigned long code = ERR_peek_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return spw_fail(error, SPW_CONFIG, "%s %s: %s", what, path, reason ? reason : "cannot be used");
}

enum spw_status spw_grpc_tls_create(const struct spw_grpc_server_config *config, SSL_CTX **out_tls,
                                    struct spw_error *error)
{
    if (!config->tls_key)
        return spw_fail(error, SPW_CONFIG, "TLS certificate %s without its key: set the key too",
                        config->tls_cert);
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    if (!tls)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for TLS");
    enum spw_status status = SPW_OK;
    ERR_clear_error();
    SSL_CTX_set_options(tls, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_select_cb(tls, choose_alpn, NULL);
    if (SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_num_tickets(tls, 0) != 1 ||
        SSL_CTX_set_cipher_list(tls, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1)
        status = spw_fail(error, SPW_CONFIG, "this OpenSSL has no TLS 1.2 with ECDHE");
    else if (SSL_CTX_use_certificate_chain_file(tls, config->tls_cert) != 1)
        status = fail_with_reason(error, "TLS certificate", config->tls_cert);
    else if (SSL_CTX_use_PrivateKey_file(tls, config->tls_key, SSL_FILETYPE_PEM) != 1 ||
             SSL_CTX_check_private_key(tls) != 1)
        status = fail_with_reason(error, "TLS key", config->tls_key);
    if (status == SPW_OK && config->tls_client_ca) {
        STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(config->tls_client_ca);
        if (!names || SSL_CTX_load_verify_locations(tls, config->tls_client_ca, NULL) != 1) {
            sk_X509_NAME_pop_free(names, X509_NAME_free);
            status = fail_with_reason(error, "TLS client CA", config->tls_client_ca);
        } else {
            SSL_CTX_set_client_CA_list(tls, names);
            SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        }
    }
    if (status != SPW_OK) {
        SSL_CTX_free(tls);
        return status;
    }
    *out_tls = tls;
    return SPW_OK;
}
