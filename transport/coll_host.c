/* The collectives themselves.
 *
 * Shared way: phases. In phase q a rank writes into its slot q % 2 and then raises the slot's phase
 * number to q; the others wait for q there and read. Why the slot can be written again in phase q:
 * it was used in phase q - 2, and every rank finishes reading phase q - 2 before it raises phase
 * q - 1, which begin_phase waits for. Every reader compares the stamp before it reads and the phase
 * number after it.
 *
 * Sums: rank r's vector is leaf r; level by level (r, r ^ 2^l) are added, lower + upper. With all
 * vectors in reach the whole tree is evaluated per element: the same additions, the same bits.
 */
#include "runtime/base/log.h"
#include "transport/coll_int.h"

#include <string.h>

/* From here on ranks share the adding: each sums its part of the piece and the others copy it. Two
 * waits instead of one, but 2 vectors of traffic per rank instead of `count`. */
#define SPLIT_BYTES_MIN ((size_t)32 << 10)
/* Channels: from here on recursive halving and doubling instead of whole vectors per level. */
#define HALVING_BYTES_MIN ((size_t)64 << 10)

enum kind { KIND_ALLREDUCE = 1, KIND_REDUCED, KIND_ALLGATHER, KIND_GATHER, KIND_STAGE };

/* Channels: level of the tree beside the kind, so that levels cannot be confused. */
static uint32_t kind_at(enum kind kind, uint32_t level)
{
    return (uint32_t)kind | level << 8;
}

static enum spw_status begin(struct spw_coll *coll, const char *what)
{
    if (coll->broken != SPW_OK)
        return coll->broken;
    coll->operations++;
    atomic_store_explicit(&coll->waiting_for, what, memory_order_relaxed);
    return SPW_OK;
}

static enum spw_status end(struct spw_coll *coll, enum spw_status status)
{
    atomic_store_explicit(&coll->waiting_for, "idle", memory_order_relaxed);
    return status == SPW_OK ? SPW_OK : spw_coll_break(coll, status);
}

static struct spw_coll_slot *slot_of(const struct spw_coll *coll, uint8_t *landing, uint64_t phase)
{
    return (struct spw_coll_slot *)(void *)(landing + coll->slots_offset +
                                            (phase % 2) * coll->slot_bytes);
}

static uint8_t *data_of(struct spw_coll_slot *slot)
{
    return (uint8_t *)slot + sizeof(*slot);
}

static enum spw_status wait_phase(struct spw_coll *coll, struct spw_coll_neighbour *peer,
                                  uint64_t phase)
{
    struct spw_coll_slot *slot = slot_of(coll, peer->map, phase);
    struct spw_coll_wait wait = {0};
    uint64_t seen;
    while ((seen = atomic_load_explicit(&slot->phase, memory_order_acquire)) < phase) {
        enum spw_status status = spw_coll_pause(coll, &wait, peer);
        if (status != SPW_OK)
            return status;
    }
    spw_coll_wait_reset(coll, &wait);
    if (seen == phase)
        return SPW_OK;
    spw_log_error("transport", "a landing slot was written early group=%u peer=%u phase=%llu/%llu",
                  coll->group_id, peer->rank, (unsigned long long)seen, (unsigned long long)phase);
    return SPW_INTERNAL;
}

/* Own slot, free to be written for the next phase. */
static enum spw_status begin_phase(struct spw_coll *coll, uint8_t **out_data)
{
    for (uint32_t i = 0; coll->phase > 0 && i < coll->count; i++) {
        if (!coll->peers[i])
            continue;
        enum spw_status status = wait_phase(coll, coll->peers[i], coll->phase);
        if (status != SPW_OK)
            return status;
    }
    *out_data = data_of(slot_of(coll, coll->landing, coll->phase + 1));
    return SPW_OK;
}

