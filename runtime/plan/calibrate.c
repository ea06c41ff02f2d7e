#include "runtime/plan/calibrate.h"

#include "proto/client.h"
#include "runtime/base/clock.h"
#include "runtime/plan/cluster_int.h"
#include "runtime/plan/replay_int.h"
#include "runtime/trace/quantile.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESS_DEFAULT "127.0.0.1:8001"
#define CLIENTS_MAX     32u
#define IDS_MAX         512u
#define STEPS_MIN       50u /* of the deployment's fit */
#define CALL_TIMEOUT_NS 120000000000ull
#define PHASE_BUDGET_NS 6000000000ull /* no new request of a phase after that */
#define ALONE_REQUESTS  6u
#define OUTPUT_TOKENS   48u /* of an answer to one that comes alone */
#define ROUNDS          7u  /* of 1, 2, 4... at once */
#define ROUNDS_SETTLING 2u  /* of these, until what was measured before them counts little */
#define ROUND_TOKENS    16u /* of an answer in these */

/* What the deployment says of itself. */
struct facts {
    uint64_t tensor, pipeline, replicas, context_tokens, kv_blocks, block_tokens;
    uint64_t slots, step_tokens, prefill_chunk, queue, host_blocks, disk_blocks, steps;
    uint64_t itl_goal_ns, patience_ns, batch_permille;
    struct spw_sched_cost cost;
    double error_p50, error_p90;
    char model[SPW_CLUSTER_NAME_MAX];
};

/* One client's part of a phase. */
struct probe {
    const struct spw_calibrate_options *options;
    const int32_t *ids;
    size_t id_count;
    const uint32_t *lengths; /* of prompts, one after the other */
    uint32_t length_count, output_tokens, requests;
    uint64_t seed, begin_ns, first_ns; /* first token of the request under way */
    double ttft_ns[ALONE_REQUESTS];
    uint32_t ttft_count;
    enum spw_status status;
    struct spw_error error;
};

static enum spw_status open_client(const struct spw_calibrate_options *options,
                                   struct spw_client **out_client, struct spw_error *error)
{
    struct spw_client_options how = {
        .ca_path = options->ca, .cert_path = options->cert, .key_path = options->key};
    return spw_client_open(options->address ? options->address : ADDRESS_DEFAULT, &how, out_client,
                           error);
}

/* ---- status ---- */

static uint64_t number_at(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (json_is_real(value))
        return json_real_value(value) > 0 ? (uint64_t)json_real_value(value) : 0;
    return json_integer_value(value) > 0 ? (uint64_t)json_integer_value(value) : 0;
}

static enum spw_status read_facts(const json_t *root, struct facts *facts, struct spw_error *error)
{
    const json_t *layout = json_object_get(root, "layout"), *kv = json_object_get(root, "kv");
    const json_t *limits = json_object_get(root, "limits"), *cost = json_object_get(root, "cost");
    const char *model = json_string_value(json_object_get(root, "model"));
    *facts = (struct facts){
        .tensor = number_at(layout, "tensor"),
        .pipeline = number_at(layout, "pipeline"),
        .replicas = number_at(layout, "replicas"),
        .context_tokens = number_at(root, "context_tokens"),
        .block_tokens = number_at(kv, "block_tokens"),
        .slots = number_at(limits, "slots"),
        .step_tokens = number_at(limits, "step_tokens"),
        .prefill_chunk = number_at(limits, "prefill_chunk"),
        .queue = number_at(limits, "queue"),
        .itl_goal_ns = number_at(limits, "itl_goal_ns"),
        .patience_ns = number_at(limits, "patience_ns"),
        .batch_permille = number_at(limits, "batch_permille"),
        .steps = number_at(cost, "steps"),
        .cost = {.fixed_ns = number_at(cost, "fixed_ns"),
                 .row_ps = number_at(cost, "row_ps"),
                 .decode_context_ps = number_at(cost, "decode_context_ps"),
                 .prefill_context_ps = number_at(cost, "prefill_context_ps"),
                 .host_block_ns = number_at(cost, "host_block_ns"),
                 .disk_block_ns = number_at(cost, "disk_block_ns")},
        .error_p50 = json_number_value(json_object_get(cost, "error_p50")),
        .error_p90 = json_number_value(json_object_get(cost, "error_p90")),
    };
    snprintf(facts->model, sizeof(facts->model), "%.60s", model ? model : "");
    if (!facts->replicas || !facts->pipeline || !facts->block_tokens || !facts->context_tokens)
        return spw_fail(
            error, SPW_UNSUPPORTED,
            "the deployment's status does not say its layout: it is of another version");
    if (!cost || !facts->slots || !facts->step_tokens)
        return spw_fail(error, SPW_UNSUPPORTED,
                        "the deployment's status has no \"cost\" and \"limits\": it is of an older "
                        "version that does not measure its steps");
    facts->kv_blocks = number_at(kv, "blocks_total") / facts->replicas;
    facts->host_blocks = number_at(kv, "host_blocks_total") / facts->replicas;
    facts->disk_blocks = number_at(kv, "disk_blocks_total") / facts->replicas;
    return SPW_OK;
}

