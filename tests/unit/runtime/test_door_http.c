/* The HTTP door against a fake loop: every endpoint, every refusal, what a request asks of the
 * loop. */
#include "tests/unit/runtime/http_client.h"
#include "tests/unit/runtime/http_fake.h"

#include "runtime/base/log.h"

#include <setjmp.h>
#include <stdarg.h>
/* cmocka wants the two above */
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct http_fake *fake;
static const char *address;

static int load(void **state)
{
    (void)state;
    fake = http_fake_create();
    return fake ? 0 : -1;
}

static int unload(void **state)
{
    (void)state;
    http_fake_destroy(fake);
    return 0;
}

static int start(void **state)
{
    (void)state;
    http_fake_start(
        fake, &(struct spw_door_http_config){.tcp = "127.0.0.1:0", .connections_max = 64}, NULL);
    address = spw_door_http_address(fake->http);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    http_fake_stop(fake, 0);
    return 0;
}

static json_t *post(const char *path, const char *body, int *status)
{
    return http_call(address, path, NULL, body, status);
}

static const char *text_at(const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));
    return text ? text : "";
}

static long number_at(const json_t *json, const char *key)
{
    const json_t *value = json_object_get(json, key);
    assert_true(json_is_integer(value));
    return (long)json_integer_value(value);
}

static const json_t *first_choice(const json_t *json)
{
    const json_t *choices = json_object_get(json, "choices");
    assert_int_equal(json_array_size(choices), 1);
    return json_array_get(choices, 0);
}

/* Text of `count` fake tokens after this prompt, as the tokenizer decodes them in one go. */
static char *expected_text(const char *prompt, bool add_special, uint32_t count)
{
    struct spw_token_list list = {0};
    struct spw_buffer text;
    int32_t ids[512];
    spw_buffer_init(&text, 1u << 20);
    assert_int_equal(spw_tokenizer_encode(fake->tokenizer, prompt, strlen(prompt),
                                          SPW_TOKENIZE_PARSE_SPECIAL |
                                              (add_special ? SPW_TOKENIZE_ADD_SPECIAL : 0u),
                                          512, &list),
                     SPW_OK);
    for (uint32_t i = 0; i < count; i++)
        ids[i] = http_fake_token(list.ids, list.count, i);
    spw_tokenizer_decode(fake->tokenizer, ids, count, true, &text);
    char *copy = strdup(spw_buffer_text(&text));
    spw_buffer_done(&text);
    spw_token_list_done(&list);
    return copy;
}

/* --- small endpoints --- */

static void test_models(void **state)
{
    int status;
    (void)state;
    json_t *json = http_call(address, "/v1/models", NULL, NULL, &status);
    assert_int_equal(status, 200);
    assert_string_equal(text_at(json, "object"), "list");
    assert_int_equal(json_array_size(json_object_get(json, "data")), 1);
    const json_t *model = json_array_get(json_object_get(json, "data"), 0);
    assert_string_equal(text_at(model, "id"), "demo");
    assert_string_equal(text_at(model, "object"), "model");
    assert_int_equal(number_at(model, "created"), 1700000000);
    assert_int_equal(number_at(model, "max_model_len"), 512);
    json_decref(json);
    json = http_call(address, "/v1/models/demo", NULL, NULL, &status);
    assert_int_equal(status, 200);
    assert_string_equal(text_at(json, "id"), "demo");
    json_decref(json);
    json = http_call(address, "/v1/models/other", NULL, NULL, &status);
    assert_int_equal(status, 404);
    assert_string_equal(text_at(json_object_get(json, "error"), "code"), "model_not_found");
    json_decref(json);
}

static void test_health(void **state)
{
    int status;
    (void)state;
    json_t *json = http_call(address, "/health", NULL, NULL, &status);
    assert_int_equal(status, 200);
    assert_true(json_is_true(json_object_get(json, "healthy")));
    json_decref(json);
    atomic_store(&fake->healthy, false);
    json_decref(http_call(address, "/health", NULL, NULL, &status));
    assert_int_equal(status, 503);
    json_decref(http_call(address, "/ready", NULL, NULL, &status));
    assert_int_equal(status, 200);
    atomic_store(&fake->ready, false);
    json_decref(http_call(address, "/ready", NULL, NULL, &status));
    assert_int_equal(status, 503);
    json = post("/v1/completions", "{\"prompt\":\"a\"}", &status);
    assert_int_equal(status, 503);
    assert_string_equal(text_at(json_object_get(json, "error"), "code"), "service_unavailable");
    json_decref(json);
    json_decref(http_call(address, "/status", NULL, NULL, &status));
    assert_int_equal(status, 200);
}