static struct spw_coll_stamp stamp_of(const struct spw_coll *coll, enum kind kind, size_t total,
                                      size_t bytes)
{
    return (struct spw_coll_stamp){
        .number = coll->phase,
        .tag = coll->operations,
        .total = total,
        .group_id = coll->group_id,
        .kind = (uint32_t)kind,
        .bytes = (uint32_t)bytes,
    };
}

static void publish(struct spw_coll *coll, enum kind kind, size_t total, size_t bytes)
{
    coll->phase++;
    struct spw_coll_slot *slot = slot_of(coll, coll->landing, coll->phase);
    slot->stamp = stamp_of(coll, kind, total, bytes);
    atomic_store_explicit(&slot->phase, coll->phase, memory_order_release);
    for (uint32_t i = 0; i < coll->count; i++)
        if (coll->peers[i])
            spw_coll_wake(coll, coll->peers[i]);
}

/* A peer's data of the current phase. */
static enum spw_status look(struct spw_coll *coll, uint32_t index, enum kind kind, size_t total,
                            size_t bytes, const uint8_t **out_data)
{
    struct spw_coll_neighbour *peer = coll->peers[index];
    enum spw_status status = wait_phase(coll, peer, coll->phase);
    if (status != SPW_OK)
        return status;
    struct spw_coll_slot *slot = slot_of(coll, peer->map, coll->phase);
    struct spw_coll_stamp want = stamp_of(coll, kind, total, bytes);
    *out_data = data_of(slot);
    return spw_coll_check_stamp(coll, &slot->stamp, &want, peer->rank);
}

/* After reading: still what it was. */
static enum spw_status look_again(struct spw_coll *coll, uint32_t index)
{
    atomic_thread_fence(memory_order_acquire);
    return wait_phase(coll, coll->peers[index], coll->phase);
}

/* out[i] = the tree over part[0..count)[i]; out may be one of the parts. */
static void add_tree(float *out, const float *const part[SPW_COLL_RANKS_MAX], uint32_t count,
                     size_t elements)
{
    const float *p0 = part[0], *p1 = part[1], *p2 = part[2], *p3 = part[3];
    const float *p4 = part[4], *p5 = part[5], *p6 = part[6], *p7 = part[7];
#ifdef SPW_COLL_PLANT_WRONG_TREE /* tests show that their checker notices another order */
    p1 = count > 2 ? part[2] : part[1];
    p2 = part[1];
#endif
    if (count == 2) {
        for (size_t i = 0; i < elements; i++)
            out[i] = p0[i] + p1[i];
    } else if (count == 4) {
        for (size_t i = 0; i < elements; i++)
            out[i] = (p0[i] + p1[i]) + (p2[i] + p3[i]);
    } else {
        assert(count == 8);
        for (size_t i = 0; i < elements; i++)
            out[i] = ((p0[i] + p1[i]) + (p2[i] + p3[i])) + ((p4[i] + p5[i]) + (p6[i] + p7[i]));
    }
}

/* Elements [begin, end) of rank `index`'s part; parts end at whole cache lines. */
static size_t part_begin(size_t elements, uint32_t index, uint32_t count)
{
    size_t line = SPW_CACHE_LINE / sizeof(float);
    return index == count ? elements : elements / line * index / count * line;
}

static enum spw_status sum_piece(struct spw_coll *coll, float *data, size_t elements, size_t total)
{
    size_t bytes = elements * sizeof(float);
    bool split = coll->count > 2 && bytes >= SPLIT_BYTES_MIN;
    uint8_t *own;
    enum spw_status status = begin_phase(coll, &own);
    if (status != SPW_OK)
        return status;
    memcpy(own, data, bytes);
    publish(coll, KIND_ALLREDUCE, total, bytes);

