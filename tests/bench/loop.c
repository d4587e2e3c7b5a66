/* The bare server: what a read costs when nothing is done but the reading and writing of sockets.
 *
 * One thread, epoll, the whole disk in memory. It answers a login, TEST UNIT READY and READ(10), believes all that it
 * is sent, and knows no errors: a floor to measure a real target against, not a target. All answers to the commands
 * that one read() brought leave in one writev(), as a careful server would do it.
 *
 *     loop FILE      prints the port of 127.0.0.1 that it listens on
 */
#define _GNU_SOURCE
#include "iscsi.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CHUNK = 65536, WINDOW = 128, VECTORS = 2 * WINDOW };

struct connection {
    int fd;
    uint32_t statsn, have;
    uint8_t in[CHUNK];
    uint8_t headers[WINDOW][BHS + 128]; /* of the answers in `out` */
    struct iovec out[VECTORS];
    int header_count, first, count;     /* out[first..count] is to be sent */
    int waiting;                        /* for EPOLLOUT */
};

static int epoll_fd;
static uint8_t *disk;

static uint8_t *answer(struct connection *c, const uint8_t *request, uint8_t opcode, uint8_t flags)
{
    uint8_t *header = c->headers[c->header_count++];
    uint32_t cmdsn = get32(request + 24) + !(request[0] & IMMEDIATE);
    memset(header, 0, BHS);
    header[0] = opcode;
    header[1] = flags;
    memcpy(header + 16, request + 16, 4);
    put32(header + 24, c->statsn++);
    put32(header + 28, cmdsn);
    put32(header + 32, cmdsn + WINDOW - 1);
    c->out[c->count++] = (struct iovec){header, BHS};
    return header;
}

static void serve(struct connection *c, const uint8_t *request)
{
    static const char keys[] = "TargetPortalGroupTag=1\0MaxRecvDataSegmentLength=262144\0";
    uint8_t *header;
    switch (request[0] & 0x3f) {
    case LOGIN_REQUEST:
        header = answer(c, request, LOGIN_RESPONSE, FINAL | 1 << 2 | 3);
        memcpy(header + 8, request + 8, 6);
        header[15] = 1;
        put_length(header, sizeof keys - 1);
        memcpy(header + BHS, keys, sizeof keys - 1);
        c->out[c->count - 1].iov_len += padded(sizeof keys - 1);
        return;
    case SCSI_COMMAND:
        if (request[32] == READ_10) {
            uint32_t length = get32(request + 20);
            header = answer(c, request, DATA_IN, FINAL | STATUS_FLAG);
            put_length(header, length);
            put32(header + 20, NO_TAG);
            c->out[c->count++] = (struct iovec){disk + (uint64_t)get32(request + 34) * SECTOR, length};
        } else {
            answer(c, request, SCSI_RESPONSE, FINAL);
        }
        return;
    default:
        die("opcode 0x%02x is not served", request[0]);
    }
}

static void flush(struct connection *c)
{
    while (c->first < c->count) {
        ssize_t sent = writev(c->fd, c->out + c->first, c->count - c->first);
        if (sent < 0 && errno != EAGAIN) c->first = c->count; /* gone: the next read() says so */
        if (sent < 0) break;
        while (c->first < c->count && (size_t)sent >= c->out[c->first].iov_len) sent -= c->out[c->first++].iov_len;
        if (c->first < c->count) {
            c->out[c->first].iov_base = (uint8_t *)c->out[c->first].iov_base + sent;
            c->out[c->first].iov_len -= sent;
        }
    }
    if (c->first == c->count) c->first = c->count = c->header_count = 0;
    if (c->waiting != (c->count > 0)) {
        c->waiting = c->count > 0;
        struct epoll_event event = {.events = c->waiting ? EPOLLOUT : EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
    }
}

static void take(struct connection *c)
{
    uint32_t at = 0;
    while (c->have - at >= BHS) {
        uint32_t whole = BHS + padded(get_length(c->in + at));
        if (c->have - at < whole || c->header_count == WINDOW) break;
        serve(c, c->in + at);
        at += whole;
    }
    memmove(c->in, c->in + at, c->have - at);
    c->have -= at;
    flush(c);
}

static void ready(struct connection *c)
{
    if (c->waiting) {
        flush(c);
        if (!c->waiting) take(c);
        return;
    }
    ssize_t got = read(c->fd, c->in + c->have, CHUNK - c->have);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        close(c->fd);
        free(c);
        return;
    }
    c->have += got;
    take(c);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    struct epoll_event events[256], listening = {.events = EPOLLIN, .data.ptr = NULL};
    struct stat state;
    int one = 1, file, listener;

    if (argc != 2 || (file = open(argv[1], O_RDONLY)) < 0 || fstat(file, &state) < 0) die("usage: loop FILE");
    disk = malloc(state.st_size);
    for (off_t have = 0; have < state.st_size;) {
        ssize_t got = pread(file, disk + have, state.st_size - have, have);
        if (got <= 0) die("%s cannot be read", argv[1]);
        have += got;
    }
    signal(SIGPIPE, SIG_IGN);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) die("cannot listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    epoll_fd = epoll_create1(0);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &listening);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr) {
                ready(events[i].data.ptr);
                continue;
            }
            int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0) continue;
            struct connection *c = calloc(1, sizeof *c);
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
            c->fd = fd;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
        }
    }
}
