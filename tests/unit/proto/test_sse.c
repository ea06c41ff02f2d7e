/* Server-sent events and the chunks of answers, as servers send them and as they should not. */
#include "proto/openai_chunk.h"
#include "proto/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct seen {
    char text[512]; /* name=data| of each event */
    size_t stop_at, events;
};

static bool on_event(void *context, const char *name, const char *data, size_t bytes)
{
    struct seen *seen = context;
    size_t at = strlen(seen->text);
    snprintf(seen->text + at, sizeof(seen->text) - at, "%s=%.*s|", name, (int)bytes, data);
    return ++seen->events != seen->stop_at;
}

/* Every way to cut the bytes in two gives the same events. */
static void expect(const char *bytes, const char *events)
{
    size_t count = strlen(bytes);
    for (size_t cut = 0; cut <= count; cut++) {
        struct spw_sse sse;
        struct seen seen = {0};
        spw_sse_init(&sse, 64);
        assert_int_equal(spw_sse_push(&sse, bytes, cut, on_event, &seen), SPW_OK);
        assert_int_equal(spw_sse_push(&sse, bytes + cut, count - cut, on_event, &seen), SPW_OK);
        assert_string_equal(seen.text, events);
        spw_sse_done(&sse);
    }
}

static void events_as_the_standard_says(void **state)
{
    (void)state;
    expect("data: a\n\n", "=a|");
    expect("data:a\ndata: b\ndata:  c\n\ndata\n\n", "=a\nb\n c|=|");
    expect("data: a\r\n\r\ndata: b\r\rdata: c\n\n", "=a|=b|=c|");
    expect("\xef\xbb\xbf"
           "data: a\n\n\xef\xbb\xbf"
           "data: b\n\n",
           "=a|");
    expect(": comment\n\nevent: error\ndata: x\n\ndata: y\n\n", "error=x|=y|");
    expect("event: error\n\ndata: y\n\n", "=y|");
    expect("id: 5\nretry: 10\ndatum: 1\ndata: z\n\n", "=z|");
    expect("data: no end\n", "");
    expect("", "");
}

static void limits_hold(void **state)
{
    (void)state;
    struct spw_sse sse;
    struct seen seen = {0};
    char line[80] = "data: ";
    memset(line + 6, 'x', 60);
    spw_sse_init(&sse, 64);
    /* 64 bytes are a line, 65 are not, whether they come at once or not */
    memcpy(line + 64, "\n\n", 3);
    assert_int_equal(spw_sse_push(&sse, line, 66, on_event, &seen), SPW_OK);
    assert_int_equal(seen.events, 1);
    memcpy(line + 64, "x\n\n", 4);
    assert_int_equal(spw_sse_push(&sse, line, 67, on_event, &seen), SPW_TOO_LARGE);
    spw_sse_clear(&sse);
    assert_int_equal(spw_sse_push(&sse, line, 40, on_event, &seen), SPW_OK);
    assert_int_equal(spw_sse_push(&sse, line + 40, 27, on_event, &seen), SPW_TOO_LARGE);
    spw_sse_clear(&sse);
    /* many short lines of one event */
    enum spw_status status = SPW_OK;
    int lines = 0;
    for (; status == SPW_OK && lines < 100; lines++)
        status = spw_sse_push(&sse, "data: 1234567\n", 14, on_event, &seen);
    assert_int_equal(status, SPW_TOO_LARGE);
    assert_int_equal(lines, 9); /* eight make 63 bytes with the LFs between them */
    assert_int_equal(seen.events, 1);
    spw_sse_done(&sse);
}

static void stop_is_obeyed(void **state)
{
    (void)state;
    struct spw_sse sse;
    struct seen seen = {.stop_at = 2};
    spw_sse_init(&sse, 64);
    assert_int_equal(spw_sse_push(&sse, "data: a\n\ndata: b\n\ndata: c\n\n", 27, on_event, &seen),
                     SPW_CANCELLED);
    assert_string_equal(seen.text, "=a|=b|");
    spw_sse_done(&sse);
}

