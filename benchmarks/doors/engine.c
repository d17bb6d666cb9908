/* A mock engine that costs next to nothing: `engine INTERVAL_US`, then its port as the first line of output.
 *
 * POST answers an OpenAI-shaped chat completion of about 700 bytes, at once. With `"stream": true` it answers
 * `max_tokens` events, the first at once and one more every INTERVAL_US after; usage and [DONE] ride with the
 * last. Each event's text is the clock's nanoseconds at which it was sent, so that a reader on this machine knows
 * how long it was under way. GET answers 200 for whoever checks health. It ends when its input is closed.
 *
 * With `"flood":N` it streams about N MB of events, as fast as they are taken and no faster; with `"silent":true` it
 * never answers. GET /seen tells how many answers are unfinished, how many whoever asked hung up on and when it
 * heard of the last (the clock's nanoseconds), and how many bytes of floods were taken.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 8192, ROOM = 65536, EVENTS = 256, RING = 16384, BLOCKS = 16, AT_ONCE = 4 }; /* BLOCKS in a MB */

struct line {
    char *held;          /* bytes of requests that were not answered yet */
    int size;
    int left;            /* events of a stream that are still to come */
    unsigned generation; /* the number is given again to another connection */
    int closing;
    int silent;
    int blocks, offset;  /* of a flood: how many are still to come, and what was sent of the next */
};

struct due {
    int64_t at;
    int fd;
    unsigned generation;
};

static struct line lines[MOST];
static struct due ring[RING]; /* all wait equally long, so the order of arrival is the order of what is due */
static unsigned head, tail;
static int poller, timer;
static int64_t interval;
static char answer[2048], block[ROOM], last[1024];
static int answer_size, block_size, last_size;
static const char stream_head[] = "HTTP/1.1 200 OK\r\nServer: mock\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    "Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
static long hung_up;
static int64_t hung_up_at, flooded;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int busy(struct line *line) {
    return line->left || line->blocks || line->silent;
}

static void let_go(int fd) {
    struct line *line = &lines[fd];
    if (busy(line)) {
        hung_up++;
        hung_up_at = now();
    }
    line->generation++;
    line->left = line->size = line->closing = line->silent = line->blocks = line->offset = 0;
    close(fd);
}

static int put(int fd, const char *data, int size) {
    if (send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) == size) return 1;
    let_go(fd);
    return 0;
}

static void prepare_answer(void) {
    char body[1024];
    int size = snprintf(body, sizeof body,
        "{\"id\":\"chatcmpl-8f0d1c2b3a4958677685940312fe\",\"object\":\"chat.completion\",\"created\":1760000000,"
        "\"model\":\"tiny\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A lighthouse "
        "keeper counts the ships that pass and writes each name into a book. One night the light goes out, and a "
        "ship that had never been in the book finds the harbour all the same, because the keeper stood on the "
        "rocks and called. In the morning the keeper writes its name first, and under it those of all the boats that "
        "came home without a light, as far as anybody on the island can remember.\"},\"logprobs\":null,"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":31,\"completion_tokens\":64,\"total_tokens\":95}}");
    answer_size = snprintf(answer, sizeof answer,
        "HTTP/1.1 200 OK\r\nServer: mock\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
        "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", size, body);
}

static int event(char *into, const char *choices, const char *more) {
    char text[512];
    int size = snprintf(text, sizeof text,
        "data: {\"id\":\"chatcmpl-8f0d1c2b3a49\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,"
        "\"model\":\"tiny\",\"choices\":%s%s}\n\n", choices, more);
    return sprintf(into, "%x\r\n%s\r\n", size, text);
}

