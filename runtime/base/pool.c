#include "runtime/base/pool.h"

void spw_pool_init(struct spw_pool *pool, uint32_t *next, uint32_t capacity)
{
    assert(capacity < SPW_POOL_TAKEN);
    *pool = (struct spw_pool){.next = next, .capacity = capacity, .free_head = SPW_POOL_NONE};
    for (uint32_t i = capacity; i > 0; i--) {
        next[i - 1] = pool->free_head;
        pool->free_head = i - 1;
    }
}

uint32_t spw_pool_take(struct spw_pool *pool)
{
    uint32_t index = pool->free_head;
    if (index == SPW_POOL_NONE)
        return SPW_POOL_NONE;
    pool->free_head = pool->next[index];
    pool->next[index] = SPW_POOL_TAKEN;
    pool->taken++;
    return index;
}

void spw_pool_give(struct spw_pool *pool, uint32_t index)
{
    assert(spw_pool_is_taken(pool, index));
    pool->next[index] = pool->free_head;
    pool->free_head = index;
    pool->taken--;
}

bool spw_pool_is_taken(const struct spw_pool *pool, uint32_t index)
{
    assert(index < pool->capacity);
    return pool->next[index] == SPW_POOL_TAKEN;
}

void spw_pool_check(const struct spw_pool *pool)
{
    uint32_t count = 0;
    for (uint32_t i = pool->free_head; i != SPW_POOL_NONE; i = pool->next[i]) {
        assert(i < pool->capacity);
        count++;
        assert(count <= pool->capacity);
    }
    assert(count + pool->taken == pool->capacity);
    uint32_t marked = 0;
    for (uint32_t i = 0; i < pool->capacity; i++)
        marked += pool->next[i] == SPW_POOL_TAKEN;
    assert(marked == pool->taken);
}
