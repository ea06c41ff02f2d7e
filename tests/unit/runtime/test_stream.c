/* One answer as a client sees it, with the demo model's tokenizer and a loop that the test plays.
 */
#include "tests/unit/runtime/fake_loop.h"

#include "runtime/stream.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EOS 1535

static struct spw_tokenizer *tokenizer;
static struct spw_chat_template *chat_template;
static struct spw_model_config model = {.vocab = 1536,
                                        .eos_tokens = {EOS},
                                        .eos_count = 1,
                                        .default_temperature = 0.25f,
                                        .default_top_p = 0.5f,
                                        .default_top_k = 9};
static struct spw_service service = {
    .model_name = "demo", .model = &model, .context_tokens_max = 128, .requests_max = 4};
static struct spw_door door;
static struct fake_loop loop;
static struct spw_error error;

/* Answer text so far, and what its tokens' slices say. */
static char shown[4096], sliced[4096];

static int open_all(void **state)
{
    (void)state;
    struct spw_error why = {{0}};
    if (spw_tokenizer_open(SPW_SOURCE_DIR "/launch/demo-model", &tokenizer, &why))
        return -1;
    const char *source = spw_tokenizer_setting(tokenizer, "chat_template");
    service.tokenizer = tokenizer;
    return spw_chat_template_compile(source, strlen(source), &chat_template, &why);
}

static int close_all(void **state)
{
    (void)state;
    spw_chat_template_destroy(chat_template);
    spw_tokenizer_close(tokenizer);
    return 0;
}

static int open_door(void **state)
{
    (void)state;
    loop = (struct fake_loop){.door = &door};
    service.chat_template = chat_template;
    memset(&error, 0, sizeof(error));
    return spw_door_init(&door, "test", &service, NULL, NULL);
}

static int close_door(void **state)
{
    (void)state;
    /* what the loop still knows ends, so that leaks are seen */
    bool took = true;
    while (took)
        fake_take(&loop, &took);
    while (loop.live_count)
        fake_end(&loop, loop.live[0], SPW_REQUEST_END_ERROR, SPW_INTERNAL, NULL);
    spw_door_done(&door);
    return 0;
}

static struct spw_ask ask_text(const char *text)
{
    return (struct spw_ask){.text = text, .text_bytes = strlen(text), .priority = 1};
}

/* Open, and let the loop take it. */
static struct spw_stream *open_stream(const struct spw_ask *ask)
{
    struct spw_stream *stream = NULL;
    bool took;
    memset(&error, 0, sizeof(error));
    while (spw_door_next(&door)) /* of streams before */
        ;
    assert_int_equal(spw_stream_open(&door, ask, &loop, &stream, &error), SPW_OK);
    assert_string_equal(error.text, "");
    struct spw_request *taken;
    do /* cancels of streams that were closed before may come first */
        taken = fake_take(&loop, &took);
    while (took && !taken);
    assert_ptr_equal(taken, stream->request);
    assert_ptr_equal(spw_stream_of(stream->request), stream);
    assert_ptr_equal(stream->context, &loop);
    shown[0] = sliced[0] = '\0';
    return stream;
}

/* Advance and keep what is shown; slices lie one after the other in the piece. */
static bool advance(struct spw_stream *stream)
{
    bool news = spw_stream_advance(&door, stream);
    size_t at = strlen(shown), cut = strlen(sliced);
    uint32_t end = 0;
    memcpy(shown + at, stream->text.data ? stream->text.data : (const uint8_t *)"",
           stream->text.bytes);
    shown[at + stream->text.bytes] = '\0';
    for (uint32_t i = 0; i < stream->token_count; i++) {
        const struct spw_stream_token *token = &stream->tokens[i];
        assert_int_equal(token->text_offset, end);
        end += token->text_bytes;
        assert_true(end <= stream->text.bytes);
        if (token->text_bytes)
            memcpy(sliced + cut, stream->text.data + token->text_offset, token->text_bytes);
        cut += token->text_bytes;
        sliced[cut] = '\0';
    }
    return news;
}

static struct spw_token_list tokens_of(const char *text)
{
    struct spw_token_list list = {0};
    assert_int_equal(spw_tokenizer_encode(tokenizer, text, strlen(text), 0, 1000, &list), SPW_OK);
    return list;
}

