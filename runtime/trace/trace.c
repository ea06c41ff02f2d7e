#include "runtime/trace/trace_int.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX        ((size_t)1 << 30)
#define LINE_BYTES_MAX        ((size_t)1 << 20)
#define MOONCAKE_BLOCK_TOKENS 512u
#define NS_PER_MS             1000000u

enum format { FORMAT_MOONCAKE, FORMAT_AZURE, FORMAT_OWN };

struct parser {
    const char *name;
    size_t line; /* from 1 */
    struct spw_trace_builder builder;
    struct spw_error *error;
};

#define FAIL(parser, status, ...) spw_trace_line_fail(parser, status, __VA_ARGS__)

static enum spw_status spw_trace_line_fail(const struct parser *parser, enum spw_status status,
                                           const char *format, ...) SPW_PRINTF(3, 4);

static enum spw_status spw_trace_line_fail(const struct parser *parser, enum spw_status status,
                                           const char *format, ...)
{
    char words[SPW_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof(words), format, args);
    va_end(args);
    for (char *at = words; *at; at++) /* may quote the file's own bytes */
        if ((unsigned char)*at < 0x20 || (unsigned char)*at > 0x7e)
            *at = '?';
    return spw_fail(parser->error, status, "%.200s line %zu: %s", parser->name, parser->line,
                    words);
}

/* ---- a growing trace ---- */

bool spw_trace_builder_init(struct spw_trace_builder *builder)
{
    *builder = (struct spw_trace_builder){0};
    struct spw_trace *trace = &builder->trace;
    trace->tenants = calloc(1, SPW_TRACE_TEXT_MAX);
    trace->classes = calloc(1, SPW_TRACE_TEXT_MAX);
    if (!trace->tenants || !trace->classes) {
        spw_trace_done(trace);
        return false;
    }
    memcpy(trace->tenants[0], "default", sizeof("default"));
    memcpy(trace->classes[0], "default", sizeof("default"));
    trace->tenant_count = trace->class_count = 1;
    return true;
}

/* One more of `bytes` each fits after this. */
static bool make_room(void **array, size_t bytes, size_t count, size_t *room, size_t count_max)
{
    if (count < *room)
        return true;
    if (count >= count_max)
        return false;
    size_t next = *room ? SPW_MIN(*room * 2, count_max) : 64;
    void *grown = realloc(*array, next * bytes);
    if (!grown)
        return false;
    *array = grown;
    *room = next;
    return true;
}

bool spw_trace_builder_request(struct spw_trace_builder *builder,
                               const struct spw_trace_request *request)
{
    struct spw_trace *trace = &builder->trace;
    void *array = trace->requests;
    if (!make_room(&array, sizeof(*request), trace->count, &builder->request_room,
                   SPW_TRACE_REQUESTS_MAX))
        return false;
    trace->requests = array;
    trace->requests[trace->count++] = *request;
    return true;
}

bool spw_trace_builder_prefix(struct spw_trace_builder *builder, uint64_t id)
{
    struct spw_trace *trace = &builder->trace;
    void *array = trace->prefix;
    if (!make_room(&array, sizeof(id), trace->prefix_count, &builder->prefix_room,
                   SPW_TRACE_PREFIX_MAX))
        return false;
    trace->prefix = array;
    trace->prefix[trace->prefix_count++] = id;
    return true;
}

void spw_trace_done(struct spw_trace *trace)
{
    free(trace->requests);
    free(trace->prefix);
    free(trace->tenants);
    free(trace->classes);
    *trace = (struct spw_trace){0};
}

/* ---- JSON lines ---- */

/* A whole number from min to max; SPW_NOT_FOUND and nothing written when the key is not there. */
static enum spw_status read_number(const struct parser *parser, const json_t *object,
                                   const char *key, uint64_t min, uint64_t max, uint64_t *out)
{
    const json_t *value = json_object_get(object, key);
    if (!value)
        return SPW_NOT_FOUND;
    if (!json_is_integer(value))
        return FAIL(parser, SPW_INVALID, "\"%s\" must be a whole number from %llu to %llu", key,
                    (unsigned long long)min, (unsigned long long)max);
    json_int_t number = json_integer_value(value);
    if (number < 0 || (uint64_t)number < min || (uint64_t)number > max)
        return FAIL(parser, SPW_INVALID, "\"%s\" is %lld: %llu to %llu is allowed", key,
                    (long long)number, (unsigned long long)min, (unsigned long long)max);
    *out = (uint64_t)number;
    return SPW_OK;
}

