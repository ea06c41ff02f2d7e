/* loop_ranks.c - what the ranks report, which replicas serve, and who is stuck (C3). */
#include "runtime/loop_int.h"

#include "runtime/base/log.h"

#include <stdio.h>
#include <string.h>

/* A step is called stuck when it takes longer than this and than STUCK_FACTOR mean steps. */
#define STUCK_MIN_NS (5 * SPW_SECOND)
#define STUCK_FACTOR 20.0

static void on_status(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct spw_loop *loop = context;
    struct loop_rank *rank = &loop->ranks[peer];
    struct spw_wire_status status;
    if (spw_wire_status_decode(data, bytes, &status)) {
        spw_log_warn("loop", "a report from rank %u is damaged", peer);
        return;
    }
    rank->status = status;
    rank->heard_ns = loop->now_ns;
}

static void on_peer(void *context, uint32_t peer, enum spw_tp_peer_state state)
{
    struct spw_loop *loop = context;
    if (state == SPW_TP_PEER_DEAD)
        loop->ranks[peer].lost = true;
}

void spw_loop_ranks_attach(struct spw_loop *loop)
{
    spw_tp_handle(loop->config.tp, SPW_WIRE_STATUS, on_status, loop);
    spw_tp_handle_peers(loop->config.tp, on_peer, loop);
    loop->ranks[loop->config.tp->rank].status.state = SPW_RANK_READY;
    for (uint32_t i = 0; i < spw_layout_ranks(loop->config.config); i++)
        loop->ranks[i].status.waiting_rank = UINT32_MAX;
}

const char *spw_loop_host_of(const struct spw_loop *loop, uint32_t rank)
{
    return loop->config.ranks ? loop->config.ranks[rank].host : "?";
}

void spw_loop_replica_lost(struct spw_loop *loop, uint32_t index, enum spw_status why,
                           const char *words)
{
    struct loop_replica *replica = &loop->replicas[index];
    if (replica->lost)
        return;
    bool was_up = replica->up;
    replica->lost = true;
    replica->up = false;
    replica->flight_count = 0;
    spw_log_error("loop", "replica lost replica=%u status=%s: %s", index, spw_status_name(why),
                  words);
    spw_loop_kv_void(loop, index);
    if (was_up)
        spw_sched_replica_down(loop->sched, loop->now_ns, index);
    for (uint32_t i = 0; i < loop->config.config->replicas; i++)
        if (!loop->replicas[i].lost)
            return;
    /* nothing is left that could serve: the job ends, so that the nodes are freed */
    loop->failed = spw_fail(loop->error, why, "%s", words);
}

/* A worker failed, or is gone: its replica cannot go on. */
static void lose_worker(struct spw_loop *loop, uint32_t rank, const struct spw_place *place)
{
    struct loop_rank *state = &loop->ranks[rank];
    char words[SPW_ERROR_TEXT_MAX];
    bool failed = state->status.state == SPW_RANK_FAILED;
    snprintf(words, sizeof(words), "rank %u (worker on %s, replica %u stage %u tensor %u) %s%.300s",
             rank, spw_loop_host_of(loop, rank), place->replica, place->stage, place->tensor,
             failed ? "failed: " : "is lost", failed ? state->status.error : "");
    enum spw_status why = (enum spw_status)state->status.failure;
    if (why == SPW_OK)
        why = SPW_DEVICE;
    spw_loop_replica_lost(loop, place->replica, failed ? why : SPW_PEER_LOST, words);
    if (!failed)
        state->status.state = SPW_RANK_LOST;
}

/* Which rank of a replica holds the others up: the one that has done the fewest steps and, among
 * those, one that does not itself wait for another.
 */
static uint32_t find_stuck(const struct spw_loop *loop, uint32_t replica)
{
    const struct spw_config *config = loop->config.config;
    uint32_t first = spw_layout_worker(config, replica, 0, 0);
    uint32_t count = config->pipeline * config->tensor;
    uint32_t worst = first;
    for (uint32_t rank = first; rank < first + count; rank++) {
        const struct spw_wire_status *a = &loop->ranks[rank].status;
        const struct spw_wire_status *b = &loop->ranks[worst].status;
        bool waits_less = a->waiting_rank == UINT32_MAX && b->waiting_rank != UINT32_MAX;
        if (a->steps < b->steps || (a->steps == b->steps && waits_less))
            worst = rank;
    }
    return worst;
}

static bool check_progress(struct spw_loop *loop, uint32_t index)
{
    struct loop_replica *replica = &loop->replicas[index];
    if (!replica->up || replica->flight_count == 0)
        return true;
    struct loop_flight *oldest = &replica->flights[replica->flight_head];
    /* while the step before it was under way it only waited */
    uint64_t age_ns = loop->now_ns - SPW_MAX(oldest->planned_ns, replica->result_ns);
    uint64_t limit_ns = loop->config.config->step_timeout_seconds * SPW_SECOND;
    double bound = SPW_MAX((double)STUCK_MIN_NS, STUCK_FACTOR * replica->step_ns_mean);
    if ((double)age_ns < SPW_MIN(bound, (double)limit_ns))
        return true;
    uint32_t rank = find_stuck(loop, index);
    const struct loop_rank *state = &loop->ranks[rank];
    char words[SPW_ERROR_TEXT_MAX];
    snprintf(words, sizeof(words),
             "replica %u: step %llu has not ended for %.1f s; rank %u on %s has done the fewest "
             "steps (%llu), waits for: %s, last heard of %.1f s ago",
             index, (unsigned long long)oldest->step, (double)age_ns * 1e-9, rank,
             spw_loop_host_of(loop, rank), (unsigned long long)state->status.steps,
             state->status.waiting_for, (double)(loop->now_ns - state->heard_ns) * 1e-9);
    if (!oldest->warned) {
        oldest->warned = true;
        spw_log_error("loop", "%s", words);
    }
    if (age_ns >= limit_ns)
        spw_loop_replica_lost(loop, index, SPW_TIMEOUT, words);
    return false;
}

