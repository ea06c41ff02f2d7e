/* door_http_answer.c - an answer in OpenAI's shapes, whole or as server-sent events. Pure. */
#include "runtime/door_http_int.h"

#include "runtime/base/clock.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define PIECE_BYTES_MAX    (256u << 20)
#define LOGPROB_IMPOSSIBLE (-9999.0) /* JSON has no minus infinity; OpenAI says it so */

/* Bytes of the well-formed UTF-8 sequence at `at`, 0 when it is none (Unicode, table 3-7). */
static size_t sequence_bytes(const uint8_t *at, size_t left)
{
    uint8_t first = at[0], low = 0x80, high = 0xbf;
    size_t bytes;
    if (first < 0x80)
        return 1;
    if (first >= 0xc2 && first <= 0xdf)
        bytes = 2;
    else if ((first & 0xf0) == 0xe0)
        bytes = 3;
    else if (first >= 0xf0 && first <= 0xf4)
        bytes = 4;
    else
        return 0;
    low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : low;
    high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : high;
    if (left < bytes || at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < bytes; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    return bytes;
}

void spw_http_json_string(struct spw_buffer *out, const void *text, size_t bytes)
{
    const uint8_t *at = text;
    size_t plain = 0; /* start of what can be copied as it is */
    spw_buffer_add_u8(out, '"');
    for (size_t i = 0; i < bytes;) {
        size_t step = sequence_bytes(at + i, bytes - i);
        bool copied = step > 1 || (step == 1 && at[i] >= 0x20 && at[i] != '"' && at[i] != '\\' &&
                                   at[i] != 0x7f);
        if (copied) {
            i += step;
            continue;
        }
        spw_buffer_add(out, at + plain, i - plain);
        if (step == 0)
            spw_buffer_add_text(out, "\xef\xbf\xbd");
        else if (at[i] == '"' || at[i] == '\\')
            spw_buffer_format(out, "\\%c", at[i]);
        else if (at[i] == '\n')
            spw_buffer_add_text(out, "\\n");
        else
            spw_buffer_format(out, "\\u%04x", at[i]);
        plain = ++i;
    }
    if (bytes > plain)
        spw_buffer_add(out, at + plain, bytes - plain);
    spw_buffer_add_u8(out, '"');
}

static void add_logprob(struct spw_buffer *out, float value)
{
    /* nine digits bring the same float back */
    spw_buffer_format(out, "%.9g", isfinite(value) ? (double)value : LOGPROB_IMPOSSIBLE);
}

void spw_http_answer_init(struct spw_http_answer *answer, const struct spw_service *service,
                          const struct spw_http_ask *ask, const struct spw_request *request)
{
    memset(answer, 0, sizeof(*answer));
    answer->service = service;
    answer->kind = ask->kind;
    snprintf(answer->id, sizeof(answer->id), "%s-%016" PRIx64,
             ask->kind == SPW_HTTP_CHAT ? "chatcmpl" : "cmpl", request->id);
    answer->created_seconds = spw_clock_wall_seconds();
    answer->include_usage = ask->include_usage;
    answer->return_token_ids = ask->return_token_ids;
    answer->logprobs = ask->ask.want_logprobs;
    answer->top_logprobs = ask->ask.sampling.top_logprobs;
    answer->prompt_tokens = request->prompt_tokens;
    answer->prompt = request->prompt;
    struct spw_http_piece *piece = &answer->piece;
    struct spw_buffer *const all[] = {&piece->text,   &piece->ids,  &piece->entries, &piece->tokens,
                                      &piece->values, &piece->tops, &piece->offsets};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(all); i++)
        spw_buffer_init(all[i], PIECE_BYTES_MAX);
}

void spw_http_answer_done(struct spw_http_answer *answer)
{
    struct spw_http_piece *piece = &answer->piece;
    spw_buffer_done(&piece->text);
    spw_buffer_done(&piece->ids);
    spw_buffer_done(&piece->entries);
    spw_buffer_done(&piece->tokens);
    spw_buffer_done(&piece->values);
    spw_buffer_done(&piece->tops);
    spw_buffer_done(&piece->offsets);
}

bool spw_http_answer_failed(const struct spw_http_answer *answer)
{
    const struct spw_http_piece *piece = &answer->piece;
    return piece->text.failed || piece->ids.failed || piece->entries.failed ||
           piece->tokens.failed || piece->values.failed || piece->tops.failed ||
           piece->offsets.failed;
}

static void clear_piece(struct spw_http_piece *piece)
{
    spw_buffer_clear(&piece->text);
    spw_buffer_clear(&piece->ids);
    spw_buffer_clear(&piece->entries);
    spw_buffer_clear(&piece->tokens);
    spw_buffer_clear(&piece->values);
    spw_buffer_clear(&piece->tops);
    spw_buffer_clear(&piece->offsets);
    piece->count = 0;
}

