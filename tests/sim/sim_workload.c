/* sim_workload.c - who asks what and when, and what the right answer is. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

static void draw_tenant(struct sim *sim, struct sim_client *client, struct sim_random *random)
{
    const struct sim_knobs *knobs = &sim->knobs;
    client->tenant = sim_below(random, knobs->tenants);
    if (knobs->one_floods && sim_chance(random, 700))
        client->tenant = 0;
    if (!knobs->sizes_differ || client->tenant % 2 == 0)
        return;
    client->prompt_tokens = 1 + client->prompt_tokens / 4;
    client->output_max = 1 + client->output_max / 4;
}

static void draw_prompt(struct sim *sim, struct sim_client *client, struct sim_random *random)
{
    const struct sim_knobs *knobs = &sim->knobs;
    uint32_t most = sim_chance(random, 15) ? knobs->context_tokens + 2 : knobs->prompt_max;
    uint32_t group = sim_below(random, knobs->groups), shared = 0;
    client->prompt_tokens = sim_between(random, 1, most);
    client->prompt = malloc(client->prompt_tokens * sizeof(*client->prompt));
    assert(client->prompt);
    if (!sim_chance(random, 250))
        shared = SPW_MIN(knobs->group_tokens, client->prompt_tokens);
    if (sim_chance(random, 200))
        shared = sim_below(random, shared + 1);
    for (uint32_t i = 0; i < client->prompt_tokens; i++)
        client->prompt[i] = i < shared
                                ? sim->group_prefix[group * knobs->group_tokens + i]
                                : sim->model->outputs[sim_below(random, sim->model->output_count)];
}

static void draw_manners(struct sim *sim, struct sim_client *client, struct sim_random *random)
{
    const struct sim_knobs *knobs = &sim->knobs;
    uint64_t answer_ns = (knobs->fixed_ns + knobs->config.slots * knobs->row_ns) *
                         (client->output_max + client->prompt_tokens / 16 + 2);
    client->door = sim_below(random, knobs->doors);
    client->raw = sim_chance(random, 200);
    client->text = !client->raw && sim_chance(random, 100);
    client->ignore_eos = sim_chance(random, 100);
    client->include_stop = sim_chance(random, 500);
    client->sampling = (struct spw_sampling){.temperature = 1, .top_p = 1};
    client->sampling.seed = sim_chance(random, 500) ? 7 : sim_next(random);
    client->priority = sim_chance(random, 200) ? 0 : 1;
    if (sim_chance(random, knobs->batch_permille))
        client->priority = SPW_SCHED_BATCH;
    if (sim_chance(random, knobs->deadline_permille) && client->priority != SPW_SCHED_BATCH)
        client->deadline_ns = 1 + sim_exponential(random, answer_ns * sim_between(random, 1, 20));
    if (sim_chance(random, knobs->cancel_permille)) {
        client->cancel = sim_chance(random, 500) ? SIM_CANCEL_AT_TIME : SIM_CANCEL_AT_TOKEN;
        client->cancel_at = client->cancel == SIM_CANCEL_AT_TOKEN
                                ? sim_below(random, client->output_max)
                                : sim_exponential(random, answer_ns);
        if (sim_chance(random, 150)) {
            client->cancel = SIM_CANCEL_AT_TIME;
            client->cancel_at = 0;
        }
        client->hangs_up = sim_chance(random, 500);
    }
    client->stop_token = -1;
    if (sim_chance(random, knobs->stop_permille)) {
        if (client->raw || sim_chance(random, 400))
            client->stop_token = sim->model->outputs[sim_below(random, sim->model->output_count)];
        else
            client->stop_draw = 1 + sim_below(random, 1u << 30);
    }
}

static struct sim_client *add_client(struct sim *sim, struct sim_random *out_random)
{
    if (sim->client_count == SIM_CLIENTS_MAX)
        return NULL;
    uint32_t index = sim->client_count++;
    struct sim_client *client = &sim->clients[index];
    *out_random = sim_stream(sim->seed, 100 + index);
    client->index = index;
    client->id = sim_next(out_random) << 12 | index;
    return client;
}

static void send_at(struct sim *sim, struct sim_client *client, uint64_t at_ns)
{
    client->arrive_ns = at_ns;
    if (client->deadline_ns)
        client->deadline_ns += at_ns;
    sim->arrivals_left++;
    sim_at(sim, at_ns, sim_client_arrives, client->index, 0);
}

void sim_workload_draw(struct sim *sim)
{
    const struct sim_knobs *knobs = &sim->knobs;
    uint64_t at_ns = SIM_START_NS + (sim_chance(&sim->work, 150) ? 0 : 35 * SPW_MS);
    sim->clients = calloc(SIM_CLIENTS_MAX, sizeof(*sim->clients));
    sim->group_prefix =
        calloc((size_t)knobs->groups * knobs->group_tokens + 1, sizeof(*sim->group_prefix));
    assert(sim->clients && sim->group_prefix);
    for (uint32_t i = 0; i < knobs->groups * knobs->group_tokens; i++)
        sim->group_prefix[i] = sim->model->outputs[sim_below(&sim->work, sim->model->output_count)];
    for (uint32_t i = 0; i < knobs->clients; i++) {
        struct sim_random random;
        struct sim_client *client = add_client(sim, &random);
        draw_prompt(sim, client, &random);
        client->output_max = sim_between(&random, 1, knobs->output_max);
        if (!sim_chance(&random, 100) &&
            client->prompt_tokens + client->output_max > knobs->context_tokens)
            client->output_max =
                SPW_MAX((int)knobs->context_tokens - (int)client->prompt_tokens, 1);
        draw_tenant(sim, client, &random);
        draw_manners(sim, client, &random);
        if (sim_chance(&random, knobs->follow_permille))
            client->turns_left = sim_between(&random, 1, 4);
        if (!sim_chance(&sim->work, knobs->burst_permille))
            at_ns += sim_exponential(&sim->work, knobs->gap_ns);
        send_at(sim, client, at_ns);
    }
    sim->horizon_ns = at_ns;
}

void sim_client_follow(struct sim *sim, struct sim_client *before)
{
    struct sim_random random;
    uint32_t said = before->prompt_tokens + before->seen;
    if (before->turns_left == 0 || sim->healed || sim->draining ||
        said + 4 >= sim->knobs.context_tokens)
        return;
    struct sim_client *client = add_client(sim, &random);
    if (!client)
        return;
    uint32_t room = sim->knobs.context_tokens - said - 2;
    uint32_t more = sim_between(&random, 1, SPW_MIN(room, 24));
    client->prompt_tokens = said + more;
    client->prompt = malloc(client->prompt_tokens * sizeof(*client->prompt));
    assert(client->prompt);
    memcpy(client->prompt, before->prompt, before->prompt_tokens * sizeof(*client->prompt));
    memcpy(client->prompt + before->prompt_tokens, before->expected,
           before->seen * sizeof(*client->prompt));
    for (uint32_t i = 0; i < more; i++)
        client->prompt[said + i] =
            sim->model->outputs[sim_below(&random, sim->model->output_count)];
    client->output_max = sim_between(&random, 1, SPW_MIN(sim->knobs.output_max, room - more + 2));
    draw_manners(sim, client, &random);
    client->text = false; /* its tokens have to be these */
    client->tenant = before->tenant;
    client->turns_left = before->turns_left - 1;
    sim->probes->seen[SIM_PROBE_FOLLOW_UP]++;
    send_at(sim, client, sim->now_ns + sim_exponential(&random, 4 * sim->knobs.gap_ns + SPW_MS));
}

