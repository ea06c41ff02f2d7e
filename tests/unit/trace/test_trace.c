/* Traces: the three formats, what is refused and how, drawn traces, speed and repetition. */
#include "runtime/trace/trace.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static enum spw_status parse(const char *text, struct spw_trace *trace, struct spw_error *error)
{
    *error = (struct spw_error){{0}};
    *trace = (struct spw_trace){0};
    return spw_trace_parse("t", text, strlen(text), 0, trace, error);
}

static void mooncake(void **state)
{
    struct spw_trace trace;
    struct spw_error error;
    (void)state;
    assert_int_equal(
        parse("{\"timestamp\": 27, \"input_length\": 1000, \"output_length\": 5, \"hash_ids\": "
              "[7, 9]}\n\n"
              "{\"timestamp\": 30.5, \"input_length\": 513, \"output_length\": 1, \"hash_ids\": "
              "[7]}",
              &trace, &error),
        SPW_OK);
    assert_int_equal(trace.count, 2);
    assert_int_equal(trace.prefix_block_tokens, 512);
    assert_int_equal(trace.requests[0].at_ns, 27000000);
    assert_int_equal(trace.requests[1].at_ns, 30500000);
    assert_int_equal(trace.requests[0].prompt_tokens, 1000);
    assert_int_equal(trace.requests[1].output_tokens, 1);
    assert_int_equal(trace.requests[1].prefix_begin, 2);
    assert_int_equal(trace.requests[1].prefix_count, 1);
    assert_int_equal(trace.prefix[1], 9);
    assert_string_equal(trace.tenants[0], "default");
    assert_string_equal(trace.classes[0], "default");
    spw_trace_done(&trace);
}

static void azure(void **state)
{
    struct spw_trace trace;
    struct spw_error error;
    (void)state;
    /* over midnight of a leap day, out of order, with both line ends */
    assert_int_equal(parse("TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                           "2024-03-01 00:00:01.5000000,10,20\r\n"
                           "2024-02-28 23:59:59.2500000,374,44\n"
                           "2024-02-29 00:00:00,396,109",
                           &trace, &error),
                     SPW_OK);
    assert_int_equal(trace.count, 3);
    assert_int_equal(trace.requests[0].at_ns, 0);
    assert_int_equal(trace.requests[0].prompt_tokens, 374);
    assert_int_equal(trace.requests[1].at_ns, 750000000);
    assert_int_equal(trace.requests[2].at_ns, 86402250000000);
    assert_int_equal(trace.requests[2].output_tokens, 20);
    assert_int_equal(trace.prefix_block_tokens, 0);
    spw_trace_done(&trace);
}

static void own(void **state)
{
    struct spw_trace trace;
    struct spw_error error;
    (void)state;
    assert_int_equal(
        parse("{\"at_ms\":1.25,\"prompt_tokens\":64,\"output_tokens\":3,\"prefix\":[1,2,3,4],"
              "\"prefix_block_tokens\":16,\"tenant\":\"b\",\"priority\":2,\"deadline_ms\":1500,"
              "\"class\":\"restricted\"}\n"
              "{\"at_ms\":2,\"prompt_tokens\":1,\"output_tokens\":1,\"tenant\":\"default\"}\n"
              "{\"at_ms\":2,\"prompt_tokens\":2,\"output_tokens\":1,\"tenant\":\"b\"}\n",
              &trace, &error),
        SPW_OK);
    assert_int_equal(trace.count, 3);
    assert_int_equal(trace.tenant_count, 2);
    assert_string_equal(trace.tenants[1], "b");
    assert_string_equal(trace.classes[1], "restricted");
    assert_int_equal(trace.requests[0].tenant, 1);
    assert_int_equal(trace.requests[0].data_class, 1);
    assert_int_equal(trace.requests[0].priority, 2);
    assert_int_equal(trace.requests[0].deadline_ns, 1500000000);
    assert_int_equal(trace.requests[0].at_ns, 1250000);
    assert_int_equal(trace.requests[0].prefix_count, 4);
    assert_int_equal(trace.requests[1].tenant, 0);
    assert_int_equal(trace.requests[2].tenant, 1);
    assert_int_equal(trace.requests[2].prompt_tokens, 2); /* equal times keep their order */
    assert_int_equal(trace.prefix_block_tokens, 16);
    spw_trace_done(&trace);
}