/* --- taking tokens in --- */

/* "token": .., "logprob": .., "bytes": [..] */
static void add_entry(struct spw_buffer *out, const struct spw_tokenizer *tokenizer, int32_t token,
                      float logprob, struct spw_buffer *scratch)
{
    spw_buffer_clear(scratch);
    spw_tokenizer_token_bytes(tokenizer, token, scratch);
    spw_buffer_add_text(out, "\"token\":");
    spw_http_json_string(out, scratch->data, scratch->bytes);
    spw_buffer_add_text(out, ",\"logprob\":");
    add_logprob(out, logprob);
    spw_buffer_add_text(out, ",\"bytes\":[");
    for (size_t i = 0; i < scratch->bytes; i++)
        spw_buffer_format(out, i ? ",%u" : "%u", scratch->data[i]);
    spw_buffer_add_text(out, "]");
}

static void take_chat_token(struct spw_http_answer *answer, const struct spw_stream_token *token,
                            struct spw_buffer *scratch)
{
    const struct spw_tokenizer *tokenizer = answer->service->tokenizer;
    struct spw_buffer *out = &answer->piece.entries;
    spw_buffer_add_text(out, answer->piece.count ? ",{" : "{");
    add_entry(out, tokenizer, token->token, token->logprob, scratch);
    spw_buffer_add_text(out, ",\"top_logprobs\":[");
    for (uint32_t i = 0; token->top && i < token->top->count; i++) {
        spw_buffer_add_text(out, i ? ",{" : "{");
        add_entry(out, tokenizer, token->top->tokens[i], token->top->logprobs[i], scratch);
        spw_buffer_add_text(out, "}");
    }
    spw_buffer_add_text(out, "]}");
}

/* The object's text [begin, end) has this member (`"key":`) already. A quote inside a key follows a
 * backslash, so that what begins a member follows a comma or stands first.
 */
static bool has_member(const uint8_t *begin, const uint8_t *end, const uint8_t *key, size_t bytes)
{
    const uint8_t *at = begin;
    while (at < end && (at = memmem(at, (size_t)(end - at), key, bytes))) {
        if (at == begin || at[-1] == ',')
            return true;
        at++;
    }
    return false;
}

/* One member of the object of alternatives; of tokens that read alike the first one counts. */
static void add_alternative(struct spw_buffer *out, const struct spw_tokenizer *tokenizer,
                            int32_t token, float logprob, size_t begin, struct spw_buffer *scratch)
{
    spw_buffer_clear(scratch);
    spw_tokenizer_token_bytes(tokenizer, token, scratch);
    size_t before = out->bytes;
    if (before > begin)
        spw_buffer_add_text(out, ",");
    size_t key = out->bytes;
    spw_http_json_string(out, scratch->data, scratch->bytes);
    spw_buffer_add_text(out, ":");
    if (out->failed)
        return;
    if (has_member(out->data + begin, out->data + before, out->data + key, out->bytes - key)) {
        out->bytes = before;
        return;
    }
    add_logprob(out, logprob);
}

static void take_text_token(struct spw_http_answer *answer, const struct spw_stream_token *token,
                            uint64_t offset, struct spw_buffer *scratch)
{
    const struct spw_tokenizer *tokenizer = answer->service->tokenizer;
    struct spw_http_piece *piece = &answer->piece;
    const char *comma = piece->count ? "," : "";
    spw_buffer_clear(scratch);
    spw_tokenizer_token_bytes(tokenizer, token->token, scratch);
    spw_buffer_add_text(&piece->tokens, comma);
    spw_http_json_string(&piece->tokens, scratch->data, scratch->bytes);
    spw_buffer_add_text(&piece->values, comma);
    add_logprob(&piece->values, token->logprob);
    spw_buffer_format(&piece->offsets, "%s%" PRIu64, comma, offset);
    if (answer->top_logprobs == 0)
        return;
    spw_buffer_format(&piece->tops, "%s{", comma);
    size_t begin = piece->tops.bytes;
    for (uint32_t i = 0; token->top && i < token->top->count; i++)
        add_alternative(&piece->tops, tokenizer, token->top->tokens[i], token->top->logprobs[i],
                        begin, scratch);
    add_alternative(&piece->tops, tokenizer, token->token, token->logprob, begin, scratch);
    spw_buffer_add_text(&piece->tops, "}");
}

static uint64_t count_chars(const uint8_t *text, size_t bytes)
{
    uint64_t chars = 0;
    for (size_t i = 0; i < bytes; i++)
        chars += (text[i] & 0xc0) != 0x80;
    return chars;
}

