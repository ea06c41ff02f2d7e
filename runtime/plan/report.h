/* report.h - a replay for people and for programs: text, JSON lines, HTML and SVG.
 *
 * Room:      runtime/plan
 * Threads:   one owner
 * Ownership: writes to the caller's file or folder
 * Errors:    a file that cannot be written names the file
 */
#ifndef SPW_REPORT_H
#define SPW_REPORT_H

#include "runtime/plan/figures.h"
#include "runtime/plan/search.h"

#include <stdio.h>

struct spw_report {
    const struct spw_cluster *cluster;
    const struct spw_replay *replay;
    const struct spw_figures *figures;
    const struct spw_search *search; /* NULL: none was asked for */
    const char *trace_name;
    double speed;
    uint64_t seed;
};

void spw_report_text(const struct spw_report *report, FILE *out);
/* One object a line: {"bench":"plan","case":...,"value":...,"unit":...}. */
void spw_report_json(const struct spw_report *report, FILE *out);

/* One self-contained page. */
enum spw_status spw_report_html(const struct spw_report *report, const char *path,
                                struct spw_error *error);
/* The charts alone, a file each; the folder is made when it is not there. */
enum spw_status spw_report_svgs(const struct spw_report *report, const char *folder,
                                struct spw_error *error);

/* What a sampled run was, and how far it may be off; "" when all was simulated. */
const char *spw_report_sample_words(const struct spw_report *report, char *out, size_t bytes);

#endif
