/* load_pace.c - the open loop: each request at its intended time, whatever the answers do. */
#include "runtime/bench/load_int.h"

/* Starts between two looks at the answers: a burst must not make the answers look late. */
#define STARTS_PER_TURN 16
/* A signal may come just before the wait begins. */
#define WAIT_NS_MAX (100 * SPW_MS)

struct loop {
    const struct spw_load_pace *pace;
    size_t next, prepared;  /* prepared: one beyond the one that is ready */
    uint64_t full_until_ns; /* until then every place was taken */
    bool full;
};

static uint64_t now_ns(const struct loop *loop)
{
    return spw_clock_now(&loop->pace->clock);
}

static uint32_t running(const struct loop *loop)
{
    return loop->pace->sender->running(loop->pace->sender->context);
}

static enum spw_status prepare_next(struct loop *loop, struct spw_error *error)
{
    const struct spw_load_sender *sender = loop->pace->sender;
    if (loop->next >= loop->pace->log->count || loop->prepared == loop->next + 1)
        return SPW_OK;
    loop->prepared = loop->next + 1;
    return sender->prepare(sender->context, loop->next, error);
}

/* The next one, whose time has come. */
static enum spw_status start_next(struct loop *loop, uint64_t now, struct spw_error *error)
{
    const struct spw_load_pace *pace = loop->pace;
    const struct spw_load_sender *sender = pace->sender;
    size_t index = loop->next;
    struct spw_load_record *record = &pace->log->records[index];
    uint64_t late_ns = now - record->intended_ns;
    record->held = record->intended_ns < loop->full_until_ns;
    loop->next++;
    if (late_ns >= pace->timeout_ns) {
        spw_load_log_failed(pace->log, index, now, "timeout",
                            "its time ran out before it could be sent");
        return SPW_OK;
    }
    spw_load_log_sent(pace->log, index, now);
    return sender->start(sender->context, index, pace->timeout_ns - late_ns, error);
}

static enum spw_status start_due(struct loop *loop, struct spw_error *error)
{
    const struct spw_load_pace *pace = loop->pace;
    enum spw_status status = prepare_next(loop, error);
    for (int i = 0; i < STARTS_PER_TURN && !status && loop->next < pace->log->count; i++) {
        uint64_t now = now_ns(loop);
        if (pace->log->records[loop->next].intended_ns > now)
            break;
        loop->full = running(loop) >= pace->concurrency_max;
        if (loop->full)
            break;
        status = start_next(loop, now, error);
        if (!status)
            status = prepare_next(loop, error);
    }
    return status;
}

/* How long answers may be waited for before something else is due. */
static uint64_t due_ns(struct loop *loop)
{
    const struct spw_load_pace *pace = loop->pace;
    uint64_t latest_ns = now_ns(loop) + WAIT_NS_MAX;
    if (loop->next >= pace->log->count)
        return latest_ns;
    loop->full = running(loop) >= pace->concurrency_max;
    if (loop->full)
        return latest_ns;
    return SPW_MIN(latest_ns, pace->log->records[loop->next].intended_ns);
}

enum spw_status spw_load_pace_run(const struct spw_load_pace *pace, struct spw_error *error)
{
    struct loop loop = {.pace = pace};
    const struct spw_load_sender *sender = pace->sender;
    enum spw_status status = prepare_next(&loop, error); /* before the clock begins to count */
    spw_load_log_begin(pace->log, pace->trace, now_ns(&loop));
    while (!status && (loop.next < pace->log->count || running(&loop) > 0)) {
        if (pace->stop && atomic_load(pace->stop)) {
            spw_load_log_stopped(pace->log, now_ns(&loop));
            break;
        }
        status = start_due(&loop, error);
        if (!status)
            status = sender->turn(sender->context, due_ns(&loop), error);
        if (loop.full && running(&loop) < pace->concurrency_max)
            loop.full_until_ns = now_ns(&loop);
        if (pace->progress)
            pace->progress(pace->progress_context, pace->log, loop.next, running(&loop));
    }
    pace->log->end_ns = now_ns(&loop);
    return status;
}
