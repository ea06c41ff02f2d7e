#include "transport/tp_local.h"
#include "runtime/base/clock.h"
#include "transport/tp_int.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define SPIN_NS 5000u /* about what a sleep and a wake cost between threads */

struct spw_tp_memory {
    struct spw_tp_memory *next; /* in the owner's list; guarded by the hub's lock */
    uint8_t *base;
    size_t bytes;
    uint64_t id;
    uint32_t owner;
    uint32_t users; /* the owner and every open remote; guarded by the hub's lock */
};

struct spw_tp_remote {
    struct spw_tp_remote *next; /* in the opener's list */
    struct spw_tp_memory *memory;
};

struct key {
    uint32_t owner;
    uint32_t reserved;
    uint64_t id;
    uint64_t bytes;
};

/* What other ranks touch of a rank. Lives as long as the hub. */
struct inbox {
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    struct spw_tp_queue queue;
    atomic_ullong pushed; /* copy of queue.pushed, readable without the lock */
    bool woken;           /* sticky: the next wait returns */
    bool asleep;
    atomic_bool dead;
    struct spw_tp_memory *memories; /* guarded by the hub's lock */
};

struct spw_tp_hub {
    uint32_t ranks;
    uint32_t open;
    uint64_t spin_ns;
    atomic_ullong deaths; /* counts ranks that died: others look again when it moved */
    pthread_mutex_t lock; /* memories, ids */
    uint64_t next_id;
    struct inbox *inboxes;
};

struct local {
    struct spw_tp tp;
    struct spw_tp_hub *hub;
    struct inbox *inbox; /* own */
    struct spw_tp_scratch scratch;
    struct spw_tp_remote *remotes;
    uint64_t popped;
    uint64_t deaths_seen;   /* value of hub->deaths that `mark` stands for */
    uint64_t deaths_raised; /* value of hub->deaths whose events were raised */
    uint64_t mark;   /* messages pushed when that death was seen: they come before the event */
    uint8_t *states; /* enum spw_tp_peer_state per peer, as this rank sees it */
};

static struct local *local_of(struct spw_tp *tp)
{
    return (struct local *)tp;
}

static bool is_dead(const struct spw_tp_hub *hub, uint32_t rank)
{
    return atomic_load(&hub->inboxes[rank].dead);
}

static enum spw_status local_send(struct spw_tp *tp, uint32_t peer, uint32_t type, const void *data,
                                  size_t bytes)
{
    struct local *local = local_of(tp);
    struct spw_tp_hub *hub = local->hub;
    assert(peer < tp->ranks && type < SPW_TP_TYPES_MAX);
    if (bytes > SPW_TP_MESSAGE_MAX)
        return SPW_TOO_LARGE;
    if (local->states[peer] == SPW_TP_PEER_DEAD)
        return SPW_PEER_LOST;
    struct inbox *inbox = &hub->inboxes[peer];
    pthread_mutex_lock(&inbox->lock);
    /* Under the receiver's lock: after a death was seen there, no message of the dead follows. */
    enum spw_status status = SPW_PEER_LOST;
    if (!is_dead(hub, peer) && !is_dead(hub, tp->rank))
        status = spw_tp_queue_push(&inbox->queue, tp->rank, type, data, bytes);
    if (status == SPW_OK) {
        atomic_store_explicit(&inbox->pushed, inbox->queue.pushed, memory_order_release);
        if (inbox->asleep)
            pthread_cond_signal(&inbox->arrived);
    }
    pthread_mutex_unlock(&inbox->lock);
    if (status == SPW_OK) {
        tp->counters.messages_sent++;
        tp->counters.bytes_sent += bytes;
    }
    return status;
}

/* Deaths become events only after the messages that were sent before them. */
static void raise_deaths(struct local *local)
{
    struct spw_tp_hub *hub = local->hub;
    uint64_t deaths = atomic_load(&hub->deaths);
    if (deaths != local->deaths_seen) {
        local->deaths_seen = deaths;
        pthread_mutex_lock(&local->inbox->lock);
        local->mark = local->inbox->queue.pushed;
        pthread_mutex_unlock(&local->inbox->lock);
    }
    if (local->deaths_raised == local->deaths_seen || local->popped < local->mark)
        return;
    local->deaths_raised = local->deaths_seen;
    for (uint32_t rank = 0; rank < hub->ranks; rank++) {
        if (rank == local->tp.rank || local->states[rank] == SPW_TP_PEER_DEAD ||
            !is_dead(hub, rank))
            continue;
        local->states[rank] = SPW_TP_PEER_DEAD;
        spw_tp_raise_peer(&local->tp, rank, SPW_TP_PEER_DEAD);
    }
}

static bool deaths_pending(const struct local *local)
{
    return atomic_load_explicit(&local->hub->deaths, memory_order_relaxed) != local->deaths_raised;
}

