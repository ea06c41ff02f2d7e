#include "runtime/request.h"

#include "runtime/base/rng.h"

#include <stdlib.h>

struct spw_request *spw_request_create(uint32_t prompt_tokens, uint32_t output_tokens_max,
                                       uint32_t top_logprobs)
{
    struct spw_request *request = calloc(1, sizeof(*request));
    if (!request)
        return NULL;
    request->prompt = calloc(prompt_tokens ? prompt_tokens : 1, sizeof(*request->prompt));
    request->output = calloc(output_tokens_max ? output_tokens_max : 1, sizeof(*request->output));
    request->logprobs =
        calloc(output_tokens_max ? output_tokens_max : 1, sizeof(*request->logprobs));
    if (top_logprobs)
        request->tops = calloc(output_tokens_max ? output_tokens_max : 1, sizeof(*request->tops));
    if (!request->prompt || !request->output || !request->logprobs ||
        (top_logprobs && !request->tops) || !spw_rng_system(&request->id, sizeof(request->id)))
        goto out;
    request->prompt_tokens = prompt_tokens;
    request->output_tokens_max = output_tokens_max;
    request->sampling.top_logprobs = top_logprobs;
    request->handle = UINT32_MAX;
    atomic_init(&request->references, 2);
    return request;
out:
    atomic_init(&request->references, 1);
    spw_request_release(request);
    return NULL;
}

void spw_request_release(struct spw_request *request)
{
    if (!request)
        return;
    int before = atomic_fetch_sub_explicit(&request->references, 1, memory_order_acq_rel);
    assert(before > 0);
    if (before > 1)
        return;
    free(request->prompt);
    free(request->output);
    free(request->logprobs);
    free(request->tops);
    spw_prefix_done(&request->prefix);
    free(request);
}

bool spw_request_stops_at(const struct spw_request *request, const int32_t *eos_tokens,
                          uint32_t eos_count, int32_t token)
{
    for (uint32_t i = 0; !request->ignore_eos && i < eos_count; i++)
        if (eos_tokens[i] == token)
            return true;
    for (uint32_t i = 0; i < request->stop_token_count; i++)
        if (request->stop_tokens[i] == token)
            return true;
    return false;
}

uint32_t spw_request_cached_tokens(const struct spw_request *request)
{
    bool known = atomic_load_explicit(&request->published, memory_order_acquire) > 0 ||
                 atomic_load_explicit(&request->ended, memory_order_acquire);
    return known ? request->cached_tokens : 0;
}

const char *spw_request_end_name(enum spw_request_end end)
{
    switch (end) {
    case SPW_REQUEST_END_NONE:
        return NULL;
    case SPW_REQUEST_END_STOP:
        return "stop";
    case SPW_REQUEST_END_LENGTH:
        return "length";
    case SPW_REQUEST_END_CANCELLED:
        return "cancelled";
    case SPW_REQUEST_END_ERROR:
        return "error";
    }
    return NULL;
}
