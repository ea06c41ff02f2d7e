/* Making a group: landing memory, its keys to the neighbours, and one way for all. */
#include "runtime/base/log.h"
#include "transport/coll_int.h"
#include "transport/tp_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC        0x6c6f4353u /* "SCol" */
#define GROUP_SLOTS  4u          /* chunks on their way per pair: copying and adding overlap */
#define GROUP_CHUNK  ((size_t)128 << 10)
#define LINK_CHUNK   SPW_COLL_PIECE_MAX
#define MEMORY_ALIGN 64u

/* Two rounds: keys, then what could be mapped. `magic` to `id` are the key to look for: a group's
 * members know its id, neighbours of other stages do not. */
struct wire {
    uint32_t magic;
    uint32_t round;
    uint32_t role; /* what the sender is to the receiver */
    uint32_t id;   /* of the group, 0 between stages */

    uint32_t group_id, count, index;
    uint32_t steps_in_flight;
    uint64_t bytes_max;
    uint64_t slots_offset, slot_bytes, piece_bytes;
    struct spw_coll_shape in; /* channel in the sender's memory for the receiver */
    uint32_t mapped;          /* second round: the sender has mapped the receiver */
    uint32_t all_mapped;      /* and all members of its group */
    uint64_t key_bytes;
    uint8_t key[SPW_TP_KEY_BYTES_MAX];
};

#define WIRE_KEY_BYTES offsetof(struct wire, group_id)

static size_t align_up(size_t bytes, size_t align)
{
    return (bytes + align - 1) / align * align;
}

static struct spw_coll_shape shape_for(size_t bytes_max, size_t chunk_max, uint32_t transfers,
                                       uint64_t *offset)
{
    struct spw_coll_shape shape = {.offset = *offset};
    shape.chunk_bytes = SPW_MIN(align_up(SPW_MAX(bytes_max, (size_t)1), MEMORY_ALIGN), chunk_max);
    uint64_t chunks = (bytes_max + shape.chunk_bytes - 1) / shape.chunk_bytes;
    shape.slots = (uint32_t)(SPW_MAX(chunks, 1u) * transfers);
    *offset +=
        sizeof(struct spw_coll_channel) + shape.slots * (SPW_COLL_STAMP_ROOM + shape.chunk_bytes);
    return shape;
}

static void plan_memory(struct spw_coll *coll, const struct spw_coll_config *config,
                        size_t *out_bytes)
{
    uint64_t offset = sizeof(struct spw_coll_shared);
    coll->piece_bytes =
        SPW_MIN(align_up(SPW_MAX(config->bytes_max, (size_t)1), MEMORY_ALIGN), SPW_COLL_PIECE_MAX);
    coll->slot_bytes = sizeof(struct spw_coll_slot) + coll->piece_bytes;
    coll->slots_offset = offset;
    offset += 2 * coll->slot_bytes;
    for (uint32_t i = 0; i < coll->neighbour_count; i++) {
        struct spw_coll_neighbour *neighbour = &coll->neighbours[i];
        if (neighbour->role == SPW_COLL_ROLE_GROUP) {
            size_t chunk =
                SPW_MIN(align_up(SPW_MAX(config->bytes_max, (size_t)1), MEMORY_ALIGN), GROUP_CHUNK);
            neighbour->in.shape = shape_for(chunk, chunk, GROUP_SLOTS, &offset);
        } else if (neighbour->role == SPW_COLL_ROLE_PREVIOUS) {
            neighbour->in.shape =
                shape_for(config->bytes_max, LINK_CHUNK, config->steps_in_flight, &offset);
        }
    }
    *out_bytes = offset;
}

static void add_neighbour(struct spw_coll *coll, uint32_t rank, uint32_t index,
                          enum spw_coll_role role)
{
    assert(coll->neighbour_count < SPW_COLL_NEIGHBOURS_MAX);
    struct spw_coll_neighbour *neighbour = &coll->neighbours[coll->neighbour_count++];
    *neighbour = (struct spw_coll_neighbour){
        .rank = rank, .index = index, .role = role, .group_id = coll->group_id};
    if (role == SPW_COLL_ROLE_GROUP)
        coll->peers[index] = neighbour;
    else if (role == SPW_COLL_ROLE_PREVIOUS)
        coll->previous = neighbour;
    else
        coll->following = neighbour;
}

/* What the receiver calls the sender. */
static enum spw_coll_role seen_from(enum spw_coll_role role)
{
    return role == SPW_COLL_ROLE_PREVIOUS ? SPW_COLL_ROLE_NEXT
           : role == SPW_COLL_ROLE_NEXT   ? SPW_COLL_ROLE_PREVIOUS
                                          : SPW_COLL_ROLE_GROUP;
}