static uint32_t local_poll(struct spw_tp *tp, uint32_t messages_max)
{
    struct local *local = local_of(tp);
    struct inbox *inbox = local->inbox;
    uint32_t handled = 0;
    if (atomic_load(&inbox->dead))
        return 0;
    /* Only what is there now: handlers that lead to new messages cannot keep this loop alive. */
    uint64_t limit = atomic_load_explicit(&inbox->pushed, memory_order_acquire);
    while (handled < messages_max && local->popped < limit) {
        struct spw_tp_message message;
        pthread_mutex_lock(&inbox->lock);
        if (!spw_tp_queue_peek(&inbox->queue, &message)) {
            pthread_mutex_unlock(&inbox->lock); /* killed meanwhile */
            break;
        }
        uint8_t *data = spw_tp_scratch_for(&local->scratch, message.bytes);
        if (data)
            spw_tp_queue_pop(&inbox->queue, data);
        pthread_mutex_unlock(&inbox->lock);
        if (!data)
            break; /* out of memory: the message stays */
        local->popped++;
        handled++;
        if (local->states[message.peer] == SPW_TP_PEER_DEAD) {
            tp->counters.messages_dropped++;
            continue;
        }
        spw_tp_dispatch(tp, message.peer, message.type, data, message.bytes);
    }
    if (deaths_pending(local))
        raise_deaths(local);
    return handled;
}

static bool something_to_poll(const struct local *local)
{
    return atomic_load_explicit(&local->inbox->pushed, memory_order_acquire) != local->popped ||
           deaths_pending(local);
}

static void local_wait(struct spw_tp *tp, uint64_t timeout_ns)
{
    struct local *local = local_of(tp);
    struct inbox *inbox = local->inbox;
    bool dead = atomic_load(&inbox->dead);
    if (timeout_ns == 0 || (!dead && something_to_poll(local)))
        return;
    uint64_t start = spw_clock_monotonic_ns();
    uint64_t spin_end = start + SPW_MIN(tp->spin_ns, timeout_ns);
    while (!dead && tp->spin_ns && spw_clock_monotonic_ns() < spin_end) {
        for (int i = 0; i < 16; i++)
            spw_tp_relax();
        if (something_to_poll(local))
            return;
    }
    /* An hour is as good as for ever and cannot overflow the sum. */
    uint64_t end = start + SPW_MIN(timeout_ns, 3600 * SPW_SECOND);
    struct timespec until = {.tv_sec = (time_t)(end / SPW_SECOND),
                             .tv_nsec = (long)(end % SPW_SECOND)};
    pthread_mutex_lock(&inbox->lock);
    inbox->asleep = true;
    int rc = 0;
    tp->counters.sleeps++;
    /* A killed rank sees nothing any more: it sleeps its time rather than spin. */
    while (rc == 0 && !inbox->woken &&
           (atomic_load(&inbox->dead) ||
            (inbox->queue.pushed == local->popped && !deaths_pending(local))))
        rc = pthread_cond_timedwait(&inbox->arrived, &inbox->lock, &until);
    inbox->asleep = false;
    inbox->woken = false;
    pthread_mutex_unlock(&inbox->lock);
}

static void wake_inbox(struct inbox *inbox, bool sticky)
{
    pthread_mutex_lock(&inbox->lock);
    if (sticky)
        inbox->woken = true;
    pthread_cond_signal(&inbox->arrived);
    pthread_mutex_unlock(&inbox->lock);
}

static void local_wake(struct spw_tp *tp)
{
    wake_inbox(local_of(tp)->inbox, true);
}

static enum spw_status local_memory_create(struct spw_tp *tp, size_t bytes,
                                           struct spw_tp_memory **out_memory, void **out_base)
{
    struct local *local = local_of(tp);
    struct spw_tp_hub *hub = local->hub;
    if (bytes == 0)
        return SPW_INVALID;
    struct spw_tp_memory *memory = calloc(1, sizeof(*memory));
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!memory || base == MAP_FAILED) {
        if (base != MAP_FAILED)
            munmap(base, bytes);
        free(memory);
        return SPW_NO_MEMORY;
    }
    memory->base = base;
    memory->bytes = bytes;
    memory->owner = tp->rank;
    memory->users = 1;
    pthread_mutex_lock(&hub->lock);
    memory->id = ++hub->next_id;
    memory->next = local->inbox->memories;
    local->inbox->memories = memory;
    pthread_mutex_unlock(&hub->lock);
    *out_memory = memory;
    *out_base = base;
    return SPW_OK;
}

/* With the hub's lock held. Peers that still have it open keep it alive, as a shared mapping does
 * between processes. */
