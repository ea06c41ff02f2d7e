/* loop_submit.c - requests of the loop: taken from doors, refused, cancelled, ended. */
#include "runtime/loop_int.h"

#include "runtime/base/log.h"

#define TURN_SUBMITS    64u
#define RETRY_AFTER_MAX 60u

static void count_end(struct spw_metrics *metrics, const struct spw_request *request)
{
    switch (request->end) {
    case SPW_REQUEST_END_STOP:
        metrics->requests_stop++;
        break;
    case SPW_REQUEST_END_LENGTH:
        metrics->requests_length++;
        break;
    case SPW_REQUEST_END_CANCELLED:
        metrics->requests_cancelled++;
        break;
    default: /* a request that was never taken in is refused, not failed */
        if (request->handle == SPW_SCHED_NONE)
            metrics->requests_refused++;
        else
            metrics->requests_error++;
        break;
    }
}

/* Answers per second, over at least a second each time: those that end in one turn have no time
 * between them. */
static void count_finished(struct spw_loop *loop)
{
    uint64_t gap_ns = loop->now_ns - loop->finished_ns;
    loop->finished_count++;
    if (gap_ns < SPW_SECOND)
        return;
    double rate = loop->finished_count * 1e9 / (double)gap_ns;
    loop->finished_per_second +=
        (loop->finished_per_second > 0 ? 0.2 : 1.0) * (rate - loop->finished_per_second);
    loop->finished_count = 0;
    loop->finished_ns = loop->now_ns;
}

void spw_loop_end_request(struct spw_loop *loop, struct spw_request *request,
                          enum spw_request_end end, enum spw_status status, const char *words)
{
    assert(!request->loop_ended && end != SPW_REQUEST_END_NONE);
    request->loop_ended = true;
    request->end = end;
    request->status = status;
    if (words)
        spw_fail(&request->error, status, "%s", words);
    request->last_token_ns = loop->now_ns;
    count_end(&loop->metrics, request);
    if (end == SPW_REQUEST_END_STOP || end == SPW_REQUEST_END_LENGTH) {
        spw_histogram_add(&loop->metrics.e2e, loop->now_ns - request->submitted_ns);
        loop->metrics.prompt_tokens += request->prompt_tokens;
        count_finished(loop);
    }
    if (loop->config.config->record_logits)
        spw_log_info("loop", "logits request=%016llx tokens=%u digest=%016llx",
                     (unsigned long long)request->id, atomic_load(&request->published),
                     (unsigned long long)request->logits_digest);
    request->door->live--;
    atomic_store_explicit(&request->ended, true, memory_order_release);
    spw_door_notify(request);
}

static uint32_t retry_after(const struct spw_loop *loop)
{
    struct spw_sched_totals totals;
    spw_sched_totals(loop->sched, &totals);
    double rate = SPW_MAX(loop->finished_per_second, 0.05);
    double seconds = (double)(totals.waiting + totals.running) / rate / 2 + 1;
    return seconds > RETRY_AFTER_MAX ? RETRY_AFTER_MAX : (uint32_t)seconds;
}

static void refuse(struct spw_loop *loop, struct spw_request *request, enum spw_sched_answer answer)
{
    enum spw_status status = SPW_FULL;
    const char *words = "the queue is full: try again later";
    switch (answer) {
    case SPW_SCHED_NEVER_FITS:
        status = SPW_TOO_LARGE;
        words = "the request needs more KV memory than a replica has: lower max_tokens, or raise "
                "--kv-bytes";
        break;
    case SPW_SCHED_DRAINING:
        words = "this deployment is draining and takes no new requests";
        break;
    case SPW_SCHED_NO_REPLICA:
        status = SPW_PEER_LOST;
        words = loop->announced ? "no replica is left to serve" : "the model is still loading";
        break;
    default:
        break;
    }
    request->retry_after_seconds = retry_after(loop);
    spw_loop_end_request(loop, request, SPW_REQUEST_END_ERROR, status, words);
    spw_request_release(request);
}

