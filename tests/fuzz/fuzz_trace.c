/* Fuzz target: traces. What is taken is in order and within its bounds, before and after it is made
 * longer; what is refused says why.
 */
#include "runtime/trace/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check(const struct spw_trace *trace)
{
    uint64_t before = 0;
    for (size_t i = 0; i < trace->count; i++) {
        const struct spw_trace_request *request = &trace->requests[i];
        assert(request->at_ns >= before);
        before = request->at_ns;
        assert(request->prompt_tokens >= 1 && request->output_tokens >= 1);
        assert(request->tenant < trace->tenant_count && request->data_class < trace->class_count);
        assert(request->priority <= 2);
        assert((size_t)request->prefix_begin + request->prefix_count <= trace->prefix_count);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct spw_trace trace = {0};
    struct spw_error error = {{0}};
    enum spw_status status = spw_trace_parse("trace", (const char *)data, bytes, 0, &trace, &error);
    assert((status == SPW_OK) == (error.text[0] == '\0'));
    if (status) {
        assert(!trace.requests && !trace.tenants);
        return 0;
    }
    assert(trace.count > 0);
    check(&trace);
    spw_trace_speed(&trace, 3);
    uint64_t period = spw_trace_period_ns(&trace);
    if (period < UINT64_MAX / 16)
        (void)spw_trace_repeat(&trace, 3 * period, data[bytes - 1] & 1, &error);
    check(&trace);
    spw_trace_done(&trace);
    return 0;
}