/* Each is refused, names the line and says what would be right. */
static void refused(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "no request"},
        {"\n\n", "no request"},
        {"hello", "t line 1: not a trace"},
        {"TIMESTAMP,ContextTokens,GeneratedTokens\n", "no request"},
        {"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-16 18:15:46,1,1", "line 2: the first"},
        {"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,x,1", "line 2: the second"},
        {"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,1,1", "line 2: the third"},
        {"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,0,1", "1 to 16777216"},
        {"{\"at_ms\":1}", "\"prompt_tokens\" is missing"},
        {"{\"at_ms\":-1,\"prompt_tokens\":1,\"output_tokens\":1}", "\"at_ms\" is -1"},
        {"{\"at_ms\":1e300,\"prompt_tokens\":1,\"output_tokens\":1}", "is allowed"},
        {"{\"at_ms\":1,\"prompt_tokens\":0,\"output_tokens\":1}", "1 to 16777216 is allowed"},
        {"{\"at_ms\":1,\"prompt_tokens\":\"1\",\"output_tokens\":1}", "must be a whole number"},
        {"{\"at_ms\":1,\"prompt_tokens\":1,\"output_tokens\":1,\"colour\":1}",
         "unknown key \"colour\""},
        {"{\"at_ms\":1,\"prompt_tokens\":1,\"output_tokens\":1,\"priority\":3}", "0 to 2"},
        {"{\"at_ms\":1,\"prompt_tokens\":1,\"output_tokens\":1,\"tenant\":\"\"}", "1 to 63"},
        {"{\"at_ms\":1,\"prompt_tokens\":16,\"output_tokens\":1,\"prefix\":[1,2],"
         "\"prefix_block_tokens\":16}",
         "at most 1 blocks of 16"},
        {"{\"at_ms\":1,\"prompt_tokens\":16,\"output_tokens\":1,\"prefix\":[1],"
         "\"prefix_block_tokens\":16}\n{\"at_ms\":1,\"prompt_tokens\":16,\"output_tokens\":1,"
         "\"prefix\":[1],\"prefix_block_tokens\":8}",
         "line 2: \"prefix_block_tokens\" is 8 and was 16"},
        {"{\"timestamp\":1,\"input_length\":1,\"output_length\":1,\"hash_ids\":[-1]}",
         "\"hash_ids\" entry 0"},
        {"{\"timestamp\":1,\"input_length\":1,\"output_length\":1,\"input_length\":1}",
         "not a JSON object"},
        {"{\"timestamp\":1,\"input_length\":1,\"output_length\":1}\n[]", "line 2: a JSON object"},
    };
    (void)state;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(cases); i++) {
        struct spw_trace trace;
        struct spw_error error;
        assert_true(parse(cases[i].text, &trace, &error) < 0);
        if (!strstr(error.text, cases[i].words))
            fail_msg("'%s' gave '%s', not '%s'", cases[i].text, error.text, cases[i].words);
        assert_null(trace.requests);
    }
}

static void long_line(void **state)
{
    size_t bytes = (1u << 20) + 64;
    char *text = malloc(bytes + 1);
    struct spw_trace trace = {0};
    struct spw_error error = {{0}};
    (void)state;
    memset(text, ' ', bytes);
    memcpy(text, "{\"at_ms\":1,", 11);
    text[bytes - 1] = '}';
    assert_int_equal(spw_trace_parse("t", text, bytes, 0, &trace, &error), SPW_TOO_LARGE);
    assert_non_null(strstr(error.text, "line 1: has 1048640 bytes"));
    free(text);
}

