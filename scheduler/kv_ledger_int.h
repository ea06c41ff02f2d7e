/* kv_ledger_int.h - which KV blocks of one replica hold what, for whom, and where the bytes lie.
 *
 * Room:      scheduler/ (private)
 * Threads:   one owner, no locks
 * Ownership: all arrays are the caller's; a sequence owns one reference to its last node
 * Errors:    SPW_SCHED_NONE when no block can be had
 *
 * A *node* stands for one block's content. A sequence is a chain of nodes from its last to its
 * first: each knows its parent. So a sequence needs one number, whatever its length, and several
 * sequences stand on one common prefix. refs counts who uses a node now: sequences that end in it
 * and nodes in use that follow it. A node that nobody uses is gone at once unless it is indexed:
 * then it stays cached until room is needed.
 *
 * Indexed nodes (kv_index.c) form trees: a node is indexed only when its parent is. Its bytes lie
 * in a device block, a host slot, a disk slot, or several of them; its *level* is the nearest. A
 * parent's level is never farther than its child's, so along a chain come first blocks on the
 * device, then on the host, then on disk; and a node in use is on the device, or is being loaded
 * there.
 *
 * Transfers (kv_tiers.c) copy blocks between tiers beside the steps. A node that takes part in one
 * is *moving*: it keeps all its places until that has ended. If it is forgotten meanwhile it is
 * *doomed*: nobody finds it any more, and its places are free when the transfer has ended.
 */
#ifndef SPW_SCHED_KV_LEDGER_INT_H
#define SPW_SCHED_KV_LEDGER_INT_H

#include "scheduler/heap_int.h"
#include "scheduler/queue_int.h"
#include "scheduler/scheduler.h"

#define SPW_SCHED_TIERS 3u

struct spw_sched_node {
    struct spw_sched_hash hash; /* indexed nodes */
    uint32_t parent;            /* free nodes: the next free one */
    uint32_t refs;
    uint32_t index;                  /* in its chain: positions [index * block_tokens, ...) */
    uint32_t place[SPW_SCHED_TIERS]; /* device block, host slot, disk slot; or NONE */
    uint32_t child, next, prev;      /* indexed: first child; siblings */
    uint32_t below[SPW_SCHED_TIERS]; /* indexed: children by level */
    uint64_t step;                   /* the last step planned that writes it */
    uint64_t key;                    /* indexed: the least goes first */
    uint64_t touched_ns;             /* when it was used last */
    uint8_t hits;                    /* times it was found by a request */
    uint8_t left;                    /* times a request left the chain here for another way */
    uint8_t transfers;               /* that read or write it, started or not */
    uint8_t from, to;                /* of the one that has not started, when it is in the queue */
    bool live;                       /* not free */
    bool indexed;
    bool filled;  /* all its positions are computed or planned */
    bool loading; /* its device block is being written by a transfer */
    bool leaving; /* gives its device block back when its transfer has ended */
    bool doomed;
};

/* Neighbours of an indexed node in the two tables of the index. */
struct spw_sched_node_links {
    uint32_t own_next;             /* bucket of (hash, replica) */
    uint32_t any_next;             /* bucket of hash: one node stands for all replicas' */
    uint32_t ring_next, ring_prev; /* the others with this hash, in other replicas */
};

/* The index of all replicas: nodes are named replica * nodes + node. */
struct spw_sched_index {
    uint32_t *own, *any; /* [buckets] */
    uint32_t buckets;    /* a power of two */
    uint32_t nodes;      /* of one replica */
    struct spw_sched_node *all;
    struct spw_sched_node_links *links;
};

struct spw_sched_kv_transfer {
    uint32_t node; /* SPW_SCHED_NONE: the id is free */
    uint8_t from, to;
};

struct spw_sched_kv {
    uint32_t replica;
    uint32_t node_count;
    struct spw_sched_node *nodes;
    struct spw_sched_index *index;
    uint32_t free_node; /* list by parent */
    uint32_t counts[SPW_SCHED_TIERS];
    uint32_t free_counts[SPW_SCHED_TIERS];
    uint32_t *free_places[SPW_SCHED_TIERS]; /* stacks */
    uint32_t used;                          /* device blocks of nodes in use */
    uint32_t cached;                        /* ... of indexed nodes that nobody uses, not leaving */
    uint32_t leaving;                       /* ... that are free when a transfer has ended */
    struct spw_sched_heap victims[SPW_SCHED_TIERS];
    uint64_t clock;        /* of LRU's keys */
    uint64_t half_life_ns; /* of a block's chance to be asked for again */
    const uint64_t *now_ns;
    enum spw_sched_evict evict;
    uint32_t block_tokens;
    const struct spw_sched_cost *cost;
    uint64_t evicted; /* nodes dropped for room */

