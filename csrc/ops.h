/* The operations init executes: the single source of their numbers, for C (init*.c) and for Python
 * (through the shim, as lib.OP_...). The comment gives the arguments in order; see plan/operations.py for
 * the values and plan/catalogue/ for what each one means to a reader. Numbers are never reused. */
#ifndef PYRUN_OPS_H
#define PYRUN_OPS_H

#define OP_CGROUP_JOIN 1  /* tasks-file (cgroup v1: write 0 to it) */
#define OP_PROPAGATION 2  /* propagation-flags of every mount of this namespace */
#define OP_ROOT_BIND 3    /* directory [fd]: a tree that exists becomes the root */
#define OP_ROOT_OVERLAY 4 /* mountpoint upper work how lower...: lowers from the top layer down */
#define OP_MOUNT 5        /* target type source attributes data... */
#define OP_BIND 6       /* target source set how propagation [clear named fd userns-fd tree-set tree-clear spread...] */
#define OP_ATTRIBUTES 7 /* target set clear recursive propagation: change a mount that is there */
#define OP_DEVICE 8     /* path mode major minor uid gid [path-on-the-host] */
#define OP_SYMLINK 9    /* path destination [replaces] */
#define OP_DIRECTORY 10 /* path mode uid gid */
#define OP_MASK 11      /* path data...: data of the tmpfs that hides directories */
#define OP_READONLY 12  /* path */
#define OP_PIVOT 13     /* [shared]: the host's mounts still propagate to the host */
#define OP_ROOT_READONLY 14     /* */
#define OP_HOSTNAME 15          /* name */
#define OP_DOMAINNAME 16        /* name */
#define OP_SYSCTL 17            /* path-below-/proc/sys value */
#define OP_RLIMIT 18            /* resource soft hard */
#define OP_LOOPBACK_UP 19       /* */
#define OP_WAIT_GO 20           /* wait for the planner's GO (network, maps and limits are set) */
#define OP_OOM_SCORE 21         /* value */
#define OP_SESSION 22           /* keyring [name]: setsid, and with 1 a session keyring, new or the one of that name */
#define OP_TERMINAL 23          /* rows columns uid console controls plain: a pty of the container's becomes fds 0-2 */
#define OP_NO_NEW_PRIVILEGES 24 /* */
#define OP_SECCOMP 25           /* fd-of-program flags late: load it now, or just before execve */
#define OP_BOUNDING 26          /* bounding: drop every other capability from the bounding set */
#define OP_IDENTITY 27          /* uid gid umask group...: keeps permitted capabilities until OP_CAPABILITIES */
#define OP_CAPABILITIES 28      /* effective permitted inheritable ambient */
#define OP_DIRECTORY_CURRENT 29 /* path: chdir, then make sure it is inside the root */
#define OP_ENTER 30             /* fd flags: setns */
#define OP_REAPER 31            /* stay as pid 1, run the rest as a child, reap orphans (--init) */
#define OP_ENVIRONMENT 32       /* NAME=value...: replaces the environment */
#define OP_EXECUTE 33           /* argument...: the end of the plan */
#define OP_UNSHARE 34           /* flags: namespaces that must be made after the cgroups are joined */

/* path timeout-s directory state-head state-tail argument-count argument... environment... */
#define OP_HOOK 35
#define OP_START 36         /* listening-fd [kept-fd...]: created; wait there for `start`, with these alone */
#define OP_ROOT_IDENTITY 37 /* become root of the user namespace, once its maps are written */
#define OP_PRESERVE 38      /* first-fd count: the caller's descriptors get the numbers from 3 on */

#define OP_ROOT_PARENT 40 /* directory propagation-flag: of the mount that holds the directory */
#define OP_TMPFS_COPY 41  /* target attributes data...: a tmpfs with what the directory holds */
#define OP_MOUNT_OLD 42   /* target type source MS-flags data...: as OP_MOUNT, by mount(2) */
#define OP_REMOUNT 43     /* target set clear data...: change a mount that is there, and its file system */
#define OP_CGROUP2 44     /* target directory attributes: the unified hierarchy, or where it may not be mounted that */
#define OP_MOUNT_LABEL 45 /* target label */
#define OP_ROOT_MOVE 46   /* path...: into the root by chroot; mounts of the host's to take away before */

