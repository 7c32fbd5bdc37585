/* The load of the benchmark: so many connections, on each of them one message at a time.
 *
 *     load MODE PORT CONNECTIONS BYTES SECONDS WARM_UP SERVER
 *
 * MODE is tcp, tls or udp: messages of BYTES go to a server that sends them back, which is
 * checked; http: GET requests; connect-close, handshakes: a new connection, plain or TLS,
 * for each message; hold-tcp, hold-tls: see hold(). The server is on 127.0.0.1. SERVER is the id of
 * its process, whose CPU clock is read where the measuring begins and ends; 0 for none.
 *
 * Prints a line of JSON; ends with 1, and says why on stderr, if the server does not do its part.
 * Built without WITH_TLS it knows the modes without TLS.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#else
typedef void SSL;
#endif

enum {
    EVENTS = 1024,            /* taken from the kernel at a time */
    WARM_UP_CONNECTIONS = 20, /* of hold() */
    UNACCEPTED = 64,          /* connections that the server may have to catch up with */
    PORTS_USED = 20000,       /* of one source address, before the next one is taken */
    PATIENCE = 20,            /* seconds without any answer, until the server counts as stuck */
    TICK = 100,               /* milliseconds, of looking at the clock when nothing happens */
    CHECKED = 256,            /* bytes of all that arrive at a time: more than a period of them */
    LOST_AFTER = 500,         /* milliseconds, until a datagram counts as lost */
};

typedef struct {
    int fd;
    SSL *ssl;
    size_t sent, got; /* bytes of the message under way */
    int64_t since;    /* nanoseconds: when it was begun */
} Connection;

static bool use_tls, use_udp, use_http, reconnects;
static struct sockaddr_in server = {.sin_family = AF_INET};
static size_t request_size, reply_size;
static char *request;
static char *received;
static const size_t RECEIVED = 1 << 20;
static int poller;

