#include "tests/unit/runtime/http_fake.h"

#include "runtime/base/clock.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ORDINARY_TOKENS 1531 /* ids below are no special tokens of the demo model */
#define NUL_TOKEN       188  /* the zero byte: right, and in the way of C strings in tests */

int32_t http_fake_token(const int32_t *prompt, size_t count, uint32_t index)
{
    uint64_t mixed = spw_checksum64(prompt, count * sizeof(*prompt)) + index * 0x9e3779b97f4a7c15u;
    int32_t token = (int32_t)((mixed >> 20) % ORDINARY_TOKENS);
    return token == NUL_TOKEN ? token + 1 : token;
}

float http_fake_logprob(uint32_t index)
{
    return -0.1f * (float)(index + 1);
}

/* --- the loop --- */

static void end_request(struct http_fake *fake, struct spw_request *request,
                        enum spw_request_end end, enum spw_status status)
{
    request->loop_ended = true;
    request->end = end;
    request->status = status;
    if (status)
        spw_fail(&request->error, status, "the fake loop says so");
    request->retry_after_seconds = 7;
    request->door->live--;
    atomic_fetch_add(&fake->ended, 1);
    atomic_store_explicit(&request->ended, true, memory_order_release);
    spw_door_notify(request);
    for (uint32_t i = 0; i < fake->count; i++)
        if (fake->requests[i] == request) {
            fake->requests[i] = fake->requests[--fake->count];
            spw_request_release(request);
            atomic_fetch_sub(&fake->live, 1);
            return;
        }
    spw_request_release(request);
}

static void take(struct http_fake *fake, struct spw_request *request)
{
    int cancelled = atomic_load(&request->cancelled);
    if (request->loop_known) {
        if (!request->loop_ended) {
            bool stopped = cancelled == SPW_REQUEST_STOPPED;
            atomic_fetch_add(stopped ? &fake->stopped : &fake->gone, 1);
            end_request(fake, request, stopped ? SPW_REQUEST_END_STOP : SPW_REQUEST_END_CANCELLED,
                        stopped ? SPW_OK : SPW_CANCELLED);
        }
        spw_request_release(request);
        return;
    }
    request->loop_known = true;
    request->door->live++;
    pthread_mutex_lock(&fake->lock);
    fake->last = (struct http_fake_asked){
        .sampling = request->sampling,
        .priority = request->priority,
        .deadline_ns = request->deadline_ns,
        .ignore_eos = request->ignore_eos,
        .stop_token_count = request->stop_token_count,
        .output_tokens_max = request->output_tokens_max,
        .prompt_tokens = request->prompt_tokens,
        .tenant = request->tenant,
        .hash_count = request->prefix.count,
    };
    if (request->prefix.count)
        fake->last.first_hash = request->prefix.hashes[0];
    request->cached_tokens = SPW_MIN(HTTP_FAKE_CACHED, request->prompt_tokens);
    memcpy(fake->last.stop_tokens, request->stop_tokens, sizeof(fake->last.stop_tokens));
    memcpy(fake->last.prompt, request->prompt,
           SPW_MIN(request->prompt_tokens, SPW_ARRAY_COUNT(fake->last.prompt)) *
               sizeof(*request->prompt));
    pthread_mutex_unlock(&fake->lock);
    atomic_fetch_add(&fake->taken, 1);
    enum spw_status refuse = (enum spw_status)atomic_load(&fake->refuse);
    if (cancelled)
        atomic_fetch_add(&fake->gone, 1);
    if (cancelled || refuse || fake->count == HTTP_FAKE_LIVE_MAX) {
        end_request(fake, request, cancelled ? SPW_REQUEST_END_CANCELLED : SPW_REQUEST_END_ERROR,
                    cancelled ? SPW_CANCELLED
                    : refuse  ? refuse
                              : SPW_FULL);
        return;
    }
    fake->requests[fake->count++] = request;
    atomic_fetch_add(&fake->live, 1);
}

