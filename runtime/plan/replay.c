#include "runtime/plan/replay_int.h"

#include "runtime/base/hash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GAP_SUB_BITS 7u /* 128 buckets from one power of two to the next */

/* What is known of a request that the scheduler has. */
struct live {
    uint64_t last_ns;     /* of its last token */
    uint64_t step_end_ns; /* of the step that samples its next one, with stages */
    size_t record;
    struct spw_sched_hash *hashes;
    uint32_t hash_next; /* output tokens at which the next block is full */
};

/* Steps in flight of a replica. */
struct stage {
    uint64_t begin_ns, period_ns, end_ns; /* of the step planned last */
    uint64_t copy_end_ns;
    uint32_t first, count;
    uint32_t samples[SPW_SCHED_PIPELINE_MAX + 1]; /* ring: sampled rows of each */
    uint64_t committed;
};

struct answer { /* from a site */
    struct spw_overflow_ticket ticket;
    uint32_t prompt_tokens, output_tokens;
    uint32_t next_free;
};

struct replay {
    const struct spw_cluster *cluster;
    const struct spw_replay_options *options;
    struct spw_replay *result;
    struct spw_sched *sched;
    struct spw_plan plan;
    struct spw_sched_row *rows;
    struct live *live;
    struct stage *stages;
    struct spw_replay_arrivals arrivals;
    struct spw_replay_events events;
    struct spw_overflow overflow;
    struct answer *answers;
    uint32_t answer_count, answer_room, answer_free, at_sites;
    uint64_t now_ns, expire_ns, sample_ns, sample_every_ns;
    uint64_t gap_ns, gap_run; /* equal gaps seen one after the other */
    bool hashes, memory_out;
};

/* ---- times between tokens ---- */

static uint32_t gap_bucket(uint64_t ns)
{
    if (ns < 2u << GAP_SUB_BITS)
        return (uint32_t)ns;
    uint32_t top = 63u - (uint32_t)__builtin_clzll(ns);
    uint32_t shift = top - GAP_SUB_BITS;
    return (shift << GAP_SUB_BITS) + (uint32_t)(ns >> shift);
}

static double gap_middle(uint32_t bucket)
{
    if (bucket < 2u << GAP_SUB_BITS)
        return bucket;
    uint32_t shift = (bucket >> GAP_SUB_BITS) - 1;
    double low = ldexp((double)(bucket - (shift << GAP_SUB_BITS)), (int)shift);
    return low + ldexp(0.5, (int)shift);
}

static void flush_gaps(struct replay *replay)
{
    if (replay->gap_run)
        replay->result->gaps[gap_bucket(replay->gap_ns)] += replay->gap_run;
    replay->gap_run = 0;
}

double spw_replay_gap_ns(const struct spw_replay *result, double p)
{
    uint64_t total = 0, sum = 0;
    for (uint32_t i = 0; i < SPW_REPLAY_GAP_BUCKETS; i++)
        total += result->gaps[i];
    if (!total)
        return NAN;
    uint64_t rank = (uint64_t)ceil(p * (double)total);
    for (uint32_t i = 0; i < SPW_REPLAY_GAP_BUCKETS; i++) {
        sum += result->gaps[i];
        if (sum >= SPW_MAX(rank, 1u))
            return gap_middle(i);
    }
    return NAN;
}

/* ---- sites ---- */

static struct answer *take_answer(struct replay *replay, uint32_t *out_index)
{
    if (replay->answer_free != SPW_OVERFLOW_NONE) {
        *out_index = replay->answer_free;
        replay->answer_free = replay->answers[*out_index].next_free;
        return &replay->answers[*out_index];
    }
    if (replay->answer_count == replay->answer_room) {
        uint32_t room = replay->answer_room ? 2 * replay->answer_room : 256;
        void *grown = realloc(replay->answers, room * sizeof(*replay->answers));
        if (!grown)
            return NULL;
        replay->answers = grown;
        replay->answer_room = room;
    }
    *out_index = replay->answer_count++;
    return &replay->answers[*out_index];
}