static void a_text_prompt_becomes_a_request(void **state)
{
    (void)state;
    struct spw_ask ask = ask_text("A cat");
    ask.add_special = true;
    ask.output_tokens_max = 20;
    ask.sampling.seed = 77;
    ask.sampling_given[SPW_ASK_SEED] = true;
    ask.sampling.top_logprobs = 5; /* of no use without want_logprobs */
    ask.ignore_eos = true;
    ask.stop_tokens[0] = 3;
    ask.stop_token_count = 1;
    ask.priority = 2;
    struct spw_stream *stream = open_stream(&ask);
    const struct spw_request *request = stream->request;
    struct spw_token_list list = tokens_of("A cat");
    assert_int_equal(request->prompt_tokens, list.count + 1);
    assert_int_equal(request->prompt[0], spw_tokenizer_id(tokenizer, "<|bos|>"));
    assert_memory_equal(request->prompt + 1, list.ids, list.count * sizeof(int32_t));
    spw_token_list_done(&list);
    assert_int_equal(request->output_tokens_max, 20);
    assert_true(request->sampling.temperature == 0.25f && request->sampling.top_p == 0.5f);
    assert_int_equal(request->sampling.top_k, 9);
    assert_int_equal(request->sampling.top_logprobs, 0);
    assert_null(request->tops);
    assert_true(request->sampling.seed == 77);
    assert_true(request->ignore_eos && request->stop_token_count == 1 &&
                request->stop_tokens[0] == 3 && request->priority == 2);
    assert_true(request->deadline_ns == 0);
    spw_stream_close(&door, stream);

    ask = ask_text("A cat");
    ask.sampling = (struct spw_sampling){.temperature = 0, .top_p = 1, .top_k = 0};
    memset(ask.sampling_given, 1, sizeof(ask.sampling_given));
    ask.want_logprobs = true;
    ask.sampling.top_logprobs = 2;
    ask.deadline_ns = 1000;
    stream = open_stream(&ask);
    request = stream->request;
    assert_true(request->sampling.temperature == 0 && request->sampling.top_p == 1 &&
                request->sampling.top_k == 0 && request->sampling.top_logprobs == 2);
    assert_non_null(request->tops);
    assert_true(request->deadline_ns > 1000);
    assert_int_equal(request->output_tokens_max, 128 - request->prompt_tokens);
    spw_stream_close(&door, stream);
}

static void chats_are_rendered(void **state)
{
    (void)state;
    json_t *messages = json_pack("{s:[{s:s, s:s}], s:b}", "messages", "role", "user", "content",
                                 "Tell a story.", "add_generation_prompt", 1);
    struct spw_ask ask = {.messages = messages};
    struct spw_stream *stream = open_stream(&ask);
    struct spw_buffer text;
    spw_buffer_init(&text, 1000);
    spw_tokenizer_decode(tokenizer, stream->request->prompt, stream->request->prompt_tokens, false,
                         &text);
    assert_string_equal(spw_buffer_text(&text), "<|bos|><|user|>Tell a story.<|end|><|assistant|>");
    spw_buffer_done(&text);
    spw_stream_close(&door, stream);
    service.chat_template = NULL;
    assert_int_equal(spw_stream_open(&door, &ask, NULL, &stream, &error), SPW_UNSUPPORTED);
    assert_string_equal(error.text, "model 'demo' has no chat_template in tokenizer_config.json: "
                                    "use /v1/completions");
    json_decref(messages);
}

