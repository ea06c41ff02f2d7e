/* sched_model.c - the clients' side of the model: requests, verdicts, replicas, sums. */
#include "tests/unit/scheduler/sched_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void model_violation(const char *name)
{
    fprintf(stderr, "VIOLATION %s\n", name);
    fflush(stderr);
    abort();
}

void model_expect(bool holds, const char *name)
{
    if (!holds)
        model_violation(name);
}

void *model_zeroed(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    model_expect(memory != NULL, "out-of-memory");
    return memory;
}

void model_hash(struct model *model, uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        model->hash ^= (value >> (8 * i)) & 0xff;
        model->hash *= 0x100000001b3u;
    }
}

static void create_replica(struct model *model, struct model_replica *replica)
{
    const struct spw_sched_config *config = &model->config;
    replica->steps = model_zeroed(config->pipeline + 1, sizeof(*replica->steps));
    for (uint32_t i = 0; i <= config->pipeline; i++)
        replica->steps[i].entries = model_zeroed(config->step_seqs_max, sizeof(struct model_entry));
    replica->slots = model_zeroed(config->slots, sizeof(*replica->slots));
    for (uint32_t i = 0; i < config->slots; i++)
        replica->slots[i].request = SPW_SCHED_NONE;
    replica->tables = model_zeroed((size_t)config->slots * config->kv_blocks, sizeof(uint32_t));
    model_stores_create(model, replica);
}

struct model *model_create(const struct spw_sched_config *config, uint32_t request_max)
{
    struct model *model = model_zeroed(1, sizeof(*model));
    model->config = *config;
    const char *reason = "none";
    model->bytes = spw_sched_bytes(config, &reason);
    model_expect(model->bytes > 0, reason);
    model->memory = aligned_alloc(64, (model->bytes + 63) / 64 * 64);
    model_expect(model->memory != NULL, "out-of-memory");
    memset(model->memory, 0xa5, model->bytes); /* nothing may rely on zeroes */
    model->sched = spw_sched_init(model->memory, config);
    model->hash = 0xcbf29ce484222325u;
    model->tell_every = 1;
    model->request_max = request_max;
    model->requests = model_zeroed(request_max, sizeof(*model->requests));
    model->by_handle = model_zeroed(config->requests_max, sizeof(uint32_t));
    for (uint32_t i = 0; i < config->requests_max; i++)
        model->by_handle[i] = SPW_SCHED_NONE;
    model->tenant_max = model_zeroed(config->tenants, sizeof(uint32_t));
    for (uint32_t i = 0; i < config->tenants; i++)
        model->tenant_max[i] = config->waiting_max;
    model->replicas = model_zeroed(config->replicas, sizeof(*model->replicas));
    for (uint32_t r = 0; r < config->replicas; r++)
        create_replica(model, &model->replicas[r]);
    model->plan.seqs = model_zeroed(config->step_seqs_max + 64u, sizeof(*model->plan.seqs));
    model->plan.blocks = model_zeroed(spw_sched_plan_blocks_max(config) + 64u, sizeof(uint32_t));
    model->rows = model_zeroed(config->step_seqs_max, sizeof(*model->rows));
    return model;
}

/* What the scheduler has borrowed is worth nothing after ENDED. */
static void free_hashes(struct model_request *request)
{
    if (request->hashes != NULL)
        memset(request->hashes, 0x5a, (request->hash_count + 1) * sizeof(*request->hashes));
    free(request->hashes);
    request->hashes = NULL;
}

void model_destroy(struct model *model)
{
    for (uint32_t r = 0; r < model->config.replicas; r++) {
        struct model_replica *replica = &model->replicas[r];
        for (uint32_t i = 0; i <= model->config.pipeline; i++)
            free(replica->steps[i].entries);
        free(replica->steps);
        free(replica->slots);
        free(replica->tables);
        model_stores_destroy(replica);
    }
    for (uint32_t i = 0; i < model->request_count; i++) {
        free_hashes(&model->requests[i]);
        free(model->requests[i].chain);
    }
    model_known_free(model);
    free(model->plan.seqs);
    free(model->plan.blocks);
    free(model->rows);
    free(model->replicas);
    free(model->by_handle);
    free(model->tenant_max);
    free(model->requests);
    free(model->memory);
    free(model);
}

/* Slot and blocks of a request are the worker's again. */
static void give_back(struct model *model, struct model_request *request)
{
    model_expect(request->in_flight == 0, "given-back-in-flight");
    if (request->replica == SPW_SCHED_NONE)
        return;
    struct model_replica *replica = &model->replicas[request->replica];
    model_release_blocks(model, replica, request->slot);
    replica->slots[request->slot].request = SPW_SCHED_NONE;
    replica->slots_used--;
    request->replica = SPW_SCHED_NONE;
    request->slot = SPW_SCHED_NONE;
}