/* Let a site answer, if one may and can. */
static bool send_away(struct replay *replay, struct spw_replay_record *record, uint64_t limit_ns)
{
    struct spw_overflow_ticket ticket;
    if (replay->options->local_only || !replay->overflow.site_count)
        return false;
    uint64_t door_ns = replay->cluster->door_ns;
    struct spw_overflow_ask ask = {
        .now_ns = replay->now_ns,
        .data_class = record->data_class,
        .prompt_tokens = record->prompt_tokens,
        .output_tokens_max = SPW_MAX(record->output_tokens, replay->cluster->reserve_output_tokens),
        .ttft_ns = limit_ns > door_ns ? limit_ns - door_ns : limit_ns,
        .itl_ns = replay->cluster->goal_itl_ns,
    };
    enum spw_overflow_answer why = spw_overflow_send(&replay->overflow, &ask, &ticket);
    if (why != SPW_OVERFLOW_SENT) {
        replay->result->not_sent[why]++;
        return false;
    }
    const struct spw_overflow_site *site = &replay->overflow.sites[ticket.site];
    uint32_t index = 0;
    struct answer *answer = take_answer(replay, &index);
    if (!answer) {
        replay->memory_out = true;
        return true;
    }
    *answer = (struct answer){.ticket = ticket,
                              .prompt_tokens = record->prompt_tokens,
                              .output_tokens = record->output_tokens};
    record->fate = SPW_REPLAY_SITE;
    record->site = (uint8_t)ticket.site;
    record->ttft_ns = site->ttft_ns + door_ns;
    record->end_ns = record->ttft_ns + site->itl_ns * (record->output_tokens - 1);
    replay->result->gaps[gap_bucket(site->itl_ns)] += record->output_tokens - 1;
    replay->result->sent[ticket.site]++;
    replay->at_sites++;
    if (!spw_replay_events_add(&replay->events, record->at_ns + record->end_ns, SPW_REPLAY_ANSWER,
                               index, 0))
        replay->memory_out = true;
    return true;
}

static void end_answer(struct replay *replay, uint32_t index)
{
    struct answer *answer = &replay->answers[index];
    replay->result->spent_nano[answer->ticket.site] += spw_overflow_settle(
        &replay->overflow, &answer->ticket, answer->prompt_tokens, answer->output_tokens);
    answer->next_free = replay->answer_free;
    replay->answer_free = index;
    replay->at_sites--;
}

/* ---- requests ---- */

static struct spw_replay_record *add_record(struct replay *replay)
{
    struct spw_replay *result = replay->result;
    if (result->record_count == result->record_room) {
        size_t room = result->record_room ? 2 * result->record_room : 4096;
        void *grown = realloc(result->records, room * sizeof(*result->records));
        if (!grown) {
            replay->memory_out = true;
            return NULL;
        }
        result->records = grown;
        result->record_room = room;
    }
    struct spw_replay_record *record = &result->records[result->record_count++];
    memset(record, 0, sizeof(*record)); /* the digest sees the padding */
    return record;
}

/* Hashes of a request's blocks, or nothing when the trace has no prefixes. */
static struct spw_sched_hash *make_hashes(struct replay *replay, uint32_t *out_prompt_blocks)
{
    const struct spw_trace_request *request = &replay->arrivals.request;
    uint32_t block = replay->cluster->block_tokens;
    *out_prompt_blocks = 0;
    if (!replay->hashes)
        return NULL;
    uint32_t count = (request->prompt_tokens + request->output_tokens) / block;
    struct spw_sched_hash *hashes = malloc((count + 1) * sizeof(*hashes));
    if (!hashes) {
        replay->memory_out = true;
        return NULL;
    }
    spw_replay_hashes(&replay->arrivals, block, count, hashes);
    *out_prompt_blocks = request->prompt_tokens / block;
    return hashes;
}

