/* cli_status.c - spillway status: which ranks there are, what they do, what waits. */
#include "proto/client.h"
#include "runtime/cli.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESS_DEFAULT "127.0.0.1:8001"
#define TENANTS_SHOWN   8u

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long long int_of(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static void print_rank(const json_t *rank, bool colour)
{
    const char *state = text_of(rank, "state");
    bool good = strcmp(state, "ready") == 0;
    bool bad = strcmp(state, "lost") == 0 || strcmp(state, "failed") == 0;
    char place[40] = "";
    if (int_of(rank, "replica") >= 0)
        snprintf(place, sizeof(place), "r%lld s%lld t%lld", int_of(rank, "replica"),
                 int_of(rank, "stage"), int_of(rank, "tensor"));
    printf("%-5lld %-12s %-10s %-18s %-8lld %s%-9s%s %9lld  ", int_of(rank, "rank"),
           text_of(rank, "role"), place, text_of(rank, "host"), int_of(rank, "pid"),
           !colour ? ""
           : good  ? "\033[32m"
           : bad   ? "\033[31m"
                   : "\033[33m",
           state, colour ? "\033[0m" : "", int_of(rank, "steps"));
    printf("%s", text_of(rank, "waiting_for"));
    const json_t *waiting_rank = json_object_get(rank, "waiting_rank");
    if (waiting_rank)
        printf(" (rank %lld)", (long long)json_integer_value(waiting_rank));
    if (*text_of(rank, "error"))
        printf("  %s", text_of(rank, "error"));
    printf("\n");
}

/* Prefix hits, and tenants when there are some beside the default one. */
static void print_sharing(const json_t *status)
{
    const json_t *prefix = json_object_get(status, "prefix");
    const json_t *tenants = json_object_get(status, "tenants");
    long long looked = int_of(prefix, "prompt_tokens"), found = int_of(prefix, "cached_tokens");
    printf("prefix cache (%s): %lld of %lld prompt tokens found, %.1f %%\n",
           text_of(prefix, "cache"), found, looked,
           looked ? 100.0 * (double)found / (double)looked : 0.0);
    if (json_array_size(tenants) < 2)
        return;
    printf("tenants (weight: running/waiting):");
    for (size_t i = 0; i < json_array_size(tenants) && i < TENANTS_SHOWN; i++) {
        const json_t *tenant = json_array_get(tenants, i);
        printf(" %s (%lld: %lld/%lld)", text_of(tenant, "name"), int_of(tenant, "weight"),
               int_of(tenant, "running"), int_of(tenant, "waiting"));
    }
    if (json_array_size(tenants) > TENANTS_SHOWN)
        printf(" and %zu more", json_array_size(tenants) - TENANTS_SHOWN);
    printf("\n");
}

static void print_status(const json_t *status)
{
    bool colour = spw_cli_colour(stdout);
    const json_t *layout = json_object_get(status, "layout");
    const json_t *requests = json_object_get(status, "requests");
    const json_t *kv = json_object_get(status, "kv");
    const json_t *tokens = json_object_get(status, "tokens");
    printf("model %s  class %s  digest %.16s\n", text_of(status, "model"),
           text_of(status, "engine_class"), text_of(status, "model_digest"));
    printf("%s, %s%s; up %.0f s; tensor %lld x pipeline %lld x replicas %lld, gateways %lld\n",
           json_is_true(json_object_get(status, "ready")) ? "ready" : "not ready",
           json_is_true(json_object_get(status, "healthy")) ? "healthy" : "NOT HEALTHY",
           json_is_true(json_object_get(status, "draining")) ? ", draining" : "",
           json_real_value(json_object_get(status, "uptime_seconds")), int_of(layout, "tensor"),
           int_of(layout, "pipeline"), int_of(layout, "replicas"), int_of(layout, "gateways"));
    printf("requests: %lld running, %lld waiting, %lld finished, %lld cancelled, %lld refused\n",
           int_of(requests, "running"), int_of(requests, "waiting"), int_of(requests, "finished"),
           int_of(requests, "cancelled"), int_of(requests, "refused"));
    printf("tokens: %lld prompt, %lld output; KV blocks: %lld of %lld in use, %lld cached\n",
           int_of(tokens, "prompt"), int_of(tokens, "output"), int_of(kv, "blocks_used"),
           int_of(kv, "blocks_total"), int_of(kv, "blocks_cached"));
    print_sharing(status);
    printf("\n");
    printf("%-5s %-12s %-10s %-18s %-8s %-9s %9s  %s\n", "rank", "role", "place", "host", "pid",
           "state", "steps", "waits for");
    size_t index;
    json_t *rank;
    json_array_foreach(json_object_get(status, "ranks"), index, rank) print_rank(rank, colour);
}

static int run(const struct spw_command *command, int argc, char **argv)
{
    struct spw_error error = {{0}};
    const char *address = getenv("SPILLWAY_ADDRESS"), *ca = NULL;
    const char *cert = NULL, *key = NULL;
    bool json = false;
    struct spw_client *client = NULL;
    Spillway__V1__GetStatusResponse *answer = NULL;
    address = address ? address : ADDRESS_DEFAULT;
    for (int i = 0; i < argc && !error.text[0]; i++) {
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else if (!spw_cli_option(argc, argv, &i, "to", &address, &error) &&
                 !spw_cli_option(argc, argv, &i, "tls-ca", &ca, &error) &&
                 !spw_cli_option(argc, argv, &i, "tls-cert", &cert, &error) &&
                 !spw_cli_option(argc, argv, &i, "tls-key", &key, &error))
            spw_fail(&error, SPW_INVALID, "unexpected argument '%.100s'; see --help", argv[i]);
    }
    if (error.text[0])
        return spw_cli_fail(command, SPW_INVALID, &error);
    struct spw_client_options options = {.ca_path = ca, .cert_path = cert, .key_path = key};
    enum spw_status status = spw_client_open(address, &options, &client, &error);
    if (!status)
        status = spw_client_status(client, &answer, &error);
    spw_client_close(client);
    if (status) {
        spw_cli_fail(command, status, &error);
        return status == SPW_IO ? SPW_EXIT_FAILURE : SPW_EXIT_PEER_LOST;
    }
    if (json) {
        printf("%s\n", answer->json);
    } else {
        json_t *root = json_loads(answer->json, 0, NULL);
        print_status(root);
        json_decref(root);
    }
    int code = answer->healthy ? SPW_EXIT_OK : SPW_EXIT_PEER_LOST;
    spillway__v1__get_status_response__free_unpacked(answer, NULL);
    return code;
}

const struct spw_command spw_cli_status = {
    .name = "status",
    .brief = "which ranks there are, what they do, what waits",
    .usage = "[--to ADDRESS] [--json] [--tls-ca FILE] [--tls-cert FILE --tls-key FILE]",
    .text =
        "ADDRESS is the gRPC door, as for submit. Exit code 0: healthy, 4: not, 1: no answer.\n\n"
        "examples:\n"
        "  spillway status\n"
        "  spillway status --json | jq '.ranks[] | {rank, steps, waiting_for}'\n",
    .words = "--to --json --tls-ca --tls-cert --tls-key",
    .run = run,
};
