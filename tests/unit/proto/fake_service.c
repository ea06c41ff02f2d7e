#include "tests/unit/proto/fake_service.h"

#include "runtime/base/clock.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LIVE_MAX 1024u

/* --- the tokenizer --- */

void spw_token_list_done(struct spw_token_list *list)
{
    free(list->ids);
    *list = (struct spw_token_list){0};
}

uint32_t spw_tokenizer_vocab(const struct spw_tokenizer *tokenizer)
{
    (void)tokenizer;
    return FAKE_VOCAB;
}

const char *spw_tokenizer_setting(const struct spw_tokenizer *tokenizer, const char *key)
{
    (void)tokenizer;
    return strcmp(key, "bos_token") == 0 ? "<s>" : NULL;
}

enum spw_status spw_tokenizer_encode(const struct spw_tokenizer *tokenizer, const char *text,
                                     size_t bytes, unsigned flags, size_t tokens_max,
                                     struct spw_token_list *out_ids)
{
    (void)tokenizer;
    size_t special = flags & SPW_TOKENIZE_ADD_SPECIAL ? 1 : 0;
    if (bytes + special > tokens_max)
        return SPW_TOO_LARGE;
    out_ids->ids = calloc(bytes + special + 1, sizeof(*out_ids->ids));
    assert(out_ids->ids);
    if (special)
        out_ids->ids[out_ids->count++] = 1;
    for (size_t i = 0; i < bytes; i++)
        out_ids->ids[out_ids->count++] = (uint8_t)text[i] + 3;
    return SPW_OK;
}

void spw_tokenizer_decode(const struct spw_tokenizer *tokenizer, const int32_t *ids, size_t count,
                          bool skip_special, struct spw_buffer *out_text)
{
    (void)tokenizer;
    for (size_t i = 0; i < count; i++) {
        if (ids[i] >= 3)
            spw_buffer_add_u8(out_text, (uint8_t)(ids[i] - 3));
        else if (!skip_special)
            spw_buffer_add_text(out_text, ids[i] == 1 ? "<s>" : "</s>");
    }
}

void spw_detokenizer_init(struct spw_detokenizer *detokenizer,
                          const struct spw_tokenizer *tokenizer, bool skip_special, bool at_start)
{
    (void)at_start;
    *detokenizer = (struct spw_detokenizer){.tokenizer = tokenizer, .skip_special = skip_special};
}