static void arrive(struct replay *replay)
{
    const struct spw_cluster *cluster = replay->cluster;
    const struct spw_trace_request *request = &replay->arrivals.request;
    struct spw_replay_record *record = add_record(replay);
    if (!record)
        return;
    record->at_ns = request->at_ns;
    record->prompt_tokens = request->prompt_tokens;
    record->output_tokens = request->output_tokens;
    record->data_class = (uint8_t)request->data_class;
    uint64_t limit_ns = request->deadline_ns ? request->deadline_ns : cluster->goal_ttft_ns;
    uint64_t deadline_ns = cluster->shed ? limit_ns : request->deadline_ns;
    struct spw_sched_request asked = {
        .id = replay->result->record_count - 1,
        .priority = request->priority,
        .prompt_tokens = request->prompt_tokens,
        .output_tokens_max = request->output_tokens,
        .deadline_ns = deadline_ns ? request->at_ns + deadline_ns : 0,
        .tenant = request->tenant,
    };
    asked.hashes = make_hashes(replay, &asked.hash_count);
    if (replay->memory_out)
        return;
    bool away = replay->overflow.site_count && !replay->options->local_only;
    bool late = false, tried = false;
    if (limit_ns && (away || cluster->shed) && request->priority != SPW_SCHED_BATCH) {
        struct spw_sched_prediction prediction;
        spw_sched_predict(replay->sched, replay->now_ns, &asked, &prediction);
        late = prediction.answer != SPW_SCHED_ACCEPTED ||
               prediction.first_token_ns + cluster->door_ns > limit_ns;
    }
    if (late) {
        tried = true;
        if (send_away(replay, record, limit_ns))
            goto out;
        if (cluster->shed) {
            record->fate = SPW_REPLAY_SHED;
            goto out;
        }
    }
    uint32_t handle = 0;
    enum spw_sched_answer answer = spw_sched_submit(replay->sched, replay->now_ns, &asked, &handle);
    if (answer == SPW_SCHED_ACCEPTED) {
        uint32_t block = cluster->block_tokens;
        replay->live[handle] =
            (struct live){.record = replay->result->record_count - 1,
                          .hashes = (struct spw_sched_hash *)asked.hashes,
                          .hash_next = asked.hashes ? block - request->prompt_tokens % block : 0};
        return;
    }
    if (!tried && send_away(replay, record, limit_ns))
        goto out;
    record->fate = answer == SPW_SCHED_TOO_LATE ? SPW_REPLAY_SHED : SPW_REPLAY_REFUSED;
out:
    free((void *)asked.hashes);
}

/* ---- steps ---- */

static uint64_t step_ns(const struct spw_sched_cost *cost, const struct spw_plan *plan)
{
    return cost->fixed_ns +
           (plan->row_count * cost->row_ps + plan->decode_context * cost->decode_context_ps +
            plan->prefill_context * cost->prefill_context_ps) /
               1000;
}

/* With stages a row may be fed a token that has not left the last stage yet. */
static uint64_t fed_back_ns(const struct replay *replay)
{
    uint64_t last_ns = 0;
    for (uint32_t i = 0; i < replay->plan.seq_count; i++) {
        const struct spw_plan_seq *seq = &replay->plan.seqs[i];
        if (seq->feedback)
            last_ns = SPW_MAX(last_ns, replay->live[seq->request].step_end_ns);
    }
    return last_ns;
}

static void note_end(struct replay *replay, uint64_t end_ns)
{
    for (uint32_t i = 0; i < replay->plan.seq_count; i++)
        if (replay->plan.seqs[i].sample)
            replay->live[replay->plan.seqs[i].request].step_end_ns = end_ns;
}

static void start_step(struct replay *replay, uint32_t replica)
{
    const struct spw_plan *plan = &replay->plan;
    struct stage *stage = &replay->stages[replica];
    struct spw_replay *result = replay->result;
    uint64_t period = SPW_MAX(step_ns(&replay->cluster->cost, plan), 1u);
    uint64_t begin = SPW_MAX(replay->now_ns, stage->begin_ns + stage->period_ns);
    if (replay->cluster->pipeline > 1)
        begin = SPW_MAX(begin, fed_back_ns(replay));
    uint64_t end = begin + period * replay->cluster->pipeline;
    end = SPW_MAX(end, stage->end_ns + (stage->count ? period : 0));
    if (replay->cluster->pipeline > 1)
        note_end(replay, end);
    stage->begin_ns = begin;
    stage->period_ns = period;
    stage->end_ns = end;
    stage->samples[(stage->first + stage->count++) % (replay->cluster->pipeline + 1)] =
        plan->sample_count;
    result->busy_ns += SPW_MIN(begin + period, result->span_ns) - SPW_MIN(begin, result->span_ns);
    result->decode_rows += plan->decode_rows;
    result->steps++;
    if (!spw_replay_events_add(&replay->events, end, SPW_REPLAY_STEP, replica, 0))
        replay->memory_out = true;
}