static void step(struct http_fake *fake, struct spw_request *request)
{
    uint32_t index = atomic_load(&request->published);
    const struct spw_token_list *script = atomic_load(&fake->script);
    int fail = atomic_load(&fake->fail);
    if (fail && index >= atomic_load(&fake->fail_after)) {
        end_request(fake, request, SPW_REQUEST_END_ERROR, (enum spw_status)fail);
        return;
    }
    int32_t token = http_fake_token(request->prompt, request->prompt_tokens, index);
    if (script)
        token = script->ids[index % script->count];
    if (atomic_load(&fake->eos_at) == index + 1)
        token = fake->service.model->eos_tokens[0];
    request->output[index] = token;
    request->logprobs[index] = http_fake_logprob(index);
    if (request->tops) {
        request->tops[index].count = request->sampling.top_logprobs;
        for (uint32_t i = 0; i < request->sampling.top_logprobs; i++) {
            int32_t other = (token + (int32_t)i) % ORDINARY_TOKENS;
            request->tops[index].tokens[i] = other == NUL_TOKEN ? NUL_TOKEN + 1 : other;
            request->tops[index].logprobs[i] = http_fake_logprob(index + i);
        }
    }
    atomic_store_explicit(&request->published, index + 1, memory_order_release);
    if (spw_request_stops_at(request, fake->service.model->eos_tokens,
                             fake->service.model->eos_count, token))
        end_request(fake, request, SPW_REQUEST_END_STOP, SPW_OK);
    else if (index + 1 == request->output_tokens_max)
        end_request(fake, request, SPW_REQUEST_END_LENGTH, SPW_OK);
    else
        spw_door_notify(request);
}

static void *serve(void *context)
{
    struct http_fake *fake = context;
    struct spw_door *door = spw_door_http_door(fake->http);
    while (!atomic_load(&fake->stop)) {
        bool idle = fake->count == 0 || atomic_load(&fake->paused);
        struct pollfd wait = {.fd = fake->wake_fd, .events = POLLIN};
        eventfd_t ignored;
        if (idle)
            (void)poll(&wait, 1, 2);
        (void)eventfd_read(fake->wake_fd, &ignored);
        if (atomic_load(&fake->holding)) {
            usleep(500);
            continue;
        }
        for (struct spw_request *request; (request = spw_door_loop_next(door));)
            take(fake, request);
        for (uint32_t i = fake->count; i-- > 0 && !atomic_load(&fake->paused);)
            step(fake, fake->requests[i]);
        spw_door_flush(door);
        if (atomic_load(&fake->turn_us))
            usleep(atomic_load(&fake->turn_us));
    }
    while (fake->count)
        end_request(fake, fake->requests[0], SPW_REQUEST_END_ERROR, SPW_PEER_LOST);
    spw_door_flush(door);
    return NULL;
}

static void wake(void *context)
{
    struct http_fake *fake = context;
    (void)eventfd_write(fake->wake_fd, 1);
}

/* --- the service --- */

static bool is_ready(void *context)
{
    return atomic_load(&((struct http_fake *)context)->ready);
}

static bool is_healthy(void *context)
{
    return atomic_load(&((struct http_fake *)context)->healthy);
}

static void status_json(void *context, struct spw_buffer *out)
{
    (void)context;
    spw_buffer_add_text(out, "{\"ready\":true,\"ranks\":[]}");
}

static void metrics(void *context, struct spw_buffer *out)
{
    (void)context;
    spw_buffer_add_text(out, "# TYPE spillway_test gauge\nspillway_test 1\n");
}

