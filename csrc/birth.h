/* How init is born. For the shim (the planner clones) and the hand (the launcher clones for a warm planner). */
#ifndef PYRUN_BIRTH_H
#define PYRUN_BIRTH_H
#include <stdint.h>

/* clone3 with vfork semantics, then execveat(exe_fd) with an empty environment. keep: pairs (fd, number the child sees
 * it as), ended by -1; cgroup_fd: to be born in, or -1; pidfd: receives a descriptor of the child. The pid, or -errno.
 */
long birth_clone(uint64_t flags, int cgroup_fd, int exe_fd, const char *name, const int *keep, int *pidfd);

/* The same in a user namespace that exists, and in a pid namespace if pid_fd >= 0. */
long birth_clone_inside(int user_fd, int pid_fd, uint64_t flags, int cgroup_fd, int exe_fd, const char *name,
                        const int *keep, int *pidfd);

/* Before an exec: every descriptor of keep at its number; *exe_fd goes out of their way. 0, or -1. */
int birth_place(const int *keep, int *exe_fd);

#endif