/* Somebody gains by it that may: who ranks before it on its replica; for the batch lane whoever is
 * interactive; between tenants one that waits while the victim's has more. */
static void check_victim(const struct model *model, uint32_t index)
{
    const struct model_request *victim = &model->requests[index];
    const struct model_replica *replica = &model->replicas[victim->replica];
    uint32_t before = 0;
    for (uint32_t i = 0; i < model->config.slots; i++) {
        const uint32_t other = replica->slots[i].request;
        if (other == SPW_SCHED_NONE || other == index)
            continue;
        const struct model_request *request = &model->requests[other];
        before += request->priority < victim->priority ||
                  (request->priority == victim->priority && other < index);
    }
    for (uint32_t i = 0; i < model->config.requests_max; i++) {
        if (model->by_handle[i] == SPW_SCHED_NONE)
            continue;
        const struct model_request *request = &model->requests[model->by_handle[i]];
        before += victim->priority == SPW_SCHED_BATCH && request->priority < SPW_SCHED_BATCH;
        before += request->tenant != victim->tenant && request->replica == SPW_SCHED_NONE &&
                  request->priority <= victim->priority;
    }
    model_expect(before > 0, "preempted-highest");
}

static void take_ended(struct model *model, const struct spw_sched_verdict *verdict,
                       struct model_request *request)
{
    if (!request->over) {
        if (verdict->end == SPW_SCHED_END_EXPIRED) {
            model_expect(!request->ran && request->deadline_ns != 0 &&
                             request->deadline_ns <= model->now_ns,
                         "expired-early");
        } else {
            model_expect(verdict->end == SPW_SCHED_END_NO_REPLICA && model->up == 0,
                         "ended-for-nothing");
        }
    } else {
        model_expect(verdict->end == request->end, "wrong-end");
    }
    request->over = true;
    give_back(model, request);
    request->ends++;
    model_expect(request->ends == 1, "ended-twice");
    free_hashes(request);
    free(request->chain);
    request->chain = NULL;
    model->counts.ends[verdict->end]++;
    model->by_handle[verdict->request] = SPW_SCHED_NONE;
    model->live--;
}

void model_poll(struct model *model, bool planned)
{
    struct spw_sched_verdict verdict;
    while (spw_sched_poll(model->sched, &verdict)) {
        model_expect(verdict.request < model->config.requests_max, "verdict-handle");
        const uint32_t index = model->by_handle[verdict.request];
        model_expect(index != SPW_SCHED_NONE, "verdict-of-nobody");
        struct model_request *request = &model->requests[index];
        model_expect(request->id == verdict.id, "verdict-id");
        model_hash(model, verdict.id << 8 | (uint64_t)verdict.kind << 4 | (uint64_t)verdict.end);
        if (verdict.kind == SPW_SCHED_ENDED) {
            take_ended(model, &verdict, request);
            continue;
        }
        model_expect(!request->over, "preempted-after-end");
        if (planned && request->replica != SPW_SCHED_NONE)
            check_victim(model, index);
        give_back(model, request);
        request->preempted++;
        model->counts.preempted++;
        model->counts.batch_preempted += request->priority == SPW_SCHED_BATCH;
    }
    spw_sched_check(model->sched);
    if (!planned) /* after a plan its blocks are looked at first */
        model_settle(model);
}

static void check_replica_sums(struct model *model, uint32_t r, struct spw_sched_totals *sums)
{
    struct model_replica *replica = &model->replicas[r];
    struct spw_sched_replica_totals totals;
    spw_sched_replica_totals(model->sched, r, &totals);
    model_expect(totals.up == replica->up && totals.draining == replica->draining, "replica-state");
    model_expect(totals.steps_in_flight == replica->in_flight &&
                     totals.steps_planned == replica->planned,
                 "replica-steps");
    model_expect(totals.running >= replica->slots_used && totals.running <= model->config.slots,
                 "replica-running");
    model_expect(totals.kv_blocks_used >= replica->held &&
                     totals.kv_blocks_used + totals.kv_blocks_cached <= model->config.kv_blocks,
                 "replica-blocks");
    /* With nobody placed and not seen yet, no prefill that may have adopted blocks, and nothing on
     * its way, the worker knows them all. */
    uint32_t prefills = 0;
    for (uint32_t i = 0; i < model->config.slots; i++) {
        const struct model_slot *slot = &replica->slots[i];
        prefills += slot->request != SPW_SCHED_NONE && slot->position < slot->target;
    }
    model_expect(totals.running > replica->slots_used || replica->transfer_count > 0 ||
                     prefills > 0 || totals.kv_blocks_used == replica->held,
                 "blocks-leaked");
    if (replica->draining) {
        model_expect(totals.running <= replica->drained_running, "placed-on-draining");
        replica->drained_running = totals.running;
    }
    sums->running += totals.running;
    sums->kv_blocks_used += totals.kv_blocks_used;
    sums->kv_blocks_cached += totals.kv_blocks_cached;
}

