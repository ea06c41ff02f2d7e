#include "runtime/deploy_int.h"

#include "runtime/base/log.h"
#include "runtime/base/rng.h"
#include "runtime/gateway/gateway.h"
#include "transport/bootstrap.h"
#include "transport/tp_local.h"
#ifdef SPW_HAVE_UCX
#include "transport/tp_ucx.h"
#endif

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BOOTSTRAP_TIMEOUT_NS (60 * SPW_SECOND)
#define LOCAL_QUEUE_BYTES    (16u << 20)

int spw_deploy_exit_code(enum spw_status status)
{
    switch (status) {
    case SPW_OK:
    case SPW_PENDING:
        return SPW_EXIT_OK;
    case SPW_PEER_LOST:
    case SPW_TIMEOUT:
        return SPW_EXIT_PEER_LOST;
    case SPW_DEVICE:
        return SPW_EXIT_DEVICE;
    case SPW_INTERNAL:
    case SPW_NO_MEMORY:
    case SPW_FULL: /* of a client: nothing to set right, only to come again */
    case SPW_CANCELLED:
        return SPW_EXIT_FAILURE;
    default:
        return SPW_EXIT_CONFIG;
    }
}

enum spw_status spw_deploy_member(const struct spw_config *config, const struct deploy_model *model,
                                  struct spw_tp *tp, const struct spw_join_card *cards,
                                  uint32_t rank, const atomic_bool *stop, struct spw_error *error)
{
    struct spw_place place = spw_layout_place(config, rank);
    if (place.role == SPW_ROLE_GATEWAY)
        return spw_gateway_run(tp, stop, error);
    uint32_t before = 0;
    uint32_t ranks = spw_layout_ranks(config);
    uint32_t sharing = spw_join_on_host(cards, ranks, rank, spw_layout_workers(config), &before);
    uint32_t threads = config->threads ? config->threads : SPW_MAX(cards[rank].cores / sharing, 1);
    struct spw_worker_config worker = {
        .config = config,
        .model = model->model,
        .engine = &spw_engine_cpu,
        .tp = tp,
        .place = place,
        .dtype = model->dtype,
        .threads = threads,
        /* pinning ranks that share cores would only make them wait for each other */
        .pin = config->pin && threads * sharing <= cards[rank].cores,
        .pin_first_core = before * threads,
        .kv_blocks = model->kv_blocks,
        .host_blocks = model->host_blocks,
        .disk_blocks = model->disk_blocks,
        .build = cards[rank].build,
        .context_tokens = model->context_tokens,
        .stop = stop,
    };
    return spw_worker_run(&worker, error);
}

/* ---- one process ---- */

struct member {
    const struct spw_config *config;
    const struct deploy_model *model;
    const struct spw_join_card *cards;
    struct spw_tp_hub *hub;
    atomic_bool *stop;
    uint32_t rank;
    pthread_t thread;
    bool started;
};

static void *run_member(void *context)
{
    struct member *member = context;
    struct spw_error error = {{0}};
    struct spw_tp *tp = NULL;
    enum spw_status status = spw_tp_local_open(member->hub, member->rank, &tp);
    if (!status)
        status = spw_deploy_member(member->config, member->model, tp, member->cards, member->rank,
                                   member->stop, &error);
    /* the coordinator learns of a failure from the last report, or from the closed endpoint */
    spw_tp_close(tp);
    return NULL;
}

static enum spw_status serve_single(const struct spw_deploy_options *options,
                                    struct spw_error *error)
{
    const struct spw_config *config = options->config;
    uint32_t ranks = spw_layout_ranks(config);
    struct deploy_model model = {0};
    atomic_bool stop = false;
    struct spw_tp *tp = NULL;
    struct spw_tp_hub *hub = NULL;
    struct spw_join_card *cards = calloc(ranks, sizeof(*cards));
    struct member *members = calloc(ranks, sizeof(*members));
    enum spw_status status = spw_config_check(config, error);
    if (status || !cards || !members) {
        status = status ? status : spw_fail(error, SPW_NO_MEMORY, "out of memory");
        goto out;
    }
    status = spw_deploy_model_open(config, spw_layout_workers(config), &model, error);
    if (status)
        goto out;
    for (uint32_t i = 0; i < ranks; i++)
        spw_join_card_self(&cards[i]);
    hub = spw_tp_hub_create(ranks, LOCAL_QUEUE_BYTES);
    status = hub ? spw_tp_local_open(hub, 0, &tp) : SPW_NO_MEMORY;
    for (uint32_t i = 1; i < ranks && !status; i++) {
        members[i] = (struct member){.config = config,
                                     .model = &model,
                                     .cards = cards,
                                     .hub = hub,
                                     .stop = &stop,
                                     .rank = i};
        if (pthread_create(&members[i].thread, NULL, run_member, &members[i]))
            status = SPW_NO_MEMORY;
        members[i].started = status == SPW_OK;
    }
    if (status)
        spw_fail(error, status, "the ranks of this process could not be started");
    else
        status = spw_deploy_coordinator(options, &model, tp, cards, error);
    atomic_store(&stop, true);
    for (uint32_t i = 1; i < ranks; i++)
        if (members[i].started)
            pthread_join(members[i].thread, NULL);
out:
    spw_tp_close(tp);
    spw_tp_hub_destroy(hub);
    spw_deploy_model_close(&model);
    free(members);
    free(cards);
    return status;
}

