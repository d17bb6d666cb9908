/* A load generator: `load PORT json|stream CONNECTIONS SECONDS EVENTS PACE_US PATH KEY`, one JSON object as output.
 *
 * Every connection is kept alive, asks at least once, and asks again as soon as its answer is whole. Once SECONDS
 * are over nobody asks again, and answers under way are waited for; `seconds` are those until the last answer.
 * Streams begin one after another over a stream's length, so that events are spread and not in step.
 * An answer counts when it is a 200 that has usage in it; a stream when all EVENTS came, then usage and [DONE].
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1024, ROOM = 65536, READY = 256, TOO_MANY = 100, GRACE = 60 };
enum state { HEAD, LENGTH, CHUNK, DATA, TRAILER, CLOSED };

struct line {
    int fd, index, asking, size, seen, last, usage, done, status;
    enum state state;
    int64_t asked, begins;
    long left;           /* bytes of the body or of the chunk that are still to come */
    int rest;            /* bytes of text: a JSON body, or an event's line that isn't whole */
    char held[ROOM], text[ROOM];
};

struct samples {
    int64_t *at;
    size_t size, room;
};

static struct line *lines;
static struct samples waits, delays;
static int poller, port, streaming, connections, events_wanted, request_size, asking;
static long answered, events, errors, reconnects;
static char request[4096], trouble[160];
static int64_t ends, latest;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void keep(struct samples *samples, int64_t value) {
    if (samples->size == samples->room) {
        samples->room = samples->room ? samples->room * 2 : 65536;
        samples->at = realloc(samples->at, samples->room * sizeof *samples->at);
    }
    samples->at[samples->size++] = value;
}

static int order(const void *a, const void *b) {
    int64_t one = *(const int64_t *)a, other = *(const int64_t *)b;
    return (one > other) - (one < other);
}

static double at(struct samples *samples, double share) {
    return samples->size ? samples->at[(size_t)(share * (samples->size - 1))] / 1000.0 : -1;
}

static void fail(const char *what, const char *more, int size) {
    errors++;
    if (*trouble) return;
    int length = snprintf(trouble, sizeof trouble, "%s %.*s", what, size > 100 ? 100 : size, more);
    for (int n = 0; n < length && n < (int)sizeof trouble; n++)
        if (trouble[n] < ' ' || trouble[n] > '~' || trouble[n] == '"' || trouble[n] == '\\') trouble[n] = ' ';
}

static void hang_up(struct line *line) {
    if (line->fd >= 0) close(line->fd);
    line->fd = -1;
    if (line->asking) asking--;
    line->asking = 0;
}

static int dial(struct line *line) {
    int on = 1;
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    place.sin_port = htons(port);
    line->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(line->fd, (struct sockaddr *)&place, sizeof place)) {
        fail("connect:", strerror(errno), 100);
        hang_up(line);
        return 0;
    }
    setsockopt(line->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event wish = {.events = EPOLLIN, .data.ptr = line};
    epoll_ctl(poller, EPOLL_CTL_ADD, line->fd, &wish);
    return 1;
}

static void ask(struct line *line) {
    if (line->fd < 0) {
        if (!dial(line)) return;
        reconnects++;
    }
    line->size = line->seen = line->last = line->usage = line->done = line->rest = 0;
    line->state = HEAD;
    line->asking = 1;
    asking++;
    line->asked = now();
    if (send(line->fd, request, request_size, MSG_NOSIGNAL) != request_size) {
        fail("send:", strerror(errno), 100);
        hang_up(line);
    }
}

/* One line of an event stream. */
static void read_event(struct line *line, int64_t at) {
    if (strncmp(line->text, "data: ", 6)) return;
    char *sent = strstr(line->text, "\"@");
    if (sent) {
        if (!line->seen++) keep(&waits, at - line->asked);
        keep(&delays, at - atoll(sent + 2));
        events++;
    }
    if (strstr(line->text, "\"usage\":{") || strstr(line->text, "\"usage\": {")) line->usage = 1;
    if (!strncmp(line->text + 6, "[DONE]", 6)) line->done = 1;
}