static void test_texts(void **state)
{
    static const struct {
        const char *path, *type, *part;
    } rows[] = {
        {"/metrics", "text/plain; version=0.0.4; charset=utf-8", "spillway_test 1\n"},
        {"/", "text/html; charset=utf-8", "fetch('/status'"},
        {"/status", "application/json", "\"ready\":true"},
    };
    (void)state;
    int fd = http_connect(address); /* one connection for all: it is kept */
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct http_reply reply;
        http_ask(fd, rows[i].path, NULL, NULL);
        http_read(fd, &reply, false);
        assert_int_equal(reply.status, 200);
        assert_string_equal(http_header(&reply, "Content-Type"), rows[i].type);
        assert_non_null(strstr(spw_buffer_text(&reply.body), rows[i].part));
        assert_int_equal(strlen(http_header(&reply, "X-Spillway-Request-Id")), 16);
        http_reply_done(&reply);
    }
    close(fd);
}

/* The page asks nothing of other hosts. */
static void test_page_is_alone(void **state)
{
    struct spw_buffer page;
    (void)state;
    spw_buffer_init(&page, 1u << 20);
    spw_http_page(&page);
    assert_null(strstr(spw_buffer_text(&page), "//"));
    spw_buffer_done(&page);
}

static void ask_method(const char *method, const char *path, struct http_reply *reply)
{
    char text[256];
    int fd = http_connect(address);
    int bytes = snprintf(text, sizeof(text),
                         "%s %s HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n", method, path);
    http_send(fd, text, (size_t)bytes);
    http_read(fd, reply, strcmp(method, "HEAD") == 0);
    close(fd);
}

static void test_methods(void **state)
{
    static const struct {
        const char *method, *path;
        int status;
        const char *allow;
    } rows[] = {
        {"HEAD", "/v1/models", 200, ""},
        {"HEAD", "/health", 200, ""},
        {"OPTIONS", "/v1/models", 204, "GET, HEAD, OPTIONS"},
        {"OPTIONS", "/v1/chat/completions", 204, "POST, OPTIONS"},
        {"GET", "/v1/chat/completions", 405, "POST, OPTIONS"},
        {"PUT", "/tokenize", 405, "POST, OPTIONS"},
        {"POST", "/v1/models", 405, "GET, HEAD, OPTIONS"},
        {"DELETE", "/v1/models/demo", 405, "GET, HEAD, OPTIONS"},
        {"GET", "/v1/nothing", 404, ""},
        {"GET", "/v1/models/", 404, ""},
        {"POST", "/v1/embeddings", 404, ""},
        {"POST", "/v1/completions", 415, ""},
    };
    (void)state;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct http_reply reply;
        ask_method(rows[i].method, rows[i].path, &reply);
        assert_int_equal(reply.status, rows[i].status);
        assert_string_equal(http_header(&reply, "Allow"), rows[i].allow);
        assert_true(reply.complete);
        http_reply_done(&reply);
    }
}

/* --- tokenize, detokenize --- */

