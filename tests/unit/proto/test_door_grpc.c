/* The API as clients see it: every method, every end of an answer, many at once, slow ones, and
 * those that go away.
 */
#include "proto/client.h"
#include "proto/message.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/door_grpc.h"
#include "runtime/model/chat_template.h"
#include "tests/unit/proto/fake_service.h"
#include "tests/unit/proto/raw_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct fake_service fake;
static struct spw_door_grpc *grpc;
static struct spw_client *client;
static char url[128];
static struct spw_chat_template *chat_template;

static int start(void **state)
{
    (void)state;
    static const char source[] = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
                                 "{% if add_generation_prompt %}<assistant>{% endif %}";
    struct spw_error error = {{0}};
    spw_log_level_set(SPW_LOG_ERROR);
    fake_service_init(&fake);
    if (!chat_template)
        assert_int_equal(spw_chat_template_compile(source, strlen(source), &chat_template, &error),
                         SPW_OK);
    fake.service.chat_template = chat_template;
    struct spw_door_grpc_config config = {
        .service = &fake.service,
        .wake_loop = fake_service_wake,
        .wake_context = &fake,
        .tcp = "127.0.0.1:0",
        .unix_path = "",
        .tls_cert = "",
    };
    assert_int_equal(spw_door_grpc_start(&config, &grpc, &error), SPW_OK);
    fake_service_start(&fake, spw_door_grpc_door(grpc));
    snprintf(url, sizeof(url), "http://%s", spw_door_grpc_address(grpc));
    assert_int_equal(spw_client_open(url, NULL, &client, &error), SPW_OK);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    spw_client_close(client);
    fake_service_stop(&fake);
    spw_door_grpc_stop(grpc, 2 * SPW_SECOND);
    fake_service_done(&fake);
    return 0;
}

static int stop_all(void **state)
{
    (void)state;
    spw_chat_template_destroy(chat_template);
    return 0;
}

static bool wait_for(atomic_uint *value, unsigned wanted)
{
    for (int i = 0; i < 4000 && atomic_load(value) != wanted; i++)
        usleep(500);
    return atomic_load(value) == wanted;
}

/* --- an answer, collected and checked --- */

struct answer {
    char id[32], site[32], engine_class[32], digest[80], stop[64];
    struct spw_buffer text;
    size_t messages, tokens, alternatives, most_tokens;
    int32_t ids[8192];
    float logprobs[8192];
    bool finished;
    int reason;
    uint32_t prompt_tokens, output_tokens, cached_tokens;
    size_t stop_after; /* messages; 0: never */
};

static bool collect(void *context, const Spillway__V1__GenerateResponse *response)
{
    struct answer *answer = context;
    assert_false(answer->finished); /* nothing comes after the end */
    if (answer->messages++ == 0) {
        snprintf(answer->id, sizeof(answer->id), "%s", response->request_id);
        snprintf(answer->site, sizeof(answer->site), "%s", response->site);
        snprintf(answer->engine_class, sizeof(answer->engine_class), "%s", response->engine_class);
        snprintf(answer->digest, sizeof(answer->digest), "%s", response->model_digest);
    } else {
        assert_string_equal(response->request_id, "");
    }
    spw_buffer_add(&answer->text, response->text.data, response->text.len);
    answer->most_tokens = SPW_MAX(answer->most_tokens, response->n_tokens);
    for (size_t i = 0; i < response->n_tokens; i++) {
        assert_true(answer->tokens < SPW_ARRAY_COUNT(answer->ids));
        answer->ids[answer->tokens] = response->tokens[i]->id;
        answer->logprobs[answer->tokens++] = response->tokens[i]->logprob;
        answer->alternatives += response->tokens[i]->n_alternatives;
        for (size_t k = 0; k < response->tokens[i]->n_alternatives; k++)
            assert_int_equal(response->tokens[i]->alternatives[k]->id, k);
    }
    if (response->finish) {
        answer->finished = true;
        answer->reason = response->finish->reason;
        answer->prompt_tokens = response->finish->usage->prompt_tokens;
        answer->output_tokens = response->finish->usage->output_tokens;
        answer->cached_tokens = response->finish->usage->cached_tokens;
        snprintf(answer->stop, sizeof(answer->stop), "%s", response->finish->stop);
    }
    return answer->stop_after == 0 || answer->messages < answer->stop_after;
}

