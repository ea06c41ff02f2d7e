/* sim_check.c - what must hold of every plan, after every turn, at every end and after all. */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void sim_fail(struct sim *sim, const char *check, const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fprintf(stderr, "sim: seed %" PRIu64 " CHECK %s at %.6f s: ", sim->seed, check,
            (double)(sim->now_ns - SIM_START_NS) * 1e-9);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    abort();
}

void sim_note(struct sim *sim, const char *words, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
              uint64_t e, uint64_t f)
{
    uint64_t all[] = {
        sim->now_ns, (uint64_t)(uint8_t)words[0] << 8 | (uint8_t)words[1], a, b, c, d, e, f};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(all); i++)
        sim->hash = (sim->hash ^ sim_mix(all[i] + i)) * 0x9e3779b97f4a7c15ull;
    if (!sim->verbose)
        return;
    printf("%12.6f ms  ", (double)(sim->now_ns - SIM_START_NS) * 1e-6);
    uint32_t next = 2;
    for (const char *at = words; *at; at++) {
        if (strncmp(at, "%llu", 4) == 0) {
            printf("%" PRIu64, all[next++]);
            at += 3;
        } else {
            putchar(*at);
        }
    }
    putchar('\n');
}

/* ---- plans ---- */

/* Steps that the scheduler was told the end of. */
static void count_commits(struct sim *sim, uint32_t index, uint64_t committed)
{
    struct sim_replica *replica = &sim->replicas[index];
    while (replica->committed < committed) {
        const struct sim_step *step = &replica->steps[++replica->committed % sim->steps_max];
        for (uint32_t i = 0; i < step->wire.seq_count; i++) {
            struct sim_client *client = &sim->clients[step->clients[i]];
            if (client->in_flight && client->replica == index)
                client->in_flight--;
        }
    }
}

static void check_seq(struct sim *sim, const struct spw_plan *plan, uint32_t i)
{
    const struct spw_config *config = &sim->knobs.config;
    const struct spw_plan_seq *seq = &plan->seqs[i];
    const struct spw_request *request = sim->loop->requests[seq->request];
    SIM_CHECK(sim, "plan-request", request && !request->loop_ended,
              "replica %u step %" PRIu64 ": a row of a request that has ended", plan->replica,
              plan->step);
    struct sim_client *client = sim_client_of(sim, request);
    uint32_t end = seq->position + seq->rows;
    uint64_t *seen = sim->probes->seen;

    SIM_CHECK(sim, "plan-slot", seq->slot < config->slots, "client %u: slot %u", client->index,
              seq->slot);
    SIM_CHECK(sim, "plan-length",
              seq->rows >= 1 && end <= client->prompt_tokens + client->output_max - 1,
              "client %u: rows to position %u of %u + %u", client->index, end,
              client->prompt_tokens, client->output_max);
    SIM_CHECK(sim, "budget-chunk",
              seq->rows <= (config->prefill_chunk ? config->prefill_chunk : config->step_tokens),
              "client %u: %u rows in a step", client->index, seq->rows);
    if (seq->open) {
        seen[SIM_PROBE_RESUMED] += client->placements > 0 && !client->back;
        seen[SIM_PROBE_BATCH_PREEMPTED] +=
            client->priority == SPW_SCHED_BATCH && client->placements > 0 && !client->back;
        seen[SIM_PROBE_MOVED] += client->placements > 0 && client->replica != plan->replica;
        client->placements++;
        client->planned = true;
        client->back = false;
        client->replica = plan->replica;
        client->planned_end = seq->position;
        client->in_flight = 0;
        client->prefill_end = client->prompt_tokens + atomic_load(&request->published);
        SIM_CHECK(sim, "plan-cached", seq->position == seq->cached,
                  "client %u: begins at position %u with %u from the index", client->index,
                  seq->position, seq->cached);
    } else {
        client->planned_end += seq->cached;
    }
    SIM_CHECK(sim, "plan-position",
              client->replica == plan->replica && seq->position == client->planned_end,
              "client %u replica %u: position %u after %u", client->index, plan->replica,
              seq->position, client->planned_end);
    bool decode = seq->position >= client->prefill_end;
    SIM_CHECK(sim, "plan-sample",
              seq->sample == (end >= client->prefill_end) && (!decode || seq->rows == 1),
              "client %u: %u rows to position %u of a prefill to %u, sample %u", client->index,
              seq->rows, end, client->prefill_end, seq->sample);
    seen[SIM_PROBE_PREFIX_HIT] += seq->open && seq->cached > 0;
    seen[SIM_PROBE_ADOPTED_LATE] += !seq->open && seq->cached > 0;
    seen[SIM_PROBE_CHUNKED] += !seq->open && !decode;
    seen[SIM_PROBE_FEEDBACK] += seq->feedback;
    if (seq->sample) {
        uint64_t gap = plan->step - client->last_sample_step;
        seen[SIM_PROBE_EARLY] += seq->feedback && gap < config->pipeline;
        client->last_sample_step = plan->step;
    }
    client->planned_end = end;
    client->in_flight++;
    sim->check.rows += seq->rows;
    sim->check.batch_rows += client->priority == SPW_SCHED_BATCH ? seq->rows : 0;
    sim_note(sim, "    client %llu slot=%llu position=%llu rows=%llu blocks=%llu flags=%llu",
             client->index, seq->slot, seq->position, seq->rows, seq->block_count,
             (uint64_t)(seq->open | seq->sample << 1 | seq->feedback << 2));
}

