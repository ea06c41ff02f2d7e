/* deploy_coordinator.c - the coordinator's life: service, doors, loop, the ready line. */
#include "runtime/base/log.h"
#include "runtime/deploy_int.h"
#include "runtime/door_grpc.h"
#include "runtime/door_http.h"
#include "runtime/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECTIONS_MAX 4096u
#define STOP_DRAIN_NS   (2 * SPW_SECOND)

struct coordinator {
    const struct spw_deploy_options *options;
    const struct spw_config *config;
    struct spw_service service;
    struct spw_tokenizer *tokenizer;
    struct spw_chat_template *chat_template;
    struct spw_door_http *http;
    struct spw_door_grpc *grpc;
    struct spw_door own;
    bool own_made;
    struct spw_door *doors[3];
    uint32_t door_count;
    struct spw_rank_info *ranks;
    struct spw_tenants *tenants;
    struct spw_loop *_Atomic loop;
    struct spw_tp *tp;
    char grpc_unix[SPW_CONFIG_TEXT_MAX + 8];
    uint64_t load_started_ns, load_shown_ns;
    bool terminal;
};

static void wake(void *context)
{
    struct coordinator *self = context;
    spw_tp_wake(self->tp);
}

/* Doors run before the loop exists: until then nothing is ready, and nothing is wrong. */
static bool service_ready(void *context)
{
    struct coordinator *self = context;
    struct spw_loop *loop = atomic_load(&self->loop);
    return loop && spw_loop_ready(loop);
}

static bool service_healthy(void *context)
{
    struct coordinator *self = context;
    struct spw_loop *loop = atomic_load(&self->loop);
    return !loop || spw_loop_healthy(loop);
}

static void service_status(void *context, struct spw_buffer *out)
{
    struct coordinator *self = context;
    struct spw_loop *loop = atomic_load(&self->loop);
    if (loop)
        spw_loop_status_json(loop, out);
    else
        spw_buffer_add_text(out, "{\"ready\":false,\"healthy\":true,\"ranks\":[]}");
}

static void service_metrics(void *context, struct spw_buffer *out)
{
    struct coordinator *self = context;
    struct spw_loop *loop = atomic_load(&self->loop);
    if (loop)
        spw_loop_metrics(loop, out);
}

/* Who there is, and where the names of their blocks begin. */
static enum spw_status make_tenants(struct coordinator *self, struct spw_error *error)
{
    const struct spw_config *config = self->config;
    struct spw_service *service = &self->service;
    enum spw_status status =
        spw_tenants_parse(config->tenants, config->queue, &self->tenants, error);
    if (status)
        return status;
    service->tenants = self->tenants;
    if (strcmp(config->prefix_cache, "off") == 0)
        return SPW_OK;
    bool all = strcmp(config->prefix_cache, "all") == 0;
    service->prefix_block_tokens = config->block_tokens;
    for (uint32_t i = 0; i < self->tenants->count; i++) {
        struct spw_tenant *tenant = &self->tenants->list[i];
        tenant->chain = spw_prefix_salt(service->model_digest_hex, service->engine_class,
                                        config->block_tokens, all ? NULL : tenant->name);
    }
    return SPW_OK;
}

static enum spw_status make_service(struct coordinator *self, const struct deploy_model *model,
                                    struct spw_error *error)
{
    const struct spw_config *config = self->config;
    enum spw_status status = spw_tokenizer_open(config->model, &self->tokenizer, error);
    if (status)
        return status;
    const char *source = spw_tokenizer_setting(self->tokenizer, "chat_template");
    if (source) {
        status = spw_chat_template_compile(source, strlen(source), &self->chat_template, error);
        if (status) {
            spw_error_prefix(error, "%s: chat_template", config->model);
            return status;
        }
    }
    struct spw_digest digest;
    status = spw_model_digest(model->model, NULL, NULL, &digest, error);
    if (status)
        return status;
    self->service = (struct spw_service){
        .model_name = config->model_name[0] ? config->model_name : spw_model_name(model->model),
        .model = spw_model_config(model->model),
        .tokenizer = self->tokenizer,
        .chat_template = self->chat_template,
        .engine_class = spw_engine_class_cpu(model->dtype),
        .site_name = config->site_name,
        .context_tokens_max = model->context_tokens,
        .requests_max = config->queue + config->replicas * config->slots,
        .body_bytes_max = config->body_bytes,
        .started_wall_seconds = spw_clock_wall_seconds(),
        .ready = service_ready,
        .healthy = service_healthy,
        .status_json = service_status,
        .metrics = service_metrics,
        .context = self,
    };
    spw_digest_hex(&digest, self->service.model_digest_hex);
    return make_tenants(self, error);
}

