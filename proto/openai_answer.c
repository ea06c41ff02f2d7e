/* openai_answer.c - the answer to one call: head, chunks, end. */
#include "proto/openai_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What an error's body may add to memory. */
#define FAULT_BYTES_MAX 16384u

const char *spw_openai_outcome_name(enum spw_openai_outcome outcome)
{
    switch (outcome) {
    case SPW_OPENAI_OK:
        return "ok";
    case SPW_OPENAI_REFUSED:
        return "no connection";
    case SPW_OPENAI_HTTP:
        return "HTTP status";
    case SPW_OPENAI_ERROR:
        return "error in the stream";
    case SPW_OPENAI_BROKEN:
        return "broken stream";
    case SPW_OPENAI_TIMEOUT:
        return "timeout";
    case SPW_OPENAI_CANCELLED:
        return "cancelled";
    }
    return "unknown";
}

/* The first thing that went wrong counts. */
static void fail_call(struct spw_openai_call *call, enum spw_openai_outcome outcome,
                      const char *words)
{
    if (call->outcome != SPW_OPENAI_OK)
        return;
    call->outcome = outcome;
    snprintf(call->words, sizeof(call->words), "%.*s", (int)sizeof(call->words) - 1, words);
}

/* One line of the head. A status line begins a new head: a 100 may come before the answer's. */
size_t spw_openai_on_header(char *data, size_t size, size_t count, void *user)
{
    struct spw_openai_call *call = user;
    size_t bytes = size * count;
    char line[128];
    snprintf(line, sizeof(line), "%.*s", (int)SPW_MIN(bytes, sizeof(line) - 1), data);
    if (strncmp(line, "HTTP/", 5) == 0) {
        const char *space = strchr(line, ' ');
        long status = space ? strtol(space + 1, NULL, 10) : 0;
        call->http_status = status >= 100 && status <= 999 ? (int)status : 0;
        call->is_stream = false;
        call->retry_after = 0;
    } else if (strncasecmp(line, "content-type:", 13) == 0) {
        const char *value = line + 13 + strspn(line + 13, " \t");
        call->is_stream = strncasecmp(value, "text/event-stream", 17) == 0;
    } else if (strncasecmp(line, "retry-after:", 12) == 0) {
        long seconds = strtol(line + 12, NULL, 10); /* a date reads as 0: not said */
        call->retry_after = (uint32_t)SPW_MAX(0, SPW_MIN(seconds, 86400));
    }
    return bytes;
}

static bool say_chunk(struct spw_openai_call *call, const char *text, size_t bytes)
{
    struct spw_openai_chunk chunk;
    struct spw_error error = {{0}};
    if (spw_openai_chunk_parse(text, bytes, &chunk, &error)) {
        fail_call(call, SPW_OPENAI_BROKEN, error.text);
        return false;
    }
    if (chunk.error)
        fail_call(call, SPW_OPENAI_ERROR, chunk.error);
    else {
        call->finish_seen = call->finish_seen || chunk.finish_reason;
        if (call->events->chunk)
            call->events->chunk(call->context, &chunk);
    }
    spw_openai_chunk_done(&chunk);
    return call->outcome == SPW_OPENAI_OK && !call->cancelled;
}

static bool on_event(void *context, const char *name, const char *data, size_t bytes)
{
    struct spw_openai_call *call = context;
    if (bytes == 6 && memcmp(data, "[DONE]", 6) == 0) {
        call->done_seen = true;
        return true;
    }
    bool more = say_chunk(call, data, bytes);
    if (strcmp(name, "error") == 0) { /* whatever its form is */
        if (call->outcome != SPW_OPENAI_ERROR) {
            call->outcome = SPW_OPENAI_ERROR;
            snprintf(call->words, sizeof(call->words), "%.*s",
                     (int)SPW_MIN(bytes, sizeof(call->words) - 1), data);
        }
        return false;
    }
    return more;
}

size_t spw_openai_on_body(char *data, size_t size, size_t count, void *user)
{
    struct spw_openai_call *call = user;
    size_t bytes = size * count;
    bool good = call->http_status >= 200 && call->http_status < 300;
    if (call->cancelled)
        return 0;
    if (!call->head_said && call->events->head) {
        call->events->head(call->context, call->http_status);
        if (call->cancelled)
            return 0;
    }
    call->head_said = true;
    if (good && call->is_stream && !call->is_get) {
        enum spw_status status = spw_sse_push(&call->sse, data, bytes, on_event, call);
        if (status && status != SPW_CANCELLED)
            fail_call(call, SPW_OPENAI_BROKEN, "a chunk is larger than the limit");
        return status ? 0 : bytes;
    }
    size_t room = (good ? call->client->answer_bytes_max : FAULT_BYTES_MAX) - call->answer.bytes;
    if (good && bytes > room) {
        fail_call(call, SPW_OPENAI_BROKEN, "the answer is larger than the limit");
        return 0;
    }
    spw_buffer_add(&call->answer, data, SPW_MIN(bytes, room));
    return bytes;
}

/* The words of an error's body, or its beginning. */
static void read_fault(struct spw_openai_call *call)
{
    struct spw_openai_chunk chunk = {0};
    const char *text = spw_buffer_text(&call->answer);
    enum spw_status status = spw_openai_chunk_parse(text, call->answer.bytes, &chunk, NULL);
    snprintf(call->words, sizeof(call->words), "%s",
             status == SPW_OK && chunk.error ? chunk.error : text);
    spw_openai_chunk_done(&chunk);
}

static void judge(struct spw_openai_call *call, CURLcode code)
{
    const char *words = call->curl_words[0] ? call->curl_words : curl_easy_strerror(code);
    bool good = call->http_status >= 200 && call->http_status < 300;
    if (call->outcome != SPW_OPENAI_OK)
        return;
    if (code == CURLE_OPERATION_TIMEDOUT && !call->done_seen) {
        curl_off_t sent_us = 0;
        curl_easy_getinfo(call->easy, CURLINFO_PRETRANSFER_TIME_T, &sent_us);
        fail_call(call, sent_us > 0 ? SPW_OPENAI_TIMEOUT : SPW_OPENAI_REFUSED, words);
    } else if (code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST ||
               code == CURLE_SSL_CONNECT_ERROR || code == CURLE_PEER_FAILED_VERIFICATION ||
               code == CURLE_SSL_CACERT_BADFILE || code == CURLE_SSL_CERTPROBLEM) {
        fail_call(call, SPW_OPENAI_REFUSED, words);
    } else if (call->http_status != 0 && !good) {
        call->outcome = SPW_OPENAI_HTTP;
        read_fault(call);
    } else if (code != CURLE_OK && !call->done_seen) {
        fail_call(call, SPW_OPENAI_BROKEN, words);
    } else if (call->is_stream && !call->is_get) {
        /* some servers leave [DONE] out; a reason to finish is as good */
        if (!call->done_seen && !call->finish_seen)
            fail_call(call, SPW_OPENAI_BROKEN, "the stream ended before the answer did");
    } else if (!call->is_get) {
        (void)say_chunk(call, spw_buffer_text(&call->answer), call->answer.bytes);
    }
}

void spw_openai_finish(struct spw_openai_call *call, CURLcode code)
{
    judge(call, code);
    if (call->cancelled)
        return;
    struct spw_openai_end end = {
        .outcome = call->outcome,
        .http_status = call->http_status,
        .retry_after_seconds = call->retry_after,
        .words = call->words,
        .body = spw_buffer_text(&call->answer),
        .body_bytes = call->answer.bytes,
    };
    call->events->end(call->context, &end);
}