static enum spw_status ask_status(struct spw_client *client, struct facts *facts,
                                  struct spw_error *error)
{
    Spillway__V1__GetStatusResponse *answer = NULL;
    enum spw_status status = spw_client_status(client, &answer, error);
    if (status)
        return status;
    json_t *root = json_loads(answer->json, JSON_REJECT_DUPLICATES, NULL);
    status = json_is_object(root)
                 ? read_facts(root, facts, error)
                 : spw_fail(error, SPW_CORRUPT, "the deployment's status is not a JSON object");
    json_decref(root);
    spillway__v1__get_status_response__free_unpacked(answer, NULL);
    return status;
}

/* Ids that the model knows: those of some words. */
static enum spw_status ask_ids(struct spw_client *client, int32_t *ids, size_t *out_count,
                               struct spw_error *error)
{
    Spillway__V1__TokenizeRequest request = SPILLWAY__V1__TOKENIZE_REQUEST__INIT;
    Spillway__V1__TokenizeResponse *answer = NULL;
    static const char words[] =
        "the quick brown fox jumps over a lazy dog while seven wise owls watch from tall trees "
        "beside the river and count every wave until dawn";
    request.input_case = SPILLWAY__V1__TOKENIZE_REQUEST__INPUT_TEXT;
    request.text = (ProtobufCBinaryData){.len = sizeof(words) - 1, .data = (uint8_t *)words};
    request.skip_add_special = true;
    enum spw_status status = spw_client_tokenize(client, &request, &answer, error);
    if (status)
        return status;
    *out_count = SPW_MIN(answer->n_ids, IDS_MAX);
    memcpy(ids, answer->ids, *out_count * sizeof(*ids));
    spillway__v1__tokenize_response__free_unpacked(answer, NULL);
    return *out_count ? SPW_OK
                      : spw_fail(error, SPW_UNSUPPORTED, "the model's tokenizer gave no tokens");
}

/* ---- load ---- */

static bool on_response(void *context, const Spillway__V1__GenerateResponse *response)
{
    struct probe *probe = context;
    if (response->n_tokens && !probe->first_ns)
        probe->first_ns = spw_clock_monotonic_ns();
    return true;
}

static void *run_probe(void *context)
{
    struct probe *probe = context;
    struct spw_client *client = NULL;
    uint32_t longest = 1;
    for (uint32_t i = 0; i < probe->length_count; i++)
        longest = SPW_MAX(longest, probe->lengths[i]);
    int32_t *tokens = calloc(longest, sizeof(*tokens));
    uint64_t start_ns = spw_clock_monotonic_ns();
    probe->status = tokens ? open_client(probe->options, &client, &probe->error)
                           : spw_fail(&probe->error, SPW_NO_MEMORY, "out of memory");
    for (uint32_t r = 0; r < probe->requests && !probe->status; r++) {
        if (r && spw_clock_monotonic_ns() - start_ns > PHASE_BUDGET_NS)
            break;
        uint32_t prompt_tokens =
            probe->lengths[spw_replay_mix(probe->seed + r) % probe->length_count];
        for (uint32_t i = 0; i < prompt_tokens; i++)
            tokens[i] =
                probe->ids[spw_replay_mix(probe->seed + ((uint64_t)r << 32) + i) % probe->id_count];
        Spillway__V1__GenerateRequest request = SPILLWAY__V1__GENERATE_REQUEST__INIT;
        Spillway__V1__TokenIds ids = SPILLWAY__V1__TOKEN_IDS__INIT;
        ids.ids = tokens;
        ids.n_ids = prompt_tokens;
        request.input_case = SPILLWAY__V1__GENERATE_REQUEST__INPUT_TOKENS;
        request.tokens = &ids;
        request.max_tokens = probe->output_tokens;
        request.ignore_eos = true;
        probe->first_ns = 0;
        probe->begin_ns = spw_clock_monotonic_ns();
        probe->status = spw_client_generate(client, &request, CALL_TIMEOUT_NS, on_response, probe,
                                            &probe->error);
        if (!probe->status && probe->first_ns && probe->ttft_count < ALONE_REQUESTS)
            probe->ttft_ns[probe->ttft_count++] = (double)(probe->first_ns - probe->begin_ns);
    }
    spw_client_close(client);
    free(tokens);
    return NULL;
}

