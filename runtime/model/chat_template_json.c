/* JSON in (the variables) and out (tojson, as Python's json.dumps writes it). */
#include "runtime/model/chat_template_int.h"

#include <math.h>
#include <string.h>

struct spw_ct_value spw_ct_from_json(struct spw_ct_run *run, const json_t *json, unsigned depth)
{
    if (depth > SPW_CT_DATA_DEPTH_MAX)
        return spw_ct_fail_size(run, "the depth of the variables");
    if (!spw_ct_charge(run, 1))
        return spw_ct_none();
    switch (json_typeof(json)) {
    case JSON_OBJECT: {
        struct spw_ct_dict *dict = spw_ct_dict_new(run, json_object_size(json));
        const char *key;
        json_t *member;
        /* the macro wants a changeable object for deletions, which do not happen here */
        json_object_foreach((json_t *)(uintptr_t)json, key, member)
        {
            struct spw_ct_value value = spw_ct_from_json(run, member, depth + 1);
            if (run->failed || dict->count == dict->capacity)
                break;
            dict->pairs[dict->count++] =
                (struct spw_ct_pair){.key = spw_ct_word(key), .value = value};
        }
        return run->failed ? spw_ct_none()
                           : (struct spw_ct_value){.kind = SPW_CT_DICT, .dict = dict};
    }
    case JSON_ARRAY: {
        struct spw_ct_list *list = spw_ct_list_new(run, json_array_size(json));
        for (size_t i = 0; i < json_array_size(json) && !run->failed; i++)
            spw_ct_list_add(run, list, spw_ct_from_json(run, json_array_get(json, i), depth + 1));
        return spw_ct_from_list(run->failed ? NULL : list, SPW_CT_LIST);
    }
    case JSON_STRING:
        return spw_ct_text(json_string_value(json), json_string_length(json));
    case JSON_INTEGER:
        return spw_ct_int(json_integer_value(json));
    case JSON_REAL:
        return spw_ct_float(json_real_value(json));
    case JSON_TRUE:
        return spw_ct_bool(true);
    case JSON_FALSE:
        return spw_ct_bool(false);
    case JSON_NULL:
        break;
    }
    return spw_ct_none();
}

struct writer {
    struct spw_ct_run *run;
    struct spw_buffer out;
    bool ascii;
    bool sort;
    bool pretty;
    struct spw_ct_value indent;
    struct spw_ct_value item_separator;
    struct spw_ct_value key_separator;
};

static void write_value(struct writer *writer, struct spw_ct_value value, unsigned level);

static void write_text(struct writer *writer, struct spw_ct_value text)
{
    static const char names[] = "\"\"\\\\\nn\rr\tt\bb\ff";
    struct spw_buffer *out = &writer->out;
    spw_ct_charge(writer->run, text.bytes / 64);
    spw_buffer_add(out, "\"", 1);
    for (size_t at = 0; at < text.bytes && !out->failed;) {
        uint32_t point = spw_ct_point(text.text, text.bytes, &at);
        const char *name = NULL;
        for (size_t i = 0; i + 1 < sizeof(names); i += 2)
            if ((uint32_t)names[i] == point)
                name = &names[i + 1];
        if (name)
            spw_buffer_format(out, "\\%c", *name);
        else if (point < 0x20 || (writer->ascii && point > 0x7e && point < 0x10000))
            spw_buffer_format(out, point == 0x7f ? "%c" : "\\u%04x", point);
        else if (writer->ascii && point >= 0x10000)
            spw_buffer_format(out, "\\u%04x\\u%04x", 0xd800 + ((point - 0x10000) >> 10),
                              0xdc00 + ((point - 0x10000) & 0x3ff));
        else
            spw_ct_add_point(out, point);
    }
    spw_buffer_add(out, "\"", 1);
}

static void new_line(struct writer *writer, unsigned level)
{
    if (!writer->pretty)
        return;
    spw_buffer_add(&writer->out, "\n", 1);
    for (unsigned i = 0; i < level && !writer->out.failed; i++)
        spw_buffer_add(&writer->out, writer->indent.text, writer->indent.bytes);
}

static void write_float(struct writer *writer, double real)
{
    if (isfinite(real))
        spw_ct_add_float(&writer->out, real);
    else
        spw_buffer_add_text(&writer->out, isnan(real) ? "NaN"
                                          : real < 0  ? "-Infinity"
                                                      : "Infinity");
}

static void write_key(struct writer *writer, struct spw_ct_value key)
{
    if (key.kind == SPW_CT_STRING) {
        write_text(writer, key);
    } else if (key.kind == SPW_CT_NONE || spw_ct_is_number(key)) {
        spw_buffer_add(&writer->out, "\"", 1);
        write_value(writer, key, 0);
        spw_buffer_add(&writer->out, "\"", 1);
    } else {
        spw_ct_fail(writer->run, "TypeError", "keys must be str, int, float, bool or None, not %s",
                    spw_ct_type_name(key));
    }
}