static void read_payload(struct line *line, const char *data, int size, int64_t at) {
    if (!streaming) {
        int from = line->rest < 6 ? 0 : line->rest - 6, some = size < ROOM - line->rest ? size : ROOM - line->rest;
        memcpy(line->text + line->rest, data, some);
        line->rest += some;
        if (memmem(line->text + from, line->rest - from, "\"usage\"", 7)) line->usage = 1;
        return;
    }
    for (int n = 0; n < size; n++) {
        if (data[n] == '\n') {
            line->text[line->rest] = 0;
            read_event(line, at);
            line->rest = 0;
        } else if (line->rest < ROOM - 1) line->text[line->rest++] = data[n];
    }
}

/* The length of a head that is whole, with what it says of the body in `line`; else 0. */
static int read_head(struct line *line) {
    char *end = memmem(line->held, line->size, "\r\n\r\n", 4);
    if (!end) return 0;
    *end = 0; /* until its fields are read */
    line->status = line->size > 12 ? atoi(line->held + 9) : 0;
    line->last = strcasestr(line->held, "\r\nconnection: close") != NULL;
    char *length = strcasestr(line->held, "\r\ncontent-length:");
    line->state = strcasestr(line->held, "\r\ntransfer-encoding: chunked") ? CHUNK : length ? LENGTH : CLOSED;
    line->left = length ? atol(length + 17) : 0;
    *end = '\r';
    return (int)(end - line->held) + 4;
}

/* Read on from the bytes held: how many were used; -1 once the answer is whole. */
static int advance(struct line *line, char *from, int size, int64_t at) {
    int used;
    char *end;
    switch (line->state) {
    case HEAD:
        used = read_head(line);
        return used && line->state == LENGTH && !line->left ? -1 : used;
    case LENGTH:
    case DATA:
    case CLOSED:
        used = line->state == CLOSED || size < line->left ? size : (int)line->left;
        read_payload(line, from, used, at);
        line->left -= used;
        if (line->left || line->state == CLOSED) return used;
        if (line->state == LENGTH) return -1;
        if (size < used + 2) { /* the line's end after a chunk is still to come */
            line->state = TRAILER;
            line->left = 1;
            return used;
        }
        line->state = CHUNK;
        return used + 2;
    case CHUNK:
        end = memmem(from, size, "\r\n", 2);
        if (!end) return 0;
        line->left = strtol(from, NULL, 16);
        line->state = line->left ? DATA : TRAILER;
        return (int)(end - from) + 2;
    case TRAILER:
        end = memmem(from, size, "\r\n", 2);
        if (!end) return 0;
        if (line->left) { /* it was the end of a chunk */
            line->state = CHUNK;
            line->left = 0;
            return 2;
        }
        return end == from ? -1 : (int)(end - from) + 2;
    }
    return 0;
}

static void finish(struct line *line, int64_t at) {
    int good = line->status == 200 && line->usage;
    if (streaming) good = good && line->done && line->seen == events_wanted;
    if (!good) {
        char what[80];
        snprintf(what, sizeof what, "status %d, %d events, usage %d:", line->status, line->seen, line->usage);
        char *body = memmem(line->held, line->size, "\r\n\r\n", 4);
        fail(what, body ? body : line->held, line->size - (body ? (int)(body - line->held) : 0));
    } else {
        answered++;
        latest = at;
        if (!streaming) keep(&waits, at - line->asked);
    }
    line->asking = 0;
    asking--;
    if (line->last) hang_up(line);
    if (at < ends && errors < TOO_MANY) ask(line);
}

