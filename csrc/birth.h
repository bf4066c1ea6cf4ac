/* How init is born. For the shim (the planner clones) and the hand (the launcher clones for a warm planner). */
#ifndef PYRUN_BIRTH_H
#define PYRUN_BIRTH_H
#include <stdint.h>

/* clone3 with vfork semantics, then execveat(exe_fd) with an empty environment. keep: pairs (fd, number the child sees
 * it as), ended by -1; cgroup_fd: to be born in, or -1; inside: namespaces to enter before, in this order, ended by -1:
 * those that are made belong to the user namespace among them; pidfd: receives a descriptor of the child. The pid, or
 * -errno. */
long birth_clone(uint64_t flags, int cgroup_fd, int exe_fd, const char *name, const int *keep, const int *inside,
                 int *pidfd);

/* Before an exec: every descriptor of keep at its number; *exe_fd goes out of their way. 0, or -1. */
int birth_place(const int *keep, int *exe_fd);

#endif