static Spillway__V1__GenerateRequest request_of(const char *text, uint32_t max_tokens)
{
    Spillway__V1__GenerateRequest request = SPILLWAY__V1__GENERATE_REQUEST__INIT;
    request.input_case = SPILLWAY__V1__GENERATE_REQUEST__INPUT_TEXT;
    request.text = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
    request.skip_add_special = true;
    request.max_tokens = max_tokens;
    return request;
}

static enum spw_status generate_with(struct spw_client *with,
                                     const Spillway__V1__GenerateRequest *request,
                                     struct answer *answer, struct spw_error *error)
{
    size_t stop_after = answer->stop_after;
    *answer = (struct answer){.stop_after = stop_after};
    error->text[0] = '\0';
    spw_buffer_init(&answer->text, 1u << 20);
    return spw_client_generate(with, request, 20 * SPW_SECOND, collect, answer, error);
}

static struct answer answer;
static struct spw_error error;

static enum spw_status generate(const Spillway__V1__GenerateRequest *request)
{
    spw_buffer_done(&answer.text);
    return generate_with(client, request, &answer, &error);
}

#define STOPPED   SPILLWAY__V1__FINISH_REASON__FINISH_REASON_STOP
#define LENGTH    SPILLWAY__V1__FINISH_REASON__FINISH_REASON_LENGTH
#define CANCELLED SPILLWAY__V1__FINISH_REASON__FINISH_REASON_CANCELLED

static void answers(void **state)
{
    (void)state;
    Spillway__V1__GenerateRequest request = request_of("abc", 7);
    assert_int_equal(generate(&request), SPW_OK);
    assert_string_equal(spw_buffer_text(&answer.text), "abcabca");
    assert_int_equal(answer.reason, LENGTH);
    assert_int_equal(answer.prompt_tokens, 3);
    assert_int_equal(answer.output_tokens, 7);
    assert_int_equal(answer.cached_tokens, 2);
    assert_int_equal(answer.tokens, 7);
    assert_int_equal(strspn(answer.id, "0123456789abcdef"), 16);
    assert_string_equal(answer.site, "local");
    assert_string_equal(answer.engine_class, "cpu-f32");
    assert_int_equal(strlen(answer.digest), 64);
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(answer.ids[i], "abc"[i % 3] + 3);
        assert_true(answer.logprobs[i] == 0); /* not asked for */
    }
    /* log-probabilities and alternatives, the model by its name, special tokens in front */
    request.model = (char *)"fake";
    request.logprobs = true;
    request.top_logprobs = 20;
    request.skip_add_special = false;
    assert_int_equal(generate(&request), SPW_OK);
    assert_int_equal(answer.prompt_tokens, 4);
    assert_int_equal(answer.alternatives, 7 * 20);
    for (size_t i = 0; i < 7; i++)
        assert_true(answer.logprobs[i] == -0.5f * (float)(i + 1));
    assert_string_equal(spw_buffer_text(&answer.text), "abcab"); /* BOS is no text */
    /* a stop string across tokens: what follows is never shown */
    char *stops[] = {(char *)"zz", (char *)"ca"};
    request = request_of("abc", 100);
    request.n_stop = 2;
    request.stop = stops;
    assert_int_equal(generate(&request), SPW_OK);
    assert_string_equal(spw_buffer_text(&answer.text), "ab");
    assert_int_equal(answer.reason, STOPPED);
    assert_string_equal(answer.stop, "ca");
    assert_int_equal(answer.output_tokens, 4);
    /* ids in; EOS ends, unless told otherwise; a zero character stays in the text */
    int32_t ids[] = {'x' + 3, 0 + 3, 2, 'y' + 3};
    Spillway__V1__TokenIds tokens = SPILLWAY__V1__TOKEN_IDS__INIT;
    tokens.n_ids = 4;
    tokens.ids = ids;
    request = request_of("", 6);
    request.input_case = SPILLWAY__V1__GENERATE_REQUEST__INPUT_TOKENS;
    request.tokens = &tokens;
    assert_int_equal(generate(&request), SPW_OK);
    assert_int_equal(answer.reason, STOPPED);
    assert_int_equal(answer.output_tokens, 3);
    assert_int_equal(answer.text.bytes, 2);
    assert_memory_equal(answer.text.data, "x\0", 2);
    request.ignore_eos = true;
    assert_int_equal(generate(&request), SPW_OK);
    assert_int_equal(answer.reason, LENGTH);
    assert_memory_equal(answer.text.data, "x\0yx\0", 5);
    int32_t end = 'y' + 3;
    request.n_stop_token_ids = 1;
    request.stop_token_ids = &end;
    assert_int_equal(generate(&request), SPW_OK);
    assert_int_equal(answer.output_tokens, 4);
    /* chat */
    Spillway__V1__ChatMessage said = SPILLWAY__V1__CHAT_MESSAGE__INIT, *list[] = {&said};
    Spillway__V1__Chat chat = SPILLWAY__V1__CHAT__INIT;
    said.role = (char *)"user";
    said.content = (ProtobufCBinaryData){2, (uint8_t *)"hi"};
    chat.n_messages = 1;
    chat.messages = list;
    request = request_of("", 19);
    request.input_case = SPILLWAY__V1__GENERATE_REQUEST__INPUT_CHAT;
    request.chat = &chat;
    assert_int_equal(generate(&request), SPW_OK);
    assert_string_equal(spw_buffer_text(&answer.text), "<user>hi<assistant>");
}

