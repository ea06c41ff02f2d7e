/* The file of KV blocks: what was written is found after a restart, also after a kill; what is
 * damaged, torn, cut, stale or foreign is refused; a file of something else is named.
 */
#include "tests/unit/runtime/kv_fixture.h"

#include "runtime/base/rng.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define D      SPW_SCHED_DEVICE
#define H      SPW_SCHED_HOST
#define F      SPW_SCHED_DISK
#define STRIDE 8192u

uint64_t __real_spw_checksum64(const void *data, size_t bytes);
uint64_t __wrap_spw_checksum64(const void *data, size_t bytes);

static bool checksums_off; /* the planted bug */

uint64_t __wrap_spw_checksum64(const void *data, size_t bytes)
{
    return checksums_off ? 7 : __real_spw_checksum64(data, bytes);
}

static struct kv_fixture kv;
static char log_path[128];

/* The log since the last call. */
static const char *read_log(void)
{
    static char text[1 << 16];
    FILE *file = fopen(log_path, "r+");
    size_t bytes = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
    text[bytes] = '\0';
    if (file) {
        assert_int_equal(ftruncate(fileno(file), 0), 0);
        fclose(file);
    }
    return text;
}

static void expect_log(const char *words)
{
    const char *text = read_log();
    if (!strstr(text, words))
        fail_msg("'%s' is not in the log: %s", words, text);
}

static int open_fixture(void **state)
{
    (void)state;
    kv_init(&kv);
    kv_open(&kv);
    read_log();
    return 0;
}

static int close_fixture(void **state)
{
    (void)state;
    checksums_off = false;
    kv_done(&kv);
    return 0;
}

static void save(uint32_t n, uint32_t slot)
{
    kv_fill(&kv, 0, n);
    assert_int_equal(kv_move(&kv, n, D, 0, F, slot), SPW_OK);
}

static void restart(void)
{
    kv_close(&kv);
    kv_open(&kv);
}

/* Block n is at that slot and right. */
static void expect_read(uint32_t n, uint32_t slot)
{
    kv_fill(&kv, 1, 777);
    assert_int_equal(kv_move(&kv, n, F, slot, D, 1), SPW_OK);
    assert_true(kv_holds(&kv, 1, n));
}

static void expect_refused(uint32_t n, uint32_t slot)
{
    kv_fill(&kv, 1, 777);
    assert_int_equal(kv_move(&kv, n, F, slot, D, 1), SPW_CORRUPT);
    assert_true(kv_holds(&kv, 1, 777));
}

static void patch(uint64_t at, const void *bytes, size_t count)
{
    int fd = open(kv.path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, count, (off_t)at), (ssize_t)count);
    close(fd);
}

static void take(uint64_t at, void *bytes, size_t count)
{
    int fd = open(kv.path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, bytes, count, (off_t)at), (ssize_t)count);
    close(fd);
}

static void flip(uint64_t at, uint8_t bits)
{
    uint8_t byte;
    take(at, &byte, 1);
    byte ^= bits;
    patch(at, &byte, 1);
}

static uint32_t found_count(void)
{
    const struct spw_kv_found *found;
    return spw_kv_store_found(kv.store, &found);
}

/* ---- restarts ---- */

