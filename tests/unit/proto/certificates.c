#include "tests/unit/proto/certificates.h"

#include "runtime/base/base.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void must(int ok)
{
    if (!ok) {
        fprintf(stderr, "OpenSSL failed while making test certificates\n");
        abort();
    }
}

static void add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    must(extension && X509_add_ext(certificate, extension, -1));
    X509_EXTENSION_free(extension);
}

/* issuer NULL: self-signed, a CA. */
static X509 *make(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
    static long serial = 1;
    X509 *certificate = X509_new();
    must(certificate && X509_set_version(certificate, 2) &&
         ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial++) &&
         X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) &&
         X509_gmtime_adj(X509_getm_notAfter(certificate), 86400) &&
         X509_set_pubkey(certificate, key));
    X509_NAME *subject = X509_get_subject_name(certificate);
    must(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                                    -1, 0));
    must(X509_set_issuer_name(certificate, X509_get_subject_name(issuer ? issuer : certificate)));
    add_extension(certificate, issuer ? issuer : certificate, NID_basic_constraints,
                  issuer ? "CA:FALSE" : "critical,CA:TRUE");
    add_extension(certificate, issuer ? issuer : certificate, NID_subject_alt_name,
                  "DNS:localhost,IP:127.0.0.1");
    must(X509_sign(certificate, issuer ? issuer_key : key, EVP_sha256()) > 0);
    return certificate;
}

static void save(const char *path, X509 *certificate, EVP_PKEY *key)
{
    FILE *file = fopen(path, "w");
    must(file != NULL);
    if (certificate)
        must(PEM_write_X509(file, certificate));
    if (key)
        must(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL));
    must(fclose(file) == 0);
}

void certificates_make(struct certificates *out)
{
    snprintf(out->folder, sizeof(out->folder), "/tmp/spw-tls-XXXXXX");
    must(mkdtemp(out->folder) != NULL);
#define PATH(field, name) snprintf(out->field, sizeof(out->field), "%s/" name, out->folder)
    PATH(ca, "ca.pem");
    PATH(server, "server.pem");
    PATH(server_key, "server.key");
    PATH(client, "client.pem");
    PATH(client_key, "client.key");
    PATH(stranger, "stranger.pem");
    PATH(stranger_key, "stranger.key");
#undef PATH
    EVP_PKEY *keys[5];
    for (size_t i = 0; i < SPW_ARRAY_COUNT(keys); i++)
        must((keys[i] = EVP_EC_gen("P-256")) != NULL);
    X509 *ca = make("test CA", keys[0], NULL, NULL);
    X509 *other = make("other CA", keys[1], NULL, NULL);
    X509 *server = make("localhost", keys[2], ca, keys[0]);
    X509 *client = make("client", keys[3], ca, keys[0]);
    X509 *stranger = make("stranger", keys[4], other, keys[1]);
    save(out->ca, ca, NULL);
    save(out->server, server, NULL);
    save(out->server_key, NULL, keys[2]);
    save(out->client, client, NULL);
    save(out->client_key, NULL, keys[3]);
    save(out->stranger, stranger, NULL);
    save(out->stranger_key, NULL, keys[4]);
    X509_free(ca);
    X509_free(other);
    X509_free(server);
    X509_free(client);
    X509_free(stranger);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(keys); i++)
        EVP_PKEY_free(keys[i]);
}

void certificates_remove(const struct certificates *certificates)
{
    unlink(certificates->ca);
    unlink(certificates->server);
    unlink(certificates->server_key);
    unlink(certificates->client);
    unlink(certificates->client_key);
    unlink(certificates->stranger);
    unlink(certificates->stranger_key);
    rmdir(certificates->folder);
}