static void memory_release(struct spw_tp_memory *memory)
{
    assert(memory->users > 0);
    if (--memory->users == 0) {
        munmap(memory->base, memory->bytes);
        free(memory);
    }
}

static void local_memory_destroy(struct spw_tp *tp, struct spw_tp_memory *memory)
{
    struct local *local = local_of(tp);
    if (!memory)
        return;
    pthread_mutex_lock(&local->hub->lock);
    struct spw_tp_memory **at = &local->inbox->memories;
    while (*at && *at != memory)
        at = &(*at)->next;
    assert(*at == memory);
    *at = memory->next;
    memory_release(memory);
    pthread_mutex_unlock(&local->hub->lock);
}

static enum spw_status local_memory_pack(struct spw_tp *tp, struct spw_tp_memory *memory,
                                         void *out_key, size_t *out_key_bytes)
{
    struct key key = {.owner = tp->rank, .id = memory->id, .bytes = memory->bytes};
    memcpy(out_key, &key, sizeof(key));
    *out_key_bytes = sizeof(key);
    return SPW_OK;
}

static enum spw_status local_remote_open(struct spw_tp *tp, uint32_t peer, const void *key_data,
                                         size_t key_bytes, struct spw_tp_remote **out_remote)
{
    struct local *local = local_of(tp);
    struct spw_tp_hub *hub = local->hub;
    struct key key;
    if (peer >= tp->ranks || key_bytes != sizeof(key))
        return SPW_INVALID;
    memcpy(&key, key_data, sizeof(key));
    if (key.owner != peer)
        return SPW_INVALID;
    if (local->states[peer] == SPW_TP_PEER_DEAD || is_dead(hub, peer))
        return SPW_PEER_LOST;
    struct spw_tp_remote *remote = calloc(1, sizeof(*remote));
    if (!remote)
        return SPW_NO_MEMORY;
    pthread_mutex_lock(&hub->lock);
    struct spw_tp_memory *memory = hub->inboxes[peer].memories;
    while (memory && memory->id != key.id)
        memory = memory->next;
    if (memory)
        memory->users++;
    pthread_mutex_unlock(&hub->lock);
    if (!memory) {
        free(remote);
        return SPW_NOT_FOUND;
    }
    remote->memory = memory;
    remote->next = local->remotes;
    local->remotes = remote;
    *out_remote = remote;
    return SPW_OK;
}

static void local_remote_close(struct spw_tp *tp, struct spw_tp_remote *remote)
{
    struct local *local = local_of(tp);
    if (!remote)
        return;
    struct spw_tp_remote **at = &local->remotes;
    while (*at && *at != remote)
        at = &(*at)->next;
    assert(*at == remote);
    *at = remote->next;
    pthread_mutex_lock(&local->hub->lock);
    memory_release(remote->memory);
    pthread_mutex_unlock(&local->hub->lock);
    free(remote);
}

static void *local_remote_map(struct spw_tp *tp, struct spw_tp_remote *remote)
{
    (void)tp;
    return remote->memory->base;
}

static enum spw_status check_access(struct local *local, const struct spw_tp_remote *remote,
                                    uint64_t offset, size_t bytes)
{
    const struct spw_tp_memory *memory = remote->memory;
    if (offset > memory->bytes || bytes > memory->bytes - offset)
        return SPW_INVALID;
    if (local->states[memory->owner] == SPW_TP_PEER_DEAD || is_dead(local->hub, memory->owner) ||
        is_dead(local->hub, local->tp.rank))
        return SPW_PEER_LOST;
    return SPW_OK;
}

static enum spw_status local_put(struct spw_tp *tp, struct spw_tp_remote *remote, uint64_t offset,
                                 const void *local_data, size_t bytes, struct spw_tp_op *op)
{
    op->status = check_access(local_of(tp), remote, offset, bytes);
    if (op->status != SPW_OK)
        return op->status;
    if (bytes)
        memcpy(remote->memory->base + offset, local_data, bytes);
    tp->counters.puts++;
    tp->counters.put_bytes += bytes;
    return SPW_OK;
}

static enum spw_status local_get(struct spw_tp *tp, struct spw_tp_remote *remote, uint64_t offset,
                                 void *local_data, size_t bytes, struct spw_tp_op *op)
{
    op->status = check_access(local_of(tp), remote, offset, bytes);
    if (op->status != SPW_OK)
        return op->status;
    if (bytes)
        memcpy(local_data, remote->memory->base + offset, bytes);
    tp->counters.gets++;
    tp->counters.get_bytes += bytes;
    return SPW_OK;
}

static void local_cancel(struct spw_tp *tp, struct spw_tp_op *op)
{
    (void)tp;
    assert(op->status != SPW_PENDING); /* operations end within put and get */
    (void)op;
}