static void a_restart_finds_what_was_written(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 100; n++)
        save(n, (n * 37 + 5) % DISK_SLOTS);
    save(100, (3 * 37 + 5) % DISK_SLOTS); /* in place of block 3 */
    for (int round = 0; round < 2; round++) {
        restart();
        const struct spw_kv_found *found;
        assert_int_equal(spw_kv_store_found(kv.store, &found), 100);
        bool seen[101] = {false};
        for (uint32_t i = 0; i < 100; i++) {
            assert_true(i == 0 || found[i].index >= found[i - 1].index); /* parents first */
            uint32_t n = (uint32_t)found[i].hash.high;
            struct spw_sched_transfer expected = kv_transfer(n, D, 0, H, 0);
            assert_true(n <= 100 && n != 3 && !seen[n]);
            seen[n] = true;
            assert_true(spw_kv_hash_equal(found[i].hash, expected.hash));
            assert_true(spw_kv_hash_equal(found[i].parent, expected.parent));
            assert_int_equal(found[i].index, expected.index);
            assert_int_equal(found[i].slot, n == 100 ? (3 * 37 + 5) : (n * 37 + 5) % DISK_SLOTS);
        }
        spw_kv_store_found_done(kv.store);
        for (uint32_t n = 0; n < 100; n++)
            if (n != 3)
                expect_read(n, (n * 37 + 5) % DISK_SLOTS);
        expect_read(100, 3 * 37 + 5);
    }
    struct stat info;
    assert_int_equal(stat(kv.path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(info.st_size, spw_kv_file_bytes(DISK_SLOTS, STRIDE));
}

/* What was told as written is there after SIGKILL; of the block in work, all or nothing. */
static void a_kill_loses_nothing_that_was_told(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 12; round++) {
        kv_close(&kv);
        unlink(kv.path);
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        if (child == 0) {
            kv_open(&kv);
            for (uint32_t n = 0;; n++) {
                uint32_t slot = n % 50; /* slots are written again and again */
                kv_fill(&kv, 0, n);
                if (kv_move(&kv, n, D, 0, F, slot) || write(pipes[1], &n, sizeof(n)) < 0)
                    _exit(1);
            }
        }
        close(pipes[1]);
        uint32_t n = 0, told = 0;
        while (told < 20 + round * 17 && read(pipes[0], &n, sizeof(n)) == (ssize_t)sizeof(n))
            told++;
        kill(child, SIGKILL);
        while (read(pipes[0], &n, sizeof(n)) == (ssize_t)sizeof(n))
            told++;
        close(pipes[0]);
        int status = 0;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && told >= 20);
        kv_open(&kv);
        const struct spw_kv_found *found;
        uint32_t count = spw_kv_store_found(kv.store, &found), last[50] = {0}, holds[50] = {0};
        for (uint32_t i = 0; i < told; i++)
            last[i % 50] = i + 1;
        for (uint32_t i = 0; i < count; i++)
            holds[found[i].slot] = (uint32_t)found[i].hash.high + 1;
        for (uint32_t slot = 0; slot < 50; slot++) {
            if (slot == told % 50) { /* this one was perhaps in work */
                assert_true(holds[slot] == 0 || holds[slot] == last[slot] ||
                            holds[slot] == told + 1);
            } else {
                assert_int_equal(holds[slot], last[slot]);
            }
            if (holds[slot])
                expect_read(holds[slot] - 1, slot);
        }
    }
}

static void a_file_grows_and_shrinks(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 30; n++)
        save(n, n * 10);
    kv_close(&kv);
    static const struct {
        uint32_t slots, found;
    } rows[] = {{1000, 30}, {300, 30}, {291, 30}, {290, 29},
                {257, 26},  {256, 26}, {11, 2},   {300, 2}};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        struct stat info;
        kv.config.disk_slots = rows[i].slots;
        kv_open(&kv);
        assert_int_equal(found_count(), rows[i].found);
        assert_int_equal(stat(kv.path, &info), 0);
        assert_int_equal(info.st_size, spw_kv_file_bytes(rows[i].slots, STRIDE));
        for (uint32_t n = 0; n < rows[i].found; n++)
            expect_read(n, n * 10);
        kv_close(&kv);
    }
}

static void a_truncated_file_keeps_its_whole_blocks(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 20; n++)
        save(n, n);
    kv_close(&kv);
    /* in the middle of the payload of slot 12 */
    assert_int_equal(truncate(kv.path, (off_t)spw_kv_file_payload_at(12, STRIDE) + 100), 0);
    kv_open(&kv);
    assert_int_equal(found_count(), 12);
    for (uint32_t n = 0; n < 12; n++)
        expect_read(n, n);
    expect_refused(12, 12);
    /* and while it is in use: what is gone is refused, the rest goes on */
    assert_int_equal(truncate(kv.path, (off_t)spw_kv_file_payload_at(5, STRIDE) + 4999), 0);
    expect_refused(5, 5);
    expect_refused(6, 6);
    expect_read(4, 4);
    save(30, 6);
    expect_read(30, 6);
    /* cut inside the headers, and inside the head */
    kv_close(&kv);
    assert_int_equal(truncate(kv.path, (off_t)spw_kv_file_header_at(3, STRIDE)), 0);
    kv_open(&kv);
    assert_int_equal(found_count(), 0);
    save(1, 1);
    kv_close(&kv);
    assert_int_equal(truncate(kv.path, 100), 0);
    kv_open(&kv);
    assert_int_equal(found_count(), 0);
    save(1, 1);
    restart();
    assert_int_equal(found_count(), 1);
}