static void check_sums(struct model *model)
{
    struct spw_sched_totals totals, sums = {0};
    struct spw_sched_tenant_totals tenant;
    spw_sched_totals(model->sched, &totals);
    for (uint32_t r = 0; r < model->config.replicas; r++)
        check_replica_sums(model, r, &sums);
    model_expect(sums.running == totals.running && sums.kv_blocks_used == totals.kv_blocks_used &&
                     sums.kv_blocks_cached == totals.kv_blocks_cached,
                 "totals-of-replicas");
    sums.running = 0;
    for (uint32_t i = 0; i < model->config.tenants; i++) {
        spw_sched_tenant_totals(model->sched, i, &tenant);
        sums.running += tenant.running;
        sums.waiting += tenant.waiting;
    }
    model_expect(sums.running == totals.running && sums.waiting == totals.waiting,
                 "totals-of-tenants");
    model_expect(totals.waiting + totals.running == model->live, "totals-live");
    model_expect(totals.kv_blocks_total == model->up * model->config.kv_blocks, "totals-blocks");
    model_expect(totals.waiting_batch <= totals.waiting && totals.running_batch <= totals.running,
                 "totals-batch");
    model_expect(totals.host_blocks_used <= totals.host_blocks_total &&
                     totals.disk_blocks_used <= totals.disk_blocks_total,
                 "totals-tiers");
    model->counts.evicted = totals.evicted_blocks;
    model->counts.swapped = totals.swapped;
}

void model_settle(struct model *model)
{
    model_take_transfers(model);
    check_sums(model);
}

/* What submit should say; TOO_LATE stands for "or ACCEPTED". */
static enum spw_sched_answer expected_answer(const struct model *model,
                                             const struct spw_sched_request *request)
{
    const struct spw_sched_config *config = &model->config;
    struct spw_sched_totals totals;
    struct spw_sched_tenant_totals tenant;
    spw_sched_totals(model->sched, &totals);
    spw_sched_tenant_totals(model->sched, request->tenant, &tenant);
    const uint64_t positions = (uint64_t)request->prompt_tokens + request->output_tokens_max - 1;
    if (positions + 1 > config->context_tokens_max ||
        (positions + config->block_tokens - 1) / config->block_tokens > config->kv_blocks)
        return SPW_SCHED_NEVER_FITS;
    if (model->draining)
        return SPW_SCHED_DRAINING;
    if (model->up == 0)
        return SPW_SCHED_NO_REPLICA;
    if (totals.waiting >= config->waiting_max || model->live == config->requests_max)
        return SPW_SCHED_QUEUE_FULL;
    if (tenant.waiting >= model->tenant_max[request->tenant])
        return SPW_SCHED_TENANT_FULL;
    const struct spw_sched_cost *cost = &config->cost;
    const bool known =
        cost->fixed_ns || cost->row_ps || cost->decode_context_ps || cost->prefill_context_ps;
    return known && request->deadline_ns != 0 ? SPW_SCHED_TOO_LATE : SPW_SCHED_ACCEPTED;
}

static uint64_t memory_sum(const struct model *model)
{
    uint64_t sum = 0;
    for (size_t i = 0; i + 8 <= model->bytes; i += 8) {
        uint64_t word;
        memcpy(&word, (const char *)model->memory + i, 8);
        sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
    }
    return sum;
}

/* The prediction changes nothing, and says what submit will say. */
static enum spw_sched_answer check_prediction(const struct model *model,
                                              const struct spw_sched_request *request)
{
    struct spw_sched_prediction prediction;
    memset(&prediction, 0x77, sizeof(prediction));
    const bool look = model->request_count % 8 == 0;
    const uint64_t before = look ? memory_sum(model) : 0;
    spw_sched_predict(model->sched, model->now_ns, request, &prediction);
    model_expect(!look || before == memory_sum(model), "predict-changes");
    model_expect((prediction.retry_ns == 0) == (prediction.answer == SPW_SCHED_ACCEPTED),
                 "predict-retry");
    model_expect(prediction.answer != SPW_SCHED_NEVER_FITS || prediction.retry_ns == UINT64_MAX,
                 "predict-never");
    if (prediction.answer == SPW_SCHED_ACCEPTED) {
        model_expect(prediction.start_ns <= prediction.first_token_ns, "predict-order");
        model_expect(prediction.cached_tokens < request->prompt_tokens &&
                         prediction.cached_tokens % model->config.block_tokens == 0,
                     "predict-cached");
    }
    return prediction.answer;
}