static void submit(struct spw_loop *loop, struct spw_request *request)
{
    request->loop_known = true;
    request->submitted_ns = loop->now_ns;
    request->door->live++;
    if (atomic_load(&request->cancelled)) {
        spw_loop_end_request(loop, request, SPW_REQUEST_END_CANCELLED, SPW_CANCELLED, NULL);
        spw_request_release(request);
        return;
    }
    struct spw_sched_request asked = {
        .id = request->id,
        .priority = request->priority,
        .prompt_tokens = request->prompt_tokens,
        .output_tokens_max = request->output_tokens_max,
        .deadline_ns = request->deadline_ns,
        .tenant = request->tenant,
        .hashes = request->prefix.hashes,
        .hash_count = request->prefix.count,
    };
    assert(request->tenant < loop->tenants->count);
    uint32_t handle = SPW_SCHED_NONE;
    enum spw_sched_answer answer = spw_sched_submit(loop->sched, loop->now_ns, &asked, &handle);
    if (answer != SPW_SCHED_ACCEPTED) {
        refuse(loop, request, answer);
        return;
    }
    assert(!loop->requests[handle]);
    loop->requests[handle] = request;
    request->handle = handle;
    if (request->deadline_ns)
        loop->expire_ns = SPW_MIN(loop->expire_ns, request->deadline_ns);
}

static void cancel(struct spw_loop *loop, struct spw_request *request)
{
    if (!request->loop_ended) {
        bool stopped = atomic_load(&request->cancelled) == SPW_REQUEST_STOPPED;
        spw_loop_end_request(loop, request,
                             stopped ? SPW_REQUEST_END_STOP : SPW_REQUEST_END_CANCELLED,
                             stopped ? SPW_OK : SPW_CANCELLED, NULL);
        spw_sched_cancel(loop->sched, loop->now_ns, request->handle, stopped);
    }
    spw_request_release(request); /* the ring's */
}

bool spw_loop_take_requests(struct spw_loop *loop)
{
    bool moved = false;
    for (uint32_t d = 0; d < loop->config.door_count; d++) {
        for (uint32_t i = 0; i < TURN_SUBMITS; i++) {
            struct spw_request *request = spw_door_loop_next(loop->config.doors[d]);
            if (!request)
                break;
            if (request->loop_known)
                cancel(loop, request);
            else
                submit(loop, request);
            moved = true;
        }
    }
    return moved;
}

void spw_loop_take_verdicts(struct spw_loop *loop)
{
    struct spw_sched_verdict verdict;
    while (spw_sched_poll(loop->sched, &verdict)) {
        struct spw_request *request = loop->requests[verdict.request];
        assert(request && request->id == verdict.id);
        if (verdict.kind == SPW_SCHED_PREEMPTED) {
            spw_log_debug("loop", "preempted request=%016llx", (unsigned long long)request->id);
            continue;
        }
        loop->requests[verdict.request] = NULL;
        if (!request->loop_ended) {
            if (verdict.end == SPW_SCHED_END_EXPIRED)
                spw_loop_end_request(loop, request, SPW_REQUEST_END_ERROR, SPW_TIMEOUT,
                                     "the request did not start before its deadline");
            else
                spw_loop_end_request(loop, request, SPW_REQUEST_END_ERROR, SPW_PEER_LOST,
                                     "every replica was lost");
        }
        spw_request_release(request);
    }
}

void spw_loop_set_tenants(struct spw_loop *loop)
{
    for (uint32_t i = 0; i < loop->tenants->count; i++)
        spw_sched_tenant_set(loop->sched, i, loop->tenants->list[i].weight,
                             loop->tenants->list[i].queue);
}

/* A request's array of names outlives its handle: the loop's reference goes with the verdict. */
void spw_loop_name_blocks(struct spw_loop *loop, struct spw_request *request, uint32_t tokens)
{
    struct spw_prefix *prefix = &request->prefix;
    if (spw_prefix_advance(prefix, loop->sha, request->prompt, request->prompt_tokens,
                           request->output, tokens))
        spw_sched_hashes(loop->sched, request->handle, prefix->count);
}

/* Doors read the number once a token is there: what is taken again after a preemption does not
 * count. */
void spw_loop_count_cached(struct spw_request *request, uint32_t tokens)
{
    if (request->loop_ended || atomic_load_explicit(&request->published, memory_order_relaxed))
        return;
    request->cached_tokens += SPW_MIN(tokens, request->prompt_tokens - request->cached_tokens);
}