/* A long answer with all alternatives is many messages, none of them large. */
static void long_answers(void **state)
{
    (void)state;
    Spillway__V1__GenerateRequest request = request_of("0123456789\xe2\x82\xac", 4000);
    request.logprobs = true;
    request.top_logprobs = 20;
    assert_int_equal(generate(&request), SPW_OK);
    assert_int_equal(answer.tokens, 4000);
    assert_int_equal(answer.alternatives, 80000);
    assert_true(answer.most_tokens <= 64);
    assert_int_equal(answer.reason, LENGTH);
    const char *text = spw_buffer_text(&answer.text);
    assert_int_equal(answer.text.bytes, 4000); /* 307 rounds of 13 bytes, and 9 more */
    for (size_t i = 0; i < 4000; i++)
        assert_int_equal((uint8_t)text[i], (uint8_t) "0123456789\xe2\x82\xac"[i % 13]);
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum spw_status status;
        enum spw_grpc_status grpc;
        uint32_t retry_after;
    } ends[] = {{"!full", SPW_FULL, SPW_GRPC_RESOURCE_EXHAUSTED, 7},
                {"!lost", SPW_PEER_LOST, SPW_GRPC_UNAVAILABLE, 0},
                {"!slow", SPW_TIMEOUT, SPW_GRPC_DEADLINE_EXCEEDED, 0}};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(ends); i++) {
        Spillway__V1__GenerateRequest request = request_of(ends[i].text, 5);
        assert_int_equal(generate(&request), ends[i].status);
        assert_int_equal(spw_client_last_status(client), ends[i].grpc);
        assert_int_equal(spw_client_retry_after(client), ends[i].retry_after);
        assert_int_equal(answer.messages, 1); /* it had begun */
        assert_false(answer.finished);
        assert_memory_equal(error.text, "fake: ", 6);
    }
    unsigned before = atomic_load(&fake.failed) + atomic_load(&fake.finished);
    Spillway__V1__Sampling sampling = SPILLWAY__V1__SAMPLING__INIT;
    Spillway__V1__TokenIds tokens = SPILLWAY__V1__TOKEN_IDS__INIT;
    Spillway__V1__Chat chat = SPILLWAY__V1__CHAT__INIT;
    int32_t bad_id = 259;
    char *stops[17], *empty = (char *)"";
    for (size_t i = 0; i < 17; i++)
        stops[i] = (char *)"s";
    char *large = malloc(2u << 20);
    memset(large, 'l', 2u << 20);
    large[(2u << 20) - 1] = '\0';
    for (int what = 0; what < 16; what++) {
        Spillway__V1__GenerateRequest request = request_of("abc", 5);
        enum spw_grpc_status wanted = SPW_GRPC_INVALID_ARGUMENT;
        tokens.n_ids = 0;
        switch (what) {
        case 0:
            request.model = (char *)"other";
            wanted = SPW_GRPC_NOT_FOUND;
            break;
        case 1:
            request.input_case = SPILLWAY__V1__GENERATE_REQUEST__INPUT__NOT_SET;
            break;
        case 2:
            request.text.len = 0;
            break;
        case 3:
            request.text = (ProtobufCBinaryData){1, (uint8_t *)"\xff"};
            break;
        case 4:
            request.max_tokens = FAKE_CONTEXT;
            wanted = SPW_GRPC_OUT_OF_RANGE;
            break;
        case 5:
            request.text = (ProtobufCBinaryData){FAKE_CONTEXT, (uint8_t *)large};
            wanted = SPW_GRPC_OUT_OF_RANGE;
            break;
        case 6:
            request.text = (ProtobufCBinaryData){2u << 20, (uint8_t *)large};
            wanted = SPW_GRPC_RESOURCE_EXHAUSTED; /* larger than a message may be */
            break;
        case 7:
            request.has_priority_case = SPILLWAY__V1__GENERATE_REQUEST__HAS_PRIORITY_PRIORITY;
            request.priority = 3;
            break;
        case 8:
            request.top_logprobs = 3;
            break;
        case 9:
            request.logprobs = true;
            request.top_logprobs = 21;
            break;
        case 10:
            request.n_stop = 17;
            request.stop = stops;
            break;
        case 11:
            request.n_stop = 1;
            request.stop = &empty;
            break;
        case 12:
            sampling.has_temperature_case = SPILLWAY__V1__SAMPLING__HAS_TEMPERATURE_TEMPERATURE;
            sampling.temperature = -1;
            request.sampling = &sampling;
            break;
        case 13:
            tokens.n_ids = 1;
            tokens.ids = &bad_id;
            request.input_case = SPILLWAY__V1__GENERATE_REQUEST__INPUT_TOKENS;
            request.tokens = &tokens;
            break;
        case 14:
            request.input_case = SPILLWAY__V1__GENERATE_REQUEST__INPUT_TOKENS;
            request.tokens = &tokens;
            break;
        case 15:
            request.input_case = SPILLWAY__V1__GENERATE_REQUEST__INPUT_CHAT;
            request.chat = &chat;
            break;
        }
        assert_int_not_equal(generate(&request), SPW_OK);
        if (spw_client_last_status(client) != wanted)
            fail_msg("case %d: %d (%s)", what, (int)spw_client_last_status(client), error.text);
        assert_int_equal(answer.messages, 0);
        assert_true(strlen(error.text) > 10);
    }
    free(large);
    assert_int_equal(atomic_load(&fake.failed) + atomic_load(&fake.finished), before);
    assert_int_equal(atomic_load(&fake.live), 0);
    fake.service.chat_template = NULL;
    Spillway__V1__ChatMessage said = SPILLWAY__V1__CHAT_MESSAGE__INIT, *list[] = {&said};
    said.role = (char *)"user";
    chat.n_messages = 1;
    chat.messages = list;
    Spillway__V1__GenerateRequest request = request_of("", 5);
    request.input_case = SPILLWAY__V1__GENERATE_REQUEST__INPUT_CHAT;
    request.chat = &chat;
    assert_int_equal(generate(&request), SPW_UNSUPPORTED);
}