/* A token of a request is there. */
static void emit(struct replay *replay, const struct spw_sched_row *row)
{
    struct live *live = &replay->live[row->request];
    uint64_t now_ns = replay->now_ns;
    if (row->output_index == 0) {
        struct spw_replay_record *record = &replay->result->records[live->record];
        record->ttft_ns = now_ns - record->at_ns + replay->cluster->door_ns;
    } else {
        uint64_t gap = now_ns - live->last_ns;
        if (gap != replay->gap_ns) {
            flush_gaps(replay);
            replay->gap_ns = gap;
        }
        replay->gap_run++;
    }
    live->last_ns = now_ns;
    if (row->output_index + 1 == live->hash_next && live->hashes && !row->last) {
        const struct spw_replay_record *record = &replay->result->records[live->record];
        uint32_t block = replay->cluster->block_tokens;
        spw_sched_hashes(replay->sched, row->request,
                         (record->prompt_tokens + live->hash_next) / block);
        live->hash_next += block;
    }
    if (row->last) {
        struct spw_replay_record *record = &replay->result->records[live->record];
        record->end_ns = now_ns - record->at_ns + replay->cluster->door_ns;
    }
}

static void end_step(struct replay *replay, uint32_t replica)
{
    struct stage *stage = &replay->stages[replica];
    uint32_t samples = stage->samples[stage->first];
    stage->first = (stage->first + 1) % (replay->cluster->pipeline + 1);
    stage->count--;
    spw_sched_commit(replay->sched, replay->now_ns, replica, ++stage->committed, replay->rows,
                     samples);
    for (uint32_t i = 0; i < samples; i++)
        if (replay->rows[i].request != SPW_SCHED_NONE)
            emit(replay, &replay->rows[i]);
}

/* ---- turns ---- */

static void read_verdicts(struct replay *replay)
{
    struct spw_sched_verdict verdict;
    while (spw_sched_poll(replay->sched, &verdict)) {
        struct live *live = &replay->live[verdict.request];
        if (verdict.kind != SPW_SCHED_ENDED)
            continue;
        if (verdict.end == SPW_SCHED_END_EXPIRED)
            replay->result->records[live->record].fate = SPW_REPLAY_SHED;
        free(live->hashes);
        live->hashes = NULL;
    }
}

static void start_copies(struct replay *replay)
{
    struct spw_sched_transfer transfer;
    const struct spw_sched_cost *cost = &replay->cluster->cost;
    while (spw_sched_transfer_next(replay->sched, &transfer)) {
        struct stage *stage = &replay->stages[transfer.replica];
        bool disk = transfer.from == SPW_SCHED_DISK || transfer.to == SPW_SCHED_DISK;
        uint64_t begin = SPW_MAX(replay->now_ns, stage->copy_end_ns);
        stage->copy_end_ns = begin + (disk ? cost->disk_block_ns : cost->host_block_ns);
        if (!spw_replay_events_add(&replay->events, stage->copy_end_ns, SPW_REPLAY_COPY,
                                   transfer.replica, transfer.id))
            replay->memory_out = true;
    }
}

static void turn(struct replay *replay)
{
    uint32_t replica;
    read_verdicts(replay);
    if (replay->now_ns >= replay->expire_ns)
        replay->expire_ns = spw_sched_expire(replay->sched, replay->now_ns);
    while ((replica = spw_sched_ready(replay->sched)) != SPW_SCHED_NONE)
        if (spw_sched_plan(replay->sched, replay->now_ns, replica, &replay->plan))
            start_step(replay, replica);
    start_copies(replay);
    read_verdicts(replay);
}