static void test_tokenize(void **state)
{
    int status;
    (void)state;
    json_t *json = post("/tokenize", "{\"model\":\"demo\",\"prompt\":\"Hello there\"}", &status);
    assert_int_equal(status, 200);
    struct spw_token_list list = {0};
    assert_int_equal(spw_tokenizer_encode(fake->tokenizer, "Hello there", 11,
                                          SPW_TOKENIZE_ADD_SPECIAL | SPW_TOKENIZE_PARSE_SPECIAL,
                                          100, &list),
                     SPW_OK);
    assert_int_equal(number_at(json, "count"), list.count);
    assert_int_equal(number_at(json, "max_model_len"), 512);
    const json_t *tokens = json_object_get(json, "tokens");
    assert_int_equal(json_array_size(tokens), list.count);
    for (size_t i = 0; i < list.count; i++)
        assert_int_equal(json_integer_value(json_array_get(tokens, i)), list.ids[i]);
    assert_int_equal(list.ids[0], 1531); /* <|bos|> */
    spw_token_list_done(&list);
    char *ids = json_dumps(tokens, JSON_COMPACT), body[512];
    json_decref(json);
    snprintf(body, sizeof(body), "{\"tokens\":%s}", ids);
    free(ids);
    json = post("/detokenize", body, &status);
    assert_int_equal(status, 200);
    assert_string_equal(text_at(json, "prompt"), "<|bos|>Hello there");
    json_decref(json);

    json = post("/tokenize",
                "{\"prompt\":\"Hello\",\"add_special_tokens\":false,\"return_token_strs\":true}",
                &status);
    assert_int_equal(json_array_size(json_object_get(json, "token_strs")),
                     number_at(json, "count"));
    assert_int_not_equal(json_integer_value(json_array_get(json_object_get(json, "tokens"), 0)),
                         1531);
    json_decref(json);

    json = post("/tokenize",
                "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
                "\"add_generation_prompt\":true}",
                &status);
    assert_int_equal(status, 200);
    tokens = json_object_get(json, "tokens");
    size_t count = json_array_size(tokens);
    assert_int_equal(json_integer_value(json_array_get(tokens, 0)), 1531);
    assert_int_equal(json_integer_value(json_array_get(tokens, 1)), 1533);
    assert_int_equal(json_integer_value(json_array_get(tokens, count - 2)), 1535);
    assert_int_equal(json_integer_value(json_array_get(tokens, count - 1)), 1534);
    json_decref(json);
}

/* More than the context is counted, not refused. */
static void test_tokenize_long(void **state)
{
    char *body = malloc(9000);
    int status;
    (void)state;
    int at = snprintf(body, 9000, "{\"prompt\":\"");
    for (int i = 0; i < 1000; i++)
        at += snprintf(body + at, 9000 - (size_t)at, "1 2 3 4 ");
    snprintf(body + at, 9000 - (size_t)at, "\"}");
    json_t *json = post("/tokenize", body, &status);
    assert_int_equal(status, 200);
    assert_true(number_at(json, "count") > 4000);
    json_decref(json);
    free(body);
}

/* --- completions --- */

static void test_completion(void **state)
{
    int status;
    (void)state;
    json_t *json = post("/v1/completions",
                        "{\"model\":\"demo\",\"prompt\":\"Once\",\"max_tokens\":20}", &status);
    assert_int_equal(status, 200);
    assert_string_equal(text_at(json, "object"), "text_completion");
    assert_int_equal(strncmp(text_at(json, "id"), "cmpl-", 5), 0);
    assert_string_equal(text_at(json, "model"), "demo");
    const json_t *choice = first_choice(json);
    char *wanted = expected_text("Once", true, 20);
    assert_string_equal(text_at(choice, "text"), wanted);
    free(wanted);
    assert_int_equal(number_at(choice, "index"), 0);
    assert_string_equal(text_at(choice, "finish_reason"), "length");
    assert_true(json_is_null(json_object_get(choice, "logprobs")));
    assert_null(json_object_get(choice, "token_ids"));
    const json_t *usage = json_object_get(json, "usage");
    assert_int_equal(number_at(usage, "completion_tokens"), 20);
    assert_int_equal(number_at(usage, "prompt_tokens"), http_fake_last(fake).prompt_tokens);
    assert_int_equal(number_at(usage, "total_tokens"), 20 + http_fake_last(fake).prompt_tokens);
    json_decref(json);
    json_decref(post("/v1/completions", "{\"prompt\":\"Once\"}", &status));
    assert_int_equal(status, 200);
    assert_int_equal(http_fake_last(fake).output_tokens_max, 16);
}