/* `clients` at once, each with `requests` one after the other, prompts of the given lengths.
 * probes[0] has the waits. */
static enum spw_status run_phase(const struct probe *like, uint32_t clients, uint64_t phase,
                                 const uint32_t *lengths, size_t count, struct probe *probes,
                                 struct spw_error *error)
{
    pthread_t threads[CLIENTS_MAX];
    uint32_t started = 0;
    enum spw_status status = SPW_OK;
    for (; started < clients; started++) {
        probes[started] = *like;
        probes[started].lengths = lengths;
        probes[started].length_count = (uint32_t)count;
        probes[started].seed = spw_replay_mix(like->seed + phase * 1000 + started);
        if (pthread_create(&threads[started], NULL, run_probe, &probes[started]) != 0) {
            status = spw_fail(error, SPW_NO_MEMORY, "a thread cannot be started");
            break;
        }
    }
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        if (!status && probes[i].status)
            status = spw_fail(error, probes[i].status, "the probe load failed: %s",
                              probes[i].error.text);
    }
    return status;
}

/* Predicted time of the steps that compute a prompt alone. */
static double prompt_ns(const struct facts *facts, uint32_t prompt_tokens)
{
    double sum = 0;
    uint64_t chunk = facts->prefill_chunk ? facts->prefill_chunk : facts->step_tokens;
    for (uint64_t at = 0; at < prompt_tokens; at += chunk) {
        double rows = (double)SPW_MIN(chunk, prompt_tokens - at);
        double pairs = rows * (double)at + rows * (rows + 1) / 2;
        sum += (double)facts->cost.fixed_ns + (rows * (double)facts->cost.row_ps +
                                               pairs * (double)facts->cost.prefill_context_ps) /
                                                  1000;
    }
    return sum * (double)facts->pipeline;
}

/* Lengths that one request may have, powers of four apart, the longest last. */
static size_t choose_lengths(const struct facts *facts, uint32_t *lengths)
{
    uint64_t most = SPW_MIN(facts->context_tokens, facts->kv_blocks * facts->block_tokens);
    uint64_t room = most > OUTPUT_TOKENS ? most - OUTPUT_TOKENS : 1;
    uint64_t longest = SPW_MIN(SPW_MIN(most * 3 / 4, room), 8192u);
    size_t count = 0;
    for (uint64_t length = 16; length * 2 < longest && count < 6; length *= 3)
        lengths[count++] = (uint32_t)length;
    lengths[count++] = (uint32_t)SPW_MAX(longest, 1u);
    return count;
}

struct alone {
    uint32_t prompt_tokens, count;
    double ttft_ns[ALONE_REQUESTS];
};

/* Predicted time of one request of each length with its answer, alone. */
static double price_of(const struct facts *facts, const uint32_t *lengths, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        double step = (double)facts->cost.fixed_ns + (double)facts->cost.row_ps / 1000 +
                      lengths[i] * (double)facts->cost.decode_context_ps / 1000;
        sum += prompt_ns(facts, lengths[i]) + ROUND_TOKENS * step * (double)facts->pipeline;
    }
    return sum;
}

/* What the deployment said after each round: the one of the middle price. So a round in which the
 * machine was busy with something else does not count. */