void spw_http_answer_take(struct spw_http_answer *answer, const struct spw_stream *stream)
{
    struct spw_http_piece *piece = &answer->piece;
    struct spw_buffer scratch;
    size_t counted = 0;
    spw_buffer_init(&scratch, 1u << 16);
    spw_buffer_add(&piece->text, stream->text.data, stream->text.bytes);
    for (uint32_t i = 0; i < stream->token_count; i++) {
        const struct spw_stream_token *token = &stream->tokens[i];
        if (answer->return_token_ids)
            spw_buffer_format(&piece->ids, piece->count ? ",%d" : "%d", (int)token->token);
        answer->text_chars +=
            count_chars(stream->text.data + counted, token->text_offset - counted);
        counted = token->text_offset;
        if (answer->logprobs && answer->kind == SPW_HTTP_CHAT)
            take_chat_token(answer, token, &scratch);
        else if (answer->logprobs)
            take_text_token(answer, token, answer->text_chars, &scratch);
        piece->count++;
    }
    if (stream->text.bytes > counted)
        answer->text_chars +=
            count_chars(stream->text.data + counted, stream->text.bytes - counted);
    spw_buffer_done(&scratch);
}

/* --- writing --- */

static void add_bytes(struct spw_buffer *out, const struct spw_buffer *from)
{
    if (from->failed)
        out->failed = true;
    else
        spw_buffer_add(out, from->data, from->bytes);
}

/* ,"logprobs":... of what the piece holds */
static void add_logprobs(const struct spw_http_answer *answer, bool any, struct spw_buffer *out)
{
    const struct spw_http_piece *piece = &answer->piece;
    spw_buffer_add_text(out, ",\"logprobs\":");
    if (!answer->logprobs || !any) {
        spw_buffer_add_text(out, "null");
        return;
    }
    if (answer->kind == SPW_HTTP_CHAT) {
        spw_buffer_add_text(out, "{\"content\":[");
        add_bytes(out, &piece->entries);
        spw_buffer_add_text(out, "],\"refusal\":null}");
        return;
    }
    spw_buffer_add_text(out, "{\"tokens\":[");
    add_bytes(out, &piece->tokens);
    spw_buffer_add_text(out, "],\"token_logprobs\":[");
    add_bytes(out, &piece->values);
    spw_buffer_add_text(out, "],\"top_logprobs\":");
    if (answer->top_logprobs) {
        spw_buffer_add_text(out, "[");
        add_bytes(out, &piece->tops);
        spw_buffer_add_text(out, "]");
    } else {
        spw_buffer_add_text(out, "null");
    }
    spw_buffer_add_text(out, ",\"text_offset\":[");
    add_bytes(out, &piece->offsets);
    spw_buffer_add_text(out, "]}");
}

static void add_prompt_ids(const struct spw_http_answer *answer, struct spw_buffer *out)
{
    spw_buffer_add_text(out, ",\"prompt_token_ids\":[");
    for (uint32_t i = 0; i < answer->prompt_tokens; i++)
        spw_buffer_format(out, i ? ",%d" : "%d", (int)answer->prompt[i]);
    spw_buffer_add_text(out, "]");
}

static void add_ids(const struct spw_http_answer *answer, bool any, struct spw_buffer *out)
{
    if (!answer->return_token_ids)
        return;
    spw_buffer_add_text(out, ",\"token_ids\":[");
    if (any)
        add_bytes(out, &answer->piece.ids);
    spw_buffer_add_text(out, "]");
}

static void add_usage(const struct spw_http_answer *answer, const struct spw_stream *stream,
                      struct spw_buffer *out)
{
    spw_buffer_format(out,
                      ",\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,"
                      "\"total_tokens\":%u,\"prompt_tokens_details\":{\"cached_tokens\":%u}}",
                      answer->prompt_tokens, stream->output_tokens,
                      answer->prompt_tokens + stream->output_tokens,
                      spw_request_cached_tokens(stream->request));
}

static void add_finish(const struct spw_stream *stream, struct spw_buffer *out)
{
    spw_buffer_format(
        out, ",\"finish_reason\":\"%s\",\"stop_reason\":", spw_request_end_name(stream->end));
    if (stream->stop_reason)
        spw_http_json_string(out, stream->stop_reason, strlen(stream->stop_reason));
    else
        spw_buffer_add_text(out, "null");
}

/* {"id":..,"object":..,"created":..,"model":..,"system_fingerprint":..,"choices":[ */
static void add_head(const struct spw_http_answer *answer, bool event, struct spw_buffer *out)
{
    const struct spw_service *service = answer->service;
    const char *object = "text_completion";
    if (answer->kind == SPW_HTTP_CHAT)
        object = event ? "chat.completion.chunk" : "chat.completion";
    spw_buffer_format(out, "%s{\"id\":\"%s\",\"object\":\"%s\",\"created\":%" PRIu64 ",\"model\":",
                      event ? "data: " : "", answer->id, object, answer->created_seconds);
    spw_http_json_string(out, service->model_name, strlen(service->model_name));
    /* what an answer depends on: engine class and model */
    spw_buffer_format(out, ",\"system_fingerprint\":\"%s-%.12s\",\"choices\":[",
                      service->engine_class, service->model_digest_hex);
}