/* ---- one of many ---- */

#ifdef SPW_HAVE_UCX
/* What this rank knows before it has heard of the others; a problem goes into its card. */
static void fill_card(const struct spw_deploy_options *options,
                      const struct spw_bootstrap *bootstrap, struct deploy_model *model,
                      struct spw_join_card *card)
{
    const struct spw_config *config = options->config;
    struct spw_error error = {{0}};
    uint32_t ranks = spw_layout_ranks(config);
    spw_join_card_self(card);
    if (options->config_status) {
        card->status = options->config_status;
        memcpy(card->error, options->config_error->text, sizeof(card->error));
        return;
    }
    card->config = spw_config_digest(config);
    spw_config_agreed_text(config, card->agreed, sizeof(card->agreed));
    enum spw_status status = spw_config_check(config, &error);
    if (!status && ranks != bootstrap->ranks)
        status =
            spw_fail(&error, SPW_CONFIG,
                     "%u ranks were started, the layout needs %u: 1 coordinator + %u workers "
                     "(replicas %u x pipeline %u x tensor %u) + %u gateways; start with -np %u, or "
                     "set --tensor, --pipeline, --replicas, --gateways",
                     bootstrap->ranks, ranks, spw_layout_workers(config), config->replicas,
                     config->pipeline, config->tensor, config->gateways, ranks);
    bool needs_model = !status && bootstrap->rank <= spw_layout_workers(config);
    if (needs_model) {
        status = spw_deploy_model_open(config, spw_layout_workers(config), model, &error);
        card->has_model = status == SPW_OK;
        if (card->has_model)
            card->model = spw_model_digest_shape(model->model);
        card->kv_blocks = model->kv_blocks;
        card->host_blocks = model->host_blocks;
        card->disk_blocks = model->disk_blocks;
        card->context_tokens = model->context_tokens;
    }
    if (bootstrap->rank == 0 && !status && !spw_rng_system(card->secret, sizeof(card->secret)))
        status = spw_fail(&error, SPW_IO, "the system gives no random bytes");
    card->status = status;
    memcpy(card->error, error.text, sizeof(card->error));
}

static enum spw_status exchange_cards(const struct spw_bootstrap *bootstrap,
                                      struct spw_join_card *own, struct spw_join_card **out_cards,
                                      struct spw_error *error)
{
    uint8_t **blobs = NULL;
    size_t *bytes = NULL;
    enum spw_status status = spw_bootstrap_exchange(own, sizeof(*own), &blobs, &bytes, error);
    if (status)
        return status;
    struct spw_join_card *cards = calloc(bootstrap->ranks, sizeof(*cards));
    for (uint32_t i = 0; i < bootstrap->ranks && cards && !status; i++) {
        if (bytes[i] != sizeof(*cards))
            status =
                spw_fail(error, SPW_MISMATCH,
                         "rank %u is of another build: install the same spillway everywhere", i);
        else
            memcpy(&cards[i], blobs[i], sizeof(*cards));
    }
    spw_bootstrap_blobs_free(blobs, bytes);
    if (!cards)
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    *out_cards = cards;
    return status;
}

static enum spw_status connect_ucx(const struct spw_config *config,
                                   const struct spw_bootstrap *bootstrap,
                                   const struct spw_join_card *cards, struct spw_tp **out_tp,
                                   struct spw_error *error)
{
    static uint8_t address[SPW_TP_ADDRESS_BYTES_MAX];
    size_t address_bytes = 0;
    uint8_t **blobs = NULL;
    size_t *bytes = NULL;
    struct spw_tp_ucx_config ucx = {
        .rank = bootstrap->rank,
        .ranks = bootstrap->ranks,
        .ranks_on_host = spw_join_on_host(cards, bootstrap->ranks, bootstrap->rank, 0, NULL),
        .tcp_only = config->tcp_only,
    };
    memcpy(ucx.secret, cards[0].secret, sizeof(ucx.secret));
    enum spw_status status = spw_tp_ucx_create(&ucx, out_tp, address, &address_bytes, error);
    /* a rank that failed sends an empty address, so that the others do not wait for it */
    enum spw_status exchanged =
        spw_bootstrap_exchange(address, status ? 0 : address_bytes, &blobs, &bytes, error);
    if (exchanged)
        return status ? status : exchanged;
    for (uint32_t i = 0; i < bootstrap->ranks && !status; i++)
        if (bytes[i] == 0)
            status = spw_fail(error, SPW_PEER_LOST, "rank %u on %s could not open its transport", i,
                              cards[i].host);
    if (!status)
        status = spw_tp_ucx_connect(*out_tp, (const uint8_t *const *)blobs, bytes, cards[0].secret,
                                    error);
    spw_bootstrap_blobs_free(blobs, bytes);
    return status;
}