static void count_max(void **state)
{
    static const char text[] = "{\"at_ms\":1,\"prompt_tokens\":1,\"output_tokens\":1}\n"
                               "{\"at_ms\":2,\"prompt_tokens\":1,\"output_tokens\":1}\nnonsense";
    struct spw_trace trace = {0};
    struct spw_error error = {{0}};
    (void)state;
    assert_int_equal(spw_trace_parse("t", text, strlen(text), 2, &trace, &error), SPW_OK);
    assert_int_equal(trace.count, 2);
    spw_trace_done(&trace);
}

static void drawn(void **state)
{
    struct spw_trace_draw draw = {.rate_per_second = 50,
                                  .count = 20000,
                                  .prompt_min = 40,
                                  .prompt_max = 60,
                                  .output_min = 1,
                                  .output_max = 1,
                                  .prefix_groups = 3,
                                  .prefix_tokens = 32,
                                  .seed = 7};
    struct spw_trace a = {0}, b = {0};
    struct spw_error error = {{0}};
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        draw.arrivals = (enum spw_trace_arrivals)kind;
        draw.gamma_shape = 0.5;
        assert_int_equal(spw_trace_draw(&draw, &a, &error), SPW_OK);
        assert_int_equal(spw_trace_draw(&draw, &b, &error), SPW_OK);
        assert_memory_equal(a.requests, b.requests, a.count * sizeof(*a.requests));
        double mean = 0, square = 0;
        uint32_t groups = 0;
        for (size_t i = 0; i < a.count; i++) {
            const struct spw_trace_request *request = &a.requests[i];
            double gap = (double)(request->at_ns - (i ? a.requests[i - 1].at_ns : 0)) / 1e9;
            mean += gap / (double)a.count;
            square += gap * gap / (double)a.count;
            assert_in_range(request->prompt_tokens, 40, 60);
            assert_int_equal(request->prefix_count, 1);
            assert_in_range(a.prefix[request->prefix_begin], 0, 2);
            groups |= 1u << a.prefix[request->prefix_begin];
        }
        assert_int_equal(groups, 7);
        assert_int_equal(a.prefix_block_tokens, 32);
        /* the coefficient of variation tells the three apart: 1, sqrt(2), 0 */
        double cv = sqrt(fmax(square - mean * mean, 0)) / mean;
        double expected = kind == SPW_TRACE_POISSON ? 1 : kind == SPW_TRACE_GAMMA ? sqrt(2) : 0;
        assert_true(fabs(mean - 0.02) < 0.001);
        assert_true(fabs(cv - expected) < 0.05);
        spw_trace_done(&a);
        spw_trace_done(&b);
    }
    draw.rate_per_second = 0;
    assert_int_equal(spw_trace_draw(&draw, &a, &error), SPW_INVALID);
    assert_non_null(strstr(error.text, "rate 0"));
    draw.rate_per_second = 1;
    draw.prefix_tokens = 41;
    error = (struct spw_error){{0}};
    assert_int_equal(spw_trace_draw(&draw, &a, &error), SPW_INVALID);
    assert_non_null(strstr(error.text, "shortest prompt's 40"));
}