static void small_methods(void **state)
{
    (void)state;
    Spillway__V1__TokenizeRequest tokenize = SPILLWAY__V1__TOKENIZE_REQUEST__INIT;
    Spillway__V1__TokenizeResponse *ids;
    tokenize.input_case = SPILLWAY__V1__TOKENIZE_REQUEST__INPUT_TEXT;
    tokenize.text = (ProtobufCBinaryData){3, (uint8_t *)"a\0b"};
    assert_int_equal(spw_client_tokenize(client, &tokenize, &ids, &error), SPW_OK);
    assert_int_equal(ids->n_ids, 4);
    assert_int_equal(ids->ids[0], 1);
    assert_int_equal(ids->ids[2], 3);
    Spillway__V1__DetokenizeRequest detokenize = SPILLWAY__V1__DETOKENIZE_REQUEST__INIT;
    Spillway__V1__DetokenizeResponse *text;
    detokenize.n_ids = ids->n_ids;
    detokenize.ids = ids->ids;
    assert_int_equal(spw_client_detokenize(client, &detokenize, &text, &error), SPW_OK);
    assert_int_equal(text->text.len, 6);
    assert_memory_equal(text->text.data, "<s>a\0b", 6);
    protobuf_c_message_free_unpacked(&text->base, NULL);
    detokenize.skip_special = true;
    assert_int_equal(spw_client_detokenize(client, &detokenize, &text, &error), SPW_OK);
    assert_int_equal(text->text.len, 3);
    protobuf_c_message_free_unpacked(&text->base, NULL);
    ids->ids[1] = FAKE_VOCAB;
    assert_int_equal(spw_client_detokenize(client, &detokenize, &text, &error), SPW_INVALID);
    protobuf_c_message_free_unpacked(&ids->base, NULL);
    tokenize.model = (char *)"other";
    assert_int_equal(spw_client_tokenize(client, &tokenize, &ids, &error), SPW_NOT_FOUND);
    tokenize.model = (char *)"";
    tokenize.input_case = SPILLWAY__V1__TOKENIZE_REQUEST__INPUT__NOT_SET;
    assert_int_equal(spw_client_tokenize(client, &tokenize, &ids, &error), SPW_INVALID);
    /* the ids of a chat are those that Generate would start from */
    Spillway__V1__ChatMessage said = SPILLWAY__V1__CHAT_MESSAGE__INIT, *list[] = {&said};
    Spillway__V1__Chat chat = SPILLWAY__V1__CHAT__INIT;
    said.role = (char *)"user";
    said.content = (ProtobufCBinaryData){2, (uint8_t *)"hi"};
    chat.n_messages = 1;
    chat.messages = list;
    tokenize.input_case = SPILLWAY__V1__TOKENIZE_REQUEST__INPUT_CHAT;
    tokenize.chat = &chat;
    assert_int_equal(spw_client_tokenize(client, &tokenize, &ids, &error), SPW_OK);
    assert_int_equal(ids->n_ids, strlen("<user>hi<assistant>"));
    protobuf_c_message_free_unpacked(&ids->base, NULL);

    Spillway__V1__ListModelsResponse *models;
    assert_int_equal(spw_client_models(client, &models, &error), SPW_OK);
    assert_int_equal(models->n_models, 1);
    assert_string_equal(models->models[0]->name, "fake");
    assert_int_equal(models->models[0]->context_tokens, FAKE_CONTEXT);
    assert_int_equal(models->models[0]->vocab, FAKE_VOCAB);
    assert_int_equal(strlen(models->models[0]->digest), 64);
    protobuf_c_message_free_unpacked(&models->base, NULL);

    Spillway__V1__GetStatusResponse *status;
    assert_int_equal(spw_client_status(client, &status, &error), SPW_OK);
    assert_true(status->ready && status->healthy);
    assert_int_equal(status->n_ranks, 2);
    assert_string_equal(status->ranks[0]->role, "coordinator");
    assert_int_equal(status->ranks[0]->replica, -1);
    assert_int_equal(status->ranks[1]->tensor, 1);
    assert_int_equal(status->ranks[1]->steps, 12345678901);
    assert_string_equal(status->ranks[1]->waiting_for, "idle");
    assert_int_equal(status->ranks[1]->pid, 18);
    assert_int_equal(status->requests_waiting, 2);
    assert_int_equal(status->kv_blocks_used, 5);
    assert_int_equal(status->kv_blocks_total, 64);
    assert_non_null(strstr(status->json, "\"blocks_total\":64"));
    protobuf_c_message_free_unpacked(&status->base, NULL);
}

