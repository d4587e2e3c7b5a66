/* The load client: iSCSI sessions that keep commands outstanding, on one thread, as cheaply as a client can be.
 *
 * It serves every target alike, so that what differs between two measurements is the target. The sessions come on
 * stdin, one a line: HOST PORT INITIATOR TARGET LUN. They log in one after the other, as a target may bound how many
 * do so at once, are told their unit attentions, and then all begin together:
 *
 *     rand, seq   READ(10) or WRITE(10) of SIZE bytes within the first REGION bytes, DEPTH at a time per session, for
 *                 WARM seconds that do not count and SECONDS that do
 *     trace       each session reads what FILE says ("OFFSET LENGTH" a line) in that order, once
 *     deaf        READ(10) as for rand, DEPTH of them once, and no answer is taken for SECONDS
 *     idle        nothing: "ready" is printed, and the sessions are held until stdin ends
 *
 * Every sector of the disk holds its own number in its first 8 bytes (big-endian), on the disk and in what is written
 * here, and the first sector of every answer is looked at: an answer that is quick and wrong ends the measurement.
 *
 * The last line on stdout is JSON: operations, seconds, latencies in µs, CPU seconds of this process and of the
 * target's (PID; all its threads, by its CPU clock) while it counted, and seconds that each could have run but another
 * process did.
 */
#define _GNU_SOURCE
#include "iscsi.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SESSIONS_LIMIT = 4096, DEPTH_LIMIT = 64, CHUNK = 1 << 20, IMMEDIATE_LIMIT = 8192 };
enum { SHIFT = 6, BUCKETS = (64 - SHIFT) << SHIFT }; /* of the histogram: 64 per power of two, so within 1.6 % */

enum mode { RAND, SEQ, TRACE, DEAF, IDLE };

struct read_of_trace { uint64_t offset; uint32_t length; };

struct session {
    int fd;
    uint64_t lun;
    uint32_t cmdsn, expstatsn;
    uint64_t position;          /* seq: next offset; trace: next line */
    int open;                   /* commands outstanding */
    uint64_t began[DEPTH_LIMIT], lba[DEPTH_LIMIT];
    uint32_t left[DEPTH_LIMIT]; /* bytes of data that are to come */
    int free_slots[DEPTH_LIMIT], free_count;
    uint8_t head[BHS + 8];      /* header and first bytes of the data of the PDU that is coming */
    uint32_t have, want, skip;
    uint8_t *out;
    size_t out_have, out_sent;
    int waiting;                /* for EPOLLOUT */
    int done;                   /* trace: all is read */
};

static struct session *sessions;
static int session_count, epoll_fd, depth = 1, writing;
static enum mode mode = RAND;
static uint32_t size = 4096;
static uint64_t region = 64 << 20, ops, histogram[BUCKETS], longest, random_state = 88172645463325252u;
static double warm, seconds = 1;
static struct read_of_trace *trace;
static size_t trace_count;
static int counting, stopping, alive;
static uint8_t *payload;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static double delayed(int pid) /* seconds that a process' main thread was ready to run and another one ran */
{
    char path[64];
    unsigned long long ran = 0, waited = 0;
    snprintf(path, sizeof path, "/proc/%d/schedstat", pid);
    FILE *file = fopen(path, "r");
    if (file && fscanf(file, "%llu %llu", &ran, &waited) != 2) waited = 0;
    if (file) fclose(file);
    return waited / 1e9;
}

static void go_ahead(void) /* of other load clients on this core, as far as we are allowed to */
{
    FILE *file = fopen("/proc/self/autogroup", "w"); /* among sessions, a process' own priority counts for nothing */
    if (file) {
        fputs("-20", file);
        fclose(file);
    }
    setpriority(PRIO_PROCESS, 0, -20);
}

static uint64_t random_next(void) /* xorshift64 (Marsaglia) */
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static void note(uint64_t ns)
{
    int bucket = (int)ns;
    if (ns >> (SHIFT + 1)) {
        int power = 63 - __builtin_clzll(ns) - SHIFT;
        bucket = (power << SHIFT) + (int)(ns >> power);
    }
    histogram[bucket]++;
    ops++;
    if (ns > longest) longest = ns;
}

static double percentile(double share) /* µs */
{
    uint64_t sum = 0, due = (uint64_t)(ops * share);
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        sum += histogram[bucket];
        if (sum > due) {
            if (!(bucket >> (SHIFT + 1))) return bucket / 1e3;
            int power = (bucket >> SHIFT) - 1;
            return (double)((uint64_t)((bucket & ((1 << SHIFT) - 1)) | 1 << SHIFT) << power) / 1e3;
        }
    }
    return longest / 1e3;
}