static void take_middle(struct facts *rounds, uint32_t count, const uint32_t *lengths,
                        size_t length_count, struct facts *out)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t below = 0;
        double price = price_of(&rounds[i], lengths, length_count);
        for (uint32_t k = 0; k < count; k++) {
            double other = price_of(&rounds[k], lengths, length_count);
            below += other < price || (other == price && k < i);
        }
        if (below == count / 2)
            *out = rounds[i];
    }
}

/* facts: of the time before; then what was measured. */
static enum spw_status load(const struct spw_calibrate_options *options, struct spw_client *client,
                            struct facts *facts, const int32_t *ids, size_t id_count,
                            struct alone *alone, size_t *out_alone, struct spw_error *error)
{
    struct probe *probes = calloc(CLIENTS_MAX, sizeof(*probes));
    struct facts rounds[ROUNDS - ROUNDS_SETTLING];
    uint32_t lengths[8], measured = 0;
    size_t count = choose_lengths(facts, lengths);
    uint64_t phase = 0;
    enum spw_status status = probes ? SPW_OK : spw_fail(error, SPW_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < count && !status; i++) {
        struct probe like = {.options = options,
                             .ids = ids,
                             .id_count = id_count,
                             .output_tokens = OUTPUT_TOKENS,
                             .requests = ALONE_REQUESTS,
                             .seed = options->seed};
        fprintf(stderr, "probing: prompts of %u tokens, alone\n", lengths[i]);
        status = run_phase(&like, 1, phase++, &lengths[i], 1, probes, error);
        alone[i] = (struct alone){.prompt_tokens = lengths[i], .count = probes[0].ttft_count};
        memcpy(alone[i].ttft_ns, probes[0].ttft_ns, sizeof(alone[i].ttft_ns));
        *out_alone = i + 1;
    }
    /* Few and many at once, again and again: the deployment fits its last steps, and among those
     * have to be steps of all sizes that a load will have. All lengths side by side, as there. */
    uint64_t places = SPW_MIN(facts->slots * facts->replicas, CLIENTS_MAX);
    for (uint32_t round = 0; round < ROUNDS && !status; round++) {
        fprintf(stderr, "probing: 1 to %llu at once, round %u of %u\n", (unsigned long long)places,
                round + 1, ROUNDS);
        for (uint32_t clients = 1; clients <= places && !status; clients *= 2) {
            struct probe like = {.options = options,
                                 .ids = ids,
                                 .id_count = id_count,
                                 .output_tokens = ROUND_TOKENS,
                                 .requests = 1,
                                 .seed = options->seed};
            status = run_phase(&like, clients, phase++, lengths, count, probes, error);
        }
        if (!status && round >= ROUNDS_SETTLING)
            status = ask_status(client, &rounds[measured++], error);
    }
    if (!status)
        take_middle(rounds, measured, lengths, count, facts);
    free(probes);
    return status;
}

/* The median of what the first token took beyond its prompt's steps; the shorter half of the
 * lengths, where the model's own error is least. */
static uint64_t door_ns_of(const struct facts *facts, const struct alone *alone, size_t count)
{
    struct spw_quantile set = {0};
    for (size_t i = 0; i < (count + 1) / 2; i++)
        for (uint32_t k = 1; k < alone[i].count; k++) /* the first one opens the connection */
            (void)spw_quantile_add(&set,
                                   alone[i].ttft_ns[k] - prompt_ns(facts, alone[i].prompt_tokens));
    double median = spw_quantile_at(&set, 0.5);
    spw_quantile_done(&set);
    return median > 0 ? (uint64_t)median : 0;
}

/* ---- the description ---- */

/* The deployment says how far predictions were off as a part of what the steps took; what is far
 * off took longer. A description has it as a part of the prediction: a step predicted at half of
 * what it took, took twice that. */
static uint32_t factor_ppm(double error)
{
    double part = SPW_MIN(SPW_MAX(error, 0), 0.9);
    return (uint32_t)(part / (1 - part) * 1e6);
}