/* The hashes of the prompt's full blocks are there; room for the rest holds nothing yet. */
static void make_hashes(struct model *model, struct model_request *made)
{
    const uint32_t block_tokens = model->config.block_tokens;
    made->hash_count = (made->prompt + made->output_max) / block_tokens;
    made->hash_told = made->prompt / block_tokens;
    made->hashes = model_zeroed(made->hash_count + 1u, sizeof(*made->hashes));
    memset(made->hashes, 0x5a, (made->hash_count + 1u) * sizeof(*made->hashes));
    for (uint32_t i = 0; i < made->hash_told; i++)
        made->hashes[i] = model_block_hash(model, made->chain, i);
    model_learn_blocks(model, made);
}

enum spw_sched_answer model_submit_text(struct model *model,
                                        const struct spw_sched_request *request, uint32_t stop_at,
                                        const struct model_text *text)
{
    const struct spw_sched_config *config = &model->config;
    const struct model_text own = {.salt = request->id ^ 0x6f776eu, .answer = request->id};
    const enum spw_sched_answer expected = expected_answer(model, request);
    model_expect(model->request_count < model->request_max, "model-too-small");
    struct model_request made = {
        .id = request->id,
        .arrival_ns = model->now_ns,
        .deadline_ns = request->deadline_ns,
        .text = text ? *text : own,
        .prompt = request->prompt_tokens,
        .output_max = request->output_tokens_max,
        .stop_at = stop_at,
        .replica = SPW_SCHED_NONE,
        .slot = SPW_SCHED_NONE,
        .tenant = request->tenant,
        .priority = request->priority,
    };
    struct spw_sched_request asked = *request;
    if (expected != SPW_SCHED_NEVER_FITS) {
        made.chain = model_zeroed((size_t)made.prompt + made.output_max, sizeof(uint64_t));
        model_text_chain(&made.text, made.prompt + made.output_max, made.chain);
        if (text != NULL) {
            make_hashes(model, &made);
            asked.hashes = made.hashes;
            asked.hash_count = made.hash_told;
        }
    }
    const enum spw_sched_answer predicted = check_prediction(model, &asked);
    uint32_t handle = SPW_SCHED_NONE;
    const enum spw_sched_answer answer =
        spw_sched_submit(model->sched, model->now_ns, &asked, &handle);
    model_expect(answer == expected ||
                     (answer == SPW_SCHED_ACCEPTED && expected == SPW_SCHED_TOO_LATE),
                 "answer");
    model_expect(predicted == answer, "predict-answer");
    model->counts.answers[answer]++;
    model_hash(model, answer);
    if (answer != SPW_SCHED_ACCEPTED) {
        model_expect(handle == SPW_SCHED_NONE, "handle-of-refused");
        free_hashes(&made);
        free(made.chain);
        return answer;
    }
    model_expect(handle < config->requests_max && model->by_handle[handle] == SPW_SCHED_NONE,
                 "handle-reused");
    made.handle = handle;
    model->by_handle[handle] = model->request_count;
    model->requests[model->request_count++] = made;
    model->live++;
    model_hash(model, handle);
    model_poll(model, false);
    return answer;
}

enum spw_sched_answer model_submit(struct model *model, const struct spw_sched_request *request,
                                   uint32_t stop_at)
{
    return model_submit_text(model, request, stop_at, NULL);
}

void model_tenant(struct model *model, uint32_t tenant, uint32_t weight, uint32_t waiting_max)
{
    model->tenant_max[tenant] = waiting_max;
    spw_sched_tenant_set(model->sched, tenant, weight, waiting_max);
    model_poll(model, false);
}

void model_cancel(struct model *model, uint32_t index, bool finished)
{
    struct model_request *request = &model->requests[index];
    model_expect(request->ends == 0, "model-cancel");
    if (!request->over) {
        request->over = true;
        request->end = finished ? SPW_SCHED_END_FINISHED : SPW_SCHED_END_CANCELLED;
    }
    spw_sched_cancel(model->sched, model->now_ns, request->handle, finished);
    model_poll(model, false);
    model_expect(request->ends == 1 || request->in_flight > 0, "cancel-lost");
}