/* Login: blocking, one session after the other. */

static void exactly(int fd, void *buffer, size_t length)
{
    for (size_t have = 0; have < length;) {
        ssize_t got = read(fd, (uint8_t *)buffer + have, length - have);
        if (got <= 0) die("the target closed the connection during the login");
        have += got;
    }
}

static uint32_t answer(int fd, uint8_t *header, uint8_t *data, size_t limit)
{
    exactly(fd, header, BHS);
    uint32_t length = padded(get_length(header));
    if (length > limit) die("an answer of %u bytes during the login", length);
    exactly(fd, data, length);
    return length;
}

static void send_all(int fd, const void *data, size_t length)
{
    if (write(fd, data, length) != (ssize_t)length) die("the target took no request: %s", strerror(errno));
}

static void command(uint8_t *pdu, struct session *s, uint8_t flags, uint32_t tag, uint32_t length)
{
    memset(pdu, 0, BHS);
    pdu[0] = SCSI_COMMAND;
    pdu[1] = FINAL | flags | 1; /* simple task */
    put64(pdu + 8, s->lun << 48);
    put32(pdu + 16, tag);
    put32(pdu + 20, length);
    put32(pdu + 24, s->cmdsn++);
    put32(pdu + 28, s->expstatsn);
}

static void log_in(struct session *s, int number, const char *host, int port, const char *initiator, const char *target)
{
    static uint8_t data[65536];
    uint8_t request[BHS + 2048] = {LOGIN_REQUEST | IMMEDIATE, FINAL | 1 << 2 | 3}, header[BHS];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    char *text = (char *)request + BHS;
    size_t length = 0;
    const char *keys[] = {
        "SessionType=Normal", "HeaderDigest=None", "DataDigest=None", "InitialR2T=No", "ImmediateData=Yes",
        "MaxBurstLength=16776192", "FirstBurstLength=65536", "MaxRecvDataSegmentLength=262144", "MaxOutstandingR2T=1",
        "MaxConnections=1", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes", "ErrorRecoveryLevel=0",
        "DefaultTime2Wait=2", "DefaultTime2Retain=0"};

    inet_pton(AF_INET, host, &address.sin_addr);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(s->fd, (struct sockaddr *)&address, sizeof address) < 0) die("%s:%d: %s", host, port, strerror(errno));
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    length += sprintf(text + length, "InitiatorName=%s", initiator) + 1;
    length += sprintf(text + length, "TargetName=%s", target) + 1;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) length += sprintf(text + length, "%s", keys[i]) + 1;
    put_length(request, length);
    memcpy(request + 8, "\x00\x02\x3d", 3); /* an ISID of its own for each session */
    put32(request + 10, number + 1);
    s->cmdsn = 1;
    put32(request + 24, s->cmdsn);
    send_all(s->fd, request, BHS + padded(length));
    answer(s->fd, header, data, sizeof data);
    if ((header[0] & 0x3f) != LOGIN_RESPONSE || header[36] || header[37] || (header[1] & 0x83) != 0x83)
        die("login refused: status %02x%02x", header[36], header[37]);
    s->expstatsn = get32(header + 24) + 1;
    for (int tries = 0;; tries++) { /* unit attentions */
        if (tries == 8) die("the logical unit does not become ready");
        command(request, s, 0, 0, 0);
        send_all(s->fd, request, BHS);
        answer(s->fd, header, data, sizeof data);
        s->expstatsn = get32(header + 24) + 1;
        if ((header[0] & 0x3f) == SCSI_RESPONSE && header[3] == 0) break;
    }
    fcntl(s->fd, F_SETFL, O_NONBLOCK);
    s->want = BHS;
    s->out = malloc((size_t)DEPTH_LIMIT * (BHS + (writing ? size : 0)));
    for (int slot = 0; slot < DEPTH_LIMIT; slot++) s->free_slots[s->free_count++] = slot;
}

/* Load */

static int next_range(struct session *s, uint64_t *offset, uint32_t *length)
{
    if (mode == TRACE) {
        if (s->position == trace_count) return 0;
        *offset = trace[s->position].offset;
        *length = trace[s->position++].length;
        return 1;
    }
    *length = size;
    if (mode == SEQ) {
        *offset = s->position;
        s->position = s->position + 2 * size > region ? 0 : s->position + size;
    } else {
        *offset = random_next() % (region / size) * size;
    }
    return 1;
}

