#include "tests/unit/model/fixture.h"

#include "runtime/model/model.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

char *folder_create(void)
{
    const char *base = getenv("TMPDIR");
    char *dir = NULL;
    assert_true(asprintf(&dir, "%s/spw-model-XXXXXX", base && *base ? base : "/tmp") > 0);
    assert_non_null(mkdtemp(dir));
    return dir;
}

void folder_remove(char *dir)
{
    DIR *open_dir = opendir(dir);
    assert_non_null(open_dir);
    for (struct dirent *entry = readdir(open_dir); entry; entry = readdir(open_dir))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            assert_int_equal(unlinkat(dirfd(open_dir), entry->d_name, 0), 0);
    closedir(open_dir);
    assert_int_equal(rmdir(dir), 0);
    free(dir);
}

static FILE *open_in(const char *dir, const char *name, const char *mode)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *file = fopen(path, mode);
    if (!file)
        fail_msg("cannot open %s", path);
    return file;
}

void folder_write(const char *dir, const char *name, const void *data, size_t bytes)
{
    FILE *file = open_in(dir, name, "wb");
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

char *folder_read(const char *dir, const char *name, size_t *out_bytes)
{
    FILE *file = open_in(dir, name, "rb");
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    long bytes = ftell(file);
    assert_true(bytes >= 0);
    rewind(file);
    char *text = malloc((size_t)bytes + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)bytes, file), bytes);
    text[bytes] = '\0';
    fclose(file);
    *out_bytes = (size_t)bytes;
    return text;
}

void folder_copy(const char *from, const char *to, const char *name)
{
    size_t bytes;
    char *text = folder_read(from, name, &bytes);
    folder_write(to, name, text, bytes);
    free(text);
}

struct weights weights_read(const char *dir, const char *name)
{
    size_t bytes;
    char *all = folder_read(dir, name, &bytes);
    uint64_t header_bytes = 0;
    for (int i = 7; i >= 0; i--)
        header_bytes = header_bytes << 8 | (unsigned char)all[i];
    assert_true(bytes >= 8 + header_bytes);
    struct weights weights = {.data_bytes = bytes - 8 - (size_t)header_bytes};
    weights.header = json_loadb(all + 8, (size_t)header_bytes, 0, NULL);
    assert_non_null(weights.header);
    weights.data = malloc(weights.data_bytes + 1);
    assert_non_null(weights.data);
    memcpy(weights.data, all + 8 + header_bytes, weights.data_bytes);
    free(all);
    return weights;
}

void weights_write(const struct weights *weights, const char *dir, const char *name)
{
    char *header = json_dumps(weights->header, JSON_COMPACT);
    assert_non_null(header);
    FILE *file = open_in(dir, name, "wb");
    uint64_t bytes = strlen(header);
    for (int i = 0; i < 8; i++)
        fputc((int)(bytes >> (8 * i) & 0xff), file);
    assert_int_equal(fwrite(header, 1, bytes, file), bytes);
    assert_int_equal(fwrite(weights->data, 1, weights->data_bytes, file), weights->data_bytes);
    assert_int_equal(fclose(file), 0);
    free(header);
}

void weights_done(struct weights *weights)
{
    json_decref(weights->header);
    free(weights->data);
}

void expect_open_error(const char *dir, enum spw_status status, const char *const *words)
{
    struct spw_model *model = NULL;
    struct spw_error error = {{0}};
    enum spw_status got = spw_model_open(dir, &model, &error);
    if (got != status)
        fail_msg("%s instead of %s: %s", spw_status_name(got), spw_status_name(status), error.text);
    assert_null(model);
    if (!strstr(error.text, dir))
        fail_msg("does not name the folder: %s", error.text);
    for (size_t i = 0; words[i]; i++)
        if (!strstr(error.text, words[i]))
            fail_msg("does not say '%s': %s", words[i], error.text);
}

const char *shared_model(const char *name, char out_path[4096])
{
    snprintf(out_path, 4096, "%s/../shared/data/models/%s", SPW_SOURCE_DIR, name);
    if (access(out_path, R_OK) == 0)
        return out_path;
    print_message("skipped: %s is not there\n", out_path);
    return NULL;
}