/* The same answer, given to the client in pieces of every size. */
static void pieces_join_to_the_whole(void **state)
{
    (void)state;
    static const char text[] = " once upon a time \xc3\xa9 \xf0\x9f\x90\xb1!\nThe end.";
    struct spw_token_list list = tokens_of(text);
    assert_true(list.count > 15); /* the cat is four tokens of a byte each */
    for (size_t size = 1; size <= list.count; size++) {
        struct spw_ask ask = ask_text("x");
        struct spw_stream *stream = open_stream(&ask);
        uint32_t seen = 0;
        assert_false(advance(stream));
        for (size_t i = 0; i < list.count; i++) {
            fake_publish(stream->request, list.ids[i], -(float)i);
            if ((i + 1) % size)
                continue;
            assert_true(advance(stream));
            assert_int_equal(stream->token_count, size);
            for (size_t t = 0; t < size; t++, seen++) {
                assert_int_equal(stream->tokens[t].token, list.ids[seen]);
                assert_true(stream->tokens[t].logprob == -(float)seen);
                assert_null(stream->tokens[t].top);
            }
        }
        fake_publish(stream->request, EOS, 0);
        fake_end(&loop, stream->request, SPW_REQUEST_END_STOP, SPW_OK, NULL);
        assert_true(advance(stream));
        assert_int_equal(stream->end, SPW_REQUEST_END_STOP);
        assert_null(stream->stop_reason);
        assert_string_equal(shown, text); /* the end token is not shown, */
        assert_string_equal(sliced, text);
        assert_int_equal(stream->output_tokens, list.count + 1); /* but counted */
        assert_false(advance(stream));
        assert_int_equal(stream->text.bytes, 0);
        spw_stream_close(&door, stream);
    }
    assert_int_equal(loop.cancels, 0);
    spw_token_list_done(&list);
}

/* Stop strings that begin and end anywhere in the tokens; the loop has run ahead by two. */
static void stop_strings_end_the_answer(void **state)
{
    (void)state;
    static const char text[] = " once upon a time there was a cat.";
    struct spw_token_list list = tokens_of(text);
    uint32_t cases = 0;
    for (size_t begin = 1; begin + 3 < sizeof(text); begin += 2)
        for (size_t bytes = 2; bytes <= 6 && begin + bytes < sizeof(text); bytes += 2)
            for (int include = 0; include < 2; include++, cases++) {
                char stop[8], expected[64];
                snprintf(stop, sizeof(stop), "%.*s", (int)bytes, text + begin);
                size_t at = (size_t)(strstr(text, stop) - text);
                snprintf(expected, sizeof(expected), "%.*s", (int)(at + (include ? bytes : 0)),
                         text);
                struct spw_ask ask = ask_text("x");
                ask.stops[0] = "never";
                ask.stops[1] = stop;
                ask.stop_count = 2;
                ask.include_stop = include;
                struct spw_stream *stream = open_stream(&ask);
                uint32_t cancels = loop.cancels, published = 0;
                while (stream->end == SPW_REQUEST_END_NONE) {
                    for (int ahead = 0; ahead < 3 && published < list.count; ahead++)
                        fake_publish(stream->request, list.ids[published++], 0);
                    assert_true(advance(stream));
                }
                assert_string_equal(shown, expected);
                assert_string_equal(sliced, expected);
                assert_int_equal(stream->end, SPW_REQUEST_END_STOP);
                assert_string_equal(stream->stop_reason, stop);
                /* tokens up to the one that completed it */
                size_t covered = 0;
                for (uint32_t i = 0; i < stream->output_tokens; i++) {
                    struct spw_buffer raw;
                    assert_true(covered < at + bytes);
                    spw_buffer_init(&raw, 100);
                    spw_tokenizer_token_bytes(tokenizer, list.ids[i], &raw);
                    covered += raw.bytes;
                    spw_buffer_done(&raw);
                }
                assert_true(covered >= at + bytes);
                bool took;
                fake_take(&loop, &took);
                assert_int_equal(loop.cancels, cancels + 1); /* the loop is told, as finished */
                assert_int_equal(loop.last_end, SPW_REQUEST_END_STOP);
                assert_false(advance(stream));
                spw_stream_close(&door, stream);
                fake_take(&loop, &took);
                assert_false(took); /* and not told again */
                assert_null(spw_door_next(&door));
            }
    assert_int_equal(cases, 90);
    spw_token_list_done(&list);
}

static void held_back_text_is_shown_at_the_end(void **state)
{
    (void)state;
    static const struct {
        enum spw_request_end end;
        enum spw_status status;
    } ends[] = {{SPW_REQUEST_END_LENGTH, SPW_OK},
                {SPW_REQUEST_END_ERROR, SPW_PEER_LOST},
                {SPW_REQUEST_END_CANCELLED, SPW_CANCELLED}};
    struct spw_token_list list = tokens_of(" a big");
    for (size_t i = 0; i < SPW_ARRAY_COUNT(ends); i++) {
        struct spw_ask ask = ask_text("x");
        ask.stops[0] = "big dog";
        ask.stop_count = 1;
        struct spw_stream *stream = open_stream(&ask);
        for (size_t t = 0; t < list.count; t++)
            fake_publish(stream->request, list.ids[t], 0);
        assert_true(advance(stream));
        assert_string_equal(shown, " a ");
        fake_end(&loop, stream->request, ends[i].end, ends[i].status, NULL);
        assert_true(advance(stream));
        assert_string_equal(shown, " a big");
        assert_int_equal(stream->end, ends[i].end);
        assert_int_equal(stream->request->status, ends[i].status);
        assert_int_equal(stream->output_tokens, list.count);
        spw_stream_close(&door, stream);
    }
    spw_token_list_done(&list);
}

