#include "runtime/plan/replay_int.h"

#include <stdlib.h>
#include <string.h>

/* ---- steps ---- */

static uint64_t step_ns(const struct spw_sched_cost *cost, const struct spw_plan *plan)
{
    return cost->fixed_ns +
           (plan->row_count * cost->row_ps + plan->decode_context * cost->decode_context_ps +
            plan->prefill_context * cost->prefill_context_ps) /
               1000;
}

/* A step's time as it may really come out, a function of seed, replica and step. */
static uint64_t scatter(const struct spw_replay_state *replay, uint64_t ns, uint32_t replica,
                        uint64_t step)
{
    double p50 = replay->cluster->error_p50_ppm / 1e6, p90 = replay->cluster->error_p90_ppm / 1e6;
    uint64_t dice =
        spw_replay_mix(replay->arrivals.seed ^ spw_replay_mix(((uint64_t)replica << 40) + step));
    double u = (double)(dice >> 11) / 9007199254740992.0, off = 0;
    if (u < 0.5)
        off = p50 * u / 0.5;
    else if (u < 0.9)
        off = p50 + (p90 - p50) * (u - 0.5) / 0.4;
    else
        off = p90 * (1 + (u - 0.9) / 0.1);
    bool longer = u >= 0.9 || dice & 1;
    return (uint64_t)(longer ? (double)ns * (1 + off) : (double)ns / (1 + off));
}

/* With stages a row may be fed a token that has not left the last stage yet. */
static uint64_t fed_back_ns(const struct spw_replay_state *replay)
{
    uint64_t last_ns = 0;
    for (uint32_t i = 0; i < replay->plan.seq_count; i++) {
        const struct spw_plan_seq *seq = &replay->plan.seqs[i];
        if (seq->feedback)
            last_ns = SPW_MAX(last_ns, replay->live[seq->request].step_end_ns);
    }
    return last_ns;
}

static void note_end(struct spw_replay_state *replay, uint64_t end_ns)
{
    for (uint32_t i = 0; i < replay->plan.seq_count; i++)
        if (replay->plan.seqs[i].sample)
            replay->live[replay->plan.seqs[i].request].step_end_ns = end_ns;
}

static void start_step(struct spw_replay_state *replay, uint32_t replica)
{
    const struct spw_plan *plan = &replay->plan;
    struct spw_replay_stage *stage = &replay->stages[replica];
    struct spw_replay *result = replay->result;
    uint64_t period = step_ns(&replay->cluster->cost, plan);
    if (replay->cluster->error_p90_ppm)
        period = scatter(replay, period, replica, plan->step);
    period = SPW_MAX(period, 1u);
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
static void emit(struct spw_replay_state *replay, const struct spw_sched_row *row)
{
    struct spw_replay_live *live = &replay->live[row->request];
    uint64_t now_ns = replay->now_ns;
    if (row->output_index == 0) {
        struct spw_replay_record *record = &replay->result->records[live->record];
        record->ttft_ns = now_ns - record->at_ns + replay->cluster->door_ns;
    } else {
        uint64_t gap = now_ns - live->last_ns;
        if (gap != replay->gap_ns) {
            spw_replay_gaps_flush(replay);
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

static void end_step(struct spw_replay_state *replay, uint32_t replica)
{
    struct spw_replay_stage *stage = &replay->stages[replica];
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

static void read_verdicts(struct spw_replay_state *replay)
{
    struct spw_sched_verdict verdict;
    while (spw_sched_poll(replay->sched, &verdict)) {
        struct spw_replay_live *live = &replay->live[verdict.request];
        if (verdict.kind != SPW_SCHED_ENDED)
            continue;
        if (verdict.end == SPW_SCHED_END_EXPIRED)
            replay->result->records[live->record].fate = SPW_REPLAY_SHED;
        free(live->hashes);
        live->hashes = NULL;
    }
}

static void start_copies(struct spw_replay_state *replay)
{
    struct spw_sched_transfer transfer;
    const struct spw_sched_cost *cost = &replay->cluster->cost;
    while (spw_sched_transfer_next(replay->sched, &transfer)) {
        struct spw_replay_stage *stage = &replay->stages[transfer.replica];
        bool disk = transfer.from == SPW_SCHED_DISK || transfer.to == SPW_SCHED_DISK;
        uint64_t begin = SPW_MAX(replay->now_ns, stage->copy_end_ns);
        stage->copy_end_ns = begin + (disk ? cost->disk_block_ns : cost->host_block_ns);
        if (!spw_replay_events_add(&replay->events, stage->copy_end_ns, SPW_REPLAY_COPY,
                                   transfer.replica, transfer.id))
            replay->memory_out = true;
    }
}

static void turn(struct spw_replay_state *replay)
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

static void take_sample(struct spw_replay_state *replay)
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

static void handle_event(struct spw_replay_state *replay)
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
        spw_replay_answer_end(replay, event.index);
        break;
    }
}

/* One moment after the other until everything has ended. */
static void run(struct spw_replay_state *replay)
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
            spw_replay_arrive(replay);
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
    spw_replay_gaps_flush(replay);
}

/* Caps and places of a cell: rounded down, at least one place. */
static void scale_sites(struct spw_replay_state *replay, uint32_t cell, uint32_t replicas)
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
    struct spw_replay_state replay = {.cluster = cluster,
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
