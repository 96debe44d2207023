/* A closed-loop load generator for HTTP/1.1 and WebSocket on the loopback address; `load.py` builds
 * it, feeds it and reads its answer.
 *
 *     load PORT CLIENTS DEPTH WARMUP_S DURATION_S FRAME_BYTES < messages > latencies
 *
 * Each client keeps DEPTH messages in flight on a connection of its own and sends the next one on an
 * answer. Client i sends the messages i, i + CLIENTS, i + 2 CLIENTS, ... and begins again at the
 * end. A latency is from just before the write of a message to just after the read that brought the
 * last byte of its answer; every one in the measured time is kept. The warm-up begins when every
 * client has had an answer.
 *
 * FRAME_BYTES 0 means HTTP: an answer is a response with a Content-Length, good if its status is
 * 200. Otherwise the first CLIENTS messages are the opening handshakes of WebSockets, the others are
 * frames, masked already; the first frame of a server is its hello, and then each binary frame of
 * FRAME_BYTES is a good answer.
 *
 * Standard input: for each message its length as a native uint32, and its bytes.
 * Standard output: a line `seconds cpu_seconds answers failed all_answers`, then the measured
 * latencies as native uint64 nanoseconds. What is in flight at the end is waited for, so that
 * `all_answers` is exactly what the server has applied. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { MAX_DEPTH = 64, BUFFER_BYTES = 1 << 16, MAX_EVENTS = 256, GIVE_UP_S = 60 };

/* A server may accept one connection in a turn of its loop, so that those of a busy one would join
 * the load over seconds. While it is idle, this is time enough for all. */
enum { ACCEPT_US = 50000 };

enum phase { OPENING, GREETING, ANSWERING };

/* One connection. `sent_ns` is a ring of when its messages in flight were sent, oldest at `oldest`;
 * `unsent` are those of them that the socket has not taken yet. */
struct client {
    int socket;
    enum phase phase;
    uint32_t next_message, num_in_flight, oldest, num_unsent, num_answers;
    uint64_t sent_ns[MAX_DEPTH];
    struct iovec unsent[MAX_DEPTH];
    size_t num_received, body_left;
    int is_watching_writes;
    char received[BUFFER_BYTES];
};

