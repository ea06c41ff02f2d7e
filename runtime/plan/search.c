#include "runtime/plan/search.h"

#include <stdlib.h>
#include <string.h>

#define AROUND 2u /* numbers tried on each side of an answer */
#define GRID   8u /* numbers tried over a range before it is made finer */

struct search {
    const struct spw_trace *trace;
    const struct spw_cluster *cluster;
    const struct spw_search_options *options;
    struct spw_search *result;
    struct spw_error *error;
    uint64_t rows;
};

static struct spw_search_point *find(struct spw_search *result, uint32_t replicas, bool overflow)
{
    for (uint32_t i = 0; i < result->count; i++)
        if (result->points[i].replicas == replicas && result->points[i].overflow == overflow)
            return &result->points[i];
    return NULL;
}

/* A long repetition is cut where even a small cell would be too much: a shorter time says more than
 * a cell of one or two. Not below one round of the trace. Caps of windows that are longer than what
 * is left are cut alike. */
static void shorten(const struct search *search, struct spw_replay_options *options,
                    struct spw_cluster *cluster)
{
    static const uint64_t window_ns[SPW_OVERFLOW_WINDOWS] = {3600000000000ull, 86400000000000ull,
                                                             UINT64_MAX};
    uint64_t whole_ns = options->duration_ns;
    double speed = options->speed > 0 ? options->speed : 1;
    double cell_rows =
        (double)search->rows * SPW_MIN(SPW_REPLAY_CELL_FEW, options->replicas) / options->replicas;
    double part = (double)search->options->rows_max / cell_rows;
    if (!whole_ns || part >= 1)
        return;
    double round_ns = (double)spw_trace_period_ns(search->trace) / speed;
    double left_ns = SPW_MAX(part * (double)whole_ns, round_ns);
    if (left_ns >= (double)whole_ns)
        return;
    options->duration_ns = (uint64_t)left_ns;
    options->cell_replicas = SPW_MIN(SPW_REPLAY_CELL_FEW, options->replicas);
    for (uint32_t i = 0; i < cluster->site_count; i++) {
        for (uint32_t w = 0; w < SPW_OVERFLOW_WINDOWS; w++) {
            uint64_t *cap = &cluster->sites[i].terms.cap_nano[w];
            uint64_t window = SPW_MIN(window_ns[w], whole_ns);
            if (*cap != SPW_OVERFLOW_NO_CAP && options->duration_ns < window)
                *cap = (uint64_t)((double)*cap * (left_ns / (double)window));
        }
    }
}

/* Run one number, once. out_point NULL when the table is full. */
static enum spw_status try_one(struct search *search, uint32_t replicas, bool overflow,
                               struct spw_search_point **out_point)
{
    struct spw_search *result = search->result;
    *out_point = find(result, replicas, overflow);
    if (*out_point || result->count == SPW_SEARCH_POINTS_MAX)
        return SPW_OK;
    struct spw_replay *replay = calloc(1, sizeof(*replay));
    if (!replay)
        return spw_fail(search->error, SPW_NO_MEMORY, "out of memory");
    struct spw_replay_options options = search->options->replay;
    options.replicas = replicas;
    options.local_only = !overflow;
    options.cell_replicas = spw_replay_cell(search->rows, replicas, search->options->rows_max);
    struct spw_cluster cluster = *search->cluster;
    shorten(search, &options, &cluster);
    enum spw_status status =
        spw_replay_run(search->trace, &cluster, &options, replay, search->error);
    if (!status && replay->stopped)
        status = spw_fail(search->error, SPW_CANCELLED, "stopped");
    struct spw_search_point point = {
        .replicas = replicas, .cell_replicas = options.cell_replicas, .overflow = overflow};
    if (!status && !spw_figures_of(search->cluster, replay, &point.figures))
        status = spw_fail(search->error, SPW_NO_MEMORY, "out of memory");
    spw_replay_done(replay);
    free(replay);
    if (status)
        return status;
    point.meets = point.figures.attainment * 1e6 + 0.5 >= search->cluster->goal_ppm;
    result->points[result->count] = point;
    *out_point = &result->points[result->count++];
    if (search->options->progress)
        search->options->progress(search->options->progress_context, *out_point);
    return SPW_OK;
}

static double cost_of(const struct spw_search_point *point)
{
    return point->figures.cost_per_hour; /* runs may be of different lengths */
}

