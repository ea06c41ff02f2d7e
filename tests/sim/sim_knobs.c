/* sim_knobs.c - what kind of deployment and load a seed is about. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

#define RANKS_MAX 20u

static void draw_layout(struct sim_random *random, struct spw_config *config)
{
    static const uint32_t tensors[] = {1, 1, 1, 2, 4};
    static const uint32_t pipelines[] = {1, 1, 1, 2, 3, 4};
    static const uint32_t replicas[] = {1, 1, 2, 2, 3, 4};
    do {
        config->tensor = SIM_PICK(random, tensors);
        config->pipeline = SIM_PICK(random, pipelines);
        config->replicas = SIM_PICK(random, replicas);
    } while (config->tensor * config->pipeline * config->replicas > RANKS_MAX);
    config->gateways = sim_chance(random, 100);
}

static void draw_sizes(struct sim_random *random, struct sim_knobs *knobs)
{
    static const uint32_t block_tokens[] = {4, 8, 8, 16, 16, 32};
    static const uint32_t contexts[] = {32, 64, 64, 96, 128, 192, 256};
    struct spw_config *config = &knobs->config;
    config->slots = sim_between(random, 1, 12);
    config->block_tokens = SIM_PICK(random, block_tokens);
    knobs->context_tokens = SIM_PICK(random, contexts);
    uint32_t blocks = (knobs->context_tokens + config->block_tokens - 1) / config->block_tokens;
    switch (sim_below(random, 4)) {
    case 0: /* hardly more than one request needs */
        knobs->kv_blocks = blocks + sim_below(random, 3);
        break;
    case 1: /* fewer than the largest request would need */
        knobs->kv_blocks = 1 + blocks * sim_between(random, 5, 9) / 10;
        break;
    case 2:
        knobs->kv_blocks = blocks + blocks * config->slots / 3;
        break;
    default: /* as many as could ever be used */
        knobs->kv_blocks = blocks * config->slots + sim_below(random, 8);
        break;
    }
    config->step_tokens = sim_chance(random, 300)
                              ? sim_between(random, SPW_MAX(config->slots, 4), 24)
                              : sim_between(random, 16, 2 * knobs->context_tokens);
    config->step_tokens = SPW_MAX(config->step_tokens, config->slots);
    config->prefill_chunk =
        sim_chance(random, 400) ? 0 : sim_between(random, 1, config->step_tokens);
    config->queue = sim_chance(random, 300) ? sim_between(random, 1, 8) : 64;
    if (sim_chance(random, 50)) {
        config->slots = 1 + config->slots / 4;
        config->queue = 1;
    }
    config->step_timeout_seconds = sim_chance(random, 150) ? 90 : sim_between(random, 2, 8);
}

static void draw_costs(struct sim_random *random, struct sim_knobs *knobs)
{
    static const uint64_t lags[] = {0, 0, 20 * SPW_US, 500 * SPW_US};
    static const uint64_t messages[] = {0, 5 * SPW_US, 100 * SPW_US};
    static const uint64_t doors[] = {0, 10 * SPW_US, 3 * SPW_MS};
    knobs->fixed_ns = sim_between(random, 200, 4000) * SPW_US;
    knobs->row_ns = sim_between(random, 2, 60) * SPW_US;
    knobs->context_ps = sim_between(random, 0, 20000);
    knobs->jitter_permille = sim_chance(random, 300) ? 0 : sim_between(random, 10, 400);
    knobs->lag_ns = SIM_PICK(random, lags);
    knobs->message_ns = SIM_PICK(random, messages);
    knobs->door_ns = SIM_PICK(random, doors);
    knobs->doors = sim_between(random, 1, SIM_DOORS_MAX);
}

