/* coll_int.h - inside the host collectives: landing memory, channels, waiting.
 *
 * Room:      transport/ (private)
 * Threads:   the endpoint's owner; what lies in landing memory is shared with peers through atomics
 * Ownership: a group owns its landing memory and the remote keys of its neighbours
 * Errors:    the first failure breaks the group: every later call answers with it
 *
 * Two ways for a group, chosen once for all its ranks when it is made:
 *
 *   shared    every rank has every other rank's landing memory mapped (one host). A rank writes its
 *             part into its own landing memory and raises a number; the others read it there. No
 *             message, one copy.
 *   channels  otherwise: pairs of ranks push chunks into each other's landing slots, by direct
 *             writes where the pair shares memory, else by messages (small) or put and notice.
 *
 * The links between stages are always channels.
 *
 * Sleeping: a rank that is about to sleep says so in its landing memory and looks once more; who
 * raises a number looks there afterwards and sends a tiny message if need be. Both sides fence in
 * between, so one of them sees the other. A sleep is bounded by 10 ms anyway.
 */
#ifndef SPW_COLL_INT_H
#define SPW_COLL_INT_H

#include "transport/coll.h"

#include <stdatomic.h>

#define SPW_COLL_NEIGHBOURS_MAX (SPW_COLL_RANKS_MAX + 2u)
#define SPW_COLL_PIECE_MAX      ((size_t)256 << 10) /* fits into a core's second-level cache */
#define SPW_COLL_EAGER_MAX      ((size_t)4 << 10)   /* payload that travels inside a message */
#define SPW_COLL_NAP_MAX_NS     10000000ull

/* Start of every landing memory. */
struct spw_coll_shared {
    _Alignas(SPW_CACHE_LINE) atomic_uint sleeping;
};

/* What a piece of data is; compared by the receiver with what it expects. */
struct spw_coll_stamp {
    uint64_t number; /* of the chunk in its channel, or of the phase */
    uint64_t tag;    /* number of the collective, or step of a stage link */
    uint64_t total;  /* bytes of the whole transfer */
    uint32_t group_id;
    uint32_t kind;
    uint32_t bytes; /* of this piece */
    uint32_t reserved;
};

/* Shared way: one of two, chosen by the phase's parity; followed by the piece. */
struct spw_coll_slot {
    _Alignas(SPW_CACHE_LINE) atomic_ullong phase;
    struct spw_coll_stamp stamp;
};

/* Channel, in the receiver's landing memory; followed by slots of a stamp and a chunk each. */
struct spw_coll_channel {
    _Alignas(SPW_CACHE_LINE) atomic_ullong published;
    _Alignas(SPW_CACHE_LINE) atomic_ullong consumed;
};

#define SPW_COLL_STAMP_ROOM SPW_CACHE_LINE

/* Geometry of a channel. */
struct spw_coll_shape {
    uint64_t offset; /* of the channel in landing memory */
    uint64_t chunk_bytes;
    uint32_t slots; /* 0: no channel in this direction */
};

struct spw_coll_in {
    struct spw_coll_shape shape;
    struct spw_coll_channel *channel;
    uint64_t consumed;
    uint64_t told;   /* consumed, as the sender was told by message */
    bool tell;       /* the sender cannot read `consumed` itself */
    bool misordered; /* a notice did not follow the one before */
};

struct spw_coll_put {
    struct spw_tp_op op;
    struct spw_coll_stamp stamp;
};

struct spw_coll_out {
    struct spw_coll_shape shape;
    struct spw_coll_channel *channel; /* mapped, or NULL */
    uint64_t published;               /* chunks handed over */
    uint64_t noticed;                 /* chunks the receiver knows of: data may be reused */
    uint64_t consumed;                /* as far as known here */
    struct spw_coll_put *puts;        /* one per slot, where the channel is not mapped */
};

enum spw_coll_role { SPW_COLL_ROLE_GROUP = 1, SPW_COLL_ROLE_PREVIOUS, SPW_COLL_ROLE_NEXT };

