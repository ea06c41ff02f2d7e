/* Layout of a chart: title, legend, then the frame with its axes. Numbers are printed with one
 * decimal of a pixel; a line of more points than the frame is wide keeps, for each column of
 * pixels, its first, lowest, highest and last point, so that a file's size has a bound and no
 * peak is lost.
 */
#include "runtime/trace/chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LEFT       64.0
#define RIGHT      16.0
#define TOP        50.0
#define BOTTOM     46.0
#define TICKS_MAX  24
#define SERIES_MAX 8u
#define MARKS_MAX  400u /* more marks than this would hide the line */

/* Told apart on white and on black, also without seeing red or green. */
static const char *const light[SERIES_MAX] = {"#0065bd", "#d1540a", "#007a5e", "#a2388f",
                                              "#8a6d00", "#5b4fc7", "#b3213c", "#4d5a66"};
static const char *const dark[SERIES_MAX] = {"#6cb6ff", "#ff9a5c", "#4fd1a5", "#f08fd8",
                                             "#e3c04a", "#b3a8ff", "#ff8a9c", "#aab7c4"};

struct axis {
    bool log;
    double low, high; /* of the figures; logarithms of them when log */
    double from, to;  /* pixels */
    double ticks[TICKS_MAX];
    int tick_count;
    double tick_step;
};

/* Length of the well-formed UTF-8 character that begins here and may stand in XML; 0: none. */
static size_t character_bytes(const unsigned char *at)
{
    if (at[0] < 0x80)
        return at[0] >= 0x20 && at[0] != 0x7f ? 1 : 0;
    size_t bytes = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
    if (at[0] < 0xc2 || at[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < bytes; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
        (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f) ||
        (at[0] == 0xef && at[1] == 0xbf && at[2] >= 0xbe))
        return 0;
    return bytes;
}

void spw_chart_escape(struct spw_buffer *out, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    while (*at) {
        size_t bytes = character_bytes(at);
        switch (*at) {
        case '&':
            spw_buffer_add_text(out, "&amp;");
            break;
        case '<':
            spw_buffer_add_text(out, "&lt;");
            break;
        case '>':
            spw_buffer_add_text(out, "&gt;");
            break;
        case '"':
            spw_buffer_add_text(out, "&quot;");
            break;
        case '\'':
            spw_buffer_add_text(out, "&#39;");
            break;
        default:
            spw_buffer_add(out, bytes ? (const void *)at : "?", bytes ? bytes : 1);
        }
        at += bytes ? bytes : 1;
    }
}

static bool usable(double value, bool log)
{
    return isfinite(value) && (!log || value > 0);
}

static double scaled(const struct axis *axis, double value)
{
    return axis->log ? log10(value) : value;
}

static double pixel(const struct axis *axis, double value)
{
    double part = (scaled(axis, value) - axis->low) / (axis->high - axis->low);
    return axis->from + part * (axis->to - axis->from);
}

static void widen(struct axis *axis, double value)
{
    double at = scaled(axis, value);
    axis->low = fmin(axis->low, at);
    axis->high = fmax(axis->high, at);
}

/* Round steps of 1, 2 or 5 times a power of ten; decades (and 2 and 5 between few) when log. */
static void set_ticks(struct axis *axis, int wanted)
{
    double span = axis->high - axis->low;
    axis->tick_count = 0;
    if (axis->log) {
        int every = (int)fmax(1, ceil(span / wanted));
        bool between = span <= 2.5;
        for (double decade = floor(axis->low); decade <= axis->high + 1e-9; decade += every)
            for (int i = 0; i < (between ? 3 : 1); i++) {
                double value = (i == 0 ? 1 : i == 1 ? 2 : 5) * pow(10, decade), at = log10(value);
                if (at >= axis->low - 1e-9 && at <= axis->high + 1e-9 &&
                    axis->tick_count < TICKS_MAX)
                    axis->ticks[axis->tick_count++] = value;
            }
        return;
    }
    double unit = pow(10, floor(log10(span / wanted))), rest = span / wanted / unit;
    double step = unit * (rest <= 1 ? 1 : rest <= 2 ? 2 : rest <= 5 ? 5 : 10);
    axis->tick_step = step;
    for (double i = ceil(axis->low / step - 1e-9); i * step <= axis->high + step * 1e-9; i++)
        if (axis->tick_count < TICKS_MAX)
            axis->ticks[axis->tick_count++] = i * step;
}

/* The range of all figures of one axis, never empty. A linear axis of figures begins at 0 where
 * it can, so that heights compare.
 */
static void set_range(struct axis *axis, bool from_zero)
{
    if (axis->low > axis->high) { /* no figures */
        axis->low = axis->log ? -1 : 0;
        axis->high = 1;
    }
    if (from_zero && !axis->log)
        axis->low = fmin(axis->low, 0);
    if (axis->high - axis->low <= 1e-9 * fmax(fabs(axis->high), fabs(axis->low)) ||
        axis->high - axis->low < 1e-300) {
        double more = axis->log ? 0.3 : fmax(fabs(axis->high) * 0.1, 1e-6);
        if (axis->log || !from_zero || axis->low != 0)
            axis->low -= more;
        axis->high += axis->low == 0 && axis->high == 0 ? 1 : more;
    }
}

static void format_tick(const struct axis *axis, double value, char *text, size_t bytes)
{
    static const struct {
        double unit;
        const char *name;
    } units[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e4, "k"}};
    double largest = axis->log ? fabs(value) : fmax(fabs(axis->low), fabs(axis->high)), unit = 1;
    const char *name = "";
    for (size_t i = 0; i < SPW_ARRAY_COUNT(units); i++)
        if (largest >= units[i].unit) {
            unit = units[i].unit == 1e4 ? 1e3 : units[i].unit;
            name = units[i].name;
            break;
        }
    if (axis->log) {
        snprintf(text, bytes, "%.6g%s", value / unit, name);
        return;
    }
    double step = axis->tick_step / unit;
    int decimals = step >= 1 ? 0 : (int)fmin(9, ceil(-log10(step) - 1e-9));
    snprintf(text, bytes, "%.*f%s", decimals, value == 0 ? 0.0 : value / unit,
             value == 0 ? "" : name);
}

