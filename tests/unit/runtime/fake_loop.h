/* fake_loop.h - the loop's side of a door, for tests of doors and streams: does what request.h and
 * door.h say the loop does, and nothing by itself.
 *
 * Room:      tests
 * Threads:   one, which may be another than the door's
 */
#ifndef SPW_TEST_FAKE_LOOP_H
#define SPW_TEST_FAKE_LOOP_H

#include "runtime/door.h"

#define FAKE_LIVE_MAX 64u

struct fake_loop {
    struct spw_door *door;
    struct spw_request *live[FAKE_LIVE_MAX];
    uint32_t live_count;
    uint32_t taken, cancels, late_cancels, ended;
    enum spw_request_end last_end;
};

static inline void fake_end(struct fake_loop *loop, struct spw_request *request,
                            enum spw_request_end end, enum spw_status status, const char *words)
{
    uint32_t at = 0;
    assert(!request->loop_ended);
    while (at < loop->live_count && loop->live[at] != request)
        at++;
    assert(at < loop->live_count);
    loop->live[at] = loop->live[--loop->live_count];
    request->loop_ended = true;
    request->end = end;
    request->status = status;
    if (words)
        spw_fail(&request->error, status, "%s", words);
    request->door->live--;
    loop->ended++;
    loop->last_end = end;
    atomic_store_explicit(&request->ended, true, memory_order_release);
    spw_door_notify(request);
    spw_request_release(request);
}

/* Take one submission or cancel; the submission, or NULL. *out_took: something was there. */
static inline struct spw_request *fake_take(struct fake_loop *loop, bool *out_took)
{
    struct spw_request *request = spw_door_loop_next(loop->door);
    *out_took = request != NULL;
    if (!request)
        return NULL;
    if (!request->loop_known) {
        request->loop_known = true;
        request->door->live++;
        loop->live[loop->live_count++] = request;
        loop->taken++;
        if (!atomic_load(&request->cancelled))
            return request;
        fake_end(loop, request, SPW_REQUEST_END_CANCELLED, SPW_CANCELLED, NULL);
        return NULL;
    }
    if (request->loop_ended) {
        loop->late_cancels++;
    } else {
        bool stopped = atomic_load(&request->cancelled) == SPW_REQUEST_STOPPED;
        loop->cancels++;
        fake_end(loop, request, stopped ? SPW_REQUEST_END_STOP : SPW_REQUEST_END_CANCELLED,
                 stopped ? SPW_OK : SPW_CANCELLED, NULL);
    }
    spw_request_release(request); /* the ring's */
    return NULL;
}

static inline void fake_publish(struct spw_request *request, int32_t token, float logprob)
{
    uint32_t index = atomic_load_explicit(&request->published, memory_order_relaxed);
    assert(index < request->output_tokens_max);
    request->output[index] = token;
    request->logprobs[index] = logprob;
    atomic_store_explicit(&request->published, index + 1, memory_order_release);
    spw_door_notify(request);
}

#endif
