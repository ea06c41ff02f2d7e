#include "runtime/kv_disk.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define START_BYTES (8u << 20)

struct spw_kv_disk {
    int fd;
    char name[512];
    struct spw_kv_identity identity;
    uint64_t stride;
    uint32_t slots, used;
    uint64_t *epochs; /* of what a slot holds, 0: nothing */
    uint64_t epoch_max;
    struct spw_kv_found *found;
    uint32_t found_count;
    uint64_t unsynced;
    uint64_t unstarted; /* of them, not yet on their way from memory to the disk */
};

/* All of it, or what errno says; a file that ends early is EIO. */
static bool read_all(int fd, void *out, size_t bytes, uint64_t offset)
{
    uint8_t *at = out;
    while (bytes) {
        ssize_t got = pread(fd, at, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            errno = got ? errno : EIO;
            return false;
        }
        at += got;
        offset += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return true;
}

static bool write_all(int fd, const void *data, size_t bytes, uint64_t offset)
{
    const uint8_t *at = data;
    while (bytes) {
        ssize_t put = pwrite(fd, at, bytes, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0) {
            errno = put ? errno : ENOSPC;
            return false;
        }
        at += put;
        offset += (uint64_t)put;
        bytes -= (size_t)put;
    }
    return true;
}

static enum spw_status fail_file(const struct spw_kv_disk *disk, const char *what,
                                 struct spw_error *error)
{
    return spw_fail(error, SPW_IO, "KV file %s cannot be %s: %s", disk->name, what,
                    strerror(errno));
}

/* ---- open ---- */

/* Exactly as long as its slots need, with all of it reserved now: a full disk is known at the start
 * and not in mid-work. */
static enum spw_status size_file(struct spw_kv_disk *disk, uint64_t old_bytes,
                                 struct spw_error *error)
{
    uint64_t bytes = spw_kv_file_bytes(disk->slots, disk->stride);
    if (old_bytes > bytes && ftruncate(disk->fd, (off_t)bytes))
        return fail_file(disk, "shortened", error);
    int code = posix_fallocate(disk->fd, 0, (off_t)bytes);
    if (code == 0)
        return SPW_OK;
    if (old_bytes < bytes && ftruncate(disk->fd, (off_t)old_bytes))
        return fail_file(disk, "shortened", error);
    if (code == ENOSPC || code == EDQUOT || code == EFBIG)
        return spw_fail(error, SPW_CONFIG,
                        "KV file %s needs %llu bytes: %s; lower disk-kv-bytes or set kv-dir to a "
                        "larger disk",
                        disk->name, (unsigned long long)bytes, strerror(code));
    errno = code;
    return fail_file(disk, "reserved", error);
}

/* An empty file with a new head. */
static enum spw_status start_anew(struct spw_kv_disk *disk, struct spw_error *error)
{
    uint8_t head[SPW_KV_FILE_HEAD_BYTES];
    if (ftruncate(disk->fd, 0))
        return fail_file(disk, "emptied", error);
    enum spw_status status = size_file(disk, 0, error);
    spw_kv_file_head_encode(&disk->identity, disk->stride, head);
    if (!status && (!write_all(disk->fd, head, sizeof(head), 0) || fdatasync(disk->fd)))
        status = fail_file(disk, "written", error);
    return status;
}

/* True when the file's blocks may be used; else why not, in the log or as an error. */
static enum spw_status check_head(struct spw_kv_disk *disk, uint64_t old_bytes, bool *out_ours,
                                  struct spw_error *error)
{
    uint8_t head[SPW_KV_FILE_HEAD_BYTES] = {0};
    struct spw_kv_identity identity;
    uint64_t stride = 0;
    char words[256];
    size_t have = (size_t)SPW_MIN(old_bytes, sizeof(head));
    *out_ours = false;
    if (!read_all(disk->fd, head, have, 0))
        return fail_file(disk, "read", error);
    enum spw_status status = spw_kv_file_head_decode(head, &identity, &stride);
    switch (status) {
    case SPW_NOT_FOUND:
        return SPW_OK; /* new */
    case SPW_INVALID:
        return spw_fail(error, SPW_CONFIG,
                        "%s is not a KV file of Spillway: move it away or set another kv-dir",
                        disk->name);
    case SPW_OK:
        if (!spw_kv_identity_equal(&identity, &disk->identity, words, sizeof(words)))
            break;
        if (stride == disk->stride && old_bytes >= sizeof(head)) {
            *out_ours = true;
            return SPW_OK;
        }
        snprintf(words, sizeof(words), "slots of %llu bytes, here %llu", (unsigned long long)stride,
                 (unsigned long long)disk->stride);
        break;
    case SPW_UNSUPPORTED:
        snprintf(words, sizeof(words), "another version of the file's form");
        break;
    default:
        snprintf(words, sizeof(words), "its head is damaged");
        break;
    }
    spw_log_warn("kv", "file=%s is not used and starts empty: %s", disk->name, words);
    return SPW_OK;
}

static int by_index(const void *a, const void *b)
{
    const struct spw_kv_found *x = a, *y = b;
    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* The headers of a segment: what can be used is found, the rest stays as it is until its slot is
 * written again. */
static void scan_segment(struct spw_kv_disk *disk, const uint8_t *records, uint32_t first,
                         uint32_t count, uint32_t *inout_refused)
{
    for (uint32_t i = 0; i < count; i++) {
        struct spw_kv_header header;
        enum spw_status status =
            spw_kv_header_decode(records + (size_t)i * SPW_KV_HEADER_BYTES, &header);
        if (status == SPW_NOT_FOUND)
            continue;
        /* no hash: the rest of a request that was put aside; it has ended with the deployment */
        bool named = !status && (header.hash.low || header.hash.high);
        if (status || !spw_kv_identity_equal(&header.identity, &disk->identity, NULL, 0)) {
            ++*inout_refused;
            continue;
        }
        disk->epoch_max = SPW_MAX(disk->epoch_max, header.epoch);
        if (!named)
            continue;
        disk->epochs[first + i] = header.epoch;
        disk->used++;
        disk->found[disk->found_count++] = (struct spw_kv_found){
            .hash = header.hash,
            .parent = header.parent,
            .index = header.index,
            .slot = first + i,
        };
    }
}

static enum spw_status scan(struct spw_kv_disk *disk, uint64_t old_bytes, struct spw_error *error)
{
    uint32_t refused = 0;
    uint8_t *records = malloc((size_t)SPW_KV_SEGMENT_SLOTS * SPW_KV_HEADER_BYTES);
    disk->found = calloc(SPW_MAX(disk->slots, 1), sizeof(*disk->found));
    if (!records || !disk->found) {
        free(records);
        return spw_fail(error, SPW_NO_MEMORY, "out of memory for the list of %u KV blocks",
                        disk->slots);
    }
    for (uint32_t first = 0; first < disk->slots; first += SPW_KV_SEGMENT_SLOTS) {
        uint32_t count = SPW_MIN(SPW_KV_SEGMENT_SLOTS, disk->slots - first);
        /* of a file that was shorter: slots whose payload was cut off hold nothing */
        while (count && spw_kv_file_bytes(first + count, disk->stride) > old_bytes)
            count--;
        if (count == 0)
            break;
        if (!read_all(disk->fd, records, (size_t)count * SPW_KV_HEADER_BYTES,
                      spw_kv_file_header_at(first, disk->stride))) {
            free(records);
            return fail_file(disk, "read", error);
        }
        scan_segment(disk, records, first, count, &refused);
    }
    free(records);
    qsort(disk->found, disk->found_count, sizeof(*disk->found), by_index);
    spw_log_info("kv", "file=%s slots=%u found=%u refused=%u", disk->name, disk->slots,
                 disk->found_count, refused);
    return SPW_OK;
}

enum spw_status spw_kv_disk_attach(int fd, const char *name, const struct spw_kv_identity *identity,
                                   uint32_t slots, struct spw_kv_disk **out_disk,
                                   struct spw_error *error)
{
    struct stat info;
    bool ours = false;
    struct spw_kv_disk *disk = calloc(1, sizeof(*disk));
    enum spw_status status = SPW_OK;
    if (!disk) {
        close(fd);
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    }
    disk->fd = fd;
    snprintf(disk->name, sizeof(disk->name), "%s", name);
    disk->identity = *identity;
    disk->stride = spw_kv_file_stride(identity->block_bytes);
    disk->slots = slots;
    disk->epochs = calloc(SPW_MAX(slots, 1), sizeof(*disk->epochs));
    if (!disk->epochs)
        status = spw_fail(error, SPW_NO_MEMORY, "out of memory for %u KV blocks on disk", slots);
    else if (fstat(fd, &info))
        status = fail_file(disk, "looked at", error);
    else if (!S_ISREG(info.st_mode))
        status = spw_fail(error, SPW_CONFIG, "%s is not a plain file: set another kv-dir", name);
    if (!status)
        status = check_head(disk, (uint64_t)info.st_size, &ours, error);
    if (!status && ours)
        status = size_file(disk, (uint64_t)info.st_size, error);
    else if (!status)
        status = start_anew(disk, error);
    if (!status)
        status = scan(disk, ours ? (uint64_t)info.st_size : 0, error);
    if (status) {
        spw_kv_disk_close(disk);
        return status;
    }
    *out_disk = disk;
    return SPW_OK;
}

static bool lock(int fd, uint64_t wait_ns)
{
    uint64_t until_ns = spw_clock_monotonic_ns() + wait_ns;
    const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
    for (;;) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return true;
        if ((errno != EWOULDBLOCK && errno != EINTR) || spw_clock_monotonic_ns() >= until_ns)
            return false;
        nanosleep(&pause, NULL);
    }
}

enum spw_status spw_kv_disk_open(const struct spw_kv_disk_config *config,
                                 struct spw_kv_disk **out_disk, struct spw_error *error)
{
    char path[600];
    if (mkdir(config->dir, 0700) && errno != EEXIST)
        return spw_fail(error, SPW_CONFIG, "kv-dir %s cannot be made: %s", config->dir,
                        strerror(errno));
    snprintf(path, sizeof(path), "%s/replica-%u-stage-%u-tensor-%u.kv", config->dir,
             config->replica, config->stage, config->tensor);
    /* keys and values tell what was asked: for the user of the deployment alone */
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return spw_fail(error, SPW_CONFIG, "KV file %s cannot be opened: %s; set another kv-dir",
                        path, strerror(errno));
    if (!lock(fd, config->lock_wait_ns)) {
        int code = errno;
        close(fd);
        if (code == EWOULDBLOCK)
            return spw_fail(error, SPW_CONFIG,
                            "KV file %s is in use by another deployment: give each its own kv-dir",
                            path);
        return spw_fail(error, SPW_CONFIG, "KV file %s cannot be locked: %s; set another kv-dir",
                        path, strerror(code));
    }
    return spw_kv_disk_attach(fd, path, &config->identity, config->slots, out_disk, error);
}

void spw_kv_disk_close(struct spw_kv_disk *disk)
{
    if (!disk)
        return;
    spw_kv_disk_sync(disk);
    close(disk->fd); /* and with it the lock */
    free(disk->epochs);
    free(disk->found);
    free(disk);
}

uint32_t spw_kv_disk_found(const struct spw_kv_disk *disk, const struct spw_kv_found **out_found)
{
    *out_found = disk->found;
    return disk->found_count;
}

void spw_kv_disk_found_done(struct spw_kv_disk *disk)
{
    free(disk->found);
    disk->found = NULL;
    disk->found_count = 0;
}

uint64_t spw_kv_disk_epoch_max(const struct spw_kv_disk *disk)
{
    return disk->epoch_max;
}

uint32_t spw_kv_disk_used(const struct spw_kv_disk *disk)
{
    return disk->used;
}

/* ---- blocks ---- */

static bool clear_slot(struct spw_kv_disk *disk, uint32_t slot)
{
    static const uint8_t nothing[SPW_KV_HEADER_BYTES];
    if (disk->epochs[slot]) {
        disk->epochs[slot] = 0;
        disk->used--;
    }
    return write_all(disk->fd, nothing, sizeof(nothing), spw_kv_file_header_at(slot, disk->stride));
}

enum spw_status spw_kv_disk_write(struct spw_kv_disk *disk, uint32_t slot,
                                  const struct spw_kv_header *header, const void *payload,
                                  const char **out_reason)
{
    uint8_t record[SPW_KV_HEADER_BYTES];
    size_t bytes = (size_t)disk->identity.block_bytes;
    uint64_t at = spw_kv_file_payload_at(slot, disk->stride);
    assert(slot < disk->slots && header->epoch);
    spw_kv_header_encode(header, record);
    bool cleared = disk->epochs[slot] == 0 || clear_slot(disk, slot);
    if (!cleared || !write_all(disk->fd, payload, bytes, at) ||
        !write_all(disk->fd, record, sizeof(record), spw_kv_file_header_at(slot, disk->stride))) {
        *out_reason = strerror(errno);
        return SPW_IO;
    }
    disk->epochs[slot] = header->epoch;
    disk->used++;
    disk->unsynced += bytes + sizeof(record);
    disk->unstarted += bytes + sizeof(record);
    if (disk->unstarted >= START_BYTES) {
        /* the disk begins, so that the sync has little left to wait for */
        sync_file_range(disk->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        disk->unstarted = 0;
    }
    return SPW_OK;
}

static const char *read_slot(struct spw_kv_disk *disk, uint32_t slot,
                             const struct spw_kv_header *wanted, void *out_payload,
                             struct spw_kv_header *header, bool *out_keep)
{
    uint8_t record[SPW_KV_HEADER_BYTES];
    if (disk->epochs[slot] == 0)
        return "the slot holds nothing";
    if (!read_all(disk->fd, record, sizeof(record), spw_kv_file_header_at(slot, disk->stride)))
        return strerror(errno);
    if (spw_kv_header_decode(record, header))
        return "its header is damaged";
    if (!spw_kv_identity_equal(&header->identity, &disk->identity, NULL, 0))
        return "it is of another model, type, layout or build";
    if (header->epoch != disk->epochs[slot])
        return "it is stale";
    if (!spw_kv_hash_equal(header->hash, wanted->hash) ||
        !spw_kv_hash_equal(header->parent, wanted->parent) || header->index != wanted->index) {
        *out_keep = true; /* a good block, but not the one that was asked for */
        return "it is another block";
    }
    if (!read_all(disk->fd, out_payload, (size_t)disk->identity.block_bytes,
                  spw_kv_file_payload_at(slot, disk->stride)))
        return strerror(errno);
    if (spw_checksum64(out_payload, (size_t)disk->identity.block_bytes) != header->checksum)
        return "its bytes do not match their checksum";
    return NULL;
}

enum spw_status spw_kv_disk_read(struct spw_kv_disk *disk, uint32_t slot,
                                 const struct spw_kv_header *wanted, void *out_payload,
                                 struct spw_kv_header *out_header, const char **out_reason)
{
    struct spw_kv_header header;
    bool keep = false;
    assert(slot < disk->slots);
    const char *reason = read_slot(disk, slot, wanted, out_payload, &header, &keep);
    if (!reason) {
        *out_header = header;
        return SPW_OK;
    }
    /* it shall not be found again after a restart; where that fails, its checksum still tells */
    if (disk->epochs[slot] && !keep)
        clear_slot(disk, slot);
    *out_reason = reason;
    return SPW_CORRUPT;
}

uint64_t spw_kv_disk_unsynced(const struct spw_kv_disk *disk)
{
    return disk->unsynced;
}

enum spw_status spw_kv_disk_sync(struct spw_kv_disk *disk)
{
    if (disk->unsynced == 0)
        return SPW_OK;
    disk->unsynced = disk->unstarted = 0;
    return fdatasync(disk->fd) ? SPW_IO : SPW_OK;
}