#define OP_GUARD 50         /* nobody but the host's root may look into init from here to execve */
#define OP_SCHEDULER 51     /* policy nice priority flags runtime-ns deadline-ns period-ns */
#define OP_IO_PRIORITY 52   /* class and priority as ioprio_set wants them */
#define OP_AFFINITY 53      /* first-cpu last-cpu...: ranges; none at all: every processor */
#define OP_MEMORY_POLICY 54 /* mode-and-flags first-node last-node...: ranges */
#define OP_PERSONALITY 55   /* persona */
#define OP_LABEL 56         /* optional value file...: into the first of these that exists below /proc/self/attr */
#define OP_LOOK_UP 57       /* command uid gid effective PATH group...: find the program, execute nothing */
#define OP_STREAMS 58       /* uid: standard streams: pipes become the user's, /dev/null the container's */
#define OP_PROCFS 59 /* [fd]: a procfs now, of our own or the one given: where masks are mounted it is too late */

#define OP_NO_IPV6 60  /* interface...: none of these has it; without any: none that comes has it */
#define OP_WRITABLE 61 /* path: a mount of its own, which stays writable when the root turns read-only */

/* path: a directory of the root that is going to be covered is kept at hand; shown there again, over what covers it */
#define OP_KEEP 62
#define OP_SHOW_KEPT 63

/* fd now: the pid namespace that a procfs shows; 1: entered at once, to be born in */
#define OP_PID_NAMESPACE 64
/* report-fd mailbox-fd terminal kept-fd...: a child, born in the pid namespace that was entered, goes on with the plan.
 * It has these descriptors alone, ascending; what it says goes to report-fd, its pid into the mailbox. */
#define OP_BIRTH 65

#define OP_ROOT_SHOWN 66 /* directory place: a tree that exists is shown there, and becomes the root */
#define OP_CHROOT 67     /* place: what is mounted there becomes the root */

#define OP_LAST 67

/* How OP_BIND binds. */
#define BIND_TREE 1        /* with all mounts below the source */
#define BIND_PASSED 2      /* what is passed, whether the source can be reached or not */
#define BIND_LOCKED 4      /* what is passed keeps the attributes it has, as if the kernel saw to it */
#define BIND_OWNERS_TREE 8 /* the id mapping for all mounts below, too */

/* How OP_ROOT_OVERLAY mounts. */
#define OVERLAY_VOLATILE 1 /* nothing is synced: it is going to be thrown away */
#define OVERLAY_USER 2     /* in a user namespace, which may not write trusted.overlay.*: user.overlay.* instead */

/* Descriptors init finds open. Everything else is close-on-exec. */
#define FD_PLAN 3 /* memfd with the plan, read once from offset 0 */
#define FD_SYNC 4 /* SOCK_SEQPACKET to the planner, see handshake.py */
#define FD_FREE 5 /* first of those a plan names itself */

/* Messages on FD_SYNC: one byte, then the payload. */
#define MESSAGE_GO 'G'       /* planner or `start` -> init: go on; its pid on the host, for an init of an older build */
#define MESSAGE_WAITING 'W'  /* init -> planner: at OP_WAIT_GO */
#define MESSAGE_CREATED 'C'  /* init -> planner: at OP_START, and the planner's part is over */
#define MESSAGE_READY 'R'    /* init -> planner: everything but execve is done */
#define MESSAGE_FAILED 'F'   /* init -> planner: "operation-index errno detail" */
#define MESSAGE_TTY 'T'      /* init -> planner: carries the pty master as SCM_RIGHTS */
#define MESSAGE_LISTENER 'N' /* init -> planner: the number seccomp's listener is about to have; back: it was taken */

#endif