static int ending(char *into) {
    int size = event(into, "[]", ",\"usage\":{\"prompt_tokens\":31,\"completion_tokens\":64,\"total_tokens\":95}");
    return size + sprintf(into + size, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
}

static void prepare_flood(void) {
    while (block_size < ROOM - 1024)
        block_size += event(block + block_size,
            "[{\"index\":0,\"delta\":{\"content\":\"one more word of very many \"},\"finish_reason\":null}]", "");
    last_size = ending(last);
}

/* The next event of a stream; 0 when the connection is gone. */
static int step(int fd, int first) {
    char out[2048], choices[256];
    int size = 0;
    struct line *line = &lines[fd];
    if (first) size = sprintf(out, "%s", stream_head);
    line->left--;
    snprintf(choices, sizeof choices,
             "[{\"index\":0,\"delta\":{%s\"content\":\"@%lld \"},\"logprobs\":null,\"finish_reason\":%s}]",
             first ? "\"role\":\"assistant\"," : "", (long long)now(), line->left ? "null" : "\"stop\"");
    size += event(out + size, choices, "");
    if (!line->left) size += ending(out + size);
    return put(fd, out, size);
}

static void arm(void) {
    struct itimerspec when = {{0, 0}, {0, 0}};
    if (head != tail) {
        when.it_value.tv_sec = ring[head % RING].at / 1000000000;
        when.it_value.tv_nsec = ring[head % RING].at % 1000000000;
    }
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void queue(int fd, int64_t at) {
    ring[tail++ % RING] = (struct due){at, fd, lines[fd].generation};
    if (tail - head == 1) arm();
}

static void run_due(void) {
    uint64_t ticks;
    if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) exit(1);
    int64_t at = now();
    while (head != tail && ring[head % RING].at <= at) {
        struct due one = ring[head++ % RING];
        if (lines[one.fd].generation != one.generation || !lines[one.fd].left) continue;
        if (step(one.fd, 0) && lines[one.fd].left)
            ring[tail++ % RING] = (struct due){one.at + interval, one.fd, one.generation};
        else if (lines[one.fd].generation == one.generation && lines[one.fd].closing) let_go(one.fd);
    }
    arm();
}

static void wish(int fd, int what, int how) {
    struct epoll_event event = {.events = what, .data.fd = fd};
    epoll_ctl(poller, how, fd, &event);
}

/* As much of a flood as is taken, a few blocks at a time; 0 when the connection is gone. */
static int flow(int fd) {
    struct line *line = &lines[fd];
    for (int n = 0; n < AT_ONCE; n++) {
        const char *from = line->blocks > 1 ? block : last;
        int size = line->blocks > 1 ? block_size : last_size;
        int sent = send(fd, from + line->offset, size - line->offset, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) return 1;
        if (sent < 0) {
            let_go(fd);
            return 0;
        }
        flooded += sent;
        line->offset += sent;
        if (line->offset < size) continue;
        line->offset = 0;
        if (--line->blocks) continue;
        if (line->closing) {
            let_go(fd);
            return 0;
        }
        wish(fd, EPOLLIN, EPOLL_CTL_MOD);
        return 1;
    }
    return 1;
}

static int begin_flood(int fd, int megabytes) {
    if (!put(fd, stream_head, sizeof stream_head - 1)) return 0;
    lines[fd].blocks = megabytes * BLOCKS + 1; /* the ending is the last */
    wish(fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    return 1;
}

static int tell(int fd) {
    char body[256], out[512];
    int open = 0;
    for (int n = 0; n < MOST; n++) open += busy(&lines[n]);
    int size = snprintf(body, sizeof body, "{\"open\":%d,\"hung_up\":%ld,\"hung_up_at\":%lld,\"flooded\":%lld}", open,
                        hung_up, (long long)hung_up_at, (long long)flooded);
    size = snprintf(out, sizeof out,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", size, body);
    return put(fd, out, size);
}

/* Answer one request; the bytes end with a NUL. 0 when the connection is gone. */
static int reply(int fd, const char *request, const char *body, int close_after) {
    static const char well[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 69\r\n\r\n"
        "{\"object\":\"list\",\"data\":[{\"id\":\"tiny\",\"object\":\"model\",\"created\":1}]}";
    const char *found = strstr(body, "\"stream\""), *flood = strstr(body, "\"flood\":");
    lines[fd].closing = close_after;
    if (!strncmp(request, "GET /seen ", 10)) {
        if (!tell(fd)) return 0;
    } else if (strstr(body, "\"silent\":true")) {
        lines[fd].silent = 1;
        return 1;
    } else if (flood) {
        return begin_flood(fd, atoi(flood + 8));
    } else if (!strncmp(request, "GET ", 4)) {
        if (!put(fd, well, sizeof well - 1)) return 0;
    } else if (found && strstr(found, "true") && strstr(found, "true") - found < 13) {
        const char *count = strstr(body, "\"max_tokens\"");
        lines[fd].left = count ? atoi(strchr(count, ':') + 1) : 16;
        if (!step(fd, 1)) return 0;
        if (lines[fd].left) {
            queue(fd, now() + interval);
            return 1;
        }
    } else if (!put(fd, answer, answer_size)) return 0;
    if (!close_after) return 1;
    let_go(fd);
    return 0;
}

/* Where the request in `held` ends, and its body; 0 while it isn't whole. A chunked body is left as it came. */
static int whole(char *held, int size, char **body, int *close_after) {
    char *end = strstr(held, "\r\n\r\n");
    if (!end) return 0;
    *body = end + 4;
    int length = 0, chunked = 0;
    for (char *at = strstr(held, "\r\n"); at < end; at = strstr(at + 2, "\r\n")) {
        if (!strncasecmp(at + 2, "content-length:", 15)) length = atoi(at + 17);
        else if (!strncasecmp(at + 2, "transfer-encoding:", 18)) chunked = 1;
        else if (!strncasecmp(at + 2, "connection: close", 17)) *close_after = 1;
    }
    if (chunked) {
        char *last = strstr(end + 2, "\r\n0\r\n\r\n");
        return last ? (int)(last + 7 - held) : 0;
    }
    return size >= end + 4 - held + length ? (int)(end + 4 - held) + length : 0;
}

static void hear(int fd) {
    struct line *line = &lines[fd];
    int got = recv(fd, line->held + line->size, ROOM - 1 - line->size, MSG_DONTWAIT);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) let_go(fd);
        return;
    }
    line->size += got;
    line->held[line->size] = 0;
    for (;;) {
        char *body;
        int close_after = 0, used = whole(line->held, line->size, &body, &close_after);
        if (!used) {
            if (line->size == ROOM - 1) let_go(fd);
            return;
        }
        char kept = line->held[used];
        line->held[used] = 0;
        if (!reply(fd, line->held, body, close_after)) return;
        line->held[used] = kept;
        memmove(line->held, line->held + used, line->size - used + 1);
        line->size -= used;
        if (!line->size) return;
    }
}

static void welcome(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MOST) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (!lines[fd].held) lines[fd].held = malloc(ROOM);
        lines[fd].size = 0;
        wish(fd, EPOLLIN, EPOLL_CTL_ADD);
    }
}

int main(int count, char **words) {
    if (count != 2) return 2;
    interval = atoll(words[1]) * 1000;
    struct rlimit files = {MOST, MOST};
    setrlimit(RLIMIT_NOFILE, &files);
    prepare_answer();
    prepare_flood();
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof place;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&place, size) || listen(listener, 4096)) return 1;
    getsockname(listener, (struct sockaddr *)&place, &size);
    printf("%d\n", ntohs(place.sin_port));
    fflush(stdout);
    poller = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    wish(listener, EPOLLIN, EPOLL_CTL_ADD);
    wish(timer, EPOLLIN, EPOLL_CTL_ADD);
    wish(STDIN_FILENO, EPOLLIN, EPOLL_CTL_ADD);
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int n = 0; n < ready; n++) {
            int fd = events[n].data.fd;
            if (fd == STDIN_FILENO) return 0;
            if (fd == listener) welcome(listener);
            else if (fd == timer) run_due();
            else if (!(events[n].events & EPOLLOUT) || flow(fd)) hear(fd);
        }
    }
}