static void take_sample(struct replay *replay)
{
    struct spw_replay *result = replay->result;
    struct spw_sched_totals totals;
    spw_sched_totals(replay->sched, &totals);
    struct spw_replay_sample *sample = &result->samples[result->sample_count++];
    *sample = (struct spw_replay_sample){
        .at_ns = replay->sample_ns,
        .waiting = totals.waiting,
        .running = totals.running,
        .at_sites = replay->at_sites,
        .kv_used = totals.kv_blocks_total
                       ? (float)totals.kv_blocks_used / (float)totals.kv_blocks_total
                       : 0,
        .busy_ns = result->busy_ns,
    };
    for (uint32_t i = 0; i < replay->overflow.site_count; i++)
        sample->spent_nano += result->spent_nano[i];
    replay->sample_ns += replay->sample_every_ns;
}

static void handle_event(struct replay *replay)
{
    struct spw_replay_event event = spw_replay_events_pop(&replay->events);
    switch ((enum spw_replay_event_kind)event.kind) {
    case SPW_REPLAY_STEP:
        end_step(replay, event.index);
        break;
    case SPW_REPLAY_COPY:
        spw_sched_transfer_done(replay->sched, replay->now_ns, event.index, event.id, true);
        break;
    case SPW_REPLAY_ANSWER:
        end_answer(replay, event.index);
        break;
    }
}

/* One moment after the other until everything has ended. */
static void run(struct replay *replay)
{
    for (uint64_t turns = 0; !replay->memory_out; turns++) {
        uint64_t arrival_ns = replay->arrivals.over ? UINT64_MAX : replay->arrivals.request.at_ns;
        uint64_t event_ns = replay->events.count ? replay->events.heap[0].at_ns : UINT64_MAX;
        uint64_t next_ns = SPW_MIN(arrival_ns, event_ns);
        if (next_ns == UINT64_MAX && spw_sched_idle(replay->sched))
            break;
        next_ns = SPW_MIN(next_ns, replay->expire_ns);
        assert(next_ns != UINT64_MAX); /* the scheduler holds requests and plans nothing */
        while (next_ns > replay->sample_ns && replay->result->sample_count < SPW_REPLAY_SAMPLES)
            take_sample(replay);
        replay->now_ns = SPW_MAX(replay->now_ns, next_ns);
        while (replay->events.count && replay->events.heap[0].at_ns <= replay->now_ns)
            handle_event(replay);
        while (!replay->arrivals.over && replay->arrivals.request.at_ns <= replay->now_ns &&
               !replay->memory_out) {
            read_verdicts(replay); /* handles to be had again */
            arrive(replay);
            if (replay->arrivals.request.deadline_ns || replay->cluster->shed)
                replay->expire_ns = 0; /* look again */
            spw_replay_arrivals_next(&replay->arrivals);
        }
        turn(replay);
        if (turns % 4096 == 0 && replay->options->stop &&
            replay->options->stop(replay->options->stop_context)) {
            replay->result->stopped = true;
            break;
        }
    }
    while (replay->result->sample_count < SPW_REPLAY_SAMPLES && !replay->result->stopped)
        take_sample(replay);
    flush_gaps(replay);
}

/* Caps and places of a cell: rounded down, at least one place. */
static void scale_sites(struct replay *replay, uint32_t cell, uint32_t replicas)
{
    struct spw_overflow_site sites[SPW_OVERFLOW_SITES_MAX];
    const struct spw_cluster *cluster = replay->cluster;
    for (uint32_t i = 0; i < cluster->site_count; i++) {
        sites[i] = cluster->sites[i].terms;
        sites[i].concurrency =
            SPW_MAX(1u, (uint32_t)((uint64_t)sites[i].concurrency * cell / replicas));
        for (uint32_t w = 0; w < SPW_OVERFLOW_WINDOWS; w++) {
            uint64_t cap = sites[i].cap_nano[w];
            if (cap != SPW_OVERFLOW_NO_CAP)
                sites[i].cap_nano[w] = cap / replicas * cell + cap % replicas * cell / replicas;
        }
    }
    spw_overflow_init(&replay->overflow, sites, cluster->site_count);
}

static uint32_t weight_of(const struct spw_cluster *cluster, const char *tenant)
{
    for (uint32_t i = 0; i < cluster->tenant_count; i++)
        if (strcmp(cluster->tenants[i].name, tenant) == 0)
            return cluster->tenants[i].weight;
    return 1;
}