static enum spw_status send_wire(struct spw_coll *coll, const struct wire *wire, uint32_t rank)
{
    struct spw_coll_wait wait = {0};
    struct spw_coll_neighbour whom = {.rank = rank};
    enum spw_status status;
    while ((status = spw_tp_send(coll->tp, rank, SPW_TP_TYPE_COLL_SETUP, wire, sizeof(*wire))) ==
           SPW_FULL) {
        status = spw_coll_pause(coll, &wait, &whom);
        if (status != SPW_OK)
            break;
    }
    spw_coll_wait_reset(coll, &wait);
    return status;
}

static enum spw_status take_wire(struct spw_coll *coll, const struct spw_coll_neighbour *from,
                                 uint32_t round, struct wire *out_wire, struct spw_error *error)
{
    struct wire key = {.magic = MAGIC, .round = round, .role = (uint32_t)from->role};
    key.id = from->role == SPW_COLL_ROLE_GROUP ? coll->group_id : 0;
    struct spw_coll_wait wait = {0};
    size_t bytes;
    while ((bytes = spw_tp_early_take(coll->tp, from->rank, &key, WIRE_KEY_BYTES, out_wire,
                                      sizeof(*out_wire))) == 0) {
        enum spw_status status = spw_coll_pause(coll, &wait, from);
        if (status != SPW_OK)
            return spw_fail(error, status, "group %u: rank %u did not join: %s", coll->group_id,
                            from->rank, spw_status_text(status));
    }
    spw_coll_wait_reset(coll, &wait);
    if (bytes != sizeof(*out_wire) || out_wire->key_bytes > SPW_TP_KEY_BYTES_MAX)
        return spw_fail(error, SPW_MISMATCH, "group %u: rank %u speaks another version",
                        coll->group_id, from->rank);
    return SPW_OK;
}

static enum spw_status compare(const struct spw_coll *coll, const struct wire *own,
                               const struct wire *theirs, const struct spw_coll_neighbour *from,
                               struct spw_error *error)
{
    if (own->bytes_max != theirs->bytes_max || own->steps_in_flight != theirs->steps_in_flight ||
        own->count != theirs->count)
        return spw_fail(error, SPW_MISMATCH,
                        "group %u: rank %u has %" PRIu64 " bytes, %u steps, %u ranks;"
                        " this rank has %" PRIu64 ", %u, %u: start all ranks with the same options",
                        coll->group_id, from->rank, theirs->bytes_max, theirs->steps_in_flight,
                        theirs->count, own->bytes_max, own->steps_in_flight, own->count);
    if (from->role == SPW_COLL_ROLE_GROUP &&
        (theirs->index != from->index || theirs->slot_bytes != own->slot_bytes ||
         theirs->slots_offset != own->slots_offset))
        return spw_fail(error, SPW_MISMATCH, "group %u: rank %u has index %u, not %u",
                        coll->group_id, from->rank, theirs->index, from->index);
    return SPW_OK;
}

static enum spw_status open_neighbour(struct spw_coll *coll, struct spw_coll_neighbour *neighbour,
                                      const struct wire *wire, struct spw_error *error)
{
    struct spw_tp *tp = coll->tp;
    enum spw_status status = tp->ops->remote_open(tp, neighbour->rank, wire->key,
                                                  (size_t)wire->key_bytes, &neighbour->remote);
    if (status != SPW_OK)
        return spw_fail(error, status, "group %u: cannot reach the landing memory of rank %u: %s",
                        coll->group_id, neighbour->rank, spw_status_text(status));
    neighbour->map = tp->ops->remote_map(tp, neighbour->remote);
    neighbour->out.shape = wire->in;
    if (!wire->in.slots)
        return SPW_OK;
    if (neighbour->map) {
        neighbour->out.channel =
            (struct spw_coll_channel *)(void *)(neighbour->map + wire->in.offset);
        return SPW_OK;
    }
    neighbour->out.puts = calloc(wire->in.slots, sizeof(*neighbour->out.puts));
    return neighbour->out.puts ? SPW_OK : spw_fail(error, SPW_NO_MEMORY, "out of memory");
}