static struct iovec *messages;
static uint32_t num_messages, num_clients, depth;
static size_t frame_bytes;
static struct client *clients;
static int poller, is_ending;
static uint64_t *latencies, begin_ns = UINT64_MAX, end_ns = UINT64_MAX;
static size_t num_latencies, max_latencies, num_failed, num_answers, num_in_flight;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double cpu_seconds(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           1e-6 * (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

static void read_messages(void) {
    uint32_t length, room = 0;
    while (fread(&length, sizeof length, 1, stdin) == 1) {
        if (num_messages == room) {
            room = room ? 2 * room : 1024;
            messages = realloc(messages, room * sizeof *messages);
        }
        char *bytes = malloc(length);
        if (!messages || !bytes || fread(bytes, 1, length, stdin) != length)
            fail("the messages end too early, or are too many");
        messages[num_messages++] = (struct iovec){bytes, length};
    }
    if (num_messages < num_clients * (frame_bytes ? 2 : 1)) fail("fewer messages than clients");
}

/* Have the poller tell when the socket takes more, or no longer. */
static void watch_writes(struct client *client, int is_wanted) {
    if (client->is_watching_writes == is_wanted) return;
    struct epoll_event event = {.events = EPOLLIN | (is_wanted ? EPOLLOUT : 0), .data.ptr = client};
    epoll_ctl(poller, EPOLL_CTL_MOD, client->socket, &event);
    client->is_watching_writes = is_wanted;
}

static void write_unsent(struct client *client) {
    ssize_t written = writev(client->socket, client->unsent, (int)client->num_unsent);
    if (written < 0 && errno != EAGAIN) fail("write: %s", strerror(errno));
    size_t left = written < 0 ? 0 : (size_t)written;
    uint32_t num_done = 0;
    while (num_done < client->num_unsent && left >= client->unsent[num_done].iov_len)
        left -= client->unsent[num_done++].iov_len;
    client->num_unsent -= num_done;
    memmove(client->unsent, client->unsent + num_done, client->num_unsent * sizeof(struct iovec));
    if (client->num_unsent) {
        client->unsent[0].iov_base = (char *)client->unsent[0].iov_base + left;
        client->unsent[0].iov_len -= left;
    }
    watch_writes(client, client->num_unsent > 0);
}

/* Fill the client's flight up to `depth` with its next messages. */
static void send_more(struct client *client, uint64_t sent_ns) {
    uint32_t first_message = frame_bytes ? num_clients : 0;
    while (client->num_in_flight < depth && !is_ending) {
        client->sent_ns[(client->oldest + client->num_in_flight++) % MAX_DEPTH] = sent_ns;
        client->unsent[client->num_unsent++] = messages[client->next_message];
        num_in_flight++;
        client->next_message += num_clients;
        if (client->next_message >= num_messages)
            client->next_message = first_message + (uint32_t)(client - clients);
    }
    if (client->num_unsent && !client->is_watching_writes) write_unsent(client);
}

static void note_answer(struct client *client, uint64_t received_ns, int is_good) {
    if (!client->num_in_flight) fail("an answer to nothing");
    if (received_ns >= begin_ns && received_ns < end_ns) {
        if (num_latencies == max_latencies) {
            max_latencies = max_latencies ? 2 * max_latencies : 1 << 20;
            latencies = realloc(latencies, max_latencies * sizeof *latencies);
            if (!latencies) fail("no memory for the latencies");
        }
        latencies[num_latencies++] = received_ns - client->sent_ns[client->oldest];
    }
    client->oldest = (client->oldest + 1) % MAX_DEPTH;
    client->num_in_flight--;
    client->num_answers++;
    num_in_flight--;
    num_answers++;
    num_failed += !is_good;
}

/* Take one HTTP response, or what has come of it, from `size` bytes; return how many were used. */
static size_t take_response(struct client *client, char *bytes, size_t size, uint64_t received_ns) {
    if (client->body_left) {
        size_t used = client->body_left < size ? client->body_left : size;
        client->body_left -= used;
        if (!client->body_left) note_answer(client, received_ns, 1);
        return used;
    }
    char *end = memmem(bytes, size, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t head = (size_t)(end + 4 - bytes);
    *end = 0; /* ends the search for the header */
    char *header = strcasestr(bytes, "\r\ncontent-length:");
    if (!header || strncmp(bytes, "HTTP/1.1 ", 9)) fail("no such answer is known: %s", bytes);
    if (strncmp(bytes + 9, "200", 3)) {
        if (!num_failed) fprintf(stderr, "the first failure: %.12s\n", bytes);
        num_failed++;
    }
    client->body_left = strtoul(header + 17, NULL, 10);
    if (!client->body_left) note_answer(client, received_ns, 1);
    return head;
}

/* Take one whole frame from `size` bytes; return how many were used, 0 if it has not all come. The
 * server's pings wait for longer than a run, and are left unanswered. */
static size_t take_frame(struct client *client, char *bytes, size_t size, uint64_t received_ns) {
    if (size < 2) return 0;
    size_t head = 2, length = bytes[1] & 127;
    if (length == 127) fail("a frame of over 64 kB");
    if (length == 126) {
        if (size < 4) return 0;
        head = 4;
        length = (size_t)(uint8_t)bytes[2] << 8 | (uint8_t)bytes[3];
    }
    if (size < head + length) return 0;
    int opcode = bytes[0] & 15;
    if (client->phase == GREETING && opcode == 1)
        client->phase = ANSWERING;
    else if (client->phase == ANSWERING && opcode == 2)
        note_answer(client, received_ns, length == frame_bytes);
    else if (opcode != 9)
        fail("an unexpected frame, opcode %d: %.*s", opcode, (int)length, bytes + head);
    return head + length;
}

/* Take the answer to an opening handshake; return how many bytes were used, 0 if it has not come. */
static size_t take_handshake(struct client *client, char *bytes, size_t size) {
    char *end = memmem(bytes, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (strncmp(bytes, "HTTP/1.1 101", 12)) fail("a handshake was refused: %.*s", (int)size, bytes);
    client->phase = GREETING;
    return (size_t)(end + 4 - bytes);
}

static void read_answers(struct client *client) {
    ssize_t got = read(client->socket, client->received + client->num_received,
                       BUFFER_BYTES - 1 - client->num_received);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) fail("the server closed a connection");
    uint64_t received_ns = now_ns();
    size_t size = client->num_received + (size_t)got, at = 0, used = 1;
    client->received[size] = 0;
    while (at < size && used) {
        char *bytes = client->received + at;
        used = client->phase == OPENING ? take_handshake(client, bytes, size - at)
               : frame_bytes            ? take_frame(client, bytes, size - at, received_ns)
                                        : take_response(client, bytes, size - at, received_ns);
        at += used;
    }
    client->num_received = size - at;
    memmove(client->received, client->received + at, client->num_received);
    if (client->num_received == BUFFER_BYTES - 1) fail("the head of an answer is too long");
    if (client->phase == ANSWERING) send_more(client, received_ns);
}

static void open_connection(struct client *client, uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    client->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(client->socket, (struct sockaddr *)&address, sizeof address))
        fail("connect: %s", strerror(errno));
    int is_on = 1;
    setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &is_on, sizeof is_on);
    uint32_t index = (uint32_t)(client - clients);
    client->next_message = index + (frame_bytes ? num_clients : 0);
    client->phase = frame_bytes ? OPENING : ANSWERING;
    if (frame_bytes &&
        write(client->socket, messages[index].iov_base, messages[index].iov_len) < 0)
        fail("write: %s", strerror(errno));
    fcntl(client->socket, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    epoll_ctl(poller, EPOLL_CTL_ADD, client->socket, &event);
}

static int have_all_been_answered(void) {
    for (uint32_t i = 0; i < num_clients; i++)
        if (!clients[i].num_answers) return 0;
    return 1;
}

/* Let every client do what its socket is ready for. */
static void turn(void) {
    struct epoll_event events[MAX_EVENTS];
    int num_events = epoll_wait(poller, events, MAX_EVENTS, 10);
    for (int i = 0; i < num_events; i++) {
        struct client *client = events[i].data.ptr;
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_answers(client);
        if (events[i].events & EPOLLOUT && client->num_unsent) write_unsent(client);
    }
}

int main(int count, char **arguments) {
    if (count != 7) fail("load PORT CLIENTS DEPTH WARMUP_S DURATION_S FRAME_BYTES");
    num_clients = (uint32_t)atoi(arguments[2]);
    depth = (uint32_t)atoi(arguments[3]);
    frame_bytes = (size_t)atoi(arguments[6]);
    if (depth < 1 || depth > MAX_DEPTH) fail("a depth from 1 to %d", MAX_DEPTH);
    signal(SIGPIPE, SIG_IGN);
    read_messages();
    poller = epoll_create1(0);
    clients = calloc(num_clients, sizeof *clients);
    if (!clients) fail("no memory for the clients");
    uint64_t give_up_ns = now_ns() + GIVE_UP_S * 1000000000ull;
    for (uint32_t i = 0; i < num_clients; i++)
        open_connection(&clients[i], (uint16_t)atoi(arguments[1]));
    usleep(ACCEPT_US);
    for (uint32_t i = 0; i < num_clients; i++)
        if (clients[i].phase == ANSWERING) send_more(&clients[i], now_ns());
    while (!have_all_been_answered() && now_ns() < give_up_ns) turn();

    begin_ns = now_ns() + (uint64_t)(atof(arguments[4]) * 1e9);
    end_ns = begin_ns + (uint64_t)(atof(arguments[5]) * 1e9);
    while (now_ns() < begin_ns) turn();
    uint64_t began_ns = now_ns();
    double cpu_s = cpu_seconds();
    while (now_ns() < end_ns) turn();
    cpu_s = cpu_seconds() - cpu_s;
    double seconds = 1e-9 * (double)(now_ns() - began_ns);

    is_ending = 1;
    give_up_ns = now_ns() + GIVE_UP_S * 1000000000ull;
    while (num_in_flight && now_ns() < give_up_ns) turn();
    if (num_in_flight) fail("%zu messages were never answered", num_in_flight);
    printf("%.9f %.6f %zu %zu %zu\n", seconds, cpu_s, num_latencies, num_failed, num_answers);
    fwrite(latencies, sizeof *latencies, num_latencies, stdout);
    return 0;
}