static void test_prompt_forms(void **state)
{
    static const struct {
        const char *prompt;
        int32_t ids[4];
        uint32_t count;
    } rows[] = {
        {"[5,6,7]", {5, 6, 7}, 3},
        {"[[5,6,7]]", {5, 6, 7}, 3},
        {"[\"<|bos|>\"]", {1531, 1531}, 2},
        {"\"<|bos|>\"", {1531, 1531}, 2},
    };
    (void)state;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        char body[128];
        int status;
        snprintf(body, sizeof(body), "{\"prompt\":%s,\"max_tokens\":2,\"return_token_ids\":true}",
                 rows[i].prompt);
        json_t *json = post("/v1/completions", body, &status);
        assert_int_equal(status, 200);
        struct http_fake_asked asked = http_fake_last(fake);
        assert_int_equal(asked.prompt_tokens, rows[i].count);
        assert_memory_equal(asked.prompt, rows[i].ids, rows[i].count * sizeof(int32_t));
        const json_t *choice = first_choice(json);
        const json_t *prompt_ids = json_object_get(choice, "prompt_token_ids");
        const json_t *ids = json_object_get(choice, "token_ids");
        assert_int_equal(json_array_size(prompt_ids), rows[i].count);
        assert_int_equal(json_array_size(ids), 2);
        for (uint32_t k = 0; k < 2; k++)
            assert_int_equal(json_integer_value(json_array_get(ids, k)),
                             http_fake_token(rows[i].ids, rows[i].count, k));
        for (uint32_t k = 0; k < rows[i].count; k++)
            assert_int_equal(json_integer_value(json_array_get(prompt_ids, k)), rows[i].ids[k]);
        json_decref(json);
    }
}

static void test_completion_logprobs(void **state)
{
    int status;
    (void)state;
    json_t *json =
        post("/v1/completions", "{\"prompt\":[1,2,3],\"max_tokens\":5,\"logprobs\":3}", &status);
    assert_int_equal(status, 200);
    const json_t *choice = first_choice(json);
    const json_t *logprobs = json_object_get(choice, "logprobs");
    const json_t *values = json_object_get(logprobs, "token_logprobs");
    const json_t *tops = json_object_get(logprobs, "top_logprobs");
    assert_int_equal(json_array_size(json_object_get(logprobs, "tokens")), 5);
    assert_int_equal(json_array_size(json_object_get(logprobs, "text_offset")), 5);
    assert_int_equal(
        json_integer_value(json_array_get(json_object_get(logprobs, "text_offset"), 0)), 0);
    assert_int_equal(json_array_size(values), 5);
    assert_int_equal(json_array_size(tops), 5);
    for (uint32_t i = 0; i < 5; i++) {
        /* the very float comes back */
        assert_true((float)json_number_value(json_array_get(values, i)) == http_fake_logprob(i));
        assert_in_range(json_object_size(json_array_get(tops, i)), 1, 3);
    }
    json_decref(json);
    json = post("/v1/completions", "{\"prompt\":[1,2,3],\"max_tokens\":5,\"logprobs\":0}", &status);
    logprobs = json_object_get(first_choice(json), "logprobs");
    assert_int_equal(json_array_size(json_object_get(logprobs, "token_logprobs")), 5);
    assert_true(json_is_null(json_object_get(logprobs, "top_logprobs")));
    json_decref(json);
}

static void test_chat(void **state)
{
    int status;
    (void)state;
    json_t *json =
        post("/v1/chat/completions",
             "{\"model\":\"demo\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"},"
             "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"},"
             "{\"type\":\"text\",\"text\":\"you\"}]}],\"max_completion_tokens\":7,"
             "\"return_token_ids\":true,\"user\":\"me\",\"n\":1,\"presence_penalty\":0.0}",
             &status);
    assert_int_equal(status, 200);
    assert_string_equal(text_at(json, "object"), "chat.completion");
    assert_int_equal(strncmp(text_at(json, "id"), "chatcmpl-", 9), 0);
    assert_string_equal(text_at(json, "system_fingerprint"), "cpu-f32-0123456789ab");
    const json_t *choice = first_choice(json);
    const json_t *message = json_object_get(choice, "message");
    assert_string_equal(text_at(message, "role"), "assistant");
    char *wanted = expected_text("<|bos|><|system|>Be brief.<|end|><|user|>Hi\nyou<|end|>"
                                 "<|assistant|>",
                                 false, 7);
    assert_string_equal(text_at(message, "content"), wanted);
    free(wanted);
    assert_int_equal(json_array_size(json_object_get(choice, "token_ids")), 7);
    assert_int_equal(json_array_size(json_object_get(json, "prompt_token_ids")),
                     http_fake_last(fake).prompt_tokens);
    json_decref(json);
}