static void check_ready(struct spw_loop *loop, uint32_t index)
{
    const struct spw_config *config = loop->config.config;
    struct loop_replica *replica = &loop->replicas[index];
    if (replica->up || replica->lost)
        return;
    uint32_t first = spw_layout_worker(config, index, 0, 0);
    for (uint32_t i = 0; i < config->pipeline * config->tensor; i++)
        if (loop->ranks[first + i].status.state != SPW_RANK_READY)
            return;
    spw_loop_kv_found(loop, index);
    replica->up = true;
    spw_sched_replica_up(loop->sched, loop->now_ns, index);
    spw_log_info("loop", "replica serves replica=%u", index);
}

static void report_loading(struct spw_loop *loop)
{
    uint64_t done = 0, total = 0;
    for (uint32_t i = 0; i < spw_layout_ranks(loop->config.config); i++) {
        done += loop->ranks[i].status.load_bytes_done;
        total += loop->ranks[i].status.load_bytes_total;
    }
    if (loop->config.on_loading)
        loop->config.on_loading(loop->config.on_context, done, total);
}

void spw_loop_ranks_turn(struct spw_loop *loop)
{
    const struct spw_config *config = loop->config.config;
    uint32_t ranks = spw_layout_ranks(config);
    uint32_t serving = 0, alive = 0;
    bool healthy = true, gateways = true;
    for (uint32_t rank = 1; rank < ranks; rank++) {
        struct spw_place place = spw_layout_place(config, rank);
        struct loop_rank *state = &loop->ranks[rank];
        bool gone = state->lost || state->status.state == SPW_RANK_FAILED;
        if (gone && place.role == SPW_ROLE_WORKER)
            lose_worker(loop, rank, &place);
        else if (gone && state->status.state != SPW_RANK_LOST) {
            state->status.state = SPW_RANK_LOST;
            spw_log_error("loop", "gateway lost rank=%u host=%s", rank,
                          spw_loop_host_of(loop, rank));
        }
        if (place.role == SPW_ROLE_GATEWAY && state->status.state != SPW_RANK_READY && !gone)
            gateways = false;
    }
    for (uint32_t i = 0; i < config->replicas; i++) {
        check_ready(loop, i);
        if (!check_progress(loop, i) || !spw_loop_kv_progress(loop, i))
            healthy = false;
        serving += loop->replicas[i].up;
        alive += !loop->replicas[i].lost;
    }
    atomic_store(&loop->healthy, healthy && alive > 0);
    if (!loop->announced) {
        report_loading(loop);
        if (serving == alive && serving > 0 && gateways) {
            loop->announced = true;
            atomic_store(&loop->ready, true);
            loop->report_ns = 0; /* whoever reads the ready line finds it in the status */
            spw_loop_report(loop);
            if (loop->config.on_ready)
                loop->config.on_ready(loop->config.on_context);
        } else if (loop->now_ns - loop->started_ns > config->start_timeout_seconds * SPW_SECOND) {
            loop->failed =
                spw_fail(loop->error, SPW_TIMEOUT, "not all ranks were ready within %u s",
                         config->start_timeout_seconds);
        }
    }
    atomic_store(&loop->ready, loop->announced && serving > 0 && !loop->draining);
}

void spw_loop_ranks_stop(struct spw_loop *loop)
{
    uint8_t nothing = 0;
    uint32_t ranks = spw_layout_ranks(loop->config.config);
    for (uint32_t rank = 1; rank < ranks; rank++)
        spw_tp_send(loop->config.tp, rank, SPW_WIRE_STOP, &nothing, 1);
    /* give them a moment to say that they stop, so that nobody is left behind unseen */
    uint64_t until_ns = spw_clock_now(&loop->config.clock) + 2 * SPW_SECOND;
    for (;;) {
        uint32_t left = 0;
        loop->now_ns = spw_clock_now(&loop->config.clock);
        spw_tp_poll(loop->config.tp, 256);
        loop->event_count = 0; /* results of steps that nobody waits for */
        for (uint32_t rank = 1; rank < ranks; rank++) {
            const struct loop_rank *state = &loop->ranks[rank];
            left += !state->lost && state->status.state != SPW_RANK_STOPPED &&
                    state->status.state != SPW_RANK_FAILED && state->status.state != SPW_RANK_LOST;
        }
        if (left == 0 || loop->now_ns > until_ns)
            break;
        spw_tp_wait(loop->config.tp, 20 * SPW_MS);
    }
}