    struct spw_sched_kv_transfer *transfers; /* [transfers_max], started ones by id */
    uint32_t transfers_max, transfers_used;
    uint32_t *free_ids;                    /* stack */
    struct spw_sched_queue unstarted;      /* nodes, linked by transfer_links */
    struct spw_sched_link *transfer_links; /* [node_count] */
    uint32_t *copies; /* ring [node_count]: nodes to be copied outwards when there is time */
    uint32_t copy_head, copy_count;
    bool saving; /* spw_sched_save */
};

/* What spw_sched_kv_init needs beside counts. */
struct spw_sched_kv_memory {
    struct spw_sched_node *nodes;
    uint32_t *free_places[SPW_SCHED_TIERS];
    uint32_t *victim_items[SPW_SCHED_TIERS];
    uint32_t *victim_where[SPW_SCHED_TIERS]; /* [nodes] */
    struct spw_sched_kv_transfer *transfers;
    struct spw_sched_link *transfer_links;
    uint32_t *free_ids;
    uint32_t *copies;
};

void spw_sched_kv_init(struct spw_sched_kv *kv, const struct spw_sched_config *config,
                       const uint64_t *now_ns, const struct spw_sched_cost *cost, uint32_t replica,
                       const struct spw_sched_kv_memory *memory, struct spw_sched_index *index);

/* Forget everything: the replica is lost. Nobody uses anything any more. */
void spw_sched_kv_clear(struct spw_sched_kv *kv);

/* Device blocks that could be had at once or nearly: free and cached. */
static inline uint32_t spw_sched_kv_room(const struct spw_sched_kv *kv)
{
    return kv->free_counts[SPW_SCHED_DEVICE] + kv->cached;
}

/* Transfers are under way or will be. */
static inline bool spw_sched_kv_moving(const struct spw_sched_kv *kv)
{
    return kv->transfers_used + kv->unstarted.count > 0;
}

/* Set device blocks free until `want` are or will be, giving up what is cached. Returns how many
 * are free now: others may be when transfers have ended. */
uint32_t spw_sched_kv_make_room(struct spw_sched_kv *kv, uint32_t want);

/* A node with a device block as the one after `tail` (SPW_SCHED_NONE: a sequence begins). The
 * caller's reference to tail passes to the new node; SPW_SCHED_NONE with nothing changed when there
 * is no room. O(1), or O(log) when something cached has to go.
 */
uint32_t spw_sched_kv_take(struct spw_sched_kv *kv, uint32_t tail);

/* One more sequence ends in this node. O(nodes not in use before). */
void spw_sched_kv_share(struct spw_sched_kv *kv, uint32_t tail);

/* A sequence gives its reference back. tail may be SPW_SCHED_NONE. O(nodes not in use after). */
void spw_sched_kv_release(struct spw_sched_kv *kv, uint32_t tail);

/* Of the chain that ends in tail: device blocks that are cached and would be in use when shared. */
uint32_t spw_sched_kv_unused(const struct spw_sched_kv *kv, uint32_t tail);

enum spw_sched_tier spw_sched_kv_level(const struct spw_sched_node *node);

/* Put the node where it belongs after a change: in or out of the heaps of victims. */
void spw_sched_kv_settle(struct spw_sched_kv *kv, uint32_t node);

/* A place of a tier, NONE when none is free; and back. */
uint32_t spw_sched_kv_place_take(struct spw_sched_kv *kv, enum spw_sched_tier tier);
void spw_sched_kv_place_drop(struct spw_sched_kv *kv, uint32_t node, enum spw_sched_tier tier);

/* A node in no list, in use by nobody, with no place. There is one for each place. */
uint32_t spw_sched_kv_node_take(struct spw_sched_kv *kv);

/* Its level was `before` and may be another now: the parent counts anew. */
void spw_sched_kv_level_changed(struct spw_sched_kv *kv, uint32_t node, enum spw_sched_tier before);

/* An indexed node that nobody uses gives its device block back; a copy is farther away. */
void spw_sched_kv_leave_device(struct spw_sched_kv *kv, uint32_t node);

/* `id`, filled, in use by one and not indexed, has the content of the indexed node `into`, which
 * lies farther away: `into` takes its place, block and reference. */
void spw_sched_kv_merge(struct spw_sched_kv *kv, uint32_t id, uint32_t into);