static void health(void **state)
{
    (void)state;
    static const char service[] = "spillway.v1.Spillway";
    bool serving = false;
    assert_int_equal(spw_client_health(client, "", &serving, &error), SPW_OK);
    assert_true(serving);
    atomic_store(&fake.unready, true);
    assert_int_equal(spw_client_health(client, "", &serving, &error), SPW_OK);
    assert_true(serving); /* loads still: alive, not ready */
    assert_int_equal(spw_client_health(client, service, &serving, &error), SPW_OK);
    assert_false(serving);
    assert_int_equal(spw_client_health(client, "other", &serving, &error), SPW_NOT_FOUND);
    /* Watch: the state now, each change, and the end of the server */
    static const uint8_t empty[] = {0, 0, 0, 0, 0};
    struct raw_client raw;
    raw_open(&raw, raw_connect(spw_door_grpc_address(grpc)), false, 0);
    struct raw_stream *watch =
        raw_request(&raw, "/grpc.health.v1.Health/Watch", empty, sizeof(empty), false, NULL);
    while (watch->data.bytes < 7)
        raw_turn(&raw, 100);
    assert_memory_equal(watch->data.data, "\0\0\0\0\2\x08\1", 7);
    atomic_store(&fake.unhealthy, true);
    while (watch->data.bytes < 14)
        raw_turn(&raw, 100);
    assert_memory_equal(watch->data.data + 7, "\0\0\0\0\2\x08\2", 7);
    spw_door_grpc_drain(grpc, 20 * SPW_SECOND);
    assert_true(raw_run(&raw, watch, 5000)); /* a watch does not hold the drain up */
    assert_int_equal(watch->grpc_status, SPW_GRPC_UNAVAILABLE);
    raw_close(&raw);
}