static void test_chat_logprobs(void **state)
{
    int status;
    (void)state;
    json_t *json = post("/v1/chat/completions",
                        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"max_tokens\":6,"
                        "\"logprobs\":true,\"top_logprobs\":2}",
                        &status);
    assert_int_equal(status, 200);
    const json_t *content =
        json_object_get(json_object_get(first_choice(json), "logprobs"), "content");
    assert_int_equal(json_array_size(content), 6);
    for (uint32_t i = 0; i < 6; i++) {
        const json_t *entry = json_array_get(content, i);
        assert_true((float)json_number_value(json_object_get(entry, "logprob")) ==
                    http_fake_logprob(i));
        assert_true(json_array_size(json_object_get(entry, "bytes")) > 0);
        const json_t *tops = json_object_get(entry, "top_logprobs");
        assert_int_equal(json_array_size(tops), 2);
        assert_true(json_equal(json_object_get(json_array_get(tops, 0), "bytes"),
                               json_object_get(entry, "bytes")));
    }
    json_decref(json);
}

/* --- what reaches the loop --- */

static void test_settings(void **state)
{
    int status;
    (void)state;
    json_decref(http_call(address, "/v1/completions",
                          "X-Spillway-Priority: high\r\nX-Spillway-Deadline-Ms: 60000\r\n",
                          "{\"prompt\":[1],\"max_tokens\":3,\"temperature\":0.25,\"top_p\":0.5,"
                          "\"top_k\":9,\"seed\":-4,\"ignore_eos\":true,\"stop_token_ids\":[4,8]}",
                          &status));
    assert_int_equal(status, 200);
    struct http_fake_asked asked = http_fake_last(fake);
    assert_true(asked.sampling.temperature == 0.25f && asked.sampling.top_p == 0.5f);
    assert_int_equal(asked.sampling.top_k, 9);
    assert_true(asked.sampling.seed == (uint64_t)-4);
    assert_true(asked.ignore_eos);
    assert_int_equal(asked.stop_token_count, 2);
    assert_int_equal(asked.stop_tokens[1], 8);
    assert_int_equal(asked.output_tokens_max, 3);
    assert_int_equal(asked.priority, 0);
    assert_true(asked.deadline_ns > 0);
    json_decref(http_call(address, "/v1/completions", "X-Spillway-Priority: 2\r\n",
                          "{\"prompt\":[1],\"max_tokens\":3,\"top_k\":-1}", &status));
    asked = http_fake_last(fake);
    assert_int_equal(asked.priority, 2);
    json_decref(http_call(address, "/v1/completions", "X-Spillway-Priority: Batch\r\n",
                          "{\"prompt\":[1],\"max_tokens\":3,\"top_k\":-1}", &status));
    asked = http_fake_last(fake);
    assert_int_equal(asked.priority, 2);
    assert_int_equal(asked.sampling.top_k, 0);
    assert_true(asked.sampling.temperature == 1.0f && asked.sampling.top_p == 1.0f);
    assert_true(asked.deadline_ns == 0 && !asked.ignore_eos);
    json_decref(http_call(address, "/v1/chat/completions", NULL,
                          "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", &status));
    asked = http_fake_last(fake);
    assert_int_equal(asked.priority, 1);
    assert_int_equal(asked.output_tokens_max, 512 - asked.prompt_tokens);
}