void sim_check_plan(struct sim *sim, const struct spw_plan *plan)
{
    const struct spw_config *config = &sim->knobs.config;
    struct sim_replica *replica = &sim->replicas[plan->replica];
    struct sim_step *step = &replica->steps[plan->step % sim->steps_max];
    uint32_t rows = 0, samples = 0, blocks = 0, decodes = 0;
    struct spw_sched_replica_totals totals = {0};
    spw_sched_replica_totals(sim->loop->sched, plan->replica, &totals);
    count_commits(sim, plan->replica, totals.steps_committed);
    sim_note(sim, "plan replica=%llu step=%llu seqs=%llu rows=%llu samples=%llu blocks=%llu",
             plan->replica, plan->step, plan->seq_count, plan->row_count, plan->sample_count,
             plan->block_count);
    SIM_CHECK(sim, "plan-step", plan->step == replica->planned + 1,
              "replica %u: step %" PRIu64 " after %" PRIu64, plan->replica, plan->step,
              replica->planned);
    SIM_CHECK(sim, "budget-flight", plan->step - replica->committed <= config->pipeline + 1,
              "replica %u: step %" PRIu64 ", committed %" PRIu64, plan->replica, plan->step,
              replica->committed);
    SIM_CHECK(sim, "budget-seqs", plan->seq_count >= 1 && plan->seq_count <= config->slots,
              "replica %u: %u sequences", plan->replica, plan->seq_count);
    replica->planned = plan->step;
    for (uint32_t i = 0; i < plan->seq_count; i++) {
        const struct spw_plan_seq *seq = &plan->seqs[i];
        check_seq(sim, plan, i);
        step->clients[i] = sim_client_of(sim, sim->loop->requests[seq->request])->index;
        for (uint32_t k = 0; k < i; k++)
            SIM_CHECK(sim, "plan-twice",
                      plan->seqs[k].request != seq->request && plan->seqs[k].slot != seq->slot,
                      "client %u is twice in step %" PRIu64 " of replica %u", step->clients[i],
                      plan->step, plan->replica);
        for (uint32_t b = 0; b < seq->block_count; b++) {
            SIM_CHECK(sim, "budget-blocks",
                      plan->blocks[seq->block_offset + b] < sim->knobs.kv_blocks,
                      "replica %u: block %u", plan->replica, plan->blocks[seq->block_offset + b]);
            sim_note(sim, "        block %llu of client %llu is %llu", seq->block_begin + b,
                     step->clients[i], plan->blocks[seq->block_offset + b], 0, 0, 0);
        }
        rows += seq->rows;
        samples += seq->sample;
        blocks += seq->block_count;
        decodes += seq->sample && seq->rows == 1;
    }
    SIM_CHECK(sim, "plan-sums",
              rows == plan->row_count && samples == plan->sample_count &&
                  blocks == plan->block_count,
              "replica %u step %" PRIu64, plan->replica, plan->step);
    SIM_CHECK(sim, "budget-rows", rows <= config->step_tokens, "replica %u: %u rows of %u",
              plan->replica, rows, config->step_tokens);
    sim->probes->seen[SIM_PROBE_STEP_FULL] += rows == config->step_tokens;
    sim->probes->seen[SIM_PROBE_MIXED] += decodes > 0 && rows > decodes;
}

