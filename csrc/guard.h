/* The guard: one small process for all networks of a run directory. guard.c has the whole picture. */
#ifndef PYRUN_GUARD_H
#define PYRUN_GUARD_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { NETWORKS = 4096, NAME_SIZE = 129, ADDRESS_SIZE = 48, DNS_SOCKETS = 4, PASSED_MOST = 250 };

/* What a descriptor in the epoll set is; the number beside it is an index or the descriptor. */
enum source { LISTENER, CLIENT, SIGNALS, FILES, TABLES, LINKS, QUESTION, RESOLVER, LOOPBACK };

/* A network, or a container whose names are answered inside its own network namespace, called by its id. */
struct network {
    char name[NAME_SIZE], gateway[ADDRESS_SIZE], gateway6[ADDRESS_SIZE];
    int inside;           /* descriptor of that namespace; -1: this one */
    int asks;             /* it has servers of its own, which are asked from there */
    int leases;           /* inotify's watch of its leases, or of the container's note */
    int fds[DNS_SOCKETS]; /* udp, tcp, udp and tcp of IPv6; -1 */
    int port;
    int told; /* the resolver has these sockets */
};

struct guard {
    const char *run;
    const char *program; /* this binary, where it was when we began: there may be another installation's by now */
    int epoll_fd, files_fd;
    struct network networks[NETWORKS];
    int count;
};
extern struct guard guard;

/* guard.c */
int64_t now_ms(void);
void sooner(int64_t *deadline, int64_t other); /* of two times in ms; 0: never */
void watch(int fd, enum source source, int number);
void unwatch(int fd);
int wait_for_room(void); /* after accept4: whether that is why it failed; ports_listen is called when it has waited */
pid_t start_program(const char *const *argv, int fd, const char *errors); /* fd becomes its descriptor 3 */
int run_path(char *path, size_t size, const char *below, const char *name);

/* guard_dns.c */
int dns_need(const char *name, const char *gateway, const char *gateway6);      /* the port, or -errno */
int dns_inside(const char *name, const char *port, int asks, int namespace_fd); /* takes the descriptor; the same */
void dns_forget(int number);
void dns_question(void);
void dns_resolver(void);
void dns_ended(pid_t pid);
void dns_policies(const char *name);
int dns_has_policies(void); /* whether any container has one */
int64_t dns_tick(void);     /* what is due; when to be called again, 0: never */
pid_t dns_pid(void);
void dns_stop(void);

/* guard_ports.c */
int ports_hold(const char *name, const char *target, int fd);
void ports_gone(const char *name);
void ports_listen(void); /* again, to all of them */
void ports_connection(int fd);
void ports_ended(pid_t pid);
int ports_watch(void); /* inotify's watch of the claims, -1 before the first */
int ports_count(void);

/* guard_watch.c */
void watch_start(void);
void watch_tables(void);
void watch_links(void);
void watch_switches(void); /* from now on: there is a policy */
void watch_ended(pid_t pid);
int watch_rested(void);
void watch_woken(void);
int64_t watch_tick(void);
void watch_sweep(void);

/* guard_filter.c */
enum { ENDED_GROUP = 0x70797275 /* network/templates.py has it too */ };
#define OUR_LINKS "pyr"                  /* how the names of our bridges begin */
void filter_links(int fd, int switches); /* before it joins a group, and again */
void filter_tables(int fd);

/* guard_spare.c */
void spare_start(char *shown); /* argv[0] */
void spare_ended(pid_t pid);
void spare_stop(void);
pid_t spare_pid(void);
int64_t spare_tick(void);

#endif