static enum spw_status need_number(const struct parser *parser, const json_t *object,
                                   const char *key, uint64_t min, uint64_t max, uint64_t *out)
{
    enum spw_status status = read_number(parser, object, key, min, max, out);
    if (status == SPW_NOT_FOUND)
        return FAIL(parser, SPW_INVALID, "\"%s\" is missing: a whole number is expected", key);
    return status;
}

/* Milliseconds, a fraction allowed. SPW_NOT_FOUND when the key is not there. */
static enum spw_status read_ms(const struct parser *parser, const json_t *object, const char *key,
                               uint64_t *out_ns)
{
    const json_t *value = json_object_get(object, key);
    if (!value)
        return SPW_NOT_FOUND;
    if (!json_is_number(value))
        return FAIL(parser, SPW_INVALID, "\"%s\" must be a number of milliseconds", key);
    double ms = json_number_value(value);
    double max_ms = (double)(SPW_TRACE_NS_MAX / 4 / NS_PER_MS);
    if (!(ms >= 0 && ms <= max_ms))
        return FAIL(parser, SPW_INVALID, "\"%s\" is %g: 0 to %.0f milliseconds is allowed", key, ms,
                    max_ms);
    *out_ns = json_is_integer(value) ? (uint64_t)json_integer_value(value) * NS_PER_MS
                                     : (uint64_t)(ms * NS_PER_MS + 0.5);
    return SPW_OK;
}

static enum spw_status read_ids(struct parser *parser, const json_t *object, const char *key,
                                struct spw_trace_request *request)
{
    const json_t *ids = json_object_get(object, key);
    struct spw_trace *trace = &parser->builder.trace;
    request->prefix_begin = (uint32_t)trace->prefix_count;
    if (!ids)
        return SPW_OK;
    if (!json_is_array(ids))
        return FAIL(parser, SPW_INVALID, "\"%s\" must be a list of block ids", key);
    size_t block = trace->prefix_block_tokens;
    size_t count = json_array_size(ids);
    size_t most = block ? (request->prompt_tokens + block - 1) / block : 0;
    if (count > most)
        return FAIL(parser, SPW_INVALID,
                    "\"%s\" has %zu ids: a prompt of %u tokens has at most %zu blocks of %zu", key,
                    count, request->prompt_tokens, most, block);
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(ids, i);
        json_int_t number = json_integer_value(id);
        if (!json_is_integer(id) || number < 0 || (uint64_t)number > SPW_TRACE_ID_MAX)
            return FAIL(parser, SPW_INVALID,
                        "\"%s\" entry %zu must be a whole number from 0 to %llu", key, i,
                        (unsigned long long)SPW_TRACE_ID_MAX);
        if (!spw_trace_builder_prefix(&parser->builder, (uint64_t)number))
            return FAIL(parser, SPW_TOO_LARGE, "more than %zu block ids in all, or out of memory",
                        SPW_TRACE_PREFIX_MAX);
    }
    request->prefix_count = (uint32_t)count;
    return SPW_OK;
}

