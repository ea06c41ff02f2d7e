/* sim_events.c - the heap of what is going to happen. */
#include "tests/sim/sim.h"

#include <stdlib.h>

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

void sim_at(struct sim *sim, uint64_t at_ns, sim_event_fn run, uint64_t a, uint64_t b)
{
    if (sim->event_count == sim->event_capacity) {
        sim->event_capacity = sim->event_capacity ? 2 * sim->event_capacity : 256;
        sim->events = realloc(sim->events, sim->event_capacity * sizeof(*sim->events));
        assert(sim->events);
    }
    struct sim_event event = {
        .at_ns = SPW_MAX(at_ns, sim->now_ns), .seq = sim->event_seq++, .run = run, .a = a, .b = b};
    uint32_t at = sim->event_count++;
    while (at > 0 && before(&event, &sim->events[(at - 1) / 2])) {
        sim->events[at] = sim->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    sim->events[at] = event;
}

uint64_t sim_next_at(const struct sim *sim)
{
    return sim->event_count ? sim->events[0].at_ns : UINT64_MAX;
}

static struct sim_event take_first(struct sim *sim)
{
    struct sim_event first = sim->events[0];
    struct sim_event last = sim->events[--sim->event_count];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= sim->event_count)
            break;
        if (child + 1 < sim->event_count && before(&sim->events[child + 1], &sim->events[child]))
            child++;
        if (!before(&sim->events[child], &last))
            break;
        sim->events[at] = sim->events[child];
        at = child;
    }
    sim->events[at] = last;
    return first;
}

void sim_run_until(struct sim *sim, uint64_t until_ns)
{
    while (sim_next_at(sim) <= until_ns) {
        struct sim_event event = take_first(sim);
        sim->now_ns = event.at_ns;
        event.run(sim, event.a, event.b);
    }
    sim->now_ns = until_ns;
}
