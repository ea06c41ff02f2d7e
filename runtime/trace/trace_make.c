/* trace_make.c - traces drawn from a rate, and traces made faster or longer. */
#include "runtime/base/rng.h"
#include "runtime/trace/trace_int.h"

#include <math.h>

/* Draws of one request have positions of their own: equal seed, equal trace, whatever its count. */
enum draw { DRAW_PROMPT, DRAW_OUTPUT, DRAW_GROUP, DRAW_GAP };

static double gamma_of(double shape, uint64_t seed, uint64_t position)
{
    /* Marsaglia and Tsang, "A simple method for generating gamma variables" (2000); for a shape
     * below 1, one of shape + 1 is scaled down. */
    uint32_t draw = DRAW_GAP;
    double boost = 1.0;
    if (shape < 1.0) {
        boost = pow(1.0 - spw_rng_uniform(seed, position, draw++), 1.0 / shape);
        shape += 1.0;
    }
    double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        double u = 1.0 - spw_rng_uniform(seed, position, draw);
        double angle = 2.0 * 3.14159265358979323846 * spw_rng_uniform(seed, position, draw + 1);
        double normal = sqrt(-2.0 * log(u)) * cos(angle);
        double v = 1.0 + c * normal;
        double w = 1.0 - spw_rng_uniform(seed, position, draw + 2);
        draw += 3;
        if (v <= 0)
            continue;
        v = v * v * v;
        if (log(w) < 0.5 * normal * normal + d - d * v + d * log(v))
            return boost * d * v;
    }
}

static double gap_seconds(const struct spw_trace_draw *draw, uint64_t position)
{
    double mean = 1.0 / draw->rate_per_second;
    switch (draw->arrivals) {
    case SPW_TRACE_POISSON:
        return -log(1.0 - spw_rng_uniform(draw->seed, position, DRAW_GAP)) * mean;
    case SPW_TRACE_GAMMA:
        return gamma_of(draw->gamma_shape, draw->seed, position) / draw->gamma_shape * mean;
    case SPW_TRACE_CONSTANT:
        return mean;
    }
    return mean;
}

static uint32_t uniform_between(const struct spw_trace_draw *draw, uint64_t position,
                                enum draw which, uint32_t min, uint32_t max)
{
    double u = spw_rng_uniform(draw->seed, position, which);
    return min + (uint32_t)(u * ((double)(max - min) + 1.0));
}

static enum spw_status check_draw(const struct spw_trace_draw *draw, struct spw_error *error)
{
    if (!(draw->rate_per_second >= 1e-6 && draw->rate_per_second <= 1e9))
        return spw_fail(error, SPW_INVALID, "rate %g a second: 0.000001 to 1e9 is right",
                        draw->rate_per_second);
    if (draw->arrivals == SPW_TRACE_GAMMA &&
        !(draw->gamma_shape >= 0.01 && draw->gamma_shape <= 1e6))
        return spw_fail(error, SPW_INVALID, "gamma shape %g: 0.01 to 1e6 is right",
                        draw->gamma_shape);
    if (draw->count < 1 || draw->count > SPW_TRACE_REQUESTS_MAX)
        return spw_fail(error, SPW_INVALID, "%zu requests: 1 to %zu is right", draw->count,
                        SPW_TRACE_REQUESTS_MAX);
    if (draw->prompt_min < 1 || draw->prompt_min > draw->prompt_max ||
        draw->prompt_max > SPW_TRACE_TOKENS_MAX)
        return spw_fail(error, SPW_INVALID,
                        "prompts of %u to %u tokens: 1 to %u, the smaller first, is right",
                        draw->prompt_min, draw->prompt_max, SPW_TRACE_TOKENS_MAX);
    if (draw->output_min < 1 || draw->output_min > draw->output_max ||
        draw->output_max > SPW_TRACE_TOKENS_MAX)
        return spw_fail(error, SPW_INVALID,
                        "answers of %u to %u tokens: 1 to %u, the smaller first, is right",
                        draw->output_min, draw->output_max, SPW_TRACE_TOKENS_MAX);
    if (draw->prefix_groups && (draw->prefix_tokens < 1 || draw->prefix_tokens > draw->prompt_min))
        return spw_fail(
            error, SPW_INVALID,
            "a common prefix of %u tokens: 1 to the shortest prompt's %u tokens is right",
            draw->prefix_tokens, draw->prompt_min);
    return SPW_OK;
}