    const float *part[SPW_COLL_RANKS_MAX] = {0};
    size_t begin_at = split ? part_begin(elements, coll->index, coll->count) : 0;
    size_t end_at = split ? part_begin(elements, coll->index + 1, coll->count) : elements;
    for (uint32_t i = 0; i < coll->count; i++) {
        const uint8_t *theirs = own;
        if (i != coll->index)
            status = look(coll, i, KIND_ALLREDUCE, total, bytes, &theirs);
        if (status != SPW_OK)
            return status;
        part[i] = (const float *)(const void *)theirs + begin_at;
    }
    add_tree(data + begin_at, part, coll->count, end_at - begin_at);
    for (uint32_t i = 0; i < coll->count && status == SPW_OK; i++)
        if (i != coll->index)
            status = look_again(coll, i);
    if (status != SPW_OK || !split)
        return status;

    size_t part_bytes = (end_at - begin_at) * sizeof(float);
    status = begin_phase(coll, &own);
    if (status != SPW_OK)
        return status;
    memcpy(own, data + begin_at, part_bytes);
    publish(coll, KIND_REDUCED, total, part_bytes);
    for (uint32_t step = 1; step < coll->count; step++) {
        uint32_t i = coll->index ^ step; /* not all from the same rank at once */
        size_t at = part_begin(elements, i, coll->count);
        size_t to = part_begin(elements, i + 1, coll->count);
        const uint8_t *theirs;
        status = look(coll, i, KIND_REDUCED, total, (to - at) * sizeof(float), &theirs);
        if (status != SPW_OK)
            return status;
        memcpy(data + at, theirs, (to - at) * sizeof(float));
        status = look_again(coll, i);
        if (status != SPW_OK)
            return status;
    }
    return SPW_OK;
}

static enum spw_status sum_shared(struct spw_coll *coll, float *data, size_t count)
{
    size_t piece = coll->piece_bytes / sizeof(float);
    enum spw_status status = SPW_OK;
    for (size_t at = 0; at < count && status == SPW_OK; at += piece)
        status = sum_piece(coll, data + at, SPW_MIN(piece, count - at), count * sizeof(float));
    return status;
}

/* Whole vectors, one exchange per level. */
static enum spw_status sum_doubling(struct spw_coll *coll, float *data, size_t count)
{
    for (uint32_t level = 0; 1u << level < coll->count; level++) {
        struct spw_coll_neighbour *partner = coll->peers[coll->index ^ 1u << level];
        struct spw_coll_transfer transfer = {
            .kind = kind_at(KIND_ALLREDUCE, level),
            .tag = coll->operations,
            .to = partner,
            .out = data,
            .out_bytes = count * sizeof(float),
            .from = partner,
            .in = data,
            .in_bytes = count * sizeof(float),
            .sink = SPW_COLL_SINK_ADD,
            .same = true,
        };
        enum spw_status status = spw_coll_transfer(coll, &transfer);
        if (status != SPW_OK)
            return status;
    }
    return SPW_OK;
}

/* Recursive halving, then recursive doubling (Rabenseifner, "Optimization of collective reduction
 * operations", ICCS 2004), with neighbours first so that the tree is the same.
 */