static enum spw_status start_doors(struct coordinator *self, struct spw_error *error)
{
    const struct spw_config *config = self->config;
    enum spw_status status = SPW_OK;
    if (config->http[0] || config->unix_path[0]) {
        struct spw_door_http_config http = {
            .service = &self->service,
            .wake_loop = wake,
            .wake_context = self,
            .tcp = config->http,
            .unix_path = config->unix_path,
            .tls_cert = config->tls_cert,
            .tls_key = config->tls_key,
            .tls_client_ca = config->tls_client_ca,
            .connections_max = CONNECTIONS_MAX,
        };
        status = spw_door_http_start(&http, &self->http, error);
        if (status)
            return status;
        self->doors[self->door_count++] = spw_door_http_door(self->http);
    }
    if (config->grpc[0] || config->unix_path[0]) {
        if (config->unix_path[0])
            snprintf(self->grpc_unix, sizeof(self->grpc_unix), "%s.grpc", config->unix_path);
        struct spw_door_grpc_config grpc = {
            .service = &self->service,
            .wake_loop = wake,
            .wake_context = self,
            .tcp = config->grpc,
            .unix_path = self->grpc_unix,
            .tls_cert = config->tls_cert,
            .tls_key = config->tls_key,
            .tls_client_ca = config->tls_client_ca,
            .connections_max = CONNECTIONS_MAX,
        };
        status = spw_door_grpc_start(&grpc, &self->grpc, error);
        if (status)
            return status;
        self->doors[self->door_count++] = spw_door_grpc_door(self->grpc);
    }
    if (self->options->own_door) {
        status = spw_door_init(&self->own, "own", &self->service, wake, self);
        if (status)
            return spw_fail(error, status, "out of memory for a door");
        self->own_made = true;
        self->doors[self->door_count++] = &self->own;
    }
    return SPW_OK;
}

static void on_ready(void *context)
{
    struct coordinator *self = context;
    struct spw_deploy_ready ready = {
        .http = self->http ? spw_door_http_address(self->http) : "",
        .grpc = self->grpc ? spw_door_grpc_address(self->grpc) : "",
        .service = &self->service,
        .door = self->own_made ? &self->own : NULL,
    };
    spw_log_info("deploy", "ready model=%s class=%s context=%u", self->service.model_name,
                 self->service.engine_class, self->service.context_tokens_max);
    if (!self->options->quiet) {
        if (self->terminal && self->load_shown_ns)
            fprintf(stderr, "\r\033[K");
        printf("ready");
        if (ready.http[0])
            printf(" http=%s", ready.http);
        if (ready.grpc[0])
            printf(" grpc=%s", ready.grpc);
        if (self->config->unix_path[0])
            printf(" unix=%s", self->config->unix_path);
        printf("\n");
        fflush(stdout);
    }
    if (self->options->on_ready)
        self->options->on_ready(self->options->context, &ready);
}

/* Bytes, rate and what remains while weights load: in place on a terminal, else a line now and
 * then. */