/* ---- damage ---- */

static void damage_on_disk_is_refused(void **state)
{
    (void)state;
    for (uint32_t at = 0; at < BLOCK_BYTES; at += 333) {
        save(at, 290);
        flip(spw_kv_file_payload_at(290, STRIDE) + at, 0x40);
        expect_refused(at, 290);
        expect_refused(at, 290);
        restart();
        assert_int_equal(found_count(), 0); /* and it is not found again */
    }
    for (uint32_t at = 0; at < SPW_KV_HEADER_BYTES; at++) {
        for (int reopened = 0; reopened < 2; reopened++) {
            save(at, 7);
            flip(spw_kv_file_header_at(7, STRIDE) + at, 0x01);
            if (reopened) {
                restart();
                assert_int_equal(found_count(), 0);
            }
            expect_refused(at, 7);
        }
    }
    save(5, 7);
    expect_read(5, 7);
}

/* The planted bug: the same damage, a store without checksums, wrong bytes. */
static void without_checksums_wrong_bytes_are_served(void **state)
{
    (void)state;
    checksums_off = true;
    uint32_t served = 0;
    for (uint32_t at = 0; at < BLOCK_BYTES; at += 333) {
        save(at, 290);
        flip(spw_kv_file_payload_at(290, STRIDE) + at, 0x40);
        served += kv_move(&kv, at, F, 290, D, 1) == SPW_OK && !kv_holds(&kv, 1, at);
    }
    assert_int_equal(served, (BLOCK_BYTES + 332) / 333);
}

/* A write that stopped anywhere, in any order of its pieces: the old block, the new one, or none;
 * never a mixture. */
static void a_torn_write_is_refused(void **state)
{
    (void)state;
    uint8_t old[BLOCK_BYTES], new[BLOCK_BYTES], mixed[BLOCK_BYTES];
    uint8_t headers[3][SPW_KV_HEADER_BYTES] = {{0}}; /* none, old, new */
    uint64_t at = spw_kv_file_payload_at(9, STRIDE), header_at = spw_kv_file_header_at(9, STRIDE);
    uint32_t read_old = 0, read_new = 0, refused = 0;
    save(4, 9);
    take(at, old, sizeof(old));
    take(header_at, headers[1], sizeof(headers[1]));
    save(5, 9);
    take(at, new, sizeof(new));
    take(header_at, headers[2], sizeof(headers[2]));
    for (uint32_t cut = 0; cut <= BLOCK_BYTES; cut += 250) {
        memcpy(mixed, new, cut);
        memcpy(mixed + cut, old + cut, BLOCK_BYTES - cut);
        for (int header = 0; header < 3; header++) {
            patch(at, mixed, sizeof(mixed));
            patch(header_at, headers[header], sizeof(headers[header]));
            restart();
            assert_int_equal(found_count(), header != 0);
            for (uint32_t n = 4; n < 6; n++) {
                kv_fill(&kv, 1, 777);
                enum spw_status status = kv_move(&kv, n, F, 9, D, 1);
                assert_true(status == SPW_OK || status == SPW_CORRUPT);
                assert_true(kv_holds(&kv, 1, status ? 777 : n));
                read_old += !status && n == 4;
                read_new += !status && n == 5;
                refused += status != SPW_OK;
            }
        }
    }
    assert_int_equal(read_old, 1); /* nothing of the new one had come yet */
    assert_int_equal(read_new, 1); /* all of it had */
    assert_int_equal(refused, 21 * 3 * 2 - 2);
    /* half a header */
    for (uint32_t cut = 1; cut < SPW_KV_HEADER_BYTES; cut++) {
        uint8_t record[SPW_KV_HEADER_BYTES] = {0};
        memcpy(record, headers[2], cut);
        patch(at, new, sizeof(new));
        patch(header_at, record, sizeof(record));
        restart();
        assert_int_equal(found_count(), 0);
    }
}

/* A write that breaks off in the middle of the bytes: the old block is not found in its place. */
static void a_write_that_breaks_off_leaves_nothing(void **state)
{
    (void)state;
    struct rlimit old, small;
    save(4, 19);
    save(5, 20);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){.rlim_cur = spw_kv_file_payload_at(20, STRIDE) + 100,
                            .rlim_max = old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    kv_fill(&kv, 0, 6);
    enum spw_status status = kv_move(&kv, 6, D, 0, F, 20);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, SPW_IO);
    restart();
    assert_int_equal(found_count(), 1);
    expect_refused(5, 20);
    expect_refused(6, 20);
    expect_read(4, 19);
}