static void test_stop_string(void **state)
{
    struct spw_token_list list = {0};
    int status;
    (void)state;
    assert_int_equal(spw_tokenizer_encode(fake->tokenizer, "one two END three ", 18, 0, 100, &list),
                     SPW_OK);
    atomic_store(&fake->script, &list);
    json_t *json = post("/v1/completions",
                        "{\"prompt\":[1],\"max_tokens\":200,\"stop\":[\"xyz\",\" END\"]}", &status);
    assert_int_equal(status, 200);
    assert_string_equal(text_at(first_choice(json), "text"), "one two");
    assert_string_equal(text_at(first_choice(json), "finish_reason"), "stop");
    assert_string_equal(text_at(first_choice(json), "stop_reason"), " END");
    assert_true(number_at(json_object_get(json, "usage"), "completion_tokens") <= (long)list.count);
    json_decref(json);
    json = post("/v1/completions",
                "{\"prompt\":[1],\"max_tokens\":200,\"stop\":\" END\","
                "\"include_stop_str_in_output\":true}",
                &status);
    assert_string_equal(text_at(first_choice(json), "text"), "one two END");
    json_decref(json);
    atomic_store(&fake->eos_at, 2); /* and the model's own end */
    json = post("/v1/completions", "{\"prompt\":[1],\"max_tokens\":200}", &status);
    assert_string_equal(text_at(first_choice(json), "finish_reason"), "stop");
    assert_int_equal(number_at(json_object_get(json, "usage"), "completion_tokens"), 2);
    assert_true(json_is_null(json_object_get(first_choice(json), "stop_reason")));
    json_decref(json);
    json = post("/v1/completions",
                "{\"prompt\":[1],\"max_tokens\":6,\"ignore_eos\":true,"
                "\"skip_special_tokens\":false}",
                &status);
    assert_non_null(strstr(text_at(first_choice(json), "text"), "<|end|>"));
    assert_int_equal(number_at(json_object_get(json, "usage"), "completion_tokens"), 6);
    json_decref(json);
    atomic_store(&fake->script, NULL);
    spw_token_list_done(&list);
}

/* --- refusals --- */

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]"