/* ---- turns ---- */

static void forget_replica(struct sim *sim, uint32_t index)
{
    struct sim_replica *replica = &sim->replicas[index];
    bool idle = replica->planned == replica->committed;
    replica->lost = true;
    replica->doomed = true;
    uint32_t up = 0;
    for (uint32_t i = 0; i < sim->knobs.config.replicas; i++)
        up += sim->loop->replicas[i].up;
    sim->check.none_up = sim->check.none_up || up == 0; /* others may still be loading */
    sim->check.replicas_lost++;
    sim->probes->seen[SIM_PROBE_TRANSFER_VOID] += replica->copies > 0;
    sim->probes->seen[idle ? SIM_PROBE_LOST_IDLE : SIM_PROBE_LOST_IN_FLIGHT]++;
    sim_note(sim, "replica %llu is lost planned=%llu committed=%llu", index, replica->planned,
             replica->committed, 0, 0, 0);
    for (uint32_t i = 0; i < sim->client_count; i++) {
        struct sim_client *client = &sim->clients[i];
        if (!client->planned || client->replica != index)
            continue;
        client->in_flight = 0;
        client->back = true;
        if (client->cancel == SIM_CANCEL_AT_TOKEN) /* tired of waiting */
            sim_at(sim, sim->now_ns + sim_below(&sim->world, 4000) * SPW_US, sim_client_cancels, i,
                   0);
    }
}

static void check_replica(struct sim *sim, uint32_t index)
{
    struct sim_replica *replica = &sim->replicas[index];
    struct spw_sched_replica_totals totals = {0};
    spw_sched_replica_totals(sim->loop->sched, index, &totals);
    if (sim->loop->replicas[index].lost && !replica->lost)
        forget_replica(sim, index);
    SIM_CHECK(sim, "replica-up", totals.up == sim->loop->replicas[index].up, "replica %u", index);
    if (!totals.up)
        return;
    SIM_CHECK(
        sim, "replica-steps",
        totals.steps_planned == replica->planned && totals.steps_committed <= replica->results,
        "replica %u: %" PRIu64 " planned, %" PRIu64 " seen; %" PRIu64 " committed, %" PRIu64
        " results",
        index, totals.steps_planned, replica->planned, totals.steps_committed, replica->results);
    SIM_CHECK(sim, "replica-slots", totals.running <= sim->knobs.config.slots,
              "replica %u: %u running", index, totals.running);
    SIM_CHECK(sim, "replica-blocks",
              totals.kv_blocks_used + totals.kv_blocks_cached <= sim->knobs.kv_blocks,
              "replica %u: %u blocks used, %u cached", index, totals.kv_blocks_used,
              totals.kv_blocks_cached);
    sim->probes->seen[SIM_PROBE_KV_FULL] += totals.kv_blocks_used == sim->knobs.kv_blocks;
    count_commits(sim, index, totals.steps_committed);
}

void sim_check_turn(struct sim *sim)
{
    const struct spw_config *config = &sim->knobs.config;
    struct spw_sched_totals now, *before = &sim->check.totals;
    uint32_t lost = sim->check.replicas_lost;
    if (sim->check.turn_checked || !sim->loop)
        return;
    sim->check.turn_checked = true;
    spw_sched_check(sim->loop->sched);
    for (uint32_t i = 0; i < config->replicas; i++)
        check_replica(sim, i);
    spw_sched_totals(sim->loop->sched, &now);
    SIM_CHECK(sim, "queue-bound", now.waiting <= config->queue + config->replicas * config->slots,
              "%u wait", now.waiting);
    SIM_CHECK(sim, "queue-bound",
              now.waiting <= config->queue || now.accepted == before->accepted ||
                  now.preempted > before->preempted,
              "%u wait and more were taken in", now.waiting);
    SIM_CHECK(sim, "totals",
              now.finished + now.cancelled + now.expired + now.waiting + now.running <=
                      now.accepted &&
                  now.kv_blocks_used <= now.kv_blocks_total,
              "accepted %" PRIu64 ", finished %" PRIu64 ", cancelled %" PRIu64 ", expired %" PRIu64,
              now.accepted, now.finished, now.cancelled, now.expired);
    if (now.waiting >= config->queue || now.waiting + now.running + 1 >= config->queue ||
        now.refused > before->refused)
        sim->check.full_ns = sim->now_ns;
    if (lost == sim->check.replicas_lost)
        sim->probes->seen[SIM_PROBE_PREEMPTED] += now.preempted - before->preempted;
    sim_check_shares(sim, &now);
    sim->probes->seen[SIM_PROBE_EVICTED] += now.evicted_blocks - before->evicted_blocks;
    sim->probes->seen[SIM_PROBE_SWAPPED] += now.swapped - before->swapped;
    sim->probes->seen[SIM_PROBE_TRANSFER_FAILED] += now.transfers_failed - before->transfers_failed;
    if (memcmp(&now, before, sizeof(now)) != 0)
        sim_note(sim, "turn waiting=%llu running=%llu blocks=%llu finished=%llu preempted=%llu",
                 now.waiting, now.running, now.kv_blocks_used, now.finished, now.preempted,
                 now.refused);
    *before = now;
}