/* First round: keys. Second: who could map whom, so that all members choose the same way. */
static enum spw_status join(struct spw_coll *coll, const struct spw_coll_config *config,
                            struct spw_error *error)
{
    struct spw_tp *tp = coll->tp;
    struct wire own = {
        .magic = MAGIC,
        .group_id = coll->group_id,
        .count = coll->count,
        .index = coll->index,
        .steps_in_flight = config->steps_in_flight,
        .bytes_max = config->bytes_max,
        .slots_offset = coll->slots_offset,
        .slot_bytes = coll->slot_bytes,
        .piece_bytes = coll->piece_bytes,
        .all_mapped = 1,
    };
    size_t key_bytes = 0;
    enum spw_status status = tp->ops->memory_pack(tp, coll->memory, own.key, &key_bytes);
    if (status != SPW_OK)
        return spw_fail(error, status, "cannot share landing memory: %s", spw_status_text(status));
    own.key_bytes = key_bytes;
    bool shared = true;
    for (uint32_t round = 1; round <= 2; round++) {
        own.round = round;
        for (uint32_t i = 0; i < coll->neighbour_count; i++) {
            struct spw_coll_neighbour *neighbour = &coll->neighbours[i];
            own.role = (uint32_t)seen_from(neighbour->role);
            own.id = neighbour->role == SPW_COLL_ROLE_GROUP ? coll->group_id : 0;
            own.in = neighbour->in.shape;
            own.mapped = neighbour->map != NULL;
            status = send_wire(coll, &own, neighbour->rank);
            if (status != SPW_OK)
                return spw_fail(error, status, "group %u: cannot tell rank %u: %s", coll->group_id,
                                neighbour->rank, spw_status_text(status));
        }
        for (uint32_t i = 0; i < coll->neighbour_count; i++) {
            struct spw_coll_neighbour *neighbour = &coll->neighbours[i];
            struct wire theirs;
            status = take_wire(coll, neighbour, round, &theirs, error);
            if (status == SPW_OK && round == 1)
                status = compare(coll, &own, &theirs, neighbour, error);
            if (status == SPW_OK && round == 1)
                status = open_neighbour(coll, neighbour, &theirs, error);
            if (status != SPW_OK)
                return status;
            neighbour->group_id = theirs.group_id;
            if (round == 1) {
                own.all_mapped &= neighbour->role != SPW_COLL_ROLE_GROUP || neighbour->map;
            } else {
                shared = shared && (neighbour->role != SPW_COLL_ROLE_GROUP || theirs.all_mapped);
                neighbour->in.tell = neighbour->in.shape.slots && !theirs.mapped;
            }
        }
    }
    coll->shared = shared && own.all_mapped;
    return SPW_OK;
}

enum spw_status spw_coll_create(struct spw_tp *tp, const struct spw_coll_config *config,
                                struct spw_coll **out_coll, struct spw_error *error)
{
    assert(config->index < config->count && config->count <= SPW_COLL_RANKS_MAX);
    assert(config->ranks[config->index] == tp->rank && config->steps_in_flight > 0);
    if ((config->count & (config->count - 1)) != 0)
        return spw_fail(error, SPW_CONFIG, "a group of %u ranks: use 1, 2, 4 or 8", config->count);
    struct spw_coll *coll = calloc(1, sizeof(*coll));
    if (!coll)
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    coll->tp = tp;
    coll->group_id = config->group_id;
    coll->count = config->count;
    coll->index = config->index;
    coll->bytes_max = config->bytes_max;
    coll->timeout_ns = config->timeout_ns;
    coll->idle = config->idle;
    coll->idle_context = config->idle_context;
    atomic_store(&coll->waiting_for, "joining the group");
    atomic_store(&coll->waiting_rank, UINT32_MAX);
    for (uint32_t i = 0; i < config->count; i++)
        if (i != config->index)
            add_neighbour(coll, config->ranks[i], i, SPW_COLL_ROLE_GROUP);
    if (config->previous != UINT32_MAX)
        add_neighbour(coll, config->previous, config->index, SPW_COLL_ROLE_PREVIOUS);
    if (config->next != UINT32_MAX)
        add_neighbour(coll, config->next, config->index, SPW_COLL_ROLE_NEXT);

    size_t bytes;
    void *base = NULL;
    plan_memory(coll, config, &bytes);
    enum spw_status status = tp->ops->memory_create(tp, bytes, &coll->memory, &base);
    if (status != SPW_OK) {
        spw_fail(error, status, "%zu bytes of landing memory: %s", bytes, spw_status_text(status));
        free(coll);
        return status;
    }
    coll->landing = base;
    for (uint32_t i = 0; i < coll->neighbour_count; i++) {
        struct spw_coll_in *in = &coll->neighbours[i].in;
        if (in->shape.slots)
            in->channel = (struct spw_coll_channel *)(void *)(coll->landing + in->shape.offset);
    }
    /* Before the first neighbour can know of this group. */
    spw_coll_register(coll);
    status = join(coll, config, error);
    if (status != SPW_OK) {
        spw_coll_destroy(coll);
        return status;
    }
    atomic_store(&coll->waiting_for, "idle");
    spw_log_debug("transport", "group made id=%u index=%u count=%u way=%s bytes=%zu",
                  coll->group_id, coll->index, coll->count, coll->shared ? "shared" : "channels",
                  bytes);
    *out_coll = coll;
    return SPW_OK;
}

void spw_coll_destroy(struct spw_coll *coll)
{
    if (!coll)
        return;
    (void)spw_coll_break(coll, SPW_CANCELLED);
    spw_coll_unregister(coll);
    for (uint32_t i = 0; i < coll->neighbour_count; i++) {
        coll->tp->ops->remote_close(coll->tp, coll->neighbours[i].remote);
        free(coll->neighbours[i].out.puts);
    }
    coll->tp->ops->memory_destroy(coll->tp, coll->memory);
    free(coll);
}
