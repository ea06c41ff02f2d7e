/* loop_submit.c - requests of the loop: taken from doors, refused, cancelled, ended. */
#include "runtime/loop_int.h"

#include "runtime/base/log.h"

#define TURN_SUBMITS    64u
#define RETRY_AFTER_MAX 3600u
#define DRAINING_RETRY  30u /* then it has drained, and what comes after it may be there */

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
    }
    if (loop->config.config->record_logits)
        spw_log_info("loop", "logits request=%016llx tokens=%u digest=%016llx",
                     (unsigned long long)request->id, atomic_load(&request->published),
                     (unsigned long long)request->logits_digest);
    request->door->live--;
    atomic_store_explicit(&request->ended, true, memory_order_release);
    spw_door_notify(request);
}

static struct spw_sched_request asked_of(const struct spw_request *request)
{
    return (struct spw_sched_request){
        .id = request->id,
        .priority = request->priority,
        .prompt_tokens = request->prompt_tokens,
        .output_tokens_max = request->output_tokens_max,
        .deadline_ns = request->deadline_ns,
        .tenant = request->tenant,
        .hashes = request->prefix.hashes,
        .hash_count = request->prefix.count,
    };
}

static uint32_t retry_after(enum spw_sched_answer answer,
                            const struct spw_sched_prediction *prediction)
{
    if (answer == SPW_SCHED_DRAINING)
        return DRAINING_RETRY;
    if (prediction->retry_ns > RETRY_AFTER_MAX * SPW_SECOND)
        return RETRY_AFTER_MAX;
    uint64_t seconds = (prediction->retry_ns + SPW_SECOND - 1) / SPW_SECOND;
    return (uint32_t)SPW_MAX(seconds, 1u);
}

/* Of seconds: below one the milliseconds count. */
static int digits(uint64_t ns)
{
    return ns < SPW_SECOND ? 3 : 1;
}

/* What is full or late, for the client: only the tenant's own name is in it. */
static enum spw_status refusal(const struct spw_loop *loop, const struct spw_request *request,
                               enum spw_sched_answer answer,
                               const struct spw_sched_prediction *prediction,
                               struct spw_error *words)
{
    const struct spw_tenant *tenant = &loop->tenants->list[request->tenant];
    uint64_t left_ns =
        request->deadline_ns > loop->now_ns ? request->deadline_ns - loop->now_ns : 0;
    switch (answer) {
    case SPW_SCHED_NEVER_FITS:
        return spw_fail(words, SPW_TOO_LARGE,
                        "the request needs more KV memory than a replica has: lower max_tokens, or "
                        "raise --kv-bytes");
    case SPW_SCHED_DRAINING:
        return spw_fail(words, SPW_FULL, "this deployment is draining and takes no new requests");
    case SPW_SCHED_NO_REPLICA:
        return spw_fail(words, SPW_PEER_LOST, "%s",
                        loop->announced ? "no replica is left to serve"
                                        : "the model is still loading");
    case SPW_SCHED_TENANT_FULL:
        return spw_fail(words, SPW_FULL,
                        "the queue of tenant '%s' is full, %u of its requests may wait: try again "
                        "later",
                        tenant->name, tenant->queue);
    case SPW_SCHED_TOO_LATE:
        return spw_fail(words, SPW_FULL,
                        "the request is predicted to start in %.*f s, its deadline is in %.*f s: "
                        "try again later, or give it more time",
                        digits(prediction->start_ns), (double)prediction->start_ns * 1e-9,
                        digits(left_ns), (double)left_ns * 1e-9);
    case SPW_SCHED_QUEUE_FULL:
    case SPW_SCHED_ACCEPTED:
        break;
    }
    return spw_fail(words, SPW_FULL, "the queue is full, %u requests may wait: try again later",
                    loop->sched_config.waiting_max);
}

static void refuse(struct spw_loop *loop, struct spw_request *request,
                   const struct spw_sched_request *asked, enum spw_sched_answer answer)
{
    struct spw_sched_prediction prediction;
    struct spw_error words = {{0}};
    spw_sched_predict(loop->sched, loop->now_ns, asked, &prediction);
    enum spw_status status = refusal(loop, request, answer, &prediction, &words);
    request->retry_after_seconds = retry_after(answer, &prediction);
    spw_loop_end_request(loop, request, SPW_REQUEST_END_ERROR, status, words.text);
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
    assert(request->tenant < loop->tenants->count);
    struct spw_sched_request asked = asked_of(request);
    uint32_t handle = SPW_SCHED_NONE;
    enum spw_sched_answer answer = spw_sched_submit(loop->sched, loop->now_ns, &asked, &handle);
    if (answer != SPW_SCHED_ACCEPTED) {
        refuse(loop, request, &asked, answer);
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
    if (spw_prefix_advance(prefix, request->prompt, request->prompt_tokens, request->output,
                           tokens))
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