/* ---- ends ---- */

static bool says(const struct spw_request *request, const char *words)
{
    return strstr(request->error.text, words) != NULL;
}

static void check_refused(struct sim *sim, struct sim_client *client)
{
    const struct spw_request *request = client->request;
    const struct sim_knobs *knobs = &sim->knobs;
    uint64_t tokens = (uint64_t)client->prompt_tokens + client->output_max;
    uint64_t blocks = (tokens - 1 + knobs->config.block_tokens - 1) / knobs->config.block_tokens;
    client->refused = true;
    SIM_CHECK(sim, "refused-started", client->seen == 0 && !client->planned,
              "client %u was refused after it had begun", client->index);
    if (request->status == SPW_FULL && says(request, "draining")) {
        SIM_CHECK(sim, "refused-draining", sim->draining, "client %u", client->index);
        sim->probes->seen[SIM_PROBE_ADMIT_DRAINING]++;
    } else if (request->status == SPW_FULL && says(request, "predicted to start")) {
        SIM_CHECK(sim, "refused-late", client->deadline_ns, "client %u has no deadline",
                  client->index);
        sim->probes->seen[SIM_PROBE_TOO_LATE]++;
    } else if (request->status == SPW_FULL && says(request, "the queue of tenant")) {
        SIM_CHECK(sim, "refused-tenant",
                  sim->tenants->list[client->tenant].queue < sim->knobs.config.queue,
                  "client %u: tenant %u has the whole queue", client->index, client->tenant);
        sim->probes->seen[SIM_PROBE_TENANT_FULL]++;
    } else if (request->status == SPW_FULL) {
        SIM_CHECK(sim, "refused-full", request->retry_after_seconds > 0, "client %u",
                  client->index);
        sim->probes->seen[SIM_PROBE_ADMIT_FULL]++;
    } else if (request->status == SPW_TOO_LARGE) {
        SIM_CHECK(sim, "refused-large",
                  tokens > knobs->context_tokens + 1 || blocks > knobs->kv_blocks,
                  "client %u would fit: %" PRIu64 " tokens", client->index, tokens);
        sim->probes->seen[SIM_PROBE_ADMIT_NEVER]++;
    } else {
        SIM_CHECK(sim, "refused-why", request->status == SPW_PEER_LOST, "client %u: %s",
                  client->index, spw_status_name(request->status));
        sim->probes->seen[SIM_PROBE_ADMIT_NO_REPLICA]++;
    }
}

static void check_error(struct sim *sim, struct sim_client *client)
{
    const struct spw_request *request = client->request;
    if (says(request, "the deployment failed")) {
        SIM_CHECK(sim, "failed", sim->loop->failed, "client %u", client->index);
    } else if (says(request, "was stopped")) {
        client->refused = request->handle == SPW_SCHED_NONE;
        SIM_CHECK(sim, "stopped", sim->draining, "client %u", client->index);
    } else if (request->handle == SPW_SCHED_NONE) {
        check_refused(sim, client);
    } else if (request->status == SPW_TIMEOUT) {
        SIM_CHECK(sim, "expired",
                  client->deadline_ns && sim->now_ns >= client->deadline_ns && !client->planned &&
                      client->seen == 0,
                  "client %u: deadline %" PRIu64 ", planned %d, tokens %u", client->index,
                  client->deadline_ns, client->planned, client->seen);
        sim->probes->seen[SIM_PROBE_EXPIRED]++;
    } else {
        sim_check_turn(sim);
        SIM_CHECK(sim, "ended-error", request->status == SPW_PEER_LOST && sim->check.none_up,
                  "client %u: %s: %s", client->index, spw_status_name(request->status),
                  request->error.text);
    }
}

