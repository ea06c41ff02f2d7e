/* sim_client.c - clients at their doors: they send, read, cancel, hang up and go on. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

struct sim_client *sim_client_of(struct sim *sim, const struct spw_request *request)
{
    uint32_t index = (uint32_t)(request->id & 0xfff);
    SIM_CHECK(sim, "request-id", index < sim->client_count && sim->clients[index].id == request->id,
              "a request with id %llx is not a client's", (unsigned long long)request->id);
    return &sim->clients[index];
}

/* ---- arrival ---- */

static void keep_request(struct sim_client *client, struct spw_request *request)
{
    client->request = request;
    atomic_fetch_add(&request->references, 1);
    request->id = client->id;
    request->deadline_ns = client->deadline_ns;
}

static enum spw_status send_raw(struct sim *sim, struct sim_client *client)
{
    struct spw_request *request = spw_request_create(client->prompt_tokens, client->output_max, 0);
    assert(request);
    memcpy(request->prompt, client->prompt, client->prompt_tokens * sizeof(*request->prompt));
    request->sampling = client->sampling;
    request->priority = client->priority;
    request->tenant = client->tenant;
    request->ignore_eos = client->ignore_eos;
    request->door_context = client;
    if (client->stop_token >= 0)
        request->stop_tokens[request->stop_token_count++] = client->stop_token;
    keep_request(client, request);
    enum spw_status status = spw_door_submit(&sim->doors[client->door], request);
    if (status) {
        client->request = NULL;
        for (int i = 0; i < 3; i++)
            spw_request_release(request);
    }
    return status;
}

static enum spw_status send_stream(struct sim *sim, struct sim_client *client,
                                   const struct spw_buffer *text)
{
    struct spw_error error = {{0}};
    struct spw_ask ask = {
        .output_tokens_max = client->output_max,
        .sampling_given = {true, true, true, true},
        .sampling = client->sampling,
        .want_logprobs = true,
        .ignore_eos = client->ignore_eos,
        .include_stop = client->include_stop,
        .priority = client->priority,
        .tenant = client->tenant,
    };
    if (client->text) {
        ask.text = (const char *)text->data;
        ask.text_bytes = text->bytes;
    } else {
        ask.tokens = client->prompt;
        ask.token_count = client->prompt_tokens;
    }
    if (client->stop[0])
        ask.stops[ask.stop_count++] = client->stop;
    if (client->stop_token >= 0)
        ask.stop_tokens[ask.stop_token_count++] = client->stop_token;
    enum spw_status status =
        spw_stream_open(&sim->doors[client->door], &ask, client, &client->stream, &error);
    if (status)
        return status;
    const struct spw_request *request = client->stream->request;
    keep_request(client, client->stream->request);
    SIM_CHECK(sim, "prompt-tokens",
              request->prompt_tokens == client->prompt_tokens &&
                  memcmp(request->prompt, client->prompt,
                         client->prompt_tokens * sizeof(*client->prompt)) == 0,
              "client %u: the request's prompt is not what it asked", client->index);
    return SPW_OK;
}

/* Prompts that come as text have the tokens that the tokenizer finds in it. */
static void make_text(struct sim *sim, struct sim_client *client, struct spw_buffer *text)
{
    const struct sim_model *model = sim->model;
    struct spw_token_list list = {0};
    for (uint32_t i = 0; i < client->prompt_tokens; i++) {
        int32_t token = client->prompt[i];
        spw_buffer_add(text, model->bytes.data + model->text_begin[token],
                       model->text_begin[token + 1] - model->text_begin[token]);
    }
    enum spw_status status =
        spw_tokenizer_encode(model->tokenizer, (const char *)text->data, text->bytes,
                             SPW_TOKENIZE_PARSE_SPECIAL, 1u << 20, &list);
    assert(status == SPW_OK);
    free(client->prompt);
    client->prompt = list.ids;
    client->prompt_tokens = (uint32_t)list.count;
    sim->probes->seen[SIM_PROBE_TEXT_PROMPT]++;
}

static void count_state(struct sim *sim, const struct sim_client *client);