/* Index of a name in a table that grows. */
static enum spw_status find_name(const struct parser *parser, const json_t *object, const char *key,
                                 uint32_t count_max, char (**names)[SPW_TRACE_TEXT_MAX],
                                 uint32_t *count, uint32_t *out_index)
{
    const json_t *value = json_object_get(object, key);
    *out_index = 0;
    if (!value)
        return SPW_OK;
    const char *text = json_string_value(value);
    size_t bytes = text ? json_string_length(value) : 0;
    if (!bytes || bytes >= SPW_TRACE_TEXT_MAX || strlen(text) != bytes)
        return FAIL(parser, SPW_INVALID, "\"%s\" must be a text of 1 to %u characters", key,
                    SPW_TRACE_TEXT_MAX - 1);
    for (uint32_t i = 0; i < *count; i++) {
        if (strcmp((*names)[i], text) == 0) {
            *out_index = i;
            return SPW_OK;
        }
    }
    if (*count >= count_max)
        return FAIL(parser, SPW_TOO_LARGE, "\"%s\" is the %uth name: at most %u are possible", key,
                    *count + 1, count_max);
    void *grown = realloc(*names, (*count + 1) * sizeof(**names));
    if (!grown)
        return FAIL(parser, SPW_NO_MEMORY, "out of memory");
    *names = grown;
    memset((*names)[*count], 0, sizeof(**names));
    memcpy((*names)[*count], text, bytes);
    *out_index = (*count)++;
    return SPW_OK;
}

static enum spw_status add_request(struct parser *parser, const struct spw_trace_request *request)
{
    if (!spw_trace_builder_request(&parser->builder, request))
        return FAIL(parser, SPW_TOO_LARGE, "more than %zu requests, or out of memory",
                    SPW_TRACE_REQUESTS_MAX);
    return SPW_OK;
}

static enum spw_status parse_mooncake(struct parser *parser, const json_t *object)
{
    struct spw_trace_request request = {.priority = 0};
    uint64_t prompt = 0, output = 0;
    enum spw_status status = read_ms(parser, object, "timestamp", &request.at_ns);
    if (status == SPW_NOT_FOUND)
        status = FAIL(parser, SPW_INVALID, "\"timestamp\" is missing: milliseconds are expected");
    if (!status)
        status = need_number(parser, object, "input_length", 1, SPW_TRACE_TOKENS_MAX, &prompt);
    if (!status)
        status = need_number(parser, object, "output_length", 1, SPW_TRACE_TOKENS_MAX, &output);
    if (status)
        return status;
    request.prompt_tokens = (uint32_t)prompt;
    request.output_tokens = (uint32_t)output;
    status = read_ids(parser, object, "hash_ids", &request);
    return status ? status : add_request(parser, &request);
}

/* "prefix_block_tokens" belongs to the whole trace. */
static enum spw_status read_block_tokens(struct parser *parser, const json_t *object)
{
    uint64_t block = 0;
    struct spw_trace *trace = &parser->builder.trace;
    enum spw_status status =
        read_number(parser, object, "prefix_block_tokens", 1, SPW_TRACE_TOKENS_MAX, &block);
    if (status == SPW_NOT_FOUND)
        block = trace->prefix_block_tokens ? trace->prefix_block_tokens : MOONCAKE_BLOCK_TOKENS;
    else if (status)
        return status;
    if (trace->prefix_block_tokens && block != trace->prefix_block_tokens)
        return FAIL(parser, SPW_INVALID,
                    "\"prefix_block_tokens\" is %llu and was %u before: one size for all lines",
                    (unsigned long long)block, trace->prefix_block_tokens);
    if (json_object_get(object, "prefix"))
        trace->prefix_block_tokens = (uint32_t)block;
    return SPW_OK;
}

static enum spw_status check_own_keys(const struct parser *parser, json_t *object)
{
    static const char *const keys[] = {"at_ms",  "prompt_tokens", "output_tokens",
                                       "prefix", "tenant",        "prefix_block_tokens",
                                       "class",  "priority",      "deadline_ms"};
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < SPW_ARRAY_COUNT(keys); i++)
            known = known || strcmp(key, keys[i]) == 0;
        if (!known)
            return FAIL(parser, SPW_INVALID,
                        "unknown key \"%.40s\": at_ms, prompt_tokens, output_tokens, prefix, "
                        "prefix_block_tokens, tenant, class, priority and deadline_ms are known",
                        key);
    }
    return SPW_OK;
}