void sim_check_end(struct sim *sim, struct sim_client *client)
{
    const struct spw_request *request = client->request;
    enum spw_request_end end = client->raw ? request->end : client->stream->end;
    sim_note(sim, "client %llu ends end=%llu status=%llu tokens=%llu", client->index, end,
             (uint64_t)-request->status, client->seen, 0, 0);
    SIM_CHECK(sim, "ends-once", client->ends == 1, "client %u ended %u times", client->index,
              client->ends);
    if (end == SPW_REQUEST_END_ERROR) {
        check_error(sim, client);
        return;
    }
    if (end == SPW_REQUEST_END_CANCELLED) {
        SIM_CHECK(sim, "cancelled", client->cancelled, "client %u did not cancel", client->index);
        return;
    }
    SIM_CHECK(sim, "answer-end", end == client->expected_end, "client %u: end %d, not %d",
              client->index, (int)end, (int)client->expected_end);
    SIM_CHECK(sim, "answer-tokens", client->seen == client->shown_count,
              "client %u: %u tokens of %u", client->index, client->seen, client->shown_count);
    SIM_CHECK(sim, "answer-text", client->raw || client->seen_bytes == client->expected_bytes,
              "client %u: %zu bytes of text, not %zu", client->index, client->seen_bytes,
              client->expected_bytes);
    uint64_t *seen = sim->probes->seen;
    seen[SIM_PROBE_RAW_CLIENT] += client->raw;
    if (client->stop[0])
        seen[SIM_PROBE_STOP_STRING]++;
    else if (end == SPW_REQUEST_END_LENGTH)
        seen[SIM_PROBE_FINISHED_LENGTH]++;
    else if (client->expected[client->expected_count - 1] == SIM_EOS)
        seen[SIM_PROBE_FINISHED_STOP]++;
    else
        seen[SIM_PROBE_STOP_TOKEN]++;
}

void sim_check_closing(struct sim *sim)
{
    struct spw_sched_totals totals;
    uint64_t *seen = sim->probes->seen;
    spw_sched_totals(sim->loop->sched, &totals);
    for (uint32_t i = 0; i < sim->client_count; i++) {
        struct sim_client *client = &sim->clients[i];
        if (!client->request)
            continue;
        SIM_CHECK(sim, "ends-once",
                  client->request->loop_ended && atomic_load(&client->request->ended),
                  "client %u never ended", client->index);
        SIM_CHECK(sim, "cancel-lost",
                  !client->cancel_counts || client->request->end == SPW_REQUEST_END_CANCELLED ||
                      client->request->end == SPW_REQUEST_END_ERROR,
                  "client %u cancelled in time, and its request ended with %d", client->index,
                  (int)client->request->end);
        SIM_CHECK(sim, "ends-once", client->ends == (client->state == SIM_CLIENT_ENDED),
                  "client %u ended %u times", client->index, client->ends);
        SIM_CHECK(sim, "request-references", atomic_load(&client->request->references) == 1,
                  "client %u: %d references are left", client->index,
                  atomic_load(&client->request->references) - 1);
        spw_request_release(client->request);
    }
    bool idle = spw_sched_idle(sim->loop->sched);
    if (idle)
        SIM_CHECK(sim, "blocks-back", totals.kv_blocks_used == 0,
                  "%u blocks are used and nobody is left", totals.kv_blocks_used);
    if (sim->result != SPW_OK) {
        SIM_CHECK(sim, "result",
                  sim->check.replicas_lost == sim->knobs.config.replicas && sim->knobs.lose_all,
                  "the deployment failed: %s", sim->error.text);
        seen[SIM_PROBE_LOST_ALL]++;
        return;
    }
    if (!sim->draining || atomic_load(&sim->stop) == SPW_STOP_NOW) {
        SIM_CHECK(sim, "liveness", sim->draining || idle, "somebody is left");
        return;
    }
    SIM_CHECK(sim, "drain",
              idle || !sim->loop->announced || sim->now_ns - sim->drain_ns >= 30 * SPW_SECOND,
              "a drain ended after %.3f s with requests left",
              (double)(sim->now_ns - sim->drain_ns) * 1e-9);
    if (sim->drain_ns)
        seen[idle ? SIM_PROBE_DRAIN_DONE : SIM_PROBE_DRAIN_LIMIT]++;
}