struct colours {
    const char *back, *title, *grid, *words, *goal;
    const char *const *series;
};

/* No variables of CSS: viewers outside of browsers do not know them. */
static void add_colours(struct spw_buffer *out, const struct colours *colours, uint32_t count)
{
    spw_buffer_format(out,
                      ".spw-chart .b{fill:%s}.spw-chart .t{fill:%s}.spw-chart .g{stroke:%s}"
                      ".spw-chart .a{stroke:%s}.spw-chart .n{fill:%s}.spw-chart .r{stroke:%s}"
                      ".spw-chart .rt{fill:%s}",
                      colours->back, colours->title, colours->grid, colours->words, colours->words,
                      colours->goal, colours->goal);
    for (uint32_t i = 0; i < count; i++)
        spw_buffer_format(out, ".spw-chart .s%u{stroke:%s}.spw-chart .p%u{fill:%s}", i,
                          colours->series[i], i, colours->series[i]);
}

static void add_style(struct spw_buffer *out, uint32_t series_count)
{
    static const struct colours day = {"#fff", "#1b1f24", "#d8dee4", "#57606a", "#b3213c", light},
                                night = {"#0d1117", "#e6edf3", "#30363d",
                                         "#9aa4ae", "#ff8a9c", dark};
    spw_buffer_add_text(
        out, "<style>.spw-chart{font:12px system-ui,sans-serif}.spw-chart .t{font-weight:600;"
             "font-size:14px}.spw-chart .g,.spw-chart .a{fill:none}.spw-chart .r{stroke-dasharray:"
             "5 4;fill:none}.spw-chart .l{fill:none;stroke-width:1.6;stroke-linejoin:round;"
             "stroke-linecap:round}");
    add_colours(out, &day, series_count);
    spw_buffer_add_text(out, "@media(prefers-color-scheme:dark){");
    add_colours(out, &night, series_count);
    spw_buffer_add_text(out, "}</style>");
}

static void add_text(struct spw_buffer *out, double x, double y, const char *class_name,
                     const char *anchor, const char *text)
{
    spw_buffer_format(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">", x, y,
                      class_name, anchor);
    spw_chart_escape(out, text);
    spw_buffer_add_text(out, "</text>");
}