static enum spw_status parse_own(struct parser *parser, json_t *object)
{
    struct spw_trace_request request = {.priority = 0};
    struct spw_trace *trace = &parser->builder.trace;
    uint64_t prompt = 0, output = 0, priority = 0;
    enum spw_status status = check_own_keys(parser, object);
    if (!status)
        status = read_ms(parser, object, "at_ms", &request.at_ns);
    if (status == SPW_NOT_FOUND)
        status = FAIL(parser, SPW_INVALID, "\"at_ms\" is missing: milliseconds are expected");
    if (!status)
        status = need_number(parser, object, "prompt_tokens", 1, SPW_TRACE_TOKENS_MAX, &prompt);
    if (!status)
        status = need_number(parser, object, "output_tokens", 1, SPW_TRACE_TOKENS_MAX, &output);
    if (status)
        return status;
    request.prompt_tokens = (uint32_t)prompt;
    request.output_tokens = (uint32_t)output;
    status = read_number(parser, object, "priority", 0, 2, &priority);
    if (status && status != SPW_NOT_FOUND)
        return status;
    request.priority = (uint8_t)priority;
    status = read_ms(parser, object, "deadline_ms", &request.deadline_ns);
    if (status && status != SPW_NOT_FOUND)
        return status;
    status = find_name(parser, object, "tenant", SPW_TRACE_TENANTS_MAX, &trace->tenants,
                       &trace->tenant_count, &request.tenant);
    if (!status)
        status = find_name(parser, object, "class", SPW_TRACE_CLASSES_MAX, &trace->classes,
                           &trace->class_count, &request.data_class);
    if (!status)
        status = read_block_tokens(parser, object);
    if (!status)
        status = read_ids(parser, object, "prefix", &request);
    return status ? status : add_request(parser, &request);
}

static enum spw_status parse_json(struct parser *parser, const char *text, size_t bytes,
                                  enum format format)
{
    json_error_t why;
    json_t *object = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
    if (!object)
        return FAIL(parser, SPW_INVALID, "column %d: not a JSON object: %s", why.column, why.text);
    enum spw_status status = SPW_OK;
    if (!json_is_object(object))
        status = FAIL(parser, SPW_INVALID, "a JSON object {...} is expected");
    else
        status =
            format == FORMAT_MOONCAKE ? parse_mooncake(parser, object) : parse_own(parser, object);
    json_decref(object);
    return status;
}

/* ---- Azure CSV ---- */

/* Digits, at most `digits` of them, as a number. */
static bool take_digits(const char **at, const char *end, unsigned digits_min, unsigned digits_max,
                        uint64_t *out)
{
    uint64_t value = 0;
    unsigned digits = 0;
    for (; *at < end && digits < digits_max && isdigit((unsigned char)**at); (*at)++, digits++)
        value = value * 10 + (uint64_t)(**at - '0');
    *out = value;
    return digits >= digits_min;
}

static bool take_char(const char **at, const char *end, char expected)
{
    if (*at >= end || **at != expected)
        return false;
    (*at)++;
    return true;
}

/* Days since 1970-01-01 of a date of the Gregorian calendar: whole years, leap days, months. */
static uint64_t days_of(uint64_t year, uint64_t month, uint64_t day)
{
    static const uint16_t before[12] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    uint64_t past = year - 1;
    uint64_t leap_days = past / 4 - past / 100 + past / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    return (year - 1970) * 365 + leap_days + before[month - 1] + (leap && month > 2) + day - 1;
}