static const struct refusal {
    const char *path, *body;
    int status;
    const char *code, *param;
} refusals[] = {
    {"completions", "", 400, "invalid_json", ""},
    {"completions", "{\"prompt\":\"a\",}", 400, "invalid_json", ""},
    {"completions", "[1]", 400, "invalid_json", ""},
    {"completions", "{\"prompt\":\"a\",\"prompt\":\"b\"}", 400, "invalid_json", ""},
    {"completions", "{\"prompt\":\"\xff\"}", 400, "invalid_utf8", ""},
    {"completions", "{\"prompt\":\"\xed\xa0\x80\"}", 400, "invalid_utf8", ""},
    {"completions", "{\"prompt\":\"a\\u0000b\"}", 400, "invalid_json", ""},
    {"completions", "{\"prompt\":\"a\",\"seed\":99999999999999999999}", 400, "invalid_json", ""},
    {"completions", "{\"model\":\"gpt-9\",\"prompt\":\"a\"}", 404, "model_not_found", "model"},
    {"completions", "{\"model\":7,\"prompt\":\"a\"}", 400, "invalid_type", "model"},
    {"completions", "{}", 400, "missing_required_parameter", "prompt"},
    {"completions", "{\"prompt\":7}", 400, "invalid_type", "prompt"},
    {"completions", "{\"prompt\":[]}", 400, "invalid_value", "prompt"},
    {"completions", "{\"prompt\":[\"a\",\"b\"]}", 400, "unsupported", "prompt"},
    {"completions", "{\"prompt\":[1,\"b\"]}", 400, "invalid_type", "prompt"},
    {"completions", "{\"prompt\":[1,-2]}", 400, "invalid_value", "prompt"},
    {"completions", "{\"prompt\":[1536]}", 400, "invalid_value", "prompt"},
    {"completions", "{\"prompt\":[1,3000000000]}", 400, "invalid_value", "prompt"},
    {"completions", "{\"prompt\":\"a\",\"max_tokens\":0}", 400, "invalid_value", "max_tokens"},
    {"completions", "{\"prompt\":\"a\",\"max_tokens\":1.5}", 400, "invalid_type", "max_tokens"},
    {"completions", "{\"prompt\":\"a\",\"max_tokens\":512}", 400, "context_length_exceeded",
     "prompt"},
    {"completions", "{\"prompt\":\"a\",\"n\":2}", 400, "unsupported", "n"},
    {"completions", "{\"prompt\":\"a\",\"best_of\":2}", 400, "unsupported", "best_of"},
    {"completions", "{\"prompt\":\"a\",\"echo\":true}", 400, "unsupported", "echo"},
    {"completions", "{\"prompt\":\"a\",\"suffix\":\"x\"}", 400, "unsupported", "suffix"},
    {"completions", "{\"prompt\":\"a\",\"logit_bias\":{\"5\":1}}", 400, "unsupported",
     "logit_bias"},
    {"completions", "{\"prompt\":\"a\",\"repetition_penalty\":1.1}", 400, "unsupported",
     "repetition_penalty"},
    {"completions", "{\"prompt\":\"a\",\"max_tokns\":3}", 400, "unknown_parameter", "max_tokns"},
    {"completions", "{\"prompt\":\"a\",\"temperature\":-1}", 400, "invalid_value", "temperature"},
    {"completions", "{\"prompt\":\"a\",\"temperature\":\"x\"}", 400, "invalid_type", "temperature"},
    {"completions", "{\"prompt\":\"a\",\"top_p\":0}", 400, "invalid_value", "top_p"},
    {"completions", "{\"prompt\":\"a\",\"logprobs\":21}", 400, "invalid_value", "logprobs"},
    {"completions", "{\"prompt\":\"a\",\"stop\":[\"\"]}", 400, "invalid_value", "stop"},
    {"completions", "{\"prompt\":\"a\",\"stop\":[1]}", 400, "invalid_type", "stop"},
    {"completions",
     "{\"prompt\":\"a\",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\","
     "\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\"]}",
     400, "invalid_value", "stop"},
    {"completions", "{\"prompt\":\"a\",\"stop_token_ids\":[-1]}", 400, "invalid_value",
     "stop_token_ids"},
    {"completions", "{\"prompt\":\"a\",\"stream\":\"yes\"}", 400, "invalid_type", "stream"},
    {"completions", "{\"prompt\":\"a\",\"stream_options\":{\"include_usage\":true}}", 400,
     "invalid_value", "stream_options"},
    {"chat/completions", "{}", 400, "missing_required_parameter", "messages"},
    {"chat/completions", "{\"messages\":[]}", 400, "invalid_type", "messages"},
    {"chat/completions", "{\"messages\":[\"a\"]}", 400, "invalid_type", "messages"},
    {"chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":5}]}", 400, "invalid_type",
     "messages"},
    {"chat/completions",
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", 400,
     "unsupported", "messages"},
    {"chat/completions", "{\"messages\":[{\"role\":\"robot\",\"content\":\"a\"}]}", 400,
     "invalid_value", "messages"}, /* the template's own words */
    {"chat/completions", "{" USER ",\"tool_choice\":\"required\"}", 400, "unsupported",
     "tool_choice"},
    {"chat/completions", "{" USER ",\"response_format\":{\"type\":\"json_object\"}}", 400,
     "unsupported", "response_format"},
    {"chat/completions", "{" USER ",\"frequency_penalty\":0.5}", 400, "unsupported",
     "frequency_penalty"},
    {"chat/completions", "{" USER ",\"top_logprobs\":3}", 400, "invalid_value", "top_logprobs"},
    {"chat/completions", "{" USER ",\"logprobs\":3}", 400, "invalid_type", "logprobs"},
    {"chat/completions", "{" USER ",\"tools\":[5]}", 400, "invalid_type", "tools"},
    {"chat/completions", "{" USER ",\"prompt\":\"x\"}", 400, "unknown_parameter", "prompt"},
    {"chat/completions", "{" USER ",\"max_tokens\":3,\"max_completion_tokens\":4}", 400,
     "invalid_value", "max_completion_tokens"},
};

static void check_error(const json_t *json, const struct refusal *row)
{
    const json_t *error = json_object_get(json, "error");
    assert_string_equal(text_at(error, "code"), row->code);
    assert_string_equal(text_at(error, "param"), row->param);
    assert_string_equal(text_at(error, "type"), "invalid_request_error");
    assert_true(strlen(text_at(error, "message")) > 5);
}

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(refusals); i++) {
        char path[64];
        int status;
        snprintf(path, sizeof(path), "/v1/%s", refusals[i].path);
        json_t *json = post(path, refusals[i].body, &status);
        if (status != refusals[i].status)
            print_error("%s\n", refusals[i].body);
        assert_int_equal(status, refusals[i].status);
        check_error(json, &refusals[i]);
        json_decref(json);
    }
    assert_int_equal(atomic_load(&fake->taken), 0); /* nothing of this reached the loop */
}

