/* load_plan.c - the requests of a run: read or drawn, brought to a rate, cut into warm-up and
 * measured part.
 */
#include "runtime/bench/load_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Of drawn requests when nothing is said, in tokens. */
#define PROMPT_MIN 64u
#define PROMPT_MAX 256u
#define OUTPUT_MIN 32u
#define OUTPUT_MAX 128u

static double last_seconds(const struct spw_trace *trace)
{
    return trace->count ? (double)trace->requests[trace->count - 1].at_ns * 1e-9 : 0;
}

/* Does it last as long as warm-up and measured part do? */
static bool covers(const struct spw_trace *trace, const struct spw_load_options *options)
{
    double from = options->warm_up_seconds;
    if (options->warm_up_count > 0)
        from = (double)trace->requests[options->warm_up_count - 1].at_ns * 1e-9;
    return last_seconds(trace) >= from + options->seconds;
}

static enum spw_status draw(const struct spw_load_options *options, double rate,
                            struct spw_trace *out_trace, struct spw_error *error)
{
    struct spw_trace_draw wanted = {
        .arrivals = options->arrivals,
        .rate_per_second = rate,
        .gamma_shape = options->gamma_shape,
        .prompt_min = options->prompt_max ? options->prompt_min : PROMPT_MIN,
        .prompt_max = options->prompt_max ? options->prompt_max : PROMPT_MAX,
        .output_min = options->output_max ? options->output_min : OUTPUT_MIN,
        .output_max = options->output_max ? options->output_max : OUTPUT_MAX,
        .prefix_groups = options->prefix_groups,
        .prefix_tokens = options->prefix_tokens,
        .seed = options->seed,
    };
    double seconds = options->warm_up_seconds + options->seconds;
    double need = rate * seconds + (double)options->count + (double)options->warm_up_count;
    if (!(need <= (double)SPW_LOAD_REQUESTS_MAX))
        return spw_fail(error, SPW_INVALID,
                        "%.0f requests are more than %zu: lower --rate, "
                        "--seconds or --count",
                        need, SPW_LOAD_REQUESTS_MAX);
    /* arrivals are random: more until they cover the time; a longer draw begins like a shorter */
    for (double margin = 1.1;; margin *= 1.5) {
        wanted.count = (size_t)(need * margin) + 8;
        enum spw_status status = spw_trace_draw(&wanted, out_trace, error);
        if (status || covers(out_trace, options))
            return status;
        spw_trace_done(out_trace);
    }
}

static uint32_t scaled(uint32_t tokens, double factor, uint32_t min, uint32_t max)
{
    double value = fmax(round(tokens * factor), 1);
    value = fmax(value, min);
    return (uint32_t)fmin(value, max ? max : 1e9);
}

/* What brings the part that will be used to this mean rate: traces have slow and fast hours. */
static double factor_for(const struct spw_load_options *options, const struct spw_trace *trace,
                         double rate)
{
    double used = (double)trace->count;
    if (options->seconds > 0)
        used = (double)options->warm_up_count +
               round(rate * (options->warm_up_seconds + options->seconds));
    else if (options->count > 0)
        used = (double)(options->warm_up_count + options->count) +
               round(rate * options->warm_up_seconds);
    size_t count = (size_t)fmin(fmax(used, 2), (double)trace->count);
    double length = (double)trace->requests[count - 1].at_ns * 1e-9;
    return length > 0 ? rate * length / (double)(count - 1) : 1;
}

static enum spw_status read_trace(const struct spw_load_options *options, double rate,
                                  struct spw_trace *out_trace, struct spw_error *error)
{
    enum spw_status status = spw_trace_read(options->trace, 0, out_trace, error);
    if (status)
        return status;
    if (out_trace->count == 0)
        return spw_fail(error, SPW_INVALID, "%s has no requests", options->trace);
    uint64_t from_ns = out_trace->requests[0].at_ns;
    for (size_t i = 0; i < out_trace->count; i++) {
        struct spw_trace_request *request = &out_trace->requests[i];
        request->at_ns -= from_ns;
        request->prompt_tokens = scaled(request->prompt_tokens, options->length_scale,
                                        options->prompt_min, options->prompt_max);
        request->output_tokens = scaled(request->output_tokens, options->length_scale,
                                        options->output_min, options->output_max);
    }
    spw_trace_speed(out_trace, rate > 0 ? factor_for(options, out_trace, rate) : options->speed);
    return SPW_OK;
}

/* How many requests arrive before this time. */
static size_t count_before(const struct spw_trace *trace, double seconds)
{
    size_t count = 0;
    while (count < trace->count && (double)trace->requests[count].at_ns * 1e-9 < seconds)
        count++;
    return count;
}