static enum spw_status describe(const struct spw_calibrate_options *options,
                                const struct facts *facts, uint64_t door_ns,
                                struct spw_error *error)
{
    struct spw_cluster cluster;
    char head[1024];
    static const char bare[] = "kv_blocks: 1\ncost: {fixed_us: 1}\n";
    enum spw_status status =
        options->template_path
            ? spw_cluster_read(options->template_path, &cluster, error)
            : spw_cluster_parse("defaults", bare, sizeof(bare) - 1, &cluster, error);
    if (status)
        return status;
    if (options->price &&
        !spw_cluster_decimal_parse(options->price, 6, &cluster.price_per_hour_micro))
        return spw_fail(error, SPW_INVALID,
                        "flag --price-per-hour is '%.40s': a number as 2.50 is right",
                        options->price);
    memcpy(cluster.name, facts->model[0] ? facts->model : "deployment",
           facts->model[0] ? sizeof(cluster.name) : sizeof("deployment"));
    cluster.replicas = (uint32_t)facts->replicas;
    cluster.tensor = (uint32_t)facts->tensor;
    cluster.pipeline = (uint32_t)facts->pipeline;
    cluster.slots = (uint32_t)facts->slots;
    cluster.step_tokens = (uint32_t)facts->step_tokens;
    cluster.prefill_chunk =
        (uint32_t)(facts->prefill_chunk ? facts->prefill_chunk : facts->step_tokens);
    cluster.block_tokens = (uint32_t)facts->block_tokens;
    cluster.context_tokens = (uint32_t)facts->context_tokens;
    cluster.queue = facts->queue ? (uint32_t)facts->queue : cluster.queue;
    cluster.kv_blocks = facts->kv_blocks;
    cluster.host_blocks = (uint32_t)facts->host_blocks;
    cluster.disk_blocks = (uint32_t)facts->disk_blocks;
    cluster.itl_bound_ns = facts->itl_goal_ns;
    cluster.patience_ns = facts->patience_ns;
    cluster.batch_permille = (uint32_t)SPW_MIN(facts->batch_permille, 1000u);
    cluster.cost = facts->cost;
    cluster.error_p90_ppm = factor_ppm(facts->error_p90);
    cluster.error_p50_ppm = SPW_MIN(factor_ppm(facts->error_p50), cluster.error_p90_ppm);
    if (!options->no_probe)
        cluster.door_ns = door_ns;
    snprintf(head, sizeof(head),
             "# Measured at a running deployment by `spillway plan --calibrate`: %llu steps, the "
             "model's error is %.1f %%\n# at the median and %.1f %% at p90.%s\n",
             (unsigned long long)facts->steps, facts->error_p50 * 100, facts->error_p90 * 100,
             options->template_path ? ""
                                    : " Prices, goals, classes and sites are to be added by hand.");
    FILE *out = options->output ? fopen(options->output, "w") : stdout;
    if (!out)
        return spw_fail(error, SPW_IO, "%s: %s", options->output, strerror(errno));
    spw_cluster_write(&cluster, head, out);
    bool bad = ferror(out) != 0;
    if (options->output)
        bad = fclose(out) != 0 || bad;
    return bad ? spw_fail(error, SPW_IO, "%s: cannot be written",
                          options->output ? options->output : "standard output")
               : SPW_OK;
}

enum spw_status spw_calibrate(const struct spw_calibrate_options *options, struct spw_error *error)
{
    struct spw_client *client = NULL;
    struct facts facts;
    struct alone alone[8] = {{0}};
    int32_t ids[IDS_MAX];
    size_t id_count = 0, alone_count = 0;
    enum spw_status status = open_client(options, &client, error);
    if (!status)
        status = ask_status(client, &facts, error);
    if (!status && !options->no_probe)
        status = ask_ids(client, ids, &id_count, error);
    if (!status && !options->no_probe)
        status = load(options, client, &facts, ids, id_count, alone, &alone_count, error);
    if (!status && facts.steps < STEPS_MIN)
        status = spw_fail(error, SPW_UNSUPPORTED,
                          "the deployment has measured %llu steps: at least %u are needed",
                          (unsigned long long)facts.steps, STEPS_MIN);
    if (!status && !facts.cost.fixed_ns && !facts.cost.row_ps)
        status = spw_fail(error, SPW_UNSUPPORTED, "the deployment has no fit of its steps yet");
    if (!status)
        status = describe(options, &facts, door_ns_of(&facts, alone, alone_count), error);
    spw_client_close(client);
    return status;
}