static void add_axes(struct spw_buffer *out, const struct spw_chart *chart, const struct axis *x,
                     const struct axis *y)
{
    char text[40];
    for (int i = 0; i < y->tick_count; i++) {
        double at = pixel(y, y->ticks[i]);
        spw_buffer_format(out, "<path class=\"g\" d=\"M%.1f %.1fH%.1f\"/>", x->from, at, x->to);
        format_tick(y, y->ticks[i], text, sizeof(text));
        add_text(out, x->from - 6, at + 4, "n", "end", text);
    }
    for (int i = 0; i < x->tick_count; i++) {
        double at = pixel(x, x->ticks[i]);
        spw_buffer_format(out, "<path class=\"a\" d=\"M%.1f %.1fv4\"/>", at, y->from);
        format_tick(x, x->ticks[i], text, sizeof(text));
        add_text(out, at, y->from + 17, "n", "middle", text);
    }
    spw_buffer_format(out, "<path class=\"a\" d=\"M%.1f %.1fV%.1fH%.1f\"/>", x->from, y->to,
                      y->from, x->to);
    if (chart->x_title)
        add_text(out, (x->from + x->to) / 2, y->from + 36, "n", "middle", chart->x_title);
    if (chart->y_title) {
        spw_buffer_format(out,
                          "<text class=\"n\" transform=\"translate(14 %.1f) rotate(-90)\" "
                          "text-anchor=\"middle\">",
                          (y->from + y->to) / 2);
        spw_chart_escape(out, chart->y_title);
        spw_buffer_add_text(out, "</text>");
    }
    if (chart->y_goal > 0) {
        double at = pixel(y, chart->y_goal);
        spw_buffer_format(out, "<path class=\"r\" d=\"M%.1f %.1fH%.1f\"/>", x->from, at, x->to);
        add_text(out, x->to - 4, at - 4, "rt", "end", chart->goal_name ? chart->goal_name : "goal");
    }
}

struct pen {
    struct spw_buffer *out;
    bool down, step;
    double last_x, last_y;
};

static void draw_to(struct pen *pen, double x, double y)
{
    if (pen->down && fabs(x - pen->last_x) < 0.05 && fabs(y - pen->last_y) < 0.05)
        return;
    if (pen->down && pen->step && fabs(y - pen->last_y) >= 0.05)
        spw_buffer_format(pen->out, "H%.1fV%.1f", x, y);
    else if (pen->down)
        spw_buffer_format(pen->out, "L%.1f %.1f", x, y);
    else
        spw_buffer_format(pen->out, "M%.1f %.1fh0", x, y); /* a point between gaps is a dot */
    pen->down = true;
    pen->last_x = x;
    pen->last_y = y;
}

/* One column of pixels: what has been seen of it. */
struct column {
    double at;
    size_t count;
    double first, last, low, high, last_x;
    bool low_first;
};

static void end_column(struct pen *pen, struct column *column)
{
    if (column->count > 0)
        draw_to(pen, column->at, column->first);
    if (column->count > 2) {
        draw_to(pen, column->at, column->low_first ? column->low : column->high);
        draw_to(pen, column->at, column->low_first ? column->high : column->low);
    }
    if (column->count > 1)
        draw_to(pen, column->last_x, column->last);
    column->count = 0;
}

static void add_line(struct spw_buffer *out, const struct spw_chart_series *series, uint32_t index,
                     const struct axis *x, const struct axis *y)
{
    struct pen pen = {.out = out, .step = series->step};
    struct column column = {0};
    bool thin = (double)series->count > 2 * (x->to - x->from);
    spw_buffer_format(out, "<path class=\"l s%u\" d=\"M0 0", index); /* "d" is never empty */
    for (size_t i = 0; i < series->count; i++) {
        if (!usable(series->x[i], x->log) || !usable(series->y[i], y->log)) {
            end_column(&pen, &column);
            pen.down = false;
            continue;
        }
        double px = pixel(x, series->x[i]), py = pixel(y, series->y[i]);
        if (!thin) {
            draw_to(&pen, px, py);
            continue;
        }
        if (column.count > 0 && floor(px) != floor(column.at))
            end_column(&pen, &column);
        if (column.count == 0)
            column = (struct column){.at = px, .first = py, .low = py, .high = py};
        column.low_first = py > column.high ? true : py < column.low ? false : column.low_first;
        column.low = fmin(column.low, py);
        column.high = fmax(column.high, py);
        column.last = py;
        column.last_x = px;
        column.count++;
    }
    end_column(&pen, &column);
    spw_buffer_add_text(out, "\"/>");
}

