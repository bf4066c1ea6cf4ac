/* The shim: system calls Python lacks, one function a call, for runtime/pyrun/linux.py through cffi (API mode); and
 * remove_tree, which is no call, but there once.
 *
 * Every function returns what the call returns, or -errno; it decides nothing and prints nothing. The part between
 * the marks is read twice: by the C compiler, and by build_backend.py as cffi's declarations. */
#ifndef PYRUN_SHIM_H
#define PYRUN_SHIM_H
#include <stddef.h>
#include <stdint.h>

/* cdef-begin */
/* clone3 with vfork semantics, then execveat(exe_fd): see birth.c for what happens in between.
 * keep: pairs (fd, number the child sees it as), ended by -1; inside: namespaces to be born in, entered in this order,
 * ended by -1; pidfd: receives a descriptor of the child, which is ours in any case. */
long shim_clone_exec(uint64_t flags, int cgroup_fd, int exe_fd, const char *name, const int *keep, const int *inside,
                     int *pidfd);
long shim_setns(int fd, int nstype);
long shim_unshare(int flags);
long shim_pidfd_send_signal(int pidfd, int signal);
long shim_pidfd_getfd(int pidfd, int target_fd);
long shim_openat2(int dir_fd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
long shim_open_tree(int dir_fd, const char *path, unsigned int flags);
long shim_mount_setattr(int dir_fd, const char *path, unsigned int flags, uint64_t set, uint64_t clear,
                        uint64_t propagation, int userns_fd);
/* clone, write the maps of the child's user namespace, open it, and end the child: a namespace to map owners by. */
long shim_user_namespace(const char *uid_map, const char *gid_map);
long shim_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data);
long shim_umount2(const char *target, int flags);
long shim_close_range(unsigned int first, unsigned int last, unsigned int flags);
long shim_madvise(uint64_t address, uint64_t length, int advice);
long shim_execveat(int fd, char *const argv[], char *const envp[]);
long shim_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
long shim_bpf(int command, void *attributes, unsigned int size);
/* Both ends of a connection that keeps packets apart. */
long shim_packet_pair(int *fds);
/* One packet; passed_fd: receives the descriptor that came with it, or -1. */
long shim_receive(int fd, char *buffer, size_t size, int *passed_fd);
long shim_name_to_mount(int dir_fd, const char *path, uint64_t *mount_id);
/* The type of the file system, one of linux/magic.h. */
long shim_fstatfs(int fd);
/* remove.c: a directory with everything below it. */
long shim_remove_tree(int dir_fd, const char *path);
/* cdef-end */

#endif
