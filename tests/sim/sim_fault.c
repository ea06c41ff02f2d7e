/* sim_fault.c - what goes wrong, and the end of it. */
#include "tests/sim/sim.h"

#include <string.h>

#define LIVENESS_NS (240 * SPW_SECOND)

enum fault {
    FAULT_SLOW,
    FAULT_STUCK,
    FAULT_KILL,
    FAULT_LATE,
    FAULT_DAMAGE,
    FAULT_BLOCKS,
    FAULT_DRAIN,
    FAULT_STOP_NOW,
    FAULT_KINDS,
};

static struct sim_rank *pick_worker(struct sim *sim)
{
    return &sim->ranks[1 + sim_below(&sim->harm, spw_layout_workers(&sim->knobs.config))];
}

/* Whether this fault may cost the replica. One has to stay, unless the seed is about losing all. */
static bool may_doom(struct sim *sim, uint32_t replica)
{
    if (sim->replicas[replica].doomed)
        return true;
    if (!sim->knobs.lose_all && sim->dooms + 1 >= sim->knobs.config.replicas)
        return false;
    sim->replicas[replica].doomed = true;
    sim->dooms++;
    return true;
}

static void slow_ends(struct sim *sim, uint64_t rank, uint64_t unused)
{
    (void)unused;
    sim->ranks[rank].slow_permille = 1000;
}

static void slow(struct sim *sim)
{
    struct sim_rank *rank = pick_worker(sim);
    rank->slow_permille = sim_between(&sim->harm, 1500, 20000);
    sim->probes->seen[SIM_PROBE_SLOW_RANK]++;
    sim_note(sim, "fault: rank %llu is slow permille=%llu", rank->tp->rank, rank->slow_permille, 0,
             0, 0, 0);
    sim_at(sim, sim->now_ns + sim_between(&sim->harm, 1, 3000) * SPW_MS, slow_ends, rank->tp->rank,
           0);
}

static void unstuck(struct sim *sim, uint64_t index, uint64_t unused)
{
    struct sim_rank *rank = &sim->ranks[index];
    const struct sim_replica *replica = &sim->replicas[rank->place.replica];
    (void)unused;
    if (rank->dead || rank->stuck_until_ns > sim->now_ns)
        return;
    sim->probes->seen[replica->lost ? SIM_PROBE_STUCK_LOST : SIM_PROBE_STUCK_BACK]++;
    sim_note(sim, "fault: rank %llu goes on", index, 0, 0, 0, 0, 0);
    if (rank->stop_seen)
        sim_rank_stop_answer(sim, (uint32_t)index);
    sim_stages_start(sim, rank->place.replica);
}

static void stick(struct sim *sim)
{
    struct sim_rank *rank = pick_worker(sim);
    struct sim_replica *replica = &sim->replicas[rank->place.replica];
    uint64_t limit_ns = sim->knobs.config.step_timeout_seconds * SPW_SECOND, ns;
    if (sim->now_ns < replica->stuck_until_ns + SPW_SECOND)
        return; /* together they could last longer than a step may */
    if (sim_chance(&sim->harm, 400) && may_doom(sim, rank->place.replica))
        ns = limit_ns + sim_between(&sim->harm, 500, 4000) * SPW_MS;
    else
        ns = sim_between(&sim->harm, 1, (uint32_t)(limit_ns / SPW_MS / 2)) * SPW_MS;
    rank->stuck_until_ns = replica->stuck_until_ns = sim->now_ns + ns;
    sim_note(sim, "fault: rank %llu is stuck ns=%llu", rank->tp->rank, ns, 0, 0, 0, 0);
    sim_at(sim, rank->stuck_until_ns, unstuck, rank->tp->rank, 0);
}

static void kill_rank(struct sim *sim, struct sim_rank *rank)
{
    if (rank->dead || !may_doom(sim, rank->place.replica))
        return;
    sim_note(sim, "fault: rank %llu dies", rank->tp->rank, 0, 0, 0, 0, 0);
    sim_rank_kill(sim, rank->tp->rank);
}

static void damage(struct sim *sim)
{
    const struct spw_config *config = &sim->knobs.config;
    uint32_t replica = sim_below(&sim->harm, config->replicas);
    if (!may_doom(sim, replica))
        return;
    uint32_t rank = spw_layout_worker(config, replica, config->pipeline - 1, 0);
    sim->ranks[rank].damage++;
    sim_note(sim, "fault: the next result of rank %llu is cut", rank, 0, 0, 0, 0, 0);
}

static void late(struct sim *sim)
{
    sim->late_ns = sim_between(&sim->harm, 1, 60) * SPW_MS;
    sim->late_until_ns = sim->now_ns + sim_between(&sim->harm, 10, 2000) * SPW_MS;
    sim->probes->seen[SIM_PROBE_LATE_MESSAGES]++;
    sim_note(sim, "fault: messages are late ns=%llu until=%llu", sim->late_ns, sim->late_until_ns,
             0, 0, 0, 0);
}