static void add_marks(struct spw_buffer *out, const struct spw_chart_series *series, uint32_t index,
                      const struct axis *x, const struct axis *y)
{
    for (size_t i = 0; i < series->count; i++) {
        if (!usable(series->x[i], x->log) || !usable(series->y[i], y->log))
            continue;
        spw_buffer_format(out, "<circle class=\"p%u\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>",
                          index, pixel(x, series->x[i]), pixel(y, series->y[i]));
        spw_chart_escape(out, series->name ? series->name : "");
        spw_buffer_format(out, " %.6g, %.6g</title></circle>", series->x[i], series->y[i]);
    }
}

static void add_legend(struct spw_buffer *out, const struct spw_chart *chart, double from,
                       double to)
{
    double at = from;
    for (uint32_t i = 0; i < chart->series_count; i++) {
        const char *name = chart->series[i].name;
        if (!name)
            continue;
        double wide = 30 + 6.6 * (double)strlen(name);
        if (at + wide > to && at > from)
            break; /* names that find no place are told by their marks' titles */
        spw_buffer_format(out, "<path class=\"l s%u\" d=\"M%.1f 36h14\"/>", i, at);
        add_text(out, at + 18, 40, "n", "start", name);
        at += wide;
    }
}

void spw_chart_svg(const struct spw_chart *chart, struct spw_buffer *out)
{
    assert(chart->series_count <= SERIES_MAX);
    uint32_t width = chart->width ? chart->width : 720,
             height = chart->height ? chart->height : 300;
    struct axis x = {chart->x_log, INFINITY, -INFINITY, LEFT, width - RIGHT, {0}, 0, 0};
    struct axis y = {chart->y_log, INFINITY, -INFINITY, height - BOTTOM, TOP, {0}, 0, 0};
    for (uint32_t i = 0; i < chart->series_count; i++) {
        const struct spw_chart_series *series = &chart->series[i];
        for (size_t k = 0; k < series->count; k++)
            if (usable(series->x[k], x.log) && usable(series->y[k], y.log)) {
                widen(&x, series->x[k]);
                widen(&y, series->y[k]);
            }
    }
    bool empty = x.low > x.high;
    if (chart->y_goal > 0)
        widen(&y, chart->y_goal);
    set_range(&x, false);
    set_range(&y, true);
    if (!y.log && y.high > 0)
        y.high += (y.high - y.low) * 0.04; /* the highest line is not on the frame */
    set_ticks(&x, (int)SPW_MAX(2, width / 90));
    set_ticks(&y, (int)SPW_MAX(2, height / 50));

    spw_buffer_format(out,
                      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"spw-chart\" role=\"img\" "
                      "width=\"%u\" height=\"%u\" viewBox=\"0 0 %u %u\"><title>",
                      width, height, width, height);
    spw_chart_escape(out, chart->title ? chart->title : "");
    spw_buffer_add_text(out, "</title>");
    add_style(out, chart->series_count);
    spw_buffer_format(out, "<rect class=\"b\" width=\"%u\" height=\"%u\"/>", width, height);
    if (chart->title)
        add_text(out, LEFT, 20, "t", "start", chart->title);
    add_legend(out, chart, x.from, x.to);
    add_axes(out, chart, &x, &y);
    for (uint32_t i = 0; i < chart->series_count; i++) {
        add_line(out, &chart->series[i], i, &x, &y);
        if (chart->series[i].points && chart->series[i].count <= MARKS_MAX)
            add_marks(out, &chart->series[i], i, &x, &y);
    }
    if (empty)
        add_text(out, (x.from + x.to) / 2, (y.from + y.to) / 2, "n", "middle", "no figures");
    spw_buffer_add_text(out, "</svg>\n");
}