/* --- cancelling --- */

static void client_goes_away(void **state)
{
    (void)state;
    atomic_store(&fake.tokens_per_turn, 1);
    atomic_store(&fake.turn_us, 1000);
    Spillway__V1__GenerateRequest request = request_of("abc", 4000);
    answer.stop_after = 4;
    assert_int_equal(generate(&request), SPW_CANCELLED);
    assert_true(wait_for(&fake.cancelled, 1)); /* the loop was told */
    assert_true(wait_for(&fake.live, 0));
    answer.stop_after = 0;
    /* the connection breaks */
    atomic_store(&fake.paused, true);
    struct raw_client raw;
    struct spw_buffer body, packed;
    spw_buffer_init(&packed, 1000);
    spw_buffer_init(&body, 1000);
    spw_message_pack(&request.base, &packed);
    raw_frame(&body, packed.data, packed.bytes);
    raw_open(&raw, raw_connect(spw_door_grpc_address(grpc)), false, 0);
    for (int i = 0; i < 3; i++)
        raw_request(&raw, "/spillway.v1.Spillway/Generate", body.data, body.bytes, false, NULL);
    while (atomic_load(&fake.live) < 3)
        raw_turn(&raw, 20);
    raw_close(&raw);
    assert_true(wait_for(&fake.cancelled, 4));
    assert_true(wait_for(&fake.live, 0));
    spw_buffer_done(&body);
    spw_buffer_done(&packed);
}

struct canceller {
    struct answer *answer;
    atomic_bool seen;
    bool found, found_again;
};

static bool collect_and_tell(void *context, const Spillway__V1__GenerateResponse *response)
{
    struct canceller *canceller = context;
    bool more = collect(canceller->answer, response);
    if (canceller->answer->tokens >= 3)
        atomic_store(&canceller->seen, true);
    return more;
}

static void *cancel_by_id(void *context)
{
    struct canceller *canceller = context;
    struct spw_client *other;
    while (!atomic_load(&canceller->seen))
        usleep(500);
    if (spw_client_open(url, NULL, &other, NULL) != SPW_OK)
        return NULL;
    spw_client_cancel_request(other, canceller->answer->id, &canceller->found, NULL);
    canceller->found_again = true;
    spw_client_cancel_request(other, canceller->answer->id, &canceller->found_again, NULL);
    spw_client_close(other);
    return NULL;
}

static void cancel_by_request_id(void **state)
{
    (void)state;
    bool found = true;
    static const char *const wrong[] = {"", "0123456789abcdef", "xyz", "0123456789ABCDEF0"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(wrong); i++) {
        found = true;
        assert_int_equal(spw_client_cancel_request(client, wrong[i], &found, &error), SPW_OK);
        assert_false(found);
    }
    atomic_store(&fake.tokens_per_turn, 1);
    atomic_store(&fake.turn_us, 1000);
    spw_buffer_done(&answer.text);
    answer = (struct answer){0};
    spw_buffer_init(&answer.text, 1u << 16);
    struct canceller canceller = {.answer = &answer};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_by_id, &canceller), 0);
    Spillway__V1__GenerateRequest request = request_of("abc", 4000);
    assert_int_equal(spw_client_generate(client, &request, 0, collect_and_tell, &canceller, &error),
                     SPW_OK);
    pthread_join(thread, NULL);
    assert_true(canceller.found);
    assert_false(canceller.found_again);
    assert_true(answer.finished);
    assert_int_equal(answer.reason, CANCELLED);
    assert_int_equal(answer.output_tokens, answer.tokens); /* as many as the client has seen */
    assert_int_equal(answer.text.bytes, answer.tokens);
    assert_true(wait_for(&fake.cancelled, 1));
}