static struct spw_openai_chunk parse(const char *text)
{
    struct spw_openai_chunk chunk;
    struct spw_error error = {{0}};
    if (spw_openai_chunk_parse(text, strlen(text), &chunk, &error))
        fail_msg("%s: %s", text, error.text);
    return chunk;
}

static void chunks_of_many_servers(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text, *reason;
        bool output;
    } rows[] = {
        {"{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
         "\"finish_reason\":null}]}",
         "", NULL, false},
        {"{\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}", "Hi", NULL, true},
        {"{\"choices\":[{\"text\":\" a\",\"finish_reason\":\"length\"}]}", " a", "length", true},
        {"{\"choices\":[{\"message\":{\"content\":\"whole\"},\"finish_reason\":\"stop\"}]}",
         "whole", "stop", true},
        {"{\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}", "", NULL, true},
        {"{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}", "", NULL, true},
        {"{\"choices\":[{\"delta\":{\"tool_calls\":[]}}]}", "", NULL, false},
        {"{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}", "", "stop",
         false},
        {"{\"choices\":[]}", "", NULL, false},
        {"{\"choices\":[null,7],\"usage\":[]}", "", NULL, false},
        {"{}", "", NULL, false},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct spw_openai_chunk chunk = parse(rows[i].json);
        assert_string_equal(chunk.text, rows[i].text);
        assert_int_equal(chunk.text_bytes, strlen(rows[i].text));
        assert_int_equal(chunk.output, rows[i].output);
        assert_false(chunk.usage);
        assert_null(chunk.error);
        if (rows[i].reason)
            assert_string_equal(chunk.finish_reason, rows[i].reason);
        else
            assert_null(chunk.finish_reason);
        spw_openai_chunk_done(&chunk);
    }
}

static void usage_and_errors(void **state)
{
    (void)state;
    struct spw_openai_chunk chunk =
        parse("{\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":34,"
              "\"prompt_tokens_details\":{\"cached_tokens\":8}}}");
    assert_true(chunk.usage);
    assert_int_equal(chunk.prompt_tokens, 12);
    assert_int_equal(chunk.output_tokens, 34);
    assert_int_equal(chunk.cached_tokens, 8);
    spw_openai_chunk_done(&chunk);
    chunk = parse("{\"usage\":{\"prompt_tokens\":-5,\"completion_tokens\":\"x\"}}");
    assert_true(chunk.usage && chunk.prompt_tokens == 0 && chunk.output_tokens == 0);
    spw_openai_chunk_done(&chunk);
    static const char *const errors[] = {
        "{\"error\":{\"message\":\"full\",\"code\":1}}",
        "{\"error\":\"full\"}",
        "{\"object\":\"error\",\"message\":\"full\"}",
        "{\"detail\":\"full\"}",
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(errors); i++) {
        chunk = parse(errors[i]);
        assert_string_equal(chunk.error, "full");
        spw_openai_chunk_done(&chunk);
    }
    chunk = parse("{\"error\":{}}");
    assert_non_null(chunk.error);
    spw_openai_chunk_done(&chunk);
    static const char *const wrong[] = {
        "", "[]", "7", "{\"choices\":", "{} {}", "\"secret words\""};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(wrong); i++) {
        struct spw_error error = {{0}};
        assert_int_equal(spw_openai_chunk_parse(wrong[i], strlen(wrong[i]), &chunk, &error),
                         SPW_CORRUPT);
        assert_non_null(strstr(error.text, "JSON"));
        assert_null(strstr(error.text, "secret")); /* no answer text in messages */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_as_the_standard_says),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(stop_is_obeyed),
        cmocka_unit_test(chunks_of_many_servers),
        cmocka_unit_test(usage_and_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