static void drain(struct sim *sim, int how)
{
    if (sim->draining)
        return;
    if (sim->knobs.config.step_timeout_seconds > 60) { /* somebody stands still to its limit */
        struct sim_rank *rank = pick_worker(sim);
        rank->stuck_until_ns = sim->now_ns + 40 * SPW_SECOND;
        sim_at(sim, rank->stuck_until_ns, unstuck, rank->tp->rank, 0);
    }
    sim->draining = true;
    sim->drain_ns = sim->now_ns;
    sim_note(sim, "fault: the deployment is told to stop how=%llu", (uint64_t)how, 0, 0, 0, 0, 0);
    if (how == SPW_STOP_NOW)
        sim->probes->seen[SIM_PROBE_STOP_NOW]++;
    atomic_store(&sim->stop, how);
}

static void fault(struct sim *sim, uint64_t kind, uint64_t unused)
{
    (void)unused;
    if (sim->healed || sim->loop_done)
        return;
    switch ((enum fault)kind) {
    case FAULT_SLOW:
        slow(sim);
        break;
    case FAULT_STUCK:
        stick(sim);
        break;
    case FAULT_KILL:
        kill_rank(sim, pick_worker(sim));
        break;
    case FAULT_LATE:
        late(sim);
        break;
    case FAULT_DAMAGE:
        damage(sim);
        break;
    case FAULT_BLOCKS:
        sim_kv_damage(sim, pick_worker(sim));
        break;
    case FAULT_DRAIN:
        drain(sim, SPW_STOP_DRAIN);
        break;
    case FAULT_STOP_NOW:
        drain(sim, SPW_STOP_NOW);
        break;
    case FAULT_KINDS:
        break;
    }
}

static uint64_t time_in(struct sim *sim, uint64_t span)
{
    return SIM_START_NS + (uint64_t)(sim_unit(&sim->harm) * (double)span);
}

static void kill_one_of(struct sim *sim, uint64_t replica, uint64_t unused)
{
    const struct spw_config *config = &sim->knobs.config;
    uint32_t ranks = config->pipeline * config->tensor;
    (void)unused;
    if (!sim->healed && !sim->loop_done)
        kill_rank(sim, &sim->ranks[spw_layout_worker(config, (uint32_t)replica, 0, 0) +
                                   sim_below(&sim->harm, ranks)]);
}

void sim_faults_draw(struct sim *sim)
{
    static const uint32_t weights[FAULT_KINDS] = {5, 5, 4, 4, 1, 4, 2, 1};
    uint64_t span = sim->horizon_ns - SIM_START_NS;
    span += span / 4 + 100 * SPW_MS;
    for (uint32_t i = 0; i < sim->knobs.faults; i++) {
        uint32_t draw = sim_below(&sim->harm, 26), kind = 0;
        while (draw >= weights[kind])
            draw -= weights[kind++];
        sim_at(sim, time_in(sim, span), fault, kind, 0);
    }
    for (uint32_t i = 0; sim->knobs.lose_all && i < sim->knobs.config.replicas; i++)
        sim_at(sim, time_in(sim, span), kill_one_of, i, 0);
    sim_at(sim, SIM_START_NS + span + 1, sim_heal, 0, 0);
}

static void must_be_over(struct sim *sim, uint64_t unused, uint64_t unused_too)
{
    (void)unused, (void)unused_too;
    if (!sim->loop_done)
        sim_fail(sim, "liveness", "%u clients wait %llu s after all faults were over",
                 sim->open_clients, (unsigned long long)(LIVENESS_NS / SPW_SECOND));
}

/* Faults end; nobody new comes. What is left has to end by itself. */
void sim_heal(struct sim *sim, uint64_t unused, uint64_t unused_too)
{
    (void)unused, (void)unused_too;
    if (sim->draining && !sim->loop_done && sim->now_ns - sim->drain_ns < 31 * SPW_SECOND) {
        sim_at(sim, sim->drain_ns + 31 * SPW_SECOND, sim_heal, 0, 0);
        return; /* its limit is to be seen */
    }
    sim->healed = true;
    sim->late_until_ns = 0;
    sim_note(sim, "heal", 0, 0, 0, 0, 0, 0);
    for (uint32_t i = 1; i < sim->rank_count; i++) {
        struct sim_rank *rank = &sim->ranks[i];
        rank->slow_permille = 1000;
        if (rank->stuck_until_ns > sim->now_ns) {
            rank->stuck_until_ns = sim->now_ns;
            unstuck(sim, i, 0);
        }
    }
    sim_at(sim, sim->now_ns + LIVENESS_NS, must_be_over, 0, 0);
}

uint64_t sim_message_ns(struct sim *sim)
{
    uint64_t ns = sim->knobs.message_ns;
    if (sim->now_ns < sim->late_until_ns)
        ns += sim_below(&sim->harm, (uint32_t)sim->late_ns);
    return ns;
}