static void cancel(struct sim *sim, struct sim_client *client)
{
    struct spw_door *door = &sim->doors[client->door];
    if (client->state != SIM_CLIENT_SENT || client->cancelled)
        return;
    count_state(sim, client);
    sim_note(sim, "cancel client=%llu hangs_up=%llu", client->index, client->hangs_up, 0, 0, 0, 0);
    client->cancelled = true;
    client->cancel_counts = !atomic_load(&client->request->ended);
    if (!client->hangs_up) {
        spw_door_cancel(door, client->request, false);
        return;
    }
    sim->probes->seen[SIM_PROBE_HANG_UP]++;
    client->state = SIM_CLIENT_GONE;
    sim->open_clients--;
    if (client->raw) {
        spw_door_cancel(door, client->request, false);
        spw_door_let_go(door, client->request);
    } else {
        spw_stream_close(door, client->stream);
        client->stream = NULL;
    }
}

void sim_client_cancels(struct sim *sim, uint64_t index, uint64_t unused)
{
    (void)unused;
    cancel(sim, &sim->clients[index]);
}

static void count_state(struct sim *sim, const struct sim_client *client)
{
    enum sim_probe probe = SIM_PROBE_CANCEL_DECODE;
    if (atomic_load(&client->request->ended))
        probe = SIM_PROBE_CANCEL_ENDED;
    else if (!client->request->loop_known)
        probe = SIM_PROBE_CANCEL_UNTAKEN;
    else if (!client->planned)
        probe = SIM_PROBE_CANCEL_WAITING;
    else if (client->back)
        probe = SIM_PROBE_CANCEL_BACK;
    else if (client->planned_end < client->prefill_end)
        probe = SIM_PROBE_CANCEL_PREFILL;
    sim->probes->seen[probe]++;
    sim->probes->seen[SIM_PROBE_CANCEL_IN_FLIGHT] += client->in_flight > 0;
}

void sim_client_arrives(struct sim *sim, uint64_t index, uint64_t unused)
{
    struct sim_client *client = &sim->clients[index];
    struct spw_buffer text;
    (void)unused;
    sim->arrivals_left--;
    if (sim->loop_done)
        return;
    spw_buffer_init(&text, 1u << 20);
    if (client->text)
        make_text(sim, client, &text);
    sim_client_expect(sim, client);
    enum spw_status status = client->raw ? send_raw(sim, client) : send_stream(sim, client, &text);
    spw_buffer_done(&text);
    sim_note(sim, "client %llu sends prompt=%llu output=%llu priority=%llu tenant=%llu: %llu",
             client->index, client->prompt_tokens, client->output_max, client->priority,
             client->tenant, (uint64_t)-status);
    if (status == SPW_OK) {
        sim->prompt_most = SPW_MAX(sim->prompt_most, client->prompt_tokens);
        sim->output_most = SPW_MAX(sim->output_most, client->output_max);
        client->state = SIM_CLIENT_SENT;
        client->sent_ns = sim->now_ns;
        sim->open_clients++;
        if (client->cancel == SIM_CANCEL_AT_TIME)
            sim_at(sim, sim->now_ns + client->cancel_at, sim_client_cancels, index, 0);
        return;
    }
    uint32_t tokens = client->prompt_tokens + client->output_max;
    client->state = SIM_CLIENT_UNSENT;
    if (status == SPW_FULL) {
        sim->probes->seen[SIM_PROBE_ADMIT_DOOR_FULL]++;
    } else {
        SIM_CHECK(sim, "refused-early",
                  status == SPW_TOO_LARGE && tokens > sim->knobs.context_tokens, "client %u: %s",
                  client->index, spw_status_name(status));
        sim->probes->seen[SIM_PROBE_ADMIT_TOO_LONG]++;
    }
}

/* ---- news ---- */

static void take_token(struct sim *sim, struct sim_client *client, int32_t token, float logprob)
{
    SIM_CHECK(sim, "token-count", client->seen < client->shown_count,
              "client %u: token %u of an answer of %u", client->index, client->seen + 1,
              client->shown_count);
    SIM_CHECK(sim, "token", token == client->expected[client->seen],
              "client %u: token %u is %d: alone it would be %d", client->index, client->seen,
              (int)token, (int)client->expected[client->seen]);
    SIM_CHECK(sim, "token-logprob", logprob == -(float)token, "client %u: token %u", client->index,
              client->seen);
    client->seen++;
    sim->tokens++;
}

