/* The programs in the static binary. */
#ifndef PYRUN_MAIN_H
#define PYRUN_MAIN_H

int become_own_root(char **argv);      /* 0, also for root; else an exit status */
int is_host_root(void);                /* root, and of no user namespace */
int quick_main(int argc, char **argv); /* an exit status, or -1: nothing was done */
int launcher_main(int argc, char **argv);
int guard_main(int argc, char **argv);
int init_main(int argc, char **argv);
int monitor_main(int argc, char **argv);
int reaper_main(int argc, char **argv);
void give_back_code(void); /* what is needed is mapped again */
int undo_main(int argc, char **argv);

#endif
