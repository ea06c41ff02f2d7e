/* chart.h - line charts and bars as SVG, for reports.
 *
 * Room:      runtime/trace
 * Threads:   any
 * Ownership: writes into the caller's buffer; keeps nothing
 *
 * Readable in light and dark, no scripts, no fonts fetched: a file can be mailed and opened
 * anywhere.
 */
#ifndef SPW_CHART_H
#define SPW_CHART_H

#include "runtime/base/buffer.h"

struct spw_chart_series {
    const char *name;
    const double *x, *y; /* [count]; NaN in y: a gap */
    size_t count;
    bool points; /* marks beside the line */
    bool step;   /* constant until the next x */
};

struct spw_chart {
    const char *title, *x_title, *y_title;
    bool x_log, y_log;
    double y_goal; /* a dashed line when > 0 */
    const char *goal_name;
    const struct spw_chart_series *series;
    uint32_t series_count;  /* <= 8 */
    uint32_t width, height; /* pixels; 0: 720 x 300 */
};

/* One <svg> element, without an XML declaration so that HTML can hold it. */
void spw_chart_svg(const struct spw_chart *chart, struct spw_buffer *out);

/* Text with &, <, > and quotes escaped. */
void spw_chart_escape(struct spw_buffer *out, const char *text);

#endif