static enum spw_status serve_rank(const struct spw_deploy_options *options, bool *out_speaks,
                                  struct spw_error *error)
{
    const struct spw_config *config = options->config;
    struct spw_bootstrap bootstrap;
    struct deploy_model model = {0};
    struct spw_join_card own, *cards = NULL;
    struct spw_tp *tp = NULL;
    enum spw_status status = spw_bootstrap_open(BOOTSTRAP_TIMEOUT_NS, &bootstrap, error);
    if (status)
        return status;
    *out_speaks = bootstrap.rank == 0;
    fill_card(options, &bootstrap, &model, &own);
    status = exchange_cards(&bootstrap, &own, &cards, error);
    if (!status)
        status = spw_join_check(cards, bootstrap.ranks, error);
    if (!status)
        status = connect_ucx(config, &bootstrap, cards, &tp, error);
    /* before the others can be gone: at the first non-zero end mpirun kills who is left */
    if (status && *out_speaks) {
        spw_log_error("deploy", "%s", error->text[0] ? error->text : spw_status_text(status));
        *out_speaks = false;
    }
    spw_bootstrap_close();
    if (status)
        goto out;
    spw_log_identity((int)bootstrap.rank,
                     spw_role_name(spw_layout_place(config, bootstrap.rank).role));
    const struct spw_join_sizes sizes = spw_join_agree(cards, bootstrap.ranks);
    model.kv_blocks = sizes.kv_blocks;
    model.host_blocks = sizes.host_blocks;
    model.disk_blocks = sizes.disk_blocks;
    model.context_tokens = sizes.context_tokens;
    if (bootstrap.rank == 0)
        status = spw_deploy_coordinator(options, &model, tp, cards, error);
    else
        status = spw_deploy_member(config, &model, tp, cards, bootstrap.rank, NULL, error);
out:
    spw_tp_close(tp);
    spw_deploy_model_close(&model);
    free(cards);
    return status;
}
#else
static enum spw_status serve_rank(const struct spw_deploy_options *options, bool *out_speaks,
                                  struct spw_error *error)
{
    (void)options;
    *out_speaks = true;
    return spw_fail(
        error, SPW_UNSUPPORTED,
        "this build has no UCX and cannot be one rank of many: start it without mpirun");
}
#endif

int spw_deploy_serve(const struct spw_deploy_options *options)
{
    struct spw_error error = {{0}};
    bool speaks = true;
    bool many = !options->single && spw_bootstrap_present();
    enum spw_status status =
        many ? serve_rank(options, &speaks, &error) : serve_single(options, &error);
    if (status && speaks)
        spw_log_error("deploy", "%s", error.text[0] ? error.text : spw_status_text(status));
    return spw_deploy_exit_code(status);
}

enum spw_status spw_deploy_dry_run(const struct spw_config *config, FILE *out,
                                   struct spw_error *error)
{
    struct deploy_model model = {0};
    struct spw_join_card self;
    enum spw_status status = spw_config_check(config, error);
    if (!status && config->model[0])
        status = spw_deploy_model_open(config, spw_layout_workers(config), &model, error);
    if (status)
        return status;
    spw_join_card_self(&self);
    fprintf(out, "%-6s %-20s %-10s %s\n", "rank", "host", "device", "role");
    for (uint32_t rank = 0; rank < spw_layout_ranks(config); rank++) {
        struct spw_place place = spw_layout_place(config, rank);
        fprintf(out, "%-6u %-20s %-10s %s", rank, self.host, "cpu", spw_role_name(place.role));
        if (place.role == SPW_ROLE_WORKER)
            fprintf(out, " replica %u stage %u tensor %u", place.replica, place.stage,
                    place.tensor);
        fprintf(out, "\n");
    }
    if (model.model) {
        const struct spw_model_config *shape = spw_model_config(model.model);
        for (uint32_t stage = 0; stage < config->pipeline; stage++) {
            struct spw_shard shard = {.stages = config->pipeline, .stage = stage};
            fprintf(out, "stage %u: layers %u to %u\n", stage,
                    spw_shard_layer_begin(&shard, shape->layers),
                    spw_shard_layer_end(&shard, shape->layers) - 1);
        }
        fprintf(out, "kv blocks %u of %u tokens, context %u tokens, class %s\n", model.kv_blocks,
                config->block_tokens, model.context_tokens, spw_engine_class_cpu(model.dtype));
        if (model.host_blocks)
            fprintf(out, "kv blocks in host memory %u, on disk %u\n", model.host_blocks,
                    model.disk_blocks);
    }
    spw_deploy_model_close(&model);
    return SPW_OK;
}