void spw_http_answer_whole(const struct spw_http_answer *answer, const struct spw_stream *stream,
                           struct spw_buffer *out)
{
    const struct spw_http_piece *piece = &answer->piece;
    bool chat = answer->kind == SPW_HTTP_CHAT;
    add_head(answer, false, out);
    spw_buffer_add_text(out, "{\"index\":0,");
    spw_buffer_add_text(out,
                        chat ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");
    spw_http_json_string(out, piece->text.data, piece->text.bytes);
    if (chat)
        spw_buffer_add_text(out, ",\"refusal\":null}");
    add_logprobs(answer, true, out);
    add_finish(stream, out);
    add_ids(answer, true, out);
    if (!chat && answer->return_token_ids)
        add_prompt_ids(answer, out);
    spw_buffer_add_text(out, "}]");
    add_usage(answer, stream, out);
    if (chat && answer->return_token_ids)
        add_prompt_ids(answer, out);
    spw_buffer_add_text(out, "}\n");
    if (spw_http_answer_failed(answer))
        out->failed = true;
}

/* Closes a chunk: usage is there and null in all chunks but the last when it was asked for. */
static void close_event(const struct spw_http_answer *answer, struct spw_buffer *out)
{
    spw_buffer_add_text(out, answer->include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n");
}

void spw_http_answer_begin(const struct spw_http_answer *answer, struct spw_buffer *out)
{
    bool chat = answer->kind == SPW_HTTP_CHAT;
    if (!chat && !answer->return_token_ids)
        return;
    add_head(answer, true, out);
    spw_buffer_add_text(out, chat ? "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":"
                                    "\"\",\"refusal\":null}"
                                  : "{\"index\":0,\"text\":\"\"");
    spw_buffer_add_text(out, ",\"logprobs\":null,\"finish_reason\":null");
    if (!answer->return_token_ids) {
        close_event(answer, out);
        return;
    }
    /* as vLLM: beside the choices for chat, inside the choice for completions */
    if (!chat)
        add_prompt_ids(answer, out);
    spw_buffer_add_text(out, "}]");
    if (chat)
        add_prompt_ids(answer, out);
    spw_buffer_add_text(out, answer->include_usage ? ",\"usage\":null}\n\n" : "}\n\n");
}

void spw_http_answer_event(struct spw_http_answer *answer, struct spw_buffer *out)
{
    struct spw_http_piece *piece = &answer->piece;
    bool more = piece->count > 0 && (answer->logprobs || answer->return_token_ids);
    if (spw_http_answer_failed(answer))
        out->failed = true;
    if (piece->text.bytes == 0 && !more) {
        clear_piece(piece);
        return;
    }
    add_head(answer, true, out);
    spw_buffer_add_text(out, answer->kind == SPW_HTTP_CHAT ? "{\"index\":0,\"delta\":{\"content\":"
                                                           : "{\"index\":0,\"text\":");
    spw_http_json_string(out, piece->text.data, piece->text.bytes);
    if (answer->kind == SPW_HTTP_CHAT)
        spw_buffer_add_text(out, "}");
    add_logprobs(answer, piece->count > 0, out);
    spw_buffer_add_text(out, ",\"finish_reason\":null");
    add_ids(answer, true, out);
    close_event(answer, out);
    clear_piece(piece);
}

void spw_http_answer_end(const struct spw_http_answer *answer, const struct spw_stream *stream,
                         struct spw_buffer *out)
{
    add_head(answer, true, out);
    spw_buffer_add_text(out, answer->kind == SPW_HTTP_CHAT ? "{\"index\":0,\"delta\":{}"
                                                           : "{\"index\":0,\"text\":\"\"");
    spw_buffer_add_text(out, ",\"logprobs\":null");
    add_finish(stream, out);
    add_ids(answer, false, out);
    close_event(answer, out);
    if (answer->include_usage) {
        add_head(answer, true, out);
        spw_buffer_add_text(out, "]");
        add_usage(answer, stream, out);
        spw_buffer_add_text(out, "}\n\n");
    }
    spw_buffer_add_text(out, "data: [DONE]\n\n");
}

void spw_http_answer_broken(const struct spw_http_fault *fault, struct spw_buffer *out)
{
    spw_buffer_add_text(out, "data: ");
    spw_http_fault_json(fault, out);
    spw_buffer_add_text(out, "\n\ndata: [DONE]\n\n");
}