/* A client that does not read: its tokens stay in the request, the door keeps a bounded part. */
static void slow_reader(void **state)
{
    (void)state;
    Spillway__V1__GenerateRequest request = request_of("abc", 4000);
    request.logprobs = true;
    request.top_logprobs = 20; /* some 200 bytes a token: 800 kB in all */
    struct raw_client raw;
    struct spw_buffer body, packed;
    spw_buffer_init(&packed, 1000);
    spw_buffer_init(&body, 1000);
    spw_message_pack(&request.base, &packed);
    raw_frame(&body, packed.data, packed.bytes);
    raw_open(&raw, raw_connect(spw_door_grpc_address(grpc)), true, 0);
    struct raw_stream *stream =
        raw_request(&raw, "/spillway.v1.Spillway/Generate", body.data, body.bytes, false, NULL);
    while (raw_turn(&raw, 300) > 0)
        ;
    assert_int_equal(stream->data.bytes, 65535);
    assert_true(wait_for(&fake.finished, 1)); /* the loop is not held up */
    Spillway__V1__GenerateRequest other = request_of("xyz", 50);
    assert_int_equal(generate(&other), SPW_OK); /* nor is anybody else */
    assert_int_equal(answer.output_tokens, 50);
    size_t seen = 0;
    while (!stream->closed && !raw.lost) {
        raw_consume(&raw, stream, stream->data.bytes - seen);
        seen = stream->data.bytes;
        raw_turn(&raw, 100);
    }
    assert_int_equal(stream->grpc_status, 0);
    size_t tokens = 0, at = 0, largest = 0;
    bool finished = false;
    while (at < stream->data.bytes) {
        size_t bytes = spw_grpc_prefix_length(stream->data.data + at);
        ProtobufCMessage *message;
        assert_int_equal(spw_message_unpack(&spillway__v1__generate_response__descriptor,
                                            stream->data.data + at + 5, bytes, &message, NULL),
                         SPW_OK);
        const Spillway__V1__GenerateResponse *response = (void *)message;
        for (size_t i = 0; i < response->n_tokens; i++)
            assert_int_equal(response->tokens[i]->id, "abc"[tokens++ % 3] + 3);
        finished = response->finish != NULL;
        largest = SPW_MAX(largest, bytes);
        protobuf_c_message_free_unpacked(message, NULL);
        at += 5 + bytes;
    }
    assert_true(finished);
    assert_int_equal(tokens, 4000);
    assert_true(largest < 64 * 400);
    raw_close(&raw);
    spw_buffer_done(&body);
    spw_buffer_done(&packed);
}

/* --- many at once --- */

#define CLIENTS 20u
#define EACH    10u

struct one {
    pthread_t thread;
    unsigned number, right;
};

/* Ten streams one after the other would not be concurrent: each raw client opens ten at once. */
static void *many_streams(void *context)
{
    struct one *one = context;
    struct raw_client raw;
    struct raw_stream *streams[EACH];
    struct spw_buffer bodies[EACH], packed;
    char texts[EACH][32];
    raw_open(&raw, raw_connect(spw_door_grpc_address(grpc)), false, 0);
    for (unsigned i = 0; i < EACH; i++) {
        snprintf(texts[i], sizeof(texts[i]), "%u.%u|", one->number, i);
        Spillway__V1__GenerateRequest request = request_of(texts[i], 200 + 7 * i);
        spw_buffer_init(&packed, 1000);
        spw_buffer_init(&bodies[i], 1000);
        spw_message_pack(&request.base, &packed);
        raw_frame(&bodies[i], packed.data, packed.bytes);
        spw_buffer_done(&packed);
        streams[i] = raw_request(&raw, "/spillway.v1.Spillway/Generate", bodies[i].data,
                                 bodies[i].bytes, false, NULL);
    }
    for (unsigned i = 0; i < EACH; i++) {
        bool right = raw_run(&raw, streams[i], 60000) && streams[i]->grpc_status == 0;
        size_t tokens = 0, length = strlen(texts[i]);
        for (size_t at = 0; right && at < streams[i]->data.bytes;) {
            const uint8_t *from = streams[i]->data.data + at;
            size_t bytes = spw_grpc_prefix_length(from);
            ProtobufCMessage *message = NULL;
            right = spw_message_unpack(&spillway__v1__generate_response__descriptor, from + 5,
                                       bytes, &message, NULL) == SPW_OK;
            if (!right)
                break;
            const Spillway__V1__GenerateResponse *response = (void *)message;
            for (size_t k = 0; k < response->text.len; k++, tokens++)
                right = right && response->text.data[k] == (uint8_t)texts[i][tokens % length];
            protobuf_c_message_free_unpacked(message, NULL);
            at += 5 + bytes;
        }
        one->right += right && tokens == 200 + 7 * i;
    }
    raw_close(&raw);
    for (unsigned i = 0; i < EACH; i++)
        spw_buffer_done(&bodies[i]);
    return NULL;
}

