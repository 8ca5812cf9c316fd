/* Many subscribers of a feed in one process, so cheap that they do not weigh on what is measured.
 *
 *   sink PORT SUBSCRIBERS RECORDS COPY
 *
 * Each opens GET /v1/feed as server-sent events. Prints "ready" when all are answered; ends when each has seen RECORDS
 * events that carry a "t0", and prints one JSON line. Every subscriber must be sent the same bytes for the same "n";
 * those of the first are written to COPY, for whoever wants to compare them with what was written. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 20, STALL_MS = 30000 };

struct subscriber {
    int fd, answered, seen;
    long chunk_left; /* bytes of the chunk still to come; -1: a size line comes; -2: the line end behind a chunk */
    char size[32];
    int size_len;
    char *line; /* the line that is being gathered, its chunks put together */
    size_t line_len;
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int records, differing, doubled;
static uint64_t *digests;  /* of each record, as the first to get it saw it */
static uint8_t *had;       /* [subscriber][record] */
static uint32_t *late_us;  /* of every delivery */
static size_t deliveries, bytes;
static FILE *copy;

static char *last_field(char *text, size_t size, const char *name) {
    char *found = NULL, *from = text;
    size_t length = strlen(name);
    while ((from = memmem(from, size - (from - text), name, length))) found = from += length;
    return found;
}

static void take_line(struct subscriber *s, int me, uint64_t now) {
    char *text = s->line;
    size_t size = s->line_len;
    if (size < 6 || memcmp(text, "data: ", 6)) return;
    text[size] = 0;
    char *t0 = last_field(text, size, "\"t0\":"), *n = last_field(text, size, "\"n\":");
    if (!t0 || !n) return;
    long number = strtol(n, NULL, 10);
    if (number < 0 || number >= records) return;
    uint64_t digest = 14695981039346656037ull;
    for (size_t at = 0; at < size; at++) digest = (digest ^ (uint8_t)text[at]) * 1099511628211ull;
    if (had[(size_t)me * records + number]++) { doubled++; return; }
    if (!digests[number]) digests[number] = digest;
    else if (digests[number] != digest) differing++;
    if (me == 0) fprintf(copy, "%s\n", text + 6);
    late_us[deliveries++] = (uint32_t)((now - strtoull(t0, NULL, 10)) / 1000);
    s->seen++;
}

static void take_body(struct subscriber *s, int me, const char *data, size_t size, uint64_t now) {
    while (size) {
        const char *end = memchr(data, '\n', size);
        size_t part = end ? (size_t)(end - data) : size;
        if (s->line_len + part >= BUFFER) { fprintf(stderr, "a line too long\n"); exit(1); }
        memcpy(s->line + s->line_len, data, part);
        s->line_len += part;
        if (!end) return;
        take_line(s, me, now);
        s->line_len = 0;
        data += part + 1;
        size -= part + 1;
    }
}

static void take(struct subscriber *s, int me, const char *data, size_t size, uint64_t now) {
    bytes += size;
    while (size) {
        if (!s->answered) { /* the head ends with an empty line; it is short, and comes alone or with the first chunk */
            const char *end = memmem(data, size, "\r\n\r\n", 4);
            if (!end || memcmp(data, "HTTP/1.1 200", 12)) { fprintf(stderr, "answered %.*s\n", (int)size, data); exit(1); }
            s->answered = 1;
            s->chunk_left = -1;
            size -= end + 4 - data;
            data = end + 4;
        } else if (s->chunk_left > 0) {
            size_t part = size < (size_t)s->chunk_left ? size : (size_t)s->chunk_left;
            take_body(s, me, data, part, now);
            s->chunk_left -= part;
            if (!s->chunk_left) s->chunk_left = -2;
            data += part;
            size -= part;
        } else {
            char c = *data++;
            size--;
            if (c != '\n') {
                if (s->size_len < 31) s->size[s->size_len++] = c;
            } else if (s->chunk_left == -2) {
                s->chunk_left = -1;
                s->size_len = 0;
            } else {
                s->size[s->size_len] = 0;
                s->chunk_left = strtol(s->size, NULL, 16);
                s->size_len = 0;
                if (!s->chunk_left) { fprintf(stderr, "the feed ended\n"); exit(1); }
            }
        }
    }
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int port = atoi(argv[1]), many = atoi(argv[2]);
    records = atoi(argv[3]);
    copy = fopen(argv[4], "w");
    struct subscriber *all = calloc(many, sizeof *all);
    digests = calloc(records, sizeof *digests);
    had = calloc((size_t)many * records, 1);
    late_us = calloc((size_t)many * records, sizeof *late_us);
    static char buffer[BUFFER];
    int poll = epoll_create1(0), ready = 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const char *ask = "GET /v1/feed HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n";
    for (int me = 0; me < many; me++) {
        all[me].line = malloc(BUFFER);
        all[me].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(all[me].fd, (struct sockaddr *)&to, sizeof to)) { perror("connect"); return 1; }
        if (send(all[me].fd, ask, strlen(ask), 0) < 0) { perror("send"); return 1; }
        struct epoll_event want = {.events = EPOLLIN, .data.u32 = me};
        epoll_ctl(poll, EPOLL_CTL_ADD, all[me].fd, &want);
    }
    for (int left = many; left;) {
        struct epoll_event events[64];
        int got = epoll_wait(poll, events, 64, STALL_MS);
        if (got <= 0) { fprintf(stderr, "nothing came for %d ms, %d subscribers wait\n", STALL_MS, left); return 1; }
        for (int i = 0; i < got; i++) {
            int me = events[i].data.u32, before = all[me].seen, answered = all[me].answered;
            ssize_t size = recv(all[me].fd, buffer, sizeof buffer, 0);
            if (size <= 0) { fprintf(stderr, "subscriber %d was cut off\n", me); return 1; }
            take(&all[me], me, buffer, size, now_ns());
            if (!answered && all[me].answered && ++ready == many) { puts("ready"); fflush(stdout); }
            if (before < records && all[me].seen >= records) left--;
        }
    }
    fclose(copy);
    qsort(late_us, deliveries, sizeof *late_us, by_value);
    printf("{\"deliveries\": %zu, \"differing\": %d, \"doubled\": %d, \"bytes\": %zu, \"p50_us\": %u, \"p99_us\": %u}\n",
           deliveries, differing, doubled, bytes, late_us[deliveries / 2], late_us[deliveries * 99 / 100]);
    return 0;
}