/* Sharing, tiers, tenants, and what the policy is told. */
static void draw_policy(struct sim_random *random, struct sim_knobs *knobs)
{
    static const char *const caches[] = {"off", "tenant", "all", "all"};
    static const uint32_t queues[] = {1, 4, 16, 64};
    struct spw_config *config = &knobs->config;
    struct spw_buffer text;
    snprintf(config->prefix_cache, sizeof(config->prefix_cache), "%s", SIM_PICK(random, caches));
    snprintf(config->evict, sizeof(config->evict), "%s", sim_chance(random, 200) ? "lru" : "cost");
    if (strcmp(config->prefix_cache, "off") != 0 && sim_chance(random, 700))
        knobs->host_blocks = sim_between(random, 1, 2 * knobs->kv_blocks);
    if (knobs->host_blocks && sim_chance(random, 600))
        knobs->disk_blocks = sim_between(random, 1, 4 * knobs->kv_blocks);
    knobs->disk_found = sim_chance(random, 500);
    knobs->host_block_ns = sim_between(random, 5, 500) * SPW_US;
    knobs->disk_block_ns = knobs->host_block_ns * sim_between(random, 1, 8);
    if (sim_chance(random, 300)) {
        config->prompt_weight = sim_below(random, 4);
        config->output_weight = sim_between(random, 1, 4);
    }
    config->itl_goal_ms = sim_chance(random, 300) ? sim_between(random, 1, 20) : 0;
    config->patience_ms = sim_chance(random, 500) ? 10000 : sim_between(random, 1, 500);
    config->batch_share_percent = sim_chance(random, 300) ? 0 : sim_between(random, 1, 100);
    knobs->tenants = sim_chance(random, 400) ? 1 : sim_between(random, 2, 5);
    knobs->one_floods = sim_chance(random, 300);
    knobs->sizes_differ = sim_chance(random, 300);
    spw_buffer_init(&text, sizeof(config->tenants));
    for (uint32_t i = 1; i < knobs->tenants; i++) {
        spw_buffer_format(&text, "%st%u=%u", i > 1 ? "," : "", i, sim_between(random, 1, 5));
        if (sim_chance(random, 400)) {
            uint32_t queue = SIM_PICK(random, queues);
            spw_buffer_format(&text, ":%u", SPW_MIN(queue, config->queue));
        }
    }
    snprintf(config->tenants, sizeof(config->tenants), "%s", spw_buffer_text(&text));
    spw_buffer_done(&text);
}

static void draw_load(struct sim_random *random, struct sim_knobs *knobs)
{
    static const uint32_t loads_permille[] = {300, 800, 1200, 3000, 10000};
    const struct spw_config *config = &knobs->config;
    knobs->clients =
        sim_chance(random, 150) ? sim_between(random, 150, 400) : sim_between(random, 8, 150);
    knobs->prompt_max = sim_between(random, 4, knobs->context_tokens);
    knobs->output_max = sim_between(random, 1, SPW_MIN(100, knobs->context_tokens - 2));
    uint64_t step_ns = knobs->fixed_ns + config->slots * knobs->row_ns;
    uint64_t answer_ns = step_ns * (knobs->output_max / 2 + 2);
    knobs->gap_ns =
        answer_ns * 1000 / SIM_PICK(random, loads_permille) / (config->slots * config->replicas);
    knobs->groups = sim_between(random, 1, 4);
    knobs->group_tokens = sim_chance(random, 400) ? 0 : sim_between(random, 1, knobs->prompt_max);
    knobs->burst_permille = sim_chance(random, 300) ? sim_between(random, 100, 990) : 0;
    knobs->follow_permille = sim_chance(random, 500) ? sim_between(random, 100, 900) : 0;
    knobs->cancel_permille = sim_chance(random, 600) ? sim_between(random, 50, 500) : 0;
    knobs->deadline_permille = sim_chance(random, 500) ? sim_between(random, 100, 800) : 0;
    knobs->stop_permille = sim_chance(random, 600) ? sim_between(random, 50, 600) : 0;
    knobs->batch_permille = sim_chance(random, 500) ? sim_between(random, 100, 700) : 0;
}

/* Seeds that are about shares: small requests, all at once, and nothing goes wrong; so that what
 * chance gives one or the other is little beside what all get. */
static void draw_shares(struct sim_random *random, struct sim_knobs *knobs)
{
    struct spw_config *config = &knobs->config;
    config->replicas = 1;
    config->slots = sim_between(random, 1, 4);
    config->queue = 400;
    knobs->context_tokens = 64;
    knobs->kv_blocks = config->slots * (64 / config->block_tokens + 2);
    config->step_tokens = sim_between(random, 4, 16);
    config->prefill_chunk = 0;
    knobs->clients = 350;
    knobs->gap_ns = 100 * SPW_US;
    knobs->prompt_max = sim_between(random, 1, 12);
    knobs->output_max = sim_between(random, 2, 10);
    knobs->group_tokens = SPW_MIN(knobs->group_tokens, knobs->prompt_max);
    knobs->follow_permille = knobs->deadline_permille = knobs->faults = 0;
    knobs->lose_all = false;
    if (knobs->tenants > 1) {
        knobs->batch_permille = 0;
        return;
    }
    knobs->batch_permille = 500;
    config->batch_share_percent = sim_between(random, 20, 90);
}