static enum spw_tp_peer_state local_peer_state(struct spw_tp *tp, uint32_t peer)
{
    struct local *local = local_of(tp);
    assert(peer < tp->ranks);
    if (atomic_load(&local->inbox->dead))
        return SPW_TP_PEER_DEAD; /* a dead rank reaches nobody */
    return (enum spw_tp_peer_state)local->states[peer];
}

static void local_peer_abort(struct spw_tp *tp, uint32_t peer)
{
    assert(peer < tp->ranks && peer != tp->rank);
    local_of(tp)->states[peer] = SPW_TP_PEER_DEAD;
}

void spw_tp_hub_kill(struct spw_tp_hub *hub, uint32_t rank)
{
    assert(rank < hub->ranks);
    struct inbox *inbox = &hub->inboxes[rank];
    if (atomic_exchange(&inbox->dead, true))
        return;
    atomic_fetch_add(&hub->deaths, 1);
    pthread_mutex_lock(&inbox->lock);
    spw_tp_queue_clear(&inbox->queue);
    pthread_mutex_unlock(&inbox->lock);
    for (uint32_t i = 0; i < hub->ranks; i++)
        wake_inbox(&hub->inboxes[i], i == rank);
}

static void local_close(struct spw_tp *tp)
{
    struct local *local = local_of(tp);
    struct spw_tp_hub *hub = local->hub;
    spw_tp_hub_kill(hub, tp->rank);
    while (local->remotes)
        local_remote_close(tp, local->remotes);
    while (local->inbox->memories)
        local_memory_destroy(tp, local->inbox->memories);
    pthread_mutex_lock(&hub->lock);
    hub->open--;
    pthread_mutex_unlock(&hub->lock);
    spw_tp_head_done(tp);
    spw_tp_scratch_done(&local->scratch);
    free(local->states);
    free(local);
}

static const struct spw_tp_ops local_ops = {
    .name = "local",
    .send = local_send,
    .poll = local_poll,
    .wait = local_wait,
    .wake = local_wake,
    .memory_create = local_memory_create,
    .memory_destroy = local_memory_destroy,
    .memory_pack = local_memory_pack,
    .remote_open = local_remote_open,
    .remote_close = local_remote_close,
    .remote_map = local_remote_map,
    .put = local_put,
    .get = local_get,
    .cancel = local_cancel,
    .peer_state = local_peer_state,
    .peer_abort = local_peer_abort,
    .close = local_close,
};

struct spw_tp_hub *spw_tp_hub_create(uint32_t ranks, size_t queue_bytes_max)
{
    assert(ranks > 0 && ranks <= SPW_TP_PEERS_MAX);
    struct spw_tp_hub *hub = calloc(1, sizeof(*hub));
    struct inbox *inboxes = calloc(ranks, sizeof(*inboxes));
    if (!hub || !inboxes) {
        free(hub);
        free(inboxes);
        return NULL;
    }
    hub->ranks = ranks;
    hub->inboxes = inboxes;
    hub->spin_ns = ranks <= spw_tp_cores() ? SPIN_NS : 0;
    pthread_mutex_init(&hub->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    for (uint32_t i = 0; i < ranks; i++) {
        pthread_mutex_init(&inboxes[i].lock, NULL);
        pthread_cond_init(&inboxes[i].arrived, &monotonic);
        spw_tp_queue_init(&inboxes[i].queue, queue_bytes_max);
    }
    pthread_condattr_destroy(&monotonic);
    return hub;
}

void spw_tp_hub_destroy(struct spw_tp_hub *hub)
{
    if (!hub)
        return;
    assert(hub->open == 0);
    for (uint32_t i = 0; i < hub->ranks; i++) {
        spw_tp_queue_done(&hub->inboxes[i].queue);
        pthread_cond_destroy(&hub->inboxes[i].arrived);
        pthread_mutex_destroy(&hub->inboxes[i].lock);
    }
    pthread_mutex_destroy(&hub->lock);
    free(hub->inboxes);
    free(hub);
}

enum spw_status spw_tp_local_open(struct spw_tp_hub *hub, uint32_t rank, struct spw_tp **out_tp)
{
    assert(rank < hub->ranks);
    struct local *local = calloc(1, sizeof(*local));
    uint8_t *states = malloc(hub->ranks);
    if (!local || !states) {
        free(local);
        free(states);
        return SPW_NO_MEMORY;
    }
    spw_tp_head_init(&local->tp, &local_ops, rank, hub->ranks);
    memset(states, SPW_TP_PEER_UP, hub->ranks);
    local->states = states;
    local->hub = hub;
    local->inbox = &hub->inboxes[rank];
    local->tp.spin_ns = hub->spin_ns;
    pthread_mutex_lock(&hub->lock);
    hub->open++;
    pthread_mutex_unlock(&hub->lock);
    *out_tp = &local->tp;
    return SPW_OK;
}