static void test_json_position(void **state)
{
    int status;
    (void)state;
    json_t *json = post("/v1/completions", "{\"prompt\":\n  oops}", &status);
    assert_non_null(strstr(text_at(json_object_get(json, "error"), "message"), "line 2 column"));
    json_decref(json);
}

static void test_deep_json(void **state)
{
    char body[300] = "{\"prompt\":";
    int status;
    (void)state;
    memset(body + strlen(body), '[', 100);
    json_t *json = post("/v1/completions", body, &status);
    assert_int_equal(status, 400);
    assert_non_null(strstr(text_at(json_object_get(json, "error"), "message"), "nests deeper"));
    json_decref(json);
}

/* Whose request it is goes on to the loop, with names of blocks that only that tenant has. */
static void test_tenants(void **state)
{
    static const struct {
        const char *headers;
        uint32_t tenant;
    } rows[] = {{"", 0},
                {"X-Spillway-Tenant: default\r\n", 0},
                {"X-Spillway-Tenant: research\r\n", 1},
                {"x-spillway-tenant: web\r\n", 2}};
    static const char body[] =
        "{\"prompt\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17],\"max_tokens\":1}";
    struct spw_sched_hash seen[4];
    int status;
    (void)state;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        json_t *json = http_call(address, "/v1/completions", rows[i].headers, body, &status);
        assert_int_equal(status, 200);
        struct http_fake_asked asked = http_fake_last(fake);
        assert_int_equal(asked.tenant, rows[i].tenant);
        assert_int_equal(asked.hash_count, 2);
        seen[i] = asked.first_hash;
        const json_t *usage = json_object_get(json, "usage");
        assert_int_equal(
            number_at(json_object_get(usage, "prompt_tokens_details"), "cached_tokens"),
            HTTP_FAKE_CACHED);
        json_decref(json);
    }
    assert_memory_equal(&seen[0], &seen[1], sizeof(seen[0]));
    assert_true(seen[0].low != seen[2].low && seen[2].low != seen[3].low);
    static const char *const bad[] = {"nobody", "", "Research", "research=3"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(bad); i++) {
        char header[80], words[200];
        snprintf(header, sizeof(header), "X-Spillway-Tenant: %s\r\n", bad[i]);
        snprintf(words, sizeof(words),
                 "X-Spillway-Tenant is '%s': this deployment has no such tenant, the key tenants "
                 "of its site file names them",
                 bad[i]);
        json_t *json = http_call(address, "/v1/completions", header, body, &status);
        const json_t *fault = json_object_get(json, "error");
        assert_int_equal(status, 400);
        assert_string_equal(text_at(fault, "message"), words);
        assert_string_equal(text_at(fault, "param"), "X-Spillway-Tenant");
        json_decref(json);
    }
}

static void test_bad_headers(void **state)
{
    static const char *const rows[] = {"X-Spillway-Priority: batches\r\n",
                                       "X-Spillway-Priority: 3\r\n", "X-Spillway-Priority: \r\n",
                                       "X-Spillway-Deadline-Ms: 0\r\n",
                                       "X-Spillway-Deadline-Ms: soon\r\n"};
    (void)state;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        int status;
        json_t *json = http_call(address, "/v1/completions", rows[i], "{\"prompt\":[1]}", &status);
        assert_int_equal(status, 400);
        assert_string_equal(text_at(json_object_get(json, "error"), "code"), "invalid_value");
        json_decref(json);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {
        T(test_models),        T(test_health),
        T(test_texts),         cmocka_unit_test(test_page_is_alone),
        T(test_methods),       T(test_tokenize),
        T(test_tokenize_long), T(test_completion),
        T(test_prompt_forms),  T(test_completion_logprobs),
        T(test_chat),          T(test_chat_logprobs),
        T(test_settings),      T(test_stop_string),
        T(test_refusals),      T(test_json_position),
        T(test_deep_json),     T(test_bad_headers),
        T(test_tenants),
    };
    spw_log_level_set(SPW_LOG_ERROR); /* refusals are logged, and this program is full of them */
    return cmocka_run_group_tests(tests, load, unload);
}