void sim_workload_free(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->client_count; i++) {
        free(sim->clients[i].prompt);
        free(sim->clients[i].expected);
        free(sim->clients[i].expected_text);
    }
    free(sim->clients);
    free(sim->group_prefix);
}

/* ---- the right answer ---- */

static bool ends_answer(const struct sim_client *client, int32_t token)
{
    return (token == SIM_EOS && !client->ignore_eos) || token == client->stop_token;
}

/* Tokens that complete `bytes` bytes of text. */
static uint32_t tokens_to(const struct sim *sim, const struct sim_client *client, size_t bytes)
{
    uint32_t count = 0;
    for (size_t have = 0; have < bytes; count++) {
        int32_t token = client->expected[count];
        have += sim->model->text_begin[token + 1] - sim->model->text_begin[token];
    }
    return count;
}

/* One to three characters that the answer holds somewhere; it ends where they are seen first. */
static void draw_stop(struct sim *sim, struct sim_client *client)
{
    uint32_t begin = client->stop_draw % (uint32_t)client->expected_bytes;
    uint32_t bytes = 1 + client->stop_draw / 1024 % 3;
    bytes = SPW_MIN(bytes, (uint32_t)client->expected_bytes - begin);
    for (uint32_t i = 0; i < bytes; i++)
        if ((uint8_t)client->expected_text[begin + i] >= 0x80)
            return; /* stop strings are whole characters */
    memcpy(client->stop, client->expected_text + begin, bytes);
    const char *first = strstr(client->expected_text, client->stop);
    size_t at = (size_t)(first - client->expected_text);
    client->shown_count = tokens_to(sim, client, at + bytes);
    client->expected_bytes = client->include_stop ? at + bytes : at;
    client->expected_end = SPW_REQUEST_END_STOP;
}

void sim_client_expect(struct sim *sim, struct sim_client *client)
{
    const struct sim_model *model = sim->model;
    uint64_t state = SIM_MODEL_BEGIN;
    client->expected = calloc(client->output_max, sizeof(*client->expected));
    client->expected_text = calloc((size_t)client->output_max * 8 + 1, 1);
    assert(client->expected && client->expected_text);
    for (uint32_t i = 0; i < client->prompt_tokens; i++)
        state = sim_model_add(state, client->prompt[i]);
    client->expected_end = SPW_REQUEST_END_LENGTH;
    while (client->expected_count < client->output_max) {
        int32_t token = sim_model_next(model, state, client->sampling.seed);
        client->expected[client->expected_count++] = token;
        state = sim_model_add(state, token);
        if (ends_answer(client, token)) {
            client->expected_end = SPW_REQUEST_END_STOP;
            break;
        }
        size_t bytes = model->text_begin[token + 1] - model->text_begin[token];
        memcpy(client->expected_text + client->expected_bytes,
               model->bytes.data + model->text_begin[token], bytes);
        client->expected_bytes += bytes;
    }
    client->text_bytes = client->expected_bytes;
    client->shown_count = client->expected_count;
    if (client->stop_draw && client->expected_bytes)
        draw_stop(sim, client);
}
