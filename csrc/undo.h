/* Taking back what a container's start did. See undo.c. */
#ifndef PYRUN_UNDO_H
#define PYRUN_UNDO_H

int undo_run(int fd); /* execute the list in this file; returns how many operations failed */

/* 0 or -errno; see remove.c. path: below directory_fd, which may be AT_FDCWD */
int remove_tree(int directory_fd, const char *path);
int remove_cgroups(const char *path); /* the cgroup and those below it */
int kill_cgroups(const char *path);
int forget_flows6(char **fields); /* see flows.c */
int remove_directory(const char *path);

#endif