/* Seeds that are about prefixes: many at a time that begin alike, little memory, slow copies. */
static void draw_prefixes(struct sim_random *random, struct sim_knobs *knobs)
{
    struct spw_config *config = &knobs->config;
    snprintf(config->prefix_cache, sizeof(config->prefix_cache), "all");
    config->slots = sim_between(random, 4, 12);
    config->step_tokens = SPW_MAX(config->step_tokens, config->slots);
    config->prefill_chunk = sim_between(random, 1, 2 * config->block_tokens);
    config->prefill_chunk = SPW_MIN(config->prefill_chunk, config->step_tokens);
    knobs->groups = sim_between(random, 1, 6);
    knobs->prompt_max = knobs->context_tokens * 3 / 4;
    knobs->group_tokens = knobs->prompt_max * sim_between(random, 4, 10) / 10;
    knobs->output_max = SPW_MIN(knobs->output_max, knobs->context_tokens / 4);
    knobs->burst_permille = 800;
    knobs->host_blocks = sim_below(random, 2 * knobs->kv_blocks);
    knobs->disk_blocks = knobs->host_blocks ? sim_below(random, 6 * knobs->kv_blocks) : 0;
    knobs->host_block_ns = sim_between(random, 1, 3000) * SPW_US;
    knobs->disk_block_ns = 2 * knobs->host_block_ns;
}

void sim_knobs_draw(struct sim_knobs *knobs, uint64_t seed)
{
    struct sim_random random = sim_stream(seed, 0);
    *knobs = (struct sim_knobs){0};
    spw_config_defaults(&knobs->config);
    draw_layout(&random, &knobs->config);
    draw_sizes(&random, knobs);
    draw_costs(&random, knobs);
    draw_policy(&random, knobs);
    draw_load(&random, knobs);
    knobs->faults = sim_chance(&random, 400) ? 0 : sim_between(&random, 1, SIM_FAULTS_MAX);
    knobs->lose_all = sim_chance(&random, 60);
    uint32_t theme = sim_below(&random, 100);
    if (theme < 12)
        draw_shares(&random, knobs);
    else if (theme < 30)
        draw_prefixes(&random, knobs);
}

void sim_knobs_print(const struct sim_knobs *knobs)
{
    const struct spw_config *config = &knobs->config;
    printf("tensor %u pipeline %u replicas %u slots %u queue %u block_tokens %u kv_blocks %u "
           "context %u step_tokens %u prefill_chunk %u\n",
           config->tensor, config->pipeline, config->replicas, config->slots, config->queue,
           config->block_tokens, knobs->kv_blocks, knobs->context_tokens, config->step_tokens,
           config->prefill_chunk);
    printf(
        "prefix %s evict %s host_blocks %u disk_blocks %u%s tenants '%s' weights %u %u itl %u ms "
        "patience %u ms batch %u%%\n",
        config->prefix_cache, config->evict, knobs->host_blocks, knobs->disk_blocks,
        knobs->disk_found ? " (found some)" : "", config->tenants, config->prompt_weight,
        config->output_weight, config->itl_goal_ms, config->patience_ms,
        config->batch_share_percent);
    printf("step %llu ns + row %llu ns + context %llu ps, loop %llu ns, messages %llu ns, "
           "doors %u after %llu ns\n",
           (unsigned long long)knobs->fixed_ns, (unsigned long long)knobs->row_ns,
           (unsigned long long)knobs->context_ps, (unsigned long long)knobs->lag_ns,
           (unsigned long long)knobs->message_ns, knobs->doors, (unsigned long long)knobs->door_ns);
    printf("clients %u every %llu ns, prompts up to %u, answers up to %u, groups %u of %u, "
           "faults %u%s\n",
           knobs->clients, (unsigned long long)knobs->gap_ns, knobs->prompt_max, knobs->output_max,
           knobs->groups, knobs->group_tokens, knobs->faults,
           knobs->lose_all ? ", all may be lost" : "");
}