static enum spw_status cut(const struct spw_load_options *options, struct spw_load_plan *plan,
                           struct spw_error *error)
{
    struct spw_trace *trace = &plan->trace;
    double warm_up = options->warm_up_seconds, all = warm_up + options->seconds;
    if (options->seconds > 0 && options->trace) {
        if (options->warm_up_count > 0) {
            size_t last = SPW_MIN(options->warm_up_count, trace->count) - 1;
            all += (double)trace->requests[last].at_ns * 1e-9;
        }
        enum spw_status status =
            spw_trace_repeat(trace, (uint64_t)(all * (double)SPW_SECOND), true, error);
        if (status)
            return status;
    }
    plan->warm_up = options->warm_up_count ? SPW_MIN(options->warm_up_count, trace->count)
                                           : count_before(trace, warm_up);
    size_t end = trace->count;
    if (options->seconds > 0) {
        double from = options->warm_up_count && plan->warm_up
                          ? (double)trace->requests[plan->warm_up - 1].at_ns * 1e-9
                          : warm_up;
        end = count_before(trace, from + options->seconds);
    }
    if (options->count > 0)
        end = SPW_MIN(end, plan->warm_up + options->count);
    if (end <= plan->warm_up)
        return spw_fail(error, SPW_INVALID,
                        "no request is left to be measured: %zu in all, %zu of them for warm-up; "
                        "lower --warm-up or raise --seconds, --count or --rate",
                        end, plan->warm_up);
    trace->count = end;
    return SPW_OK;
}

enum spw_status spw_load_plan_make(const struct spw_load_options *options, double rate,
                                   struct spw_load_plan *out_plan, struct spw_error *error)
{
    struct spw_load_plan plan = {0};
    rate = rate > 0 ? rate : options->rate;
    enum spw_status status = options->trace ? read_trace(options, rate, &plan.trace, error)
                                            : draw(options, rate, &plan.trace, error);
    if (!status)
        status = cut(options, &plan, error);
    if (!status && plan.trace.count > SPW_LOAD_REQUESTS_MAX)
        status = spw_fail(error, SPW_INVALID, "%zu requests are more than %zu: see --count",
                          plan.trace.count, SPW_LOAD_REQUESTS_MAX);
    if (status) {
        spw_trace_done(&plan.trace);
        return status;
    }
    plan.block_tokens = plan.trace.prefix_block_tokens;
    if (options->trace && plan.block_tokens)
        plan.block_tokens = scaled(plan.block_tokens, options->length_scale, 1, 0);
    size_t measured = plan.trace.count - plan.warm_up;
    double from = (double)plan.trace.requests[plan.warm_up].at_ns * 1e-9;
    double span = last_seconds(&plan.trace) - from;
    plan.offered_per_second = measured > 1 && span > 0 ? (double)(measured - 1) / span : 0;
    for (size_t i = 0; i < plan.trace.count; i++)
        plan.use_priority = plan.use_priority || plan.trace.requests[i].priority;
    *out_plan = plan;
    return SPW_OK;
}

void spw_load_plan_name(const struct spw_load_plan *plan, const struct spw_load_options *options,
                        double rate, char *out_name, size_t capacity)
{
    static const char *const kinds[] = {"poisson", "gamma", "constant"};
    const char *name = kinds[options->arrivals];
    uint32_t prompt[2] = {UINT32_MAX, 0}, output[2] = {UINT32_MAX, 0};
    if (options->trace) {
        const char *slash = strrchr(options->trace, '/');
        name = slash ? slash + 1 : options->trace;
    }
    for (size_t i = plan->warm_up; i < plan->trace.count; i++) {
        const struct spw_trace_request *request = &plan->trace.requests[i];
        prompt[0] = SPW_MIN(prompt[0], request->prompt_tokens);
        prompt[1] = SPW_MAX(prompt[1], request->prompt_tokens);
        output[0] = SPW_MIN(output[0], request->output_tokens);
        output[1] = SPW_MAX(output[1], request->output_tokens);
    }
    rate = rate > 0 ? rate : options->rate > 0 ? options->rate : plan->offered_per_second;
    snprintf(out_name, capacity, "%.40s %.4g/s, prompt %u:%u, output %u:%u", name, rate, prompt[0],
             prompt[1], output[0], output[1]);
    for (char *at = out_name; *at; at++)
        if (*at == '"' || *at == '\\' || *at < ' ' || *at > '~')
            *at = '_';
}

void spw_load_plan_done(struct spw_load_plan *plan)
{
    spw_trace_done(&plan->trace);
}