static enum spw_status sum_halving(struct spw_coll *coll, float *data, size_t count)
{
    size_t begin_at[4] = {0}, end_at[4] = {0};
    uint32_t levels = 0;
    end_at[0] = count;
    for (; 1u << levels < coll->count; levels++) {
        struct spw_coll_neighbour *partner = coll->peers[coll->index ^ 1u << levels];
        size_t a = begin_at[levels], c = end_at[levels], b = a + (c - a) / 2;
        bool upper = coll->index >> levels & 1;
        begin_at[levels + 1] = upper ? b : a;
        end_at[levels + 1] = upper ? c : b;
        struct spw_coll_transfer transfer = {
            .kind = kind_at(KIND_ALLREDUCE, levels),
            .tag = coll->operations,
            .to = partner,
            .out = data + (upper ? a : b),
            .out_bytes = (upper ? b - a : c - b) * sizeof(float),
            .from = partner,
            .in = data + begin_at[levels + 1],
            .in_bytes = (end_at[levels + 1] - begin_at[levels + 1]) * sizeof(float),
            .sink = SPW_COLL_SINK_ADD,
        };
        enum spw_status status = spw_coll_transfer(coll, &transfer);
        if (status != SPW_OK)
            return status;
    }
    while (levels-- > 0) {
        struct spw_coll_neighbour *partner = coll->peers[coll->index ^ 1u << levels];
        bool upper = coll->index >> levels & 1;
        size_t a = begin_at[levels + 1], c = end_at[levels + 1];
        size_t x = upper ? begin_at[levels] : c, y = upper ? a : end_at[levels];
        struct spw_coll_transfer transfer = {
            .kind = kind_at(KIND_REDUCED, levels),
            .tag = coll->operations,
            .to = partner,
            .out = data + a,
            .out_bytes = (c - a) * sizeof(float),
            .from = partner,
            .in = data + x,
            .in_bytes = (y - x) * sizeof(float),
            .sink = SPW_COLL_SINK_COPY,
        };
        enum spw_status status = spw_coll_transfer(coll, &transfer);
        if (status != SPW_OK)
            return status;
    }
    return SPW_OK;
}

enum spw_status spw_coll_allreduce_f32(struct spw_coll *coll, float *data, size_t count)
{
    enum spw_status status = begin(coll, "all-reduce");
    if (status != SPW_OK)
        return status;
    assert(count * sizeof(float) <= coll->bytes_max);
    if (coll->count > 1 && count > 0) {
        if (coll->shared)
            status = sum_shared(coll, data, count);
        else if (coll->count > 2 && count * sizeof(float) >= HALVING_BYTES_MIN)
            status = sum_halving(coll, data, count);
        else
            status = sum_doubling(coll, data, count);
    }
    return end(coll, status);
}

/* Parts of offset[i] .. offset[i + 1) bytes to all ranks, or to root only (root < count). */
static enum spw_status gather_shared(struct spw_coll *coll, enum kind kind, uint32_t root,
                                     const uint8_t *mine, const size_t *offset, uint8_t *all)
{
    size_t total = offset[coll->count], longest = 0;
    bool reads = root == coll->count || root == coll->index;
    for (uint32_t i = 0; i < coll->count; i++)
        longest = SPW_MAX(longest, offset[i + 1] - offset[i]);
    for (size_t at = 0; at < longest; at += coll->piece_bytes) {
        uint8_t *own;
        enum spw_status status = begin_phase(coll, &own);
        if (status != SPW_OK)
            return status;
        size_t size = offset[coll->index + 1] - offset[coll->index];
        size_t bytes = SPW_MIN(size - SPW_MIN(at, size), coll->piece_bytes);
        if (bytes && root != coll->index)
            memcpy(own, mine + at, bytes);
        publish(coll, kind, total, bytes);
        for (uint32_t step = 1; reads && step < coll->count; step++) {
            uint32_t i = coll->index ^ step;
            const uint8_t *theirs;
            size = offset[i + 1] - offset[i];
            bytes = SPW_MIN(size - SPW_MIN(at, size), coll->piece_bytes);
            status = look(coll, i, kind, total, bytes, &theirs);
            if (status != SPW_OK)
                return status;
            if (bytes)
                memcpy(all + offset[i] + at, theirs, bytes);
            status = look_again(coll, i);
            if (status != SPW_OK)
                return status;
        }
    }
    return SPW_OK;
}

