/* Fuzz target: a file of KV blocks as a stranger left it. The input is the file's beginning, with
 * the sizes of this target's own blocks: its head and headers are read, then every block that was
 * found. Whatever is served has the bytes of the file at that place and their checksum; a block
 * that is written after is read back.
 */
#include "runtime/base/log.h"
#include "runtime/kv_disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLOTS       3u
#define BLOCK_BYTES 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static struct spw_kv_identity own_identity(void)
{
    struct spw_kv_identity identity = {.dtype = 2,
                                       .block_tokens = 16,
                                       .layer_end = 2,
                                       .kv_head_end = 1,
                                       .block_bytes = BLOCK_BYTES};
    memset(identity.model.byte, 'm', sizeof(identity.model.byte));
    memset(identity.build.byte, 'b', sizeof(identity.build.byte));
    return identity;
}

/* A header record alone: what is taken says the same when it is packed again. */
static void try_header(const uint8_t *data)
{
    struct spw_kv_header header;
    uint8_t again[SPW_KV_HEADER_BYTES];
    if (spw_kv_header_decode(data, &header))
        return;
    spw_kv_header_encode(&header, again);
    assert(memcmp(again, data, sizeof(again)) == 0);
}

static void expect_whole(int fd, const struct spw_kv_found *found, const uint8_t *payload,
                         const struct spw_kv_header *header)
{
    uint8_t there[BLOCK_BYTES];
    off_t at = (off_t)spw_kv_file_payload_at(found->slot, spw_kv_file_stride(BLOCK_BYTES));
    ssize_t got = pread(fd, there, sizeof(there), at);
    assert(got == (ssize_t)sizeof(there) && memcmp(there, payload, sizeof(there)) == 0);
    assert(spw_checksum64(payload, BLOCK_BYTES) == header->checksum);
    assert(header->index == found->index && spw_kv_hash_equal(header->hash, found->hash));
}

static void use_file(int fd, struct spw_kv_disk *disk)
{
    const struct spw_kv_found *found;
    const char *reason;
    uint8_t payload[BLOCK_BYTES];
    struct spw_kv_header header, wanted = {.identity = own_identity()};
    uint32_t count = spw_kv_disk_found(disk, &found);
    assert(count <= SLOTS && count <= spw_kv_disk_used(disk));
    for (uint32_t i = 0; i < count; i++) {
        assert(found[i].slot < SLOTS && (i == 0 || found[i].index >= found[i - 1].index));
        wanted.hash = found[i].hash;
        wanted.parent = found[i].parent;
        wanted.index = found[i].index;
        if (spw_kv_disk_read(disk, found[i].slot, &wanted, payload, &header, &reason) == SPW_OK)
            expect_whole(fd, &found[i], payload, &header);
    }
    memset(payload, 'p', sizeof(payload));
    wanted.hash.low = 1;
    wanted.epoch = spw_kv_disk_epoch_max(disk) / 2 + 1;
    wanted.checksum = spw_checksum64(payload, sizeof(payload));
    enum spw_status status = spw_kv_disk_write(disk, 1, &wanted, payload, &reason);
    assert(status == SPW_OK);
    memset(payload, 0, sizeof(payload));
    status = spw_kv_disk_read(disk, 1, &wanted, payload, &header, &reason);
    assert(status == SPW_OK && payload[0] == 'p' && payload[BLOCK_BYTES - 1] == 'p');
}

static void put_checksum(uint8_t *file, size_t bytes, uint64_t at, size_t checked)
{
    if (at + checked + 8 > bytes)
        return;
    uint64_t sum = spw_checksum64(file + at, checked);
    for (size_t i = 0; i < 8; i++)
        file[at + checked + i] = (uint8_t)(sum >> (8 * i));
}

static void make_right(uint8_t *file, size_t bytes)
{
    put_checksum(file, bytes, 0, 120);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        put_checksum(file, bytes, spw_kv_file_header_at(slot, spw_kv_file_stride(BLOCK_BYTES)),
                     SPW_KV_HEADER_BYTES - 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct spw_kv_identity identity = own_identity();
    struct spw_kv_disk *disk = NULL;
    if (bytes == 0)
        return 0;
    spw_log_level_set(SPW_LOG_ERROR);
    if (bytes > SPW_KV_HEADER_BYTES)
        try_header(data + 1);
    uint8_t *file = malloc(bytes);
    int fd = memfd_create("kv", MFD_CLOEXEC);
    if (!file || fd < 0)
        abort();
    memcpy(file, data + 1, bytes - 1);
    if (data[0] & 1)
        make_right(file, bytes - 1);
    if (write(fd, file, bytes - 1) != (ssize_t)bytes - 1)
        abort();
    free(file);
    int look = dup(fd);
    if (spw_kv_disk_attach(fd, "fuzz", &identity, SLOTS, &disk, NULL) == SPW_OK)
        use_file(look, disk);
    spw_kv_disk_close(disk);
    close(look);
    return 0;
}