static void speed_and_repeat(void **state)
{
    static const char text[] =
        "{\"timestamp\":0,\"input_length\":600,\"output_length\":1,\"hash_ids\":[0,1]}\n"
        "{\"timestamp\":100,\"input_length\":600,\"output_length\":2,\"hash_ids\":[0,2]}\n"
        "{\"timestamp\":200,\"input_length\":600,\"output_length\":3,\"hash_ids\":[0,5]}\n";
    struct spw_trace trace;
    struct spw_error error;
    (void)state;
    assert_int_equal(parse(text, &trace, &error), SPW_OK);
    spw_trace_speed(&trace, 4);
    assert_int_equal(trace.requests[2].at_ns, 50000000);
    assert_int_equal(spw_trace_period_ns(&trace), 75000000);
    assert_int_equal(spw_trace_repeat(&trace, 200000000, true, &error), SPW_OK);
    /* rounds at 0, 75 and 150 ms; 50 ms into the third is its end */
    assert_int_equal(trace.count, 8);
    assert_int_equal(trace.requests[7].at_ns, 175000000);
    assert_int_equal(trace.requests[7].output_tokens, 2);
    assert_int_equal(trace.prefix[trace.requests[4].prefix_begin], 6);
    assert_int_equal(trace.prefix[trace.requests[7].prefix_begin + 1], 14);
    spw_trace_done(&trace);

    assert_int_equal(parse(text, &trace, &error), SPW_OK);
    assert_int_equal(spw_trace_repeat(&trace, 900000000, false, &error), SPW_OK);
    assert_int_equal(trace.count, 9);
    assert_int_equal(trace.prefix_count, 6);
    assert_int_equal(trace.requests[8].prefix_begin, trace.requests[2].prefix_begin);
    spw_trace_done(&trace);

    assert_int_equal(parse(text, &trace, &error), SPW_OK);
    assert_int_equal(spw_trace_repeat(&trace, 150000000, false, &error), SPW_OK);
    assert_int_equal(trace.count, 2); /* shorter than the trace: cut */
    spw_trace_done(&trace);
}

static void ids_too_large(void **state)
{
    struct spw_trace trace;
    struct spw_error error;
    (void)state;
    assert_int_equal(parse("{\"timestamp\":1,\"input_length\":1,\"output_length\":1,"
                           "\"hash_ids\":[9007199254740991]}",
                           &trace, &error),
                     SPW_OK);
    assert_int_equal(spw_trace_repeat(&trace, 1000000000000, true, &error), SPW_INVALID);
    assert_non_null(strstr(error.text, "too large"));
    spw_trace_done(&trace);
}

/* The real files, where they are. */
static void real_files(void **state)
{
    static const char folder[] = SPW_SOURCE_DIR "/../shared/data/traces/";
    struct spw_trace trace = {0};
    struct spw_error error = {{0}};
    char path[1024];
    (void)state;
    snprintf(path, sizeof(path), "%sconversation_trace.jsonl", folder);
    if (access(path, R_OK) != 0) {
        print_message("skipped: %s is not there\n", path);
        skip();
    }
    assert_int_equal(spw_trace_read(path, 0, &trace, &error), SPW_OK);
    assert_int_equal(trace.count, 12031);
    assert_int_equal(trace.requests[trace.count - 1].at_ns, 3536999000000);
    uint64_t id_max = 0;
    for (size_t i = 0; i < trace.prefix_count; i++)
        id_max = SPW_MAX(id_max, trace.prefix[i]);
    assert_int_equal(id_max, 182789);
    spw_trace_done(&trace);
    snprintf(path, sizeof(path), "%sAzureLLMInferenceTrace_conv.csv", folder);
    assert_int_equal(spw_trace_read(path, 0, &trace, &error), SPW_OK);
    assert_int_equal(trace.count, 19366);
    assert_int_equal(trace.requests[0].prompt_tokens, 374);
    /* 18:15:46.68059 to 19:14:08.4025270 */
    assert_int_equal(trace.requests[trace.count - 1].at_ns, 3501721937000);
    spw_trace_done(&trace);
    assert_int_equal(spw_trace_read("/nonexistent/trace", 0, &trace, &error), SPW_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mooncake),      cmocka_unit_test(azure),
        cmocka_unit_test(own),           cmocka_unit_test(refused),
        cmocka_unit_test(long_line),     cmocka_unit_test(count_max),
        cmocka_unit_test(drawn),         cmocka_unit_test(speed_and_repeat),
        cmocka_unit_test(ids_too_large), cmocka_unit_test(real_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