static void hear(struct line *line) {
    int got = recv(line->fd, line->held + line->size, ROOM - line->size, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    int64_t at = now();
    if (got <= 0) {
        int waiting = line->asking;
        if (waiting && line->state == CLOSED && got == 0) {
            line->last = 1;
            finish(line, at);
            return;
        }
        if (waiting) fail("closed before its answer was whole", "", 0);
        hang_up(line);
        if (waiting && at < ends && errors < TOO_MANY) ask(line);
        return;
    }
    line->size += got;
    int done = 0;
    while (done < line->size) {
        int used = advance(line, line->held + done, line->size - done, at);
        if (used < 0) {
            finish(line, at);
            return;
        }
        if (!used) break;
        done += used;
    }
    memmove(line->held, line->held + done, line->size - done);
    line->size -= done;
}

static void prepare_request(const char *path, const char *key) {
    char body[1024];
    int size = snprintf(body, sizeof body,
        "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a short story about a lighthouse "
        "keeper, please.\"}],\"temperature\":0.7,\"max_tokens\":%d%s}", streaming ? events_wanted : 64,
        streaming ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "");
    request_size = snprintf(request, sizeof request,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\nUser-Agent: OpenAI/Python 2.0.0\r\n"
        "Accept-Encoding: identity\r\nX-Stainless-Lang: python\r\n"
        "Accept: application/json\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
        path, port, key, size, body);
}

static void tell(double seconds) {
    qsort(waits.at, waits.size, sizeof *waits.at, order);
    qsort(delays.at, delays.size, sizeof *delays.at, order);
    printf("{\"answered\":%ld,\"events\":%ld,\"seconds\":%.4f,\"errors\":%ld,\"reconnects\":%ld,"
           "\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,"
           "\"delay_p50_us\":%.1f,\"delay_p99_us\":%.1f,\"request_bytes\":%d,\"trouble\":\"%s\"}\n",
           answered, events, seconds, errors, reconnects, at(&waits, 0.5), at(&waits, 0.9),
           at(&waits, 0.99), at(&waits, 1), at(&delays, 0.5), at(&delays, 0.99), request_size, trouble);
}

/* Begin those whose time has come; milliseconds until the next one's, or until nothing can come any more. */
static int begin(int64_t at, int *begun) {
    while (*begun < connections && lines[*begun].begins <= at) ask(&lines[(*begun)++]);
    int64_t next = *begun < connections ? lines[*begun].begins : ends > at ? ends : at + 100000000;
    int64_t wait = (next - at) / 1000000;
    return wait > 100 ? 100 : wait < 1 ? 1 : (int)wait;
}

int main(int count, char **words) {
    if (count != 9) return 2;
    port = atoi(words[1]);
    streaming = !strcmp(words[2], "stream");
    connections = atoi(words[3]);
    events_wanted = atoi(words[5]);
    if (connections > MOST) return 2;
    prepare_request(words[7], words[8]);
    poller = epoll_create1(0);
    lines = calloc(connections, sizeof *lines);
    int64_t start = now(), length = streaming ? atoll(words[6]) * 1000 * events_wanted : 0;
    ends = start + (int64_t)(atof(words[4]) * 1e9);
    for (int n = 0; n < connections; n++) {
        lines[n].fd = -1;
        lines[n].begins = start + length * n / connections;
        if (!dial(&lines[n])) {
            tell(0);
            return 0;
        }
    }
    struct epoll_event ready[READY];
    int begun = 0;
    for (;;) {
        int64_t at = now();
        if (at >= ends && !asking && begun == connections) break;
        if (errors >= TOO_MANY || at > ends + GRACE * 1000000000LL) break;
        int wait = begin(at, &begun), many = epoll_wait(poller, ready, READY, wait);
        for (int n = 0; n < many; n++) hear(ready[n].data.ptr);
    }
    if (asking && errors < TOO_MANY) fail("no whole answer within a minute", "", 0);
    tell(latest ? (latest - start) / 1e9 : 0);
    return 0;
}