static void issue(struct session *s)
{
    uint64_t now = clock_ns(CLOCK_MONOTONIC), offset;
    uint32_t length;
    if (s->out_sent == s->out_have) s->out_sent = s->out_have = 0;
    while (!stopping && s->open < depth && s->out_sent == 0 && next_range(s, &offset, &length)) {
        int slot = s->free_slots[--s->free_count];
        uint8_t *pdu = s->out + s->out_have;
        command(pdu, s, writing ? WRITE_FLAG : READ_FLAG, slot, length);
        pdu[32] = writing ? WRITE_10 : READ_10;
        put32(pdu + 34, offset / SECTOR);
        pdu[39] = length / SECTOR >> 8;
        pdu[40] = length / SECTOR;
        s->out_have += BHS;
        if (writing) {
            put_length(pdu, length);
            memcpy(pdu + BHS, payload, length);
            for (uint32_t at = 0; at < length; at += SECTOR) put64(pdu + BHS + at, (offset + at) / SECTOR);
            s->out_have += length;
        }
        s->began[slot] = now;
        s->lba[slot] = offset / SECTOR;
        s->left[slot] = writing ? 0 : length;
        s->open++;
    }
    while (s->out_sent < s->out_have) {
        ssize_t sent = write(s->fd, s->out + s->out_sent, s->out_have - s->out_sent);
        if (sent < 0 && errno != EAGAIN) die("the connection broke: %s", strerror(errno));
        if (sent < 0) break;
        s->out_sent += sent;
    }
    int waiting = s->out_sent < s->out_have;
    if (waiting != s->waiting) {
        struct epoll_event event = {.events = EPOLLIN | (waiting ? EPOLLOUT : 0), .data.ptr = s};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, s->fd, &event);
        s->waiting = waiting;
    }
    if (mode == TRACE && s->open == 0 && s->position == trace_count && !s->done) {
        s->done = 1;
        alive--;
    }
}

static void answered(struct session *s, uint64_t now)
{
    const uint8_t *header = s->head;
    uint32_t slot = get32(header + 16), length = get_length(header);
    uint8_t opcode = header[0] & 0x3f;
    if (opcode == NOP_IN && slot == NO_TAG) { /* a ping: answer it, or the target hangs up */
        uint8_t pong[BHS] = {NOP_OUT | IMMEDIATE, FINAL};
        memcpy(pong + 8, header + 8, 8);
        put32(pong + 16, NO_TAG);
        memcpy(pong + 20, header + 20, 4);
        put32(pong + 24, s->cmdsn);
        put32(pong + 28, s->expstatsn);
        if (s->out_sent == s->out_have) send_all(s->fd, pong, BHS);
        return;
    }
    if (slot >= DEPTH_LIMIT || !s->began[slot]) die("an answer to a command that is not outstanding");
    if (opcode == DATA_IN) {
        if (length > s->left[slot]) die("more data than was asked for");
        if (get32(header + 40) % SECTOR == 0 && get64(s->head + BHS) != s->lba[slot] + get32(header + 40) / SECTOR)
            die("wrong data: sector %llu says that it is %llu",
                (unsigned long long)s->lba[slot] + get32(header + 40) / SECTOR,
                (unsigned long long)get64(s->head + BHS));
        s->left[slot] -= length;
        if (!(header[1] & STATUS_FLAG)) return;
    } else if (opcode != SCSI_RESPONSE || header[2] || header[3]) {
        die("opcode 0x%02x, status 0x%02x", opcode, header[3]);
    }
    if (s->left[slot]) die("less data than was asked for");
    s->expstatsn = get32(header + 24) + 1;
    if (counting) note(now - s->began[slot]);
    s->began[slot] = 0;
    s->free_slots[s->free_count++] = slot;
    s->open--;
}

static void arrived(struct session *s)
{
    static uint8_t chunk[CHUNK];
    ssize_t got = read(s->fd, chunk, sizeof chunk);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("the target closed the connection");
    uint64_t now = clock_ns(CLOCK_MONOTONIC);
    for (const uint8_t *at = chunk, *end = chunk + got; at < end;) {
        size_t part = end - at;
        if (s->skip) {
            if (part > s->skip) part = s->skip;
            s->skip -= part;
            at += part;
            continue;
        }
        if (part > s->want - s->have) part = s->want - s->have;
        memcpy(s->head + s->have, at, part);
        s->have += part;
        at += part;
        if (s->have < s->want) break;
        uint32_t length = padded(get_length(s->head));
        if (s->want == BHS && length >= 8) {
            s->want += 8;
            continue;
        }
        s->skip = length - (s->want - BHS);
        s->have = 0;
        s->want = BHS;
        answered(s, now);
    }
    issue(s);
}