struct http_fake *http_fake_create(void)
{
    static const char dir[] = SPW_SOURCE_DIR "/launch/demo-model";
    struct spw_error error = {{0}};
    struct http_fake *fake = calloc(1, sizeof(*fake));
    if (!fake)
        return NULL;
    const char *source = NULL;
    enum spw_status status = spw_model_open(dir, &fake->model, &error);
    if (!status)
        status = spw_tokenizer_open(dir, &fake->tokenizer, &error);
    if (!status)
        source = spw_tokenizer_setting(fake->tokenizer, "chat_template");
    if (!status)
        status = spw_tenants_parse("research=3,web=1:200", 1024, &fake->tenants, &error);
    if (!status && source)
        status = spw_chat_template_compile(source, strlen(source), &fake->chat_template, &error);
    if (status) {
        fprintf(stderr, "%s\n", error.text);
        http_fake_destroy(fake);
        return NULL;
    }
    fake->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    pthread_mutex_init(&fake->lock, NULL);
    fake->service = (struct spw_service){
        .model_name = "demo",
        .model = spw_model_config(fake->model),
        .tokenizer = fake->tokenizer,
        .chat_template = fake->chat_template,
        .engine_class = "cpu-f32",
        .site_name = "local",
        .model_digest_hex = "0123456789abcdef",
        .context_tokens_max = 512,
        .requests_max = 512,
        .body_bytes_max = 64u << 10,
        .started_wall_seconds = 1700000000,
        .tenants = fake->tenants,
        .prefix_block_tokens = HTTP_FAKE_BLOCK_TOKENS,
        .ready = is_ready,
        .healthy = is_healthy,
        .status_json = status_json,
        .metrics = metrics,
        .context = fake,
    };
    for (uint32_t i = 0; i < fake->tenants->count; i++)
        fake->tenants->list[i].chain =
            spw_prefix_salt(fake->service.model_digest_hex, fake->service.engine_class,
                            HTTP_FAKE_BLOCK_TOKENS, fake->tenants->list[i].name);
    return fake;
}

void http_fake_destroy(struct http_fake *fake)
{
    if (!fake)
        return;
    spw_tenants_destroy(fake->tenants);
    spw_chat_template_destroy(fake->chat_template);
    spw_tokenizer_close(fake->tokenizer);
    spw_model_close(fake->model);
    if (fake->wake_fd > 0)
        close(fake->wake_fd);
    free(fake);
}

void http_fake_start(struct http_fake *fake, const struct spw_door_http_config *config,
                     const struct spw_http_limits *limits)
{
    struct spw_door_http_config own = *config;
    struct spw_error error = {{0}};
    atomic_uint *const counters[] = {&fake->turn_us, &fake->eos_at, &fake->fail_after,
                                     &fake->taken,   &fake->gone,   &fake->stopped,
                                     &fake->ended,   &fake->live};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(counters); i++)
        atomic_store(counters[i], 0);
    atomic_store(&fake->stop, false);
    atomic_store(&fake->ready, true);
    atomic_store(&fake->healthy, true);
    atomic_store(&fake->paused, false);
    atomic_store(&fake->holding, false);
    atomic_store(&fake->refuse, SPW_OK);
    atomic_store(&fake->fail, SPW_OK);
    atomic_store(&fake->script, NULL);
    fake->count = 0;
    own.service = &fake->service;
    own.wake_loop = wake;
    own.wake_context = fake;
    enum spw_status status = limits ? spw_http_start(&own, limits, &fake->http, &error)
                                    : spw_door_http_start(&own, &fake->http, &error);
    if (status) {
        fprintf(stderr, "%s\n", error.text);
        abort();
    }
    if (pthread_create(&fake->thread, NULL, serve, fake) != 0)
        abort();
}

/* As the coordinator does it: the loop ends its requests first. */
void http_fake_stop(struct http_fake *fake, uint64_t drain_ns)
{
    atomic_store(&fake->stop, true);
    wake(fake);
    pthread_join(fake->thread, NULL);
    spw_door_http_stop(fake->http, drain_ns);
    fake->http = NULL;
}

bool http_fake_wait(const atomic_uint *counter, unsigned wanted)
{
    for (int i = 0; i < 10000; i++) {
        if (atomic_load(counter) >= wanted)
            return true;
        usleep(1000);
    }
    return false;
}

struct http_fake_asked http_fake_last(struct http_fake *fake)
{
    pthread_mutex_lock(&fake->lock);
    struct http_fake_asked copy = fake->last;
    pthread_mutex_unlock(&fake->lock);
    return copy;
}