static void on_loading(void *context, uint64_t done, uint64_t total)
{
    struct coordinator *self = context;
    uint64_t now_ns = spw_clock_monotonic_ns();
    uint64_t period_ns = self->terminal ? 200 * SPW_MS : 2 * SPW_SECOND;
    if (self->options->quiet || total == 0 || now_ns - self->load_shown_ns < period_ns)
        return;
    if (self->load_shown_ns == 0 && !self->terminal && now_ns - self->load_started_ns < period_ns)
        return;
    self->load_shown_ns = now_ns;
    double seconds = (double)(now_ns - self->load_started_ns) * 1e-9;
    double rate = seconds > 0 ? (double)done / seconds : 0;
    double left = rate > 0 && done < total ? (double)(total - done) / rate : 0;
    fprintf(stderr, "%sloading weights %.1f of %.1f MB, %.0f MB/s, %.0f s left%s",
            self->terminal ? "\r\033[K" : "", (double)done * 1e-6, (double)total * 1e-6,
            rate * 1e-6, left, self->terminal ? "" : "\n");
    fflush(stderr);
}

static enum spw_status run_loop(struct coordinator *self, const struct deploy_model *model,
                                struct spw_error *error)
{
    struct spw_loop_config config = {
        .config = self->config,
        .model = spw_model_config(model->model),
        .model_name = self->service.model_name,
        .engine_class = self->service.engine_class,
        .model_digest_hex = self->service.model_digest_hex,
        .tp = self->tp,
        .clock = spw_clock_monotonic(),
        .doors = self->doors,
        .door_count = self->door_count,
        .kv_blocks = model->kv_blocks,
        .host_blocks = model->host_blocks,
        .disk_blocks = model->disk_blocks,
        .context_tokens = model->context_tokens,
        .ranks = self->ranks,
        .stop = self->options->stop,
        .on_ready = on_ready,
        .on_loading = on_loading,
        .on_context = self,
    };
    struct spw_loop *loop = NULL;
    enum spw_status status = spw_loop_create(&config, &loop, error);
    if (status)
        return status;
    atomic_store(&self->loop, loop);
    return spw_loop_run(loop, error);
}

/* Workers and gateways that wait for plans are told to end when the coordinator fails before it has
 * a loop. */
static void stop_members(struct spw_tp *tp)
{
    uint8_t nothing = 0;
    for (uint32_t rank = 1; rank < tp->ranks; rank++)
        spw_tp_send(tp, rank, SPW_WIRE_STOP, &nothing, 1);
    for (int i = 0; i < 50; i++)
        if (spw_tp_poll(tp, 256) == 0)
            spw_tp_wait(tp, 10 * SPW_MS);
}

enum spw_status spw_deploy_coordinator(const struct spw_deploy_options *options,
                                       const struct deploy_model *model, struct spw_tp *tp,
                                       const struct spw_join_card *cards, struct spw_error *error)
{
    struct coordinator *self = calloc(1, sizeof(*self));
    uint32_t ranks = spw_layout_ranks(options->config);
    if (!self)
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    self->options = options;
    self->config = options->config;
    self->tp = tp;
    self->own.wake_fd = -1;
    self->terminal = isatty(STDERR_FILENO);
    self->load_started_ns = spw_clock_monotonic_ns();
    self->ranks = calloc(ranks, sizeof(*self->ranks));
    enum spw_status status = self->ranks ? SPW_OK : spw_fail(error, SPW_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; i < ranks && !status; i++) {
        memcpy(self->ranks[i].host, cards[i].host, sizeof(self->ranks[i].host));
        self->ranks[i].pid = cards[i].pid;
    }
    if (!status)
        status = make_service(self, model, error);
    if (!status)
        status = start_doors(self, error);
    if (!status)
        status = run_loop(self, model, error);
    if (!atomic_load(&self->loop))
        stop_members(tp);
    if (options->on_end)
        options->on_end(options->context);
    spw_door_http_stop(self->http, STOP_DRAIN_NS);
    spw_door_grpc_stop(self->grpc, STOP_DRAIN_NS);
    spw_loop_destroy(atomic_load(&self->loop));
    if (self->own_made)
        spw_door_done(&self->own);
    spw_chat_template_destroy(self->chat_template);
    spw_tokenizer_close(self->tokenizer);
    spw_tenants_destroy(self->tenants);
    free(self->ranks);
    free(self);
    return status;
}