static void write_dict(struct writer *writer, const struct spw_ct_dict *dict, unsigned level)
{
    struct spw_ct_run *run = writer->run;
    struct spw_ct_pair *pairs = dict->pairs;
    if (writer->sort && dict->count > 1) {
        /* by insertion: objects of sorted output are small */
        pairs = spw_ct_take(run, dict->count * sizeof(*pairs));
        for (size_t i = 0; pairs && i < dict->count; i++) {
            size_t to = i;
            for (; to > 0 && !run->failed &&
                   spw_ct_compare(run, dict->pairs[i].key, pairs[to - 1].key, "<") < 0;
                 to--)
                pairs[to] = pairs[to - 1];
            pairs[to] = dict->pairs[i];
        }
    }
    spw_buffer_add(&writer->out, "{", 1);
    for (size_t i = 0; i < dict->count && !run->failed; i++) {
        if (i > 0)
            spw_buffer_add(&writer->out, writer->item_separator.text, writer->item_separator.bytes);
        new_line(writer, level + 1);
        write_key(writer, pairs[i].key);
        spw_buffer_add(&writer->out, writer->key_separator.text, writer->key_separator.bytes);
        write_value(writer, pairs[i].value, level + 1);
    }
    if (dict->count)
        new_line(writer, level);
    spw_buffer_add(&writer->out, "}", 1);
}

static void write_list(struct writer *writer, const struct spw_ct_list *list, unsigned level)
{
    spw_buffer_add(&writer->out, "[", 1);
    for (size_t i = 0; i < list->count && !writer->run->failed; i++) {
        if (i > 0)
            spw_buffer_add(&writer->out, writer->item_separator.text, writer->item_separator.bytes);
        new_line(writer, level + 1);
        write_value(writer, list->items[i], level + 1);
    }
    if (list->count)
        new_line(writer, level);
    spw_buffer_add(&writer->out, "]", 1);
}

static void write_value(struct writer *writer, struct spw_ct_value value, unsigned level)
{
    if (!spw_ct_charge(writer->run, 1) || writer->out.failed)
        return;
    if (level > SPW_CT_DATA_DEPTH_MAX) {
        spw_ct_fail_size(writer->run, "the depth");
        return;
    }
    switch (value.kind) {
    case SPW_CT_NONE:
        spw_buffer_add_text(&writer->out, "null");
        break;
    case SPW_CT_BOOL:
        spw_buffer_add_text(&writer->out, value.truth ? "true" : "false");
        break;
    case SPW_CT_INT:
        spw_buffer_format(&writer->out, "%lld", (long long)value.integer);
        break;
    case SPW_CT_FLOAT:
        write_float(writer, value.real);
        break;
    case SPW_CT_STRING:
        write_text(writer, value);
        break;
    case SPW_CT_LIST:
    case SPW_CT_TUPLE:
        write_list(writer, value.list, level);
        break;
    case SPW_CT_DICT:
        write_dict(writer, value.dict, level);
        break;
    default:
        spw_ct_fail(writer->run, "TypeError", "Object of type %s is not JSON serializable",
                    spw_ct_type_name(value));
        break;
    }
}

static bool given(struct spw_ct_value value)
{
    return value.kind != SPW_CT_MISSING && value.kind != SPW_CT_NONE;
}

struct spw_ct_value spw_ct_to_json(struct spw_ct_run *run, struct spw_ct_value self,
                                   const struct spw_ct_args *args)
{
    struct writer writer = {.run = run,
                            .ascii = spw_ct_arg_truth(args->values[0], false),
                            .sort = spw_ct_arg_truth(args->values[3], false),
                            .pretty = given(args->values[1]),
                            .item_separator = spw_ct_word(", "),
                            .key_separator = spw_ct_word(": ")};
    struct spw_ct_value indent = args->values[1];
    struct spw_ct_value separators = args->values[2];
    if (writer.pretty)
        writer.item_separator = spw_ct_word(",");
    if (writer.pretty && indent.kind != SPW_CT_STRING)
        indent = spw_ct_arithmetic(run, SPW_CT_MULTIPLY, spw_ct_word(" "), indent);
    writer.indent = indent;
    if (given(separators)) {
        const struct spw_ct_list *pair = spw_ct_iterate(run, separators);
        if (!pair || pair->count != 2 || pair->items[0].kind != SPW_CT_STRING ||
            pair->items[1].kind != SPW_CT_STRING)
            return spw_ct_fail(run, "ValueError", "separators must be two texts");
        writer.item_separator = pair->items[0];
        writer.key_separator = pair->items[1];
    }
    if (run->failed)
        return self;
    spw_ct_buffer_init(&writer.out);
    write_value(&writer, self, 0);
    return spw_ct_collect(run, &writer.out);
}
