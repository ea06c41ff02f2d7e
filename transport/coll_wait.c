#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "transport/coll_int.h"
#include "transport/tp_int.h"

/* Another member than the one waited for may have left after its last collective, whose data is
 * already here; only when it does not come to that in this time is the group lost. */
#define LEFT_GRACE_NS (50 * SPW_MS)

static struct spw_coll_shared *shared_of(uint8_t *landing)
{
    return (struct spw_coll_shared *)(void *)landing;
}

enum spw_status spw_coll_break(struct spw_coll *coll, enum spw_status status)
{
    assert(status != SPW_OK && status != SPW_PENDING);
    if (coll->broken == SPW_OK) {
        coll->broken = status;
        /* Nothing may still read or write the caller's buffers when the call returns. */
        for (uint32_t i = 0; i < coll->neighbour_count; i++) {
            struct spw_coll_out *out = &coll->neighbours[i].out;
            for (uint32_t s = 0; out->puts && s < out->shape.slots; s++)
                if (out->puts[s].op.status == SPW_PENDING)
                    coll->tp->ops->cancel(coll->tp, &out->puts[s].op);
        }
    }
    return status;
}

enum spw_status spw_coll_check_stamp(struct spw_coll *coll, const struct spw_coll_stamp *got,
                                     const struct spw_coll_stamp *want, uint32_t rank)
{
    if (got->number == want->number && got->tag == want->tag && got->total == want->total &&
        got->group_id == want->group_id && got->kind == want->kind && got->bytes == want->bytes)
        return SPW_OK;
    spw_log_error("transport",
                  "data of another transfer arrived group=%u peer=%u"
                  " number=%llu/%llu tag=%llu/%llu total=%llu/%llu from_group=%u/%u kind=%x/%x"
                  " bytes=%u/%u (got/expected)",
                  coll->group_id, rank, (unsigned long long)got->number,
                  (unsigned long long)want->number, (unsigned long long)got->tag,
                  (unsigned long long)want->tag, (unsigned long long)got->total,
                  (unsigned long long)want->total, got->group_id, want->group_id, got->kind,
                  want->kind, got->bytes, want->bytes);
    return spw_coll_break(coll, SPW_INTERNAL);
}

void spw_coll_wake(struct spw_coll *coll, struct spw_coll_neighbour *neighbour)
{
    if (!neighbour->map)
        return; /* a message told it */
    struct spw_coll_shared *shared = shared_of(neighbour->map);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&shared->sleeping, memory_order_relaxed) == 0 ||
        atomic_exchange(&shared->sleeping, 0) == 0)
        return;
    /* An empty message of this type only wakes. If the queue is full the peer does not sleep. */
    (void)spw_tp_send(coll->tp, neighbour->rank, SPW_TP_TYPE_COLL, NULL, 0);
}

void spw_coll_wait_reset(struct spw_coll *coll, struct spw_coll_wait *wait)
{
    if (wait->asleep)
        atomic_store_explicit(&shared_of(coll->landing)->sleeping, 0, memory_order_relaxed);
    if (wait->turns)
        atomic_store_explicit(&coll->waiting_rank, UINT32_MAX, memory_order_relaxed);
    *wait = (struct spw_coll_wait){0};
}

static enum spw_status look_for_losses(struct spw_coll *coll, uint64_t now,
                                       const struct spw_coll_neighbour *whom)
{
    for (uint32_t i = 0; i < coll->neighbour_count; i++) {
        struct spw_coll_neighbour *neighbour = &coll->neighbours[i];
        if (coll->tp->ops->peer_state(coll->tp, neighbour->rank) != SPW_TP_PEER_DEAD)
            continue;
        if (!neighbour->lost_ns)
            neighbour->lost_ns = now;
        if (neighbour == whom || now - neighbour->lost_ns >= LEFT_GRACE_NS)
            return SPW_PEER_LOST;
    }
    return SPW_OK;
}

static enum spw_status is_over(struct spw_coll *coll, struct spw_coll_wait *wait, uint64_t now,
                               const struct spw_coll_neighbour *whom)
{
    enum spw_status status = look_for_losses(coll, now, whom);
    if (status == SPW_OK && now - wait->begin_ns >= coll->timeout_ns)
        status = SPW_TIMEOUT;
    return status;
}

enum spw_status spw_coll_pause(struct spw_coll *coll, struct spw_coll_wait *wait,
                               const struct spw_coll_neighbour *whom)
{
    struct spw_tp *tp = coll->tp;
    if (wait->turns++ == 0) {
        wait->begin_ns = wait->idle_ns = spw_clock_monotonic_ns();
        atomic_store_explicit(&coll->waiting_rank, whom->rank, memory_order_relaxed);
    } else if (wait->last_look) {
        const char *what = atomic_load_explicit(&coll->waiting_for, memory_order_relaxed);
        spw_log_warn("transport", "gave up waiting group=%u for=\"%s\" peer=%u ms=%llu reason=%s",
                     coll->group_id, what, whom->rank,
                     (unsigned long long)((spw_clock_monotonic_ns() - wait->begin_ns) / SPW_MS),
                     spw_status_name(wait->over));
        enum spw_status over = wait->over;
        spw_coll_wait_reset(coll, wait);
        return spw_coll_break(coll, over);
    }
    if (!wait->asleep && tp->spin_ns && wait->turns % 8 != 0) {
        for (int i = 0; i < 4; i++)
            spw_tp_relax();
        return SPW_OK;
    }
    uint64_t now = spw_clock_monotonic_ns();
    if (wait->asleep) {
        uint64_t nap = SPW_COLL_NAP_MAX_NS - SPW_MIN(now - wait->idle_ns, SPW_COLL_NAP_MAX_NS);
        uint64_t left = coll->timeout_ns - SPW_MIN(now - wait->begin_ns, coll->timeout_ns);
        spw_tp_wait(tp, SPW_MIN(nap, left));
        atomic_store_explicit(&shared_of(coll->landing)->sleeping, 0, memory_order_relaxed);
        wait->asleep = false;
        now = spw_clock_monotonic_ns();
    }
    spw_tp_poll(tp, 32);
    enum spw_status status = spw_coll_progress(coll);
    if (status == SPW_OK)
        status = is_over(coll, wait, now, whom);
    if (status == SPW_OK && coll->idle && now - wait->idle_ns >= SPW_COLL_NAP_MAX_NS) {
        wait->idle_ns = now;
        status = coll->idle(coll->idle_context);
    }
    if (status != SPW_OK) {
        wait->over = status;
        wait->last_look = true;
        return SPW_OK;
    }
    if (now - wait->begin_ns >= tp->spin_ns) {
        wait->asleep = true;
        atomic_store(&shared_of(coll->landing)->sleeping, 1);
        atomic_thread_fence(memory_order_seq_cst);
    }
    return SPW_OK;
}