/* Forget an indexed node that nobody uses, and all that follows it. */
void spw_sched_kv_forget(struct spw_sched_kv *kv, uint32_t node);

/* The last transfer of a doomed node has ended. */
void spw_sched_kv_bury(struct spw_sched_kv *kv, uint32_t node);

/* From now on copies on disk stay, and what is there alone makes room. */
void spw_sched_kv_begin_saving(struct spw_sched_kv *kv);

/* Assert everything but who uses what. marks: [largest count of a tier] for scratch. */
void spw_sched_kv_check(const struct spw_sched_kv *kv, uint8_t *marks);

/* ---- kv_index.c ---- */

void spw_sched_index_init(struct spw_sched_index *index, uint32_t *own, uint32_t *any,
                          uint32_t buckets, uint32_t nodes, struct spw_sched_node *all,
                          struct spw_sched_node_links *links);

/* This replica's node of a hash, or NONE. O(1). */
uint32_t spw_sched_index_find(const struct spw_sched_index *index, uint32_t replica,
                              struct spw_sched_hash hash);

/* The node (replica * nodes + node) that stands for a hash in all replicas, or NONE; the others
 * follow in the ring. O(1). */
uint32_t spw_sched_index_find_any(const struct spw_sched_index *index, struct spw_sched_hash hash);

/* Index a node whose hash is not known in this replica and whose parent is indexed (or NONE). */
void spw_sched_index_add(struct spw_sched_kv *kv, uint32_t node, struct spw_sched_hash hash);
/* Take an indexed node without children out. */
void spw_sched_index_remove(struct spw_sched_kv *kv, uint32_t node);

/* How many of hashes[0..count) are indexed in this replica and filled, from the first on; out_node:
 * the last of them, NONE for 0. O(log count). */
uint32_t spw_sched_index_match(const struct spw_sched_kv *kv, const struct spw_sched_hash *hashes,
                               uint32_t count, uint32_t *out_node);
/* The same over all replicas: the longest, and a node of it to begin the ring with. */
uint32_t spw_sched_index_match_any(const struct spw_sched_index *index,
                                   const struct spw_sched_hash *hashes, uint32_t count,
                                   uint32_t *out_node);

/* A request found this node: it is worth more. */
void spw_sched_index_hit(struct spw_sched_kv *kv, uint32_t node);
/* A request knows the chain up to this node, and goes on otherwise than what follows it here. */
void spw_sched_index_left(struct spw_sched_kv *kv, uint32_t node);
/* What an indexed node is worth from now on, when nobody uses it any more. */
void spw_sched_index_touch(struct spw_sched_kv *kv, uint32_t node);

/* ---- kv_tiers.c ---- */

/* Nobody uses this node any more: it will be copied to the next tier when there is time. */
void spw_sched_tiers_want_copy(struct spw_sched_kv *kv, uint32_t node);

/* A cached node of the device, with no copy, begins to leave for the host. False: that does not
 * pay, or there is no room for it. */
bool spw_sched_tiers_move_out(struct spw_sched_kv *kv, uint32_t node);

/* Its transfer that has not started is not made. */
void spw_sched_tiers_withdraw(struct spw_sched_kv *kv, uint32_t node);

/* Start the copies that are waited for by nobody, while transfers are to spare. */
void spw_sched_tiers_balance(struct spw_sched_kv *kv);

/* Copy a chain's nodes that nobody uses to the host and give their device blocks back then; as many
 * as slots and transfers allow, from the last on. Returns how many are on their way. */
uint32_t spw_sched_tiers_swap_out(struct spw_sched_kv *kv, uint32_t tail);

/* Bring the nodes of a chain in use to the device: those up to `tail` that are not there. The
 * caller holds a reference and has seen that room and ids are there. */
void spw_sched_tiers_load(struct spw_sched_kv *kv, uint32_t tail);

/* See spw_sched_save; of one replica that is up. */
bool spw_sched_tiers_save(struct spw_sched_kv *kv);

/* A transfer has ended. Returns the node that became readable, or that could not be loaded
 * (out_failed), or NONE when nobody waits for it. A failed one is still there: its users must let
 * go of it, then spw_sched_kv_forget. */
uint32_t spw_sched_tiers_done(struct spw_sched_kv *kv, uint32_t id, bool ok, bool *out_failed);

/* See spw_sched_disk_found. */
bool spw_sched_tiers_found(struct spw_sched_kv *kv, uint32_t disk_block, struct spw_sched_hash hash,
                           struct spw_sched_hash parent, uint32_t index);

bool spw_sched_tiers_next(struct spw_sched_kv *kv, struct spw_sched_transfer *out_transfer);

#endif