static void run_for(double duration)
{
    uint64_t until = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(duration * 1e9);
    struct epoll_event events[256];
    while (clock_ns(CLOCK_MONOTONIC) < until && !(mode == TRACE && !alive) && mode != DEAF) {
        int count = epoll_wait(epoll_fd, events, 256, 100);
        for (int i = 0; i < count; i++) {
            if (events[i].events & EPOLLOUT) issue(events[i].data.ptr);
            if (events[i].events & ~EPOLLOUT) arrived(events[i].data.ptr);
        }
    }
}

static void load_trace(const char *path)
{
    FILE *file = fopen(path, "r");
    unsigned long long offset;
    unsigned length;
    if (!file) die("%s: %s", path, strerror(errno));
    while (fscanf(file, "%llu %u", &offset, &length) == 2) {
        trace = realloc(trace, (trace_count + 1) * sizeof *trace);
        trace[trace_count++] = (struct read_of_trace){offset, length};
    }
    fclose(file);
}

int main(int argc, char **argv)
{
    char host[64], initiator[256], target[256];
    int port, pid = 0;
    unsigned long long lun;
    static const char *modes[] = {"rand", "seq", "trace", "deaf", "idle"};
    clockid_t target_clock = 0;

    for (int option; (option = getopt(argc, argv, "m:s:d:r:t:u:p:f:wa")) != -1;) switch (option) {
        case 'm':
            for (mode = RAND; mode <= IDLE && strcmp(optarg, modes[mode]); mode++);
            break;
        case 's': size = atoi(optarg); break;
        case 'd': depth = atoi(optarg); break;
        case 'r': region = strtoull(optarg, NULL, 10); break;
        case 't': seconds = atof(optarg); break;
        case 'u': warm = atof(optarg); break;
        case 'p': pid = atoi(optarg); break;
        case 'f': load_trace(optarg); break;
        case 'w': writing = 1; break;
        case 'a': go_ahead(); break;
        default: die("usage: load -m rand|seq|trace|deaf|idle -s SIZE -d DEPTH -r REGION -t SECONDS -u WARM -p PID [-f FILE] [-w] [-a]");
        }
    if (mode > IDLE || depth < 1 || depth > DEPTH_LIMIT || size % SECTOR || (writing && size > IMMEDIATE_LIMIT))
        die("mode, depth or size is out of range");
    random_state ^= (uint64_t)getpid() << 32;
    payload = malloc(size);
    for (uint32_t i = 0; i < size; i++) payload[i] = random_next();
    sessions = calloc(SESSIONS_LIMIT, sizeof *sessions);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    while (scanf("%63s %d %255s %255s %llu", host, &port, initiator, target, &lun) == 5) {
        struct session *s = &sessions[session_count];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
        if (session_count == SESSIONS_LIMIT) die("more than %d sessions", SESSIONS_LIMIT);
        s->lun = lun;
        log_in(s, session_count++, host, port, initiator, target);
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &event);
        if (mode == IDLE) { printf("ready\n"); fflush(stdout); }
    }
    if (mode == IDLE) return 0;
    if (mode == DEAF) {
        for (int i = 0; i < session_count; i++) issue(&sessions[i]);
        usleep(seconds * 1e6);
    }
    if (pid && clock_getcpuclockid(pid, &target_clock)) die("process %d has no CPU clock", pid);
    for (int i = 0; i < session_count; i++)
        if (mode == SEQ) sessions[i].position = region / size * i / session_count * size;
    alive = session_count;
    counting = mode == TRACE || mode == DEAF || warm == 0;
    for (int i = 0; i < session_count && !counting; i++) issue(&sessions[i]);
    if (!counting) run_for(warm);
    int was_counting = counting;
    counting = 1;
    uint64_t began = clock_ns(CLOCK_MONOTONIC), own = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t theirs = pid ? clock_ns(target_clock) : 0;
    double own_delay = delayed(getpid()), their_delay = delayed(pid);
    for (int i = 0; i < session_count && was_counting && mode != DEAF; i++) issue(&sessions[i]);
    run_for(seconds);
    uint64_t ended = clock_ns(CLOCK_MONOTONIC);
    own = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
    theirs = pid ? clock_ns(target_clock) - theirs : 0;
    if (mode == TRACE && alive) die("%d sessions have not come to the end of the trace in %.0f s", alive, seconds);
    printf("{\"ops\": %llu, \"seconds\": %.6f, \"client_cpu\": %.6f, \"server_cpu\": %.6f, "
           "\"client_delay\": %.6f, \"server_delay\": %.6f, \"p50\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"longest\": %.1f}\n",
           (unsigned long long)ops, (ended - began) / 1e9, own / 1e9, theirs / 1e9,
           delayed(getpid()) - own_delay, delayed(pid) - their_delay, percentile(0.5), percentile(0.99),
           percentile(0.999), longest / 1e3);
    return 0;
}