static bool take_timestamp(const char **at, const char *end, uint64_t *out_ns)
{
    uint64_t year, month, day, hour, minute, second, nanos = 0;
    if (!(take_digits(at, end, 4, 4, &year) && take_char(at, end, '-') &&
          take_digits(at, end, 2, 2, &month) && take_char(at, end, '-') &&
          take_digits(at, end, 2, 2, &day) && *at < end && (**at == ' ' || **at == 'T')))
        return false;
    (*at)++;
    if (!(take_digits(at, end, 2, 2, &hour) && take_char(at, end, ':') &&
          take_digits(at, end, 2, 2, &minute) && take_char(at, end, ':') &&
          take_digits(at, end, 2, 2, &second)))
        return false;
    if (take_char(at, end, '.')) {
        const char *begin = *at;
        if (!take_digits(at, end, 1, 9, &nanos))
            return false;
        for (size_t digits = (size_t)(*at - begin); digits < 9; digits++)
            nanos *= 10;
    }
    /* "+00:00" or "Z": differences are all that counts, and one file has one zone */
    if (*at < end && (**at == 'Z' || **at == '+')) {
        while (*at < end && **at != ',')
            (*at)++;
    }
    if (year < 1970 || year > 2100 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 ||
        minute > 59 || second > 60)
        return false;
    uint64_t seconds = ((days_of(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    *out_ns = seconds * 1000000000u + nanos;
    return true;
}

static enum spw_status parse_azure(struct parser *parser, const char *text, size_t bytes)
{
    const char *at = text, *end = text + bytes;
    struct spw_trace_request request = {.priority = 0};
    uint64_t prompt = 0, output = 0;
    if (!take_timestamp(&at, end, &request.at_ns))
        return FAIL(parser, SPW_INVALID,
                    "the first column must be a time as 2023-11-16 18:15:46.6805900");
    if (!take_char(&at, end, ',') || !take_digits(&at, end, 1, 10, &prompt))
        return FAIL(parser, SPW_INVALID, "the second column must be the prompt's token count");
    if (!take_char(&at, end, ',') || !take_digits(&at, end, 1, 10, &output) || at != end)
        return FAIL(parser, SPW_INVALID,
                    "the third and last column must be the answer's token count");
    if (prompt < 1 || prompt > SPW_TRACE_TOKENS_MAX || output < 1 || output > SPW_TRACE_TOKENS_MAX)
        return FAIL(parser, SPW_INVALID, "%llu and %llu tokens: 1 to %u each is allowed",
                    (unsigned long long)prompt, (unsigned long long)output, SPW_TRACE_TOKENS_MAX);
    request.prompt_tokens = (uint32_t)prompt;
    request.output_tokens = (uint32_t)output;
    return add_request(parser, &request);
}

/* ---- files ---- */

/* The next line without its end; blank lines are passed over. False at the end. */
static bool next_line(const char **at, const char *end, size_t *line, const char **out_text,
                      size_t *out_bytes)
{
    while (*at < end) {
        const char *begin = *at;
        const char *stop = memchr(begin, '\n', (size_t)(end - begin));
        *at = stop ? stop + 1 : end;
        (*line)++;
        const char *last = stop ? stop : end;
        while (last > begin && isspace((unsigned char)last[-1]))
            last--;
        while (begin < last && isspace((unsigned char)*begin))
            begin++;
        if (begin < last) {
            *out_text = begin;
            *out_bytes = (size_t)(last - begin);
            return true;
        }
    }
    return false;
}

static bool contains(const char *text, size_t bytes, const char *word)
{
    return memmem(text, bytes, word, strlen(word)) != NULL;
}

static enum spw_status tell_format(const struct parser *parser, const char *text, size_t bytes,
                                   enum format *out_format)
{
    static const char header[] = "TIMESTAMP,ContextTokens,GeneratedTokens";
    if (bytes == sizeof(header) - 1 && memcmp(text, header, bytes) == 0)
        *out_format = FORMAT_AZURE;
    else if (text[0] == '{' && contains(text, bytes, "\"at_ms\""))
        *out_format = FORMAT_OWN;
    else if (text[0] == '{' && contains(text, bytes, "\"timestamp\""))
        *out_format = FORMAT_MOONCAKE;
    else
        return FAIL(parser, SPW_INVALID,
                    "not a trace: the first line must be an object with \"timestamp\" (Mooncake) "
                    "or \"at_ms\" (own), or '%s' (Azure)",
                    header);
    return SPW_OK;
}

static int compare_at(const void *a, const void *b)
{
    const struct spw_trace_request *x = a, *y = b;
    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    return 0;
}

/* Ascending times, lines of equal time in their order; Azure's clock begins at its first request.
 */
static bool order(struct spw_trace *trace, bool from_first)
{
    bool sorted = true;
    for (size_t i = 1; i < trace->count && sorted; i++)
        sorted = trace->requests[i - 1].at_ns <= trace->requests[i].at_ns;
    if (!sorted) { /* merge sort, stable: qsort of the C library promises nothing */
        size_t count = trace->count;
        struct spw_trace_request *from = trace->requests, *to = malloc(count * sizeof(*to));
        if (!to)
            return false;
        for (size_t width = 1; width < count; width *= 2) {
            for (size_t base = 0; base < count; base += 2 * width) {
                size_t a = base, middle = SPW_MIN(base + width, count), b = middle;
                size_t end = SPW_MIN(base + 2 * width, count);
                for (size_t k = base; k < end; k++)
                    to[k] = a < middle && (b >= end || compare_at(&from[a], &from[b]) <= 0)
                                ? from[a++]
                                : from[b++];
            }
            struct spw_trace_request *swap = from;
            from = to;
            to = swap;
        }
        trace->requests = from;
        free(to);
    }
    for (size_t i = trace->count; from_first && i-- > 0;)
        trace->requests[i].at_ns -= trace->requests[0].at_ns;
    return true;
}

enum spw_status spw_trace_parse(const char *name, const char *text, size_t bytes, size_t count_max,
                                struct spw_trace *out_trace, struct spw_error *error)
{
    struct parser parser = {.name = name, .error = error};
    const char *at = text, *end = text + bytes, *line;
    size_t line_bytes;
    enum format format = FORMAT_OWN;
    enum spw_status status = SPW_OK;
    if (!spw_trace_builder_init(&parser.builder))
        return spw_fail(error, SPW_NO_MEMORY, "%s: out of memory", name);
    struct spw_trace *trace = &parser.builder.trace;
    bool first = true;
    while (!status && next_line(&at, end, &parser.line, &line, &line_bytes)) {
        if (line_bytes > LINE_BYTES_MAX) {
            status = FAIL(&parser, SPW_TOO_LARGE, "has %zu bytes: at most %zu are read", line_bytes,
                          LINE_BYTES_MAX);
            break;
        }
        if (first) {
            first = false;
            status = tell_format(&parser, line, line_bytes, &format);
            if (!status && format == FORMAT_MOONCAKE)
                trace->prefix_block_tokens = MOONCAKE_BLOCK_TOKENS;
            if (status || format == FORMAT_AZURE)
                continue;
        }
        if (count_max && trace->count == count_max)
            break;
        status = format == FORMAT_AZURE ? parse_azure(&parser, line, line_bytes)
                                        : parse_json(&parser, line, line_bytes, format);
    }
    if (!status && trace->count == 0)
        status = spw_fail(error, SPW_INVALID, "%s: no request in it", name);
    if (!status && !order(trace, format == FORMAT_AZURE))
        status = spw_fail(error, SPW_NO_MEMORY, "%s: out of memory", name);
    if (status)
        spw_trace_done(trace);
    else
        *out_trace = *trace;
    return status;
}

enum spw_status spw_trace_read(const char *path, size_t count_max, struct spw_trace *out_trace,
                               struct spw_error *error)
{
    enum spw_status status = SPW_OK;
    char *text = NULL;
    size_t bytes = 0, room = 0;
    FILE *file = fopen(path, "rb");
    if (!file)
        return spw_fail(error, SPW_NOT_FOUND, "trace %s: %s", path, strerror(errno));
    while (!feof(file) && !ferror(file)) {
        if (bytes == room) {
            room = room ? room * 2 : (size_t)1 << 16;
            char *grown = room <= 2 * FILE_BYTES_MAX ? realloc(text, room) : NULL;
            if (!grown) {
                status = spw_fail(error, SPW_TOO_LARGE,
                                  "trace %s: more than %zu bytes, or out of memory", path,
                                  FILE_BYTES_MAX);
                goto out;
            }
            text = grown;
        }
        bytes += fread(text + bytes, 1, room - bytes, file);
    }
    if (ferror(file)) {
        status = spw_fail(error, SPW_IO, "trace %s: %s", path, strerror(errno));
        goto out;
    }
    if (bytes > FILE_BYTES_MAX) {
        status = spw_fail(error, SPW_TOO_LARGE, "trace %s: %zu bytes, at most %zu are read", path,
                          bytes, FILE_BYTES_MAX);
        goto out;
    }
    status = spw_trace_parse(path, text, bytes, count_max, out_trace, error);
out:
    fclose(file);
    free(text);
    return status;
}