enum spw_status spw_replay_run(const struct spw_trace *trace, const struct spw_cluster *cluster,
                               const struct spw_replay_options *options,
                               struct spw_replay *out_result, struct spw_error *error)
{
    struct replay replay = {.cluster = cluster,
                            .options = options,
                            .result = out_result,
                            .answer_free = SPW_OVERFLOW_NONE};
    struct spw_sched_config config;
    enum spw_status status = SPW_OK;
    const char *reason = NULL;
    uint32_t replicas = options->replicas ? options->replicas : cluster->replicas;
    uint32_t cell = options->cell_replicas ? SPW_MIN(options->cell_replicas, replicas) : replicas;
    uint64_t queue = SPW_MAX(1u, (uint64_t)cluster->queue * cell / replicas);
    spw_cluster_sched_config(cluster, cell, (uint32_t)queue, &config);
    config.tenants = trace->tenant_count;
    replay.hashes = cluster->prefix && trace->prefix_count > 0;
    out_result->prefixes = replay.hashes;
    config.prefix = replay.hashes || cluster->host_blocks; /* what is swapped out needs an index */
    size_t bytes = spw_sched_bytes(&config, &reason);
    if (!bytes)
        return spw_fail(error, SPW_CONFIG, "the scheduler cannot have %u replicas: %s", cell,
                        reason ? reason : "out of range");
    out_result->replicas = replicas;
    out_result->cell_replicas = cell;
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    replay.plan = (struct spw_plan){
        .seqs = calloc(config.step_seqs_max, sizeof(struct spw_plan_seq)),
        .blocks = calloc(spw_sched_plan_blocks_max(&config) + 1, sizeof(uint32_t))};
    replay.rows = calloc(config.step_seqs_max, sizeof(*replay.rows));
    replay.live = calloc(config.requests_max, sizeof(*replay.live));
    replay.stages = calloc(cell, sizeof(*replay.stages));
    bool ready =
        spw_replay_arrivals_init(&replay.arrivals, trace, cluster, options, cell, replicas);
    if (!memory || !replay.plan.seqs || !replay.plan.blocks || !replay.rows || !replay.live ||
        !replay.stages || !ready) {
        replay.memory_out = true;
        goto out;
    }
    scale_sites(&replay, cell, replicas);
    out_result->span_ns = spw_replay_arrivals_span(&replay.arrivals);
    replay.sample_every_ns = SPW_MAX(out_result->span_ns / SPW_REPLAY_SAMPLES, 1u);
    replay.sample_ns = replay.sample_every_ns;
    replay.expire_ns = UINT64_MAX;
    replay.sched = spw_sched_init(memory, &config);
    for (uint32_t i = 0; i < trace->tenant_count; i++)
        spw_sched_tenant_set(replay.sched, i, weight_of(cluster, trace->tenants[i]),
                             config.waiting_max);
    for (uint32_t i = 0; i < cell; i++)
        spw_sched_replica_up(replay.sched, 0, i);
    spw_replay_arrivals_next(&replay.arrivals);
    run(&replay);
    out_result->arrived = replay.arrivals.number;
    spw_sched_totals(replay.sched, &out_result->totals);
out:
    if (replay.memory_out)
        status = spw_fail(error, SPW_NO_MEMORY,
                          "out of memory for %u replicas and %zu requests: simulate a smaller cell "
                          "with --sample",
                          cell, out_result->record_count);
    for (uint32_t i = 0; replay.live && i < config.requests_max; i++)
        free(replay.live[i].hashes);
    spw_replay_arrivals_done(&replay.arrivals);
    free(replay.events.heap);
    free(replay.answers);
    free(replay.stages);
    free(replay.live);
    free(replay.rows);
    free(replay.plan.seqs);
    free(replay.plan.blocks);
    free(memory);
    return status;
}

void spw_replay_done(struct spw_replay *result)
{
    free(result->records);
    result->records = NULL;
    result->record_count = result->record_room = 0;
}

uint64_t spw_replay_digest(const struct spw_replay *result)
{
    uint64_t parts[] = {
        result->record_count
            ? spw_checksum64(result->records, result->record_count * sizeof(*result->records))
            : 0,
        spw_checksum64(result->gaps, sizeof(result->gaps)), result->steps, result->busy_ns};
    return spw_checksum64(parts, sizeof(parts));
}