/* True when the answer has ended. */
static bool read_stream(struct sim *sim, struct sim_client *client)
{
    struct spw_stream *stream = client->stream;
    spw_stream_advance(&sim->doors[client->door], stream);
    for (uint32_t i = 0; i < stream->token_count; i++)
        take_token(sim, client, stream->tokens[i].token, stream->tokens[i].logprob);
    /* an answer that is cut short shows what could have become a stop string */
    bool cut = stream->end == SPW_REQUEST_END_CANCELLED || stream->end == SPW_REQUEST_END_ERROR;
    size_t bytes_max = cut ? client->text_bytes : client->expected_bytes;
    SIM_CHECK(sim, "text",
              client->seen_bytes + stream->text.bytes <= bytes_max &&
                  (stream->text.bytes == 0 || memcmp(client->expected_text + client->seen_bytes,
                                                     stream->text.data, stream->text.bytes) == 0),
              "client %u: after %zu of %zu bytes: '%.*s', not '%s'", client->index,
              client->seen_bytes, bytes_max, (int)stream->text.bytes,
              (const char *)stream->text.data, client->expected_text + client->seen_bytes);
    client->seen_bytes += stream->text.bytes;
    return stream->end != SPW_REQUEST_END_NONE;
}

static bool read_raw(struct sim *sim, struct sim_client *client)
{
    const struct spw_request *request = client->request;
    bool ended = atomic_load(&request->ended);
    uint32_t published = atomic_load(&request->published);
    while (client->seen < published)
        take_token(sim, client, request->output[client->seen], request->logprobs[client->seen]);
    return ended;
}

static void take_news(struct sim *sim, struct sim_client *client)
{
    struct spw_door *door = &sim->doors[client->door];
    bool ended = client->raw ? read_raw(sim, client) : read_stream(sim, client);
    sim_note(sim, "client %llu has tokens=%llu bytes=%llu ended=%llu", client->index, client->seen,
             client->seen_bytes, ended, 0, 0);
    if (!ended) {
        if (client->cancel == SIM_CANCEL_AT_TOKEN && client->seen >= client->cancel_at)
            cancel(sim, client);
        return;
    }
    client->ends++;
    sim_check_end(sim, client);
    client->state = SIM_CLIENT_ENDED;
    sim->open_clients--;
    if (client->raw) {
        spw_door_let_go(door, client->request);
    } else {
        spw_stream_close(door, client->stream);
        client->stream = NULL;
    }
    if (!client->refused && !client->cancelled && client->seen == client->shown_count)
        sim_client_follow(sim, client);
}

void sim_door_reads(struct sim *sim, uint64_t index, uint64_t unused)
{
    struct spw_door *door = &sim->doors[index];
    struct spw_request *request;
    (void)unused;
    sim->door_reads[index] = false;
    while ((request = spw_door_next(door))) {
        struct sim_client *client = sim_client_of(sim, request);
        SIM_CHECK(sim, "notice", client->state == SIM_CLIENT_SENT, "client %u: news in state %d",
                  client->index, (int)client->state);
        take_news(sim, client);
    }
}

void sim_doors_pump(struct sim *sim)
{
    for (uint32_t d = 0; d < sim->knobs.doors; d++) {
        if (sim->door_reads[d] || spw_ring_count(&sim->doors[d].from_loop) == 0)
            continue;
        sim->door_reads[d] = true;
        sim_at(sim, sim->now_ns + sim->knobs.door_ns, sim_door_reads, d, 0);
    }
}

bool sim_doors_quiet(const struct sim *sim)
{
    for (uint32_t d = 0; d < sim->knobs.doors; d++)
        if (sim->doors[d].live || spw_ring_count(&sim->doors[d].to_loop) ||
            spw_ring_count(&sim->doors[d].from_loop))
            return false;
    return sim->open_clients == 0;
}