static void half_a_character_at_the_end(void **state)
{
    (void)state;
    struct spw_token_list list = tokens_of("\xf0\x9f\x90\xb1");
    assert_int_equal(list.count, 4);
    for (int stop = 0; stop < 3; stop++) { /* without, with, and with the stop string shown */
        struct spw_ask ask = ask_text("x");
        ask.stops[0] = "\xef\xbf\xbd";
        ask.stop_count = stop ? 1 : 0;
        ask.include_stop = stop == 2;
        struct spw_stream *stream = open_stream(&ask);
        fake_publish(stream->request, list.ids[0], 0);
        fake_publish(stream->request, list.ids[1], 0);
        assert_true(advance(stream));
        assert_string_equal(shown, "");
        fake_end(&loop, stream->request, SPW_REQUEST_END_LENGTH, SPW_OK, NULL);
        assert_true(advance(stream));
        assert_string_equal(shown, stop == 1 ? "" : "\xef\xbf\xbd");
        assert_int_equal(stream->end, stop ? SPW_REQUEST_END_STOP : SPW_REQUEST_END_LENGTH);
        spw_stream_close(&door, stream);
    }
    spw_token_list_done(&list);
}

static void end_tokens_and_special_tokens(void **state)
{
    (void)state;
    int32_t user = spw_tokenizer_id(tokenizer, "<|user|>");
    struct spw_token_list word = tokens_of(" cat");
    assert_int_equal(word.count, 1);
    const struct {
        bool ignore_eos, keep_special, stop_at_word;
        const char *shown;
    } rows[] = {
        {false, false, false, " cat cat"},
        {true, false, false, " cat cat"},
        {true, true, false, " cat<|user|> cat<|end|>"},
        {false, true, false, " cat<|user|> cat"},
        {false, true, true, "<|user|>"}, /* a stop token is not shown */
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct spw_ask ask = ask_text("x");
        ask.ignore_eos = rows[i].ignore_eos;
        ask.keep_special = rows[i].keep_special;
        ask.stop_tokens[0] = word.ids[0];
        ask.stop_token_count = rows[i].stop_at_word;
        struct spw_stream *stream = open_stream(&ask);
        const int32_t answer[] = {word.ids[0], user, word.ids[0], EOS};
        for (int t = 0; t < 4; t++)
            fake_publish(stream->request, answer[t], 0);
        fake_end(&loop, stream->request, SPW_REQUEST_END_STOP, SPW_OK, NULL);
        advance(stream);
        assert_string_equal(shown, rows[i].shown);
        assert_int_equal(stream->output_tokens, 4);
        spw_stream_close(&door, stream);
    }
    spw_token_list_done(&word);
}

static void a_client_that_leaves(void **state)
{
    (void)state;
    bool took;
    struct spw_ask ask = ask_text("x");
    struct spw_stream *stream = open_stream(&ask);
    fake_publish(stream->request, 5, 0);
    advance(stream);
    struct spw_request *request = stream->request;
    atomic_fetch_add(&request->references, 1);
    spw_stream_close(&door, stream);
    spw_stream_close(&door, NULL);
    assert_int_equal(atomic_load(&request->cancelled), SPW_REQUEST_GONE);
    fake_take(&loop, &took);
    assert_int_equal(loop.last_end, SPW_REQUEST_END_CANCELLED);
    assert_null(spw_door_next(&door));
    assert_int_equal(atomic_load(&request->references), 1);
    spw_request_release(request);
}