static int64_t operations, lost, last_operation;

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static int64_t clock_ns(clockid_t id)
{
    struct timespec time;
    if (clock_gettime(id, &time)) return -1;
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int64_t now(void) { return clock_ns(CLOCK_MONOTONIC); }

/* Latencies, in buckets that are 1/64 of their power of two wide */

static uint32_t histogram[64 * 64];

static void record(uint64_t ns)
{
    int power = ns < 64 ? 5 : 63 - __builtin_clzll(ns);
    histogram[power == 5 ? ns : (power - 5) * 64 + ((ns >> (power - 6)) & 63)]++;
}

/* Microseconds that this share of the operations took at most. */
static double percentile(double share)
{
    int64_t wanted = (int64_t)(share * operations), seen = 0;
    for (int i = 0; i < 64 * 64; i++) {
        seen += histogram[i];
        if (seen > wanted)
            return i < 64 ? i / 1e3 : ((129ULL + 2 * (i % 64)) << (i / 64 - 1)) / 2e3;
    }
    return 0;
}

/* Bytes in and out; 0 says that there is nothing to do now. A connection's end is a failure. */

#ifdef WITH_TLS
static SSL_CTX *context;

/* Whose certificate it is does not matter here, and to find that out takes time. */
static int accept_certificate(X509_STORE_CTX *certificate, void *argument)
{
    (void)certificate, (void)argument;
    return 1;
}

static size_t tls_result(Connection *c, int result)
{
    if (result > 0) return result;
    int error = SSL_get_error(c->ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    fail("the TLS connection failed: %s", reason ? reason : "the server closed it");
}
#endif

static size_t transmit(Connection *c, const char *data, size_t size)
{
#ifdef WITH_TLS
    if (c->ssl) return tls_result(c, SSL_write(c->ssl, data, size));
#endif
    ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) fail("sending failed: %s", strerror(errno));
    return n < 0 ? 0 : n;
}

static size_t receive(Connection *c)
{
#ifdef WITH_TLS
    if (c->ssl) return tls_result(c, SSL_read(c->ssl, received, RECEIVED));
#endif
    ssize_t n = recv(c->fd, received, RECEIVED, 0);
    if (n == 0) fail("the server closed a connection");
    if (n < 0 && errno != EAGAIN && errno != EINTR) fail("receiving failed: %s", strerror(errno));
    return n < 0 ? 0 : n;
}

/* Connections */

static void source_address(int fd)
{
    static int64_t opened;
    int64_t address = 1 + opened++ / PORTS_USED;
    if (address == 1 || use_udp) return;
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl((127 << 24) + address);
    int yes = 1;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    if (bind(fd, (void *)&from, sizeof from)) fail("bind failed: %s", strerror(errno));
}

/* A socket that is connected, and blocks unless it is one of many that follow each other; with TLS
 * the first message makes the handshake. */
static void dial(Connection *c)
{
    int type = use_udp ? SOCK_DGRAM : SOCK_STREAM, yes = 1;
    c->fd = socket(AF_INET, reconnects ? type | SOCK_NONBLOCK : type, 0);
    if (c->fd < 0) fail("no socket: %s", strerror(errno));
    source_address(c->fd);
    if (!reconnects) {
        struct timeval patience = {.tv_sec = PATIENCE};
        setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    }
    if (connect(c->fd, (void *)&server, sizeof server) && errno != EINPROGRESS)
        fail("connect failed: %s", strerror(errno));
    if (!use_udp && (use_tls || !reconnects)) /* a single byte is not held back in any case */
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    c->ssl = NULL;
#ifdef WITH_TLS
    if (use_tls) {
        c->ssl = SSL_new(context);
        SSL_set_fd(c->ssl, c->fd);
        SSL_set_connect_state(c->ssl);
    }
#endif
}

static void handshake(Connection *c)
{
#ifdef WITH_TLS
    if (c->ssl && !tls_result(c, SSL_do_handshake(c->ssl))) fail("no answer in the handshake");
#else
    (void)c;
#endif
}

static void hang_up(Connection *c)
{
#ifdef WITH_TLS
    if (c->ssl) {
        SSL_shutdown(c->ssl);
        SSL_free(c->ssl);
        ERR_clear_error();
    }
#endif
    close(c->fd);
}

static void watch(Connection *c)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    if (!reconnects) fcntl(c->fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
}

/* Messages */

static void begin(Connection *c)
{
    c->sent = c->got = 0;
    c->since = now();
}

static void push(Connection *c)
{
    size_t n;
    while (c->sent < request_size &&
           (n = transmit(c, request + c->sent, request_size - c->sent)))
        c->sent += n;
}

/* Take what has arrived; false if that is nothing. */
static bool pull(Connection *c)
{
    size_t n = receive(c);
    if (c->got + n > reply_size) fail("the server sent more than it was to");
    if (!use_http && memcmp(received, request + c->got, n < CHECKED ? n : CHECKED))
        fail("the server sent wrong bytes");
    c->got += n;
    return n;
}

/* One message on a connection that blocks. */
static void exchange(Connection *c)
{
    for (begin(c); c->sent < request_size;) {
        size_t before = c->sent;
        push(c);
        if (c->sent == before) fail("the server takes nothing");
    }
    while (c->got < reply_size)
        if (!pull(c)) fail("no answer for %d seconds", PATIENCE);
}

static void complete(Connection *c)
{
    last_operation = now();
    record(last_operation - c->since);
    operations++;
    if (reconnects) {
        hang_up(c);
        int64_t since = now();
        dial(c);
        watch(c);
        begin(c);
        c->since = since;
    } else {
        begin(c);
    }
    push(c);
}

static void advance(Connection *c)
{
    push(c);
    while (pull(c)) {
        if (c->got == reply_size) {
            complete(c);
            return; /* what arrives from now on is an event of its own */
        }
        push(c);
    }
}

/* How long the server's answer to a request is: the first one tells. */
static void learn_reply(void)
{
    Connection c;
    dial(&c);
    if (transmit(&c, request, request_size) != request_size) fail("the server takes nothing");
    char head[65536], *end = NULL, *length;
    size_t size = 0;
    while (!end) {
        ssize_t n = recv(c.fd, head + size, sizeof head - 1 - size, 0);
        if (n <= 0) fail("no HTTP response");
        head[size += n] = 0;
        end = strstr(head, "\r\n\r\n");
    }
    if (strncmp(head, "HTTP/1.1 200", 12)) fail("the HTTP response is not of status 200");
    if (!(length = strcasestr(head, "\r\ncontent-length:"))) fail("a response without its length");
    reply_size = end + 4 - head + strtoul(length + 17, NULL, 10);
    hang_up(&c);
}

/* Connect all; now and then wait, by a connection more, until the server has caught up. */
static void dial_all(Connection *connections, int count)
{
    for (int i = 0; i < count; i++) {
        dial(&connections[i]);
        handshake(&connections[i]);
        if ((i + 1) % UNACCEPTED == 0 && !use_udp) {
            Connection probe;
            dial(&probe);
            exchange(&probe);
            hang_up(&probe);
        }
    }
}

static void wait_for_a_line(void)
{
    printf("holding\n");
    fflush(stdout);
    if (getchar() == EOF) exit(0);
}

/* Hold idle connections: a few, and when told to, by a line, so many more. Once told again, send a
 * message on each of these and wait for the answer. */
static void hold(int count)
{
    Connection first[WARM_UP_CONNECTIONS], *rest = calloc(count, sizeof *rest);
    dial_all(first, WARM_UP_CONNECTIONS);
    wait_for_a_line();
    dial_all(rest, count);
    wait_for_a_line();
    for (int i = 0; i < count; i++, operations++) exchange(&rest[i]);
    printf("{\"operations\": %lld}\n", (long long)operations);
}

static void send_again(Connection *connections, int count)
{
    for (int i = 0; i < count; i++)
        if (now() - connections[i].since > LOST_AFTER * 1000000LL) {
            lost++;
            begin(&connections[i]);
            push(&connections[i]);
        }
}

static void run(int count, double seconds, double warm_up, pid_t process)
{
    Connection *connections = calloc(count, sizeof *connections);
    struct epoll_event events[EVENTS];
    clockid_t cpu;
    bool measuring = false, has_cpu = process && !clock_getcpuclockid(process, &cpu);
    int64_t cpu_before = 0, began = 0, looked = now();

    if (use_http) learn_reply();
    if (!reconnects) dial_all(connections, count);
    for (int i = 0; i < count; i++) {
        if (reconnects) dial(&connections[i]);
        watch(&connections[i]);
        begin(&connections[i]);
        push(&connections[i]);
    }
    int64_t from = (last_operation = now()) + (int64_t)(warm_up * 1e9), time;
    while (!measuring || !operations || now() - began < seconds * 1e9 ||
           (has_cpu && clock_ns(cpu) == cpu_before)) { /* the server has had no turn */
        time = now();
        if (!measuring && time >= from) {
            measuring = true;
            memset(histogram, 0, sizeof histogram);
            operations = lost = 0;
            began = time;
            if (has_cpu) cpu_before = clock_ns(cpu);
        }
        int n = epoll_wait(poller, events, EVENTS, TICK);
        if (n < 0 && errno != EINTR) fail("epoll_wait failed: %s", strerror(errno));
        for (int i = 0; i < n; i++) advance(events[i].data.ptr);
        if (time - last_operation > PATIENCE * 1000000000LL)
            fail("no answer for %d seconds", PATIENCE);
        if (use_udp && time - looked > TICK * 1000000LL) {
            looked = time;
            send_again(connections, count);
        }
    }
    time = now();
    int64_t cpu_after = has_cpu ? clock_ns(cpu) : -1;
    printf("{\"operations\": %lld, \"seconds\": %.6f, \"lost\": %lld, \"p50\": %.2f, \"p99\": %.2f",
           (long long)operations, (time - began) / 1e9, (long long)lost, percentile(0.5),
           percentile(0.99));
    if (cpu_after >= 0) printf(", \"cpu\": %.6f", (cpu_after - cpu_before) / 1e9);
    printf("}\n");
}

static void set_up(const char *mode, size_t size)
{
    use_udp = !strcmp(mode, "udp");
    use_http = !strcmp(mode, "http");
    use_tls = !strcmp(mode, "tls") || !strcmp(mode, "handshakes") || !strcmp(mode, "hold-tls");
    reconnects = !strcmp(mode, "connect-close") || !strcmp(mode, "handshakes");
    if (use_http) {
        request = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        request_size = strlen(request);
    } else {
        request = malloc(size);
        request_size = reply_size = size;
        for (size_t i = 0; i < size; i++) request[i] = i * 31 % 251;
    }
    received = malloc(RECEIVED);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (use_tls) {
#ifdef WITH_TLS
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_cert_verify_callback(context, accept_certificate, NULL);
        SSL_CTX_set_mode(context,
                         SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#else
        fail("built without TLS");
#endif
    }
}

int main(int argc, char **argv)
{
    if (argc != 8) fail("usage: load MODE PORT CONNECTIONS BYTES SECONDS WARM_UP SERVER");
    signal(SIGPIPE, SIG_IGN); /* OpenSSL sends without MSG_NOSIGNAL */
    set_up(argv[1], strtoul(argv[4], NULL, 10));
    server.sin_port = htons(atoi(argv[2]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int count = atoi(argv[3]);
    if (!strncmp(argv[1], "hold-", 5))
        hold(count);
    else
        run(count, atof(argv[5]), atof(argv[6]), atoi(argv[7]));
    return 0;
}