static size_t length_of(uint8_t first)
{
    return first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

void spw_detokenizer_push(struct spw_detokenizer *detokenizer, int32_t id,
                          struct spw_buffer *out_text)
{
    if (id < 3)
        return;
    detokenizer->held[detokenizer->held_bytes++] = (uint8_t)(id - 3);
    if (detokenizer->held_bytes < length_of(detokenizer->held[0]))
        return;
    spw_buffer_add(out_text, detokenizer->held, detokenizer->held_bytes);
    detokenizer->held_bytes = 0;
}

void spw_detokenizer_flush(struct spw_detokenizer *detokenizer, struct spw_buffer *out_text)
{
    if (detokenizer->held_bytes > 0)
        spw_buffer_add_text(out_text, "\xef\xbf\xbd");
    detokenizer->held_bytes = 0;
}

/* --- the service --- */

static bool is_ready(void *context)
{
    struct fake_service *fake = context;
    return !atomic_load(&fake->unready);
}

static bool is_healthy(void *context)
{
    struct fake_service *fake = context;
    return !atomic_load(&fake->unhealthy);
}

static void status_json(void *context, struct spw_buffer *out)
{
    struct fake_service *fake = context;
    spw_buffer_format(
        out,
        "{\"ready\":%s,\"healthy\":%s,\"ranks\":[{\"rank\":0,\"role\":\"coordinator\",\"host\":"
        "\"here\",\"state\":\"serving\",\"replica\":-1,\"stage\":-1,\"tensor\":-1,\"steps\":0,"
        "\"waiting_for\":\"events\",\"pid\":17},{\"rank\":1,\"role\":\"worker\",\"host\":\"there\","
        "\"state\":\"serving\",\"replica\":0,\"stage\":0,\"tensor\":1,\"steps\":12345678901,"
        "\"waiting_for\":\"idle\",\"pid\":18}],\"requests\":{\"running\":%u,\"waiting\":2},\"kv\":"
        "{\"blocks_used\":5,\"blocks_total\":64}}",
        is_ready(fake) ? "true" : "false", is_healthy(fake) ? "true" : "false",
        atomic_load(&fake->live));
}

static void metrics(void *context, struct spw_buffer *out)
{
    (void)context;
    spw_buffer_add_text(out, "spillway_fake 1\n");
}

void fake_service_init(struct fake_service *fake)
{
    *fake = (struct fake_service){0};
    fake->model = (struct spw_model_config){
        .vocab = FAKE_VOCAB,
        .context_tokens_max = FAKE_CONTEXT,
        .bos_token = 1,
        .eos_tokens = {2},
        .eos_count = 1,
        .default_temperature = 0,
        .default_top_p = 1,
    };
    fake->service = (struct spw_service){
        .model_name = "fake",
        .model = &fake->model,
        .engine_class = "cpu-f32",
        .site_name = "local",
        .context_tokens_max = FAKE_CONTEXT,
        .requests_max = LIVE_MAX,
        .body_bytes_max = 1u << 20,
        .ready = is_ready,
        .healthy = is_healthy,
        .status_json = status_json,
        .metrics = metrics,
        .context = fake,
    };
    struct spw_error error;
    enum spw_status status =
        spw_tenants_parse("research=3,web=1:200", 1024, &fake->tenants, &error);
    assert(status == SPW_OK);
    fake->service.tenants = fake->tenants;
    memset(fake->service.model_digest_hex, 'a', SPW_SHA256_HEX_BYTES - 1);
    fake->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert(fake->wake_fd >= 0);
}

void fake_service_wake(void *context)
{
    struct fake_service *fake = context;
    eventfd_write(fake->wake_fd, 1);
}

void fake_service_done(struct fake_service *fake)
{
    close(fake->wake_fd);
    spw_tenants_destroy(fake->tenants);
}

/* --- the loop --- */

static void end_request(struct fake_service *fake, struct spw_request *request,
                        enum spw_request_end end, enum spw_status status)
{
    request->end = end;
    request->status = status;
    if (end == SPW_REQUEST_END_ERROR) {
        request->retry_after_seconds = status == SPW_FULL ? 7 : 0;
        spw_fail(&request->error, status, "fake: %s", spw_status_text(status));
    }
    atomic_fetch_add(end == SPW_REQUEST_END_CANCELLED ? &fake->cancelled
                     : end == SPW_REQUEST_END_ERROR   ? &fake->failed
                                                      : &fake->finished,
                     1);
    atomic_fetch_sub(&fake->live, 1);
    request->door->live--;
    request->loop_ended = true;
    atomic_store_explicit(&request->ended, true, memory_order_release);
    spw_door_notify(request);
}

static bool begins_with(const struct spw_request *request, const char *word)
{
    uint32_t at = request->prompt_tokens > 0 && request->prompt[0] == 1;
    for (; *word; word++, at++)
        if (at >= request->prompt_tokens || request->prompt[at] != (uint8_t)*word + 3)
            return false;
    return true;
}

/* True when it has ended. */
static bool serve(struct fake_service *fake, struct spw_request *request, uint32_t tokens)
{
    static const struct {
        const char *word;
        enum spw_status status;
    } failures[] = {{"!full", SPW_FULL}, {"!lost", SPW_PEER_LOST}, {"!slow", SPW_TIMEOUT}};
    if (request->loop_ended)
        return true;
    if (atomic_load(&request->cancelled) == SPW_REQUEST_GONE) {
        end_request(fake, request, SPW_REQUEST_END_CANCELLED, SPW_CANCELLED);
        return true;
    }
    for (size_t i = 0; i < SPW_ARRAY_COUNT(failures); i++) {
        if (begins_with(request, failures[i].word)) {
            end_request(fake, request, SPW_REQUEST_END_ERROR, failures[i].status);
            return true;
        }
    }
    uint32_t at = atomic_load(&request->published), left = request->output_tokens_max - at;
    for (uint32_t n = SPW_MIN(tokens, left); n > 0; n--) {
        int32_t token = request->prompt[at % request->prompt_tokens];
        request->output[at] = token;
        request->logprobs[at] = -0.5f * (float)(at + 1);
        if (request->tops) {
            struct spw_request_top *top = &request->tops[at];
            top->count = request->sampling.top_logprobs;
            for (uint32_t k = 0; k < top->count; k++) {
                top->tokens[k] = (int32_t)k;
                top->logprobs[k] = -(float)k;
            }
        }
        atomic_store_explicit(&request->published, ++at, memory_order_release);
        atomic_fetch_add(&fake->published, 1);
        if (spw_request_stops_at(request, fake->model.eos_tokens, fake->model.eos_count, token)) {
            end_request(fake, request, SPW_REQUEST_END_STOP, SPW_OK);
            return true;
        }
    }
    if (at == request->output_tokens_max) {
        end_request(fake, request, SPW_REQUEST_END_LENGTH, SPW_OK);
        return true;
    }
    spw_door_notify(request);
    return false;
}

static void *run(void *context)
{
    struct fake_service *fake = context;
    static _Thread_local struct spw_request *live[LIVE_MAX];
    uint32_t count = 0;
    while (!atomic_load(&fake->stop)) {
        struct spw_request *request;
        while ((request = spw_door_loop_next(fake->door))) {
            if (request->loop_known) { /* a cancel: seen through request->cancelled */
                spw_request_release(request);
                continue;
            }
            assert(count < LIVE_MAX);
            atomic_store(&fake->tenant, request->tenant);
            request->cached_tokens = request->prompt_tokens - 1;
            request->loop_known = true;
            request->door->live++;
            atomic_fetch_add(&fake->live, 1);
            live[count++] = request;
        }
        uint32_t tokens = atomic_load(&fake->tokens_per_turn);
        bool paused = atomic_load(&fake->paused);
        for (uint32_t i = 0; i < count;) {
            bool gone = atomic_load(&live[i]->cancelled) == SPW_REQUEST_GONE;
            bool stopped = atomic_load(&live[i]->cancelled) == SPW_REQUEST_STOPPED;
            if (stopped)
                end_request(fake, live[i], SPW_REQUEST_END_STOP, SPW_OK);
            if (!stopped && paused && !gone) {
                i++;
            } else if (serve(fake, live[i], tokens ? tokens : UINT32_MAX)) {
                spw_request_release(live[i]);
                live[i] = live[--count];
            } else {
                i++;
            }
        }
        spw_door_flush(fake->door);
        unsigned rest_us = atomic_load(&fake->turn_us);
        if (count > 0 && !paused) {
            if (rest_us)
                usleep(rest_us);
            continue;
        }
        struct pollfd wait = {.fd = fake->wake_fd, .events = POLLIN};
        (void)poll(&wait, 1, 20);
        eventfd_t ignored;
        (void)eventfd_read(fake->wake_fd, &ignored);
    }
    for (uint32_t i = 0; i < count; i++) {
        end_request(fake, live[i], SPW_REQUEST_END_CANCELLED, SPW_CANCELLED);
        spw_request_release(live[i]);
    }
    spw_door_flush(fake->door);
    return NULL;
}

void fake_service_start(struct fake_service *fake, struct spw_door *door)
{
    fake->door = door;
    int failed = pthread_create(&fake->thread, NULL, run, fake);
    assert(failed == 0);
}

void fake_service_stop(struct fake_service *fake)
{
    atomic_store(&fake->stop, true);
    fake_service_wake(fake);
    pthread_join(fake->thread, NULL);
}