static void refused(const struct spw_ask *ask, enum spw_status status, const char *words)
{
    struct spw_stream *stream = NULL;
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_stream_open(&door, ask, NULL, &stream, &error), status);
    assert_string_equal(error.text, words);
    assert_null(stream);
    assert_int_equal(spw_ring_count(&door.to_loop), 0);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct spw_ask ask = ask_text("");
    refused(&ask, SPW_INVALID, "the prompt is empty: at least one token is needed");
    int32_t ids[200] = {0};
    ask = (struct spw_ask){.tokens = ids, .token_count = 128};
    refused(&ask, SPW_TOO_LARGE,
            "the prompt has 128 tokens, which leaves no room for an answer: the context of this "
            "deployment is 128 tokens");
    ask.token_count = 100;
    ask.output_tokens_max = 30;
    refused(&ask, SPW_TOO_LARGE,
            "the prompt has 100 tokens and max_tokens is 30, together more than the context of 128 "
            "tokens: lower max_tokens to 29");
    ask.output_tokens_max = UINT32_MAX;
    refused(&ask, SPW_TOO_LARGE,
            "the prompt has 100 tokens and max_tokens is 4294967295, together more than the "
            "context of 128 tokens: lower max_tokens to 29");
    ask.output_tokens_max = 29;
    ids[99] = 1536;
    refused(&ask, SPW_INVALID, "prompt token 99 is 1536: the vocabulary has ids 0 to 1535");
    ids[99] = -1;
    refused(&ask, SPW_INVALID, "prompt token 99 is -1: the vocabulary has ids 0 to 1535");
    ids[99] = 1535;
    spw_stream_close(&door, open_stream(&ask));
    bool took;
    fake_take(&loop, &took);

    char longer[4000];
    memset(longer, 'q', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    ask = ask_text(longer);
    refused(&ask, SPW_TOO_LARGE, "the prompt has 129 tokens or more: the context is 128");

    static const float temperatures[] = {-0.1f, 100.5f};
    for (int i = 0; i < 2; i++) {
        char words[100];
        ask = ask_text("x");
        ask.sampling_given[SPW_ASK_TEMPERATURE] = true;
        ask.sampling.temperature = temperatures[i];
        snprintf(words, sizeof(words), "temperature is %g: 0 to 100 is allowed",
                 (double)temperatures[i]);
        refused(&ask, SPW_INVALID, words);
    }
    ask = ask_text("x");
    ask.sampling_given[SPW_ASK_TOP_P] = true;
    ask.sampling.top_p = 0;
    refused(&ask, SPW_INVALID, "top_p is 0: above 0 and at most 1 is allowed");
    ask.sampling.top_p = 1.5f;
    refused(&ask, SPW_INVALID, "top_p is 1.5: above 0 and at most 1 is allowed");
    ask = ask_text("x");
    ask.sampling.top_logprobs = 21;
    refused(&ask, SPW_INVALID, "21 alternatives were asked for: at most 20 are given");
    ask = ask_text("x");
    ask.stop_count = 17;
    refused(&ask, SPW_INVALID, "17 stop strings: at most 16 are allowed");
    ask = ask_text("x");
    ask.stop_token_count = 17;
    refused(&ask, SPW_INVALID, "17 stop tokens: at most 16 are allowed");
    ask = ask_text("x");
    ask.stops[0] = "";
    ask.stop_count = 1;
    struct spw_stream *stream = NULL;
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_stream_open(&door, &ask, NULL, &stream, &error), SPW_INVALID);
    assert_true(error.text[0]);
}

static void too_many_on_the_way(void **state)
{
    (void)state;
    struct spw_ask ask = ask_text("x");
    struct spw_stream *streams[4], *more = NULL;
    for (int i = 0; i < 4; i++)
        assert_int_equal(spw_stream_open(&door, &ask, NULL, &streams[i], &error), SPW_OK);
    assert_int_equal(spw_stream_open(&door, &ask, NULL, &more, &error), SPW_FULL);
    assert_string_equal(error.text, "too many requests are on their way into the scheduler");
    for (int i = 0; i < 4; i++)
        spw_stream_close(&door, streams[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_door, close_door)
        TEST(a_text_prompt_becomes_a_request),    TEST(chats_are_rendered),
        TEST(pieces_join_to_the_whole),           TEST(stop_strings_end_the_answer),
        TEST(held_back_text_is_shown_at_the_end), TEST(half_a_character_at_the_end),
        TEST(end_tokens_and_special_tokens),      TEST(a_client_that_leaves),
        TEST(what_cannot_be_is_refused),          TEST(too_many_on_the_way),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