static enum spw_status gather_channels(struct spw_coll *coll, enum kind kind, uint32_t root,
                                       const uint8_t *mine, const size_t *offset, uint8_t *all)
{
    for (uint32_t step = 1; step < coll->count; step++) {
        uint32_t i = coll->index ^ step;
        bool sends = root == coll->count || root == i;
        bool receives = root == coll->count || root == coll->index;
        if (!sends && !receives)
            continue;
        struct spw_coll_transfer transfer = {
            .kind = kind_at(kind, 0),
            .tag = coll->operations,
            .to = sends ? coll->peers[i] : NULL,
            .out = mine,
            .out_bytes = offset[coll->index + 1] - offset[coll->index],
            .from = receives ? coll->peers[i] : NULL,
            .in = receives ? all + offset[i] : NULL,
            .in_bytes = offset[i + 1] - offset[i],
            .sink = SPW_COLL_SINK_COPY,
        };
        enum spw_status status = spw_coll_transfer(coll, &transfer);
        if (status != SPW_OK)
            return status;
    }
    return SPW_OK;
}

static enum spw_status gather(struct spw_coll *coll, enum kind kind, uint32_t root,
                              const void *mine, const size_t *offset, void *all)
{
    assert(offset[coll->count] <= coll->bytes_max);
    size_t own_bytes = offset[coll->index + 1] - offset[coll->index];
    uint8_t *own_place =
        root == coll->count || root == coll->index ? (uint8_t *)all + offset[coll->index] : NULL;
    if (own_place && own_bytes && own_place != mine)
        memmove(own_place, mine, own_bytes);
    if (own_place)
        mine = own_place; /* `mine` may lie elsewhere in `all` */
    return coll->shared ? gather_shared(coll, kind, root, mine, offset, all)
                        : gather_channels(coll, kind, root, mine, offset, all);
}

enum spw_status spw_coll_allgather(struct spw_coll *coll, const void *mine, size_t bytes, void *all)
{
    enum spw_status status = begin(coll, "all-gather");
    if (status != SPW_OK)
        return status;
    size_t offset[SPW_COLL_RANKS_MAX + 1];
    for (uint32_t i = 0; i <= coll->count; i++)
        offset[i] = i * bytes;
    return end(coll, gather(coll, KIND_ALLGATHER, coll->count, mine, offset, all));
}

enum spw_status spw_coll_gather(struct spw_coll *coll, uint32_t root, const void *mine,
                                const size_t *bytes, void *all)
{
    assert(root < coll->count);
    enum spw_status status = begin(coll, "gather");
    if (status != SPW_OK)
        return status;
    size_t offset[SPW_COLL_RANKS_MAX + 1] = {0};
    for (uint32_t i = 0; i < coll->count; i++)
        offset[i + 1] = offset[i] + bytes[i];
    return end(coll, gather(coll, KIND_GATHER, root, mine, offset, all));
}

enum spw_status spw_coll_stage_send(struct spw_coll *coll, uint64_t step, const void *data,
                                    size_t bytes)
{
    assert(coll->following && bytes <= coll->bytes_max);
    enum spw_status status = begin(coll, "stage send");
    if (status != SPW_OK)
        return status;
    coll->operations--; /* stages are paired by step */
    struct spw_coll_transfer transfer = {
        .kind = KIND_STAGE, .tag = step, .to = coll->following, .out = data, .out_bytes = bytes};
    return end(coll, spw_coll_transfer(coll, &transfer));
}

enum spw_status spw_coll_stage_recv(struct spw_coll *coll, uint64_t step, void *data, size_t bytes)
{
    assert(coll->previous && bytes <= coll->bytes_max);
    enum spw_status status = begin(coll, "stage receive");
    if (status != SPW_OK)
        return status;
    coll->operations--;
    struct spw_coll_transfer transfer = {
        .kind = KIND_STAGE, .tag = step, .from = coll->previous, .in = data, .in_bytes = bytes};
    return end(coll, spw_coll_transfer(coll, &transfer));
}

const char *spw_coll_waiting_for(const struct spw_coll *coll)
{
    return atomic_load_explicit(&coll->waiting_for, memory_order_relaxed);
}

uint32_t spw_coll_waiting_rank(const struct spw_coll *coll)
{
    return atomic_load_explicit(&coll->waiting_rank, memory_order_relaxed);
}