/* A header that is right in itself but not for this file, this slot or this time. */
static void a_foreign_or_stale_block_on_disk_is_refused(void **state)
{
    (void)state;
    for (int field = 0; field < 12; field++) {
        uint8_t record[SPW_KV_HEADER_BYTES];
        struct spw_kv_header header;
        uint64_t at = spw_kv_file_header_at(9, STRIDE);
        save(5, 9);
        take(at, record, sizeof(record));
        assert_int_equal(spw_kv_header_decode(record, &header), SPW_OK);
        uint32_t *words[] = {&header.identity.dtype,         &header.identity.block_tokens,
                             &header.identity.layer_begin,   &header.identity.layer_end,
                             &header.identity.kv_head_begin, &header.identity.kv_head_end};
        if (field < 6)
            ++*words[field];
        else if (field == 6)
            header.identity.model.byte[7]++;
        else if (field == 7)
            header.identity.build.byte[7]++;
        else if (field == 8)
            header.identity.block_bytes++;
        else if (field == 9)
            header.hash.low++;
        else if (field == 10)
            header.epoch--; /* an earlier block of this slot: its writes came, the later ones not */
        spw_kv_header_encode(&header, record);
        patch(at, record, sizeof(record));
        if (field < 11)
            expect_refused(5, 9);
        else
            expect_read(5, 9);
        save(5, 9);
        patch(at, record, sizeof(record));
        restart();
        assert_int_equal(found_count(), field >= 9);
        spw_kv_store_found_done(kv.store);
    }
}

/* ---- files of something else ---- */

static void a_file_of_another_kind_starts_empty_and_is_named(void **state)
{
    (void)state;
    const struct spw_kv_store_config own = kv.config;
    static const char *const words[] = {
        "model digest abaaaaaaaaaaaaaa, here aaaaaaaaaaaaaaaa",
        "build babbbbbbbbbbbbbb, here bbbbbbbbbbbbbbbb",
        "dtype f32, here bf16",
        "block_tokens 32, here 16",
        "layers [3, 8), here [4, 8)",
        "layers [4, 9), here [4, 8)",
        "KV heads [0, 2), here [1, 2)",
        "KV heads [1, 3), here [1, 2)",
        "block bytes 4999, here 5000",
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(words); i++) {
        struct spw_kv_identity *identity = &kv.config.identity;
        char line[300];
        kv_close(&kv);
        kv.config = own;
        identity->model.byte[0] ^= i == 0;
        identity->build.byte[0] ^= i == 1;
        identity->dtype = i == 2 ? 0 : identity->dtype;
        identity->block_tokens = i == 3 ? 32 : identity->block_tokens;
        identity->layer_begin -= i == 4;
        identity->layer_end += i == 5;
        identity->kv_head_begin -= i == 6;
        identity->kv_head_end += i == 7;
        identity->block_bytes -= i == 8;
        kv.memory.block_bytes = (size_t)identity->block_bytes;
        kv_open(&kv);
        save(5, 9);
        kv_close(&kv);
        kv.config = own;
        kv.memory.block_bytes = BLOCK_BYTES;
        read_log();
        kv_open(&kv);
        assert_int_equal(found_count(), 0);
        snprintf(line, sizeof(line), "file=%s is not used and starts empty: %s\n", kv.path,
                 words[i]);
        expect_log(line);
        expect_refused(5, 9);
        save(6, 9);
        restart(); /* it is ours now */
        assert_int_equal(found_count(), 1);
        assert_null(strstr(read_log(), "starts empty"));
    }
}

static void a_damaged_head_starts_empty_and_is_named(void **state)
{
    (void)state;
    static const struct {
        uint32_t at;
        const char *words;
    } rows[] = {{8, "another version of the file's form"},
                {12, "its head is damaged"},
                {16, "its head is damaged"},
                {30, "its head is damaged"},
                {120, "its head is damaged"},
                {4000, "its head is damaged"}};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        save(5, 9);
        kv_close(&kv);
        flip(rows[i].at, 1);
        kv_open(&kv);
        assert_int_equal(found_count(), 0);
        expect_log(rows[i].words);
    }
    kv_close(&kv); /* a crash before the head was written */
    uint8_t zeros[SPW_KV_FILE_HEAD_BYTES] = {0};
    patch(0, zeros, sizeof(zeros));
    read_log();
    kv_open(&kv);
    assert_int_equal(found_count(), 0);
    assert_null(strstr(read_log(), "WARN"));
}