void model_up(struct model *model, uint32_t replica)
{
    model_find_disk(model, replica);
    model->replicas[replica].up = true;
    model->up++;
    spw_sched_replica_up(model->sched, model->now_ns, replica);
    model_poll(model, false);
}

void model_down(struct model *model, uint32_t r)
{
    struct model_replica *replica = &model->replicas[r];
    replica->up = false;
    model->up--;
    replica->in_flight = 0;
    for (uint32_t i = 0; i < model->config.slots; i++) {
        if (replica->slots[i].request != SPW_SCHED_NONE)
            model->requests[replica->slots[i].request].in_flight = 0;
    }
    spw_sched_replica_down(model->sched, model->now_ns, r);
    struct spw_sched_replica_totals totals;
    spw_sched_replica_totals(model->sched, r, &totals);
    replica->draining = totals.draining; /* whether it still does when it is back is its matter */
    replica->drained_running = 0;
    model_poll(model, false);
    for (uint32_t i = 0; i < model->config.slots; i++)
        model_expect(replica->slots[i].request == SPW_SCHED_NONE, "lost-with-replica");
    model_lose_stores(model, replica);
}

void model_drain(struct model *model, bool draining)
{
    model->draining = draining;
    spw_sched_drain(model->sched, draining);
    model_poll(model, false);
}

void model_replica_drain(struct model *model, uint32_t r, bool draining)
{
    struct spw_sched_replica_totals totals;
    spw_sched_replica_totals(model->sched, r, &totals);
    model->replicas[r].draining = draining;
    model->replicas[r].drained_running = totals.running;
    spw_sched_replica_drain(model->sched, r, draining);
    model_poll(model, false);
}

void model_expire(struct model *model)
{
    const uint64_t next = spw_sched_expire(model->sched, model->now_ns);
    model_expect(next > model->now_ns, "expire-next");
    model_poll(model, false);
}

void model_add_counts(struct model_counts *sums, const struct model_counts *counts)
{
    const uint64_t *from = (const uint64_t *)(const void *)counts;
    uint64_t *to = (uint64_t *)(void *)sums;
    _Static_assert(sizeof(*sums) % sizeof(uint64_t) == 0, "counts are all of one type");
    for (size_t i = 0; i < sizeof(*sums) / sizeof(uint64_t); i++)
        to[i] += from[i];
}

static void check_end(const struct model *model)
{
    struct spw_sched_totals totals;
    spw_sched_totals(model->sched, &totals);
    for (uint32_t i = 0; i < model->request_count; i++)
        model_expect(model->requests[i].ends == 1, "not-ended");
    model_expect(totals.kv_blocks_used == 0 && totals.waiting == 0 && totals.running == 0,
                 "not-empty");
    model_expect(totals.waiting_batch == 0 && totals.running_batch == 0, "not-empty");
    model_expect(totals.accepted == model->request_count, "totals-accepted");
    model_expect(totals.finished == model->counts.ends[SPW_SCHED_END_FINISHED], "totals-finished");
    model_expect(totals.cancelled == model->counts.ends[SPW_SCHED_END_CANCELLED],
                 "totals-cancelled");
    model_expect(totals.expired == model->counts.ends[SPW_SCHED_END_EXPIRED], "totals-expired");
    /* of several verdicts about one request only the newest is told */
    model_expect(totals.preempted >= model->counts.preempted, "totals-preempted");
    model_expect(totals.prefill_tokens + totals.decode_tokens == model->counts.committed_rows,
                 "totals-rows");
    uint64_t done = 0, failed = 0;
    for (int i = 0; i < 9; i++) {
        done += model->counts.transfers[i / 3][i % 3];
        failed += model->counts.failed[i / 3][i % 3];
    }
    model_expect(totals.transfers_done == done && totals.transfers_failed == failed,
                 "totals-transfers");
}

void model_finish(struct model *model, uint64_t steps_max)
{
    const uint64_t first = model->counts.steps;
    for (;;) {
        model_plan_all(model);
        uint32_t moves = 0;
        for (uint32_t r = 0; r < model->config.replicas; r++) {
            moves += model->replicas[r].in_flight + model->replicas[r].transfer_count;
            if (model->replicas[r].in_flight > 0)
                model_commit(model, r);
        }
        model_transfers_end(model);
        if (spw_sched_idle(model->sched) && moves == 0)
            break;
        model->now_ns += 1000;
        model_expect(moves > 0 || spw_sched_ready(model->sched) != SPW_SCHED_NONE, "stuck");
        model_expect(model->counts.steps - first <= steps_max, "too-many-steps");
    }
    check_end(model);
}