enum spw_status spw_trace_draw(const struct spw_trace_draw *draw, struct spw_trace *out_trace,
                               struct spw_error *error)
{
    struct spw_trace_builder builder;
    enum spw_status status = check_draw(draw, error);
    if (status)
        return status;
    if (!spw_trace_builder_init(&builder))
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    /* one block a group: its common prefix */
    builder.trace.prefix_block_tokens = draw->prefix_groups ? draw->prefix_tokens : 0;
    double seconds = 0;
    for (size_t i = 0; i < draw->count; i++) {
        seconds += gap_seconds(draw, i);
        double at_ns = seconds * 1e9;
        if (at_ns > (double)(SPW_TRACE_NS_MAX / 4)) {
            status = spw_fail(error, SPW_INVALID,
                              "%zu requests at %g a second last longer than can be counted",
                              draw->count, draw->rate_per_second);
            goto out;
        }
        struct spw_trace_request request = {
            .at_ns = (uint64_t)at_ns,
            .prompt_tokens =
                uniform_between(draw, i, DRAW_PROMPT, draw->prompt_min, draw->prompt_max),
            .output_tokens =
                uniform_between(draw, i, DRAW_OUTPUT, draw->output_min, draw->output_max),
            .prefix_begin = (uint32_t)builder.trace.prefix_count,
            .prefix_count = draw->prefix_groups != 0,
        };
        if ((draw->prefix_groups &&
             !spw_trace_builder_prefix(
                 &builder, uniform_between(draw, i, DRAW_GROUP, 0, draw->prefix_groups - 1))) ||
            !spw_trace_builder_request(&builder, &request)) {
            status = spw_fail(error, SPW_NO_MEMORY, "out of memory for %zu requests", draw->count);
            goto out;
        }
    }
    *out_trace = builder.trace;
    builder.trace = (struct spw_trace){0};
out:
    spw_trace_done(&builder.trace);
    return status;
}

void spw_trace_speed(struct spw_trace *trace, double factor)
{
    assert(factor > 0);
    for (size_t i = 0; i < trace->count; i++) {
        double at = (double)trace->requests[i].at_ns / factor;
        trace->requests[i].at_ns = at < (double)SPW_TRACE_NS_MAX ? (uint64_t)at : SPW_TRACE_NS_MAX;
    }
}

uint64_t spw_trace_period_ns(const struct spw_trace *trace)
{
    uint64_t last = trace->count ? trace->requests[trace->count - 1].at_ns : 0;
    uint64_t first = trace->count ? trace->requests[0].at_ns : 0;
    /* the gap between two rounds is the mean gap, so that the rate stays what it was */
    uint64_t gap = trace->count > 1 ? (last - first) / (trace->count - 1) : 1000000000u;
    return last + SPW_MAX(gap, 1000u);
}

enum spw_status spw_trace_repeat(struct spw_trace *trace, uint64_t duration_ns, bool fresh,
                                 struct spw_error *error)
{
    size_t count = trace->count;
    uint64_t period = spw_trace_period_ns(trace), id_max = 0;
    if (duration_ns > SPW_TRACE_NS_MAX / 4)
        return spw_fail(error, SPW_INVALID,
                        "a duration of %llu seconds is more than can be counted",
                        (unsigned long long)(duration_ns / 1000000000u));
    for (size_t i = 0; i < trace->prefix_count; i++)
        id_max = SPW_MAX(id_max, trace->prefix[i]);
    while (count && trace->requests[count - 1].at_ns >= duration_ns)
        count--;
    if (count < trace->count || !count) {
        trace->count = count;
        return SPW_OK;
    }
    struct spw_trace_builder builder = {
        .trace = *trace, .request_room = count, .prefix_room = trace->prefix_count};
    size_t ids = trace->prefix_count;
    enum spw_status status = SPW_OK;
    for (uint64_t round = 1; round * period < duration_ns; round++) {
        uint64_t shift = fresh ? round * (id_max + 1) : 0;
        if (fresh && ids && round > (SPW_TRACE_NS_MAX - id_max) / (id_max + 1)) {
            status = spw_fail(error, SPW_INVALID,
                              "prefix ids up to %llu are too large for %llu rounds of their own",
                              (unsigned long long)id_max, (unsigned long long)round + 1);
            break;
        }
        size_t base = builder.trace.prefix_count;
        bool ok = !fresh || base + ids <= SPW_TRACE_PREFIX_MAX;
        for (size_t i = 0; i < ids && fresh && ok; i++)
            ok = spw_trace_builder_prefix(&builder, builder.trace.prefix[i] + shift);
        for (size_t i = 0; i < count && ok; i++) {
            struct spw_trace_request request = builder.trace.requests[i];
            request.at_ns += round * period;
            if (fresh)
                request.prefix_begin += (uint32_t)base;
            if (request.at_ns >= duration_ns)
                break;
            ok = spw_trace_builder_request(&builder, &request);
        }
        if (!ok) {
            status = spw_fail(error, SPW_TOO_LARGE,
                              "repeated, the trace has more than %zu requests or %zu block ids, or "
                              "there is no memory for it",
                              SPW_TRACE_REQUESTS_MAX, SPW_TRACE_PREFIX_MAX);
            break;
        }
    }
    *trace = builder.trace; /* the arrays may have moved */
    return status;
}