static void expect_open_fails(const char *words)
{
    struct spw_kv_store *store = NULL;
    struct spw_error error = {{0}};
    assert_int_equal(spw_kv_store_create(&kv.config, &store, &error), SPW_CONFIG);
    assert_null(store);
    if (!strstr(error.text, words))
        fail_msg("'%s' is not in: %s", words, error.text);
}

static void what_is_not_ours_is_left_alone(void **state)
{
    (void)state;
    char words[300], text[] = "somebody's diary, and not a cache", back[sizeof(text)];
    kv_close(&kv);
    unlink(kv.path);
    FILE *file = fopen(kv.path, "w");
    fwrite(text, 1, sizeof(text), file);
    fclose(file);
    snprintf(words, sizeof(words),
             "%s is not a KV file of Spillway: move it away or set another kv-dir", kv.path);
    expect_open_fails(words);
    take(0, back, sizeof(back));
    assert_memory_equal(back, text, sizeof(text));
    unlink(kv.path);
    assert_int_equal(symlink("/tmp/elsewhere", kv.path), 0);
    expect_open_fails("cannot be opened");
    unlink(kv.path);
    assert_int_equal(mkdir(kv.path, 0700), 0);
    expect_open_fails("cannot be opened");
    rmdir(kv.path);
    kv.config.dir = "/proc/nothing/here";
    expect_open_fails("kv-dir /proc/nothing/here cannot be made");
    kv.config.dir = kv.dir;
}

static void two_deployments_cannot_share_a_file(void **state)
{
    (void)state;
    char words[300];
    snprintf(words, sizeof(words),
             "KV file %s is in use by another deployment: give each its own kv-dir", kv.path);
    save(5, 9);
    expect_open_fails(words);
    expect_read(5, 9); /* and the first goes on */
    kv_close(&kv);
    kv_open(&kv);
    expect_read(5, 9);
    kv.config.tensor = 2; /* another rank has another file */
    struct spw_kv_store *other = NULL;
    assert_int_equal(spw_kv_store_create(&kv.config, &other, &kv.error), SPW_OK);
    spw_kv_store_destroy(other);
    kv.config.tensor = 3;
    char path[128];
    snprintf(path, sizeof(path), "%s/replica-1-stage-2-tensor-2.kv", kv.dir);
    assert_int_equal(unlink(path), 0);
}

static void *let_go(void *context)
{
    struct timespec pause = {.tv_nsec = 100 * 1000 * 1000};
    nanosleep(&pause, NULL);
    spw_kv_disk_close(context);
    return NULL;
}

/* One that is just ending is waited for. */
static void a_lock_that_goes_is_waited_for(void **state)
{
    (void)state;
    struct spw_kv_disk_config config = {.dir = kv.dir,
                                        .replica = 1,
                                        .stage = 2,
                                        .tensor = 3,
                                        .identity = kv.config.identity,
                                        .slots = DISK_SLOTS};
    struct spw_kv_disk *disk = NULL;
    pthread_t thread;
    save(5, 9);
    kv_close(&kv);
    assert_int_equal(spw_kv_disk_open(&config, &disk, &kv.error), SPW_OK);
    assert_int_equal(pthread_create(&thread, NULL, let_go, disk), 0);
    kv.config.lock_wait_ns = 60ull * 1000 * 1000 * 1000;
    kv_open(&kv);
    pthread_join(thread, NULL);
    kv.config.lock_wait_ns = 0;
    expect_read(5, 9);
}

static void a_disk_without_room_is_named(void **state)
{
    (void)state;
    kv_close(&kv);
    unlink(kv.path);
    struct spw_kv_disk_config config = {
        .dir = kv.dir, .replica = 1, .stage = 2, .tensor = 3, .slots = 1u << 24};
    struct spw_kv_disk *disk = NULL;
    config.identity = kv.config.identity;
    config.identity.block_bytes = 1u << 30;
    assert_int_equal(spw_kv_disk_open(&config, &disk, &kv.error), SPW_CONFIG);
    assert_non_null(strstr(kv.error.text, "lower disk-kv-bytes or set kv-dir to a larger disk"));
    struct stat info;
    assert_int_equal(stat(kv.path, &info), 0);
    assert_int_equal(info.st_size, 0); /* nothing is kept that cannot be used */
}