struct spw_coll_neighbour {
    uint32_t rank; /* transport rank */
    uint32_t index;
    uint32_t group_id; /* theirs */
    enum spw_coll_role role;
    struct spw_tp_remote *remote;
    uint8_t *map; /* their landing memory, or NULL */
    struct spw_coll_in in;
    struct spw_coll_out out;
    uint64_t lost_ns; /* when it was first seen dead, 0 while alive */
};

struct spw_coll {
    struct spw_coll *next; /* of the same endpoint, for messages */
    struct spw_tp *tp;
    uint32_t group_id, count, index;
    size_t bytes_max;
    uint64_t timeout_ns;
    enum spw_status (*idle)(void *context);
    void *idle_context;

    struct spw_tp_memory *memory;
    uint8_t *landing;
    uint64_t slots_offset; /* of the two slots of the shared way */
    size_t slot_bytes;     /* distance between them */
    size_t piece_bytes;    /* data in one */
    bool shared;

    struct spw_coll_neighbour neighbours[SPW_COLL_NEIGHBOURS_MAX];
    uint32_t neighbour_count;
    struct spw_coll_neighbour *peers[SPW_COLL_RANKS_MAX]; /* by group index; own is NULL */
    struct spw_coll_neighbour *previous, *following;

    uint64_t operations; /* collectives begun */
    uint64_t phase;      /* of the shared way: published by this rank */
    enum spw_status broken;
    _Atomic(const char *) waiting_for;
    atomic_uint waiting_rank;
};

/* One wait: zeroed at its start and whenever something moved. */
struct spw_coll_wait {
    uint64_t begin_ns;
    uint64_t idle_ns;
    uint32_t turns;
    bool asleep;    /* said so in landing memory */
    bool last_look; /* it is over, but the condition is looked at once more */
    enum spw_status over;
};

/* Call when the condition does not hold; look again after SPW_OK. `whom` is waited for. */
enum spw_status spw_coll_pause(struct spw_coll *coll, struct spw_coll_wait *wait,
                               const struct spw_coll_neighbour *whom);
/* Ends a wait, or begins it anew after something moved. */
void spw_coll_wait_reset(struct spw_coll *coll, struct spw_coll_wait *wait);
/* After raising a number in memory that `neighbour` may sleep on. */
void spw_coll_wake(struct spw_coll *coll, struct spw_coll_neighbour *neighbour);
/* Log why and break the group. Returns status. */
enum spw_status spw_coll_break(struct spw_coll *coll, enum spw_status status);
enum spw_status spw_coll_check_stamp(struct spw_coll *coll, const struct spw_coll_stamp *got,
                                     const struct spw_coll_stamp *want, uint32_t rank);

/* What a transfer does with what arrives. */
enum spw_coll_sink {
    SPW_COLL_SINK_COPY,
    SPW_COLL_SINK_ADD, /* f32: lower rank's + upper rank's, in place of own */
};

struct spw_coll_transfer {
    uint32_t kind;
    uint64_t tag;
    struct spw_coll_neighbour *to; /* NULL: receive only */
    const void *out;
    size_t out_bytes;
    struct spw_coll_neighbour *from; /* NULL: send only */
    void *in;
    size_t in_bytes;
    enum spw_coll_sink sink;
    bool same; /* `in` is `out`: a chunk is added only after it was sent */
};

/* Both directions at once, chunk by chunk; returns when all data has arrived and buffers are free.
 */
enum spw_status spw_coll_transfer(struct spw_coll *coll, const struct spw_coll_transfer *transfer);

void spw_coll_register(struct spw_coll *coll); /* for messages of SPW_TP_TYPE_COLL */
void spw_coll_unregister(struct spw_coll *coll);
/* Notices and credits that wait for a put or for room in the peer's queue. */
enum spw_status spw_coll_progress(struct spw_coll *coll);

#endif