static void two_hundred_streams(void **state)
{
    (void)state;
    static struct one all[CLIENTS];
    atomic_store(&fake.tokens_per_turn, 3);
    atomic_store(&fake.turn_us, 500);
    atomic_store(&fake.paused, true); /* until all of them are there */
    for (unsigned i = 0; i < CLIENTS; i++) {
        all[i] = (struct one){.number = i};
        assert_int_equal(pthread_create(&all[i].thread, NULL, many_streams, &all[i]), 0);
    }
    assert_true(wait_for(&fake.live, CLIENTS * EACH));
    atomic_store(&fake.paused, false);
    fake_service_wake(&fake);
    unsigned right = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(all[i].thread, NULL);
        right += all[i].right;
    }
    assert_int_equal(right, CLIENTS * EACH);
    assert_int_equal(atomic_load(&fake.finished), CLIENTS * EACH);
    assert_int_equal(atomic_load(&fake.cancelled), 0);
}

/* The deployment ends while clients wait: the loop cancels, the door passes it on and stops. */
static void shutdown_with_clients(void **state)
{
    (void)state;
    atomic_store(&fake.paused, true);
    struct raw_client raw;
    struct spw_buffer body, packed;
    Spillway__V1__GenerateRequest request = request_of("abc", 10);
    spw_buffer_init(&packed, 1000);
    spw_buffer_init(&body, 1000);
    spw_message_pack(&request.base, &packed);
    raw_frame(&body, packed.data, packed.bytes);
    raw_open(&raw, raw_connect(spw_door_grpc_address(grpc)), false, 0);
    struct raw_stream *stream =
        raw_request(&raw, "/spillway.v1.Spillway/Generate", body.data, body.bytes, false, NULL);
    while (atomic_load(&fake.live) < 1)
        raw_turn(&raw, 20);
    fake_service_stop(&fake); /* ends it CANCELLED */
    assert_true(raw_run(&raw, stream, 5000));
    assert_int_equal(stream->grpc_status, 0);
    raw_close(&raw);
    spw_buffer_done(&body);
    spw_buffer_done(&packed);
    /* for the teardown */
    atomic_store(&fake.stop, false);
    fake_service_start(&fake, spw_door_grpc_door(grpc));
}

static void refused_starts(void **state)
{
    (void)state;
    struct spw_door_grpc *other = NULL;
    struct spw_door_grpc_config config = {.service = &fake.service,
                                          .wake_loop = fake_service_wake,
                                          .wake_context = &fake,
                                          .tcp = spw_door_grpc_address(grpc)};
    error.text[0] = '\0';
    assert_int_equal(spw_door_grpc_start(&config, &other, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, spw_door_grpc_address(grpc)));
    config.tcp = "127.0.0.1:0";
    config.tls_cert = "/nowhere.pem";
    config.tls_key = "/nowhere.key";
    error.text[0] = '\0';
    assert_int_equal(spw_door_grpc_start(&config, &other, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, "/nowhere.pem"));
    spw_door_grpc_stop(NULL, 0);
    spw_buffer_done(&answer.text);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {
        TEST(answers),
        TEST(long_answers),
        TEST(refusals),
        TEST(small_methods),
        TEST(health),
        TEST(client_goes_away),
        TEST(cancel_by_request_id),
        TEST(slow_reader),
        TEST(two_hundred_streams),
        TEST(shutdown_with_clients),
        TEST(refused_starts),
    };
    return cmocka_run_group_tests(tests, NULL, stop_all);
}