/* What is on its way to the disk when the deployment stops is found after. */
static void a_stop_finishes_what_goes_to_the_disk(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 10; n++) {
        kv_fill(&kv, 0, n);
        assert_int_equal(kv_move(&kv, n, D, 0, H, n), SPW_OK);
    }
    for (uint32_t n = 0; n < 10; n++) {
        struct spw_sched_transfer transfer = kv_transfer(n, H, n, F, 20 + n);
        assert_int_equal(spw_kv_store_submit(kv.store, &transfer, n), SPW_OK);
    }
    restart();
    assert_int_equal(found_count(), 10);
    spw_kv_store_found_done(kv.store);
    for (uint32_t n = 0; n < 10; n++)
        expect_read(n, 20 + n);
}

/* ---- sizes ---- */

static void slots_fit_into_the_bytes_they_were_made_from(void **state)
{
    (void)state;
    assert_int_equal(spw_kv_host_slots(10 * (1000 + SPW_KV_HEADER_BYTES), 1000), 10);
    assert_int_equal(spw_kv_host_slots(10 * (1000 + SPW_KV_HEADER_BYTES) - 1, 1000), 9);
    assert_int_equal(spw_kv_host_slots(0, 1000), 0);
    assert_int_equal(spw_kv_disk_slots(0, 1000), 0);
    for (uint32_t i = 0; i < 20000; i++) {
        uint64_t block = 1 + (uint64_t)(spw_rng_uniform(3, i, 0) * 100000);
        uint64_t bytes = (uint64_t)(spw_rng_uniform(3, i, 1) * 300e6);
        uint64_t slots = spw_kv_disk_slots(bytes, block), stride = spw_kv_file_stride(block);
        assert_true(slots == 0 || spw_kv_file_bytes((uint32_t)slots, stride) <= bytes);
        assert_true(spw_kv_file_bytes((uint32_t)slots + 1, stride) > bytes);
    }
    /* no two things lie on each other */
    uint64_t end = SPW_KV_FILE_HEAD_BYTES;
    for (uint32_t slot = 0; slot < 3 * SPW_KV_SEGMENT_SLOTS; slot++) {
        if (slot % SPW_KV_SEGMENT_SLOTS == 0) {
            assert_true(spw_kv_file_header_at(slot, STRIDE) == end);
            end += SPW_KV_SEGMENT_SLOTS * SPW_KV_HEADER_BYTES;
        }
        assert_true(
            spw_kv_file_header_at(slot, STRIDE) + SPW_KV_HEADER_BYTES <=
            spw_kv_file_payload_at(slot / SPW_KV_SEGMENT_SLOTS * SPW_KV_SEGMENT_SLOTS, STRIDE));
        assert_true(spw_kv_file_payload_at(slot, STRIDE) == end);
        end += STRIDE;
        assert_true(spw_kv_file_bytes(slot + 1, STRIDE) == end);
    }
}

int main(void)
{
    snprintf(log_path, sizeof(log_path), "/tmp/spillway-kv-log-%d", (int)getpid());
    spw_log_file(log_path);
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)
    const struct CMUnitTest tests[] = {
        TEST(a_restart_finds_what_was_written),
        TEST(a_kill_loses_nothing_that_was_told),
        TEST(a_file_grows_and_shrinks),
        TEST(a_truncated_file_keeps_its_whole_blocks),
        TEST(damage_on_disk_is_refused),
        TEST(without_checksums_wrong_bytes_are_served),
        TEST(a_torn_write_is_refused),
        TEST(a_write_that_breaks_off_leaves_nothing),
        TEST(a_foreign_or_stale_block_on_disk_is_refused),
        TEST(a_file_of_another_kind_starts_empty_and_is_named),
        TEST(a_damaged_head_starts_empty_and_is_named),
        TEST(what_is_not_ours_is_left_alone),
        TEST(two_deployments_cannot_share_a_file),
        TEST(a_lock_that_goes_is_waited_for),
        TEST(a_disk_without_room_is_named),
        TEST(a_stop_finishes_what_goes_to_the_disk),
        cmocka_unit_test(slots_fit_into_the_bytes_they_were_made_from),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(log_path);
    return failed;
}