/* The cheapest tried that meets the goal; of equal ones the fewest replicas. */
static uint32_t cheapest(const struct spw_search *result, bool overflow)
{
    uint32_t best = SPW_SEARCH_POINTS_MAX;
    for (uint32_t i = 0; i < result->count; i++) {
        const struct spw_search_point *point = &result->points[i];
        if (point->overflow != overflow || !point->meets)
            continue;
        const struct spw_search_point *held =
            best == SPW_SEARCH_POINTS_MAX ? NULL : &result->points[best];
        if (!held || cost_of(point) < cost_of(held) ||
            (cost_of(point) <= cost_of(held) && point->replicas < held->replicas))
            best = i;
    }
    return best;
}

/* Numbers around the answer, until none of them is better. */
static enum spw_status look_around(struct search *search, bool overflow)
{
    for (;;) {
        uint32_t best = cheapest(search->result, overflow);
        struct spw_search_point *point = NULL;
        if (best == SPW_SEARCH_POINTS_MAX)
            return SPW_OK;
        uint32_t middle = search->result->points[best].replicas;
        uint32_t low = middle > AROUND ? middle - AROUND : 1;
        for (uint32_t r = low; r <= middle + AROUND && r <= search->options->replicas_max; r++) {
            enum spw_status status = try_one(search, r, overflow, &point);
            if (status)
                return status;
        }
        uint32_t now = cheapest(search->result, overflow);
        if (now == best || !point)
            return SPW_OK;
    }
}

/* Without overflow: owned cost grows with replicas, so the fewest that meet the goal. */
static enum spw_status search_owned(struct search *search)
{
    uint32_t low = 0, high = 1, most = search->options->replicas_max;
    struct spw_search_point *point = NULL;
    enum spw_status status = try_one(search, high, false, &point);
    while (!status && point && !point->meets && high < most) {
        low = high;
        high = high > most / 2 ? most : 2 * high;
        status = try_one(search, high, false, &point);
    }
    while (!status && point && high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        status = try_one(search, middle, false, &point);
        if (status || !point)
            break;
        if (point->meets)
            high = middle;
        else
            low = middle;
    }
    return status ? status : look_around(search, false);
}

/* With overflow: a grid over 1 .. as many as are needed without, finer around the best of each. */
static enum spw_status search_mixed(struct search *search)
{
    uint32_t owned = cheapest(search->result, false);
    uint32_t low = 1, high = owned == SPW_SEARCH_POINTS_MAX
                                 ? search->options->replicas_max
                                 : search->result->points[owned].replicas;
    for (;;) {
        uint32_t width = (high - low + GRID - 1) / GRID;
        width = width ? width : 1;
        for (uint32_t r = low;; r = r + width < high ? r + width : high) {
            struct spw_search_point *point = NULL;
            enum spw_status status = try_one(search, r, true, &point);
            if (status || !point)
                return status;
            if (r == high)
                break;
        }
        uint32_t best = cheapest(search->result, true);
        if (width == 1 || best == SPW_SEARCH_POINTS_MAX)
            break;
        uint32_t middle = search->result->points[best].replicas;
        low = middle > low + width ? middle - width : low;
        high = middle + width < high ? middle + width : high;
    }
    return look_around(search, true);
}

static int compare_points(const void *a, const void *b)
{
    const struct spw_search_point *x = a, *y = b;
    if (x->overflow != y->overflow)
        return x->overflow ? 1 : -1;
    return (x->replicas > y->replicas) - (x->replicas < y->replicas);
}

enum spw_status spw_search_run(const struct spw_trace *trace, const struct spw_cluster *cluster,
                               const struct spw_search_options *options,
                               struct spw_search *out_search, struct spw_error *error)
{
    struct search search = {.trace = trace,
                            .cluster = cluster,
                            .options = options,
                            .result = out_search,
                            .error = error,
                            .rows = spw_replay_rows(trace, &options->replay)};
    out_search->count = 0;
    enum spw_status status = search_owned(&search);
    if (!status && cluster->site_count)
        status = search_mixed(&search);
    /* every pair of number and kind is there once: the order is total */
    qsort(out_search->points, out_search->count, sizeof(out_search->points[0]), compare_points);
    out_search->best[0] = cheapest(out_search, false);
    out_search->best[1] = cheapest(out_search, true);
    return status;
}
